//! Products with weights that are held in fewer bits than what runs through the model.
//!
//! The hidden state, norms, attention, losses and everything that an edit computes stay in f32. Weights held in f16 or bf16 take half
//! the memory, and products with them are taken in their own type, which GPUs do several times faster.

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{DType, Tensor};

/// `x · weight`, `[n, out]` in f32, for rows `x` `[n, in]` in f32 and a weight `[in, out]` of any floating-point type.
pub fn matmul(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    match weight.dtype() {
        DType::F32 => x.matmul(weight),
        held => x.cast(held).matmul(weight).cast(DType::F32),
    }
}

/// A projection of rows, with its bias where there is one.
pub(crate) fn project(linear: &Linear, x: Tensor<2>) -> Tensor<2> {
    let weight = linear.weight.val();
    if weight.dtype() == DType::F32 {
        return linear.forward(x);
    }
    let out = matmul(x, weight);
    match linear.bias.as_ref().map(Param::val) {
        Some(bias) => out + bias.unsqueeze(),
        None => out,
    }
}
