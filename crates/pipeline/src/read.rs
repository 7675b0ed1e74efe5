//! The first step: the pipeline as written, with what it includes and what is set from outside.

use std::path::Path;
use std::sync::Arc;

use super::files::Files;
use super::report::Report;
use super::spec::{self, Spec};
use super::{include, overrides};
use crate::diagnostic::{Diagnostics, Source};

/// Reads a file whose relative paths start from `base`, and applies `path=value` texts to it.
///
/// # Errors
/// When it, or a file that it includes, cannot be read.
pub fn read(
    source: &Arc<Source>,
    base: &Path,
    overrides: &[String],
    files: &dyn Files,
) -> Result<(Spec, Report), Diagnostics> {
    let (mut tree, mut report) = include::read(source, base, files)?;
    for text in overrides {
        overrides::apply(&mut tree, text, &mut report);
    }
    let spec = spec::read(&tree, spec::Form::Whole, &mut report);
    Ok((spec, report))
}
