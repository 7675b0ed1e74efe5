//! What a model says after an edit: likelihoods of targets, and the metrics of the field made from them.
//!
//! * [`score()`]: mean log-likelihood and most probable tokens of targets after prompts, many at once.
//! * [`score_requests`]: the prompts of edit requests, scored.
//! * [`METRICS`], [`Summary`]: each metric under its own name, as means over records with bootstrap intervals.
//! * [`entropy()`]: how varied a text is; [`surprise`], [`perplexity()`]: how well running text is predicted.

mod entropy;
mod metrics;
mod next;
mod perplexity;
mod record;
mod score;
mod summary;
mod writing;

pub use entropy::entropy;
pub use metrics::{Group, METRICS, Metric};
pub use next::next_tokens;
pub use perplexity::{Surprise, perplexity, surprise};
pub use record::{Comparison, RecordScores, score_requests};
pub use score::{Query, Score, score};
pub use summary::Summary;
pub use writing::{Writing, write};
