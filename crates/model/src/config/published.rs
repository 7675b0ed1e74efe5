//! With what settings each family was edited in the published runs: data of the family, for models that nobody has tuned yet.

use crate::Family;

/// Published runs: of a single-layer edit, and what a batch of MEMIT takes otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PublishedEdit {
    /// The layer.
    pub layer: usize,
    /// Number of layers of the model that was edited.
    pub layers: usize,
    /// Evaluations of the targets' loss.
    pub steps: usize,
    /// Weight decay of the targets.
    pub weight_decay: f64,
    /// Clamp on ‖δ‖/‖h₀‖ where many facts are edited in one batch.
    pub batch_clamp: f64,
    /// λ of MEMIT's published run.
    pub lambda: f64,
    /// Key dimension f of the model that was edited.
    pub key_size: usize,
}

/// GPT-2 XL.
const GPT2_XL: PublishedEdit = PublishedEdit {
    layer: 17,
    layers: 48,
    steps: 20,
    weight_decay: 0.5,
    batch_clamp: 0.75,
    lambda: 20000.0,
    key_size: 6400,
};
/// GPT-J 6B.
const GPT_J: PublishedEdit = PublishedEdit {
    layer: 5,
    layers: 28,
    steps: 25,
    weight_decay: 0.5,
    batch_clamp: 0.75,
    lambda: 15000.0,
    key_size: 16384,
};
/// Llama 2 7B.
const LLAMA_2: PublishedEdit = PublishedEdit {
    layer: 5,
    layers: 32,
    steps: 25,
    weight_decay: 1e-3,
    batch_clamp: 4.0,
    lambda: 15000.0,
    key_size: 11008,
};

impl Family {
    /// The published run of this family, or of the one that it is most like.
    pub fn published_edit(self) -> PublishedEdit {
        match self {
            // Nobody has published a run of the others. Those with learned positions are most like GPT-2, those without a gate most like
            // GPT-J; all others are of Llama's depth or deeper, and trained as it was.
            Self::Gpt2 | Self::GptNeo | Self::Opt => GPT2_XL,
            Self::GptJ | Self::Phi | Self::Bloom | Self::Falcon | Self::Mpt | Self::Starcoder2 => GPT_J,
            Self::GptNeoX
            | Self::Llama
            | Self::Mistral
            | Self::Qwen2
            | Self::Qwen3
            | Self::Gemma
            | Self::Gemma2
            | Self::Gemma3
            | Self::Phi3
            | Self::Olmo
            | Self::Olmo2
            | Self::SmolLm3
            | Self::Granite
            | Self::Cohere
            | Self::Glm4
            | Self::Exaone4
            | Self::Ministral
            | Self::Ministral3
            | Self::StableLm
            | Self::Mixtral
            | Self::Qwen2Moe
            | Self::Qwen3Moe
            | Self::Olmoe => LLAMA_2,
        }
    }
}

impl Family {
    /// Whether a model of this very family was edited.
    pub fn has_published_edit(self) -> bool {
        matches!(self, Self::Gpt2 | Self::GptJ | Self::Llama)
    }
}

impl PublishedEdit {
    /// The layer in a model of so many layers: at the same part of its depth.
    pub fn layer_of(self, layers: usize) -> usize {
        let layer = (layers * self.layer + self.layers / 2) / self.layers;
        layer.min(layers.saturating_sub(1))
    }

    /// λ for keys of `f` dimensions, to two digits. An edit's kᵀC⁻¹k grows with f, its mean over the corpus being f, and λ is what it is
    /// weighed against: the published λ would leave small models nearly unedited.
    pub fn lambda_of(self, f: usize) -> f64 {
        let lambda = self.lambda * f as f64 / self.key_size as f64;
        let digit = 10f64.powf(lambda.max(1.0).log10().floor() - 1.0);
        (lambda / digit).round() * digit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_taken_in_proportion() {
        let at = |family: Family, layers| family.published_edit().layer_of(layers);
        assert_eq!((at(Family::Gpt2, 48), at(Family::Gpt2, 12), at(Family::Gpt2, 1)), (17, 4, 0));
        let lambda = |family: Family, f| family.published_edit().lambda_of(f);
        assert_eq!(
            (lambda(Family::Gpt2, 6400), lambda(Family::Gpt2, 768), lambda(Family::Llama, 1536)),
            (20000.0, 2400.0, 2100.0)
        );
        assert_eq!((at(Family::GptJ, 28), at(Family::Llama, 32), at(Family::Qwen3, 36)), (5, 5, 6));
    }
}
