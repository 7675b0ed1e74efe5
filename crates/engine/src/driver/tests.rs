//! A driver with an executor that outlives its coordinator, as one on a cluster does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::*;
use crate::catalogue::Catalogue;
use crate::context::StageContext;
use crate::event::Silent;
use crate::executor::Local;
use crate::machine::{Capacity, Machine};
use crate::scheduler::{Backoff, Cancel};
use crate::shared::SharedPool;
use crate::stage::StageKind;
use palinode_pipeline::{Kind, Resources, Selection, Source};
use palinode_store::Store;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WordParams {
    value: String,
}

/// Words, which say themselves.
struct WordKind;

impl Kind for WordKind {
    const NAME: &'static str = "word";
    type Facts = String;
    type Planned = ();
}

/// Yields a word.
struct Word;

impl StageKind for Word {
    type Params = WordParams;
    const NAME: &'static str = "word";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Yields a word.";
    const DOC: &'static str = "The word is given.";
    type Output = WordKind;

    fn resources(_: &WordParams) -> Resources {
        Resources::LIGHT
    }

    fn run(params: &WordParams, _: &StageContext) -> Result<Artifact, Error> {
        crate::artifact::<WordKind>(&params.value)
    }
}

/// Threads, and attempts of an earlier coordinator that are found again and then turn out to be lost.
struct Outlives {
    local: Local,
    found: VecDeque<AttemptId>,
    left: Arc<Mutex<Vec<AttemptId>>>,
}

impl Executor for Outlives {
    fn name(&self) -> &'static str {
        "cluster"
    }

    fn capacity(&self) -> Capacity {
        self.local.capacity()
    }

    fn submit(&mut self, tasks: Vec<Task>) {
        self.local.submit(tasks);
    }

    fn next(&mut self, wait: Duration) -> Option<Notice> {
        let lost = |attempt| {
            let error = Error::new(ErrorKind::Limit, "the node is gone");
            Notice::Ended(attempt, Box::new(Err(AttemptError { error, lost: true })))
        };
        self.found.pop_front().map(lost).or_else(|| self.local.next(wait))
    }

    fn cancel(&mut self, attempt: AttemptId, how: Cancel) {
        self.local.cancel(attempt, how);
    }

    fn reattach(&mut self, left: &[(AttemptId, Attempt)]) -> Vec<AttemptId> {
        self.left.lock().unwrap().extend(left.iter().map(|(id, _)| *id));
        let found = left.iter().filter(|(_, attempt)| attempt.host == "node7");
        self.found = found.map(|(id, _)| *id).collect();
        self.found.iter().copied().collect()
    }
}

/// The attempt that was found again is waited for and, when it is lost, followed by the next one; the one that is gone is closed in the
/// record, and its instance starts afresh.
#[test]
fn attempts_of_an_earlier_coordinator_are_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut catalogue = Catalogue::new();
    catalogue.register::<Word>();
    let yaml = "name: p\nstages:\n  found: {uses: word, with: {value: a}, retries: 1}\n  gone: {uses: word, with: {value: b}}\n";
    let pipeline = Pipeline::load(&Source::new("p.yaml", yaml), dir.path(), &[], &catalogue).unwrap();
    let context = RunContext {
        store: Arc::new(Store::open(&dir.path().join("store")).unwrap()),
        base: dir.path().to_owned(),
        device: "cpu".to_owned(),
        settings: BTreeMap::new(),
        observer: Arc::new(Silent),
        interrupt: Arc::default(),
        pool: Arc::new(SharedPool::default()),
    };
    let run_dir = context.store.run_dir("r");
    std::fs::create_dir_all(&run_dir).unwrap();
    let mut earlier = AttemptLog::new(&run_dir);
    for (instance, number, host) in [("found", 3, "node7"), ("gone", 1, "node8")] {
        let (instance, executor, host) = (instance.to_owned(), "cluster".to_owned(), host.to_owned());
        let key = Key(Digest::of(instance.as_bytes()));
        let attempt = Attempt { instance, key, number, executor, host, pid: 1, begun_ms: 5, end: None };
        earlier.begun(attempt).unwrap();
    }
    let capacity = Capacity { machine: Machine { cores: 2, memory: 1, gpus: 0 }, jobs: 2 };
    let left = Arc::default();
    let local = Local::new(&context, &catalogue, capacity);
    let executor = Box::new(Outlives { local, found: VecDeque::new(), left: Arc::clone(&left) });
    let backoff = Backoff { first: Duration::ZERO, most: Duration::ZERO };
    let options = RunOptions { backoff, keep_going: true, ..RunOptions::default() };
    let chosen = Selection::default().choose(&pipeline).unwrap();
    let reports = Driver::new(&pipeline, &context, "r", &options, &chosen, executor).run();
    assert_eq!(reports.iter().map(|report| report.outcome.clone()).collect::<Vec<_>>(), [Outcome::Ran, Outcome::Ran]);
    let id = |instance, number| AttemptId { instance, number };
    assert_eq!(*left.lock().unwrap(), [id(0, 3), id(1, 1)]);
    let mut lines: Vec<String> = attempts::read(&run_dir)
        .iter()
        .map(|attempt| {
            let end = attempt.end.as_ref().map(|end| end.failure.as_ref().map_or("done", |failure| &failure.message));
            format!("{} {}: {}", attempt.instance, attempt.number, end.unwrap_or("open"))
        })
        .collect();
    lines.sort();
    assert_eq!(
        lines,
        [
            "found 3: the node is gone",
            "found 4: done",
            "gone 1: done",
            "gone 1: the process of its run ended, and the attempt with it",
        ]
    );
}
