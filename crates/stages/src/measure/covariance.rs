//! `covariance`: second moments of keys over a corpus.

use std::panic::resume_unwind;
use std::path::Path;
use std::thread;

use palinode_data::{Corpus, Split};
use palinode_engine::bounds::{Count, Positive};
use palinode_engine::{
    Artifact, DescribeCx, Digest, Error, ErrorKind, ExternalFile, FieldError, Inputs, Port, PortOf, Progress,
    StageContext, StageKind, UnitPlan, size,
};
use palinode_math::SecondMoment;
use palinode_model::{Compute, Experts};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::artifacts::compute::{check, computed_in};
use crate::artifacts::model::{HasModel, Loaded, ModelKind, open};
use crate::artifacts::moments::{Gathered, MomentsKind, PlannedMoments};
use crate::edit::batch_limits::BatchTokens;
use crate::errors::StageFailure;
use crate::measure::documents::{Saved, dimensions, unit};
use crate::measure::held_out::{Sample, three_digits};
use crate::measure::part_sums::{self, Apart, Keys, PART, PartSums, UNIT};
use crate::measure::until_sure::{LEAST, Sure, UntilSure};
use crate::sources::corpus::{
    CorpusFormat, CorpusPath, CorpusSampling, SampleSeed, TextField, TokenCount, corpus, files,
};
use crate::sources::hub;
use crate::units;

/// Parameters of `covariance`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CovarianceParams {
    corpus: CorpusPath,
    #[serde(default)]
    format: CorpusFormat,
    #[serde(default)]
    documents: Split,
    #[serde(default)]
    field: TextField,
    /// The layers. One pass over the corpus measures all of them.
    #[schemars(length(min = 1))]
    layers: Vec<usize>,
    /// Maximum number of documents. The default is all documents.
    #[serde(default)]
    samples: Option<Count>,
    /// Stop after the document that reaches this number of tokens: a number, or a multiple of the key dimension f, as in
    /// `10f`. With `auto`, stop when the second moments of both halves of the text differ by no more than `tolerance`.
    #[serde(default)]
    tokens: Option<TokenCount>,
    /// With `tokens: auto`, how far the second moments C₁ and C₂ of both halves of the text may differ in the end, in each layer:
    /// ‖C₁ − C₂‖ / ‖C‖. The default is 0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tolerance: Option<Positive>,
    /// Cut each document to this many tokens. The default is the model's context length. The published second moments of Qwen and
    /// Mistral were measured with 4096.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    document_tokens: Option<Count>,
    #[serde(default)]
    seed: SampleSeed,
    /// Which files documents are drawn from, where the corpus is more than one.
    #[serde(default, skip_serializing_if = "CorpusSampling::is_published")]
    sampling: CorpusSampling,
    /// With `sampling: shards`, the number of files. The default is 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shards: Option<Count>,
    #[serde(default)]
    batch_tokens: BatchTokens,
    /// What both factors of matrix products are rounded to, on a CPU: `bf16` takes half of the time in products on AMD's CPUs with
    /// AVX-512 BF16, and a third on Intel's with AMX under Linux (`doctor --measure` measures yours). It keeps 8 bits of each factor. Sums and all else stay in f32 or f64.
    #[serde(default, skip_serializing_if = "Compute::is_usual")]
    compute: Compute,
}

impl CovarianceParams {
    /// Whether the sample ends by itself.
    fn is_auto(&self) -> bool {
        self.tokens == Some(TokenCount::Auto)
    }
}

/// The model.
const MODEL: PortOf<ModelKind> = PortOf::required("model", "The model whose keys are measured.");

/// The version since which sums are measured as they are, but for last digits: those that were kept are gone on from.
const SUMS: u32 = 7;

/// The version since which they are the same to the last bit.
const SAME_BITS: u32 = 7;

/// How far halves may differ where nothing says it.
const TOLERANCE: f64 = 0.1;

/// See [`StageKind::DOC`].
pub struct Covariance;

