//! A store says which version it is of; one of a later version is left alone.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::Bench;
use palinode_engine::{Error, ErrorKind, STORE_VERSION, Store};

const PIPELINE: &str = "
name: chain
stages:
  a: { uses: text, with: { value: hello } }
  b: { uses: join, inputs: { text: a } }
";

/// A way into the store in a folder.
type Way = fn(&Path) -> Result<(), Error>;

/// Every file below a folder, with what it holds.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { all.extend(files(&path)) } else { drop(all.insert(path.clone(), fs::read(&path).unwrap())) }
    }
    all
}

#[test]
fn a_store_from_before_there_were_versions_is_read_and_gets_one() {
    let bench = Bench::new();
    bench.run(PIPELINE);
    let version = bench.store_path().join("VERSION");
    assert_eq!(fs::read_to_string(&version).unwrap(), format!("{STORE_VERSION}\n"));
    fs::remove_file(&version).unwrap();
    assert_eq!(Store::look(&bench.store_path()).unwrap().manifests().len(), 2);
    assert!(!version.exists(), "looking changes nothing");
    assert_eq!(bench.outcomes(PIPELINE), "a: cached\nb: cached\n");
    assert_eq!(fs::read_to_string(&version).unwrap(), "1\n");
}

#[test]
fn a_store_of_a_later_version_is_left_alone() {
    let bench = Bench::new();
    bench.run(PIPELINE);
    let store = bench.store_path();
    // What this program would remove or make again if it looked.
    fs::write(store.join("blobs/nonsense"), "").unwrap();
    fs::remove_dir_all(store.join("index")).unwrap();
    for (text, words) in [
        (format!("{}\nand more", STORE_VERSION + 1), "was written by a newer version of the program"),
        ("soon".to_owned(), "does not say which version the store is of"),
        (String::new(), "does not say which version the store is of"),
    ] {
        fs::write(store.join("VERSION"), text).unwrap();
        let before = files(&store);
        let ways: [Way; 6] = [
            |store| Store::open(store).map(drop),
            |store| Store::open_when_free(store, &mut |_| {}).map(drop),
            |store| Store::look(store).map(drop),
            |store| Store::bare(store).map(drop),
            |store| Store::rebuild(store, None).map(drop),
            |store| Store::is_at(store).map(drop),
        ];
        for way in ways {
            let error = way(&store).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Store);
            assert!(error.message.contains(words), "{error}");
        }
        assert_eq!(files(&store), before);
    }
}

#[test]
fn an_archive_of_a_later_version_is_refused() {
    use std::io::Write;
    let bench = Bench::new();
    let path = bench.path("later.zip");
    let mut zip = zip::ZipWriter::new(fs::File::create(&path).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("VERSION", options).unwrap();
    writeln!(zip, "{}", STORE_VERSION + 1).unwrap();
    zip.start_file("things/of/another/kind", options).unwrap();
    zip.finish().unwrap();
    let error = palinode_engine::import(&bench.store(), &path).unwrap_err();
    assert!(error.message.contains("was written by a newer version of the program"), "{error}");
}
