//! The stage catalogue: each stage is glue of a few dozen lines between the engine and one domain crate.
//!
//! ```text
//! load_model ─┬─────────────┬──────────┬─ solve ─┬─ evaluate   (sequence: targets and solve, round after round)
//!             ├─ covariance ┘          │         └─ export
//! load_requests ── targets ────────────┤
//! templates ───────┘      distribute ──┘
//! ```

mod corpus;
mod covariance;
mod distribute;
mod errors;
mod evaluate;
mod export;
mod hub;
mod load_model;
mod load_requests;
mod model;
mod moments;
mod sequence;
mod solve;
mod targets;
mod templates;
mod tensors;
mod update;

use palinode_engine::Catalogue;

pub use hub::{Watch, allow_downloads};
pub use palinode_hub::{Progress, Reference};

/// Every stage that a pipeline can use.
pub fn catalogue() -> Catalogue {
    let mut stages = Catalogue::new();
    stages
        .register::<load_model::LoadModel>()
        .register::<load_requests::LoadRequests>()
        .register::<templates::Templates>()
        .register::<covariance::Covariance>()
        .register::<targets::Targets>()
        .register::<distribute::Distribute>()
        .register::<solve::Solve>()
        .register::<sequence::Sequence>()
        .register::<evaluate::Evaluate>()
        .register::<export::Export>();
    stages
}
