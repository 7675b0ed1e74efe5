//! Which stages run beside which, how often, and for how long.

mod common;

use std::sync::Arc;

use common::{Bench, Recorder, outcomes};
use palinode_engine::{Attempt, ErrorKind, Event, Machine, Observer, Outcome, RunOptions, Runs, Silent};

/// Three stages of a group, none of which needs another.
fn three(group: &str, count: usize) -> String {
    let stage =
        |name: &str| format!("  {name}: {{uses: meet, with: {{group: {group}, name: {name}, count: {count}}}}}\n");
    format!("name: a\nstages:\n{}", ["a", "b", "c"].map(stage).concat())
}

fn check(yaml: &str, jobs: Option<usize>, expect: &str) {
    let bench = Bench::new();
    let machine = Machine { cores: 4, memory: 1 << 30, gpus: 1 };
    let options = RunOptions { jobs, machine, ..RunOptions::default() };
    let silent: Arc<dyn Observer> = Arc::new(Silent);
    assert_eq!(outcomes(&bench.run_with(yaml, &options, &silent)), expect);
}

#[test]
fn light_stages_run_side_by_side() {
    check(&three("light", 3), None, "a: ran\nb: ran\nc: ran\n");
}

#[test]
fn stages_that_take_the_machine_run_one_by_one() {
    check(&three("heavy", 1), None, "a: ran\nb: ran\nc: ran\n");
}

#[test]
fn no_more_than_the_jobs_that_are_allowed() {
    let stage = |name: &str| format!("  {name}: {{uses: meet, with: {{group: jobs, name: {name}, count: 2}}}}\n");
    let yaml = format!("name: a\nstages:\n{}", ["a", "b", "c", "d"].map(stage).concat());
    check(&yaml, Some(2), "a: ran\nb: ran\nc: ran\nd: ran\n");
}

/// Two cells that do the same: one works, the other takes what it made, even when both could begin at once.
#[test]
fn the_same_work_is_done_once() {
    let yaml = "name: a\nstages:\n  a: {uses: meet, with: {group: same, name: x, count: 1}}\n  b: {uses: meet, with: {group: same, name: x, count: 1}}";
    check(yaml, None, "a: ran\nb: cached\n");
    let yaml = "name: a\nstages:\n  a: {uses: text, with: {value: x}}\n  b: {uses: text, with: {value: x}}";
    check(yaml, None, "a: ran\nb: cached\n");
}

/// A failure lets what is at work finish, and begins nothing more.
#[test]
fn a_failure_stops_what_did_not_begin() {
    let yaml = "name: a\nstages:\n  bad: {uses: fail, with: {how: numerical}}\n  after: {uses: join, inputs: {text: bad}}\n  heavy: {uses: meet, with: {group: after, name: x, count: 1}}";
    check(
        yaml,
        None,
        "bad: failed (Numerical): the matrix is not positive definite\nafter: skipped because of Some(\"bad\")\nheavy: skipped because of None\n",
    );
}

#[test]
fn a_failed_stage_is_tried_again() {
    let bench = Bench::new();
    let file =
        |retries: u32| format!("name: a\nstages:\n  a: {{uses: fail, with: {{how: twice}}, retries: {retries}}}");
    let recorder = Arc::new(Recorder::default());
    let observer: Arc<dyn Observer> = recorder.clone();
    let report = bench.run_with(&file(3), &RunOptions::default(), &observer);
    assert_eq!(outcomes(&report), "a: ran\n");
    let events = recorder.0.lock().unwrap();
    let retried = events.iter().filter_map(|event| match event {
        Event::StageRetried { failed, left, message, .. } => Some((*failed, *left, message.as_str())),
        _ => None,
    });
    assert_eq!(retried.collect::<Vec<_>>(), [(1, 2, "failed 1 times"), (2, 1, "failed 2 times")]);
    drop(events);
    let attempts = Runs::of(&bench.store_path()).attempts(&report.run);
    let failed = |attempt: &Attempt| attempt.end.as_ref().is_some_and(|end| end.failure.is_some());
    assert_eq!(
        attempts.iter().map(|attempt| (attempt.number, failed(attempt))).collect::<Vec<_>>(),
        [(1, true), (2, true), (3, false)]
    );
    assert!(attempts.iter().all(|attempt| attempt.executor == "thread" && attempt.pid == std::process::id()));
    // How often it may be tried is no part of what it yields.
    assert_eq!(bench.outcomes(&file(0)), "a: cached\n");
    let other = Bench::new();
    assert_eq!(other.outcomes(&file(1)), "a: failed (Store): failed 2 times\n");
}

#[test]
fn a_stage_past_its_timeout_is_stopped() {
    let bench = Bench::new();
    let yaml = "name: a\nstages:\n  a: {uses: fail, with: {how: never}, timeout: 0.1s, retries: 1}\n  b: {uses: join, inputs: {text: a}}";
    let report = bench.run(yaml);
    assert_eq!(
        outcomes(&report),
        "a: failed (Limit): it was not done within its timeout of 0.1s\nb: skipped because of Some(\"a\")\n"
    );
    let Outcome::Failed { hint: Some(hint), .. } = &report.stages[0].outcome else { panic!("no hint") };
    assert!(hint.to_string().contains("raise `timeout`"), "{hint}");
    let attempts = Runs::of(&bench.store_path()).attempts(&report.run);
    let failures = attempts.iter().filter_map(|attempt| attempt.end.as_ref()?.failure.as_ref());
    let limits = failures.filter(|failure| failure.kind == ErrorKind::Limit && failure.message.contains("timeout"));
    assert_eq!((attempts.len(), limits.count()), (2, 2), "{attempts:?}");
}
