//! An update without some of its edits: what can be told exactly, what is solved again, and what neither can.

use palinode_engine::{Digest, Error};
use palinode_math::{Delta, Plan, without};
use palinode_model::WeightId;
use serde::Deserialize as _;
use serde_json::json;

use super::again::{Again, solved_again};
use super::refused::Refused;
use crate::artifacts::solved::{Columns, Solved};
use crate::artifacts::update::{LayerFacts, RoundFacts};
use crate::edit::solve::SolveParams;
use crate::errors::StageFailure;
use crate::sinks::export::ledger::Entry;

/// How an update without some of its edits was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// The whole update, or its last round, came off.
    Whole,
    /// From what its solve left: the change is that of a solve without them.
    Exactly,
    /// These layers were solved again, from the first one on, with keys and residuals measured anew.
    Again(Vec<usize>),
}

/// An update without the edits at these places among its own. `None` where none is left.
///
/// # Errors
/// Of kind input, for what does not come off by itself: with what would have to run. Of kind numerical, where what stays cannot be solved.
pub fn entry_without(entry: &Entry, gone: &[usize], again: &Again<'_>) -> Result<(Option<Entry>, How), Error> {
    let count = entry.facts.edits.len();
    if gone.len() == count {
        return Ok((None, How::Whole));
    }
    let refused = Refused { entry, gone };
    let rounds = &entry.facts.rounds;
    let last = rounds.len().checked_sub(2).map_or(0, |before| rounds[before].edits);
    if let Some(&early) = gone.iter().find(|&&at| at < last) {
        return Err(refused.round(early));
    }
    if !entry.facts.provenance.care.is_null() {
        return Err(refused.care());
    }
    if rounds.len() > 1 && gone.len() == count - last {
        return cut(entry, gone, last).map(|entry| (Some(entry), How::Whole)).ok_or_else(|| refused.by_gradient());
    }
    let Some(solved) = &entry.solved else { return Err(refused.unknown()) };
    if rounds.len() > 1 && entry.changes.iter().any(|(weight, _)| weight.expert.is_some()) {
        return Err(refused.experts_of_a_round());
    }
    let columns = &solved.columns;
    if columns.merged && columns.requests.iter().any(|of| split(of, gone)) {
        return Err(refused.merged());
    }
    let params = SolveParams::deserialize(&entry.facts.provenance.objective)
        .map_err(|error| Error::input(format!("the ledger does not read: parameters of a solve: {error}")))?;
    let plan: Plan = serde_json::from_value(entry.facts.provenance.plan.clone())
        .map_err(|error| Error::input(format!("the ledger does not read: plan: {error}")))?;
    if plan.is_apart() {
        let (changes, solved) = exactly(entry, solved, gone, &params)?;
        return Ok((Some(rest(entry, gone, changes, Some(solved))?), How::Exactly));
    }
    let (changes, solved) = solved_again(entry, solved, (gone, last), (&params, &plan), again)?;
    let layers = plan.steps.iter().map(|step| step.layer).collect();
    Ok((Some(rest(entry, gone, changes, Some(solved))?), How::Again(layers)))
}

/// Whether some of a column's requests go and others stay.
fn split(of: &[usize], gone: &[usize]) -> bool {
    let go = of.iter().filter(|at| gone.contains(at)).count();
    go > 0 && go < of.len()
}

