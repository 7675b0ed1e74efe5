//! Edit requests, context templates and corpora, read from the formats the field uses.
//!
//! Knows no model: text stays text until a tokenizer sees it elsewhere. Files may be of any size and hold anything: what is
//! read at once is bounded, and what is wrong is told with its place.

mod condition;
mod continuation;
mod corpus;
mod counterfact;
mod csv_rows;
mod dataset;
mod document;
mod documents;
mod easyedit;
mod error;
mod examples;
mod fields;
mod files;
mod groups;
mod jsonl;
mod lines;
mod mapped;
mod mquake;
mod pages;
mod reading;
mod records;
mod request;
mod rows;
mod script;
mod sheet;
mod snippets;
mod stream;
mod table;
mod templates;
mod unique;
mod verdicts;
mod weights;
mod zsre;

pub use condition::{Condition, EXPECTED as CONDITION_EXPECTED};
pub use continuation::{TargetPrefix, usual_prefix};
pub use corpus::{Corpus, Sampling};
pub use dataset::{Dataset, DatasetKind, Selection, read_requests, request as plain_request};
pub use error::{DataError, Mistakes, Place};
pub use examples::{Choice, Example, LETTERS, read_choices, read_examples, template_fields};
pub use fields::{Asked, FieldPath, Fields, Many};
pub use files::{CorpusFile, Format, corpus_files, is_pattern};
pub use groups::{batches, by_record, records as records_of};
pub use mquake::is_multi_hop;
pub use reading::{Reading, Split};
pub use request::{EditRequest, Neighbor, Probe, Question, conflicts, settle, superseded};
pub use script::words;
pub use sheet::{Column, write_parquet};
pub use snippets::{add_snippets, snippets_named};
pub use templates::{ContextTemplates, SEED_WORDS};
pub use verdicts::read_verdicts;
pub use weights::word_weights;
pub use zsre::{ZsreQuestion, ZsreTarget};
