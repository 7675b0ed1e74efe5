//! Long answers in pieces (AnyEdit).
//!
//! One value at the subject's last token does not make a model say a long text. So the answer is cut into pieces, each of which has a target
//! of its own: at the last token of what stands before it, the prompt with the pieces before. Targets are found in the order of the
//! pieces, with the vectors of the earlier ones in place; all of them are written together, a key a piece.
//!
//! A piece is a request of its own, which is written at its prompt's last token ([`FactToken::Last`](crate::FactToken)). Keys and values up to
//! the layer of the targets do not depend on the vectors in place, since those are added after it.

use palinode_data::{ContextTemplates, EditRequest};
use palinode_model::{Decoder, Text};

use crate::{EditError, Step, TARGETS_IN_UNIT, Target, TargetSearch, TargetSettings};

/// The pieces of each request's answer, of at most `tokens` tokens where words are not longer than that: a piece begins with a word.
///
/// # Errors
/// [`EditError::Request`] for a target without tokens.
pub fn pieces(text: &Text, requests: &[EditRequest], tokens: usize) -> Result<Vec<Vec<EditRequest>>, EditError> {
    requests.iter().map(|request| pieces_of(text, request, tokens.max(1))).collect()
}

fn pieces_of(text: &Text, request: &EditRequest, most: usize) -> Result<Vec<EditRequest>, EditError> {
    let whole = request.continuation(&request.filled_prompt(), &request.target_new);
    // Words with what stands before them.
    let mut words: Vec<&str> = Vec::new();
    let mut start = 0;
    for (at, char) in whole.char_indices() {
        let begins = char == ' ' && !whole[start..at].trim().is_empty();
        if begins {
            words.push(&whole[start..at]);
            start = at;
        }
    }
    words.push(&whole[start..]);
    let mut cut: Vec<String> = Vec::new();
    for word in words {
        let longer = cut.last().map(|last| format!("{last}{word}"));
        match longer {
            Some(longer) if text.encode_continuation(&longer)?.len() <= most => {
                cut.pop();
                cut.push(longer);
            }
            _ => cut.push(word.to_owned()),
        }
    }
    let mut before = String::new();
    let several = cut.len() > 1;
    let mut pieces = Vec::with_capacity(cut.len());
    for (number, piece) in cut.into_iter().enumerate() {
        let id = if several { format!("{}, piece {}", request.id, number + 1) } else { request.id.clone() };
        pieces.push(EditRequest {
            id,
            prompt: format!("{}{before}", request.prompt),
            subject: request.subject.clone(),
            target_new: piece.trim_start().to_owned(),
            target_prefix: request.target_prefix.clone(),
            strength: request.strength,
            ..EditRequest::default()
        });
        before.push_str(&piece);
    }
    Ok(pieces)
}

/// The targets of all pieces, those of a request one behind the other. `settings` are those of a single piece, with the token
/// [`FactToken::Last`](crate::FactToken). `watch` hears of every step.
///
/// # Errors
/// As [`crate::optimise`].
pub fn optimise_pieces(
    decoder: &Decoder,
    text: &Text,
    chains: &[Vec<EditRequest>],
    templates: &ContextTemplates,
    settings: &TargetSettings,
    parallel_requests: usize,
    watch: impl Fn(Step) + Sync,
) -> Result<Vec<Target>, EditError> {
    let mut targets = Vec::new();
    for unit in chains.chunks(TARGETS_IN_UNIT) {
        let mut found: Vec<Vec<Target>> = unit.iter().map(|_| Vec::new()).collect();
        for number in 0..unit.iter().map(Vec::len).max().unwrap_or(0) {
            let open: Vec<usize> = (0..unit.len()).filter(|&i| unit[i].len() > number).collect();
            let now: Vec<EditRequest> = open.iter().map(|&i| unit[i][number].clone()).collect();
            let earlier: Vec<Vec<(&EditRequest, &[f32])>> = open
                .iter()
                .map(|&i| unit[i].iter().zip(&found[i]).map(|(piece, t)| (piece, t.delta.as_slice())).collect())
                .collect();
            let search = TargetSearch::new(decoder, text, &now, templates, settings, parallel_requests)?;
            let made = search.after(text, templates, &earlier)?.find_all(&watch)?;
            for (i, target) in open.into_iter().zip(made) {
                found[i].push(target);
            }
        }
        targets.extend(found.into_iter().flatten());
    }
    Ok(targets)
}