/// The changes from what the solve left.
fn exactly(
    entry: &Entry,
    solved: &Solved,
    gone: &[usize],
    params: &SolveParams,
) -> Result<(Vec<(WeightId, Delta)>, Solved), Error> {
    let columns = &solved.columns;
    let goes = |of: &Vec<usize>| of.iter().all(|at| gone.contains(at));
    let off: Vec<usize> = (0..columns.requests.len()).filter(|&c| goes(&columns.requests[c])).collect();
    // What a solve without them would have: an edit by itself has no stabiliser.
    let stay: Vec<usize> = (0..columns.requests.len()).filter(|c| !off.contains(c)).collect();
    let request = |c: &usize| &entry.facts.edits[columns.requests[*c][0]].request;
    let strengths: Vec<Option<f64>> = stay.iter().map(|c| request(c).strength).collect();
    let alone = params.objective().mu(&strengths).map_err(StageFailure::stage)?;
    let mut mu = columns.mu.clone();
    stay.iter().zip(&alone).for_each(|(&c, &own)| mu[c] = own);
    let (mut changes, mut systems) = (Vec::new(), Vec::new());
    for ((weight, delta), system) in entry.changes.iter().zip(&solved.systems) {
        let Delta::LowRank(all) = delta else {
            return Err(Error::input("the ledger does not read: its solve has a change that is no product of factors"));
        };
        // Earlier rounds stand before the last one.
        let before = all.left.ncols().saturating_sub(columns.requests.len());
        let (earlier, own) = (all.first(before), all.after(before));
        let (own, system) = without(&own, system, &off, &columns.mu, &mu).map_err(StageFailure::stage)?;
        changes.push((*weight, Delta::LowRank(earlier.beside(&own))));
        systems.push(system);
    }
    let requests = stay.iter().map(|&c| columns.requests[c].clone()).collect();
    let columns = Columns { requests, mu: alone, merged: columns.merged };
    Ok((changes, Solved { columns, systems, targets: Vec::new() }))
}

/// The entry without its last round.
fn cut(entry: &Entry, gone: &[usize], last: usize) -> Option<Entry> {
    let before = entry.facts.rounds.iter().rev().find(|round| round.edits <= last)?;
    // An expert that no key was routed to before has no rank there.
    let part = |(weight, delta): &(WeightId, Delta)| match delta {
        Delta::LowRank(low) => {
            Some((*weight, Delta::LowRank(low.first(before.rank.get(&weight.to_string()).copied().unwrap_or(0)))))
        }
        _ => None,
    };
    let changes = entry.changes.iter().map(part).collect::<Option<Vec<_>>>()?;
    let mut cut = rest(entry, gone, changes, None).ok()?;
    cut.facts.rounds.pop();
    Some(cut)
}

/// The entry with other changes and without the edits that are gone.
fn rest(
    entry: &Entry,
    gone: &[usize],
    changes: Vec<(WeightId, Delta)>,
    solved: Option<Solved>,
) -> Result<Entry, Error> {
    let mut facts = entry.facts.clone();
    let stays: Vec<usize> = (0..facts.edits.len()).filter(|at| !gone.contains(at)).collect();
    facts.edits = stays.iter().map(|&at| facts.edits[at].clone()).collect();
    let names: Vec<&String> = facts.edits.iter().map(|edit| &edit.request.id).collect();
    facts.provenance.requests = json!(names);
    for (layer, (_, delta)) in facts.provenance.layers.iter_mut().zip(&changes) {
        let unedited = if layer.relative_norm > 0.0 { layer.norm / layer.relative_norm } else { 0.0 };
        let norm = delta.frobenius();
        *layer = LayerFacts {
            preservation: None,
            error_before: None,
            error_after: None,
            condition: None,
            norm,
            spectral_norm: delta.spectral(),
            relative_norm: if unedited > 0.0 { norm / unedited } else { 0.0 },
            ..layer.clone()
        };
    }
    let less = |edits: usize| edits - gone.iter().filter(|&&at| at < edits).count();
    let places = |of: &Vec<usize>| of.iter().filter_map(|at| stays.iter().position(|stay| stay == at)).collect();
    let solved = solved.map(|mut solved| {
        solved.columns.requests = solved.columns.requests.iter().map(places).collect();
        solved
    });
    for round in &mut facts.rounds {
        *round = RoundFacts { edits: less(round.edits), rank: round.rank.clone() };
    }
    if let Some(round) = facts.rounds.last_mut() {
        let ranks = changes.iter().filter_map(|(weight, delta)| Some((weight.to_string(), delta.rank()?)));
        round.rank = ranks.collect();
    }
    facts.columns = solved.as_ref().map(|solved| solved.columns.clone());
    let mut made = Entry { facts, changes, solved };
    made.facts.update = Digest::of(&made.file().to_bytes()?);
    Ok(made)
}
