//! What becomes of jobs: a state machine. What happened goes in, what is to be done comes out; it starts no process and reads no file.
//!
//! A job is one piece of work: a whole stage, or a share of one. It has one attempt after the other in the cluster, and is over when one
//! of them has answered. Three things tell of an attempt, and none of them alone can be trusted:
//!
//! * *Its answer*, a file that it writes as the last thing it does. What it says is so. It may be seen late, since file systems that are
//!   shared show files late.
//! * *The queue.* That an attempt waits or works is so; that it is over says why and not what it has done. A queue that cannot be looked
//!   at says nothing, and one that does not know an attempt may have forgotten it: both are neither success nor failure.
//! * *The accounts*, where the cluster keeps any: they are looked at once for an attempt that the queue has forgotten.
//!
//! So an attempt that is over waits for its answer for a while before it is judged by the way it ended. One that nobody knows of is lost
//! after a while, and the job is sent again. If it works all the same, somewhere behind a broken network, its answer counts like any other.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::time::Duration;

use super::profile::Waits;
use crate::scheduler::{Cancel, Moment};
use palinode_error::{Error, ErrorKind, Hint};

/// One attempt: a submission, and its place in that.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The submission.
    pub submission: String,
    /// The place in its list.
    pub index: u32,
}

/// A job.
pub type JobId = usize;

/// Where the cluster has an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// It waits, for this reason.
    Queue(String),
    /// It works, on this machine.
    Work(String),
    /// It is over.
    Over(Fate),
}

/// How the cluster says that an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// By itself.
    Completed,
    /// By itself, with an error, or it could not be started.
    Failed(String),
    /// It made way for another one.
    Preempted,
    /// Its machine is gone.
    NodeLost,
    /// Its time was up.
    OutOfTime,
    /// It took more memory than it requested.
    OutOfMemory,
    /// Someone cancelled it.
    Cancelled,
    /// Nobody knows.
    Unknown,
}

/// An attempt as the queue shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which one.
    pub name: Name,
    /// What the cluster calls it.
    pub id: String,
    /// Where it is.
    pub place: Place,
}

/// What an attempt answers.
#[derive(Debug)]
pub enum Said {
    /// It is done.
    Done,
    /// It stopped since it was told to, after so many units.
    Stopped {
        /// Units that it finished.
        units: u64,
    },
    /// It failed.
    Failed(Box<Error>),
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// There is a job to do.
    Add(JobId),
    /// There is a job of which an earlier coordinator has sent these attempts, the latest last; whether that reached the cluster may not be known.
    Adopt(JobId, Vec<(Name, Option<String>)>),
    /// A submission reached the cluster, which calls it this.
    Sent(String, String),
    /// A submission did not.
    NotSent(String, Box<Error>, MayPass),
    /// All that the queue has.
    View(Vec<Seen>),
    /// The queue cannot be looked at.
    NoView(String),
    /// What the accounts say of what was asked; nothing of what they do not know.
    Accounts(Vec<Seen>),
    /// An attempt has answered.
    Answer(Name, Said),
    /// A job is to stop.
    Cancel(JobId, Cancel),
    /// Time has passed.
    Tick,
}

/// Whether sending again may go better.
pub type MayPass = bool;

/// What is to be done.
#[derive(Debug)]
pub enum Command {
    /// Send these jobs, each with the number of attempts that had too little memory; [`Jobs::sending`] names the submission.
    Send(Vec<(JobId, u32)>),
    /// Look at the queue.
    View,
    /// Look these up in the accounts.
    Accounts(Vec<String>),
    /// Stop attempts: what waits at once; what works is told to save, or killed.
    Stop(Vec<String>, Cancel),
    /// A job works, on this machine.
    Began(JobId, String),
    /// An attempt counts for nothing any more, for this reason, unless it answers after all: its job is sent again.
    GivenUp(Name, String),
    /// A job is over, with all these attempts.
    Ended(JobId, Vec<Name>, Result<(), (Error, Lost)>),
    /// Tell the reader of a job, or of all.
    Say(Option<JobId>, String),
}

