//! A damaged store costs time, never a wrong result.

mod common;

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Bench, Recorder, outcomes};
use palinode_engine::{Digest, ErrorKind, Event, FileRef, Key, Manifest, Observer, RunOptions};

const PIPELINE: &str = "
name: chain
stages:
  a: { uses: text, with: { value: hello } }
  b: { uses: join, inputs: { text: a }, with: { keep: 3 } }
  c: { uses: count, inputs: { text: b } }
";
const ALL_CACHED: &str = "a: cached\nb: cached\nc: cached\n";

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() { all.extend(files(&entry.path())) } else { all.push(entry.path()) }
    }
    all.sort();
    all
}

fn writable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

/// Runs again and gives the outcomes and the warnings.
fn rerun(bench: &Bench) -> (String, Vec<String>) {
    let recorder = Arc::new(Recorder::default());
    let observer: Arc<dyn Observer> = recorder.clone();
    let report = bench.run_with(PIPELINE, &RunOptions::default(), &observer);
    let events = recorder.0.lock().unwrap();
    let warnings = events.iter().filter_map(|event| match event {
        Event::Warning { message, .. } => Some(message.clone()),
        _ => None,
    });
    (outcomes(&report), warnings.collect())
}

#[test]
fn a_truncated_or_altered_or_missing_blob_is_made_again() {
    for harm in ["truncate", "flip", "remove"] {
        let bench = Bench::new();
        bench.run(PIPELINE);
        let blob = bench.store_path().join("blobs").join(&Digest::of(b"hel").to_string()[..2]);
        let blob = blob.join(Digest::of(b"hel").to_string());
        writable(&blob);
        match harm {
            "truncate" => fs::OpenOptions::new().write(true).open(&blob).unwrap().set_len(1).unwrap(),
            "flip" => fs::write(&blob, "hex").unwrap(),
            _ => fs::remove_file(&blob).unwrap(),
        }
        let (outcomes, warnings) = rerun(&bench);
        assert_eq!(outcomes, "a: cached\nb: ran\nc: cached\n", "{harm}");
        assert_eq!(warnings.len(), usize::from(harm != "remove"), "{harm}: {warnings:?}");
        assert_eq!(fs::read(&blob).unwrap(), b"hel");
        assert_eq!(bench.store().verify().damage, []);
        assert_eq!(bench.outcomes(PIPELINE), ALL_CACHED);
        // What was damaged is still there, for a person to look at.
        let aside = fs::read_dir(bench.store_path().join("damaged")).map_or(0, Iterator::count);
        assert_eq!(aside, usize::from(harm != "remove"), "{harm}");
    }
}

/// A published file belongs to whoever writes it next; that it holds the same for now does not keep a result.
#[test]
fn what_was_published_does_not_stand_in_for_what_was_lost() {
    let pipeline = |word: &str| {
        let (first, second) =
            ("{ uses: text, with: { value: hey } }", format!("{{ uses: text, with: {{ value: {word} }} }}"));
        let out = "{ uses: write, inputs: { text: b }, with: { path: out } }";
        format!("name: two\nstages:\n  a: {first}\n  b: {second}\n  c: {out}\n")
    };
    let bench = Bench::new();
    bench.run(&pipeline("hey"));
    fs::remove_dir_all(bench.store_path().join("blobs")).unwrap();
    assert_eq!(bench.outcomes(&pipeline("you")), "a: ran\nb: ran\nc: ran\n");
    assert_eq!(bench.outcomes(&pipeline("you")), "a: cached\nb: cached\nc: cached\n");
}

#[test]
fn a_damaged_manifest_is_made_again() {
    for harm in [&b"{"[..], b"", b"null"] {
        let bench = Bench::new();
        bench.run(PIPELINE);
        fs::remove_dir_all(bench.store_path().join("index")).unwrap();
        let manifest = files(&bench.store_path().join("actions")).remove(0);
        fs::write(&manifest, harm).unwrap();
        assert_eq!(bench.store().verify().damage.len(), 1);
        let (outcomes, warnings) = rerun(&bench);
        assert_eq!(outcomes.matches("ran").count(), 1, "{outcomes}");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert_eq!(bench.outcomes(PIPELINE), ALL_CACHED);
    }
}

#[test]
fn a_manifest_that_lies_is_not_believed() {
    let bench = Bench::new();
    bench.run(PIPELINE);
    fs::remove_dir_all(bench.store_path().join("index")).unwrap();
    for manifest in files(&bench.store_path().join("actions")) {
        let text = fs::read_to_string(&manifest).unwrap();
        fs::write(&manifest, text.replace("\"size\": 5", "\"size\": 6")).unwrap();
    }
    assert_eq!(bench.outcomes(PIPELINE), "a: ran\nb: cached\nc: cached\n");
}

