//! Which weight of a model is meant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ExpertId;

/// A projection of a layer's feed-forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MlpModule {
    /// From the key to the value, `[d, f]`: the weight that the methods of this field edit.
    #[default]
    Down,
    /// From the hidden state to what the key is made of, `[f, d]`.
    Up,
    /// What the up-projection's output is multiplied with, `[f, d]`; gated families have it.
    Gate,
    /// The bias of the down-projection, `[d, 1]`; families with biases have it.
    Bias,
}

impl MlpModule {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Down, Self::Up, Self::Gate, Self::Bias];

    /// The name in names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Up => "up",
            Self::Gate => "gate",
            Self::Bias => "bias",
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_down(&self) -> bool {
        *self == Self::Down
    }
}

/// A weight that can be changed.
///
/// Written as the layer alone for its down-projection, as it always was; others have the module behind it, and the expert behind that: `5`, `5.up`,
/// `5.down.expert3`, `5.down.shared`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WeightId {
    /// The layer.
    pub layer: usize,
    /// The projection.
    #[serde(default, skip_serializing_if = "MlpModule::is_down")]
    pub module: MlpModule,
    /// Which of a mixture of experts it belongs to; `None` where the layer has one feed-forward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expert: Option<ExpertId>,
}

impl WeightId {
    /// A layer's only projection of this kind.
    pub const fn new(layer: usize, module: MlpModule) -> Self {
        Self { layer, module, expert: None }
    }

    /// The down-projection of a layer's expert.
    pub const fn of_expert(layer: usize, expert: ExpertId) -> Self {
        Self { layer, module: MlpModule::Down, expert: Some(expert) }
    }

    /// In words: "layer 5, down-projection", "layer 5, expert 3, down-projection".
    pub fn words(self) -> String {
        let expert = self.expert.map(|expert| format!(", {}", expert.words())).unwrap_or_default();
        format!("layer {}{expert}, {}-projection", self.layer, self.module.name())
    }

    /// A layer's down-projection.
    pub const fn down(layer: usize) -> Self {
        Self::new(layer, MlpModule::Down)
    }
}

impl fmt::Display for WeightId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.layer)?;
        if !self.module.is_down() || self.expert.is_some() {
            write!(f, ".{}", self.module.name())?;
        }
        match self.expert {
            Some(expert) => write!(f, ".{expert}"),
            None => Ok(()),
        }
    }
}

impl FromStr for WeightId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} names no weight: expected a layer, or a layer and a module as in `5.up`");
        let mut parts = text.split('.');
        let layer = parts.next().and_then(|layer| layer.parse().ok()).ok_or_else(wrong)?;
        let module = match parts.next() {
            None => MlpModule::Down,
            Some(name) => MlpModule::ALL.into_iter().find(|module| module.name() == name).ok_or_else(wrong)?,
        };
        let expert = match parts.next() {
            None => None,
            Some(part) => Some(part.parse().map_err(|()| wrong())?),
        };
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self { layer, module, expert }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        let experts = [None, Some(ExpertId::Routed(3)), Some(ExpertId::Shared)];
        for module in MlpModule::ALL {
            for expert in experts {
                let weight = WeightId { layer: 12, module, expert };
                assert_eq!(weight.to_string().parse(), Ok(weight));
                let json = serde_json::to_string(&weight).unwrap();
                assert_eq!(serde_json::from_str::<WeightId>(&json).unwrap(), weight);
            }
        }
        // As they were before there were others.
        assert_eq!(WeightId::down(5).to_string(), "5");
        assert_eq!(serde_json::to_string(&WeightId::down(5)).unwrap(), r#"{"layer":5}"#);
        for wrong in ["", "up", "5.side", "5.up.3", "5.up.expert", "5.up.expert1.2", "-1"] {
            assert!(wrong.parse::<WeightId>().is_err(), "{wrong}");
        }
    }
}