/// Whether what executed a job is gone without an answer.
pub type Lost = bool;

/// How often a job is sent again after each kind of end.
const LOSSES: u32 = 2;
const AWAY: u32 = 50;
const IDLE: u32 = 2;
/// How long the queue may be silent before the reader hears of it.
const SILENT: Duration = Duration::from_mins(1);

struct Job {
    attempts: Vec<Attempt>,
    /// When it may be sent again.
    send_at: Option<Moment>,
    began: bool,
    stopping: bool,
    /// Attempts that had too little memory.
    memory: u32,
    /// Attempts that ended without a reason that the cluster gave.
    losses: u32,
    /// Attempts that had to make way or were out of time.
    away: u32,
    /// Of these, attempts in a row that finished no unit.
    idle: u32,
    refused: u32,
}

struct Attempt {
    name: Name,
    id: Option<String>,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq)]
enum Phase {
    /// It is on its way to the cluster.
    Sending,
    Queue,
    Work,
    /// It was sent, and the queue does not know it.
    Unseen {
        since: Moment,
        looked_up: bool,
    },
    /// It is over, and its answer is not seen yet.
    Over {
        since: Moment,
        fate: Fate,
    },
    /// It is of no account any more.
    Past,
}

/// All jobs of a run.
pub struct Jobs {
    /// Those that are not over.
    open: BTreeMap<JobId, Job>,
    /// The job of each attempt.
    names: HashMap<Name, JobId>,
    waits: Waits,
    accounts: bool,
    /// How often more memory may be asked for.
    more_memory: u32,
    /// Jobs to send.
    next: Vec<JobId>,
    /// When the queue is looked at next, and how long to wait from then on.
    view_at: Moment,
    interval: Duration,
    viewing: bool,
    /// Since when the queue cannot be looked at.
    silent: Option<(Moment, bool)>,
    commands: Vec<Command>,
}

impl Jobs {
    /// None yet.
    pub fn new(waits: Waits, accounts: bool, more_memory: u32) -> Self {
        Self {
            open: BTreeMap::new(),
            names: HashMap::new(),
            waits,
            accounts,
            more_memory,
            next: Vec::new(),
            view_at: Duration::ZERO,
            interval: waits.poll,
            viewing: false,
            silent: None,
            commands: Vec::new(),
        }
    }

    /// Jobs that wait and that work.
    pub fn counts(&self) -> (usize, usize) {
        let phase = |job: &Job| job.attempts.last().map(|attempt| attempt.phase.clone());
        let work = self.open.values().filter(|job| phase(job) == Some(Phase::Work)).count();
        (self.open.len() - work, work)
    }

    /// The attempts that work, with their jobs.
    pub fn working(&self) -> impl Iterator<Item = (JobId, &Name)> {
        self.open.iter().filter_map(|(id, job)| {
            let attempt = job.attempts.last().filter(|attempt| attempt.phase == Phase::Work)?;
            Some((*id, &attempt.name))
        })
    }

    /// Whether an attempt is over whose answer is not seen yet.
    pub fn lacks_answers(&self) -> bool {
        let mut last = self.open.values().filter_map(|job| job.attempts.last());
        last.any(|attempt| matches!(attempt.phase, Phase::Over { .. }))
    }

    /// The submissions of jobs that are not over.
    pub fn submissions(&self) -> impl Iterator<Item = &str> {
        self.open.values().flat_map(|job| &job.attempts).map(|attempt| attempt.name.submission.as_str())
    }

    /// The job of an attempt, while it is not over.
    pub fn of(&self, name: &Name) -> Option<JobId> {
        self.names.get(name).copied().filter(|id| self.open.contains_key(id))
    }

