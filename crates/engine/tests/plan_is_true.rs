//! What a plan says is what a run then does, for random pipelines and random edits of them.

mod common;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use common::Bench;
use palinode_engine::{
    ErrorKind, Event, Machine, Observer, Outcome, Pipeline, Reason, RunOptions, RunReport, Silent, Status, Store, plan,
    run,
};
use proptest::prelude::*;

/// A stage of a random pipeline: a text when it has no inputs, a join otherwise.
#[derive(Clone, Debug)]
struct Stage {
    inputs: Vec<usize>,
    word: u8,
    keep: Option<usize>,
    axis: bool,
    published: bool,
    /// Without inputs: reads the file of this number instead of saying its word.
    file: Option<u8>,
}

fn stage(index: usize) -> impl Strategy<Value = Stage> {
    (
        prop::collection::vec(0..index.max(1), 0..3),
        0u8..3,
        prop::option::of(0usize..3),
        any::<bool>(),
        prop::bool::weighted(0.2),
        prop::option::weighted(0.3, 0u8..2),
    )
        .prop_map(move |(mut inputs, word, keep, axis, published, file)| {
            if index == 0 {
                inputs.clear();
            }
            Stage { inputs, word, keep, axis, published, file }
        })
}

fn pipeline() -> impl Strategy<Value = Vec<Stage>> {
    (1usize..7).prop_flat_map(|length| (0..length).map(stage).collect::<Vec<_>>())
}

fn yaml(stages: &[Stage]) -> String {
    let mut text =
        "name: random\nmatrix: {axis: [a, b]}\nstages:\n  reader: {uses: text, with: {value: '${matrix.axis}'}}\n"
            .to_owned();
    for (index, stage) in stages.iter().enumerate() {
        let word = format!("w{}{}", stage.word, if stage.axis { "${matrix.axis}" } else { "" });
        let Stage { inputs, keep, .. } = stage;
        let _ = match inputs.as_slice() {
            [] if stage.file.is_some() => {
                let file = stage.file.unwrap_or_default();
                // By its word, so that the same pipelines read files in both ways.
                let uses = if stage.word == 0 { "copy" } else { "read" };
                writeln!(text, "  s{index}: {{uses: {uses}, with: {{path: 'in{file}'}}}}")
            }
            [] => writeln!(text, "  s{index}: {{uses: text, with: {{value: '{word}'}}}}"),
            [first, rest @ ..] => {
                let other = rest.first().map_or(String::new(), |other| format!(", other: s{other}"));
                let keep = keep.map_or("null".to_owned(), |keep| (keep + 1).to_string());
                writeln!(
                    text,
                    "  s{index}: {{uses: join, inputs: {{text: s{first}{other}}}, with: {{between: '{word}', keep: {keep}}}}}"
                )
            }
        };
        if stage.published {
            let _ = writeln!(
                text,
                "  p{index}: {{uses: write, inputs: {{text: s{index}}}, with: {{path: 'out/{index}${{matrix.axis}}'}}}}"
            );
        }
    }
    text
}

/// What happens between two runs.
#[derive(Clone, Debug)]
enum Edit {
    Nothing,
    Replace(Vec<Stage>),
    Word(usize, u8),
    Keep(usize, Option<usize>),
    Publish(usize),
    /// Writes an input file anew, in place and of the same length, often within one tick of the file system's clock.
    File(u8, u8),
    LoseIndex,
    LosePublished,
    LoseBlobs(usize),
    LoseManifests(usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        Just(Edit::Nothing),
        pipeline().prop_map(Edit::Replace),
        (0usize..7, 0u8..3).prop_map(|(at, word)| Edit::Word(at, word)),
        (0usize..7, prop::option::of(0usize..3)).prop_map(|(at, keep)| Edit::Keep(at, keep)),
        (0usize..7).prop_map(Edit::Publish),
        (0u8..2, 0u8..3).prop_map(|(file, word)| Edit::File(file, word)),
        Just(Edit::LoseIndex),
        Just(Edit::LosePublished),
        (0usize..3).prop_map(Edit::LoseBlobs),
        (0usize..3).prop_map(Edit::LoseManifests),
    ]
}

