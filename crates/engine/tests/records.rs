//! What is kept of a run, and what is read of it: while it goes on, when it ended, when it was killed.

mod common;

use std::fs;
use std::sync::Arc;

use common::{Bench, interrupted};
use palinode_engine::{
    Digest, Ended, ErrorKind, Event, Outcome, RunOptions, RunRecord, Runs, Silent, StageState, Store, event_log,
    stage_log,
};

const PIPELINE: &str = "
name: letters
matrix: { case: [upper, unchanged] }
stages:
  shout: { uses: text, with: { value: hello, case: '${matrix.case}' } }
  scores: { uses: count, inputs: { text: shout } }
";

fn only(bench: &Bench) -> RunRecord {
    let all = Runs::of(&bench.store_path()).list();
    assert_eq!(all.len(), 1, "{all:?}");
    all.into_iter().next().unwrap()
}

#[test]
fn a_run_leaves_a_record() {
    let bench = Bench::new();
    let report = bench.run(PIPELINE);
    let record = only(&bench);
    assert_eq!((record.run.as_str(), record.pipeline.as_str(), record.ended), (&*report.run, "letters", Ended::Done));
    assert_eq!((record.file.as_str(), record.file_digest), ("p.yaml", Digest::of(PIPELINE.as_bytes())));
    assert!(record.finished_ms.unwrap() >= record.started_ms);
    let scores = record.stage("scores[case=upper]").unwrap();
    assert_eq!(scores.state, StageState::Finished(Outcome::Ran));
    assert_eq!((scores.metrics["letters"], scores.metrics["capitals"]), (5.0, 1.0));
    assert_eq!(scores.columns[0]["name"], "capitals");
    assert_eq!(scores.cell, [("case".to_owned(), "upper".into())]);
    let store = bench.store();
    for stage in &record.stages {
        assert_eq!(store.manifest(&stage.key.unwrap()).unwrap().unwrap().content, stage.content.unwrap());
    }
    let file = fs::read(Runs::of(&bench.store_path()).dir(&report.run).join("run.json")).unwrap();
    assert_eq!(RunRecord::read(&file), Some(record));
}

#[test]
fn failures_and_interrupts_are_told_apart() {
    let bench = Bench::new();
    let ended = |yaml: &str, options: &RunOptions| {
        let run = bench.run_with(yaml, options, &(Arc::new(Silent) as _)).run;
        Runs::of(&bench.store_path()).open(&run).unwrap().ended
    };
    let go = RunOptions::default();
    assert_eq!(ended("name: a\nstages: { a: { uses: fail, with: { how: numerical } } }", &go), Ended::Failed);
    assert_eq!(ended("name: a\nstages: {}", &go), Ended::Done);
    let stop = RunOptions { interrupt: interrupted(), ..RunOptions::default() };
    assert_eq!(ended(PIPELINE, &stop), Ended::Interrupted);
}

