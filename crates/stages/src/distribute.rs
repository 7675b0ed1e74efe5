//! `distribute`: which layers absorb which part of an edit.

use palinode_engine::{
    Artifact, ArtifactKind, DescribeCx, FieldError, Port, StageContext, StageError, StageKind, Takes,
};
use palinode_math::{Plan, Strategy};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::errors::StageFailure;
use crate::model::{Facts, MODEL};

/// A distribution of an edit over layers.
#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StrategyName {
    /// The last of the layers takes all of it; the others are left alone.
    Single,
    /// From the lowest layer up, the i-th of m takes 1/(m − i) of the residual that is left (MEMIT).
    Memit,
}

/// Parameters of `distribute`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DistributeParams {
    /// How the edit is spread.
    strategy: StrategyName,
    /// The layers, rising. The last one is where the targets are values.
    layers: Vec<usize>,
}

impl DistributeParams {
    fn plan(&self) -> Result<Plan, palinode_math::MathError> {
        let strategy = match self.strategy {
            StrategyName::Single => Strategy::Single,
            StrategyName::Memit => Strategy::Memit,
        };
        strategy.plan(&self.layers)
    }
}

/// See [`StageKind::DOC`].
pub struct Distribute;

impl StageKind for Distribute {
    type Params = DistributeParams;
    const NAME: &'static str = "distribute";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Plans which layers absorb which part of an edit.";
    const DOC: &'static str = "\
An edit's residual (target minus current value, at the last layer of the list) can be absorbed by one layer or spread over \
several. The plan is a choice of its own, apart from the objective: any objective of `solve` runs with any plan, so both can \
be swept in one matrix. Keys and the residual are measured again on the partly edited model before each layer.";
    const OUTPUT: ArtifactKind = "plan";

    fn inputs() -> Vec<Port> {
        vec![Port {
            name: "model",
            accepts: &[MODEL],
            required: false,
            doc: "Only to check the layers against; not needed.",
        }]
    }

    fn takes(_: &DistributeParams) -> Takes {
        Takes::LIGHT
    }

    fn describe(params: &DistributeParams, cx: &DescribeCx<'_>) -> Result<Value, Vec<FieldError>> {
        let plan = params.plan().map_err(|error| vec![FieldError::new("layers", error.to_string())])?;
        if let Some(facts) = Facts::at(cx, "model") {
            let wrong = facts.check_layers(&params.layers, |i| format!("layers[{i}]"));
            if !wrong.is_empty() {
                return Err(wrong);
            }
        }
        Ok(json!({ "plan": plan }))
    }

    fn run(params: &DistributeParams, _: &StageContext) -> Result<Artifact, StageError> {
        Ok(Artifact::new(Self::OUTPUT, json!({ "plan": params.plan().map_err(StageFailure::stage)? })))
    }
}

/// The plan of an artifact.
pub fn plan(meta: &Value) -> Result<Plan, StageError> {
    serde_json::from_value(meta["plan"].clone()).map_err(|error| StageError::internal(format!("stored plan: {error}")))
}
