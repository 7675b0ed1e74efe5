//! What the parameters of a solve say of preservation beside its weights: a projector, and published values by name.

use std::sync::Arc;

use palinode_edit::Preservations;
use palinode_engine::bounds::{NonNegative, Positive, PositiveShare};
use palinode_engine::{Error, FieldError, Given, StageContext};
use palinode_math::{Cut, Mat, PreservationWeights, Projector, SecondMoment, Spectrum, Threshold};
use palinode_model::WeightId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::artifacts::factors::MomentsOrFactors;
use crate::artifacts::moments::read_layer;
use crate::artifacts::tensors::{Named, Tensors, serialize};
use crate::artifacts::update::ProjectorFacts;
use crate::errors::StageFailure;

/// Which directions a change may use: eigenvectors of the second moment with the smallest eigenvalues. Exactly one of the bounds is given.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectorParams {
    /// Eigenvalues strictly below this number, as AlphaEdit's code has it. It depends on the scale of the second moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    threshold: Option<Positive>,
    /// As many of the smallest eigenvalues as hold together at most this share of the second moment's trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace: Option<PositiveShare>,
    /// This share of all directions. With 1 the projector changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dimensions: Option<PositiveShare>,
}

impl ProjectorParams {
    fn bounds(&self) -> Vec<Threshold> {
        let Self { threshold, trace, dimensions } = self;
        let bounds = [
            threshold.map(|bound| Threshold::Below(bound.get())),
            trace.map(|share| Threshold::Trace(share.get())),
            dimensions.map(|share| Threshold::Dimensions(share.get())),
        ];
        bounds.into_iter().flatten().collect()
    }

    /// Mistakes that the parameters alone show.
    pub fn check(&self) -> Option<FieldError> {
        let given = self.bounds().len();
        (given != 1).then(|| {
            FieldError::new("projector", format!("the projector has {given} bounds"))
                .expected("exactly one of `threshold`, `trace` and `dimensions`")
        })
    }

    /// The metric of one second moment.
    ///
    /// # Errors
    /// Of kind numerical, where the cut leaves no direction.
    pub fn metric(&self, moment: &SecondMoment, weights: PreservationWeights) -> Result<Projector, Error> {
        let [threshold] = self.bounds()[..] else { return Err(Error::internal("a projector has one bound")) };
        let spectrum = Spectrum::of(moment).map_err(StageFailure::stage)?;
        Projector::new(&spectrum, threshold, weights).map_err(StageFailure::stage)
    }

    /// The metrics of some layers, and where each was cut.
    pub fn metrics(
        &self,
        cx: &StageContext,
        moments: &Given<'_, MomentsOrFactors>,
        layers: &[usize],
        weights: PreservationWeights,
    ) -> Result<(Preservations, Vec<ProjectorFacts>), Error> {
        let [threshold] = self.bounds()[..] else { return Err(Error::internal("a projector has one bound")) };
        if moments.facts.fixed.is_some() {
            return Err(Error::input("a projector needs the second moments themselves, and gets their factors")
                .hint("connect `moments` to the stage that measures or loads them, without `factor`"));
        }
        let (mut metrics, mut facts) = (Preservations::new(), Vec::with_capacity(layers.len()));
        for &layer in layers {
            let spectrum = spectrum(cx, moments, layer)?;
            let cut = spectrum.cut(threshold);
            tell(cx, layer, &cut);
            let projector = Projector::new(&spectrum, threshold, weights).map_err(|error| {
                let error = error.stage();
                Error { message: format!("layer {layer}: {}", error.message), ..error }
            })?;
            metrics.insert(WeightId::down(layer), Arc::new(projector));
            let Cut { dimensions, kept, below, above, smallest, largest, trace } = cut;
            facts.push(ProjectorFacts { layer, dimensions, kept, below, above, smallest, largest, trace });
        }
        Ok((metrics, facts))
    }
}

