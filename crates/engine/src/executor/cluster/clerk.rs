//! Whoever talks to Slurm: a thread that starts its programs one after the other, and reads what jobs have written. The coordinator waits
//! for none of that: a controller that is down, or a file system that hangs, keeps nobody from answering to Ctrl-C.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use super::jobs::{self, Fate, Name, Place, Said};
use super::list::{Answer, JOBS};
use super::slurm;
use crate::event::Event;
use crate::scheduler::Cancel;
use palinode_error::{Error, ErrorKind, plain};
use palinode_store::Place as FilePlace;

/// What it is to do.
pub enum Order {
    /// Give a script to the cluster.
    Submit { submission: String, script: String },
    /// Look at the queue for the jobs of these names.
    View(BTreeSet<String>),
    /// Look attempts up by their ids.
    Accounts(Vec<(String, Name)>),
    /// Stop attempts.
    Stop(Vec<String>, Cancel),
    /// Read the answers in these folders, each with the name of the run, and what happens in jobs that work.
    Read { folders: Vec<(String, PathBuf)>, events: Vec<(Name, PathBuf)> },
}

/// What it found.
pub enum Reply {
    /// For the state machine.
    Happened(jobs::Event),
    /// An attempt has answered: besides what it said, where it worked and what its files look like.
    Answered { name: Name, said: Said, host: String, places: Vec<FilePlace> },
    /// What happened in an attempt.
    Heard(Name, Vec<Event>),
    /// All answers that were there are given.
    Read,
}

/// Starts it, for runs in this folder. It ends when either way is closed.
pub fn start(runs: PathBuf) -> (Sender<Order>, Receiver<Reply>) {
    let ((to, orders), (replies, from)) = (mpsc::channel(), mpsc::channel());
    let refused = replies.clone();
    let clerk = move || {
        let mut clerk = Clerk { runs, replies, read: HashMap::new(), heard: HashMap::new() };
        for order in orders {
            clerk.does(order);
        }
    };
    if let Err(error) = thread::Builder::new().name("cluster".to_owned()).spawn(clerk) {
        let _ = refused.send(Reply::Happened(jobs::Event::NoView(format!("cannot start a thread: {error}"))));
    }
    (to, from)
}

struct Clerk {
    /// The folder of all runs.
    runs: PathBuf,
    replies: Sender<Reply>,
    /// Answers that were read, by folder.
    read: HashMap<PathBuf, BTreeSet<String>>,
    /// How much of each file of events was read.
    heard: HashMap<PathBuf, u64>,
}

impl Clerk {
    fn does(&mut self, order: Order) {
        match order {
            Order::Submit { submission, script } => self.happened(submit(submission, &script)),
            Order::View(names) => {
                let event = self.with_memory(view(&names));
                self.happened(event);
            }
            Order::Accounts(ids) => {
                let event = self.with_memory(accounts(&ids));
                self.happened(event);
            }
            Order::Stop(ids, how) => stop(&ids, how),
            Order::Read { folders, events } => {
                for (run, folder) in folders {
                    self.answers(&run, &folder);
                }
                for (name, path) in events {
                    self.events(name, &path);
                }
                let _ = self.replies.send(Reply::Read);
            }
        }
    }

    fn happened(&self, event: jobs::Event) {
        let _ = self.replies.send(Reply::Happened(event));
    }

    /// The same, where the logs of jobs that failed are asked whether it was for memory.
    fn with_memory(&self, mut event: jobs::Event) -> jobs::Event {
        if let jobs::Event::View(seen) | jobs::Event::Accounts(seen) = &mut event {
            for seen in seen {
                if let Place::Over(Fate::Failed(_) | Fate::Cancelled) = &seen.place
                    && log_of(&self.runs, &seen.name).is_some_and(|(log, _)| slurm::is_memory(&log))
                {
                    seen.place = Place::Over(Fate::OutOfMemory);
                }
            }
        }
        event
    }

    fn answers(&mut self, run: &str, folder: &Path) {
        let read = self.read.entry(folder.to_owned()).or_default();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(file) = entry.file_name().into_string() else { continue };
            let Some(name) = attempt(run, &file).filter(|_| !read.contains(&file)) else { continue };
            let bytes = fs::read(entry.path()).unwrap_or_default();
            // What is not whole yet is read again.
            let Ok(Answer { host, units, end, .. }) = serde_json::from_slice(&bytes) else { continue };
            read.insert(file);
            let places =
                if let super::super::worker::Message::Done { places } = &end { places.clone() } else { Vec::new() };
            let said = match end.error() {
                None => Said::Done,
                Some(error) if error.kind == ErrorKind::Interrupted => Said::Stopped { units },
                Some(error) => Said::Failed(Box::new(error)),
            };
            let _ = self.replies.send(Reply::Answered { name, said, host, places });
        }
    }

    fn events(&mut self, name: Name, path: &Path) {
        let from = self.heard.entry(path.to_owned()).or_default();
        let mut bytes = Vec::new();
        let read = fs::File::open(path).and_then(|mut file| {
            file.seek(SeekFrom::Start(*from))?;
            file.read_to_end(&mut bytes)
        });
        if read.is_err() {
            return;
        }
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        *from += whole as u64;
        let lines = bytes[..whole].split(|byte| *byte == b'\n');
        let events: Vec<Event> = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
        if !events.is_empty() {
            let _ = self.replies.send(Reply::Heard(name, events));
        }
    }
}

