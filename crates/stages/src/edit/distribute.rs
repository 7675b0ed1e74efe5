//! `distribute`: which layers absorb which part of an edit.

use palinode_engine::{
    Artifact, ArtifactKind, DescribeCx, FieldError, Port, Resources, StageContext, StageError, StageKind,
};
use palinode_math::{Plan, Strategy, StrategyKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::artifacts::model::{Facts, MODEL};

/// What is measured again on the partly edited model before each layer.
#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RefreshName {
    /// Only keys. Every earlier layer is assumed to have absorbed its whole part.
    Keys,
    /// Only the residual. Keys are those of the unedited model.
    Residual,
    /// Keys and residual.
    Both,
    /// Nothing.
    None,
}

/// Parameters of `distribute`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DistributeParams {
    /// How the edit is distributed over the layers.
    strategy: StrategyKind,
    /// The layers, in rising order. Targets are values at the last one (for `boundary`, at the first one).
    layers: Vec<usize>,
    /// For the strategy `weights`: a positive number for each layer.
    #[serde(default)]
    weights: Option<Vec<f64>>,
    /// What is measured again on the partly edited model before each layer. The default is `both`, and `none` for
    /// `uniform`.
    #[serde(default)]
    refresh: Option<RefreshName>,
}

impl DistributeParams {
    fn plan(&self) -> Result<Plan, FieldError> {
        let strategy = Strategy::new(self.strategy, self.weights.clone()).ok_or_else(|| {
            FieldError::new("strategy", "the strategy `weights` needs `weights`")
                .expected(format!("{} numbers above 0", self.layers.len()))
        })?;
        if self.weights.is_some() && self.strategy != StrategyKind::Weights {
            return Err(FieldError::new("weights", "only the strategy `weights` has `weights`"));
        }
        let at = if self.weights.is_some() { "weights" } else { "layers" };
        let plan = strategy.plan(&self.layers).map_err(|error| FieldError::new(at, error.to_string()))?;
        Ok(match self.refresh {
            None => plan,
            Some(RefreshName::Keys) => plan.refreshing(true, false),
            Some(RefreshName::Residual) => plan.refreshing(false, true),
            Some(RefreshName::Both) => plan.refreshing(true, true),
            Some(RefreshName::None) => plan.refreshing(false, false),
        })
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
An edit's residual (target minus current value, at the last layer of the list) can be absorbed by one layer or distributed \
over several. The plan does not depend on the objective: any objective of `solve` works with any plan, so one matrix can \
vary both. The parameter `refresh` decides whether keys and the residual are measured again on the partly edited model \
before each layer.";
    const OUTPUT: ArtifactKind = "plan";

    fn inputs() -> Vec<Port> {
        vec![Port { name: "model", accepts: &[MODEL], required: false, doc: "Only to check the layers; optional." }]
    }

    fn resources(_: &DistributeParams) -> Resources {
        Resources::LIGHT
    }

    fn describe(params: &DistributeParams, cx: &DescribeCx<'_>) -> Result<Value, Vec<FieldError>> {
        let plan = params.plan().map_err(|error| vec![error])?;
        if let Some(facts) = Facts::at(cx, "model") {
            let wrong = facts.check_layers(&params.layers, |i| format!("layers[{i}]"));
            if !wrong.is_empty() {
                return Err(wrong);
            }
        }
        Ok(json!({ "plan": plan }))
    }

    fn run(params: &DistributeParams, _: &StageContext) -> Result<Artifact, StageError> {
        let plan = params.plan().map_err(|error| StageError::internal(error.message))?;
        Ok(Artifact::new(Self::OUTPUT, json!({ "plan": plan })))
    }
}

/// The plan of an artifact.
pub fn plan(meta: &Value) -> Result<Plan, StageError> {
    serde_json::from_value(meta["plan"].clone()).map_err(|error| StageError::internal(format!("stored plan: {error}")))
}
