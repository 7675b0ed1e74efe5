//! `palinode graph`

mod dot;
mod layout;
mod mermaid;
mod model;
mod svg;
mod text;

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};
use palinode::{Ended, Error, ErrorKind, RunRecord};

use crate::command_error::Failure;
use crate::input::{PipelineArgs, StoreArgs};
use crate::terminal::{Style, complain, print};
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

/// Draws the graph.
pub fn run(args: &Args) -> Result<(), Failure> {
    let pipeline = args.pipeline.load()?;
    let runs = args.store.runs()?;
    let states = match runs.holder() {
        None if runs.store_exists() => model::planned(&pipeline, &args.store.open()?)?,
        None => model::unknown(&pipeline),
        Some(_) => {
            let of_this = |run: &RunRecord| run.ended == Ended::Not && run.pipeline == pipeline.name;
            let running = runs.list().into_iter().find(of_this);
            if running.is_none() {
                complain("note: the store is in use, so what is cached is not shown\n");
            }
            running.map_or_else(|| model::unknown(&pipeline), |run| model::running(&pipeline, &run))
        }
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
            Ok(std::fs::write(path, text).map_err(|error| Error::io(ErrorKind::Usage, "write", path, error))?)
        }
    }
}