fn apply(bench: &Bench, stages: &mut Vec<Stage>, edit: &Edit) {
    let at = |index: usize, stages: &Vec<Stage>| index % stages.len().max(1);
    match edit {
        Edit::Nothing => {}
        Edit::Replace(others) => stages.clone_from(others),
        Edit::Word(index, word) => {
            let index = at(*index, stages);
            stages[index].word = *word;
        }
        Edit::Keep(index, keep) => {
            let index = at(*index, stages);
            stages[index].keep = *keep;
        }
        Edit::Publish(index) => {
            let index = at(*index, stages);
            stages[index].published = true;
        }
        Edit::LoseIndex => drop(std::fs::remove_dir_all(bench.store_path().join("index"))),
        Edit::LosePublished => drop(std::fs::remove_dir_all(bench.path("out"))),
        Edit::File(file, word) => std::fs::write(bench.path(&format!("in{file}")), format!("w{word}")).unwrap(),
        Edit::LoseBlobs(nth) => lose(&bench.store_path().join("blobs"), *nth),
        Edit::LoseManifests(nth) => {
            lose(&bench.store_path().join("actions"), *nth);
            // The index would know them still.
            drop(std::fs::remove_dir_all(bench.store_path().join("index")));
        }
    }
}

/// Removes every third folder.
fn lose(folder: &Path, nth: usize) {
    let folders = std::fs::read_dir(folder).into_iter().flatten().flatten();
    folders.skip(nth).step_by(3).for_each(|folder| drop(std::fs::remove_dir_all(folder.path())));
}

fn bench() -> Bench {
    let bench = Bench::in_memory();
    for file in 0..2 {
        apply(&bench, &mut Vec::new(), &Edit::File(file, 0));
    }
    bench
}

/// Plans and runs, and compares what was planned with what was done.
fn agree(
    loaded: &Pipeline,
    bench: &Bench,
    store: &Arc<Store>,
    options: &RunOptions,
) -> Result<RunReport, TestCaseError> {
    let silent: Arc<dyn Observer> = Arc::new(Silent);
    let planned = plan(loaded, store, silent.as_ref()).unwrap();
    let report = run(loaded, &bench.catalogue, store, options, &silent).unwrap();
    for (entry, stage) in planned.entries.iter().zip(&report.stages) {
        prop_assert_eq!(&entry.instance, &stage.instance);
        let kept = match &entry.status {
            Status::Cached { .. } | Status::SameAs { .. } => stage.outcome == Outcome::Cached,
            // What was lost may come back when another stage happens to yield the same: then nothing has to run.
            Status::WillRun { reasons, .. } if reasons.iter().all(|reason| matches!(reason, Reason::Lost { .. })) => {
                matches!(stage.outcome, Outcome::Ran | Outcome::Cached)
            }
            Status::WillRun { reasons, .. } => stage.outcome == Outcome::Ran && !reasons.is_empty(),
            Status::DependsOn { upstream } => {
                !upstream.is_empty() && matches!(stage.outcome, Outcome::Ran | Outcome::Cached)
            }
        };
        prop_assert!(kept, "{}: planned {:?}, was {:?}", entry.instance, entry.status, stage.outcome);
    }
    // What was just run has nothing left to do.
    let again = plan(loaded, store, silent.as_ref()).unwrap();
    let left: Vec<_> = again.entries.iter().filter(|entry| !matches!(entry.status, Status::Cached { .. })).collect();
    prop_assert!(left.is_empty(), "{left:?} of {loaded:?}");
    Ok(report)
}

/// What is cached is right: a store of its own gives the same.
fn right(loaded: &Pipeline, bench: &Bench, last: &RunReport) -> Result<(), TestCaseError> {
    let silent: Arc<dyn Observer> = Arc::new(Silent);
    let fresh = Arc::new(Store::open(&bench.path("fresh")).unwrap());
    let afresh = run(loaded, &bench.catalogue, &fresh, &RunOptions::default(), &silent).unwrap();
    for (kept, made) in last.stages.iter().zip(&afresh.stages) {
        let digest = |stage: &palinode_engine::StageReport| stage.artifact.as_ref().map(|artifact| artifact.digest());
        prop_assert_eq!(digest(kept), digest(made));
    }
    Ok(())
}

