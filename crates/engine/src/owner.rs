//! The loop that owns the state of a run: which instances have results, which work, which failed, what was told.
//!
//! What runs a stage owns nothing but its action. It runs in a thread or in a process and says one thing, its end, so that
//! all decisions are made here, one after another. Of what could start, the instance that comes first in the pipeline does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crate::action::Action;
use crate::catalogue::Catalogue;
use crate::context::RunContext;
use crate::event::{Event, Outcome};
use crate::isolate::perform_apart;
use crate::machine::Room;
use crate::perform::perform;
use crate::plan::{Lookup, Planner, Reason};
use crate::run::{RunOptions, StageReport};
use crate::stop::Stop;
use palinode_error::panics;
use palinode_error::{ErrorKind, Hint, StageError};
use palinode_fingerprint::{Digest, Key};
use palinode_pipeline::Chosen;
use palinode_pipeline::Takes;
use palinode_pipeline::{Instance, Pipeline};
use palinode_pipeline::{Limits, limits};
use palinode_store::Artifact;
use palinode_store::Manifest;

/// Stages recurse deeply in places; they get what a main thread has, and more.
const STACK: usize = 32 << 20;

/// The end of a stage's work: its number, and its result.
type End = (usize, Result<Manifest, StageError>);

/// Owns a run.
pub(crate) struct Owner<'a> {
    pipeline: &'a Pipeline,
    catalogue: &'a Catalogue,
    context: &'a RunContext,
    run: &'a str,
    options: &'a RunOptions,
    chosen: &'a Chosen,
    planner: Planner<'a>,
    reports: Vec<Option<StageReport>>,
    /// How many inputs of each instance are still open.
    open: Vec<usize>,
    /// Who takes inputs from each instance.
    takers: Vec<BTreeSet<usize>>,
    /// All inputs are settled.
    ready: BTreeSet<usize>,
    /// Looked up, and not there.
    queue: BTreeMap<usize, Waiting>,
    work: BTreeMap<usize, Work>,
    room: Room,
    /// How many results were made so far: what was looked up before may be there now.
    made: usize,
    stopped: bool,
    ends: (Sender<End>, Receiver<End>),
}

struct Waiting {
    lookup: Lookup,
    takes: Takes,
    /// What `made` was at the time of the lookup.
    made: usize,
}

/// A stage at work.
struct Work {
    action: Arc<Action>,
    lost: Vec<Digest>,
    takes: Takes,
    limits: Limits,
    started: Instant,
    failed: u32,
    stop: Stop,
    deadline: Option<Instant>,
    /// Its time was up.
    late: bool,
    thread: Option<JoinHandle<()>>,
}

impl<'a> Owner<'a> {
    /// For a run that begins.
    pub fn new(
        pipeline: &'a Pipeline,
        catalogue: &'a Catalogue,
        context: &'a RunContext,
        run: &'a str,
        options: &'a RunOptions,
        chosen: &'a Chosen,
    ) -> Self {
        let count = pipeline.instances.len();
        let mut takers = vec![BTreeSet::new(); count];
        let mut open = vec![0; count];
        for (at, instance) in pipeline.instances.iter().enumerate() {
            for &from in &instance.inputs.values().copied().collect::<BTreeSet<_>>() {
                takers[from].insert(at);
                open[at] += 1;
            }
        }
        Self {
            pipeline,
            catalogue,
            context,
            run,
            options,
            chosen,
            planner: Planner::new(pipeline, &context.store, context.observer.as_ref()),
            reports: (0..count).map(|_| None).collect(),
            ready: (0..count).filter(|&at| open[at] == 0).collect(),
            open,
            takers,
            queue: BTreeMap::new(),
            work: BTreeMap::new(),
            room: Room::new(options.machine, options.jobs.unwrap_or(options.machine.cores)),
            made: 0,
            stopped: false,
            ends: mpsc::channel(),
        }
    }

    /// Runs until every instance has its report.
    pub fn run(mut self) -> Vec<StageReport> {
        loop {
            while let Some(at) = self.ready.pop_first() {
                self.settle(at);
            }
            self.start();
            if !self.ready.is_empty() {
                continue;
            }
            if self.work.is_empty() {
                break;
            }
            self.wait();
        }
        self.reports.into_iter().flatten().collect()
    }

