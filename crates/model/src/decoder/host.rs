//! Blocks on the CPU, by kernels of our own.
//!
//! On a GPU the tensor library computes a block, on padded rows. On the CPU `palinode-kernels` does, on packed ones: it reads weights
//! where the tensors have them, makes no copies between layouts, and gives each token the same bits whatever it is computed with. The
//! tensor library's way stays, for GPUs, for training, for weights held in fewer bits, and as what tests compare with.

use burn::nn::Linear;
use burn::tensor::Tensor;
use palinode_kernels as kernels;
use palinode_kernels::{Batch, Compute, Heads, Kept, Matrix, Packed, Pins, Projection, Threads};

use crate::batch::keys::Keys;
use crate::batch::rows::Activations;
use crate::decoder::block::{Block, BlockOutput, Kv, Norm};
use crate::decoder::rotation::alibi;
use crate::device::numbers::{Numbers, rows};
use crate::{Activation, Arrangement, DecoderConfig, HeadNorm, MlpModule, ModelError, NormKind};

/// A block's weights, where its tensors have them.
pub(crate) struct HostBlock {
    norm_1: Option<HostNorm>,
    norm_2: Option<HostNorm>,
    attention_norm: Option<HostNorm>,
    mlp_norm: Option<HostNorm>,
    query_norm: Option<HostNorm>,
    key_norm: Option<HostNorm>,
    qkv: HostLinear,
    attention_out: HostLinear,
    up: HostLinear,
    gate: Option<HostLinear>,
    down: HostLinear,
    /// Scores of the experts, and of the one that all tokens use.
    router: Option<(HostLinear, Option<HostLinear>)>,
}

/// A norm's weights.
pub(crate) struct HostNorm {
    weight: Numbers,
    bias: Option<Numbers>,
}

/// A projection's weights.
pub(crate) struct HostLinear {
    weight: Numbers,
    compute: Compute,
    packed: Option<Packed>,
    packed_back: Option<Packed>,
    bias: Option<Numbers>,
}

/// Some of the numbers that a part may have; none where it has them and they cannot be looked at.
#[expect(clippy::option_option, reason = "a part that is not there is no failure")]
fn all<T, N>(part: Option<&T>, of: impl Fn(&T) -> Option<N>) -> Option<Option<N>> {
    match part {
        None => Some(None),
        Some(part) => of(part).map(Some),
    }
}

impl HostNorm {
    pub fn of(norm: &Norm) -> Option<Self> {
        Some(Self {
            weight: Numbers::of(norm.weight.val())?,
            bias: all(norm.bias.as_ref(), |bias| Numbers::of(bias.val()))?,
        })
    }

    pub fn view(&self, config: &DecoderConfig) -> kernels::Norm<'_> {
        kernels::Norm {
            kind: match config.norm {
                NormKind::Layer => kernels::NormKind::Layer,
                NormKind::Rms => kernels::NormKind::Rms,
            },
            weight: self.weight.slice(),
            bias: self.bias.as_ref().map(Numbers::slice),
            epsilon: config.norm_epsilon,
        }
    }
}

impl HostLinear {
    pub fn of(linear: &Linear) -> Option<Self> {
        Some(Self {
            weight: Numbers::of_matrix(linear.weight.val())?,
            compute: Compute::F32,
            packed: None,
            packed_back: None,
            bias: all(linear.bias.as_ref(), |bias| Numbers::of(bias.val()))?,
        })
    }

    fn pack(&mut self) {
        self.packed = Some(self.matrix().packed());
    }

    fn pack_both_ways(&mut self) {
        self.pack();
        self.packed_back = Some(self.matrix().turned().packed());
    }

    pub fn view(&self) -> Projection<'_> {
        let bias = self.bias.as_ref().map(Numbers::slice);
        let (packed, packed_back) = (self.packed.as_ref(), self.packed_back.as_ref());
        Projection { weight: self.matrix(), packed, packed_back, bias }
    }

    fn matrix(&self) -> Matrix<'_> {
        matrix(&self.weight).computed_in(self.compute)
    }
}

/// Bytes of copies of a weight for both ways.
pub(crate) fn both_ways(weight: Matrix) -> u64 {
    let bytes = |inputs, outputs| Packed::bytes(inputs, outputs, weight.compute()) as u64;
    bytes(weight.inputs(), weight.outputs()) + bytes(weight.outputs(), weight.inputs())
}

fn matrix(numbers: &Numbers) -> Matrix<'_> {
    numbers.matrix().expect("looked at when it was made")
}

