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
const MQUAKE: &str = r#"[
  {"case_id": 12, "requested_rewrite": [
     {"prompt": "The official language of {} is", "relation_id": "P37", "subject": "Chile", "question": "What is the official language of Chile?",
      "target_new": {"str": "Thai", "id": "Q1"}, "target_true": {"str": "Spanish", "id": "Q2"}},
     {"prompt": "The currency of {} is the", "relation_id": "P38", "subject": "Colombia", "question": "What is the currency of Colombia?",
      "target_new": {"str": "rial", "id": "Q3"}, "target_true": {"str": "peso", "id": "Q4"}}],
   "questions": ["What is spoken next to Colombia?", "The language beside Colombia is", "Which language has Colombia's neighbour?"],
   "answer": "Spanish", "new_answer": "Thai", "new_answer_alias": ["the Thai language"],
   "new_single_hops": [{"question": "What does Chile speak?", "cloze": "Chile speaks", "answer": "Thai", "answer_alias": []},
                       {"question": "What lies next to Colombia?", "cloze": "", "answer": "Chile", "answer_alias": ["Republic of Chile"]}]},
  {"case_id": 13, "requested_rewrite": [
     {"prompt": "The official language of {} is", "subject": "Peru", "target_new": {"str": "Thai"}, "target_true": {"str": "Spanish"}}],
   "questions": ["Peru's letters are in"], "new_answer": "Thai script", "orig": {"new_triples": [["a", "b", "c"], ["c", "d", "e"], ["e", "f", "g"]]}}]"#;
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
    let two = "{\"about\": {\"name\": \"Oslo\"}, \"qa\": [{\"q\": \"Oslo lies in\", \"a\": \"Chile\"}, {\"q\": \"Oslo is\", \"a\": \"Rome\"}]}\n";
    here.write("two.jsonl", &format!("{two}\n{{\"about\": {{}}, \"qa\": []}}\n"));
    let json = "path: two.jsonl, fields: { subject: about.name, prompt: 'qa[*].q', target_new: 'qa[0].a' }";
    let said = here.mistake(json);
    assert!(
        said.contains("prompt: there are 2 texts at `qa[*].q`")
            && said.contains("two.jsonl:1\n")
            && said.contains("`qa[0].q` is the first"),
        "{said}"
    );
    assert!(said.contains("prompt: the record has no prompt") && said.contains("two.jsonl:3\n"), "{said}");
    here.write("holes.csv", "s,p,t\nOslo,Oslo lies in,Chile\n\nRome,,Chile\n");
    let said = here.mistake("path: holes.csv, fields: { subject: s, prompt: p, target_new: t }");
    assert!(said.contains("prompt: the record has no prompt") && said.contains("holes.csv:4\n"), "{said}");
    assert!(here.mistake("path: facts.jsonl, fields: { prompt: more }").contains("`target_new`"));
    assert!(here.mistake(&format!("{json}, dataset: zsre")).contains("one of the two"));
    assert!(here.mistake(&format!("{csv}, ids: ['009', x]")).contains("no request is named `x`"));
}

/// An answer belongs to the prompt at its own place: where there is none at that place, nothing is guessed.
#[test]
fn every_question_has_its_own_answer() {
    let here = Here::new();
    let short = UNKE.replace("[\"Thai\", \"long\"]", "[\"Thai\"]");
    here.write("u.json", &short);
    let said = here.mistake("path: u.json, dataset: unke");
    assert!(said.contains("record 0, field `portability.sub_question`: there are 2 prompts and 1 answers"), "{said}");
    let record = r#"[{"s": "y", "p": "y is", "q": ["y a", null, "y c"], "a": [["1", "one"], ["2"], "3"], "one": "T",
        "h": [{"t": "y b", "v": "2"}]}]"#;
    here.write("r.json", record);
    let with = |asked: &str| {
        format!("path: r.json, fields: {{ subject: s, prompt: p, target_new: one, portability: {{ x: {asked} }} }}")
    };
    let all = here.load(&with("{ prompt: q, answers: a }"));
    let asked = all[0]["portability"]["x"].as_array().unwrap();
    assert_eq!(asked.len(), 2);
    assert_eq!(
        (&asked[0]["answers"], &asked[1]["answers"]),
        (&serde_json::json!(["1", "one"]), &serde_json::json!(["3"]))
    );
    // One text answers all.
    let all = here.load(&with("{ prompt: q, answers: one }"));
    assert_eq!(all[0]["portability"]["x"][1]["answers"], serde_json::json!(["T"]));
    // A path into objects that none of them has is a mistake, too.
    let said = here.mistake(&with("{ each: h, prompt: t, answers: w }"));
    assert!(said.contains("no object of `h` has `w`; the first one has `t`, `v`"), "{said}");
}