impl StageKind for Covariance {
    type Params = CovarianceParams;
    const NAME: &'static str = "covariance";
    const VERSION: u32 = 8;
    const SUMMARY: &'static str = "Measures second moments of keys over a corpus of text, all layers in one pass.";
    const DOC: &'static str = "\
The preservation term of every objective keeps what a layer computes for ordinary text. It describes that text by the second \
moment C = Σ k kᵀ / n of the keys k (inputs of the down-projection) over a corpus. C does not depend on the edits. It is \
measured once for a model and a corpus, and every experiment reuses it.

The seed decides the order of the documents. Each document is cut to the model's context length, or to \
`document_tokens`. Padding is not counted. Use \
at least ten tokens for each key dimension f (`tokens: 10f`): otherwise the second moment may not be positive definite. Of a mixture of \
experts, each expert has a sum of its own, over the tokens that are routed to it; f is then an expert's dimensions times the experts over those \
that a token uses, and experts that saw too few tokens are named. With \
both `samples` and `tokens`, the limit that is reached first ends the sample.

A corpus is text, JSON lines or Parquet tables, which may be compressed with gzip or Zstandard: one file, a folder, or a \
pattern. It is read once to choose the sample. The memory for this does not depend on the size of the corpus. Compressed \
files and tables are read again for every 128 MiB of sampled text: use a sample of them and not all of their text. \
Where a corpus is many files, such as the tables of a Wikipedia, `sampling: shards` downloads and reads a few that the seed chooses; \
the default draws from all of them, as published second moments did. \
docs/inputs.md shows every layout by example.

Units of 64 documents are counted in two halves, the even and the odd ones. How far both are from each other says how far C \
would be another on other text of the same kind: the log and the result say ‖C₁ − C₂‖ / ‖C‖, and the same for the direction \
of an update, C⁻¹k. C itself is off by about half of that. With `tokens: auto` the sample ends with the first unit after \
which no layer differs by more than `tolerance`, and never before ten tokens for each key dimension. Of a mixture of experts the \
expert that differs most counts, among those that saw as many tokens as their keys have dimensions.

At the end every layer's C is checked by a sample of its own corpus: the mean of kᵀC⁻¹k/f over the first documents, where each document is \
judged by the C of all others. It is near 1 where the corpus is large enough, and a warning gives the figure where it is not.

The sums are saved while they grow. An interrupted run resumes with the same result in every bit, and so does a later run \
over more documents or tokens, or with more layers.";
    type Output = MomentsKind;

    fn inputs() -> Vec<Port> {
        vec![MODEL.port()]
    }

