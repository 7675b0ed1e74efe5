//! One case after the other.

use std::time::Duration;

use palinode_error::ErrorKind;
use palinode_fingerprint::Key;
use palinode_pipeline::{Limits, Resources};

use super::super::{AttemptId, Cancel, Command, Event, Failure, Found, Node, Policy, Scheduler};
use super::world::{World, capacity, digest, node, policy};

const NUMERICAL: Failure = Failure::Error(ErrorKind::Numerical);
const STORE: Failure = Failure::Error(ErrorKind::Store);
const INTERRUPTED: Failure = Failure::Error(ErrorKind::Interrupted);

fn keep_going() -> Policy {
    Policy { keep_going: true, ..policy() }
}

fn tried(retries: u32, timeout: Option<u64>) -> Node {
    Node { limits: Limits { retries, timeout: timeout.map(Duration::from_secs) }, ..node(&[]) }
}

/// Compares all that was commanded so far.
#[track_caller]
fn check(world: &World, expect: &[&str]) {
    assert_eq!(world.history, expect);
}

#[test]
fn a_chain_runs_from_its_start() {
    let mut world = World::new(vec![node(&[]), node(&[0]), node(&[0, 1])], capacity(4, 4), policy());
    assert_eq!(world.scheduler.on(world.now, Event::Tick), [], "nothing is commanded before the run begins");
    world.begin();
    world.end(0, Ok(()));
    world.end(1, Ok(()));
    check(&world, &["submit 0.1", "0: ran", "submit 1.1", "1: ran", "submit 2.1"]);
    assert!(!world.finished);
    world.end(2, Ok(()));
    assert!(world.finished);
}

#[test]
fn nothing_to_do_is_done() {
    let mut world = World::new(Vec::new(), capacity(4, 4), policy());
    world.begin();
    assert!(world.finished);
}

#[test]
fn what_is_there_is_not_made_again() {
    let mut world = World::new(vec![node(&[]), node(&[0]), node(&[1])], capacity(4, 4), policy());
    world.store.extend([0, 2]);
    world.begin();
    world.end(1, Ok(()));
    check(&world, &["0: cached", "submit 1.1", "1: ran", "2: cached"]);
}

#[test]
fn of_what_could_start_the_first_does() {
    let heavy = |inputs: &[usize]| Node { resources: Resources::MACHINE, ..node(inputs) };
    // The second is ready at once, the third and fourth after the first.
    let nodes = vec![heavy(&[]), heavy(&[]), heavy(&[0]), node(&[0]), heavy(&[])];
    let mut world = World::new(nodes, capacity(4, 4), policy());
    world.begin();
    world.end(0, Ok(()));
    world.end(1, Ok(()));
    check(&world, &["submit 0.1", "0: ran", "submit 1.1", "submit 3.1", "1: ran", "submit 2.1"]);
}

/// A large instance does not starve smaller ones, and they do not keep it waiting once the machine is free.
#[test]
fn smaller_needs_overtake() {
    let cores = |count: usize| Node { resources: Resources::cores(count), ..node(&[]) };
    let mut world = World::new(vec![cores(3), cores(2), cores(1)], capacity(4, 4), policy());
    world.begin();
    check(&world, &["submit 0.1", "submit 2.1"]);
    world.end(0, Ok(()));
    check(&world, &["submit 0.1", "submit 2.1", "0: ran", "submit 1.1"]);
}

#[test]
fn the_same_work_is_done_once() {
    let mut world = World::new(vec![node(&[]); 4], capacity(4, 4), keep_going());
    world.keys.extend([(0, 7), (1, 7), (2, 7)]);
    world.begin();
    check(&world, &["submit 0.1", "submit 3.1"]);
    world.end(0, Err(NUMERICAL));
    world.end(1, Ok(()));
    check(&world, &["submit 0.1", "submit 3.1", "0: failed (Error(Numerical))", "submit 1.1", "1: ran", "2: cached"]);
}

