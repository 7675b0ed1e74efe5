//! `hf:owner/name@revision` and `hf:datasets/owner/name@revision/pattern`, the latter also with `#shards=2,seed=1` behind it.

use std::fmt;

use crate::{HubError, Shards};

/// What a repository holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A model.
    Model,
    /// A data set.
    Dataset,
}

/// A repository at a revision, and for a data set which of its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Model or data set.
    pub kind: Kind,
    /// `owner/name`, or `name` alone as some old models have it.
    pub repository: String,
    /// A branch, a tag, or a commit; `main` where none is given.
    pub revision: String,
    /// For a data set, the file or the pattern.
    pub pattern: Option<String>,
    /// For a data set, how many of these files; all where it is `None`.
    pub shards: Option<Shards>,
}

const EXPECTED: &str =
    "write hf:owner/name, hf:owner/name@revision, or hf:datasets/owner/name@revision/pattern.parquet";

impl Reference {
    /// Reads a reference; `None` where the text is none, that is, does not begin with `hf:`.
    ///
    /// # Errors
    /// [`HubError`] where the text begins so and goes on wrong.
    pub fn parse(text: &str) -> Option<Result<Self, HubError>> {
        let rest = text.strip_prefix("hf:")?;
        let read = match rest.strip_prefix("datasets/") {
            Some(rest) => dataset(rest),
            None => model(rest),
        };
        Some(read.ok_or_else(|| HubError::new(format!("`{text}` is not a valid Hub reference")).hint(EXPECTED)))
    }

    /// The folder's name in the cache.
    pub(crate) fn folder(&self) -> String {
        let kind = match self.kind {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
        };
        format!("{kind}--{}", self.repository.replace('/', "--"))
    }

    /// The revision in a route, where `/` separates.
    pub(crate) fn escaped_revision(&self) -> String {
        self.revision.replace('/', "%2F")
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.kind == Kind::Dataset { "datasets/" } else { "" };
        write!(f, "hf:{kind}{}@{}", self.repository, self.revision)
    }
}

fn model(text: &str) -> Option<Reference> {
    let (repository, revision) = text.split_once('@').unwrap_or((text, "main"));
    let parts = repository.split('/').count();
    let fine = (1..=2).contains(&parts) && safe(repository) && safe(revision);
    fine.then(|| Reference {
        kind: Kind::Model,
        repository: repository.to_owned(),
        revision: revision.to_owned(),
        pattern: None,
        shards: None,
    })
}

fn dataset(text: &str) -> Option<Reference> {
    let (text, shards) = match text.split_once('#') {
        Some((text, shards)) => (text, Some(Shards::parse(shards)?)),
        None => (text, None),
    };
    let (owner, rest) = text.split_once('/')?;
    let (name, rest) = rest.split_at(rest.find(['/', '@'])?);
    let (revision, pattern) = match rest.strip_prefix('@') {
        None => ("main", &rest[1..]),
        Some(rest) => {
            // refs/pr/1 and refs/convert/parquet have slashes of their own.
            let slashes = if rest.starts_with("refs/") { 3 } else { 1 };
            let end = rest.match_indices('/').nth(slashes - 1)?.0;
            (&rest[..end], &rest[end + 1..])
        }
    };
    let repository = format!("{owner}/{name}");
    let fine = safe(&repository) && safe(revision) && !pattern.is_empty();
    fine.then(|| Reference {
        kind: Kind::Dataset,
        repository,
        revision: revision.to_owned(),
        pattern: Some(pattern.to_owned()),
        shards,
    })
}

/// Whether a name, with `/` between its parts, can be a path below a folder and a part of a route as it is.
fn safe(name: &str) -> bool {
    let fine = |char: char| char.is_ascii_alphanumeric() || "-_.".contains(char);
    name.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && part.chars().all(fine))
}
