//! `distribute`: which layers absorb which part of an edit.

use palinode_engine::bounds::Positive;
use palinode_engine::{
    Artifact, DescribeCx, Error, FieldError, Port, PortOf, Resources, StageContext, StageKind, artifact,
};
use palinode_math::{Plan, RefreshKind, Strategy, StrategyKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifacts::model::ModelKind;
use crate::artifacts::plan::{PlanFacts, PlanKind, PlannedPlan};

/// Parameters of `distribute`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DistributeParams {
    /// How the edit is distributed over the layers.
    strategy: StrategyKind,
    /// The layers, in rising order. Targets are values at the last one (for `boundary` and `forward`,
    /// at the first one).
    #[schemars(length(min = 1))]
    layers: Vec<usize>,
    /// For the strategy `weights`: a positive number for each layer.
    #[serde(default)]
    weights: Option<Vec<Positive>>,
    /// What is measured again on the partly edited model before each layer. The default is `both`, and `none` for
    /// `uniform`.
    #[serde(default)]
    refresh: Option<RefreshKind>,
}

impl DistributeParams {
    fn plan(&self) -> Result<Plan, FieldError> {
        let weights = self.weights.as_ref().map(|weights| weights.iter().map(|weight| weight.get()).collect());
        let strategy = Strategy::new(self.strategy, weights).ok_or_else(|| {
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
            Some(what) => plan.refreshing(what),
        })
    }
}

/// The model.
const MODEL: PortOf<ModelKind> = PortOf::optional("model", "Only to check the layers; optional.");

/// See [`StageKind::DOC`].
pub struct Distribute;

impl StageKind for Distribute {
    type Params = DistributeParams;
    const NAME: &'static str = "distribute";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "Plans which layers absorb which part of an edit.";
    const DOC: &'static str = "\
An edit's residual (target minus current value, at the last layer of the list) can be absorbed by one layer or distributed \
over several. The plan does not depend on the objective: any objective of `solve` works with any plan, so one matrix can \
vary both. The parameter `refresh` decides whether keys and the residual are measured again on the partly edited model \
before each layer.";
    type Output = PlanKind;

    fn inputs() -> Vec<Port> {
        vec![MODEL.port()]
    }

    fn carries() -> &'static [u32] {
        // Version 2 added a strategy.
        &[1]
    }

    fn resources(_: &DistributeParams) -> Resources {
        Resources::LIGHT
    }

    fn describe(params: &DistributeParams, cx: &DescribeCx<'_>) -> Result<PlannedPlan, Vec<FieldError>> {
        let plan = params.plan().map_err(|error| vec![error])?;
        if let Some(facts) = cx.input(MODEL).model {
            let wrong = facts.check_layers(&params.layers, |i| format!("layers[{i}]"));
            if !wrong.is_empty() {
                return Err(wrong);
            }
        }
        Ok(PlannedPlan { plan: Some(plan) })
    }

    fn run(params: &DistributeParams, _: &StageContext) -> Result<Artifact, Error> {
        let plan = params.plan().map_err(|error| Error::internal(error.message))?;
        artifact::<PlanKind>(&PlanFacts { plan })
    }
}
