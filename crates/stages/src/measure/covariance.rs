//! `covariance`: second moments of keys over a corpus.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use palinode_data::Corpus;
use palinode_edit::Moments;
use palinode_engine::{
    Artifact, ArtifactKind, DescribeCx, ExternalFile, FieldError, Port, StageContext, StageError, StageKind,
};
use palinode_math::SecondMoment;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::artifacts::model::{Facts, Loaded, MODEL, base_digest, open};
use crate::artifacts::moments::{Gathered, Head, LayerFacts, MOMENTS};
use crate::edit::batch_limits;
use crate::errors::StageFailure;
use crate::sources::corpus::{Documents, FileFormat, TokenCount, corpus, encode, files};
use crate::sources::hub;

/// Documents run between two looks at the clock and at Ctrl-C.
const BLOCK: usize = 64;

/// Parameters of `covariance`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CovarianceParams {
    /// The text: a file, a folder, a pattern (`wiki/*.parquet`), or files of the Hugging Face Hub
    /// (`hf:datasets/owner/name@revision/pattern`). The key covers its contents and not its name.
    corpus: String,
    /// The format of the files. The default follows from their extensions (.txt, .jsonl, .parquet, each also .gz or .zst).
    #[serde(default)]
    format: Option<FileFormat>,
    /// The separator of documents in plain text.
    #[serde(default = "line")]
    documents: Documents,
    /// The field of a JSON object, or the column of a table, that holds the text.
    #[serde(default = "text")]
    field: String,
    /// The layers. One pass over the corpus measures all of them.
    layers: Vec<usize>,
    /// Maximum number of documents. The default is all documents.
    #[serde(default)]
    samples: Option<usize>,
    /// Stop after the document that reaches this number of tokens: a number, or a multiple of the key dimension f, as in
    /// `10f`.
    #[serde(default)]
    tokens: Option<TokenCount>,
    /// Seed of the order of the documents.
    #[serde(default = "one")]
    seed: u64,
    /// Tokens in a batch, padding included. It bounds memory. The default is 2,048 on a CPU, and four times as many on a
    /// GPU.
    #[serde(default)]
    batch_tokens: Option<usize>,
}

fn line() -> Documents {
    Documents::Line
}

fn text() -> String {
    "text".to_owned()
}

fn one() -> u64 {
    1
}

/// Tokens in a batch on the processor, see [`at_once`].
const BATCH_TOKENS: usize = 2048;

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
    const VERSION: u32 = 3;
    const SUMMARY: &'static str = "Measures second moments of keys over a corpus of text, all layers in one pass.";
    const DOC: &'static str = "\
The preservation term of every objective keeps what a layer computes for ordinary text. It describes that text by the second \
moment C = Σ k kᵀ / n of the keys k (inputs of the down-projection) over a corpus. C does not depend on the edits. It is \
measured once for a model and a corpus, and every experiment reuses it.

The seed decides the order of the documents. Each document is cut to the model's context length. Padding is not counted. Use \
at least ten tokens for each key dimension f (`tokens: 10f`): otherwise the second moment may not be positive definite. With \
both `samples` and `tokens`, the limit that is reached first ends the sample.

A corpus is text, JSON lines or Parquet tables, which may be compressed with gzip or Zstandard: one file, a folder, or a \
pattern. It is read once to choose the sample. The memory for this does not depend on the size of the corpus. Compressed \
files and tables are read again for every 128 MiB of sampled text: use a sample of them and not all of their text. \
docs/inputs.md shows every layout by example.

