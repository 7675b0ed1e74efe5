//! A weight where it lies.

use crate::compute::Compute;

/// A weight matrix where it lies: `inputs × outputs` numbers, whichever of them are neighbours.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) input_stride: usize,
    pub(crate) output_stride: usize,
    pub(crate) compute: Compute,
}

impl<'a> Matrix<'a> {
    /// Of numbers that lie as `[inputs, outputs]`.
    ///
    /// # Panics
    /// Where there are more or fewer.
    pub fn new(values: &'a [f32], inputs: usize, outputs: usize) -> Self {
        assert_eq!(values.len(), inputs * outputs, "a matrix has as many numbers as its shape says");
        Self { values, inputs, outputs, input_stride: outputs, output_stride: 1, compute: Compute::F32 }
    }

    /// The same matrix, whose numbers are rounded in products, as what they are multiplied with is.
    #[must_use]
    pub fn computed_in(self, compute: Compute) -> Self {
        Self { compute, ..self }
    }

    /// The transposed matrix: the same numbers.
    #[must_use]
    pub fn turned(self) -> Self {
        Self {
            inputs: self.outputs,
            outputs: self.inputs,
            input_stride: self.output_stride,
            output_stride: self.input_stride,
            ..self
        }
    }

    /// What its numbers are rounded to in products.
    pub fn compute(&self) -> Compute {
        self.compute
    }

    /// Numbers of a row that goes in.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Numbers of a row that comes out.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Its numbers, and how far apart neighbouring inputs and outputs are.
    pub(crate) fn parts(&self) -> (&'a [f32], [usize; 2]) {
        (self.values, [self.input_stride, self.output_stride])
    }

    /// The inputs from one on, and the same of what they are multiplied with.
    pub(crate) fn from(self, input: usize, count: usize) -> Self {
        Self { values: &self.values[input * self.input_stride..], inputs: count, ..self }
    }
}
