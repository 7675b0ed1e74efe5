//! `perplexity`: what an edit did to everything else that a model says.

use std::path::Path;

use palinode_data::{Corpus, Split};
use palinode_engine::bounds::Count;
use palinode_engine::shown::{Better, Format};
use palinode_engine::{
    Artifact, DescribeCx, Error, ExternalFile, FieldError, Port, PortOf, StageContext, StageKind, artifact,
};
use palinode_eval::{Surprise, perplexity, surprise};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::artifacts::measurements::{PerplexityFacts, PerplexityKind};
use crate::artifacts::model::Loaded;
use crate::artifacts::update::AnyModel;
use crate::edit::batch_limits::BatchTokens;
use crate::errors::StageFailure;
use crate::judge::measured::{Measured, Metric, versions};
use crate::judge::versions::{Version, Versions};
use crate::sources::corpus::{CorpusFormat, CorpusPath, SampleSeed, TextField, corpus, files};
use crate::units::Units;

/// Pieces of text in a unit.
const UNIT: usize = 64;

/// Parameters of `perplexity`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PerplexityParams {
    corpus: CorpusPath,
    #[serde(default)]
    format: CorpusFormat,
    #[serde(default)]
    documents: Split,
    #[serde(default)]
    field: TextField,
    /// Number of documents to skip. With the seed of `covariance` and its number of samples, the remaining text was not
    /// used for the second moments.
    #[serde(default)]
    skip: usize,
    /// Maximum number of documents. The default is all remaining documents.
    #[serde(default)]
    samples: Option<Count>,
    #[serde(default)]
    seed: SampleSeed,
    /// Longer documents are cut into pieces of this many tokens, which are predicted separately. The default is the model's
    /// context length.
    #[serde(default)]
    length: Option<Count<2>>,
    /// After a `sequence`: also measure after every this many rounds.
    #[serde(default)]
    every: Option<Count>,
    /// Number of bootstrap samples for the 95 % interval; 0 for no interval.
    #[serde(default = "thousand")]
    resamples: usize,
    /// What the likelihood of a piece is shared among.
    #[serde(default)]
    per: Per,
    #[serde(default)]
    batch_tokens: BatchTokens,
}

/// What a piece's negative log-likelihood is divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Per {
    /// The number of its tokens, as in the published code of ROME and of papers since, although the first token is not predicted.
    #[default]
    Token,
    /// The number of predicted tokens, one fewer.
    Prediction,
}

fn thousand() -> usize {
    1000
}

/// The model.
const MODEL: PortOf<AnyModel> = PortOf::required("model", "The model, edited or not.");

/// See [`StageKind::DOC`].
pub struct Perplexity;

impl StageKind for Perplexity {
    type Params = PerplexityParams;
    const NAME: &'static str = "perplexity";
    const VERSION: u32 = 5;
    const SUMMARY: &'static str = "Measures how well a model predicts running text, before and after an edit.";
    const DOC: &'static str = "\
Perplexity is exp of the mean negative log-likelihood of a token given those before it. The first token of each piece is not \
predicted; `per` says whether it counts in the mean. It stays the same when an edit changes nothing else, and rises when an edit damages the model.

The unedited model is measured as well (`before_perplexity`), once for all cells of a matrix. For a model that was edited in \
several batches, each a separate edit, the result is the mean over the batches' models. After a `sequence`, `every: k` \
measures every k-th round too. The 95 % interval comes from a percentile bootstrap over documents.";
    type Output = PerplexityKind;

