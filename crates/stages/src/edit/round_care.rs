//! After-care of every round of a sequence, as the published code of most methods has it.

use palinode_engine::Error;
use palinode_model::Decoder;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifacts::update::Batch;
use crate::edit::care::{matrix, restate};
use crate::edit::prune::PruneParams;
use crate::edit::rect::RectParams;
use crate::edit::revive::ReviveParams;
use crate::edit::sphere::SphereParams;
use crate::errors::StageFailure;

/// One treatment of a round's change, with the parameters of the stage of that name.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RoundCare {
    /// RECT, by the weights that the round met.
    Rect(RectParams),
    /// PRUNE, by the unedited weights.
    Prune(PruneParams),
    /// SPHERE, by the weights that the round met.
    Sphere(SphereParams),
    /// REVIVE, by the unedited weights.
    Revive(ReviveParams),
}

impl RoundCare {
    /// Whether a low-rank change stays low-rank.
    pub fn stays_low_rank(&self) -> bool {
        match self {
            Self::Rect(params) => params.nothing(),
            Self::Prune(_) | Self::Sphere(_) | Self::Revive(_) => true,
        }
    }

    /// Treats what a round changed. `met` is the model that the round edited.
    pub fn treat(&self, met: &Decoder, unedited: &Decoder, round: &mut Batch) -> Result<(), Error> {
        for ((id, delta), facts) in round.updates.iter_mut().zip(&mut round.facts.layers) {
            let before = match self {
                Self::Rect(_) | Self::Sphere(_) => met,
                Self::Prune(_) | Self::Revive(_) => unedited,
            };
            let weight = matrix(before, *id)?;
            let rest = match self {
                Self::Rect(params) => params.treat(delta, &weight),
                Self::Prune(params) => params.treat(delta, &weight),
                Self::Sphere(params) => params.treat(before, delta, &weight),
                Self::Revive(params) => params.treat(delta, &weight),
            };
            *delta = rest.map_err(StageFailure::stage)?;
            restate(facts, delta, &weight);
        }
        round.facts.distance_after = None;
        Ok(())
    }
}
