//! The state machine.

use std::collections::BTreeSet;
use std::mem;
use std::time::Duration;

use super::claims::{Claim, Claims};
use super::free::{Free, Need};
use super::message::{AttemptId, Cancel, Command, Event, Failure, Found, Moment, Verdict};
use super::queue::Queue;
use super::retry::{Backoff, may_pass};
use super::timers::Timers;
use crate::machine::Capacity;
use palinode_error::ErrorKind;
use palinode_fingerprint::{Digest, Key};
use palinode_pipeline::{Limits, Resources};

/// What the scheduler knows of an instance.
#[derive(Clone, Debug)]
pub struct Node {
    /// The instances whose results it reads. They come before it in the pipeline.
    pub inputs: Vec<usize>,
    /// Whether it may run.
    pub selected: bool,
    /// Whether its result is of use to this run: it is selected, or something downstream of it is.
    pub needed: bool,
    /// What it needs of the machine.
    pub resources: Resources,
    /// How often and how long it may be tried.
    pub limits: Limits,
}

/// What holds for a whole run.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Whether instances that do not need a failed one still start.
    pub keep_going: bool,
    /// How long an attempt whose time is up may take to finish its unit before it is killed.
    pub grace: Duration,
    /// How long a failed instance waits for its next attempt.
    pub backoff: Backoff,
}

/// Decides what happens to the instances of one run.
///
/// An instance goes from *blocked* (an input is open) to a look-up, and then either to its verdict or to the queue. It leaves the queue
/// when its resources are free: to wait for another instance that does the same, for another look-up if results were made since the
/// last one, or to work. Of what could start, the instance that comes first in the pipeline does.
pub struct Scheduler {
    instances: Vec<Instance>,
    policy: Policy,
    begun: bool,
    /// All inputs are closed; not looked up yet.
    ready: BTreeSet<usize>,
    looking_up: Option<usize>,
    queue: Queue,
    claims: Claims,
    free: Free,
    timers: Timers,
    /// How many results were made so far: what was looked up before may be there now.
    results: usize,
    /// Nothing starts any more.
    stopped: bool,
    /// Instances without a verdict.
    open: usize,
    finished: bool,
    /// The moment that was last given with [`Command::WakeAt`].
    wake_at: Option<Moment>,
    commands: Vec<Command>,
}

struct Instance {
    node: Node,
    need: Need,
    /// Who reads its result.
    readers: Vec<usize>,
    /// How many inputs are open.
    open_inputs: usize,
    state: State,
    /// What it works on, or would.
    claims: Vec<Claim>,
    /// What [`Scheduler::results`] was when it was last looked up.
    looked_up_at: usize,
    /// The number of its latest attempt; 0 before the first.
    attempt: u32,
    /// How many attempts failed.
    failed: u32,
    /// Why the last one did.
    failure: Option<Failure>,
    /// An attempt of an earlier coordinator that goes on.
    reattached: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// An input is open, or it is about to be looked up.
    Blocked,
    /// It waits for resources.
    Queued,
    /// It waits for another instance that works on the same.
    Waiting,
    /// An attempt works, or waits for a machine.
    Working {
        /// Its time was up.
        late: bool,
    },
    /// Its attempt has done its work, and its result is being published.
    Publishing,
    /// An attempt failed; the next one waits for its moment.
    BackingOff,
    /// It is reported.
    Closed(Verdict),
}

impl Scheduler {
    /// For a run that is about to begin. Each node comes after those that it reads from.
    pub fn new(nodes: Vec<Node>, capacity: &Capacity, policy: Policy) -> Self {
        let mut readers = vec![Vec::new(); nodes.len()];
        let instance = |(at, node): (usize, Node)| {
            let inputs: BTreeSet<usize> = node.inputs.iter().copied().collect();
            for &from in &inputs {
                readers[from].push(at);
            }
            Instance {
                need: Need::of(&node.resources, &capacity.machine),
                node,
                readers: Vec::new(),
                open_inputs: inputs.len(),
                state: State::Blocked,
                claims: Vec::new(),
                looked_up_at: 0,
                attempt: 0,
                failed: 0,
                failure: None,
                reattached: None,
            }
        };
        let mut instances: Vec<Instance> = nodes.into_iter().enumerate().map(instance).collect();
        for (instance, readers) in instances.iter_mut().zip(readers) {
            instance.readers = readers;
        }
        Self {
            ready: (0..instances.len()).filter(|&at| instances[at].open_inputs == 0).collect(),
            open: instances.len(),
            instances,
            policy,
            begun: false,
            looking_up: None,
            queue: Queue::default(),
            claims: Claims::default(),
            free: Free::all(capacity),
            timers: Timers::default(),
            results: 0,
            stopped: false,
            finished: false,
            wake_at: None,
            commands: Vec::new(),
        }
    }

