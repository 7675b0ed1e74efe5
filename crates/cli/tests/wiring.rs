//! The built program: that commands, exit codes and outputs hang together. What the engine says is tested there.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use palinode::{Manifest, STORE_VERSION, Store};
use tempfile::TempDir;

/// A folder to work in.
struct Bench(TempDir);

/// What a command said.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Bench {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_palinode"));
        for name in ["NO_COLOR", "PALINODE_STORE", "PALINODE_LOG", "CLICOLOR_FORCE"] {
            command.env_remove(name);
        }
        command.current_dir(&self.0).env("COLUMNS", "100").stdin(Stdio::null()).args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Said {
        said(self.command(args).output().unwrap())
    }
}

fn said(output: Output) -> Said {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// Runs on a pipeline and compares the exit code and some words of what was said.
fn check(yaml: &str, args: &[&str], code: i32, words: &[&str]) {
    let bench = Bench::new();
    bench.write("p.yaml", yaml);
    let said = bench.run(args);
    let all = format!("{}{}", said.out, said.err);
    assert_eq!(said.code, code, "{args:?} said:\n{all}");
    for word in words {
        assert!(all.contains(word), "{args:?} said no `{word}`:\n{all}");
    }
}

const EMPTY: &str = "name: empty\nstages: {}\n";

/// Stages that need no model.
const PLANS: &str = "\
name: plans
matrix: { strategy: [single, memit] }
stages:
  plan: { uses: distribute, with: { strategy: '${matrix.strategy}', layers: [3, 4] }, retries: 1, timeout: 5m }
  other: { uses: distribute, with: { strategy: memit, layers: [5] } }
";

#[test]
fn help_teaches() {
    let bench = Bench::new();
    let commands: [&[&str]; 39] = [
        &[],
        &["init"],
        &["run"],
        &["plan"],
        &["why"],
        &["report"],
        &["ui"],
        &["edit"],
        &["locate"],
        &["ask"],
        &["edits"],
        &["apply"],
        &["revert"],
        &["validate"],
        &["status"],
        &["graph"],
        &["runs"],
        &["show"],
        &["diff"],
        &["logs"],
        &["attach"],
        &["cancel"],
        &["stages"],
        &["schema"],
        &["model"],
        &["model", "inspect"],
        &["cache"],
        &["cache", "ls"],
        &["cache", "verify"],
        &["cache", "gc"],
        &["cache", "pin"],
        &["cache", "unpin"],
        &["cache", "rebuild"],
        &["cache", "migrate"],
        &["cache", "export"],
        &["cache", "import"],
        &["doctor"],
        &["completions"],
        &["worker"],
    ];
    for command in commands {
        let said = bench.run(&[command, &["--help"]].concat());
        assert_eq!(said.code, 0, "{}", said.err);
        assert!(said.out.contains("palinode "), "no example in the help of {command:?}");
        let name = [&["help"], command].concat().join("_");
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(name, said.out);
        });
    }
}

