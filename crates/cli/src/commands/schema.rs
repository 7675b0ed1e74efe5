//! `palinode schema`

use std::path::PathBuf;

use clap::Args as ClapArgs;
use palinode::{Single, part_schema, pipeline_schema, write_files};
use serde_json::Value;

use crate::command_error::Failure;
use crate::outputs::OverwriteArgs;
use crate::terminal::print;

/// Print the JSON Schema of pipeline files, or of parts that they include
///
/// With the schema, an editor completes stage names and parameters, shows their documentation, and marks mistakes while you
/// type.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode schema --output pipeline.schema.json
  palinode schema --part --output part.schema.json

In the first line of a pipeline, for editors with a YAML language server:
  # yaml-language-server: $schema=pipeline.schema.json")]
pub struct Args {
    /// The schema of files that pipelines include: in them, nothing is missing.
    #[arg(long)]
    part: bool,

    /// Write to this file instead of stdout.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    #[command(flatten)]
    overwrite: OverwriteArgs,
}

/// Prints or writes the schema.
pub fn run(args: &Args) -> Result<(), Failure> {
    let catalogue = palinode::catalogue();
    let schema = if args.part { part_schema(&catalogue) } else { pipeline_schema(&catalogue) };
    let text = format!("{schema:#}\n");
    match &args.output {
        None => print(&text),
        Some(path) => {
            let file = Single { path, bytes: text.as_bytes(), is_ours: Some(is_schema) };
            Ok(write_files(&[file], args.overwrite.get())?)
        }
    }
}

/// Whether a file is a schema of pipelines, of this version of the program or another.
fn is_schema(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Value>(bytes).is_ok_and(|schema| {
        let properties = &schema["properties"];
        schema["$schema"].is_string() && properties["stages"].is_object() && properties["matrix"].is_object()
    })
}
