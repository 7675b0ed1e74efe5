//! How many heads there are, and how large.

/// The heads of a layer's attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, each shared by as many neighbouring query heads.
    pub kv_heads: usize,
    /// Size of a head. Scores are divided by its root.
    pub dim: usize,
    /// How many positions a query looks back over, its own counted; all where there is none.
    pub window: Option<usize>,
}

impl Heads {
    /// Numbers of a token's queries, keys and values side by side.
    pub fn width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.dim
    }

    /// Numbers of a token's queries, and of what attention yields for it.
    pub fn queries(&self) -> usize {
        self.heads * self.dim
    }
}
