//! Where everything comes from: the stages with their keys, digests, times and seeds, and the run as a whole.

use palinode_engine::{Given, Kind as _, Manifest, Outcome as Ended, PastStage, utc};
use palinode_report::{Digested, Instance, Outcome, Stage};

use super::found::Found;
use crate::artifacts::model::{Facts, ModelKind};

/// Parameters with these names seed random numbers.
const SEEDS: [&str; 2] = ["seed", "shuffle"];

/// The stages, with what happened to each instance.
pub fn stages(found: &Found<'_>) -> Vec<Stage> {
    let groups = found.by_stage(0..found.run.stages.len());
    let names: Vec<&str> = groups.iter().map(|(stage, _)| *stage).collect();
    let place = |at: usize| names.iter().position(|name| *name == found.run.stages[at].stage);
    let one = |(stage, members): &(&str, Vec<usize>)| {
        let mut inputs: Vec<usize> = members
            .iter()
            .flat_map(|&at| found.run.stages[at].inputs.values().filter_map(|&from| place(from)))
            .collect();
        inputs.sort_unstable();
        inputs.dedup();
        Stage {
            name: (*stage).to_owned(),
            uses: members.first().map(|&at| found.run.stages[at].uses.clone()).unwrap_or_default(),
            inputs,
            instances: members.iter().map(|&at| instance(found, at)).collect(),
        }
    };
    groups.iter().map(one).collect()
}

fn instance(found: &Found<'_>, at: usize) -> Instance {
    let (stage, manifest) = (&found.run.stages[at], found.manifests[at].as_ref());
    let of = |value: fn(&Manifest) -> String| manifest.map(value);
    Instance {
        name: stage.instance.clone(),
        outcome: outcome(stage),
        seconds: manifest.map(|manifest| manifest.seconds),
        version: manifest.map(|manifest| manifest.fingerprint.version),
        key: stage.key.map(|key| key.to_string()),
        content: of(|manifest| manifest.content.to_string()),
        finished: of(|manifest| utc(manifest.finished_ms / 1000)),
        run: of(|manifest| manifest.run.clone()),
        device: of(|manifest| manifest.device.clone()),
        program: of(|manifest| manifest.program.clone()),
        seeds: manifest.map(seeds).unwrap_or_default(),
        files: manifest.map(files).unwrap_or_default(),
    }
}

fn outcome(stage: &PastStage) -> Outcome {
    match &stage.outcome {
        Some(Ended::Ran) => Outcome::Ran,
        Some(Ended::Cached) => Outcome::Cached,
        Some(Ended::Failed { message, .. }) => Outcome::Failed(message.clone()),
        Some(Ended::Skipped { .. } | Ended::NotAsked) | None => Outcome::Missing,
    }
}

fn seeds(manifest: &Manifest) -> Vec<(String, String)> {
    let params = manifest.fingerprint.params.iter().chain(&manifest.unkeyed);
    let seed = |name: &str| SEEDS.contains(&name.rsplit('.').next().unwrap_or(name));
    params.filter(|(name, value)| seed(name) && !value.is_null()).map(|(n, v)| (n.clone(), v.to_string())).collect()
}

fn files(manifest: &Manifest) -> Vec<Digested> {
    let size = |digest| manifest.output.files.values().find(|file| file.digest == digest).map_or(0, |file| file.size);
    let files = manifest.fingerprint.files.iter();
    files
        .map(|(name, &digest)| Digested { name: name.clone(), digest: digest.to_string(), size: size(digest) })
        .collect()
}

/// The run as a whole.
pub fn facts(found: &Found<'_>) -> Vec<(String, String)> {
    let run = found.run;
    let mut facts: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, value: Option<String>| facts.extend(value.map(|value| (name.to_owned(), value)));
    add("run", run.run.clone());
    add("started", run.started_ms.map(|ms| format!("{} UTC", utc(ms / 1000))));
    add("took", run.seconds.map(palinode_report::duration));
    add("host", run.host.clone());
    let model = found.of_kind(ModelKind::NAME).next().and_then(|(_, model)| Given::<ModelKind>::read(model).ok());
    add("model", model.map(|model| model_facts(&model.facts.model)));
    let distinct = |value: fn(&Manifest) -> &String| {
        let mut all: Vec<&String> = found.manifests.iter().flatten().map(value).collect();
        all.sort();
        all.dedup();
        (!all.is_empty()).then(|| all.into_iter().cloned().collect::<Vec<_>>().join(", "))
    };
    add("device", distinct(|manifest| &manifest.device));
    add("palinode", distinct(|manifest| &manifest.program));
    let missing = found.manifests.iter().filter(|manifest| manifest.is_none()).count();
    add("not there", (missing > 0).then(|| format!("results of {missing} of {} stages", run.stages.len())));
    let lost = found.lost.take();
    add("no longer in the store", (!lost.is_empty()).then(|| lost.join(", ")));
    facts
}

fn model_facts(facts: &Facts) -> String {
    let millions = facts.parameters as f64 / 1e6;
    let size = if millions >= 1000.0 { format!("{:.1} B", millions / 1000.0) } else { format!("{millions:.1} M") };
    format!("{}, {size} parameters, {} layers, d = {}", facts.family, facts.layers, facts.hidden)
}
