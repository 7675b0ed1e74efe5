//! What a block of a decoder computes on the CPU, with weights that do not change.
//!
//! Numbers go in and come out as `f32` slices. A batch is *packed*: its tokens lie one behind the other, `[tokens, size]`, and no cell is
//! padding. Weights stay where they are and are read through strides. Every operation has its way back: the product of a gradient with the
//! operation's derivative with respect to what went in, weights taken as constants.
//!
//! **A token's numbers depend on the tokens that it sees, and on nothing else**: not on what else is in the batch, not on how many tokens
//! that are, not on the number of threads, not on whether earlier tokens are computed with it or were kept as a [`Past`]. Not to the last
//! bit. Each sum has one order, which the sizes of the model and the positions in the text decide:
//!
//! * a product's sums run over its inputs in blocks of at most 512, one multiply-add after another ([`product()`]); where
//!   factors are rounded to bf16 ([`Compute`]), in blocks of at most 1,024, sixteen inputs at a time;
//! * norms sum in f64 over the row;
//! * attention takes the keys of a text in blocks of 64 that begin at its first token ([`attend`]).
//!
//! Gradients of keys and values sum over the queries of their row, so that they depend on the row alone.
//!
//! Machines differ in the last digits where one has no fused multiply-add.
#![expect(
    clippy::inline_always,
    reason = "vector instructions are chosen by the outermost function, and reach what is inlined into it alone"
)]
#![expect(clippy::too_many_arguments, reason = "an inner loop takes its sizes as they are")]

mod activation;
mod amx;
mod attention;
mod bf16;
mod block;
mod compute;
mod copies;
mod dispatch;
mod elementary;
mod experts;
mod gram;
mod heads;
mod matrix;
mod norm;
mod panels;
mod past;
mod product;
mod projection;
mod read_out;
mod rotation;
mod softmax;
mod tile;

pub use activation::{Activation, activate, activate_back};
pub use attention::{Attended, Row, attend, attend_back};
pub use block::{Arrangement, Batch, Block, Kept, Passed, Pins};
pub use compute::Compute;
pub use dispatch::Threads;
pub use experts::{Experts, Route};
pub use gram::add_gram;
pub use heads::{Alibi, Heads};
pub use matrix::Matrix;
pub use norm::{HeadNorm, Norm, NormKind};
pub use panels::Packed;
pub use past::Past;
pub use product::{product, product_packed};
pub use projection::Projection;
pub use read_out::ReadOut;
pub use rotation::Rotation;
pub use softmax::{Probabilities, cross_entropy, divergence, log_softmax, probabilities};
