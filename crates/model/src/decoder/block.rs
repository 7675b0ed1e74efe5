//! One transformer block.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::module::{attention, layer_norm};
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData, activation};

use crate::batch::keys::Keys;
use crate::batch::rows::{Activations, Frame};
use crate::decoder::rotation::{alibi, of_layer};
use crate::device::cat::cat;
use crate::device::matmul::project;
use crate::device::softmax::softmax;
use crate::{Activation, Arrangement, DecoderConfig, Experts, HeadNorm, MlpModule, NormKind};

/// Weight and, for LayerNorm, bias of a normalisation.
#[derive(Module, Debug)]
pub struct Norm {
    /// `[d]`.
    pub weight: Param<Tensor<1>>,
    /// `[d]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl Norm {
    /// Normalises the rows of `x` `[n, d]`.
    pub fn forward(&self, x: Tensor<2>, config: &DecoderConfig) -> Tensor<2> {
        normalised(x, self.weight.val(), self.bias.as_ref().map(Param::val), config)
    }

    /// Normalises queries or keys, `[batch, heads, seq, dim]`.
    fn of_heads(&self, x: Tensor<4>, config: &DecoderConfig) -> Tensor<4> {
        let [batch, heads, seq, dim] = x.dims();
        if config.head_norm == Some(HeadNorm::Shared) {
            return self.forward(x.reshape([-1, dim as i32]), config).reshape([batch, heads, seq, dim]);
        }
        let rows = x.swap_dims(1, 2).reshape([batch * seq, heads * dim]);
        let rows = if config.head_norm == Some(HeadNorm::Whole) {
            self.forward(rows, config)
        } else {
            // Head by head without weights, which each head has of its own.
            let ones = self.weight.val().narrow(0, 0, dim).ones_like();
            let each = normalised(rows.reshape([-1, dim as i32]), ones, None, config);
            let rows = each.reshape([batch * seq, heads * dim]) * self.weight.val().unsqueeze();
            match &self.bias {
                Some(bias) => rows + bias.val().unsqueeze(),
                None => rows,
            }
        };
        rows.reshape([batch, seq, heads, dim]).swap_dims(1, 2)
    }
}

fn normalised(x: Tensor<2>, weight: Tensor<1>, bias: Option<Tensor<1>>, config: &DecoderConfig) -> Tensor<2> {
    match config.norm {
        NormKind::Layer => layer_norm(x, weight, bias, config.norm_epsilon),
        NormKind::Rms => {
            let scale = (x.clone() * x.clone()).mean_dim(1).add_scalar(config.norm_epsilon).sqrt();
            x / scale * weight.unsqueeze()
        }
    }
}

/// Keys and values of one layer's attention, rotated already.
#[derive(Clone, Debug)]
pub(crate) struct KeyValues {
    /// `[batch, kv_heads, seq, head_dim]`.
    pub keys: Tensor<4>,
    /// `[batch, kv_heads, seq, head_dim]`.
    pub values: Tensor<4>,
}

/// Keys and values as what computed them has them.
#[expect(clippy::large_enum_variant, reason = "there are few of it, and what it holds is behind pointers")]
#[derive(Clone, Debug)]
pub(crate) enum Kv {
    Tensors(KeyValues),
    /// Queries, keys and values of this run's tokens side by side: `[tokens, (heads + 2·kv_heads)·head_dim]`.
    Host(Vec<f32>),
}

/// What a block computes, with the places that editing looks at. Tensors are shared, not copied: dropping a field that
/// isn't needed frees it.
#[derive(Debug)]
pub struct BlockOutput {
    /// Hidden state after the block, of size `d`.
    pub hidden: Activations,
    /// What attention adds, of size `d`.
    pub attention: Activations,
    /// The down-projection's input (an edit's *key*), of size `f`; of a mixture of experts, the wide key of all of them.
    pub key: Keys,
    /// The feed-forward's output, of size `d`, as its down-projection gives it: before any norm or multiplier.
    pub mlp: Activations,
    /// Keys and values so far: those handed in as `past`, then this run's; kernels have this run's alone.
    pub(crate) kv: Kv,
}

