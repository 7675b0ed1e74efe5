//! The built program on a store that it may not read or write all of, and on archives and stores that somebody made to do harm.
//!
//! Permissions do not bind root, who runs the tests in containers: there, the program runs as another user.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use palinode::{FileRef, Manifest, Store};
use tempfile::TempDir;

/// Stages that need no model; the requests are a file in the store.
const PIPELINE: &str = "\
name: facts
stages:
  edits: { uses: load_requests, with: { path: facts.jsonl, dataset: jsonl } }
  plan: { uses: distribute, with: { strategy: memit, layers: [3, 4] } }
";
const FACT: &str = "{\"subject\": \"Ada\", \"prompt\": \"{} lives in\", \"target_new\": \"Rome\"}\n";

/// Someone who is not root and owns nothing here.
const NOBODY: &str = "65534";

struct Bench(TempDir);

/// An entry of an archive, by name.
type Entry = (String, Vec<u8>);

struct Said {
    code: i32,
    all: String,
}

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Bench {
    fn new() -> Self {
        let bench = Self(TempDir::new().unwrap());
        fs::set_permissions(bench.0.path(), Permissions::from_mode(0o755)).unwrap();
        fs::write(bench.path("p.yaml"), PIPELINE).unwrap();
        fs::write(bench.path("facts.jsonl"), FACT).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs a shell line in which `palinode` is the program, with a umask.
    fn shell(&self, line: &str, other: bool) -> Said {
        let mut command = if other && root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "sh", "-c", line]);
            command
        } else {
            let mut command = Command::new("sh");
            command.args(["-c", line]);
            command
        };
        let program = Path::new(env!("CARGO_BIN_EXE_palinode"));
        // The program's own folder may be closed to others.
        let copy = self.path("palinode");
        if !copy.exists() {
            // By another process: one that this one starts in a thread beside would hold the copy open, which then cannot be executed.
            assert!(Command::new("cp").args([program, &copy]).status().unwrap().success());
            fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
        }
        for name in ["NO_COLOR", "PALINODE_STORE", "PALINODE_LOG", "CLICOLOR_FORCE"] {
            command.env_remove(name);
        }
        let path = format!("{}:{}", self.0.path().display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("COLUMNS", "200").current_dir(&self.0).stdin(Stdio::null());
        let output = command.output().unwrap();
        let all = [output.stdout, output.stderr].concat();
        Said { code: output.status.code().unwrap_or(-1), all: String::from_utf8(all).unwrap() }
    }

    fn run(&self, args: &str) -> Said {
        self.shell(&format!("palinode {args}"), false)
    }

    fn store(&self) -> PathBuf {
        self.path(".palinode")
    }

    fn requests(&self) -> Manifest {
        let store = Store::look(&self.store()).unwrap();
        store.manifests().into_iter().find(|manifest| manifest.instance == "edits").unwrap()
    }

    /// The blob of the requests.
    fn blob(&self) -> PathBuf {
        let file = *self.requests().output.files.values().next().unwrap();
        Store::look(&self.store()).unwrap().blob_path(&file.digest)
    }
}

/// Every file below a folder, with its mode.
fn files(folder: &Path) -> Vec<(PathBuf, u32)> {
    let mut all = Vec::new();
    for path in fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            let mode = fs::metadata(&path).unwrap().mode() & 0o777;
            all.push((path, mode));
        }
    }
    all.sort();
    all
}

/// What a user may not read is as good as ever: it is said, and neither removed nor made again.
#[test]
fn what_cannot_be_read_is_neither_removed_nor_made_again() {
    for of_blob in [true, false] {
        let bench = Bench::new();
        let said = bench.run("run p.yaml");
        assert_eq!(said.code, 0, "{}", said.all);
        let path = if of_blob { bench.blob() } else { Manifest::path(&bench.store(), &bench.requests().key) };
        // Without the index, which would know what the record says.
        fs::remove_dir_all(bench.store().join("index")).unwrap();
        let before = fs::read(&path).unwrap();
        let open = |folder: &Path| fs::set_permissions(folder, Permissions::from_mode(0o777)).unwrap();
        open(bench.0.path());
        for entry in std::iter::once(bench.store()).chain(folders(&bench.store())) {
            open(&entry);
        }
        for (file, _) in files(&bench.store()) {
            fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
        }
        fs::set_permissions(&path, Permissions::from_mode(0o0)).unwrap();
        let bites = bench.shell(&format!("cat {}", path.display()), true);
        assert_ne!(bites.code, 0, "the file is closed to who tests");
        std::thread::sleep(std::time::Duration::from_millis(1100));
        for args in ["run p.yaml", "plan p.yaml", "cache gc --unused-for 1s", "cache verify", "run p.yaml"] {
            let said = bench.shell(&format!("palinode {args}"), true);
            let gc = args.starts_with("cache gc");
            assert_eq!(said.code, if gc { 0 } else { 6 }, "{args}: {}", said.all);
            if !(gc && of_blob) {
                assert!(said.all.contains("ermission denied"), "{args}: {}", said.all);
            }
            assert!(path.exists() || gc && of_blob, "{args} removed {}", path.display());
            if gc && of_blob {
                // It was asked to remove results that are not used, and knows of this one all that it has to.
                break;
            }
        }
        if !of_blob {
            fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
            assert_eq!(fs::read(&path).unwrap(), before);
            let blobs = files(&bench.store().join("blobs")).len();
            assert_eq!(blobs, 1, "contents of a record that cannot be read stay");
        }
    }
}

