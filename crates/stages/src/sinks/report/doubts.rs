//! Findings of all stages, with the cell that each belongs to.

use palinode_engine::shown::Shown;

use super::found::Found;

/// Every finding, in the order of the run.
pub fn all(found: &Found<'_>) -> Vec<(String, String)> {
    let told: Vec<(usize, Vec<String>)> = found
        .artifacts()
        .filter_map(|(at, artifact)| Some((at, Shown::of(&artifact.meta).findings?)))
        .filter(|(_, findings)| !findings.is_empty())
        .collect();
    let members: Vec<usize> = told.iter().map(|(at, _)| *at).collect();
    let names = found.names(&members);
    told.into_iter()
        .zip(names)
        .flat_map(|((_, findings), name)| findings.into_iter().map(move |finding| (name.clone(), finding)))
        .collect()
}
