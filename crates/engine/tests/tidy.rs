//! Room is made without losing what is wanted, and results move from store to store.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::Bench;
use palinode_engine::{Digest, ErrorKind, Key, Manifest, Retention, RunRetention, Runs, Store};

const PIPELINE: &str = "
name: chain
vars: { word: hello }
stages:
  a: { uses: text, with: { value: '${vars.word}' } }
  b: { uses: join, inputs: { text: a }, with: { keep: 3 } }
  c: { uses: count, inputs: { text: b } }
";
const ALL_CACHED: &str = "a: cached\nb: cached\nc: cached\n";
const NOTHING: Retention = Retention { unused_for: None, size: None };
const RUNS: RunRetention = RunRetention { latest: None, newer_than: None };
const EVERYTHING: Retention = Retention { unused_for: Some(Duration::ZERO), size: None };

/// The clock of records goes by milliseconds.
fn later() {
    std::thread::sleep(Duration::from_millis(5));
}

fn other() -> String {
    PIPELINE.replace("hello", "other")
}

fn blob(bench: &Bench, text: &str) -> PathBuf {
    bench.store().blob_path(&Digest::of(text.as_bytes()))
}

#[test]
fn what_nothing_can_use_goes_and_nothing_else() {
    let bench = Bench::new();
    bench.run(PIPELINE);
    let store = bench.store();
    assert!(palinode_engine::garbage(&store, &NOTHING, &RUNS).is_empty());
    let orphan = store.put_bytes(b"of nobody").unwrap();
    fs::write(bench.store_path().join("blobs/00nonsense"), "").unwrap();
    fs::create_dir_all(bench.store_path().join("actions/zz")).unwrap();
    fs::write(bench.store_path().join("actions/zz/zz.json"), "{").unwrap();
    let seen = palinode_engine::garbage(&store, &NOTHING, &RUNS);
    assert_eq!((seen.results.len(), seen.orphans, seen.kept), (0, 2, 3), "{seen:?}");
    assert!(store.blob_path(&orphan.digest).exists());
    assert_eq!(palinode_engine::collect(&store, &NOTHING, &RUNS).unwrap(), seen);
    assert!(!store.blob_path(&orphan.digest).exists());
    drop(store);
    assert_eq!(bench.outcomes(PIPELINE), ALL_CACHED);
}

#[test]
fn the_least_lately_used_goes_first_and_what_is_pinned_stays() {
    let bench = Bench::new();
    let first = bench.run(PIPELINE).run;
    later();
    bench.run(&other());
    later();
    // Used again, though made before.
    bench.run(PIPELINE);
    let store = bench.store();
    let kept = palinode_engine::garbage(&store, &NOTHING, &RUNS);
    let all = kept.kept_bytes + kept.beside_bytes;
    let some = palinode_engine::collect(&store, &Retention { size: Some(all - 1), unused_for: None }, &RUNS).unwrap();
    assert!(some.kept_bytes < kept.kept_bytes && (1..=3).contains(&some.results.len()), "{some:?}");
    drop(store);
    assert_eq!(bench.outcomes(PIPELINE), ALL_CACHED);
    assert!(bench.outcomes(&other()).contains("ran\n"));
    later();

    let store = bench.store();
    assert_eq!(palinode_engine::pin(&store, &first).unwrap().keys.len(), 3);
    assert_eq!(store.pins().len(), 1);
    let gone = palinode_engine::collect(&store, &EVERYTHING, &RUNS).unwrap();
    assert_eq!((gone.kept, gone.pinned), (3, 3), "{gone:?}");
    drop(store);
    assert_eq!(bench.outcomes(PIPELINE), ALL_CACHED);
    let store = bench.store();
    let error = store.unpin("none").unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Usage, "there is no pin `none`"));
    store.unpin(&first).unwrap();
    later();
    assert_eq!(palinode_engine::collect(&store, &EVERYTHING, &RUNS).unwrap().kept, 0);
    assert_eq!(store.verify().blobs, 0);
    drop(store);
    // Its run is still known.
    assert_eq!(Runs::of(&bench.store_path()).open(&first).unwrap().stages.len(), 3);
    assert_eq!(bench.outcomes(PIPELINE), "a: ran\nb: ran\nc: ran\n");
}

