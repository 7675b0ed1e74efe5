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
    let count = if found.edits.len() == 1 { "1 edit".to_owned() } else { format!("{} edits", found.edits.len()) };
    let alone: Vec<&EditLine> = found.edits.iter().filter(|edit| edit.alone).collect();
    out.push_str(&match (found.ledger, &alone[..]) {
        (None, _) => format!("\n{count}; there is no ledger of them, so only the whole update can be taken off\n"),
        (Some(bytes), alone) => {
            let what = match alone {
                [_] if found.edits.len() == 1 => "which can be taken off".to_owned(),
                [] => "which can be taken off together, and not one by one".to_owned(),
                alone if alone.len() == found.edits.len() => "each of them can be taken off by itself".to_owned(),
                alone => format!("of which {} can be taken off by themselves: {}", alone.len(), ranges(alone)),
            };
            format!("\n{count}, {what}; the ledger takes {}\n", size(bytes))
        }
    });
    if found.fits == Some(false) {
        out.push_str("! the weights beside the ledger are others than it is of: they were changed since, or the ledger is another model's\n");
    }
    out
}

/// The numbers of edits, those in a row joined.
fn ranges(edits: &[&EditLine]) -> String {
    let mut rows: Vec<(usize, usize)> = Vec::new();
    for number in edits.iter().filter_map(|edit| edit.number) {
        match rows.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => rows.push((number, number)),
        }
    }
    let row = |(first, last): &(usize, usize)| {
        if first == last { first.to_string() } else { format!("{first} to {last}") }
    };
    rows.iter().map(row).collect::<Vec<_>>().join(", ")
}
