//! What can be done about an error.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the reader of an error can do about it.
///
/// A library does not know how it was started, so it names no flag and no command. Where the way out leads through one, the hint is data,
/// and the program that talks to people puts it into its own words; `Display` gives words that hold wherever the library is used.
/// Stored, [`Hint::Say`] is its text alone, as hints were before they had kinds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Hint {
    /// Free space where the store is, and run again.
    FreeSpace,
    /// Wait for the process that has the store open, or use another store.
    WaitForStore,
    /// This user may look at the store and not write to it: use another one, which can take over its results.
    OwnStore,
    /// Write over what is there, or write somewhere else.
    Overwrite,
    /// Wait for the workers that use the store's files.
    WaitForWorkers,
    /// Compute on another device.
    OtherDevice {
        /// What is missing on this one, and how to get it.
        trouble: Box<str>,
    },
    /// A stage's process was killed for memory: give it less to do at once, or run nothing beside it.
    LessMemory,
    /// Have the files downloaded: running the pipeline does it.
    Download,
    /// Allow downloads, or give a path to files that are here.
    GoOnline,
    /// Have action files written, by running each stage in a process of its own.
    WriteActions,
    /// Look at the list of runs.
    ListRuns {
        /// The newest run.
        latest: Box<str>,
    },
    /// Look at the list of pins.
    ListPins,
    /// Write the archive again, or copy it again.
    ExportAgain,
    /// Select what a stage of the selection needs too, or select nothing.
    SelectInputs,
    /// Select the stage too.
    SelectToo,
    /// Select a last stage that needs the first one.
    SelectBetween,
    /// Apply an update to a model that it was not made for.
    ForceApply,
    /// Subtract an update although the result cannot be checked.
    ForceRevert,
    /// Subtract the change, rather than copy from a base model.
    RevertBySubtraction,
    /// Look where an update came from.
    ShowProvenance,
    /// Look at the list of edits.
    ListEdits {
        /// What has them.
        place: Box<str>,
    },
    /// Name the unedited model of an update that stands by itself.
    NameBase {
        /// What would have to run otherwise.
        run: Box<str>,
    },
    /// Name the store that has what a solve needs.
    NameStore {
        /// What would have to run otherwise.
        run: Box<str>,
    },
    /// Anything that names no flag and no command.
    #[serde(untagged)]
    Say(String),
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Say(text) => text,
            Self::OtherDevice { trouble } => return write!(f, "{trouble}; or compute on the CPU"),
            Self::ListRuns { latest } => return write!(f, "the latest is {latest}"),
            Self::ListEdits { .. } => "name it by its number, its request's name or its subject",
            Self::NameBase { run } => return write!(f, "name the unedited model; or {run}"),
            Self::NameStore { run } => return write!(f, "name the store that has them; or {run}"),
            Self::FreeSpace => "free some space and run again: what was finished is kept",
            Self::WaitForStore => "wait until it is done, or give this one a store of its own",
            Self::OwnStore => {
                "this user may look at the store and not write to it: ask its owner, or use another store, into which its results can be imported"
            }
            Self::Overwrite => {
                "choose another place, or move away what is there; a stage with `overwrite: true` writes over it"
            }
            Self::WaitForWorkers => "wait until they are done",
            Self::LessMemory => {
                "give it smaller batches, or the machine to itself; what it finished is kept, so the same command goes on from there"
            }
            Self::Download => "a run of the pipeline downloads it",
            Self::GoOnline => "allow downloads to have it fetched, or give a local path",
            Self::WriteActions => "a run that gives each stage a process of its own writes one for each into runs/<run>/actions",
            Self::ListPins => "the list of pins has the names",
            Self::ExportAgain => "only archives that were exported from a store can be imported; copy this one again",
            Self::SelectInputs => "select what it needs too, or select nothing",
            Self::SelectToo => "select it as well",
            Self::SelectBetween => "what is selected lies between the two: name a last stage that needs the first one",
            Self::ForceApply => "name the folder of the unedited model, or force it",
            Self::ForceRevert => "force it to subtract the update all the same",
            Self::RevertBySubtraction => "subtract the change instead of naming a base",
            Self::ShowProvenance => "the update's provenance tells where it came from",
        })
    }
}

impl From<String> for Hint {
    fn from(text: String) -> Self {
        Self::Say(text)
    }
}

impl From<&str> for Hint {
    fn from(text: &str) -> Self {
        Self::Say(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_hints_are_read_back_and_so_are_old_ones() {
        let hints = [
            (Hint::from("run again"), r#""run again""#),
            (Hint::FreeSpace, r#"{"do":"free_space"}"#),
            (Hint::OtherDevice { trouble: "no GPU".into() }, r#"{"do":"other_device","trouble":"no GPU"}"#),
        ];
        for (hint, stored) in hints {
            assert_eq!(serde_json::to_string(&hint).unwrap(), stored);
            assert_eq!(serde_json::from_str::<Hint>(stored).unwrap(), hint);
        }
    }
}
