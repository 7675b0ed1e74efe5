//! The stage catalogue: each stage is glue of a few dozen lines between the engine and one domain crate.
//!
//! ```text
//! load_model ─┬─────────────┬──────────┬─ solve ─┬─ evaluate   (sequence: targets and solve, round after round)
//!             ├─ covariance ┘          │         └─ export
//! load_requests ── targets ────────────┤
//! templates ───────┘      distribute ──┘
//!
//! covariance ───┬─ merge_moments ─┬─ factor ── solve, sequence
//! load_moments ─┘                 └─ export_moments
//! ```

mod ask;
mod at_once;
mod blocks;
mod corpus;
mod covariance;
mod devices;
mod distribute;
mod errors;
mod evaluate;
mod export;
mod export_moments;
mod factor;
mod factors;
mod finder;
mod given_requests;
mod hub;
mod load_model;
mod load_moments;
mod load_requests;
mod load_update;
mod look;
mod measured;
mod merge_moments;
mod model;
mod moments;
mod patch;
mod perplexity;
mod preflight;
mod probes;
mod rates;
mod report;
mod sequence;
mod solve;
mod suggestion;
mod targets;
mod templates;
mod tensors;
mod update;
mod versions;

use palinode_engine::Catalogue;

pub use devices::{chosen_device, cuda_findings, free_memory, hardware};
pub use export::update_file::Provenance;
pub use hub::{Watch, allow_downloads};
pub use look::{EditableWeight, Inspection, inspect};
pub use palinode_hub::{Progress, Reference};
pub use patch::{Restored, apply, provenance, revert};
pub use rates::rates;
pub use report::report;
pub use suggestion::{Suggestion, suggest};

/// Some 7,600 short documents, a line each, for second moments where nobody has named a corpus. Written for the demo model.
pub const DEFAULT_CORPUS: &str = include_str!("../../../examples/demo-model/corpus.txt");

/// Every stage that a pipeline can use.
pub fn catalogue() -> Catalogue {
    let mut stages = Catalogue::new();
    stages
        .register::<load_model::LoadModel>()
        .register::<load_requests::LoadRequests>()
        .register::<given_requests::Requests>()
        .register::<templates::Templates>()
        .register::<covariance::Covariance>()
        .register::<load_moments::LoadMoments>()
        .register::<merge_moments::MergeMoments>()
        .register::<factor::MakeFactors>()
        .register::<targets::Targets>()
        .register::<preflight::Preflight>()
        .register::<distribute::Distribute>()
        .register::<solve::Solve>()
        .register::<sequence::Sequence>()
        .register::<load_update::LoadUpdate>()
        .register::<evaluate::Evaluate>()
        .register::<perplexity::Perplexity>()
        .register::<probes::Probes>()
        .register::<ask::Ask>()
        .register::<export::Export>()
        .register::<export_moments::ExportMoments>();
    stages
}