/// What `verify` finds, the next run makes again, also where the index knows better; and a person is told which results are hit.
#[test]
fn verify_and_repair_agree() {
    type Harm = fn(&Path);
    let remove: Harm = |path| fs::remove_file(path).unwrap();
    let folder: Harm = |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    };
    // The same size and the same times as before, as a failing disk leaves it.
    let rot: Harm = |path| {
        let times = fs::metadata(path).unwrap();
        writable(path);
        let bytes: Vec<u8> = fs::read(path).unwrap().iter().map(|byte| byte ^ 1).collect();
        fs::write(path, bytes).unwrap();
        let times = fs::FileTimes::new().set_modified(times.modified().unwrap());
        fs::File::options().write(true).open(path).unwrap().set_times(times).unwrap();
    };
    for (harm, moved) in [(remove, 0), (folder, 1), (rot, 1)] {
        for of_blob in [true, false] {
            let bench = Bench::new();
            bench.run(PIPELINE);
            let store = bench.store();
            let manifest = store.manifests().into_iter().find(|manifest| manifest.instance == "b").unwrap();
            let blob = store.blob_path(&Digest::of(b"hel"));
            let path = if of_blob { blob } else { Manifest::path(&bench.store_path(), &manifest.key) };
            harm(&path);
            let found = store.verify();
            if !of_blob && moved == 0 {
                // A record that is gone is no result any more.
                assert_eq!(found.damage, []);
            } else {
                assert_eq!(found.damage.len(), 1, "{found:?}");
                assert_eq!(found.damage[0].path, path);
                assert_eq!(found.damage[0].hits, if of_blob { vec!["chain: b"] } else { vec![] });
            }
            assert_eq!(store.set_damage_aside(&found), moved);
            drop(store);
            assert_eq!(bench.outcomes(PIPELINE), "a: cached\nb: ran\nc: cached\n");
            assert_eq!(bench.store().verify().damage, []);
            assert_eq!(bench.outcomes(PIPELINE), ALL_CACHED);
        }
    }
}

/// A result that says another size of its contents than they have is wrong; the contents are not.
#[test]
fn a_wrong_size_costs_no_contents() {
    let bench = Bench::new();
    bench.run(PIPELINE);
    let store = bench.store();
    let file = FileRef::of(b"hel");
    assert!(store.has_blob(&file).unwrap());
    assert!(!store.has_blob(&FileRef { size: 4, ..file }).unwrap());
    assert!(store.has_blob(&file).unwrap());
}

/// A record that names files which lead out of a folder is damaged, whoever wrote it.
#[test]
fn names_of_files_do_not_lead_elsewhere() {
    let bench = Bench::new();
    bench.run(PIPELINE);
    let store = bench.store();
    let sound = store.manifests().into_iter().find(|manifest| manifest.instance == "b").unwrap();
    for name in ["../../x", "/etc/x", "other//etc/x", "a\u{1b}[2J"] {
        let mut manifest = sound.clone();
        manifest.output.files = [(name.to_owned(), FileRef::of(b"hel"))].into();
        manifest.content = manifest.output.digest();
        assert_eq!(Manifest::read(&manifest.write()), None, "{name}");
    }
    assert_eq!(Manifest::read(&sound.write()), Some(sound));
}

#[test]
fn an_index_that_is_lost_or_damaged_is_made_again() {
    let bench = Bench::new();
    bench.run(PIPELINE);
    let index = bench.store_path().join("index");
    fs::remove_dir_all(&index).unwrap();
    assert_eq!(bench.outcomes(PIPELINE), ALL_CACHED);
    // Every file of it, one after another, cut short and scribbled over.
    let names: Vec<PathBuf> = files(&index).iter().map(|path| path.strip_prefix(&index).unwrap().to_owned()).collect();
    assert!(!names.is_empty());
    for name in &names {
        for harm in ["cut", "scribble", "all"] {
            let path = index.join(name);
            if !path.exists() {
                continue;
            }
            let length = fs::metadata(&path).unwrap().len();
            let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            match harm {
                "cut" => file.set_len(length / 3).unwrap(),
                "scribble" => {
                    for at in (0..length.min(1 << 16)).step_by(97) {
                        file.seek(SeekFrom::Start(at)).unwrap();
                        file.write_all(&[0x5a]).unwrap();
                    }
                }
                _ => file.write_all(&vec![0xff; length as usize]).unwrap(),
            }
            drop(file);
            assert_eq!(bench.outcomes(PIPELINE), ALL_CACHED, "{harm} {}", name.display());
        }
    }
}

#[test]
fn what_a_killed_process_left_is_cleared_away() {
    let bench = Bench::new();
    bench.run(PIPELINE);
    fs::write(bench.store_path().join("tmp/half"), "half a blo").unwrap();
    assert_eq!(bench.outcomes(PIPELINE), ALL_CACHED);
    assert_eq!(files(&bench.store_path().join("tmp")), Vec::<PathBuf>::new());
}

#[test]
fn units_come_back_whole_or_not_at_all() {
    let bench = Bench::new();
    let (small, large) = (Key(Digest::of(b"small")), Key(Digest::of(b"large")));
    let bytes = vec![7u8; 200_000];
    let store = bench.store();
    store.put_unit(&small, b"little").unwrap();
    store.put_unit(&large, &bytes).unwrap();
    drop(store);
    let store = bench.store();
    assert_eq!(store.get_unit(&small).as_deref(), Some(&b"little"[..]));
    assert_eq!(store.get_unit(&large).as_deref(), Some(bytes.as_slice()));
    assert_eq!(store.get_unit(&Key(Digest::of(b"other"))), None);
    let file = files(&bench.store_path().join("units")).remove(0);
    fs::OpenOptions::new().write(true).open(file).unwrap().set_len(1000).unwrap();
    assert_eq!(store.get_unit(&large), None);
}

#[test]
fn an_unwritable_store_is_an_error_of_the_store() {
    let bench = Bench::new();
    fs::write(bench.store_path(), "a file where the folder should be").unwrap();
    let error = palinode_engine::Store::open(&bench.store_path()).err().unwrap();
    assert_eq!(error.kind, ErrorKind::Store, "{error}");
}