/// Writes files while a run goes on: at which of its events, which file.
struct Meddler {
    files: Vec<PathBuf>,
    at: Vec<(usize, u8)>,
    state: Mutex<(usize, usize)>,
}

impl Meddler {
    /// `written` is how many contents there were before: no two are alike.
    fn new(bench: &Bench, at: &[(usize, u8)], written: usize) -> Self {
        let files = (0..2).map(|file| bench.path(&format!("in{file}"))).collect();
        Self { files, at: at.to_vec(), state: Mutex::new((0, written)) }
    }
}

impl Observer for Meddler {
    fn event(&self, event: &Event) {
        if matches!(event, Event::Said { .. } | Event::StageStarted { .. } | Event::UnitDone { .. }) {
            let mut state = self.state.lock().unwrap();
            let now = state.0;
            for (_, file) in self.at.iter().filter(|(at, _)| *at == now) {
                std::fs::write(&self.files[usize::from(*file)], format!("w{:05}", state.1)).unwrap();
                state.1 += 1;
            }
            state.0 += 1;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn plan_is_what_run_does(mut stages in pipeline(), edits in prop::collection::vec(edit(), 1..5), jobs in 1usize..5) {
        let bench = bench();
        // Side by side or one by one: what a plan says does not depend on it.
        let options = RunOptions { jobs: Some(jobs), machine: Machine { cores: 4, memory: u64::MAX, gpus: 1 }, ..RunOptions::default() };
        let mut last = None;
        for edit in std::iter::once(&Edit::Nothing).chain(&edits) {
            apply(&bench, &mut stages, edit);
            let loaded = bench.load(&yaml(&stages), &[]);
            prop_assert!(loaded.is_ok() || loaded.as_ref().is_err_and(|mistakes| mistakes.0.iter().all(|it| it.message.contains("keep"))), "{loaded:?}");
            let Ok(loaded) = loaded else { continue };
            let store = bench.store();
            let report = agree(&loaded, &bench, &store, &options)?;
            last = Some(report);
        }
        // And what is cached is right: a store of its own gives the same.
        let Some(last) = last else { return Ok(()) };
        let Ok(loaded) = bench.load(&yaml(&stages), &[]) else { return Ok(()) };
        right(&loaded, &bench, &last)?;
    }

    /// Files change at any moment of a run. Stages that read them then have no result, or one of what the files hold when they are read
    /// as a whole; what plans say of the store afterwards, and what is in it, is right.
    #[test]
    fn nothing_is_kept_of_files_that_changed(
        stages in pipeline(),
        rounds in prop::collection::vec(prop::collection::vec((0usize..12, 0u8..2), 0..4), 1..4),
        jobs in 1usize..4,
    ) {
        let bench = bench();
        let machine = Machine { cores: 4, memory: u64::MAX, gpus: 1 };
        let options = RunOptions { jobs: Some(jobs), machine, keep_going: true, ..RunOptions::default() };
        let Ok(loaded) = bench.load(&yaml(&stages), &[]) else { return Ok(()) };
        let store = bench.store();
        let mut written = 0;
        for at in &rounds {
            let meddler = Arc::new(Meddler::new(&bench, at, written));
            let observer: Arc<dyn Observer> = meddler.clone();
            let report = run(&loaded, &bench.catalogue, &store, &options, &observer).unwrap();
            written = meddler.state.lock().unwrap().1;
            for stage in &report.stages {
                let allowed = match &stage.outcome {
                    Outcome::Failed { kind, .. } => *kind == ErrorKind::Changed,
                    _ => true,
                };
                prop_assert!(allowed, "{}: {:?}", stage.instance, stage.outcome);
            }
        }
        let last = agree(&loaded, &bench, &store, &options)?;
        right(&loaded, &bench, &last)?;
    }
}