/// A block's feed-forward at some tokens, `[tokens, d]` and, of the key, `[tokens, f]`.
#[derive(Debug)]
pub struct FeedForward {
    /// Hidden state after the block.
    pub hidden: Tensor<2>,
    /// The down-projection's input.
    pub key: Tensor<2>,
    /// The down-projection's output.
    pub mlp: Tensor<2>,
}

/// What is added to outputs of projections inside a feed-forward, `[tokens, f]`: gradients with respect to it are those of the outputs.
#[derive(Clone, Debug, Default)]
pub struct Inner {
    /// To the up-projection's.
    pub up: Option<Tensor<2>>,
    /// To the gate's, where there is one.
    pub gate: Option<Tensor<2>>,
    /// To the down-projection's, `[tokens, d]`.
    pub down: Option<Tensor<2>>,
}

/// What stands in the place of outputs of a block's parts at some cells.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pins {
    pub attention: Option<Pin>,
    pub mlp: Option<Pin>,
}

/// Of one part.
#[derive(Clone, Debug)]
pub(crate) struct Pin {
    /// `[cells, 1]`: 1 where the block's own output stays, 0 where it is replaced.
    pub keep: Tensor<2>,
    /// `[cells, d]`: what stands there instead, and 0 elsewhere.
    pub values: Tensor<2>,
}

impl Pin {
    fn put(pin: Option<&Self>, output: Tensor<2>) -> Tensor<2> {
        match pin {
            Some(pin) => output * pin.keep.clone() + pin.values.clone(),
            None => output,
        }
    }
}

/// One block's weights, projections as `[in, out]`.
#[derive(Module, Debug)]
pub struct Block {
    /// Norm before attention (and, in the parallel arrangement, before the feed-forward).
    pub norm_1: Option<Norm>,
    /// Norm before the feed-forward.
    pub norm_2: Option<Norm>,
    /// Norm of what attention adds.
    pub attention_norm: Option<Norm>,
    /// Norm of what the feed-forward adds.
    pub mlp_norm: Option<Norm>,
    /// Norm of queries, with a weight for each number of a head or of all heads.
    pub query_norm: Option<Norm>,
    /// Norm of keys, likewise.
    pub key_norm: Option<Norm>,
    /// Query, key and value projections side by side, `[d, (heads + 2·kv_heads)·head_dim]`.
    pub qkv: Linear,
    /// `[heads·head_dim, d]`.
    pub attention_out: Linear,
    /// `[d, f]`.
    pub up: Linear,
    /// `[d, f]`.
    pub gate: Option<Linear>,
    /// `[f, d]`: the weight that editing changes.
    pub down: Linear,
    /// Where the three above are those of several experts side by side, what chooses among them.
    pub router: Option<Router>,
}

/// What chooses a token's experts.
#[derive(Module, Debug)]
pub struct Router {
    /// From the feed-forward's input to a score for each expert, `[d, experts]`.
    pub scores: Linear,
    /// The same of the expert that all tokens use, `[d, 1]`.
    pub shared: Option<Linear>,
}

impl Router {
    /// The gates of a token's wide key, `[tokens, f]`, given what the feed-forward reads, `[tokens, d]`; 0 where the token is not routed to.
    ///
    /// All experts compute all tokens here, and gates take away what is not wanted: a choice of rows would have to come to the host.
    fn gates(&self, input: Tensor<2>, experts: &Experts) -> Tensor<2> {
        let shares = softmax(project(&self.scores, input.clone())).p;
        let (_, best) = shares.clone().without_autodiff().topk_with_indices(experts.top, 1);
        let tokens = shares.dims()[0];
        // Not by comparing shares: of equal ones no more than `top` are used.
        let numbers = Tensor::<1, Int>::arange(0..experts.count as i64, &shares.device());
        let numbers = numbers.reshape([1, 1, experts.count]).expand([tokens, experts.top, experts.count]);
        let best = best.reshape([tokens, experts.top, 1]).expand([tokens, experts.top, experts.count]);
        let used = best.equal(numbers).float().sum_dim(1).reshape([tokens, experts.count]);
        let gates = shares * used;
        let gates = if experts.normalised { gates.clone() / gates.sum_dim(1) } else { gates };
        let wide = |gates: Tensor<2>, size: usize| {
            let count = gates.dims()[1];
            gates.reshape([tokens, count, 1]).expand([tokens, count, size]).reshape([tokens, count * size])
        };
        let gates = wide(gates, experts.size);
        match (&self.shared, experts.shared) {
            (Some(shared), Some(size)) => cat(vec![gates, wide(activation::sigmoid(project(shared, input)), size)], 1),
            _ => gates,
        }
    }
}