    /// Whether nothing more is to begin.
    fn stops(&mut self) -> bool {
        self.stopped |= self.context.interrupt.load(Ordering::Relaxed);
        self.stopped
    }

    /// Decides about an instance whose inputs are all settled: its result is there, it joins the queue, or it cannot run.
    fn settle(&mut self, at: usize) {
        let instance = &self.pipeline.instances[at];
        let asked = self.chosen.asked.contains(&at);
        let without = instance.inputs.values().copied().find(|&from| self.artifact(from).is_none());
        if !self.chosen.needed.contains(&at) || (without.is_some() && !asked) {
            return self.close(at, Outcome::NotAsked, None, 0.0);
        }
        if let Some(from) = without {
            return match self.reports[from].as_ref().map(|report| &report.outcome) {
                Some(Outcome::NotAsked) => self.fail(at, None, &self.not_asked(from), 0.0),
                Some(Outcome::Skipped { because }) => self.skip(at, because.clone()),
                _ => self.skip(at, Some(self.pipeline.instances[from].name.clone())),
            };
        }
        if self.stops() {
            return self.skip(at, None);
        }
        match self.look_up(at) {
            Err(error) => self.fail(at, None, &error, 0.0),
            Ok(Lookup { key, found: Ok(manifest), .. }) => self.found(at, key, manifest),
            Ok(_) if !asked => self.close(at, Outcome::NotAsked, None, 0.0),
            Ok(lookup) => {
                let takes = instance.kind.takes(&instance.params);
                self.queue.insert(at, Waiting { lookup, takes, made: self.made });
            }
        }
    }

    fn look_up(&mut self, at: usize) -> Result<Lookup, StageError> {
        let reports = &self.reports;
        let artifact = |from: usize| reports[from].as_ref()?.artifact.clone();
        let mut lookup = self.planner.look_up(&self.pipeline.instances[at], &artifact)?;
        if self.chosen.forced.contains(&at) {
            lookup.found = Err(vec![Reason::Forced]);
        }
        Ok(lookup)
    }

    /// Begins what can begin.
    fn start(&mut self) {
        if self.stops() {
            for at in std::mem::take(&mut self.queue).into_keys() {
                self.skip(at, None);
            }
            return;
        }
        let mut next = 0;
        while !self.room.is_full()
            && let Some((&at, waiting)) = self.queue.range(next..).next()
        {
            next = at + 1;
            // One that does the same, or makes the same again, is waited for: what it yields is used.
            let lost = lost(&waiting.lookup);
            let same = |work: &Work| {
                work.action.key == waiting.lookup.key || work.lost.iter().any(|digest| lost.contains(digest))
            };
            if self.work.values().any(same) || !self.room.take(&waiting.takes) {
                continue;
            }
            let Some(mut waiting) = self.queue.remove(&at) else { continue };
            if waiting.made != self.made {
                match self.look_up(at) {
                    Ok(lookup) => waiting.lookup = lookup,
                    Err(error) => {
                        self.room.give_back(&waiting.takes);
                        self.fail(at, None, &error, 0.0);
                        continue;
                    }
                }
            }
            match waiting.lookup {
                Lookup { key, found: Ok(manifest), .. } => {
                    self.room.give_back(&waiting.takes);
                    self.found(at, key, manifest);
                }
                lookup => self.begin(at, lookup, waiting.takes),
            }
        }
    }

    fn begin(&mut self, at: usize, lookup: Lookup, takes: Takes) {
        let instance = &self.pipeline.instances[at];
        let lost = lost(&lookup);
        self.context.observer.event(&Event::StageStarted {
            instance: instance.name.clone(),
            uses: instance.kind.info().name.to_owned(),
            reasons: lookup.found.as_ref().err().into_iter().flatten().map(ToString::to_string).collect(),
        });
        let work = Work {
            action: Arc::new(self.action(at, lookup)),
            lost,
            takes,
            limits: instance.limits,
            started: Instant::now(),
            failed: 0,
            stop: Stop::default(),
            deadline: None,
            late: false,
            thread: None,
        };
        self.work.insert(at, work);
        self.attempt(at);
    }

