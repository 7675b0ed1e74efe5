//! Parameters that have been given another name.
//!
//! Names in pipeline files are a format: a file written for an earlier version still means what it meant. A stage kind lists its
//! renamed parameters ([`crate::StageKind::renamed`]), and all that follows from a renaming is decided here:
//!
//! * The loader takes a value under an old name for one under the new name, and warns at its place.
//! * A key knows a parameter by its first name. Otherwise a renaming would change the key of every stored result of the stage,
//!   though it cannot change a single result.
//! * The JSON schema knows the old name as deprecated, so that editors show it struck out and not as a mistake.

use serde_json::{Map, Value, json};

/// Renamed parameters as pairs of old and new name, dotted where they lie within another (`targets.at_once`). A name that changed
/// twice stands in two pairs, both with the present name as the new one, the older first.
pub type Renames = &'static [(&'static str, &'static str)];

/// An old name in a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldName {
    /// What is written.
    pub old: &'static str,
    /// What it is called now.
    pub new: &'static str,
    /// Whether the new name is written as well, so that one of the values would be lost.
    pub both: bool,
}

/// Moves values from old names to new ones; says which there were. A value whose new name is taken stays where it is.
pub fn to_new(with: &mut Value, renames: Renames) -> Vec<OldName> {
    let mut found = Vec::new();
    for &(old, new) in renames {
        if get(with, old).is_none() {
            continue;
        }
        let both = get(with, new).is_some();
        if !both && let Some(value) = parent(with, old).and_then(|(map, name)| map.remove(name)) {
            // The new name stands beside the old one, so its mapping is there.
            if let Some((map, name)) = parent(with, new) {
                map.insert(name.to_owned(), value);
            }
        }
        found.push(OldName { old, new, both });
    }
    found
}

/// The name by which keys know the parameter of this name.
pub fn first_name(name: &str, renames: Renames) -> &str {
    renames.iter().find(|(_, new)| *new == name).map_or(name, |(old, _)| old)
}

/// Adds the old names to the schema of a stage's parameters.
pub fn add_to_schema(schema: &mut Value, renames: Renames) {
    for &(old, new) in renames {
        let mut at = &mut *schema;
        let (path, name) = new.rsplit_once('.').map_or((None, new), |(path, name)| (Some(path), name));
        for part in path.into_iter().flat_map(|path| path.split('.')) {
            at = &mut at["properties"][part];
        }
        let mut known = at["properties"][name].clone();
        let Value::Object(map) = &mut known else { continue };
        map.insert("deprecated".to_owned(), json!(true));
        map.insert("description".to_owned(), json!(format!("The old name of `{name}`.")));
        let old = old.rsplit_once('.').map_or(old, |(_, name)| name);
        at["properties"][old] = known;
    }
}

fn get<'a>(with: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(with, |at, part| at.get(part))
}

/// The mapping that holds a path's last part, and that part.
fn parent<'a, 'p>(with: &'a mut Value, path: &'p str) -> Option<(&'a mut Map<String, Value>, &'p str)> {
    let (mut parts, mut at) = (path.split('.').peekable(), with);
    loop {
        let part = parts.next()?;
        if parts.peek().is_none() {
            return Some((at.as_object_mut()?, part));
        }
        at = at.get_mut(part)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RENAMES: Renames = &[("at_once", "parallel"), ("inner.width", "inner.columns")];

    #[test]
    fn values_move_to_the_new_name_and_nothing_else_moves() {
        let mut with = json!({ "at_once": 3, "inner": { "width": 4, "other": 5 }, "steps": 6 });
        let found = to_new(&mut with, RENAMES);
        assert_eq!(with, json!({ "parallel": 3, "inner": { "columns": 4, "other": 5 }, "steps": 6 }));
        assert_eq!(
            found.iter().map(|name| (name.old, name.both)).collect::<Vec<_>>(),
            [("at_once", false), ("inner.width", false)]
        );
        assert!(to_new(&mut with, RENAMES).is_empty());
    }

    #[test]
    fn of_two_values_none_is_dropped_in_silence() {
        let mut with = json!({ "at_once": 3, "parallel": 4 });
        assert_eq!(to_new(&mut with, RENAMES), [OldName { old: "at_once", new: "parallel", both: true }]);
        assert_eq!(with, json!({ "at_once": 3, "parallel": 4 }));
    }

    #[test]
    fn what_is_no_mapping_is_left_to_the_reader_of_parameters() {
        for mut with in [json!(null), json!([1]), json!({ "inner": 3 })] {
            let before = with.clone();
            assert!(to_new(&mut with, RENAMES).is_empty());
            assert_eq!(with, before);
        }
    }

    #[test]
    fn keys_know_the_first_name() {
        assert_eq!(first_name("inner.columns", RENAMES), "inner.width");
        assert_eq!(first_name("steps", RENAMES), "steps");
    }
}
