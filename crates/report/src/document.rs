//! Everything that a report yields: the page, and figures and tables as files.

use crate::data::Report;
use crate::section::{Part, Section};
use crate::{choose, graph, page};

/// A report as text.
#[derive(Clone, Debug)]
pub struct Document {
    /// The page: one file that needs no other and no network.
    pub html: String,
    /// Figures and tables, each as a file.
    pub assets: Vec<Asset>,
}

/// A file beside the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asset {
    /// Its path, of folder and name.
    pub path: String,
    /// What it holds.
    pub text: String,
}

/// Writes a report.
///
/// # Errors
/// When a template does not fit the data, which is a mistake in the program.
pub fn render(report: &Report) -> Result<Document, minijinja::Error> {
    let sections = sections(report);
    let html = page::page(report, &sections)?;
    let mut assets = Vec::new();
    for part in sections.iter().flat_map(|section| &section.parts) {
        match part {
            Part::Figure(figure) => asset(&mut assets, "figures", &figure.name, "svg", figure.file()),
            Part::Table(table) => {
                asset(&mut assets, "tables", &table.name, "csv", table.csv());
                asset(&mut assets, "tables", &table.name, "tex", table.latex());
            }
            Part::Notes(_) => {}
        }
    }
    if !report.edits.rows.is_empty() {
        asset(&mut assets, "tables", "edits", "csv", report.edits.table().csv());
    }
    Ok(Document { html, assets })
}

/// Adds a file under a name that is not taken yet.
fn asset(assets: &mut Vec<Asset>, folder: &str, name: &str, end: &str, text: String) {
    let stem = crate::losses::stem(name);
    let paths = std::iter::once(format!("{folder}/{stem}.{end}"));
    let mut paths = paths.chain((2..).map(|more| format!("{folder}/{stem}-{more}.{end}")));
    let free = paths.find(|path| assets.iter().all(|asset| asset.path != *path));
    assets.extend(free.map(|path| Asset { path, text }));
}

fn sections(report: &Report) -> Vec<Section> {
    let mut sections = Vec::new();
    let mut add = |id, short, title, parts: Vec<Part>| {
        if !parts.is_empty() {
            sections.push(Section { id, short, title, parts });
        }
    };
    let mut results = Vec::new();
    let mut others = Vec::new();
    for measured in &report.measured {
        let parts = if measured.result { &mut results } else { &mut others };
        parts.push(Part::Table(measured.table()));
        parts.extend((!measured.notes.is_empty()).then(|| Part::Notes(measured.notes.clone())));
        parts.extend(choose::figures(measured).into_iter().map(Part::Figure));
        parts.extend(measured.steps_table().map(Part::Table));
        parts.extend(choose::retention(measured).into_iter().map(Part::Figure));
        parts.extend(measured.retention_table().map(Part::Table));
    }
    let layers = report.layers.iter().flat_map(|layers| {
        let figure = layers.figure().map(Part::Figure);
        figure.into_iter().chain((!layers.rows.is_empty()).then(|| Part::Table(layers.table())))
    });
    let losses = report.losses.iter().flat_map(|losses| {
        let figures = [losses.summary(), losses.each()];
        figures.into_iter().flatten().map(Part::Figure)
    });
    let traced = report.traced.iter().flat_map(|traced| {
        let figures = [Some(traced.maps()), Some(traced.lines()), traced.each()];
        figures.into_iter().flatten().map(Part::Figure).chain(std::iter::once(Part::Table(traced.table())))
    });
    let traced: Vec<Part> = traced.collect();
    add("results", "Results", "Results", results);
    add("traced", "Where facts are", "Where facts are kept", traced);
    add("layers", "Layers", "What was written, layer by layer", layers.collect());
    add("targets", "Targets", "How targets were found", losses.collect());
    add("measures", "Further measurements", "Further measurements", others);
    let mut stages: Vec<Part> = graph::figure(&report.stages).map(Part::Figure).into_iter().collect();
    if !stages.is_empty() {
        stages.push(Part::Table(graph::table(&report.stages)));
        stages.extend(Some(graph::files(&report.stages)).filter(|table| !table.rows.is_empty()).map(Part::Table));
    }
    add("stages", "Provenance", "Stages and provenance", stages);
    sections
}