impl Block {
    /// A weight of the feed-forward as it is used, `[in, out]`; none where the block has no such weight.
    pub(crate) fn editable(&self, module: MlpModule) -> Option<Tensor<2>> {
        match module {
            MlpModule::Down => Some(self.down.weight.val()),
            MlpModule::Up => Some(self.up.weight.val()),
            MlpModule::Gate => self.gate.as_ref().map(|gate| gate.weight.val()),
            MlpModule::Bias => self.down.bias.as_ref().map(|bias| bias.val().unsqueeze()),
        }
    }

    /// Puts a weight `[in, out]` in the place of one that the block has.
    pub(crate) fn put(&mut self, module: MlpModule, weight: Tensor<2>) {
        fn fixed<const D: usize>(value: Tensor<D>) -> Param<Tensor<D>> {
            Param::from_tensor(value).set_require_grad(false)
        }
        match module {
            MlpModule::Down => self.down.weight = fixed(weight),
            MlpModule::Up => self.up.weight = fixed(weight),
            MlpModule::Gate => {
                if let Some(gate) = &mut self.gate {
                    gate.weight = fixed(weight);
                }
            }
            MlpModule::Bias => self.down.bias = Some(fixed(weight.flatten(0, 1))),
        }
    }

    /// Runs a layer's block on the hidden state `x` `[cells, d]` of a batch.
    ///
    /// `past` holds keys and values of earlier positions. `masks` has one for each of the shape's spans: without it, attention is
    /// causal, aligned at the end; with it (`[rows, 1, seq, past + seq]`, true where a query must not look), the mask alone decides. `pins`
    /// stand in the place of outputs of the block's parts.
    #[expect(clippy::too_many_arguments, reason = "a batch, a layer and what stands in its place")]
    pub(crate) fn forward_pinned(
        &self,
        x: Tensor<2>,
        config: &DecoderConfig,
        layer: usize,
        frame: &Frame,
        past: Option<&KeyValues>,
        masks: &[Option<Tensor<4, Bool>>],
        pins: &Pins,
    ) -> BlockOutput {
        let normed = self.attention_input(x.clone(), config);
        let (attended, kv) = self.attend(normed.clone(), config, layer, frame, past, masks);
        let attention = Pin::put(pins.attention.as_ref(), attended);
        let FeedForward { mut hidden, key, mut mlp } =
            self.after_attention(x.clone(), attention.clone(), Some(normed), config, Inner::default());
        if pins.mlp.is_some() {
            mlp = Pin::put(pins.mlp.as_ref(), mlp);
            hidden = x + attention.clone() + self.added(mlp.clone(), config);
        }
        BlockOutput {
            hidden: Activations(hidden),
            attention: Activations(attention),
            key: Keys::Whole(Box::new(Activations(key))),
            mlp: Activations(mlp),
            kv: Kv::Tensors(kv),
        }
    }

    /// What attention reads, `[n, d]`.
    fn attention_input(&self, x: Tensor<2>, config: &DecoderConfig) -> Tensor<2> {
        match &self.norm_1 {
            Some(norm) => norm.forward(x, config),
            None => x,
        }
    }

    /// What the feed-forward reads, `[n, d]`; arguments as in [`Block::after_attention`].
    pub(crate) fn feed_forward_input(&self, x: Tensor<2>, attended: Tensor<2>, config: &DecoderConfig) -> Tensor<2> {
        match (config.arrangement, &self.norm_2) {
            (Arrangement::Sequential, Some(norm)) => norm.forward(x + attended, config),
            (Arrangement::Sequential, None) => x + attended,
            (Arrangement::ParallelTwoNorms, Some(norm)) => norm.forward(x, config),
            _ => self.attention_input(x, config),
        }
    }

