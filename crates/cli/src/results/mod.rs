//! What a run yielded, as a person reads it: scores, samples, and files.

mod cell;
pub mod metrics;
mod samples;
mod scores;
pub mod traced;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};

use palinode::shown::Shown;
use palinode::{Averages, Digest, Instance, Pipeline, RunReport, Scored, condensed, scored};

pub use cell::{Cell, plain};

use crate::terminal::{Style, format};

/// A stage and its instances, as indices into [`Pipeline::instances`].
pub struct Group<'a> {
    /// The stage's name in the file.
    pub stage: &'a str,
    /// Its instances.
    pub members: Vec<usize>,
}

/// The instances by stage, in the order of the run.
pub fn by_stage(pipeline: &Pipeline) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    for (at, instance) in pipeline.instances.iter().enumerate() {
        let group = *known.entry(&instance.stage).or_insert_with(|| {
            groups.push(Group { stage: &instance.stage, members: Vec::new() });
            groups.len() - 1
        });
        groups[group].members.push(at);
    }
    groups
}

/// The result of one instance of a stage.
pub struct Yield<'a> {
    /// The instance.
    pub instance: &'a str,
    /// Its cell.
    pub cell: &'a Cell,
    /// What its result shows.
    pub shown: Shown,
    /// What tracing found, where it did.
    pub traced: Option<Averages>,
    /// Its scores record by record, where it has some.
    pub scored: Option<Scored>,
}

/// Everything that the results of a run have to show.
pub fn show(pipeline: &Pipeline, report: &RunReport, place: impl Fn(&Digest) -> PathBuf, style: &Style) -> String {
    let mut text = String::new();
    for group in by_stage(pipeline) {
        let yielded = |&at: &usize| {
            let Instance { name, cell, .. } = &pipeline.instances[at];
            let artifact = report.stages[at].artifact.as_ref()?;
            let scored = scored(artifact, |digest| Some(place(digest)));
            let traced = traced::of(&artifact.meta);
            Some(Yield { instance: name, cell, shown: Shown::of(&artifact.meta), traced, scored })
        };
        let members: Vec<Yield<'_>> = group.members.iter().filter_map(yielded).collect();
        text.push_str(&stage(group.stage, &pipeline.axes, &pipeline.replicates, &members, style));
    }
    text.push_str(&published(pipeline, report, style));
    text
}