    fn unkeyed() -> &'static [&'static str] {
        // What the files hold is in the key.
        &["corpus"]
    }

    fn carries() -> &'static [u32] {
        // The same sums but for last digits; those of version 3 were not checked by their own corpus. Version 5 always drew from all files, and
        // version 6 did not compare halves. Version 8 added `compute`, which does nothing where it is left out.
        &[3, 4, 5, 6, 7]
    }

    fn last_digits() -> &'static [&'static str] {
        &["batch_tokens"]
    }

    fn resolved(params: &CovarianceParams, hardware: Option<&str>) -> Vec<(&'static str, Value)> {
        vec![("batch_tokens", params.batch_tokens.resolved(BatchTokens::TEXT, hardware))]
    }

    fn units(params: &CovarianceParams, _: &DescribeCx<'_>) -> Option<UnitPlan> {
        params.samples.map(|samples| part_sums::units(samples.get()))
    }

    fn parts(params: &CovarianceParams, _: &Inputs<'_>) -> Result<Option<UnitPlan>, Error> {
        if params.is_auto() {
            return Ok(Some(UnitPlan::new("documents", params.samples.map_or(usize::MAX, Count::get), UNIT)));
        }
        // How many documents there are may be known only once the corpus is read.
        Ok(Some(part_sums::units(params.samples.map_or(usize::MAX, Count::get))))
    }

    fn files(params: &CovarianceParams, base: &Path) -> Result<Vec<ExternalFile>, FieldError> {
        let shards = params.sampling.shards(params.shards, params.seed);
        files("corpus", &params.corpus, params.format, shards, base)
    }

    fn describe(params: &CovarianceParams, cx: &DescribeCx<'_>) -> Result<PlannedMoments, Vec<FieldError>> {
        let mut errors = Vec::new();
        errors.extend(params.sampling.check(params.shards));
        if params.tolerance.is_some() && !params.is_auto() {
            let useless = FieldError::new("tolerance", "`tolerance` says nothing without `tokens: auto`");
            errors.push(useless.expected("`tokens: auto` beside it"));
        }
        if params.layers.is_empty() {
            errors.push(FieldError::new("layers", "`layers` is empty").expected("one layer or more"));
        }
        let model = cx.input(MODEL).model;
        if let Some(facts) = &model {
            errors.extend(check(params.compute, Some(facts)));
            errors.extend(facts.check_layers(&params.layers, |i| format!("layers[{i}]")));
        }
        let mixture = || model.as_ref().and_then(|facts| facts.first_mixture(&params.layers));
        if errors.is_empty() {
            Ok(PlannedMoments { layers: Some(params.layers.clone()), mixture: mixture() })
        } else {
            Err(errors)
        }
    }

    fn run(params: &CovarianceParams, cx: &StageContext) -> Result<Artifact, Error> {
        let given = cx.input(MODEL)?;
        let model = computed_in(cx, open(cx, &given)?, params.compute)?;
        let f = params.layers.iter().map(|&layer| dimensions(model.decoder.config(), layer)).max().unwrap_or(1);
        let enough = params.tokens.map_or(u64::MAX, |tokens| tokens.of(f));
        // No document is without a token: so many are enough, whatever they hold.
        let most = params.samples.map(Count::get).or(params.tokens.map(|_| usize::MAX)).map(|n| n.min(enough as usize));
        if let Some(commit) = hub::commit(&params.corpus.0) {
            cx.progress("files", None).note(format!("{} is commit {commit}", params.corpus.0));
        }
        if cx.files().len() > 1 {
            let bytes = cx.files().values().filter_map(|(_, path)| Some(path.metadata().ok()?.len())).sum();
            let (files, size) = (cx.files().len(), size(bytes));
            cx.progress("files", None).note(format!("drawing documents from {files} files, {size}"));
        }
        let (mut corpus, digests) = corpus(cx, params.documents, &params.field, params.seed, most)?;
        // The last unit may be a part of one, which a run over more documents would not have.
        let whole = corpus.len() / UNIT;
        let context = model.decoder.config().context;
        let cut = params.document_tokens.map_or(context, |most| most.get().min(context));
        let base = given.base();
        let batch = params.batch_tokens.or(BatchTokens::TEXT, &model.decoder);
        let of = |layer: usize| {
            let mut of = json!({
                "base": base, "corpus": digests, "documents": params.documents, "field": params.field,
                "seed": params.seed, "block": UNIT, "layer": layer,
            });
            if cut < context {
                of["document_tokens"] = json!(cut);
            }
            if !params.compute.is_usual() {
                of["compute"] = json!(params.compute);
            }
            of
        };
        let digits = json!({ "batch_tokens": batch });
        let key = |of: &Value| units::key_since(cx, if cx.strict() { SAME_BITS } else { SUMS }, of, &digits);
        if params.is_auto() {
            let documents = corpus.len();
            let bar = cx.progress("documents", None);
            let tolerance = params.tolerance.map_or(TOLERANCE, Positive::get);
            let key = |layer: usize, name: &Value| {
                let mut of = of(layer);
                of["alone"] = name.clone();
                key(&of)
            };
            let (layers, model) = (&params.layers, &model);
            let until = UntilSure {
                cx,
                corpus: &mut corpus,
                model,
                layers,
                cut,
                batch,
                bar: &bar,
                tolerance,
                documents,
                key: &key,
            };
            if cx.share().is_some() {
                until.share()?;
                return Ok(cx.end_of_share());
            }
            let Sure { documents, sums, apart, reached } = until.measure()?;
            if !reached {
                let mixed = layers.iter().any(|&layer| model.decoder.config().mixture(layer).is_some());
                let still = match apart {
                    None if mixed && documents > UNIT => {
                        "have a layer none of whose experts saw as many tokens as its keys have dimensions: take more text".to_owned()
                    }
                    None => "have no two halves to compare: take more text".to_owned(),
                    Some(apart) if apart <= tolerance => {
                        format!("have fewer than {LEAST} tokens for each of {f} key dimensions: take more text")
                    }
                    Some(apart) => format!(
                        "have halves that differ by {}, more than {tolerance}: take more text, or a larger `tolerance`",
                        three_digits(apart)
                    ),
                };
                let all = if documents == 1 {
                    "the one document was".to_owned()
                } else {
                    format!("all {documents} documents were")
                };
                cx.warn(format!("{all} used, and {still}"));
            }
            let read = Read { documents, cut };
            return gather(cx, &mut corpus, model, (layers, base), digests, &read, |each| {
                sums.into_iter().try_for_each(|(layer, moment)| each(layer, &moment))
            });
        }
        let keys = params.layers.iter().map(|&layer| {
            let mut of = of(layer);
            let open = key(&of);
            of["parts"] = json!("complete");
            (layer, Keys { open, complete: key(&of) })
        });
        // A part that ends within a unit is none of a larger run.
        let part_key = |layer: usize, name: &Value| {
            let mut of = of(layer);
            of["part"] = name.clone();
            key(&of)
        };
        let apart = |part: usize, documents: usize| {
            let name = if documents.is_multiple_of(UNIT) { json!(part) } else { json!([part, documents]) };
            Apart { part, keys: params.layers.iter().map(|&layer| (layer, part_key(layer, &name))).collect() }
        };
        let bar = cx.progress("documents", if params.tokens.is_some() { None } else { Some(corpus.len() as u64) });
        let documents = corpus.len();
        let mut pass =
            Pass { cx, corpus: &mut corpus, model: &model, cut, enough, batch, bar: &bar, read: 0, tokens: 0 };
        let keys = keys.collect();
        if cx.share().is_some() {
            let complete = part_sums::complete_units(cx, &keys, whole, enough);
            for part in 0..part_sums::units(documents).parts() {
                let span = part_sums::documents(part, documents);
                let begin = pass.tokens;
                if begin >= enough {
                    break;
                }
                // How many documents a part has is known once its tokens are counted, if they are counted.
                let counted = params.tokens.map(|_| pass.count(span.end)).transpose()?;
                let (end, tokens) = counted.unwrap_or((span.end, begin));
                if cx.is_mine() {
                    let mut of = apart(part, end - span.start);
                    of.leave_out_kept(cx, end - span.start, &complete);
                    if !of.keys.is_empty() {
                        let mut begun = apart(part, 0);
                        begun.keys.retain(|layer, _| of.keys.contains_key(layer));
                        let mut sums = PartSums::alone(cx, &model.decoder, &begun, end / UNIT);
                        let (start, kept) = sums.begin();
                        (pass.read, pass.tokens) = (start * UNIT, begin + kept);
                        bar.keep((pass.read - span.start) as u64);
                        pass.over(&mut sums, end, end / UNIT)?;
                        if !(end - span.start).is_multiple_of(UNIT) {
                            sums.keep_alone(&of, end - span.start)?;
                        }
                    }
                }
                (pass.read, pass.tokens) = (end, tokens);
            }
            return Ok(cx.end_of_share());
        }
        let mut sums = PartSums::find(cx, &model.decoder, keys, whole, enough)?;
        let (start, begun) = sums.begin();
        (pass.read, pass.tokens) = ((start * UNIT).min(documents), begun);
        bar.keep(pass.read as u64);
        while pass.read < documents && pass.tokens < enough {
            let part = pass.read / (PART * UNIT);
            let span = part_sums::documents(part, documents);
            if span.start == pass.read {
                let key = |layer: usize, part: usize| part_key(layer, &json!(part));
                if let Some((start, tokens)) = sums.join_complete(documents / (PART * UNIT), &key, enough)? {
                    bar.keep((start * UNIT - pass.read) as u64);
                    (pass.read, pass.tokens) = (start * UNIT, tokens);
                    continue;
                }
                let mut known = span.len();
                let mut joined = sums.join_last(&apart(part, known), known, enough - pass.tokens)?;
                if joined.is_none() && params.tokens.is_some() && apart(part, 0).is_begun(cx) {
                    // The number of tokens is reached before the part's last document.
                    let before = (pass.read, pass.tokens);
                    known = pass.count(span.end)?.0 - span.start;
                    (pass.read, pass.tokens) = before;
                    joined = sums.join_last(&apart(part, known), known, enough - pass.tokens)?;
                }
                if let Some(tokens) = joined {
                    (pass.read, pass.tokens) = (pass.read + known, pass.tokens + tokens);
                    bar.keep(known as u64);
                    continue;
                }
            }
            pass.over(&mut sums, span.end, whole)?;
        }
        let (read, tokens) = (pass.read, pass.tokens);
        if params.tokens.is_some() && tokens < enough && params.samples.is_none_or(|samples| samples.get() > read) {
            cx.warn(format!("the corpus has {tokens} tokens, fewer than the {enough} requested: all of it was used"));
        }
        let read = Read { documents: read, cut };
        gather(cx, pass.corpus, &model, (&params.layers, base), digests, &read, |each| sums.finish(each))
    }
}

