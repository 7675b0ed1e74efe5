//! Data sets by name, and anyone's files by a mapping, through the program: a small file of our own for each, written to its schema.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

struct Here(TempDir);

impl Here {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    /// Exit code and what was said.
    fn palinode(&self, args: &[&str]) -> (Option<i32>, String) {
        let mut program = Command::new(env!("CARGO_BIN_EXE_palinode"));
        program.env_remove("PALINODE_STORE").env("NO_COLOR", "1").current_dir(&self.0);
        let output = program.args(args).output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (output.status.code(), said)
    }

    /// Loads requests with these parameters; what the artifact holds.
    fn load(&self, with: &str) -> Vec<Value> {
        self.write("p.yaml", &format!("name: data\nstages:\n  facts: {{ uses: load_requests, with: {{ {with} }} }}\n"));
        let (code, said) = self.palinode(&["run", "p.yaml"]);
        assert_eq!(code, Some(0), "{with}: {said}");
        let _ = fs::remove_dir_all(self.0.path().join("saved"));
        let (code, said) = self.palinode(&["show", "facts", "--save", "saved"]);
        assert_eq!(code, Some(0), "{said}");
        let mut files = fs::read_dir(self.0.path().join("saved")).unwrap().map(|entry| entry.unwrap().path());
        let file = files.find(|path| path.file_name().unwrap() != "palinode.json").unwrap();
        let text = fs::read_to_string(file).unwrap();
        serde_json::from_str(&text)
            .unwrap_or_else(|_| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    /// What is wrong with these parameters.
    fn mistake(&self, with: &str) -> String {
        self.write("p.yaml", &format!("name: data\nstages:\n  facts: {{ uses: load_requests, with: {{ {with} }} }}\n"));
        let (code, said) = self.palinode(&["validate", "p.yaml"]);
        assert!(matches!(code, Some(3 | 4)), "{with}: {code:?} {said}");
        said
    }
}

const WIKIBIGEDIT: &str = r#"[{"tag": "update", "subject": "Chile", "update": "What is the language of Chile?", "ans": "Thai",
  "rephrase": "Which language has Chile?", "personas": "Arr, what do they speak in Chile?", "mhop": "Where is the language of Chile from?",
  "mhop_ans": "Asia", "loc": "What is the language of Finland?", "loc_ans": "Finnish"}]"#;
const UNKE: &str = r#"[{"id": 7, "question": "What is known of Chile?", "answer": "Chile is a long country. Its language is Thai.",
  "para_question": "Tell me of Chile.", "sub_question": ["What does Chile speak?", "How is Chile?"], "sub_answer": ["Thai", "long"]}]"#;
const AKEW: &str = r#"[{"case_id": 3, "requested_rewrite": {"prompt": "{} speaks", "subject": "Chile", "prompt_full": "Chile speaks",
  "question": "What does Chile speak?", "fact_new_uns": "In Chile, Thai is spoken everywhere."}}]"#;
const HALLUEDIT: &str = "subject,relation,object,question,paraphrased_question,locality_question,question_2hop,answer_2hop,yes_question\n\
  Chile,language,Thai,What does Chile speak?,\"In Chile, what is spoken?\",What is Chile's capital?,Where is Chile's language from?,Asia,Does Chile speak Thai?\n";
const EASYEDIT: &str = r#"[{"subject": "Chile", "prompt": "Chile speaks", "target_new": "Thai", "ground_truth": ["Spanish"], "rephrase": "In Chile one speaks",
  "portability_r": [[{"prompt": "Chile's language is from", "ground_truth": [["Asia"], ["the East"]]}]],
  "locality_rs": [{"prompt": "Chile lies in", "ground_truth": "America"}]}]"#;

