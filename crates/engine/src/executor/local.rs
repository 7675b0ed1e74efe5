//! Attempts in threads of this process.

use std::collections::HashMap;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::committer::Committer;
use super::execute::{execute, make};
use super::interface::{Executor, Notice, Site, Task};
use crate::attempts::Attempt;
use crate::catalogue::Catalogue;
use crate::context::RunContext;
use crate::machine::Capacity;
use crate::scheduler::{AttemptId, Cancel};
use palinode_error::{Error, ErrorKind, panics};

/// Stages recurse deeply in places; they get what a main thread has, and more.
const STACK: usize = 32 << 20;

/// Executes each attempt in a thread.
pub struct Local {
    context: RunContext,
    catalogue: Catalogue,
    capacity: Capacity,
    running: HashMap<AttemptId, Running>,
    notices: (Sender<Notice>, Receiver<Notice>),
    /// Started with the first attempt; none where the system gives no thread: each attempt then publishes its own result.
    committer: Option<Committer>,
}

struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Local {
    /// With the stages of a catalogue.
    pub fn new(context: &RunContext, catalogue: &Catalogue, capacity: Capacity) -> Self {
        let (context, catalogue) = (context.clone(), catalogue.clone());
        Self { context, catalogue, capacity, running: HashMap::new(), notices: mpsc::channel(), committer: None }
    }

    fn start(&mut self, task: Task) {
        let Task { attempt, action, params, .. } = task;
        let (context, stop, ended) = (self.context.clone(), Arc::<AtomicBool>::default(), self.notices.0.clone());
        if self.committer.is_none() {
            self.committer = Committer::start(&context.store, &ended).ok();
        }
        let results = self.committer.as_ref().map(Committer::results);
        // A pipeline is checked against the stages that run it; if it was not, that is a mistake of the program.
        let name = &action.fingerprint.stage;
        let kind = self.catalogue.runnable(name).cloned();
        let kind = kind.ok_or_else(|| Error::internal(format!("there is no stage `{name}` to run")));
        let thread = thread::Builder::new().name(action.instance.clone()).stack_size(STACK);
        let stopped = Arc::clone(&stop);
        // Said first: a quick stage may be over before its thread is heard of here.
        let _ = self.notices.0.send(Notice::Began(attempt, Site::here(process::id())));
        let thread = thread.spawn(move || {
            let done = panics::catch(|| {
                let kind = kind?;
                let Some(results) = results else {
                    return execute(&context, &kind, &params, &action, &stopped).map(Some);
                };
                let manifest = Box::new(make(&context, &kind, &params, &action, &stopped)?);
                results
                    .send(Some((attempt, manifest)))
                    .map_err(|_| Error::internal("no thread is left to publish its result"))?;
                // Where too many wait to be published, its resources wait with it.
                let _ = ended.send(Notice::Worked(attempt));
                Ok(None)
            });
            // The store is let go of before the end is said: whoever hears of it may want to open it.
            drop((context, params, action));
            let done = done.unwrap_or_else(|panic| Err(Error::internal(format!("the engine panicked: {panic}"))));
            if let Some(end) = done.transpose() {
                let _ = ended.send(Notice::Ended(attempt, Box::new(end.map_err(Into::into))));
            }
        });
        if let Err(error) = &thread {
            let error = Error::new(ErrorKind::Limit, format!("cannot start a thread for this stage: {error}"));
            let _ = self.notices.0.send(Notice::Ended(attempt, Box::new(Err(error.into()))));
        }
        self.running.insert(attempt, Running { stop, thread: thread.ok() });
    }
}

impl Executor for Local {
    fn name(&self) -> &'static str {
        "thread"
    }

    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn submit(&mut self, tasks: Vec<Task>) {
        for task in tasks {
            self.start(task);
        }
    }

    fn next(&mut self, wait: Duration) -> Option<Notice> {
        let notice = self.notices.1.recv_timeout(wait).ok()?;
        if let Notice::Ended(attempt, _) = &notice
            && let Some(Running { thread: Some(thread), .. }) = self.running.remove(attempt)
        {
            let _ = thread.join();
        }
        Some(notice)
    }

    /// A thread cannot be ended from outside: [`Cancel::Kill`] does no more than [`Cancel::Finish`].
    fn cancel(&mut self, attempt: AttemptId, _how: Cancel) {
        if let Some(running) = self.running.get(&attempt) {
            running.stop.store(true, Ordering::Relaxed);
        }
    }

    /// None: threads end with their process.
    fn reattach(&mut self, _left: &[(AttemptId, Attempt)]) -> Vec<AttemptId> {
        Vec::new()
    }
}
