//! Random graphs, machines and ends: what has to hold whatever happens. [`World`] checks it at every step.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use palinode_error::ErrorKind;
use palinode_pipeline::{Cores, Limits, Resources};
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::{Event, Failure, Node, Policy, Verdict};
use super::world::{World, capacity, policy};

/// What an instance is drawn from.
#[derive(Clone, Debug)]
struct Draw {
    inputs: Vec<usize>,
    resources: Resources,
    retries: u32,
    timeout: Option<u64>,
    /// Its key among few, so that instances share keys; or one of its own.
    key: Option<u64>,
    lost: Vec<u64>,
    stored: bool,
    broken: bool,
    selected: bool,
}

fn draw() -> impl Strategy<Value = Draw> {
    let cores = prop_oneof![Just(Cores::All), (0usize..7).prop_map(Cores::Count)];
    let resources = (cores, prop_oneof![Just(0u64), 1u64..150], any::<bool>());
    let resources = resources.prop_map(|(cores, memory, gpu)| Resources { cores, memory, gpu });
    let key = prop_oneof![2 => Just(None), 1 => (1000u64..1004).prop_map(Some)];
    let lost = prop_oneof![3 => Just(Vec::new()), 1 => vec(0u64..4, 1..3)];
    let rare = || prop::bool::weighted(0.05);
    let timeout = prop_oneof![2 => Just(None), 1 => (1u64..5).prop_map(Some)];
    let selected = prop::bool::weighted(0.9);
    (vec(any::<usize>(), 0..4), resources, 0u32..3, timeout, key, lost, prop::bool::weighted(0.3), rare(), selected)
        .prop_map(|(inputs, resources, retries, timeout, key, lost, stored, broken, selected)| Draw {
            inputs,
            resources,
            retries,
            timeout,
            key,
            lost,
            stored,
            broken,
            selected,
        })
}

fn world(draws: &[Draw], jobs: usize, policy: Policy) -> World {
    let mut nodes: Vec<Node> = Vec::new();
    for (at, draw) in draws.iter().enumerate() {
        let inputs: BTreeSet<usize> = draw.inputs.iter().filter(|_| at > 0).map(|number| number % at).collect();
        nodes.push(Node {
            inputs: inputs.into_iter().collect(),
            selected: draw.selected,
            needed: draw.selected,
            resources: draw.resources,
            limits: Limits { retries: draw.retries, timeout: draw.timeout.map(Duration::from_secs) },
        });
    }
    for at in (0..nodes.len()).rev() {
        if nodes[at].needed {
            for from in nodes[at].inputs.clone() {
                nodes[from].needed = true;
            }
        }
    }
    let mut world = World::new(nodes, capacity(4, jobs), policy);
    let of = |keep: fn(&Draw) -> bool| (0..draws.len()).filter(move |&at| keep(&draws[at]));
    world.keys = of(|draw| draw.key.is_some()).map(|at| (at, draws[at].key.unwrap_or_default())).collect();
    world.lost = draws.iter().map(|draw| draw.lost.clone()).enumerate().collect::<HashMap<_, _>>();
    world.broken = of(|draw| draw.broken).collect();
    world.store = of(|draw| draw.stored).map(|at| draws[at].key.unwrap_or(at as u64)).collect();
    world
}

/// How an attempt ends that is chosen by a number.
fn end(number: u8, cancelled: bool) -> Result<(), Failure> {
    match number % 16 {
        0 => Err(Failure::Error(ErrorKind::Numerical)),
        1 => Err(Failure::Lost(ErrorKind::Limit)),
        2 => Err(Failure::Error(ErrorKind::Limit)),
        3 if number > 200 => Err(Failure::Error(ErrorKind::Store)),
        4..=9 if cancelled => Err(Failure::Error(ErrorKind::Interrupted)),
        _ => Ok(()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_run_comes_to_its_end(
        draws in vec(draw(), 1..24),
        jobs in 1usize..5,
        keep_going in any::<bool>(),
        interrupt_after in prop::option::weighted(0.3, 0usize..30),
        choices in vec(any::<(u8, u8)>(), 200),
    ) {
        let mut world = world(&draws, jobs, Policy { keep_going, ..policy() });
        world.begin();
        let mut choices = choices.into_iter().cycle();
        for step in 0.. {
            prop_assert!(step < 2000, "the run does not end: {:?}", world.history);
            if interrupt_after == Some(step) {
                world.tell(Event::Interrupt);
            }
            if world.finished {
                break;
            }
            let (which, number) = choices.next().unwrap_or_default();
            let running: Vec<usize> = world.running.keys().copied().collect();
            // With nothing at work, only time can bring it on; then something has to wait for time.
            if running.is_empty() || number % 4 == 0 {
                if running.is_empty() {
                    let at = world.wake_at;
                    prop_assert!(at.is_some(), "nothing works and nothing is waited for: {:?}", world.history);
                    world.now = world.now.max(at.unwrap_or_default());
                    world.tell(Event::Tick);
                } else {
                    world.pass(u64::from(which % 3));
                }
                continue;
            }
            let at = running[usize::from(which) % running.len()];
            if number % 4 == 1 && !world.running[&at].worked {
                world.worked(at);
                continue;
            }
            let cancelled = world.running[&at].cancelled.is_some();
            world.end(at, end(number, cancelled));
        }
        prop_assert!(world.running.is_empty() && world.wake_at.is_none());
        let failure = |verdict: &Option<Verdict>| matches!(verdict, Some(Verdict::Failed(_) | Verdict::NoInput { .. }));
        let stopped = interrupt_after.is_some() || world.verdicts.iter().any(failure);
        for (at, verdict) in world.verdicts.iter().enumerate() {
            let failed = |from: &usize| matches!(
                world.verdicts[*from],
                Some(Verdict::Failed(_) | Verdict::NoInput { .. } | Verdict::Skipped { .. })
            );
            match verdict {
                Some(Verdict::Ran) => prop_assert!(world.store.contains(&world.key(at))),
                Some(Verdict::Skipped { because: Some(from) }) => {
                    prop_assert!(failed(from) && world.nodes[at].inputs.iter().any(failed));
                }
                Some(Verdict::Skipped { because: None }) => {
                    prop_assert!(stopped, "{at} is skipped in a run that did not stop");
                }
                _ => {}
            }
        }
    }
}
