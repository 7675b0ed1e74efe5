//! zsRE as MEND cut it (Levy et al. 2017; Mitchell et al., arXiv 2110.11309): `zsre_mend_eval.json` and its kin.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::counterfact::id;
use crate::records::Fault;
use crate::request::{published_template, trimmed};
use crate::{EditRequest, Neighbor, TargetPrefix};

pub const HINT: &str = "a zsRE record has subject, src and, as target, answers or alt";

/// The answer that becomes the new target of a zsRE record. With the true one there is no other answer to compare with, so no
/// `target_true`; with the false one, `answers[0]` is the true target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ZsreTarget {
    /// The true answer, `answers[0]`, as in MEMIT and later papers.
    #[default]
    Answer,
    /// The false answer, `alt`, as in EasyEdit.
    Alt,
}

/// Questions about other subjects come from Natural Questions, and begin with "nq question: " in the published file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ZsreQuestion {
    /// As it is written, as the published code asks it.
    #[default]
    AsWritten,
    /// Without "nq question: ", as a person would ask it.
    Bare,
}

/// The mark of the published file.
const MARK: &str = "nq question: ";

#[derive(Deserialize)]
pub struct Record {
    case_id: Option<Value>,
    subject: String,
    src: String,
    answers: Option<Vec<String>>,
    alt: Option<String>,
    rephrase: Option<String>,
    loc: Option<String>,
    loc_ans: Option<String>,
    strength: Option<f64>,
    target_prefix: Option<String>,
}

pub fn request(index: usize, record: Record, target: ZsreTarget, question: ZsreQuestion) -> Result<EditRequest, Fault> {
    let given = record.answers.is_some();
    let answer = record.answers.into_iter().flatten().next();
    let missing = |field: &str| (None, format!("missing field `{field}`"));
    let (target_new, target_true) = match target {
        ZsreTarget::Answer if given && answer.is_none() => {
            return Err((Some("answers".to_owned()), "there is no answer in it".to_owned()));
        }
        ZsreTarget::Answer => (answer.ok_or_else(|| missing("answers"))?, None),
        ZsreTarget::Alt => (record.alt.ok_or_else(|| missing("alt"))?, answer),
    };
    // The question that the edit should leave alone; the authors' code adds the question mark.
    let asked = |text: &str| match question {
        ZsreQuestion::AsWritten => format!("{text}?"),
        ZsreQuestion::Bare => format!("{}?", text.strip_prefix(MARK).unwrap_or(text)),
    };
    let neighbor = record.loc.map(|text| Neighbor { prompt: asked(&text), target: record.loc_ans });
    let subject = trimmed(record.subject);
    Ok(EditRequest {
        id: id(record.case_id, index),
        prompt: published_template(record.src, &subject),
        subject,
        target_new,
        target_true,
        paraphrases: record.rephrase.into_iter().collect(),
        neighbors: neighbor.into_iter().collect(),
        strength: record.strength,
        target_prefix: record.target_prefix.map_or(TargetPrefix::Blank, TargetPrefix::Given),
        ..EditRequest::default()
    })
}