/// The end of a log, of so many bytes.
const END: u64 = 4096;

/// The end of the log of an attempt, and where it is.
pub fn log_of(runs: &Path, name: &Name) -> Option<(String, PathBuf)> {
    let (run, number) = name.submission.rsplit_once('.')?;
    let path = runs.join(run).join(JOBS).join(format!("{number}-{}.log", name.index));
    let mut file = fs::File::open(&path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(END))).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    Some((String::from_utf8_lossy(&bytes).into_owned(), path))
}

/// The attempt whose answer a file is.
fn attempt(run: &str, file: &str) -> Option<Name> {
    let (number, index) = file.strip_suffix(".json")?.split_once('-')?;
    let number: u32 = number.parse().ok()?;
    Some(Name { submission: format!("{run}.{number}"), index: index.parse().ok()? })
}

/// What Slurm's program prints, and what it complains of.
pub fn slurm(program: &str, args: &[&str], input: Option<&str>) -> Result<String, Error> {
    let failed = |what: String| Error::new(ErrorKind::Limit, what);
    let mut command = Command::new(program);
    // Its words are read; Ctrl-C in a terminal is the run's to answer.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.args(args).env("LC_ALL", "C").env_remove("SLURM_TIME_FORMAT").env_remove("SQUEUE_FORMAT");
    command.env_remove("SQUEUE_STATES").env_remove("SQUEUE_PARTITION").env_remove("SQUEUE_USERS");
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| {
        failed(format!("cannot start `{program}`: {}", plain(&error)))
            .hint("is this a machine that jobs can be submitted from?")
    })?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        // A program that does not read it says why.
        let _ = std::io::Write::write_all(&mut stdin, input.as_bytes());
    }
    let Output { status, stdout, stderr } =
        child.wait_with_output().map_err(|error| failed(format!("cannot wait for `{program}`: {}", plain(&error))))?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let said = slurm::complaint(&String::from_utf8_lossy(&stderr));
    Err(failed(format!("`{program}`: {}", if said.is_empty() { status.to_string() } else { said })))
}

fn submit(submission: String, script: &str) -> jobs::Event {
    match slurm("sbatch", &["--parsable"], Some(script)) {
        Ok(out) => {
            if let Some(id) = slurm::submitted(&out) {
                return jobs::Event::Sent(submission, id);
            }
            let error = Error::new(ErrorKind::Limit, format!("`sbatch` gave no id of a job: {}", out.trim()));
            jobs::Event::NotSent(submission, Box::new(error), true)
        }
        Err(error) => {
            let may_pass = slurm::may_pass(&error.message);
            jobs::Event::NotSent(submission, Box::new(error), may_pass)
        }
    }
}

/// All of a run's jobs in one call, those that are over as long as the cluster remembers them.
fn view(names: &BTreeSet<String>) -> jobs::Event {
    let names: Vec<String> = names.iter().map(|run| slurm::job_name(run)).collect();
    let args = ["--array", "--noheader", "--states=all", "--format", slurm::QUEUE_FORMAT, "--name", &names.join(",")];
    match slurm("squeue", &args, None) {
        Ok(out) => jobs::Event::View(slurm::queue(&out)),
        Err(error) => jobs::Event::NoView(error.message),
    }
}

/// The default window of accounts begins at midnight, so that it is given.
fn accounts(ids: &[(String, Name)]) -> jobs::Event {
    let known: HashMap<&str, &Name> = ids.iter().map(|(id, name)| (id.as_str(), name)).collect();
    let list: Vec<&str> = ids.iter().map(|(id, _)| id.as_str()).collect();
    let format = format!("--format={}", slurm::ACCOUNTS_FORMAT);
    let args =
        ["--allocations", "--noheader", "--parsable2", "--starttime=now-30days", &format, "--jobs", &list.join(",")];
    let out = slurm("sacct", &args, None).unwrap_or_default();
    jobs::Event::Accounts(slurm::accounts(&out, &|id| known.get(id).map(|name| Name::clone(name))))
}

/// Cancels all jobs of a run.
pub fn cancel_all(run: &str) -> Result<(), Error> {
    slurm("scancel", &["--name", &slurm::job_name(run)], None).map(|_| ())
}

/// Ids on one command line, at most.
const IDS: usize = 500;

/// Stops attempts by their ids.
pub fn stop(ids: &[String], how: Cancel) {
    for some in ids.chunks(IDS) {
        let mut args: Vec<&str> = match how {
            // The job's own process, which is the worker.
            Cancel::Finish => vec!["--batch", "--signal=TERM"],
            Cancel::Kill => Vec::new(),
        };
        args.extend(some.iter().map(String::as_str));
        if let Err(error) = slurm("scancel", &args, None) {
            tracing::warn!(%error, "jobs cannot be stopped");
        }
    }
}
