//! Carrying results over to the keys that this version of the program gives them.
//!
//! A key covers a stage's version and all its parameters, those with defaults too. So a parameter that a newer program adds, or a
//! version that it raises, changes the keys of results that may be as right as they were: without help, hours of second
//! moments would be computed again for a parameter that nobody set. Here every result is read as the newer program would have
//! asked for it, and its record is written once more under the key that follows. Contents are not copied: artifacts are known
//! by their contents, so that what was computed from one still fits the same one under its new key.
//!
//! This is sound since a stage's version changes whenever its results do (see [`StageKind::VERSION`](crate::StageKind)); of a
//! raised version, the stage itself says whether earlier results still hold (`StageKind::carries`).

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::catalogue::Catalogue;
use crate::keyed;
use palinode_error::Error;
use palinode_fingerprint::Key;
use palinode_fingerprint::{flatten, unflatten};
use palinode_pipeline::{first_name, to_new};
use palinode_store::{Manifest, Store};

/// What became of the results in a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Migrated {
    /// Results that are found as they are.
    pub current: usize,
    /// Results that are found now, under new keys.
    pub carried: usize,
    /// Results that this version of the program cannot use: of stages that it lacks, or that compute something else now.
    pub left: usize,
}

/// Carries over all results that still hold. What was pinned stays pinned under its new key. Can be repeated, and killed.
///
/// # Errors
/// When the store cannot be written.
pub fn migrate(store: &Store, catalogue: &Catalogue) -> Result<Migrated, Error> {
    let mut migrated = Migrated::default();
    let manifests = store.manifests();
    let mut known: BTreeSet<Key> = manifests.iter().map(|manifest| manifest.key).collect();
    let mut moved: BTreeMap<Key, Key> = BTreeMap::new();
    // The newest first: where two were made with parameters that mean the same today, it is the one to keep.
    for manifest in manifests.iter().rev() {
        match carried(manifest, catalogue) {
            None => migrated.left += 1,
            Some(new) if new.key == manifest.key => migrated.current += 1,
            Some(new) => {
                moved.insert(manifest.key, new.key);
                // One that was carried over before is there already.
                if known.insert(new.key) {
                    store.publish(&new)?;
                    migrated.carried += 1;
                }
            }
        }
    }
    store.pin_moved(&moved)?;
    Ok(migrated)
}

/// The record of a result as this version of the program would have written it; `None` when the result does not hold any more.
fn carried(manifest: &Manifest, catalogue: &Catalogue) -> Option<Manifest> {
    let old = &manifest.fingerprint;
    let kind = catalogue.get(&old.stage)?;
    let info = kind.info();
    if old.version != info.version && !info.carries.contains(&old.version) {
        return None;
    }
    let mut flat: BTreeMap<String, Value> = manifest.unkeyed.clone();
    flat.extend(old.params.clone());
    // Reading fills in the defaults of what the older program did not know, and refuses what is no longer a parameter.
    // Keys know a parameter by its first name, and so does the record of one.
    let mut with = unflatten(&flat)?;
    to_new(&mut with, info.renamed);
    let params = kind.params(with).ok()?;
    let mut fingerprint = keyed::fingerprint(kind.as_ref(), &params, &old.environment);
    fingerprint.inputs.clone_from(&old.inputs);
    fingerprint.files.clone_from(&old.files);
    let mut unkeyed = BTreeMap::new();
    flatten("", &params.value, &mut unkeyed);
    unkeyed.retain(|name, _| !fingerprint.params.contains_key(first_name(name, info.renamed)));
    Some(Manifest { key: fingerprint.key(), fingerprint, unkeyed, ..manifest.clone() })
}
