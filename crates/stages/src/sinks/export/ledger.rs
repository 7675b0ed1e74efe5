//! `ledger.safetensors`: the edits that are in a model's folder or an update, with what taking one of them off needs.
//!
//! A ledger is a stack of updates, in the order in which they were put on. Each has its edits, where it came from, its changes in f64, as
//! `artifacts/deltas.rs` names their tensors behind `{place}.`, and what its solve left, as `artifacts/solved.rs` names it behind
//! `{place}.solved`. Under `palinode` in the metadata, all that is no matrix as JSON.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use palinode_data::EditRequest;
use palinode_engine::{Digest, Error, ErrorKind};
use palinode_math::Delta;
use palinode_model::WeightId;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use super::update_file::{Provenance, UpdateFile};
use crate::artifacts::deltas::{Floats, named, read};
use crate::artifacts::model::LEDGER_FILE;
use crate::artifacts::solved::{Columns, MadeFrom, Solved};
use crate::artifacts::tensors::{Tensors, serialize};
use crate::artifacts::update::RoundFacts;

/// The version of its description.
const FORMAT: &str = "ledger.v1";
/// A description is no larger.
const MOST: u64 = 1 << 30;

/// Who made an update, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeBy {
    /// The pipeline's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pipeline: String,
    /// The stage.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stage: String,
    /// What the pipeline was read from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// The run's ID.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub run: String,
    /// When it was exported, in UTC.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub when: String,
}

/// One edit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// Its number, which stays its own whatever else is taken off.
    pub number: usize,
    /// The request; of one of which only the name is known, that alone.
    pub request: EditRequest,
    /// The round of a sequence in which it was made, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round: Option<usize>,
}

impl Recorded {
    /// Whether more than the request's name is known.
    pub fn is_known(&self) -> bool {
        !self.request.prompt.is_empty()
    }

    /// Whether both say the same of the same subject, with whatever answer.
    pub fn same_fact(&self, other: &Self) -> bool {
        let fact = |of: &Self| (of.request.filled_prompt(), of.request.subject.clone());
        self.is_known() && other.is_known() && fact(self) == fact(other)
    }
}

/// What is known of an update, all but its matrices.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EntryFacts {
    /// The file that holds the change alone, by content.
    pub update: Digest,
    /// Who made it.
    pub made_by: MadeBy,
    /// Where it came from; its `model_files` are the weights that it was made for.
    pub provenance: Provenance,
    /// The weights that it changes, as they are stored.
    pub weights: Vec<String>,
    /// The batch that it is, counted from 0, and their number, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<[usize; 2]>,
    /// Its edits.
    pub edits: Vec<Recorded>,
    /// Where the rounds of a sequence end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rounds: Vec<RoundFacts>,
    /// Whose the columns of its systems are, where a solve left some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Columns>,
    /// What it was solved from. Its requests are those of the edits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<MadeFrom>,
}

/// An update of a ledger.
#[derive(Clone, Debug)]
pub struct Entry {
    /// All but its matrices.
    pub facts: EntryFacts,
    /// Weight and change.
    pub changes: Vec<(WeightId, Delta)>,
    /// What its solve left.
    pub solved: Option<Solved>,
}

impl Entry {
    /// As a file by itself.
    pub fn file(&self) -> UpdateFile {
        UpdateFile::from_parts(self.facts.provenance.clone(), &self.changes, self.facts.weights.clone())
    }

    /// The changes as the update's file has them.
    pub fn rounded(&self) -> Vec<(WeightId, Delta)> {
        self.changes.iter().map(|(weight, delta)| (*weight, delta.rounded())).collect()
    }
}

/// What a ledger says beside its updates.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Header<E> {
    format: String,
    base: BTreeMap<String, Digest>,
    weights: BTreeMap<String, Digest>,
    next: usize,
    updates: Vec<E>,
}

/// The edits of a model or an update.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// The files of the unedited model's weights, by content.
    pub base: BTreeMap<String, Digest>,
    /// The files of the edited model's weights that lie beside the ledger; none beside an update alone.
    pub weights: BTreeMap<String, Digest>,
    /// The number that the next edit gets.
    pub next: usize,
    /// The updates, in the order in which they were put on.
    pub updates: Vec<Entry>,
}

/// A ledger without its matrices.
#[derive(Clone, Debug)]
pub struct Listing {
    /// As [`Ledger::base`].
    pub base: BTreeMap<String, Digest>,
    /// As [`Ledger::weights`].
    pub weights: BTreeMap<String, Digest>,
    /// The updates.
    pub updates: Vec<EntryFacts>,
    /// Bytes of the file.
    pub size: u64,
}

impl Ledger {
    /// Of no update yet, onto these weights.
    pub fn new(base: BTreeMap<String, Digest>) -> Self {
        Self { base, weights: BTreeMap::new(), next: 1, updates: Vec::new() }
    }

    /// Puts an update on top. Its edits get the next numbers, or keep those that they have where no other edit can have had them.
    pub fn put(&mut self, mut entry: Entry) {
        let own: BTreeSet<usize> = entry.facts.edits.iter().map(|edit| edit.number).collect();
        let kept = own.len() == entry.facts.edits.len() && own.first().is_none_or(|&first| first >= self.next);
        for edit in &mut entry.facts.edits {
            if !kept {
                edit.number = self.next;
            }
            self.next = self.next.max(edit.number.saturating_add(1));
        }
        self.updates.push(entry);
    }

