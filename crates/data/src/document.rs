//! One document, and the names in which a missing field is explained.

/// Names told when a field is missing.
const NAMES: usize = 12;

/// A document and where it lies.
pub struct Document {
    /// Its text: never blank.
    pub text: String,
    /// Where it begins in the unpacked file, in bytes; in a table its row.
    pub at: u64,
    /// Bytes it takes there: the text itself, or the JSON line that holds it.
    pub size: u32,
}

/// ": there are `a`, `b`", to help where a name is not found.
pub fn there_are<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<String> =
        names.take(NAMES + 1).map(|name| format!("`{}`", name.chars().take(40).collect::<String>())).collect();
    if names.len() > NAMES {
        "…".clone_into(&mut names[NAMES]);
    }
    if names.is_empty() { String::new() } else { format!(": there are {}", names.join(", ")) }
}
