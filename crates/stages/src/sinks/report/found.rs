//! A run and its results, as the parts of a report read them.

use std::cell::RefCell;
use std::fs;

use palinode_data::EditRequest;
use palinode_engine::{Artifact, Manifest, PastRun, Store};
use palinode_report::{Cell, Level};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::artifacts::requests::REQUESTS;

/// A run with the results that the store has of it.
pub struct Found<'a> {
    pub run: &'a PastRun,
    pub store: &'a Store,
    /// One for each instance.
    pub manifests: Vec<Option<Manifest>>,
    /// What should have been there but was not.
    pub lost: RefCell<Vec<String>>,
}

impl Found<'_> {
    /// Instances that have a result, with it.
    pub fn artifacts(&self) -> impl Iterator<Item = (usize, &Artifact)> {
        self.manifests.iter().enumerate().filter_map(|(at, manifest)| Some((at, &manifest.as_ref()?.output)))
    }

    /// Those of a kind.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = (usize, &Artifact)> {
        self.artifacts().filter(move |(_, artifact)| artifact.kind == kind)
    }

    /// A file of an instance's result; `None`, and noted, where it is lost or not what it should be.
    pub fn read<T: DeserializeOwned>(&self, at: usize, artifact: &Artifact, name: &str) -> Option<T> {
        self.read_as(at, artifact, name, |bytes| serde_json::from_slice(bytes).ok())
    }

    /// The same of a file with a value a line.
    pub fn read_lines<T: DeserializeOwned>(&self, at: usize, artifact: &Artifact, name: &str) -> Option<Vec<T>> {
        self.read_as(at, artifact, name, |bytes| {
            let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            lines.map(|line| serde_json::from_slice(line).ok()).collect()
        })
    }

    fn read_as<T>(&self, at: usize, artifact: &Artifact, name: &str, parse: fn(&[u8]) -> Option<T>) -> Option<T> {
        let file = artifact.file(name)?;
        let path = self.store.find(file).ok().flatten();
        let read = path.and_then(|path| fs::read(path).ok()).and_then(|bytes| parse(&bytes));
        if read.is_none() {
            self.lost.borrow_mut().push(format!("{name} of {}", self.run.stages[at].instance));
        }
        read
    }

    /// The requests at an instance's port of that name; none where nothing is there.
    pub fn requests(&self, at: usize) -> Vec<EditRequest> {
        let from = self.run.stages[at].inputs.get("requests").copied();
        let found = from.and_then(|from| self.read(from, &self.manifests[from].as_ref()?.output, REQUESTS));
        found.unwrap_or_default()
    }

    /// The cell of an instance.
    pub fn cell(&self, at: usize) -> Cell {
        let level = |value: &Value| match value {
            Value::Number(number) => Level::Number(number.as_f64().unwrap_or(f64::NAN)),
            Value::String(text) => Level::Text(text.clone()),
            other => Level::Text(other.to_string()),
        };
        self.run.stages[at].cell.iter().map(|(axis, value)| (axis.clone(), level(value))).collect()
    }

    /// The names of cells, in their own words: those of one stage alone need not name it.
    pub fn names(&self, members: &[usize]) -> Vec<String> {
        let stage = |at: usize| &self.run.stages[at].stage;
        let alone = members.iter().all(|&at| stage(at) == stage(members[0]));
        let name = |&at: &usize| {
            let cell = palinode_report::cell_name(&self.cell(at));
            match (alone, cell.is_empty()) {
                (true, _) => cell,
                (false, true) => stage(at).clone(),
                (false, false) => format!("{}: {cell}", stage(at)),
            }
        };
        members.iter().map(name).collect()
    }

    /// Instances by stage, in the order of the run.
    pub fn by_stage(&self, members: impl Iterator<Item = usize>) -> Vec<(&str, Vec<usize>)> {
        let mut groups: Vec<(&str, Vec<usize>)> = Vec::new();
        for at in members {
            let stage = self.run.stages[at].stage.as_str();
            match groups.iter_mut().find(|(known, _)| *known == stage) {
                Some((_, members)) => members.push(at),
                None => groups.push((stage, vec![at])),
            }
        }
        groups
    }

    /// Members whose results differ: the first of each.
    pub fn distinct(&self, members: impl Iterator<Item = usize>) -> Vec<usize> {
        let mut known = Vec::new();
        let new = |at: &usize| {
            let content = self.manifests[*at].as_ref().map(|manifest| manifest.content);
            let new = !known.contains(&content);
            known.push(content);
            new
        };
        members.filter(new).collect()
    }
}
