//! What can change the last digits of a result, for pipelines that ask for it to count.

use std::collections::BTreeMap;

use super::Pipeline;
use crate::digest::FileRef;

/// This program, to the byte: two builds of one version may round differently.
pub fn of_build() -> BTreeMap<String, String> {
    let exact = std::env::current_exe().ok().and_then(|path| FileRef::of_file(&path).ok());
    let exact = exact.map_or_else(|| "unknown".to_owned(), |file| file.digest.short());
    BTreeMap::from([("build".to_owned(), format!("{} ({exact})", env!("CARGO_PKG_VERSION")))])
}

impl Pipeline {
    /// Says what the stages compute on, such as the model of a processor and the number of its threads. Under
    /// `numerics: strict` this is part of every key; otherwise a result is a result wherever it was computed.
    pub fn compute_on(&mut self, device: impl Into<String>) {
        if let Some(environment) = &mut self.environment {
            environment.insert("device".to_owned(), device.into());
        }
    }
}
