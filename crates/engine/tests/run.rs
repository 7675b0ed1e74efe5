//! What runs, what does not, and what is said about it.

mod common;

use std::fs;
use std::sync::Arc;

use common::{Bench, Recorder, interrupted, outcomes};
use palinode_engine::{Event, Observer, Outcome, RunOptions, Silent, Source, Status};

const PIPELINE: &str = "
name: letters
vars: { word: hello }
matrix: { case: [upper, unchanged], copies: [1, 2] }
stages:
  greeting: { uses: text, with: { value: '${vars.word}' } }
  shout: { uses: text, with: { value: '${vars.word}', case: '${matrix.case}' } }
  both: { uses: join, inputs: { text: greeting, other: shout }, with: { between: ' ' } }
  many: { uses: text, with: { value: x, repeat: '${matrix.copies}' } }
  all: { uses: join, inputs: { text: both, other: many } }
  scores: { uses: count, inputs: { text: all } }
  out: { uses: write, inputs: { text: both }, with: { path: 'out/${matrix.case}.txt' } }
";

/// What the plan says, one line for each instance.
fn plan(bench: &Bench, yaml: &str) -> String {
    let line = |entry: &palinode_engine::PlanEntry| {
        let status = match &entry.status {
            Status::Cached { .. } => "cached".to_owned(),
            Status::WillRun { reasons, .. } => {
                let reasons: Vec<_> = reasons.iter().map(ToString::to_string).collect();
                format!("will run: {}", reasons.join("; "))
            }
            Status::SameAs { instance, .. } => format!("same as {instance}"),
            Status::DependsOn { upstream } => format!("depends on {}", upstream.join(", ")),
        };
        format!("{}: {status}\n", entry.instance)
    };
    bench.plan(yaml).entries.iter().map(line).collect()
}

fn check(name: &str, text: &str) {
    // Digests of artifacts are a matter of the key tests.
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(name, text);
    });
}

/// Under strict numerics a result counts for the device that computed it alone; otherwise for any.
#[test]
fn strict_numerics_tell_devices_apart() {
    let yaml = "name: strict\nnumerics: strict\nstages:\n  a: { uses: text, with: { value: hello } }\n";
    let silent: Arc<dyn Observer> = Arc::new(Silent);
    for (yaml, again) in [(yaml.to_owned(), Outcome::Ran), (yaml.replace("strict", "portable"), Outcome::Cached)] {
        let bench = Bench::new();
        let run = |device: &str| {
            let mut pipeline = bench.load(&yaml, &[]).unwrap();
            pipeline.compute_on(device);
            let planned = palinode_engine::plan(&pipeline, &bench.store(), silent.as_ref()).unwrap();
            let report =
                palinode_engine::run(&pipeline, &bench.catalogue, &bench.store(), &RunOptions::default(), &silent)
                    .unwrap();
            (format!("{:?}", planned.entries[0].status), report.stages[0].outcome.clone())
        };
        assert_eq!(run("one").1, Outcome::Ran);
        assert_eq!(run("one").1, Outcome::Cached);
        let (why, outcome) = run("other");
        assert_eq!(outcome, again);
        assert!(again == Outcome::Cached || why.contains("environment.device"), "{why}");
    }
}

#[test]
fn from_nothing_to_nothing_to_do() {
    let bench = Bench::new();
    let mut text = format!("{}── run\n{}", plan(&bench, PIPELINE), bench.outcomes(PIPELINE));
    text += &format!("── again\n{}── run\n{}", plan(&bench, PIPELINE), bench.outcomes(PIPELINE));
    check("from_nothing", &text);
    assert_eq!(fs::read_to_string(bench.path("out/upper.txt")).unwrap(), "hello HELLO");
}

#[test]
fn a_change_runs_what_it_touches() {
    let bench = Bench::new();
    bench.run(PIPELINE);
    let changed = PIPELINE.replace("between: ' '", "between: '-'");
    check("a_change", &format!("{}── run\n{}", plan(&bench, &changed), bench.outcomes(&changed)));
    // The way back is in the store.
    assert!(bench.run(PIPELINE).stages.iter().filter(|stage| stage.outcome == Outcome::Ran).count() <= 2);
}

