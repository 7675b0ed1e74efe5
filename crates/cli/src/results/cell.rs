//! A cell of the matrix, and how a value of it is written.

use serde_json::Value;

/// Values of the axes of the matrix.
pub type Cell = Vec<(String, Value)>;

/// A value without the quotes of JSON.
pub fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A cell in words: "objective rome, strategy memit".
pub fn name(cell: &Cell) -> String {
    let named: Vec<String> = cell.iter().map(|(axis, value)| format!("{axis} {}", plain(value))).collect();
    named.join(", ")
}
