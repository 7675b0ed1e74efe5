//! A few files of many, chosen by a seed.

use std::fmt;

/// So many files of a data set, and the seed that chooses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shards {
    /// How many.
    pub count: usize,
    /// The seed.
    pub seed: u64,
}

impl Shards {
    /// Places, in rising order, of those that are chosen among `of` files in the order of their names; all where there are no more.
    /// A larger count contains a smaller one, so that what is there already is of use.
    pub fn choose(self, of: usize) -> Vec<usize> {
        let mut places: Vec<usize> = (0..of).collect();
        places.sort_by_key(|&place| (mixed(self.seed, place as u64), place));
        places.truncate(self.count);
        places.sort_unstable();
        places
    }

    /// Reads `shards=2,seed=1`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (count, seed) = text.strip_prefix("shards=")?.split_once(",seed=")?;
        let count = count.parse().ok().filter(|&count| count > 0)?;
        Some(Self { count, seed: seed.parse().ok()? })
    }
}

impl fmt::Display for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shards={},seed={}", self.count, self.seed)
    }
}

/// SplitMix64's output function: neighbouring places get unrelated numbers.
fn mixed(seed: u64, place: u64) -> u64 {
    let mut number = seed.wrapping_add(place.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_number_contains_a_smaller_one() {
        for seed in 0..20 {
            let chosen = |count| Shards { count, seed }.choose(41);
            for count in 1..41 {
                let (few, more) = (chosen(count), chosen(count + 1));
                assert!(few.len() == count && few.is_sorted() && few.iter().all(|place| more.contains(place)));
            }
            assert_eq!(chosen(50), (0..41).collect::<Vec<_>>());
        }
        let first: std::collections::BTreeSet<usize> =
            (0..100).map(|seed| Shards { count: 1, seed }.choose(41)[0]).collect();
        assert!(first.len() > 30, "seeds choose all over: {first:?}");
    }

    #[test]
    fn a_text_is_read_back() {
        let shards = Shards { count: 2, seed: 7 };
        assert_eq!(Shards::parse(&shards.to_string()), Some(shards));
        for wrong in ["", "shards=0,seed=1", "shards=2", "shards=a,seed=1", "shards=2,seed=1,more"] {
            assert_eq!(Shards::parse(wrong), None, "{wrong}");
        }
    }
}
