//! Norms of values anchored on the unedited model (NAS).
//!
//! Targets that are found on a model that was edited many times have larger and larger values, and so do the weights that absorb them.
//! With `m` the feed-forward's output at the target's token, a target at the block's output asks the feed-forward for `v* = m + δ`. That
//! value is scaled to the mean norm `n` that such values have on the unedited model. A value of more than twice that norm is taken to be
//! no answer: the request is skipped.

use palinode_data::{ContextTemplates, EditRequest};
use palinode_model::{Decoder, Text};

use crate::prompts::{contexts, prompt_at};
use crate::{EditError, Prompt, Site, Tap, TargetSettings, probe};

/// A value whose norm is more than so many times the anchor is skipped.
const MOST: f64 = 2.0;

/// `m`: the feed-forward's output at each request's token in the first template, on the model that its target was found on; `d` numbers
/// each.
fn outputs(
    decoder: &Decoder,
    text: &Text,
    requests: &[EditRequest],
    templates: &ContextTemplates,
    settings: &TargetSettings,
    tokens: usize,
) -> Result<Vec<f32>, EditError> {
    let first = |request: &EditRequest| {
        let contexts = contexts(request, templates);
        let first = contexts.first().map_or("{}", |(context, _)| *context);
        prompt_at(text, decoder.config(), request, first, settings.fact_token)
    };
    let prompts = requests.iter().map(first).collect::<Result<Vec<Prompt>, _>>()?;
    Ok(probe(decoder, &prompts, &[Tap { layer: settings.layer, site: Site::MlpOutput }], tokens)?.remove(0))
}

/// `n`: the mean norm of `m + δ` over requests, whose `targets` were found on `decoder`.
///
/// # Errors
/// As [`probe`].
pub fn anchor_norm(
    decoder: &Decoder,
    text: &Text,
    requests: &[EditRequest],
    templates: &ContextTemplates,
    settings: &TargetSettings,
    targets: &[&[f32]],
    tokens: usize,
) -> Result<f64, EditError> {
    let outputs = outputs(decoder, text, requests, templates, settings, tokens)?;
    let part = multiplier(decoder, settings);
    let norms = outputs.chunks_exact(decoder.config().hidden).zip(targets).map(|(m, delta)| norm(m, delta, part));
    Ok(norms.sum::<f64>() / requests.len().max(1) as f64)
}

/// Scales the values of targets, found on `decoder`, to the norm `n`: `δ = n v*/‖v*‖ − m`, and 0 where a request is skipped. Returns those,
/// by index.
///
/// # Errors
/// As [`probe`].
#[expect(clippy::too_many_arguments, reason = "what targets were found with, and what is made of them")]
pub fn anchor(
    decoder: &Decoder,
    text: &Text,
    requests: &[EditRequest],
    templates: &ContextTemplates,
    settings: &TargetSettings,
    targets: &mut [&mut Vec<f32>],
    n: f64,
    tokens: usize,
) -> Result<Vec<usize>, EditError> {
    let outputs = outputs(decoder, text, requests, templates, settings, tokens)?;
    let part = multiplier(decoder, settings);
    let mut skipped = Vec::new();
    for (i, (m, delta)) in outputs.chunks_exact(decoder.config().hidden).zip(targets).enumerate() {
        let length = norm(m, delta, part);
        if length > MOST * n {
            delta.fill(0.0);
            skipped.push(i);
            continue;
        }
        let scale = if length > 0.0 { n / length } else { 0.0 };
        for (delta, &m) in delta.iter_mut().zip(m) {
            let (wide, m) = (f64::from(*delta) / part, f64::from(m));
            *delta = ((scale * (m + wide) - m) * part) as f32;
        }
    }
    Ok(skipped)
}

/// `‖m + δ/part‖`.
fn norm(m: &[f32], delta: &[f32], part: f64) -> f64 {
    m.iter().zip(delta).map(|(&m, &d)| (f64::from(m) + f64::from(d) / part).powi(2)).sum::<f64>().sqrt()
}

/// What `δ` is divided by to be a part of the projection's output.
fn multiplier(decoder: &Decoder, settings: &TargetSettings) -> f64 {
    let config = decoder.config();
    Site::of_target(settings.site, config).multiplier(config)
}
