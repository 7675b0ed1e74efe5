//! How targets were found: `traces.json` of targets.

use palinode_edit::StepRecord;
use palinode_engine::Kind as _;
use palinode_report::{Losses, Trace};

use super::found::Found;
use crate::artifacts::targets::{Losses as Told, TRACES, TargetsKind};

/// One for each result that differs from the others.
pub fn all(found: &Found<'_>) -> Vec<Losses> {
    let members = found.distinct(found.of_kind(TargetsKind::NAME).map(|(at, _)| at));
    members.into_iter().filter_map(|at| one(found, at)).collect()
}

fn one(found: &Found<'_>, at: usize) -> Option<Losses> {
    let told: Vec<Told<Vec<StepRecord>>> = found.read(at, &found.manifests[at].as_ref()?.output, TRACES)?;
    let requests = found.requests(at);
    let trace = |(i, told): (usize, &Told<Vec<StepRecord>>)| {
        let request = requests.get(i).filter(|request| request.id == told.id);
        let values = |value: fn(&StepRecord) -> f32| told.steps.iter().map(|step| f64::from(value(step))).collect();
        Trace {
            label: request
                .map_or_else(|| told.id.clone(), |r| format!("{} → {}", r.subject.trim(), r.target_new.trim())),
            loss: values(|step| step.loss),
            terms: vec![values(|step| step.nll), values(|step| step.kl), values(|step| step.decay)],
        }
    };
    Some(Losses {
        instance: found.run.stages[at].instance.clone(),
        terms: ["−log p(new)", "KL", "weight decay"].map(str::to_owned).to_vec(),
        traces: told.iter().enumerate().map(trace).collect(),
    })
}
