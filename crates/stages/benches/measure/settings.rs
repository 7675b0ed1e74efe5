//! `key=value` words, and what several cases read by them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::tensor::Device;
use palinode_data::{ContextTemplates, Dataset, EditRequest, Selection, read_requests};
use palinode_edit::{TargetSettings, TargetSite};
use palinode_model::{Checkpoint, Compute, Decoder, DecoderConfig, Text};

/// Whatever goes wrong ends the program with its message.
pub type Failure = Box<dyn std::error::Error>;

/// The words after the case's name.
pub struct Settings(BTreeMap<String, String>);

impl Settings {
    /// Reads `key=value` words.
    pub fn parse(words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let pair = |word: String| {
            let (key, value) = word.split_once('=').ok_or_else(|| format!("{word:?} is not key=value"))?;
            Ok((key.to_owned(), value.to_owned()))
        };
        words.map(pair).collect::<Result<_, Failure>>().map(Self)
    }

    /// A value by its name.
    pub fn text(&self, key: &str) -> Result<&str, Failure> {
        self.0.get(key).map(String::as_str).ok_or_else(|| format!("{key}=… is missing").into())
    }

    /// A number by its name.
    pub fn number(&self, key: &str) -> Result<usize, Failure> {
        Ok(self.text(key)?.parse()?)
    }

    /// What products round their factors to: `compute=bf16`, or nothing where it is left out.
    pub fn compute(&self) -> Result<Compute, Failure> {
        let named = |name: &str| [Compute::F32, Compute::Bf16].into_iter().find(|compute| compute.name() == name);
        match self.text("compute") {
            Ok(name) => named(name).ok_or_else(|| format!("compute={name} is neither f32 nor bf16").into()),
            Err(_) => Ok(Compute::F32),
        }
    }

    /// A list of numbers, `4,5,6`.
    pub fn list(&self, key: &str) -> Result<Vec<usize>, Failure> {
        self.text(key)?.split(',').map(|n| Ok(n.parse()?)).collect()
    }

    /// The folder that `benches/inputs.py` filled.
    pub fn inputs(&self) -> Result<PathBuf, Failure> {
        Ok(self.text("inputs")?.into())
    }

    /// The model named by `model=`.
    pub fn model(&self) -> Result<(Decoder, Text), Failure> {
        let folder = self.inputs()?.join(self.text("model")?);
        let config = folder.join("config.json");
        let config = DecoderConfig::from_hf(&std::fs::read_to_string(&config)?, &config)?;
        let checkpoint = Checkpoint::open(&[folder.join("model.safetensors")])?;
        Ok((Decoder::load(&checkpoint, &config, &Device::flex())?, Text::open(&folder.join("tokenizer.json"))?))
    }

    /// The first `requests=` records.
    pub fn requests(&self) -> Result<Vec<EditRequest>, Failure> {
        let selection = Selection { limit: Some(self.number("requests")?), ..Selection::default() };
        Ok(read_requests(&self.inputs()?.join("requests.json"), &Dataset::CounterFact, &selection)?)
    }

    /// The context templates.
    pub fn templates(&self) -> Result<ContextTemplates, Failure> {
        let groups = serde_json::from_str(&std::fs::read_to_string(self.inputs()?.join("templates.json"))?)?;
        Ok(ContextTemplates { groups })
    }

    /// The published settings for GPT-2 at `layer=`.
    pub fn targets(&self) -> Result<TargetSettings, Failure> {
        Ok(TargetSettings {
            fact_token: palinode_edit::FactToken::default(),
            site: TargetSite::BlockOutput,
            layer: self.number("layer")?,
            steps: self.number("steps")?,
            learning_rate: 0.5,
            kl_factor: 0.0625,
            weight_decay: 0.5,
            clamp: 0.75,
            stop_loss: self.text("stop_loss").map_or(Ok(0.05), str::parse)?,
            rules: palinode_edit::TargetRules { compute: self.compute()?, ..palinode_edit::TargetRules::default() },
        })
    }
}
