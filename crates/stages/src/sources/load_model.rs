//! `load_model`: a Hugging Face folder, or a GGUF file, as a model.

use std::path::{Path, PathBuf};

use palinode_engine::{
    Artifact, Beside, DescribeCx, Error, ExternalFile, FieldError, Given, StageContext, StageKind, artifact,
};
use palinode_model::{Checkpoint, Precision, Text, is_gguf};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifacts::model::{
    CONFIG, Facts, GGUF, LEDGER_FILE, ModelFacts, ModelKind, PlannedModel, TOKENIZER, decides_nothing, open, other,
    read_config,
};
use crate::errors::StageFailure;
use crate::sources::hub;

/// Parameters of `load_model`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadModelParams {
    /// The folder with config.json, tokenizer.json and the weights as safetensors; or a GGUF file; or a model of the Hugging Face Hub,
    /// `hf:owner/name` or `hf:owner/name@revision`. The key covers the contents of the files and not their names.
    path: String,
    /// The number type of the weights in memory, for any type on disk. `bf16` needs half the memory of `f32`.
    #[serde(default)]
    dtype: Precision,
}

impl LoadModelParams {
    /// The folder as a path that may be relative to the pipeline's.
    fn folder(&self) -> Result<PathBuf, FieldError> {
        Ok(hub::model("path", &self.path)?.unwrap_or_else(|| PathBuf::from(&self.path)))
    }
}

/// See [`StageKind::DOC`].
pub struct LoadModel;

impl StageKind for LoadModel {
    type Params = LoadModelParams;
    const NAME: &'static str = "load_model";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str =
        "Opens a model: a folder in Hugging Face's layout, a GGUF file, or a model of the Hub.";
    const DOC: &'static str = "\
Opens a folder as `save_pretrained` writes it: config.json, tokenizer.json, and model.safetensors in one file or in shards \
with their index. config.json decides the family: GPT-2, GPT-J, GPT-Neo, GPT-NeoX, OPT, BLOOM, Falcon, MPT, Llama, Mistral, Qwen, Gemma, \
Phi, OLMo, SmolLM 3, Granite, Command R, GLM 4, EXAONE 4, StableLM or StarCoder 2. An unknown setting \
that would change results is an error that names it. Weights may be stored as f32, f16 or bf16.

A GGUF file, as llama.cpp has it, is a model by itself: sizes, tokenizer and chat template are in its metadata. Read are the architectures \
llama (Llama, Mistral, SmolLM), qwen2, qwen3, gpt2, gptneox and those of the other families that llama.cpp has, and the types F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 and Q2_K to Q6_K. \
Quantized weights are held as the values that they stand for, in `dtype`.

`dtype: bf16` (or f16) holds the weights in half the memory of f32 and computes products with them in that type. The hidden \
state, norms, attention, losses, second moments and edits are always in f32 or f64. Blocks of a model \
that does not fit into memory are read from its files whenever they are needed, with the same results; that is slower, and a warning says \
so.

`hf:owner/name@revision` is a model of the Hugging Face Hub. It is looked up in the cache that other programs use (HF_HOME). \
A run of the pipeline downloads it there if it is missing: configuration, tokenizer and safetensors, nothing else. A branch stays \
what it was when it was downloaded; give a commit to pin the contents. HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE have their \
usual meaning.

Nothing is copied. The folder is read in place. The contents of config.json, tokenizer.json, tokenizer_config.json and the weights \
decide whether later results are still valid, not their names. The folder's other files (generation_config.json, the chat template and \
so on) change no result: only `export` copies them, and runs again when they change.";
    type Output = ModelKind;