#[test]
fn age_counts_from_the_last_use() {
    let bench = Bench::new();
    bench.run(PIPELINE);
    let store = bench.store();
    let key = Key(Digest::of(b"unit"));
    store.put_unit(&key, b"part").unwrap();
    let aged = |unused_for: u64| Retention { unused_for: Some(Duration::from_secs(unused_for)), size: None };
    assert!(palinode_engine::garbage(&store, &aged(3600), &RUNS).is_empty());
    std::thread::sleep(Duration::from_millis(20));
    let gone =
        palinode_engine::collect(&store, &Retention { unused_for: Some(Duration::from_millis(10)), size: None }, &RUNS)
            .unwrap();
    assert_eq!((gone.results.len(), gone.units, gone.kept_bytes), (3, 1, 0), "{gone:?}");
    assert_eq!(store.get_unit(&key), None);
}

/// A result shares contents with another: they stay while one of the two does.
#[test]
fn shared_contents_stay() {
    let bench = Bench::new();
    let two = "name: two\nstages:\n  a: { uses: text, with: { value: abc } }\n  \
               b: { uses: join, inputs: { text: a }, with: { keep: 3 } }\n";
    bench.run(two);
    let store = bench.store();
    let one = store.manifests().into_iter().find(|manifest| manifest.instance == "b").unwrap();
    palinode_engine::pin(&store, &one.key.to_string()[..12]).unwrap();
    later();
    let gone = palinode_engine::collect(&store, &EVERYTHING, &RUNS).unwrap();
    assert_eq!((gone.results.len(), gone.results[0].bytes, gone.kept_bytes), (1, 0, 3), "{gone:?}");
    drop(store);
    assert_eq!(bench.outcomes(two), "a: ran\nb: cached\n");
}

/// A worker uses the files beside the process that has the store open: nothing is removed under its hands.
#[test]
fn nothing_goes_while_the_files_are_used() {
    let bench = Bench::new();
    bench.run(PIPELINE);
    later();
    let used = Store::bare(&bench.store_path()).unwrap();
    let store = bench.store();
    let error = palinode_engine::collect(&store, &EVERYTHING, &RUNS).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Store);
    assert!(error.message.contains("workers are at work"), "{error}");
    drop(used);
    assert_eq!(palinode_engine::collect(&store, &EVERYTHING, &RUNS).unwrap().results.len(), 3);
}

#[test]
fn results_move_to_another_store() {
    let (here, there) = (Bench::new(), Bench::new());
    let run = here.run(PIPELINE).run;
    here.run(&other());
    let path = here.path("run.zip");
    let exported = palinode_engine::export(&here.store(), std::slice::from_ref(&run), &path).unwrap();
    assert_eq!((exported.results, exported.contents, exported.runs), (3, 2, 1));
    assert_eq!(palinode_engine::export(&here.store(), &[], &path).unwrap_err().kind, ErrorKind::Usage);
    assert!(palinode_engine::export(&here.store(), &["none".to_owned()], &here.path("none.zip")).is_err());
    let imported = palinode_engine::import(&there.store(), &path).unwrap();
    assert_eq!((imported.results, imported.contents, imported.runs, imported.known), (3, 2, 1, 0));
    assert_eq!(there.outcomes(PIPELINE), ALL_CACHED);
    assert!(Runs::of(&there.store_path()).open(&run).is_ok());
    let again = palinode_engine::import(&there.store(), &path).unwrap();
    assert_eq!((again.results, again.contents, again.runs, again.known), (0, 0, 0, 3));
    let all = here.path("all.zip");
    assert_eq!(palinode_engine::export(&here.store(), &[], &all).unwrap().results, 6);
    assert_eq!(palinode_engine::import(&there.store(), &all).unwrap().results, 3);
    assert_eq!(there.outcomes(&other()), ALL_CACHED);
    assert_eq!(there.store().verify().damage, []);
}

#[test]
fn a_damaged_archive_brings_nothing_wrong() {
    let bench = Bench::new();
    bench.run(PIPELINE);
    let path = bench.path("all.zip");
    palinode_engine::export(&bench.store(), &[], &path).unwrap();
    let whole = fs::read(&path).unwrap();
    let harmed = bench.path("harmed.zip");
    let mut refused = 0;
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x20;
        refused += usize::from(arrives(&bytes, &harmed));
    }
    for length in (0..whole.len()).step_by(61) {
        assert!(arrives(&whole[..length], &harmed), "cut to {length}");
    }
    // Most flips are noticed; those in what zip itself does not check, such as times, do no harm.
    assert!(refused > whole.len() / 7 / 3, "{refused}");
}

