//! What there is to ask for.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;

use palinode::{Error, ErrorKind, Hint, PastRun, Runs, Store};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::asking::{Asking, Begun};
use crate::data;
use crate::guard::{Guard, Refusal};
use crate::http::{Request, Response};
use crate::known::Known;

const INDEX: &str = include_str!("../page/index.html");
const START: &str = include_str!("../page/start.html");
const START_JS: &str = include_str!("../page/start.js");
const STYLE: &str = include_str!("../page/style.css");
const SCRIPTS: [(&str, &str); 5] = [
    ("/app.js", include_str!("../page/app.js")),
    ("/draw.js", include_str!("../page/draw.js")),
    ("/runs.js", include_str!("../page/runs.js")),
    ("/run.js", include_str!("../page/run.js")),
    ("/ask.js", include_str!("../page/ask.js")),
];

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const JSON: &str = "application/json";

/// What the page may do: load its own files, ask its own server.
const POLICY: &str = "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; object-src 'none'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// What a report may do: it brings its script with it, and has nobody to ask, this server included.
const REPORT: &str = "sandbox allow-scripts allow-downloads allow-modals; default-src 'none'; style-src 'unsafe-inline'; \
    script-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Answers requests.
pub struct Routes {
    store: PathBuf,
    words: fn(&Hint) -> String,
    known: Known,
    asking: Asking,
}

