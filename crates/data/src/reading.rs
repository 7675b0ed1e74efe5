//! How documents lie in the files of a corpus.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The separator of documents in plain text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Every line that is not blank is one.
    #[default]
    Line,
    /// Blank lines separate them.
    BlankLine,
}

/// Where the documents are in the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What separates them in plain text.
    pub split: Split,
    /// The field of a JSON object, or the column of a table, that holds the text.
    pub field: String,
}

impl Default for Reading {
    fn default() -> Self {
        Self { split: Split::Line, field: "text".to_owned() }
    }
}