    /// Everything that a stage needs to run.
    fn action(&self, at: usize, lookup: Lookup) -> Action {
        let instance = &self.pipeline.instances[at];
        let inputs = instance.inputs.iter();
        let path_of = |name: &str| instance.files.iter().find(|file| file.name == name).map(|file| file.path.clone());
        let mut action = Action {
            format: Action::FORMAT,
            store: self.context.store.root().to_owned(),
            base: self.pipeline.base.clone(),
            pipeline: self.pipeline.name.clone(),
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
        };
        if self.options.worker.is_some() {
            let store = &self.context.store;
            let contents = action.contents();
            // What is not found here is not found there either, and said there.
            let contents = contents.iter().filter_map(|file| store.place(file).ok().flatten());
            let files = action.files.values().filter_map(|(_, path)| store.place_of(path));
            action.places = contents.chain(files).collect();
        }
        action
    }

    /// Sets a stage to work, for the first time or again.
    fn attempt(&mut self, at: usize) {
        let instance = &self.pipeline.instances[at];
        let Some(work) = self.work.get_mut(&at) else { return };
        work.stop = Stop::default();
        work.late = false;
        work.deadline = work.limits.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let (context, action, stop) = (self.context.clone(), Arc::clone(&work.action), work.stop.clone());
        let name = instance.kind.info().name;
        // A pipeline is checked against the stages that run it; if it was not, that is a mistake of the program.
        let kind = self.catalogue.runnable(name).cloned();
        let kind = kind.ok_or_else(|| StageError::internal(format!("there is no stage `{name}` to run")));
        let (params, ends) = (instance.params.clone(), self.ends.0.clone());
        let worker = self.options.worker.clone();
        let path = context.store.run_dir(self.run).join("actions").join(format!("{at:04}-{}.json", instance.stage));
        let body = move || {
            let done = panics::catch(|| match &worker {
                Some(worker) => perform_apart(&context, worker, &path, &action, &stop),
                None => kind.and_then(|kind| perform(&context, &kind, &params, &action, &stop)),
            });
            // The store is let go of before the end is told: whoever hears of it may want to open it.
            drop((context, params, action));
            let done = done.unwrap_or_else(|panic| Err(StageError::internal(format!("the engine panicked: {panic}"))));
            let _ = ends.send((at, done));
        };
        match thread::Builder::new().name(instance.name.clone()).stack_size(STACK).spawn(body) {
            Ok(thread) => work.thread = Some(thread),
            Err(error) => {
                let error = StageError::internal("cannot start a thread for this stage").source(error);
                let _ = self.ends.0.send((at, Err(error)));
            }
        }
    }

