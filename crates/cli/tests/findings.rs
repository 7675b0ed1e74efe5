//! What is wrong with requests, through the program: where a subject stands, what stands before a target, and what is told before the work.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const PIPELINE: &str = r"
name: facts
stages:
  model: { uses: load_model, with: { path: MODEL } }
  facts: { uses: requests, with: { facts: [ FACTS ] } }
  plan: { uses: distribute, with: { strategy: single, layers: [2] } }
  targets: { uses: targets, inputs: { model: model, requests: facts }, with: { layer: 2, steps: 3TARGETS } }
  update:
    uses: solve
    inputs: { model: model, requests: facts, targets: targets, plan: plan }
    with: { objective: emmet, preservation: ridgeSOLVE }
  scores: { uses: evaluate, inputs: { model: update, requests: facts } }
";

const CHILE: &str =
    r#"{ subject: Chile, prompt: "The official language of {} is", target_new: Thai, target_true: Spanish }"#;

struct Case {
    folder: TempDir,
}

impl Case {
    fn new(facts: &str, targets: &str, solve: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let model =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model/model").canonicalize().unwrap();
        let text = PIPELINE
            .replace("MODEL", model.to_str().unwrap())
            .replace("FACTS", facts)
            .replace("TARGETS", targets)
            .replace("SOLVE", solve);
        std::fs::write(folder.path().join("p.yaml"), text).unwrap();
        Self { folder }
    }

    fn palinode(&self, args: &[&str]) -> Output {
        let mut program = Command::new(env!("CARGO_BIN_EXE_palinode"));
        program.env_remove("PALINODE_STORE").env("NO_COLOR", "1").current_dir(&self.folder);
        program.args(args).output().unwrap()
    }

