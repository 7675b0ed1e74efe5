//! The way from a file to a checked graph. It goes one way, through four steps, each of which knows only those before it:
//!
//! 1. [`read`]: texts become a tree, with what the file includes and what overrides change, and the tree a [`Spec`](super::spec::Spec);
//! 2. [`expand`]: variables and axes get their values;
//! 3. [`connect`]: inputs are connected, and stages multiplied out over the cells that they depend on;
//! 4. [`check`]: every instance is held against its kind of stage.
//!
//! No step ends the walk but the first, where a file cannot be read: mistakes are collected, and all are told at once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::check::{Surroundings, check};
use super::connect::connect;
use super::expand::expand;
use super::files::{Disk, Files};
use super::graph::Pipeline;
use super::read::read;
use super::report::Report;
use super::spec::Spec;
use crate::build::PipelineBuilder;
use crate::diagnostic::{Diagnostics, Source};
use crate::kinds::Kinds;

impl Pipeline {
    /// Reads and checks a pipeline.
    ///
    /// `overrides` are `path=value` texts that change the file; `base` is the folder that relative paths start from.
    ///
    /// # Errors
    /// All mistakes of the file, and the files that it names and that are not here.
    pub fn load(
        source: &Arc<Source>,
        base: &Path,
        overrides: &[String],
        catalogue: &Kinds,
    ) -> Result<Self, Diagnostics> {
        let (pipeline, absent) = Self::check(source, base, overrides, catalogue)?;
        if absent.0.is_empty() { Ok(pipeline) } else { Err(absent) }
    }

    /// Reads and checks a pipeline that may be meant for another place: files that are not here are no mistake, but told
    /// beside the pipeline. It cannot run: instances lack those files.
    ///
    /// # Errors
    /// All mistakes of the file; with them, the files that are not here.
    pub fn check(
        source: &Arc<Source>,
        base: &Path,
        overrides: &[String],
        catalogue: &Kinds,
    ) -> Result<(Self, Diagnostics), Diagnostics> {
        Self::check_in(&Disk, source, base, overrides, catalogue)
    }

    /// As [`Pipeline::check`], among these files in place of those of this machine.
    ///
    /// # Errors
    /// As [`Pipeline::check`].
    pub fn check_in(
        files: &dyn Files,
        source: &Arc<Source>,
        base: &Path,
        overrides: &[String],
        catalogue: &Kinds,
    ) -> Result<(Self, Diagnostics), Diagnostics> {
        let (spec, report) = read(source, base, overrides, files)?;
        Self::finish(spec, report, files, source, base, catalogue)
    }

    /// Checks a pipeline that was built in code, as [`Pipeline::check`] does one of a file; relative paths start from `base`.
    ///
    /// # Errors
    /// All its mistakes; with them, the files that are not here.
    pub fn build(
        builder: &PipelineBuilder,
        base: &Path,
        catalogue: &Kinds,
    ) -> Result<(Self, Diagnostics), Diagnostics> {
        let (spec, report) = builder.read();
        Self::finish(spec, report, &Disk, &builder.source(), base, catalogue)
    }

    /// What follows when the spec is read.
    fn finish(
        spec: Spec,
        mut report: Report,
        files: &dyn Files,
        source: &Arc<Source>,
        base: &Path,
        catalogue: &Kinds,
    ) -> Result<(Self, Diagnostics), Diagnostics> {
        let expanded = expand(spec, &mut report);
        let nodes = connect(&expanded, &mut report);
        let replicates = expanded.matrix.replicates(expanded.spec.replicates.as_ref(), &mut report);
        let base = std::path::absolute(base).unwrap_or_else(|_| base.to_owned());
        let instances = check(&expanded, nodes, &Surroundings { files, base: &base, catalogue }, &mut report);
        let absent = report.mistakes.check(source)?;
        let warnings = report.warnings.sorted(source);
        let pipeline = Self {
            name: expanded.spec.name,
            description: expanded.spec.description,
            environment: expanded.spec.strict.then(BTreeMap::new),
            strict_checks: expanded.spec.strict_checks,
            pins: BTreeMap::new(),
            base,
            source: Arc::clone(source),
            axes: expanded.matrix.axes,
            replicates,
            instances: instances.into_iter().flatten().collect(),
            warnings,
        };
        Ok((pipeline, absent))
    }
}
