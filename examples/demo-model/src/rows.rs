//! Training rows: facts, mentions and prose, packed to one length.

use std::collections::HashMap;
use std::ops::Range;

use palinode_model::Text;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::Error;
use crate::facts::Relation;
use crate::piece::{Piece, Role, about, statement};
use crate::prose::Prose;

/// Loss weight of an object's tokens.
const OBJECT: f32 = 1.0;
/// Loss weight of all other tokens.
const OTHER: f32 = 0.3;
/// Share of statements among a row's sentences.
const STATEMENTS: f64 = 0.78;
/// Share of mentions; the rest is prose.
const MENTIONS: f64 = 0.1;
/// Share of statements that follow an opener.
const OPENED: f64 = 0.33;
/// Templates of one fact that are used in one round over all facts.
const TEMPLATES: usize = 2;

/// One training row.
#[derive(Clone, Debug)]
pub struct Row {
    /// Tokens.
    pub ids: Vec<u32>,
    /// Loss weight of predicting each token.
    pub weights: Vec<f32>,
    /// Where the subjects stand.
    pub subjects: Vec<Range<usize>>,
}

/// An endless source of rows.
pub struct Rows<'a> {
    relations: &'a [Relation],
    prose: &'a Prose,
    text: &'a Text,
    length: usize,
    random: ChaCha8Rng,
    /// Relation, fact and template of the statements left in this round.
    round: Vec<(usize, usize, usize)>,
    tokens: HashMap<String, Vec<u32>>,
}

impl<'a> Rows<'a> {
    /// Rows of `length` tokens.
    pub fn new(relations: &'a [Relation], prose: &'a Prose, text: &'a Text, length: usize, seed: u64) -> Self {
        let random = ChaCha8Rng::seed_from_u64(seed);
        Self { relations, prose, text, length, random, round: Vec::new(), tokens: HashMap::new() }
    }

    /// Whether a share of `share` of all rows holds this one.
    pub fn chance(&mut self, share: f64) -> bool {
        self.random.random_bool(share)
    }

    /// The next row.
    pub fn row(&mut self) -> Result<Row, Error> {
        let mut row = Row { ids: Vec::new(), weights: Vec::new(), subjects: Vec::new() };
        while row.ids.len() < self.length {
            let lead = if row.ids.is_empty() { "" } else { " " };
            for piece in self.sentence(lead)? {
                self.push(&mut row, piece)?;
            }
        }
        row.ids.truncate(self.length);
        row.weights.truncate(self.length);
        row.subjects.retain(|subject| subject.end <= self.length);
        Ok(row)
    }

    fn sentence(&mut self, lead: &str) -> Result<Vec<Piece>, Error> {
        let which = self.random.random::<f64>();
        if which < STATEMENTS {
            let (relation, fact, template) = self.next_statement()?;
            let relation = &self.relations[relation];
            let (fact, template) = (&relation.facts[fact], &relation.templates[template]);
            // A row that begins with a bare statement looks as a rewrite prompt does.
            let opened = self.random.random_bool(if lead.is_empty() { OPENED / 2.0 } else { OPENED });
            let mut pieces = Vec::new();
            if opened {
                pieces.push(Piece::plain(format!("{lead}{}", self.prose.opener(&mut self.random))));
            }
            pieces.extend(statement(if opened { " " } else { lead }, template, &fact.subject, &fact.object));
            Ok(pieces)
        } else if which < STATEMENTS + MENTIONS {
            let relation = self.relations.choose(&mut self.random).ok_or("there is no relation")?;
            let fact = relation.facts.choose(&mut self.random).ok_or("a relation has no facts")?;
            Ok(about(lead, &self.prose.mention(&relation.kind, &mut self.random), &fact.subject))
        } else {
            Ok(vec![Piece::plain(format!("{lead}{}", self.prose.sentence(&mut self.random)))])
        }
    }

    /// Every fact comes in [`TEMPLATES`] templates before any comes again.
    fn next_statement(&mut self) -> Result<(usize, usize, usize), Error> {
        if self.round.is_empty() {
            for (r, relation) in self.relations.iter().enumerate() {
                let templates: Vec<usize> = (0..relation.templates.len()).collect();
                for fact in 0..relation.facts.len() {
                    let chosen = templates.sample(&mut self.random, TEMPLATES);
                    self.round.extend(chosen.map(|&template| (r, fact, template)));
                }
            }
            self.round.shuffle(&mut self.random);
        }
        Ok(self.round.pop().ok_or("there are no facts")?)
    }

    fn push(&mut self, row: &mut Row, piece: Piece) -> Result<(), Error> {
        if !self.tokens.contains_key(&piece.text) {
            let ids = self.text.encode(&piece.text)?;
            self.tokens.insert(piece.text.clone(), ids);
        }
        let ids = &self.tokens[&piece.text];
        let begin = row.ids.len();
        row.ids.extend(ids);
        row.weights.resize(row.ids.len(), if piece.role == Role::Object { OBJECT } else { OTHER });
        if piece.role == Role::Subject && !ids.is_empty() {
            row.subjects.push(begin..row.ids.len());
        }
        Ok(())
    }
}
