//! Many workers and many instances: the work of a decision does not grow with the pipeline.
//!
//! No clock is needed to see that: a scheduler that looked at every instance for every event would take minutes here.

use palinode_error::ErrorKind;
use palinode_pipeline::Resources;

use super::super::{AttemptId, Command, Event, Failure, Found, Node, Policy, Scheduler};
use super::world::{capacity, digest, node, policy};
use palinode_fingerprint::Key;
use std::collections::{HashSet, VecDeque};
use std::time::Duration;

const INSTANCES: usize = 20_000;
const WORKERS: usize = 1_000;

/// Runs instances until all are reported; gives how many events that took.
fn simulate(nodes: Vec<Node>, key: impl Fn(usize) -> u64, end: impl Fn(usize) -> Result<(), Failure>) -> usize {
    let capacity = capacity(WORKERS, WORKERS);
    let mut scheduler = Scheduler::new(nodes, &capacity, Policy { keep_going: true, ..policy() });
    let mut store: HashSet<u64> = HashSet::new();
    let mut answers = VecDeque::from([Event::Begin]);
    let mut running: VecDeque<AttemptId> = VecDeque::new();
    let mut events = 0;
    loop {
        events += 1;
        let event = answers.pop_front().or_else(|| {
            let attempt = running.pop_front()?;
            let end = end(attempt.instance);
            if end.is_ok() {
                store.insert(key(attempt.instance));
            }
            Some(Event::Ended { attempt, end })
        });
        let event = event.expect("something is at work until the end");
        for command in scheduler.on(Duration::from_millis(events as u64), event) {
            match command {
                Command::LookUp(instance) => {
                    let key = key(instance);
                    let missing = Found::Missing { key: Key(digest(key)), lost: Vec::new() };
                    let found = if store.contains(&key) { Found::Result } else { missing };
                    answers.push_back(Event::LookedUp { instance, found });
                }
                Command::Submit(attempt) => running.push_back(attempt),
                Command::Finish => return events,
                _ => {}
            }
            assert!(running.len() <= WORKERS);
        }
    }
}

/// A row of stages for each of many cells, all of them ready or soon to be, with a few different needs.
#[test]
fn many_instances_on_many_workers() {
    let needs = [Resources::LIGHT, Resources::cores(1), Resources::cores(2), Resources::cores(1).memory(1)];
    let nodes = (0..INSTANCES).map(|at| {
        let inputs: &[usize] = if at % 4 == 0 { &[] } else { &[at - 1] };
        Node { resources: needs[at % 4], ..node(inputs) }
    });
    let events = simulate(nodes.collect(), |at| at as u64, |_| Ok(()));
    assert!(events <= 4 * INSTANCES, "{events} events");
}

/// All read from one, and all are read by one.
#[test]
fn a_wide_fan() {
    let middle = (1..INSTANCES).map(|_| node(&[0]));
    let mut nodes: Vec<Node> = [node(&[])].into_iter().chain(middle).collect();
    let all: Vec<usize> = (0..INSTANCES).collect();
    nodes.push(node(&all));
    let events = simulate(nodes, |at| at as u64, |_| Ok(()));
    assert!(events <= 4 * INSTANCES, "{events} events");
}

/// All do the same: whether it succeeds or fails, none looks at all others.
#[test]
fn one_key_for_all() {
    let nodes = vec![node(&[]); INSTANCES];
    let events = simulate(nodes.clone(), |_| 0, |_| Ok(()));
    assert!(events <= 4 * INSTANCES, "{events} events");
    let events = simulate(nodes, |_| 0, |_| Err(Failure::Error(ErrorKind::Numerical)));
    assert!(events <= 4 * INSTANCES, "{events} events");
}
