//! What can go wrong, as one sentence.

use std::path::Path;

/// Any failure of this program; its text is shown as it is.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Names the file in a failure.
pub fn at<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> Error {
    move |error| format!("{}: {error}", path.display()).into()
}
