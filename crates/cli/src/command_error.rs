//! What ends a command early: exit codes, and the words with commands and flags for what can be done.
//!
//! Libraries say what went wrong ([`ErrorKind`]) and what could be done ([`Hint`]). That there are flags, commands and exit codes is known
//! here alone.

use std::sync::Arc;

use palinode::{Diagnostic, Diagnostics, Error, ErrorKind, Hint, LoadError, Origin, Outcome};

use crate::again;

/// What ends a command early.
pub enum Failure {
    /// The pipeline has mistakes.
    Mistakes(Diagnostics),
    /// Something else went wrong.
    Error(Error),
    /// Something went wrong and is reported already.
    Told(ErrorKind),
    /// The reader of the output has closed it.
    Closed,
}

impl From<Diagnostics> for Failure {
    fn from(mistakes: Diagnostics) -> Self {
        Self::Mistakes(mistakes)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Mistakes(mistakes) => Self::Mistakes(mistakes),
            LoadError::Error(error) => Self::Error(error),
        }
    }
}

/// The exit code of the program when an error of this kind ended it.
pub const fn exit_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Usage => 2,
        ErrorKind::Pipeline => 3,
        ErrorKind::Input => 4,
        ErrorKind::Numerical => 5,
        ErrorKind::Store => 6,
        ErrorKind::Limit => 7,
        ErrorKind::Doubtful => 10,
        ErrorKind::Changed => 8,
        ErrorKind::Unworkable => 9,
        ErrorKind::Internal => 70,
        ErrorKind::Interrupted => 130,
    }
}

/// A hint, with the commands and flags that do what it says.
pub fn words(hint: &Hint) -> String {
    let text = match hint {
        Hint::Say(text) => text,
        Hint::ListEdits { place } => {
            return format!(
                "`palinode edits {place}` lists them; each is named by its number, its request's name or its subject, with an --edit of its own"
            );
        }
        Hint::NameBase { run } => return format!("name the unedited model's folder with --base; or {run}"),
        Hint::NameStore { run } => return format!("name the store that has them with --store; or {run}"),
        Hint::OtherDevice { trouble } => return format!("{trouble}; or use --device cpu"),
        Hint::ListRuns { latest } => {
            return format!("the latest is {latest}; `{}` lists all", again::on_store("palinode runs"));
        }
        Hint::FreeSpace => {
            let gc = again::on_store("palinode cache gc");
            return format!("free some space, such as with `{gc}`, and run again: what was finished is kept");
        }
        Hint::WaitForStore => "wait until it is done, with --wait, or give this one a store of its own with --store",
        Hint::OwnStore => {
            "you may look at this store (`plan`, `why`, `show`, `report`) and not write to it: ask its owner, or name one of your own \
             with --store; `palinode cache export` and `cache import` copy results between stores"
        }
        Hint::Overwrite => {
            "choose another place, or move away what is there; a command with --overwrite, or a stage with `overwrite: true`, writes over it"
        }
        Hint::WaitForWorkers => "wait until they are done; --dry-run shows what would go",
        Hint::LessMemory => {
            "give it smaller batches, or the machine to itself (--jobs 1); what it finished is kept, so the same command goes on from there"
        }
        Hint::Download => "`palinode run` downloads it",
        Hint::GoOnline => "without --offline it is downloaded; or give a local path",
        Hint::WriteActions => {
            "`palinode run --executor processes` writes one for each stage into .palinode/runs/<run>/actions"
        }
        Hint::ListPins => {
            return format!("`{}` without a name lists all pins", again::on_store("palinode cache pin"));
        }
        Hint::ExportAgain => "`palinode cache export` writes such archives; copy this one again",
        Hint::SelectInputs => "leave out --only or --from, or name what it needs too",
        Hint::SelectToo => "name it with --only, --from or --until as well",
        Hint::SelectBetween => "`--from A --until B` is what lies between: name a stage that B needs",
        Hint::ForceApply => "name the folder of the unedited model, or insist with --force",
        Hint::ForceRevert => "subtract the update all the same with --force",
        Hint::RevertBySubtraction => "leave --base out to subtract the change instead",
        Hint::ShowProvenance => {
            "`palinode edits` lists what is in a model, `palinode show` tells where an update came from"
        }
    };
    text.to_owned()
}

/// A mistake with its hint in words, and with the flag that a value came from.
pub fn in_our_words(mistake: &Diagnostic) -> Diagnostic {
    let hint = mistake.hint.as_ref().map(|hint| Hint::Say(words(hint)));
    let mut source = Arc::clone(&mistake.source);
    if source.origin == Origin::Override {
        "--set".clone_into(&mut Arc::make_mut(&mut source).name);
    }
    Diagnostic { hint, source, ..mistake.clone() }
}

/// How a stage ended, with its hint in words: programs that read what is printed get text.
pub fn in_words(outcome: &Outcome) -> Outcome {
    let mut outcome = outcome.clone();
    if let Outcome::Failed { hint: Some(hint), .. } = &mut outcome {
        *hint = Hint::Say(words(hint));
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_what_they_always_were() {
        use ErrorKind::{
            Changed, Doubtful, Input, Internal, Interrupted, Limit, Numerical, Pipeline, Store, Unworkable, Usage,
        };
        let kinds =
            [Usage, Pipeline, Input, Numerical, Store, Limit, Changed, Unworkable, Doubtful, Internal, Interrupted];
        assert_eq!(kinds.map(exit_code), [2, 3, 4, 5, 6, 7, 8, 9, 10, 70, 130]);
    }
}
