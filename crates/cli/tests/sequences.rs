//! Sequences of every method, through the program: killed in the middle, they go on and end as one that was never stopped; and with more
//! requests they go on from what is there.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use palinode::{Digest, Event, Runs};
use tempfile::TempDir;

const PIPELINE: &str = "
name: sequences
vars: { edits: 5 }
stages:
  model: { uses: load_model, with: { path: DEMO/model } }
  edits: { uses: load_requests, with: { path: DEMO/requests.json, limit: '${vars.edits}' } }
  contexts: { uses: templates, with: { groups: [['{}'], ['It is so. {}']] } }
  moments: { uses: covariance, inputs: { model: model }, with: { corpus: DEMO/corpus.txt, layers: [0, 1], samples: 300 } }
  plan: { uses: distribute, with: { strategy: memit, layers: [0, 1] } }
  memit_seq:
    uses: sequence
    inputs: { model: model, requests: edits, moments: moments, plan: plan, templates: contexts }
    with: { targets: { layer: 1, steps: 8 }, solve: { objective: memit, lambda: 10, history: 1, batch_size: 1 } }
  alphaedit:
    uses: sequence
    inputs: { model: model, requests: edits, moments: moments, plan: plan, templates: contexts }
    with:
      targets: { layer: 1, steps: 8 }
      solve: { objective: memit, preset: alphaedit, update_norm_lambda: 0.1, projector: { trace: 0.1 }, batch_size: 2 }
  rect:
    uses: sequence
    inputs: { model: model, requests: edits, moments: moments, plan: plan, templates: contexts }
    with:
      targets: { layer: 1, steps: 8 }
      solve: { objective: memit, lambda: 10, batch_size: 1 }
      care: [{ rect: { keep: 0.4 } }]
  sphere:
    uses: sequence
    inputs: { model: model, requests: edits, moments: moments, plan: plan, templates: contexts }
    with:
      targets: { layer: 1, steps: 8 }
      solve: { objective: emmet, lambda: 10, history: 1, batch_size: 1 }
      care: [{ sphere: {} }, { revive: { rank: 2 } }, { prune: {} }]
  fine_tuned: { uses: finetune, inputs: { model: model, requests: edits }, with: { layer: 1, epochs: 3, batch_size: 1 } }
  ultraedit:
    uses: ultraedit
    inputs: { model: model, requests: edits }
    with: { layers: [1], modules: [down, up], learning_rate: 0.003, batch_size: 1 }
  scores: { uses: evaluate, inputs: { model: sphere, requests: edits }, with: { every: 2, by_age: true } }
";

/// The stages whose rounds are units.
const SEQUENCES: [&str; 6] = ["memit_seq", "alphaedit", "rect", "sphere", "fine_tuned", "ultraedit"];

fn folder() -> TempDir {
    let dir = TempDir::new().unwrap();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model").canonicalize().unwrap();
    fs::write(dir.path().join("p.yaml"), PIPELINE.replace("DEMO", demo.to_str().unwrap())).unwrap();
    dir
}