/// Instances that make the same contents again wait for each other, whatever else they wait for.
#[test]
fn contents_that_were_lost_are_made_again_once() {
    let mut world = World::new(vec![node(&[]); 4], capacity(4, 4), keep_going());
    world.lost.extend([(0, vec![10]), (1, vec![10, 11]), (2, vec![11]), (3, vec![12])]);
    world.begin();
    check(&world, &["submit 0.1", "submit 2.1", "submit 3.1"]);
    world.end(2, Ok(()));
    world.end(0, Ok(()));
    world.end(1, Ok(()));
    assert_eq!(world.history.last().map(String::as_str), Some("1: ran"));
    world.end(3, Ok(()));
    assert!(world.finished);
}

/// Who was woken and has to wait for something else keeps nobody waiting.
#[test]
fn a_wake_up_is_passed_on() {
    let mut world = World::new(vec![node(&[]); 4], capacity(4, 4), keep_going());
    world.lost.extend([(0, vec![10]), (1, vec![10, 11]), (2, vec![10]), (3, vec![11])]);
    world.begin();
    world.end(0, Ok(()));
    check(&world, &["submit 0.1", "submit 3.1", "0: ran", "submit 2.1"]);
}

/// A file that changed between two look-ups gives another key, and with it another instance that does the same.
#[test]
fn a_key_that_changed_is_the_one_that_counts() {
    let mut world = World::new(vec![node(&[]); 3], capacity(4, 2), keep_going());
    world.begin();
    check(&world, &["submit 0.1", "submit 1.1"]);
    // What was looked up before results were made is looked up again.
    world.keys.insert(2, 1);
    world.end(0, Ok(()));
    check(&world, &["submit 0.1", "submit 1.1", "0: ran"]);
    world.end(1, Ok(()));
    check(&world, &["submit 0.1", "submit 1.1", "0: ran", "1: ran", "2: cached"]);
}

#[test]
fn a_failure_stops_what_did_not_begin() {
    let nodes = || vec![node(&[]), node(&[]), node(&[0]), node(&[2]), node(&[1]), node(&[])];
    let mut world = World::new(nodes(), capacity(4, 2), policy());
    world.begin();
    world.end(0, Err(NUMERICAL));
    world.end(1, Ok(()));
    check(
        &world,
        &[
            "submit 0.1",
            "submit 1.1",
            "0: failed (Error(Numerical))",
            "5: skipped",
            "2: skipped because of 0",
            "3: skipped because of 0",
            "1: ran",
            "4: skipped",
        ],
    );
    let mut world = World::new(nodes(), capacity(4, 2), keep_going());
    world.begin();
    world.end(0, Err(NUMERICAL));
    world.end(1, Ok(()));
    assert!(world.history.ends_with(&["1: ran".to_owned(), "submit 4.1".to_owned()]), "{:?}", world.history);
    // Where nothing can be kept there is nothing to go on for.
    let mut world = World::new(nodes(), capacity(4, 1), keep_going());
    world.begin();
    world.end(0, Err(STORE));
    assert!(world.finished);
}

#[test]
fn a_look_up_that_fails_is_a_failure() {
    let mut world = World::new(vec![node(&[]), node(&[0]), node(&[])], capacity(4, 4), keep_going());
    world.broken.insert(0);
    world.begin();
    check(&world, &["0: failed (Error(Input))", "1: skipped because of 0", "submit 2.1"]);
}

#[test]
fn selected_instances_run_and_what_they_need_is_looked_up() {
    let outside = |inputs: &[usize], needed| Node { selected: false, needed, ..node(inputs) };
    let nodes = vec![outside(&[], true), outside(&[], false), node(&[0]), outside(&[2], false), outside(&[], true)];
    let mut world = World::new(nodes.clone(), capacity(4, 4), keep_going());
    world.begin();
    check(&world, &["0: unselected", "1: unselected", "2: needs 0", "3: unselected", "4: unselected"]);
    let mut world = World::new(nodes, capacity(4, 4), keep_going());
    world.store.insert(0);
    world.begin();
    check(&world, &["0: cached", "1: unselected", "4: unselected", "submit 2.1"]);
}

