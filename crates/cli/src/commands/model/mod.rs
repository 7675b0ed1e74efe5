//! `palinode model`

mod page;

use clap::{Args as ClapArgs, Subcommand};
use palinode::{Error, inspect, model_folder};

use crate::command_error::Failure;
use crate::input::NetworkArgs;
use crate::interrupt;
use crate::terminal::{How, Style, print};

/// Inspect model folders
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode model inspect models/gpt2
  palinode model inspect models/Qwen3-0.6B --json")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show what a model folder holds, what can be edited in it, and how much memory each stage needs
    ///
    /// Reads only descriptions (config.json, the headers of the weight files, the tokenizer), so it is fast for a model of
    /// any size. Reports everything that would keep load_model from opening the folder.
    #[command(after_help = "\
Examples:
  palinode model inspect models/gpt2
  palinode model inspect models/Qwen3-0.6B --json | jq -r '.editable[].name'")]
    Inspect {
        /// The folder with config.json, tokenizer.json and the weights as safetensors; or a GGUF file; or a model of the Hugging Face Hub,
        /// hf:owner/name.
        #[arg(value_name = "PATH")]
        path: String,
        #[command(flatten)]
        network: NetworkArgs,
        /// Print one JSON document, with sizes in bytes and every editable weight.
        #[arg(long)]
        json: bool,
    },
}

/// Looks and tells.
pub fn run(args: &Args) -> Result<(), Failure> {
    let Command::Inspect { path, network, json } = &args.command;
    let how = if *json { How::Quiet } else { How::Person };
    let folder = network.with(how, &interrupt::watch(), |network| model_folder(path, network))?;
    let found = inspect(&folder)?;
    if *json {
        let text = serde_json::to_string_pretty(&found).map_err(|error| Error::internal(error.to_string()))?;
        return print(&format!("{text}\n"));
    }
    print(&page::page(&found, &Style::stdout()))
}
