//! One stage by itself, outside any run.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::action::Action;
use crate::catalogue::ErasedStage;
use crate::{environment, keyed, runid};
use palinode_error::{Error, ErrorKind};
use palinode_fingerprint::FileRef;
use palinode_store::{Artifact, Place, Store};

/// A stage without files of its own, on results that are in `store`. Its own result goes to `scratch`, the folder of another store, so
/// that the one with the inputs need not be written to; [`crate::work`] does it.
///
/// # Errors
/// Of kind pipeline, when the parameters are not the stage's; of kind input, when the contents of an input are no longer to be found.
pub fn alone(
    kind: &dyn ErasedStage,
    with: Value,
    inputs: BTreeMap<String, Artifact>,
    device: &str,
    (store, scratch): (&Store, &Path),
) -> Result<Action, Error> {
    let params = kind.params(with).map_err(|errors| {
        let first = errors.into_iter().next();
        Error::new(ErrorKind::Pipeline, first.map(|error| error.message).unwrap_or_default())
    })?;
    let mut fingerprint = keyed::fingerprint(kind, &params, &BTreeMap::new());
    fingerprint.inputs = inputs.iter().map(|(port, artifact)| (port.clone(), artifact.digest())).collect();
    let name = kind.info().name;
    let mut action = Action {
        format: Action::FORMAT,
        build: environment::build().to_owned(),
        share: None,
        store: scratch.to_owned(),
        base: scratch.to_owned(),
        pipeline: name.to_owned(),
        source: String::new(),
        instance: name.to_owned(),
        run: runid::new(),
        device: device.to_owned(),
        settings: BTreeMap::new(),
        key: fingerprint.key(),
        fingerprint,
        with: params.value,
        unkeyed: BTreeMap::new(),
        inputs,
        files: BTreeMap::new(),
        places: Vec::new(),
        forced: false,
    };
    action.places = action.contents().iter().map(|file| place(store, file)).collect::<Result<_, _>>()?;
    Ok(action)
}

/// Where contents lie, and what the file looks like that holds them.
fn place(store: &Store, file: &FileRef) -> Result<Place, Error> {
    if let Some(place) = store.place(file)? {
        return Ok(place);
    }
    // Found, and not looked into so far.
    if let Some(path) = store.find(file)?
        && store.digest_of(&path, &|_, _| ())? == *file
        && let Some(place) = store.place_of(&path)
    {
        return Ok(place);
    }
    let message =
        format!("the contents {} are neither in the store nor where they were last seen", file.digest.short());
    let hint = "a model's file may have moved or changed, or a result was collected as garbage: run the pipeline again";
    Err(Error::input(message).hint(hint))
}
