//! Likelihoods of targets after prompts.

use std::collections::HashMap;

use palinode_model::{Activations, BlockOutput, Decoder, ModelError, Places, Rows, Said, Text, Visit, worker_pool};
use serde::{Deserialize, Serialize};

/// A prompt and the continuations whose likelihood is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The whole prompt.
    pub prompt: String,
    /// Continuations as they stand: one that is a word of its own begins with a space.
    pub targets: Vec<String>,
}

/// How likely a target is after its prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Mean negative log-likelihood per target token, in nats.
    pub nll: f64,
    /// For each target token, the most probable one in its place, given the target's tokens before it.
    pub said: Vec<u32>,
    /// How many of them are the target's own.
    pub hits: usize,
}

impl Score {
    /// `p = exp(−nll)`: the geometric mean probability of a target token.
    pub fn probability(&self) -> f64 {
        (-self.nll).exp()
    }

    /// Whether every target token is the most probable one.
    pub fn correct(&self) -> bool {
        self.hits == self.said.len()
    }

    /// The share of target tokens that are the most probable ones.
    pub fn matched(&self) -> f64 {
        self.hits as f64 / self.said.len() as f64
    }
}

/// A prompt with ways on from it, and the targets read off them.
struct Row {
    prompt: Vec<u32>,
    /// What follows the prompt: a target without its last token, which nothing needs to read. None is empty.
    ways: Vec<Vec<u32>>,
    reads: Vec<Read>,
}

/// A query and one of its targets, by index.
type Place = (usize, usize);

/// One target's place in a row.
struct Read {
    of: Place,
    /// The way that leads through the target; `None` for a target of one token, which the prompt's end predicts.
    way: Option<usize>,
    target: Vec<u32>,
}

impl Row {
    fn len(&self) -> usize {
        self.prompt.len() + self.ways.iter().map(Vec::len).sum::<usize>()
    }

    /// Position in the row that predicts a target's token.
    fn predicts(&self, read: &Read, token: usize) -> usize {
        match (token, read.way) {
            (0, _) | (_, None) => self.prompt.len() - 1,
            (token, Some(way)) => self.prompt.len() + self.ways[..way].iter().map(Vec::len).sum::<usize>() + token - 1,
        }
    }
}

/// Scores every target of every query; the answer has the shape of the queries. `tokens` bounds the tokens of a batch,
/// padding included.
///
/// A prompt runs once, however many targets it has and however often it is asked.
///
/// # Errors
/// [`ModelError::TooLong`] where prompt and target exceed the context; [`ModelError::Tokenize`], also for a target without
/// tokens; [`ModelError::Readback`].
pub fn score(decoder: &Decoder, text: &Text, queries: &[Query], tokens: usize) -> Result<Vec<Vec<Score>>, ModelError> {
    let rows = rows(decoder, text, queries)?;
    decoder.within(tokens, |tokens| score_rows(decoder, queries, &rows, tokens))
}

fn score_rows(
    decoder: &Decoder,
    queries: &[Query],
    rows: &[Row],
    tokens: usize,
) -> Result<Vec<Vec<Score>>, ModelError> {
    let nothing = Score { nll: f64::NAN, said: Vec::new(), hits: 0 };
    let mut scores: Vec<Vec<Score>> = queries.iter().map(|query| vec![nothing.clone(); query.targets.len()]).collect();
    // Rows that part need a mask, which plain ones are faster without.
    let (parted, plain): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.ways.len() > 1);
    let mut visits = Vec::new();
    for rows in [plain, parted] {
        let lengths: Vec<usize> = rows.iter().map(|row| row.len()).collect();
        let groups = decoder.batches(&lengths, tokens).into_iter();
        visits.extend(groups.map(|group| Scoring::new(group.into_iter().map(|i| rows[i]).collect())));
    }
    for (of, score) in decoder.visit_all(visits, decoder.config().layers - 1, worker_pool::MOST)?.into_iter().flatten()
    {
        scores[of.0][of.1] = score;
    }
    Ok(scores)
}