    /// Waits until a stage ends or has run out of time.
    fn wait(&mut self) {
        let nearest = self.work.values().filter_map(|work| work.deadline).min();
        let left = nearest.map(|nearest| nearest.saturating_duration_since(Instant::now()));
        let end = match left {
            Some(left) => self.ends.1.recv_timeout(left),
            None => self.ends.1.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        if let Ok((at, result)) = end {
            return self.ended(at, result);
        }
        let now = Instant::now();
        for work in self.work.values_mut().filter(|work| work.deadline.is_some_and(|deadline| deadline <= now)) {
            work.stop.ask();
            // A thread cannot be ended from outside; a process that does not finish its unit can.
            work.deadline = (self.options.worker.is_some() && !work.late).then(|| now + self.options.grace);
            work.late = true;
        }
    }

    fn ended(&mut self, at: usize, result: Result<Manifest, StageError>) {
        let Some(work) = self.work.get_mut(&at) else { return };
        let _ = work.thread.take().map(JoinHandle::join);
        work.deadline = None;
        let result = result.map_err(|error| if work.late { too_late(error, work.limits) } else { error });
        if let Err(error) = &result
            && work.failed < work.limits.retries
            && error.kind != ErrorKind::Interrupted
            && !self.context.interrupt.load(Ordering::Relaxed)
        {
            work.failed += 1;
            self.context.observer.event(&Event::StageRetried {
                instance: work.action.instance.clone(),
                failed: work.failed,
                left: work.limits.retries - work.failed,
                message: told(error),
            });
            return self.attempt(at);
        }
        let Some(work) = self.work.remove(&at) else { return };
        self.room.give_back(&work.takes);
        let (key, seconds) = (work.action.key, work.started.elapsed().as_secs_f64());
        match result {
            Ok(manifest) => {
                self.made += 1;
                self.finish(at, Some(key), Outcome::Ran, Some(Arc::new(manifest.output)), seconds);
            }
            Err(error) => self.fail(at, Some(key), &error, seconds),
        }
    }

    fn found(&mut self, at: usize, key: Key, manifest: Manifest) {
        self.finish(at, Some(key), Outcome::Cached, Some(Arc::new(manifest.output)), 0.0);
    }

    fn fail(&mut self, at: usize, key: Option<Key>, error: &StageError, seconds: f64) {
        let fatal = matches!(error.kind, ErrorKind::Interrupted | ErrorKind::Store);
        self.stopped |= fatal || !self.options.keep_going;
        let outcome = Outcome::Failed { kind: error.kind, message: told(error), hint: error.hint.clone() };
        self.finish(at, key, outcome, None, seconds);
    }

    fn skip(&mut self, at: usize, because: Option<String>) {
        self.close(at, Outcome::Skipped { because }, None, 0.0);
    }

    /// Tells how an instance ended, and closes it.
    fn finish(&mut self, at: usize, key: Option<Key>, outcome: Outcome, artifact: Option<Arc<Artifact>>, seconds: f64) {
        let instance = self.pipeline.instances[at].name.clone();
        self.context.observer.event(&Event::StageFinished { instance, outcome: outcome.clone(), key, seconds });
        for message in self.context.store.take_notes() {
            self.context.observer.event(&Event::warning(message));
        }
        self.close(at, outcome, artifact, seconds);
    }

    /// Writes the report of an instance; those that waited for nothing else are ready.
    fn close(&mut self, at: usize, outcome: Outcome, artifact: Option<Arc<Artifact>>, seconds: f64) {
        let instance = self.pipeline.instances[at].name.clone();
        self.reports[at] = Some(StageReport { instance, outcome, artifact, seconds });
        for &taker in &self.takers[at] {
            self.open[taker] -= 1;
            if self.open[taker] == 0 {
                self.ready.insert(taker);
            }
        }
    }

    fn artifact(&self, at: usize) -> Option<&Arc<Artifact>> {
        self.reports[at].as_ref()?.artifact.as_ref()
    }

    fn not_asked(&self, from: usize) -> StageError {
        let Instance { name, .. } = &self.pipeline.instances[from];
        let message = format!("it needs `{name}`, whose result is not in the store and which this run is not about");
        StageError::new(ErrorKind::Usage, message).hint(Hint::SelectInputs)
    }
}

/// Contents whose loss is all that is wrong with a result.
fn lost(lookup: &Lookup) -> Vec<Digest> {
    let reasons = lookup.found.as_ref().err().map_or(&[][..], Vec::as_slice);
    let digests = reasons.iter().map(|reason| match reason {
        Reason::Lost { digest, .. } => Some(*digest),
        _ => None,
    });
    digests.collect::<Option<Vec<_>>>().unwrap_or_default()
}

fn told(error: &StageError) -> String {
    let message = error.with_causes();
    error.at.as_ref().map_or(message.clone(), |at| format!("{at}: {message}"))
}

/// A stage that was stopped since its time was up did not fail by itself.
fn too_late(error: StageError, limits: Limits) -> StageError {
    let (ErrorKind::Interrupted, Some(timeout)) = (error.kind, limits.timeout) else { return error };
    let message = format!("it was not done within its timeout of {}", limits::written(timeout));
    StageError::new(ErrorKind::Limit, message).hint(
        "what it finished is kept, so the same command goes on from there; or raise `timeout`, or give it `retries`",
    )
}
