//! What edits a model's folder or an update says that it has.

use std::collections::BTreeMap;
use std::path::Path;

use palinode_engine::{Digest, Error};
use serde::Serialize;

use crate::artifacts::model::LEDGER_FILE;
use crate::sinks::export::ledger::{Listing, Recorded, beside};
use crate::sinks::export::update_file::UpdateFile;
use crate::sinks::model_folder::provenance;

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
    /// Whether each edit of an update may come off by itself, in the order of updates. Of a sequence, only those of the last round do.
    pub kept: Vec<bool>,
}

/// Reads them, from the ledger where there is one.
///
/// # Errors
/// Of kind input, for a path that says nothing of edits.
pub fn edits(path: &Path) -> Result<Edits, Error> {
    let folder = path.is_dir();
    let there = if folder { path.join(LEDGER_FILE) } else { beside(path) };
    let is_ledger = path.file_name().is_some_and(|name| name == LEDGER_FILE);
    if !there.is_file() {
        return of_names(path);
    }
    let mut listing = Listing::read(&there)?;
    if !folder && !is_ledger {
        let digest = Digest::of(&UpdateFile::read(path)?.to_bytes()?);
        listing.updates.retain(|entry| entry.update == digest);
        if listing.updates.is_empty() {
            return of_names(path);
        }
    }
    let all: Vec<&Recorded> = listing.updates.iter().flat_map(|entry| &entry.edits).collect();
    let newer = |edit: &Recorded| all.iter().find(|other| other.number > edit.number && other.same_fact(edit));
    let said = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let mut lines = Vec::new();
    for (at, entry) in listing.updates.iter().enumerate() {
        for edit in &entry.edits {
            let request = &edit.request;
            lines.push(EditLine {
                number: Some(edit.number),
                request: request.id.clone(),
                subject: said(&request.subject),
                prompt: edit.is_known().then(|| request.filled_prompt()),
                target: said(&request.target_new).map(|target| target.trim().to_owned()),
                update: at + 1,
                batch: edit.round.or(entry.batch.map(|[batch, _]| batch)),
                superseded_by: newer(edit).map(|newer| newer.number),
                when: said(&entry.made_by.when),
                file: said(&entry.made_by.file).or_else(|| said(&entry.made_by.pipeline)),
                stage: said(&entry.made_by.stage),
                layers: entry.provenance.layers.iter().map(|layer| layer.weight.to_string()).collect(),
            });
        }
    }
    let kept = listing.updates.iter().map(|entry| entry.columns.is_some() && entry.rounds.len() < 2).collect();
    Ok(Edits { edits: lines, base: listing.base, ledger: Some(listing.size), kept })
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
    };
    Ok(Edits { edits: names.into_iter().map(line).collect(), base: said.model_files, ledger: None, kept: vec![false] })
}