/// Two results share their contents, and the record of one cannot be read: when the other goes, the contents stay.
#[test]
fn contents_that_an_unreadable_record_may_name_stay() {
    let bench = Bench::new();
    let twin = PIPELINE.replace(
        "  plan:",
        "  twin: { uses: load_requests, with: { path: facts.jsonl, dataset: jsonl, limit: 1 } }\n  plan:",
    );
    fs::write(bench.path("p.yaml"), twin).unwrap();
    assert_eq!(bench.run("run p.yaml").code, 0);
    let blob = bench.blob();
    let record = Manifest::path(&bench.store(), &bench.requests().key);
    for folder in std::iter::once(bench.store()).chain(folders(&bench.store())).chain([bench.path("")]) {
        fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
    }
    for (file, _) in files(&bench.store()) {
        fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
    }
    fs::set_permissions(&record, Permissions::from_mode(0o0)).unwrap();
    assert_ne!(bench.shell(&format!("cat {}", record.display()), true).code, 0, "the file is closed to who tests");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let said = bench.shell("palinode cache gc --unused-for 1s", true);
    assert!(said.code == 0 && said.all.contains("removed 2 results"), "{}", said.all);
    assert!(record.exists() && blob.exists(), "{}", said.all);
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let inner = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    inner.flat_map(|path| folders(&path).into_iter().chain([path.clone()]).collect::<Vec<_>>()).collect()
}

/// Files are for whom the umask allows, and for the group where the store's folder is the group's.
#[test]
fn a_store_can_be_shared() {
    for (umask, mode, shared, expect) in
        [("022", 0o755, 0o044, 0o044), ("077", 0o700, 0, 0), ("077", 0o2770, 0o040, 0o040)]
    {
        let bench = Bench::new();
        fs::create_dir(bench.store()).unwrap();
        fs::set_permissions(bench.store(), Permissions::from_mode(mode)).unwrap();
        assert_eq!(bench.shell(&format!("umask {umask}; palinode run p.yaml"), false).code, 0);
        for (path, mode) in files(&bench.store()) {
            let outside = path.strip_prefix(bench.store()).unwrap().starts_with(".gitignore");
            assert!(outside || mode & 0o044 == shared & expect, "{} has mode {mode:o}", path.display());
        }
        for (path, mode) in files(&bench.store().join("blobs")) {
            assert_eq!(mode & 0o222, 0, "{} has mode {mode:o}", path.display());
        }
    }
    // Another user reads what the first one made, and says what it cannot do.
    if root() {
        let bench = Bench::new();
        assert_eq!(bench.shell("umask 022; palinode run p.yaml", false).code, 0);
        let said = bench.shell("palinode cache ls", true);
        assert!(said.code == 0 && said.all.contains("2 results"), "{}", said.all);
        let before = files(&bench.store());
        let said = bench.shell("palinode run p.yaml", true);
        assert!(said.code == 6 && said.all.contains("ermission denied"), "{}", said.all);
        assert_eq!(files(&bench.store()), before, "nothing was changed");
    }
}

