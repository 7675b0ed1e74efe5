//! What can go wrong between a model and the mathematics.

use std::path::PathBuf;

use palinode_math::MathError;
use palinode_model::{DecoderConfig, ModelError, OutOfMemory};

/// A failure while measuring or editing a model.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The model or its tokenizer.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The mathematics of one layer.
    #[error("layer {layer}: {source}")]
    Math {
        /// The layer.
        layer: usize,
        /// What failed.
        source: MathError,
    },
    /// Edits that share a key demand different values.
    #[error("layer {layer}: requests {first} and {second} share a key (cosine {cosine:.6}) but have different targets")]
    Collision {
        /// The layer.
        layer: usize,
        /// One request's name.
        first: String,
        /// The other's.
        second: String,
        /// Cosine of their keys in the metric `P⁻¹`.
        cosine: f64,
        /// What to do.
        hint: Option<String>,
    },
    /// A request that cannot be used with this tokenizer.
    #[error("request {id}: {message}")]
    Request {
        /// The request's name.
        id: String,
        /// What is wrong.
        message: String,
    },
    /// An optimisation left the finite numbers.
    #[error("request {id}: the loss is not finite after {steps} steps")]
    Diverged {
        /// The request's name.
        id: String,
        /// Steps made.
        steps: usize,
    },
    /// A file of second moments that is not one.
    #[error("{path}: {message}")]
    MomentFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A residual that cannot be brought to another layer's projection.
    #[error(
        "{family} has a norm behind every feed-forward: what is missing at layer {aim} cannot be brought to the projection of layer {layer}"
    )]
    BehindNorm {
        /// The family's name.
        family: String,
        /// The layer that should take it.
        layer: usize,
        /// The layer where it was measured.
        aim: usize,
    },
    /// An expert that the corpus did not show enough of.
    #[error(
        "layer {layer}: a key is routed to {expert}, which saw {tokens} tokens of the corpus: they do not span the {size} dimensions of its keys"
    )]
    Expert {
        /// The layer.
        layer: usize,
        /// The expert, in words.
        expert: String,
        /// Tokens that were routed to it.
        tokens: u64,
        /// The size of its keys.
        size: usize,
        /// What to do.
        hint: Option<String>,
    },
    /// A layer that this way of editing does not take.
    #[error("{what} takes layers with one feed-forward, and layer {layer} of {family} is a mixture of experts")]
    Experts {
        /// What was asked.
        what: &'static str,
        /// The family's name.
        family: &'static str,
        /// The layer.
        layer: usize,
    },
    /// Inputs that do not belong together.
    #[error("{0}")]
    Mismatch(String),
}

impl OutOfMemory for EditError {
    fn out_of_memory(&self) -> bool {
        matches!(self, Self::Model(error) if error.out_of_memory())
    }
}

impl EditError {
    /// Fails where a layer is a mixture of experts; `what` begins the message.
    pub(crate) fn unless_dense(config: &DecoderConfig, layer: usize, what: &'static str) -> Result<(), Self> {
        match config.mixture(layer) {
            Some(_) => Err(Self::Experts { what, family: config.family.name(), layer }),
            None => Ok(()),
        }
    }

    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Model(e) => e.hint(),
            Self::Math { source, .. } => source.hint(),
            Self::Collision { hint, .. } | Self::Expert { hint, .. } => hint.clone(),
            Self::Diverged { steps: 0, .. } => Some(
                "before the first step nothing was changed: `kl_factor` or `weight_decay` is too large a number, or the model itself predicts \
                 nothing finite"
                    .into(),
            ),
            Self::Diverged { .. } => Some("lower the learning rate or the clamp of the targets stage".into()),
            Self::BehindNorm { .. } => Some(
                "edit a single layer (`strategy: single`), or take a strategy whose layers have targets of their own (`boundary`, `forward`)"
                    .into(),
            ),
            Self::Experts { .. } | Self::Request { .. } | Self::MomentFile { .. } | Self::Mismatch(_) => None,
        }
    }
}
