//! `load_moments`: second moments that others have measured.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use palinode_edit::MomentFile;
use palinode_engine::bounds::Count;
use palinode_engine::{Artifact, DescribeCx, Error, ExternalFile, FieldError, Port, PortOf, StageContext, StageKind};
use palinode_model::Layout;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifacts::model::{HasModel, ModelKind, open};
use crate::artifacts::moments::{Gathered, MomentsKind, PlannedMoments};
use crate::errors::StageFailure;
use crate::sources::judge_moments::{ACCEPT, CHECK_TEXT, Judge, other_layer};

/// Parameters of `load_moments`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadMomentsParams {
    /// The file of each layer: `{ 13: stats/layer13.npz }`. The key covers the contents and not the names. Or use `folder`.
    #[serde(default)]
    files: BTreeMap<usize, PathBuf>,
    /// A folder of files with their published names, such as `transformer.h.13.mlp.c_proj_float32_mom2_100000.npz`.
    #[serde(default)]
    folder: Option<PathBuf>,
    /// The layers to read from `folder`.
    #[serde(default)]
    layers: Vec<usize>,
    /// The sample size to read, if `folder` has files of several: the number at the end of the name.
    #[serde(default)]
    samples: Option<Count>,
    /// The text by which files are judged that do not say what they were measured on: UTF-8, each line a
    /// document, of which the first 512 tokens are read. Best is text like the corpus. The default is a text of Palinode's own.
    #[serde(default)]
    check_text: Option<PathBuf>,
    /// Take files that do not fit the model or the layer, with a warning instead of an error.
    #[serde(default)]
    accept_moments: bool,
}

impl LoadMomentsParams {
    /// The layers, each with the parameter that names it.
    fn layers(&self) -> Vec<(usize, String)> {
        let files = self.files.keys().map(|&layer| (layer, format!("files.{layer}")));
        let layers = self.layers.iter().enumerate().map(|(i, &layer)| (layer, format!("layers[{i}]")));
        if self.files.is_empty() { layers.collect() } else { files.collect() }
    }

    /// Fails unless it is said once where the files are.
    fn check(&self) -> Result<(), FieldError> {
        let error = FieldError::new;
        match &self.folder {
            None if self.files.is_empty() => Err(error("", "there is nothing to load")
                .expected("`files` with the file of each layer, or `folder` and `layers`")),
            Some(_) if !self.files.is_empty() => {
                Err(error("folder", "`files` names the files, and so does `folder`").expected("one of the two"))
            }
            Some(_) if self.layers.is_empty() => {
                Err(error("folder", "`folder` without `layers`").expected("the layers to take from it in `layers`"))
            }
            None if !self.layers.is_empty() || self.samples.is_some() => {
                Err(error("files", "`layers` and `samples` choose from a `folder`, but `files` names the files"))
            }
            _ => Ok(()),
        }
    }
}

/// The model.
const MODEL: PortOf<ModelKind> = PortOf::required("model", "The model that they were measured on.");

/// See [`StageKind::DOC`].
pub struct LoadMoments;

impl StageKind for LoadMoments {
    type Params = LoadMomentsParams;
    const NAME: &'static str = "load_moments";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "Reads second moments from the files that ROME and MEMIT publish.";
    const DOC: &'static str = "\
Reads the files that the published code keeps under `data/stats/{model}/{corpus}_stats`: for each layer an npz file with the \
sum of k kᵀ (`mom2.mom2`, f × f) and the number of tokens (`mom2.count`). **The sum is divided by the number of tokens**, as \
the published code does where it uses the file. Without the division, preservation would weigh a million times too much. \
f16, f32 and f64, stored or deflated, need no conversion. A file that is no sum of k kᵀ, or has keys of another size, is an \
error.

The files belong to a model but do not name it: connect the model that they were measured on. Whether they are of that model and \
layer is judged by the mean of kᵀC⁻¹k/f over keys of a text: near 1 for text like the corpus, 2 to 10 for other text. Above 2 a \
warning shows the figure; below 0.1 (a sum in the place of the mean) and above 30 (another layer or model) the file is refused. \
A singular C and the identity are said and not judged. Files that `export_moments` wrote name their model, their layer and the trace of C, which \
are compared exactly, and so is a layer that a published file name gives. The result is used like that \
of `covariance`. docs/inputs.md shows both ways to name the files.";
    type Output = MomentsKind;

    fn inputs() -> Vec<Port> {
        vec![MODEL.port()]
    }

