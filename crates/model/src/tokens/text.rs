//! The tokenizer and the beginning-of-sequence rules that editing depends on.
//!
//! An edit is written at one token, and a score is read at others: to be off by one is to edit or to score something else, and nothing
//! fails. Three rules keep prompt and target apart. A prompt is tokenized as a text of its own, with what the tokenizer puts before every
//! text. A target is tokenized as a continuation: behind a word that is then taken away, because a SentencePiece tokenizer puts a space
//! before whatever stands first, and a target that stands first would get a space too many. And the two are joined as tokens, never as
//! text, since a merge across the border (`Par` + `is`) would move it. The subject's last token is found by tokenizing the text up to the
//! subject's end, as the reference implementations do.

use std::panic::catch_unwind;
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::{Encoding, Tokenizer};

use crate::ModelError;
use crate::checkpoint::files::{DESCRIPTION, TOKENIZER, read_text};
use crate::checkpoint::gguf::read::Gguf;
use crate::checkpoint::gguf::tokenizer::tokenizer_json;
use crate::tokens::chat::Frame;
use crate::tokens::facts::TokenizerFacts;
use crate::tokens::growth::{self, Rules};

/// A word that stands before a continuation while it is tokenized. Tokenizers in SentencePiece's manner put a space before
/// a text's first word by themselves; after another word they do not.
const ANCHOR: &str = "a";

/// What stands before a continuation that begins without a space: a word would grow together with it.
const BREAK: &str = "\n";
/// The chat template among the settings.
const TEMPLATE: &str = "chat_template";

/// Text to tokens and back, as Hugging Face's fast tokenizers do it.
#[derive(Clone)]
pub struct Text {
    tokenizer: Tokenizer,
    /// Tokens put before every text.
    prefix: Vec<u32>,
    /// The end-of-text token, where one of the usual names is in the vocabulary.
    end: Option<u32>,
    /// Rows of the model's embedding, where they are known.
    limit: Option<usize>,
    /// What tokenizer_config.json says of special tokens and chat templates.
    settings: Map<String, Value>,
    /// What stands around every prompt.
    frame: Option<Frame>,
}

impl Text {
    /// What to do where `tokenizer.json` is missing.
    pub const MISSING: &str =
        "transformers writes it: AutoTokenizer.from_pretrained(…, use_fast=True).save_pretrained(…)";

