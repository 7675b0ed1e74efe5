//! Attempts as jobs of a cluster.
//!
//! [`jobs`] decides what becomes of jobs and starts nothing; [`clerk`] talks to Slurm in a thread of its own; [`slurm`] knows its words;
//! [`record`] is what a later coordinator finds jobs by. This file puts them together: an attempt becomes a job, or where its work parts
//! several and one that joins them.

mod clerk;
mod jobs;
mod list;
mod profile;
mod record;
mod setup;
mod slurm;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use clerk::{Order, Reply};
use jobs::{Command, Event as JobEvent, JobId, Jobs, Name};
use list::{ANSWERS, Answer, Item, JOBS, List, write_whole};
use record::{Earlier, Left, Record, Work};

use slurm::Submission;

pub use list::work_job;
pub use profile::{Asked, Profile};
pub use setup::{Cluster, Looked};

use super::interface::{AttemptError, Executor, Notice, Site, Task};
use super::local::Local;
use super::merged::Merged;
use crate::action::Action;
use crate::attempts::Attempt;
use crate::catalogue::Catalogue;
use crate::context::RunContext;
use crate::environment;
use crate::event::Event;
use crate::machine::{Capacity, Machine};
use crate::runs::Runs;
use crate::scheduler::{AttemptId, Cancel};
use crate::share::Share;
use palinode_error::{Error, ErrorKind, now_ms};
use palinode_fingerprint::Key;
use palinode_pipeline::{Resources, UnitPlan};
use serde::{Deserialize, Serialize};

/// Jobs in the queue at the same time, where a profile does not say.
const MOST: usize = 10_000;

/// How often answers are looked for: at first, and where none comes.
const LOOK: Duration = Duration::from_millis(500);
const LOOK_MOST: Duration = Duration::from_secs(10);

/// How many jobs' events are read at a look.
const LISTEN: usize = 64;

/// Executes each attempt in jobs.
pub struct InJobs {
    context: RunContext,
    catalogue: Catalogue,
    cluster: Cluster,
    run: String,
    dir: PathBuf,
    /// Executes what is not worth a job.
    local: Local,
    here: BTreeSet<AttemptId>,
    jobs: Jobs,
    works: BTreeMap<JobId, OfJob>,
    /// Jobs that are to be sent, with the attempts of each that had too little memory.
    waiting: Vec<(JobId, u32)>,
    groups: BTreeMap<AttemptId, Group>,
    next_job: JobId,
    submissions: u32,
    record: Record,
    /// What earlier coordinators left, by what it works on.
    left: BTreeMap<(Key, Option<Share>), Vec<Left>>,
    /// Shares that are done, of coordinators that were killed before they joined them.
    done: BTreeSet<(Key, Share)>,
    /// Runs whose answers are read.
    answering: BTreeSet<String>,
    to: Sender<Order>,
    from: Receiver<Reply>,
    reading: bool,
    read_at: Instant,
    read_every: Duration,
    clock: Instant,
    notices: VecDeque<Notice>,
    /// Results that were said to be there and are not seen yet.
    late: Vec<(AttemptId, Instant)>,
    shown: (usize, usize),
    shown_at: Option<Instant>,
}

/// What a job does.
struct OfJob {
    attempt: AttemptId,
    share: Option<Share>,
    action: Arc<Action>,
    path: PathBuf,
    stage: String,
    resources: Resources,
}

/// An attempt: its shares, and then the whole.
struct Group {
    action: Arc<Action>,
    stage: String,
    resources: Resources,
    path: PathBuf,
    /// Its jobs that are not over.
    open: BTreeSet<JobId>,
    merged: Option<Merged>,
    whole: bool,
    began: bool,
    failed: Option<AttemptError>,
}

