//! A target: how it is sought, and what was found.

use palinode_model::Compute;
use serde::{Deserialize, Serialize};

use crate::TargetSite;
use crate::prompts::FactToken;

/// How targets are optimised; names as in the published hyperparameter files where they have one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TargetSettings {
    /// Where δ is added. At `mlp_output` and `block_output` it has the same effect; the site decides what `h₀` is.
    pub site: TargetSite,
    /// The layer of the site.
    pub layer: usize,
    /// The token that δ is added at.
    pub fact_token: FactToken,
    /// Evaluations of the loss (`v_num_grad_steps`); the last one makes no update.
    pub steps: usize,
    /// Adam's step size (`v_lr`).
    pub learning_rate: f64,
    /// `kl_factor`.
    pub kl_factor: f64,
    /// `v_weight_decay`.
    pub weight_decay: f64,
    /// `‖δ‖` is kept at or below this times `‖h₀‖` (`clamp_norm_factor`).
    pub clamp: f64,
    /// A request stops where its loss falls below this.
    pub stop_loss: f64,
    /// What else is asked of the search.
    pub rules: TargetRules,
}

/// What later methods changed of the search, each on its own; none of it by default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TargetRules {
    /// When a request stops, beside its loss.
    pub stop: StopRule,
    /// The loss is read after this layer's block (`v_loss_layer`), by the final norm and the head; the last layer where it is left out.
    pub loss_layer: Option<usize>,
    /// Requests with one subject share a target (MEMIT-Merge).
    pub merge: bool,
    /// What products of the search's steps round factors to. What a search begins from, `h₀` and the keys and values of earlier tokens, and
    /// the predictions that it preserves, are in f32: what is written at last is `h₀ + δ`, beside what the model computes.
    pub compute: Compute,
}

/// When a search stops, beside a loss that is small enough.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum StopRule {
    /// Never.
    #[default]
    Loss,
    /// After so many evaluations in which every target token was the most probable one in all contexts but the first (ENCORE). They need
    /// not be consecutive. Where there is only one context, it counts.
    Argmax(usize),
    /// Where every target token is the most probable one in all contexts, and `kl_factor · KL` is at most 0.01; as long as they are, the
    /// likelihood weighs a tenth from the next evaluation on (PMET).
    Divergence,
}

/// One evaluation of the loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The sum of the three terms.
    pub loss: f32,
    /// Mean negative log-likelihood per target token.
    pub nll: f32,
    /// `kl_factor · KL`.
    pub kl: f32,
    /// `weight_decay · ‖δ‖/‖h₀‖²`.
    pub decay: f32,
    /// `‖δ‖` at the evaluation.
    pub norm: f32,
}

/// A request's target.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// `h₀`, `[d]`.
    pub initial: Vec<f32>,
    /// δ, `[d]`, as of the last recorded loss.
    pub delta: Vec<f32>,
    /// Every evaluation.
    pub trace: Vec<StepRecord>,
}

impl Target {
    /// Whether the search was of no use: it made steps, and its loss is not below the one that it began with.
    pub fn is_lost(trace: &[StepRecord]) -> bool {
        match trace {
            [first, .., last] => last.loss.is_nan() || last.loss >= first.loss,
            _ => false,
        }
    }

    /// `z = h₀ + δ`, `[d]`.
    pub fn value(&self) -> Vec<f32> {
        self.initial.iter().zip(&self.delta).map(|(h, d)| h + d).collect()
    }
}

/// What is told of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The evaluation's number, from 0.
    pub number: usize,
    /// Requests that it finished.
    pub finished: usize,
    /// Mean loss of those that took part.
    pub loss: f32,
}
