//! The stage catalogue: each stage is glue of a few dozen lines between the engine and one domain crate.
//!
//! ```text
//! load_model ─┬─────────────┬──────────┬─ solve ─┬─ evaluate   (sequence: targets and solve, round after round)
//!             ├─ covariance ┘          │         └─ export
//! load_requests ── targets ────────────┤         └─ rect, prune, sphere, revive (after-care: an update again)
//! templates ───────┘      distribute ──┘
//!
//! load_model, load_requests ── finetune, ultraedit ── as solve   (edits by gradient: no targets, no plan)
//!
//! covariance ───┬─ merge_moments ─┬─ factor ── solve, sequence
//! load_moments ─┘                 └─ export_moments
//! ```

mod artifacts;
mod edit;
mod errors;
mod judge;
mod machine;
mod measure;
mod sinks;
mod sources;
mod units;

use palinode_engine::Catalogue;

pub use artifacts::locate::Start;
pub use artifacts::model::BLOCKS;
pub use artifacts::trace::{Averages, Effects};
pub use edit::locate::candidates;
pub use edit::suggestion::{PUBLISHED_RATE, Suggestion, carried, suggest};
pub use judge::before::{ToCheck, look_at, to_check};
pub use judge::evaluate::answers::condensed;
pub use judge::room::{Free, Needs, said_of_blocks};
pub use machine::devices::{chosen_device, cuda_findings, devices, free_memory, hardware};
pub use machine::inspect::{EditableWeight, ExpertId, Experts, Inspection, inspect};
pub use machine::threads::start_threads;
pub use machine::throughput::throughput;
pub use palinode_edit::{Finding, Findings, Severity};
pub use palinode_eval::{
    Best, Paired, Repeated, Scored, TraceKind, best, best_apart, holm, is_shown, known_records, mean_and_deviation,
    over_repetitions, over_values, paired, paired_values,
};
pub use palinode_hub::Progress;
pub use sinks::export::update_file::Provenance;
pub use sinks::model_folder::{Restored, provenance};
pub use sinks::patch::{Applied, apply, revert};
pub use sinks::report::scored::scored;
pub use sinks::report::{report, reports};
pub use sinks::take_off::{EditLine, Edits, How, TakeOff, TakenOff, edits, take_off};
pub use sources::demo::corpus_of;
pub use sources::hub::{downloads_forbidden, fetch, model_folder, pinned};
pub use sources::load_requests::{StatedFact, dataset_of, facts_in};

/// Every stage that a pipeline can use.
pub fn catalogue() -> Catalogue {
    let mut stages = Catalogue::new();
    stages
        .register::<sources::load_model::LoadModel>()
        .register::<sources::load_requests::LoadRequests>()
        .register::<sources::inline_requests::Requests>()
        .register::<sources::select::Select>()
        .register::<sources::templates::Templates>()
        .register::<measure::covariance::Covariance>()
        .register::<sources::load_moments::LoadMoments>()
        .register::<measure::merge_moments::MergeMoments>()
        .register::<measure::factor::MakeFactors>()
        .register::<edit::targets::Targets>()
        .register::<judge::preflight::Preflight>()
        .register::<edit::distribute::Distribute>()
        .register::<edit::solve::Solve>()
        .register::<edit::sequence::Sequence>()
        .register::<edit::finetune::Finetune>()
        .register::<edit::ultraedit::Ultraedit>()
        .register::<edit::rect::Rect>()
        .register::<edit::prune::Prune>()
        .register::<edit::sphere::Sphere>()
        .register::<edit::revive::Revive>()
        .register::<edit::locate::Locate>()
        .register::<sources::load_update::LoadUpdate>()
        .register::<judge::evaluate::Evaluate>()
        .register::<judge::verdicts::Judge>()
        .register::<judge::perplexity::Perplexity>()
        .register::<judge::probes::Probes>()
        .register::<judge::ask::Ask>()
        .register::<judge::trace::Trace>()
        .register::<judge::reference::ReferenceMetrics>()
        .register::<sinks::export::Export>()
        .register::<sinks::export_moments::ExportMoments>();
    stages
}
