//! A file's vocabulary as a tokenizer.json, and what belongs into tokenizer_config.json.
//!
//! A byte-level vocabulary has merges, and the file *names* how a text is split before they apply; a wrong split gives other tokens for
//! digits or spaces, and nothing fails. So a name that is not known is refused. A SentencePiece vocabulary has scores in place of merges:
//! of two neighbours, the pair whose joined piece has the highest score is joined first, which as merges are all pairs of pieces that make
//! up a piece, by falling score.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::ModelError;
use crate::checkpoint::gguf::read::Gguf;

/// How a text is split before merges apply.
enum Split {
    /// GPT-2's own way, which the library has built in.
    Words,
    /// Every digit by itself, then GPT-2's way.
    Digits,
    /// By a pattern.
    Pattern(&'static str),
}

/// A way to split by the names that files have for it.
struct Pre {
    names: &'static [&'static str],
    split: Split,
    /// A whole word that is in the vocabulary is a token, whatever the merges.
    words_first: bool,
    /// Texts begin with a token of their own where the file does not say.
    begins: bool,
    /// Unicode's composed form.
    composed: bool,
}

const PLAIN: Pre = Pre { names: &[], split: Split::Words, words_first: false, begins: false, composed: false };

const PRE: [Pre; 5] = [
    Pre { names: &["gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling"], ..PLAIN },
    Pre {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        split: Split::Digits,
        ..PLAIN
    },
    Pre {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"],
        split: Split::Pattern(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        words_first: true,
        begins: true,
        ..PLAIN
    },
    Pre {
        names: &["qwen2", "deepseek-r1-qwen", "megrez"],
        split: Split::Pattern(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        composed: true,
        ..PLAIN
    },
    Pre {
        names: &["tekken"],
        split: Split::Pattern(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        words_first: true,
        begins: true,
        ..PLAIN
    },
];

/// Kinds of tokens.
const UNKNOWN: f64 = 2.0;
const CONTROL: f64 = 3.0;
const OWN: f64 = 4.0;

/// A vocabulary, as the file has it.
struct Vocabulary<'a> {
    file: &'a Gguf,
    tokens: Vec<&'a str>,
    ids: HashMap<&'a str, usize>,
}

/// The texts of tokenizer.json and tokenizer_config.json.
///
/// # Errors
/// [`ModelError::Config`] for a kind of vocabulary or a way to split that is not known, and for lists that do not belong together.
pub fn tokenizer_json(file: &Gguf) -> Result<(String, String), ModelError> {
    let tokens = file.texts("tokenizer.ggml.tokens")?.ok_or_else(|| file.wrong("no tokenizer.ggml.tokens"))?;
    let mut ids = HashMap::with_capacity(tokens.len());
    for (id, token) in tokens.iter().enumerate() {
        if ids.insert(*token, id).is_some() {
            return Err(file.wrong(format!("the vocabulary has token {:?} twice", shown(token))));
        }
    }
    let vocabulary = Vocabulary { file, tokens, ids };
    let (mut json, begins) = match file.text("tokenizer.ggml.model")? {
        Some("gpt2") => vocabulary.byte_level()?,
        Some("llama") => vocabulary.sentence_piece()?,
        other => {
            let found = other.map_or_else(|| "no kind".to_owned(), |kind| format!("the kind {:?}", shown(kind)));
            let expected = "supported: gpt2, which is byte-level BPE, and llama, which is SentencePiece BPE";
            return Err(file.wrong(format!("the vocabulary is of {found} ({expected})")));
        }
    };
    let begins = file.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(begins);
    let first = vocabulary.special("bos")?.filter(|_| begins);
    json.insert("added_tokens".into(), vocabulary.added()?);
    json.insert("post_processor".into(), first.map_or(Value::Null, |(id, token)| template(id, token)));
    let whole = json!({ "version": "1.0", "truncation": null, "padding": null });
    if let Value::Object(whole) = whole {
        json.extend(whole);
    }
    Ok((Value::Object(json).to_string(), vocabulary.settings(begins)?))
}

impl<'a> Vocabulary<'a> {
    fn byte_level(&self) -> Result<(Map<String, Value>, bool), ModelError> {
        let file = self.file;
        let named = match (file.text("tokenizer.ggml.pre")?, file.text("general.architecture")?) {
            (Some(name), _) => name,
            // Of a time when there was one.
            (None, Some("gpt2")) => "gpt-2",
            (None, _) => return Err(file.wrong("no tokenizer.ggml.pre: how texts are split is unknown")),
        };
        let Some(pre) = PRE.iter().find(|pre| pre.names.contains(&named)) else {
            let known: Vec<&str> = PRE.iter().flat_map(|pre| pre.names).copied().collect();
            let expected = known.join(", ");
            return Err(
                file.wrong(format!("the pre-tokenizer {:?} is not supported (supported: {expected})", shown(named)))
            );
        };
        let merges = file.texts("tokenizer.ggml.merges")?.ok_or_else(|| file.wrong("no tokenizer.ggml.merges"))?;
        // A part is never empty, so that one which begins with a space keeps it.
        let pair = |merge: &&'a str| {
            let at = merge.char_indices().skip(1).find(|(_, c)| *c == ' ').map(|(at, _)| at);
            let (left, right) = at.map(|at| (&merge[..at], &merge[at + 1..]))?;
            Some(json!([left, right]))
        };
        let merges: Option<Vec<Value>> = merges.iter().map(pair).collect();
        let merges = merges.ok_or_else(|| file.wrong("tokenizer.ggml.merges holds something that is not a pair"))?;
        let bytes = |regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex });
        let sequence =
            |first: Value, regex: bool| json!({ "type": "Sequence", "pretokenizers": [first, bytes(regex)] });
        let split = match pre.split {
            Split::Words => bytes(true),
            Split::Digits => sequence(json!({ "type": "Digits", "individual_digits": true }), true),
            Split::Pattern(pattern) => {
                let isolated = json!({
                    "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false,
                });
                sequence(isolated, false)
            }
        };
        let model = self.model(merges, &Value::Null, false, pre.words_first);
        let json = object(json!({
            "normalizer": if pre.composed { json!({ "type": "NFC" }) } else { Value::Null },
            "pre_tokenizer": split,
            "decoder": bytes(true),
            "model": model,
        }));
        Ok((json, pre.begins))
    }

    fn sentence_piece(&self) -> Result<(Map<String, Value>, bool), ModelError> {
        let file = self.file;
        let scores = file.numbers("tokenizer.ggml.scores")?.ok_or_else(|| file.wrong("no tokenizer.ggml.scores"))?;
        if scores.len() != self.tokens.len() {
            let found = format!("{} tokens have {} scores", self.tokens.len(), scores.len());
            return Err(file.wrong(found));
        }
        let kinds = self.kinds()?;
        let mut pairs: Vec<(f64, &str, &str)> = Vec::new();
        for (id, piece) in self.tokens.iter().enumerate() {
            // Tokens that no text can give are not joined from parts.
            if kinds.get(id).is_some_and(|kind| *kind != 1.0) {
                continue;
            }
            let cuts = piece.char_indices().skip(1).map(|(at, _)| piece.split_at(at));
            let mut of_piece: Vec<_> =
                cuts.filter_map(|(l, r)| Some((*self.ids.get(l)?, *self.ids.get(r)?, l, r))).collect();
            of_piece.sort_unstable();
            pairs.extend(of_piece.into_iter().map(|(_, _, l, r)| (scores[id], l, r)));
        }
        // By falling score; where two are alike, the longer parts first. The sort keeps the order of those that are alike in all.
        let length = |text: &str| text.chars().count();
        pairs.sort_by(|a, b| {
            b.0.total_cmp(&a.0).then_with(|| length(b.1).cmp(&length(a.1))).then_with(|| length(b.2).cmp(&length(a.2)))
        });
        let merges = pairs.into_iter().map(|(_, left, right)| json!([left, right])).collect();
        let unknown = self.special("unknown")?.map(|(_, token)| token);
        let prefix = file.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        let mut normal = vec![json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" })];
        let mut decoder = vec![
            json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
            json!({ "type": "ByteFallback" }),
            json!({ "type": "Fuse" }),
        ];
        if prefix {
            normal.insert(0, json!({ "type": "Prepend", "prepend": "▁" }));
            decoder.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
        }
        let json = object(json!({
            "normalizer": { "type": "Sequence", "normalizers": normal },
            "pre_tokenizer": null,
            "decoder": { "type": "Sequence", "decoders": decoder },
            "model": self.model(merges, &json!(unknown), true, false),
        }));
        Ok((json, true))
    }

    fn model(&self, merges: Vec<Value>, unknown: &Value, sentence_piece: bool, words_first: bool) -> Value {
        let vocabulary: Map<String, Value> =
            self.tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), id.into())).collect();
        json!({
            "type": "BPE",
            "dropout": null,
            "unk_token": unknown,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": sentence_piece,
            "byte_fallback": sentence_piece,
            "ignore_merges": words_first,
            "vocab": vocabulary,
            "merges": merges,
        })
    }

    fn kinds(&self) -> Result<Vec<f64>, ModelError> {
        let kinds = self.file.numbers("tokenizer.ggml.token_type")?.unwrap_or_default();
        if kinds.is_empty() || kinds.len() == self.tokens.len() {
            return Ok(kinds);
        }
        Err(self.file.wrong(format!("{} tokens have {} kinds", self.tokens.len(), kinds.len())))
    }

    /// Tokens that are found in a text as they are, before it is split.
    fn added(&self) -> Result<Value, ModelError> {
        let kinds = self.kinds()?;
        let whole = kinds.iter().enumerate().filter(|(_, kind)| [UNKNOWN, CONTROL, OWN].contains(kind));
        let added = whole.map(|(id, kind)| {
            json!({
                "id": id,
                "content": self.tokens[id],
                "single_word": false,
                "lstrip": false,
                "rstrip": false,
                "normalized": false,
                "special": *kind != OWN,
            })
        });
        Ok(added.collect())
    }

    /// A token with a part of its own: `bos`, `eos`, `unknown`, `padding`.
    fn special(&self, part: &str) -> Result<Option<(usize, &'a str)>, ModelError> {
        let key = format!("tokenizer.ggml.{part}_token_id");
        let Some(id) = self.file.whole(&key)? else { return Ok(None) };
        let token = usize::try_from(id).ok().and_then(|id| Some((id, *self.tokens.get(id)?)));
        token
            .map(Some)
            .ok_or_else(|| self.file.wrong(format!("{key} is {id}, and the vocabulary has {}", self.tokens.len())))
    }

    fn settings(&self, begins: bool) -> Result<String, ModelError> {
        let mut json = Map::new();
        json.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
        json.insert("clean_up_tokenization_spaces".into(), false.into());
        json.insert("add_bos_token".into(), begins.into());
        for (part, name) in
            [("bos", "bos_token"), ("eos", "eos_token"), ("unknown", "unk_token"), ("padding", "pad_token")]
        {
            if let Some((_, token)) = self.special(part)? {
                json.insert(name.into(), token.into());
            }
        }
        if let Some(template) = self.file.text("tokenizer.chat_template")? {
            json.insert("chat_template".into(), template.into());
        }
        Ok(format!("{:#}\n", Value::Object(json)))
    }
}

/// Puts a token before every text.
fn template(id: usize, token: &str) -> Value {
    let special = json!({ "SpecialToken": { "id": token, "type_id": 0 } });
    let text = |id: &str| json!({ "Sequence": { "id": id, "type_id": 0 } });
    json!({
        "type": "TemplateProcessing",
        "single": [special, text("A")],
        "pair": [special, text("A"), text("B")],
        "special_tokens": { token: { "id": token, "ids": [id], "tokens": [token] } },
    })
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}
