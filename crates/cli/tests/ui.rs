//! `palinode ui`, asked over plain sockets: who gets in, what there is, beside a run and on a store that may only be read.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use palinode::Runs;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Stages that need no model, over an axis.
const PIPELINE: &str = "\
name: facts
matrix: { strategy: [memit, sqrt] }
stages:
  edits: { uses: load_requests, with: { path: facts.jsonl, dataset: jsonl } }
  plan: { uses: distribute, with: { strategy: '${matrix.strategy}', layers: [3, 4] } }
";
const FACT: &str = "{\"subject\": \"Ada\", \"prompt\": \"{} lives in\", \"target_new\": \"Rome\"}\n";

/// Longer than anything here takes, and not for ever.
const PATIENCE: Duration = Duration::from_mins(2);

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model").canonicalize().unwrap()
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palinode"));
    command.env_remove("PALINODE_STORE").env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

fn palinode(folder: &Path, args: &[&str]) -> String {
    let output = program().current_dir(folder).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A folder in which the pipeline ran.
fn ran() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("p.yaml"), PIPELINE).unwrap();
    fs::write(folder.path().join("facts.jsonl"), FACT).unwrap();
    palinode(folder.path(), &["run", "p.yaml"]);
    folder
}

/// The program while it serves its page.
struct Page {
    child: Child,
    host: String,
    code: String,
    cookie: String,
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.body))
    }
}

impl Page {
    /// Starts it, with nobody let in yet.
    fn closed(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let link = line.trim().rsplit_once("http://").expect(&line).1;
        let (host, code) = link.split_once("/start#").expect(link);
        Self { child, host: host.to_owned(), code: code.to_owned(), cookie: String::new() }
    }

    fn open(folder: &Path) -> Self {
        let mut command = program();
        command.current_dir(folder).args(["ui", "--port", "0"]);
        let mut page = Self::closed(command);
        page.enter();
        page
    }

    fn enter(&mut self) {
        let code = self.code.clone();
        let answer = self.start(&code);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let cookie = answer.head.lines().find_map(|line| line.strip_prefix("Set-Cookie: ")).unwrap();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        cookie.split(';').next().unwrap().clone_into(&mut self.cookie);
    }

    fn start(&self, code: &str) -> Answer {
        self.raw(&self.posting("/start", &json!({ "code": code }), ""))
    }

