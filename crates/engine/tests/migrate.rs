//! Results that still hold are found by a newer program, under the keys that it gives them.

mod common;

use std::sync::Arc;

use common::{Bench, Count, TextKind};
use palinode_engine::{
    Artifact, Catalogue, Error, Migrated, Observer, Retention, RunOptions, RunRetention, Silent, StageContext,
    StageKind, Status, migrate,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Parameters of `word` as they were at first.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct First {
    value: String,
    #[serde(default)]
    nested: Nested,
    #[serde(default)]
    batch: u32,
}

#[derive(Serialize, Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields)]
struct Nested {
    on: bool,
}

/// And with one more.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Second {
    value: String,
    #[serde(default)]
    nested: Nested,
    #[serde(default)]
    batch: u32,
    #[serde(default = "once")]
    times: usize,
}

fn once() -> usize {
    1
}

fn yields(cx: &StageContext, text: &str) -> Result<Artifact, Error> {
    Ok(Artifact::new("text", Value::Null).with_file("text", cx.put_bytes(text.as_bytes())?))
}

/// The kind of stage as it is in one version of the program.
macro_rules! word {
    ($name:ident, $params:ident, $version:literal, $carries:expr, $run:expr) => {
        struct $name;

        impl StageKind for $name {
            type Params = $params;
            const NAME: &'static str = "word";
            const VERSION: u32 = $version;
            const SUMMARY: &'static str = "Yields a word.";
            const DOC: &'static str = "";
            type Output = TextKind;

            fn unkeyed() -> &'static [&'static str] {
                &["batch"]
            }

            fn carries() -> &'static [u32] {
                $carries
            }

            fn run(params: &$params, cx: &StageContext) -> Result<Artifact, Error> {
                yields(cx, &$run(params))
            }
        }
    };
}

word!(Old, First, 1, &[], |params: &First| params.value.clone());
word!(Grown, Second, 1, &[], |params: &Second| params.value.repeat(params.times));
word!(Raised, Second, 2, &[1], |params: &Second| params.value.repeat(params.times));
word!(Other, Second, 3, &[], |params: &Second| params.value.to_uppercase());

fn program<S: StageKind>(bench: &mut Bench) {
    bench.catalogue = Catalogue::new();
    bench.catalogue.register::<S>().register::<Count>();
}

const PIPELINE: &str = "
name: words
stages:
  a: { uses: word, with: { value: hello, nested: { on: true }, batch: 3 } }
  scores: { uses: count, inputs: { text: a } }
";

fn counts(current: usize, carried: usize, left: usize) -> Migrated {
    Migrated { current, carried, left }
}

#[test]
fn results_are_carried_over_to_new_keys() {
    let mut bench = Bench::new();
    program::<Old>(&mut bench);
    assert_eq!(bench.outcomes(PIPELINE), "a: ran\nscores: ran\n");
    let run = bench.run(PIPELINE).run;
    palinode_engine::pin(&bench.store(), &run).unwrap();
    assert_eq!(migrate(&bench.store(), &bench.catalogue).unwrap(), counts(2, 0, 0));

    // A parameter more, then another version: in both what was there is found.
    program::<Grown>(&mut bench);
    assert!(matches!(bench.plan(PIPELINE).entries[0].status, Status::WillRun { .. }));
    assert_eq!(migrate(&bench.store(), &bench.catalogue).unwrap(), counts(1, 1, 0));
    assert_eq!(bench.outcomes(PIPELINE), "a: cached\nscores: cached\n");
    program::<Raised>(&mut bench);
    assert_eq!(migrate(&bench.store(), &bench.catalogue).unwrap(), counts(1, 1, 0));
    assert_eq!(migrate(&bench.store(), &bench.catalogue).unwrap(), counts(2, 0, 0));
    assert_eq!(bench.outcomes(PIPELINE), "a: cached\nscores: cached\n");
    // A parameter that was not there before still counts.
    let twice = PIPELINE.replace("batch: 3", "times: 2");
    assert_eq!(bench.outcomes(&twice), "a: ran\nscores: ran\n");

    // What was pinned stays, under its new keys too.
    let everything = Retention { unused_for: Some(std::time::Duration::ZERO), size: None };
    std::thread::sleep(std::time::Duration::from_millis(5));
    palinode_engine::collect(&bench.store(), &everything, &RunRetention::default()).unwrap();
    assert_eq!(bench.outcomes(PIPELINE), "a: cached\nscores: cached\n");

    // An older program still finds what it made.
    program::<Old>(&mut bench);
    assert_eq!(bench.outcomes(PIPELINE), "a: cached\nscores: cached\n");
    assert_eq!(bench.store().verify().damage, []);
}

#[test]
fn what_does_not_hold_is_not_carried_over() {
    let mut bench = Bench::new();
    program::<Raised>(&mut bench);
    bench.run(PIPELINE);
    // Another result than before, and a parameter that an older program lacks.
    program::<Other>(&mut bench);
    assert_eq!(migrate(&bench.store(), &bench.catalogue).unwrap(), counts(1, 0, 1));
    assert_eq!(bench.outcomes(PIPELINE), "a: ran\nscores: ran\n");
    program::<Old>(&mut bench);
    assert_eq!(migrate(&bench.store(), &bench.catalogue).unwrap().carried, 0);
    // A stage that this program lacks.
    bench.catalogue = Catalogue::new();
    let left = migrate(&bench.store(), &bench.catalogue).unwrap();
    assert_eq!((left.carried, left.current), (0, 0));
    let silent: Arc<dyn Observer> = Arc::new(Silent);
    program::<Other>(&mut bench);
    let again = bench.run_with(PIPELINE, &RunOptions::default(), &silent);
    assert_eq!(common::outcomes(&again), "a: cached\nscores: cached\n");
    assert_eq!(json!(left)["left"], 4);
}
