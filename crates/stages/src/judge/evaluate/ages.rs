//! Edits of a sequence by their age: the newest round, the oldest, and all between.

use std::ops::Range;

use palinode_engine::Error;
use palinode_engine::shown::{Better, Column, Format, Values};
use palinode_eval::{Group, RecordScores, Summary};
use serde_json::json;

use super::shown;
use crate::artifacts::update::RoundFacts;

/// The successes that are shown by age.
const PLAIN: [&str; 6] = ["S", "ES", "PS", "NS", "efficacy", "reliability"];

/// Which edits each round made.
pub struct Ages(Vec<Range<usize>>);

impl Ages {
    /// Of the rounds of a sequence, where the stage wants them and the records are those of its edits.
    pub fn of(asked: bool, rounds: &[RoundFacts], records: usize) -> Option<Self> {
        let starts = std::iter::once(0).chain(rounds.iter().map(|round| round.edits));
        let ranges: Vec<Range<usize>> = starts.zip(rounds).map(|(start, round)| start..round.edits).collect();
        (asked && ranges.last().is_some_and(|last| last.end == records)).then_some(Self(ranges))
    }

    /// The last round, counted from 1.
    pub fn last(&self) -> usize {
        self.0.len()
    }

    /// Metrics of the edits of round `number` and of the first one, after that round.
    pub fn ends(&self, number: usize, before: &[RecordScores], after: &[RecordScores], groups: &[Group]) -> Values {
        let mut values = Values::new();
        for (name, round) in [("newest", number - 1), ("oldest", 0)] {
            let range = self.0[round].clone();
            let summary = Summary::between(&before[range.clone()], &after[range]);
            let named = shown::values(&summary, groups).into_iter();
            values.extend(named.map(|(metric, value)| (format!("{name}_{metric}"), value)));
        }
        values
    }

    /// How tables show both ends.
    pub fn columns(summary: &Summary, groups: &[Group]) -> Vec<Column> {
        let all = shown::metrics(summary, groups);
        let plain = all.iter().map(|(metric, _)| *metric).filter(|metric| PLAIN.contains(&metric.name));
        plain
            .flat_map(|metric| ["newest", "oldest"].map(|end| (end, metric)))
            .map(|(end, metric)| {
                Column::new(format!("{end}_{}", metric.name), format!("{} {end}", metric.label), Format::Percent)
                    .ranked(Some(Better::Max))
                    .doc(metric.doc)
            })
            .collect()
    }

    /// Metrics of every round's edits at the end, the oldest first: what is left of an edit after so many others.
    pub fn curve(&self, before: &[RecordScores], after: &[RecordScores], groups: &[Group]) -> Result<Vec<u8>, Error> {
        let total = self.0.last().map_or(0, |last| last.end);
        let rows = self.0.iter().enumerate().map(|(i, range)| {
            let summary = Summary::between(&before[range.clone()], &after[range.clone()]);
            let (edits, age) = (range.len(), total - range.end);
            json!({ "round": i + 1, "edits": edits, "age": age, "metrics": shown::values(&summary, groups) })
        });
        serde_json::to_vec(&rows.collect::<Vec<_>>()).map_err(|error| Error::internal(error.to_string()))
    }
}