impl InJobs {
    /// On a cluster that was looked at.
    pub fn new(context: &RunContext, catalogue: &Catalogue, run: &str, cluster: &Cluster) -> Self {
        let dir = context.store.run_dir(run);
        let (to, from) = clerk::start(context.store.root().join("runs"));
        let capacity = Capacity { machine: Machine::this(), jobs: usize::MAX };
        let profile = &cluster.profile;
        let Earlier { left, done, foreign } = record::earlier(&Runs::of(context.store.root()), run);
        let made = Self {
            context: context.clone(),
            catalogue: catalogue.clone(),
            cluster: cluster.clone(),
            run: run.to_owned(),
            local: Local::new(context, catalogue, capacity),
            here: BTreeSet::new(),
            jobs: Jobs::new(profile.waits, cluster.limits.accounts, profile.more_memory),
            works: BTreeMap::new(),
            waiting: Vec::new(),
            groups: BTreeMap::new(),
            next_job: 0,
            submissions: 0,
            record: Record::new(&dir),
            left,
            done,
            answering: BTreeSet::from([run.to_owned()]),
            to,
            from,
            reading: false,
            read_at: Instant::now(),
            read_every: LOOK,
            clock: Instant::now(),
            notices: VecDeque::new(),
            late: Vec::new(),
            shown: (0, 0),
            shown_at: None,
            dir,
        };
        // What another build computes may have other bits: it is stopped.
        if !foreign.is_empty() {
            made.order(Order::Stop(foreign, Cancel::Kill));
        }
        made
    }

    fn order(&self, order: Order) {
        let _ = self.to.send(order);
    }

    fn start(&mut self, task: Task) {
        let Task { attempt, action, params, stage } = &task;
        let kind = self.catalogue.get(&action.fingerprint.stage);
        let resources = kind.map_or(Resources::MACHINE, |kind| kind.resources(params));
        if self.cluster.is_here(&resources) {
            self.here.insert(*attempt);
            return self.local.submit(vec![task]);
        }
        let asked = self.cluster.profile.asked(&action.fingerprint.stage, stage, &resources, 0);
        // Where jobs of it are at work already, or done, it is parted as they are.
        let left = self.left.keys().filter_map(|(key, share)| Some((key, share.as_ref()?)));
        let mut earlier = left.chain(self.done.iter().map(|(key, share)| (key, share)));
        let as_they_are = earlier.find(|(key, _)| **key == action.key).map(|(_, share)| share.of);
        let most = as_they_are.or(asked.parts).unwrap_or(1);
        let joins = self.left.contains_key(&(action.key, None));
        let (plan, shares) = if joins { (None, Vec::new()) } else { task.shares(&self.catalogue, most) };
        let shares = shares.into_iter().filter(|share| !self.done.contains(&(action.key, *share))).collect::<Vec<_>>();
        let path = self.dir.join("actions").join(format!("{:04}-{stage}-{}.json", attempt.instance, attempt.number));
        let group = Group {
            action: Arc::clone(action),
            stage: stage.clone(),
            resources,
            path,
            open: BTreeSet::new(),
            merged: plan.map(|plan: UnitPlan| Merged::new(&self.context.observer, &action.instance, &plan)),
            whole: false,
            began: false,
            failed: None,
        };
        let written = super::process::with_places(action, &self.context.store);
        if let Err(error) = written.write(&group.path) {
            self.notices.push_back(Notice::Ended(*attempt, Box::new(Err(error.into()))));
            return;
        }
        self.groups.insert(*attempt, group);
        if shares.is_empty() {
            self.add(*attempt, None);
        } else {
            for share in shares {
                self.add(*attempt, Some(share));
            }
        }
    }