    fn unkeyed() -> &'static [&'static str] {
        // What the files hold is in the key.
        &["path"]
    }

    fn files(params: &LoadModelParams, base: &Path) -> Result<Vec<ExternalFile>, FieldError> {
        let path = params.folder()?;
        let folder = base.join(&path);
        if is_gguf(&folder) {
            return Ok(vec![ExternalFile::new(format!("weights/{GGUF}"), path, "path")]);
        }
        if !folder.is_dir() {
            let what = if folder.exists() { "is neither a folder nor a GGUF file" } else { "does not exist" };
            let error = FieldError::new("path", format!("the model folder {what}"))
                .expected("a folder with config.json, tokenizer.json and model.safetensors, or a GGUF file")
                .hint("paths start from the pipeline file's folder")
                .at(&folder, None);
            return Err(if folder.exists() { error } else { error.absent() });
        }
        let shards = Checkpoint::files(&folder).map_err(|error| {
            let made = FieldError::new("path", error.to_string());
            let made = match error.hint() {
                Some(hint) => made.hint(hint),
                None => made,
            };
            made.at(&folder, None)
        })?;
        for (name, what) in [(CONFIG, "its configuration"), (TOKENIZER, "its tokenizer")] {
            if !folder.join(name).is_file() {
                let hint = if name == TOKENIZER && folder.join("tokenizer.model").is_file() {
                    "the folder has a SentencePiece tokenizer.model only; transformers writes tokenizer.json with \
                     AutoTokenizer.from_pretrained(…, use_fast=True).save_pretrained(…)"
                } else if name == TOKENIZER {
                    Text::MISSING
                } else {
                    "copy it from where the weights come from"
                };
                return Err(FieldError::new("path", format!("the model folder has no {name}, {what}"))
                    .hint(hint)
                    .at(&folder, None));
            }
        }
        let mut files = vec![
            ExternalFile::new(CONFIG, path.join(CONFIG), "path"),
            ExternalFile::new(TOKENIZER, path.join(TOKENIZER), "path"),
        ];
        files.extend(
            shards.into_iter().map(|shard| ExternalFile::new(format!("weights/{shard}"), path.join(&shard), "path")),
        );
        files.extend(others(&folder, &path).filter(|file| !decides_nothing(&file.name)));
        Ok(files)
    }

    fn beside(params: &LoadModelParams, base: &Path) -> Beside {
        let Ok(path) = params.folder() else { return Beside::default() };
        let folder = base.join(&path);
        let files = others(&folder, &folder).filter(|file| decides_nothing(&file.name)).collect();
        // A branch moves on; the commit is what was edited.
        let pinned = hub::pinned(&params.path);
        let hub = pinned.as_ref().unwrap_or(&params.path).strip_prefix("hf:").map(str::to_owned);
        let name = hub.unwrap_or_else(|| folder.canonicalize().unwrap_or(folder).display().to_string());
        Beside { files, name: Some(name) }
    }

    fn decides_nothing(file: &str) -> bool {
        decides_nothing(file)
    }

    fn describe(params: &LoadModelParams, cx: &DescribeCx<'_>) -> Result<PlannedModel, Vec<FieldError>> {
        let Ok(folder) = params.folder() else { return Ok(PlannedModel::default()) };
        let model = cx.base_dir().join(folder);
        let gguf = is_gguf(&model);
        let path = if gguf { model } else { model.join(CONFIG) };
        if !path.is_file() {
            return Ok(PlannedModel::default());
        }
        match read_config(&path) {
            Ok(config) => Ok(PlannedModel { model: Some(Facts::of(&config, params.dtype, gguf)) }),
            Err(error) => Err(vec![FieldError::new("path", error.to_string()).at(path, None)]),
        }
    }

    fn run(params: &LoadModelParams, cx: &StageContext) -> Result<Artifact, Error> {
        if let Some(commit) = hub::commit(&params.path) {
            // In the event log, not in the artifact: that is the same for the same files, wherever they are from.
            let bar = cx.progress("files", Some(cx.files().len() as u64));
            bar.note(format!("{} is commit {commit}", params.path));
            bar.inc(cx.files().len() as u64);
        }
        let whole = cx.files().get(&format!("weights/{GGUF}"));
        let described = whole.map_or_else(|| cx.file(CONFIG), Ok)?;
        let config = read_config(&described.1).map_err(StageFailure::stage)?;
        let facts = ModelFacts { model: Facts::of(&config, params.dtype, whole.is_some()) };
        let files = cx.files().iter();
        let made = files.fold(artifact::<ModelKind>(&facts)?, |made, (name, (file, _))| made.with_file(name, *file));
        // Everything that could be wrong with the folder shows here rather than an hour later.
        open(cx, &Given::<ModelKind> { artifact: &made, facts })?;
        Ok(made)
    }
}

/// The small files beside the weights that are in a folder, as `path` names it.
fn others(folder: &Path, path: &Path) -> impl Iterator<Item = ExternalFile> {
    let names = palinode_hub::COMPANIONS.into_iter().chain(["model.safetensors.index.json", LEDGER_FILE]);
    let there = names.filter(|name| folder.join(name).is_file());
    there.map(|name| ExternalFile::new(other(name), path.join(name), "path"))
}
