//! Slurm's words: the script of a submission, and what `squeue`, `sacct` and `scontrol` print. Text in and text out; nothing is started here.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::jobs::{Fate, Name, Place, Seen};
use super::profile::Asked;

/// What each line of the queue holds; the comment is the last, since it may hold anything.
pub const QUEUE_FORMAT: &str = "%i|%T|%N|%r|%k";

/// The variable that says which job of a list a worker is to do.
const JOB: &str = "PALINODE_JOB";

/// What each line of the accounts holds.
pub const ACCOUNTS_FORMAT: &str = "JobID,State,ExitCode,Comment";

/// Jobs that go to the cluster together.
pub struct Submission<'a> {
    /// Its name, which no other one has.
    pub name: &'a str,
    /// The name of all jobs of the run.
    pub run: &'a str,
    /// How many jobs.
    pub count: usize,
    /// The file that lists them.
    pub list: &'a Path,
    /// Where their logs go: a path with `%a` in the place of the index.
    pub log: &'a Path,
    /// The program and its arguments, after which the list comes.
    pub program: &'a [String],
    /// The folder that they begin in.
    pub folder: &'a Path,
    /// What they ask of the cluster.
    pub asked: &'a Asked,
    /// How long before its end a job is told to save.
    pub save: Duration,
}

/// The name that the jobs of a run have in the cluster.
pub fn job_name(run: &str) -> String {
    format!("palinode-{run}")
}

/// The script of a submission.
pub fn script(of: &Submission<'_>) -> String {
    let mut text = "#!/bin/bash\n".to_owned();
    let mut option = |option: String| {
        let _ = writeln!(text, "#SBATCH {option}");
    };
    let asked = of.asked;
    let max_running = asked.max_running.map(|most| format!("%{most}")).unwrap_or_default();
    option(format!("--job-name={}", job_name(of.run)));
    option(format!("--comment={}", of.name));
    option(format!("--array=0-{}{max_running}", of.count.saturating_sub(1)));
    option(format!("--output={}", in_quotes(&of.log.to_string_lossy())));
    option(format!("--chdir={}", in_quotes(&of.folder.to_string_lossy())));
    // A job that has to go is sent again from here, where it is known what is left of it.
    option("--no-requeue".to_owned());
    // The shell is replaced by the program, which is the one to hear this.
    let save = asked.time.map_or(of.save, |time| of.save.min(time / 4));
    option(format!("--signal=B:TERM@{}", save.as_secs().max(1)));
    if let Some(partition) = &asked.partition {
        option(format!("--partition={partition}"));
    }
    if let Some(account) = &asked.account {
        option(format!("--account={account}"));
    }
    if let Some(time) = asked.time {
        option(format!("--time={}", time_limit(time)));
    }
    if let Some(memory) = asked.memory {
        option(format!("--mem={}M", memory.div_ceil(1 << 20)));
    }
    if let Some(cores) = asked.cores {
        option(format!("--cpus-per-task={cores}"));
    }
    if let Some(gpus) = asked.gpus.as_ref().filter(|gpus| *gpus != "0") {
        option(format!("--gres=gpu:{gpus}"));
    }
    for more in asked.options.iter().flatten() {
        option(more.clone());
    }
    if let Some(prelude) = &asked.prelude {
        let _ = writeln!(text, "{}", prelude.trim_end());
    }
    let program: Vec<String> = of.program.iter().map(|word| quoted(word)).collect();
    let list = quoted(&of.list.to_string_lossy());
    let _ = writeln!(text, "export {JOB}=\"$SLURM_ARRAY_TASK_ID\"\nexec {} {list}", program.join(" "));
    text
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A value of an option in a script, where Slurm reads it as a shell would.
fn in_quotes(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', r"\\").replace('"', "\\\""))
}

/// A time limit as Slurm reads it; it counts whole minutes, so that what is begun of one counts.
fn time_limit(time: Duration) -> String {
    let minutes = time.as_secs().div_ceil(60).max(1);
    format!("{}-{:02}:{:02}:00", minutes / 1440, minutes / 60 % 24, minutes % 60)
}

/// The id in what `sbatch --parsable` prints: it stands before a `;`, where there are several clusters.
pub fn submitted(out: &str) -> Option<String> {
    let id = out.lines().next_back()?.split(';').next()?.trim();
    (!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit())).then(|| id.to_owned())
}

/// The queue as `squeue` prints it. Jobs that are not of arrays of ours are left out.
pub fn queue(out: &str) -> Vec<Seen> {
    let line = |line: &str| {
        let mut fields = line.splitn(5, '|');
        let (id, state, nodes, reason) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let comment = fields.next()?;
        let place = place(state, nodes, reason)?;
        Some(Seen { name: name(id, comment)?, id: id.to_owned(), place })
    };
    out.lines().filter_map(line).collect()
}

