//! Carries out what the scheduler commands: looks up results, hands attempts to the executor, and tells the observer.
//!
//! One loop, in one thread. It knows the run's data (keys, actions, errors, results), the scheduler knows its state; neither could do
//! the other's work.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::action::Action;
use crate::attempts::{self, Attempt, AttemptFailure, AttemptLog};
use crate::context::RunContext;
use crate::environment;
use crate::event::{Event, Outcome};
use crate::executor::{AttemptError, Executor, Notice, Site, Task};
use crate::options::{Gate, RunOptions};
use crate::plan::{Lookup, Planner, Reason};
use crate::report::StageReport;
use crate::scheduler::{self, AttemptId, Command, Failure, Found, Moment, Node, Policy, Scheduler, Verdict};
use crate::stop;
use palinode_error::{Error, ErrorKind, Hint, now_ms};
use palinode_fingerprint::{Digest, Key};
use palinode_pipeline::{Chosen, Instance, Limits, Pipeline, limits};
use palinode_store::{Artifact, Manifest};

/// How often the interrupt is looked at while nothing happens.
const LOOK: Duration = Duration::from_millis(50);

/// How often it is looked whether someone outside wants the run to stop.
const LOOK_OUTSIDE: Duration = Duration::from_millis(500);

/// Drives a run.
pub(crate) struct Driver<'a> {
    pipeline: &'a Pipeline,
    context: &'a RunContext,
    run: &'a str,
    chosen: &'a Chosen,
    planner: Planner<'a>,
    scheduler: Scheduler,
    executor: Box<dyn Executor>,
    attempts: AttemptLog,
    clock: Instant,
    /// When the scheduler wants to hear of the time at the latest.
    wake_at: Option<Moment>,
    interrupted: bool,
    /// When it was last looked whether the run is to stop.
    looked_at: Moment,
    /// Instances that were looked up and have not started.
    lookups: HashMap<usize, Lookup>,
    /// Instances with attempts of this coordinator.
    work: HashMap<usize, Work>,
    /// What attempts yielded, until that is reported.
    results: HashMap<usize, Manifest>,
    /// Why instances failed, until that is reported.
    errors: HashMap<usize, Error>,
    /// The attempt that has just ended, until it is recorded: what was wrong is known once the scheduler has said whether its time was up.
    unrecorded: Option<(AttemptId, Option<AttemptFailure>)>,
    reports: Vec<Option<StageReport>>,
    gate: Option<Gate>,
    /// What the gate has said, which is said once.
    said: HashSet<String>,
}

/// An instance that is worked on.
struct Work {
    action: Arc<Action>,
    since: Instant,
}

impl<'a> Driver<'a> {
    /// For a run that begins.
    pub fn new(
        pipeline: &'a Pipeline,
        context: &'a RunContext,
        run: &'a str,
        options: &RunOptions,
        chosen: &'a Chosen,
        executor: Box<dyn Executor>,
    ) -> Self {
        let node = |(at, instance): (usize, &Instance)| Node {
            inputs: instance.inputs.values().copied().collect(),
            selected: chosen.asked.contains(&at),
            needed: chosen.needed.contains(&at),
            resources: instance.kind.resources(&instance.params),
            limits: instance.limits,
        };
        let nodes = pipeline.instances.iter().enumerate().map(node).collect();
        let policy = Policy { keep_going: options.keep_going, grace: options.grace, backoff: options.backoff };
        Self {
            pipeline,
            context,
            run,
            chosen,
            planner: Planner::new(pipeline, &context.store, context.observer.as_ref()),
            scheduler: Scheduler::new(nodes, &executor.capacity(), policy),
            executor,
            attempts: AttemptLog::new(&context.store.run_dir(run)),
            clock: Instant::now(),
            wake_at: None,
            interrupted: false,
            looked_at: Moment::ZERO,
            lookups: HashMap::new(),
            work: HashMap::new(),
            results: HashMap::new(),
            errors: HashMap::new(),
            unrecorded: None,
            reports: pipeline.instances.iter().map(|_| None).collect(),
            gate: options.gate,
            said: HashSet::new(),
        }
    }

    /// Runs until every instance has its report.
    pub fn run(mut self) -> Vec<StageReport> {
        let mut events = self.reattach();
        events.push_back(scheduler::Event::Begin);
        loop {
            // Looked at before every step: what follows from an event that came before the user stopped the run must not start either.
            let interrupt = !self.interrupted && (self.context.interrupt.load(Ordering::Relaxed) || self.is_to_stop());
            let event = if interrupt {
                self.interrupted = true;
                scheduler::Event::Interrupt
            } else {
                events.pop_front().unwrap_or_else(|| self.wait())
            };
            let commands = self.scheduler.on(self.clock.elapsed(), event);
            let finished = self.carry_out(commands, &mut events);
            // An end that nothing followed from: that of an attempt which was given up before.
            self.record_end(None);
            if finished {
                break;
            }
        }
        self.reports.into_iter().flatten().collect()
    }

