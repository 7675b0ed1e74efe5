//! Stages in processes of their own. The process is this test program, which runs [`toy_worker`] alone.

mod common;

use std::io::{Read, stdin, stdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::{env, fs, process, thread};

use common::{Bench, Recorder, catalogue, outcomes};
use palinode_engine::{
    Action, ErrorKind, Event, Observer, Outcome, RunOptions, Runs, Selection, Silent, WorkerCommand, work, work_aloud,
};

/// Not a test: a worker, when the last argument is an action file.
#[test]
fn toy_worker() {
    let Some(path) = env::args_os().next_back().filter(|last| last.to_string_lossy().ends_with(".json")) else {
        return;
    };
    let action = Action::read(path.as_ref()).unwrap();
    let interrupt = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupt);
    thread::spawn(move || {
        while stdin().read(&mut [0]).is_ok_and(|length| length > 0) {
            flag.store(true, Ordering::Relaxed);
        }
        process::exit(130);
    });
    let done = work_aloud(&action, &catalogue(), Box::new(stdout()), &interrupt);
    process::exit(i32::from(done.is_err()));
}

fn options() -> RunOptions {
    let program = env::current_exe().unwrap();
    let command = WorkerCommand(vec![program.into(), "-q".into(), "--exact".into(), "toy_worker".into()]);
    RunOptions { worker: Some(command), keep_going: true, ..RunOptions::default() }
}

fn silent() -> Arc<dyn Observer> {
    Arc::new(Silent)
}

const PIPELINE: &str = "
name: apart
stages:
  file: { uses: read, with: { path: in.txt } }
  word: { uses: text, with: { value: there } }
  both: { uses: join, inputs: { text: file, other: word }, with: { between: ' ' } }
  scores: { uses: count, inputs: { text: both } }
  out: { uses: write, inputs: { text: both }, with: { path: out/both.txt } }
";

#[test]
fn a_pipeline_of_workers_yields_what_one_process_does() {
    let (apart, within) = (Bench::new(), Bench::new());
    for bench in [&apart, &within] {
        fs::write(bench.path("in.txt"), "hello").unwrap();
    }
    let recorder = Arc::new(Recorder::default());
    let observer: Arc<dyn Observer> = recorder.clone();
    let report = apart.run_with(PIPELINE, &options(), &observer);
    assert_eq!(report.count(|outcome| *outcome == Outcome::Ran), 5, "{}", outcomes(&report));
    assert_eq!(fs::read_to_string(apart.path("out/both.txt")).unwrap(), "hello there");
    for (one, other) in report.stages.iter().zip(&within.run(PIPELINE).stages) {
        let digest = |stage: &palinode_engine::StageReport| stage.artifact.as_ref().map(|artifact| artifact.digest());
        assert_eq!(digest(one), digest(other), "{}", one.instance);
    }
    let progress =
        |event: &Event| matches!(event, Event::ProgressEnded { instance, done: 11, .. } if instance == "scores");
    assert!(recorder.0.lock().unwrap().iter().any(progress), "progress is handed on");
    // What workers made is found, with the index and without.
    assert!(!apart.outcomes(PIPELINE).contains("ran"));
    fs::remove_dir_all(apart.store_path().join("index")).unwrap();
    assert!(!apart.outcomes(PIPELINE).contains("ran"));
    assert_eq!(apart.store().verify().damage, []);
}

#[test]
fn a_worker_that_dies_fails_alone() {
    let bench = Bench::new();
    let mut text = String::new();
    for how in ["kill", "abort", "panic", "numerical"] {
        let yaml = format!(
            "name: a\nstages:\n  bad: {{uses: fail, with: {{how: {how}}}}}\n  after: {{uses: join, inputs: {{text: bad}}}}\n  free: {{uses: text, with: {{value: {how}}}}}"
        );
        let report = bench.run_with(&yaml, &options(), &silent());
        text += &format!("── {how}\n{}", outcomes(&report));
    }
    // What the test harness says on its own is not what this is about.
    let text: Vec<&str> = text.lines().map(|line| line.split("; its last words").next().unwrap_or(line)).collect();
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("deaths", text.join("\n"));
    });
}

#[test]
fn units_go_from_one_process_to_the_next() {
    let bench = Bench::new();
    let yaml = "name: a\nstages:\n  a: {uses: fail, with: {how: twice}, retries: 2}";
    // One try in this process, which keeps its unit in the index; then in others, which have none.
    let once = yaml.replace("retries: 2", "retries: 0");
    assert!(bench.outcomes(&once).contains("failed 1 times"));
    let report = bench.run_with(&yaml.replace("retries: 2", "retries: 1"), &options(), &silent());
    assert_eq!(outcomes(&report), "a: ran\n");
    // And back.
    let forced = Selection { force: vec!["a".to_owned()], ..Selection::default() };
    let report = bench.run_with(&once, &RunOptions { selection: forced, ..options() }, &silent());
    assert!(outcomes(&report).contains("failed 1 times"), "{}", outcomes(&report));
}

