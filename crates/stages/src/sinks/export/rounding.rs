//! What rounding takes of a change when it is written, and what is done about it.
//!
//! An edit is small beside the weight that it is added to. Where it is smaller than half a step of the type that the weight is stored in,
//! the written weight is the unedited one. What is exported is then another model than was evaluated.

use palinode_engine::shown::{self, Column, Format, Shown, percent};
use palinode_model::Precision;
use palinode_model::save::{ChangedType, LARGE_SHARE, Written};
use serde::{Deserialize, Serialize};

/// Weights that are listed one by one.
const LISTED: usize = 8;

/// A lost share of a change that is said beside the table, and not in it alone.
const WORTH_SAYING: f64 = 0.01;

/// The metric's name.
pub const LOST: &str = "rounding_loss";

/// A changed weight of which rounding took something, or that was written in a wider type so that it takes nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rounded {
    /// The weight's name as stored.
    pub tensor: String,
    /// The type of the unedited weight.
    pub stored: String,
    /// The type that was written.
    pub written: String,
    /// ‖written − (W + Δ)‖ / ‖Δ‖.
    pub lost: f64,
    /// What the usual type would have taken, where it was too much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spared: Option<f64>,
}

/// What was written into the files of an export.
#[derive(Debug, Default)]
pub struct Rounding(Vec<Written>);

impl Rounding {
    /// Takes note of written weights.
    pub fn add(&mut self, written: &[Written]) {
        self.0.extend_from_slice(written);
    }

    /// The most that was lost of a change.
    pub fn most(&self) -> f64 {
        self.0.iter().map(|weight| weight.lost).fold(0.0, f64::max)
    }

    /// The weights that rounding has to do with, in a model of which some were written in a wider type `before`.
    pub fn weights(&self, before: &[Rounded]) -> Vec<Rounded> {
        let of = |name: &str| before.iter().find(|weight| weight.tensor == name);
        let mut weights = self.own();
        for weight in &mut weights {
            if let Some(before) = of(&weight.tensor) {
                weight.stored.clone_from(&before.stored);
            }
        }
        // What was written as it was found is as wide as before, and so is what was not written.
        let gone = |name: &str| self.0.iter().any(|weight| weight.name == name && weight.dtype != "F32");
        let stays = before.iter().filter(|weight| weight.written == "F32" && !gone(&weight.tensor));
        let stays = stays.filter(|before| !weights.iter().any(|weight| weight.tensor == before.tensor));
        let stays: Vec<Rounded> = stays.cloned().collect();
        weights.extend(stays);
        weights
    }

    fn own(&self) -> Vec<Rounded> {
        let rounded = self.0.iter().filter(|it| it.lost > 0.0 || it.spared.is_some() || is_wider(it));
        let of = |it: &Written| Rounded {
            tensor: it.name.clone(),
            stored: it.stored.clone(),
            written: it.dtype.clone(),
            lost: it.lost,
            spared: it.spared,
        };
        rounded.map(of).collect()
    }

    /// As a table with what there is to say; nothing where nothing was rounded.
    pub fn shown(&self) -> Shown {
        let weights = self.own();
        if weights.is_empty() {
            return Shown::default();
        }
        let lost = shown::number(Written::lost_in_all(&self.0));
        let column = Column::new(LOST, "lost by rounding", Format::Percent)
            .doc("the share of the change that the written weights' types do not hold");
        let notes = notes(&weights);
        Shown {
            notes: (!notes.is_empty()).then_some(notes),
            ..Shown::table([(LOST.to_owned(), lost)].into(), vec![column])
        }
    }
}

/// What a weight of a model is written as when no change of it is left.
pub fn back_to(rounded: &[Rounded], name: &str) -> ChangedType {
    rounded.iter().find(|weight| weight.tensor == name).map_or(ChangedType::Stored, Rounded::back)
}

/// Whether a weight was written in a wider type than it was stored in.
fn is_wider(weight: &Written) -> bool {
    weight.stored != weight.dtype && weight.dtype == "F32" && ["F16", "BF16"].contains(&weight.stored.as_str())
}

/// What is said of weights, one sentence each; nothing of those that lost next to nothing.
fn notes(weights: &[Rounded]) -> Vec<String> {
    let said: Vec<&Rounded> = weights.iter().filter(|it| it.lost == 0.0 || it.lost > WORTH_SAYING).collect();
    let mut notes: Vec<String> = said.iter().take(LISTED).map(|weight| weight.said()).collect();
    if said.len() > LISTED {
        notes.push(format!("and {} more weights", said.len() - LISTED));
    }
    notes.extend(loaded(weights).map(str::to_owned));
    notes
}

/// What becomes of wider weights in another program, where there are any.
pub fn loaded(weights: &[Rounded]) -> Option<&'static str> {
    let wider = |weight: &Rounded| ["F16", "BF16"].contains(&weight.stored.as_str()) && weight.written == "F32";
    weights.iter().any(wider).then_some(
        "load the model in float32 (`dtype` of from_pretrained): a program that loads it in the type of its config.json rounds again",
    )
}

impl Rounded {
    /// What the weight is written as when its change is taken off again.
    pub fn back(&self) -> ChangedType {
        match self.stored.as_str() {
            "F16" => ChangedType::As(Precision::F16),
            "BF16" => ChangedType::As(Precision::Bf16),
            _ => ChangedType::Stored,
        }
    }

    /// In words.
    pub fn said(&self) -> String {
        let Self { tensor, stored, written, lost, spared } = self;
        match spared {
            Some(share) => {
                let share = percent(*share);
                format!(
                    "{tensor} is written in {written}: rounding to {} would lose {share} of its change",
                    usual(stored)
                )
            }
            None if *lost == 0.0 => format!("{tensor} is written in {written}, and was stored in {stored}"),
            None => format!("rounding {tensor} to {written} loses {} of its change", percent(*lost)),
        }
    }
}

/// What a weight of this type is written in if nothing is said.
fn usual(stored: &str) -> &str {
    if ["F16", "BF16"].contains(&stored) { stored } else { "F16" }
}

/// A warning of each weight of which rounding took a large share: the exported model is then another one than was evaluated.
pub fn warnings<'a>(place: &'a str, parameter: &'a str, written: &'a [Written]) -> impl Iterator<Item = String> + 'a {
    let lost = written.iter().filter(|weight| weight.lost > LARGE_SHARE);
    lost.map(move |weight| {
        let (name, dtype, share) = (&weight.name, &weight.dtype, percent(weight.lost));
        format!("in {place}, rounding {name} to {dtype} loses {share} of the change: without `{parameter}` it is kept")
    })
}
