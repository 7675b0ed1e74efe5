//! The numbers of a tensor on the CPU, where they lie.
//!
//! What is computed here and not by the tensor library reads weights and activations in place. This is the one file that looks inside a
//! tensor. A tensor that a GPU has, that is not in f32, or that autodiff follows has no numbers to look at.

use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_flex::{Flex, FlexTensor};
use palinode_kernels::{Matrix, Threads};

/// A tensor's numbers, shared with it.
#[derive(Clone, Debug)]
pub(crate) struct Numbers(FlexTensor);

impl Numbers {
    /// Of a tensor whose numbers lie one after another, or are copied so that they do.
    pub fn of<const D: usize>(tensor: Tensor<D>) -> Option<Self> {
        Some(Self(inside(tensor)?.to_contiguous()))
    }

    /// Of a matrix whose rows or columns lie one after another.
    pub fn of_matrix(tensor: Tensor<2>) -> Option<Self> {
        let numbers = Self(inside(tensor)?);
        numbers.matrix().is_some().then_some(numbers)
    }

    /// The numbers of [`Numbers::of`].
    pub fn slice(&self) -> &[f32] {
        self.0.as_slice().unwrap_or_default()
    }

    /// The matrix of [`Numbers::of_matrix`].
    pub fn matrix(&self) -> Option<Matrix<'_>> {
        let layout = self.0.layout();
        let (shape, start) = (layout.shape(), layout.start_offset());
        let (rows, columns) = (shape[0], shape[1]);
        let values = self.0.storage::<f32>().get(start..start + rows * columns)?;
        if layout.is_contiguous() {
            Some(Matrix::new(values, rows, columns))
        } else if layout.transpose(0, 1).is_contiguous() {
            Some(Matrix::new(values, columns, rows).turned())
        } else {
            None
        }
    }
}

fn inside<const D: usize>(tensor: Tensor<D>) -> Option<FlexTensor> {
    if tensor.dtype() != DType::F32 || tensor.device() != Device::flex() {
        return None;
    }
    tensor.try_into_primitive::<Flex>().ok()
}

/// Adds `Σ k kᵀ` of keys `[tokens, f]` to a sum of which the columns are given: products in f32, sums in f64. What is above the diagonal
/// stays as it is. See [`palinode_kernels::add_gram`].
///
/// # Panics
/// Where sizes do not fit each other.
pub fn add_key_products(columns: &mut [&mut [f64]], keys: &[f32]) {
    palinode_kernels::add_gram(columns, keys, Threads::All);
}

/// Rows `[n, size]` as a tensor on the CPU; they are not copied.
pub(crate) fn rows(values: Vec<f32>, size: usize) -> Tensor<2> {
    let n = values.len() / size;
    Tensor::from_data(TensorData::new(values, [n, size]), &Device::flex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_tensor_and_not_copied() {
        let tensor = rows((0..6).map(|i| i as f32).collect(), 3);
        let numbers = Numbers::of(tensor.clone()).unwrap();
        assert_eq!(numbers.slice(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let same = Numbers::of_matrix(tensor.clone().transpose()).unwrap();
        assert_eq!(same.0.bytes().as_ptr(), numbers.0.bytes().as_ptr());
        let matrix = same.matrix().unwrap();
        assert_eq!((matrix.inputs(), matrix.outputs()), (3, 2));
        let part = Numbers::of(tensor.clone().narrow(0, 1, 1)).unwrap();
        assert_eq!(part.slice(), [3.0, 4.0, 5.0]);
        assert!(Numbers::of_matrix(tensor.clone().narrow(1, 0, 2)).is_none());
        assert!(Numbers::of(tensor.clone().cast(DType::F16)).is_none());
        assert!(Numbers::of(tensor.autodiff()).is_none());
    }
}
