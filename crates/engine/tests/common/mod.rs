//! Toy stages, and a bench to run pipelines of them on.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(missing_docs, clippy::missing_panics_doc, reason = "test support")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use palinode_engine::{
    Artifact, Catalogue, DescribeCx, Diagnostics, Error, ErrorKind, Event, ExternalFile, FieldError, Kind, Observer,
    Outcome, Pipeline, Plan, Port, PortOf, Resources, RunOptions, RunReport, Silent, Source, StageContext, StageKind,
    Store,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A text in a file.
pub struct TextKind;

impl Kind for TextKind {
    const NAME: &'static str = "text";
    type Facts = ();
    type Planned = PlannedText;
}

/// What is known of a text before it is there.
#[derive(Default, Serialize, Deserialize)]
pub struct PlannedText {
    length: Option<usize>,
}

/// Metrics and samples.
pub struct ScoresKind;

impl Kind for ScoresKind {
    const NAME: &'static str = "scores";
    type Facts = Value;
    type Planned = ();
}

/// A file outside the store.
pub struct PublishedKind;

impl Kind for PublishedKind {
    const NAME: &'static str = "published";
    type Facts = ();
    type Planned = ();
}

fn text_of(cx: &StageContext, port: PortOf<TextKind>) -> Result<String, Error> {
    let Some(given) = cx.input_opt(port)? else { return Ok(String::new()) };
    let file = given.artifact.file("text").ok_or_else(|| Error::input("the input has no text"))?;
    Ok(String::from_utf8_lossy(&cx.read(file)?).into_owned())
}

const TEXT: PortOf<TextKind> = PortOf::required("text", "The text.");
const OTHER: PortOf<TextKind> = PortOf::optional("other", "What follows it.");

/// Parameters of `text`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextParams {
    /// What it says.
    value: String,
    /// How often it says it.
    #[serde(default = "one")]
    repeat: u32,
    /// Cannot change the result.
    #[serde(default)]
    batch: u32,
    #[serde(default)]
    case: Case,
}

#[derive(Serialize, Deserialize, JsonSchema, Default, Clone, Copy)]
#[serde(rename_all = "snake_case")]
pub enum Case {
    #[default]
    Unchanged,
    Upper,
}

fn one() -> u32 {
    1
}

/// Yields a text.
pub struct Text;

impl StageKind for Text {
    type Params = TextParams;
    const NAME: &'static str = "text";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Yields a text.";
    const DOC: &'static str = "The text is given in the pipeline.";
    type Output = TextKind;

    fn unkeyed() -> &'static [&'static str] {
        &["batch"]
    }

    fn describe(params: &TextParams, _cx: &DescribeCx<'_>) -> Result<PlannedText, Vec<FieldError>> {
        if params.repeat > 100 {
            return Err(vec![
                FieldError::new("repeat", format!("`repeat` is {}", params.repeat)).expected("at most 100"),
            ]);
        }
        Ok(PlannedText { length: Some(params.value.len() * params.repeat as usize) })
    }

    fn resources(_: &TextParams) -> Resources {
        Resources::LIGHT
    }

    fn run(params: &TextParams, cx: &StageContext) -> Result<Artifact, Error> {
        let mut text = params.value.repeat(params.repeat as usize);
        if matches!(params.case, Case::Upper) {
            text = text.to_uppercase();
        }
        Ok(Artifact::new("text", Value::Null).with_file("text", cx.put_bytes(text.as_bytes())?))
    }
}

/// Parameters of `read`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadParams {
    /// The file.
    path: String,
}

/// Yields an external file as it is, without a copy.
pub struct Read;

impl StageKind for Read {
    type Params = ReadParams;
    const NAME: &'static str = "read";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Reads a text file.";
    const DOC: &'static str = "The file is not copied.";
    type Output = TextKind;

    fn files(params: &ReadParams, _base: &Path) -> Result<Vec<ExternalFile>, FieldError> {
        Ok(vec![ExternalFile::new("text", &params.path, "path")])
    }

    fn resources(_: &ReadParams) -> Resources {
        Resources::LIGHT
    }

    fn run(_params: &ReadParams, cx: &StageContext) -> Result<Artifact, Error> {
        Ok(Artifact::new("text", Value::Null).with_file("text", cx.file("text")?.0))
    }
}

