//! Keys of every token of a batch.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use palinode_kernels::Route;

use crate::batch::rows::{Activations, Places};
use crate::{ModelError, read};

/// The keys of a part: which places are routed to it, in rising order, and `[those places, f of the part]`, row by row.
pub type KeysOfPart = (Vec<usize>, Vec<f32>);

/// The down-projection's input at every token of a batch, `[tokens, f]`.
///
/// A layer with a mixture of experts has a wide key: the keys of its experts one behind the other, each multiplied with the token's gate,
/// and 0 where the token is not routed to. Most of it is 0, and kernels keep what is not.
#[derive(Clone, Debug)]
pub enum Keys {
    /// All numbers.
    Whole(Box<Activations>),
    /// The parts that tokens are routed to.
    Routed(Arc<RoutedKeys>),
}

/// Keys of a mixture of experts, on the CPU.
#[derive(Debug)]
pub struct RoutedKeys {
    /// Where each part lies in the wide key.
    parts: Vec<Range<usize>>,
    routes: Vec<Route>,
    /// Where the keys of each route begin among the values.
    starts: Vec<usize>,
    /// Route after route, `[tokens of the route, f of the part]`.
    values: Vec<f32>,
    tokens: usize,
}

impl Keys {
    pub(crate) fn routed(parts: Vec<Range<usize>>, routes: Vec<Route>, values: Vec<f32>) -> Self {
        let mut at = 0;
        let mut starts = Vec::with_capacity(routes.len());
        for route in &routes {
            starts.push(at);
            at += route.tokens.len() * parts[route.part].len();
        }
        let tokens = routes.iter().filter_map(|route| route.tokens.last()).max().map_or(0, |last| last + 1);
        Self::Routed(Arc::new(RoutedKeys { parts, routes, starts, values, tokens }))
    }

    /// The keys at the places, in their order: `[places, f]`.
    ///
    /// # Errors
    /// What the device failed at.
    pub fn at(&self, places: &Places) -> Result<Tensor<2>, ModelError> {
        let keys = match self {
            Self::Whole(keys) => return Ok(keys.at(places)),
            Self::Routed(keys) => keys,
        };
        let cells = places.cells(keys.tokens)?;
        let f = keys.parts.last().map_or(0, |part| part.end);
        let mut wide = vec![0.0; cells.len() * f];
        for (route, &start) in keys.routes.iter().zip(&keys.starts) {
            let part = keys.parts[route.part].clone();
            for (row, cell) in cells.iter().enumerate() {
                if let Ok(at) = route.tokens.binary_search(cell) {
                    let key = &keys.values[start + at * part.len()..][..part.len()];
                    wide[row * f..][part.clone()].copy_from_slice(key);
                }
            }
        }
        let device = burn::tensor::Device::flex();
        Ok(Tensor::from_data(TensorData::new(wide, [cells.len(), f]), &device))
    }

    /// The keys at the places that are not 0, of each of the `parts` of a key.
    ///
    /// # Errors
    /// What the device failed at.
    pub fn by_part(&self, places: &Places, parts: &[Range<usize>]) -> Result<Vec<KeysOfPart>, ModelError> {
        let keys = match self {
            Self::Whole(keys) => {
                let all: Vec<f32> = read(keys.at(places))?;
                let f = parts.last().map_or(1, |part| part.end).max(1);
                if let [_] = parts {
                    return Ok(vec![((0..all.len() / f).collect(), all)]);
                }
                let of = |part: &Range<usize>| {
                    let own = all.chunks_exact(f).map(|row| &row[part.clone()]).enumerate();
                    // A gate of 0 leaves nothing; a key of a routed token that is 0 in every number adds nothing either way.
                    let used: Vec<(usize, &[f32])> = own.filter(|(_, key)| key.iter().any(|x| *x != 0.0)).collect();
                    (used.iter().map(|(at, _)| *at).collect(), used.iter().flat_map(|(_, key)| *key).copied().collect())
                };
                return Ok(parts.iter().map(of).collect());
            }
            Self::Routed(keys) => keys,
        };
        let cells = places.cells(keys.tokens)?;
        let mut found = vec![(Vec::new(), Vec::new()); parts.len()];
        for (route, &start) in keys.routes.iter().zip(&keys.starts) {
            let size = keys.parts[route.part].len();
            let (places, own) = &mut found[route.part];
            for (place, cell) in cells.iter().enumerate() {
                if let Ok(at) = route.tokens.binary_search(cell) {
                    places.push(place);
                    own.extend_from_slice(&keys.values[start + at * size..][..size]);
                }
            }
        }
        Ok(found)
    }
}
