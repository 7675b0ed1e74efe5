//! Scores as a table: one prompt a row, for whoever goes on with them elsewhere.

use palinode_data::{Column, EditRequest, write_parquet};
use palinode_engine::Error;
use palinode_eval::{Comparison, GeneratedAnswer, RecordScores, Score};

/// A row: one prompt on one model.
struct Row<'a> {
    id: &'a str,
    edited: bool,
    kind: &'static str,
    axis: Option<&'a str>,
    prompt: &'a str,
    target: Option<String>,
    other: Option<String>,
    score: Option<&'a Score>,
    other_score: Option<&'a Score>,
    text: Option<&'a str>,
    answer: Option<&'a GeneratedAnswer>,
}

/// The prompts of all records, before the edit and after it, as Parquet.
pub fn table(requests: &[EditRequest], before: &[RecordScores], after: &[RecordScores]) -> Result<Vec<u8>, Error> {
    let mut rows = Vec::new();
    for (records, edited) in [(before, false), (after, true)] {
        for (record, request) in records.iter().zip(requests) {
            add(&mut rows, record, request, edited);
        }
    }
    let text = |of: &dyn Fn(&Row<'_>) -> Option<String>| Column::Text(rows.iter().map(of).collect());
    let number = |of: &dyn Fn(&Row<'_>) -> Option<f64>| Column::Number(rows.iter().map(of).collect());
    let tokens = |score: Option<&Score>| score.map(|score| score.said.len() as i64);
    let answered = rows.iter().any(|row| row.answer.is_some());
    let flag = |of: fn(&GeneratedAnswer) -> bool| Column::Flag(rows.iter().map(|row| row.answer.map(of)).collect());
    let own = [
        ("answer", text(&|row| row.answer.map(|answer| answer.text.clone()))),
        ("exact", flag(GeneratedAnswer::exact)),
        ("contains", flag(GeneratedAnswer::contains)),
        ("f1", number(&|row| row.answer.map(GeneratedAnswer::f1))),
    ];
    let columns = [
        ("id", text(&|row| Some(row.id.to_owned()))),
        ("edited", Column::Flag(rows.iter().map(|row| Some(row.edited)).collect())),
        ("kind", text(&|row| Some(row.kind.to_owned()))),
        ("axis", text(&|row| row.axis.map(str::to_owned))),
        ("prompt", text(&|row| Some(row.prompt.to_owned()))),
        ("target", text(&|row| row.target.clone())),
        ("nll", number(&|row| row.score.map(|score| score.nll))),
        ("p", number(&|row| row.score.map(Score::probability))),
        ("tokens", Column::Count(rows.iter().map(|row| tokens(row.score)).collect())),
        ("hits", Column::Count(rows.iter().map(|row| row.score.map(|score| score.hits as i64)).collect())),
        ("target_true", text(&|row| row.other.clone())),
        ("nll_true", number(&|row| row.other_score.map(|score| score.nll))),
        ("p_true", number(&|row| row.other_score.map(Score::probability))),
        ("tokens_true", Column::Count(rows.iter().map(|row| tokens(row.other_score)).collect())),
        ("hits_true", Column::Count(rows.iter().map(|row| row.other_score.map(|score| score.hits as i64)).collect())),
        ("text", text(&|row| row.text.map(str::to_owned))),
    ];
    let columns: Vec<_> = columns.into_iter().chain(own.into_iter().filter(|_| answered)).collect();
    let mut bytes = Vec::new();
    write_parquet(&mut bytes, &columns).map_err(|message| Error::internal(format!("the table: {message}")))?;
    Ok(bytes)
}

fn add<'a>(rows: &mut Vec<Row<'a>>, record: &'a RecordScores, request: &'a EditRequest, edited: bool) {
    let blank = |kind, prompt: &'a str| Row {
        id: &record.id,
        edited,
        kind,
        axis: None,
        prompt,
        target: None,
        other: None,
        score: None,
        other_score: None,
        text: None,
        answer: None,
    };
    let from = rows.len();
    let mut compared = |kind, all: &'a [Comparison], olds: &dyn Fn(usize) -> Option<String>| {
        rows.extend(all.iter().enumerate().map(|(i, compared)| Row {
            target: Some(request.target_new.clone()),
            other: olds(i),
            score: Some(&compared.new),
            other_score: compared.old.as_ref(),
            ..blank(kind, &compared.prompt)
        }));
    };
    compared("rewrite", &record.rewrite, &|_| request.target_true.clone());
    compared("paraphrase", &record.paraphrase, &|_| request.target_true.clone());
    compared("neighborhood", &record.neighborhood, &|i| request.neighbors.get(i)?.target.clone());
    for (kind, axes) in [("portability", &record.portability), ("locality", &record.locality)] {
        for (axis, answers) in axes {
            rows.extend(answers.iter().map(|answer| Row {
                axis: Some(axis),
                target: Some(answer.target.clone()),
                score: Some(&answer.score),
                ..blank(kind, &answer.prompt)
            }));
        }
    }
    for row in &mut rows[from..] {
        let same = |answer: &&GeneratedAnswer| {
            answer.kind.name() == row.kind && answer.prompt == row.prompt && answer.axis.as_deref() == row.axis
        };
        row.answer = record.answers.iter().find(same);
    }
    rows.extend(record.generated.iter().map(|text| Row { text: Some(text), ..blank("generation", "") }));
}
