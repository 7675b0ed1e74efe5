//! Attention masks that make the subject's last token carry its facts.
//!
//! Model editing changes what a feed-forward layer answers at the last token of a subject. In a large model, trained on
//! much text, that is where facts are found. A small model trained on few sentences learns other ways: it reads the
//! object off the subject's single tokens in its last layers, and editing has nothing to hold on to. So most training
//! rows hide the other ways:
//!
//! * in the lower layers a subject's tokens see only their own subject, and later tokens do not see it at all;
//! * in the upper layers later tokens see the subject's last token, but none before it.
//!
//! What the upper layers say must then have been put together by the lower ones, at the subject's last token. The
//! finished model runs without masks; some rows are trained without them for that reason.

use std::ops::Range;

use burn::tensor::{Bool, Device, Tensor, TensorData};

/// Masks of a batch, `[batch, 1, seq, seq]` each, true where a position must not look.
pub struct Masks {
    /// For the layers that read subjects.
    pub lower: Tensor<4, Bool>,
    /// For the layers above.
    pub upper: Tensor<4, Bool>,
}

impl Masks {
    /// Masks of rows of `seq` tokens, whose subjects stand at the given places; none where a row is causal only.
    pub fn new(subjects: &[Option<Vec<Range<usize>>>], seq: usize, device: &Device) -> Self {
        let mut lower = Vec::with_capacity(subjects.len() * seq * seq);
        let mut upper = Vec::with_capacity(subjects.len() * seq * seq);
        for row in subjects {
            let (low, high) = hidden(row.as_deref().unwrap_or_default(), seq);
            lower.extend(low);
            upper.extend(high);
        }
        let shape = [subjects.len(), 1, seq, seq];
        let tensor = |values| Tensor::from_data(TensorData::new(values, shape), device);
        Self { lower: tensor(lower), upper: tensor(upper) }
    }
}

/// The two masks of one row, `seq × seq`.
fn hidden(subjects: &[Range<usize>], seq: usize) -> (Vec<bool>, Vec<bool>) {
    let causal: Vec<bool> = (0..seq * seq).map(|i| i % seq > i / seq).collect();
    let (mut lower, mut upper) = (causal.clone(), causal);
    for subject in subjects {
        let last = subject.end - 1;
        for query in subject.end..seq {
            lower[query * seq..][subject.clone()].fill(true);
            upper[query * seq..][subject.start..last].fill(true);
        }
        for query in subject.clone() {
            lower[query * seq..][..subject.start].fill(true);
        }
    }
    (lower, upper)
}

#[cfg(test)]
mod tests {
    use super::hidden;

    #[test]
    fn a_subject_is_read_in_its_last_token_and_above() {
        let (lower, upper) = hidden(std::slice::from_ref(&(1..3)), 4);
        let shown = |m: &[bool]| {
            m.chunks(4).map(|r| r.iter().map(|h| if *h { '-' } else { 'x' }).collect::<String>()).collect::<Vec<_>>()
        };
        assert_eq!(shown(&lower), ["x---", "-x--", "-xx-", "x--x"]);
        assert_eq!(shown(&upper), ["x---", "xx--", "xxx-", "x-xx"]);
    }
}