/// Copies an external file half by half, and says so in between.
pub struct Copy;

impl StageKind for Copy {
    type Params = ReadParams;
    const NAME: &'static str = "copy";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Copies a text file.";
    const DOC: &'static str = "Each half is a unit.";
    type Output = TextKind;

    fn files(params: &ReadParams, _base: &Path) -> Result<Vec<ExternalFile>, FieldError> {
        Ok(vec![ExternalFile::new("text", &params.path, "path")])
    }

    fn resources(_: &ReadParams) -> Resources {
        Resources::LIGHT
    }

    fn run(_params: &ReadParams, cx: &StageContext) -> Result<Artifact, Error> {
        let (file, path) = cx.file("text")?;
        let mut text = Vec::new();
        for half in 0..2u8 {
            let key = cx.unit_key(&json!({ "file": file.digest.to_string(), "half": half }));
            let part = if let Some(part) = cx.get_unit(&key) {
                part
            } else {
                let whole = std::fs::read(path).map_err(|error| Error::io(ErrorKind::Input, "read", path, error))?;
                let (first, second) = whole.split_at(whole.len() / 2);
                let part = if half == 0 { first } else { second }.to_vec();
                cx.say("a half is read");
                cx.put_unit(&key, &part)?;
                part
            };
            text.extend(part);
        }
        Ok(Artifact::new("text", Value::Null).with_file("text", cx.put_bytes(&text)?))
    }
}

/// Parameters of `join`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinParams {
    /// Stands between the two.
    #[serde(default)]
    between: String,
    /// Only this many characters are kept.
    #[serde(default)]
    keep: Option<usize>,
}

/// Joins two texts.
pub struct Join;

impl StageKind for Join {
    type Params = JoinParams;
    const NAME: &'static str = "join";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Joins two texts.";
    const DOC: &'static str = "The second is optional.";
    type Output = TextKind;

    fn inputs() -> Vec<Port> {
        vec![TEXT.port(), OTHER.port()]
    }

    fn describe(params: &JoinParams, cx: &DescribeCx<'_>) -> Result<PlannedText, Vec<FieldError>> {
        let length = cx.input(TEXT).length;
        match (length, params.keep) {
            (Some(length), Some(keep)) if keep > length && !cx.connected(OTHER) => {
                let error = FieldError::new("keep", format!("`keep` is {keep}, but the text has {length} characters"));
                Err(vec![error.expected(format!("at most {length}"))])
            }
            _ => Ok(PlannedText::default()),
        }
    }

    fn resources(_: &JoinParams) -> Resources {
        Resources::LIGHT
    }

    fn run(params: &JoinParams, cx: &StageContext) -> Result<Artifact, Error> {
        let text = [text_of(cx, TEXT)?, text_of(cx, OTHER)?].join(&params.between);
        let kept: String = text.chars().take(params.keep.unwrap_or(usize::MAX)).collect();
        Ok(Artifact::new("text", Value::Null).with_file("text", cx.put_bytes(kept.as_bytes())?))
    }
}

/// Parameters of stages that have none.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoParams {}

/// Counts letters.
pub struct Count;

impl StageKind for Count {
    type Params = NoParams;
    const NAME: &'static str = "count";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Counts letters.";
    const DOC: &'static str = "Yields metrics and a sample.";
    type Output = ScoresKind;

    fn inputs() -> Vec<Port> {
        vec![TEXT.port()]
    }

    fn resources(_: &NoParams) -> Resources {
        Resources::LIGHT
    }

    fn run(_params: &NoParams, cx: &StageContext) -> Result<Artifact, Error> {
        let text = text_of(cx, TEXT)?;
        let progress = cx.progress("letters", Some(text.len() as u64));
        progress.inc(text.len() as u64);
        let capitals = text.chars().filter(char::is_ascii_uppercase).count() as f64;
        let meta = json!({
            "metrics": { "letters": text.len() as f64, "capitals": capitals / text.len().max(1) as f64 },
            "columns": [
                { "name": "capitals", "label": "capitals", "format": "percent", "better": "max" },
                { "name": "letters", "label": "letters", "format": "number", "better": "min" },
            ],
            "samples": [{ "prompt": "the text", "before": text.to_lowercase(), "after": text }],
        });
        Ok(Artifact::new("scores", meta))
    }
}

/// Parameters of `write`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WriteParams {
    /// Where to.
    path: String,
}

