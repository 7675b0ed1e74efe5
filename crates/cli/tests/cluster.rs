//! Runs in processes and on a cluster. Slurm's programs are stand-ins here, shell scripts that start jobs as processes of this machine and
//! show them as Slurm would: with them every state can be made that a real one reaches by accident alone. `scripts/check_slurm.sh` runs on a
//! real one.

mod here;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use here::{demo, fixture};
use palinode::{Digest, Ended, Holder, Runs};
use tempfile::TempDir;

const PIPELINE: &str = "
name: parts
stages:
  model: { uses: load_model, with: { path: DEMO/model } }
  edits: { uses: load_requests, with: { path: DEMO/requests.json, limit: 80 } }
  moments: { uses: covariance, inputs: { model: model }, with: { corpus: corpus.txt, layers: [1, 2], samples: 4200 } }
  enough: { uses: covariance, inputs: { model: model }, with: { corpus: corpus.txt, layers: [1], tokens: 20400, seed: 2 } }
  sure: { uses: covariance, inputs: { model: model }, with: { corpus: corpus.txt, layers: [1, 2], tokens: auto, tolerance: 0.12 } }
  targets: { uses: targets, inputs: { model: model, requests: edits }, with: { layer: 2, steps: 3 } }
  plan: { uses: distribute, with: { strategy: memit, layers: [1, 2] } }
  update:
    uses: solve
    inputs: { model: model, requests: edits, moments: moments, targets: targets, plan: plan }
    with: { objective: memit, lambda: 100 }
  scores: { uses: evaluate, inputs: { model: update, requests: edits } }
";

const SETTINGS: &str = "
slurm:
  default:
    all: { time: 10m, memory: 1G, parts: 2 }
    waits: { files: 2s, unknown: 3s, poll: 0.2s, poll_most: 0.5s }
  small:
    all: { partition: gpuu }
";

/// Second moments by expert: of a number of documents, and of as many as are enough.
const EXPERTS: &str = "
name: experts
stages:
  model: { uses: load_model, with: { path: MODEL } }
  moments: { uses: covariance, inputs: { model: model }, with: { corpus: corpus.txt, layers: [0, 1], samples: 4200 } }
  sure: { uses: covariance, inputs: { model: model }, with: { corpus: corpus.txt, layers: [0, 1], tokens: auto, tolerance: 0.3 } }
";

