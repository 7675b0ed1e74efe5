//! Keys of some tokens, without what is 0.

use std::ops::Range;

use faer::ColMut;

/// Keys of some tokens, part by part: which tokens use a part, and what their keys hold of it. What a token does not use is 0, and takes no
/// memory: a token of a mixture of experts uses a few of a hundred.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PartKeys {
    tokens: usize,
    parts: Vec<(Vec<usize>, Vec<f32>)>,
}

impl PartKeys {
    /// Of so many tokens: of each part the tokens that use it, in rising order, and their keys, `[those tokens, f of the part]`, row-major.
    pub fn new(tokens: usize, parts: Vec<(Vec<usize>, Vec<f32>)>) -> Self {
        Self { tokens, parts }
    }

    /// Of whole keys, row-major `[tokens, f]`, whose parts lie at `ranges`. A token uses a part where the part of its key is not 0; the one part of
    /// keys that have no other is used by all.
    pub fn of(keys: &[f32], ranges: impl IntoIterator<Item = Range<usize>>) -> Self {
        let ranges: Vec<Range<usize>> = ranges.into_iter().collect();
        let f = ranges.last().map_or(0, |range| range.end).max(1);
        let several = ranges.len() > 1;
        let part = |range: Range<usize>| {
            let own = keys.chunks_exact(f).map(|key| &key[range.clone()]).enumerate();
            let used: Vec<(usize, &[f32])> = own.filter(|(_, key)| !several || key.iter().any(|x| *x != 0.0)).collect();
            (used.iter().map(|(at, _)| *at).collect(), used.iter().flat_map(|(_, key)| *key).copied().collect())
        };
        Self { tokens: keys.len() / f, parts: ranges.into_iter().map(part).collect() }
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The tokens that use a part, in rising order.
    pub fn users(&self, part: usize) -> &[usize] {
        self.parts.get(part).map_or(&[], |(users, _)| users)
    }

    /// What the keys of the tokens that use a part hold of it, one behind the other.
    pub fn values(&self, part: usize) -> &[f32] {
        self.parts.get(part).map_or(&[], |(_, values)| values)
    }

    /// Writes a token's key over zeros, `f` numbers, whose parts lie at `ranges`.
    pub fn write(&self, token: usize, ranges: impl IntoIterator<Item = Range<usize>>, mut to: ColMut<'_, f64>) {
        for (range, (users, values)) in ranges.into_iter().zip(&self.parts) {
            if let Ok(at) = users.binary_search(&token) {
                let own = values[at * range.len()..].iter();
                range.zip(own).for_each(|(i, value)| to[i] = f64::from(*value));
            }
        }
    }
}
