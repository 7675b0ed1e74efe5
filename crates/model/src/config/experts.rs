//! Mixtures of experts: layers whose feed-forward is several, of which each token uses a few.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The mixture of experts of a model's layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Experts {
    /// Experts of a layer.
    pub count: usize,
    /// Experts that a token uses.
    pub top: usize,
    /// Feed-forward size of an expert.
    pub size: usize,
    /// A token's gates are divided by their sum.
    pub normalised: bool,
    /// Feed-forward size of one more expert, which all tokens use, with a gate of its own.
    pub shared: Option<usize>,
    /// Layers that have one feed-forward instead, in rising order.
    pub dense_layers: Vec<usize>,
}

/// Which of a layer's experts.
///
/// Written as its number, or as `shared`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExpertId {
    /// One that tokens are routed to.
    Routed(usize),
    /// The one that all tokens use.
    Shared,
}

impl ExpertId {
    /// In words: "expert 3", "the shared expert".
    pub fn words(self) -> String {
        match self {
            Self::Routed(expert) => format!("expert {expert}"),
            Self::Shared => "the shared expert".to_owned(),
        }
    }
}

impl Experts {
    /// Where each part lies in the wide feed-forward: the experts, and the shared one last.
    pub fn parts(&self) -> Vec<Range<usize>> {
        let routed = (0..self.count).map(|expert| expert * self.size..(expert + 1) * self.size);
        let from = self.count * self.size;
        routed.chain(self.shared.map(|size| from..from + size)).collect()
    }

    /// Whether a layer, of so many, is a mixture.
    pub fn is_mixture(&self, layer: usize, layers: usize) -> bool {
        layer < layers && self.dense_layers.binary_search(&layer).is_err()
    }

    /// The expert of a part.
    pub fn id(&self, part: usize) -> ExpertId {
        if part < self.count { ExpertId::Routed(part) } else { ExpertId::Shared }
    }

    /// The experts, in the order of their parts.
    pub fn ids(&self) -> impl Iterator<Item = ExpertId> + '_ {
        (0..self.count + usize::from(self.shared.is_some())).map(|part| self.id(part))
    }

    /// The part of an expert, where the layer has it.
    pub fn part(&self, id: ExpertId) -> Option<usize> {
        match id {
            ExpertId::Routed(expert) => (expert < self.count).then_some(expert),
            ExpertId::Shared => self.shared.map(|_| self.count),
        }
    }
}

impl fmt::Display for ExpertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Routed(expert) => write!(f, "expert{expert}"),
            Self::Shared => write!(f, "shared"),
        }
    }
}

impl std::str::FromStr for ExpertId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.strip_prefix("expert") {
            Some(number) => number.parse().map(Self::Routed).map_err(|_| ()),
            None if text == "shared" => Ok(Self::Shared),
            None => Err(()),
        }
    }
}

impl Serialize for ExpertId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Routed(expert) => serializer.serialize_u64(*expert as u64),
            Self::Shared => serializer.serialize_str("shared"),
        }
    }
}

impl<'de> Deserialize<'de> for ExpertId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;

        impl de::Visitor<'_> for Visit {
            type Value = ExpertId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the number of an expert, or \"shared\"")
            }

            fn visit_u64<E: de::Error>(self, expert: u64) -> Result<ExpertId, E> {
                usize::try_from(expert).map(ExpertId::Routed).map_err(E::custom)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ExpertId, E> {
                if text == "shared" {
                    Ok(ExpertId::Shared)
                } else {
                    Err(E::invalid_value(de::Unexpected::Str(text), &self))
                }
            }
        }

        deserializer.deserialize_any(Visit)
    }
}