    /// Runs the pipeline, which must end with `code`; gives what it told.
    fn run(&self, code: i32) -> String {
        let output = self.palinode(&["run", "p.yaml"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{told}");
        told
    }
}

#[test]
fn what_spoils_scores_is_told_before_the_work_and_not_where_all_is_cached() {
    let same = CHILE.replace("Thai", "Spanish");
    let blank = CHILE.replace("is\"", "is \"").replace("Thai", "\" Thai\"");
    let french = CHILE.replace("Thai", "French");
    let cases =
        [(same, "request 0, target_new: the new target \"Spanish\" is the true one"), (blank, "ends with a blank")];
    for (facts, words) in cases {
        let case = Case::new(&facts, "", "");
        assert!(case.run(0).contains(words), "{words}");
        assert!(!case.run(0).contains("request 0"), "all is cached");
    }
    let case = Case::new(&format!("{CHILE}, {french}"), "", "");
    let told = String::from_utf8_lossy(&case.palinode(&["run", "p.yaml"]).stderr).into_owned();
    assert!(told.contains("requests 0 and 1 ask for different targets at the same prompt"), "{told}");
    let quiet = case.palinode(&["run", "p.yaml", "--no-preflight"]);
    assert!(!String::from_utf8_lossy(&quiet.stderr).contains("warning: request"));
}

#[test]
fn what_cannot_work_ends_before_anything_runs() {
    let long = "word ".repeat(3000);
    let fact = CHILE.replace(" }", &format!(", paraphrases: [\"fine\", \"{}\"] }}", long.trim()));
    let case = Case::new(&fact, "", "");
    let told = case.run(9);
    assert!(told.contains("error: request 0, paraphrases[1]: ") && told.contains("(too_long)"), "{told}");
    assert!(told.contains("nothing was run"), "{told}");
    let json = case.palinode(&["run", "p.yaml", "--json"]);
    let lines = String::from_utf8_lossy(&json.stdout).into_owned();
    assert!(lines.contains(r#""event":"finding""#) && lines.contains(r#""at":"paraphrases[1]""#), "{lines}");
}

const CHOSEN: &str = r"
name: chosen
STRICTstages:
  model: { uses: load_model, with: { path: MODEL } }
  all: { uses: requests, with: { facts: [ FACTS ] } }
  facts: { uses: select, inputs: { model: model, requests: all }, with: { where: WHERE } }
  targets: { uses: targets, inputs: { model: model, requests: facts }, with: { layer: 1, steps: STEPS } }
";

/// The demo model knows what is spoken in Chile, and not that it is Thai.
fn chosen(facts: &[&str], condition: &str, strict: &str) -> Case {
    let case = Case::new("", "", "");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model/model").canonicalize().unwrap();
    let text = CHOSEN
        .replace("MODEL", model.to_str().unwrap())
        .replace("FACTS", &facts.join(", "))
        .replace("WHERE", condition)
        .replace("STRICT", strict);
    std::fs::write(case.folder.path().join("p.yaml"), text.replace("STEPS", "3")).unwrap();
    std::fs::write(case.folder.path().join("longer.yaml"), text.replace("STEPS", "4")).unwrap();
    case
}

#[test]
fn requests_that_a_model_chooses_are_checked_when_they_are_chosen() {
    let unknown = CHILE.replace("Spanish", "Latin");
    let long = format!(", paraphrases: [\"{}\"] }}", "word ".repeat(3000).trim());
    let run = |case: &Case, file: &str, code: i32| {
        let output = case.palinode(&["run", file]);
        let told = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap()).concat();
        assert_eq!(output.status.code(), Some(code), "{told}");
        told
    };
    let knows = "p_true > p_new and p_true > 0.5";

    // One that cannot be edited and is not chosen: a note before the choice, nothing once it is known.
    let case = chosen(&[CHILE, &unknown.replace(" }", &long)], knows, "");
    let told = run(&case, "p.yaml", 0);
    assert!(
        told.contains("note: 1 of the 2 requests to choose from, such as request 1: ") && told.contains("(too_long)"),
        "{told}"
    );
    let told = run(&case, "longer.yaml", 0);
    assert!(!told.contains("too_long"), "{told}");

    // One that is chosen: the edit does not begin, and the next run does not either.
    let case = chosen(&[&CHILE.replace(" }", &long), &unknown], knows, "");
    let told = run(&case, "p.yaml", 9);
    assert!(told.contains("request 0, paraphrases[0]: ") && told.contains("ran 3"), "{told}");
    let told = run(&case, "p.yaml", 9);
    assert!(told.contains("error: request 0, paraphrases[0]: ") && told.contains("nothing was run"), "{told}");
    assert_eq!(case.palinode(&["run", "p.yaml", "--no-preflight"]).status.code(), Some(0));

    // What spoils scores, lenient and strict.
    let blank = CHILE.replace("is\"", "is \"").replace("Thai", "\" Thai\"");
    let told = run(&chosen(&[&blank, &unknown], "p_new < 0.9", ""), "p.yaml", 0);
    assert!(told.contains("warning: targets: request 0, prompt: ") && told.contains("ends with a blank"), "{told}");
    let case = chosen(&[&blank, &unknown], "p_new < 0.9", "checks: strict\n");
    let told = run(&case, "p.yaml", 10);
    assert!(told.contains("ends with a blank") && told.contains("ran 3"), "{told}");
    assert!(run(&case, "p.yaml", 10).contains("nothing was run"));
}

#[test]
fn a_subject_is_a_word_and_its_place_is_never_guessed() {
    let fact =
        |subject: &str, prompt: &str| format!("{{ subject: {subject:?}, prompt: {prompt:?}, target_new: Thai }}");
    let validate = |subject: &str, prompt: &str| {
        let case = Case::new(&fact(subject, prompt), "", "");
        let output = case.palinode(&["validate", "p.yaml"]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" "))
    };
    assert_eq!(validate("Ali", "In Alicante it is said that Ali works as").0, Some(0));
    assert_eq!(validate("Paris", "Paris's mayor is").0, Some(0));
    assert_eq!(validate("東京", "東京都の言語は").0, Some(0));
    let (code, told) = validate("Ali", "Ali says that Ali works as");
    assert!(code == Some(3) && told.contains("2 times") && told.contains("{} says that Ali"), "{told}");
    let (code, told) = validate("Ali", "In Alicante one works as");
    assert!(code == Some(3) && told.contains("only within another word"), "{told}");
    // Written so by hand it is done, and said.
    let told = Case::new(&fact("Finl", "People of {}and speak"), "", "").run(0);
    assert!(told.contains("(key_elsewhere)"), "{told}");
    assert!(!Case::new(&fact("Chile ", "The language of {} is"), "", "").run(0).contains("key_elsewhere"));
}

#[test]
fn one_fact_stated_twice_is_one_constraint() {
    let told = Case::new(&format!("{CHILE}, {CHILE}"), "", "").run(0);
    assert!(told.contains("the same as an earlier one and count once"), "{told}");
}

#[test]
fn a_chain_reads_keys_at_one_token() {
    for at in ["subject_first", "subject_first_after_last", "last"] {
        Case::new(CHILE, &format!(", fact_token: {at}"), &format!(", fact_token: {at}")).run(0);
    }
    let told = Case::new(CHILE, ", fact_token: last", ", fact_token: subject_last").run(3);
    assert!(told.contains("the targets are values at last"), "{told}");
}

#[test]
fn a_target_may_stand_without_a_blank() {
    let plain = Case::new(CHILE, "", "");
    plain.run(0);
    let spaced = Case::new(&CHILE.replace(" }", ", target_prefix: \" \" }"), "", "");
    spaced.run(0);
    let bare = Case::new(&CHILE.replace(" }", ", target_prefix: \"\" }"), "", "");
    bare.run(0);
    let scores = |case: &Case| {
        let run = std::fs::read_dir(case.folder.path().join(".palinode/runs")).unwrap().next().unwrap().unwrap();
        let record: serde_json::Value =
            serde_json::from_slice(&std::fs::read(run.path().join("run.json")).unwrap()).unwrap();
        let stages = record["stages"].as_array().unwrap();
        stages.iter().find(|stage| stage["instance"] == "scores").unwrap_or(&stages[stages.len() - 1])["metrics"]
            .clone()
    };
    assert_eq!(scores(&plain), scores(&spaced));
    assert_ne!(scores(&plain), scores(&bare));
}

const SEQUENCE: &str = r"
name: superseded
stages:
  model: { uses: load_model, with: { path: MODEL } }
  facts: { uses: requests, with: { facts: [ FACTS ] } }
  plan: { uses: distribute, with: { strategy: single, layers: [2] } }
  update:
    uses: sequence
    inputs: { model: model, requests: facts, plan: plan }
    with:
      targets: { layer: 2, steps: 25, learning_rate: 0.1, clamp: 3 }
      solve: { objective: emmet, preservation: ridge, batch_size: 1 }
  scores: { uses: evaluate, inputs: { model: update, requests: facts } }
";

#[test]
fn a_superseded_edit_is_reported_apart() {
    let case = Case::new("", "", "");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model/model").canonicalize().unwrap();
    let facts = format!("{CHILE}, {}", CHILE.replace("Thai", "Greek"));
    let text = SEQUENCE.replace("MODEL", model.to_str().unwrap()).replace("FACTS", &facts);
    std::fs::write(case.folder.path().join("p.yaml"), text).unwrap();
    let output = case.palinode(&["run", "p.yaml"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let joined = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(joined.contains("! 1 of 2 edits is superseded: a later edit says something else"), "{said}");
    assert!(joined.contains("(record 0)") && joined.contains("without them ES is 100.0 %"), "{said}");
    assert!(!joined.contains("did not take"), "{said}");
    let output = case.palinode(&["show", "scores", "--json"]);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in ["\"superseded\": 1", "\"current_ES\": 1.0"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[test]
fn strict_checks_end_on_a_warning() {
    let same = CHILE.replace("Thai", "Spanish");
    let case = Case::new(&same, "", "");
    let path = case.folder.path().join("p.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let with = |checks: &str| {
        std::fs::write(&path, text.replace("name: facts", &format!("name: facts\nchecks: {checks}"))).unwrap();
    };
    with("strict");
    let told = case.run(10);
    assert!(told.contains("nothing was run: 1 warning") && told.contains("checks: lenient"), "{told}");
    with("stict");
    let told = case.run(3);
    assert!(told.contains("`checks` cannot be `stict`") && told.contains("did you mean `strict`?"), "{told}");
    with("lenient");
    case.run(0);
    // Where all is cached, nothing is looked at.
    with("strict");
    case.run(0);
}

#[test]
fn targets_at_the_last_layer_are_told() {
    let case = Case::new(CHILE, "", "");
    let path = case.folder.path().join("p.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let config = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model/model/config.json"),
    );
    let config: serde_json::Value = serde_json::from_str(&config.unwrap()).unwrap();
    let last = config["n_layer"].as_u64().unwrap() - 1;
    std::fs::write(
        &path,
        text.replace("layers: [2]", &format!("layers: [{last}]")).replace("layer: 2", &format!("layer: {last}")),
    )
    .unwrap();
    let told = case.run(0);
    assert!(told.contains("warning: targets are looked for at layer") && last > 2, "{told}");
    assert!(told.contains("the model's last: no token after the subject's reads"), "{told}");
    // It is about no request, and no place is left open where one would stand.
    assert!(!told.contains("warning: :"), "{told}");
}

#[test]
fn openings_that_leave_no_room_end_before_anything_runs() {
    let context = 128;
    let case = Case::new(CHILE, "", "");
    let path = case.folder.path().join("p.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let openings = |length: usize| {
        let stage = format!(
            "  openings: {{ uses: templates, inputs: {{ model: model }}, with: {{ generate: [{{ count: 2, length: {length} }}] }} }}\n  targets:"
        );
        let text = text
            .replace("  targets:", &stage)
            .replace("requests: facts }, with", "requests: facts, templates: openings }, with");
        std::fs::write(&path, text.replace("targets: targets, plan", "targets: targets, templates: openings, plan"))
            .unwrap();
    };
    let told = {
        openings(context - 2);
        case.palinode(&["run", "p.yaml", "--until", "targets"])
    };
    let words = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(
        told.status.code() == Some(9) && words.contains("after an opening of 126 that the model generates"),
        "{words}"
    );
}

/// A model of a size that no disk holds: only its description is read before the run would begin.
#[test]
fn what_does_not_fit_is_told_before_the_run() {
    let folder = TempDir::new().unwrap();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model").canonicalize().unwrap();
    let model = folder.path().join("model");
    std::fs::create_dir(&model).unwrap();
    for name in ["tokenizer.json", "model.safetensors"] {
        std::fs::copy(demo.join("model").join(name), model.join(name)).unwrap();
    }
    let mut config: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(demo.join("model/config.json")).unwrap()).unwrap();
    config["n_inner"] = 16_000_000.into();
    std::fs::write(model.join("config.json"), config.to_string()).unwrap();
    let yaml = format!(
        "name: large\nchecks: strict\nstages:\n  model: {{ uses: load_model, with: {{ path: model }} }}\n  moments: {{ uses: covariance, inputs: {{ \
         model: model }}, with: {{ corpus: {}/corpus.txt, layers: [0, 1] }} }}\n",
        demo.display()
    );
    std::fs::write(folder.path().join("p.yaml"), yaml).unwrap();
    let case = Case { folder };
    let told = case.run(10).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("the store will take about") && told.contains("are free (disk)"), "{told}");
    assert!(told.contains("and `moments`") && told.contains("are free (memory)"), "{told}");
}

#[test]
fn hard_constraints_that_cannot_hold_together_end_before_anything_runs() {
    let greek = CHILE.replace("Thai", "Greek");
    let other = r#"{ subject: Chile, prompt: "The official language of {} was once", target_new: Thai }"#;
    for second in [greek.as_str(), other] {
        let facts = format!("{CHILE}, {second}");
        let case = Case::new(&facts, "", "");
        for _ in 0..2 {
            let told = case.run(9);
            assert!(told.contains("error: request 1, prompt: requests 0 and 1 share a key in one batch"), "{told}");
            assert!(told.contains("(shared_key)") && told.contains("nothing was run"), "{told}");
        }
        // The targets alone can be found, and what follows them is looked at where it would run, whatever is cached.
        assert_eq!(case.palinode(&["run", "p.yaml", "--until", "targets"]).status.code(), Some(0));
        case.run(9);
        // Constraints in batches of their own, soft ones, and least squares hold.
        Case::new(&facts, "", ", batch_size: 1").run(0);
        Case::new(&facts, "", ", emmet_lambda: 0.1").run(0);
        Case::new(&facts.replace(" }", ", strength: 1 }"), "", "").run(0);
    }
    let told = Case::new(&format!("{CHILE}, {CHILE}"), "", "").run(0);
    assert!(!told.contains("shared_key"), "{told}");
}

/// A copy of the demo model that has a chat template: its frame takes room, and prompts stand inside of it.
fn chat_model(folder: &Path, template: &str) -> String {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model/model").canonicalize().unwrap();
    let model = folder.join("chat");
    std::fs::create_dir_all(&model).unwrap();
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(demo.join(file), model.join(file)).unwrap();
    }
    std::fs::write(model.join("chat_template.jinja"), template).unwrap();
    std::fs::write(model.join("tokenizer_config.json"), "{}").unwrap();
    model.display().to_string()
}

#[test]
fn the_frame_of_a_chat_counts_in_the_checks_before_the_work() {
    let frame =
        "{% for m in messages %}The first chapter is about {{ m.role }}: {{ m.content }}. {% endfor %}The answer is";
    // 100 tokens or so of 128: room for the plain text, and for the frame, but not for a long system message.
    let long = "the first chapter ".repeat(30);
    let fact = CHILE.replace(" }", &format!(", paraphrases: [\"{}\"] }}", long.trim()));
    let with = |chat: &str| {
        let case = Case::new(&fact, "", "");
        let model = chat_model(case.folder.path(), frame);
        let path = case.folder.path().join("p.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        let demo =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model/model").canonicalize().unwrap();
        let text = text.replace(demo.to_str().unwrap(), &model);
        let text = text.replace("uses: requests, with: { ", &format!("uses: requests, with: {{ {chat}"));
        std::fs::write(path, text).unwrap();
        case
    };
    with("").run(0);
    with("chat: {}, ").run(0);
    let system = "no more than a word ".repeat(10);
    let told = with(&format!("chat: {{ system: \"{}\" }}, ", system.trim())).run(9);
    assert!(told.contains("error: request 0, paraphrases[0]: ") && told.contains("(too_long)"), "{told}");
    assert!(!told.contains("error: request 0, prompt"), "the shorter prompt fits: {told}");
    // A system message that leaves no room for the prompt itself.
    let told = with(&format!("chat: {{ system: \"{}\" }}, ", "word ".repeat(200).trim())).run(9);
    assert!(told.contains("error: request 0, prompt: "), "{told}");
}