/// What the stand-ins share: jobs lie in `$CLUSTER/jobs/<id>_<index>`, each with its pid, its comment and its state. While `$CLUSTER/hold` is
/// there, the first job of an array does not get to its work, and while `$CLUSTER/hold-all` is, no job does; one that is `dead` by then never does.
const STAND_INS: [(&str, &str); 6] = [
    (
        "scontrol",
        "echo 'MaxArraySize = 1001'; echo 'ClusterName = stand-in'; echo 'SLURM_VERSION = 1'; echo 'AccountingStorageType = (null)'",
    ),
    ("sinfo", "echo main; echo gpu"),
    (
        "sbatch",
        r#"
[ -e "$CLUSTER/down" ] && { echo 'sbatch: error: Batch job submission failed: Unable to contact slurm controller' >&2; exit 1; }
script=$(cat)
[ "$1" = --test-only ] && exit 0
id=$(($(ls "$CLUSTER/ids" | wc -l) + 1)); : > "$CLUSTER/ids/$id"
field() { printf '%s\n' "$script" | sed -n "s/^#SBATCH --$1=//p" | tr -d '"'; }
last=$(field array | sed 's/^0-//; s/%.*//')
for index in $(seq 0 "$last"); do
  job=$CLUSTER/jobs/${id}_$index; mkdir "$job"; field comment > "$job/comment"; field job-name > "$job/name"
  log=$(field output | sed "s/%a/$index/"); printf '%s\n' "$script" > "$job/script"
  held() { [ -e "$CLUSTER/hold-all" ] || { [ "$index" = 0 ] && [ "$last" != 0 ] && [ -e "$CLUSTER/hold" ]; }; }
  (while held; do sleep 0.05; done; [ -e "$job/dead" ] && exit; SLURM_ARRAY_TASK_ID=$index setsid bash "$job/script" > "$log" 2>&1 < /dev/null & echo $! > "$job/pid"; wait $!; echo $? > "$job/code") > /dev/null 2>&1 &
done
echo "$id"
"#,
    ),
    (
        "squeue",
        r#"
[ -e "$CLUSTER/down" ] && { echo 'squeue: error: Unable to contact slurm controller' >&2; exit 1; }
for job in "$CLUSTER"/jobs/*/; do
  job=${job%/}; [ -s "$job/comment" ] || continue
  state=RUNNING
  [ -s "$job/code" ] && { state=COMPLETED; [ "$(cat "$job/code")" = 0 ] || state=FAILED; }
  [ -s "$job/state" ] && state=$(cat "$job/state")
  [ "$state" = VANISHED ] || echo "$(basename "$job")|$state|n1|None|$(cat "$job/comment")"
done
"#,
    ),
    (
        "scancel",
        r#"
signal=KILL
for word in "$@"; do
  case $word in --signal=*) signal=${word#--signal=} ;; --*) ;; *) [ -s "$CLUSTER/jobs/$word/pid" ] && kill -"$signal" "$(cat "$CLUSTER/jobs/$word/pid")" 2>/dev/null ;; esac
done
exit 0
"#,
    ),
    ("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1"),
];

/// The run of one stage that parts, on the cluster.
const MOMENTS: [&str; 9] =
    ["run", "p.yaml", "--until", "moments", "--no-preflight", "--store", "s", "--executor", "slurm"];

struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let demo = demo();
        fs::write(dir.path().join("p.yaml"), PIPELINE.replace("DEMO", demo.to_str().unwrap())).unwrap();
        fs::write(dir.path().join("settings.yaml"), SETTINGS).unwrap();
        // The beginnings of documents are enough: what counts is that there are more of them than a part has.
        let corpus = fs::read_to_string(demo.join("corpus.txt")).unwrap();
        let begin = |line: &str| line.split_whitespace().take(4).collect::<Vec<_>>().join(" ");
        let corpus: Vec<String> = corpus.lines().map(begin).filter(|line| !line.is_empty()).collect();
        fs::write(dir.path().join("corpus.txt"), corpus.join("\n")).unwrap();
        for folder in ["bin", "cluster/jobs", "cluster/ids"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        for (name, text) in STAND_INS {
            let path = dir.path().join("bin").join(name);
            fs::write(&path, format!("#!/bin/bash\n{text}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_palinode"));
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        command.current_dir(self.dir.path()).args(args).env("PATH", path).env("CLUSTER", self.path("cluster"));
        command.env("PALINODE_SETTINGS", self.path("settings.yaml"));
        command.env_remove("PALINODE_STORE").env_remove("PALINODE_LOG").stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs the pipeline in a store of this name; what it says on stderr.
    fn well(&self, store: &str, args: &[&str]) -> String {
        let output = self.run(&[&["run", "p.yaml", "--quiet", "--no-preflight", "--store", store], args].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {said}");
        said
    }

    fn results(&self, store: &str) -> BTreeMap<String, Digest> {
        let run = Runs::of(&self.path(store)).open("latest").unwrap();
        run.stages.into_iter().filter_map(|stage| Some((stage.instance.clone(), stage.content?))).collect()
    }

    /// Kills the coordinator of the store `s`.
    fn kill(&self) {
        let holder = Holder::of(&self.path("s")).unwrap();
        assert!(Command::new("kill").args(["-KILL", &holder.pid.to_string()]).status().unwrap().success());
        Bench::until("its end", || Holder::of(&self.path("s")).is_none().then_some(()));
    }

    /// What all runs of the store `s` wrote down of their jobs.
    fn record(&self) -> String {
        let runs = Runs::of(&self.path("s"));
        runs.names().iter().filter_map(|run| fs::read_to_string(runs.dir(run).join("jobs.jsonl")).ok()).collect()
    }

    /// How often a share of two was sent in the store `s`.
    fn sent(&self, number: usize) -> usize {
        let share = format!("\"share\":{{\"number\":{number},\"of\":2}}");
        self.record().lines().filter(|line| line.contains("\"sending\"") && line.contains(&share)).count()
    }

    /// Waits until this is there.
    fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        for _ in 0..3000 {
            if let Some(found) = look() {
                return found;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("{what} did not come");
    }

    /// A job that works: its folder.
    fn job(&self) -> PathBuf {
        Bench::until("a job", || {
            let jobs = fs::read_dir(self.path("cluster/jobs")).unwrap().flatten().map(|entry| entry.path());
            jobs.into_iter()
                .find(|job| job.join("pid").exists() && !job.join("code").exists() && !job.join("seen").exists())
        })
    }
}

/// Whatever does the work and in however many parts, each result is the same to the last bit; and shares are found again and not done twice.
#[test]
fn parts_change_no_bit() {
    let bench = Bench::new();
    bench.well("one", &[]);
    let expect = bench.results("one");
    bench.well("three", &["--executor", "processes:3"]);
    assert_eq!(bench.results("three"), expect);
    bench.well("cluster", &["--executor", "slurm"]);
    assert_eq!(bench.results("cluster"), expect);
    // Where the sample ends by itself, it is not at the end of the corpus, and nothing is left of what was computed beyond.
    for store in ["one", "three", "cluster"] {
        let runs = Runs::of(&bench.path(store));
        let run = runs.open("latest").unwrap();
        let sure = runs.manifest(&run.stage("sure").unwrap().key.unwrap()).unwrap();
        let documents = sure.output.meta["documents"].as_u64().unwrap();
        assert!(documents.is_multiple_of(64) && (128..4096).contains(&documents), "{documents}");
        let halves = |layer: usize| sure.output.meta["layers"][layer]["halves"]["moment"].as_f64().unwrap();
        assert!(halves(0).max(halves(1)) <= 0.12);
    }
    // 80 requests are two units, and 4,200 documents are two parts.
    let sent = fs::read_to_string(Runs::of(&bench.path("cluster")).dir(&latest(&bench, "cluster")).join("jobs.jsonl"));
    let shares = sent.unwrap().matches("\"share\":{\"number\":1,\"of\":2}").count();
    assert_eq!(shares, 5, "moments, enough, sure, targets and scores are done in shares");
}

/// The sums of all experts of a layer go through parts together.
#[test]
fn parts_change_no_bit_of_a_mixture_of_experts() {
    let bench = Bench::new();
    for name in ["mixtral-tiny", "qwen2_moe-tiny", "qwen3_moe-tiny", "olmoe-tiny"] {
        fs::write(bench.path("p.yaml"), EXPERTS.replace("MODEL", fixture(name).to_str().unwrap())).unwrap();
        let [one, three, cluster] = ["one", "three", "cluster"].map(|store| format!("{name}-{store}"));
        bench.well(&one, &[]);
        let expect = bench.results(&one);
        assert_eq!(expect.len(), 3, "{name}");
        bench.well(&three, &["--executor", "processes:3"]);
        assert_eq!(bench.results(&three), expect, "{name}");
        bench.well(&cluster, &["--executor", "slurm"]);
        assert_eq!(bench.results(&cluster), expect, "{name}");
        let facts = |stage: &str| {
            let runs = Runs::of(&bench.path(&cluster));
            let key = runs.open("latest").unwrap().stage(stage).unwrap().key.unwrap();
            runs.manifest(&key).unwrap().output.meta
        };
        assert_eq!(facts("moments")["documents"], 4200, "{name}");
        assert!(facts("moments")["layers"][0]["experts"].as_array().unwrap().len() > 1, "{name}");
        let documents = facts("sure")["documents"].as_u64().unwrap();
        assert!(documents.is_multiple_of(64) && (128..4096).contains(&documents), "{name}: {documents}");
        let sent = Runs::of(&bench.path(&cluster)).dir(&latest(&bench, &cluster)).join("jobs.jsonl");
        let shares = fs::read_to_string(sent).unwrap().matches("\"share\":{\"number\":1,\"of\":2}").count();
        assert_eq!(shares, 2, "{name}: moments and sure are done in shares");
    }
}

fn latest(bench: &Bench, store: &str) -> String {
    Runs::of(&bench.path(store)).open("latest").unwrap().run
}

/// The coordinator is killed while one of two shares works. The next one finds that share, sends neither it nor the one that is done, and
/// waits for a controller that is down.
#[test]
fn jobs_are_found_again() {
    let bench = Bench::new();
    bench.well("one", &["--until", "moments"]);
    fs::write(bench.path("cluster/hold"), "").unwrap();
    let output = bench.run(&[&MOMENTS[..], &["--detach"]].concat());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("goes on by itself"), "{said}");
    Bench::until("the end of a share", || {
        let sent = fs::read_to_string(Runs::of(&bench.path("s")).dir(&latest(&bench, "s")).join("jobs.jsonl")).ok()?;
        let over = sent.lines().any(|line| line.contains("\"ended\"") && line.contains("\"index\":1"));
        (sent.contains("\"of\":2") && over).then_some(())
    });
    bench.kill();
    let status = String::from_utf8(bench.run(&["status", "--store", "s"]).stdout).unwrap();
    assert!(status.contains("lost"), "{status}");
    fs::write(bench.path("cluster/down"), "").unwrap();
    let attached = bench.command(&["attach", "--store", "s"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    thread::sleep(Duration::from_secs(2));
    fs::remove_file(bench.path("cluster/down")).unwrap();
    fs::remove_file(bench.path("cluster/hold")).unwrap();
    let output = attached.unwrap().wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("is gone; the same command goes on"), "{said}");
    assert_eq!(bench.results("s"), bench.results("one"));
    for number in 0..2 {
        assert_eq!(bench.sent(number), 1, "share {number}");
    }
}

/// The coordinator is killed when it has sent a share again whose machine was lost. The next one goes on with the job that works, and sends none.
#[test]
fn what_was_sent_again_is_found_again() {
    let bench = Bench::new();
    bench.well("one", &["--until", "moments"]);
    bench.well("s", &["--until", "model"]);
    fs::write(bench.path("cluster/hold-all"), "").unwrap();
    let begun = bench.command(&MOMENTS).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let lost = Bench::until("a share", || {
        let jobs = fs::read_dir(bench.path("cluster/jobs")).unwrap().flatten().map(|entry| entry.path());
        jobs.into_iter().find(|job| job.ends_with("1_0") && job.join("comment").exists())
    });
    for name in ["dead", "state"] {
        fs::write(lost.join(name), "NODE_FAIL").unwrap();
    }
    Bench::until("another job", || {
        (bench.sent(0) == 2 && bench.path("cluster/jobs/2_0/comment").exists()).then_some(())
    });
    bench.kill();
    begun.unwrap().wait().unwrap();
    let attached = bench.command(&["attach", "--store", "s"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    Bench::until("the next coordinator", || (bench.record().matches("\"adopted\"").count() == 3).then_some(()));
    fs::remove_file(bench.path("cluster/hold-all")).unwrap();
    let output = attached.unwrap().wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(bench.results("s"), bench.results("one"));
    let record = bench.record();
    assert!(record.contains("\"why\":\"its job's machine is gone\""), "{record}");
    assert_eq!([0, 1].map(|number| bench.sent(number)), [2, 1], "{record}");
}

/// A job that vanishes from the queue and is dead is sent again; one that was preempted too; what is cancelled stops.
#[test]
fn what_is_lost_is_sent_again() {
    let bench = Bench::new();
    bench.well("one", &["--until", "moments"]);
    let mut run = bench.command(&[&MOMENTS[..], &["--quiet"]].concat()).stderr(Stdio::piped()).spawn().unwrap();
    for state in ["VANISHED", "PREEMPTED"] {
        let job = bench.job();
        fs::write(job.join("state"), state).unwrap();
        fs::write(job.join("seen"), "").unwrap();
        let pid = fs::read_to_string(job.join("pid")).unwrap();
        Command::new("kill").args(["-KILL", pid.trim()]).status().unwrap();
    }
    let _ = run.wait().unwrap();
    let output = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("not known to the cluster any more") && said.contains("make way"), "{said}");
    assert_eq!(bench.results("s"), bench.results("one"));
}

#[test]
fn a_run_is_cancelled_from_outside() {
    let bench = Bench::new();
    let run = ["run", "p.yaml", "--no-preflight", "--store", "s", "--executor", "slurm", "--detach"];
    assert!(bench.run(&run).status.success());
    bench.job();
    let output = bench.run(&["cancel", "--store", "s"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let runs = Runs::of(&bench.path("s"));
    assert_eq!(runs.open("latest").unwrap().ended, Ended::Interrupted);
    // What goes on from there ends like any other.
    bench.well("s", &["--until", "targets"]);
    let output = bench.run(&["attach", "--store", "s"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

/// All that is wrong is said before the first job.
#[test]
fn mistakes_are_told_first() {
    let bench = Bench::new();
    let check = |args: &[&str], code: i32, words: &[&str]| {
        let output = bench.run(args);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{args:?} lacks `{word}`: {said}");
        }
    };
    let on = |executor| ["run", "p.yaml", "--store", "s", "--executor", executor];
    check(&on("slurmm"), 2, &["expected threads, processes, processes:N, slurm"]);
    check(&on("processes:0"), 2, &["a number of processes, 1 or more"]);
    check(&on("slurm:smal"), 2, &["no profile `smal`", "did you mean `small`?"]);
    check(&on("slurm:small"), 2, &["partition `gpuu`", "did you mean `gpu`?"]);
    check(
        &["run", "p.yaml", "--store", "s", "--executor", "slurm", "--dry-run"],
        0,
        &["#SBATCH --time=0-00:10:00", "#SBATCH --mem=1024M", "#SBATCH --array=0-1", "# model, moments"],
    );
    check(&["run", "p.yaml", "--dry-run"], 2, &["--executor slurm"]);
    check(&["doctor", "--executor", "slurm"], 0, &["stand-in", "the cluster takes them"]);
    assert_eq!(fs::read_dir(bench.path("cluster/jobs")).unwrap().count(), 0);
    let settings = |text: &str| fs::write(bench.path("settings.yaml"), text).unwrap();
    settings("slurm: { default: { all: { time: soon } } }");
    check(&on("slurm"), 2, &["settings.yaml", "`soon` is not a duration"]);
    settings("slurm: { default: { all: { memry: 4G } } }");
    check(&on("slurm"), 2, &["unknown field `memry`", "`memory`"]);
    settings("slurm: { default: { kinds: { covarience: {} } } }");
    check(&on("slurm"), 2, &["no kind of stage `covarience`", "did you mean `covariance`?"]);
    settings("slurm: [");
    check(&on("slurm"), 2, &["settings.yaml"]);
    // A cluster that is not there.
    fs::remove_file(bench.path("bin/scontrol")).unwrap();
    fs::write(
        bench.path("bin/scontrol"),
        "#!/bin/bash\necho 'slurm_load_ctl_conf error: Unable to contact slurm controller' >&2; exit 1\n",
    )
    .unwrap();
    fs::set_permissions(bench.path("bin/scontrol"), fs::Permissions::from_mode(0o755)).unwrap();
    settings("");
    check(&on("slurm"), 2, &["no cluster", "Unable to contact slurm controller"]);
}

/// A worker of another build is refused by name.
#[test]
fn another_build_is_refused() {
    let bench = Bench::new();
    bench.well("s", &["--executor", "processes", "--until", "edits"]);
    let actions = Runs::of(&bench.path("s")).dir(&latest(&bench, "s")).join("actions");
    let path = fs::read_dir(actions).unwrap().flatten().next().unwrap().path();
    let text = fs::read_to_string(&path).unwrap();
    let at = text.find("\"build\": \"").unwrap() + "\"build\": \"".len();
    let end = at + text[at..].find('"').unwrap();
    fs::write(&path, format!("{}0.0.1 (abc){}", &text[..at], &text[end..])).unwrap();
    let output = bench.run(&["worker", path.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("written by build 0.0.1 (abc), and this is build"), "{said}");
}
