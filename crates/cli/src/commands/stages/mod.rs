//! `palinode stages`

mod page;
mod words;

use clap::Args as ClapArgs;
use palinode::{Catalogue, Error, ErrorKind, Port, StageInfo, did_you_mean};
use serde_json::{Value, json};

use crate::command_error::Failure;
use crate::terminal::table::{Column, Field, Look, table};
use crate::terminal::{Style, print, print_json};

/// List the stages that a pipeline can use, or explain one
///
/// The page of a stage has its documentation, its inputs and its output, and its parameters with types and defaults.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode stages
  palinode stages covariance")]
pub struct Args {
    /// The stage to explain.
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// Prints the list or a page.
pub fn run(args: &Args) -> Result<(), Failure> {
    let catalogue = palinode::catalogue();
    let style = Style::stdout();
    let Some(name) = &args.name else {
        if args.json {
            return print_json(&catalogue.iter().map(|stage| told(stage.info())).collect::<Vec<_>>());
        }
        return print(&list(&catalogue, &style));
    };
    if let Some(stage) = catalogue.get(name) {
        if args.json {
            return print_json(&told(stage.info()));
        }
        return print(&page::page(stage.info(), &style));
    }
    let hint = did_you_mean(name, catalogue.names()).unwrap_or_else(|| "see `palinode stages`".to_owned());
    Err(Error::new(ErrorKind::Usage, format!("there is no stage `{name}`")).hint(hint).into())
}

/// A stage for programs.
fn told(info: &StageInfo) -> Value {
    let port =
        |port: &Port| json!({ "name": port.name, "accepts": port.accepts, "required": port.required, "doc": port.doc });
    json!({
        "name": info.name,
        "version": info.version,
        "summary": info.summary,
        "doc": info.doc,
        "inputs": info.inputs.iter().map(port).collect::<Vec<_>>(),
        "output": info.output,
        "unkeyed": info.unkeyed,
        "last_digits": info.last_digits,
        "parameters": info.schema,
    })
}

fn list(catalogue: &Catalogue, style: &Style) -> String {
    let columns =
        [("STAGE", Column::Name), ("TAKES", Column::Text), ("YIELDS", Column::Name), ("WHAT IT DOES", Column::Text)];
    let rows = catalogue.iter().map(|stage| {
        let info = stage.info();
        let takes: Vec<String> = info.inputs.iter().map(port).collect();
        vec![
            Field::new(info.name, Look::Bold),
            takes.join(", ").into(),
            info.output.into(),
            info.summary.trim_end_matches('.').into(),
        ]
    });
    let more = style.dim("\nOptional inputs are in brackets. For all about one: palinode stages NAME\n");
    table(style, &columns, rows.collect()) + &more
}

fn port(port: &Port) -> String {
    if port.required { port.name.to_owned() } else { format!("[{}]", port.name) }
}
