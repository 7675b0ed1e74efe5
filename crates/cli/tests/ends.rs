//! Before a run what it may take, after it what it took, and what the user wants done when it has ended.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use palinode::Runs;
use serde_json::Value;
use tempfile::TempDir;

const PIPELINE: &str = "\
name: ends
stages:
  edits: { uses: load_requests, with: { path: facts.jsonl, dataset: jsonl } }
  plan: { uses: distribute, with: { strategy: memit, layers: [3, 4] } }
";
/// The corpus is empty, which is found when it is read.
const FAILING: &str = "\
name: fails
stages:
  model: { uses: load_model, with: { path: MODEL } }
  text: { uses: perplexity, inputs: { model: model }, with: { corpus: empty.txt } }
";
const FACT: &str = "{\"subject\": \"Ada\", \"prompt\": \"{} lives in\", \"target_new\": \"Rome\"}\n";

fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("p.yaml"), PIPELINE).unwrap();
    fs::write(folder.path().join("facts.jsonl"), FACT).unwrap();
    folder
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palinode"));
    command.env_remove("PALINODE_STORE").env_remove("PALINODE_ON_END").env("NO_COLOR", "1");
    command.current_dir(folder).args(args).stdin(Stdio::null());
    command
}

fn palinode(folder: &TempDir, args: &[&str]) -> Output {
    command(folder.path(), args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const WRITE: &str =
    "echo \"$PALINODE_PIPELINE $PALINODE_ENDED $PALINODE_SECONDS\" > ended; echo \"$PALINODE_RUN\" > run; echo said";

#[test]
fn a_command_hears_of_the_end() {
    let folder = folder();
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let output = palinode(&folder, &["run", "p.yaml", "--json", "--on-end", WRITE]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(read("ended"), "ends done 0\n");
    let runs = Runs::of(&folder.path().join(".palinode"));
    assert_eq!(read("run").trim(), runs.names()[0]);
    // What it prints is not among what the run prints.
    assert!(text(&output.stdout).lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    assert!(text(&output.stderr).contains("said"));

    // One that fails changes nothing of how the run ended.
    let output = palinode(&folder, &["run", "p.yaml", "--on-end", "exit 3"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("the command for the end of the run failed"), "{}", text(&output.stderr));

    // The user's own settings; a run that fails keeps its exit code.
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model/model").canonicalize().unwrap();
    fs::write(folder.path().join("empty.txt"), "").unwrap();
    fs::write(folder.path().join("f.yaml"), FAILING.replace("MODEL", model.to_str().unwrap())).unwrap();
    let output = command(folder.path(), &["run", "f.yaml"]).env("PALINODE_ON_END", WRITE).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert_eq!(read("ended").split(' ').nth(1), Some("failed"));

    // A pipeline, which may be someone else's, starts no command.
    fs::write(folder.path().join("q.yaml"), format!("on_end: touch harm\n{PIPELINE}")).unwrap();
    let output = palinode(&folder, &["run", "q.yaml"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(!folder.path().join("harm").exists());
}

#[test]
fn a_plan_knows_how_long_it_took_and_a_record_what() {
    let folder = folder();
    let estimate = || {
        let output = palinode(&folder, &["plan", "p.yaml", "--json"]);
        let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
        plan["estimate"].clone()
    };
    let before = estimate();
    assert_eq!(before["unknown"], serde_json::json!(["edits", "plan"]), "{before}");
    palinode(&folder, &["run", "p.yaml"]);
    assert_eq!(estimate(), serde_json::json!({ "seconds": 0.0, "known": [], "unknown": [] }), "all of it is cached");
    fs::write(folder.path().join("p.yaml"), PIPELINE.replace("[3, 4]", "[3, 4, 5]")).unwrap();
    let after = estimate();
    assert_eq!((after["known"][0][0].as_str(), after["unknown"].as_array().map(Vec::len)), (Some("plan"), Some(0)));
    assert!(after["seconds"].as_f64().unwrap() > 0.0);

    let record = Runs::of(&folder.path().join(".palinode")).open("latest").unwrap();
    if cfg!(target_os = "linux") {
        assert!(record.cost.peak_memory.unwrap() > 1 << 20, "{:?}", record.cost);
    }
    // Of a stage in a process of its own, this one knows nothing.
    palinode(&folder, &["run", "p.yaml", "--isolate"]);
    let record = Runs::of(&folder.path().join(".palinode")).open("latest").unwrap();
    assert_eq!(record.cost.peak_memory, None);
}
