//! What a stage yields: a small description and references to files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use palinode_fingerprint::Encoder;
use palinode_fingerprint::{Digest, FileRef};

/// The result of a stage.
///
/// `meta` is small and typed by the stage kind; tensors and texts go to `files`. Two keys in `meta` are shown by the command
/// line whatever the kind: `metrics`, a flat mapping of name to number, and `samples`, a list of flat mappings; `columns`
/// tells how metrics are titled, formatted and compared, `intervals` has `[low, high]` for some of them, and `series` has
/// the same metrics along `axes` in `rows`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// The kind that ports accept or refuse.
    pub kind: String,
    /// Facts about the result; part of its content digest, so nothing that differs from run to run belongs here.
    pub meta: Value,
    /// Contents by logical name: blobs in the store, or external files known by digest alone.
    pub files: BTreeMap<String, FileRef>,
    /// Files written outside the store for people and other programs; not part of the content digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<Published>,
}

/// A file that a stage wrote outside the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Where it lies; relative to the pipeline's folder when it is inside that folder.
    pub path: PathBuf,
    /// What it held when it was written.
    pub file: FileRef,
}

impl Artifact {
    /// An artifact of `kind` that has facts but no files yet.
    pub fn new(kind: &str, meta: Value) -> Self {
        Self { kind: kind.to_owned(), meta, files: BTreeMap::new(), published: Vec::new() }
    }

    /// Adds a file under a logical name.
    #[must_use]
    pub fn with_file(mut self, name: &str, file: FileRef) -> Self {
        self.files.insert(name.to_owned(), file);
        self
    }

    /// Adds a file written outside the store.
    #[must_use]
    pub fn with_published(mut self, path: impl Into<PathBuf>, file: FileRef) -> Self {
        self.published.push(Published { path: path.into(), file });
        self
    }

    /// The file under a logical name.
    pub fn file(&self, name: &str) -> Option<&FileRef> {
        self.files.get(name)
    }

    /// The digest of kind, facts and files: what downstream keys are made from.
    pub fn digest(&self) -> Digest {
        let mut encoder = Encoder::new("palinode.artifact");
        encoder.str(&self.kind).value(&self.meta).map(self.files.len());
        for (name, file) in &self.files {
            encoder.str(name).bytes(file.digest.as_bytes()).uint(file.size);
        }
        encoder.finish()
    }
}
