//! `covariance`: second moments of keys over a corpus.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use palinode_data::{Corpus, Split};
use palinode_edit::Moments;
use palinode_engine::{
    Artifact, ArtifactKind, DescribeCx, ExternalFile, FieldError, Port, StageContext, StageError, StageKind,
};
use palinode_math::SecondMoment;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::errors::StageFailure;
use crate::model::{Facts, MODEL, base_digest, open};
use crate::moments::{Head, LayerFacts, MOMENTS, file_name, put_layer};

/// Documents run between two looks at the clock and at Ctrl-C.
const BLOCK: usize = 64;

/// What separates documents.
#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Documents {
    /// Every line that is not blank is one.
    Line,
    /// Blank lines separate them.
    BlankLine,
}

/// Parameters of `covariance`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CovarianceParams {
    /// A plain-text file. Its name is no part of the key: its contents are.
    corpus: PathBuf,
    /// What separates documents in it.
    #[serde(default = "line")]
    documents: Documents,
    /// The layers; all of them are measured in one pass over the corpus.
    layers: Vec<usize>,
    /// How many documents are read; all where it is left out.
    #[serde(default)]
    samples: Option<usize>,
    /// Seed of the order in which documents are taken.
    #[serde(default = "one")]
    seed: u64,
    /// Tokens run at once, padding included: bounds memory.
    #[serde(default = "batch_tokens")]
    batch_tokens: usize,
}

fn line() -> Documents {
    Documents::Line
}

fn one() -> u64 {
    1
}

fn batch_tokens() -> usize {
    2048
}

/// When sums were saved last, and how long that took.
struct Saved {
    at: Instant,
    took: Duration,
}

impl Saved {
    fn now() -> Self {
        Self { at: Instant::now(), took: Duration::ZERO }
    }

    fn after(save: impl FnOnce() -> Result<(), StageError>) -> Result<Self, StageError> {
        let start = Instant::now();
        save()?;
        Ok(Self { at: Instant::now(), took: start.elapsed() })
    }

    /// Little is lost in a kill, and little time goes into saving: 5 % at most.
    fn long_ago(&self) -> bool {
        self.at.elapsed() > Duration::from_secs(10).max(20 * self.took)
    }
}

/// See [`StageKind::DOC`].
pub struct Covariance;

impl StageKind for Covariance {
    type Params = CovarianceParams;
    const NAME: &'static str = "covariance";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Collects second moments of keys over a plain-text corpus, all layers in one pass.";
    const DOC: &'static str = "\
The preservation term of every objective asks that a layer go on doing what it does on ordinary text. What that text looks \
like to the layer is its second moment C = Σ k kᵀ / n over the keys k (inputs of the down-projection) of a corpus. It does \
not depend on the edits: it is measured once for a model and a corpus, and every experiment after that reuses it.

Documents are taken in an order given by the seed and cut to the model's context; padding is not counted. Collect at least \
ten tokens for each key dimension f, or the second moment may not be positive definite.

The sums are saved as they grow: an interrupted run goes on where it was, with the same result to the last bit, and so does \
a later run over more documents, or with more layers.";
    const OUTPUT: ArtifactKind = MOMENTS;

    fn inputs() -> Vec<Port> {
        vec![Port { name: "model", accepts: &[MODEL], required: true, doc: "The model whose keys are measured." }]
    }

