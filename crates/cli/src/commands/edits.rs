//! `palinode edits`

use std::path::PathBuf;

use clap::Args as ClapArgs;
use palinode::{EditLine, Edits, edits, size};

use crate::command_error::Failure;
use crate::terminal::table::{Column, Field, Look, table};
use crate::terminal::{Style, print, print_json};

/// List the edits in a model's folder or an update
///
/// Shows each edit with its number, by which `palinode revert MODEL --edit NUMBER` takes it off. Numbers stay as they are when other edits
/// are taken off. An edit that a later one of the same fact supersedes says so.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode edits out/edit
  palinode edits out/edit/update.safetensors --json")]
pub struct Args {
    /// An edited model's folder, or its update.safetensors.
    path: PathBuf,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Lists.
pub fn run(args: &Args) -> Result<(), Failure> {
    let found = edits(&args.path)?;
    if args.json {
        return print_json(&found);
    }
    print(&shown(&found))
}

fn shown(found: &Edits) -> String {
    let style = Style::stdout();
    let dash = || "–".to_owned();
    let text = |text: &Option<String>| text.clone().unwrap_or_else(dash);
    let row = |edit: &EditLine| {
        let look = if edit.superseded_by.is_some() { Look::Dim } else { Look::Plain };
        let state = edit.superseded_by.map_or_else(String::new, |by| format!("superseded by {by}"));
        [
            edit.number.map_or_else(dash, |number| number.to_string()),
            edit.request.clone(),
            text(&edit.prompt),
            text(&edit.target),
            edit.layers.join(", "),
            edit.batch.map_or_else(dash, |batch| batch.to_string()),
            text(&edit.when),
            text(&edit.file),
            state,
        ]
        .into_iter()
        .map(|text| Field::new(text, look))
        .collect::<Vec<_>>()
    };
    let columns = [
        ("number", Column::Number),
        ("request", Column::Name),
        ("prompt", Column::Text),
        ("answer", Column::Text),
        ("layers", Column::Name),
        ("batch", Column::Number),
        ("when", Column::Name),
        ("by", Column::Name),
        ("", Column::Name),
    ];
    let mut out = table(&style, &columns, found.edits.iter().map(row).collect());
    let updates = found.kept.len();
    out.push_str(&match found.ledger {
        Some(bytes) => {
            let off = found.kept.iter().filter(|kept| **kept).count();
            let what = match (off, updates) {
                (0, _) => {
                    "which come off together; of a sequence, those of the last round do so by themselves".to_owned()
                }
                (off, all) if off == all => "each of them can be taken off by itself".to_owned(),
                (off, all) => format!("those of {off} of {all} updates can be taken off by themselves"),
            };
            format!("\n{} edits, {what}; the ledger takes {}\n", found.edits.len(), size(bytes))
        }
        None => format!(
            "\n{} edits; there is no ledger.safetensors, so only all of them can be taken off\n",
            found.edits.len()
        ),
    });
    out
}
