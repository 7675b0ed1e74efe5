//! MQuAKE (Zhong et al., arXiv 2305.14795): counterfactual edits, several to a record, and questions whose answers they change in several
//! steps. The edits of a record belong together: they are made together, and its questions are asked of all of them.

use serde::Deserialize;
use serde_json::Value;

use crate::counterfact::id;
use crate::records::{Fault, null_is_none};
use crate::request::trimmed;
use crate::{EditRequest, Probe};

pub const HINT: &str = "a MQuAKE record has requested_rewrite, a list of objects with prompt (with {}), subject and target_new.str; optional are \
                        questions, new_answer, new_answer_alias and new_single_hops";

/// The axis of questions about one step.
const SINGLE: &str = "single-hop";

#[derive(Deserialize)]
pub struct Record {
    case_id: Option<Value>,
    requested_rewrite: Vec<Rewrite>,
    #[serde(default, deserialize_with = "null_is_none")]
    questions: Vec<String>,
    new_answer: Option<String>,
    #[serde(default, deserialize_with = "null_is_none")]
    new_answer_alias: Vec<String>,
    #[serde(default, deserialize_with = "null_is_none")]
    new_single_hops: Vec<Hop>,
    orig: Option<Chain>,
}

#[derive(Deserialize)]
struct Rewrite {
    prompt: String,
    subject: String,
    relation_id: Option<String>,
    target_new: Target,
    target_true: Option<Target>,
    question: Option<String>,
}

#[derive(Deserialize)]
struct Target {
    str: String,
    id: Option<String>,
}

#[derive(Deserialize)]
struct Hop {
    question: String,
    answer: String,
    #[serde(default, deserialize_with = "null_is_none")]
    answer_alias: Vec<String>,
}

/// The facts that lead from the question to its answer.
#[derive(Deserialize)]
struct Chain {
    #[serde(default, deserialize_with = "null_is_none")]
    new_triples: Vec<Value>,
}

/// The edits of a record. Its questions stand with the first of them.
pub fn requests(index: usize, record: Record) -> Result<Vec<EditRequest>, Fault> {
    let name = id(record.case_id, index);
    let steps = match record.new_single_hops.len() {
        0 => record.orig.map_or(0, |chain| chain.new_triples.len()),
        hops => hops,
    };
    let axis = if steps > 1 { format!("{steps} hops") } else { "multi-hop".to_owned() };
    let answers: Vec<String> = record.new_answer.into_iter().chain(record.new_answer_alias).collect();
    if record.requested_rewrite.is_empty() {
        return Err((Some("requested_rewrite".to_owned()), "the record has no edit".to_owned()));
    }
    if answers.is_empty() && !record.questions.is_empty() {
        return Err((Some("new_answer".to_owned()), "there are questions, but no answer to them".to_owned()));
    }
    let several = record.requested_rewrite.len() > 1;
    let edit = |(at, rewrite): (usize, Rewrite)| EditRequest {
        id: if several { format!("{name}-{}", at + 1) } else { name.clone() },
        group: several.then(|| name.clone()),
        fact: rewrite.relation_id.zip(rewrite.target_new.id),
        prompt: rewrite.prompt,
        subject: trimmed(rewrite.subject),
        target_new: rewrite.target_new.str,
        target_true: rewrite.target_true.map(|target| target.str),
        paraphrases: rewrite.question.into_iter().collect(),
        ..EditRequest::default()
    };
    let mut edits: Vec<EditRequest> = record.requested_rewrite.into_iter().enumerate().map(edit).collect();
    if let Some(first) = edits.first_mut() {
        let asked = |prompt| Probe { prompt, answers: answers.clone() };
        let single = |hop: Hop| {
            let answers = std::iter::once(hop.answer).chain(hop.answer_alias).collect();
            Probe { prompt: hop.question, answers }
        };
        let axes = [
            (axis, record.questions.into_iter().map(asked).collect::<Vec<_>>()),
            (SINGLE.to_owned(), record.new_single_hops.into_iter().map(single).collect()),
        ];
        first.portability = axes.into_iter().filter(|(_, probes)| !probes.is_empty()).collect();
    }
    for (at, edit) in edits.iter().enumerate() {
        edit.check().map_err(|(field, message)| (Some(format!("requested_rewrite[{at}].{field}")), message))?;
    }
    Ok(edits)
}

/// Whether an axis of portability has questions that are answered in several steps.
pub fn is_multi_hop(axis: &str) -> bool {
    let steps = axis.strip_suffix(" hops").or_else(|| axis.strip_suffix("hop"));
    ["mhop", "multi-hop"].contains(&axis)
        || steps.and_then(|steps| steps.parse::<usize>().ok()).is_some_and(|steps| steps > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_of_several_steps_are_known() {
        for axis in ["2 hops", "4 hops", "3hop", "mhop", "multi-hop"] {
            assert!(is_multi_hop(axis), "{axis}");
        }
        for axis in [SINGLE, "1hop", "reasoning", "hops", " hops"] {
            assert!(!is_multi_hop(axis), "{axis}");
        }
    }
}
