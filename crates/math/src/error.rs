//! What can be wrong with numbers.

/// A failure of the mathematics, with the numbers that explain it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MathError {
    /// Two matrices do not fit each other.
    #[error("{what} has {found}, expected {expected}")]
    Dimension {
        /// Which matrix and axis.
        what: &'static str,
        /// As given.
        found: usize,
        /// As needed.
        expected: usize,
    },
    /// A parameter outside its range.
    #[error("{name} is {value}, expected {expected}")]
    Parameter {
        /// The parameter.
        name: &'static str,
        /// As given.
        value: f64,
        /// Its range in words.
        expected: &'static str,
    },
    /// A matrix holds NaN or an infinity.
    #[error("{what} holds a value that is not finite")]
    NotFinite {
        /// Which matrix.
        what: &'static str,
    },
    /// λ and ρ take numbers out of the range of f64.
    #[error("{what} leaves the range of floating-point numbers: λ or ρ is too large or too small")]
    OutOfRange {
        /// What they make.
        what: &'static str,
    },
    /// A matrix that is said to be a second moment and cannot be one.
    #[error("not a second moment: entry [{row}, {column}] is {value:.6e}, but {why}")]
    NotAMoment {
        /// Row of the entry at fault.
        row: usize,
        /// Its column.
        column: usize,
        /// Its value.
        value: f64,
        /// What it breaks.
        why: &'static str,
    },
    /// A matrix that is said to be a Cholesky factor and cannot be one.
    #[error("not a Cholesky factor: pivot {index} is {value:.6e}")]
    NotAFactor {
        /// The pivot.
        index: usize,
        /// Its value.
        value: f64,
    },
    /// The preservation metric has no Cholesky factor.
    #[error(
        "the second moment is not positive definite: pivot {index} of {size} is {pivot:.3e} where the largest diagonal \
         entry is {largest:.3e}; it was collected from {tokens} tokens"
    )]
    NotPositiveDefinite {
        /// Size of the matrix, the key dimension `f`.
        size: usize,
        /// Tokens that the second moment was collected from.
        tokens: u64,
        /// The first pivot that fails.
        index: usize,
        /// Its value.
        pivot: f64,
        /// Largest diagonal entry of the metric.
        largest: f64,
    },
    /// A part of the keys that edits use, of whose second moment there is no Cholesky factor.
    #[error(
        "part {part} of the keys was used by {tokens} tokens of the corpus, which do not span its {size} dimensions"
    )]
    Part {
        /// The part.
        part: usize,
        /// Tokens that use it.
        tokens: u64,
        /// Its size.
        size: usize,
    },
    /// The second moment of a part of the keys, which was kept somewhere and cannot be read.
    #[error("the second moment of part {part} of the keys cannot be read: {message}")]
    Unread {
        /// The part.
        part: usize,
        /// Why.
        message: String,
    },
    /// Edits whose keys cannot be told apart demand different values.
    #[error("the edits' keys are linearly dependent{}", name_pairs(pairs))]
    Collision {
        /// Pairs of edits (indices into the batch) with nearly equal keys, and their cosine in the metric `P⁻¹`.
        pairs: Vec<(usize, usize, f64)>,
    },
    /// An equality objective for single edits was given a batch.
    #[error("rome edits one fact at a time, but the batch holds {batch}")]
    SingleOnly {
        /// Edits in the batch.
        batch: usize,
    },
    /// The eigenvalues of a second moment were not found.
    #[error("the eigenvalues of the second moment were not found: the iteration does not converge")]
    NoSpectrum,
    /// A projector that leaves no direction.
    #[error(
        "the projector leaves no direction of {dimensions}: the smallest eigenvalue of the second moment is {smallest:.3e}"
    )]
    NoDirections {
        /// The key dimension `f`.
        dimensions: usize,
        /// The smallest eigenvalue.
        smallest: f64,
    },
    /// Entries of a sparse change that are none.
    #[error("not a sparse change: {0}")]
    Entries(&'static str),
    /// A strategy and its layers do not go together.
    #[error("{0}")]
    Layers(String),
}

impl MathError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotPositiveDefinite { size, tokens, .. } => Some(if *tokens < 4 * *size as u64 {
                format!(
                    "{tokens} tokens are few for {size} key dimensions: raise `samples` of the covariance stage \
                     ({} tokens or more), or set `update_norm_lambda` of the solve stage above 0",
                    10 * size
                )
            } else {
                "some key dimensions never fire on this corpus: use more varied text, or set `update_norm_lambda` of \
                 the solve stage above 0"
                    .to_string()
            }),
            Self::Part { tokens, size, .. } => Some(if *tokens < 4 * *size as u64 {
                format!(
                    "{tokens} tokens are few for {size} dimensions: raise `samples` of the covariance stage until the expert sees some {} tokens, \
                     or set `update_norm_lambda` of the solve stage above 0",
                    10 * size
                )
            } else {
                "some dimensions of the expert never fire on this corpus: use more varied text, or set `update_norm_lambda` of the solve stage \
                 above 0"
                    .to_string()
            }),
            Self::Collision { .. } => Some(
                "edits of one subject share a key: put them in different batches, drop one, or give them a `strength` \
                 above 0 (or set `emmet_lambda`)"
                    .into(),
            ),
            Self::OutOfRange { .. } => {
                Some("set `lambda` and `update_norm_lambda` of the solve stage nearer to 1: 1e-100 to 1e100 are enough for any".into())
            }
            Self::NoDirections { .. } => Some(
                "raise `threshold` of the projector, or choose by `dimensions` or `trace`, which do not depend on the scale of the second moment".into(),
            ),
            Self::SingleOnly { .. } => Some("set batch_size: 1, or use emmet, which is the batched form".into()),
            _ => None,
        }
    }
}

fn name_pairs(pairs: &[(usize, usize, f64)]) -> String {
    if pairs.is_empty() {
        return String::new();
    }
    let shown: Vec<String> =
        pairs.iter().take(5).map(|(a, b, cosine)| format!("edits {a} and {b} (cosine {cosine:.6})")).collect();
    let more = if pairs.len() > 5 { format!(" and {} more pairs", pairs.len() - 5) } else { String::new() };
    format!(": {}{more}", shown.join(", "))
}
