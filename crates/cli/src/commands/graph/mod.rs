//! `palinode graph`

mod dot;
mod layout;
mod mermaid;
mod model;
mod svg;
mod text;

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};
use palinode::{Ended, RunRecord, Single, write_files};

use crate::command_error::Failure;
use crate::input::{PipelineArgs, StoreArgs};
use crate::outputs::{OverwriteArgs, is_sealed, sealed};
use crate::terminal::{Style, print};
use model::Graph;

/// Draw the graph of stages, and mark what is cached
///
/// Draws one line or box for each stage; with --cells, one for each cell of the matrix. Text and SVG leave out a connection
/// that follows from others: where a model feeds the edit and also the edit's inputs, only the longer path is drawn.
/// Mermaid and dot show all connections.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode graph pipeline.yaml
  palinode graph pipeline.yaml --cells
  palinode graph pipeline.yaml --format svg --output graph.svg
  palinode graph pipeline.yaml --format dot | dot -Tpdf > graph.pdf
  palinode graph pipeline.yaml --format mermaid           for Markdown")]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,

    #[command(flatten)]
    store: StoreArgs,

    /// The output format.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// One box for each cell of the matrix.
    #[arg(long)]
    cells: bool,

    /// Write to this file instead of stdout.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    #[command(flatten)]
    overwrite: OverwriteArgs,
}

/// What to draw a graph as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines for a terminal.
    Text,
    /// A flowchart for Markdown.
    Mermaid,
    /// For Graphviz.
    Dot,
    /// A picture in one file, for light and dark pages.
    Svg,
    /// Nodes, states and inputs for programs.
    Json,
}

impl Format {
    /// What begins and ends a comment.
    fn comment(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Svg => Some(("<!--", "-->")),
            Self::Mermaid => Some(("%%", "")),
            Self::Dot => Some(("//", "")),
            Self::Text | Self::Json => None,
        }
    }
}

/// Draws the graph.
pub fn run(args: &Args) -> Result<(), Failure> {
    let pipeline = args.pipeline.load()?;
    let runs = args.store.runs()?;
    let of_this = |run: &RunRecord| run.ended == Ended::Not && run.pipeline == pipeline.name;
    let running = runs.holder().and_then(|_| runs.list().into_iter().find(of_this));
    let states = match running {
        Some(run) => model::running(&pipeline, &run),
        None if runs.store_exists() => model::planned(&pipeline, &args.store.open_or_look()?)?,
        None => model::unknown(&pipeline),
    };
    let graph = Graph::of(&pipeline, &states, args.cells);
    let style = if args.output.is_some() { Style { color: false, ..Style::stdout() } } else { Style::stdout() };
    let text = match args.format {
        Format::Text => text::draw(&graph, &style),
        Format::Mermaid => mermaid::draw(&graph),
        Format::Dot => dot::draw(&graph),
        Format::Svg => svg::draw(&graph),
        Format::Json => graph.json(),
    };
    match &args.output {
        None => print(&text),
        Some(path) => {
            let text = args.format.comment().map_or(text.clone(), |comment| sealed(&text, comment));
            let file = Single { path, bytes: text.as_bytes(), is_ours: Some(is_sealed) };
            Ok(write_files(&[file], args.overwrite.get())?)
        }
    }
}
