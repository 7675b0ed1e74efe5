//! Room is made without losing what is wanted, and results move from store to store.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::Bench;
use palinode_engine::{Digest, ErrorKind, Key, Retention, Runs, Store};

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
    assert!(palinode_engine::garbage(&store, &NOTHING).is_empty());
    let orphan = store.put_bytes(b"of nobody").unwrap();
    fs::write(bench.store_path().join("blobs/00nonsense"), "").unwrap();
    fs::create_dir_all(bench.store_path().join("actions/zz")).unwrap();
    fs::write(bench.store_path().join("actions/zz/zz.json"), "{").unwrap();
    let seen = palinode_engine::garbage(&store, &NOTHING);
    assert_eq!((seen.results.len(), seen.orphans, seen.kept), (0, 2, 3), "{seen:?}");
    assert!(store.blob_path(&orphan.digest).exists());
    assert_eq!(palinode_engine::collect(&store, &NOTHING).unwrap(), seen);
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
    let all = palinode_engine::garbage(&store, &NOTHING).kept_bytes;
    let some = palinode_engine::collect(&store, &Retention { size: Some(all - 1), unused_for: None }).unwrap();
    assert!(some.kept_bytes < all && (1..=3).contains(&some.results.len()), "{some:?}");
    drop(store);
    assert_eq!(bench.outcomes(PIPELINE), ALL_CACHED);
    assert!(bench.outcomes(&other()).contains("ran\n"));
    later();

    let store = bench.store();
    assert_eq!(palinode_engine::pin(&store, &first).unwrap().keys.len(), 3);
    assert_eq!(store.pins().len(), 1);
    let gone = palinode_engine::collect(&store, &EVERYTHING).unwrap();
    assert_eq!((gone.kept, gone.pinned), (3, 3), "{gone:?}");
    drop(store);
    assert_eq!(bench.outcomes(PIPELINE), ALL_CACHED);
    let store = bench.store();
    let error = store.unpin("none").unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Usage, "there is no pin `none`"));
    store.unpin(&first).unwrap();
    later();
    assert_eq!(palinode_engine::collect(&store, &EVERYTHING).unwrap().kept, 0);
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
    assert!(palinode_engine::garbage(&store, &aged(3600)).is_empty());
    std::thread::sleep(Duration::from_millis(20));
    let gone = palinode_engine::collect(&store, &Retention { unused_for: Some(Duration::from_millis(10)), size: None })
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
    let gone = palinode_engine::collect(&store, &EVERYTHING).unwrap();
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
    let error = palinode_engine::collect(&store, &EVERYTHING).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Store);
    assert!(error.message.contains("workers are at work"), "{error}");
    drop(used);
    assert_eq!(palinode_engine::collect(&store, &EVERYTHING).unwrap().results.len(), 3);
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
