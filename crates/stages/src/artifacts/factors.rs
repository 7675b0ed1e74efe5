//! Cholesky factors on their way between stages: from the store, or made of second moments and kept for a run.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use palinode_edit::Preservations;
use palinode_engine::{Accept, ArtifactKind, Error, FieldError, FileRef, Given, Kind, StageContext};
use palinode_math::{Factor, PartFactors, Preservation, PreservationWeights, SecondMoment};
use palinode_model::WeightId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::artifacts::moments::{
    LayerFacts, MomentsFacts, MomentsKind, Unusable, file_name, known, metric_by_expert, moment_at,
};
use crate::artifacts::tensors::{OneByOne, Streamed, put_streamed};
use crate::errors::StageFailure;

/// Cholesky factors of the preservation metric.
pub struct FactorsKind;

impl Kind for FactorsKind {
    const NAME: &'static str = "factors";
    type Facts = FactorsFacts;
    type Planned = PlannedFactors;
}

/// What factors say of themselves.
#[derive(Debug, Serialize, Deserialize)]
pub struct FactorsFacts {
    /// λ; 1 where there is no ridge.
    pub lambda: f64,
    /// ρ.
    pub update_norm_lambda: f64,
    /// The model whose second moments they are of, by its digest.
    pub base: String,
    /// What the second moments said of their layers.
    pub layers: Vec<LayerFacts>,
}

/// What is known of factors before they are computed.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct PlannedFactors {
    /// λ and ρ.
    pub weights: Option<[f64; 2]>,
    /// The layers.
    pub layers: Option<Vec<usize>>,
}

/// What a port takes that a metric can be made at: second moments, or factors of them.
pub struct MomentsOrFactors;

/// What second moments and factors have in common.
#[derive(Debug)]
pub struct MetricFacts {
    /// The model that they are of, by its digest.
    pub base: String,
    /// The layers.
    pub layers: Vec<LayerFacts>,
    /// The weights of factors; `None` for second moments, of which a factor with any weights can be made.
    pub fixed: Option<PreservationWeights>,
}

/// The same before anything is there.
#[derive(Debug, Default)]
pub struct PlannedMetric {
    /// The layers.
    pub layers: Option<Vec<usize>>,
    /// The weights of factors.
    pub fixed: Option<PreservationWeights>,
}

impl Accept for MomentsOrFactors {
    const KINDS: &'static [ArtifactKind] = &[MomentsKind::NAME, FactorsKind::NAME];
    type Facts = MetricFacts;
    type Planned = PlannedMetric;

    fn facts(kind: &str, meta: &Value) -> serde_json::Result<MetricFacts> {
        Ok(if kind == FactorsKind::NAME {
            let FactorsFacts { lambda, update_norm_lambda, base, layers } = FactorsKind::facts(kind, meta)?;
            let fixed = Some(PreservationWeights { lambda, rho: update_norm_lambda });
            MetricFacts { base, layers, fixed }
        } else {
            let MomentsFacts { base, layers, .. } = MomentsKind::facts(kind, meta)?;
            MetricFacts { base, layers, fixed: None }
        })
    }

    fn planned(kind: &str, said: &Value) -> PlannedMetric {
        if kind == FactorsKind::NAME {
            let PlannedFactors { weights, layers } = FactorsKind::planned(kind, said);
            let fixed = weights.map(|[lambda, rho]| PreservationWeights { lambda, rho });
            PlannedMetric { layers, fixed }
        } else {
            PlannedMetric { layers: MomentsKind::planned(kind, said).layers, fixed: None }
        }
    }
}

/// The weights that are factored for. Without a ridge λ only scales `P`: one factorisation, with λ = 1, serves a whole sweep.
pub fn factored(weights: PreservationWeights) -> PreservationWeights {
    PreservationWeights { lambda: if weights.rho == 0.0 { 1.0 } else { weights.lambda }, ..weights }
}

/// Why factors, of the weights `fixed`, cannot serve other weights, where that is so.
pub fn mismatch(fixed: Option<PreservationWeights>, weights: PreservationWeights) -> Option<FieldError> {
    let have = fixed?;
    let hint = "let `factor` and what takes from it have the same weights, or take the second moments themselves";
    if have.rho != weights.rho {
        let message = format!("`update_norm_lambda` is {}, but the factors are of {}", weights.rho, have.rho);
        return Some(FieldError::new("update_norm_lambda", message).hint(hint));
    }
    if have != factored(weights) {
        let message = format!("`lambda` is {}, but the factors are of {} with a ridge", weights.lambda, have.lambda);
        return Some(FieldError::new("lambda", message).hint(hint));
    }
    None
}

