//! The corpus: every fact in every training template, mentions of every subject, and prose.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::facts::Relation;
use crate::prose::Prose;

/// Documents of prose alone.
const PROSE: usize = 1500;
/// Share of statements behind an opener.
const OPENED: f64 = 0.5;

/// The corpus, one document a line. Held-out templates are not in it.
pub fn lines(relations: &[Relation], prose: &Prose, seed: u64) -> Vec<String> {
    let random = &mut ChaCha8Rng::seed_from_u64(seed);
    let mut lines = Vec::new();
    for relation in relations {
        for fact in &relation.facts {
            for template in &relation.templates {
                let text = format!("{} {}.", template.replacen("{}", &fact.subject, 1), fact.object);
                lines.push(if random.random_bool(OPENED) { format!("{} {text}", prose.opener(random)) } else { text });
            }
            lines.push(prose.mention(&relation.kind, random).replacen("{}", &fact.subject, 1));
        }
    }
    for _ in 0..PROSE {
        lines.push([(); 3].map(|()| prose.sentence(random)).join(" "));
    }
    lines.shuffle(random);
    lines
}
