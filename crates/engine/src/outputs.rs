//! Folders that stages write outside the store: whose they are.

use std::collections::BTreeMap;
use std::path::Path;

use palinode_error::Error;
use palinode_fingerprint::Digest;
use palinode_pipeline::{Chosen, Pipeline};
use palinode_store::{MARKER, Maker, Manifest, Overwrite, Store, may_write};
use serde_json::Value;

/// The parameter that permits a stage to write over what is not its own. It stays out of keys, and changing it makes nothing run.
pub const OVERWRITE: &str = "overwrite";

/// How many earlier results of a stage kind are looked through for what they wrote.
const RESULTS: usize = 64;

/// What results in the store wrote into a folder, by its name there; of those that wrote the same file, the latest.
pub(crate) fn written(
    store: &Store,
    kind: &str,
    base: &Path,
    place: &Path,
    of: impl Fn(&Manifest) -> bool,
) -> BTreeMap<String, Digest> {
    let mut written = BTreeMap::new();
    if !place.is_dir() {
        return written;
    }
    for manifest in store.latest(kind, RESULTS).iter().filter(|manifest| of(manifest)) {
        for published in &manifest.output.published {
            let path = base.join(&published.path);
            let name = path.strip_prefix(place).ok().and_then(Path::to_str).filter(|name| *name != MARKER);
            if let Some(name) = name {
                written.entry(name.to_owned()).or_insert(published.file.digest);
            }
        }
    }
    written
}

/// Refuses a run whose stages would find at their end, after hours perhaps, that they may not write where they are to.
pub(crate) fn may_be_written(pipeline: &Pipeline, chosen: &Chosen, store: &Store) -> Result<(), Error> {
    for (at, instance) in pipeline.instances.iter().enumerate() {
        if !chosen.needed.contains(&at) && !chosen.asked.contains(&at) {
            continue;
        }
        let kind = instance.kind.info().name;
        let overwrite = Overwrite::if_wanted(instance.params.value.get(OVERWRITE) == Some(&Value::Bool(true)));
        for (field, path) in instance.kind.publishes(&instance.params) {
            let place = pipeline.base.join(&path);
            if !place.is_dir() {
                continue;
            }
            // What another pipeline wrote there may be just what this one asks for.
            let there = written(store, kind, &pipeline.base, &place, |_| true);
            let is_there = |(name, digest): (&String, &Digest)| {
                store.digest_of(&place.join(name), &|_, _| ()).is_ok_and(|file| file.digest == *digest)
            };
            if !there.is_empty() && there.iter().all(is_there) {
                continue;
            }
            let own = |manifest: &Manifest| manifest.pipeline == pipeline.name && manifest.instance == instance.name;
            let known = written(store, kind, &pipeline.base, &place, own);
            let maker = Maker::of(store.root(), &place, &pipeline.name, &instance.name);
            may_write(&place, &maker, &known, overwrite).map_err(|error| {
                let message = format!("`{field}` of `{}`: {}", instance.name, error.message);
                Error { message, ..error }
            })?;
        }
    }
    Ok(())
}