    /// Whether someone outside has asked for the run to stop.
    fn is_to_stop(&mut self) -> bool {
        let now = self.clock.elapsed();
        if now.saturating_sub(self.looked_at) < LOOK_OUTSIDE {
            return false;
        }
        self.looked_at = now;
        let asked = stop::is_asked(&self.context.store.run_dir(self.run));
        if asked {
            self.context.interrupt.store(true, Ordering::Relaxed);
        }
        asked
    }

    /// Takes over what an earlier coordinator of this run left at work. A run that is new has none.
    fn reattach(&mut self) -> VecDeque<scheduler::Event> {
        let mut open = attempts::read(&self.context.store.run_dir(self.run));
        open.retain(|left| left.end.is_none());
        if open.is_empty() {
            return VecDeque::new();
        }
        let places = self.pipeline.instances.iter().enumerate();
        let places: HashMap<&str, usize> = places.map(|(at, instance)| (instance.name.as_str(), at)).collect();
        let left = open.into_iter().filter_map(|left| {
            let id = AttemptId { instance: *places.get(left.instance.as_str())?, number: left.number };
            Some((id, left))
        });
        let left: Vec<(AttemptId, Attempt)> = left.collect();
        let found = self.executor.reattach(&left);
        for (id, attempt) in left.iter().filter(|(id, _)| !found.contains(id)) {
            let failure = AttemptFailure {
                kind: ErrorKind::Limit,
                lost: true,
                message: "the process of its run ended, and the attempt with it".to_owned(),
            };
            note(self.attempts.ended(&attempt.instance, id.number, Some(failure)));
        }
        found.into_iter().map(scheduler::Event::Reattached).collect()
    }

    /// Waits for something to happen.
    fn wait(&mut self) -> scheduler::Event {
        let now = self.clock.elapsed();
        let wait = self.wake_at.map_or(LOOK, |at| at.saturating_sub(now).min(LOOK));
        match self.executor.next(wait) {
            Some(Notice::Began(attempt, site)) => {
                self.began(attempt, site);
                scheduler::Event::Began(attempt)
            }
            Some(Notice::Worked(attempt)) => scheduler::Event::Worked(attempt),
            Some(Notice::Ended(attempt, result)) => {
                let end = self.ended(attempt, *result);
                scheduler::Event::Ended { attempt, end }
            }
            None => scheduler::Event::Tick,
        }
    }

    /// Carries out commands; `true` when the run is over.
    fn carry_out(&mut self, commands: Vec<Command>, events: &mut VecDeque<scheduler::Event>) -> bool {
        let mut tasks = Vec::new();
        let mut finished = false;
        for command in commands {
            match command {
                Command::LookUp(instance) => {
                    let found = self.look_up(instance);
                    events.push_back(scheduler::Event::LookedUp { instance, found });
                }
                Command::Submit(attempt) => tasks.extend(self.task(attempt)),
                Command::Cancel(attempt, how) => self.executor.cancel(attempt, how),
                Command::Retry { instance, failed, left, failure } => self.retry(instance, failed, left, failure),
                Command::Report { instance, verdict } => self.report(instance, verdict),
                Command::WakeAt(at) => self.wake_at = at,
                Command::Finish => finished = true,
            }
        }
        if !tasks.is_empty() {
            self.executor.submit(tasks);
        }
        finished
    }

    fn look_up(&mut self, at: usize) -> Found {
        let reports = &self.reports;
        let artifact = |from: usize| reports[from].as_ref()?.artifact.clone();
        match self.planner.look_up(&self.pipeline.instances[at], &artifact) {
            Ok(mut lookup) => {
                if self.chosen.forced.contains(&at) {
                    lookup.found = Err(vec![Reason::Forced]);
                }
                let found = match &lookup.found {
                    Ok(_) => Found::Result,
                    Err(reasons) => Found::Missing { key: lookup.key, lost: lost(reasons) },
                };
                if lookup.found.is_err()
                    && let Err(error) = self.admit(at)
                {
                    return self.found_wrong(at, error);
                }
                self.lookups.insert(at, lookup);
                found
            }
            Err(error) => self.found_wrong(at, error),
        }
    }

    fn found_wrong(&mut self, at: usize, error: Error) -> Found {
        let kind = error.kind;
        self.errors.insert(at, error);
        Found::Error(kind)
    }

