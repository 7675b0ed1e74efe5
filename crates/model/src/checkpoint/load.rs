//! From a checkpoint's tensors to the decoder's: converted, turned and joined piece by piece, each into its place.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use crate::checkpoint::layout::{MixtureLayout, bias_name, fill, weight};
use crate::decoder::block::{Block, Norm, Router};
use crate::decoder::parameters::Ends;
use crate::decoder::source::{Blocks, ReadBlock};
use crate::device::readback;
use crate::memory;
use crate::{
    Checkpoint, Decoder, DecoderConfig, Experts, Layout, ModelError, Orientation, Positions, Precision, Rotary,
    free_memory,
};

impl Decoder {
    /// Reads a checkpoint. At its peak this takes the weights' size in f32 and little more: what was converted is let go
    /// before the next piece is read.
    ///
    /// # Errors
    /// [`ModelError::Memory`] before anything is read; [`ModelError::MissingTensor`], [`ModelError::Shape`],
    /// [`ModelError::Dtype`], [`ModelError::Unused`], naming the tensor.
    pub fn load(checkpoint: &Checkpoint, config: &DecoderConfig, device: &Device) -> Result<Self, ModelError> {
        Self::load_as(checkpoint, config, device, Precision::F32)
    }

    /// As [`Decoder::load`], with the matrices held in `precision`. Norms, biases and positions are held in f32 always.
    ///
    /// # Errors
    /// As [`Decoder::load`].
    pub fn load_as(
        checkpoint: &Checkpoint,
        config: &DecoderConfig,
        device: &Device,
        precision: Precision,
    ) -> Result<Self, ModelError> {
        let reader = Reader::new(checkpoint, config, device, precision)?;
        memory::check(memory::needed(config, precision), precision, free_memory(device))?;
        // What stays is kept apart from what comes and goes, which would otherwise be let go around it, a hole at a time.
        device.memory_persistent_allocations((), |()| {
            let (ends, tied) = reader.ends()?;
            let blocks = (0..config.layers).map(|layer| reader.block(layer)).collect::<Result<_, _>>()?;
            Ok(Self::new(config.clone(), ends, Blocks::resident(blocks), tied))
        })
    }

    /// As [`Decoder::load_as`], for a model whose blocks stay where they are stored: each is read when it is computed with, and let go
    /// of afterwards. Embedding, head and last norm are held in memory. Values are those of [`Decoder::load_as`] to the last bit. With
    /// `holds`, work that needs blocks again and again holds those of them that have room: see [`Decoder::hold_fitting`].
    ///
    /// # Errors
    /// As [`Decoder::load`].
    pub fn stream(
        checkpoint: Arc<Checkpoint>,
        config: &DecoderConfig,
        device: &Device,
        precision: Precision,
        holds: bool,
    ) -> Result<Self, ModelError> {
        let reader = Reader::new(&checkpoint, config, device, precision)?;
        memory::check(memory::needed_streamed(config, precision), precision, free_memory(device))?;
        let (ends, tied) = device.memory_persistent_allocations((), |()| reader.ends())?;
        let blocks = StoredBlocks { checkpoint, config: config.clone(), device: device.clone(), precision };
        Ok(Self::new(config.clone(), ends, Blocks::streamed(Box::new(blocks), config.layers, holds), tied))
    }
}

/// The blocks of a checkpoint, read one at a time.
///
/// A block is read and converted piece by piece into tensors of its own, so that a file larger than memory passes through a piece of it. The
/// system may keep what was read as cache; where it does, the next read of the block costs no disk.
struct StoredBlocks {
    checkpoint: Arc<Checkpoint>,
    config: DecoderConfig,
    device: Device,
    precision: Precision,
}

impl ReadBlock for StoredBlocks {
    fn read(&self, layer: usize) -> Result<Block, ModelError> {
        Reader::of(&self.checkpoint, &self.config, &self.device, self.precision).block(layer)
    }