fn rows(decoder: &Decoder, text: &Text, queries: &[Query]) -> Result<Vec<Row>, ModelError> {
    let context = decoder.config().context;
    let mut rows: Vec<Row> = Vec::new();
    let mut known: HashMap<Vec<u32>, usize> = HashMap::new();
    for (q, query) in queries.iter().enumerate() {
        let prompt = text.encode(&query.prompt)?;
        for (t, target) in query.targets.iter().enumerate() {
            let target = text.encode_continuation(target)?;
            let shown = || query.prompt.chars().take(60).collect();
            if prompt.is_empty() || target.is_empty() {
                let what = if prompt.is_empty() { "the prompt has no tokens" } else { "its target has no tokens" };
                return Err(ModelError::Tokenize { text: shown(), message: what.into() });
            }
            let length = prompt.len() + target.len() - 1;
            if length > context {
                return Err(ModelError::TooLong { tokens: length, context, text: shown() });
            }
            let at = known.get(&prompt).copied();
            // A row that parts must fit into the attention of every layer; another is begun where it would not.
            let fits = |row: &Row| row.ways.is_empty() || decoder.config().sees(row.len() + target.len() - 1);
            let way = target[..target.len() - 1].to_vec();
            let at = at.filter(|&at| rows[at].ways.contains(&way) || way.is_empty() || fits(&rows[at]));
            let at = at.unwrap_or_else(|| {
                rows.push(Row { prompt: prompt.clone(), ways: Vec::new(), reads: Vec::new() });
                known.insert(prompt.clone(), rows.len() - 1);
                rows.len() - 1
            });
            let row = &mut rows[at];
            let way = (!way.is_empty()).then(|| {
                row.ways.iter().position(|known| *known == way).unwrap_or_else(|| {
                    row.ways.push(way);
                    row.ways.len() - 1
                })
            });
            row.reads.push(Read { of: (q, t), way, target });
        }
    }
    Ok(rows)
}

/// Rows that are scored as one batch. The head is applied only at positions that predict a target token, once at each.
struct Scoring<'a> {
    rows: Vec<&'a Row>,
    /// The predicting positions, each once.
    places: Option<Places>,
    /// For each target token, the number of the position that predicts it.
    at: Vec<usize>,
    /// The target tokens.
    tokens: Vec<u32>,
}

impl<'a> Scoring<'a> {
    fn new(rows: Vec<&'a Row>) -> Self {
        Self { rows, places: None, at: Vec::new(), tokens: Vec::new() }
    }
}

impl Visit for Scoring<'_> {
    type Found = Vec<(Place, Score)>;

    fn begin(&mut self, decoder: &Decoder) -> Rows {
        let rows = if self.rows.iter().any(|row| row.ways.len() > 1) {
            let texts: Vec<_> = self.rows.iter().map(|row| (row.prompt.as_slice(), row.ways.as_slice())).collect();
            decoder.shared_prefix(&texts)
        } else {
            let ids = self.rows.iter().map(|row| [row.prompt.as_slice(), &row.ways.concat()].concat());
            decoder.rows(&ids.collect::<Vec<_>>())
        };
        let mut known: HashMap<(usize, usize), usize> = HashMap::new();
        let mut places = Vec::new();
        for (r, row) in self.rows.iter().enumerate() {
            for read in &row.reads {
                for (j, &id) in read.target.iter().enumerate() {
                    let place = (r, row.predicts(read, j));
                    self.at.push(*known.entry(place).or_insert_with(|| {
                        places.push(place);
                        places.len() - 1
                    }));
                    self.tokens.push(id);
                }
            }
        }
        self.places = Some(rows.places(places));
        rows
    }

    fn see(&mut self, _: usize, _: &BlockOutput) -> Result<(), ModelError> {
        Ok(())
    }

    fn finish(self, decoder: &Decoder, hidden: &Activations) -> Result<Self::Found, ModelError> {
        let Some(places) = &self.places else { return Ok(Vec::new()) };
        let mut order: Vec<usize> = (0..self.tokens.len()).collect();
        order.sort_by_key(|&i| self.at[i]);
        let of: Vec<(usize, u32)> = order.iter().map(|&i| (self.at[i], self.tokens[i])).collect();
        let mut said = vec![Said { log_p: f64::NAN, best: 0 }; of.len()];
        for (&i, of) in order.iter().zip(decoder.said(hidden.at(places), &of)?) {
            said[i] = of;
        }
        let mut scores = Vec::new();
        let mut next = 0;
        for read in self.rows.iter().flat_map(|row| &row.reads) {
            let range = next..next + read.target.len();
            next = range.end;
            let nll = -said[range.clone()].iter().map(|said| said.log_p).sum::<f64>() / read.target.len() as f64;
            let said: Vec<u32> = said[range].iter().map(|said| said.best).collect();
            let hits = said.iter().zip(&read.target).filter(|(said, target)| said == target).count();
            scores.push((read.of, Score { nll, said, hits }));
        }
        Ok(scores)
    }
}
