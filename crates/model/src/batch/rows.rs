//! Rows of token ids in the form in which a decoder computes them.
//!
//! A row is a sequence of token ids. Callers hand over rows and ask for values at `(row, position)`, or at every token; where a token's
//! numbers lie is decided here and known to this crate alone. There are two forms:
//!
//! * **Padded**: rows are filled up to the longest one. A batch is a rectangle, and its attention is one operation. Causal attention never
//!   looks right, so padding needs no mask: nothing reads what is computed at a padded position.
//! * **Packed**: rows lie one behind the other. Products, norms and activations run over all tokens and nothing else; attention is
//!   computed row by row.
//!
//! Both give the same values but for last digits, since a product's sums depend on its shape. The decoder chooses: packed rows where
//! kernels of our own compute, on the CPU, and padded ones elsewhere.

use burn::tensor::{Bool, Device, IndexingUpdateOp, Int, Tensor, TensorData};

use std::ops::Range;
use std::sync::Arc;

use crate::batch::host_rows::HostRows;
use crate::decoder::rotation::{Both, Rotation};
use crate::{ModelError, read};

/// Where the tokens of a batch lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum RowForm {
    /// As a rectangle.
    #[default]
    Padded,
    /// One row behind the other.
    Packed,
}

/// The rows of a batch, ready to be run: see [`crate::Decoder::rows`] and [`crate::Decoder::shared_prefix`].
#[derive(Clone, Debug)]
pub struct Rows {
    /// `[cells]`: every token, and padding where there is any.
    pub(crate) ids: Tensor<1, Int>,
    /// Of each packed row the cells of its first tokens, and of the ways on from them.
    pub(crate) parts: Vec<(Range<usize>, Vec<Range<usize>>)>,
    pub(crate) frame: Frame,
    /// What is added to the embeddings of some tokens.
    pub(crate) added: Option<Arc<(Places, Tensor<2>)>>,
    /// What is added further up.
    pub(crate) injected: Option<Arc<Injected>>,
}

/// Vectors added to the hidden state after a layer, or to its down-projection's output, at some tokens.
#[derive(Debug)]
pub(crate) struct Injected {
    pub layer: usize,
    pub places: Places,
    /// `[places, d]`.
    pub values: Tensor<2>,
    /// Whether they are added to the down-projection's output.
    pub at_projection: bool,
}

/// All that a block has to know of the batch that it computes.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub shape: Shape,
    /// Rotations at every token; none where positions enter otherwise.
    pub rotation: Both<Rotation>,
    /// The position of each token in its text: one entry for all rows, or one for each row of the rectangle. Packed rows are one
    /// rectangle's row.
    pub positions: Vec<Vec<usize>>,
    /// For each of the shape's [`Shape::spans`], where its queries must not look, true there; causal attention where there is none.
    pub masks: Vec<Option<Tensor<4, Bool>>>,
    /// The same for kernels, where they compute.
    pub host: Option<Arc<HostRows>>,
}

/// How many tokens the rows have and where they lie.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// Tokens of each row.
    lengths: Vec<usize>,
    /// The cell of each row's first token.
    starts: Vec<usize>,
    /// Cells of each row in the rectangle; none of packed rows.
    width: Option<usize>,
}

/// Tokens of some rows: what values are asked for at.
#[derive(Clone, Debug)]
pub struct Places(Option<Tensor<1, Int>>);

/// Values of every token of a batch: a vector of size `n` for each.
#[derive(Clone, Debug)]
pub struct Activations(pub(crate) Tensor<2>);

impl Activations {
    /// The values at the places, in their order: `[places, n]`.
    pub fn at(&self, places: &Places) -> Tensor<2> {
        match &places.0 {
            Some(cells) => self.0.clone().select(0, cells.clone()),
            None => self.0.clone(),
        }
    }

    /// The same with `values` `[places, n]` added at the places.
    #[must_use]
    pub fn plus(&self, places: &Places, values: Tensor<2>) -> Self {
        Self(match &places.0 {
            Some(cells) => self.0.clone().select_assign(0, cells.clone(), values, IndexingUpdateOp::Add),
            None => self.0.clone() + values,
        })
    }
}

impl Places {
    /// The cells, of so many that there are.
    pub(crate) fn cells(&self, all: usize) -> Result<Vec<usize>, ModelError> {
        match &self.0 {
            None => Ok((0..all).collect()),
            Some(cells) => Ok(read::<i32, 1, Int>(cells.clone())?.into_iter().map(|cell| cell as usize).collect()),
        }
    }
}

