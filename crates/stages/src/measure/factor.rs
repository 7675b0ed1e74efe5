//! `factor`: the preservation metric factored once, for all that take it.

use std::borrow::Cow;

use palinode_engine::bounds::{NonNegative, Positive};
use palinode_engine::{
    Artifact, DescribeCx, Error, FieldError, FileRef, Port, PortOf, StageContext, StageKind, artifact,
};
use palinode_math::PreservationWeights;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::artifacts::factors::{FactorsFacts, FactorsKind, PlannedFactors, factor, factored, put_layer};
use crate::artifacts::moments::{LayerFacts, MomentsFacts, MomentsKind, PlannedMoments, file_name, read_layer};
use crate::units::with_file;

/// Parameters of `factor`, as they are written.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Written {
    /// λ, the weight of preservation. Without a ridge, the factors can be used with every λ, and this value is ignored.
    #[serde(default = "unit")]
    lambda: Positive,
    /// ρ, a ridge on the norm of the update.
    #[serde(default)]
    update_norm_lambda: NonNegative,
}

fn unit() -> Positive {
    const { Positive::new(1.0) }
}

/// Parameters of `factor`, with the λ that is factored for: one that does not matter must not be in a key.
#[derive(Serialize, Deserialize)]
#[serde(from = "Written")]
pub struct FactorParams {
    lambda: f64,
    update_norm_lambda: f64,
}

impl From<Written> for FactorParams {
    fn from(written: Written) -> Self {
        let weights =
            factored(PreservationWeights { lambda: written.lambda.get(), rho: written.update_norm_lambda.get() });
        Self { lambda: weights.lambda, update_norm_lambda: weights.rho }
    }
}

impl JsonSchema for FactorParams {
    fn schema_name() -> Cow<'static, str> {
        "FactorParams".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Written::json_schema(generator)
    }
}

impl FactorParams {
    fn weights(&self) -> PreservationWeights {
        PreservationWeights { lambda: self.lambda, rho: self.update_norm_lambda }
    }
}

/// What is said of a layer whose second moments are no one matrix.
fn refused(layer: usize) -> String {
    format!(
        "layer {layer} is a mixture of experts, whose second moments are kept by expert: `factor` does not take them"
    )
}

/// What to do then.
const HINT: &str =
    "connect the second moments themselves: of each edit, `solve` factors the experts that it is routed to";

/// The second moments.
const MOMENTS: PortOf<MomentsKind> = PortOf::required("moments", "Second moments; all layers are factored.");

/// See [`StageKind::DOC`].
pub struct MakeFactors;

impl StageKind for MakeFactors {
    type Params = FactorParams;
    const NAME: &'static str = "factor";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Factors the preservation metric once, for every solve that uses it.";
    const DOC: &'static str = "\
Every objective needs P⁻¹ with P = λC + ρI, and computes it from the Cholesky factor of P. `solve` and `sequence` factor the \
second moments at their `moments` port. The time grows with f³: seconds for GPT-2 XL (f = 6400), minutes for GPT-J (f = \
16384). This stage keeps the factors, in half the space of the second moments. Both stages accept them at the `moments` \
port, with the same result in every bit.

Without a ridge (`update_norm_lambda: 0`), λ only scales P, so one set of factors can be used for a whole sweep over λ. With \
a ridge, `factor` and the stages that use its result must have the same λ and ρ.";
    type Output = FactorsKind;

    fn inputs() -> Vec<Port> {
        vec![MOMENTS.port()]
    }

    fn describe(params: &FactorParams, cx: &DescribeCx<'_>) -> Result<PlannedFactors, Vec<FieldError>> {
        let PreservationWeights { lambda, rho } = params.weights();
        let PlannedMoments { layers, mixture } = cx.input(MOMENTS);
        if let Some(layer) = mixture {
            return Err(vec![FieldError::new("", refused(layer)).hint(HINT)]);
        }
        Ok(PlannedFactors { weights: Some([lambda, rho]), layers })
    }

    fn run(params: &FactorParams, cx: &StageContext) -> Result<Artifact, Error> {
        let moments = cx.input(MOMENTS)?;
        let layers = moments.facts.numbers();
        if let Some(mixture) = moments.facts.layers.iter().find(|facts| facts.experts.is_some()) {
            return Err(Error::input(refused(mixture.layer)).hint(HINT));
        }
        let bar = cx.progress("layers", Some(layers.len() as u64));
        let PreservationWeights { lambda, rho } = params.weights();
        let MomentsFacts { base, layers: known, .. } = &moments.facts;
        let layers_facts =
            known.iter().map(|layer| LayerFacts { held_out: None, halves: None, ..layer.clone() }).collect();
        let facts = FactorsFacts { lambda, update_norm_lambda: rho, base: base.clone(), layers: layers_facts };
        let mut made = artifact::<FactorsKind>(&facts)?;
        for layer in layers {
            cx.check_interrupt()?;
            let of = json!({ "moments": moments.digest().to_string(), "layer": layer, "with": params });
            let file = with_file(
                cx,
                &of,
                |file: &FileRef| *file,
                || put_layer(cx, &factor(layer, || read_layer(cx, &moments, known, layer), params.weights())?),
            )?;
            made = made.with_file(&file_name(layer), file);
            bar.inc(1);
        }
        Ok(made)
    }
}