    /// A job of an attempt; one that is at work already is taken over.
    fn add(&mut self, attempt: AttemptId, share: Option<Share>) {
        let Some(group) = self.groups.get_mut(&attempt) else { return };
        let id = self.next_job;
        self.next_job += 1;
        group.whole = share.is_none();
        group.open.insert(id);
        let work = OfJob {
            attempt,
            share,
            action: Arc::clone(&group.action),
            path: group.path.clone(),
            stage: group.stage.clone(),
            resources: group.resources,
        };
        let left = if work.action.forced { None } else { self.left.remove(&(work.action.key, share)) };
        self.works.insert(id, work);
        match left {
            Some(left) => {
                for left in &left {
                    if let Some((run, _)) = left.name.submission.rsplit_once('.') {
                        self.answering.insert(run.to_owned());
                    }
                    if let Err(error) = self.record.adopted(left) {
                        tracing::warn!(%error, "jobs that are gone on with cannot be recorded");
                    }
                }
                self.on(JobEvent::Adopt(id, left.into_iter().map(|left| (left.name, left.id)).collect()));
            }
            None => self.on(JobEvent::Add(id)),
        }
    }

    fn on(&mut self, event: JobEvent) {
        let commands = self.jobs.on(self.clock.elapsed(), event);
        for command in commands {
            match command {
                Command::Send(jobs) => self.waiting.extend(jobs),
                Command::View => {
                    let runs = self.jobs.submissions().filter_map(|name| name.rsplit_once('.'));
                    let runs = runs.map(|(run, _)| run.to_owned()).collect();
                    self.order(Order::View(runs));
                }
                Command::Accounts(ids) => {
                    let known = |id: String| {
                        let name = self.jobs.by_id(&id)?;
                        Some((id, name))
                    };
                    let ids = ids.into_iter().filter_map(known).collect();
                    self.order(Order::Accounts(ids));
                }
                Command::Stop(ids, how) => self.order(Order::Stop(ids, how)),
                Command::Began(id, machine) => self.began(id, machine),
                Command::GivenUp(name, why) => {
                    if let Err(error) = self.record.given_up(&name, why) {
                        tracing::warn!(%error, "a job that is given up cannot be recorded");
                    }
                }
                Command::Ended(id, names, end) => self.ended(id, &names, end),
                Command::Say(job, message) => self.say(job, message),
            }
        }
    }

    /// Sends the jobs that are to be sent: those that ask the same together, in arrays as large as the cluster allows.
    fn send(&mut self) {
        let (waiting, working) = self.jobs.counts();
        let most = self.cluster.profile.jobs.unwrap_or(MOST);
        let free = most.saturating_sub((waiting + working).saturating_sub(self.waiting.len()));
        let rest = self.waiting.split_off(free.min(self.waiting.len()));
        let mut alike: HashMap<Asked, Vec<JobId>> = HashMap::new();
        let mut order: Vec<Asked> = Vec::new();
        for (id, sooner) in std::mem::replace(&mut self.waiting, rest) {
            let Some(work) = self.works.get(&id) else { continue };
            let kind = &work.action.fingerprint.stage;
            let asked = self.cluster.profile.asked(kind, &work.stage, &work.resources, sooner);
            let asked = Asked { parts: None, ..asked };
            let of = alike.entry(asked.clone()).or_default();
            if of.is_empty() {
                order.push(asked);
            }
            of.push(id);
        }
        for asked in order {
            for jobs in alike.remove(&asked).unwrap_or_default().chunks(self.cluster.limits.array) {
                if let Err(error) = self.submit_jobs(&asked, jobs) {
                    for id in jobs {
                        let (kind, message) = (error.kind, error.with_causes());
                        let error = Error { hint: error.hint.clone(), ..Error::new(kind, message) };
                        self.ended(*id, &[], Err((error, false)));
                    }
                }
            }
        }
    }

