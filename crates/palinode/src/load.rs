//! From a file or a builder to a pipeline that can be planned and run.
//!
//! Downloads have a place of their own here. The key of a stage covers the contents of the files that it reads, so files of the Hub have to
//! be there before keys are computed. But a mistake in the pipeline, or a local file that is missing, shall not be found after gigabytes
//! have been fetched. So a pipeline is checked against the cache as it is; only if nothing is wrong but that files have to be fetched, they
//! are; then it is checked again, since now the model's configuration can be held against the parameters.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use palinode_engine::{Diagnostic, Diagnostics, Error, ErrorKind, Hint, Part, Pipeline, PipelineBuilder, Source};

use crate::network::Network;

/// A pipeline that is not loaded yet.
#[derive(Clone, Debug)]
pub struct Recipe {
    made_of: MadeOf,
    base: PathBuf,
}

#[derive(Clone, Debug)]
enum MadeOf {
    /// A file's text, and `path=value` texts that change it.
    Text(Arc<Source>, Vec<String>),
    Code(Box<PipelineBuilder>),
}

/// A pipeline without mistakes, and what it lacks.
#[derive(Debug)]
pub struct Checked {
    /// The pipeline. Where something is absent, it cannot run.
    pub pipeline: Pipeline,
    /// Files that the pipeline names and that are not here.
    pub absent: Diagnostics,
}

/// Why there is no pipeline to run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It has mistakes, or lacks files.
    #[error(transparent)]
    Mistakes(#[from] Diagnostics),
    /// Something else went wrong.
    #[error(transparent)]
    Error(#[from] Error),
}

impl Recipe {
    /// A pipeline file. Relative paths in it start from its folder; `overrides` are `path=value` texts that change it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn file(path: &Path, overrides: &[String]) -> Result<Self, Error> {
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(Self { made_of: MadeOf::Text(Source::read(path)?, overrides.to_vec()), base: folder.to_owned() })
    }

    /// Checks a file that other pipelines include, as far as it can be checked without them. Uses no network.
    ///
    /// # Errors
    /// When the file cannot be read; all mistakes in it.
    pub fn check_part(path: &Path) -> Result<Part, LoadError> {
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(Part::check(&Source::read(path)?, folder, &palinode_stages::catalogue())?)
    }

    /// A pipeline that was built in code. Relative paths in it start from `base`.
    pub fn built(builder: PipelineBuilder, base: impl Into<PathBuf>) -> Self {
        Self { made_of: MadeOf::Code(Box::new(builder)), base: base.into() }
    }

    /// Finds every mistake, and which files are not here. Uses no network.
    ///
    /// # Errors
    /// All mistakes; with them, the files that are not here.
    pub fn check(&self) -> Result<Checked, Diagnostics> {
        let catalogue = palinode_stages::catalogue();
        let (pipeline, absent) = match &self.made_of {
            MadeOf::Text(source, overrides) => Pipeline::check(source, &self.base, overrides, &catalogue)?,
            MadeOf::Code(builder) => Pipeline::build(builder, &self.base, &catalogue)?,
        };
        Ok(Checked { pipeline, absent })
    }

    /// Checks the pipeline, fetches what it lacks of the Hub, and checks it with that once more.
    ///
    /// # Errors
    /// All mistakes, and files that are not here and cannot be fetched; a failed download where the pipeline names it. Nothing is
    /// fetched for a pipeline with mistakes.
    pub fn ready(&self, network: &mut Network<'_>) -> Result<Pipeline, LoadError> {
        let checked = self.check()?;
        let wanted = checked.downloads();
        if wanted.is_empty() || !checked.lacks_only_downloads() {
            return Ok(checked.complete()?);
        }
        let forbidden = match network {
            Network::Offline => Some(Hint::GoOnline),
            Network::Online(_) => palinode_stages::downloads_forbidden(),
        };
        // All of them, since one after the other would be fetched elsewhere.
        if let Some(hint) = forbidden {
            let mut absent = checked.absent;
            absent.0.iter_mut().for_each(|missing| missing.hint = Some(hint.clone()));
            return Err(absent.into());
        }
        for missing in &wanted {
            let Some(fetch) = &missing.fetch else { continue };
            network.fetch(&fetch.reference).map_err(|error| at(missing, error))?;
        }
        Ok(self.check()?.complete()?)
    }
}

/// A failed download as a mistake at the place that names it. One that was stopped is no mistake.
fn at(missing: &Diagnostic, error: Error) -> LoadError {
    if error.kind == ErrorKind::Interrupted {
        return error.into();
    }
    let mut mistake = missing.clone();
    (mistake.message, mistake.hint, mistake.kind) = (error.message, error.hint, error.kind);
    Diagnostics(vec![mistake]).into()
}

impl Checked {
    /// The missing files that can be fetched, each reference once.
    pub fn downloads(&self) -> Vec<Diagnostic> {
        let mut wanted: Vec<Diagnostic> = Vec::new();
        for missing in self.absent.0.iter().filter(|missing| missing.fetch.is_some()) {
            if wanted.iter().all(|known| known.fetch != missing.fetch) {
                wanted.push(missing.clone());
            }
        }
        wanted
    }

    /// Whether downloads bring all that is absent.
    pub fn lacks_only_downloads(&self) -> bool {
        self.absent.0.iter().all(|missing| missing.fetch.is_some())
    }

    /// The pipeline, to be planned and run.
    ///
    /// # Errors
    /// The files that are not here.
    pub fn complete(self) -> Result<Pipeline, Diagnostics> {
        if !self.absent.0.is_empty() {
            return Err(self.absent);
        }
        let mut pipeline = self.pipeline;
        pipeline.pin(palinode_stages::pinned);
        Ok(pipeline)
    }
}
