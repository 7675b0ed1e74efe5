//! What the models say by themselves: `samples` of scores, the same prompt in all cells together.

use palinode_engine::Kind as _;
use palinode_engine::shown::Shown;
use palinode_report::Sample;
use serde_json::Value;

use super::found::Found;
use crate::artifacts::measurements::ScoresKind;

/// Every prompt with the continuations of all cells.
pub fn all(found: &Found<'_>) -> Vec<Sample> {
    let members: Vec<usize> = found.of_kind(ScoresKind::NAME).map(|(at, _)| at).collect();
    let mut samples: Vec<Sample> = Vec::new();
    for (&at, name) in members.iter().zip(found.names(&members)) {
        let told = found.manifests[at].as_ref().and_then(|manifest| Shown::of(&manifest.output.meta).samples);
        for told in told.into_iter().flatten() {
            let text = |name: &str| told.get(name).and_then(Value::as_str).map(str::to_owned);
            let prompt = text("prompt").unwrap_or_default();
            let own = ["prompt", "before", "after"];
            let further = told.iter().filter(|(name, _)| !own.contains(&name.as_str()));
            let fields: Vec<(String, String)> = further
                .map(|(name, value)| (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
                .collect();
            let before = text("before");
            let same = |known: &&mut Sample| known.prompt == prompt && known.fields == fields && known.before == before;
            let after = text("after").map(|after| (name.clone(), after));
            match samples.iter_mut().find(same) {
                Some(known) => known.after.extend(after),
                None => samples.push(Sample { prompt, fields, before, after: after.into_iter().collect() }),
            }
        }
    }
    samples
}
