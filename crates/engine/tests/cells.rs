//! A cell of the matrix is its values; what it is called is for people.

mod common;

use std::collections::BTreeSet;

use common::Bench;

/// Values that are written alike, and two axes whose values are.
const PIPELINE: &str = r#"
name: alike
matrix: { x: [1, "1", 2] }
stages:
  a: { uses: text, with: { value: "${matrix.x} ${matrix.x is string}" } }
  b: { uses: join, inputs: { text: a } }
  c: { uses: count, inputs: { text: b } }
"#;

#[test]
fn values_that_are_written_alike_are_cells_of_their_own() {
    let bench = Bench::new();
    let pipeline = bench.load(PIPELINE, &[]).unwrap();
    let names: Vec<&str> = pipeline.instances.iter().map(|instance| instance.name.as_str()).collect();
    let cells = ["x=1", r#"x="1""#, "x=2"];
    let expected: Vec<String> =
        ["a", "b", "c"].iter().flat_map(|stage| cells.map(|cell| format!("{stage}[{cell}]"))).collect();
    assert_eq!(names, expected);
    // Each takes from the cell that has its values.
    let inputs: Vec<usize> = pipeline.instances[3..6].iter().map(|instance| instance.inputs["text"]).collect();
    assert_eq!(inputs, [0, 1, 2]);
    assert_eq!(pipeline.choose(r#"b[x="1"]"#).unwrap(), [4]);
    assert_eq!(pipeline.choose("b[x=1]").unwrap(), [3]);
    // Plan and run are of the same instances.
    let planned: Vec<String> = bench.plan(PIPELINE).entries.into_iter().map(|entry| entry.instance).collect();
    assert_eq!(planned, expected);
    let report = bench.run(PIPELINE);
    let ran: Vec<&str> = report.stages.iter().map(|stage| stage.instance.as_str()).collect();
    assert_eq!(ran, expected);
    let texts = &report.stages[..3];
    let distinct: BTreeSet<_> = texts.iter().map(|stage| stage.artifact.as_ref().unwrap().digest()).collect();
    assert_eq!(distinct.len(), 3);
}

#[test]
fn axes_whose_values_run_together_stay_apart() {
    let bench = Bench::new();
    let yaml = r#"
name: alike
matrix: { x: ["a,y=b", a], y: [c, "b,y=c"], exclude: [{ x: "a,y=b", y: "b,y=c" }, { x: a, y: c }] }
stages:
  a: { uses: text, with: { value: "${matrix.x} and ${matrix.y}" } }
"#;
    let pipeline = bench.load(yaml, &[]).unwrap();
    let names: Vec<&str> = pipeline.instances.iter().map(|instance| instance.name.as_str()).collect();
    assert_eq!(names, [r#"a[x="a,y=b",y="c"]"#, r#"a[x="a",y="b,y=c"]"#]);
}
