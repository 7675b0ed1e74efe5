//! A cell of the matrix: what it is, and what it is called.
//!
//! A cell *is* its values; its name is for people. Names cannot tell `1` from `"1"`, nor the values `a,y=b` and `c` of axes
//! `x` and `y` from `a` and `b,y=c`, so nothing is ever looked up by name, and where two names would be the same both are
//! written exactly.

use std::collections::HashMap;

use serde_json::Value;

/// Values of axes, in the order of the file.
pub type Cell = Vec<(String, Value)>;

/// What tells cells over the same axes apart: equal for equal values of equal types, and for no others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CellId(String);

impl CellId {
    /// Of a cell.
    pub fn of(cell: &[(String, Value)]) -> Self {
        Self(exact(cell))
    }
}

/// Distinct names for distinct cells over the same axes, such as `objective=rome,strategy=single`. Texts stand as they are;
/// in a name that would fit two cells they stand in quotes.
pub fn names(cells: &[Cell]) -> Vec<String> {
    // A name fits a cell when it is either way of writing it. Cells whose two ways are the same count once.
    let mut fits: HashMap<String, usize> = HashMap::new();
    for cell in cells {
        let (short, exact) = (short(cell), exact(cell));
        if short != exact {
            *fits.entry(exact).or_default() += 1;
        }
        *fits.entry(short).or_default() += 1;
    }
    let name = |cell: &Cell| {
        let short = short(cell);
        if fits.get(&short) == Some(&1) { short } else { exact(cell) }
    };
    cells.iter().map(name).collect()
}

fn short(cell: &[(String, Value)]) -> String {
    written(cell, |value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

/// Nothing in JSON can be taken for the end of it, so that no two cells are written alike.
fn exact(cell: &[(String, Value)]) -> String {
    written(cell, Value::to_string)
}

fn written(cell: &[(String, Value)], value: impl Fn(&Value) -> String) -> String {
    let parts = cell.iter().map(|(axis, it)| format!("{axis}={}", value(it)));
    parts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_short_where_they_can_be_and_always_distinct() {
        let check = |cells: &[&[Value]], expect: &[&str]| {
            let axes = ["x", "y"].map(str::to_owned);
            let cells: Vec<Cell> =
                cells.iter().map(|values| axes.iter().cloned().zip(values.iter().cloned()).collect()).collect();
            assert_eq!(names(&cells), expect);
        };
        check(&[&[json!("rome"), json!(1)], &[json!("memit"), json!(1)]], &["x=rome,y=1", "x=memit,y=1"]);
        check(&[&[json!(1)], &[json!("1")], &[json!(2)]], &["x=1", r#"x="1""#, "x=2"]);
        check(&[&[json!(1)], &[json!("1")], &[json!(r#""1""#)]], &["x=1", r#"x="1""#, r#"x="\"1\"""#]);
        check(&[&[json!("1")], &[json!(r#""1""#)]], &["x=1", r#"x="\"1\"""#]);
        check(
            &[&[json!("a,y=b"), json!("c")], &[json!("a"), json!("b,y=c")]],
            &[r#"x="a,y=b",y="c""#, r#"x="a",y="b,y=c""#],
        );
        check(&[&[json!([1, 2])], &[json!("[1,2]")]], &["x=[1,2]", r#"x="[1,2]""#]);
        check(&[&[]], &[""]);
    }
}
