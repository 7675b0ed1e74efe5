//! `load_moments`: second moments that others have collected.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use palinode_edit::MomentFile;
use palinode_engine::{
    Artifact, ArtifactKind, DescribeCx, ExternalFile, FieldError, Port, StageContext, StageError, StageKind,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::errors::StageFailure;
use crate::model::{Facts, MODEL, base_digest, config};
use crate::moments::{LayerFacts, MOMENTS, file_name, put_layer};

/// Parameters of `load_moments`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadMomentsParams {
    /// The npz file of each layer. Names are no part of the key: contents are.
    files: BTreeMap<usize, PathBuf>,
}

/// See [`StageKind::DOC`].
pub struct LoadMoments;

fn name(layer: usize) -> String {
    format!("layer{layer}.npz")
}

impl StageKind for LoadMoments {
    type Params = LoadMomentsParams;
    const NAME: &'static str = "load_moments";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Reads second moments from the npz files that ROME and MEMIT publish.";
    const DOC: &'static str = "\
Takes the place of `covariance` where the statistics are there already: a file for each layer, such as \
`transformer.h.13.mlp.c_proj_float32_mom2_100000.npz`. Such a file holds the sum of k kᵀ in `mom2.mom2` and the number of \
tokens in `mom2.count`; what is used is the one divided by the other. It says nothing of the model that it was measured on: \
that the key size fits is checked, that the weights are the same cannot be.";
    const OUTPUT: ArtifactKind = MOMENTS;

    fn inputs() -> Vec<Port> {
        vec![Port { name: "model", accepts: &[MODEL], required: true, doc: "The model that they were measured on." }]
    }

    fn unkeyed() -> &'static [&'static str] {
        // Layers are in the files' logical names.
        &["files"]
    }

    fn files(params: &LoadMomentsParams, _: &Path) -> Result<Vec<ExternalFile>, FieldError> {
        let file = |(layer, path): (&usize, &PathBuf)| ExternalFile::new(name(*layer), path, format!("files.{layer}"));
        Ok(params.files.iter().map(file).collect())
    }

    fn describe(params: &LoadMomentsParams, cx: &DescribeCx<'_>) -> Result<Value, Vec<FieldError>> {
        let layers: Vec<usize> = params.files.keys().copied().collect();
        if layers.is_empty() {
            return Err(vec![
                FieldError::new("files", "`files` is empty").expected("the npz file of one layer or more"),
            ]);
        }
        let errors =
            Facts::at(cx, "model").map(|facts| facts.check_layers(&layers, |i| format!("files.{}", layers[i])));
        match errors {
            Some(errors) if !errors.is_empty() => Err(errors),
            _ => {
                let layers = layers.into_iter().map(|layer| LayerFacts { layer, tokens: 0, trace: 0.0 });
                Ok(json!({ "layers": layers.collect::<Vec<_>>() }))
            }
        }
    }

    fn run(params: &LoadMomentsParams, cx: &StageContext) -> Result<Artifact, StageError> {
        let model = cx.input("model")?;
        let size = config(cx, model)?.feed_forward;
        let mut made = Artifact::new(Self::OUTPUT, Value::Null);
        let mut facts = Vec::new();
        let bar = cx.progress("layers", Some(params.files.len() as u64));
        for &layer in params.files.keys() {
            cx.check_interrupt()?;
            let file = MomentFile::open(&cx.file(&name(layer))?.1).map_err(StageFailure::stage)?;
            let moment = file.read(size).map_err(StageFailure::stage)?;
            if moment.count() < size as u64 {
                let tokens = moment.count();
                cx.warn(format!("layer {layer}: {tokens} tokens cannot span {size} key dimensions"));
            }
            made = made.with_file(&file_name(layer), put_layer(cx, &moment)?);
            facts.push(LayerFacts { layer, tokens: moment.count(), trace: moment.trace() });
            bar.inc(1);
        }
        made.meta = json!({ "base": base_digest(model), "layers": facts });
        Ok(made)
    }
}