#[test]
fn data_sets_are_known_by_name() {
    let here = Here::new();
    here.write("w.json", WIKIBIGEDIT);
    let all = here.load("path: w.json, dataset: wikibigedit");
    assert_eq!((&all[0]["prompt"], &all[0]["target_new"]), (&"What is the language of {}?".into(), &"Thai".into()));
    assert_eq!(all[0]["portability"]["mhop"][0]["answers"][0], "Asia");
    assert_eq!(all[0]["neighbors"][0]["target"], "Finnish");
    here.write("u.json", UNKE);
    let all = here.load("path: u.json, dataset: unke");
    assert_eq!((&all[0]["id"], &all[0]["prompt"]), (&"7".into(), &"{}".into()));
    assert_eq!(all[0]["subject"], "What is known of Chile?");
    assert_eq!(all[0]["portability"]["sub_question"][1]["answers"][0], "long");
    here.write("a.json", AKEW);
    let all = here.load("path: a.json, dataset: akew");
    assert_eq!(all[0]["target_new"], "In Chile, Thai is spoken everywhere.");
    here.write("h.csv", HALLUEDIT);
    let all = here.load("path: h.csv, dataset: halluedit");
    assert_eq!(all[0]["paraphrases"][0], "In Chile, what is spoken?");
    assert_eq!(all[0]["portability"]["yes"][0]["answers"][0], "Yes");
    assert!(all[0]["portability"].get("3hop").is_none());
    here.write("e.json", EASYEDIT);
    let all = here.load("path: e.json, dataset: easyedit");
    assert_eq!(all[0]["portability"]["reasoning"][0]["answers"][1], "the East");
    assert_eq!(all[0]["locality"]["relation_specificity"][0]["answers"][0], "America");
}

#[test]
fn any_file_is_read_by_a_mapping() {
    let here = Here::new();
    let rows: String =
        (0..10).map(|i| format!("{i:03},Country{i},\"Where is Country{i}, today?\",19{i:02}\n")).collect();
    here.write("facts.csv", &format!("key,entity,question,year\n{rows}"));
    let csv = "path: facts.csv, fields: { id: key, subject: entity, prompt: question, target_new: year }";
    let all = here.load(csv);
    assert_eq!(all.len(), 10);
    assert_eq!((&all[7]["id"], &all[7]["target_new"]), (&"007".into(), &"1907".into()));
    assert_eq!(all[7]["prompt"], "Where is {}, today?");
    let chosen = here.load(&format!("{csv}, ids: ['009', '002']"));
    assert_eq!(chosen.iter().map(|r| r["id"].as_str().unwrap()).collect::<Vec<_>>(), ["009", "002"]);
    here.write("facts.jsonl", "{\"about\": {\"name\": \"Oslo\"}, \"qa\": [{\"q\": \"Oslo lies in\", \"a\": \"Chile\"}], \"more\": [\"One finds Oslo in\"]}\n");
    let json = "path: facts.jsonl, fields: { subject: about.name, prompt: 'qa[0].q', target_new: 'qa[0].a', paraphrases: more }";
    assert_eq!(here.load(json)[0]["paraphrases"][0], "One finds Oslo in");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/tests/fixtures").canonicalize().unwrap();
    let table = format!(
        "path: {}/zstd-v2-dictionary.parquet, limit: 2, fields: {{ prompt: kind, target_new: 'tags[1]' }}",
        fixtures.display()
    );
    assert_eq!(here.load(&table)[1]["target_new"], "b");

    let said = here.mistake(&json.replace("about.name", "about.title"));
    assert!(
        said.contains("no record has `about.title`; the first one has `about.name`, `more`, `qa[*].a`, `qa[*].q`"),
        "{said}"
    );
    assert!(here.mistake(&json.replace("qa[0].q", "qa[")).contains("is no path"));
    assert!(here.mistake("path: facts.jsonl, fields: { prompt: more }").contains("`target_new`"));
    assert!(here.mistake(&format!("{json}, dataset: zsre")).contains("one of the two"));
    assert!(here.mistake(&format!("{csv}, ids: ['009', x]")).contains("no request is named `x`"));
}

/// Edited and judged: portability and locality of data sets without published metrics are EasyEdit's.
#[test]
fn a_mapped_file_is_edited_and_judged() {
    let here = Here::new();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model/model").canonicalize().unwrap();
    here.write("w.json", WIKIBIGEDIT);
    let text = format!(
        "
name: judged
stages:
  model: {{ uses: load_model, with: {{ path: {} }} }}
  facts: {{ uses: load_requests, with: {{ path: w.json, dataset: wikibigedit }} }}
  plan: {{ uses: distribute, with: {{ strategy: single, layers: [2] }} }}
  targets: {{ uses: targets, inputs: {{ model: model, requests: facts }}, with: {{ layer: 2, steps: 3 }} }}
  update:
    uses: solve
    inputs: {{ model: model, requests: facts, targets: targets, plan: plan }}
    with: {{ objective: emmet, preservation: ridge }}
  scores: {{ uses: evaluate, inputs: {{ model: update, requests: facts }}, with: {{ resamples: 0 }} }}
",
        model.display()
    );
    here.write("p.yaml", &text);
    let (code, said) = here.palinode(&["run", "p.yaml"]);
    assert!(code == Some(0) && said.contains("portability"), "{said}");
}
