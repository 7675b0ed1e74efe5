//! `palinode schema`

use std::path::PathBuf;

use clap::Args as ClapArgs;
use palinode::{Error, ErrorKind, pipeline_schema};

use crate::command_error::Failure;
use crate::terminal::print;

/// Print the JSON Schema of pipeline files
///
/// With the schema, an editor completes stage names and parameters, shows their documentation, and marks mistakes while you
/// type.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode schema --output pipeline.schema.json

In the first line of a pipeline, for editors with a YAML language server:
  # yaml-language-server: $schema=pipeline.schema.json")]
pub struct Args {
    /// Write to this file instead of stdout.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Prints or writes the schema.
pub fn run(args: &Args) -> Result<(), Failure> {
    let schema = pipeline_schema(&palinode::catalogue());
    let text = format!("{schema:#}\n");
    match &args.output {
        None => print(&text),
        Some(path) => {
            Ok(std::fs::write(path, text).map_err(|error| Error::io(ErrorKind::Usage, "write", path, error))?)
        }
    }
}
