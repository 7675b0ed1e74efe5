//! The record of a finished action: what its key covers, what it yielded, when and where.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::layout::fan_out;
use crate::artifact::Artifact;
use crate::inside::is_plain;
use palinode_fingerprint::Fingerprint;
use palinode_fingerprint::{Digest, Key};

/// Version of the manifest format.
pub const FORMAT: u32 = 1;

/// The record of a finished action. The file on disk is the truth; the index holds copies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format.
    pub format: u32,
    /// The key; checked against `fingerprint` when a manifest is read.
    pub key: Key,
    /// All that the key covers.
    #[serde(rename = "preimage")]
    pub fingerprint: Fingerprint,
    /// Parameters that the key does not cover.
    pub unkeyed: BTreeMap<String, Value>,
    /// The result.
    pub output: Artifact,
    /// The result's content digest.
    pub content: Digest,
    /// The pipeline that it was last computed for.
    pub pipeline: String,
    /// The stage instance that it was last computed for.
    pub instance: String,
    /// The run that computed it.
    pub run: String,
    /// The device that computed it.
    pub device: String,
    /// The version of the program that computed it.
    pub program: String,
    /// When it was finished, in milliseconds since 1970.
    pub finished_ms: u64,
    /// How long it took.
    pub seconds: f64,
}

/// Why bytes are no manifest that this program can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// A later program wrote it.
    Later,
    /// It does not belong to its key, was altered, or names files that lead out of a folder.
    Damaged,
}

impl Manifest {
    /// The manifest of an action, from its file in the store in folder `store`; nothing is opened or noted.
    pub fn find(store: &Path, key: &Key) -> Option<Self> {
        let bytes = fs::read(Self::path(store, key)).ok()?;
        Self::read(&bytes).filter(|manifest| manifest.key == *key)
    }

    /// Where the manifest of an action lies, there or not.
    pub fn path(store: &Path, key: &Key) -> PathBuf {
        fan_out(&store.join("actions"), &key.to_string()).with_extension("json")
    }

    /// Reads a manifest and checks that it belongs to its key and that nothing in it was altered.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        Self::judge(bytes).ok()
    }

    /// As [`Manifest::read`], and says why it is none: one of a later format is as good as ever for the program that wrote it.
    pub(super) fn judge(bytes: &[u8]) -> Result<Self, Unfit> {
        /// What every format has.
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let Ok(manifest) = serde_json::from_slice::<Self>(bytes) else {
            let head = serde_json::from_slice::<Head>(bytes);
            return Err(if head.is_ok_and(|head| head.format > FORMAT) { Unfit::Later } else { Unfit::Damaged });
        };
        if manifest.format > FORMAT {
            return Err(Unfit::Later);
        }
        let sound = manifest.format == FORMAT
            && manifest.fingerprint.key() == manifest.key
            && manifest.output.digest() == manifest.content
            && manifest.output.files.keys().all(|name| is_plain(name));
        if sound { Ok(manifest) } else { Err(Unfit::Damaged) }
    }

    /// Reads what was judged before.
    pub(super) fn indexed(bytes: &[u8]) -> Option<Self> {
        let manifest: Self = serde_json::from_slice(bytes).ok()?;
        let plain = manifest.output.files.keys().all(|name| is_plain(name));
        (manifest.format == FORMAT && plain).then_some(manifest)
    }

    /// The pipeline and the stage instance that it was last computed for.
    pub fn made_for(&self) -> String {
        format!("{}: {}", self.pipeline, self.instance)
    }

    /// Its bytes, as they lie in the store.
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("a manifest serialises");
        bytes.push(b'\n');
        bytes
    }
}