    /// Lets an instance run, or says why it must not.
    fn admit(&mut self, at: usize) -> Result<(), Error> {
        let Some(gate) = self.gate else { return Ok(()) };
        let became = |from: usize| {
            let report = self.reports[from].as_ref()?;
            Some((report.outcome.clone(), report.artifact.clone()?))
        };
        for message in gate(self.pipeline, at, &self.context.store, &became)? {
            if self.said.insert(message.clone()) {
                let instance = Some(self.pipeline.instances[at].name.clone());
                self.context.observer.event(&Event::Warning { instance, message });
            }
        }
        Ok(())
    }

    /// What the executor needs to know of an attempt. The first one of an instance is told to the observer.
    fn task(&mut self, attempt: AttemptId) -> Option<Task> {
        let at = attempt.instance;
        let instance = &self.pipeline.instances[at];
        if let Some(lookup) = self.lookups.remove(&at) {
            self.context.observer.event(&Event::StageStarted {
                instance: instance.name.clone(),
                uses: instance.kind.info().name.to_owned(),
                reasons: lookup.found.as_ref().err().into_iter().flatten().map(ToString::to_string).collect(),
            });
            let action = Arc::new(self.action(at, lookup));
            self.work.insert(at, Work { action, since: Instant::now() });
        }
        let action = Arc::clone(&self.work.get(&at)?.action);
        Some(Task { attempt, action, params: instance.params.clone(), stage: instance.stage.clone() })
    }

    /// Everything that a stage needs to run.
    fn action(&self, at: usize, lookup: Lookup) -> Action {
        let instance = &self.pipeline.instances[at];
        let inputs = instance.inputs.iter();
        let path_of = |name: &str| instance.files.iter().find(|file| file.name == name).map(|file| file.path.clone());
        Action {
            format: Action::FORMAT,
            build: environment::build().to_owned(),
            store: self.context.store.root().to_owned(),
            base: self.pipeline.base.clone(),
            pipeline: self.pipeline.name.clone(),
            source: self.pipeline.source.name.clone(),
            instance: instance.name.clone(),
            run: self.run.to_owned(),
            device: self.context.device.clone(),
            settings: self.context.settings.clone(),
            key: lookup.key,
            fingerprint: lookup.fingerprint,
            with: instance.params.value.clone(),
            unkeyed: lookup.unkeyed,
            inputs: inputs
                .filter_map(|(port, &from)| Some((port.clone(), Artifact::clone(self.artifact(from)?))))
                .collect(),
            files: lookup
                .files
                .into_iter()
                .filter_map(|(name, file)| Some((name.clone(), (file, path_of(&name)?))))
                .collect(),
            places: Vec::new(),
            forced: self.chosen.forced.contains(&at),
            share: None,
        }
    }

    fn began(&mut self, attempt: AttemptId, site: Site) {
        let Some(work) = self.work.get(&attempt.instance) else { return };
        let begun = self.attempts.begun(Attempt {
            instance: work.action.instance.clone(),
            key: work.action.key,
            number: attempt.number,
            executor: self.executor.name().to_owned(),
            host: site.host,
            pid: site.pid,
            begun_ms: now_ms(),
            end: None,
        });
        note(begun);
    }

    /// Keeps how an attempt ended, and says it in the scheduler's words.
    fn ended(&mut self, attempt: AttemptId, result: Result<Manifest, AttemptError>) -> Result<(), Failure> {
        let at = attempt.instance;
        let (failure, end) = match result {
            Ok(manifest) => {
                self.results.insert(at, manifest);
                (None, Ok(()))
            }
            Err(AttemptError { error, lost }) => {
                let kind = error.kind;
                let failure = AttemptFailure { kind, lost, message: text(&error) };
                self.errors.insert(at, error);
                (Some(failure), Err(if lost { Failure::Lost(kind) } else { Failure::Error(kind) }))
            }
        };
        self.unrecorded = Some((attempt, failure));
        end
    }

    /// Records the end of the attempt that has just ended, with the error that its instance is reported with.
    fn record_end(&mut self, error: Option<&Error>) {
        let Some((attempt, failure)) = self.unrecorded.take() else { return };
        let failure = failure.map(|failure| match error {
            Some(error) => AttemptFailure { kind: error.kind, message: text(error), ..failure },
            None => failure,
        });
        note(self.attempts.ended(&self.pipeline.instances[attempt.instance].name, attempt.number, failure));
    }

    fn retry(&mut self, at: usize, failed: u32, left: u32, failure: Failure) {
        let Some(error) = self.errors.remove(&at) else { return };
        let error = named(error, failure, self.pipeline.instances[at].limits);
        let instance = self.pipeline.instances[at].name.clone();
        let message = text(&error);
        self.record_end(Some(&error));
        // Where the run stops before the next attempt, this is why the instance failed.
        self.errors.insert(at, error);
        self.context.observer.event(&Event::StageRetried { instance, failed, left, message });
    }