    /// Takes in what happened, and decides what is to be done about it. Moments never go back.
    pub fn on(&mut self, now: Moment, event: Event) -> Vec<Command> {
        match event {
            Event::Begin => self.begun = true,
            Event::Reattached(attempt) => self.instances[attempt.instance].reattached = Some(attempt.number),
            Event::LookedUp { instance, found } => self.looked_up(instance, found),
            Event::Began(attempt) => self.began(now, attempt),
            Event::Worked(attempt) => self.worked(attempt),
            Event::Ended { attempt, end } => self.ended(now, attempt, end),
            Event::Interrupt => self.interrupt(),
            Event::Tick => {}
        }
        while let Some(at) = self.timers.pop_due(now) {
            self.due(now, at);
        }
        if self.begun {
            self.advance(now);
        }
        let nearest = self.timers.nearest();
        if nearest != self.wake_at {
            self.wake_at = nearest;
            self.commands.push(Command::WakeAt(nearest));
        }
        mem::take(&mut self.commands)
    }

    /// Goes on until nothing more can be decided without another event.
    ///
    /// Instances are looked up one at a time, and nothing starts while one could still be looked up. So what a run starts depends on the
    /// pipeline and the store, not on how quick look-ups are: the first of all that could start is known only when all are known.
    fn advance(&mut self, now: Moment) {
        while self.looking_up.is_none() {
            if let Some(at) = self.ready.pop_first() {
                self.settle(at);
            } else if self.stopped || !self.start_next(now) {
                break;
            }
        }
        if self.open == 0 && !mem::replace(&mut self.finished, true) {
            self.commands.push(Command::Finish);
        }
    }

    /// Decides about an instance whose inputs are all closed: it is looked up, or it cannot run.
    fn settle(&mut self, at: usize) {
        let Node { inputs, selected, needed, .. } = &self.instances[at].node;
        let missing = inputs.iter().find_map(|&from| match self.instances[from].state {
            State::Closed(verdict) if verdict.has_result() => None,
            State::Closed(verdict) => Some((from, verdict)),
            _ => None,
        });
        let verdict = match missing {
            _ if !needed => Verdict::Unselected,
            Some(_) if !selected => Verdict::Unselected,
            Some((from, Verdict::Unselected)) => Verdict::NoInput { from },
            Some((_, Verdict::Skipped { because })) => Verdict::Skipped { because },
            Some((from, _)) => Verdict::Skipped { because: Some(from) },
            None if self.stopped => Verdict::Skipped { because: None },
            None => return self.look_up(at),
        };
        self.report(at, verdict);
    }

    fn look_up(&mut self, at: usize) {
        self.instances[at].looked_up_at = self.results;
        self.looking_up = Some(at);
        self.commands.push(Command::LookUp(at));
    }

    fn looked_up(&mut self, at: usize, found: Found) {
        if self.looking_up != Some(at) {
            return;
        }
        self.looking_up = None;
        match found {
            Found::Result => self.report(at, Verdict::Cached),
            Found::Error(kind) => self.report(at, Verdict::Failed(Failure::Error(kind))),
            Found::Missing { .. } if !self.instances[at].node.selected => self.report(at, Verdict::Unselected),
            Found::Missing { .. } if self.stopped => self.report(at, Verdict::Skipped { because: None }),
            Found::Missing { key, lost } => self.claim(at, key, &lost),
        }
    }

    /// Queues an instance that is to make the result under a key, and with it contents that were lost.
    fn claim(&mut self, at: usize, key: Key, lost: &[Digest]) {
        let contents = lost.iter().map(|digest| Claim::Contents(*digest));
        let claims: Vec<Claim> = [Claim::Result(key)].into_iter().chain(contents).collect();
        if self.instances[at].claims != claims {
            // A file that changed since the first look-up gives another key.
            self.let_go(at);
            self.instances[at].claims = claims;
        }
        self.enqueue(at);
    }

    fn enqueue(&mut self, at: usize) {
        let instance = &mut self.instances[at];
        instance.state = State::Queued;
        self.queue.push(at, instance.need);
    }

    /// Takes an instance from the queue and lets it start, look again or wait; `false` when there is none whose needs are free.
    fn start_next(&mut self, now: Moment) -> bool {
        let Some(at) = self.queue.pop_fitting(&self.free) else { return false };
        let instance = &mut self.instances[at];
        if let Some(claim) = self.claims.held_by_another(at, &instance.claims) {
            instance.state = State::Waiting;
            self.claims.wait(at, claim);
            let claims = instance.claims.clone();
            self.wake(at, &claims);
        } else if instance.attempt == 0 && instance.looked_up_at != self.results {
            instance.state = State::Blocked;
            self.look_up(at);
        } else {
            self.claims.hold(at, &instance.claims);
            self.free.take(&instance.need);
            instance.state = State::Working { late: false };
            if let Some(number) = instance.reattached.take() {
                instance.attempt = number;
                self.began(now, AttemptId { instance: at, number });
            } else {
                instance.attempt += 1;
                self.commands.push(Command::Submit(AttemptId { instance: at, number: instance.attempt }));
            }
        }
        true
    }

    /// Whether this attempt is the one that its instance waits for. One that was given up may still be heard of.
    fn is_current(&self, attempt: AttemptId) -> bool {
        let instance = &self.instances[attempt.instance];
        matches!(instance.state, State::Working { .. } | State::Publishing) && instance.attempt == attempt.number
    }