    fn carries() -> &'static [u32] {
        // Last digits differ; version 5 says how many pieces of text there are.
        &[2, 3, 4]
    }

    fn inputs() -> Vec<Port> {
        vec![MODEL.port()]
    }

    fn unkeyed() -> &'static [&'static str] {
        // What the files hold is in the key.
        &["corpus"]
    }

    fn last_digits() -> &'static [&'static str] {
        &["batch_tokens"]
    }

    fn resolved(params: &PerplexityParams, hardware: Option<&str>) -> Vec<(&'static str, Value)> {
        vec![("batch_tokens", params.batch_tokens.resolved(BatchTokens::TEXT, hardware))]
    }

    fn files(params: &PerplexityParams, base: &Path) -> Result<Vec<ExternalFile>, FieldError> {
        files("corpus", &params.corpus, params.format, None, base)
    }

    fn describe(params: &PerplexityParams, cx: &DescribeCx<'_>) -> Result<(), Vec<FieldError>> {
        let mut errors = Vec::new();
        let context = cx.input(MODEL).model.map_or(usize::MAX, |facts| facts.context);
        if let Some(length) = params.length.map(Count::get).filter(|&length| length > context) {
            let expected = format!("2 or more, at most the context of {context}");
            errors.push(FieldError::new("length", format!("`length` is {length}")).expected(expected));
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn run(params: &PerplexityParams, cx: &StageContext) -> Result<Artifact, Error> {
        let given = cx.input(MODEL)?;
        let all = Versions::open(cx, &given, None)?;
        all.tell_rounds(cx, params.every);
        let most = params.samples.map(|samples| samples.get().saturating_add(params.skip));
        let (mut corpus, _) = corpus(cx, params.documents, &params.field, params.seed, most)?;
        let Some(documents) = corpus.len().checked_sub(params.skip).filter(|left| *left > 0) else {
            let all = corpus.len();
            let documents = if all == 1 { "1 document".to_owned() } else { format!("{all} documents") };
            let message = format!("the corpus has {documents}, and `skip` leaves none");
            return Err(Error::input(message).hint("lower `skip`"));
        };
        let pieces = pieces(cx, &mut corpus, &all.model, params.skip, params.length.map(Count::get))?;
        let bar = cx.progress("pieces", Some(pieces.len() as u64 * versions(&all, params.every)));
        let batch = params.batch_tokens.or(BatchTokens::TEXT, &all.model.decoder);
        let digits = json!({ "batch_tokens": batch });
        let units = Units { cx, bar: &bar, size: UNIT, digits };
        let measured = Measured::of(&all, params.every, |version: &Version| {
            units.run(&json!(version.name), &pieces, |block| {
                let found = surprise(&version.decoder, block, batch).map_err(StageFailure::stage)?;
                if found.iter().any(|piece| !piece.nll.is_finite()) {
                    return Err(Error::numerical("the model's predictions are not numbers")
                        .hint("the edit broke the model: raise `lambda`, or edit fewer facts"));
                }
                bar.inc(block.len() as u64);
                Ok(found)
            })
        })?;
        let tokens: usize = measured.before.iter().map(|piece| piece.tokens).sum();
        if tokens == 0 {
            return Err(Error::input("no document of the corpus has two tokens: there is nothing to predict"));
        }
        let value = |pieces: &[&Surprise]| {
            let counted =
                |piece: &&Surprise| Surprise { tokens: piece.tokens + params.per.unpredicted(piece), ..**piece };
            Some(perplexity(&pieces.iter().map(counted).collect::<Vec<_>>())).filter(|p| p.is_finite())
        };
        let doc = "exp of the mean negative log-likelihood of a token";
        let metric = Metric { name: "perplexity", doc, format: Format::Number, better: Better::Min, value: &value };
        let shown = measured.shown(&[metric], params.resamples);
        artifact::<PerplexityKind>(&PerplexityFacts { documents, tokens, shown })
    }
}

impl Per {
    /// Tokens of a piece that count and were not predicted. A piece of one token says nothing.
    fn unpredicted(self, piece: &Surprise) -> usize {
        usize::from(self == Self::Token && piece.tokens > 0)
    }
}

/// The documents as token ids, cut where they are too long.
fn pieces(
    cx: &StageContext,
    corpus: &mut Corpus,
    model: &Loaded,
    skip: usize,
    length: Option<usize>,
) -> Result<Vec<Vec<u32>>, Error> {
    let length = length.unwrap_or(model.decoder.config().context);
    let mut pieces = Vec::new();
    for index in skip..corpus.len() {
        cx.check_interrupt()?;
        let document = corpus.read(index).map_err(StageFailure::stage)?;
        let tokens = model.text.encode(&document).map_err(StageFailure::stage)?;
        pieces.extend(tokens.chunks(length).map(<[u32]>::to_vec));
    }
    Ok(pieces)
}
