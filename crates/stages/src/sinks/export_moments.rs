//! `export_moments`: second moments as files for other programs.

use std::path::PathBuf;

use palinode_edit::{Origin, Precision, write_moment};
use palinode_engine::bounds::Count;
use palinode_engine::shown::Shown;
use palinode_engine::{
    Artifact, DescribeCx, Error, FieldError, OVERWRITE, Port, PortOf, StageContext, StageKind, artifact,
};
use palinode_model::Layout;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Map;

use crate::artifacts::measurements::{ExportFacts, ExportKind};
use crate::artifacts::model::{ModelKind, config};
use crate::artifacts::moments::{MomentsKind, read_layer};
use crate::edit::solve::same_model;
use crate::errors::StageFailure;

/// Parameters of `export_moments`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportMomentsParams {
    /// The folder to write to. It is created if it does not exist; one that is there must have been written by this stage and not been
    /// changed since. The published code reads
    /// `data/stats/{model}/{corpus}_stats`, with `_` for every `/` in the model's name.
    path: PathBuf,
    /// Write into the folder even if something else is in it. Files that are not replaced stay.
    #[serde(default)]
    overwrite: bool,
    /// The number type of the sums.
    #[serde(default)]
    precision: Precision,
    /// The number of documents in the file names. The published code looks for the number that it was configured with. The
    /// default is the number that was measured.
    #[serde(default)]
    samples: Option<Count>,
}

/// What is said of a layer whose second moments are no one matrix.
fn refused(layer: usize) -> String {
    format!(
        "layer {layer} is a mixture of experts, whose second moments are kept by expert: the published npz files have one sum for a layer"
    )
}

/// The model.
const MODEL: PortOf<ModelKind> =
    PortOf::required("model", "The model that they were measured on: names of files are those of its weights.");
/// The second moments.
const MOMENTS: PortOf<MomentsKind> = PortOf::required("moments", "Second moments.");

/// See [`StageKind::DOC`].
pub struct ExportMoments;

impl StageKind for ExportMoments {
    type Params = ExportMomentsParams;
    const NAME: &'static str = "export_moments";
    const VERSION: u32 = 3;
    const SUMMARY: &'static str = "Writes second moments as the npz files that ROME and MEMIT read.";
    const DOC: &'static str = "\
Writes for each layer the file that the published code would have written, under the same name: \
`{weight}_{precision}_mom2_{samples}.npz`, for example `transformer.h.13.mlp.c_proj_float32_mom2_100000.npz`. It holds the \
sum of k kᵀ (not the mean), the number of tokens and the number of documents. `load_moments` reads such files. More entries, \
which other programs pass over, hold the model's digest, the layer and the trace of C, so that `load_moments` takes them for no other.

palinode.json lists what was written. A folder that something else wrote, or whose files were changed since, is an error, unless \
`overwrite` is set. When an exported file is deleted, the next run writes it again.";
    type Output = ExportKind;

    fn inputs() -> Vec<Port> {
        vec![MODEL.port(), MOMENTS.port()]
    }

    fn unkeyed() -> &'static [&'static str] {
        &[OVERWRITE]
    }

    fn carries() -> &'static [u32] {
        // Version 1 did not say which model's and which layer's its files are, version 2 not what their trace is.
        &[1, 2]
    }

    fn publishes(params: &ExportMomentsParams) -> Vec<(&'static str, PathBuf)> {
        vec![("path", params.path.clone())]
    }

    fn describe(_: &ExportMomentsParams, cx: &DescribeCx<'_>) -> Result<(), Vec<FieldError>> {
        cx.input(MOMENTS).mixture.map_or(Ok(()), |layer| Err(vec![FieldError::new("", refused(layer))]))
    }

    fn run(params: &ExportMomentsParams, cx: &StageContext) -> Result<Artifact, Error> {
        let (base, moments) = (cx.input(MODEL)?, cx.input(MOMENTS)?);
        same_model(&base, &moments.facts.base, "second moments")?;
        let samples =
            params.samples.map(|samples| samples.get() as u64).or(moments.facts.documents).ok_or_else(|| {
                Error::input("how many documents the second moments are of is not known, but stands in the names")
                    .hint("set `samples`")
            })?;
        if let Some(mixture) = moments.facts.layers.iter().find(|facts| facts.experts.is_some()) {
            return Err(Error::input(refused(mixture.layer)));
        }
        let word = params.precision.name();
        let layout = Layout::of(&config(cx, &base)?);
        let mut files = Vec::new();
        let mut out = cx.output(&params.path, params.overwrite)?;
        let layers = moments.facts.numbers();
        let bar = cx.progress("layers", Some(layers.len() as u64));
        for layer in layers {
            cx.check_interrupt()?;
            let moment = read_layer(cx, &moments, &moments.facts.layers, layer)?;
            let name = format!("{}_{word}_mom2_{samples}.npz", layout.edited_module(layer));
            let target = out.file(&name)?;
            let origin = Origin { model: moments.facts.base.clone(), layer };
            write_moment(&moment, Some(samples), Some(&origin), params.precision, &target)
                .map_err(StageFailure::stage)?;
            files.push(params.path.join(name));
            bar.inc(1);
        }
        let published = cx.finish(out, &params.path, Map::new())?;
        let made = artifact::<ExportKind>(&ExportFacts { formats: None, files, holds: None, shown: Shown::default() })?;
        Ok(Artifact { published, ..made })
    }
}