    /// The latest attempt that the cluster calls this.
    pub fn by_id(&self, id: &str) -> Option<Name> {
        let mut attempts = self.open.values().filter_map(|job| job.attempts.last());
        attempts.find(|attempt| attempt.id.as_deref() == Some(id)).map(|attempt| attempt.name.clone())
    }

    /// These jobs go to the cluster as this submission, in this order.
    pub fn sending(&mut self, submission: &str, jobs: &[JobId]) {
        for (index, id) in (0..).zip(jobs) {
            let name = Name { submission: submission.to_owned(), index };
            self.attempt(*id, name, None, Phase::Sending);
        }
    }

    fn attempt(&mut self, id: JobId, name: Name, known: Option<String>, phase: Phase) {
        if let Some(job) = self.open.get_mut(&id) {
            if let Some(last) = job.attempts.last_mut() {
                last.phase = Phase::Past;
            }
            self.names.insert(name.clone(), id);
            job.attempts.push(Attempt { name, id: known, phase });
        }
    }

    /// Takes in what happened, and decides what is to be done about it. Moments never go back.
    pub fn on(&mut self, now: Moment, event: Event) -> Vec<Command> {
        match event {
            Event::Add(id) => {
                self.add(id);
                self.next.push(id);
            }
            Event::Adopt(id, attempts) => {
                self.add(id);
                for (name, known) in attempts {
                    let unseen = Phase::Unseen { since: now, looked_up: true };
                    let phase = if known.is_some() { Phase::Queue } else { unseen };
                    self.attempt(id, name, known, phase);
                }
                self.look_soon(now);
            }
            Event::Sent(submission, cluster) => self.sent(now, &submission, &cluster),
            Event::NotSent(submission, error, may_pass) => self.not_sent(now, &submission, &error, may_pass),
            Event::View(seen) => self.view(now, seen),
            Event::NoView(why) => self.no_view(now, &why),
            Event::Accounts(seen) => {
                for seen in seen {
                    if let Place::Over(_) = seen.place {
                        self.seen(now, seen);
                    }
                }
            }
            Event::Answer(name, said) => self.answer(now, &name, said),
            Event::Cancel(id, how) => self.cancel(id, how),
            Event::Tick => {}
        }
        self.pass_time(now);
        mem::take(&mut self.commands)
    }

    fn add(&mut self, id: JobId) {
        let job = Job {
            attempts: Vec::new(),
            send_at: None,
            began: false,
            stopping: false,
            memory: 0,
            losses: 0,
            away: 0,
            idle: 0,
            refused: 0,
        };
        self.open.insert(id, job);
    }

    fn look_soon(&mut self, now: Moment) {
        self.interval = self.waits.poll;
        self.view_at = self.view_at.min(now.saturating_add(self.interval));
    }

    fn of_submission(&mut self, submission: &str) -> Vec<JobId> {
        let of = |attempt: &Attempt| attempt.name.submission == submission && attempt.phase == Phase::Sending;
        let jobs = self.open.iter().filter(|(_, job)| job.attempts.last().is_some_and(of));
        jobs.map(|(id, _)| *id).collect()
    }

    fn sent(&mut self, now: Moment, submission: &str, cluster: &str) {
        let (mut stop, mut over) = (Vec::new(), Vec::new());
        for id in self.of_submission(submission) {
            let Some(job) = self.open.get_mut(&id) else { continue };
            let Some(attempt) = job.attempts.last_mut() else { continue };
            let known = format!("{cluster}_{}", attempt.name.index);
            if job.stopping {
                stop.push(known.clone());
                over.push(id);
            }
            (attempt.id, attempt.phase) = (Some(known), Phase::Queue);
        }
        if !stop.is_empty() {
            self.commands.push(Command::Stop(stop, Cancel::Kill));
        }
        for id in over {
            self.end(id, Err((Error::interrupted(), false)));
        }
        self.look_soon(now);
    }

