//! Carries out what a scheduler commands, and checks after every step what has to hold at all times.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use palinode_error::ErrorKind;
use palinode_fingerprint::{Digest, Key};
use palinode_pipeline::{Cores, Limits, Resources};

use super::super::{
    AttemptId, Backoff, Cancel, Command, Event, Failure, Found, Moment, Node, Policy, Scheduler, Verdict,
};
use crate::machine::{Capacity, Machine};

/// A key or digest that a number stands for.
pub fn digest(number: u64) -> Digest {
    Digest::of(&number.to_le_bytes())
}

/// An instance that reads these, may be tried once, and needs nothing.
pub fn node(inputs: &[usize]) -> Node {
    Node {
        inputs: inputs.to_vec(),
        selected: true,
        needed: true,
        resources: Resources::LIGHT,
        limits: Limits { retries: 0, timeout: None },
    }
}

pub fn policy() -> Policy {
    let backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_mins(1) };
    Policy { keep_going: false, grace: Duration::from_secs(30), backoff }
}

pub fn capacity(cores: usize, jobs: usize) -> Capacity {
    Capacity { machine: Machine { cores, memory: 100, gpus: 1 }, jobs }
}

/// An attempt at work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Running {
    pub attempt: AttemptId,
    pub cancelled: Option<Cancel>,
    /// Whether its result is being published.
    pub worked: bool,
}

/// A scheduler with the world that it commands.
pub struct World {
    pub scheduler: Scheduler,
    pub now: Moment,
    pub nodes: Vec<Node>,
    capacity: Capacity,
    /// Under which key each instance publishes; what is not here has one of its own.
    pub keys: HashMap<usize, u64>,
    /// Contents that each instance makes again.
    pub lost: HashMap<usize, Vec<u64>>,
    /// The keys that the store has results of.
    pub store: BTreeSet<u64>,
    /// Instances whose look-up fails.
    pub broken: BTreeSet<usize>,
    pub running: BTreeMap<usize, Running>,
    pub verdicts: Vec<Option<Verdict>>,
    pub wake_at: Option<Moment>,
    pub finished: bool,
    interrupted: bool,
    stopped: bool,
    submitted: Vec<u32>,
    looking_up: bool,
    /// Everything that was commanded but look-ups and moments, one line each.
    pub history: Vec<String>,
}

impl World {
    pub fn new(nodes: Vec<Node>, capacity: Capacity, policy: Policy) -> Self {
        Self {
            scheduler: Scheduler::new(nodes.clone(), &capacity, policy),
            now: Duration::ZERO,
            capacity,
            keys: HashMap::new(),
            lost: HashMap::new(),
            store: BTreeSet::new(),
            broken: BTreeSet::new(),
            running: BTreeMap::new(),
            verdicts: vec![None; nodes.len()],
            wake_at: None,
            finished: false,
            interrupted: false,
            stopped: false,
            submitted: vec![0; nodes.len()],
            looking_up: false,
            history: Vec::new(),
            nodes,
        }
    }

    pub fn key(&self, at: usize) -> u64 {
        self.keys.get(&at).copied().unwrap_or(at as u64)
    }

