//! Target searches that found nothing: an edit of them is an edit of nothing, or makes the model worse.

use palinode_data::EditRequest;
use palinode_edit::{StepRecord, Target};
use palinode_engine::{Error, StageContext};

/// Requests that are named.
const NAMED: usize = 5;

/// How a search went.
pub struct Search<'a> {
    /// What each step cost.
    pub trace: &'a [StepRecord],
    /// δ, `[d]`.
    pub delta: &'a [f32],
}

/// Says which searches did not come below the loss that they began with, and whether there were any; fails where all of them are edits of nothing,
/// unless `last` says that the layer is the model's last, where that is no surprise. `place` begins what is said.
///
/// # Errors
/// Of kind numerical, with a way out.
pub fn say_lost(
    cx: &StageContext,
    place: &str,
    requests: &[EditRequest],
    found: &[Search<'_>],
    last: bool,
) -> Result<bool, Error> {
    let lost: Vec<usize> = (0..found.len()).filter(|&i| Target::is_lost(found[i].trace)).collect();
    if lost.is_empty() {
        return Ok(false);
    }
    let names: Vec<&str> = lost.iter().take(NAMED).map(|&i| requests[i].id.as_str()).collect();
    let more = if lost.len() > NAMED { format!(" and {} more", lost.len() - NAMED) } else { String::new() };
    let message = format!(
        "{place}{} not found: the loss is not below the one that the search began with ({} {}{more})",
        match (lost.len(), found.len()) {
            (_, 1) => "the target was".to_owned(),
            (1, all) => format!("one of {all} targets was"),
            (lost, all) => format!("{lost} of {all} targets were"),
        },
        if names.len() == 1 { "request" } else { "requests" },
        names.join(", ")
    );
    if last {
        cx.warn(format!(
            "{message}; the layer is the model's last: no token after the subject's reads what is written there"
        ));
        return Ok(true);
    }
    let nothing = |i: &usize| found[*i].delta.iter().all(|&d| d == 0.0);
    if lost.len() == found.len() && lost.iter().all(nothing) {
        return Err(Error::numerical(message).hint("lower `learning_rate`: the first step already leaves every number"));
    }
    cx.warn(format!("{message}; a lower `learning_rate` or more `steps` may help"));
    Ok(true)
}