    fn not_sent(&mut self, now: Moment, submission: &str, error: &Error, may_pass: MayPass) {
        let mut told = false;
        for id in self.of_submission(submission) {
            let Some(job) = self.open.get_mut(&id) else { continue };
            job.refused += 1;
            if !may_pass {
                let error = Error { hint: error.hint.clone(), ..Error::new(error.kind, error.message.clone()) };
                self.end(id, Err((error, false)));
                continue;
            }
            // The submission may have arrived although nobody said so: it counts as lost only once the queue does not know it.
            if let Some(attempt) = job.attempts.last_mut() {
                attempt.phase = Phase::Unseen { since: now, looked_up: true };
            }
            if !mem::replace(&mut told, true) {
                let message = format!("the cluster did not take jobs: {}; they are sent again", error.message);
                self.commands.push(Command::Say(None, message));
            }
        }
        self.look_soon(now);
    }

    fn view(&mut self, now: Moment, seen: Vec<Seen>) {
        self.viewing = false;
        if let Some((_, true)) = self.silent.take() {
            self.commands.push(Command::Say(None, "the queue can be looked at again".to_owned()));
        }
        let mut known: Vec<Name> = Vec::with_capacity(seen.len());
        let mut changed = false;
        for seen in seen {
            known.push(seen.name.clone());
            changed |= self.seen(now, seen);
        }
        known.sort_unstable();
        let mut forgotten = Vec::new();
        for job in self.open.values_mut() {
            let Some(attempt) = job.attempts.last_mut() else { continue };
            let expected = matches!(attempt.phase, Phase::Queue | Phase::Work);
            if expected && known.binary_search(&attempt.name).is_err() {
                changed = true;
                attempt.phase = Phase::Unseen { since: now, looked_up: false };
            }
            if let Phase::Unseen { looked_up, .. } = &mut attempt.phase
                && !mem::replace(looked_up, true)
            {
                forgotten.extend(attempt.id.clone());
            }
        }
        if self.accounts && !forgotten.is_empty() {
            self.commands.push(Command::Accounts(forgotten));
        }
        let grown = self.interval.mul_f64(1.5).min(self.waits.poll_most);
        self.interval = if changed { self.waits.poll } else { grown };
        self.view_at = now.saturating_add(self.interval);
    }

    fn no_view(&mut self, now: Moment, why: &str) {
        self.viewing = false;
        let (since, told) = self.silent.unwrap_or((now, false));
        let long = now.saturating_sub(since) >= SILENT;
        if long && !told {
            let message = format!("the queue cannot be looked at: {why}; jobs go on, and it is tried again");
            self.commands.push(Command::Say(None, message));
        }
        self.silent = Some((since, told || long));
        self.interval = self.interval.saturating_mul(2).min(self.waits.poll_most);
        self.view_at = now.saturating_add(self.interval);
        // Nobody is unseen while nobody looks.
        for attempt in self.open.values_mut().filter_map(|job| job.attempts.last_mut()) {
            if let Phase::Unseen { since, .. } = &mut attempt.phase {
                *since = now;
            }
        }
    }

    /// Takes in where an attempt is; whether that is new.
    fn seen(&mut self, now: Moment, seen: Seen) -> bool {
        let Some(id) = self.of(&seen.name) else { return false };
        let Some(job) = self.open.get_mut(&id) else { return false };
        let Some(attempt) = job.attempts.last_mut().filter(|attempt| attempt.name == seen.name) else { return false };
        attempt.id = Some(seen.id);
        let phase = match (&attempt.phase, seen.place) {
            // It stays over for as long as it was.
            (Phase::Over { .. }, Place::Over(_)) => return false,
            (_, Place::Queue(_)) => Phase::Queue,
            (_, Place::Work(machine)) => {
                if !mem::replace(&mut job.began, true) {
                    self.commands.push(Command::Began(id, machine));
                }
                Phase::Work
            }
            (_, Place::Over(fate)) => Phase::Over { since: now, fate },
        };
        let changed = mem::discriminant(&phase) != mem::discriminant(&attempt.phase);
        attempt.phase = phase;
        changed
    }

