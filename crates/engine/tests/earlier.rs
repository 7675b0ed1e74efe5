//! Results of an earlier version that had files in its keys from which nothing is computed: they are found as they are, whatever became of
//! those files.

mod common;

use std::fs;
use std::path::Path;

use common::{Bench, TextKind, catalogue, outcomes};
use palinode_engine::{
    Artifact, Error, ExternalFile, FieldError, RunOptions, Selection, Silent, StageContext, StageKind, Status,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Parameters of `folder`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FolderParams {}

fn file(name: &str) -> ExternalFile {
    ExternalFile::new(name, name, "")
}

fn all(cx: &StageContext) -> Artifact {
    let files = cx.files().iter();
    files.fold(Artifact::new("text", Value::Null), |made, (name, (file, _))| made.with_file(name, *file))
}

/// As an earlier version had it.
struct Before;

impl StageKind for Before {
    type Params = FolderParams;
    const NAME: &'static str = "folder";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Reads a folder.";
    const DOC: &'static str = "All of it.";
    type Output = TextKind;

    fn files(_: &FolderParams, _: &Path) -> Result<Vec<ExternalFile>, FieldError> {
        Ok(vec![file("text"), file("other")])
    }

    fn run(_: &FolderParams, cx: &StageContext) -> Result<Artifact, Error> {
        Ok(all(cx))
    }
}

/// As it is now.
struct Now;

impl StageKind for Now {
    type Params = FolderParams;
    const NAME: &'static str = "folder";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Reads a folder.";
    const DOC: &'static str = "What counts of it.";
    type Output = TextKind;

    fn files(_: &FolderParams, _: &Path) -> Result<Vec<ExternalFile>, FieldError> {
        Ok(vec![file("text")])
    }

    fn decides_nothing(file: &str) -> bool {
        file == "other"
    }

    fn run(_: &FolderParams, cx: &StageContext) -> Result<Artifact, Error> {
        Ok(all(cx))
    }
}

const PIPELINE: &str = "
name: a
stages:
  folder: { uses: folder }
  both: { uses: join, inputs: { text: folder, other: folder } }
";

#[test]
fn results_with_files_that_decided_nothing_are_found() {
    let mut bench = Bench::new();
    fs::write(bench.path("text"), "t").unwrap();
    fs::write(bench.path("other"), "1").unwrap();
    bench.catalogue = catalogue();
    bench.catalogue.register::<Before>();
    assert_eq!(bench.outcomes(PIPELINE), "folder: ran\nboth: ran\n");
    let keys = |bench: &Bench| -> Vec<String> {
        bench.plan(PIPELINE).entries.iter().map(|entry| format!("{:?}", entry.status)).collect()
    };
    let before = keys(&bench);
    // The earlier version ran it again for nothing.
    fs::write(bench.path("other"), "2").unwrap();
    assert!(matches!(bench.plan(PIPELINE).entries[0].status, Status::WillRun { .. }));

    bench.catalogue = catalogue();
    bench.catalogue.register::<Now>();
    for other in [Some("1"), Some("2"), None] {
        match other {
            Some(text) => fs::write(bench.path("other"), text).unwrap(),
            None => fs::remove_file(bench.path("other")).unwrap(),
        }
        for index in [true, false] {
            if !index {
                fs::remove_dir_all(bench.store_path().join("index")).unwrap();
            }
            assert_eq!(keys(&bench), before, "{other:?}");
            assert_eq!(bench.outcomes(PIPELINE), "folder: cached\nboth: cached\n", "{other:?}");
        }
    }
    // What counts does count; and what is made anew has the key of this version.
    let forced = Selection { force: vec!["folder".to_owned()], ..Selection::default() };
    let report = bench.run_with(
        PIPELINE,
        &RunOptions { selection: forced, ..RunOptions::default() },
        &(std::sync::Arc::new(Silent) as _),
    );
    assert!(outcomes(&report).starts_with("folder: ran\n"), "{}", outcomes(&report));
    assert_ne!(keys(&bench)[0], before[0]);
    fs::write(bench.path("text"), "u").unwrap();
    assert_eq!(bench.outcomes(PIPELINE), "folder: ran\nboth: ran\n");
}