#[test]
fn a_machine_is_measured() {
    let bench = Bench::new();
    let said = bench.run(&["doctor", "--measure", "cpu", "--json"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let told: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    for what in ["products, f32", "products, bf16", "products, f16", "products, compute: bf16", "factor, f64"] {
        assert!(told["rates"][what].as_f64().is_some_and(|rate| rate > 1e6), "{what}: {told}");
    }
    assert_eq!(bench.run(&["doctor", "--measure", "tpu"]).code, 2);
}

#[test]
fn mistakes_in_a_pipeline() {
    let unknown = "name: a\nstages:\n  moments:\n    uses: covarince\n";
    for command in ["validate", "plan", "run"] {
        check(unknown, &[command, "p.yaml"], 3, &["p.yaml:4:11: ", "did you mean `covariance`?", "^^^^^^^^^"]);
    }
    check(unknown, &["why", "p.yaml", "moments"], 3, &["did you mean `covariance`?"]);
    check(
        "name: a\nstage: {}\n",
        &["validate", "p.yaml"],
        3,
        &["p.yaml:2:1: ", "did you mean `stages`?", "2 mistakes"],
    );
    check("name: a\nmatrix: 3\nstages: {}\n", &["validate", "p.yaml"], 3, &["p.yaml:2:9: "]);
    check(EMPTY, &["validate", "p.yaml", "--set", "vars.n=1"], 3, &["--set:1:"]);
}

#[test]
fn mistakes_on_the_command_line() {
    check(EMPTY, &["valid"], 2, &["validate"]);
    check(EMPTY, &["run"], 2, &["<PIPELINE>"]);
    check(EMPTY, &["run", "p.yaml", "--device", "abacus"], 2, &["auto, cpu"]);
    check(EMPTY, &["run", "p.yaml", "--json", "--quiet"], 2, &["cannot be used with"]);
    check(EMPTY, &["run", "p.yaml", "--jobs", "0"], 2, &["expected a number of stages, 1 or more"]);
    check(EMPTY, &["run", "p.yaml", "--until", "solve"], 2, &["the pipeline has no stage `solve`"]);
    check(PLANS, &["run", "p.yaml", "--only", "pln"], 2, &["no stage `pln`", "hint: did you mean `plan`?"]);
    check(PLANS, &["run", "p.yaml", "--force", "plan[strategy=memt]"], 2, &["plan[strategy=memit]"]);
    check(EMPTY, &["worker", "p.yaml"], 2, &["p.yaml: this is not an action file", "--executor processes"]);
    check(EMPTY, &["plan", "q.yaml"], 2, &["cannot read q.yaml: no such file", "hint: did you mean `p.yaml`?"]);
    check(EMPTY, &["why", "p.yaml", "solve"], 2, &["the pipeline has no stage `solve`"]);
    check(EMPTY, &["stages", "covarince"], 2, &["there is no stage `covarince`", "did you mean `covariance`?"]);
    check(EMPTY, &["schema", "--output", "no/such/folder"], 2, &["cannot write"]);
    check(EMPTY, &["cache", "ls"], 6, &["there is no store at .palinode", "--store"]);
}

#[test]
fn a_report_needs_a_run_with_results() {
    check(EMPTY, &["report"], 6, &["there is no store at .palinode", "--store"]);
    let bench = Bench::new();
    bench.write("p.yaml", EMPTY);
    bench.write("r.jsonl", r#"{"id": "a", "subject": "A", "prompt": "{} is", "target_new": "b"}"#);
    bench.write(
        "q.yaml",
        "name: q\nstages:\n  edits: { uses: load_requests, with: { path: r.jsonl, dataset: jsonl } }\n",
    );
    assert_eq!(bench.run(&["run", "p.yaml"]).code, 0);
    let said = bench.run(&["report", "p.yaml"]);
    assert_eq!((said.code, said.err.contains("the store has no results of empty")), (2, true), "{}", said.err);
    let said = bench.run(&["report", "q.yaml"]);
    assert_eq!((said.code, said.err.contains("`palinode run` computes them")), (2, true), "{}", said.err);
    assert_eq!(bench.run(&["run", "q.yaml"]).code, 0);
    let said = bench.run(&["report", "--assets", "paper"]);
    assert_eq!((said.code, said.out.contains("report.html")), (0, true), "{}", said.err);
    assert!(bench.path("report.html").is_file() && bench.path("paper/figures/stages.svg").is_file());
    let page = bench.run(&["report", "q.yaml", "-o", "-"]);
    assert!(page.code == 0 && page.out.starts_with("<!doctype html>"), "{}", page.err);
    let said = bench.run(&["report", "1999"]);
    assert_eq!((said.code, said.err.contains("there is no run `1999`")), (2, true), "{}", said.err);
}

#[test]
fn stages_are_listed_and_explained() {
    let bench = Bench::new();
    let list = bench.run(&["stages"]);
    assert_eq!(list.code, 0);
    for stage in palinode::catalogue().iter() {
        let info = stage.info();
        assert!(list.out.lines().any(|line| line.starts_with(info.name)), "no {} in:\n{}", info.name, list.out);
        let page = bench.run(&["stages", info.name]);
        assert_eq!(page.code, 0);
        let parameters = info.fields().unwrap_or_default();
        for word in info.inputs.iter().map(|port| port.name).chain(parameters).chain([info.output]) {
            assert!(page.out.contains(word), "no {word} in:\n{}", page.out);
        }
    }
}

/// What the checked-in schema says is what the program says.
#[test]
fn schema_has_not_drifted() {
    let bench = Bench::new();
    for (name, args) in [("pipeline", &["schema"][..]), ("part", &["schema", "--part"])] {
        let said = bench.run(args);
        assert_eq!(said.code, 0);
        serde_json::from_str::<serde_json::Value>(&said.out).unwrap();
        let file = format!("{name}.schema.json");
        assert_eq!(bench.run(&[args, &["--output", &file]].concat()).code, 0);
        assert_eq!(std::fs::read_to_string(bench.path(&file)).unwrap(), said.out);
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(&file);
        let kept = std::fs::read_to_string(&kept).unwrap_or_default();
        assert!(kept == said.out, "docs/{file} is not what `palinode schema` says; write both again: just schema");
    }
}

/// A file that others include lacks what they have; what it has is checked.
#[test]
fn a_part_is_checked_by_itself() {
    let bench = Bench::new();
    bench
        .write("model.yaml", "vars: { steps: 3 }\nstages: { targets: { with: { steps: '${vars.steps}' } }, old: ~ }\n");
    assert_ne!(bench.run(&["validate", "model.yaml"]).code, 0);
    let said = bench.run(&["validate", "--part", "model.yaml"]);
    assert!(
        said.code == 0 && said.out.contains("a part with 2 stages, 2 of them of a kind that"),
        "{}{}",
        said.out,
        said.err
    );
    bench.write("wrong.yaml", "include: model.yaml\nstages: { targets: { uses: targets, with: { stepz: 3, clamp: -1 }, inputs: { modell: a } } }\n");
    let said = bench.run(&["validate", "--part", "wrong.yaml"]);
    assert_eq!(said.code, 3);
    for words in ["wrong.yaml:2:45: `targets` has no parameter `stepz`", "`clamp` is -1", "no input `modell`"] {
        assert!(said.err.contains(words), "{words}: {}", said.err);
    }
}

#[test]
fn a_store_has_one_user() {
    let bench = Bench::new();
    bench.write("p.yaml", EMPTY);
    let held = Store::open(&bench.path("store")).unwrap();
    for args in [&["run", "p.yaml"][..], &["cache", "gc"], &["cache", "rebuild"]] {
        let said = said(bench.command(args).env("PALINODE_STORE", "store").output().unwrap());
        assert_eq!(said.code, 6, "{}", said.err);
        assert!(said.err.contains(&format!("in use by process {}", std::process::id())), "{}", said.err);
    }
    // Those that only look do not mind.
    for args in [
        &["plan", "p.yaml"][..],
        &["cache", "ls"],
        &["cache", "verify"],
        &["cache", "gc", "--dry-run"],
        &["runs"],
        &["status"],
    ] {
        let said = said(bench.command(args).env("PALINODE_STORE", "store").output().unwrap());
        assert_eq!(said.code, 0, "{args:?}: {}", said.err);
    }
    let waiting =
        bench.command(&["run", "p.yaml", "--store", "store", "--wait"]).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    drop(held);
    let waited = said(waiting.wait_with_output().unwrap());
    assert_eq!(waited.code, 0, "{}", waited.err);
    assert!(waited.err.contains(&format!("waiting for process {}", std::process::id())), "{}", waited.err);
}

#[test]
fn output_for_programs() {
    let bench = Bench::new();
    bench.write("p.yaml", EMPTY);
    let quiet = bench.run(&["run", "p.yaml", "--quiet"]);
    assert_eq!((quiet.code, quiet.out.as_str(), quiet.err.as_str()), (0, "", ""));
    let events = bench.run(&["run", "p.yaml", "--json"]);
    let kinds = events.out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let kinds: Vec<String> = kinds.map(|event| event["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds, ["run_started", "run_finished"]);
    assert_eq!(events.err, "");
    for color in [None, Some("1")] {
        for args in
            [&["stages"][..], &["plan", "p.yaml"], &["run", "p.yaml"], &["cache", "verify"], &["why", "p.yaml", "x"]]
        {
            let said = said(bench.command(args).envs(color.map(|value| ("NO_COLOR", value))).output().unwrap());
            assert!(!format!("{}{}", said.out, said.err).contains('\x1b'), "colours for a pipe from {args:?}");
        }
    }
}

/// The same results whichever way stages run; only those that were asked for.
#[test]
fn stages_run_apart_and_in_part() {
    for isolate in [&["--isolate"][..], &[]] {
        let bench = Bench::new();
        bench.write("p.yaml", PLANS);
        let run = |more: &[&str]| bench.run(&[&["run", "p.yaml"], isolate, more].concat());
        for (more, summary) in [
            (&["--until", "plan[strategy=memit]"][..], "ran 1, not selected 2 in "),
            (&["--jobs", "1"], "ran 2, cached 1 in "),
            (&[], "nothing to do: all 3 stages cached"),
            (&["--force", "other"], "ran 1, cached 2 in "),
        ] {
            let said = run(more);
            assert_eq!(said.code, 0, "{}", said.err);
            assert!(said.out.contains(summary), "{isolate:?} {more:?} said:\n{}{}", said.out, said.err);
        }
    }
}

/// What a run writes for a worker is enough for a worker alone.
#[test]
fn a_worker_runs_an_action_file() {
    let bench = Bench::new();
    bench.write("p.yaml", PLANS);
    assert_eq!(bench.run(&["run", "p.yaml", "--isolate", "--only", "other"]).code, 0);
    let runs = std::fs::read_dir(bench.path(".palinode/runs")).unwrap();
    let action = runs.flatten().next().unwrap().path().join("actions/0002-other.json");
    let said = bench.run(&["worker", action.to_str().unwrap()]);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{}", said.out);
    assert!(said.out.lines().last().is_some_and(|line| line.starts_with("{\"done\"")), "{}", said.out);
}

/// `palinode schema | head -1` is no failure.
#[test]
fn a_closed_pipe_is_no_failure() {
    let bench = Bench::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = bench.command(&["schema"]).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    let said = said(output);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
}

#[test]
fn what_was_is_told_while_others_work() {
    let bench = Bench::new();
    bench.write("p.yaml", EMPTY);
    for args in [&["status"][..], &["status", "p.yaml"], &["runs"], &["graph", "p.yaml"]] {
        let said = bench.run(args);
        assert_eq!(said.code, 0, "{args:?}: {}", said.err);
        assert!(!bench.path(".palinode").exists(), "{args:?} made a store");
    }
    assert_eq!(bench.run(&["run", "p.yaml"]).code, 0);
    let held = Store::open(&bench.path(".palinode")).unwrap();
    let checks: [(&[&str], &str); 9] = [
        (&["status"], "in use by process"),
        (&["status", "p.yaml"], "what follows is how it is at this moment"),
        (&["runs"], "empty"),
        (&["runs", "--pipeline", "other"], "no runs in"),
        (&["show", "latest"], "done after"),
        (&["logs"], "no stage worked"),
        (&["logs", "--follow"], ""),
        (&["diff", "latest", "latest"], "no parameter and no metric differs"),
        (&["graph", "p.yaml"], "what follows is how it is at this moment"),
    ];
    for (args, words) in checks {
        let said = bench.run(args);
        let all = format!("{}{}", said.out, said.err);
        assert_eq!(said.code, 0, "{args:?}: {all}");
        assert!(all.contains(words), "{args:?} said no `{words}`: {all}");
    }
    drop(held);
    for (args, hint) in [
        (&["show", "latest~1"][..], "there is no run `latest~1`"),
        (&["show", "latest:scores"], "has no stage `scores`"),
        (&["show", "p.yaml"], "not a safetensors file"),
        (&["logs", "latest", "scores"], "has no stage `scores`"),
        (&["diff", "latest", "nothing"], "there is no run `nothing`"),
    ] {
        let said = bench.run(args);
        assert!(matches!(said.code, 2 | 4), "{args:?}: {}", said.err);
        assert!(said.err.contains(hint), "{args:?} said no `{hint}`: {}", said.err);
    }
}

#[test]
fn json_for_programs() {
    let bench = Bench::new();
    bench.write("p.yaml", EMPTY);
    bench.write("wrong.yaml", "name: a\nstages:\n  a: {uses: nothing}\n");
    assert_eq!(bench.run(&["run", "p.yaml", "--quiet"]).code, 0);
    for args in [
        &["plan", "p.yaml", "--json"][..],
        &["validate", "p.yaml", "--json"],
        &["status", "p.yaml", "--json"],
        &["graph", "p.yaml", "--format", "json"],
        &["runs", "--json"],
        &["show", "latest", "--json"],
        &["diff", "latest", "latest", "--json"],
        &["stages", "--json"],
        &["cache", "ls", "--json"],
    ] {
        let said = bench.run(args);
        assert_eq!(said.code, 0, "{args:?}: {}", said.err);
        assert!(serde_json::from_str::<serde_json::Value>(&said.out).is_ok(), "{args:?}: {}", said.out);
    }
    let said = bench.run(&["validate", "wrong.yaml", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, &told["mistakes"][0]["line"]), (3, &3.into()));
}

#[test]
fn a_file_tells_where_it_comes_from() {
    let bench = Bench::new();
    let provenance = r#"{"format": "update.v1", "model": {"layers": 6}, "requests": ["tower", "messi"]}"#;
    let header = serde_json::json!({
        "__metadata__": { "palinode": provenance },
        "h.0.left": { "dtype": "F32", "shape": [3, 2], "data_offsets": [0, 24] },
    });
    let header = header.to_string();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 24]].concat();
    std::fs::write(bench.path("update.safetensors"), bytes).unwrap();
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("provenance", bench.run(&["show", "update.safetensors"]).out);
    });
}

#[test]
fn a_pipeline_to_start_from() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("model")).unwrap();
    bench.write("model/config.json", r#"{"n_layer": 12}"#);
    for template in ["edit", "compare", "sequence"] {
        let said = bench.run(&["init", template, "--model", "model", "--template", template]);
        assert_eq!(said.code, 0, "{}", said.err);
        let text = std::fs::read_to_string(bench.path(template).join("pipeline.yaml")).unwrap();
        assert!(text.contains("layers: [4, 5, 6]") && text.contains("path: ../model"), "{text}");
        let again = bench.run(&["init", template, "--model", "model"]);
        assert_eq!(again.code, 2);
        assert!(again.err.contains("would be overwritten"), "{}", again.err);
    }
    assert_eq!(bench.run(&["init", "x", "--model", "nowhere"]).code, 2);
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model/model");
    for template in ["edit", "compare", "sequence"] {
        let dir = format!("real-{template}");
        assert_eq!(bench.run(&["init", &dir, "--model", model.to_str().unwrap(), "--template", template]).code, 0);
        let said = bench.run(&["validate", &format!("{dir}/pipeline.yaml")]);
        assert_eq!(said.code, 0, "{}", said.err);
    }
}