/// A record that was not completed is put together from the event log and the manifests.
#[test]
fn a_killed_run_is_known_as_far_as_it_got() {
    let bench = Bench::new();
    let report = bench.run(PIPELINE);
    let whole = only(&bench);
    // As it was when the run began, and with the log cut in the middle of a line.
    let mut begun = whole.clone();
    begun.ended = Ended::Not;
    begun.finished_ms = None;
    for stage in &mut begun.stages {
        (stage.state, stage.key, stage.seconds) = (StageState::Waiting, None, 0.0);
        (stage.content, stage.columns) = (None, serde_json::Value::Null);
        stage.metrics.clear();
    }
    let log = report.dir.join("events.jsonl");
    let text = fs::read_to_string(&log).unwrap();
    let last = text.rfind("\"stage_started\"").unwrap();
    let end = last + text[last..].find('\n').unwrap();
    let finished = text[..end].matches("\"stage_finished\"").count();
    let at_work = text[..end].matches("\"stage_started\"").count() - finished;
    assert!(at_work > 0);
    fs::write(&log, format!("{}\n{{\"at_ms\": 17, \"eve", &text[..end])).unwrap();
    fs::write(report.dir.join("run.json"), serde_json::to_vec(&begun).unwrap()).unwrap();

    let lost = only(&bench);
    assert_eq!(lost.ended, Ended::Lost);
    assert!(lost.finished_ms.is_some());
    assert_eq!(lost.stages.iter().filter(|stage| stage.content.is_some()).count(), finished);
    assert_eq!(lost.stages.iter().filter(|stage| stage.state == StageState::Lost).count(), at_work);
    for (lost, whole) in lost.stages.iter().zip(&whole.stages).filter(|(lost, _)| lost.content.is_some()) {
        assert_eq!(lost, whole);
    }
    // While the process that is in this run holds the store, the run goes on.
    let store = bench.store();
    fs::write(bench.store_path().join("LOCK"), format!(r#"{{"pid":1,"host":"h","run":"{}"}}"#, report.run)).unwrap();
    assert_eq!(only(&bench).ended, Ended::Not);
    drop(store);
    assert_eq!(only(&bench).ended, Ended::Lost);
}

#[test]
fn runs_are_found_by_name() {
    let bench = Bench::new();
    let runs = || Runs::of(&bench.store_path());
    let said = |which: &str| {
        let error = runs().open(which).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Usage);
        format!("{error} ({})", error.hint.as_ref().map(ToString::to_string).unwrap_or_default())
            .replace(&*bench.store_path().to_string_lossy(), "STORE")
    };
    assert_eq!(runs().list(), []);
    assert_eq!(said("latest"), "there are no runs in STORE/runs ()");
    bench.run(PIPELINE);
    let first = runs().names().remove(0);
    for (name, copy) in
        [("20200101-000000-00aa", true), ("20200101-000000-00ab", true), ("20300101-000000-0000", false)]
    {
        fs::create_dir_all(runs().dir(name)).unwrap();
        if copy {
            fs::copy(runs().dir(&first).join("run.json"), runs().dir(name).join("run.json")).unwrap();
        }
    }
    assert_eq!(runs().list().len(), 3);
    assert_eq!(runs().open(&first).unwrap().run, first);
    assert_eq!(runs().open("20200101-000000-00aa").unwrap().run, first);
    let mut text = [said("2020"), said("20200101-000000-00ac"), said("x")].join("\n");
    text += &format!(
        "\n{}",
        runs().open("latest").unwrap_err().message.replace(&*bench.store_path().to_string_lossy(), "STORE")
    );
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("records", text);
    });
}

/// Whoever looks does not stand in the way of whoever works.
#[test]
fn looking_does_not_take_the_store() {
    let bench = Bench::new();
    bench.run(PIPELINE);
    let path = bench.store_path();
    std::thread::scope(|scope| {
        scope.spawn(|| (0..200).for_each(|_| drop(Runs::of(&path))));
        for _ in 0..20 {
            drop(Store::open(&path).unwrap());
        }
    });
}

/// A warning says which instance it is of, whatever that is called, and lands in that instance's log alone.
#[test]
fn warnings_know_their_instance() {
    let bench = Bench::new();
    let yaml =
        "name: odd\nmatrix: { how: ['warn: a'] }\nstages: { noisy: { uses: fail, with: { how: '${matrix.how}' } } }";
    let report = bench.run(yaml);
    let runs = Runs::of(&bench.store_path());
    let instance = "noisy[how=warn: a]";
    assert_eq!(runs.warnings(&report.run), [format!("{instance}: mind this: it is odd")]);
    let log = stage_log(&report.dir, instance);
    assert!(fs::read_to_string(&log).unwrap().contains("warning: mind this: it is odd"));
    let logs: Vec<_> = fs::read_dir(log.parent().unwrap()).unwrap().flatten().map(|entry| entry.path()).collect();
    assert_eq!(logs, [log]);
    // As they were written before warnings had an instance of their own.
    let old = r#"{"at_ms":1,"event":"warning","message":"noisy: mind this"}"#;
    fs::write(event_log(&report.dir), format!("{old}\n")).unwrap();
    assert_eq!(runs.events(&report.run), [(1, Event::warning("noisy: mind this"))]);
    assert_eq!(runs.warnings(&report.run), ["noisy: mind this"]);
}
