//! Context templates: the same fact said after different openings, so that a key does not hang on one context.

use serde::{Deserialize, Serialize};

/// Words that generated openings start from, as in the reference implementations.
pub const SEED_WORDS: [&str; 5] = ["The", "Therefore", "Because", "I", "You"];

/// Groups of templates, each with one `{}` for the filled prompt.
///
/// A key is averaged within each group, then over the groups: MEMIT and EMMET use the bare template and a group of
/// generated ones (the bare prompt weighs one half), ROME one flat group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextTemplates {
    /// The groups; the very first template must be `{}`.
    pub groups: Vec<Vec<String>>,
}

impl ContextTemplates {
    /// The prompt alone.
    pub fn bare() -> Self {
        Self { groups: vec![vec!["{}".into()]] }
    }

    /// The bare template, and generated openings as a second group, cleaned as the reference does: braces become spaces,
    /// and `. {}` is appended.
    pub fn from_openings<S: AsRef<str>>(openings: &[S]) -> Self {
        let generated: Vec<String> =
            openings.iter().map(|text| format!("{}. {{}}", text.as_ref().replace(['{', '}'], " "))).collect();
        let mut all = Self::bare();
        if !generated.is_empty() {
            all.groups.push(generated);
        }
        all
    }

    /// What is wrong with the templates, if anything.
    ///
    /// # Errors
    /// A sentence that names the template.
    pub fn check(&self) -> Result<(), String> {
        if self.groups.first().and_then(|g| g.first()).map(String::as_str) != Some("{}") {
            return Err("the first template must be \"{}\", the bare prompt".into());
        }
        for (g, group) in self.groups.iter().enumerate() {
            if group.is_empty() {
                return Err(format!("group {g} of the templates is empty"));
            }
            for template in group {
                if template.matches("{}").count() != 1 {
                    return Err(format!("template {template:?} must have exactly one {{}}"));
                }
            }
        }
        Ok(())
    }

    /// All templates in order, each with its weight in an average; the weights sum to 1.
    pub fn weighted(&self) -> Vec<(&str, f64)> {
        self.groups
            .iter()
            .flat_map(|group| {
                let weight = 1.0 / (self.groups.len() * group.len()) as f64;
                group.iter().map(move |template| (template.as_str(), weight))
            })
            .collect()
    }

    /// Number of templates.
    pub fn len(&self) -> usize {
        self.groups.iter().map(Vec::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
