//! Why an edit does not come off by itself, with what would have to run.

use palinode_engine::{Error, Hint};
use serde_json::Value;

use crate::sinks::export::ledger::{Entry, Recorded};

/// Why edits do not come off, with what would have to run.
pub struct Refused<'a> {
    /// The update.
    pub entry: &'a Entry,
    /// The edits, by place.
    pub gone: &'a [usize],
}

impl Refused<'_> {
    fn edits(&self) -> String {
        let numbers: Vec<&Recorded> = self.gone.iter().map(|&at| &self.entry.facts.edits[at]).collect();
        named(&numbers)
    }

    /// The file and stage that an update is from.
    fn from(&self) -> String {
        let made = &self.entry.facts.made_by;
        match (made.file.as_str(), made.pipeline.as_str()) {
            ("", "") => "the pipeline that it is from".to_owned(),
            ("", name) => format!("the pipeline `{name}`"),
            (file, _) => file.to_owned(),
        }
    }

    fn refused(&self, why: &str, run: &str) -> Error {
        self.because(why).hint(self.would_run(run))
    }

    fn because(&self, why: &str) -> Error {
        let by = if self.gone.len() == 1 { "itself" } else { "themselves" };
        Error::input(format!("{} cannot be taken off by {by}: {why}", self.edits()))
    }

    fn would_run(&self, run: &str) -> String {
        format!("what would have to run, without {}: {run}", if self.gone.len() == 1 { "it" } else { "them" })
    }

    /// A change that was treated after it was solved.
    pub fn care(&self) -> Error {
        let care = self.entry.facts.provenance.care.as_array().map(Vec::as_slice).unwrap_or_default();
        let names = care.iter().filter_map(Value::as_object).flat_map(|said| said.keys().cloned());
        let names: Vec<String> = names.filter(|name| name != "every_round").map(|name| format!("`{name}`")).collect();
        let names = names.join(", ");
        let why = format!("the change was treated by {names} after it was solved, for all edits of it together");
        self.refused(&why, &format!("the solve and {names}, in {}", self.from()))
    }

    /// A change that no solve made.
    pub fn by_gradient(&self) -> Error {
        let stage = ["finetune", "ultraedit"]
            .into_iter()
            .find(|name| self.entry.facts.provenance.objective.get(name).is_some());
        let stage = stage.unwrap_or("solve");
        let why = format!("`{stage}` found the change by gradient, for all edits of it together");
        self.refused(&why, &format!("`{stage}`, in {}", self.from()))
    }

    /// One of an earlier round, at this place among the edits.
    pub fn round(&self, early: usize) -> Error {
        let rounds = &self.entry.facts.rounds;
        let of = rounds.iter().filter(|round| round.edits <= early).count();
        let start = of.checked_sub(1).map_or(0, |before| rounds[before].edits);
        let all = rounds.last().map_or(0, |round| round.edits);
        let later = all.saturating_sub(rounds[of].edits);
        let why = format!(
            "it was made in round {} of {}, and {later} edit{} came later, on the model that had it",
            of + 1,
            rounds.len(),
            if later == 1 { "" } else { "s" }
        );
        self.refused(
            &why,
            &format!(
                "rounds {} to {} of the sequence ({} edits), in {}",
                of + 1,
                rounds.len(),
                all.saturating_sub(start),
                self.from()
            ),
        )
    }

    /// One of the last round, in a mixture of experts.
    pub fn experts_of_a_round(&self) -> Error {
        let why = "it is of a sequence in a mixture of experts, whose rounds change different experts";
        self.refused(why, &format!("the last round of the sequence, in {}", self.from()))
    }

    /// One that shares a target with others.
    pub fn merged(&self) -> Error {
        let why = "it shares a target with another edit of its subject (`merge`), which was found for both together";
        self.refused(why, &format!("the targets and the solve, in {}", self.from()))
    }

    /// A change of which the ledger does not have what its solve left.
    pub fn unknown(&self) -> Error {
        let objective = &self.entry.facts.provenance.objective;
        if objective.get("finetune").is_some() || objective.get("ultraedit").is_some() {
            return self.by_gradient();
        }
        let why = "what its solve left is not in the ledger: an earlier version made it, it was loaded from an update by itself, or a round was taken off";
        self.refused(why, &format!("the solve, in {}", self.from()))
    }

    /// What would have to be there for a solve over several layers, and the hint that goes with what would have to run otherwise.
    pub fn lacks(&self, what: &str, hint: impl FnOnce(Box<str>) -> Hint) -> Error {
        let why = format!("it is spread over several layers, which are solved again, and {what}");
        let solve = if self.entry.facts.rounds.len() > 1 { "the last round of the sequence" } else { "the solve" };
        self.because(&why).hint(hint(self.would_run(&format!("{solve}, in {}", self.from())).into()))
    }
}

/// Edits by number and name.
pub fn named(edits: &[&Recorded]) -> String {
    match edits {
        [edit] => format!("edit {} ({})", edit.number, edit.request.id),
        all => {
            let numbers: Vec<String> = all.iter().take(8).map(|edit| edit.number.to_string()).collect();
            match all.len().saturating_sub(numbers.len()) {
                0 => format!("edits {}", numbers.join(", ")),
                more => format!("edits {} and {more} more", numbers.join(", ")),
            }
        }
    }
}
