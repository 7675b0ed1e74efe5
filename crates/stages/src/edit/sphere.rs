//! `sphere`: after-care by SPHERE, from an update to an update.

use palinode_engine::bounds::{PositiveShare, Share};
use palinode_engine::{Artifact, DescribeCx, Error, FieldError, Port, PortOf, StageContext, StageKind};
use palinode_math::{Delta, Mat, MathError, Sides, sphere};
use palinode_model::{Decoder, Layout, Orientation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifacts::model::decides_nothing;
use crate::artifacts::update::{PlannedUpdate, UpdateKind};
use crate::edit::care::{Care, treat};

/// Parameters of `sphere`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SphereParams {
    /// η: the main directions hold this share of the squares of the weight's normalised rows, and one direction more.
    #[serde(default = "half")]
    eta: PositiveShare,
    /// α: the part of the change along them that is taken away. With 0, nothing is.
    #[serde(default = "half_part")]
    alpha: Share,
    /// Which side of the weight the directions are of. The default is the published code's: the second axis of the weight as its
    /// checkpoint stores it, which is the output for GPT-2 and the key for all other families.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    side: Option<Sides>,
}

fn half() -> PositiveShare {
    const { PositiveShare::new(0.5) }
}

fn half_part() -> Share {
    const { Share::new(0.5) }
}

impl SphereParams {
    /// The reduced change of a weight of this model, both `[out, in]`.
    pub fn treat(&self, decoder: &Decoder, delta: &Delta, weight: &Mat<f64>) -> Result<Delta, MathError> {
        let side = self.side.unwrap_or_else(|| stored(decoder));
        sphere(delta, weight.as_ref(), side, self.eta.get(), self.alpha.get())
    }
}

/// The second axis of a weight as it is stored.
fn stored(decoder: &Decoder) -> Sides {
    match Layout::of(decoder.config()).orientation {
        Orientation::InOut => Sides::Output,
        Orientation::OutIn => Sides::Input,
    }
}

/// The update.
const UPDATE: PortOf<UpdateKind> = PortOf::required("update", "The update to treat.");

/// See [`StageKind::DOC`].
pub struct Sphere;

impl StageKind for Sphere {
    type Params = SphereParams;
    const NAME: &'static str = "sphere";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Reduces an update along the main directions of the weight's rows (SPHERE).";
    const DOC: &'static str = "\
After-care for an update: the part of a weight's change that lies along the main directions of the weight is reduced. With M the \
weight, its rows scaled to norm 1, S = MᵀM / rows, and V the leading eigenvectors of S, ΔM becomes ΔM (I − αVVᵀ) (SPHERE, as in EasyEdit). \
The weights are those of the unedited model. The result is an update like that of `solve`, and can be evaluated, exported, applied and reverted. A low-rank change stays low-rank.";
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

    fn describe(_: &SphereParams, cx: &DescribeCx<'_>) -> Result<PlannedUpdate, Vec<FieldError>> {
        Ok(cx.input(UPDATE))
    }

    fn run(params: &SphereParams, cx: &StageContext) -> Result<Artifact, Error> {
        let nothing = params.alpha.get() == 0.0;
        let care = Care { name: Self::NAME, nothing, by_round: true, entries: false };
        treat(care, params, cx, UPDATE, |decoder, delta, weight| params.treat(decoder, delta, weight))
    }
}
