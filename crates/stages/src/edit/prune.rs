//! `prune`: after-care by PRUNE, from an update to an update.

use palinode_engine::{Artifact, DescribeCx, Error, FieldError, Port, PortOf, StageContext, StageKind};
use palinode_math::{Delta, Mat, MathError, PruneForm, prune};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifacts::model::decides_nothing;
use crate::artifacts::update::{PlannedUpdate, UpdateKind};
use crate::edit::care::{Care, treat};

/// Parameters of `prune`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PruneParams {
    /// What is made of the damped change.
    #[serde(default)]
    form: PruneForm,
}

impl PruneParams {
    /// The damped change of an unedited weight, both `[out, in]`.
    pub fn treat(&self, delta: &Delta, weight: &Mat<f64>) -> Result<Delta, MathError> {
        prune(delta, weight.as_ref(), self.form)
    }
}

/// The update.
const UPDATE: PortOf<UpdateKind> = PortOf::required("update", "The update to treat.");

/// See [`StageKind::DOC`].
pub struct Prune;

impl StageKind for Prune {
    type Params = PruneParams;
    const NAME: &'static str = "prune";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Damps an update's largest singular values (PRUNE).";
    const DOC: &'static str = "\
After-care for an update: every singular value s of a weight's change that is larger than m, the largest singular value of the \
unedited weight, becomes ln s − ln m + m (PRUNE, arXiv 2405.16821, which found that the condition of an edited weight grows with the \
number of edits). After a `sequence`, the sum of all rounds is treated once, at the end.

In the paper the damped change A takes the place of the change, W₀ + A. The published code adds it to the edited weight instead, \
W₀ + Δ + A: that is `form: published`. The result is an update like that of `solve`, and can be evaluated, exported, applied and reverted. A low-rank change stays low-rank.";
    type Output = UpdateKind;

    fn hands_on() -> Option<&'static str> {
        Some(UPDATE.name)
    }

    fn decides_nothing(file: &str) -> bool {
        decides_nothing(file)
    }

    fn inputs() -> Vec<Port> {
        vec![UPDATE.port()]
    }

    fn describe(_: &PruneParams, cx: &DescribeCx<'_>) -> Result<PlannedUpdate, Vec<FieldError>> {
        Ok(cx.input(UPDATE))
    }

    fn run(params: &PruneParams, cx: &StageContext) -> Result<Artifact, Error> {
        let care = Care { name: Self::NAME, nothing: false, by_round: false, entries: false };
        treat(care, params, cx, UPDATE, |_, delta, weight| params.treat(delta, weight))
    }
}