/// The accounts as `sacct -X -n -P` prints them. Nothing of a job says its submission where the cluster keeps no comments; `known` gives
/// it by the id.
pub fn accounts(out: &str, known: &dyn Fn(&str) -> Option<Name>) -> Vec<Seen> {
    let line = |line: &str| {
        let mut fields = line.splitn(4, '|');
        let (id, state, code) = (fields.next()?, fields.next()?, fields.next()?);
        let place = place(state, "", code)?;
        Some(Seen { name: known(id)?, id: id.to_owned(), place })
    };
    out.lines().filter_map(line).collect()
}

fn name(id: &str, comment: &str) -> Option<Name> {
    let index = id.split_once('_')?.1.parse().ok()?;
    let submission = comment.split_whitespace().next()?.to_owned();
    Some(Name { submission, index })
}

/// What a state means; `None` of one that this program does not know, which says nothing.
fn place(state: &str, nodes: &str, reason: &str) -> Option<Place> {
    let state = state.split([' ', '+']).next().unwrap_or_default();
    let over = |fate| Some(Place::Over(fate));
    match state {
        "PENDING" | "CONFIGURING" | "REQUEUED" | "REQUEUE_HOLD" | "REQUEUE_FED" | "SPECIAL_EXIT" | "RESV_DEL_HOLD" => {
            Some(Place::Queue(reason.to_owned()))
        }
        // One that is completing still has its processes, some of which may be writing.
        "RUNNING" | "COMPLETING" | "SUSPENDED" | "STOPPED" | "SIGNALING" | "STAGE_OUT" | "RESIZING" => {
            Some(Place::Work(nodes.to_owned()))
        }
        "COMPLETED" => over(Fate::Completed),
        "FAILED" | "BOOT_FAIL" | "LAUNCH_FAILED" | "RECONFIG_FAIL" => {
            // The reason that the queue gives, or the exit code of the accounts.
            let why = match reason {
                "" | "None" => state.to_lowercase(),
                reason => format!("{} ({reason})", state.to_lowercase()),
            };
            over(if state == "BOOT_FAIL" || reason == "Prolog" { Fate::NodeLost } else { Fate::Failed(why) })
        }
        "PREEMPTED" => over(Fate::Preempted),
        "NODE_FAIL" | "REVOKED" => over(Fate::NodeLost),
        "TIMEOUT" | "DEADLINE" => over(Fate::OutOfTime),
        "OUT_OF_MEMORY" => over(Fate::OutOfMemory),
        "CANCELLED" => over(Fate::Cancelled),
        _ => None,
    }
}

/// What a cluster allows, as `scontrol show config` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Jobs in an array, at most.
    pub array: usize,
    /// Whether there are accounts to look jobs up in.
    pub accounts: bool,
    /// The cluster's name.
    pub cluster: String,
    /// Slurm's version.
    pub version: String,
    /// For how many seconds the queue remembers a job that is over.
    pub remembers: u64,
}

/// Reads what `scontrol show config` prints.
pub fn limits(out: &str) -> Limits {
    let field = |name: &str| {
        let of = |line: &str| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == name).then(|| value.trim().to_owned())
        };
        out.lines().find_map(of)
    };
    let number = |name: &str| field(name)?.split_whitespace().next()?.parse().ok();
    Limits {
        array: number("MaxArraySize").filter(|size| *size > 0).unwrap_or(1001) as usize,
        accounts: field("AccountingStorageType").is_some_and(|kind| !kind.ends_with("/none") && kind != "(null)"),
        cluster: field("ClusterName").unwrap_or_default(),
        version: field("SLURM_VERSION").unwrap_or_default(),
        remembers: number("MinJobAge").unwrap_or(300),
    }
}

/// Whether the log of a job that failed says that it took too much memory: not every cluster has a state for that.
pub fn is_memory(log: &str) -> bool {
    const WORDS: [&str; 5] =
        ["exceeded memory limit", "Exceeded job memory limit", "oom-kill", "oom_kill", "Out Of Memory"];
    WORDS.iter().any(|words| log.contains(words))
}

/// Whether `sbatch` may take the same jobs later: the controller does not answer, or a limit on how many there are is reached.
pub fn may_pass(errors: &str) -> bool {
    const PASSING: [&str; 12] = [
        "Unable to contact slurm controller",
        "Socket timed out",
        "Connection refused",
        "Connection reset",
        "Connection timed out",
        "Slurm temporarily unable",
        "Slurm backup controller",
        "QOSMaxSubmitJob",
        "AssocMaxSubmitJob",
        "Job violates accounting/QOS policy (job submit limit",
        "Resource temporarily unavailable",
        "Zero Bytes were transmitted",
    ];
    PASSING.iter().any(|what| errors.contains(what))
}