#[test]
fn completions_name_the_commands() {
    let bench = Bench::new();
    for shell in ["bash", "zsh", "fish"] {
        let said = bench.run(&["completions", shell]);
        assert_eq!(said.code, 0);
        assert!(said.out.contains("validate"), "{shell}");
    }
}

/// Nothing is read from a store of a later version, and nothing in it changes, whatever it is asked for.
#[test]
fn a_store_of_a_later_version_is_refused() {
    let bench = Bench::new();
    bench.write("p.yaml", PLANS);
    assert_eq!(bench.run(&["run", "p.yaml"]).code, 0);
    let later = format!("{}\n", STORE_VERSION + 1);
    bench.write(".palinode/VERSION", &later);
    std::fs::write(bench.path(".palinode/blobs/nonsense"), "").unwrap();
    let listed = || {
        let mut all: Vec<PathBuf> = Vec::new();
        let mut folders = vec![bench.path(".palinode")];
        while let Some(folder) = folders.pop() {
            for path in std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
                if path.is_dir() {
                    folders.push(path.clone());
                }
                all.push(path);
            }
        }
        all.sort();
        all
    };
    let before = listed();
    let commands: [&[&str]; 23] = [
        &["run", "p.yaml"],
        &["run", "p.yaml", "--wait"],
        &["plan", "p.yaml"],
        &["why", "p.yaml", "other"],
        &["graph", "p.yaml"],
        &["report", "p.yaml"],
        &["report"],
        &["status"],
        &["status", "p.yaml"],
        &["runs"],
        &["show", "latest"],
        &["diff", "latest", "latest"],
        &["logs"],
        &["cache", "ls"],
        &["cache", "verify"],
        &["cache", "gc"],
        &["cache", "gc", "--dry-run"],
        &["cache", "pin"],
        &["cache", "unpin", "x"],
        &["cache", "rebuild"],
        &["cache", "migrate"],
        &["cache", "export", "all.zip"],
        &["cache", "import", "p.yaml"],
    ];
    for command in commands {
        let said = bench.run(command);
        assert_eq!(said.code, 6, "{command:?} said:\n{}{}", said.out, said.err);
        let words = "was written by a newer version of the program";
        assert!(said.err.contains(words), "{command:?} said:\n{}{}", said.out, said.err);
        assert_eq!(listed(), before, "{command:?} changed the store");
    }
    assert_eq!(std::fs::read_to_string(bench.path(".palinode/VERSION")).unwrap(), later);
}

