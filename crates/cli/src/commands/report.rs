//! `palinode report`

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use palinode::{Error, ErrorKind, Maker, Output, PastRun, Runs, Single, Store, plan, write_files};
use palinode_report::{Document, render};
use serde_json::Map;

use crate::again;
use crate::command_error::Failure;
use crate::input::{PipelineArgs, StoreArgs};
use crate::outputs::{OverwriteArgs, is_sealed, sealed};
use crate::results::from_here;
use crate::terminal::{Reading, Style, format, print};

/// Write a run's results as one HTML page
///
/// The page has tables with intervals, curves and heat maps, the changes in each layer, every single edit, samples, the
/// stages with their times, and the source of each number. It is one file that needs no network. With --assets, also writes
/// the figures as SVG and the tables as CSV and LaTeX.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode report                                     the newest run, to report.html
  palinode report 20260131-235959-1f3a -o page.html   a run by its ID, or by a prefix of it
  palinode report latest~1 latest                     two runs beside each other
  palinode report --columns S,ES,NS --group-by strategy  three columns, rows grouped by an axis
  palinode report pipeline.yaml --assets paper        a pipeline's results in the store; figures and tables to paper/")]
pub struct Args {
    /// A run, or a pipeline file whose results in the store the page shows; several of them stand beside each other. The default is the newest
    /// run.
    #[arg(value_name = "RUN|PIPELINE")]
    what: Vec<String>,

    /// With a pipeline file: set a value of it, as for `palinode run`.
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,

    /// Columns of the tables of results, by name or heading, in this order; several with commas between. The default is all.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    columns: Vec<String>,

    /// Group rows by this axis of the matrix: it stands first.
    #[arg(long, value_name = "AXIS")]
    group_by: Option<String>,

    #[command(flatten)]
    store: StoreArgs,

    /// The file to write; - for stdout.
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    output: PathBuf,

    /// A folder for the figures (figures/*.svg) and the tables (tables/*.csv, tables/*.tex).
    #[arg(long, value_name = "DIR")]
    assets: Option<PathBuf>,

    #[command(flatten)]
    overwrite: OverwriteArgs,
}

/// Writes the page.
pub fn run(args: &Args) -> Result<(), Failure> {
    let store = args.store.share()?;
    let latest = ["latest".to_owned()];
    let named = if args.what.is_empty() { &latest[..] } else { &args.what[..] };
    let mut runs: Vec<(String, PastRun)> = Vec::new();
    for what in named {
        let past = past(what, args, &store)?;
        if past.stages.iter().all(|stage| stage.key.is_none()) {
            let error = Error::new(ErrorKind::Usage, format!("the store has no results of {}", past.pipeline));
            return Err(error.hint(format!("`{}` computes them", again::on_store("palinode run"))).into());
        }
        let name = past.run.clone().unwrap_or_else(|| what.clone());
        if runs.iter().any(|(known, _)| *known == name) {
            let error = Error::new(ErrorKind::Usage, format!("{name} stands twice"));
            return Err(error.hint("name each run once").into());
        }
        runs.push((name, past));
    }
    let names = short_names(&runs);
    runs.iter_mut().zip(names).for_each(|((name, _), short)| *name = short);
    let mut report = match runs.as_slice() {
        [(_, alone)] => palinode::report(alone, &store),
        several => palinode::reports(several, &store),
    };
    let columns: Vec<String> = args.columns.iter().map(|name| name.trim().to_owned()).collect();
    let chosen = if columns.is_empty() { Ok(()) } else { report.choose_columns(&columns) };
    chosen.map_err(|(name, known)| unknown("column", &name, &known))?;
    if let Some(axis) = &args.group_by {
        report.group_by(axis).map_err(|(name, known)| unknown("axis", &name, &known))?;
    }
    let past = &runs[0].1;
    let document = render(&report).map_err(|error| Error::internal(format!("the page: {error}")))?;
    let mut written = Vec::new();
    if args.output == Path::new("-") && args.assets.is_none() {
        return print(&document.html);
    }
    let assets = args.assets.as_ref().map(|folder| assets(folder, &document, past, &store, args)).transpose()?;
    if args.output != Path::new("-") {
        write(&args.output, &document.html, args)?;
    }
    if let (Some(folder), Some(assets)) = (&args.assets, assets) {
        assets.finish(Map::new())?;
        let files = format::count(document.assets.len(), "file");
        written.push(format!("{}/  {files}", from_here(folder).display()));
    }
    if args.output == Path::new("-") {
        return print(&document.html);
    }
    written.insert(0, format!("{}  {}", from_here(&args.output).display(), format::size(document.html.len() as u64)));
    let style = Style::stdout();
    let names: Vec<&str> = runs.iter().filter_map(|(_, past)| past.run.as_deref()).collect();
    let of = match names.as_slice() {
        [] => String::new(),
        [run] => format!(", run {run}"),
        several => format!(", runs {}", several.join(", ")),
    };
    print(&format!("{}{}\n  {}\n", style.bold(&report.title), style.dim(&of), written.join("\n  ")))
}

