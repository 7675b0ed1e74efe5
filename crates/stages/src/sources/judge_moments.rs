//! Whether second moments from elsewhere are those of the model and the layer that they are loaded for.
//!
//! A file of second moments does not say what it was measured on, and nothing in an edit fails where it is another layer's, another model's of
//! the same width, or a sum in the place of the mean: the edit only becomes worse. What tells is the mean of `kᵀC⁻¹k/f` over keys of the
//! model at hand ([`Fit`]). Measured on published models, the right C gives 0.7 to 1 on text like its corpus and 2 to 10 on other text, another
//! layer's 4 to 5,300, and a sum in the place of the mean a millionth. Files that Palinode wrote name their model, their layer and the trace of
//! C, which are compared exactly, and need no text.

use std::fs::File;
use std::io::Read as _;

use palinode_edit::{Origin, text_keys};
use palinode_engine::{Error, StageContext};
use palinode_math::{Fit, SecondMoment};
use palinode_model::Layout;

use crate::artifacts::model::Loaded;
use crate::edit::batch_limits::BatchTokens;
use crate::errors::StageFailure;
use crate::sources::demo::CORPUS;

/// The logical name of the text.
pub const CHECK_TEXT: &str = "check_text";

/// Tokens that are looked at, and those of a line, which is a document of its own.
const TOKENS: usize = 512;
const PIECE: usize = 256;

/// Bytes of a text that are read: more than [`TOKENS`] tokens have.
const BYTES: u64 = 64 << 10;

/// `kᵀC⁻¹k/f` outside of which a second moment is refused, and above which it is doubtful.
const LEAST: f64 = 0.1;
const DOUBTFUL: f64 = 2.0;
const MOST: f64 = 30.0;

/// What half precision takes of a trace, and more.
const ROUNDING: f64 = 1e-3;

/// How a second moment may be taken in spite of everything.
pub const ACCEPT: &str = "load the file that belongs to this model and layer; `accept_moments: true` takes it as it is";

/// What is wrong with a layer's file by the layer that its name or its contents give.
pub fn other_layer(layer: usize, name: &str, origin: Option<&Origin>) -> Option<String> {
    match origin {
        Some(origin) if origin.layer == layer => None,
        Some(origin) => Some(format!("it is of layer {}, as it says itself, not of layer {layer}", origin.layer)),
        None => {
            let named = layer_of(name).filter(|named| *named != layer)?;
            Some(format!("by its name it is of layer {named}, not of layer {layer}"))
        }
    }
}

/// The layer that a published name gives, whatever family it is of.
fn layer_of(name: &str) -> Option<usize> {
    Layout::ALL.iter().find_map(|layout| {
        let module = layout.edited_module(0);
        let (before, after) = module.split_once('0')?;
        let rest = name.strip_prefix(before)?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = rest.split_at(digits);
        if rest.starts_with(after) { number.parse().ok() } else { None }
    })
}

/// Judges second moments by a text.
pub struct Judge<'a> {
    /// Where warnings go.
    pub cx: &'a StageContext,
    /// The model that they are loaded for.
    pub model: &'a Loaded,
    /// Its digest.
    pub base: &'a str,
    /// Whether what would be refused is taken with a warning.
    pub accept: bool,
}