/// An archive is anyone's. What it holds stays in the store, and what it says does not become a path or the latest run.
#[test]
fn a_hostile_archive_does_no_harm() {
    let bench = Bench::new();
    assert_eq!(bench.run("run p.yaml").code, 0);
    assert_eq!(bench.run("cache export good.zip").code, 0);
    let sound = bench.requests();
    let hostile = |name: &str| {
        let mut manifest = sound.clone();
        manifest.output.files = [(name.to_owned(), FileRef::of(FACT.as_bytes()))].into();
        manifest.content = manifest.output.digest();
        (format!("actions/{}.json", manifest.key), manifest.write())
    };
    let record = fs::read_dir(bench.store().join("runs")).unwrap().flatten().next().unwrap().path();
    let run = record.file_name().unwrap().to_str().unwrap().to_owned();
    let record = fs::read_to_string(record.join("run.json")).unwrap();
    let late = "99991231-235959-0000";
    let future = record.replace(&run, late).replacen("\"started_ms\": ", "\"started_ms\": 9", 1);
    let blob = (format!("blobs/{}", FileRef::of(FACT.as_bytes()).digest), FACT.as_bytes().to_vec());
    let archives: [(&str, Vec<Entry>, i32); 8] = [
        ("up", vec![blob.clone(), hostile("../../x")], 4),
        ("root", vec![blob.clone(), hostile("/tmp/x")], 4),
        ("empty part", vec![blob, hostile("other//tmp/x")], 4),
        ("entry", vec![("runs/../../x".into(), b"x".to_vec())], 4),
        ("future", vec![(format!("runs/{late}/run.json"), future.into_bytes())], 4),
        ("name", vec![("runs/zzz/run.json".into(), record.replace(&run, "zzz").into_bytes())], 0),
        ("no record", vec![("runs/20200101-000000-0000/stages/x.log".into(), b"x".to_vec())], 0),
        ("large", vec![(format!("runs/{run}x/run.json"), b"{}".to_vec())], 0),
    ];
    for (what, entries, code) in archives {
        let path = bench.path("bad.zip");
        let mut zip = zip::ZipWriter::new(fs::File::create(&path).unwrap());
        for (name, bytes) in entries {
            let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
            zip.start_file(name, options).unwrap();
            std::io::Write::write_all(&mut zip, &bytes).unwrap();
        }
        zip.finish().unwrap();
        let said = bench.run("cache import bad.zip --store other");
        assert_eq!(said.code, code, "{what}: {}", said.all);
        let said = bench.run("runs --store other");
        assert!(said.all.contains("no runs") || said.code != 0, "{what}: {}", said.all);
        assert!(!bench.path("x").exists() && !bench.path("other/runs/zzz").exists(), "{what}");
    }
    assert_eq!(bench.run("cache import good.zip --store other").code, 0);
    assert!(bench.run("runs --store other").all.contains(&run[..15]));
    assert!(bench.run("run p.yaml --store other").all.contains("all 2 stages cached"));
}

/// `cache verify` says which results are hit, and moves what is damaged out of the way.
#[test]
fn verify_says_what_is_hit_and_the_next_run_makes_it_again() {
    let bench = Bench::new();
    assert_eq!(bench.run("run p.yaml").code, 0);
    let blob = bench.blob();
    fs::set_permissions(&blob, Permissions::from_mode(0o644)).unwrap();
    fs::write(&blob, "something else").unwrap();
    let said = bench.run("cache verify");
    assert_eq!(said.code, 6, "{}", said.all);
    assert!(said.all.contains("needed by facts: edits") && said.all.contains("1 file moved aside"), "{}", said.all);
    assert!(bench.run("run p.yaml").all.contains("ran 1, cached 1"));
    assert_eq!(bench.run("cache verify").code, 0);
    let said = bench.run("cache gc");
    assert!(said.all.contains("1 unusable file"), "{}", said.all);
    assert!(bench.run("cache gc --keep-runs 1").all.contains("1 run record"));
    assert_eq!(fs::read_dir(bench.store().join("runs")).unwrap().count(), 1);
}

/// Who may only look at a store, or looks at it while a run goes on, sees what is there and is told what it cannot do.
#[test]
fn a_store_that_cannot_be_written_can_be_looked_at() {
    let bench = Bench::new();
    assert_eq!(bench.shell("umask 022; palinode run p.yaml", false).code, 0);
    fs::write(bench.path("q.yaml"), PIPELINE.replace("[3, 4]", "[3, 4, 5]")).unwrap();
    // Of the file that is read, the index alone remembers the digest.
    let looks = [
        ("plan p.yaml", "2 cached"),
        ("plan q.yaml", "with.layers"),
        ("why q.yaml plan", "[3,4] → [3,4,5]"),
        ("status p.yaml", "all 2 results cached"),
        ("graph p.yaml", "edits"),
        ("runs", "facts"),
        ("show latest", "done after"),
        ("show edits", "load_requests"),
        ("cache ls", "2 results"),
    ];
    let look = |other: bool, note: &str| {
        let before = files(&bench.store());
        for (args, words) in looks {
            let said = bench.shell(&format!("palinode {args}"), other);
            assert!(said.code == 0 && said.all.contains(words), "{args}: {} {}", said.code, said.all);
            let plans = ["plan", "why", "status", "graph"].iter().any(|command| args.starts_with(command));
            assert_eq!(plans, said.all.contains(note), "{args}: {}", said.all);
        }
        assert_eq!(files(&bench.store()), before, "looking changed the store");
    };
    // Beside a process that has it open.
    let held = Store::open(&bench.store()).unwrap();
    look(false, "in use by process");
    drop(held);
    if root() {
        fs::set_permissions(bench.store().join("LOCK"), Permissions::from_mode(0o644)).unwrap();
        let bites = bench.shell(&format!("touch {}/x {}/LOCK", bench.store().display(), bench.store().display()), true);
        assert_ne!(bites.code, 0, "the store is closed to who tests");
        look(true, "ermission denied");
        let said = bench.shell("palinode run q.yaml", true);
        assert!(said.code == 6 && said.all.contains("--store") && said.all.contains("cache import"), "{}", said.all);
        // Without the index, from the files alone.
        fs::remove_dir_all(bench.store().join("index")).unwrap();
        look(true, "ermission denied");
    }
}