/// What was measured.
struct Read {
    documents: usize,
    cut: usize,
}

/// What each layer's sum is given to.
type Each<'a> = &'a mut dyn FnMut(usize, &SecondMoment) -> Result<(), Error>;

/// Puts the sums into the store and checks them by their own corpus.
fn gather(
    cx: &StageContext,
    corpus: &mut Corpus,
    model: &Loaded,
    (layers, base): (&[usize], String),
    digests: Vec<(String, Digest)>,
    read: &Read,
    sums: impl FnOnce(Each<'_>) -> Result<(), Error>,
) -> Result<Artifact, Error> {
    let config = model.decoder.config();
    let sample = Sample::of(cx, corpus, model, layers, (read.cut, read.documents))?;
    let mut made = Gathered::new(base);
    sums(&mut |layer, moment| {
        cx.check_interrupt()?;
        if let Some(experts) = config.mixture(layer) {
            say_short(cx, layer, experts, moment);
        }
        made.put(cx, layer, moment)?;
        made.halves(sample.halves(layer, moment)?);
        Ok(())
    })?;
    let tokens = made.facts().iter().map(|facts| facts.tokens).max().unwrap_or(0);
    // The experts of a mixture that saw too little are named one by one.
    let dense = layers.iter().filter(|&&layer| config.mixture(layer).is_none());
    let singular = dense.map(|&layer| config.key_size(layer) as u64).max().filter(|f| tokens < *f);
    if let Some(f) = singular {
        cx.warn(format!("{tokens} tokens cannot span {f} key dimensions: the second moment will be singular"));
    }
    // What cannot have an inverse was said above.
    if layers.iter().all(|&layer| tokens >= dimensions(config, layer) as u64) {
        let found = sample.judge(cx, layers, &made)?;
        made.held_out(found);
    }
    let said = made.facts().iter().filter_map(|facts| {
        let halves = facts.halves?;
        let update = halves.update.map(|update| format!(", of an update {update}")).unwrap_or_default();
        Some(format!("layer {} {}{update}", facts.layer, halves.moment))
    });
    let said: Vec<String> = said.collect();
    if !said.is_empty() {
        cx.say(format!("both halves of the text differ, relative to C: {}", said.join("; ")));
    }
    made.artifact(Some(read.documents as u64), digests.into_iter().map(|(_, digest)| digest).collect())
}

/// Names the experts that saw fewer tokens than their keys have dimensions.
fn say_short(cx: &StageContext, layer: usize, experts: &Experts, moment: &SecondMoment) {
    const NAMED: usize = 8;
    let parts = moment.part_counts().into_iter().zip(experts.parts()).enumerate();
    let short: Vec<String> = parts
        .filter(|(_, (tokens, range))| *tokens < range.len() as u64)
        .map(|(part, (tokens, range))| format!("{} ({tokens} of {})", experts.id(part).words(), range.len()))
        .collect();
    if short.is_empty() {
        return;
    }
    let more = short.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    cx.warn(format!(
        "layer {layer}: some experts saw fewer tokens than their keys have dimensions: {}{more}; an edit whose keys are routed to one of them \
         fails without a ridge (`update_norm_lambda`)",
        short[..short.len().min(NAMED)].join(", ")
    ));
}

/// A pass over the documents of a corpus, and how far it is.
struct Pass<'a> {
    cx: &'a StageContext,
    corpus: &'a mut Corpus,
    model: &'a Loaded,
    cut: usize,
    /// Tokens that end the pass.
    enough: u64,
    batch: usize,
    bar: &'a Progress,
    /// Documents that are read.
    read: usize,
    /// Their tokens.
    tokens: u64,
}

