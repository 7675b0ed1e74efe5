//! Artifacts with the types of their facts: those that a stage takes, and the one that it makes.

use std::fmt;
use std::ops::Deref;

use palinode_error::Error;
use palinode_pipeline::{Accept, Kind};
use palinode_store::Artifact;

/// An artifact at a port.
pub struct Given<'a, A: Accept> {
    /// The artifact: its kind and its files.
    pub artifact: &'a Artifact,
    /// What it says of itself.
    pub facts: A::Facts,
}

impl<'a, A: Accept> Given<'a, A> {
    /// An artifact whose kind is one of those that `A` stands for.
    ///
    /// # Errors
    /// When its facts are not those of its kind.
    pub fn read(artifact: &'a Artifact) -> Result<Self, Error> {
        let facts = A::facts(&artifact.kind, &artifact.meta)
            .map_err(|error| Error::internal(format!("stored {}: {error}", artifact.kind)))?;
        Ok(Self { artifact, facts })
    }
}

impl<A: Accept> Deref for Given<'_, A> {
    type Target = Artifact;

    fn deref(&self) -> &Artifact {
        self.artifact
    }
}

impl<A: Accept> fmt::Debug for Given<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.artifact.fmt(f)
    }
}

/// An artifact of the kind `K` that has facts but no files yet.
///
/// # Errors
/// When the facts cannot be written as JSON.
pub fn artifact<K: Kind>(facts: &K::Facts) -> Result<Artifact, Error> {
    let meta = serde_json::to_value(facts).map_err(|error| Error::internal(format!("{}: {error}", K::NAME)))?;
    Ok(Artifact::new(K::NAME, meta))
}
