//! Asking a model that a run left in a store, beside whoever has the store open: nothing is written there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use palinode_engine::{Artifact, Error, ErrorKind, Key, Observer, Store, alone, work};
use serde_json::{Value, json};

use crate::run::start_threads;

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Prompts that the model continues; one or more.
    pub prompts: Vec<String>,
    /// Number of tokens to generate.
    pub tokens: usize,
}

/// Whether a result is a model that can be asked: edited in several batches it would be as many models.
pub fn can_be_asked(result: &Artifact) -> bool {
    matches!(result.kind.as_str(), "model" | "update")
        && result.meta["batches"].as_u64().is_none_or(|batches| batches <= 1)
}

/// How a model continues prompts, as the stage `ask` says it: for each prompt `before` and, of an edited model, `after`. `key` is that of
/// a result of the store that is a model, edited or not.
///
/// # Errors
/// Of kind usage, for a result that is no model; of kind input, where it or the model's files are no longer there; what asking gives.
pub fn answer(
    store: &Path,
    key: &Key,
    question: &Question,
    observer: &Arc<dyn Observer>,
    interrupt: &Arc<AtomicBool>,
) -> Result<Value, Error> {
    start_threads()?;
    let store = Store::beside(store)?;
    let manifest = store.manifest(key)?.ok_or_else(|| {
        Error::input("the result is no longer in the store").hint("run the pipeline again: what is missing is computed")
    })?;
    let model = manifest.output;
    if !matches!(model.kind.as_str(), "model" | "update") {
        return Err(Error::new(
            ErrorKind::Usage,
            format!("{} yields no model but `{}`", manifest.instance, model.kind),
        ));
    }
    if !can_be_asked(&model) {
        let message = "the model was edited in several batches, each an edit of its own";
        return Err(
            Error::new(ErrorKind::Usage, message).hint("ask one whose edits were made at once, or in a sequence")
        );
    }
    // What is written on the way goes here, and is gone afterwards.
    let scratch =
        tempfile::tempdir().map_err(|error| Error::internal("no folder for temporary files").source(error))?;
    Store::make(scratch.path())?;
    let catalogue = palinode_stages::catalogue();
    let kind = catalogue.runnable("ask").ok_or_else(|| Error::internal("there is no stage `ask`"))?;
    let with = json!({ "prompts": question.prompts, "tokens": question.tokens });
    let inputs = BTreeMap::from([("model".to_owned(), model)]);
    let device = palinode_stages::chosen_device();
    let action = alone(kind.as_ref(), with, inputs, device, (&store, scratch.path()))?;
    let answered = work(&action, &catalogue, observer, interrupt)?
        .ok_or_else(|| Error::internal("a whole stage was run, and published nothing"))?;
    Ok(answered.output.meta["answers"].clone())
}
