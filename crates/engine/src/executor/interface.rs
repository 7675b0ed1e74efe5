//! What the engine asks of every executor.

use std::sync::Arc;
use std::time::Duration;

use crate::action::Action;
use crate::attempts::Attempt;
use crate::catalogue::Catalogue;
use crate::machine::Capacity;
use crate::scheduler::{AttemptId, Cancel};
use crate::share::Share;
use palinode_error::Error;
use palinode_pipeline::{Params, UnitPlan};
use palinode_store::{Holder, Manifest};

/// Executes attempts. One thread calls it; what it runs reports through [`Executor::next`].
pub trait Executor {
    /// What it is called in the record of attempts.
    fn name(&self) -> &'static str;

    /// What it can execute at once. Asked once, before the first attempt.
    fn capacity(&self) -> Capacity;

    /// Starts attempts, all that can start at this moment: an executor that sends them away can do it in one call. It returns without
    /// waiting for them. An attempt that cannot be started ends with an error, by [`Notice::Ended`] like any other.
    fn submit(&mut self, tasks: Vec<Task>);

    /// The next thing that became of an attempt, in the order in which it happened; `None` when nothing did within `wait`. Each
    /// attempt ends once.
    fn next(&mut self, wait: Duration) -> Option<Notice>;

    /// Stops an attempt. It still ends by [`Notice::Ended`]. One that has ended already is left alone.
    fn cancel(&mut self, attempt: AttemptId, how: Cancel);

    /// Takes over attempts that an earlier coordinator of this run began and did not see the end of. Gives those that go on, or whose
    /// end is still to be had: this executor reports on them from now on. The others are gone.
    fn reattach(&mut self, left: &[(AttemptId, Attempt)]) -> Vec<AttemptId>;
}

/// An attempt that is to be executed.
pub struct Task {
    /// Which one.
    pub attempt: AttemptId,
    /// Its stage with all that it needs.
    pub action: Arc<Action>,
    /// The action's parameters as the stage reads them.
    pub params: Params,
    /// The stage's name in the pipeline file.
    pub stage: String,
}

impl Task {
    /// How its work parts, and in how many shares it is done where there may be so many; none where one process does all.
    ///
    /// What is forced to run makes its units again, and would find none that others made.
    pub fn shares(&self, catalogue: &Catalogue, most: usize) -> (Option<UnitPlan>, Vec<Share>) {
        let kind = catalogue.runnable(&self.action.fingerprint.stage).filter(|_| most > 1 && !self.action.forced);
        // Facts that do not read are said by the stage itself.
        let plan = kind.and_then(|kind| kind.parts(&self.params, &self.action.inputs).ok().flatten());
        let of = plan.map_or(1, |plan| plan.parts().min(most));
        (plan, if of > 1 { (0..of).map(|number| Share { number, of }).collect() } else { Vec::new() })
    }
}

/// What became of an attempt.
pub enum Notice {
    /// It works.
    Began(AttemptId, Site),
    /// It has done its work, and needs nothing of the machine any more. Its result is about to be published; its end comes when it is, and
    /// may be heard of first. Not every executor says so.
    Worked(AttemptId),
    /// It is over. Its result is in the store and the index knows it, or there is an error.
    Ended(AttemptId, Box<Result<Manifest, AttemptError>>),
}

/// Where an attempt works.
pub struct Site {
    /// The host.
    pub host: String,
    /// The process on it.
    pub pid: u32,
}

impl Site {
    /// A process on this host.
    pub fn here(pid: u32) -> Self {
        Self { host: Holder::this(None).host, pid }
    }
}

/// Why an attempt has no result.
pub struct AttemptError {
    /// What is said of it.
    pub error: Error,
    /// Whether what executed it is gone without having said so itself.
    pub lost: bool,
}

impl From<Error> for AttemptError {
    fn from(error: Error) -> Self {
        Self { error, lost: false }
    }
}