impl HostBlock {
    /// None where a weight cannot be looked at.
    pub fn of(block: &Block) -> Option<Self> {
        Some(Self {
            norm_1: all(block.norm_1.as_ref(), HostNorm::of)?,
            norm_2: all(block.norm_2.as_ref(), HostNorm::of)?,
            attention_norm: all(block.attention_norm.as_ref(), HostNorm::of)?,
            mlp_norm: all(block.mlp_norm.as_ref(), HostNorm::of)?,
            query_norm: all(block.query_norm.as_ref(), HostNorm::of)?,
            key_norm: all(block.key_norm.as_ref(), HostNorm::of)?,
            qkv: HostLinear::of(&block.qkv)?,
            attention_out: HostLinear::of(&block.attention_out)?,
            up: HostLinear::of(&block.up)?,
            gate: all(block.gate.as_ref(), HostLinear::of)?,
            down: HostLinear::of(&block.down)?,
            router: all(block.router.as_ref(), |router| {
                Some((HostLinear::of(&router.scores)?, all(router.shared.as_ref(), HostLinear::of)?))
            })?,
        })
    }

    /// The same block, of which products round their factors. Those with weights that an edit `changed` do not: an edit is smaller than what
    /// rounding would take from it. Nor do a router's, whose scores decide who computes.
    pub fn computed_in(mut self, compute: Compute, changed: impl Fn(MlpModule) -> bool) -> Self {
        (self.qkv.compute, self.attention_out.compute) = (compute, compute);
        let inside = [(MlpModule::Up, Some(&mut self.up)), (MlpModule::Gate, self.gate.as_mut())];
        for (module, linear) in inside.into_iter().chain([(MlpModule::Down, Some(&mut self.down))]) {
            if let (Some(linear), false) = (linear, changed(module)) {
                linear.compute = compute;
            }
        }
        self
    }

    /// With copies of its weights that products read faster. Experts, of which each token uses a few, are read where they are.
    pub fn packed(mut self) -> Self {
        self.copied().for_each(HostLinear::pack);
        self
    }

    /// As [`HostBlock::packed`], with copies for the way back as well.
    pub fn packed_both_ways(mut self) -> Self {
        self.copied().for_each(HostLinear::pack_both_ways);
        self
    }

    /// Bytes that the copies of [`HostBlock::packed_both_ways`] take.
    pub fn bytes_both_ways(&mut self) -> u64 {
        self.copied().map(|linear| both_ways(linear.matrix())).sum()
    }

    fn copied(&mut self) -> impl Iterator<Item = &mut HostLinear> {
        let inside = self.router.is_none().then_some([&mut self.up, &mut self.down]).into_iter().flatten();
        let gate = self.gate.as_mut().filter(|_| self.router.is_none());
        [&mut self.qkv, &mut self.attention_out].into_iter().chain(inside).chain(gate)
    }

