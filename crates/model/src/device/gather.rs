//! One number of every row.

use burn::tensor::{Int, Tensor};

use crate::is_cpu;

/// The number of each row of `x`, `[n, V]`, at the row's index in `index`, `[n, 1]`: what `gather` gives.
///
/// On a GPU Burn (0.22.1) may join a gather with what is done to whole rows beside it, and then reads, for every four of their numbers, the
/// indices of four rows. There the number is picked out by what it is not: the others are taken for 0, and all are summed.
#[expect(clippy::disallowed_methods, reason = "this is what is used in its place")]
pub fn gather(x: Tensor<2>, index: Tensor<2, Int>) -> Tensor<2> {
    if is_cpu(&x.device()) { x.gather(1, index) } else { gather_by_sum(x, index) }
}

fn gather_by_sum(x: Tensor<2>, index: Tensor<2, Int>) -> Tensor<2> {
    let [n, width] = x.dims();
    let places = Tensor::<1, Int>::arange(0..width as i64, &index.device()).reshape([1, width]).expand([n, width]);
    x.mask_fill(places.not_equal(index.expand([n, width])), 0.0).sum_dim(1)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::read;

    #[test]
    fn both_ways_pick_the_same() {
        let device = Device::flex();
        let x = Tensor::<1>::from_floats([1.5, f32::INFINITY, -3.0, 4.0, 0.5, f32::NAN, 7.0, -8.0], &device)
            .reshape([2, 4]);
        for indices in [[0, 2], [3, 3], [2, 0]] {
            let index = Tensor::<1, Int>::from_ints(indices, &device).reshape([2, 1]);
            let picked = |x: Tensor<2>| read::<f32, _, _>(x).unwrap();
            assert_eq!(picked(gather_by_sum(x.clone(), index.clone())), picked(gather(x.clone(), index)));
        }
    }
}
