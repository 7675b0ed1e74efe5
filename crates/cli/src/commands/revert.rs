//! `palinode revert`

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use palinode::{Error, ErrorKind, How, Restored, TakeOff, TakenOff, take_off};

use crate::command_error::Failure;
use crate::input::StoreArgs;
use crate::outputs::OverwriteArgs;
use crate::terminal::print;

/// Remove an update, or some of its edits, from an edited model's folder
///
/// Writes the unedited model into a new folder. With --base, copies the weights from the original model. Without it,
/// subtracts the change, and shows whether the result equals the original in every bit.
///
/// With --edit, takes single edits off, and writes the model with the others into a new folder. At one layer, the others are what a solve
/// without the edit gives, from what the ledger kept. Over several layers they are solved again, on the model, with the second moments in
/// the store. What can't be taken off by itself is an error that says what would have to run.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode revert out/edit/update.safetensors models/gpt2-edited --output models/gpt2-again
  palinode revert out/edit/update.safetensors models/gpt2-edited --base models/gpt2 --output models/gpt2-again
  palinode revert out/edit --edit 7 --output out/without
  palinode revert out/edit --edit 7 --edit \"The Eiffel Tower\" --base models/gpt2 --output out/without
  palinode revert out/edit/update.safetensors --edit 7 --output out/update-without")]
pub struct Args {
    /// The update that the model was edited with: its update.safetensors, or the folder that has it. With --edit, the edited model's
    /// folder, or an update.safetensors by itself.
    update: PathBuf,

    /// The edited model's folder, as `export` or `apply` wrote it. Not with --edit.
    model: Option<PathBuf>,

    /// Take this edit off: by its number in `palinode edits`, by its request's name, or by its subject. Can be given several times.
    #[arg(long, value_name = "EDIT", allow_negative_numbers = true)]
    edit: Vec<String>,

    /// The folder to write. It must not exist yet, or be empty. One with edits left, which this command wrote and nothing has changed since,
    /// is written over.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,

    /// The unedited model's folder, if you have it.
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,

    #[command(flatten)]
    store: StoreArgs,

    /// Remove it even if the folder's palinode.json does not name this update, or a later edit of the same fact was made on top.
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    overwrite: OverwriteArgs,
}

/// Reverts, and tells how near the result is.
pub fn run(args: &Args) -> Result<(), Failure> {
    let (base, overwrite) = (args.base.as_deref(), args.overwrite.get());
    let model = match (&args.model, &args.edit[..]) {
        (None, [_, ..]) => return some(args),
        (Some(model), []) => model,
        (None, []) => {
            let message = "neither an edit nor a model is named, from which the whole update should come off";
            let place = args.update.display();
            return Err(Error::new(ErrorKind::Usage, message)
                .hint(format!(
                    "`palinode edits {place}` lists the edits, `--edit NUMBER` takes one off; for all of an update: \
                     `palinode revert UPDATE MODEL --output DIR`"
                ))
                .into());
        }
        (Some(model), [_, ..]) => {
            let message = "with --edit, one place is named: an edited model's folder, or an update by itself";
            return Err(Error::new(ErrorKind::Usage, message)
                .hint(format!("leave out {}: `palinode revert {} --edit …`", model.display(), args.update.display()))
                .into());
        }
    };
    let taken = palinode::revert(&args.update, model, base, &args.output, args.force, overwrite)?;
    if taken.updates > 0 {
        return print(&told(&taken, args));
    }
    if let Some(why) = &taken.unchecked {
        let out = args.output.display();
        return print(&format!("model with the change subtracted: {out}\n  ! it may not be the unedited one: {why}\n"));
    }
    let how = match taken.weights {
        Some(Restored::FromBase) => "bit for bit: its weights are those of --base",
        Some(Restored::Exactly) => "bit for bit: its weights' digests are the original's",
        Some(Restored::WithinRounding) | None => {
            "within rounding: weights that the update touched may differ from the original's in their last bits (--base avoids that)"
        }
    };
    print(&format!("unedited model: {}, {how}\n", args.output.display()))
}

/// Edits behind what was done to them: one in the same line, several below it.
pub fn listed(what: &str, edits: &[String]) -> String {
    const TOLD: usize = 8;
    match edits {
        [] => String::new(),
        [edit] => format!("{what}: {edit}\n"),
        all => {
            let mut text = format!("{what}: {} edits\n", all.len());
            for edit in all.iter().take(TOLD) {
                let _ = writeln!(text, "  {edit}");
            }
            if all.len() > TOLD {
                let _ = writeln!(text, "  and {} more", all.len() - TOLD);
            }
            text
        }
    }
}

/// Takes single edits off, and tells what the others are.
fn some(args: &Args) -> Result<(), Failure> {
    let asked = TakeOff {
        place: &args.update,
        edits: &args.edit,
        base: args.base.as_deref(),
        store: &args.store.store,
        out: &args.output,
        force: args.force,
        overwrite: args.overwrite.get(),
    };
    print(&told(&take_off(&asked)?, args))
}

fn told(taken: &TakenOff, args: &Args) -> String {
    let what = if taken.weights.is_some() { "model" } else { "update" };
    let mut text = listed("taken off", &taken.edits);
    let _ = match taken.left {
        0 if taken.updates == 0 => writeln!(text, "unedited {what}: {}", args.output.display()),
        0 => writeln!(
            text,
            "{what} with the updates that are left, of which no edit is known: {}",
            args.output.display()
        ),
        1 => writeln!(text, "{what} with the edit that is left: {}", args.output.display()),
        left => writeln!(text, "{what} with the {left} edits that are left: {}", args.output.display()),
    };
    for how in &taken.how {
        text.push_str(&match how {
            How::Whole if taken.updates == 0 => String::new(),
            How::Whole => "  a whole update, or its last round: the others stand as they were made\n".to_owned(),
            How::Exactly => {
                "  exactly: the change is that of a solve without it, from what the ledger kept\n".to_owned()
            }
            How::Again(layers) => {
                let layers: Vec<String> = layers.iter().map(ToString::to_string).collect();
                format!("  solved again: layers {}, with keys and residuals measured anew\n", layers.join(", "))
            }
        });
    }
    if let Some(why) = &taken.unchecked {
        let _ = writeln!(text, "  ! the model may not be what this says: {why}");
    }
    if let Some(later) = &taken.later {
        let _ = writeln!(text, "  ! made on the model that had it, and left as it was made: {later}");
    }
    text.push_str(match taken.weights {
        None => "",
        Some(Restored::FromBase) if taken.updates == 0 => "  bit for bit: the weights are those of --base\n",
        Some(Restored::FromBase) => "  the weights are those of --base, with what is left added once\n",
        Some(Restored::Exactly) => "  bit for bit: the weights' digests are the unedited model's\n",
        Some(Restored::WithinRounding) if taken.updates == 0 => {
            "  within rounding: weights that the update touched may differ from the unedited model's in their last bits (--base avoids that)\n"
        }
        Some(Restored::WithinRounding) => {
            "  within rounding: weights that the update touched may differ in their last bits from the others put onto the unedited model (--base avoids that)\n"
        }
    });
    if taken.lost > 0.0 {
        let _ = writeln!(
            text,
            "  rounding to the type that the weights are stored in took {:.2} % of what was added to a weight",
            100.0 * taken.lost
        );
    }
    text
}
