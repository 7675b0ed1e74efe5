//! Tensors put together.

use burn::tensor::Tensor;

use crate::is_cpu;

/// The parts one behind the other along `dim`: [`Tensor::cat`], which on a GPU fails where one of the parts was never computed.
///
/// A GPU leaves out what it has no memory for, and refuses to give away whatever depends on that. But Burn (0.22.1) copies parts into
/// their places one after another, and a copy that succeeds makes the GPU forget one that did not: it would give the whole away with a
/// hole in it. So one number of every part, made 0 whatever it is, is added to the whole, which then depends on all parts at once. That
/// costs a few small kernels, and nothing on a CPU, where a failure to allocate never yields a tensor.
#[expect(clippy::disallowed_methods, reason = "this is what is used in its place")]
pub fn cat<const D: usize>(mut parts: Vec<Tensor<D>>, dim: usize) -> Tensor<D> {
    if parts.len() < 2 {
        return parts.pop().unwrap_or_else(|| Tensor::cat(Vec::new(), dim));
    }
    if is_cpu(&parts[0].device()) {
        return Tensor::cat(parts, dim);
    }
    let touched = parts.iter().map(|part| {
        let number = part.clone().slice(std::array::from_fn::<_, D, _>(|_| 0..1));
        number.is_nan().float().mul_scalar(0.0)
    });
    let touched = touched.reduce(|sum, zero| sum + zero);
    let whole = Tensor::cat(parts, dim);
    match touched {
        Some(zero) => whole + zero,
        None => whole,
    }
}