#[test]
fn comments_order_and_unkeyed_parameters_do_not_matter() {
    let bench = Bench::new();
    let one = "name: a\nstages:\n  a: {uses: text, with: {value: hi, repeat: 2, batch: 1}}";
    let other = "# why\nname: a\nstages:\n  b:\n    with: {batch: 9, repeat: 2, case: unchanged, value: \"hi\"}\n    uses: text";
    bench.run(one);
    assert_eq!(bench.outcomes(other), "b: cached\n");
}

#[test]
fn an_upstream_run_that_yields_the_same_runs_nothing_below() {
    let bench = Bench::new();
    let file = |value: &str| {
        format!(
            "name: a\nstages:\n  a: {{uses: text, with: {{value: {value}}}}}\n  b: {{uses: join, inputs: {{text: a}}, with: {{keep: 1}}}}\n  c: {{uses: count, inputs: {{text: b}}}}"
        )
    };
    bench.run(&file("abc"));
    assert_eq!(bench.outcomes(&file("axyz")), "a: ran\nb: ran\nc: cached\n");
}

#[test]
fn external_files_count_by_content() {
    let bench = Bench::new();
    let file = |path: &str| {
        format!(
            "name: a\nstages:\n  a: {{uses: read, with: {{path: {path}}}}}\n  b: {{uses: join, inputs: {{text: a}}}}"
        )
    };
    fs::write(bench.path("one.txt"), "some text").unwrap();
    assert_eq!(bench.outcomes(&file("one.txt")), "a: ran\nb: ran\n");
    assert_eq!(bench.outcomes(&file("one.txt")), "a: cached\nb: cached\n");
    // Touched, but the same.
    fs::write(bench.path("one.txt"), "some text").unwrap();
    assert_eq!(bench.outcomes(&file("one.txt")), "a: cached\nb: cached\n");
    // Changed, at the same length.
    fs::write(bench.path("one.txt"), "same text").unwrap();
    assert_eq!(bench.outcomes(&file("one.txt")), "a: ran\nb: ran\n");
    // Another name is another parameter for `read`, but yields the same.
    fs::rename(bench.path("one.txt"), bench.path("two.txt")).unwrap();
    assert_eq!(bench.outcomes(&file("two.txt")), "a: ran\nb: cached\n");
    // The store holds no copy of it.
    let blobs = bench.store().verify().blobs;
    assert_eq!(blobs, 2, "one for each text that `b` made");
}

#[test]
fn published_files_are_watched() {
    let bench = Bench::new();
    bench.run(PIPELINE);
    fs::remove_file(bench.path("out/upper.txt")).unwrap();
    fs::write(bench.path("out/unchanged.txt"), "scribble").unwrap();
    let mut text = plan(&bench, PIPELINE);
    bench.run(PIPELINE);
    text += &plan(&bench, PIPELINE);
    check("published", &text);
}

#[test]
fn failures() {
    let bench = Bench::new();
    let file = |how: &str| {
        format!(
            "name: a\nstages:\n  bad: {{uses: fail, with: {{how: {how}}}}}\n  after: {{uses: join, inputs: {{text: bad}}}}\n  last: {{uses: join, inputs: {{text: after}}}}\n  free: {{uses: text, with: {{value: a}}}}"
        )
    };
    let mut text = String::new();
    let silent: Arc<dyn Observer> = Arc::new(Silent);
    let one = RunOptions { jobs: Some(1), ..RunOptions::default() };
    for how in ["panic", "numerical", "kind", "lie", "unit", "unit", "'the file is cut short'"] {
        text += &format!("── {how}\n{}", outcomes(&bench.run_with(&file(how), &one, &silent)));
    }
    let options = RunOptions { keep_going: true, ..one.clone() };
    text += &format!("── keep going\n{}", outcomes(&bench.run_with(&file("numerical"), &options, &silent)));
    let options = RunOptions { interrupt: interrupted(), ..RunOptions::default() };
    text += &format!("── interrupted\n{}", outcomes(&bench.run_with(&file("numerical"), &options, &silent)));
    check("failures", &text);
}

