//! Corpora as parameters of stages: which files, which documents, how many tokens.

use std::path::Path;

use palinode_data::{Corpus, CorpusFile, Format, Reading, Sampling, Split, corpus_files};
use palinode_engine::bounds::{Count, out_of_range};
use palinode_engine::{Digest, Error, ExternalFile, FieldError, StageContext};
use palinode_hub::Shards;
use palinode_model::{ModelError, Text};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::errors::{StageFailure, in_field};
use crate::sources::hub;

/// Bytes of a document that are enough for any context: longer ones are cut before they are tokenized.
const LONG: usize = 1 << 20;

/// The text: a file, a folder, a pattern (`wiki/*.parquet`), or files of the Hugging Face Hub
/// (`hf:datasets/owner/name@revision/pattern`). Names are no part of the key: contents are.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct CorpusPath(pub String);

/// The field of a JSON object, or the column of a table, that holds the text.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct TextField(pub String);

impl Default for TextField {
    fn default() -> Self {
        Self("text".to_owned())
    }
}

/// Seed of the order of the documents.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SampleSeed(pub u64);

impl Default for SampleSeed {
    fn default() -> Self {
        Self(1)
    }
}

/// The format of the files. The default follows from their extensions (.txt, .jsonl, .parquet, each also .gz or .zst).
#[derive(Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct CorpusFormat(pub Option<Format>);

/// Which files of a corpus of several (its shards) documents are drawn from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CorpusSampling {
    /// All files: as the published second moments were measured. All are downloaded and read once, 12 GB or so for the English Wikipedia.
    #[default]
    Published,
    /// A few files, `shards` of them, which the seed chooses. Only these are downloaded and read.
    Shards,
}

impl CorpusSampling {
    /// Files that are read where nothing says how many: not one alone, since files are often sorted by age or subject.
    const FEW: usize = 2;

    /// Whether it says nothing, as every pipeline did that was written before it.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub fn is_published(&self) -> bool {
        *self == Self::Published
    }

    /// How many files and by what seed; `None` for all.
    pub fn shards(self, count: Option<Count>, seed: SampleSeed) -> Option<Shards> {
        (self == Self::Shards).then(|| Shards { count: count.map_or(Self::FEW, Count::get), seed: seed.0 })
    }

    /// Finds a number of files that nothing would use.
    pub fn check(self, count: Option<Count>) -> Option<FieldError> {
        let idle = self == Self::Published && count.is_some();
        idle.then(|| FieldError::new("shards", "`shards` says nothing without `sampling: shards`"))
    }
}

/// A number of tokens: as it is, or as a multiple of the key dimension f.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TokenCount {
    /// So many.
    Plain(u64),
    /// So many for each of a key's f dimensions.
    PerDimension(f64),
    /// As many as are enough.
    Auto,
}

impl TokenCount {
    /// The count for keys of `f` dimensions; no bound where it is not known before.
    pub fn of(self, f: usize) -> u64 {
        match self {
            Self::Plain(tokens) => tokens,
            Self::PerDimension(times) => (times * f as f64).ceil() as u64,
            Self::Auto => u64::MAX,
        }
    }
}

impl Serialize for TokenCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain(tokens) => serializer.serialize_u64(*tokens),
            Self::PerDimension(times) => serializer.collect_str(&format_args!("{times}f")),
            Self::Auto => serializer.serialize_str(AUTO),
        }
    }
}

impl<'de> Deserialize<'de> for TokenCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TokenReader)
    }
}

/// Reads a [`TokenCount`].
struct TokenReader;

/// How many tokens there can be.
const TOKENS: &str = "1 or more, a multiple of f such as 10f, or auto";

/// As many tokens as are enough.
const AUTO: &str = "auto";