/// Imports and says whether it was refused; either way what came is sound.
fn arrives(bytes: &[u8], path: &Path) -> bool {
    fs::write(path, bytes).unwrap();
    let there = Bench::in_memory();
    let refused = palinode_engine::import(&there.store(), path).is_err();
    assert_eq!(there.store().verify().damage, []);
    assert!(there.store().manifests().iter().all(|manifest| manifest.fingerprint.key() == manifest.key));
    refused
}

#[test]
fn the_index_is_made_again_on_request() {
    let bench = Bench::new();
    bench.run(PIPELINE);
    let (store, rebuilt) = Store::rebuild(&bench.store_path(), None).unwrap();
    assert_eq!(rebuilt.manifests, 3);
    assert!(rebuilt.files >= 2 && rebuilt.after > 0, "{rebuilt:?}");
    drop(store);
    assert_eq!(bench.outcomes(PIPELINE), ALL_CACHED);
    assert!(blob(&bench, "hello").exists());
}

/// Records of runs are kept as long as is said, those of pinned runs always; a folder without a record is of no use.
#[test]
fn records_of_runs_go_when_they_are_to() {
    let bench = Bench::new();
    let names: Vec<String> = (0..4)
        .map(|_| {
            later();
            bench.run(PIPELINE).run
        })
        .collect();
    let left = fs::create_dir_all(bench.store_path().join("runs/20200101-000000-0000/stages"));
    left.unwrap();
    let store = bench.store();
    assert_eq!(palinode_engine::garbage(&store, &NOTHING, &RUNS).runs, 1);
    palinode_engine::pin(&store, &names[0]).unwrap();
    let two = RunRetention { latest: Some(2), newer_than: None };
    let gone = palinode_engine::collect(&store, &NOTHING, &two).unwrap();
    assert_eq!((gone.runs, gone.results.len()), (2, 0), "{gone:?}");
    let left: Vec<String> = Runs::of(&bench.store_path()).names();
    assert_eq!(left, [names[3].clone(), names[2].clone(), names[0].clone()]);
    let young = RunRetention { latest: None, newer_than: Some(Duration::from_hours(1)) };
    assert!(palinode_engine::garbage(&store, &NOTHING, &young).is_empty());
    let none = RunRetention { latest: None, newer_than: Some(Duration::ZERO) };
    later();
    assert_eq!(palinode_engine::collect(&store, &NOTHING, &none).unwrap().runs, 2);
    assert_eq!(Runs::of(&bench.store_path()).names(), [names[0].clone()]);
    drop(store);
    assert_eq!(bench.outcomes(PIPELINE), ALL_CACHED);
}

/// What cannot be understood is kept: a record of a later format with its contents, and everything while a pin does not read.
#[test]
fn what_is_not_understood_stays() {
    let bench = Bench::new();
    bench.run(PIPELINE);
    later();
    let store = bench.store();
    let manifest = store.manifests().into_iter().find(|manifest| manifest.instance == "b").unwrap();
    let path = Manifest::path(&bench.store_path(), &manifest.key);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("\"format\": 1", "\"format\": 2, \"of later\": true", 1)).unwrap();
    let gone = palinode_engine::collect(&store, &EVERYTHING, &RUNS).unwrap();
    assert_eq!((gone.results.len(), gone.unread, gone.orphans), (2, 1, 0), "{gone:?}");
    let blob = store.blob_path(&Digest::of(b"hel"));
    assert!(path.exists() && blob.exists());
    assert!(store.take_notes().iter().any(|note| note.contains("later version of the program")));
    drop(store);
    let error =
        palinode_engine::plan(&bench.load(PIPELINE, &[]).unwrap(), &bench.store(), &palinode_engine::Silent).err();
    assert!(error.is_none(), "a stage above runs again first, so that nothing is said yet: {error:?}");
    fs::write(&path, text).unwrap();

    bench.run(PIPELINE);
    later();
    let store = bench.store();
    palinode_engine::pin(&store, "latest").unwrap();
    let pins = fs::read_dir(bench.store_path().join("pins")).unwrap().flatten().next().unwrap().path();
    fs::write(&pins, "{").unwrap();
    let gone = palinode_engine::collect(&store, &EVERYTHING, &RUNS).unwrap();
    assert_eq!((gone.results.len(), gone.kept), (0, 3), "{gone:?}");
    assert!(store.take_notes().iter().any(|note| note.contains("does not read")));
    store.unpin(&pins.file_stem().unwrap().to_string_lossy()).unwrap();
    assert_eq!(palinode_engine::collect(&store, &EVERYTHING, &RUNS).unwrap().results.len(), 3);
}