/// What `sbatch` complains of, as one line.
pub fn complaint(errors: &str) -> String {
    let lines = errors.lines().map(|line| line.trim_start_matches("sbatch: ").trim_start_matches("error: "));
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn at(submission: &str, index: u32) -> Name {
        Name { submission: submission.to_owned(), index }
    }

    /// As Slurm 22.05 printed it.
    #[test]
    fn the_queue_is_read() {
        let out = "1_0|PENDING||Resources|r.1\n1_1|RUNNING|n2|None|r.1\n1_2|COMPLETED|n1|None|r.1\n\
                   2_0|PREEMPTED|n1|None|r.2\n2_1|NODE_FAIL|n1|NodeDown|r.2\n2_2|OUT_OF_MEMORY|n1|OutOfMemory|r.2\n\
                   2_3|TIMEOUT|n1|TimeLimit|r.2\n2_4|CANCELLED|n1|None|r.2\n2_5|FAILED|n1|NonZeroExitCode|r.2\n\
                   2_6|COMPLETING|n1|None|r.2\n2_7|SOMETHING_NEW|n1|None|r.2\n7|RUNNING|n1|None|other\n\
                   slurm_load_jobs error: Unable to contact slurm controller\n";
        let expect = [
            (at("r.1", 0), Place::Queue("Resources".into())),
            (at("r.1", 1), Place::Work("n2".into())),
            (at("r.1", 2), Place::Over(Fate::Completed)),
            (at("r.2", 0), Place::Over(Fate::Preempted)),
            (at("r.2", 1), Place::Over(Fate::NodeLost)),
            (at("r.2", 2), Place::Over(Fate::OutOfMemory)),
            (at("r.2", 3), Place::Over(Fate::OutOfTime)),
            (at("r.2", 4), Place::Over(Fate::Cancelled)),
            (at("r.2", 5), Place::Over(Fate::Failed("failed (NonZeroExitCode)".into()))),
            (at("r.2", 6), Place::Work("n1".into())),
        ];
        let found: Vec<(Name, Place)> = queue(out).into_iter().map(|seen| (seen.name, seen.place)).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn the_accounts_are_read() {
        let out = "5_0|COMPLETED|0:0|\n5_1|CANCELLED by 1000|0:0|\n5_2|OUT_OF_MEMORY|0:125|\n6_0|FAILED|1:0|x\n";
        let known = |id: &str| Some(at("r.1", id.strip_prefix("5_")?.parse().ok()?));
        let found: Vec<Place> = accounts(out, &known).into_iter().map(|seen| seen.place).collect();
        assert_eq!(found, [Fate::Completed, Fate::Cancelled, Fate::OutOfMemory].map(Place::Over));
    }

    #[test]
    fn other_words_are_read() {
        assert_eq!(submitted("12;cluster\n"), Some("12".into()));
        assert_eq!(submitted("a banner\n12\n"), Some("12".into()));
        assert_eq!(submitted("sbatch: error\n"), None);
        let out = "ClusterName             = test\nMaxArraySize            = 1001\nMinJobAge               = 300 sec\n\
                   AccountingStorageType   = accounting_storage/none\nSLURM_VERSION           = 22.05.8\n";
        let expect =
            Limits { array: 1001, accounts: false, cluster: "test".into(), version: "22.05.8".into(), remembers: 300 };
        assert_eq!(limits(out), expect);
        assert!(may_pass(
            "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"
        ));
        assert!(is_memory("slurmstepd-n1: error: Exceeded job memory limit\n") && !is_memory("Killed\n"));
        assert!(!may_pass("sbatch: error: invalid partition specified: nope"));
        for (seconds, expect) in
            [(1, "0-00:01:00"), (90, "0-00:02:00"), (4 * 3600, "0-04:00:00"), (90_000, "1-01:00:00")]
        {
            assert_eq!(time_limit(Duration::from_secs(seconds)), expect);
        }
    }

    #[test]
    fn a_script_is_written() {
        let asked = Asked {
            partition: Some("gpu".into()),
            account: Some("lab".into()),
            time: Some(Duration::from_hours(4)),
            memory: Some(32 << 30),
            cores: Some(8),
            gpus: Some("a100:1".into()),
            max_running: Some(20),
            options: Some(vec!["--qos=low".into()]),
            prelude: Some("module load cuda\n".into()),
            ..Asked::default()
        };
        let (list, log) = (PathBuf::from("/s/runs/r/jobs/1.json"), PathBuf::from("/s/runs/r/jobs/1-%a.log"));
        let text = script(&Submission {
            name: "r.1",
            run: "r",
            count: 3,
            list: &list,
            log: &log,
            program: &["/bin/palinode".to_owned(), "worker".to_owned()],
            folder: Path::new("/w"),
            asked: &asked,
            save: Duration::from_mins(2),
        });
        insta::assert_snapshot!(text);
    }
}