/// Scores and samples of the instances of one stage; nothing where they have none.
pub fn stage(name: &str, axes: &[String], replicates: &[String], members: &[Yield<'_>], style: &Style) -> String {
    let mut text = String::new();
    let rows: Vec<scores::Member<'_>> =
        members.iter().map(|member| (member.cell, &member.shown, member.scored.as_ref())).collect();
    let mut chosen = 0;
    if rows.iter().any(|(_, shown, _)| shown.metrics.is_some()) {
        let scores = scores::Scores::of(axes, replicates, &rows);
        let _ = write!(text, "\n{}\n{}", style.bold(name), scores.table(style));
        chosen = scores.best_row().unwrap_or(0);
    }
    for (member, found) in members.iter().filter_map(|member| Some((member, member.traced.as_ref()?))) {
        if members.len() > 1 {
            let _ = write!(text, "\n{}", style.bold(&format!("{name}, {}", cell::name(member.cell))));
        }
        text.push_str(&traced::show(found, style));
    }
    if let Some(series) = scores::Scores::series(axes, replicates, &rows) {
        let _ = write!(text, "\n{}\n{}", style.bold(&format!("{name}, step by step")), series.table(style));
    }
    let found = |member: &&Yield<'_>| member.shown.findings.as_ref().is_some_and(|all| !all.is_empty());
    if members.iter().any(|member| found(&member)) && !text.is_empty() {
        text.push('\n');
    }
    let findings: Vec<(&Yield<'_>, &String)> = members
        .iter()
        .flat_map(|member| member.shown.findings.iter().flatten().map(move |finding| (member, finding)))
        .collect();
    for (member, finding) in findings.iter().take(FINDINGS) {
        let finding = match cell::name(member.cell) {
            cell if members.len() > 1 && !cell.is_empty() => format!("{cell}: {finding}"),
            _ => (*finding).clone(),
        };
        let wrapped = style.wrap(&finding, 4);
        let _ = write!(text, "  ! {}", wrapped.get(4..).unwrap_or("\n"));
    }
    if findings.len() > FINDINGS {
        let _ = writeln!(text, "  ! and {} more, which the report shows", findings.len() - FINDINGS);
    }
    text.push_str(&notes(members, style));
    let sampled = |member: &&Yield<'_>| member.shown.samples.as_ref().is_some_and(|all| !all.is_empty());
    if let Some(member) = members.get(chosen).filter(sampled).or_else(|| members.iter().find(sampled)) {
        let mut more = if members.len() > 1 { format!(" of {}", member.instance) } else { String::new() };
        if let Some(models) = member.shown.metric("models").filter(|models| *models > 1.0) {
            let _ = write!(more, ", each of another of its {models} models");
        }
        let samples = member.shown.samples.as_deref().unwrap_or_default();
        let _ = writeln!(text, "\n{}", style.bold(&format!("samples{more}")));
        text.push_str(&samples::show(samples, style));
    }
    text
}

/// Findings of one stage that are shown; of a large matrix there are hundreds.
const FINDINGS: usize = 24;
/// Instances whose notes are shown; of more of them, the report has the rest.
const NOTED: usize = 4;

/// What the figures mean beside each other.
fn notes(members: &[Yield<'_>], style: &Style) -> String {
    let cell = |member: &Yield<'_>| if members.len() > 1 { cell::name(member.cell) } else { String::new() };
    let all = members.iter().flat_map(|member| {
        let cell = cell(member);
        member.shown.notes.iter().flatten().map(move |note| (cell.clone(), note.clone()))
    });
    let (mut text, mut before, mut cells) = (String::new(), None, 0);
    let notes = condensed(all.collect(), NOTED);
    let mut more: Vec<&str> = Vec::new();
    for (cell, note) in &notes {
        if before != Some(cell) {
            cells += 1;
            // What is said of all together stands at the end, and always.
            if cells > NOTED && !cell.is_empty() {
                more.push(cell);
                before = Some(cell);
                continue;
            }
            text.push('\n');
            if !cell.is_empty() {
                let _ = writeln!(text, "{cell}");
            }
            before = Some(cell);
        } else if more.last() == Some(&cell.as_str()) {
            continue;
        }
        let wrapped = style.wrap(note, 4);
        let _ = write!(text, "  · {}", wrapped.get(4..).unwrap_or("\n"));
    }
    if !more.is_empty() {
        let _ = writeln!(text, "  and of {} more, which the report shows", more.len());
    }
    text
}

/// Files written outside the store; of a folder with many, the folder.
fn published(pipeline: &Pipeline, report: &RunReport, style: &Style) -> String {
    let mut folders: Vec<(PathBuf, Vec<(PathBuf, u64)>)> = Vec::new();
    let artifacts = || report.stages.iter().filter_map(|stage| stage.artifact.as_ref());
    let mut held: HashMap<PathBuf, &str> = HashMap::new();
    for found in artifacts() {
        let top = found.published.iter().min_by_key(|file| file.path.components().count());
        if let (Some(holds), Some(file)) = (found.meta["holds"].as_str(), top) {
            let path = from_here(&pipeline.base.join(&file.path));
            held.insert(path.parent().map(Path::to_owned).unwrap_or_default(), holds);
        }
    }
    for file in artifacts().flat_map(|found| &found.published) {
        let path = from_here(&pipeline.base.join(&file.path));
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let known = folders.iter().position(|(known, _)| *known == folder);
        let at = known.unwrap_or_else(|| {
            folders.push((folder, Vec::new()));
            folders.len() - 1
        });
        folders[at].1.push((path, file.file.size));
    }
    if folders.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{}\n", style.bold("files"));
    for (folder, files) in folders {
        let holds = held.get(&folder).map(|holds| format!("; {holds}")).unwrap_or_default();
        if files.len() > MANY {
            let size = format::size(files.iter().map(|(_, size)| size).sum());
            let count = format::count(files.len(), "file");
            let _ = writeln!(text, "  {}/  {}", folder.display(), style.dim(&format!("{count}, {size}{holds}")));
            continue;
        }
        for (path, size) in files {
            let _ = writeln!(text, "  {}  {}", path.display(), style.dim(&format!("{}{holds}", format::size(size))));
        }
    }
    text
}

/// More files than this in one folder are shown as the folder.
const MANY: usize = 3;

/// A path as one would type it here.
pub fn from_here(path: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    let full = without_detours(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    full.strip_prefix(&here).map_or(full.clone(), Path::to_owned)
}

/// A path without `a/..`, as a person would have written it.
fn without_detours(path: &Path) -> PathBuf {
    let mut straight = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                straight.pop();
            }
            other => straight.push(other),
        }
    }
    straight
}