    /// What an output of the down-projection `[n, d]` adds to the hidden state.
    pub(crate) fn added(&self, mlp: Tensor<2>, config: &DecoderConfig) -> Tensor<2> {
        added(self.mlp_norm.as_ref(), mlp, config)
    }

    /// What follows attention, token by token: `x` `[n, d]` is the hidden state before the block, `attended` what attention adds to it, and
    /// `normed` what attention read where it is known. `inner` goes into the feed-forward.
    pub(crate) fn after_attention(
        &self,
        x: Tensor<2>,
        attended: Tensor<2>,
        normed: Option<Tensor<2>>,
        config: &DecoderConfig,
        inner: Inner,
    ) -> FeedForward {
        let (residual, input) = match (config.arrangement, &self.norm_2) {
            (Arrangement::Sequential, norm) => {
                let x = x + attended;
                let input = match norm {
                    Some(norm) => norm.forward(x.clone(), config),
                    None => x.clone(),
                };
                (x, input)
            }
            (Arrangement::ParallelTwoNorms, Some(norm)) => (x.clone() + attended, norm.forward(x, config)),
            _ => {
                let normed = normed.unwrap_or_else(|| self.attention_input(x.clone(), config));
                (x + attended, normed)
            }
        };
        let plus = |out: Tensor<2>, added: Option<Tensor<2>>| match added {
            Some(added) => out + added,
            None => out,
        };
        let up = plus(project(&self.up, input.clone()), inner.up);
        let key = match &self.gate {
            Some(gate) => activate(plus(project(gate, input.clone()), inner.gate), config.activation) * up,
            None => activate(up, config.activation),
        };
        let key = match (&self.router, &config.experts) {
            (Some(router), Some(experts)) => key * router.gates(input, experts),
            _ => key,
        };
        let mlp = plus(project(&self.down, key.clone()), inner.down);
        FeedForward { hidden: residual + self.added(mlp.clone(), config), key, mlp }
    }

    fn attend(
        &self,
        normed: Tensor<2>,
        config: &DecoderConfig,
        layer: usize,
        frame: &Frame,
        past: Option<&KeyValues>,
        masks: &[Option<Tensor<4, Bool>>],
    ) -> (Tensor<2>, KeyValues) {
        let [batch, seq] = frame.shape.rectangle();
        let rotation = of_layer(&frame.rotation, config, layer);
        let (heads, kv_heads, dim) = (config.heads, config.kv_heads, config.head_dim);
        let qkv = project(&self.qkv, normed);
        let qkv = match config.qkv_clip {
            Some(clip) => qkv.clamp(-clip, clip),
            None => qkv,
        };
        let qkv = qkv.reshape([batch, seq, heads + 2 * kv_heads, dim]).swap_dims(1, 2);
        let (query, keys) = match (rotation, &self.query_norm, &self.key_norm) {
            // They lie side by side: what both need is done once.
            (Some(rotation), None, None) => {
                let both = rotation.apply(qkv.clone().narrow(1, 0, heads + kv_heads));
                (both.clone().narrow(1, 0, heads), both.narrow(1, heads, kv_heads))
            }
            (_, query_norm, key_norm) => {
                let turn = |t: Tensor<4>, norm: Option<&Norm>| {
                    let t = match norm {
                        Some(norm) => norm.of_heads(t, config),
                        None => t,
                    };
                    match rotation {
                        Some(rotation) => rotation.apply(t),
                        None => t,
                    }
                };
                let query = turn(qkv.clone().narrow(1, 0, heads), query_norm.as_ref());
                (query, turn(qkv.clone().narrow(1, heads, kv_heads), key_norm.as_ref()))
            }
        };
        let mut kv = KeyValues { keys, values: qkv.narrow(1, heads + kv_heads, kv_heads) };
        let before = past.map_or(0, |past| past.keys.dims()[2]);
        if let Some(past) = past {
            kv.keys = cat(vec![past.keys.clone(), kv.keys], 2);
            kv.values = cat(vec![past.values.clone(), kv.values], 2);
        }
        let keys = share_heads(kv.keys.clone(), heads / kv_heads);
        let values = share_heads(kv.values.clone(), heads / kv_heads);
        let spans = frame.shape.spans();
        let whole = spans.len() == 1;
        let attended = spans.iter().zip(masks).map(|(&(start, length), mask)| {
            // Packed rows are parts of one long row, each of which attends to itself and has no past.
            let part = |t: &Tensor<4>| if whole { t.clone() } else { t.clone().narrow(2, start, length) };
            let (query, keys, values) = (part(&query), part(&keys), part(&values));
            let [rows, _, queries, _] = query.dims();
            let total = keys.dims()[2];
            let options = AttentionModuleOptions {
                scale: config.attention_scale,
                softcap: config.attention_cap,
                is_causal: mask.is_none(),
            };
            let mask = mask.as_ref().map(|mask| mask.clone().expand([rows, heads, queries, total]));
            let bias = distances(config, frame, (start, length), before, &query.device());
            let bias = bias.map(|bias| bias.expand([rows, heads, queries, total]));
            attention(query, keys, values, mask, bias, options)
        });
        let out = cat(attended.collect(), 2);
        let out = out.swap_dims(1, 2).reshape([batch * seq, heads * dim]);
        (added(self.attention_norm.as_ref(), project(&self.attention_out, out), config), kv)
    }
}

