//! A pipeline is loaded from the files that it is given: here from none but those in memory.

mod common;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use palinode_engine::{Diagnostics, ErrorKind, Files, Pipeline, Source};

/// Files by their full path.
struct Memory(BTreeMap<PathBuf, &'static str>);

impl Files for Memory {
    fn text(&self, path: &Path) -> io::Result<String> {
        self.0.get(path).map(|&text| text.to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn is_file(&self, path: &Path) -> io::Result<bool> {
        self.text(path).map(|_| true)
    }

    fn identity(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }

    fn names(&self, folder: &Path) -> Vec<String> {
        let inside = self.0.keys().filter(|path| path.parent() == Some(folder));
        inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect()
    }
}

const PIPELINE: &str = "
name: memory
include: parts/words.yaml
stages:
  read: { uses: read, with: { path: words.txt } }
  both: { uses: join, inputs: { text: read, other: word } }
";

fn check(files: &[(&str, &'static str)]) -> Result<Vec<String>, String> {
    let base = Path::new("/nowhere");
    let files = Memory(files.iter().map(|&(name, text)| (base.join(name), text)).collect());
    let loaded = Pipeline::check_in(&files, &Source::new("p.yaml", PIPELINE), base, &[], &common::catalogue());
    let told = |mistakes: Diagnostics| -> Vec<String> {
        mistakes
            .0
            .iter()
            .map(|mistake| {
                format!("{} ({})", mistake.message, mistake.hint.as_ref().map_or("-".to_owned(), ToString::to_string))
            })
            .collect()
    };
    let (pipeline, absent) = loaded.map_err(|mistakes| told(mistakes).join("\n"))?;
    let names = pipeline.instances.iter().map(|instance| instance.name.clone());
    Ok(names.chain(told(absent)).collect())
}

#[test]
fn a_pipeline_needs_no_disk() {
    let words = "stages: { word: { uses: text, with: { value: a } } }";
    assert_eq!(check(&[("parts/words.yaml", words), ("words.txt", "x")]).unwrap(), ["word", "read", "both"]);
    assert_eq!(
        check(&[("parts/words.yaml", words)]).unwrap(),
        [
            "word",
            "read",
            "both",
            "cannot read words.txt: entity not found (paths start from the pipeline file's folder)"
        ]
    );
    assert_eq!(
        check(&[("parts/world.yaml", words)]).unwrap_err(),
        "cannot read parts/words.yaml: entity not found (did you mean `parts/world.yaml`?)"
    );
}

/// Files that include two others each are read a bounded number of times; a device is no file, and what is not UTF-8 is said with its place.
#[test]
fn files_that_are_none_are_refused() {
    let bench = common::Bench::new();
    for level in 0..20 {
        let text = if level == 19 { "{}".to_owned() } else { format!("include: [{0}.yaml, {0}.yaml]\n", level + 1) };
        std::fs::write(bench.path(&format!("{level}.yaml")), text).unwrap();
    }
    std::fs::write(bench.path("latin.yaml"), b"vars:\n  x: \xe9\n").unwrap();
    std::fs::write(bench.path("wide.yaml"), b"\xff\xfev\0").unwrap();
    let said =
        |name: &str| bench.load(&format!("name: a\ninclude: {name}\nstages: {{}}"), &[]).unwrap_err().to_string();
    assert!(said("0.yaml").contains("more than 1000 files are included"), "{}", said("0.yaml"));
    assert!(said("/dev/zero").contains("larger than 16 MiB"), "{}", said("/dev/zero"));
    assert!(
        said("latin.yaml").contains("line 2, column 6: this is not UTF-8: save the file as UTF-8"),
        "{}",
        said("latin.yaml")
    );
    assert!(said("wide.yaml").contains("this looks like UTF-16"), "{}", said("wide.yaml"));
    let error = Source::read(&bench.path("latin.yaml")).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Pipeline, "{error}");
}
