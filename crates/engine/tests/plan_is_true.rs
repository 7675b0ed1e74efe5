//! What a plan says is what a run then does, for random pipelines and random edits of them.

mod common;

use std::fmt::Write as _;
use std::sync::Arc;

use common::Bench;
use palinode_engine::{Observer, Outcome, Reason, RunOptions, Silent, Status, plan, run};
use proptest::prelude::*;

/// A stage of a random pipeline: a text when it has no inputs, a join otherwise.
#[derive(Clone, Debug)]
struct Stage {
    inputs: Vec<usize>,
    word: u8,
    keep: Option<usize>,
    axis: bool,
    published: bool,
}

fn stage(index: usize) -> impl Strategy<Value = Stage> {
    (
        prop::collection::vec(0..index.max(1), 0..3),
        0u8..3,
        prop::option::of(0usize..3),
        any::<bool>(),
        prop::bool::weighted(0.2),
    )
        .prop_map(move |(mut inputs, word, keep, axis, published)| {
            if index == 0 {
                inputs.clear();
            }
            Stage { inputs, word, keep, axis, published }
        })
}

fn pipeline() -> impl Strategy<Value = Vec<Stage>> {
    (1usize..7).prop_flat_map(|length| (0..length).map(stage).collect::<Vec<_>>())
}

fn yaml(stages: &[Stage]) -> String {
    let mut text = "name: random\nmatrix: {axis: [a, b]}\nstages:\n".to_owned();
    for (index, stage) in stages.iter().enumerate() {
        let word = format!("w{}{}", stage.word, if stage.axis { "${matrix.axis}" } else { "" });
        let Stage { inputs, keep, .. } = stage;
        let _ = match inputs.as_slice() {
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
    LoseIndex,
    LosePublished,
    LoseBlobs(usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        Just(Edit::Nothing),
        pipeline().prop_map(Edit::Replace),
        (0usize..7, 0u8..3).prop_map(|(at, word)| Edit::Word(at, word)),
        (0usize..7, prop::option::of(0usize..3)).prop_map(|(at, keep)| Edit::Keep(at, keep)),
        (0usize..7).prop_map(Edit::Publish),
        Just(Edit::LoseIndex),
        Just(Edit::LosePublished),
        (0usize..3).prop_map(Edit::LoseBlobs),
    ]
}

fn apply(bench: &Bench, stages: &mut Vec<Stage>, edit: &Edit) {
    let at = |index: usize, stages: &Vec<Stage>| index % stages.len();
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
        Edit::LoseBlobs(nth) => {
            let folders = std::fs::read_dir(bench.store_path().join("blobs")).into_iter().flatten().flatten();
            folders.skip(*nth).step_by(3).for_each(|folder| drop(std::fs::remove_dir_all(folder.path())));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn plan_is_what_run_does(mut stages in pipeline(), edits in prop::collection::vec(edit(), 1..5)) {
        let bench = Bench::new();
        let silent: Arc<dyn Observer> = Arc::new(Silent);
        for edit in std::iter::once(&Edit::Nothing).chain(&edits) {
            apply(&bench, &mut stages, edit);
            let loaded = bench.load(&yaml(&stages), &[]);
            prop_assert!(loaded.is_ok() || loaded.as_ref().is_err_and(|mistakes| mistakes.0.iter().all(|it| it.message.contains("keep"))), "{loaded:?}");
            let Ok(loaded) = loaded else { continue };
            let store = bench.store();
            let planned = plan(&loaded, &store, silent.as_ref()).unwrap();
            let report = run(&loaded, &store, &RunOptions::default(), &silent).unwrap();
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
            // And what is cached is right: a store of its own gives the same.
            let fresh = Bench::new();
            let afresh = run(&fresh.load(&yaml(&stages), &[]).unwrap(), &fresh.store(), &RunOptions::default(), &silent).unwrap();
            for (kept, made) in report.stages.iter().zip(&afresh.stages) {
                let digest = |stage: &palinode_engine::StageReport| stage.artifact.as_ref().map(|artifact| artifact.digest());
                prop_assert_eq!(digest(kept), digest(made));
            }
        }
    }
}
