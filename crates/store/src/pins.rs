//! What is kept whatever its age: a file for each pin, with the keys of the results that it keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Manifest, Store, durable};
use palinode_error::did_you_mean;
use palinode_error::now_ms;
use palinode_error::{Error, ErrorKind, Hint};
use palinode_fingerprint::Key;

/// Version of the format.
const FORMAT: u32 = 1;

/// Keeps results from being removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    format: u32,
    /// The run whose results are kept, or the key of the one result that is.
    pub name: String,
    /// What it is: the pipeline of the run, or the stage instance of the result.
    pub what: String,
    /// The results.
    pub keys: BTreeSet<Key>,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
}

impl Store {
    /// All pins that can be read, oldest first; the others are said.
    pub fn pins(&self) -> Vec<Pin> {
        self.all_pins().0
    }

    /// All pins, oldest first, and the files of those that do not read: nobody knows what they keep.
    pub(super) fn all_pins(&self) -> (Vec<Pin>, Vec<PathBuf>) {
        let (mut pins, mut unknown) = (Vec::new(), Vec::new());
        let entries = match fs::read_dir(self.pin_folder()) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(_) => vec![self.pin_folder()],
        };
        for path in entries {
            let pin = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Pin>(&bytes).ok());
            if let Some(pin) = pin.filter(|pin| pin.format == FORMAT) {
                pins.push(pin);
            } else {
                self.note(format!(
                    "the pin {} does not read, and what it keeps is not known: no result is removed until it is mended or unpinned",
                    path.display()
                ));
                unknown.push(path);
            }
        }
        pins.sort_by(|a, b| (a.since_ms, &a.name).cmp(&(b.since_ms, &b.name)));
        (pins, unknown)
    }

    /// Keeps results under a name, whatever their age; `what` says what they are.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn pin(&self, name: &str, what: &str, keys: BTreeSet<Key>) -> Result<Pin, Error> {
        let pin = Pin { format: FORMAT, name: name.to_owned(), what: what.to_owned(), keys, since_ms: now_ms() };
        self.write_pin(&pin)?;
        Ok(pin)
    }

    /// Keeps the results that are under new keys now as those under the old ones are kept.
    pub fn pin_moved(&self, moved: &BTreeMap<Key, Key>) -> Result<(), Error> {
        for mut pin in self.pins() {
            let new: Vec<Key> = pin.keys.iter().filter_map(|key| moved.get(key)).copied().collect();
            let before = pin.keys.len();
            pin.keys.extend(new);
            if pin.keys.len() > before {
                self.write_pin(&pin)?;
            }
        }
        Ok(())
    }

    fn write_pin(&self, pin: &Pin) -> Result<(), Error> {
        let bytes = serde_json::to_vec_pretty(pin).expect("a pin serialises");
        durable::write(&self.tmp(), &self.pin_path(&pin.name), &[&bytes], self.shared)
    }

    /// Removes a pin; `which` is the beginning or the end of its name.
    ///
    /// # Errors
    /// When there is no such pin, or several, or it cannot be removed.
    pub fn unpin(&self, which: &str) -> Result<Pin, Error> {
        let usage = |message: String| Error::new(ErrorKind::Usage, message);
        let (pins, unknown) = self.all_pins();
        // One that does not read has the name of its file.
        let name_of = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let unknown = unknown.iter().map(|path| Pin {
            format: FORMAT,
            name: name_of(path),
            what: "a pin that does not read".to_owned(),
            keys: BTreeSet::new(),
            since_ms: 0,
        });
        let pins: Vec<Pin> = pins.into_iter().chain(unknown).collect();
        let fits = |pin: &&Pin| !which.is_empty() && (pin.name.starts_with(which) || pin.name.ends_with(which));
        let fitting: Vec<&Pin> = pins.iter().filter(fits).collect();
        match fitting.as_slice() {
            [pin] => {
                let path = self.pin_path(&pin.name);
                fs::remove_file(&path).map_err(|error| Error::io(ErrorKind::Store, "remove", &path, error))?;
                Ok(Pin::clone(pin))
            }
            [] if pins.is_empty() => Err(usage("nothing is pinned".to_owned())),
            [] => {
                let meant = did_you_mean(which, pins.iter().map(|pin| pin.name.as_str()));
                Err(usage(format!("there is no pin `{which}`")).hint(meant.map_or(Hint::ListPins, Hint::Say)))
            }
            several => Err(usage(format!("{} pins begin or end with `{which}`", several.len()))
                .hint(format!("give more of the name, such as {}", several[0].name))),
        }
    }

    /// The result whose key begins like this, if `which` could be one.
    ///
    /// # Errors
    /// When there are several.
    pub fn by_key(&self, which: &str) -> Result<Option<Manifest>, Error> {
        if which.len() < 6 || !which.chars().all(|char| char.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let fits = |manifest: Manifest| manifest.key.to_string().starts_with(which).then_some(manifest);
        let mut found: Vec<Manifest> = self.each_manifest(fits).into_iter().flatten().collect();
        if found.len() > 1 {
            let message = format!("{} results have keys that begin with `{which}`", found.len());
            return Err(Error::new(ErrorKind::Usage, message).hint("give more of the key"));
        }
        Ok(found.pop())
    }

    fn pin_folder(&self) -> PathBuf {
        self.root.join("pins")
    }

    fn pin_path(&self, name: &str) -> PathBuf {
        self.pin_folder().join(name).with_extension("json")
    }
}
