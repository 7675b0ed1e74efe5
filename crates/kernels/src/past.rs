//! Keys and values of tokens that were computed earlier.

use crate::heads::Heads;
use crate::tile::STRIP;

/// Keys (rotated) and values of one text's earlier tokens, in one layer. New ones are appended in place.
///
/// Keys lie in strips of 16 tokens, `[strips, kv_heads, dim, 16]`, in which a query is multiplied with 16 of them at a time; values lie as
/// `[tokens, kv_heads, dim]`.
#[derive(Clone, Debug, Default)]
pub struct Past {
    length: usize,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Past {
    /// Of no tokens.
    pub fn new() -> Self {
        Self::default()
    }

    /// Of no tokens, with room for so many: appending no more than those moves nothing.
    pub fn with_room(tokens: usize, heads: &Heads) -> Self {
        let size = heads.kv_heads * heads.dim;
        let keys = Vec::with_capacity(tokens.div_ceil(STRIP) * STRIP * size);
        Self { length: 0, keys, values: Vec::with_capacity(tokens * size) }
    }

    /// Tokens in it.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Numbers that it holds, some of them room for tokens to come.
    pub fn held(&self) -> usize {
        self.keys.len() + self.values.len()
    }

    /// Appends tokens, given their rows of queries, keys and values side by side, `[tokens, (heads + 2·kv_heads)·dim]`, as
    /// [`crate::Passed::qkv`] has them.
    pub fn append(&mut self, qkv: &[f32], heads: &Heads) {
        let Heads { kv_heads, dim, .. } = *heads;
        let strip = kv_heads * dim * STRIP;
        for row in qkv.chunks_exact(heads.width()) {
            let column = self.length % STRIP;
            if column == 0 {
                self.keys.resize(self.keys.len() + strip, 0.0);
            }
            let last = self.keys.len() - strip;
            let keys = &row[heads.heads * dim..][..kv_heads * dim];
            for (i, key) in keys.iter().enumerate() {
                self.keys[last + i * STRIP + column] = *key;
            }
            self.values.extend_from_slice(&row[(heads.heads + kv_heads) * dim..][..kv_heads * dim]);
            self.length += 1;
        }
    }

    /// A key head's strip, `[dim, 16]`; columns behind the last token are 0.
    #[inline(always)]
    pub(crate) fn strip(&self, number: usize, head: usize, heads: &Heads) -> &[f32] {
        let size = heads.dim * STRIP;
        &self.keys[(number * heads.kv_heads + head) * size..][..size]
    }

    /// A head's values from a token on, `kv_heads · dim` numbers apart.
    #[inline(always)]
    pub(crate) fn values(&self, token: usize, head: usize, heads: &Heads) -> &[f32] {
        &self.values[(token * heads.kv_heads + head) * heads.dim..]
    }
}
