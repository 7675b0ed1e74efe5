//! Answers in a model's own words, through the program: beside the teacher-forced figures, kept, judged by a file and by a server on this
//! machine, and chosen by what a model knows.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;

const PIPELINE: &str = "
name: spoken
stages:
  model: { uses: load_model, with: { path: DEMO/model } }
  edits: { uses: load_requests, with: { path: DEMO/requests.json, limit: 4 } }
  targets: { uses: targets, inputs: { model: model, requests: edits }, with: { layer: 2, steps: 25, learning_rate: 0.1 } }
  plan: { uses: distribute, with: { strategy: single, layers: [2] } }
  update:
    uses: solve
    inputs: { model: model, requests: edits, targets: targets, plan: plan }
    with: { objective: emmet, preservation: ridge, lambda: 10, emmet_lambda: 0.1 }
  scores:
    uses: evaluate
    inputs: { model: update, requests: edits }
    with: { resamples: 50, answers: { tokens: 12 } }
";

struct Here(TempDir);

impl Here {
    fn new(more: &str) -> Self {
        let here = Self(TempDir::new().unwrap());
        here.pipeline(&format!("{PIPELINE}{more}"));
        here
    }

    fn pipeline(&self, text: &str) {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model").canonicalize().unwrap();
        self.write("p.yaml", &text.replace("DEMO", demo.to_str().unwrap()));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_palinode"));
        command.env_remove("PALINODE_STORE").env_remove("PALINODE_JUDGE_KEY").env("NO_COLOR", "1").env("NO_PROXY", "*");
        command.current_dir(&self.0).args(args);
        command
    }

    /// What the program says, if it ends with `code`.
    fn told(&self, code: i32, args: &[&str]) -> String {
        told(code, &mut self.command(args))
    }