    fn check_room(&self, blocks: usize) -> Result<(), ModelError> {
        let of = |layers: usize| memory::needed(&DecoderConfig { layers, ..self.config.clone() }, self.precision);
        memory::check(of(blocks).saturating_sub(of(0)), self.precision, free_memory(&self.device))
    }

    fn fitting(&self, share: f64) -> usize {
        let of = |layers: usize| memory::needed(&DecoderConfig { layers, ..self.config.clone() }, self.precision);
        let free = free_memory(&self.device).unwrap_or(0) as f64 * share;
        (free / of(1).saturating_sub(of(0)).max(1) as f64) as usize
    }

    fn bytes_read(&self) -> u64 {
        self.checkpoint.bytes_read()
    }
}

/// Reads a checkpoint's tensors into the decoder's layout.
struct Reader<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a DecoderConfig,
    layout: Layout,
    device: &'a Device,
    precision: Precision,
}

impl<'a> Reader<'a> {
    /// Of a checkpoint that has all tensors that the configuration asks for, in the right shapes.
    fn new(
        checkpoint: &'a Checkpoint,
        config: &'a DecoderConfig,
        device: &'a Device,
        precision: Precision,
    ) -> Result<Self, ModelError> {
        let reader = Self::of(checkpoint, config, device, precision);
        checkpoint.check(config, &reader.layout)?;
        Ok(reader)
    }

    fn of(checkpoint: &'a Checkpoint, config: &'a DecoderConfig, device: &'a Device, precision: Precision) -> Self {
        Self { checkpoint, config, layout: Layout::of(config), device, precision }
    }

    /// What is in no block, and a tied head, `[d, V]`.
    fn ends(&self) -> Result<(Ends, Option<Tensor<2>>), ModelError> {
        let (config, layout, device) = (self.config, &self.layout, self.device);
        let (vocab, d) = (config.vocab, config.hidden);
        // A tied head is stored once, laid out for the product with the head, and the embedding looks at it sideways.
        let (embedding, tied) = if config.tied_head {
            let head = self.turned(layout.token_embedding, vocab, d)?;
            (head.clone().transpose(), Some(head))
        } else {
            let values = self.values(layout.token_embedding, &[vocab, d])?;
            (self.held(values, [vocab, d]), None)
        };
        let head = if config.tied_head {
            None
        } else {
            let weight = Param::from_tensor(self.turned(&format!("{}.weight", layout.head), vocab, d)?);
            let bias = config.head_bias.then(|| self.vector(&format!("{}.bias", layout.head), vocab)).transpose()?;
            Some(Linear { weight, bias })
        };
        let position_embedding = match config.position_rows() {
            Some(rows) => {
                let values = self.values(layout.position_embedding, &[rows, d])?;
                Some(Param::from_tensor(Tensor::from_data(TensorData::new(values, [rows, d]), device)))
            }
            None => None,
        };
        let embedding_norm = config.embedding_norm.then(|| self.norm(layout.embedding_norm)).transpose()?;
        let ends = Ends {
            token_embedding: Param::from_tensor(embedding),
            position_embedding,
            embedding_norm,
            final_norm: self.norm(layout.final_norm)?,
            head,
        };
        Ok((ends.no_grad(), tied))
    }

    /// A matrix on the device, in the type that matrices are held in. It is converted here, so that the device sees no other.
    fn held(&self, values: Vec<f32>, shape: [usize; 2]) -> Tensor<2> {
        let data = TensorData::new(values, shape).convert_dtype(self.precision.dtype());
        Tensor::from_data(data, (self.device, self.precision.dtype()))
    }