    fn unkeyed() -> &'static [&'static str] {
        &["corpus", "batch_tokens"]
    }

    fn files(params: &CovarianceParams, _: &Path) -> Result<Vec<ExternalFile>, FieldError> {
        Ok(vec![ExternalFile::new("corpus", &params.corpus, "corpus")])
    }

    fn describe(params: &CovarianceParams, cx: &DescribeCx<'_>) -> Result<Value, Vec<FieldError>> {
        let mut errors = Vec::new();
        if params.layers.is_empty() {
            errors.push(FieldError::new("layers", "`layers` is empty").expected("one layer or more"));
        }
        if params.samples == Some(0) {
            errors.push(FieldError::new("samples", "`samples` is 0").expected("1 or more"));
        }
        if let Some(facts) = Facts::at(cx, "model") {
            errors.extend(facts.check_layers(&params.layers, |i| format!("layers[{i}]")));
        }
        let layers: Vec<_> = params.layers.iter().map(|&layer| LayerFacts { layer, tokens: 0, trace: 0.0 }).collect();
        if errors.is_empty() { Ok(json!({ "layers": layers })) } else { Err(errors) }
    }

    fn run(params: &CovarianceParams, cx: &StageContext) -> Result<Artifact, StageError> {
        let artifact = cx.input("model")?;
        let model = open(cx, artifact)?;
        let split = match params.documents {
            Documents::Line => Split::Line,
            Documents::BlankLine => Split::BlankLine,
        };
        let mut corpus = Corpus::open(&cx.file("corpus")?.1, split).map_err(StageFailure::stage)?;
        let order = corpus.order(params.seed, params.samples);
        let blocks: Vec<&[usize]> = order.chunks(BLOCK).collect();
        // The last block may be a part of one, which a run over more documents would not have.
        let whole = order.len() / BLOCK;
        let f = model.decoder.config().feed_forward;
        let base = base_digest(artifact);
        let key = |layer: usize| {
            cx.unit_key(&json!({
                "base": base, "corpus": cx.files().get("corpus").map(|(file, _)| file.digest),
                "documents": params.documents, "seed": params.seed, "block": BLOCK, "layer": layer,
            }))
        };
        let mut heads: BTreeMap<usize, Head> = BTreeMap::new();
        for &layer in &params.layers {
            let nothing = || Head { blocks: 0, moment: SecondMoment::new(f) };
            heads.insert(layer, Head::get(cx, &key(layer), whole).unwrap_or_else(nothing));
        }
        let kept: BTreeMap<usize, usize> = heads.iter().map(|(&layer, head)| (layer, head.blocks)).collect();
        let start = kept.values().copied().min().unwrap_or(0);

        let mut moments = Moments::new();
        let bar = cx.progress("documents", Some(order.len() as u64));
        bar.keep((start * BLOCK).min(order.len()) as u64);
        let mut tokens = 0;
        let mut saved = Saved::now();
        for (number, block) in blocks.iter().enumerate().skip(start) {
            // Layers join where their sums left off; the forward pass is one for all that have.
            for (layer, head) in heads.extract_if(.., |_, head| head.blocks == number) {
                moments.insert(&model.decoder, layer, head.moment).map_err(StageFailure::stage)?;
            }
            let mut documents = Vec::with_capacity(block.len());
            for &index in *block {
                let text = corpus.read(index).map_err(StageFailure::stage)?;
                documents.push(model.text.encode(&text).map_err(StageFailure::stage)?);
            }
            tokens += moments.add(&model.decoder, &documents, params.batch_tokens).map_err(StageFailure::stage)?;
            bar.note(format!("{tokens} tokens"));
            bar.inc(block.len() as u64);
            let done = number + 1;
            let interrupted = cx.check_interrupt();
            if done <= whole && (done == whole || interrupted.is_err() || saved.long_ago()) {
                saved = Saved::after(|| {
                    let further = moments.layers().iter().filter(|(layer, _)| kept[layer] < done);
                    further.into_iter().try_for_each(|(&layer, moment)| Head::put(cx, &key(layer), done, moment))
                })?;
            }
            interrupted?;
        }
        for (layer, head) in heads {
            moments.insert(&model.decoder, layer, head.moment).map_err(StageFailure::stage)?;
        }
        let tokens = moments.layers().values().map(SecondMoment::count).next().unwrap_or(0);
        if tokens < f as u64 {
            cx.warn(format!("{tokens} tokens cannot span {f} key dimensions: the second moment will be singular"));
        }
        let mut made = Artifact::new(Self::OUTPUT, Value::Null);
        let mut facts = Vec::new();
        for (&layer, moment) in moments.layers() {
            made = made.with_file(&file_name(layer), put_layer(cx, moment)?);
            facts.push(LayerFacts { layer, tokens: moment.count(), trace: moment.trace() });
        }
        made.meta = json!({
            "base": base,
            "documents": order.len(),
            "tokens": tokens,
            "layers": facts,
        });
        Ok(made)
    }
}
