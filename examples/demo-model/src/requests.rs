//! Edit requests: facts that the model knows, to be replaced by others of the same relation.

use std::collections::{BTreeSet, HashSet};

use palinode_model::{Decoder, Text};
use rand::SeedableRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::check::completes;
use crate::error::Error;
use crate::facts::{Fact, Relation};
use crate::prose::Prose;

/// Other subjects that a fact must share its object with.
const NEIGHBORS: usize = 5;
/// Prompts taken of neighbours, attributes.
const PROMPTS: usize = 10;

/// One record in CounterFact's layout (Meng et al., arXiv 2202.05262).
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    case_id: usize,
    requested_rewrite: Rewrite,
    /// Templates held out of training, one of them behind a sentence of prose.
    paraphrase_prompts: Vec<String>,
    /// Subjects with the same object, known to the model.
    neighborhood_prompts: Vec<String>,
    /// Subjects whose object is the new one, known to the model.
    attribute_prompts: Vec<String>,
    /// Beginnings of texts about the subject.
    generation_prompts: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Rewrite {
    prompt: String,
    relation_id: String,
    target_new: Target,
    target_true: Target,
    subject: String,
}

#[derive(Clone, Debug, Serialize)]
struct Target {
    str: String,
}

impl Record {
    /// Wikidata's name of the relation.
    pub fn relation(&self) -> &str {
        &self.requested_rewrite.relation_id
    }

    /// The subject of the fact that is changed.
    pub fn subject(&self) -> &str {
        &self.requested_rewrite.subject
    }
}

/// As many requests as the model's knowledge allows, relations by turns, every subject once.
pub fn requests(
    decoder: &Decoder,
    text: &Text,
    relations: &[Relation],
    prose: &Prose,
    seed: u64,
) -> Result<Vec<Record>, Error> {
    let random = &mut ChaCha8Rng::seed_from_u64(seed);
    let mut pools = Vec::new();
    for relation in relations.iter().filter(|r| r.edit) {
        let known = known(decoder, text, relation)?;
        let mut pool: Vec<&Fact> = known.iter().copied().filter(|f| others(&known, f).count() >= NEIGHBORS).collect();
        pool.shuffle(random);
        pools.push((relation, known, pool));
    }
    let mut records = Vec::new();
    let mut used = HashSet::new();
    loop {
        let before = records.len();
        for (relation, known, pool) in &mut pools {
            while let Some(fact) = pool.pop() {
                if used.insert(fact.subject.clone()) {
                    records.extend(record(records.len(), relation, known, fact, prose, random));
                    break;
                }
            }
        }
        if records.len() == before {
            return Ok(records);
        }
    }
}

/// The relation's facts that the model completes from the rewrite prompt.
fn known<'a>(decoder: &Decoder, text: &Text, relation: &'a Relation) -> Result<Vec<&'a Fact>, Error> {
    let prompts: Vec<(String, &str)> =
        relation.facts.iter().map(|f| (filled(&relation.templates[0], f), f.object.as_str())).collect();
    let right = completes(decoder, text, &prompts)?;
    Ok(relation.facts.iter().zip(right).filter(|(_, right)| *right).map(|(fact, _)| fact).collect())
}

/// Facts of other subjects with the same object.
fn others<'a>(known: &'a [&'a Fact], fact: &'a Fact) -> impl Iterator<Item = &'a Fact> {
    known.iter().copied().filter(|other| other.object == fact.object && other.subject != fact.subject)
}

/// The request to change one fact; none where the relation has no other object.
fn record(
    case_id: usize,
    relation: &Relation,
    known: &[&Fact],
    fact: &Fact,
    prose: &Prose,
    random: &mut ChaCha8Rng,
) -> Option<Record> {
    let prompt = &relation.templates[0];
    // A set, so that a common object is chosen no more often than a rare one.
    let objects: BTreeSet<&str> = known.iter().map(|f| f.object.as_str()).filter(|o| *o != fact.object).collect();
    let new = *objects.into_iter().collect::<Vec<_>>().choose(random)?;
    let sample = |facts: Vec<&Fact>, random: &mut ChaCha8Rng| -> Vec<String> {
        facts.sample(random, PROMPTS).map(|f| filled(prompt, f)).collect()
    };
    let mut paraphrases: Vec<String> =
        relation.paraphrases.sample(random, 2).map(|template| filled(template, fact)).collect();
    paraphrases[0] = format!("{} {}", prose.sentence(random), paraphrases[0]);
    let neighborhood_prompts = sample(others(known, fact).collect(), random);
    let attribute_prompts = sample(known.iter().copied().filter(|f| f.object == new).collect(), random);
    let generation_prompts = relation.templates[1..].sample(random, 3).map(|template| filled(template, fact)).collect();
    Some(Record {
        case_id,
        requested_rewrite: Rewrite {
            prompt: prompt.clone(),
            relation_id: relation.id.clone(),
            target_new: Target { str: new.into() },
            target_true: Target { str: fact.object.clone() },
            subject: fact.subject.clone(),
        },
        paraphrase_prompts: paraphrases,
        neighborhood_prompts,
        attribute_prompts,
        generation_prompts,
    })
}

fn filled(template: &str, fact: &Fact) -> String {
    template.replacen("{}", &fact.subject, 1)
}
