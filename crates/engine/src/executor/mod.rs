//! How attempts are executed: in threads of this process, or each in a process of its own.
//!
//! An [`Executor`] starts and stops attempts and says what becomes of them. It decides nothing: when an attempt starts, whether a failed
//! one is repeated, and what a run does next is the scheduler's business. All that differs between ways to execute is in their files.

pub(crate) mod cluster;
mod committer;
mod execute;
mod interface;
mod local;
mod merged;
mod process;
mod worker;

pub(crate) use cluster::InJobs;
pub use cluster::{Asked, Cluster, Looked, Profile, Queue, cancel_left, work_job};
pub(crate) use interface::{AttemptError, Executor, Notice, Site, Task};
pub(crate) use local::Local;
pub(crate) use process::Processes;
pub use process::WorkerCommand;
pub use worker::{work, work_aloud};
