//! Decides what a run does next, and does nothing itself.
//!
//! [`Scheduler`] is a state machine: [`Scheduler::on`] takes an [`Event`] and gives [`Command`]s. It starts no thread, reads no clock
//! (moments come in with events) and touches no file, so that tests drive it through any order of events. The driver carries the
//! commands out; the executors know how attempts are executed.

mod claims;
mod free;
mod message;
mod queue;
mod retry;
mod state;
mod timers;

pub(crate) use message::{AttemptId, Cancel, Command, Event, Failure, Found, Moment, Verdict};
pub use retry::Backoff;
pub(crate) use state::{Node, Policy, Scheduler};

#[cfg(test)]
mod tests;
