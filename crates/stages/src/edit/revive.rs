//! `revive`: after-care by REVIVE, from an update to an update.

use palinode_engine::bounds::Count;
use palinode_engine::{Artifact, DescribeCx, Error, FieldError, Port, PortOf, StageContext, StageKind};
use palinode_math::{Delta, Mat, MathError, revive};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifacts::model::decides_nothing;
use crate::artifacts::update::{PlannedUpdate, UpdateKind};
use crate::edit::care::{Care, treat};

/// Parameters of `revive`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReviveParams {
    /// Leading singular directions of the unedited weight that are protected, on each side. With 0, nothing is removed.
    rank: Count<0>,
}

impl ReviveParams {
    /// What is left of a change of an unedited weight, both `[out, in]`.
    pub fn treat(&self, delta: &Delta, weight: &Mat<f64>) -> Result<Delta, MathError> {
        revive(delta, weight.as_ref(), self.rank.get())
    }
}

/// The update.
const UPDATE: PortOf<UpdateKind> = PortOf::required("update", "The update to treat.");

/// See [`StageKind::DOC`].
pub struct Revive;

impl StageKind for Revive {
    type Params = ReviveParams;
    const NAME: &'static str = "revive";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Removes what an update changes within the weight's dominant subspace (REVIVE).";
    const DOC: &'static str = "\
After-care for an update: with U and V the first `rank` left and right singular vectors of the unedited weight, the part U Uᵀ Δ V Vᵀ of \
its change is removed, so that what the weight does most strongly stays as it was (REVIVE). Not compared with the authors' code. The result is an update like that of `solve`, and can be evaluated, exported, applied and reverted. A low-rank change stays low-rank.";
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

    fn describe(_: &ReviveParams, cx: &DescribeCx<'_>) -> Result<PlannedUpdate, Vec<FieldError>> {
        Ok(cx.input(UPDATE))
    }

    fn run(params: &ReviveParams, cx: &StageContext) -> Result<Artifact, Error> {
        let care = Care { name: Self::NAME, nothing: params.rank.get() == 0, by_round: false, entries: false };
        treat(care, params, cx, UPDATE, |_, delta, weight| params.treat(delta, weight))
    }
}