impl Judge<'_> {
    /// Fails where a layer's second moment cannot be that of the model's keys.
    ///
    /// # Errors
    /// With the figure, unless everything is accepted; what reading the text or running the model failed at.
    pub fn check(
        &self,
        layer: usize,
        moment: SecondMoment,
        origin: Option<&Origin>,
        trace: Option<f64>,
    ) -> Result<(), Error> {
        if let Some(origin) = origin {
            if origin.model == self.base {
                let is = moment.trace();
                let as_written = |was: f64| (is / was - 1.0).abs() <= ROUNDING;
                return match trace.filter(|was| !as_written(*was)) {
                    Some(was) => self.refuse(format!(
                        "the second moment of layer {layer} was changed since it was measured: the trace of C is {is:.4e}, and was {was:.4e}"
                    )),
                    None => Ok(()),
                };
            }
            let short = |digest: &str| digest.chars().take(12).collect::<String>();
            return self.refuse(format!(
                "the second moment of layer {layer} was measured on another model: {}, not {}",
                short(&origin.model),
                short(self.base)
            ));
        }
        let text = self.text()?;
        let context = self.model.decoder.config().context;
        let (mut pieces, mut count) = (Vec::new(), 0);
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let mut ids = self.model.text.encode(line).map_err(StageFailure::stage)?;
            ids.truncate(PIECE.min(context).min(TOKENS - count));
            count += ids.len();
            pieces.push(ids);
            if count >= TOKENS {
                break;
            }
        }
        let keys = text_keys(&self.model.decoder, &pieces, &[layer], BatchTokens::TEXT).map_err(StageFailure::stage)?;
        let keys = keys.get(&layer).map(Vec::as_slice).unwrap_or_default();
        let on = if self.cx.files().contains_key(CHECK_TEXT) { "`check_text`" } else { "a text of Palinode's own" };
        match Fit::of(moment, keys).map_err(StageFailure::stage)? {
            Fit::Identity => {
                self.cx
                    .warn(format!("layer {layer}: the second moment is the identity, which was measured on no text"));
            }
            Fit::Singular => {
                self.cx.warn(format!(
                    "layer {layer}: the second moment is singular, so that nothing tells whether it is this layer's"
                ));
            }
            Fit::Ratio(ratio) => {
                let figure = format!("layer {layer}: the mean of kᵀC⁻¹k/f on {on} is {ratio:.3e}");
                if ratio < LEAST {
                    return self.refuse(format!(
                        "{figure}, far below 1: the file is of another scale, as a sum in the place of a mean would be"
                    ));
                }
                if ratio > MOST {
                    return self.refuse(format!(
                        "{figure}, far above 1: the file is of another layer, another model or another scale"
                    ));
                }
                if ratio > DOUBTFUL {
                    self.cx.warn(format!(
                        "{figure}; 0.7 to 2 is usual on text like the corpus, 2 to 10 on other text, more for another layer or model"
                    ));
                } else {
                    self.cx.say(figure);
                }
            }
        }
        Ok(())
    }

    fn refuse(&self, message: String) -> Result<(), Error> {
        if self.accept {
            self.cx.warn(message);
            return Ok(());
        }
        Err(Error::input(message).hint(ACCEPT))
    }

    fn text(&self) -> Result<String, Error> {
        let Some((_, path)) = self.cx.files().get(CHECK_TEXT) else {
            let end = CORPUS.floor_char_boundary(BYTES as usize);
            return Ok(CORPUS[..end].to_owned());
        };
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(BYTES).read_to_end(&mut bytes));
        read.map_err(|error| Error::input(format!("the text cannot be read: {error}")).at(path, None))?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if text.trim().is_empty() {
            return Err(Error::input("there is no text in it").at(path, None));
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_names_give_their_layer() {
        for (name, layer) in [
            ("transformer.h.13.mlp.c_proj_float32_mom2_100000.npz", Some(13)),
            ("transformer.h.3.mlp.fc_out_float32_mom2_100000.npz", Some(3)),
            ("model.layers.5.mlp.down_proj_float32_mom2_100.npz", Some(5)),
            ("gpt_neox.layers.0.mlp.dense_4h_to_h.npz", Some(0)),
            ("thirteen.npz", None),
            ("transformer.h.x.mlp.c_proj.npz", None),
        ] {
            assert_eq!(layer_of(name), layer, "{name}");
        }
        let origin = Origin { model: String::new(), layer: 2 };
        assert!(other_layer(2, "transformer.h.3.mlp.c_proj.npz", Some(&origin)).is_none());
        assert!(other_layer(3, "a.npz", Some(&origin)).is_some_and(|told| told.contains("layer 2")));
    }
}