    fn submit_jobs(&mut self, asked: &Asked, jobs: &[JobId]) -> Result<(), Error> {
        self.submissions += 1;
        let (number, submission) = (self.submissions, format!("{}.{}", self.run, self.submissions));
        let file = |index: usize, end: &str| self.dir.join(JOBS).join(format!("{number}-{index}.{end}"));
        let works: Vec<&OfJob> = jobs.iter().filter_map(|id| self.works.get(id)).collect();
        let item = |(index, work): (usize, &&OfJob)| Item {
            action: work.path.clone(),
            share: work.share,
            events: file(index, "jsonl"),
            answer: Answer::path(&self.dir, number, index),
        };
        for folder in [JOBS, ANSWERS] {
            // Slurm ends a job without a word whose log it cannot write.
            let path = self.dir.join(folder);
            fs::create_dir_all(&path).map_err(|error| Error::io(ErrorKind::Store, "create", &path, error))?;
        }
        let list = self.dir.join(JOBS).join(format!("{number}.json"));
        write_whole(&list, &List::new(works.iter().enumerate().map(item).collect()))?;
        let log = self.dir.join(JOBS).join(format!("{number}-%a.log"));
        let script = slurm::script(&Submission {
            name: &submission,
            run: &self.run,
            count: jobs.len(),
            list: &list,
            log: &log,
            program: &self.cluster.program,
            folder: &self.context.base,
            asked,
            save: self.cluster.profile.waits.save,
        });
        let path = list.with_extension("sh");
        fs::write(&path, &script).map_err(|error| Error::io(ErrorKind::Store, "write", &path, error))?;
        let of =
            |work: &&OfJob| Work { key: work.action.key, share: work.share, instance: work.action.instance.clone() };
        // Written before they are sent: whatever happens to this process, they are found again.
        self.record.sending(&submission, environment::build(), works.iter().map(of).collect())?;
        self.jobs.sending(&submission, jobs);
        self.order(Order::Submit { submission, script });
        Ok(())
    }

    fn began(&mut self, id: JobId, machine: String) {
        let Some(attempt) = self.works.get(&id).map(|work| work.attempt) else { return };
        let Some(group) = self.groups.get_mut(&attempt) else { return };
        if !std::mem::replace(&mut group.began, true) {
            self.notices.push_back(Notice::Began(attempt, Site { host: machine, pid: 0 }));
        }
    }

    fn ended(&mut self, id: JobId, names: &[Name], end: Result<(), (Error, jobs::Lost)>) {
        for name in names {
            if let Err(error) = self.record.ended(name) {
                tracing::warn!(%error, "the end of a job cannot be recorded");
            }
        }
        let Some(work) = self.works.remove(&id) else { return };
        let attempt = work.attempt;
        let Some(group) = self.groups.get_mut(&attempt) else { return };
        group.open.remove(&id);
        if let Err((error, lost)) = end {
            let first = group.failed.is_none();
            let error = with_log(error, lost, &self.dir, names.last());
            // One that was stopped says less than one that failed.
            let more = group.failed.as_ref().is_some_and(|known| known.error.kind == ErrorKind::Interrupted);
            if first || more {
                group.failed = Some(AttemptError { error, lost });
            }
            if first {
                // What the others keep is kept, but nobody joins it now.
                for other in group.open.clone() {
                    self.on(JobEvent::Cancel(other, Cancel::Finish));
                }
            }
        }
        self.step(attempt);
    }

    /// Goes on with an attempt once all of its jobs are over.
    fn step(&mut self, attempt: AttemptId) {
        let Some(group) = self.groups.get_mut(&attempt).filter(|group| group.open.is_empty()) else { return };
        if let Some(merged) = group.merged.as_ref().filter(|_| !group.whole) {
            merged.end();
        }
        if let Some(failed) = group.failed.take() {
            self.groups.remove(&attempt);
            self.notices.push_back(Notice::Ended(attempt, Box::new(Err(failed))));
        } else if group.whole {
            self.late.push((attempt, Instant::now()));
            self.adopt();
        } else {
            self.add(attempt, None);
        }
    }