#[test]
fn an_interrupt_lets_units_finish_and_starts_nothing() {
    let mut world = World::new(vec![node(&[]), node(&[]), node(&[0]), tried(3, None)], capacity(4, 2), keep_going());
    world.begin();
    world.tell(Event::Interrupt);
    check(&world, &["submit 0.1", "submit 1.1", "3: skipped", "Finish 0.1", "Finish 1.1"]);
    world.end(0, Ok(()));
    world.end(1, Err(INTERRUPTED));
    assert!(world.history.ends_with(&["0: ran".into(), "2: skipped".into(), "1: failed (Error(Interrupted))".into()]));
    assert!(world.finished);
    let mut before = World::new(vec![node(&[])], capacity(4, 2), policy());
    before.tell(Event::Interrupt);
    before.begin();
    check(&before, &["0: skipped"]);
}

#[test]
fn what_may_pass_is_tried_again_after_a_while() {
    for failure in [STORE, Failure::Error(ErrorKind::Limit), Failure::Lost(ErrorKind::Internal)] {
        let mut world = World::new(vec![tried(2, None), node(&[])], capacity(4, 1), keep_going());
        world.begin();
        world.end(0, Err(failure));
        // What it needed is free for others meanwhile.
        let first =
            ["submit 0.1".to_owned(), format!("retry 0: 1 failed, 1 left, {failure:?}"), "submit 1.1".to_owned()];
        assert_eq!(world.history, first);
        assert_eq!(world.wake_at, Some(Duration::from_secs(1)));
        world.end(1, Ok(()));
        world.pass(1);
        world.end(0, Err(failure));
        assert_eq!(world.wake_at, Some(Duration::from_secs(3)), "each wait is twice as long");
        world.pass(1);
        assert!(world.running.is_empty());
        world.pass(1);
        world.end(0, Err(failure));
        assert_eq!(world.history.last(), Some(&format!("0: failed ({failure:?})")));
        assert!(world.finished && world.wake_at.is_none());
    }
}

#[test]
fn mistakes_are_never_tried_again() {
    use ErrorKind::{Input, Internal, Interrupted, Numerical, Pipeline, Usage};
    for kind in [Usage, Pipeline, Input, Numerical, Interrupted, Internal] {
        let mut world = World::new(vec![tried(100, None)], capacity(4, 4), keep_going());
        world.begin();
        world.end(0, Err(Failure::Error(kind)));
        assert!(world.finished, "{kind:?}");
    }
}

/// While an instance waits for its next attempt, another of the same key does not make its result.
#[test]
fn a_claim_outlives_a_failed_attempt() {
    let mut world = World::new(vec![tried(1, None), node(&[])], capacity(4, 4), keep_going());
    world.keys.extend([(0, 7), (1, 7)]);
    world.begin();
    world.end(0, Err(STORE));
    world.pass(1);
    world.end(0, Ok(()));
    check(&world, &["submit 0.1", "retry 0: 1 failed, 0 left, Error(Store)", "submit 0.2", "0: ran", "1: cached"]);
}

#[test]
fn what_waits_for_another_attempt_has_failed_when_the_run_stops() {
    // While its moment has not come, and while its resources are not free.
    for seconds in [0, 1] {
        let mut world = World::new(vec![tried(5, None), node(&[])], capacity(4, 1), policy());
        world.begin();
        world.end(0, Err(STORE));
        world.pass(seconds);
        world.tell(Event::Interrupt);
        assert!(world.history.contains(&"0: failed (Error(Store))".to_owned()), "{:?}", world.history);
        world.end(1, Err(INTERRUPTED));
        assert!(world.finished && world.wake_at.is_none());
    }
}

#[test]
fn an_attempt_past_its_timeout_finishes_its_unit_or_is_killed() {
    let mut world = World::new(vec![tried(1, Some(10))], capacity(4, 4), policy());
    world.begin();
    world.pass(9);
    check(&world, &["submit 0.1"]);
    world.pass(1);
    check(&world, &["submit 0.1", "Finish 0.1"]);
    world.pass(5);
    world.end(0, Err(INTERRUPTED));
    world.pass(1);
    world.pass(10);
    world.pass(29);
    assert_eq!(world.running[&0].cancelled, Some(Cancel::Finish));
    world.pass(1);
    world.end(0, Err(INTERRUPTED));
    check(
        &world,
        &[
            "submit 0.1",
            "Finish 0.1",
            "retry 0: 1 failed, 0 left, TimedOut",
            "submit 0.2",
            "Finish 0.2",
            "Kill 0.2",
            "0: failed (TimedOut)",
        ],
    );
}