/// An answer with what every answer says to the browser. What an answer says itself stays.
pub fn guarded(mut response: Response) -> Response {
    let all = [
        ("Content-Security-Policy", POLICY),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Cache-Control", "no-store"),
    ];
    for (name, value) in all {
        if response.headers.iter().all(|(known, _)| *known != name) {
            response = response.with(name, value);
        }
    }
    response
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Code {
    code: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    run: String,
    stage: usize,
    prompts: Vec<String>,
    tokens: usize,
}

impl Routes {
    /// Of this store.
    pub fn new(store: PathBuf, words: fn(&Hint) -> String) -> Self {
        Self { store, words, known: Known::default(), asking: Asking::default() }
    }

    /// Ends what is asked of a model, and waits for it.
    pub fn stop(&self) {
        self.asking.stop_and_wait();
    }

    /// The answer to a request.
    pub fn answer(&self, guard: &Guard, request: &Request) -> Response {
        match guard.check(request) {
            Ok(()) => {}
            Err(Refusal::Host) => return Response::text(421, "this server does not go by that name"),
            Err(Refusal::Origin) => return Response::text(403, "this was sent by another site"),
        }
        let post = request.method == "POST";
        if post && request.header("content-type") != Some(JSON) {
            return Response::text(415, "expected application/json");
        }
        // What is needed to come in, and holds nothing.
        match (post, request.path.as_str()) {
            (false, "/start") => return Response::of(200, HTML, START),
            (false, "/start.js") => return Response::of(200, JAVASCRIPT, START_JS),
            (false, "/style.css") => return Response::of(200, CSS, STYLE),
            (true, "/start") => return start(guard, request),
            _ => {}
        }
        if !guard.knows(request) {
            return match request.path.as_str() {
                "/" => Response::of(401, HTML, START),
                _ => Response::text(401, "open the link that the program shows"),
            };
        }
        if post { self.post(request) } else { self.get(request) }
    }

    fn get(&self, request: &Request) -> Response {
        if let Some((_, script)) = SCRIPTS.iter().find(|(path, _)| *path == request.path) {
            return Response::of(200, JAVASCRIPT, *script);
        }
        let runs = Runs::of(&self.store);
        let parts: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
        match parts.as_slice() {
            [""] => Response::of(200, HTML, INDEX),
            ["api", "store"] => json(request, &data::store(&runs)),
            ["api", "runs"] => tagged(request, &data::overview(&runs, &self.known)),
            ["api", "runs", run] => match self.known.record(&runs, run) {
                Some(record) => json(request, &data::run(&runs, &record, &self.known, self.words)),
                None => not_found(),
            },
            ["api", "runs", run, "log"] => match self.known.record(&runs, run) {
                Some(record) => data::log(&runs, &record, request.number("stage"))
                    .map_or_else(not_found, |text| Response::of(200, "text/plain; charset=utf-8", text)),
                None => not_found(),
            },
            ["api", "runs", run, "losses"] => match self.known.record(&runs, run) {
                Some(record) => match self.report(&runs, &record) {
                    Ok(report) => json(request, &data::losses(&report)),
                    Err(error) => self.error(&error),
                },
                None => not_found(),
            },
            ["runs", run, "report"] => match self.known.record(&runs, run) {
                Some(record) => self.report_page(&runs, &record),
                None => not_found(),
            },
            ["api", "models"] => json(request, &data::models(&runs, &self.known)),
            ["api", "ask"] => json(request, &self.asking.state(self.words)),
            _ => not_found(),
        }
    }

    fn post(&self, request: &Request) -> Response {
        match request.path.as_str() {
            "/api/ask" => self.ask(request),
            "/api/ask/stop" => {
                self.asking.stop();
                Response::of(202, JSON, "{}")
            }
            _ => not_found(),
        }
    }

    fn ask(&self, request: &Request) -> Response {
        let asked: Asked = match serde_json::from_slice(&request.body) {
            Ok(asked) => asked,
            Err(error) => return Response::text(400, &format!("this is no question: {error}")),
        };
        let runs = Runs::of(&self.store);
        let stage = self.known.record(&runs, &asked.run).and_then(|record| record.stages.get(asked.stage).cloned());
        let Some(key) = stage.as_ref().and_then(|stage| stage.key) else { return not_found() };
        let name = stage.map(|stage| stage.instance).unwrap_or_default();
        let question = palinode::Question { prompts: asked.prompts, tokens: asked.tokens };
        match self.asking.begin(self.store.clone(), key, question, json!({ "run": asked.run, "stage": name })) {
            Begun::Yes => Response::of(202, JSON, "{}"),
            Begun::Busy => Response::text(409, "another question is being answered"),
            Begun::Wrong(why) => Response::text(400, &why),
        }
    }

    fn report(&self, runs: &Runs, record: &palinode::RunRecord) -> Result<palinode_report::Report, Error> {
        let store = Store::bare(&self.store)?;
        Ok(palinode::report(&PastRun::open(runs, record)?, &store))
    }

    fn report_page(&self, runs: &Runs, record: &palinode::RunRecord) -> Response {
        let rendered = self.report(runs, record).and_then(|report| {
            palinode_report::render(&report).map_err(|error| Error::internal(format!("the page: {error}")))
        });
        match rendered {
            Ok(document) => Response::of(200, HTML, document.html).with("Content-Security-Policy", REPORT),
            Err(error) => self.error(&error),
        }
    }

    fn error(&self, error: &Error) -> Response {
        let status = if matches!(error.kind, ErrorKind::Internal) { 500 } else { 404 };
        let hint = error.hint.as_ref().map(|hint| format!("\nhint: {}", (self.words)(hint))).unwrap_or_default();
        Response::text(status, &format!("{}{hint}", error.with_causes()))
    }
}

fn json(request: &Request, value: &Value) -> Response {
    tagged(request, &value.to_string())
}

/// JSON, or word that it is what the browser has already.
fn tagged(request: &Request, body: &str) -> Response {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    let tag = format!("\"{:016x}\"", hasher.finish());
    if request.header("if-none-match") == Some(tag.as_str()) {
        return Response { status: 304, headers: vec![("ETag", tag)], body: Vec::new() };
    }
    Response::of(200, JSON, body).with("ETag", tag)
}

fn start(guard: &Guard, request: &Request) -> Response {
    let code: Option<Code> = serde_json::from_slice(&request.body).ok();
    match code.and_then(|code| guard.open(&code.code)) {
        Some(cookie) => Response::text(200, "come in").with("Set-Cookie", cookie),
        None => Response::text(403, "the link was used already, or is not of this server"),
    }
}

fn not_found() -> Response {
    Response::text(404, "there is nothing here")
}