    /// Takes over results that jobs say are there.
    fn adopt(&mut self) {
        for (attempt, since) in std::mem::take(&mut self.late) {
            let Some(group) = self.groups.get(&attempt) else { continue };
            let end = match self.context.store.adopt(&group.action.key) {
                Some(manifest) => Ok(manifest),
                None if since.elapsed() < self.cluster.profile.waits.files => {
                    self.late.push((attempt, since));
                    continue;
                }
                None => Err(AttemptError::from(
                    Error::store("the job says that it is done, but its result is not in the store")
                        .hint("is the store on a file system that all machines share?"),
                )),
            };
            self.groups.remove(&attempt);
            self.notices.push_back(Notice::Ended(attempt, Box::new(end)));
        }
    }

    /// Takes in what came, and sees to what is due.
    fn pump(&mut self) {
        let replies: Vec<Reply> = self.from.try_iter().collect();
        for reply in replies {
            match reply {
                Reply::Happened(event) => {
                    if let JobEvent::Sent(submission, id) = &event
                        && let Err(error) = self.record.sent(submission, id)
                    {
                        tracing::warn!(%error, "the id of jobs cannot be recorded");
                    }
                    self.on(event);
                }
                Reply::Answered { name, said, host, places } => {
                    self.read_every = LOOK;
                    if let Some(id) = self.jobs.of(&name) {
                        self.hear(&name);
                        self.began(id, host);
                    }
                    for place in &places {
                        self.context.store.learn(place);
                    }
                    self.on(JobEvent::Answer(name, said));
                }
                Reply::Heard(name, events) => {
                    let Some(work) = self.jobs.of(&name).and_then(|id| self.works.get(&id)) else { continue };
                    let merged = self.groups.get(&work.attempt).and_then(|group| group.merged.as_ref());
                    for event in &events {
                        match (work.share, merged) {
                            (Some(share), Some(merged)) => merged.event(share, event),
                            _ => self.context.observer.event(event),
                        }
                    }
                }
                Reply::Read => self.reading = false,
            }
        }
        self.on(JobEvent::Tick);
        self.adopt();
        self.send();
        if self.jobs.lacks_answers() {
            // One is waited for no longer than a shared file system may be late: until then it is looked for often.
            self.read_every = LOOK;
        }
        if !self.works.is_empty() && !self.reading && self.read_at.elapsed() >= self.read_every {
            self.read();
        }
        self.show();
    }

    fn read(&mut self) {
        self.reading = true;
        self.read_at = Instant::now();
        self.read_every = self.read_every.mul_f64(1.2).min(LOOK_MOST);
        let runs = Runs::of(self.context.store.root());
        let folders = self.answering.iter().map(|run| (run.clone(), runs.dir(run).join(ANSWERS))).collect();
        let working = self.jobs.working().take(LISTEN).map(|(_, name)| name.clone());
        let events = working.filter_map(|name| Some((name.clone(), self.events_of(&name)?))).collect();
        self.order(Order::Read { folders, events });
    }

    /// Has the rest of what happened in an attempt read.
    fn hear(&self, name: &Name) {
        if let Some(path) = self.events_of(name) {
            self.order(Order::Read { folders: Vec::new(), events: vec![(name.clone(), path)] });
        }
    }

    fn events_of(&self, name: &Name) -> Option<PathBuf> {
        let (run, number) = name.submission.rsplit_once('.')?;
        let dir = Runs::of(self.context.store.root()).dir(run);
        Some(dir.join(JOBS).join(format!("{number}-{}.jsonl", name.index)))
    }

    /// Writes down how many jobs wait and work, for whoever looks at the run from elsewhere.
    fn show(&mut self) {
        let counts = self.jobs.counts();
        let due = self.shown_at.is_none_or(|at| at.elapsed() >= Duration::from_secs(1));
        if counts != self.shown && due {
            (self.shown, self.shown_at) = (counts, Some(Instant::now()));
            let queue = Queue { at_ms: now_ms(), waiting: counts.0, working: counts.1 };
            let bytes = serde_json::to_vec(&queue).unwrap_or_default();
            let _ = self.context.store.write_file(&self.dir.join(SHOWN), &bytes);
        }
    }