    fn answer(&mut self, now: Moment, name: &Name, said: Said) {
        let Some(id) = self.of(name) else { return };
        let Some(job) = self.open.get_mut(&id) else { return };
        let late = job.attempts.last().is_some_and(|attempt| attempt.name != *name);
        match said {
            Said::Done => {
                // Others of it may still work, for nothing.
                let others = job.attempts.iter().filter(|attempt| attempt.name != *name);
                let others: Vec<String> = others.filter_map(|attempt| attempt.id.clone()).collect();
                if !others.is_empty() {
                    self.commands.push(Command::Stop(others, Cancel::Kill));
                }
                self.end(id, Ok(()));
            }
            // One that has a successor has no say but that the work is done.
            _ if late => {}
            Said::Failed(error) => self.end(id, Err((*error, false))),
            Said::Stopped { .. } if job.stopping => self.end(id, Err((Error::interrupted(), false))),
            Said::Stopped { units } => {
                job.idle = if units == 0 { job.idle + 1 } else { 0 };
                self.go_away(now, id, "it had to stop, and has saved what it had", Duration::ZERO);
            }
        }
    }

    /// A job that had to go goes back into the queue with what is left to do.
    fn go_away(&mut self, now: Moment, id: JobId, why: &str, wait: Duration) {
        let Some(job) = self.open.get_mut(&id) else { return };
        job.away += 1;
        if job.idle >= IDLE || job.away > AWAY {
            let idle = job.idle >= IDLE;
            let times = if idle { job.idle } else { job.away };
            let end = if idle { ", and finished no unit of its work in any of them" } else { "" };
            let error = Error::new(ErrorKind::Limit, format!("{why}, in {times} jobs one after the other{end}"))
                .hint("give it more `time` in the profile");
            return self.end(id, Err((error, false)));
        }
        self.commands.push(Command::Say(Some(id), format!("{why}; it goes on in another job")));
        self.again(now, id, why, wait);
    }

    fn again(&mut self, now: Moment, id: JobId, why: &str, wait: Duration) {
        if let Some(job) = self.open.get_mut(&id) {
            if let Some(attempt) = job.attempts.last_mut() {
                attempt.phase = Phase::Past;
                self.commands.push(Command::GivenUp(attempt.name.clone(), why.to_owned()));
            }
            job.send_at = Some(now.saturating_add(wait));
        }
    }

    /// Judges an attempt that has not answered by the way it ended.
    fn judge(&mut self, now: Moment, id: JobId, fate: &Fate) {
        let Some(job) = self.open.get_mut(&id) else { return };
        if job.stopping {
            return self.end(id, Err((Error::interrupted(), false)));
        }
        let poll = self.waits.poll;
        match fate {
            Fate::Preempted => self.go_away(now, id, "its job had to make way for another one", poll),
            Fate::NodeLost => self.go_away(now, id, "its job's machine is gone", poll),
            Fate::OutOfTime => {
                // Whether it finished units is not known: its answer would have said so.
                job.idle += 1;
                self.go_away(now, id, "its job's time was up before it could stop", poll);
            }
            Fate::OutOfMemory if job.memory < self.more_memory => {
                job.memory += 1;
                let why = "its job took more memory than it requested";
                let message = format!("{why}; it goes on in one that asks for twice as much");
                self.commands.push(Command::Say(Some(id), message));
                self.again(now, id, why, poll);
            }
            Fate::OutOfMemory => {
                let error = Error::new(ErrorKind::Limit, "its job took more memory than it requested, and was killed");
                self.end(id, Err((error.hint(Hint::LessMemory), true)));
            }
            Fate::Cancelled => {
                let error = Error::new(ErrorKind::Limit, "its job was cancelled in the cluster")
                    .hint("what it finished is kept, so the same command goes on from there");
                self.end(id, Err((error, true)));
            }
            Fate::Completed | Fate::Failed(_) | Fate::Unknown => {
                job.losses += 1;
                let what = match fate {
                    Fate::Failed(code) => format!("its job ended with {code}, and without an answer"),
                    Fate::Completed => "its job ended without an answer".to_owned(),
                    _ => "its job is not known to the cluster any more, and has not answered".to_owned(),
                };
                if job.losses > LOSSES {
                    let error = Error::new(ErrorKind::Limit, what)
                        .hint("what it finished is kept; the log of the job says more, if it began");
                    return self.end(id, Err((error, true)));
                }
                self.commands.push(Command::Say(Some(id), format!("{what}; it is sent again")));
                self.again(now, id, &what, poll);
            }
        }
    }