/// What runs are called beside each other: by their pipelines where these differ, else by the end of their IDs, by which commands know them too. IDs
/// as a whole, which begin with the day, fill half of a figure and look alike.
fn short_names(runs: &[(String, PastRun)]) -> Vec<String> {
    let distinct = |names: &[String]| names.iter().collect::<BTreeSet<_>>().len() == names.len();
    let pipelines: Vec<String> = runs.iter().map(|(_, past)| past.pipeline.clone()).collect();
    if distinct(&pipelines) {
        return pipelines;
    }
    let end = |(name, past): &(String, PastRun)| match &past.run {
        Some(run) => run.rsplit('-').next().unwrap_or(run).to_owned(),
        None => name.clone(),
    };
    let ends: Vec<String> = runs.iter().map(end).collect();
    let alike = pipelines.iter().all(|pipeline| *pipeline == pipelines[0]);
    let short = if alike {
        ends
    } else {
        pipelines.iter().zip(ends).map(|(pipeline, end)| format!("{pipeline} {end}")).collect()
    };
    if distinct(&short) { short } else { runs.iter().map(|(name, _)| name.clone()).collect() }
}

/// A name that nothing has, with those that there are.
fn unknown(what: &str, name: &str, known: &[String]) -> Error {
    let error = Error::new(ErrorKind::Usage, format!("the results have no {what} `{name}`"));
    let known = known.join(", ");
    error.hint(if known.is_empty() { format!("there is no {what}") } else { format!("there are {known}") })
}

/// The run that is meant.
fn past(what: &str, args: &Args, store: &Store) -> Result<PastRun, Failure> {
    let path = Path::new(what);
    let pipeline = path.extension().is_some_and(|end| end == "yaml" || end == "yml") || path.is_file();
    if !pipeline {
        let runs = Runs::of(store.root());
        return Ok(PastRun::open(&runs, &runs.open(what)?)?);
    }
    let loaded = PipelineArgs { path: path.to_owned(), set: args.set.clone() }.load()?;
    Ok(PastRun::planned(&loaded, &plan(&loaded, store, &Reading)?))
}

/// The folder of the assets, until it is put into its place.
fn assets(folder: &Path, document: &Document, past: &PastRun, store: &Store, args: &Args) -> Result<Output, Error> {
    let maker = Maker::of(store.root(), folder, &past.pipeline, "palinode report");
    let mut assets = Output::begin(folder, maker, BTreeMap::new(), args.overwrite.get())?;
    for asset in &document.assets {
        assets.write(&asset.path, asset.text.as_bytes())?;
    }
    Ok(assets)
}

fn write(path: &Path, html: &str, args: &Args) -> Result<(), Error> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(|error| Error::io(ErrorKind::Usage, "write", path, error))?;
    }
    let html = sealed(html, ("<!--", "-->"));
    write_files(&[Single { path, bytes: html.as_bytes(), is_ours: Some(is_sealed) }], args.overwrite.get())
}
