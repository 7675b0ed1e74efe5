//! `rect`: after-care by RECT, from an update to an update.

use palinode_engine::bounds::PositiveShare;
use palinode_engine::{Artifact, DescribeCx, Error, FieldError, Port, PortOf, StageContext, StageKind};
use palinode_math::{Delta, Mat, MathError, rect};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifacts::model::decides_nothing;
use crate::artifacts::update::{PlannedUpdate, UpdateKind};
use crate::edit::care::{Care, treat};

/// Parameters of `rect`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RectParams {
    /// The share of a weight's entries that may change: those whose change is largest relative to the entry itself. With 1,
    /// nothing is dropped.
    #[serde(default = "published")]
    keep: PositiveShare,
}

fn published() -> PositiveShare {
    const { PositiveShare::new(0.4) }
}

impl RectParams {
    /// What is kept of a change of a weight, both `[out, in]`.
    pub fn treat(&self, delta: &Delta, weight: &Mat<f64>) -> Result<Delta, MathError> {
        rect(delta, weight.as_ref(), self.keep.get())
    }

    /// Whether every entry keeps its change.
    pub fn nothing(&self) -> bool {
        self.keep.get() >= 1.0
    }
}

/// The update.
const UPDATE: PortOf<UpdateKind> = PortOf::required("update", "The update to treat.");

/// See [`StageKind::DOC`].
pub struct Rect;

impl StageKind for Rect {
    type Params = RectParams;
    const NAME: &'static str = "rect";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Keeps an update's largest relative changes and drops the others (RECT).";
    const DOC: &'static str = "\
After-care for an update: of each changed weight W, only the entries with the largest |Δ / W| keep their change, and all \
others go back to what they were (RECT, arXiv 2401.04700, which found that large edits damage a model's abilities through \
many small relative changes). The weights are those of the unedited model. The published share is 0.4.

The result is an update like that of `solve`, and can be evaluated, exported, applied and reverted. It is no longer low-rank: \
it is kept as the entries that changed, or as whole weights where that takes less space, and it cannot become a LoRA adapter. \
After a `sequence`, the sum of all rounds is treated once, at the end, and its rounds cannot be measured one by one; `care` of \
`sequence` treats each round instead.";
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

    fn describe(params: &RectParams, cx: &DescribeCx<'_>) -> Result<PlannedUpdate, Vec<FieldError>> {
        let update = cx.input(UPDATE);
        let low_rank = if params.nothing() { update.low_rank } else { Some(false) };
        Ok(PlannedUpdate { low_rank, ..update })
    }

    fn run(params: &RectParams, cx: &StageContext) -> Result<Artifact, Error> {
        let care = Care { name: Self::NAME, nothing: params.nothing(), by_round: false, entries: true };
        treat(care, params, cx, UPDATE, |_, delta, weight| params.treat(delta, weight))
    }
}