#[test]
fn events_are_told_and_written_down() {
    let bench = Bench::new();
    let recorder = Arc::new(Recorder::default());
    let observer: Arc<dyn Observer> = recorder.clone();
    let report = bench.run_with(PIPELINE, &RunOptions::default(), &observer);
    let told: Vec<Event> = std::mem::take(&mut recorder.0.lock().unwrap());
    let written = fs::read_to_string(palinode_engine::event_log(&report.dir)).unwrap();
    let written: Vec<Event> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let lasting: Vec<Event> = told.iter().filter(|event| !matches!(event, Event::Progress { .. })).cloned().collect();
    assert_eq!(written, lasting);
    for (at, event) in told.iter().enumerate() {
        let Event::StageFinished { instance: finished, outcome: Outcome::Ran, .. } = event else { continue };
        let starts = |event: &Event| matches!(event, Event::StageStarted { instance, .. } if instance == finished);
        assert!(told[..at].iter().any(starts), "{finished} finished before it started");
    }
    assert!(
        matches!(told.first(), Some(Event::RunStarted { .. }))
            && matches!(told.last(), Some(Event::RunFinished { .. }))
    );
    assert!(told.iter().any(|event| matches!(event, Event::Progress { what, done: 12.., .. } if what == "letters")));
    // The resolved pipeline is one that can be read again.
    let resolved = fs::read_to_string(report.dir.join("resolved.yaml")).unwrap();
    assert!(resolved.contains("all[case=upper,copies=2]"), "{resolved}");
}

#[test]
fn a_held_store_names_its_holder() {
    let bench = Bench::new();
    let held = bench.store();
    let error = palinode_engine::Store::open(&bench.store_path()).err().unwrap();
    assert!(error.to_string().contains(&format!("is in use by process {}", std::process::id())), "{error}");
    drop(held);
    bench.store();
}

#[test]
fn the_schema_knows_every_stage() {
    let schema = palinode_engine::pipeline_schema(&common::catalogue());
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_json_snapshot!("schema", schema);
    });
}

#[test]
fn inputs_may_follow_the_matrix() {
    let bench = Bench::new();
    let yaml = "name: a\nmatrix: {which: [one, two], n: [1, 2]}\nstages:\n  one: {uses: text, with: {value: a}}\n  two: {uses: text, with: {value: b, repeat: '${matrix.n}'}}\n  pick: {uses: join, inputs: {text: '${matrix.which}'}}";
    let pipeline = bench.load(yaml, &[]).unwrap();
    let names: Vec<_> = pipeline.instances.iter().map(|instance| instance.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "one",
            "two[n=1]",
            "two[n=2]",
            "pick[which=one,n=1]",
            "pick[which=one,n=2]",
            "pick[which=two,n=1]",
            "pick[which=two,n=2]"
        ]
    );
}

#[test]
fn cells_can_be_left_out_and_added() {
    let bench = Bench::new();
    let yaml = "name: a\nmatrix: {x: [1, 2], y: [a, b], exclude: [{x: 2, y: b}], include: [{x: 3, y: c}]}\nstages:\n  a: {uses: text, with: {value: '${matrix.y}', repeat: '${matrix.x}'}}\n  b: {uses: text, with: {value: '${matrix.y}'}}";
    let pipeline = bench.load(yaml, &[]).unwrap();
    let names: Vec<_> = pipeline.instances.iter().map(|instance| instance.name.as_str()).collect();
    assert_eq!(names, ["a[x=1,y=a]", "a[x=1,y=b]", "a[x=2,y=a]", "a[x=3,y=c]", "b[y=a]", "b[y=b]", "b[y=c]"]);
}

#[test]
fn a_file_that_is_not_there_is_an_error() {
    let error = Source::read(std::path::Path::new("no-such.yaml")).unwrap_err();
    assert_eq!(error.to_string(), "cannot read no-such.yaml: no such file or directory");
}

/// What an instance will yield may be what another one takes already: then they do the same, and a plan cannot know it.
#[test]
fn instances_that_may_turn_out_to_be_the_same_depend_on_each_other() {
    let bench = Bench::new();
    let known =
        "  word: {uses: text, with: {value: xa}}\n  first: {uses: join, inputs: {text: word}, with: {keep: 1}}\n";
    let new =
        "  other: {uses: text, with: {value: xb}}\n  same: {uses: join, inputs: {text: other}, with: {keep: 1}}\n";
    let ends = "  one: {uses: count, inputs: {text: same}}\n  two: {uses: count, inputs: {text: first}}\n";
    bench.run(&format!("name: a\nstages:\n{known}"));
    let yaml = format!("name: a\nstages:\n{known}{new}{ends}");
    let planned = plan(&bench, &yaml);
    assert!(planned.contains("one: depends on same\n") && planned.contains("two: depends on one\n"), "{planned}");
    let ran = bench.outcomes(&yaml);
    assert_eq!(ran.matches("one: ran").count() + ran.matches("two: ran").count(), 1, "{ran}");
}