    fn say(&self, job: Option<JobId>, message: String) {
        let work = job.and_then(|id| self.works.get(&id));
        let message = match work.and_then(|work| work.share) {
            Some(share) => format!("{message} (share {} of {})", share.number + 1, share.of),
            None => message,
        };
        let instance = work.map(|work| work.action.instance.clone());
        self.context.observer.event(&Event::Warning { instance, message });
    }
}

/// The file that says how many jobs wait and work.
const SHOWN: &str = "queue.json";

/// How many jobs of a run wait and work, as it wrote it down last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Jobs that wait.
    pub waiting: usize,
    /// Jobs that work.
    pub working: usize,
}

impl Queue {
    /// Of the run in this folder, if it has jobs.
    pub fn of(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(dir.join(SHOWN)).ok()?).ok()
    }
}

/// Cancels the jobs that a run left, whose process is gone; how many they are.
///
/// # Errors
/// When the cluster does not answer.
pub fn cancel_left(store: &Path, run: &str) -> Result<usize, Error> {
    let dir = Runs::of(store).dir(run);
    let left = record::sent(&dir).left;
    if left.is_empty() {
        return Ok(0);
    }
    // By their name too: one may have arrived although nobody heard of it.
    clerk::cancel_all(run)?;
    let is_own = |name: &Name| name.submission.rsplit_once('.').is_some_and(|(of, _)| of == run);
    let taken_over = left.iter().filter(|left| !is_own(&left.name)).filter_map(|left| left.id.clone());
    clerk::stop(&taken_over.collect::<Vec<_>>(), Cancel::Kill);
    let mut record = Record::new(&dir);
    left.iter().try_for_each(|left| record.ended(&left.name))?;
    Ok(left.len())
}

/// Lines of a job's log that are kept for the message should it be lost.
const LAST_WORDS: usize = 3;

/// What a lost job printed last is the best that is known of why.
fn with_log(error: Error, lost: bool, dir: &Path, name: Option<&Name>) -> Error {
    let log = name.filter(|_| lost).and_then(|name| clerk::log_of(dir.parent()?, name));
    let Some((text, path)) = log else { return error };
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let words = lines[lines.len().saturating_sub(LAST_WORDS)..].join(" / ");
    if words.is_empty() {
        return error;
    }
    Error { message: format!("{}; its last words in {}: {words}", error.message, path.display()), ..error }
}

impl Executor for InJobs {
    fn name(&self) -> &'static str {
        "slurm"
    }

    /// The cluster has its own order: what its machines have is not counted here.
    fn capacity(&self) -> Capacity {
        let machine = Machine { cores: 0, memory: 0, gpus: 0 };
        Capacity { machine, jobs: self.cluster.profile.jobs.unwrap_or(MOST) }
    }

    fn submit(&mut self, tasks: Vec<Task>) {
        for task in tasks {
            self.start(task);
        }
        self.send();
    }

    fn next(&mut self, wait: Duration) -> Option<Notice> {
        self.pump();
        if let Some(notice) = self.notices.pop_front() {
            return Some(notice);
        }
        let notice = self.local.next(wait)?;
        if let Notice::Ended(attempt, _) = &notice {
            self.here.remove(attempt);
        }
        Some(notice)
    }

    fn cancel(&mut self, attempt: AttemptId, how: Cancel) {
        if self.here.contains(&attempt) {
            return self.local.cancel(attempt, how);
        }
        let jobs = self.groups.get(&attempt).map(|group| group.open.clone()).unwrap_or_default();
        for id in jobs {
            self.on(JobEvent::Cancel(id, how));
        }
    }

    /// None: jobs are found again by what they work on, whichever run sent them.
    fn reattach(&mut self, _left: &[(AttemptId, Attempt)]) -> Vec<AttemptId> {
        Vec::new()
    }
}