The sums are saved while they grow. An interrupted run resumes with the same result in every bit, and so does a later run \
over more documents or tokens, or with more layers.";
    const OUTPUT: ArtifactKind = MOMENTS;

    fn inputs() -> Vec<Port> {
        vec![Port { name: "model", accepts: &[MODEL], required: true, doc: "The model whose keys are measured." }]
    }

    fn unkeyed() -> &'static [&'static str] {
        &["corpus", "batch_tokens"]
    }

    fn files(params: &CovarianceParams, base: &Path) -> Result<Vec<ExternalFile>, FieldError> {
        files("corpus", &params.corpus, params.format, base)
    }

    fn describe(params: &CovarianceParams, cx: &DescribeCx<'_>) -> Result<Value, Vec<FieldError>> {
        let mut errors = Vec::new();
        if params.layers.is_empty() {
            errors.push(FieldError::new("layers", "`layers` is empty").expected("one layer or more"));
        }
        if params.samples == Some(0) {
            errors.push(FieldError::new("samples", "`samples` is 0").expected("1 or more"));
        }
        if params.tokens.is_some_and(TokenCount::is_none) {
            errors
                .push(FieldError::new("tokens", "`tokens` is 0").expected("1 or more, or a multiple of f such as 10f"));
        }
        if let Some(facts) = Facts::at(cx, "model") {
            errors.extend(facts.check_layers(&params.layers, |i| format!("layers[{i}]")));
        }
        let layers: Vec<_> = params.layers.iter().copied().map(LayerFacts::planned).collect();
        if errors.is_empty() { Ok(json!({ "layers": layers })) } else { Err(errors) }
    }

    fn run(params: &CovarianceParams, cx: &StageContext) -> Result<Artifact, StageError> {
        let artifact = cx.input("model")?;
        let model = open(cx, artifact)?;
        let f = model.decoder.config().feed_forward;
        let enough = params.tokens.map_or(u64::MAX, |tokens| tokens.of(f));
        // No document is without a token: so many are enough, whatever they hold.
        let most = params.samples.or(params.tokens.map(|_| usize::MAX)).map(|n| n.min(enough as usize));
        if let Some(commit) = hub::commit(&params.corpus) {
            cx.progress("files", None).note(format!("{} is commit {commit}", params.corpus));
        }
        let (mut corpus, digests) = corpus(cx, params.documents, &params.field, params.seed, most)?;
        // The last block may be a part of one, which a run over more documents would not have.
        let whole = corpus.len() / BLOCK;
        let base = base_digest(artifact);
        let key = |layer: usize| {
            cx.unit_key(&json!({
                "base": base, "corpus": digests, "documents": params.documents, "field": params.field,
                "seed": params.seed, "block": BLOCK, "layer": layer,
            }))
        };
        let mut heads: BTreeMap<usize, Head> = BTreeMap::new();
        for &layer in &params.layers {
            let nothing = || Head { blocks: 0, moment: SecondMoment::new(f) };
            // A head with more tokens than are wanted is of no use.
            let head = Head::get(cx, &key(layer), whole).filter(|head| head.moment.count() < enough);
            heads.insert(layer, head.unwrap_or_else(nothing));
        }
        let kept: BTreeMap<usize, usize> = heads.iter().map(|(&layer, head)| (layer, head.blocks)).collect();
        let start = kept.values().copied().min().unwrap_or(0);

        let batch = batch_limits::tokens(params.batch_tokens, BATCH_TOKENS, &model.decoder);
        let mut moments = Moments::new();
        let total = if params.tokens.is_some() { None } else { Some(corpus.len() as u64) };
        let bar = cx.progress("documents", total);
        let mut read = (start * BLOCK).min(corpus.len());
        bar.keep(read as u64);
        let mut tokens = heads.values().filter(|head| head.blocks == start).map(|head| head.moment.count()).next();
        let mut saved = Saved::now();
        let mut ahead = (read < corpus.len() && tokens.unwrap_or(0) < enough)
            .then(|| block(&mut corpus, &model, read, enough - tokens.unwrap_or(0)))
            .transpose()?;
        while let Some((documents, counted)) = ahead {
            // Layers join where their sums left off; the forward pass is one for all that have.
            for (layer, head) in heads.extract_if(.., |_, head| head.blocks == read / BLOCK) {
                moments.insert(&model.decoder, layer, head.moment).map_err(StageFailure::stage)?;
            }
            read += documents.len();
            tokens = Some(tokens.unwrap_or(0) + counted);
            let left = enough - tokens.unwrap_or(0).min(enough);
            // The next documents are read and tokenized while the model is at these.
            let (added, next) = thread::scope(|scope| {
                let more = read < corpus.len() && left > 0;
                let reader = more.then(|| scope.spawn(|| block(&mut corpus, &model, read, left)));
                let added = moments.add(&model.decoder, &documents, batch);
                (added, reader.map(|reader| reader.join().unwrap_or_else(|panic| resume_unwind(panic))).transpose())
            });
            added.map_err(StageFailure::stage)?;
            bar.note(format!("{} tokens", tokens.unwrap_or(0)));
            bar.inc(documents.len() as u64);
            let interrupted = cx.check_interrupt();
            let last = read >= whole * BLOCK || tokens.unwrap_or(0) >= enough;
            // Only whole blocks are the same in a larger run.
            if documents.len() == BLOCK && (last || interrupted.is_err() || saved.long_ago()) {
                let done = read / BLOCK;
                saved = Saved::after(|| {
                    let sums = moments.layers().map_err(StageFailure::stage)?;
                    let further = sums.iter().filter(|(layer, _)| kept[layer] < done);
                    further.into_iter().try_for_each(|(&layer, moment)| Head::put(cx, &key(layer), done, moment))
                })?;
            }
            interrupted?;
            ahead = next?;
        }
        for (layer, head) in heads {
            moments.insert(&model.decoder, layer, head.moment).map_err(StageFailure::stage)?;
        }
        let moments = moments.layers().map_err(StageFailure::stage)?;
        let tokens = moments.values().map(SecondMoment::count).next().unwrap_or(0);
        if tokens < f as u64 {
            cx.warn(format!("{tokens} tokens cannot span {f} key dimensions: the second moment will be singular"));
        }
        if params.tokens.is_some() && tokens < enough && params.samples.is_none_or(|samples| samples > read) {
            cx.warn(format!("the corpus has {tokens} tokens, fewer than the {enough} requested: all of it was used"));
        }
        let mut made = Gathered::new(base);
        for (&layer, moment) in moments {
            made.put(cx, layer, moment)?;
        }
        Ok(made.artifact(Some(read as u64), digests.into_iter().map(|(_, digest)| digest).collect()))
    }
}

/// Tokens of the next documents, cut to the model's context: a block of them, or fewer where `enough` tokens are reached, and
/// how many tokens they have.
fn block(corpus: &mut Corpus, model: &Loaded, from: usize, enough: u64) -> Result<(Vec<Vec<u32>>, u64), StageError> {
    let context = model.decoder.config().context;
    let mut documents = Vec::with_capacity(BLOCK);
    let mut counted = 0;
    for index in from..corpus.len().min(from + BLOCK) {
        let text = corpus.read(index).map_err(StageFailure::stage)?;
        let tokens = encode(&model.text, &text, context).map_err(StageFailure::stage)?;
        counted += tokens.len() as u64;
        documents.push(tokens);
        if counted >= enough {
            break;
        }
    }
    Ok((documents, counted))
}