    /// A tensor as it is stored.
    fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let mut values = Vec::with_capacity(shape.iter().product());
        self.checkpoint.read_rows(name, shape, |_, rows| values.extend_from_slice(rows))?;
        Ok(values)
    }

    fn vector(&self, name: &str, size: usize) -> Result<Param<Tensor<1>>, ModelError> {
        let values = self.values(name, &[size])?;
        Ok(Param::from_tensor(Tensor::from_data(TensorData::new(values, [size]), self.device)))
    }

    /// A matrix stored as `[rows, columns]`, as `[columns, rows]`.
    fn turned(&self, name: &str, rows: usize, columns: usize) -> Result<Tensor<2>, ModelError> {
        let mut turned = vec![0.0; rows * columns];
        self.checkpoint.read_rows(name, &[rows, columns], |first, piece| {
            scatter_turned(piece, columns, &mut turned, rows, |row| first + row);
        })?;
        Ok(self.held(turned, [columns, rows]))
    }

    /// A norm of hidden states.
    fn norm(&self, stem: &str) -> Result<Norm, ModelError> {
        let (c, d) = (self.config, self.config.hidden);
        let weight = if c.norm_weight {
            let mut values = self.values(&format!("{stem}.weight"), &[d])?;
            if c.norm_plus_one {
                for w in &mut values {
                    *w += 1.0;
                }
            }
            values
        } else {
            vec![1.0; d]
        };
        let bias = c.norm_bias.then(|| self.vector(&format!("{stem}.bias"), d)).transpose()?;
        Ok(Norm { weight: self.param(weight), bias })
    }

    fn param(&self, values: Vec<f32>) -> Param<Tensor<1>> {
        let size = values.len();
        Param::from_tensor(Tensor::from_data(TensorData::new(values, [size]), self.device))
    }

    /// The norm of queries (`which` is 0) or of keys, in the order that their numbers are put in.
    fn head_norm(&self, which: usize, layer: usize) -> Result<Option<Norm>, ModelError> {
        let c = self.config;
        let heads = [c.heads, c.kv_heads][which];
        let parts = self.layout.head_norm(c, which, layer, heads);
        if parts.is_empty() {
            return Ok(None);
        }
        let joined = |end: &str| -> Result<Param<Tensor<1>>, ModelError> {
            let mut stored = Vec::new();
            for (stem, shape) in &parts {
                stored.extend(self.values(&format!("{stem}.{end}"), shape)?);
            }
            let mut values = vec![0.0; stored.len()];
            for (column, value) in stored.into_iter().enumerate() {
                values[self.paired(column)] = if c.norm_plus_one && end == "weight" { value + 1.0 } else { value };
            }
            Ok(self.param(values))
        };
        let bias = c.head_norm_bias.then(|| joined("bias")).transpose()?;
        Ok(Some(Norm { weight: joined("weight")?, bias }))
    }

    /// A layer's block, once the device has it: until then the host holds it as well.
    fn block(&self, layer: usize) -> Result<Block, ModelError> {
        let block = self.converted(layer)?.no_grad();
        self.device.sync().map_err(|error| readback::failure(error.to_string()))?;
        Ok(block)
    }

    fn converted(&self, layer: usize) -> Result<Block, ModelError> {
        let c = self.config;
        let l = self.layout;
        let attention = c.heads * c.head_dim;
        let linear = |stem: &'static str, input: usize, output: usize, bias: bool| {
            self.linear(&[(stem, output)], layer, input, bias, |_, column| column)
        };
        let norm = |is_there: bool, stem: &str| is_there.then(|| self.norm(&fill(stem, layer))).transpose();
        let widths = l.qkv_widths(c);
        let parts: Vec<_> = l.qkv.iter().copied().zip(widths.iter().copied()).collect();
        let (gate, up, down, router) = if let (Some(experts), Some(mixture)) = (c.mixture(layer), l.mixture) {
            self.mixture(layer, experts, &mixture)?
        } else {
            let (gate, up) = if l.gate_up.is_empty() {
                let gate = c.gated.then(|| linear(l.gate, c.hidden, c.feed_forward, c.mlp_bias)).transpose()?;
                (gate, linear(l.up, c.hidden, c.feed_forward, c.mlp_bias)?)
            } else {
                let [gate, up] = self.halves(l.gate_up, layer, c.hidden, c.feed_forward, c.mlp_bias)?;
                (Some(gate), up)
            };
            (gate, up, linear(l.down, c.feed_forward, c.hidden, c.mlp_bias)?, None)
        };
        Ok(Block {
            norm_1: norm(c.norms_before, l.norm_1)?,
            norm_2: norm(c.has_second_norm(), l.norm_2)?,
            attention_norm: norm(c.norms_behind, l.attention_norm)?,
            mlp_norm: norm(c.norms_behind, l.mlp_norm)?,
            query_norm: self.head_norm(0, layer)?,
            key_norm: self.head_norm(1, layer)?,
            qkv: self.linear(&parts, layer, c.hidden, c.qkv_bias, |part, column| self.qkv_column(part, column))?,
            attention_out: linear(l.attention_out, attention, c.hidden, c.attention_out_bias)?,
            up,
            gate,
            down,
            router,
        })
    }

    /// A layer's experts side by side: gate, up- and down-projection, and what chooses among them.
    fn mixture(
        &self,
        layer: usize,
        experts: &Experts,
        mixture: &MixtureLayout,
    ) -> Result<(Option<Linear>, Linear, Linear, Option<Router>), ModelError> {
        let c = self.config;
        let parts = experts.parts();
        let stems: Vec<[String; 3]> = experts.ids().map(|id| mixture.stems(id)).collect();
        let side_by_side = |which: usize| {
            let named: Vec<(&str, usize)> =
                stems.iter().zip(&parts).map(|(stems, part)| (stems[which].as_str(), part.len())).collect();
            let starts: Vec<usize> = parts.iter().map(|part| part.start).collect();
            self.linear(&named, layer, c.hidden, false, |part, column| starts[part] + column)
        };
        let up = side_by_side(0)?;
        let gate = c.gated.then(|| side_by_side(1)).transpose()?;
        let (f, d) = (c.key_size(layer), c.hidden);
        let mut down = vec![0.0; f * d];
        for (stems, part) in stems.iter().zip(&parts) {
            let shape = self.layout.stored_shape(part.len(), d);
            let own = &mut down[part.start * d..part.end * d];
            self.checkpoint.read_rows(&weight(&stems[2], layer), &shape, |first, piece| {
                match self.layout.orientation {
                    Orientation::OutIn => scatter_turned(piece, part.len(), own, d, |row| first + row),
                    Orientation::InOut => own[first * d..][..piece.len()].copy_from_slice(piece),
                }
            })?;
        }
        let down = Linear { weight: Param::from_tensor(self.held(down, [f, d])), bias: None };
        let score = |stem: &str, outputs: usize| self.linear(&[(stem, outputs)], layer, d, false, |_, column| column);
        let scores = score(mixture.router, experts.count)?;
        let shared = experts.shared.map(|_| score(mixture.shared_router, 1)).transpose()?;
        Ok((gate, up, down, Some(Router { scores, shared })))
    }

    /// Two projections of the same size that are stored one behind the other, `[2 · output, input]`.
    fn halves(
        &self,
        stem: &str,
        layer: usize,
        input: usize,
        output: usize,
        bias: bool,
    ) -> Result<[Linear; 2], ModelError> {
        let mut turned = [vec![0.0; input * output], vec![0.0; input * output]];
        self.checkpoint.read_rows(&weight(stem, layer), &[2 * output, input], |first, piece| {
            let rows = piece.len() / input.max(1);
            for (half, target) in turned.iter_mut().enumerate() {
                let (from, to) = (first.max(half * output), (first + rows).min((half + 1) * output));
                if from < to {
                    let part = &piece[(from - first) * input..(to - first) * input];
                    scatter_turned(part, input, target, output, |row| from - half * output + row);
                }
            }
        })?;
        let biases = bias.then(|| self.values(&bias_name(stem, layer), &[2 * output])).transpose()?;
        let mut half = 0;
        Ok(turned.map(|values| {
            let own = biases.as_ref().map(|all| self.param(all[half * output..][..output].to_vec()));
            half += 1;
            Linear { weight: Param::from_tensor(self.held(values, [input, output])), bias: own }
        }))
    }

    /// Projections side by side as one `[in, out]`; `place` says to which column output `i` of part `p` goes.
    fn linear(
        &self,
        parts: &[(&str, usize)],
        layer: usize,
        input: usize,
        bias: bool,
        place: impl Fn(usize, usize) -> usize + Sync,
    ) -> Result<Linear, ModelError> {
        let total: usize = parts.iter().map(|(_, width)| width).sum();
        let mut joined = vec![0.0; input * total];
        let mut biases = vec![0.0; if bias { total } else { 0 }];
        for (part, &(stem, width)) in parts.iter().enumerate() {
            let shape = self.layout.stored_shape(input, width);
            self.checkpoint.read_rows(&weight(stem, layer), &shape, |first, piece| match self.layout.orientation {
                Orientation::OutIn => {
                    scatter_turned(piece, input, &mut joined, total, |row| place(part, first + row));
                }
                Orientation::InOut => {
                    for (row, values) in piece.chunks_exact(width).enumerate() {
                        for (column, value) in values.iter().enumerate() {
                            joined[(first + row) * total + place(part, column)] = *value;
                        }
                    }
                }
            })?;
            if bias {
                for (i, value) in self.values(&bias_name(stem, layer), &[width])?.into_iter().enumerate() {
                    biases[place(part, i)] = value;
                }
            }
        }
        Ok(Linear {
            weight: Param::from_tensor(self.held(joined, [input, total])),
            bias: bias.then(|| Param::from_tensor(Tensor::from_data(TensorData::new(biases, [total]), self.device))),
        })
    }

    /// Where output `column` of a stored query, key or value projection (`part`), or of the fused one, goes: all queries
    /// first, then keys, then values, and in queries and keys the rotated pairs half a head apart (see
    /// [`crate::Rotation`]).
    fn qkv_column(&self, part: usize, column: usize) -> usize {
        let c = self.config;
        let (dim, q, kv) = (c.head_dim, c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let starts = [0, q, q + kv];
        let column = if self.layout.by_head {
            // Of each key head its queries, its key and its value.
            let group = c.heads / c.kv_heads;
            let (head, rest) = (column / ((group + 2) * dim), column % ((group + 2) * dim));
            match (rest / dim).checked_sub(group) {
                None => head * group * dim + rest,
                Some(side) => starts[side + 1] + head * dim + rest % dim,
            }
        } else {
            starts[part] + column
        };
        if column < q + kv { self.paired(column) } else { column }
    }

    /// Where a number of queries or keys goes within its head.
    fn paired(&self, column: usize) -> usize {
        let dim = self.config.head_dim;
        match self.config.positions {
            Positions::Rotary(Rotary { dim: rotated, interleaved: true, .. }) => {
                let i = column % dim;
                let paired = if i < rotated { i / 2 + (i % 2) * (rotated / 2) } else { i };
                column - i + paired
            }
            _ => column,
        }
    }
}

/// Writes the rows of `piece` `[n, columns]` as columns of `target` `[columns, width]`, row `r` to column `place(r)`.
fn scatter_turned(
    piece: &[f32],
    columns: usize,
    target: &mut [f32],
    width: usize,
    place: impl Fn(usize) -> usize + Sync,
) {
    const TILE: usize = 32;
    let rows = piece.len() / columns;
    let places: Vec<usize> = (0..rows).map(place).collect();
    target.par_chunks_mut(TILE * width).enumerate().for_each(|(tile, target)| {
        let from = tile * TILE;
        let to = (from + TILE).min(columns);
        for rows in (0..rows).step_by(TILE).map(|r| r..(r + TILE).min(rows)) {
            for column in from..to {
                let target = &mut target[(column - from) * width..][..width];
                for row in rows.clone() {
                    target[places[row]] = piece[row * columns + column];
                }
            }
        }
    });
}