/// What an output of attention or feed-forward adds to the hidden state.
fn added(norm: Option<&Norm>, out: Tensor<2>, config: &DecoderConfig) -> Tensor<2> {
    let out = match norm {
        Some(norm) => norm.forward(out, config),
        None => out,
    };
    if config.residual_multiplier == 1.0 { out } else { out.mul_scalar(config.residual_multiplier) }
}

/// What distance adds to the scores of a span's queries, `[rows or 1, heads, 1, before + length]`; none where it adds nothing.
///
/// Measured from the span's last position, whichever query looks: what all scores of a query have more changes nothing. Positions count,
/// not columns, since ways on from a common beginning lie side by side. What came before a row is aligned at its end.
fn distances(
    config: &DecoderConfig,
    frame: &Frame,
    (start, length): (usize, usize),
    before: usize,
    device: &Device,
) -> Option<Tensor<4>> {
    let alibi = alibi(config)?;
    let (heads, total) = (config.heads, before + length);
    let mut biases = Vec::with_capacity(frame.positions.len() * heads * total);
    for positions in &frame.positions {
        let own = &positions[start..start + length];
        let first = own.first().copied().unwrap_or(0);
        let last = own.iter().copied().max().unwrap_or(0);
        // Padding before a text's first token is masked.
        let keys = (0..before).map(|i| (first + i).saturating_sub(before)).chain(own.iter().copied());
        for head in 0..heads {
            let slope = alibi.slope(head, heads);
            biases.extend(keys.clone().map(|key| alibi.bias(slope, last, key)));
        }
    }
    Some(Tensor::from_data(TensorData::new(biases, [frame.positions.len(), heads, 1, total]), device))
}

/// Repeats each key/value head for the query heads that share it.
fn share_heads(x: Tensor<4>, times: usize) -> Tensor<4> {
    if times == 1 {
        return x;
    }
    let [batch, heads, seq, dim] = x.dims();
    x.reshape([batch, heads, 1, seq * dim]).expand([batch, heads, times, seq * dim]).reshape([
        batch,
        heads * times,
        seq,
        dim,
    ])
}

fn activate(x: Tensor<2>, activation: Activation) -> Tensor<2> {
    match activation {
        // gelu_new(x) = x/2 · (1 + tanh(u)) with u = √(2/π)(x + 0.044715 x³), and (1 + tanh u)/2 = σ(2u): the same
        // function for a third of the operations.
        Activation::GeluNew => {
            let inner =
                (x.clone() * x.clone()).mul_scalar(0.044_715 * 1.595_769_121_605_73).add_scalar(1.595_769_121_605_73);
            x.clone() * activation::sigmoid(x * inner)
        }
        Activation::Gelu => activation::gelu(x),
        Activation::Relu => activation::relu(x),
        Activation::Silu => activation::silu(x),
    }
}
