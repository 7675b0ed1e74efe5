//! A cell of the matrix, and how a value of it is written.

use serde_json::Value;

/// Values of the axes of the matrix.
pub type Cell = Vec<(String, Value)>;

/// A value without the quotes of JSON.
pub fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