    /// Reports how an instance ended, and tells it where something was done or found.
    fn report(&mut self, at: usize, verdict: Verdict) {
        let (lookup, work) = (self.lookups.remove(&at), self.work.remove(&at));
        let seconds = work.as_ref().map_or(0.0, |work| work.since.elapsed().as_secs_f64());
        let key = work.map(|work| work.action.key).or(lookup.as_ref().map(|lookup| lookup.key));
        match verdict {
            Verdict::Unselected => self.close(at, Outcome::NotAsked, None, 0.0),
            Verdict::Skipped { because } => {
                let because = because.map(|from| self.pipeline.instances[from].name.clone());
                self.close(at, Outcome::Skipped { because }, None, 0.0);
            }
            Verdict::Cached => {
                let manifest = lookup.and_then(|lookup| lookup.found.ok());
                // One that an earlier version made has the key that it had then.
                let key = manifest.as_ref().map(|manifest| manifest.key).or(key);
                self.finish(at, key, Outcome::Cached, manifest, 0.0);
            }
            Verdict::Ran => {
                self.record_end(None);
                let manifest = self.results.remove(&at);
                self.finish(at, key, Outcome::Ran, manifest, seconds);
            }
            Verdict::NoInput { from } => self.fail(at, None, &self.no_input(from), 0.0),
            Verdict::Failed(failure) => {
                let unknown = || Error::internal("it failed without an error");
                let error = self.errors.remove(&at).unwrap_or_else(unknown);
                let error = named(error, failure, self.pipeline.instances[at].limits);
                // Another one may be reported first: a stage that waits for its next attempt when this end stops the run.
                if self.unrecorded.as_ref().is_some_and(|(attempt, _)| attempt.instance == at) {
                    self.record_end(Some(&error));
                }
                self.fail(at, key, &error, seconds);
            }
        }
    }

    fn fail(&mut self, at: usize, key: Option<Key>, error: &Error, seconds: f64) {
        let outcome = Outcome::Failed { kind: error.kind, message: text(error), hint: error.hint.clone() };
        self.finish(at, key, outcome, None, seconds);
    }

    /// Tells how an instance ended, and closes it.
    fn finish(&mut self, at: usize, key: Option<Key>, outcome: Outcome, result: Option<Manifest>, seconds: f64) {
        let instance = self.pipeline.instances[at].name.clone();
        self.context.observer.event(&Event::StageFinished { instance, outcome: outcome.clone(), key, seconds });
        for message in self.context.store.take_notes() {
            self.context.observer.event(&Event::warning(message));
        }
        self.close(at, outcome, result, seconds);
    }

    fn close(&mut self, at: usize, outcome: Outcome, result: Option<Manifest>, seconds: f64) {
        let instance = self.pipeline.instances[at].name.clone();
        let artifact = result.map(|manifest| Arc::new(manifest.output));
        self.reports[at] = Some(StageReport { instance, outcome, artifact, seconds });
    }

    fn artifact(&self, at: usize) -> Option<&Arc<Artifact>> {
        self.reports[at].as_ref()?.artifact.as_ref()
    }

    fn no_input(&self, from: usize) -> Error {
        let Instance { name, .. } = &self.pipeline.instances[from];
        let message =
            format!("it needs `{name}`, whose result is not in the store and which is not selected for this run");
        Error::new(ErrorKind::Usage, message).hint(Hint::SelectInputs)
    }
}

/// Nothing in this run depends on the record of attempts: one that cannot be written is traced.
fn note(written: Result<(), Error>) {
    if let Err(error) = written {
        tracing::warn!(%error, "an attempt cannot be recorded");
    }
}

/// Contents whose loss is all that is wrong with a result.
fn lost(reasons: &[Reason]) -> Vec<Digest> {
    let digests = reasons.iter().map(|reason| match reason {
        Reason::Lost { digest, .. } => Some(*digest),
        _ => None,
    });
    digests.collect::<Option<Vec<_>>>().unwrap_or_default()
}

fn text(error: &Error) -> String {
    let message = error.with_causes();
    error.at.as_ref().map_or(message.clone(), |at| format!("{at}: {message}"))
}

/// The error of a failure: an attempt that was stopped because its time was up did not fail by itself.
fn named(error: Error, failure: Failure, limits: Limits) -> Error {
    let (Failure::TimedOut, Some(timeout)) = (failure, limits.timeout) else { return error };
    let message = format!("it was not done within its timeout of {}", limits::written(timeout));
    Error::new(ErrorKind::Limit, message).hint(
        "what it finished is kept, so the same command goes on from there; or raise `timeout`, or give it `retries`",
    )
}

#[cfg(test)]
mod tests;
