//! Runs that are about some stages only.

mod common;

use std::sync::Arc;

use common::{Bench, outcomes};
use palinode_engine::{Observer, RunOptions, Selection, Silent};

const PIPELINE: &str = "
name: chain
matrix: { case: [upper, unchanged], copies: [1, 2] }
stages:
  first: { uses: text, with: { value: hello } }
  other: { uses: text, with: { value: there, case: '${matrix.case}', repeat: '${matrix.copies}' } }
  both: { uses: join, inputs: { text: first, other: other } }
  scores: { uses: count, inputs: { text: both } }
";

fn run(bench: &Bench, yaml: &str, selection: Selection) -> String {
    let silent: Arc<dyn Observer> = Arc::new(Silent);
    let pipeline = bench.load(yaml, &[]).unwrap();
    let options = RunOptions { selection, jobs: Some(1), ..RunOptions::default() };
    match palinode_engine::run(&pipeline, &bench.catalogue, &bench.store(), &options, &silent) {
        Ok(report) => outcomes(&report),
        Err(error) => format!(
            "{:?}: {error}\n  hint: {}\n",
            error.kind,
            error.hint.as_ref().map(ToString::to_string).unwrap_or_default()
        ),
    }
}

/// A title, and names for until, from, only and force.
type Row = (&'static str, Names, Names, Names, Names);
type Names = &'static [&'static str];

#[test]
fn some_stages_only() {
    let bench = Bench::new();
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let mut text = String::new();
    let rows: &[Row] = &[
        ("only what has no inputs yet", &[], &[], &["both[case=upper,copies=1]"], &[]),
        ("until a cell", &["both[case=upper,copies=2]"], &[], &[], &[]),
        ("until part of a cell", &["other[copies=1]"], &[], &[], &[]),
        ("only, now that its inputs are there", &[], &[], &["both[case=upper,copies=1]"], &[]),
        ("until a stage", &["both"], &[], &[], &[]),
        ("from a stage", &[], &["both[copies=1]"], &[], &[]),
        ("from here until there", &["both"], &["other"], &[], &["both[case=upper,copies=1]"]),
        ("all", &[], &[], &[], &[]),
        ("force one", &[], &[], &[], &["first"]),
        ("slips of the finger", &["bth"], &[], &[], &[]),
        ("", &[], &["both[copies=3]"], &[], &[]),
        ("", &[], &[], &["nothing like it"], &[]),
        ("", &["first"], &["scores"], &[], &[]),
        ("", &["first"], &[], &[], &["both[case=upper]"]),
    ];
    for (title, until, from, only, force) in rows {
        let selection = Selection { until: names(until), from: names(from), only: names(only), force: names(force) };
        text += &format!("── {title}: until {until:?} from {from:?} only {only:?} force {force:?}\n");
        text += &run(&bench, PIPELINE, selection);
    }
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("selection", text);
    });
}

/// A forced stage begins from its first unit, and keeps what it puts.
#[test]
fn a_forced_stage_uses_no_units_of_earlier_runs() {
    let bench = Bench::new();
    let yaml = "name: a\nstages:\n  a: {uses: fail, with: {how: unit}}";
    let forced = || Selection { force: vec!["a".to_owned()], ..Selection::default() };
    assert!(run(&bench, yaml, Selection::default()).contains("tried 1 times"));
    assert!(run(&bench, yaml, Selection::default()).contains("tried 2 times"));
    assert!(run(&bench, yaml, forced()).contains("tried 1 times"));
}