/// Whoever waits for a machine does not use up its time, and whoever finishes in time is left alone.
#[test]
fn a_timeout_counts_from_the_beginning_of_work() {
    let mut scheduler = Scheduler::new(vec![tried(0, Some(10))], &capacity(4, 4), policy());
    let at = Duration::from_secs;
    let attempt = AttemptId { instance: 0, number: 1 };
    assert_eq!(scheduler.on(at(0), Event::Begin), [Command::LookUp(0)]);
    let found = Found::Missing { key: Key(digest(0)), lost: Vec::new() };
    assert_eq!(scheduler.on(at(0), Event::LookedUp { instance: 0, found }), [Command::Submit(attempt)]);
    assert_eq!(scheduler.on(at(100), Event::Tick), []);
    assert_eq!(scheduler.on(at(200), Event::Began(attempt)), [Command::WakeAt(Some(at(210)))]);
    let done = scheduler.on(at(210), Event::Ended { attempt, end: Ok(()) });
    assert!(done.contains(&Command::Finish) && done.contains(&Command::WakeAt(None)), "{done:?}");
}

/// What its work needed is free for others, its time no longer counts, and nothing stops it; what reads it waits until it is there.
#[test]
fn a_result_that_is_being_published_needs_no_machine() {
    let mut world = World::new(vec![tried(0, Some(10)), tried(0, Some(100)), node(&[0])], capacity(4, 1), keep_going());
    world.begin();
    check(&world, &["submit 0.1"]);
    world.worked(0);
    check(&world, &["submit 0.1", "submit 1.1"]);
    world.pass(20);
    world.worked(1);
    world.tell(Event::Interrupt);
    check(&world, &["submit 0.1", "submit 1.1"]);
    world.end(1, Err(STORE));
    let attempt = AttemptId { instance: 1, number: 1 };
    world.tell(Event::Worked(attempt));
    world.end(0, Ok(()));
    check(&world, &["submit 0.1", "submit 1.1", "1: failed (Error(Store))", "0: ran", "2: skipped"]);
    assert!(world.finished && world.wake_at.is_none());
}

/// An attempt that was given up as lost may still be heard of.
#[test]
fn only_the_latest_attempt_counts() {
    let mut world = World::new(vec![tried(2, None)], capacity(4, 4), policy());
    world.begin();
    world.end(0, Err(Failure::Lost(ErrorKind::Limit)));
    world.tell(Event::Ended { attempt: AttemptId { instance: 0, number: 1 }, end: Ok(()) });
    world.pass(1);
    for end in [Ok(()), Err(NUMERICAL)] {
        world.tell(Event::Ended { attempt: AttemptId { instance: 0, number: 1 }, end });
        world.tell(Event::Began(AttemptId { instance: 0, number: 1 }));
    }
    check(&world, &["submit 0.1", "retry 0: 1 failed, 1 left, Lost(Limit)", "submit 0.2"]);
    world.end(0, Ok(()));
    assert!(world.finished);
}

#[test]
fn an_attempt_that_goes_on_is_waited_for() {
    let attempt = |instance| AttemptId { instance, number: 3 };
    let mut world = World::new(vec![tried(1, None), tried(1, None), node(&[])], capacity(4, 4), keep_going());
    world.tell(Event::Reattached(attempt(0)));
    world.tell(Event::Reattached(attempt(1)));
    // This one ends before its instance is reached; the look-up tells what became of it.
    world.tell(Event::Ended { attempt: attempt(1), end: Err(Failure::Lost(ErrorKind::Limit)) });
    world.begin();
    check(&world, &["submit 1.1", "submit 2.1"]);
    world.tell(Event::Ended { attempt: attempt(0), end: Ok(()) });
    check(&world, &["submit 1.1", "submit 2.1", "0: ran"]);
}