impl Pass<'_> {
    /// Adds the documents up to this one to sums, of which `whole` units are the same in a larger run.
    fn over(&mut self, sums: &mut PartSums<'_>, end: usize, whole: usize) -> Result<(), Error> {
        let Self { cx, model, cut, enough, batch, bar, .. } = *self;
        let mut saved = Saved::now();
        let mut ahead = (self.read < end && self.tokens < enough)
            .then(|| unit(self.corpus, model, cut, self.read, end, enough - self.tokens))
            .transpose()?;
        while let Some((documents, counted)) = ahead {
            // Layers join where their sums left off; the forward pass is one for all that have.
            sums.join(self.read / UNIT)?;
            let odd = !(self.read / UNIT).is_multiple_of(2);
            self.read += documents.len();
            self.tokens += counted;
            let (read, left) = (self.read, enough - self.tokens.min(enough));
            // The next documents are read and tokenized while the model is at these.
            let (added, next) = thread::scope(|scope| {
                let more = read < end && left > 0;
                let corpus = &mut *self.corpus;
                let reader = if more {
                    thread::Builder::new()
                        .spawn_scoped(scope, move || unit(corpus, model, cut, read, end, left))
                        .map(Some)
                } else {
                    Ok(None)
                };
                let added = sums.open.add_unit(&model.decoder, &documents, batch, odd);
                let next = match reader {
                    Ok(reader) => {
                        reader.map(|reader| reader.join().unwrap_or_else(|panic| resume_unwind(panic))).transpose()
                    }
                    Err(error) => Err(Error::new(ErrorKind::Limit, format!("cannot start a thread: {error}"))),
                };
                (added, next)
            });
            added.map_err(StageFailure::stage)?;
            bar.note(format!("{} tokens", self.tokens));
            bar.inc(documents.len() as u64);
            let interrupted = cx.check_interrupt();
            let last = read >= whole * UNIT || left == 0;
            let done = read / UNIT;
            let ends_part = part_sums::ends_part(done);
            // Only whole units are the same in a larger run.
            if documents.len() == UNIT && (ends_part || last || interrupted.is_err() || saved.long_ago()) {
                saved = Saved::after(|| sums.keep(done))?;
            }
            interrupted?;
            ahead = next?;
        }
        Ok(())
    }

    /// Reads on to this document, or to the one that reaches the number of tokens, and measures nothing: that document, and the tokens up to
    /// it.
    fn count(&mut self, end: usize) -> Result<(usize, u64), Error> {
        while self.read < end && self.tokens < self.enough {
            self.cx.check_interrupt()?;
            let left = self.enough - self.tokens;
            let (documents, counted) = unit(self.corpus, self.model, self.cut, self.read, end, left)?;
            self.read += documents.len();
            self.tokens += counted;
        }
        Ok((self.read, self.tokens))
    }
}