    fn unkeyed() -> &'static [&'static str] {
        // What the files hold is in the key, each under its layer.
        &["files", "folder", "layers", "samples", "check_text"]
    }

    fn files(params: &LoadMomentsParams, base: &Path) -> Result<Vec<ExternalFile>, FieldError> {
        params.check()?;
        let text = || params.check_text.as_ref().map(|path| ExternalFile::new(CHECK_TEXT, path, CHECK_TEXT));
        let Some(folder) = &params.folder else {
            let files = params.files.iter();
            let files = files.map(|(layer, path)| ExternalFile::new(logical(*layer), path, format!("files.{layer}")));
            return Ok(files.chain(text()).collect());
        };
        let names = names(&base.join(folder))?;
        let layers = params.layers.iter().enumerate();
        let files = layers
            .map(|(i, &layer)| {
                let found = choose(&names, layer, params.samples.map(Count::get)).map_err(|wrong| {
                    FieldError::new(format!("layers[{i}]"), wrong)
                        .at(base.join(folder), None)
                        .expected(format!("one such as transformer.h.{layer}.mlp.c_proj_float32_mom2_100000.npz"))
                })?;
                Ok(ExternalFile::new(logical(layer), folder.join(found), "folder"))
            })
            .collect::<Result<Vec<_>, FieldError>>()?;
        Ok(files.into_iter().chain(text()).collect())
    }

    fn describe(params: &LoadMomentsParams, cx: &DescribeCx<'_>) -> Result<PlannedMoments, Vec<FieldError>> {
        let layers = params.layers();
        let mut errors = Vec::new();
        let facts = cx.input(MODEL).model;
        if let Some(facts) = &facts {
            let numbers: Vec<usize> = layers.iter().map(|(layer, _)| *layer).collect();
            errors.extend(facts.check_dense(&numbers, "`load_moments`", |i| layers[i].1.clone()));
        }
        // What a file says of itself costs nothing to read, and is the wrong file as often as not.
        let files = Self::files(params, cx.base_dir()).unwrap_or_default();
        for file in files.into_iter().filter(|file| file.name != CHECK_TEXT) {
            let path = cx.base_dir().join(&file.path);
            if !path.is_file() {
                continue;
            }
            let told = |what: String| FieldError::new(&file.field, what).at(&path, None);
            match MomentFile::open(&path) {
                Err(error) => errors.push(told(error.stage().message)),
                Ok(moment) => {
                    let layer = layers.iter().map(|(layer, _)| *layer).find(|layer| logical(*layer) == file.name);
                    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                    let wrong = layer.and_then(|layer| other_layer(layer, name, moment.origin()));
                    if let Some(wrong) = wrong.filter(|_| !params.accept_moments) {
                        errors.push(told(wrong).hint(ACCEPT));
                    }
                    let other = facts.as_ref().map(|facts| facts.feed_forward).filter(|f| *f != moment.size());
                    errors.extend(other.map(|f| {
                        told(format!("it is of keys of size {}, but the model's are of size {f}", moment.size()))
                    }));
                }
            }
        }
        let layers = layers.into_iter().map(|(layer, _)| layer).collect();
        if errors.is_empty() { Ok(PlannedMoments { layers: Some(layers), mixture: None }) } else { Err(errors) }
    }

    fn run(params: &LoadMomentsParams, cx: &StageContext) -> Result<Artifact, Error> {
        let base = cx.input(MODEL)?;
        let model = open(cx, &base)?;
        let f = model.decoder.config().feed_forward;
        let base = base.base();
        let judge = Judge { cx, model: &model, base: &base, accept: params.accept_moments };
        let layers = params.layers();
        let bar = cx.progress("layers", Some(layers.len() as u64));
        let mut made = Gathered::new(base.clone());
        let (mut documents, mut sources) = (Vec::new(), Vec::new());
        for (layer, _) in layers {
            cx.check_interrupt()?;
            let (file, path) = cx.file(&logical(layer))?;
            let moment = MomentFile::open(path).map_err(StageFailure::stage)?;
            documents.push(moment.samples());
            sources.push(file.digest);
            let (origin, trace) = (moment.origin().cloned(), moment.trace());
            let moment = moment.read(f).map_err(StageFailure::stage)?;
            if moment.count() < f as u64 {
                let count = moment.count();
                cx.warn(format!("layer {layer}: {count} tokens cannot span {f} key dimensions: it will be singular"));
            }
            made.put(cx, layer, &moment)?;
            judge.check(layer, moment, origin.as_ref(), trace)?;
            bar.inc(1);
        }
        let same = documents.iter().all(|samples| *samples == documents[0]);
        made.artifact(documents.first().copied().flatten().filter(|_| same), sources)
    }
}

/// The logical name of a layer's file.
fn logical(layer: usize) -> String {
    format!("layer{layer}.npz")
}

/// The names of the files in a folder.
fn names(folder: &Path) -> Result<Vec<String>, FieldError> {
    let entries = std::fs::read_dir(folder).map_err(|error| {
        let text = error.to_string();
        let what = match text.split(" (os error").next() {
            Some(text) if folder.exists() => format!("cannot be read: {}", text.to_lowercase()),
            _ => "does not exist".to_owned(),
        };
        let made = FieldError::new("folder", format!("the folder of second moments {what}"))
            .hint("paths start from the pipeline file's folder")
            .at(folder, None);
        if folder.exists() { made } else { made.absent() }
    })?;
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// The one file of a layer, whatever family it is of.
fn choose(names: &[String], layer: usize, samples: Option<usize>) -> Result<&String, String> {
    let modules = Layout::ALL.map(|layout| format!("{}_float", layout.edited_module(layer)));
    let end = samples.map_or_else(|| ".npz".to_owned(), |samples| format!("_mom2_{samples}.npz"));
    let fits = |name: &&String| {
        name.ends_with(&end) && name.contains("_mom2") && modules.iter().any(|module| name.starts_with(module))
    };
    let found: Vec<&String> = names.iter().filter(fits).collect();
    match found[..] {
        [one] => Ok(one),
        [] => Err(match samples {
            Some(samples) => format!("the folder has no second moment of layer {layer} from {samples} documents"),
            None => format!("the folder has no second moment of layer {layer}"),
        }),
        [first, second, ..] => Err(format!(
            "the folder has {} second moments of layer {layer}, {first} and {second} among them: choose by `samples`, or \
             name them in `files`",
            found.len()
        )),
    }
}