impl Rows {
    /// Rows of token ids, without rotation; `form` says where they lie.
    pub(crate) fn new<R: AsRef<[u32]>>(rows: &[R], form: RowForm, device: &Device) -> Self {
        let shape = Shape::new(rows.iter().map(|row| row.as_ref().len()).collect(), form);
        let mut ids = Vec::with_capacity(shape.cells());
        for (row, tokens) in rows.iter().enumerate() {
            ids.extend(tokens.as_ref().iter().map(|&id| id as i32));
            // Padding is token 0.
            ids.resize(shape.starts[row] + shape.room(row), 0);
        }
        let positions = match shape.width {
            Some(width) => vec![(0..width).collect()],
            None => vec![shape.lengths.iter().flat_map(|&length| 0..length).collect()],
        };
        let masks = vec![None; shape.spans().len()];
        let ids = Tensor::from_data(TensorData::new(ids, [shape.cells()]), device);
        let parts =
            shape.starts.iter().zip(&shape.lengths).map(|(&start, &length)| (start..start + length, Vec::new()));
        let parts = parts.collect();
        let frame = Frame { shape, rotation: [None, None], positions, masks, host: None };
        Self { ids, parts, frame, added: None, injected: None }
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.frame.shape.lengths.len()
    }

    /// Tokens of each row.
    pub fn lengths(&self) -> &[usize] {
        &self.frame.shape.lengths
    }

    /// The tokens at positions of rows, as pairs of both, counted from 0. A position must be one that its row has.
    pub fn places(&self, tokens: impl IntoIterator<Item = (usize, usize)>) -> Places {
        self.frame.shape.places(tokens, &self.ids.device())
    }

    /// Every token, row after row.
    pub fn all(&self) -> Places {
        let shape = &self.frame.shape;
        if shape.cells() == shape.lengths.iter().sum::<usize>() {
            return Places(None);
        }
        let lengths = shape.lengths.iter().enumerate();
        self.places(lengths.flat_map(|(row, &length)| (0..length).map(move |position| (row, position))))
    }

    /// The same rows with `values` `[places, d]` added to the embeddings of tokens.
    #[must_use]
    pub fn added(mut self, places: Places, values: Tensor<2>) -> Self {
        self.added = Some(Arc::new((places, values)));
        self
    }

    /// The same rows, whose way through the blocks ([`crate::Decoder::walk`], [`crate::Decoder::visit_all`]) adds `values` `[tokens, d]` to
    /// the hidden state after `layer`, or to its down-projection's output, at tokens given by row and position.
    #[must_use]
    pub fn injecting(
        mut self,
        layer: usize,
        tokens: impl IntoIterator<Item = (usize, usize)>,
        values: Tensor<2>,
        at_projection: bool,
    ) -> Self {
        let places = self.places(tokens);
        self.injected = Some(Arc::new(Injected { layer, places, values, at_projection }));
        self
    }

    /// The same rows, whose attention is decided by `mask` `[rows, 1, length, length]` alone, true where a query must not look. All of
    /// them have the same length.
    #[must_use]
    pub fn masked(mut self, mask: &Tensor<4, Bool>) -> Self {
        self.frame.host = None;
        self.frame.masks = match self.frame.shape.width {
            Some(_) => vec![Some(mask.clone())],
            None => (0..self.count()).map(|row| Some(mask.clone().narrow(0, row, 1))).collect(),
        };
        self
    }
}

impl Shape {
    /// Of rows of these lengths. A single row is a rectangle.
    pub fn new(lengths: Vec<usize>, form: RowForm) -> Self {
        let padded = form == RowForm::Padded || lengths.len() == 1;
        let width = padded.then(|| lengths.iter().copied().max().unwrap_or(0));
        let next = |start: &mut usize, length: &usize| {
            let at = *start;
            *start += width.unwrap_or(*length);
            Some(at)
        };
        let starts = lengths.iter().scan(0, next).collect();
        Self { lengths, starts, width }
    }

    /// Tokens, padding included.
    pub fn cells(&self) -> usize {
        match self.width {
            Some(width) => self.lengths.len() * width,
            None => self.lengths.iter().sum(),
        }
    }

    /// Cells that are no row's token.
    pub fn padding(&self) -> usize {
        self.cells() - self.lengths.iter().sum::<usize>()
    }

    /// The rectangle that the cells are: its rows and the cells of each. Packed rows are one.
    pub fn rectangle(&self) -> [usize; 2] {
        match self.width {
            Some(width) => [self.lengths.len(), width],
            None => [1, self.cells()],
        }
    }

    /// The parts of the rectangle's columns that attend to themselves, as start and length: all of a padded rectangle's, or each of the
    /// packed rows.
    pub fn spans(&self) -> Vec<(usize, usize)> {
        match self.width {
            Some(width) => vec![(0, width)],
            None => self.starts.iter().copied().zip(self.lengths.iter().copied()).collect(),
        }
    }

    /// Where a row's token lies.
    pub fn cell(&self, row: usize, position: usize) -> usize {
        self.starts[row] + position
    }

    /// Cells that a row has: its tokens, and its padding.
    pub fn room(&self, row: usize) -> usize {
        self.width.unwrap_or(self.lengths[row])
    }

    /// See [`Rows::places`].
    pub fn places(&self, tokens: impl IntoIterator<Item = (usize, usize)>, device: &Device) -> Places {
        let cells = tokens.into_iter().map(|(row, position)| self.cell(row, position) as i32);
        Places(Some(indices(cells.collect(), device)))
    }
}

/// Indices on a device.
pub(crate) fn indices(values: Vec<i32>, device: &Device) -> Tensor<1, Int> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}
