//! What a model says after an edit: likelihoods of targets, and the CounterFact metrics made from them.
//!
//! * [`score()`]: mean log-likelihood and argmax agreement of targets after prompts, many at once.
//! * [`counterfact`]: the prompts of edit requests, scored.
//! * [`Summary`]: ES, PS, NS and S with magnitudes and accuracies, each under its own name.

mod counterfact;
mod score;
mod summary;

pub use counterfact::{Comparison, RecordScores, counterfact};
pub use score::{Query, Score, score};
pub use summary::{METRICS, Metric, Summary};