    /// Every edit, with the place of its update.
    pub fn edits(&self) -> impl Iterator<Item = (usize, &Recorded)> {
        self.updates.iter().enumerate().flat_map(|(at, entry)| entry.facts.edits.iter().map(move |edit| (at, edit)))
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut tensors = Vec::new();
        for (at, entry) in self.updates.iter().enumerate() {
            for ((_, delta), weight) in entry.changes.iter().zip(&entry.facts.weights) {
                tensors.extend(named(&format!("{at}.{weight}"), delta, Floats::Double));
            }
            tensors.extend(entry.solved.iter().flat_map(|solved| solved.named(&format!("{at}.solved"))));
        }
        let header = Header {
            format: FORMAT.to_owned(),
            base: self.base.clone(),
            weights: self.weights.clone(),
            next: self.next,
            updates: self.updates.iter().map(|entry| &entry.facts).collect(),
        };
        let text = serde_json::to_string(&header).map_err(|error| Error::internal(error.to_string()))?;
        serialize(&tensors, Some(HashMap::from([("palinode".to_owned(), text)])))
    }

    /// Reads one.
    ///
    /// # Errors
    /// Of kind input, naming the file, for one that is damaged or is no ledger.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(|error| Error::io(ErrorKind::Input, "read", path, error))?;
        Self::parse(bytes).map_err(|what| wrong(path, &what))
    }

    fn parse(bytes: Vec<u8>) -> Result<Self, String> {
        let text = {
            let header =
                SafeTensors::read_metadata(&bytes).map_err(|error| format!("not a safetensors file: {error}"))?.1;
            header.metadata().as_ref().and_then(|notes| notes.get("palinode")).cloned()
        };
        let Header { base, weights, next, updates, .. } = header(text.as_deref())?;
        let tensors = Tensors::new(bytes);
        let file = tensors.file().map_err(|error| error.message)?;
        let entry = |(at, facts): (usize, EntryFacts)| {
            let layers = &facts.provenance.layers;
            if layers.len() != facts.weights.len() {
                return Err(format!("update {at} changes {} weights and names {}", layers.len(), facts.weights.len()));
            }
            let change = |(layer, name): (&crate::artifacts::update::LayerFacts, &String)| {
                Ok((layer.weight, read(&file, &format!("{at}.{name}"), Floats::Double)?))
            };
            let changes = layers.iter().zip(&facts.weights).map(change).collect::<Result<Vec<_>, String>>()?;
            let columns = facts.columns.clone().filter(|columns| {
                columns.requests.iter().all(|of| !of.is_empty() && of.iter().all(|&i| i < facts.edits.len()))
            });
            let solved =
                columns.and_then(|columns| Solved::read(&tensors, &format!("{at}.solved"), columns, changes.len()));
            Ok(Entry { facts, changes, solved })
        };
        let updates = updates.into_iter().enumerate().map(entry).collect::<Result<_, _>>()?;
        Ok(Self { base, weights, next, updates })
    }
}

impl Listing {
    /// Reads what a ledger says, and none of its matrices.
    ///
    /// # Errors
    /// As [`Ledger::read`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let io = |error| Error::io(ErrorKind::Input, "read", path, error);
        let mut file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        let mut length = [0; 8];
        if size < 8 {
            return Err(wrong(path, &format!("not a safetensors file: it has {size} bytes")));
        }
        file.read_exact(&mut length).map_err(io)?;
        let length = u64::from_le_bytes(length);
        if length > (size - 8).min(MOST) {
            return Err(wrong(path, "not a safetensors file, or it is cut off"));
        }
        let mut text = vec![0; length as usize];
        file.read_exact(&mut text).map_err(io)?;
        let all: serde_json::Value =
            serde_json::from_slice(&text).map_err(|error| wrong(path, &format!("not a safetensors file: {error}")))?;
        let Header { base, weights, updates, .. } =
            header(all["__metadata__"]["palinode"].as_str()).map_err(|what| wrong(path, &what))?;
        let ends = all.as_object().into_iter().flatten().filter_map(|(_, tensor)| tensor["data_offsets"][1].as_u64());
        let whole = ends.max().unwrap_or(0).saturating_add(8 + length);
        if whole != size {
            return Err(wrong(
                path,
                &format!("it has {size} bytes where its header says {whole}: it is cut off or damaged"),
            ));
        }
        Ok(Self { base, weights, updates, size })
    }
}

/// The ledger that lies beside an update's file.
pub fn beside(update: &Path) -> PathBuf {
    update.with_file_name(LEDGER_FILE)
}

fn header(text: Option<&str>) -> Result<Header<EntryFacts>, String> {
    let text = text.ok_or("its metadata has no entry `palinode`: it is no ledger")?;
    let header: Header<EntryFacts> =
        serde_json::from_str(text).map_err(|error| format!("its metadata does not read: {error}"))?;
    if header.format != FORMAT {
        return Err(format!("its format is {:?}, not {FORMAT:?}", header.format));
    }
    Ok(header)
}

fn wrong(path: &Path, what: &str) -> Error {
    Error::input(format!("{}: {what}", path.display()))
        .hint("to go on without it, move the file elsewhere: whole updates can still be taken off")
}
