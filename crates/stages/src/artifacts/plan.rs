//! Plans of a distribution over layers on their way between stages.

use palinode_engine::Kind;
use palinode_math::Plan;
use serde::{Deserialize, Serialize};

/// Which layers absorb which part of an edit.
pub struct PlanKind;

impl Kind for PlanKind {
    const NAME: &'static str = "plan";
    type Facts = PlanFacts;
    type Planned = PlannedPlan;
}

/// The plan, which an artifact says itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct PlanFacts {
    /// The plan.
    pub plan: Plan,
}

/// The plan, which is known as soon as its parameters are.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct PlannedPlan {
    /// The plan.
    pub plan: Option<Plan>,
}
