//! `palinode revert`

use std::path::PathBuf;

use clap::Args as ClapArgs;
use palinode::Restored;

use crate::command_error::Failure;
use crate::outputs::OverwriteArgs;
use crate::terminal::print;

/// Remove an update from an edited model's folder
///
/// Writes the unedited model into a new folder. With --base, copies the weights from the original model. Without it,
/// subtracts the change, and shows whether the result equals the original in every bit.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode revert out/edit/update.safetensors models/gpt2-edited --output models/gpt2-again
  palinode revert out/edit/update.safetensors models/gpt2-edited --base models/gpt2 --output models/gpt2-again")]
pub struct Args {
    /// The update that the model was edited with.
    update: PathBuf,

    /// The edited model's folder, as `export` or `apply` wrote it.
    model: PathBuf,

    /// The folder to write. It must not exist yet, or be empty.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,

    /// The unedited model's folder, if you have it.
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,

    /// Remove it even if the folder's palinode.json does not name this update.
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    overwrite: OverwriteArgs,
}

/// Reverts, and tells how near the result is.
pub fn run(args: &Args) -> Result<(), Failure> {
    let (base, overwrite) = (args.base.as_deref(), args.overwrite.get());
    let restored = palinode::revert(&args.update, &args.model, base, &args.output, args.force, overwrite)?;
    let how = match restored {
        Restored::FromBase => "bit for bit: its weights are those of --base",
        Restored::Exactly => "bit for bit: its weights' digests are the original's",
        Restored::WithinRounding => {
            "within rounding: weights that the update touched may differ from the original's in their last bits (--base avoids that)"
        }
    };
    print(&format!("unedited model: {}, {how}\n", args.output.display()))
}