    /// Reads `tokenizer.json`, or the vocabulary of a GGUF file with its settings.
    ///
    /// # Errors
    /// [`ModelError::Io`]; [`ModelError::Tokenizer`] for a damaged file; for a GGUF file also [`ModelError::Gguf`] and
    /// [`ModelError::Config`].
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if Gguf::is(path) {
            let (tokenizer, settings) = tokenizer_json(&Gguf::open(path)?)?;
            return Self::from_json(&tokenizer, path)?.with_settings_json(&settings, path);
        }
        Self::from_json(&read_text(path, TOKENIZER)?, path)
    }

    /// From the text of a `tokenizer.json`; `path` is for messages only.
    fn from_json(text: &str, path: &Path) -> Result<Self, ModelError> {
        let bad = |message: String| ModelError::Tokenizer { path: path.into(), message };
        // The library takes valid JSON for granted, and that its parts fit together: it panics where they do not.
        let rules: Rules = serde_json::from_str(text).map_err(|e| bad(format!("not valid JSON: {e}")))?;
        growth::check(&rules).map_err(bad)?;
        let (tokenizer, whole) = catch_unwind(|| read(text))
            .unwrap_or_else(|_| Err("its parts do not fit together".into()))
            .map_err(|e| bad(e.to_string()))?;
        // Before the text only: an end token after a prompt would stand between it and what continues it.
        let added = whole.get_special_tokens_mask().iter().take_while(|special| **special == 1).count();
        let prefix = whole.get_ids()[..added.min(whole.len())].to_vec();
        let end = ["<|endoftext|>", "</s>", "<|end_of_text|>"].iter().find_map(|t| tokenizer.token_to_id(t));
        Ok(Self { tokenizer, prefix, end, limit: None, settings: Map::new(), frame: None })
    }

    /// With what `tokenizer_config.json` says: `eos_token` ends a generated text, and `add_bos_token` decides whether texts
    /// begin with `bos_token`.
    ///
    /// The latter only for Llama's own tokenizer class: for every other one, transformers goes by the post-processor in
    /// `tokenizer.json` whatever stands here, and so does this.
    ///
    /// # Errors
    /// [`ModelError::Io`]; [`ModelError::Tokenizer`] for a file that is not JSON, or a token that is not in the vocabulary.
    pub fn with_settings(self, path: &Path) -> Result<Self, ModelError> {
        self.with_settings_json(&read_text(path, DESCRIPTION)?, path)
    }

    fn with_settings_json(mut self, text: &str, path: &Path) -> Result<Self, ModelError> {
        let bad = |message: String| ModelError::Tokenizer { path: path.into(), message };
        let value: Value = serde_json::from_str(text).map_err(|e| bad(format!("not valid JSON: {e}")))?;
        // A token is a text, or an object that describes one.
        let token = |name: &str| {
            let value = &value[name];
            value.as_str().or_else(|| value["content"].as_str())
        };
        let id = |text: &str| self.tokenizer.token_to_id(text);
        let class = value["tokenizer_class"].as_str().unwrap_or_default();
        let asked =
            value["add_bos_token"].as_bool().filter(|_| ["LlamaTokenizer", "LlamaTokenizerFast"].contains(&class));
        match (asked, token("bos_token")) {
            (Some(true), Some(bos)) => {
                let shown: String = bos.chars().take(60).collect();
                let unknown = || bad(format!("the bos_token {shown:?} is not in the vocabulary"));
                self.prefix = vec![id(bos).ok_or_else(unknown)?];
            }
            // Without a token there is nothing to add.
            (Some(_), _) => self.prefix = Vec::new(),
            (None, _) => {}
        }
        if let Some(end) = token("eos_token").and_then(|text| self.tokenizer.token_to_id(text)) {
            self.end = Some(end);
        }
        let named = ["bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token"];
        self.settings = named.iter().filter_map(|name| Some(((*name).to_owned(), token(name)?.into()))).collect();
        if let Some(template) = value.get("chat_template").filter(|template| !template.is_null()) {
            self.settings.insert(TEMPLATE.into(), template.clone());
        }
        Ok(self)
    }

    /// With the chat template in a file of its own, as newer versions of transformers keep it.
    ///
    /// # Errors
    /// [`ModelError::Io`]; [`ModelError::Config`] for a file that is not text.
    pub fn with_template(mut self, path: &Path) -> Result<Self, ModelError> {
        self.settings.insert(TEMPLATE.into(), read_text(path, DESCRIPTION)?.into());
        Ok(self)
    }

    /// In which every prompt is a user's message: what the chat template puts around it stands around every prompt, and a continuation is
    /// the beginning of the model's answer. The template alone decides how texts begin, as transformers has it, so that no beginning token
    /// comes twice.
    ///
    /// # Errors
    /// [`ModelError::Chat`] for a model without template, and for what the template refuses.
    pub fn in_chat(&self, system: Option<&str>) -> Result<Self, ModelError> {
        let bad = |message: String| ModelError::Chat { message };
        let template = match self.settings.get(TEMPLATE) {
            Some(Value::String(text)) => text.as_str(),
            // Several by name.
            Some(Value::Array(named)) => {
                let default = named.iter().find(|template| template["name"] == "default");
                default
                    .and_then(|template| template["template"].as_str())
                    .ok_or_else(|| bad("its chat templates have none with the name \"default\"".into()))?
            }
            _ => return Err(bad("the model has no chat template".into())),
        };
        let frame =
            Frame::of(template, &self.settings, system).map_err(|said| bad(format!("the chat template: {said}")))?;
        Ok(Self { frame: Some(frame), prefix: Vec::new(), ..self.clone() })
    }

    /// For a model whose embedding has `vocabulary` rows: a text with a token beyond them is refused.
    #[must_use]
    pub fn within(mut self, vocabulary: usize) -> Self {
        self.limit = Some(vocabulary);
        self
    }

    /// Tokens of a text, beginning-of-sequence included where the tokenizer adds it.
    ///
    /// # Errors
    /// [`ModelError::Tokenize`], also for a token that the model has no embedding for.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        self.encode_continued(text, "")
    }

    /// Tokens of a text that goes on with `ending`: in a chat, the beginning of the answer.
    ///
    /// # Errors
    /// As [`Text::encode`].
    pub fn encode_continued(&self, text: &str, ending: &str) -> Result<Vec<u32>, ModelError> {
        let mut ids = self.known(&self.prefix, text)?.to_vec();
        ids.extend(match &self.frame {
            None if ending.is_empty() => self.plain(text)?,
            None => self.plain(&format!("{text}{ending}"))?,
            Some(frame) => self.plain(&format!("{}{text}{}{ending}", frame.before, frame.after))?,
        });
        Ok(ids)
    }

    /// Tokens of a continuation: as it would follow another word, with a leading space if it has none, and without what
    /// the tokenizer puts before every text: the published rule.
    ///
    /// # Errors
    /// [`ModelError::Tokenize`].
    ///
    /// In a chat, of an answer's beginning: without a leading space, behind the end of the message.
    pub fn encode_target(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        if let Some(frame) = &self.frame {
            let before = self.plain(&frame.after)?;
            let mut ids = self.plain(&format!("{}{}", frame.after, text.trim_start()))?;
            if ids.starts_with(&before) {
                ids.drain(..before.len());
                return Ok(ids);
            }
            return self.plain(text.trim_start());
        }
        let spaced = if text.starts_with(' ') { text.to_string() } else { format!(" {text}") };
        self.after(ANCHOR, &spaced)
    }

    /// Tokens of a continuation as it stands, with the space that it begins with or without one, and without what the tokenizer puts
    /// before every text.
    ///
    /// # Errors
    /// [`ModelError::Tokenize`].
    pub fn encode_continuation(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        if text.starts_with(' ') { self.encode_target(text) } else { self.after(BREAK, text) }
    }

    /// Tokens of a text as it follows another, or by itself where the two cannot be told apart.
    fn after(&self, before: &str, text: &str) -> Result<Vec<u32>, ModelError> {
        let anchor = self.plain(before)?;
        let mut ids = self.plain(&format!("{before}{text}"))?;
        if ids.starts_with(&anchor) {
            ids.drain(..anchor.len());
            return Ok(ids);
        }
        self.plain(text)
    }

    /// Text of a continuation's tokens, with the space that it begins with: the inverse of [`Text::encode_target`], also
    /// for some of its tokens.
    ///
    /// # Errors
    /// [`ModelError::Tokenize`].
    pub fn decode_target(&self, ids: &[u32]) -> Result<String, ModelError> {
        if self.frame.is_some() {
            return self.decode(ids);
        }
        let anchor = self.plain(ANCHOR)?;
        let before = self.decode(&anchor)?;
        let whole = self.decode(&[&anchor, ids].concat())?;
        match whole.strip_prefix(&before) {
            Some(text) => Ok(text.to_owned()),
            None => self.decode(ids),
        }
    }

    /// Tokens of any text that begins so, as far as it goes: in a chat without what stands behind the message.
    ///
    /// # Errors
    /// [`ModelError::Tokenize`].
    pub fn encode_opening(&self, opening: &str) -> Result<Vec<u32>, ModelError> {
        let mut ids = self.known(&self.prefix, opening)?.to_vec();
        ids.extend(self.plain(&self.framed(opening))?);
        Ok(ids)
    }

    /// Index of the last token of `before + subject` in any text that begins so: the *fact token*. The text after the
    /// subject is not looked at, as in the reference implementations.
    ///
    /// # Errors
    /// [`ModelError::Tokenize`].
    pub fn last_token(&self, before_and_subject: &str) -> Result<usize, ModelError> {
        Ok(self.encode_opening(before_and_subject)?.len().saturating_sub(1))
    }

    /// Index of the first token of what follows `before` in any text that begins so. The space before a word belongs to its first token,
    /// also where a chat puts it there.
    ///
    /// # Errors
    /// [`ModelError::Tokenize`].
    pub fn first_token(&self, before: &str) -> Result<usize, ModelError> {
        let opening = self.framed(before);
        Ok(self.prefix.len() + self.plain(opening.strip_suffix(' ').unwrap_or(&opening))?.len())
    }

    /// The beginning of a text, behind what a chat puts before it.
    fn framed(&self, opening: &str) -> String {
        let before = self.frame.as_ref().map_or("", |frame| frame.before.as_str());
        format!("{before}{opening}")
    }

    /// Text of tokens, special ones left out.
    ///
    /// # Errors
    /// [`ModelError::Tokenize`].
    pub fn decode(&self, ids: &[u32]) -> Result<String, ModelError> {
        self.tokenizer
            .decode(ids, true)
            .map_err(|e| ModelError::Tokenize { text: format!("{ids:?}"), message: e.to_string() })
    }

    /// Number of tokens put before every text (1 with a beginning-of-sequence token, else 0).
    pub fn prefix(&self) -> usize {
        self.prefix.len()
    }

    /// The end-of-text token.
    pub fn end(&self) -> Option<u32> {
        self.end
    }

    /// Entries of the vocabulary, added tokens included.
    pub fn vocabulary(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// What there is to tell of the tokenizer.
    pub fn facts(&self) -> TokenizerFacts {
        let name = |id: u32| self.tokenizer.id_to_token(id).unwrap_or_else(|| id.to_string());
        let model = match self.tokenizer.get_model() {
            tokenizers::ModelWrapper::BPE(_) => "BPE",
            tokenizers::ModelWrapper::Unigram(_) => "Unigram",
            tokenizers::ModelWrapper::WordPiece(_) => "WordPiece",
            tokenizers::ModelWrapper::WordLevel(_) => "WordLevel",
        };
        let bytes = serde_json::to_value(self.tokenizer.get_decoder()).is_ok_and(|d| mentions(&d, "ByteLevel"));
        TokenizerFacts {
            kind: format!("{} {model}", if bytes { "byte-level" } else { "SentencePiece-style" }),
            vocabulary: self.vocabulary(),
            prefix: self.prefix.iter().map(|&id| name(id)).collect(),
            end: self.end.map(name),
        }
    }

    /// Tokens of a text by itself.
    fn plain(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let failed = |message: String| ModelError::Tokenize { text: text.chars().take(80).collect(), message };
        let encoding = self.tokenizer.encode_fast(text, false).map_err(|e| failed(e.to_string()))?;
        self.known(encoding.get_ids(), text).map(<[u32]>::to_vec)
    }

    /// The tokens, if the model has embeddings for them all.
    fn known<'a>(&self, ids: &'a [u32], text: &str) -> Result<&'a [u32], ModelError> {
        match ids.iter().find(|&&id| self.limit.is_some_and(|limit| id as usize >= limit)) {
            Some(id) => Err(ModelError::Tokenize {
                text: text.chars().take(80).collect(),
                message: format!("token {id} is beyond the model's vocabulary"),
            }),
            None => Ok(ids),
        }
    }
}

/// A tokenizer, and what it makes of [`ANCHOR`] with all that it puts around a text.
fn read(text: &str) -> Result<(Tokenizer, Encoding), tokenizers::Error> {
    let mut tokenizer: Tokenizer = text.parse()?;
    // Padding and truncation belong to whoever forms a batch.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None)?;
    let whole = tokenizer.encode(ANCHOR, true)?;
    Ok((tokenizer, whole))
}

/// Whether a decoder is of a type, or has a step that is.
fn mentions(decoder: &Value, kind: &str) -> bool {
    decoder["type"] == kind
        || decoder["decoders"].as_array().is_some_and(|steps| steps.iter().any(|step| mentions(step, kind)))
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Text").field("vocabulary", &self.vocabulary()).field("prefix", &self.prefix).finish()
    }
}