/// Says where a spectrum is cut, and warns where the cut is not clear.
fn tell(cx: &StageContext, layer: usize, cut: &Cut) {
    let Cut { dimensions, kept, below, above, trace, .. } = *cut;
    let number = |value: Option<f64>| value.map_or("none".to_owned(), |value| format!("{value:.4e}"));
    let gap = format!("largest eigenvalue kept {}, smallest not kept {}", number(below), number(above));
    cx.say(format!(
        "layer {layer}: the projector keeps {kept} of {dimensions} directions, {:.3} % of the trace; {gap}",
        100.0 * trace
    ));
    if cut.near_tie() {
        cx.warn(format!(
            "layer {layer}: the projector cuts between two nearly equal eigenvalues ({gap}): other text, or rounding, may keep others"
        ));
    }
}

/// The spectrum of a layer's second moment: computed once for all thresholds, and kept.
fn spectrum(cx: &StageContext, moments: &Given<'_, MomentsOrFactors>, layer: usize) -> Result<Arc<Spectrum>, Error> {
    let digest = moments.digest();
    cx.shared(&format!("spectrum:{digest}:{layer}"), || {
        let key = cx.unit_key(&json!({ "spectrum": digest, "layer": layer }));
        if let Some(known) = cx.get_unit(&key).and_then(from_bytes) {
            return Ok(known);
        }
        let moment = read_layer(cx, moments, &moments.facts.layers, layer)?;
        let made = Spectrum::of(&moment).map_err(StageFailure::stage)?;
        let f = made.values().len();
        let vectors = (0..f).flat_map(|j| (0..f).map(move |i| (i, j))).map(|(i, j)| made.vectors()[(i, j)]);
        let named = [
            Named::values("values", vec![f], made.values().iter().copied()),
            Named::values("vectors", vec![f, f], vectors),
        ];
        cx.put_unit(&key, &serialize(&named, None)?)?;
        Ok(made)
    })
}

/// A stored spectrum, whose vectors lie one after the other.
fn from_bytes(bytes: Vec<u8>) -> Option<Spectrum> {
    let tensors = Tensors::new(bytes);
    let (_, values) = tensors.values("values").ok()?;
    let (_, vectors) = tensors.values("vectors").ok()?;
    let f = values.len();
    if vectors.len() != f * f {
        return None;
    }
    Spectrum::from_parts(Mat::from_fn(f, f, |i, j| vectors[j * f + i]), values).ok()
}

/// The preservation of a published method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// MEMIT that also preserves earlier rounds: λ 15000, history 1. λ is MEMIT's for GPT-J and Llama; its files have 20000 for GPT-2 XL.
    MemitSeq,
    /// AlphaEdit (arXiv 2410.02355): λ 0, ρ 10, history 1, eigenvalues below 0.02, as in the authors' code for all models. EasyEdit has
    /// ρ 1 for Llama 3 8B, and so has BLUE.
    #[serde(rename = "alphaedit")]
    AlphaEdit,
    /// ENCORE's norm constraint: λ 20000, ρ 10, history 1, as in the authors' code for GPT-2 XL; for Llama 3 it has λ 15000 and ρ 20.
    Encore,
}

/// What a preset fills in. Every one has a history of weight 1.
pub struct PresetValues {
    /// λ.
    pub lambda: NonNegative,
    /// ρ.
    pub update_norm_lambda: NonNegative,
    /// The projector.
    pub projector: Option<ProjectorParams>,
}

impl Preset {
    /// Its values.
    pub fn values(self) -> PresetValues {
        let (lambda, rho) = match self {
            Self::MemitSeq => const { (NonNegative::new(15000.0), NonNegative::new(0.0)) },
            Self::AlphaEdit => const { (NonNegative::new(0.0), NonNegative::new(10.0)) },
            Self::Encore => const { (NonNegative::new(20000.0), NonNegative::new(10.0)) },
        };
        let projector = (self == Self::AlphaEdit)
            .then(|| ProjectorParams { threshold: Some(const { Positive::new(0.02) }), ..ProjectorParams::default() });
        PresetValues { lambda, update_norm_lambda: rho, projector }
    }
}