    /// The lines of a file of a stage's result.
    fn lines(&self, stage: &str, file: &str) -> Vec<Value> {
        let _ = fs::remove_dir_all(self.path("saved"));
        self.told(0, &["show", stage, "--save", "saved"]);
        let text = fs::read_to_string(self.path("saved").join(file)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn told(code: i32, command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert_eq!(status.code(), Some(code), "{text}");
    text
}

fn texts(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["answer"].as_str().unwrap()).collect()
}

#[test]
fn own_answers_stand_beside_teacher_forcing() {
    let here = Here::new("");
    let ran = here.told(0, &["run", "p.yaml"]);
    let heading = ran.lines().find(|line| line.contains("EA ")).unwrap();
    let names: Vec<&str> = heading.split("  ").map(str::trim).filter(|name| !name.is_empty()).collect();
    let at = |name: &str| names.iter().position(|known| *known == name).unwrap_or_else(|| panic!("{name}: {names:?}"));
    for (forced, own) in [("EA", "rewrite exact"), ("PA", "paraphrase exact"), ("NA", "neighborhood exact")] {
        assert_eq!(at(own), at(forced) + 1, "{names:?}");
    }
    at("rewrite contains");
    at("rewrite F1");
    assert!(ran.contains("% with teacher forcing; of the model's own answers"), "{ran}");

    // Of greedy text, EA is the share of prompts whose answer begins with the target.
    let answers = here.lines("scores", "answers.jsonl");
    let records = here.lines("scores", "records.jsonl");
    let kinds = ["rewrite", "paraphrase", "neighborhood"]
        .map(|kind| answers.iter().filter(|line| line["edited"] == true && line["kind"] == kind).count());
    assert_eq!(kinds, [4, 8, 28], "{answers:?}");
    let mut compared = 0;
    for line in answers.iter().filter(|line| line["kind"] == "rewrite" || line["kind"] == "paraphrase") {
        let side = if line["edited"] == true { "after" } else { "before" };
        let record = records.iter().find(|record| record["id"] == line["id"]).unwrap();
        let all = record[side][line["kind"].as_str().unwrap()].as_array().unwrap();
        let scored = all.iter().find(|scored| scored["prompt"] == line["prompt"]).unwrap();
        let forced = scored["new"]["hits"].as_u64().unwrap() == scored["new"]["said"].as_array().unwrap().len() as u64;
        let target = line["right"][0].as_str().unwrap();
        assert_eq!(line["answer"].as_str().unwrap().starts_with(target), forced, "{line}");
        compared += 1;
    }
    assert_eq!(compared, 24);
    assert!(answers.iter().all(|line| line["key"].as_str().unwrap().len() == 64));

    // Report and CSV have both, and say the gap.
    here.told(0, &["report", "--assets", "paper"]);
    let page = fs::read_to_string(here.path("report.html")).unwrap();
    assert!(
        page.contains("rewrite exact") && page.contains("with teacher forcing; of the model"),
        "the page says the gap"
    );
    let csv = fs::read_to_string(here.path("paper/tables/scores.csv")).unwrap();
    assert!(csv.lines().next().unwrap().contains("rewrite exact"), "{csv}");

    // Scores are the same units with and without answers: nothing is scored again.
    let plain = fs::read_to_string(here.path("p.yaml")).unwrap().replace(", answers: { tokens: 12 }", "");
    here.write("p.yaml", &plain);
    here.told(0, &["run", "p.yaml"]);
    let events = fs::read_dir(here.path(".palinode/runs")).unwrap().map(|run| run.unwrap().path()).max().unwrap();
    let events = fs::read_to_string(events.join("events.jsonl")).unwrap();
    assert!(!events.contains("unit_done"), "{events}");
}

#[test]
fn answers_are_written_as_asked() {
    let here = Here::new("");
    let with = |answers: &str| {
        here.pipeline(&PIPELINE.replace("answers: { tokens: 12 }", &format!("answers: {answers}")));
        here.told(0, &["run", "p.yaml"]);
        here.lines("scores", "answers.jsonl")
    };
    let greedy = with("{ tokens: 12, stop: [] }");
    let sentence = with("{ tokens: 12, stop: [sentence], prompts: [rewrite] }");
    assert!(sentence.iter().all(|line| line["kind"] == "rewrite"));
    for line in &sentence {
        let whole = greedy.iter().find(|other| other["prompt"] == line["prompt"] && other["edited"] == line["edited"]);
        let whole = whole.unwrap()["answer"].as_str().unwrap();
        let cut = line["answer"].as_str().unwrap();
        assert!(whole.starts_with(cut) && (whole.len() == cut.len() || cut.ends_with('.')), "{cut:?} of {whole:?}");
    }
    assert!(sentence.iter().any(|line| line["answer"].as_str().unwrap().ends_with('.')), "no sentence ended");
    let drawn = with("{ tokens: 6, top_k: 40, seed: 1, prompts: [rewrite] }");
    let again = with("{ tokens: 6, top_k: 40, seed: 2, prompts: [rewrite] }");
    assert_ne!(texts(&drawn), texts(&again));
    let short = with("{ tokens: 6, stop: [], prompts: [rewrite] }");
    assert_ne!(texts(&drawn), texts(&short));
    let formed = with("{ tokens: 6, prompts: [rewrite], form: 'It is said: {prompt}' }");
    assert!(formed.iter().all(|line| !line["prompt"].as_str().unwrap().contains("It is said")));
    for (wrong, words) in [
        ("{ form: 'Q: A:' }", "expected a text with one {prompt}"),
        ("{ prompts: [] }", "`prompts` is empty"),
        ("{ stop: [word] }", "word"),
        ("{ chat: {} }", "chat template"),
    ] {
        here.pipeline(&PIPELINE.replace("answers: { tokens: 12 }", &format!("answers: {wrong}")));
        let said = here.command(&["run", "p.yaml"]).output().unwrap();
        let said = [said.stdout, said.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        assert!(said.contains(words), "{wrong}: {said}");
    }
}

const BY_FILE: &str = "  verdicts: { uses: judge, inputs: { scores: scores }, with: { verdicts: verdicts.jsonl } }\n";

#[test]
fn verdicts_are_read_from_a_file() {
    let here = Here::new("");
    here.told(0, &["run", "p.yaml"]);
    let answers = here.lines("scores", "answers.jsonl");
    // The file of answers, with a verdict in each line.
    let judged = |line: &Value| {
        let mut line = line.clone();
        line["verdict"] = json!(line["contains"]);
        format!("{line}\n")
    };
    let all: String = answers.iter().map(judged).collect();
    here.write("verdicts.jsonl", &all);
    here.pipeline(&format!("{PIPELINE}{BY_FILE}"));
    let ran = here.told(0, &["run", "p.yaml"]);
    let table = ran.split("\nverdicts\n").nth(1).unwrap();
    assert!(
        table.contains("rewrite judged") && table.contains("rewrite exact") && table.contains("agree with exact"),
        "{table}"
    );
    assert!(table.contains("the judge and exact match agree on"), "{table}");
    let verdicts = here.lines("verdicts", "verdicts.jsonl");
    assert!(verdicts.len() == answers.len() && verdicts.iter().all(|line| line["verdict"] == line["contains"]));

    // What is missing, wrong or contradictory is said with its place.
    let first = judged(&answers[0]);
    here.write("verdicts.jsonl", &first);
    let said = here.told(4, &["run", "p.yaml"]);
    assert!(said.contains("there is no verdict on") && said.contains("`partial: true`"), "{said}");
    here.pipeline(&format!("{PIPELINE}{}", BY_FILE.replace("verdicts.jsonl", "verdicts.jsonl, partial: true")));
    here.told(0, &["run", "p.yaml"]);
    assert_eq!(
        here.lines("verdicts", "verdicts.jsonl").iter().filter(|line| line["key"] == answers[0]["key"]).count(),
        here.lines("verdicts", "verdicts.jsonl").len()
    );
    here.write(
        "verdicts.jsonl",
        &format!(
            "{first}{}",
            first
                .replace("\"verdict\":true", "\"verdict\":\"maybe\"")
                .replace("\"verdict\":false", "\"verdict\":\"maybe\"")
        ),
    );
    let said = here.told(4, &["run", "p.yaml"]);
    assert!(said.contains("verdicts.jsonl:2") && said.contains("expected true, false or null"), "{said}");
    here.write("verdicts.jsonl", &first.replace("\"key\"", "\"name\""));
    assert!(here.told(4, &["run", "p.yaml"]).contains("missing field `key`"));
    for (with, words) in [
        ("{}", "there is no judge"),
        ("{ verdicts: a.jsonl, url: 'http://localhost:1', model: m }", "a file judges, and a server too"),
        ("{ url: 'http://localhost:1' }", "which model judges"),
        ("{ url: 'localhost:1', model: m }", "has no scheme"),
        ("{ url: 'http://localhost:1', model: m, question: 'Is {answer} right?' }", "does not get {prompt}"),
        ("{ url: 'http://localhost:1', model: m, options: { stream: true } }", "`stream`"),
    ] {
        here.pipeline(&format!(
            "{PIPELINE}  verdicts: {{ uses: judge, inputs: {{ scores: scores }}, with: {with} }}\n"
        ));
        assert!(here.told(3, &["validate", "p.yaml"]).contains(words), "{with}");
    }
    // Scores without answers.
    here.pipeline(&format!("{}{BY_FILE}", PIPELINE.replace(", answers: { tokens: 12 }", "")));
    here.write("verdicts.jsonl", &all);
    assert!(here.told(4, &["run", "p.yaml"]).contains("`answers: {}`"));
}

/// What a server says next, where it does not judge; and what it was asked.
#[derive(Default)]
struct State {
    trouble: VecDeque<&'static str>,
    asked: Vec<(String, Value)>,
}

/// A judge that finds an answer right if it contains a right one's first word; and that breaks off as it is told to.
struct Server(u16, Arc<Mutex<State>>);

impl Server {
    fn new() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream, &shared);
            }
        });
        Self(port, state)
    }

    fn asked(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.1.lock().unwrap().asked)
    }

    fn will(&self, trouble: &[&'static str]) {
        self.1.lock().unwrap().trouble.extend(trouble);
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body: Value = serde_json::from_slice(&body).unwrap();
    let question = body["messages"][0]["content"].as_str().unwrap().to_owned();
    let mut state = state.lock().unwrap();
    state.asked.push((head.clone(), body));
    let key = head.lines().find_map(|line| line.split_once("Bearer ")).map_or("", |(_, key)| key);
    let (head, body) = if let Some(trouble) = state.trouble.pop_front() {
        (trouble, json!({ "error": { "message": format!("you sent {key}") } }))
    } else {
        let part = |name: &str| question.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        let right = part("Right answers: ").trim_matches('"').to_owned();
        let said = if part("Answer to judge: ").contains(&right) { "CORRECT" } else { "INCORRECT" };
        ("200 OK", json!({ "choices": [{ "message": { "content": format!("{said} {key}") } }] }))
    };
    let body = body.to_string();
    write!(stream, "HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

const SECRET: &str = "sk-secret-of-this-test-7f3a";

/// Whether a text stands in any file of a folder.
fn stands_in(folder: &Path, text: &str) -> bool {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).any(|path| {
        if path.is_dir() {
            return stands_in(&path, text);
        }
        fs::read(&path).is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
    })
}

#[test]
fn a_server_judges_once_and_its_key_is_nowhere() {
    let server = Server::new();
    let more = format!(
        "  verdicts:\n    uses: judge\n    inputs: {{ scores: scores }}\n    with: {{ url: 'http://127.0.0.1:{}/v1', model: judge-1, parallel_calls: 3, retries: 2 }}\n",
        server.0
    );
    let here = Here::new(&more);
    let with_key = |args: &[&str]| {
        let mut command = here.command(args);
        command.env("PALINODE_JUDGE_KEY", SECRET).env("PALINODE_LOG", "debug");
        command
    };
    // A server that is busy is asked again; one that is gone for good ends the run, and what it said is kept.
    server.will(&["429 Too Many Requests\r\nretry-after: 0", "503 Service Unavailable\r\nretry-after: 0"]);
    let limited = told(4, &mut with_key(&["run", "p.yaml", "--set", "stages.verdicts.with.most_calls=2"]));
    assert!(limited.contains("calls would be made, and `most_calls` is 2") && server.asked().is_empty(), "{limited}");
    let answers = here.lines("scores", "answers.jsonl");
    let different: std::collections::BTreeSet<&str> =
        answers.iter().map(|line| line["key"].as_str().unwrap()).collect();
    let first = told(0, &mut with_key(&["run", "p.yaml", "--set", "stages.scores.with.answers.prompts=[rewrite]"]));
    assert!(first.contains("different, 0 judged before:") && first.contains("(judge-1)"), "{first}");
    let rewrite: std::collections::BTreeSet<&str> =
        answers.iter().filter(|line| line["kind"] == "rewrite").map(|line| line["key"].as_str().unwrap()).collect();
    let asked = server.asked();
    assert_eq!(asked.len(), rewrite.len() + 2, "each different answer once, and twice more");
    assert!(asked.iter().all(|(head, body)| head.contains(SECRET) && body["model"] == "judge-1"));
    server.will(&["401 Unauthorized"]);
    let refused = told(4, &mut with_key(&["run", "p.yaml"]));
    assert!(refused.contains("answered 401: you sent [key]") && !refused.contains(SECRET), "{refused}");
    let tried = server.asked().len();
    let ran = told(0, &mut with_key(&["run", "p.yaml"]));
    // What was judged is not judged again: neither that of the first run nor that beside the refusal.
    assert_eq!(server.asked().len() + tried - 1, different.len() - rewrite.len(), "{ran}");
    assert!(ran.contains("the judge and exact match agree on") && !ran.contains(SECRET), "{ran}");
    let again = told(0, &mut with_key(&["run", "p.yaml", "--force", "verdicts"]));
    assert!(again.contains("calls to http://127.0.0.1"), "{again}");
    server.asked();
    here.told(0, &["run", "p.yaml"]);
    assert!(server.asked().is_empty(), "a result that is there needs no server and no key");
    for line in here.lines("verdicts", "verdicts.jsonl") {
        let right = line["answer"].as_str().unwrap().contains(line["right"][0].as_str().unwrap());
        assert_eq!(line["verdict"], right, "{line}");
        assert!(line["reply"].as_str().unwrap().ends_with("[key]"), "{line}");
    }
    assert!(here.path(".palinode").is_dir() && !stands_in(here.0.path(), SECRET), "the key is in a file");
}

#[test]
fn requests_are_chosen_by_what_a_model_knows() {
    let here = Here::new("");
    let select = |condition: &str| {
        let stage = format!(
            "  known:\n    uses: select\n    inputs: {{ model: model, requests: edits }}\n    with: {{ where: '{condition}' }}\n"
        );
        here.pipeline(
            &(PIPELINE
                .replace("requests: edits", "requests: known")
                .replace("  targets:", &format!("{stage}  targets:")))
            .replace("limit: 4", "limit: 12"),
        );
    };
    select("p_true > p_new and p_true >= 0.999");
    let ran = here.told(0, &["run", "p.yaml"]);
    let known = here.lines("known", "known.jsonl");
    let holds =
        |line: &Value| line["p_true"].as_f64() > line["p_new"].as_f64() && line["p_true"].as_f64() >= Some(0.999);
    assert!(known.len() == 12 && known.iter().all(|line| line["taken"] == holds(line)), "{known:?}");
    let taken = known.iter().filter(|line| line["taken"] == true).count();
    assert!(taken > 0 && taken < 12, "the condition chooses: {taken}");
    assert!(ran.contains(&format!("n = {taken} records")), "{ran}");
    // The choice is a result of its own: cached, and another condition scores nothing again.
    assert!(here.told(0, &["plan", "p.yaml"]).contains("known"), "it is planned");
    select("p_true > p_new");
    here.told(0, &["run", "p.yaml", "--until", "known"]);
    let events = fs::read_dir(here.path(".palinode/runs")).unwrap().map(|run| run.unwrap().path()).max().unwrap();
    assert!(!fs::read_to_string(events.join("events.jsonl")).unwrap().contains("unit_done"));
    select("p_true > 1");
    assert!(here.told(4, &["run", "p.yaml"]).contains("holds of none of 12 records; the largest p_true is"));
    for (wrong, words) in [("p_true", "compares nothing"), ("p_old > 0.1", "neither p_true, p_new nor a number")] {
        select(wrong);
        let said = here.told(3, &["validate", "p.yaml"]);
        assert!(said.contains(words) && said.contains("such as p_true > p_new"), "{said}");
    }
}