/// A worker that is lost is replaced; one that made a mistake would make it again.
#[test]
fn a_lost_worker_is_replaced_and_a_mistake_is_not_repeated() {
    let bench = Bench::new();
    let yaml = "name: a\nstages:\n  lost: {uses: fail, with: {how: once}, retries: 1}\n  wrong: {uses: fail, with: {how: numerical}, retries: 9}";
    let report = bench.run_with(yaml, &options(), &silent());
    assert_eq!(outcomes(&report), "lost: ran\nwrong: failed (Numerical): the matrix is not positive definite\n");
    let attempts = Runs::of(&bench.store_path()).attempts(&report.run);
    let of = |instance: &str| -> Vec<(u32, Option<(ErrorKind, bool)>)> {
        let failure = |attempt: &palinode_engine::Attempt| {
            let end = attempt.end.as_ref().expect("it ended");
            end.failure.as_ref().map(|failure| (failure.kind, failure.lost))
        };
        let these = attempts.iter().filter(|attempt| attempt.instance == instance);
        these.map(|attempt| (attempt.number, failure(attempt))).collect()
    };
    assert_eq!(of("lost"), [(1, Some((ErrorKind::Limit, true))), (2, None)]);
    assert_eq!(of("wrong"), [(1, Some((ErrorKind::Numerical, false)))]);
    let mut pids: Vec<u32> = attempts.iter().map(|attempt| attempt.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    assert!(pids.len() == 3 && !pids.contains(&process::id()), "each attempt has a process of its own: {pids:?}");
    assert!(attempts.iter().all(|attempt| attempt.executor == "process" && !attempt.host.is_empty()));
}

/// Sets the interrupt when a stage starts.
struct Interrupts(Arc<AtomicBool>, Mutex<bool>);

impl Observer for Interrupts {
    fn event(&self, event: &Event) {
        if matches!(event, Event::StageStarted { .. }) {
            self.0.store(true, Ordering::Relaxed);
            *self.1.lock().unwrap() = true;
        }
    }
}

#[test]
fn an_interrupt_reaches_the_worker() {
    let bench = Bench::new();
    let options = options();
    let observer: Arc<dyn Observer> = Arc::new(Interrupts(Arc::clone(&options.interrupt), Mutex::new(false)));
    let yaml = "name: a\nstages:\n  a: {uses: fail, with: {how: never}}\n  b: {uses: text, with: {value: x}}";
    let report = bench.run_with(yaml, &RunOptions { jobs: Some(1), ..options }, &observer);
    assert_eq!(outcomes(&report), "a: failed (Interrupted): interrupted\nb: skipped because of None\n");
}

#[test]
fn an_action_file_is_all_that_a_worker_needs() {
    let bench = Bench::new();
    fs::write(bench.path("in.txt"), "hello").unwrap();
    let report = bench.run_with(PIPELINE, &options(), &silent());
    let path = report.dir.join("actions/0002-both.json");
    let action = Action::read(&path).unwrap();
    let interrupt = Arc::new(AtomicBool::new(false));
    // The result is lost, and made again by a worker alone while someone else has the store open.
    let held = bench.store();
    let before = held.manifest(&action.key).unwrap().unwrap();
    let manifest = work(&action, &catalogue(), &silent(), &interrupt).unwrap().unwrap();
    assert_eq!(manifest.output, before.output);
    // What does not fit is said.
    let mut text = String::new();
    let written = fs::read_to_string(&path).unwrap();
    for (from, to) in [
        ("\"format\": 2", "\"format\": 9"),
        ("\"with\"", "\"wiht\""),
        ("\"between\": \" \"", "\"between\": \"-\""),
        ("\"version\": 1", "\"version\": 2"),
        ("\"size\": 5", "\"size\": 6"),
    ] {
        assert!(written.contains(from), "{from} in {written}");
        fs::write(&path, written.replacen(from, to, 1)).unwrap();
        let error = Action::read(&path).and_then(|action| work(&action, &catalogue(), &silent(), &interrupt));
        let said = error.map_or_else(
            |error| format!("{error}\n  hint: {}", error.hint.as_ref().map(ToString::to_string).unwrap_or_default()),
            |_| "fine".to_owned(),
        );
        text += &format!("── {to}\n{said}\n");
    }
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("action_files", text.replace(bench.dir.path().to_str().unwrap(), "<dir>"));
    });
}

#[test]
fn a_worker_that_hears_nothing_is_ended() {
    let bench = Bench::new();
    let yaml = "name: a\nstages:\n  a: {uses: fail, with: {how: deaf}, timeout: 0.1s}";
    let report = bench.run_with(yaml, &RunOptions { grace: std::time::Duration::ZERO, ..options() }, &silent());
    assert_eq!(outcomes(&report), "a: failed (Limit): it was not done within its timeout of 0.1s\n");
}
