//! Edit requests, context templates and corpora, read from the formats the field uses.
//!
//! Knows no model: text stays text until a tokenizer sees it elsewhere.

mod corpus;
mod counterfact;
mod error;
mod jsonl;
mod request;
mod templates;

pub use corpus::{Corpus, Split};
pub use error::{DataError, Place};
pub use jsonl::parse as parse_jsonl;
pub use request::{Dataset, EditRequest, Neighbor, Selection, conflicts, read_requests};
pub use templates::{ContextTemplates, SEED_WORDS};
