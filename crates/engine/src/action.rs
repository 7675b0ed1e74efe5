//! A stage with everything that it needs to run, apart from the pipeline that it stands in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use palinode_error::{Error, ErrorKind, Hint};

use crate::environment;
use crate::share::Share;
use palinode_fingerprint::Fingerprint;
use palinode_fingerprint::{FileRef, Key};
use palinode_store::Artifact;
use palinode_store::Place;

/// Version of the format of action files.
const FORMAT: u32 = 2;

/// One stage with its parameters, inputs, key and store: all that a worker reads. It holds no more than a few
/// kilobytes, since inputs are named by digest; their contents lie in the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// Version of this format.
    pub format: u32,
    /// The build of the program that wrote it: another one may compute other bits, and is refused.
    pub build: String,
    /// The store's folder.
    pub store: PathBuf,
    /// The pipeline's folder; relative paths in parameters start here.
    pub base: PathBuf,
    /// The pipeline's name.
    pub pipeline: String,
    /// What the pipeline was read from, as it was named: a file, or what built it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// The stage instance.
    pub instance: String,
    /// The run that it belongs to.
    pub run: String,
    /// The device asked for.
    pub device: String,
    /// Settings of the run that change no bit of a result.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// The key, under which the result is published.
    pub key: Key,
    /// All that the key covers: the stage kind and its version are in it.
    #[serde(rename = "preimage")]
    pub fingerprint: Fingerprint,
    /// All parameters, after defaults.
    pub with: Value,
    /// Parameters that the key does not cover, by dotted name.
    pub unkeyed: BTreeMap<String, Value>,
    /// The artifact at each connected port.
    pub inputs: BTreeMap<String, Artifact>,
    /// The external files by logical name.
    pub files: BTreeMap<String, (FileRef, PathBuf)>,
    /// Where contents were last seen and what they looked like, so that large ones are not read again for their digests.
    pub places: Vec<Place>,
    /// Whether units that were kept before are made again too.
    pub forced: bool,
    /// The share of the stage's work that is to be done; without one, all of it, and the result is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
}

impl Action {
    /// Version of the format that this program writes.
    pub(crate) const FORMAT: u32 = FORMAT;

    /// Reads an action file.
    ///
    /// # Errors
    /// When it cannot be read, was written by another version of the program, or was altered.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = fs::read(path).map_err(|error| Error::io(ErrorKind::Usage, "read", path, error))?;
        let wrong = |what: String| Error::new(ErrorKind::Usage, what).at(path, None);
        let action: Self = serde_json::from_slice(&bytes)
            .map_err(|error| wrong(format!("this is not an action file: {error}")).hint(Hint::WriteActions))?;
        let another = "it was written by another version of the program, or altered: run the pipeline again";
        if action.format != FORMAT {
            return Err(wrong(format!("the action has format {}, expected {FORMAT}", action.format)).hint(another));
        }
        if action.build != environment::build() {
            let message =
                format!("the action was written by build {}, and this is build {}", action.build, environment::build());
            return Err(wrong(message).hint("have the same program where the run is started and where its stages work"));
        }
        if action.fingerprint.key() != action.key {
            return Err(wrong("the key does not belong to what it covers".to_owned()).hint(another));
        }
        for (port, artifact) in &action.inputs {
            if action.fingerprint.inputs.get(port) != Some(&artifact.digest()) {
                return Err(wrong(format!("input `{port}` is not the one that the key covers")).hint(another));
            }
        }
        for (name, (file, _)) in &action.files {
            if action.fingerprint.files.get(name) != Some(&file.digest) {
                return Err(wrong(format!("file `{name}` is not the one that the key covers")).hint(another));
            }
        }
        Ok(action)
    }

    /// Writes it as a file.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let folder = path.parent().unwrap_or(path);
        let mut bytes = serde_json::to_vec_pretty(self).expect("an action serialises");
        bytes.push(b'\n');
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(path, bytes))
            .map_err(|error| Error::io(ErrorKind::Store, "write", path, error))
    }

    /// What its key is computed on, where equal keys mean equal bits.
    pub fn hardware(&self) -> Option<&str> {
        self.fingerprint.environment.get(palinode_pipeline::DEVICE).map(String::as_str)
    }

    /// The contents that its inputs refer to, each once.
    pub(crate) fn contents(&self) -> BTreeSet<FileRef> {
        self.inputs.values().flat_map(|artifact| artifact.files.values().copied()).collect()
    }
}
