//! Batches of texts that share their beginning.

use burn::tensor::{Device, Tensor, TensorData};

use crate::Rows;
use crate::batch::rows::RowForm;

/// Rows of a prefix and what may follow it: the prefix's tokens, then those of each continuation, beside each other.
///
/// A prompt with several targets is one text several times over but for its end, and each layer would compute the same keys and values of
/// the prompt for each. Here the prompt is computed once. What makes that right are two things that a decoder knows of a token: its
/// position, and the tokens that it attends to. Each continuation is given the positions that it has in its own text, right behind the
/// prefix, and a mask hides the other continuations from it. Every token then sees exactly the tokens of its own text, in their places,
/// and its values are those of that text run alone.
///
/// It does not hold where a layer's attention looks back over fewer positions than the row has tokens, since windows measure distance
/// along the row, where other continuations lie between: see [`crate::DecoderConfig::sees`].
pub(crate) fn rows(texts: &[(&[u32], &[Vec<u32>])], form: RowForm, device: &Device) -> Rows {
    let ids: Vec<Vec<u32>> = texts.iter().map(|(prefix, ways)| [*prefix, &ways.concat()].concat()).collect();
    let mut rows = Rows::new(&ids, form, device);
    let mut positions = Vec::with_capacity(texts.len());
    let mut masks = Vec::with_capacity(texts.len());
    for (row, (prefix, ways)) in texts.iter().enumerate() {
        let cells = rows.frame.shape.room(row);
        // Of every token its continuation, 0 for the prefix; padding is a continuation of its own.
        let mut way = vec![0; prefix.len()];
        let mut places: Vec<usize> = (0..prefix.len()).collect();
        for (number, tokens) in ways.iter().enumerate() {
            places.extend(prefix.len()..prefix.len() + tokens.len());
            way.extend(vec![number + 1; tokens.len()]);
        }
        places.resize(cells, 0);
        way.resize(cells, ways.len() + 1);
        positions.push(places);
        let start = rows.frame.shape.cell(row, 0);
        let stem = start..start + prefix.len();
        let next = |end: &mut usize, tokens: &Vec<u32>| {
            let from = *end;
            *end += tokens.len();
            Some(from..*end)
        };
        rows.parts[row] = (stem.clone(), ways.iter().scan(stem.end, next).collect());
        let hidden = |query: usize, key: usize| key > query || (way[key] != 0 && way[key] != way[query]);
        let mask: Vec<bool> =
            (0..cells).flat_map(|query| (0..cells).map(move |key| (query, key))).map(|(q, k)| hidden(q, k)).collect();
        masks.push((mask, cells));
    }
    let tensor = |mask: Vec<bool>, shape: [usize; 4]| Some(Tensor::from_data(TensorData::new(mask, shape), device));
    if rows.frame.masks.len() == 1 {
        // A rectangle: all of its rows have the same number of cells.
        let cells = masks.first().map_or(0, |(_, cells)| *cells);
        let mask = masks.into_iter().flat_map(|(mask, _)| mask).collect();
        rows.frame.masks = vec![tensor(mask, [texts.len(), 1, cells, cells])];
        rows.frame.positions = positions;
    } else {
        rows.frame.masks = masks.into_iter().map(|(mask, cells)| tensor(mask, [1, 1, cells, cells])).collect();
        rows.frame.positions = vec![positions.concat()];
    }
    rows
}