/// Factors a layer's metric, in the memory of its second moment, which `read` gives. Where it has no factor, it is read again to say why.
pub fn factor(
    layer: usize,
    read: impl Fn() -> Result<SecondMoment, Error>,
    weights: PreservationWeights,
) -> Result<Factor, Error> {
    let made = match Factor::in_place(read()?, weights) {
        Ok(Some(factor)) => Ok(factor),
        Ok(None) => Factor::of_moment(read()?, weights),
        Err(error) => Err(error),
    };
    made.map_err(|error| {
        let error = error.stage();
        Error { message: format!("layer {layer}: {}", error.message), ..error }
    })
}

/// The metric of a layer's second moment: one factor, or one for each expert, made when an edit's keys are routed to it.
#[derive(Clone, Debug)]
pub enum Made {
    /// Of a layer with one feed-forward.
    Whole(Factor),
    /// Of a mixture of experts.
    Parts(PartFactors),
}

impl Made {
    /// Of a layer's second moment, which lies in a file.
    ///
    /// # Errors
    /// When it cannot be read; what factoring it fails with.
    pub fn of_file(facts: &LayerFacts, path: PathBuf, weights: PreservationWeights) -> Result<Self, Error> {
        if let Some(experts) = &facts.experts {
            return metric_by_expert(path, facts.tokens, experts, weights).map(Self::Parts);
        }
        factor(facts.layer, || moment_at(&path, facts), weights).map(Self::Whole)
    }

    /// The metric with this `λ`, where it only scales.
    pub fn with(&self, lambda: f64) -> Arc<dyn Preservation> {
        match self {
            Self::Whole(factor) => Arc::new(factor.rescaled(lambda).unwrap_or_else(|| factor.clone())),
            Self::Parts(parts) => Arc::new(parts.rescaled(lambda).unwrap_or_else(|| parts.clone())),
        }
    }
}

/// Puts a layer's factor into the store: the rows of `L` up to the diagonal, one after the other.
pub fn put_layer(cx: &StageContext, factor: &Factor) -> Result<FileRef, Error> {
    let f = factor.size();
    let rows = Box::new((0..f).flat_map(|i| factor.row(i)));
    put_streamed(cx, vec![Streamed { name: LOWER.to_owned(), shape: vec![f * (f + 1) / 2], values: rows }])
}

/// What the tensor of a factor is called.
const LOWER: &str = "lower";

fn get_layer(
    cx: &StageContext,
    given: &Given<'_, MomentsOrFactors>,
    layer: usize,
    weights: PreservationWeights,
) -> Result<Factor, Error> {
    known(&given.facts.layers, layer)?;
    let file = crate::artifacts::model::file(given, &file_name(layer))?;
    factor_at(&cx.path(file)?, layer, weights)
}

/// A layer's factor, of a file that [`put_layer`] wrote, read row by row into its place.
pub fn factor_at(path: &Path, layer: usize, weights: PreservationWeights) -> Result<Factor, Error> {
    let mut file = OneByOne::open(path)?;
    let count: usize = file.shape(LOWER)?.iter().product();
    let mut values = file.stream(LOWER)?;
    // Of n values f (f + 1) / 2 = n, so f ≤ √(2n) < f + 1.
    let read = Factor::from_rows((2 * count).isqrt(), weights, |_, row| values.fill(row).map_err(Unusable));
    read.map_err(|Unusable(error)| Error::internal(format!("stored factor of layer {layer}: {}", error.message)))
}

/// Preservations `P = λC + ρI` of some layers, from factors or of second moments.
pub fn metrics(
    cx: &StageContext,
    given: &Given<'_, MomentsOrFactors>,
    layers: &[usize],
    weights: PreservationWeights,
) -> Result<Preservations, Error> {
    if let Some(error) = mismatch(given.facts.fixed, weights) {
        let made = Error::input(error.message);
        return Err(error.hint.into_iter().fold(made, Error::hint));
    }
    let unit = factored(weights);
    let name = format!("factors:{}:{}:{}", given.digest(), unit.lambda, unit.rho);
    let cache: Arc<Mutex<BTreeMap<usize, Made>>> = cx.shared(&name, || Ok(Mutex::default()))?;
    let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found = Preservations::new();
    for &layer in layers {
        let made = match cache.entry(layer) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(missing) => missing.insert(if given.facts.fixed.is_some() {
                Made::Whole(get_layer(cx, given, layer, unit)?)
            } else {
                let path = cx.path(crate::artifacts::model::file(given, &file_name(layer))?)?;
                Made::of_file(known(&given.facts.layers, layer)?, path, unit)?
            }),
        };
        found.insert(WeightId::down(layer), made.with(weights.lambda));
    }
    Ok(found)
}
