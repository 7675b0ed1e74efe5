//! What a plan says is what a run then does, for random pipelines and random edits of them.

mod common;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use common::Bench;
use palinode_engine::{Machine, Observer, Outcome, Reason, RunOptions, Silent, Status, Store, plan, run};
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
                writeln!(text, "  s{index}: {{uses: read, with: {{path: 'in{file}'}}}}")
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn plan_is_what_run_does(mut stages in pipeline(), edits in prop::collection::vec(edit(), 1..5), jobs in 1usize..5) {
        let bench = bench();
        // Side by side or one by one: what a plan says does not depend on it.
        let options = RunOptions { jobs: Some(jobs), machine: Machine { cores: 4, memory: u64::MAX, gpus: 1 }, ..RunOptions::default() };
        let silent: Arc<dyn Observer> = Arc::new(Silent);
        let mut last = None;
        for edit in std::iter::once(&Edit::Nothing).chain(&edits) {
            apply(&bench, &mut stages, edit);
            let loaded = bench.load(&yaml(&stages), &[]);
            prop_assert!(loaded.is_ok() || loaded.as_ref().is_err_and(|mistakes| mistakes.0.iter().all(|it| it.message.contains("keep"))), "{loaded:?}");
            let Ok(loaded) = loaded else { continue };
            let store = bench.store();
            let planned = plan(&loaded, &store, silent.as_ref()).unwrap();
            let report = run(&loaded, &bench.catalogue, &store, &options, &silent).unwrap();
            for (entry, stage) in planned.entries.iter().zip(&report.stages) {
                prop_assert_eq!(&entry.instance, &stage.instance);
                let kept = match &entry.status {
                    Status::Cached { .. } | Status::SameAs { .. } => stage.outcome == Outcome::Cached,
                    // What was lost may come back when another stage happens to yield the same: then nothing has to run.
                    Status::WillRun { reasons, .. } if reasons.iter().all(|reason| matches!(reason, Reason::Lost { .. })) => {
                        matches!(stage.outcome, Outcome::Ran | Outcome::Cached)
                    }
                    Status::WillRun { reasons, .. } => stage.outcome == Outcome::Ran && !reasons.is_empty(),
                    Status::DependsOn { upstream } => !upstream.is_empty() && matches!(stage.outcome, Outcome::Ran | Outcome::Cached),
                };
                prop_assert!(kept, "{}: planned {:?}, was {:?}", entry.instance, entry.status, stage.outcome);
            }
            // What was just run has nothing left to do.
            let again = plan(&loaded, &store, silent.as_ref()).unwrap();
            let left: Vec<_> = again.entries.iter().filter(|entry| !matches!(entry.status, Status::Cached { .. })).collect();
            prop_assert!(left.is_empty(), "{left:?} of {}", yaml(&stages));
            last = Some(report);
        }
        // And what is cached is right: a store of its own gives the same.
        let Some(last) = last else { return Ok(()) };
        let fresh = Store::open(&bench.path("fresh")).unwrap();
        let Ok(loaded) = bench.load(&yaml(&stages), &[]) else { return Ok(()) };
        let afresh = run(&loaded, &bench.catalogue, &Arc::new(fresh), &RunOptions::default(), &silent).unwrap();
        for (kept, made) in last.stages.iter().zip(&afresh.stages) {
            let digest = |stage: &palinode_engine::StageReport| stage.artifact.as_ref().map(|artifact| artifact.digest());
            prop_assert_eq!(digest(kept), digest(made));
        }
    }
}
