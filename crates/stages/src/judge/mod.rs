//! Stages that judge a model, edited or not: checks before an edit, scores, perplexity, probes, texts.

pub mod ask;
pub mod before;
pub mod evaluate;
pub mod measured;
pub mod perplexity;
pub mod preflight;
pub mod probe_forms;
pub mod probes;
pub mod reference;
pub mod room;
pub mod trace;
pub mod verdicts;
pub mod versions;