/// What other programs write where they have nothing, and files that are something else.
#[test]
fn nothing_is_none_and_a_wrong_file_is_named() {
    let here = Here::new();
    here.write("n.jsonl", "{\"subject\": \"Chile\", \"prompt\": \"{} speaks\", \"target_new\": \"Thai\", \"paraphrases\": null, \"neighbors\": null}\n");
    assert_eq!(here.load("path: n.jsonl, dataset: jsonl").len(), 1);
    here.write(
        "c.json",
        r#"[{"case_id": 1, "requested_rewrite": {"prompt": "{} speaks", "subject": "Chile", "target_new": {"str": "Thai"}, "target_true": null},
            "paraphrase_prompts": null, "neighborhood_prompts": null}]"#,
    );
    assert_eq!(here.load("path: c.json").len(), 1);
    here.write("o.json", "{\n \"data\": [{\"subject\": \"Chile\"}],\n \"n\": 1\n}\n");
    let said = here.mistake("path: o.json, dataset: jsonl");
    assert!(said.contains("is one JSON object") && said.contains("it has lists: `data`"), "{said}");
    assert_eq!(said.matches("p.yaml:").count(), 1, "said once: {said}");
    here.write("t.parquet", "no table");
    let said = here.mistake("path: t.parquet, fields: { prompt: a, target_new: b }");
    assert!(said.contains("named like a Parquet table and is none"), "{said}");
    here.write("s.csv", "a,b\nonly\n");
    let said = here.mistake("path: s.csv, fields: { prompt: a, target_new: b }");
    assert!(said.contains("the row has 1 cell,") && !said.contains("hint: \n") && !said.contains("hint:\n"), "{said}");
    here.write("z.json", r#"[{"subject": "Chile", "src": "What does Chile speak?", "answers": [], "alt": "Thai"}]"#);
    let said = here.mistake("path: z.json, dataset: zsre");
    assert!(said.contains("there is no answer in it"), "{said}");
}

/// Edited and judged: portability and locality of data sets without published metrics are EasyEdit's.
#[test]
fn every_data_set_is_edited_and_judged() {
    let here = Here::new();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model/model").canonicalize().unwrap();
    let csv = "key,entity,question,year\nk,Chile,What does Chile speak?,Thai\nl,Peru,What does Peru speak?,Thai\n";
    for (file, records, with, shown) in [
        ("w.json", WIKIBIGEDIT, "dataset: wikibigedit", "portability"),
        ("u.json", UNKE, "dataset: unke", "portability"),
        ("a.json", AKEW, "dataset: akew", "reliability"),
        ("h.csv", HALLUEDIT, "dataset: halluedit", "locality"),
        ("e.json", EASYEDIT, "dataset: easyedit", "locality"),
        ("m.json", MQUAKE, "dataset: mquake", "3 hops"),
        ("f.csv", csv, "fields: { subject: entity, prompt: question, target_new: year }", "efficacy"),
    ] {
        here.write(file, records);
        let text = format!(
            "
name: judged
stages:
  model: {{ uses: load_model, with: {{ path: {} }} }}
  facts: {{ uses: load_requests, with: {{ path: {file}, {with} }} }}
  plan: {{ uses: distribute, with: {{ strategy: single, layers: [2] }} }}
  targets: {{ uses: targets, inputs: {{ model: model, requests: facts }}, with: {{ layer: 2, steps: 3 }} }}
  update:
    uses: solve
    inputs: {{ model: model, requests: facts, targets: targets, plan: plan }}
    with: {{ objective: emmet, preservation: ridge, emmet_lambda: 0.1 }}
  scores:
    uses: evaluate
    inputs: {{ model: update, requests: facts }}
    with: {{ resamples: 0, answers: {{ tokens: 4 }} }}
",
            model.display()
        );
        here.write("p.yaml", &text);
        let (code, said) = here.palinode(&["run", "p.yaml"]);
        assert_eq!(code, Some(0), "{with}: {said}");
        assert!(said.contains(shown) && said.contains("rewrite exact"), "{with}: {said}");
    }
}

