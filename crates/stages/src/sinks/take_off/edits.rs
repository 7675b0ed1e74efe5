//! What edits a model's folder or an update says that it has.

use std::collections::BTreeMap;
use std::path::Path;

use palinode_engine::{Digest, Error};
use serde::Serialize;

use crate::artifacts::model::LEDGER_FILE;
use crate::artifacts::solved::Columns;
use crate::sinks::export::folder::NOTE;
use crate::sinks::export::ledger::{EntryFacts, Listing, Recorded, beside};
use crate::sinks::export::update_file::UpdateFile;
use crate::sinks::model_folder::{digests, provenance, shards};

/// One edit.
#[derive(Clone, Debug, Serialize)]
pub struct EditLine {
    /// Its number, by which it is taken off; `None` where there is no ledger.
    pub number: Option<usize>,
    /// The request's name.
    pub request: String,
    /// The subject, where it is known.
    pub subject: Option<String>,
    /// The prompt with the subject filled in.
    pub prompt: Option<String>,
    /// The answer that was written.
    pub target: Option<String>,
    /// The update that it belongs to, counted from 1.
    pub update: usize,
    /// The batch or the round that it was made in.
    pub batch: Option<usize>,
    /// Whether it can be taken off by itself, as far as the ledger tells.
    pub alone: bool,
    /// The later edit of the same fact.
    pub superseded_by: Option<usize>,
    /// When it was exported, in UTC.
    pub when: Option<String>,
    /// The file or command that it is from.
    pub file: Option<String>,
    /// The stage that exported it.
    pub stage: Option<String>,
    /// The layers that it changed.
    pub layers: Vec<String>,
}

/// The edits of a folder or an update.
#[derive(Clone, Debug, Serialize)]
pub struct Edits {
    /// In the order in which they were put on.
    pub edits: Vec<EditLine>,
    /// The files of the unedited model's weights, by content.
    pub base: BTreeMap<String, Digest>,
    /// Bytes of the ledger; `None` where there is none.
    pub ledger: Option<u64>,
    /// Whether the weights beside the ledger are those that it is of; `None` where there is no ledger, or no model beside it.
    pub fits: Option<bool>,
}

/// Reads them, from the ledger where there is one.
///
/// # Errors
/// Of kind input, for a path that says nothing of edits.
pub fn edits(path: &Path) -> Result<Edits, Error> {
    // The note of a folder stands for the folder.
    let note = path.file_name().is_some_and(|name| name == NOTE) && path.is_file();
    let path =
        if note { path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new(".")) } else { path };
    let folder = path.is_dir();
    let there = if folder { path.join(LEDGER_FILE) } else { beside(path) };
    let is_ledger = path.file_name().is_some_and(|name| name == LEDGER_FILE);
    if !there.is_file() {
        if folder && !path.join(NOTE).is_file() {
            return Err(nothing(path));
        }
        return of_names(path);
    }
    let mut listing = Listing::read(&there)?;
    if !folder && !is_ledger {
        let digest = Digest::of(&UpdateFile::read(path)?.to_bytes()?);
        listing.updates.retain(|entry| entry.update == digest);
        match &listing.updates[..] {
            [] => return of_names(path),
            [first, ..] => listing.base.clone_from(&first.provenance.model_files),
        }
    }
    let is_model = folder && !listing.weights.is_empty() && shards(path).is_ok();
    let fits = if is_model { Some(digests(path)? == listing.weights) } else { None };
    let all: Vec<&Recorded> = listing.updates.iter().flat_map(|entry| &entry.edits).collect();
    let newer = |edit: &Recorded| all.iter().find(|other| other.number > edit.number && other.same_fact(edit));
    let said = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let mut lines = Vec::new();
    for (at, entry) in listing.updates.iter().enumerate() {
        for (place, edit) in entry.edits.iter().enumerate() {
            let request = &edit.request;
            lines.push(EditLine {
                number: Some(edit.number),
                request: request.id.clone(),
                subject: said(&request.subject),
                prompt: edit.is_known().then(|| request.filled_prompt()),
                target: said(&request.target_new).map(|target| target.trim().to_owned()),
                update: at + 1,
                batch: edit.round.or(entry.batch.map(|[batch, _]| batch)),
                alone: is_alone(entry, place),
                superseded_by: newer(edit).map(|newer| newer.number),
                when: said(&entry.made_by.when),
                file: said(&entry.made_by.file).or_else(|| said(&entry.made_by.pipeline)),
                stage: said(&entry.made_by.stage),
                layers: entry.provenance.layers.iter().map(|layer| layer.weight.to_string()).collect(),
            });
        }
    }
    Ok(Edits { edits: lines, base: listing.base, ledger: Some(listing.size), fits })
}

/// Whether the edit at a place of an update can be taken off by itself: the only one, or one of the last solve that shares no target.
fn is_alone(entry: &EntryFacts, place: usize) -> bool {
    let last = entry.rounds.len().checked_sub(2).map_or(0, |before| entry.rounds[before].edits);
    let mine =
        |columns: &Columns| columns.requests.iter().find(|of| of.contains(&place)).is_some_and(|of| of.len() == 1);
    let free = |columns: &Columns| !columns.merged || mine(columns);
    entry.edits.len() == 1 || place >= last && entry.columns.as_ref().is_some_and(free)
}

/// Of a folder that says nothing of edits: with those in it that do.
fn nothing(path: &Path) -> Error {
    let message = format!("{} has neither {LEDGER_FILE} nor {NOTE}: nothing is known of edits", path.display());
    let inside = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let edited = inside.filter(|path| [LEDGER_FILE, NOTE].iter().any(|name| path.join(name).is_file()));
    let mut edited: Vec<String> = edited.map(|path| format!("`{}`", path.display())).collect();
    edited.sort();
    Error::input(message).hint(match &edited[..] {
        [] => "an edited model's folder has them, as Palinode wrote it".to_owned(),
        some => format!("did you mean {}?", some[..some.len().min(4)].join(", ")),
    })
}

/// The names alone, which every update has.
fn of_names(path: &Path) -> Result<Edits, Error> {
    let said = provenance(path)?;
    let names: Vec<String> = serde_json::from_value(said.requests).unwrap_or_default();
    let line = |request: String| EditLine {
        number: None,
        request,
        subject: None,
        prompt: None,
        target: None,
        update: 1,
        batch: None,
        superseded_by: None,
        when: None,
        file: None,
        stage: None,
        layers: said.layers.iter().map(|layer| layer.weight.to_string()).collect(),
        alone: names.len() == 1,
    };
    Ok(Edits { edits: names.iter().cloned().map(line).collect(), base: said.model_files, ledger: None, fits: None })
}