    fn view(&self, config: &DecoderConfig, layer: usize) -> kernels::Block<'_> {
        fn norm<'a>(norm: Option<&'a HostNorm>, config: &DecoderConfig) -> Option<kernels::Norm<'a>> {
            norm.map(|norm| norm.view(config))
        }
        let whole = config.head_norm == Some(HeadNorm::Whole);
        let size = |heads: usize| if whole { heads * config.head_dim } else { config.head_dim };
        let query_norm = norm(self.query_norm.as_ref(), config);
        let key_norm = norm(self.key_norm.as_ref(), config);
        kernels::Block {
            arrangement: match config.arrangement {
                Arrangement::Sequential => kernels::Arrangement::Sequential,
                Arrangement::Parallel => kernels::Arrangement::Parallel,
                Arrangement::ParallelTwoNorms => kernels::Arrangement::ParallelTwoNorms,
            },
            norm_1: norm(self.norm_1.as_ref(), config),
            norm_2: norm(self.norm_2.as_ref(), config),
            attention_norm: norm(self.attention_norm.as_ref(), config),
            mlp_norm: norm(self.mlp_norm.as_ref(), config),
            multiplier: config.residual_multiplier as f32,
            query_norm: query_norm.map(|norm| kernels::HeadNorm { norm, size: size(config.heads) }),
            key_norm: key_norm.map(|norm| kernels::HeadNorm { norm, size: size(config.kv_heads) }),
            clip: config.qkv_clip.map(|clip| clip as f32),
            qkv: self.qkv.view(),
            heads: heads(config, layer),
            attention_out: self.attention_out.view(),
            up: self.up.view(),
            gate: self.gate.as_ref().map(HostLinear::view),
            activation: match config.activation {
                Activation::GeluNew => kernels::Activation::GeluNew,
                Activation::Gelu => kernels::Activation::Gelu,
                Activation::Relu => kernels::Activation::Relu,
                Activation::Silu => kernels::Activation::Silu,
            },
            down: self.down.view(),
            experts: self.router.as_ref().zip(config.mixture(layer)).map(|((scores, shared), experts)| {
                kernels::Experts {
                    router: scores.view(),
                    top: experts.top,
                    normalised: experts.normalised,
                    shared: shared.as_ref().map(HostLinear::view),
                    parts: experts.parts(),
                }
            }),
        }
    }

    /// Runs the block of a layer on the hidden state `[tokens, d]`.
    pub fn run(&self, config: &DecoderConfig, layer: usize, hidden: &Numbers, batch: &Batch) -> BlockOutput {
        let passed = self.view(config, layer).forward(hidden.slice(), batch, Threads::All);
        let activations = |values, size| Activations(rows(values, size));
        BlockOutput {
            hidden: activations(passed.hidden, config.hidden),
            attention: activations(passed.attention, config.hidden),
            key: match passed.routes {
                Some(routes) => Keys::routed(config.key_parts(layer), routes, passed.key),
                None => Keys::Whole(Box::new(activations(passed.key, config.feed_forward))),
            },
            mlp: activations(passed.mlp, config.hidden),
            kv: Kv::Host(passed.qkv),
        }
    }

    /// The hidden state after the block, with what stands in the place of its parts' outputs; at some tokens alone, where they are named.
    pub fn run_pinned(
        &self,
        config: &DecoderConfig,
        layer: usize,
        hidden: &[f32],
        batch: &Batch,
        pins: &Pins,
        only: Option<&[usize]>,
    ) -> Vec<f32> {
        let block = self.view(config, layer);
        match only {
            Some(tokens) => block.forward_at(hidden, batch, tokens, pins, Threads::All),
            None => block.forward_pinned(hidden, batch, pins, Threads::All).hidden,
        }
    }

    /// The hidden state after the block, and what [`HostBlock::back`] needs.
    pub fn run_kept(&self, config: &DecoderConfig, layer: usize, hidden: Vec<f32>, batch: &Batch) -> (Vec<f32>, Kept) {
        self.view(config, layer).forward_kept(hidden, batch, Threads::All)
    }

    /// The gradient with respect to the hidden state before the block, given that with respect to the one after it.
    pub fn back(&self, config: &DecoderConfig, layer: usize, kept: Kept, slope: Vec<f32>, batch: &Batch) -> Vec<f32> {
        self.view(config, layer).back(kept, slope, batch, Threads::All)
    }
}

/// The heads of a layer.
pub(crate) fn heads(config: &DecoderConfig, layer: usize) -> Heads {
    Heads {
        scale: config.attention_scale.map(|scale| scale as f32),
        cap: config.attention_cap.map(|cap| cap as f32),
        alibi: alibi(config),
        ..Heads::new(config.heads, config.kv_heads, config.head_dim, config.window(layer))
    }
}

/// `x · weight (+ bias)` by kernels, where they can look at all of it.
pub(crate) fn product(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>, compute: Compute) -> Option<Tensor<2>> {
    let (x, weight) = (Numbers::of(x)?, Numbers::of_matrix(weight)?);
    let bias = all(bias.as_ref(), |bias| Numbers::of(bias.clone()))?;
    let weight = matrix(&weight).computed_in(compute);
    let bias = bias.as_ref().map(Numbers::slice);
    Some(rows(kernels::product(x.slice(), weight, bias, Threads::All), weight.outputs()))
}

/// `x · weight`, `[n, out]`, for rows `[n, in]` and a weight `[in, out]`, as blocks on a CPU compute it; none where one of both is not in f32 there.
pub fn kernel_product(x: Tensor<2>, weight: Tensor<2>, compute: crate::Compute) -> Option<Tensor<2>> {
    product(x, weight, None, compute.in_kernels())
}

/// A norm by kernels, where they can look at all of it.
pub(crate) fn norm(norm: &Norm, x: Tensor<2>, config: &DecoderConfig) -> Option<Tensor<2>> {
    let [_, size] = x.dims();
    let (norm, x) = (HostNorm::of(norm)?, Numbers::of(x)?);
    Some(rows(norm.view(config).forward(x.slice()), size))
}

/// Weights or activations that kernels cannot look at, in a decoder whose weights they can.
pub(crate) fn elsewhere() -> ModelError {
    ModelError::Readback("numbers that are not in this machine's memory".into())
}
