//! How many heads there are, and how large.

/// The heads of a layer's attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, each shared by as many neighbouring query heads.
    pub kv_heads: usize,
    /// Size of a head.
    pub dim: usize,
    /// How many positions a query looks back over, its own counted; all where there is none.
    pub window: Option<usize>,
    /// What products of queries and keys are multiplied with; `1/√dim` where there is none.
    pub scale: Option<f32>,
    /// Scores `s` become `cap · tanh(s/cap)`.
    pub cap: Option<f32>,
    /// What distance adds to scores.
    pub alibi: Option<Alibi>,
}

/// Attention with linear biases (arXiv 2108.12409): a key that stands `n` tokens before the query has `slope · n` less. Slopes fall from
/// head to head as powers of 2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alibi {
    /// Of `h` heads, a power of 2, the last has the slope `2^(−most)`, and head `i` of them, counted from 1, `2^(−most·i/h)`.
    pub most: f32,
    /// What biases are multiplied with.
    pub scale: f32,
    /// Slopes and their products with positions are rounded to 8 bits (bfloat16), as Falcon has them.
    pub rounded: bool,
}

impl Alibi {
    /// The slope of a head. Where their number `h` is no power of 2, the first heads have the slopes of the next lower one, and those left
    /// every second slope of the next higher one.
    pub fn slope(&self, head: usize, heads: usize) -> f32 {
        let whole = if heads.is_power_of_two() { heads } else { heads.next_power_of_two() / 2 };
        let power = |i: usize, of: usize| (-f64::from(self.most) * i as f64 / of as f64).exp2() as f32;
        let slope = if head < whole { power(head + 1, whole) } else { power(2 * (head - whole) + 1, 2 * whole) };
        if self.rounded { rounded(slope) } else { slope }
    }

    /// What is added to the score of a query and a key at these places of a text, with their head's slope.
    #[inline(always)]
    pub fn bias(&self, slope: f32, query: usize, key: usize) -> f32 {
        if self.rounded {
            (rounded(slope * key as f32) - rounded(slope * query as f32)) * self.scale
        } else {
            slope * (key as f32 - query as f32) * self.scale
        }
    }
}

/// The nearest number that bfloat16 has, the even one of two.
#[inline(always)]
fn rounded(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits(bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) & 0xffff_0000)
}

impl Heads {
    /// Of plain attention.
    pub const fn new(heads: usize, kv_heads: usize, dim: usize, window: Option<usize>) -> Self {
        Self { heads, kv_heads, dim, window, scale: None, cap: None, alibi: None }
    }

    /// What products of queries and keys are multiplied with.
    pub(crate) fn factor(&self) -> f32 {
        self.scale.unwrap_or_else(|| 1.0 / (self.dim as f32).sqrt())
    }

    /// Numbers of a token's queries, keys and values side by side.
    pub fn width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.dim
    }

    /// Numbers of a token's queries, and of what attention yields for it.
    pub fn queries(&self) -> usize {
        self.heads * self.dim
    }
}