impl Visitor<'_> for TokenReader {
    type Value = TokenCount;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a number of tokens, a multiple of f such as 10f, or auto")
    }

    fn visit_u64<E: de::Error>(self, tokens: u64) -> Result<TokenCount, E> {
        if tokens == 0 { Err(out_of_range(0, TOKENS)) } else { Ok(TokenCount::Plain(tokens)) }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<TokenCount, E> {
        if text == AUTO {
            return Ok(TokenCount::Auto);
        }
        let times = text.strip_suffix('f').and_then(|times| times.trim().parse::<f64>().ok());
        match times.filter(|times| times.is_finite() && *times >= 0.0) {
            Some(0.0) => Err(out_of_range(text, TOKENS)),
            Some(times) => Ok(TokenCount::PerDimension(times)),
            None => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }
}

impl JsonSchema for TokenCount {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TokenCount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "integer", "minimum": 1 },
                { "type": "string", "pattern": "^([0-9.]+ *f|auto)$" },
            ]
        })
    }
}

/// The files of a corpus given in parameter `field`, or so many of them. A file's logical name has its place in the list and its format, which is
/// all of its name that can change what is read.
pub fn files(
    field: &str,
    corpus: &CorpusPath,
    format: CorpusFormat,
    shards: Option<Shards>,
    base: &Path,
) -> Result<Vec<ExternalFile>, FieldError> {
    let format = format.0;
    let found = match hub::data(field, &corpus.0, shards)? {
        Some(paths) => paths
            .into_iter()
            .map(|path| corpus_files(&path, format))
            .collect::<Result<Vec<_>, _>>()
            .map(|files| files.concat()),
        // A plain name is left to the engine, which tells where it looked.
        None => match base.join(&corpus.0) {
            path if path.exists() || palinode_data::is_pattern(&path) => {
                corpus_files(&path, format).map(|files| match shards {
                    Some(shards) => shards.choose(files.len()).into_iter().map(|place| files[place].clone()).collect(),
                    None => files,
                })
            }
            path => {
                let format = format.or_else(|| Format::of(&path)).unwrap_or(Format::Text);
                Ok(vec![CorpusFile { path: corpus.0.clone().into(), format }])
            }
        },
    };
    let found = found.map_err(|error| in_field(field, error))?;
    let alone = found.len() == 1;
    let name = |number: usize, format| match (alone, ending(format)) {
        (true, ending) => format!("corpus{ending}"),
        (false, ending) => format!("corpus/{number:05}{ending}"),
    };
    let files = found.into_iter().enumerate();
    Ok(files.map(|(number, file)| ExternalFile::new(name(number, file.format), file.path, field)).collect())
}

fn ending(format: Format) -> &'static str {
    match format {
        Format::Text => "",
        Format::Jsonl => ".jsonl",
        Format::Parquet => ".parquet",
    }
}

/// A sample of the corpus among a stage's files, and the files' names and digests, which with the parameters are all that
/// decides what documents there are.
pub fn corpus(
    cx: &StageContext,
    split: Split,
    field: &TextField,
    seed: SampleSeed,
    most: Option<usize>,
) -> Result<(Corpus, Vec<(String, Digest)>), Error> {
    let (mut files, mut digests) = (Vec::new(), Vec::new());
    for (name, (file, path)) in cx.files().iter().filter(|(name, _)| name.starts_with("corpus")) {
        let format = [Format::Jsonl, Format::Parquet].into_iter().find(|format| name.ends_with(ending(*format)));
        files.push(CorpusFile { path: path.clone(), format: format.unwrap_or(Format::Text) });
        digests.push((name.clone(), file.digest));
    }
    let reading = Reading { split, field: field.0.clone() };
    let bar = cx.progress("documents found", None);
    let mut before = 0;
    let opened = Corpus::open(files, reading, Sampling { seed: seed.0, most }, &mut |found| {
        bar.inc(found - before);
        before = found;
        cx.check_interrupt().is_ok()
    });
    cx.check_interrupt()?;
    Ok((opened.map_err(StageFailure::stage)?, digests))
}

/// The first `context` tokens of a document. Of a document of more than a MiB only as much is tokenized as they take.
pub fn encode(text: &Text, document: &str, context: usize) -> Result<Vec<u32>, ModelError> {
    let mut long = LONG.max(16 * context);
    loop {
        let part = &document[..document.floor_char_boundary(long)];
        let mut tokens = text.encode(part)?;
        if part.len() == document.len() || tokens.len() > context {
            tokens.truncate(context);
            return Ok(tokens);
        }
        long *= 8;
    }
}