/// A store from before a stage had one of its parameters, and from before stores had versions.
#[test]
fn results_of_an_older_program_are_carried_over() {
    let bench = Bench::new();
    bench.write("p.yaml", PLANS);
    assert_eq!(bench.run(&["run", "p.yaml"]).code, 0);
    let store = bench.path(".palinode");
    let path = |manifest: &Manifest| {
        let key = manifest.key.to_string();
        store.join("actions").join(&key[..2]).join(key).with_extension("json")
    };
    let manifests = Store::look(&store).unwrap().manifests();
    assert_eq!(manifests.len(), 3);
    for mut manifest in manifests {
        std::fs::remove_file(path(&manifest)).unwrap();
        assert!(manifest.fingerprint.params.remove("refresh").is_some());
        manifest.key = manifest.fingerprint.key();
        std::fs::create_dir_all(path(&manifest).parent().unwrap()).unwrap();
        std::fs::write(path(&manifest), serde_json::to_vec(&manifest).unwrap()).unwrap();
    }
    std::fs::remove_dir_all(store.join("index")).unwrap();
    std::fs::remove_file(store.join("VERSION")).unwrap();
    let planned = bench.run(&["plan", "p.yaml"]);
    assert!(planned.out.contains("with.refresh: new, null"), "{}", planned.out);
    let said = bench.run(&["cache", "migrate"]);
    assert_eq!((said.code, said.out.as_str()), (0, "3 results carried over, 0 found as before\n"), "{}", said.err);
    let again = bench.run(&["run", "p.yaml"]);
    assert!(again.out.contains("nothing to do: all 3 stages cached"), "{}{}", again.out, again.err);
    let said = bench.run(&["cache", "migrate", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(told, serde_json::json!({ "current": 3, "carried": 0, "left": 0 }));
    assert_eq!(std::fs::read_to_string(store.join("VERSION")).unwrap(), format!("{STORE_VERSION}\n"));
}

#[test]
fn garbage_is_counted_in_plain_words() {
    let bench = Bench::new();
    bench.write("p.yaml", EMPTY);
    assert_eq!(bench.run(&["run", "p.yaml"]).code, 0);
    let folder = bench.path(".palinode/blobs/00");
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["a", "b"] {
        std::fs::write(folder.join(name), "abc").unwrap();
    }
    let said = bench.run(&["cache", "gc", "--dry-run"]);
    assert!(said.out.contains("would remove 2 unusable files: 6 B"), "{}{}", said.out, said.err);
    std::fs::remove_file(folder.join("b")).unwrap();
    let said = bench.run(&["cache", "gc"]);
    assert!(said.out.contains("removed 1 unusable file: 3 B"), "{}{}", said.out, said.err);
}
