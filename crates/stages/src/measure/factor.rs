//! `factor`: the preservation metric factored once, for all that take it.

use std::borrow::Cow;

use palinode_engine::{Artifact, ArtifactKind, DescribeCx, FieldError, Port, StageContext, StageError, StageKind};
use palinode_math::PreservationWeights;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::artifacts::factors::{FACTORS, factor, factored, put_layer, weights};
use crate::artifacts::moments::{MOMENTS, facts, file_name, layers, read_layer};

/// Parameters of `factor`, as they are written.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Written {
    /// λ, the weight of preservation. Without a ridge, the factors can be used with every λ, and this value is ignored.
    #[serde(default = "unit")]
    lambda: f64,
    /// ρ, a ridge on the norm of the update.
    #[serde(default)]
    update_norm_lambda: f64,
}

fn unit() -> f64 {
    1.0
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
        let weights = factored(PreservationWeights { lambda: written.lambda, rho: written.update_norm_lambda });
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
    const OUTPUT: ArtifactKind = FACTORS;

    fn inputs() -> Vec<Port> {
        vec![Port {
            name: "moments",
            accepts: &[MOMENTS],
            required: true,
            doc: "Second moments; all layers are factored.",
        }]
    }

    fn describe(params: &FactorParams, cx: &DescribeCx<'_>) -> Result<Value, Vec<FieldError>> {
        let mut errors = Vec::new();
        for (name, value, zero) in
            [("lambda", params.lambda, false), ("update_norm_lambda", params.update_norm_lambda, true)]
        {
            if !(value.is_finite() && (value > 0.0 || (zero && value == 0.0))) {
                let expected = if zero { "0 or above" } else { "a number above 0" };
                errors.push(FieldError::new(name, format!("`{name}` is {value}")).expected(expected));
            }
        }
        let mut told = weights(params.weights());
        if let Some(layers) = facts(cx.input("moments")) {
            told.insert("layers".to_owned(), json!(layers));
        }
        if errors.is_empty() { Ok(Value::Object(told)) } else { Err(errors) }
    }

    fn run(params: &FactorParams, cx: &StageContext) -> Result<Artifact, StageError> {
        let moments = cx.input("moments")?;
        let layers = layers(&moments.meta).unwrap_or_default();
        let bar = cx.progress("layers", Some(layers.len() as u64));
        let mut made = Artifact::new(Self::OUTPUT, Value::Object(weights(params.weights())));
        made.meta["base"] = moments.meta["base"].clone();
        made.meta["layers"] = moments.meta["layers"].clone();
        for layer in layers {
            cx.check_interrupt()?;
            let factor = factor(layer, &read_layer(cx, moments, layer)?, params.weights())?;
            made = made.with_file(&file_name(layer), put_layer(cx, &factor)?);
            bar.inc(1);
        }
        Ok(made)
    }
}
