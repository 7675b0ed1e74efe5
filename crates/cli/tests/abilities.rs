//! What an edit does to abilities: tasks in the forms of MMLU, GSM8K and GLUE, from small files of our own; and what the published code measures
//! beside the usual scores.

mod here;

use std::fs;
use std::path::Path;

use here::{Here, demo};
use serde_json::{Value, json};

/// A prompt, the answer that the demo model knows, and another one.
type Fact = (String, String, String);

fn known() -> Vec<Fact> {
    let records: Vec<Value> = serde_json::from_str(&fs::read_to_string(demo().join("requests.json")).unwrap()).unwrap();
    let fact = |record: &Value| {
        let asked = &record["requested_rewrite"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let prompt = text(&asked["prompt"]).replace("{}", &text(&asked["subject"]));
        (prompt, text(&asked["target_true"]["str"]), text(&asked["target_new"]["str"]))
    };
    records[..12].iter().map(fact).collect()
}

/// Tasks in the columns of MMLU, ARC, GSM8K and SST-2 (GLUE).
const TASKS: &str = r"
name: tasks
stages:
  model: { uses: load_model, with: { path: DEMO/model } }
  mmlu:
    uses: probes
    inputs: { model: model }
    with: { path: mmlu.EXT, choices: choices, label: answer, prompt: '{question}' }
  letters:
    uses: probes
    inputs: { model: model }
    with: { path: mmlu.EXT, choices: choices, label: answer, score: letters, prompt: '{question}{options}: {choices[0]}', shots: 2, limit: 5 }
  arc:
    uses: probes
    inputs: { model: model }
    with: { path: arc.EXT, choices: choices.text, label: answerKey, prompt: '{question}' }
  gsm8k:
    uses: probes
    inputs: { model: model }
    with:
      path: gsm8k.EXT
      label: answer
      prompt: '{question}'
      generate: { tokens: 8, stop: ['.', '!'], pattern: '(?:#### )?(\w+)', last: true }
  sst2:
    uses: probes
    inputs: { model: model }
    with: { path: sst2.EXT, prompt: '{sentence}', words: { 0: negative, 1: positive }, shots: 1 }
";

#[test]
fn tasks_of_the_forms_of_mmlu_arc_and_gsm8k() {
    let here = Here::new();
    let lines = |line: &dyn Fn(usize, &Fact) -> Value| {
        known().iter().enumerate().map(|(i, fact)| line(i, fact).to_string() + "\n").collect::<String>()
    };
    here.write(
        "mmlu.jsonl",
        &lines(&|i, (q, right, wrong)| {
            let choices = if i % 2 == 0 { [right, wrong] } else { [wrong, right] };
            json!({ "question": q, "subject": "world", "choices": choices, "answer": i % 2 })
        }),
    );
    here.write(
        "arc.jsonl",
        &lines(&|_, (q, right, wrong)| {
            json!({ "question": q, "choices": { "text": [wrong, right], "label": ["1", "2"] }, "answerKey": "2" })
        }),
    );
    here.write(
        "gsm8k.jsonl",
        &lines(&|_, (q, right, _)| json!({ "question": q, "answer": format!("It is so.\n#### {right}.") })),
    );
    here.write("sst2.jsonl", &lines(&|i, (q, _, _)| json!({ "sentence": q, "label": i % 2 })));
    here.write("p.yaml", &TASKS.replace("EXT", "jsonl"));
    let said = here.palinode(0, &["run", "p.yaml"]);
    assert!(said.contains("exact_match") && said.contains("by_length"), "{said}");
    for stage in ["mmlu", "arc"] {
        let facts = here.facts(stage);
        assert_eq!((&facts["questions"], &facts["metrics"]["accuracy"]), (&json!(12), &json!(1.0)), "{stage}: {facts}");
    }
    assert_eq!(here.facts("letters")["questions"], 5);
    let gsm = here.facts("gsm8k");
    assert!(gsm["metrics"]["exact_match"].as_f64().unwrap() > 0.5, "{gsm}");
    here.palinode(0, &["show", "gsm8k", "--save", "saved"]);
    let answers = fs::read_to_string(here.0.path().join("saved/answers.jsonl")).unwrap();
    let first: Value = serde_json::from_str(answers.lines().next().unwrap()).unwrap();
    assert!(first["before"]["text"].is_string() && first["before"]["expected"].is_string(), "{first}");

    let mistake = |with: &str, words: &str| {
        let text = format!(
            "name: x\nstages:\n  model: {{ uses: load_model, with: {{ path: DEMO/model }} }}\n  t: {{ uses: probes, inputs: {{ model: model }}, with: {{ path: mmlu.jsonl, prompt: '{{question}}', {with} }} }}\n"
        );
        here.write("wrong.yaml", &text);
        let said = here.palinode(3, &["validate", "wrong.yaml"]);
        assert!(said.contains(words), "{with}: {said}");
    };
    mistake("choices: choices, label: answer, generate: {}", "chosen or written, not both");
    mistake("label: answer, generate: { pattern: '(' }", "expected a regular expression");
    mistake("label: answer, generate: { stop: [''] }", "the text is empty");
    mistake("score: letters, label: answer", "`choices`");
    mistake("choices: choices, label: answer, words: { a: b, c: d }", "no `words`");
    here.write(
        "wrong.yaml",
        "name: x\nstages:\n  model: { uses: load_model, with: { path: DEMO/model } }\n  t: { uses: probes, inputs: { model: model }, with: { path: gsm8k.jsonl, prompt: '{question}', choices: choices, label: answer } }\n",
    );
    let said = here.palinode(4, &["run", "wrong.yaml"]);
    assert!(said.contains("missing field `choices`"), "{said}");
}

/// The same tasks as tables, in the columns that they have on the Hugging Face Hub (scripts/make_parquet_fixtures.py).
#[test]
fn tasks_are_read_from_parquet_files() {
    let here = Here::new();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    for name in ["mmlu", "arc", "gsm8k", "sst2"] {
        let file = format!("{name}.parquet");
        fs::copy(fixtures.join(&file), here.0.path().join(&file)).unwrap();
    }
    here.write("p.yaml", &TASKS.replace("EXT", "parquet"));
    here.palinode(0, &["run", "p.yaml"]);
    for stage in ["mmlu", "arc"] {
        let facts = here.facts(stage);
        assert_eq!((&facts["questions"], &facts["metrics"]["accuracy"]), (&json!(12), &json!(1.0)), "{stage}: {facts}");
    }
    assert_eq!((&here.facts("letters")["questions"], &here.facts("sst2")["questions"]), (&json!(5), &json!(10)));
    assert!(here.facts("gsm8k")["metrics"]["exact_match"].as_f64().unwrap() > 0.5);
    // A column that is not there is a mistake in every record, with its place.
    here.write(
        "wrong.yaml",
        "name: x\nstages:\n  model: { uses: load_model, with: { path: DEMO/model } }\n  t: { uses: probes, inputs: { model: model }, with: { path: sst2.parquet, prompt: '{question}' } }\n",
    );
    let said = here.palinode(4, &["run", "wrong.yaml"]);
    assert!(said.contains("sst2.parquet: record 0: missing field `question`"), "{said}");
}

/// A written answer ends where an answer of `evaluate` does: at a sentence, a line, the end token, or after so many tokens.
#[test]
fn written_answers_end_by_the_rules_of_answers() {
    let here = Here::new();
    let facts = known();
    let task = facts.iter().map(|(q, right, _)| json!({ "q": q, "a": right }).to_string() + "\n");
    here.write("task.jsonl", &task.collect::<String>());
    let records = facts.iter().map(|(q, right, _)| json!({ "prompt": q, "target_new": right }).to_string() + "\n");
    here.write("facts.jsonl", &records.collect::<String>());
    let rules = ["[sentence]", "[line]", "[sentence, line]", "[]"];
    let mut text = "name: ends\nstages:\n  model: { uses: load_model, with: { path: DEMO/model } }\n  \
        facts: { uses: load_requests, with: { path: facts.jsonl, fields: { prompt: prompt, target_new: target_new } } }\n"
        .to_owned();
    for (i, rule) in rules.iter().enumerate() {
        text += &format!(
            "  task{i}: {{ uses: probes, inputs: {{ model: model }}, with: {{ path: task.jsonl, prompt: '{{q}}', label: a, generate: {{ tokens: 24, stop: [], stop_at: {rule} }} }} }}\n  \
             said{i}: {{ uses: evaluate, inputs: {{ model: model, requests: facts }}, with: {{ answers: {{ tokens: 24, stop: {rule}, prompts: [rewrite] }}, samples: 0 }} }}\n"
        );
    }
    here.write("p.yaml", &text);
    here.palinode(0, &["run", "p.yaml"]);
    let lines = |stage: &str, prompt: &str, answer: &dyn Fn(&Value) -> Value| {
        here.palinode(0, &["show", stage, "--save", stage]);
        let lines = here.read(&format!("{stage}/answers.jsonl"));
        let line = |line: &str| -> (String, String) {
            let line: Value = serde_json::from_str(line).unwrap();
            (line[prompt].as_str().unwrap().to_owned(), answer(&line).as_str().unwrap().to_owned())
        };
        lines.lines().map(line).collect::<std::collections::BTreeMap<_, _>>()
    };
    let mut lengths = Vec::new();
    for (i, rule) in rules.iter().enumerate() {
        let task = lines(&format!("task{i}"), "prompt", &|line| line["before"]["text"].clone());
        let said = lines(&format!("said{i}"), "prompt", &|line| line["answer"].clone());
        assert!(task.len() == 12 && task == said, "{rule}: {task:?} {said:?}");
        lengths.push(task.values().map(String::len).sum::<usize>());
    }
    assert!(lengths[0] < lengths[3] && lengths[2] <= lengths[0].min(lengths[1]), "{lengths:?}");
    let said = here.palinode(0, &["stages", "probes"]);
    assert!(said.contains("stop_at"), "{said}");
}

#[test]
fn abilities_are_a_curve_over_rounds() {
    let here = Here::new();
    let task: String = known()
        .iter()
        .map(|(q, right, wrong)| json!({ "q": q, "choices": [right, wrong], "answer": "A" }).to_string() + "\n")
        .collect();
    here.write("task.jsonl", &task);
    here.write(
        "p.yaml",
        "
name: rounds
stages:
  model: { uses: load_model, with: { path: DEMO/model } }
  facts: { uses: load_requests, with: { path: DEMO/requests.json, limit: 6 } }
  plan: { uses: distribute, with: { strategy: single, layers: [1] } }
  edited:
    uses: sequence
    inputs: { model: model, requests: facts, plan: plan }
    with: { targets: { layer: 1, steps: 8 }, solve: { objective: memit, preservation: ridge, batch_size: 2 } }
  task:
    uses: probes
    inputs: { model: edited }
    with: { path: task.jsonl, choices: choices, label: answer, prompt: '{q}', every: 1 }
",
    );
    let said = here.palinode(0, &["run", "p.yaml"]);
    assert!(said.contains("task, step by step"), "{said}");
    let facts = here.facts("task");
    assert_eq!(facts["series"]["rows"].as_array().unwrap().len(), 3);
    // No share of a few questions is without doubt, and every number says how many there were.
    let questions = facts["questions"].as_u64().unwrap();
    assert!(
        questions > 0 && facts["n"]["accuracy"] == questions && facts["n"]["before_accuracy"] == questions,
        "{facts}"
    );
    for (intervals, of) in [(&facts["intervals"], "end"), (&facts["series"]["rows"][0]["intervals"], "round")] {
        for metric in ["accuracy", "by_length"] {
            let [low, high] = [0, 1].map(|at| intervals[metric][at].as_f64().unwrap());
            assert!(low < high, "{of} {metric}: {intervals}");
        }
    }
    let task = said.split("\ntask\n").nth(1).unwrap();
    assert!(task.contains(&format!("n = {questions}\n")), "{task}");
}

#[test]
fn what_the_published_code_measures_besides() {
    let here = Here::new();
    let subject = {
        let records: Vec<Value> =
            serde_json::from_str(&fs::read_to_string(demo().join("requests.json")).unwrap()).unwrap();
        records[0]["requested_rewrite"]["subject"].as_str().unwrap().to_owned()
    };
    let text = format!("{subject} is a country. People in {subject} pay with the peso.");
    let snippets = json!([{ "relation_id": "P38", "target_id": "Q1", "samples": [
        { "name": subject, "text": text }, { "name": "Nowhere", "text": "Nothing." }, { "text": "No name." },
    ] }]);
    here.write("snippets.json", &snippets.to_string());
    here.write(
        "p.yaml",
        "
name: besides
stages:
  model: { uses: load_model, with: { path: DEMO/model } }
  facts: { uses: load_requests, with: { path: DEMO/requests.json, limit: 4 } }
  targets: { uses: targets, inputs: { model: model, requests: facts }, with: { layer: 1, steps: 25, learning_rate: 0.2, weight_decay: 0.05 } }
  plan: { uses: distribute, with: { strategy: memit, layers: [0, 1] } }
  update: { uses: solve, inputs: { model: model, requests: facts, targets: targets, plan: plan }, with: { objective: emmet, preservation: ridge } }
  besides:
    uses: reference_metrics
    inputs: { model: update, requests: facts, targets: targets }
    with: { sliding: 20, generation: { length: 20 }, snippets: snippets.json, corpus: DEMO/corpus.txt, tokens: 300 }
  before: { uses: reference_metrics, inputs: { model: model, requests: facts } }
",
    );
    here.palinode(0, &["run", "p.yaml"]);
    let facts = here.facts("besides");
    let value = |name: &str| facts["metrics"][name].as_f64().unwrap_or_else(|| panic!("{name}: {facts}"));
    // The edit took: its text says the new target, and keys yield their targets better than before.
    assert!(value("sliding_correct") > value("before_sliding_correct"), "{facts}");
    assert!(value("new_edit") < value("old_edit") && value("preservation") > 0.0);
    assert!(value("token_entropy") > 0.0 && value("token_entropy") <= 1.0);
    assert!(value("essence") > 1.0 && value("before_essence") > 1.0);
    assert!((0.0..=1.0).contains(&value("attributes")));
    assert_eq!(facts["distances"].as_array().unwrap().len(), 2);
    let before = here.facts("before");
    assert!(before["metrics"]["new_edit"].is_null() && before["metrics"]["sliding_correct"].is_number());
}
