//! Beginnings with several ways on from them, each as one row.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

/// Rows that part: a trunk, and after it branches beside each other, none of which sees another. Each branch stands where the
/// trunk ends, so that what is computed is what every way on would give by itself, and the trunk is run once for all of them.
///
/// Layers whose attention looks back over fewer positions than a row has tokens measure distances along the row, which here is
/// wrong: see [`crate::DecoderConfig::sees`].
#[derive(Clone, Debug)]
pub struct Forks {
    /// `[batch, seq]`: trunks, branch after branch, and padding.
    pub(crate) ids: Tensor<2, Int>,
    /// Where each token stands.
    pub(crate) positions: Vec<Vec<usize>>,
    /// `[batch, 1, seq, seq]`, true where a query must not look.
    pub(crate) mask: Tensor<4, Bool>,
}

impl Forks {
    /// Rows of a trunk and its branches; as many tokens as all of them have.
    pub fn new(rows: &[(&[u32], &[Vec<u32>])], device: &Device) -> Self {
        let length =
            |(trunk, branches): &(&[u32], &[Vec<u32>])| trunk.len() + branches.iter().map(Vec::len).sum::<usize>();
        let width = rows.iter().map(length).max().unwrap_or(0);
        let mut ids: Vec<i32> = Vec::with_capacity(rows.len() * width);
        let mut positions = Vec::with_capacity(rows.len());
        let mut mask = Vec::with_capacity(rows.len() * width * width);
        for (trunk, branches) in rows {
            // Of every token its branch, 0 for the trunk; padding is a branch of its own.
            let mut branch = vec![0; trunk.len()];
            let mut places: Vec<usize> = (0..trunk.len()).collect();
            ids.extend(trunk.iter().map(|&id| id as i32));
            for (number, way) in branches.iter().enumerate() {
                ids.extend(way.iter().map(|&id| id as i32));
                places.extend(trunk.len()..trunk.len() + way.len());
                branch.extend(vec![number + 1; way.len()]);
            }
            ids.resize(positions.len() * width + width, 0);
            places.resize(width, 0);
            branch.resize(width, branches.len() + 1);
            positions.push(places);
            let hidden = |query: usize, key: usize| key > query || (branch[key] != 0 && branch[key] != branch[query]);
            mask.extend(
                (0..width).flat_map(|query| (0..width).map(move |key| (query, key))).map(|(q, k)| hidden(q, k)),
            );
        }
        let shape = [rows.len(), 1, width, width];
        Self {
            ids: Tensor::from_data(TensorData::new(ids, [rows.len(), width]), device),
            positions,
            mask: Tensor::from_data(TensorData::new(mask, shape), device),
        }
    }

    /// Padded length.
    pub fn width(&self) -> usize {
        self.ids.dims()[1]
    }
}