/// Publishes a text.
pub struct Write;

impl StageKind for Write {
    type Params = WriteParams;
    const NAME: &'static str = "write";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Writes a text to a file.";
    const DOC: &'static str = "The file lies outside the store.";
    type Output = PublishedKind;

    fn inputs() -> Vec<Port> {
        vec![TEXT.port()]
    }

    fn publishes(params: &WriteParams) -> Vec<(&'static str, PathBuf)> {
        vec![("path", PathBuf::from(&params.path))]
    }

    fn resources(_: &WriteParams) -> Resources {
        Resources::LIGHT
    }

    fn run(params: &WriteParams, cx: &StageContext) -> Result<Artifact, Error> {
        let path = cx.base_dir().join(&params.path);
        let text = text_of(cx, TEXT)?;
        std::fs::create_dir_all(path.parent().unwrap_or(&path))
            .and_then(|()| std::fs::write(&path, text))
            .map_err(|error| Error::io(ErrorKind::Input, "write", &path, error))?;
        let mut artifact = Artifact::new("published", Value::Null);
        artifact.published.push(cx.publish(&path)?);
        Ok(artifact)
    }
}

/// Parameters of `fail`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FailParams {
    /// How.
    how: String,
}

/// Fails.
pub struct Fail;

impl StageKind for Fail {
    type Params = FailParams;
    const NAME: &'static str = "fail";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Fails.";
    const DOC: &'static str = "In the way that is asked for.";
    type Output = TextKind;

    fn run(params: &FailParams, cx: &StageContext) -> Result<Artifact, Error> {
        match params.how.as_str() {
            "panic" => panic!("the stage lost its mind"),
            "numerical" => Err(Error::numerical("the matrix is not positive definite").hint("raise `lambda`")),
            "kind" => Ok(Artifact::new("moments", Value::Null)),
            "lie" => Ok(Artifact::new("text", Value::Null).with_file("text", palinode_engine::FileRef::of(b"nowhere"))),
            warn if warn.starts_with("warn") => {
                cx.warn("mind this: it is odd");
                Ok(Artifact::new("text", Value::Null).with_file("text", cx.put_bytes(warn.as_bytes())?))
            }
            "abort" => std::process::abort(),
            "kill" => {
                let pid = std::process::id().to_string();
                let killed = std::process::Command::new("kill").args(["-9", &pid]).status();
                unreachable!("{killed:?}")
            }
            // Until it is stopped.
            "never" => loop {
                cx.check_interrupt()?;
                std::thread::yield_now();
            },
            "deaf" => loop {
                std::thread::park();
            },
            "twice" => {
                let done = cx.get_unit(&cx.unit_key(&"tries")).map_or(0, |bytes| bytes[0]);
                cx.put_unit(&cx.unit_key(&"tries"), &[done + 1])?;
                if done < 2 {
                    return Err(Error::store(format!("failed {} times", done + 1)));
                }
                Ok(Artifact::new("text", Value::Null).with_file("text", cx.put_bytes(&[b'0' + done])?))
            }
            // The process of its first attempt is gone.
            "once" => {
                let begun = cx.get_unit(&cx.unit_key(&"begun")).is_some();
                cx.put_unit(&cx.unit_key(&"begun"), b"")?;
                if !begun {
                    std::process::abort()
                }
                Ok(Artifact::new("text", Value::Null).with_file("text", cx.put_bytes(b"at last")?))
            }
            "unit" => {
                let done = cx.get_unit(&cx.unit_key(&"counted")).map_or(0, |bytes| bytes[0]);
                cx.put_unit(&cx.unit_key(&"counted"), &[done + 1])?;
                Err(Error::input(format!("tried {} times", done + 1)).at("data.txt", Some(3)))
            }
            other => Err(Error::input(other)),
        }
    }
}

/// Parameters of `meet`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MeetParams {
    /// Who meets; one of them has a name of its own.
    group: String,
    name: String,
    /// How many have to be at work at once before any of them ends; 1 for one that wants to be alone.
    count: usize,
}

/// Waits for others like it, or makes sure that there are none.
pub struct Meet;

/// Who is at work, and the most that ever were, by group.
static AT_WORK: Mutex<BTreeMap<String, (usize, usize)>> = Mutex::new(BTreeMap::new());
static CAME: Condvar = Condvar::new();