    fn began(&mut self, now: Moment, attempt: AttemptId) {
        let timeout = self.instances[attempt.instance].node.limits.timeout;
        if let Some(due) = timeout.and_then(|timeout| now.checked_add(timeout))
            && self.is_current(attempt)
        {
            self.timers.set(attempt.instance, due);
        }
    }

    /// The moment of an instance has come.
    fn due(&mut self, now: Moment, at: usize) {
        let instance = &mut self.instances[at];
        let attempt = AttemptId { instance: at, number: instance.attempt };
        match instance.state {
            State::Working { late: false } => {
                instance.state = State::Working { late: true };
                self.commands.push(Command::Cancel(attempt, Cancel::Finish));
                if let Some(due) = now.checked_add(self.policy.grace) {
                    self.timers.set(at, due);
                }
            }
            State::Working { late: true } => self.commands.push(Command::Cancel(attempt, Cancel::Kill)),
            State::BackingOff => self.enqueue(at),
            State::Blocked | State::Queued | State::Waiting | State::Publishing | State::Closed(_) => {}
        }
    }

    /// What was made in time is kept: nothing stops an attempt from here on.
    fn worked(&mut self, attempt: AttemptId) {
        let instance = &mut self.instances[attempt.instance];
        if matches!(instance.state, State::Working { .. }) && instance.attempt == attempt.number {
            instance.state = State::Publishing;
            self.free.give_back(&instance.need);
            self.timers.clear(attempt.instance);
        }
    }

    fn ended(&mut self, now: Moment, attempt: AttemptId, end: Result<(), Failure>) {
        let at = attempt.instance;
        if !self.is_current(attempt) {
            // An attempt of an earlier coordinator that ended before its instance was reached: the look-up tells how.
            let instance = &mut self.instances[at];
            instance.reattached = instance.reattached.filter(|number| *number != attempt.number);
            return;
        }
        self.timers.clear(at);
        let instance = &mut self.instances[at];
        if matches!(instance.state, State::Working { .. }) {
            self.free.give_back(&instance.need);
        }
        let late = matches!(instance.state, State::Working { late: true });
        let failure = match end {
            Ok(()) => {
                self.results += 1;
                return self.report(at, Verdict::Ran);
            }
            // What was stopped since its time was up did not fail by itself.
            Err(Failure::Error(ErrorKind::Interrupted)) if late => Failure::TimedOut,
            Err(failure) => failure,
        };
        let retries = instance.node.limits.retries;
        if instance.failed >= retries || !may_pass(failure) || self.stopped {
            return self.report(at, Verdict::Failed(failure));
        }
        instance.failed += 1;
        (instance.state, instance.failure) = (State::BackingOff, Some(failure));
        let failed = instance.failed;
        self.commands.push(Command::Retry { instance: at, failed, left: retries - failed, failure });
        self.timers.set(at, now.saturating_add(self.policy.backoff.after(failed)));
    }

    fn interrupt(&mut self) {
        self.stop();
        for (at, instance) in self.instances.iter().enumerate() {
            if let State::Working { .. } = instance.state {
                let attempt = AttemptId { instance: at, number: instance.attempt };
                self.commands.push(Command::Cancel(attempt, Cancel::Finish));
            }
        }
    }

    /// Lets nothing start any more. What works goes on; what waits for another attempt has failed.
    fn stop(&mut self) {
        if mem::replace(&mut self.stopped, true) {
            return;
        }
        self.queue.clear();
        self.claims.clear_waiting();
        for at in 0..self.instances.len() {
            let Instance { state, failure, .. } = self.instances[at];
            if let State::Queued | State::Waiting | State::BackingOff = state {
                self.timers.clear(at);
                self.report(at, failure.map_or(Verdict::Skipped { because: None }, Verdict::Failed));
            }
        }
    }

    /// Reports how an instance ended; readers that waited for nothing else are ready.
    fn report(&mut self, at: usize, verdict: Verdict) {
        let instance = &mut self.instances[at];
        instance.state = State::Closed(verdict);
        self.open -= 1;
        self.commands.push(Command::Report { instance: at, verdict });
        for reader in mem::take(&mut instance.readers) {
            let reader_open = &mut self.instances[reader].open_inputs;
            *reader_open -= 1;
            if *reader_open == 0 {
                self.ready.insert(reader);
            }
        }
        self.let_go(at);
        let fatal = match verdict {
            // The user stopped it, or nothing can be kept.
            Verdict::Failed(Failure::Error(ErrorKind::Interrupted | ErrorKind::Store)) => true,
            Verdict::Failed(_) | Verdict::NoInput { .. } => !self.policy.keep_going,
            _ => false,
        };
        if fatal {
            self.stop();
        }
    }

    /// Gives up what an instance works on, or would have.
    fn let_go(&mut self, at: usize) {
        let claims = mem::take(&mut self.instances[at].claims);
        self.wake(at, &claims);
    }

    fn wake(&mut self, at: usize, claims: &[Claim]) {
        for woken in self.claims.let_go(at, claims) {
            self.enqueue(woken);
        }
    }
}