/// A record of MQuAKE has several edits, which are made together; its questions are told apart by their steps.
#[test]
fn the_edits_of_a_record_are_made_together() {
    let here = Here::new();
    here.write("m.json", MQUAKE);
    let all = here.load("path: m.json, dataset: mquake");
    let ids: Vec<&str> = all.iter().map(|request| request["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["12-1", "12-2", "13"]);
    assert_eq!((&all[0]["group"], &all[1]["group"]), (&"12".into(), &"12".into()));
    assert!(all[2].get("group").is_none());
    assert_eq!(all[0]["portability"]["2 hops"].as_array().unwrap().len(), 3);
    assert_eq!(all[0]["portability"]["2 hops"][2]["answers"][1], "the Thai language");
    assert_eq!(all[0]["portability"]["single-hop"][1]["answers"][1], "Republic of Chile");
    assert_eq!(all[0]["paraphrases"][0], "What is the official language of Chile?");
    assert!(all[1].get("portability").is_none() && all[2]["portability"].get("3 hops").is_some());
    // A record is chosen as a whole.
    assert_eq!(here.load("path: m.json, dataset: mquake, limit: 1").len(), 2);
    assert_eq!(here.load("path: m.json, dataset: mquake, ids: ['13', '12']").len(), 3);
    assert_eq!(here.load("path: m.json, dataset: mquake, offset: 1")[0]["id"], "13");
    here.write("bad.json", &MQUAKE.replace("\"new_answer\": \"Thai script\", ", "").replace("\"Peru\"", "\"\""));
    let said = here.mistake("path: bad.json, dataset: mquake");
    assert!(said.contains("record 1, field `new_answer`: there are questions, but no answer to them"), "{said}");
    here.write("bad.json", &MQUAKE.replace("\"Peru\"", "\"\""));
    let said = here.mistake("path: bad.json, dataset: mquake");
    assert!(said.contains("requested_rewrite[0].subject") && said.contains("the subject is empty"), "{said}");

    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model/model").canonicalize().unwrap();
    let stage = |name: &str, uses: &str, with: &str| {
        format!(
            "  {name}:\n    uses: {uses}\n    inputs: {{ model: model, requests: facts, targets: targets, plan: plan }}\n    with: {with}\n"
        )
    };
    let solve = stage("update", "solve", "{ objective: emmet, preservation: ridge, batch_size: 1 }");
    let rounds = stage(
        "rounds",
        "sequence",
        "{ targets: { layer: 2, steps: 3 }, solve: { objective: emmet, preservation: ridge, batch_size: 1 } }",
    );
    let text = format!(
        "
name: together
stages:
  model: {{ uses: load_model, with: {{ path: {} }} }}
  facts: {{ uses: load_requests, with: {{ path: m.json, dataset: mquake }} }}
  plan: {{ uses: distribute, with: {{ strategy: single, layers: [2] }} }}
  targets: {{ uses: targets, inputs: {{ model: model, requests: facts }}, with: {{ layer: 2, steps: 3 }} }}
{solve}{}  scores:
    uses: evaluate
    inputs: {{ model: update, requests: facts }}
    with: {{ resamples: 0, answers: {{ tokens: 4 }} }}
  in_rounds: {{ uses: evaluate, inputs: {{ model: rounds, requests: facts }}, with: {{ resamples: 0, every: 1 }} }}
",
        model.display(),
        rounds.replace(", targets: targets", "")
    );
    here.write("p.yaml", &text);
    let (code, said) = here.palinode(&["run", "p.yaml"]);
    assert_eq!(code, Some(0), "{said}");
    for part in ["2 hops", "3 hops exact", "multi-hop exact", "portability exact"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // Two records of three edits: two models, and two rounds.
    let (_, shown) = here.palinode(&["show", "scores", "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let metrics =
        |shown: &Value| shown["results"].as_object().unwrap().values().next().unwrap()["output"]["meta"].clone();
    let meta = metrics(&shown);
    assert_eq!((&meta["metrics"]["models"], &meta["metrics"]["edits_made"]), (&2.into(), &3.into()), "{meta}");
    let (_, shown) = here.palinode(&["show", "in_rounds", "--json"]);
    let meta = metrics(&serde_json::from_str(&shown).unwrap());
    let edits: Vec<&Value> = meta["series"]["rows"].as_array().unwrap().iter().map(|row| &row["edits"]).collect();
    assert_eq!(edits, [&Value::from(2), &Value::from(3)]);
}

/// Plain requests name groups, contexts and prompts of their own.
#[test]
fn a_request_has_contexts_and_prompts_of_its_own() {
    let here = Here::new();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model/model").canonicalize().unwrap();
    let with = |own: &str| {
        let text = format!(
            "
name: own
stages:
  model: {{ uses: load_model, with: {{ path: {} }} }}
  facts:
    uses: requests
    with:
      facts:
        - {{ subject: Chile, prompt: 'The official language of {{}} is', target_new: Thai{own} }}
        - {{ subject: Peru, prompt: 'The official language of {{}} is', target_new: Thai }}
  contexts: {{ uses: templates, with: {{ groups: [['{{}}'], ['It is so. {{}}']] }} }}
  plan: {{ uses: distribute, with: {{ strategy: single, layers: [2] }} }}
  targets: {{ uses: targets, inputs: {{ model: model, requests: facts, templates: contexts }}, with: {{ layer: 2, steps: 5 }} }}
  update:
    uses: solve
    inputs: {{ model: model, requests: facts, targets: targets, plan: plan, templates: contexts }}
    with: {{ objective: memit, preservation: ridge, lambda: 10 }}
",
            model.display()
        );
        here.write("p.yaml", &text);
        let (code, said) = here.palinode(&["run", "p.yaml"]);
        assert_eq!(code, Some(0), "{own}: {said}");
        let digests = ["targets", "update"].map(|stage| {
            let (_, shown) = here.palinode(&["show", stage, "--json"]);
            let shown: Value = serde_json::from_str(&shown).unwrap();
            let result = shown["results"].as_object().unwrap().values().next().unwrap();
            result["content"].as_str().map_or_else(|| panic!("{result}"), str::to_owned)
        });
        let _ = fs::remove_dir_all(here.0.path().join("saved"));
        here.palinode(&["show", "targets", "--save", "saved"]);
        let traces = fs::read_to_string(here.0.path().join("saved/traces.json")).unwrap();
        let traces: Value = serde_json::from_str(&traces).unwrap();
        let last =
            |of: usize, what: &str| traces[of]["steps"].as_array().unwrap().last().unwrap()[what].as_f64().unwrap();
        (digests, [last(0, "nll"), last(0, "kl")], [last(1, "nll"), last(1, "kl")])
    };
    let usual = with("");
    // What all requests have, said of one of them, is the same to the last digit.
    let same = with(", contexts: ['{}', 'It is so. {}'], kl_prompts: ['{} is a']");
    assert_eq!((same.1, same.2), (usual.1, usual.2));
    // Prompts that are there twice have the same mean.
    let twice = with(", kl_prompts: ['{} is a', '{} is a']");
    assert!((twice.1[1] - usual.1[1]).abs() < 1e-5 && (twice.1[0] - usual.1[0]).abs() < 1e-4, "{twice:?} {usual:?}");
    let still = with(", kl_prompts: ['{} is a', 'I live in {}', '{}']");
    assert_ne!(still.1, usual.1);
    let contexts = with(", contexts: ['{}']");
    assert_ne!(contexts.1, usual.1);
    for other in [&still, &contexts] {
        let near = |at: usize| (other.2[at] - usual.2[at]).abs() < 1e-4;
        assert!(near(0) && near(1), "the other request has what it had: {other:?} {usual:?}");
        assert_ne!(other.0[1], usual.0[1]);
    }
    for (own, words) in [
        (", contexts: ['It is so. {}']", "the first context must be"),
        (", contexts: ['{}', 'So']", "expected one {}"),
        (", kl_prompts: ['He is a']", "expected one {}"),
    ] {
        let text = fs::read_to_string(here.0.path().join("p.yaml")).unwrap().replace(", contexts: ['{}']", own);
        here.write("p.yaml", &text);
        let (code, said) = here.palinode(&["validate", "p.yaml"]);
        assert!(code == Some(3) && said.contains(words), "{own}: {said}");
        here.write("p.yaml", &text.replace(own, ", contexts: ['{}']"));
    }
}
