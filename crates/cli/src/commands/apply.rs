//! `palinode apply`

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::command_error::Failure;
use crate::commands::revert::listed;
use crate::outputs::OverwriteArgs;
use crate::terminal::print;

/// Add an update to a model's folder
///
/// Writes the edited model into a new folder. The model's own folder does not change. Of a GGUF file, writes a folder in Hugging Face's
/// layout. An update that was made for other weights is an error. A weight of which rounding would lose more than 5 % of the change is written
/// in f32.
///
/// Onto an edited model with a ledger, an update goes on top, if it was made for that model or for the unedited one. An edit of it
/// supersedes an earlier one of the same fact.
#[derive(ClapArgs)]
#[command(after_help = "\
Example:
  palinode apply out/edit/update.safetensors models/gpt2 --output models/gpt2-edited")]
pub struct Args {
    /// The update.safetensors that `export` wrote, or the folder that has it.
    update: PathBuf,

    /// The model's folder, or GGUF file: the unedited one, or an edited one with a ledger.
    model: PathBuf,

    /// The folder to write. One that is there must have been written by this command and not been changed since.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,

    /// Add it even if the update was made for other weights.
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    overwrite: OverwriteArgs,
}

/// Applies, and tells where.
pub fn run(args: &Args) -> Result<(), Failure> {
    let applied = palinode::apply(&args.update, &args.model, &args.output, args.force, args.overwrite.get())?;
    let mut text = format!("edited model: {}\n", args.output.display());
    text.push_str(&listed("superseded, and taken off", &applied.superseded));
    for note in applied.notes {
        let _ = writeln!(text, "  · {note}");
    }
    print(&text)
}