fn command(dir: &Path, edits: usize) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palinode"));
    command.current_dir(dir).env_remove("PALINODE_STORE").env_remove("PALINODE_LOG");
    let set = format!("vars.edits={edits}");
    command.args(["run", "p.yaml", "--store", "store", "--set", &set]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn finish(dir: &Path, edits: usize) {
    let output = command(dir, edits).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The contents of every result of the latest run.
fn results(dir: &Path) -> BTreeMap<String, Digest> {
    let run = Runs::of(&dir.join("store")).open("latest").unwrap();
    run.stages.into_iter().map(|stage| (stage.instance, stage.content.expect("a result"))).collect()
}

/// The rounds of a stage that were computed, by all runs together.
fn rounds(store: &Path, stage: &str) -> Vec<String> {
    let runs = Runs::of(store);
    let names = runs.names();
    let events = names.iter().flat_map(|run| runs.events(run));
    let unit = |(_, event)| match event {
        Event::UnitDone { unit, instance, .. } if instance == stage => Some(unit.to_string()),
        _ => None,
    };
    events.filter_map(unit).collect()
}

#[test]
fn a_killed_sequence_ends_as_one_that_was_not() {
    let whole = folder();
    finish(whole.path(), 5);
    let expected = results(whole.path());
    assert!(SEQUENCES.iter().all(|stage| expected.contains_key(*stage)));

    let dir = folder();
    let store = dir.path().join("store");
    let mut killed = 0;
    for stage in SEQUENCES {
        let mut child = command(dir.path(), 5).spawn().unwrap();
        // As soon as something of it is kept.
        while rounds(&store, stage).is_empty() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        killed += usize::from(!child.wait_with_output().unwrap().status.success());
    }
    assert!(killed > 0, "nothing was killed");
    finish(dir.path(), 5);
    assert_eq!(results(dir.path()), expected, "after {killed} kills");
    for stage in SEQUENCES {
        let done = rounds(&store, stage);
        let different: HashSet<&String> = done.iter().collect();
        assert_eq!(done.len(), different.len(), "a round of {stage} was computed twice");
    }
}

#[test]
fn a_longer_sequence_goes_on_from_a_shorter_one() {
    let whole = folder();
    finish(whole.path(), 5);
    let dir = folder();
    finish(dir.path(), 2);
    let store = dir.path().join("store");
    let before: Vec<usize> = SEQUENCES.iter().map(|stage| rounds(&store, stage).len()).collect();
    finish(dir.path(), 5);
    assert_eq!(results(dir.path()), results(whole.path()));
    for (stage, before) in SEQUENCES.into_iter().zip(before) {
        let (all, once) = (rounds(&store, stage).len(), rounds(&whole.path().join("store"), stage).len());
        assert!(before > 0 && all == once, "{stage}: {before} and then {all} units, where {once} are enough");
    }
}

/// Each round is treated before the next one: another model than treating the sum at the end.
#[test]
fn after_care_of_rounds_is_not_that_of_the_sum() {
    let dir = folder();
    let text = fs::read_to_string(dir.path().join("p.yaml")).unwrap();
    let (head, rest) = text.split_once("  memit_seq:").unwrap();
    let (plain, _) = rest.split_once("  alphaedit:").unwrap();
    let plain = plain.replace("history: 1, ", "");
    let cared = plain.trim_end().trim_end_matches('}').to_owned();
    let at_end = "  end: { uses: rect, inputs: { update: plain } }\n";
    let nothing = format!("  nothing:{cared}, care: [{{ rect: {{ keep: 1 }} }}, {{ sphere: {{ alpha: 0 }} }}] }}\n");
    let each = format!("  each:{cared}, care: [{{ rect: {{}} }}] }}\n");
    let of = |name: &str| format!("  s_{name}: {{ uses: evaluate, inputs: {{ model: {name}, requests: edits }} }}\n");
    let scores: String = ["plain", "end", "nothing", "each"].map(of).concat();
    fs::write(dir.path().join("p.yaml"), format!("{head}  plain:{plain}{nothing}{each}{at_end}{scores}")).unwrap();
    finish(dir.path(), 5);
    let found = results(dir.path());
    assert_ne!(found["each"], found["end"]);
    assert_ne!(found["s_each"], found["s_plain"]);

    let wrong = fs::read_to_string(dir.path().join("p.yaml")).unwrap();
    for (care, words) in
        [("[{ rekt: {} }]", "rect"), ("[{ rect: { keep: 0 } }]", "above 0"), ("[{ revive: {} }]", "rank")]
    {
        fs::write(dir.path().join("p.yaml"), wrong.replace("care: [{ rect: {} }]", &format!("care: {care}"))).unwrap();
        let output = command(dir.path(), 5).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(3) && told.contains(words), "{care}: {told}");
    }
}