    fn cancel(&mut self, id: JobId, how: Cancel) {
        let Some(job) = self.open.get_mut(&id) else { return };
        job.stopping = true;
        let sent = job.attempts.last().filter(|attempt| attempt.phase != Phase::Past);
        let Some(attempt) = sent else {
            self.next.retain(|next| *next != id);
            return self.end(id, Err((Error::interrupted(), false)));
        };
        let Some(known) = attempt.id.clone() else { return };
        let queued = attempt.phase == Phase::Queue;
        let how = if queued { Cancel::Kill } else { how };
        match self.commands.last_mut() {
            Some(Command::Stop(ids, same)) if *same == how => ids.push(known),
            _ => self.commands.push(Command::Stop(vec![known], how)),
        }
        if queued {
            self.end(id, Err((Error::interrupted(), false)));
        }
    }

    /// Ends a job.
    fn end(&mut self, id: JobId, end: Result<(), (Error, Lost)>) {
        let Some(job) = self.open.remove(&id) else { return };
        if !job.began && end.is_ok() {
            self.commands.push(Command::Began(id, String::new()));
        }
        let names = job.attempts.into_iter().map(|attempt| attempt.name).collect();
        self.commands.push(Command::Ended(id, names, end));
    }

    fn pass_time(&mut self, now: Moment) {
        let mut judged = Vec::new();
        for (&id, job) in &mut self.open {
            if job.send_at.is_some_and(|at| at <= now) {
                job.send_at = None;
                self.next.push(id);
            }
            match job.attempts.last().map(|attempt| &attempt.phase) {
                Some(Phase::Over { since, fate }) if now.saturating_sub(*since) >= self.waits.files => {
                    judged.push((id, fate.clone()));
                }
                Some(Phase::Unseen { since, .. }) if now.saturating_sub(*since) >= self.waits.unknown => {
                    judged.push((id, Fate::Unknown));
                }
                _ => {}
            }
        }
        for (id, fate) in judged {
            let never_arrived = fate == Fate::Unknown
                && self.open.get(&id).and_then(|job| job.attempts.last()).is_some_and(|attempt| attempt.id.is_none());
            if never_arrived && self.open.get(&id).is_some_and(|job| !job.stopping && job.refused < AWAY) {
                self.again(now, id, "it did not arrive in the cluster", Duration::ZERO);
            } else {
                self.judge(now, id, &fate);
            }
        }
        let mut due: Vec<JobId> = Vec::new();
        for (&id, job) in &mut self.open {
            if job.send_at.is_some_and(|at| at <= now) {
                job.send_at = None;
                due.push(id);
            }
        }
        self.next.extend(due);
        if !self.next.is_empty() {
            let next = mem::take(&mut self.next);
            let send = next.into_iter().filter_map(|id| Some((id, self.open.get(&id)?.memory)));
            self.commands.push(Command::Send(send.collect()));
        }
        let watched = self.open.values().any(|job| {
            let phase = job.attempts.last().map(|attempt| &attempt.phase);
            matches!(phase, Some(Phase::Queue | Phase::Work | Phase::Unseen { .. }))
        });
        if watched && !self.viewing && now >= self.view_at {
            self.viewing = true;
            self.commands.push(Command::View);
        }
    }
}

#[cfg(test)]
mod tests;
