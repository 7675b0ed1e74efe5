//! What a model says after an edit: likelihoods of targets, and the metrics of the field made from them.
//!
//! * [`score()`]: mean log-likelihood and most probable tokens of targets after prompts, many at once.
//! * [`score_requests`]: the prompts of edit requests, scored.
//! * [`answer`]: answers in a model's own words, and how they compare with what is right.
//! * [`METRICS`], [`Summary`]: each metric under its own name, as means over records with intervals by [`bootstrap()`].
//! * [`wilson`], [`paired`], [`holm`], [`best`]: what scores over a few records and seeds can show.
//! * [`entropy()`]: how varied a text is; [`Tfidf`]: how alike two are.
//! * [`surprise`], [`perplexity()`]: how well running text is predicted.
//! * [`trace()`]: which states of a model carry a fact.
//! * [`Task`], [`choose`], [`agreement`]: questions with a choice of answers.
//! * [`Choices`], [`Open`]: questions with answers of their own, and those whose answers a model writes.
//! * [`Stop`], [`write_until`]: what a model writes, and where that is over.

mod answers;
mod bootstrap;
mod classify;
mod entropy;
mod forms;
mod metrics;
mod next;
mod perplexity;
mod record;
mod score;
mod statistics;
mod stop;
mod summary;
mod task;
mod tfidf;
mod trace;
mod wilson;
mod words;
mod writing;

pub use answers::{AnswerKind, Answering, GeneratedAnswer, answer, same_answer};
pub use bootstrap::bootstrap;
pub use classify::{Agreement, Question, agreement, choose};
pub use entropy::{entropy, token_entropy};
pub use forms::{Choices, Chosen, Extraction, Open, choose_both};
pub use metrics::{COUNTERPARTS, Group, METRICS, Metric, MetricSet};
pub use next::next_tokens;
pub use perplexity::{Surprise, perplexity, surprise};
pub use record::{Answer, Comparison, RecordScores, score_requests};
pub use score::{Query, Score, score};
pub use statistics::{
    Best, LEVEL, Paired, Repeated, Scored, best, best_apart, holm, interval, is_shown, known_records, mcnemar,
    mean_and_deviation, over_repetitions, over_values, paired, paired_values, sign_flip, student,
};
pub use stop::{Stop, StopAt, write_until};
pub use summary::Summary;
pub use task::Task;
pub use tfidf::Tfidf;
pub use trace::{
    Knowledge, Role, TraceKind, TracePrompt, TraceRules, Traced, embedding_deviation, knowledge, noise, trace,
};
pub use wilson::{share_interval, wilson};
pub use words::Words;
pub use writing::{Writing, write};