    fn posting(&self, path: &str, body: &Value, lines: &str) -> String {
        let body = body.to_string();
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{lines}\r\n{body}",
            self.host
        )
    }

    fn raw(&self, text: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        Answer { status, head: head.replace("\r\n", "\n"), body: body.to_owned() }
    }

    fn get_with(&self, path: &str, lines: &str) -> Answer {
        self.raw(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\n{lines}\r\n", self.host, self.cookie))
    }

    fn get(&self, path: &str) -> Answer {
        self.get_with(path, "")
    }

    fn post(&self, path: &str, body: &Value) -> Answer {
        self.raw(&self.posting(path, body, &format!("Cookie: {}\r\n", self.cookie)))
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn nobody_gets_in_without_the_link() {
    let folder = ran();
    let mut command = program();
    command.current_dir(&folder).args(["ui", "--port", "0"]);
    let mut page = Page::closed(command);
    // Without the key there is a page that says how to get in, and nothing of the store.
    let first = page.get("/");
    assert_eq!(first.status, 401);
    assert!(first.body.contains("Open the link") && !first.body.contains("facts"), "{}", first.body);
    for path in ["/api/runs", "/api/store", "/api/models", "/api/ask", "/app.js", "/runs/latest/report", "/nothing"] {
        assert_eq!(page.get(path).status, 401, "{path}");
    }
    assert_eq!(page.raw(&page.posting("/api/ask", &json!({}), "")).status, 401);
    // The code opens once, and a wrong one never.
    assert_eq!(page.start(&"0".repeat(64)).status, 403);
    assert_eq!(page.start("").status, 403);
    page.enter();
    assert_eq!(page.start(&page.code).status, 403);
    assert_eq!(page.get("/api/runs").status, 200);
    let cookie = std::mem::replace(&mut page.cookie, "palinode-1=2".to_owned());
    assert_eq!(page.get("/api/runs").status, 401);
    page.cookie = cookie;
    // The key is in nothing that is written.
    let key = page.cookie.split_once('=').unwrap().1.to_owned();
    for path in ["/", "/app.js", "/api/runs", "/api/store"] {
        assert!(!page.get(path).body.contains(&key), "{path}");
    }
}

#[test]
fn requests_come_from_the_page_itself() {
    let folder = ran();
    let page = Page::open(folder.path());
    let port = page.host.rsplit_once(':').unwrap().1;
    let to = |host: &str| {
        page.raw(&format!("GET /api/runs HTTP/1.1\r\nHost: {host}\r\nCookie: {}\r\n\r\n", page.cookie)).status
    };
    assert_eq!((to(&page.host), to(&format!("localhost:{port}"))), (200, 200));
    for other in ["evil.example", &format!("evil.example:{port}"), "192.168.1.1", ""] {
        assert_eq!(to(other), 421, "{other}");
    }
    assert_eq!(page.raw("GET /api/runs HTTP/1.1\r\n\r\n").status, 421);
    let from = |line: &str| page.get_with("/api/runs", &format!("{line}\r\n")).status;
    assert_eq!(from(&format!("Origin: http://{}", page.host)), 200);
    assert_eq!(from("Origin: http://127.0.0.1:1"), 403);
    assert_eq!(from("Origin: null"), 403);
    assert_eq!(from("Sec-Fetch-Site: cross-site"), 403);
    assert_eq!(from("Sec-Fetch-Site: same-site"), 403);
    // What a form of another site can send.
    let form = format!(
        "POST /api/ask HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{{}}",
        page.host, page.cookie
    );
    assert_eq!(page.raw(&form).status, 415);
    let head = page.get("/").head;
    for line in ["default-src 'self'", "frame-ancestors 'none'", "nosniff", "no-referrer", "no-store"] {
        assert!(head.contains(line), "{line}: {head}");
    }
}

#[test]
fn no_path_is_taken_from_the_page() {
    let folder = ran();
    fs::write(folder.path().join("secret"), "nobody's business").unwrap();
    let page = Page::open(folder.path());
    let run = page.get("/api/runs").json()["runs"][0]["run"].as_str().unwrap().to_owned();
    for path in [
        "/../secret",
        "/..%2fsecret",
        "/api/runs/..",
        "/api/runs/../../secret",
        "/api/runs/%2e%2e",
        "/api/runs/latest",
        &format!("/api/runs/{run}/log?stage=../../run.json"),
        &format!("/api/runs/{run}/log?stage=99"),
        &format!("/api/runs/{run}/log"),
        &format!("/api/runs/{run}/run.json"),
        &format!("/runs/{run}"),
        "/runs/../report",
        "//secret",
    ] {
        let answer = page.get(path);
        assert_eq!(answer.status, 404, "{path}: {}", answer.body);
    }
    let ask = |run: &str, stage: &Value| {
        page.post("/api/ask", &json!({ "run": run, "stage": stage, "prompts": ["a"], "tokens": 1 })).status
    };
    assert_eq!((ask("../..", &json!(0)), ask(&run, &json!(77)), ask(&run, &json!("../x"))), (404, 404, 400));
    for (text, expect) in [
        ("nonsense\r\n\r\n", 400),
        ("PUT / HTTP/1.1\r\n\r\n", 405),
        ("GET http://other/ HTTP/1.1\r\n\r\n", 400),
        ("POST /start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n", 413),
        (&format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(20_000)), 431),
    ] {
        assert_eq!(page.raw(text).status, expect, "{}", &text[..20]);
    }
    // It is there after all that.
    assert_eq!(page.get("/api/runs").status, 200);
}

#[test]
fn runs_are_shown_arm_by_arm() {
    let folder = ran();
    palinode(folder.path(), &["run", "p.yaml", "--set", "stages.plan.with.layers=[3,4,5]"]);
    let page = Page::open(folder.path());
    let answer = page.get("/api/runs");
    let all = answer.json();
    assert_eq!((all["runs"].as_array().unwrap().len(), all["arms"].as_array().unwrap().len()), (2, 4), "{all}");
    let field = |name: &str| all["fields"].as_array().unwrap().iter().find(|field| field["name"] == name).cloned();
    assert_eq!(field("strategy").unwrap()["role"], "axis");
    assert_eq!(field("plan.layers").unwrap()["varies"], true);
    assert_eq!(field("edits.dataset").unwrap()["same"], "jsonl");
    // What is known is not sent again.
    let tag = answer.head.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap();
    let again = page.get_with("/api/runs", &format!("If-None-Match: {tag}\r\n"));
    assert_eq!((again.status, again.body.as_str()), (304, ""));

    let run = all["runs"][0]["run"].as_str().unwrap();
    let one = page.get(&format!("/api/runs/{run}")).json();
    assert_eq!((one["pipeline"].as_str(), one["ended"].as_str()), (Some("facts"), Some("done")));
    let plan = one["members"].as_array().unwrap().iter().position(|member| member["instance"] == "plan[strategy=sqrt]");
    assert_eq!(one["members"][plan.unwrap()]["params"]["strategy"], "sqrt");
    let log = page.get(&format!("/api/runs/{run}/log?stage={}", plan.unwrap()));
    assert!(log.status == 200 && log.body.contains("started (distribute)"), "{}", log.body);
    let report = page.get(&format!("/runs/{run}/report"));
    assert!(report.status == 200 && report.body.contains("<h1>facts</h1>"), "{}", report.status);
    assert!(report.head.contains("sandbox allow-scripts"), "a report asks nothing of this server: {}", report.head);
}

/// A run that holds the store is watched as it goes, and asked about; the store is not kept from the next run.
#[test]
fn a_run_is_watched_as_it_goes() {
    let folder = TempDir::new().unwrap();
    let demo = demo();
    let yaml = format!(
        "
name: watched
stages:
  model: {{ uses: load_model, with: {{ path: {0}/model }} }}
  edits: {{ uses: load_requests, with: {{ path: {0}/requests.json, limit: 8 }} }}
  contexts: {{ uses: templates, inputs: {{ model: model }}, with: {{ generate: [{{ count: 3, length: 10 }}], seed: 1 }} }}
  targets: {{ uses: targets, inputs: {{ model: model, requests: edits, templates: contexts }}, with: {{ layer: 2, steps: 400 }} }}
  last: {{ uses: targets, inputs: {{ model: model, requests: edits, templates: contexts }}, with: {{ layer: 1, steps: 400 }} }}
",
        demo.display()
    );
    fs::write(folder.path().join("p.yaml"), yaml).unwrap();
    palinode(folder.path(), &["run", "p.yaml", "--until", "model"]);
    let page = Page::open(folder.path());
    let mut run = program();
    run.current_dir(&folder).args(["run", "p.yaml", "--quiet"]);
    let mut run = run.stdout(Stdio::null()).spawn().unwrap();
    let name = until("the run is listed", || {
        let all = page.get("/api/runs").json();
        let first = &all["runs"][0];
        (first["ended"] == "running").then(|| first["run"].as_str().unwrap().to_owned())
    });
    let path = format!("/api/runs/{name}");
    let live = until("a loss is told", || {
        let one = page.get(&path).json();
        let points = one["live"]["curves"][0]["points"].as_array().map_or(0, Vec::len);
        assert_eq!(one["ended"], "running", "{one}");
        (points > 1).then_some(one)
    });
    assert_eq!(live["live"]["curves"][0]["what"], "loss of targets");
    let at_work = live["members"].as_array().unwrap().iter().find(|member| member["state"] == "working").unwrap();
    assert_eq!(at_work["uses"], "targets");
    assert_eq!(page.get("/api/store").json()["holder"]["run"], name.as_str());
    // The model of the earlier run answers beside it.
    let models = page.get("/api/models").json();
    let model = models["models"].as_array().unwrap().iter().find(|model| model["instance"] == "model").unwrap().clone();
    let asked = json!({ "run": model["run"], "stage": model["at"], "prompts": ["Finland is in"], "tokens": 2 });
    assert_eq!(page.post("/api/ask", &asked).status, 202);
    let answered = until("an answer", || {
        let state = page.get("/api/ask").json();
        (state["state"] != "busy").then_some(state)
    });
    assert_eq!(answered["state"], "done", "{answered}");
    assert_eq!(answered["answers"][0]["prompt"], "Finland is in");
    run.kill().unwrap();
    run.wait().unwrap();
    let lost = until("the run is lost", || {
        let one = page.get(&path).json();
        (one["ended"] == "lost").then_some(one)
    });
    assert!(lost["live"]["curves"][0]["points"].as_array().unwrap().len() > 1);
    // The page does not hold the store: a run gets it.
    palinode(folder.path(), &["run", "p.yaml", "--until", "contexts"]);
}

#[test]
fn a_fact_is_asked_before_and_after_its_edit() {
    let folder = TempDir::new().unwrap();
    let model = demo().join("model");
    let fact = ["--subject", "Finland", "--prompt", "{} is located in the continent of", "--target", "Africa"];
    palinode(folder.path(), &[&["edit", model.to_str().unwrap()][..], &fact[..]].concat());
    // Nothing may be written, by whoever is bound by permissions: the page works as it does elsewhere.
    let store = folder.path().join(".palinode");
    let before = tree(&store);
    set_modes(&store, 0o555, 0o444);
    let page = Page::open(folder.path());
    let models = page.get("/api/models").json();
    let edited = models["models"].as_array().unwrap().iter().find(|model| model["edited"] == true).unwrap().clone();
    let asked = json!({ "run": edited["run"], "stage": edited["at"], "prompts": ["Finland is located in the continent of"], "tokens": 1 });
    let wrong = |change: (&str, Value)| {
        let mut asked = asked.clone();
        asked[change.0] = change.1;
        page.post("/api/ask", &asked).status
    };
    for change in [
        ("prompts", json!([])),
        ("prompts", json!([" "])),
        ("tokens", json!(100_000)),
        ("prompts", json!(vec!["a"; 100])),
    ] {
        assert_eq!(wrong(change), 400);
    }
    assert_eq!(page.post("/api/ask", &asked).status, 202);
    let answered = until("an answer", || {
        let state = page.get("/api/ask").json();
        (state["state"] != "busy").then_some(state)
    });
    let said =
        |side: &str| answered["answers"][0][side]["next"][0]["token"].as_str().unwrap_or_default().trim().to_owned();
    assert_eq!((said("before"), said("after")), ("Europe".to_owned(), "Africa".to_owned()), "{answered}");
    let run = edited["run"].as_str().unwrap();
    assert_eq!(page.get(&format!("/runs/{run}/report")).status, 200);
    drop(page);
    set_modes(&store, 0o755, 0o644);
    assert_eq!(tree(&store), before, "nothing was written");
}

#[test]
fn where_it_cannot_listen_it_says_so() {
    let folder = ran();
    let page = Page::open(folder.path());
    let port = page.host.rsplit_once(':').unwrap().1;
    let output = program().current_dir(&folder).args(["ui", "--port", port]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("cannot listen") && said.contains("--port"), "{said}");
    let empty = TempDir::new().unwrap();
    let output = program().current_dir(&empty).arg("ui").output().unwrap();
    assert_eq!(output.status.code(), Some(6), "{}", String::from_utf8_lossy(&output.stderr));
    // A record that does not read is told, and hides nothing else.
    let runs = Runs::of(&folder.path().join(".palinode"));
    let name = &runs.names()[0];
    fs::write(runs.dir(name).join("run.json"), "{").unwrap();
    let all = page.get("/api/runs").json();
    assert_eq!(all["unread"][0]["run"], name.as_str(), "{all}");
}

fn tree(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut all = Vec::new();
    for path in fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            all.extend(tree(&path));
        } else {
            let length = fs::metadata(&path).unwrap().len();
            all.push((path, length));
        }
    }
    all.sort();
    all
}

fn set_modes(folder: &Path, folders: u32, files: u32) {
    // A folder has to be open while its entries are changed.
    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    for path in fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            set_modes(&path, folders, files);
        } else {
            fs::set_permissions(&path, Permissions::from_mode(files)).unwrap();
        }
    }
    fs::set_permissions(folder, Permissions::from_mode(folders)).unwrap();
}
