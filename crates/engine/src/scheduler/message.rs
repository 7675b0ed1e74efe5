//! What goes into the scheduler and what comes out of it.

use std::time::Duration;

use palinode_error::ErrorKind;
use palinode_fingerprint::{Digest, Key};

/// A moment: the time since the run began, as whoever runs the scheduler measures it.
pub type Moment = Duration;

/// One try at an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    /// The instance, as an index into the pipeline's.
    pub instance: usize,
    /// Which try it is, counted from 1.
    pub number: u32,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An attempt of an earlier coordinator of this run goes on: its instance waits for it instead of starting another. Comes before
    /// [`Event::Begin`].
    Reattached(AttemptId),
    /// The run begins. Nothing is commanded before.
    Begin,
    /// The answer to [`Command::LookUp`].
    LookedUp {
        /// The instance.
        instance: usize,
        /// What the store has of it.
        found: Found,
    },
    /// An attempt works; until then it may wait for a machine. Its timeout counts from here.
    Began(AttemptId),
    /// An attempt has done its work and frees its resources. It ends when its result is published.
    Worked(AttemptId),
    /// An attempt is over.
    Ended {
        /// Which one.
        attempt: AttemptId,
        /// Whether the result is published, else what was wrong.
        end: Result<(), Failure>,
    },
    /// The user wants the run to stop.
    Interrupt,
    /// Time has passed.
    Tick,
}

/// What the store has of an instance.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Its result.
    Result,
    /// No usable result.
    Missing {
        /// Under which key it will be published.
        key: Key,
        /// Contents whose loss is all that is wrong with a result that was there.
        lost: Vec<Digest>,
    },
    /// The look-up failed.
    Error(ErrorKind),
}

/// Why an attempt has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The stage, or what started it, gave an error.
    Error(ErrorKind),
    /// What executed it is gone, and did not say how the attempt ended.
    Lost(ErrorKind),
    /// It was stopped because its time was up. Only the scheduler knows this of an attempt.
    TimedOut,
}

/// How an attempt is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// It finishes the unit that it is working on, and stops.
    Finish,
    /// It ends at once, where the executor can do that.
    Kill,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Look for the result of an instance, all of whose inputs have one. [`Event::LookedUp`] answers it; there is no second look-up
    /// until then.
    LookUp(usize),
    /// Start an attempt.
    Submit(AttemptId),
    /// Stop an attempt. It is over when [`Event::Ended`] says so.
    Cancel(AttemptId, Cancel),
    /// Tell the reader that an instance failed and will be tried again.
    Retry {
        /// The instance.
        instance: usize,
        /// How many attempts failed so far.
        failed: u32,
        /// How many are left.
        left: u32,
        /// Why the last one failed.
        failure: Failure,
    },
    /// Report how an instance ended. Comes once for each.
    Report {
        /// The instance.
        instance: usize,
        /// How it ended.
        verdict: Verdict,
    },
    /// Send [`Event::Tick`] at this moment at the latest. Replaces the moment given before; `None`: nothing waits for time to pass.
    WakeAt(Option<Moment>),
    /// Every instance is reported.
    Finish,
}

/// How an instance ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The run is not about it.
    Unselected,
    /// Its result was in the store.
    Cached,
    /// An attempt made its result.
    Ran,
    /// It could not be looked up, or its last attempt failed.
    Failed(Failure),
    /// It needs the result of an instance that the run is not about and that has none.
    NoInput {
        /// That instance.
        from: usize,
    },
    /// It was not reached.
    Skipped {
        /// The failed instance that it needs; `None` when the run stopped before it.
        because: Option<usize>,
    },
}

impl Verdict {
    /// Whether the instance has a result.
    pub fn has_result(&self) -> bool {
        matches!(self, Self::Cached | Self::Ran)
    }
}