impl StageKind for Meet {
    type Params = MeetParams;
    const NAME: &'static str = "meet";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Meets others.";
    const DOC: &'static str = "Shows which stages run side by side.";
    type Output = TextKind;

    fn resources(params: &MeetParams) -> Resources {
        if params.count > 1 { Resources::LIGHT } else { Resources::MACHINE }
    }

    fn run(params: &MeetParams, cx: &StageContext) -> Result<Artifact, Error> {
        let mut all = AT_WORK.lock().unwrap();
        let here = all.entry(params.group.clone()).or_default();
        here.0 += 1;
        here.1 = here.1.max(here.0);
        CAME.notify_all();
        // Far longer than a busy machine takes to begin a thread; only a failure waits for so long.
        let (mut all, waited) =
            CAME.wait_timeout_while(all, Duration::from_mins(1), |all| all[&params.group].1 < params.count).unwrap();
        let (now, most) = all[&params.group];
        all.get_mut(&params.group).unwrap().0 -= 1;
        drop(all);
        if waited.timed_out() || most > params.count {
            return Err(Error::input(format!("{now} at work, {most} at most, {} expected", params.count)));
        }
        Ok(Artifact::new("text", Value::Null).with_file("text", cx.put_bytes(params.name.as_bytes())?))
    }
}

/// All toy stages.
pub fn catalogue() -> Catalogue {
    let mut catalogue = Catalogue::new();
    catalogue.register::<Text>().register::<Read>().register::<Join>().register::<Count>();
    catalogue.register::<Write>().register::<Fail>().register::<Meet>().register::<Copy>();
    catalogue
}

/// Keeps all events.
#[derive(Default)]
pub struct Recorder(pub Mutex<Vec<Event>>);

impl Observer for Recorder {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

/// A folder with a pipeline and a store.
pub struct Bench {
    pub dir: TempDir,
    pub catalogue: Catalogue,
}

impl Bench {
    pub fn new() -> Self {
        Self { dir: TempDir::new().unwrap(), catalogue: catalogue() }
    }

    /// In memory where that can be had: for tests that write much and power cuts do not matter to.
    pub fn in_memory() -> Self {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        Self { dir: dir.unwrap(), catalogue: catalogue() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn store_path(&self) -> PathBuf {
        self.path(".palinode")
    }

    pub fn load(&self, yaml: &str, set: &[&str]) -> Result<Pipeline, Diagnostics> {
        let set: Vec<String> = set.iter().map(|&text| text.to_owned()).collect();
        Pipeline::load(&Source::new("p.yaml", yaml), self.dir.path(), &set, &self.catalogue)
    }

    pub fn store(&self) -> Arc<Store> {
        Arc::new(Store::open(&self.store_path()).unwrap())
    }

    pub fn plan(&self, yaml: &str) -> Plan {
        palinode_engine::plan(&self.load(yaml, &[]).unwrap(), &self.store(), &Silent).unwrap()
    }

    pub fn run(&self, yaml: &str) -> RunReport {
        self.run_with(yaml, &RunOptions::default(), &(Arc::new(Silent) as Arc<dyn Observer>))
    }

    pub fn run_with(&self, yaml: &str, options: &RunOptions, observer: &Arc<dyn Observer>) -> RunReport {
        let pipeline = self.load(yaml, &[]).unwrap();
        palinode_engine::run(&pipeline, &self.catalogue, &self.store(), options, observer).unwrap()
    }

    /// `instance: outcome` lines.
    pub fn outcomes(&self, yaml: &str) -> String {
        outcomes(&self.run(yaml))
    }
}

/// `instance: outcome` lines.
pub fn outcomes(report: &RunReport) -> String {
    let line = |stage: &palinode_engine::StageReport| {
        let outcome = match &stage.outcome {
            Outcome::Cached => "cached".to_owned(),
            Outcome::Ran => "ran".to_owned(),
            Outcome::Failed { kind, message, .. } => format!("failed ({kind:?}): {message}"),
            Outcome::Skipped { because } => format!("skipped because of {because:?}"),
            Outcome::NotAsked => "not asked".to_owned(),
        };
        format!("{}: {outcome}\n", stage.instance)
    };
    report.stages.iter().map(line).collect()
}

/// An interrupt that was pulled already.
pub fn interrupted() -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(true))
}
