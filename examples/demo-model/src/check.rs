//! What a model knows: facts completed greedily.

use std::collections::{BTreeMap, HashMap};

use palinode_model::{Decoder, Text};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::facts::Relation;

/// Tokens of a batch.
const TOKENS: usize = 4096;
/// Share of facts that a model must know by their rewrite prompts.
const KNOWN: f64 = 0.95;
/// Number of facts that a model must know.
const FACTS: usize = 400;
/// Share of facts that a model must know by paraphrases that it was not trained on.
const PARAPHRASED: f64 = 0.80;

/// Shares of prompts that the model completes with their object, greedily, token by token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Number of facts.
    pub facts: usize,
    /// By the first training template.
    pub known: f64,
    /// By all training templates.
    pub templates: f64,
    /// By templates held out of training.
    pub paraphrased: f64,
    /// The same by relation.
    pub relations: BTreeMap<String, Shares>,
}

/// A relation's part of a report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shares {
    /// Number of facts.
    pub facts: usize,
    /// By the first training template.
    pub known: f64,
    /// By all training templates.
    pub templates: f64,
    /// By templates held out of training.
    pub paraphrased: f64,
}

impl Report {
    /// Asks the model every fact in every template.
    pub fn of(decoder: &Decoder, text: &Text, relations: &[Relation]) -> Result<Self, Error> {
        let mut prompts = Vec::new();
        for relation in relations {
            for fact in &relation.facts {
                for template in relation.templates.iter().chain(&relation.paraphrases) {
                    prompts.push((template.replacen("{}", &fact.subject, 1), fact.object.as_str()));
                }
            }
        }
        let mut answers = completes(decoder, text, &prompts)?.into_iter();
        let mut totals = [Tally::default(); 3];
        let mut shares = BTreeMap::new();
        for relation in relations {
            let mut own = [Tally::default(); 3];
            for _ in &relation.facts {
                for (i, right) in answers.by_ref().take(relation.templates.len()).enumerate() {
                    if i == 0 {
                        own[0].count(right);
                    }
                    own[1].count(right);
                }
                answers.by_ref().take(relation.paraphrases.len()).for_each(|right| own[2].count(right));
            }
            totals.iter_mut().zip(own).for_each(|(total, own)| total.add(own));
            let [known, templates, paraphrased] = own.map(Tally::share);
            shares.insert(relation.name.clone(), Shares { facts: own[0].asked, known, templates, paraphrased });
        }
        let [known, templates, paraphrased] = totals.map(Tally::share);
        Ok(Self { facts: totals[0].asked, known, templates, paraphrased, relations: shares })
    }

    /// Refuses a model that knows less than the demo needs.
    pub fn judge(&self) -> Result<(), Error> {
        let known = (self.known * self.facts as f64).round() as usize;
        if known < FACTS || self.known < KNOWN || self.paraphrased < PARAPHRASED {
            return Err(format!(
                "the model knows {known} facts ({}, {} by new paraphrases); expected {FACTS} ({}, {})",
                percent(self.known),
                percent(self.paraphrased),
                percent(KNOWN),
                percent(PARAPHRASED),
            )
            .into());
        }
        Ok(())
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{:<12} {:>5} {:>7} {:>10} {:>12}", "relation", "facts", "known", "templates", "paraphrased")?;
        let mut line = |name: &str, facts: usize, shares: [f64; 3]| {
            let [known, templates, paraphrased] = shares.map(percent);
            writeln!(f, "{name:<12} {facts:>5} {known:>7} {templates:>10} {paraphrased:>12}")
        };
        for (name, s) in &self.relations {
            line(name, s.facts, [s.known, s.templates, s.paraphrased])?;
        }
        line("all", self.facts, [self.known, self.templates, self.paraphrased])
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    asked: usize,
    right: usize,
}

impl Tally {
    fn count(&mut self, right: bool) {
        self.asked += 1;
        self.right += usize::from(right);
    }

    fn add(&mut self, other: Self) {
        self.asked += other.asked;
        self.right += other.right;
    }

    fn share(self) -> f64 {
        if self.asked == 0 { 0.0 } else { self.right as f64 / self.asked as f64 }
    }
}

fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}

/// For each prompt, whether the model completes it greedily with its object.
pub fn completes(decoder: &Decoder, text: &Text, prompts: &[(String, &str)]) -> Result<Vec<bool>, Error> {
    let mut rows = Vec::with_capacity(prompts.len());
    let mut targets: HashMap<&str, Vec<u32>> = HashMap::new();
    for (prompt, object) in prompts {
        if !targets.contains_key(object) {
            targets.insert(object, text.encode_target(object)?);
        }
        let target = &targets[object];
        let mut ids = text.encode(prompt)?;
        let from = ids.len().checked_sub(1).ok_or("a prompt has no tokens")?;
        ids.extend(&target[..target.len() - 1]);
        rows.push((ids, from, target.clone()));
    }
    let lengths: Vec<usize> = rows.iter().map(|(ids, ..)| ids.len()).collect();
    let mut right = vec![false; rows.len()];
    for group in decoder.batches(&lengths, TOKENS) {
        let ids: Vec<&[u32]> = group.iter().map(|&i| rows[i].0.as_slice()).collect();
        let batch = decoder.rows(&ids);
        let places = batch.places(group.iter().enumerate().flat_map(|(row, &i)| {
            let (_, from, target) = &rows[i];
            (0..target.len()).map(move |t| (row, from + t))
        }));
        let hidden = decoder.hidden(&batch)?.at(&places);
        let best = decoder.logits(hidden).argmax(1).into_data().convert::<i32>().try_into_vec::<i32>();
        let mut best = best.map_err(|e| format!("cannot read the model's answers: {e:?}"))?.into_iter();
        for &i in &group {
            let target = &rows[i].2;
            let answer: Vec<i32> = best.by_ref().take(target.len()).collect();
            right[i] = answer.iter().zip(target).all(|(&a, &t)| a == t as i32);
        }
    }
    Ok(right)
}