    /// Tells the scheduler of an event and carries out what follows from it, look-ups included.
    pub fn tell(&mut self, event: Event) {
        self.interrupted |= event == Event::Interrupt;
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for command in self.scheduler.on(self.now, event) {
                events.extend(self.carry_out(command));
            }
        }
        assert!(!self.looking_up, "every look-up is answered");
    }

    pub fn begin(&mut self) {
        self.tell(Event::Begin);
    }

    /// Ends the attempt of an instance.
    pub fn end(&mut self, at: usize, end: Result<(), Failure>) {
        let Running { attempt, .. } = self.running.remove(&at).expect("it is at work");
        if end.is_ok() {
            self.store.insert(self.key(at));
        }
        self.tell(Event::Ended { attempt, end });
    }

    /// The attempt of an instance has done its work.
    pub fn worked(&mut self, at: usize) {
        let running = self.running.get_mut(&at).expect("it is at work");
        running.worked = true;
        let attempt = running.attempt;
        self.tell(Event::Worked(attempt));
    }

    pub fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.tell(Event::Tick);
    }

    fn carry_out(&mut self, command: Command) -> Option<Event> {
        match command {
            Command::LookUp(instance) => {
                assert!(!std::mem::replace(&mut self.looking_up, true), "one look-up at a time");
                self.looking_up = false;
                let closed = |from: &usize| self.verdicts[*from].is_some_and(|verdict| verdict.has_result());
                assert!(self.nodes[instance].inputs.iter().all(closed), "an input of {instance} has no result");
                return Some(Event::LookedUp { instance, found: self.found(instance) });
            }
            Command::Submit(attempt) => {
                self.history.push(format!("submit {}.{}", attempt.instance, attempt.number));
                self.submit(attempt);
                return Some(Event::Began(attempt));
            }
            Command::Cancel(attempt, how) => {
                self.history.push(format!("{how:?} {}.{}", attempt.instance, attempt.number));
                let running = self.running.get_mut(&attempt.instance).expect("what is cancelled is at work");
                assert_eq!(running.attempt, attempt);
                assert!(!running.worked, "its work is done");
                assert!(how == Cancel::Finish || running.cancelled.is_some(), "a unit may be finished first");
                running.cancelled = Some(how);
            }
            Command::Retry { instance, failed, left, failure } => {
                self.history.push(format!("retry {instance}: {failed} failed, {left} left, {failure:?}"));
                assert_eq!(failed + left, self.nodes[instance].limits.retries);
            }
            Command::Report { instance, verdict } => {
                self.history.push(format!("{instance}: {}", text(verdict)));
                let before = self.verdicts[instance].replace(verdict);
                assert_eq!(before, None, "{instance} is reported twice");
                assert!(!self.running.contains_key(&instance), "{instance} is reported while it is at work");
                if let Verdict::Skipped { because: None } = verdict {
                    self.stopped = true;
                }
            }
            Command::WakeAt(at) => {
                assert_ne!(self.wake_at, at, "the same moment twice");
                self.wake_at = at;
            }
            Command::Finish => {
                assert!(!std::mem::replace(&mut self.finished, true), "finished twice");
                assert!(self.verdicts.iter().all(Option::is_some), "finished before all are reported");
            }
        }
        None
    }

    fn found(&self, at: usize) -> Found {
        if self.broken.contains(&at) {
            return Found::Error(ErrorKind::Input);
        }
        if self.store.contains(&self.key(at)) {
            return Found::Result;
        }
        let lost = self.lost.get(&at).into_iter().flatten().map(|&number| digest(number)).collect();
        Found::Missing { key: Key(digest(self.key(at))), lost }
    }

    fn submit(&mut self, attempt: AttemptId) {
        let at = attempt.instance;
        assert!(!self.interrupted && !self.stopped, "{at} starts after the run stopped");
        assert!(self.verdicts[at].is_none() && self.nodes[at].selected && self.nodes[at].needed);
        assert!(!self.store.contains(&self.key(at)), "{at} starts though its result is there");
        let contents = |at: &usize| self.lost.get(at).cloned().unwrap_or_default();
        for other in self.running.keys() {
            assert_ne!(self.key(*other), self.key(at), "{other} and {at} have one key");
            let mine = contents(&at);
            assert!(!contents(other).iter().any(|lost| mine.contains(lost)), "{other} and {at} make the same again");
        }
        self.submitted[at] += 1;
        assert_eq!(attempt.number, self.submitted[at]);
        assert!(self.submitted[at] <= self.nodes[at].limits.retries + 1, "{at} is tried too often");
        assert_eq!(self.running.insert(at, Running { attempt, cancelled: None, worked: false }), None);
        let working = || self.running.iter().filter(|(_, running)| !running.worked).map(|(at, _)| at);
        assert!(working().count() <= self.capacity.jobs);
        let machine = self.capacity.machine;
        let mut sum = (0, 0, 0);
        for at in working() {
            let Resources { cores, memory, gpu } = self.nodes[*at].resources;
            let cores = match cores {
                Cores::All => machine.cores,
                Cores::Count(count) => count.min(machine.cores),
            };
            sum = (sum.0 + cores, sum.1 + memory.min(machine.memory), sum.2 + usize::from(gpu));
        }
        assert!(sum.0 <= machine.cores && sum.1 <= machine.memory && sum.2 <= machine.gpus, "{sum:?} are in use");
    }
}

fn text(verdict: Verdict) -> String {
    match verdict {
        Verdict::Failed(failure) => format!("failed ({failure:?})"),
        Verdict::NoInput { from } => format!("needs {from}"),
        Verdict::Skipped { because: Some(from) } => format!("skipped because of {from}"),
        Verdict::Skipped { because: None } => "skipped".to_owned(),
        Verdict::Unselected => "unselected".to_owned(),
        Verdict::Cached => "cached".to_owned(),
        Verdict::Ran => "ran".to_owned(),
    }
}
