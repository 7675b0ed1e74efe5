//! Attempts in processes of their own, seen from the run that starts them.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::mem;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::interface::{AttemptError, Executor, Notice, Site, Task};
use super::merged::Merged;
use super::worker::Message;
use crate::action::Action;
use crate::attempts::Attempt;
use crate::catalogue::Catalogue;
use crate::context::RunContext;
use crate::event::Event;
use crate::machine::Capacity;
use crate::scheduler::{AttemptId, Cancel};
use crate::share::Share;
use palinode_error::{Error, ErrorKind, Hint, panics, plain};
use palinode_pipeline::UnitPlan;
use palinode_store::{Manifest, Store};

/// What starts a worker: a program and its arguments; the path of the action file is added. The program has to call
/// [`crate::work_aloud`], to finish its unit and stop when a line comes on its stdin, and to end at once when its stdin
/// closes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerCommand(pub Vec<OsString>);

/// Lines of a worker's stderr that are kept for the message should it die.
const LAST_WORDS: usize = 3;

/// Executes each attempt in a process.
pub struct Processes {
    context: RunContext,
    catalogue: Catalogue,
    command: WorkerCommand,
    /// In how many shares the work of one stage is done at most.
    shares: usize,
    /// The devices that they are dealt out to.
    devices: Arc<[String]>,
    capacity: Capacity,
    /// Where the action files of the run go.
    actions: PathBuf,
    running: HashMap<AttemptId, Running>,
    notices: (Sender<Notice>, Receiver<Notice>),
}

struct Running {
    /// To each process that it is done in: those of its shares, and the one of the whole.
    to: Vec<Sender<Heard>>,
    thread: Option<JoinHandle<()>>,
}

impl Processes {
    /// With processes that are started like this.
    pub fn new(
        context: &RunContext,
        catalogue: &Catalogue,
        run: &str,
        (command, shares, devices): (&WorkerCommand, usize, &[String]),
        capacity: Capacity,
    ) -> Self {
        let actions = context.store.run_dir(run).join("actions");
        let (context, catalogue, command) = (context.clone(), catalogue.clone(), command.clone());
        Self {
            context,
            catalogue,
            command,
            shares,
            devices: devices.into(),
            capacity,
            actions,
            running: HashMap::new(),
            notices: mpsc::channel(),
        }
    }

    fn start(&mut self, task: Task) {
        let (plan, shares) = task.shares(&self.catalogue, self.shares);
        let Task { attempt, action, stage, .. } = task;
        let path = self.actions.join(format!("{:04}-{stage}.json", attempt.instance));
        let (context, command, notices) = (self.context.clone(), self.command.clone(), self.notices.0.clone());
        let devices = Arc::clone(&self.devices);
        let mut ways: Vec<(Sender<Heard>, Receiver<Heard>)> = (0..=shares.len()).map(|_| mpsc::channel()).collect();
        let to = ways.iter().map(|(to, _)| to.clone()).collect();
        let name = action.instance.clone();
        let thread = thread::Builder::new().name(name).spawn(move || {
            let began = |pid| {
                let _ = notices.send(Notice::Began(attempt, Site::here(pid)));
            };
            let done = panics::catch(|| {
                let (own, heard) = ways.pop().ok_or_else(|| Error::internal("an attempt without a way to it"))?;
                let plan = plan.filter(|_| !shares.is_empty());
                if let Some(plan) = &plan {
                    began(process::id());
                    let shares = shares.into_iter().map(|share| (share, device_of(share, &devices, &action.device)));
                    attend_shares(&context, &command, &path, &action, plan, shares.zip(ways))?;
                }
                // What has shares has begun with them.
                let began = |pid| {
                    if plan.is_none() {
                        began(pid);
                    }
                };
                let events = |event: &Event| context.observer.event(event);
                attend(&context, &command, &path, &action, (&own, &heard), &events, began)
            });
            // The store is let go of before the end is said: whoever hears of it may want to open it.
            drop((context, action));
            let panicked = |panic| Err(Error::internal(format!("the engine panicked: {panic}")).into());
            let _ = notices.send(Notice::Ended(attempt, Box::new(done.unwrap_or_else(panicked))));
        });
        if let Err(error) = &thread {
            let error = Error::new(ErrorKind::Limit, format!("cannot start a thread for this stage: {error}"));
            let _ = self.notices.0.send(Notice::Ended(attempt, Box::new(Err(error.into()))));
        }
        self.running.insert(attempt, Running { to, thread: thread.ok() });
    }
}

impl Executor for Processes {
    fn name(&self) -> &'static str {
        "process"
    }

    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn submit(&mut self, tasks: Vec<Task>) {
        for task in tasks {
            self.start(task);
        }
    }

    fn next(&mut self, wait: Duration) -> Option<Notice> {
        let notice = self.notices.1.recv_timeout(wait).ok()?;
        if let Notice::Ended(attempt, _) = &notice
            && let Some(Running { thread: Some(thread), .. }) = self.running.remove(attempt)
        {
            let _ = thread.join();
        }
        Some(notice)
    }

    fn cancel(&mut self, attempt: AttemptId, how: Cancel) {
        if let Some(running) = self.running.get(&attempt) {
            // A worker that is gone already says so by its end.
            for to in &running.to {
                let _ = to.send(Heard::Cancel(how));
            }
        }
    }

    /// None: a worker ends when its stdin closes, and that closes with the process that started it.
    fn reattach(&mut self, _left: &[(AttemptId, Attempt)]) -> Vec<AttemptId> {
        Vec::new()
    }
}

/// The device of a share: they are dealt out in turn, so that as many processes as there are GPUs have one each.
fn device_of(share: Share, devices: &[String], otherwise: &str) -> String {
    let dealt = devices.get(share.number % devices.len().max(1));
    dealt.map_or(otherwise, String::as_str).to_owned()
}

/// Has each share of an action done by a process of its own, all side by side. What the first one failed at that failed is the error; the
/// others go on to their ends, since what they keep is kept.
fn attend_shares(
    run: &RunContext,
    command: &WorkerCommand,
    path: &Path,
    action: &Action,
    plan: &UnitPlan,
    shares: impl Iterator<Item = ((Share, String), (Sender<Heard>, Receiver<Heard>))>,
) -> Result<(), AttemptError> {
    let merged = Merged::new(&run.observer, &action.instance, plan);
    let done: Vec<Result<(), AttemptError>> = thread::scope(|scope| {
        let begin = |((share, device), (own, heard)): ((Share, String), (Sender<Heard>, Receiver<Heard>))| {
            let merged = &merged;
            let action = Action { share: Some(share), device, ..action.clone() };
            let path = path.with_extension(format!("{}.json", share.number));
            let attending = thread::Builder::new().name(format!("{} {}", action.instance, share.number));
            attending.spawn_scoped(scope, move || {
                listen_to(run, command, &path, &action, (&own, &heard), &|event| merged.event(share, event), |_| ())
            })
        };
        let begun: Vec<_> = shares.map(begin).collect();
        let end = |begun: io::Result<thread::ScopedJoinHandle<'_, Result<(), AttemptError>>>| match begun {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(error) => Err(Error::new(ErrorKind::Limit, format!("cannot start a thread: {error}")).into()),
        };
        begun.into_iter().map(end).collect()
    });
    merged.end();
    // One that was stopped says less than one that failed.
    let mut errors: Vec<AttemptError> = done.into_iter().filter_map(Result::err).collect();
    errors.sort_by_key(|error| error.error.kind == ErrorKind::Interrupted);
    errors.into_iter().next().map_or(Ok(()), Err)
}

/// Starts a worker for an action, hears it out, and adopts its result.
fn attend(
    run: &RunContext,
    command: &WorkerCommand,
    path: &Path,
    action: &Action,
    ways: (&Sender<Heard>, &Receiver<Heard>),
    tell: &dyn Fn(&Event),
    began: impl FnOnce(u32),
) -> Result<Manifest, AttemptError> {
    listen_to(run, command, path, action, ways, tell, began)?;
    Ok(run.store.adopt(&action.key).ok_or_else(|| {
        Error::store("the worker says that it is done, but its result is not in the store")
            .hint("is the store on a file system that the worker shares?")
    })?)
}

/// Starts a worker for an action, and hears it out.
fn listen_to(
    run: &RunContext,
    command: &WorkerCommand,
    path: &Path,
    action: &Action,
    (mailbox, heard): (&Sender<Heard>, &Receiver<Heard>),
    tell: &dyn Fn(&Event),
    began: impl FnOnce(u32),
) -> Result<(), AttemptError> {
    with_places(action, &run.store).write(path)?;
    let mut child = start(command, path, mailbox)?;
    began(child.id());
    let mut stdin = child.stdin.take();
    let mut finishing = false;
    let mut killed = false;
    let mut end: Option<Result<(), Error>> = None;
    let mut last_words: VecDeque<String> = VecDeque::new();
    let mut open = STREAMS;
    while open > 0 {
        match heard.recv().unwrap_or(Heard::Closed) {
            Heard::Message(message) => match *message {
                Message::Event(event) => tell(&event),
                Message::Done { places } => {
                    for place in &places {
                        run.store.learn(place);
                    }
                    end = Some(Ok(()));
                }
                Message::Failed { kind, message, hint, at } => {
                    let mut error = Error::new(kind, message);
                    error.hint = hint;
                    error.at = at.map(Box::new);
                    end = Some(Err(error));
                }
            },
            Heard::Line(line) => {
                tell(&Event::Said { instance: action.instance.clone(), line: line.clone() });
                last_words.push_back(line);
                if last_words.len() > LAST_WORDS {
                    last_words.pop_front();
                }
            }
            Heard::Closed => open -= 1,
            Heard::Cancel(Cancel::Finish) if mem::replace(&mut finishing, true) => {}
            Heard::Cancel(Cancel::Finish) => {
                let _ = stdin.as_mut().map(|stdin| stdin.write_all(b"finish\n").and_then(|()| stdin.flush()));
            }
            Heard::Cancel(Cancel::Kill) => {
                killed = true;
                let _ = child.kill();
            }
        }
    }
    let status = child.wait().map_err(|error| Error::internal("cannot wait for the worker").source(error))?;
    drop(stdin);
    match end {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => Err(error.into()),
        None if killed => Err(Error::interrupted().into()),
        None => Err(AttemptError { error: died(status, &last_words), lost: true }),
    }
}

/// An action that also says where its contents were last seen, for a worker that has no index to find them by.
pub(super) fn with_places(action: &Action, store: &Store) -> Action {
    let contents = action.contents();
    // What is not found here is not found there either, and said there.
    let contents = contents.iter().filter_map(|file| store.place(file).ok().flatten());
    let files = action.files.values().filter_map(|(_, path)| store.place_of(path));
    let places = contents.chain(files).collect();
    Action { places, ..action.clone() }
}

/// Streams that a worker writes to.
const STREAMS: usize = 2;

/// What comes to the thread that attends to a worker.
enum Heard {
    /// A line of its stdout.
    Message(Box<Message>),
    /// A line of its stderr, or one of its stdout that is no message.
    Line(String),
    /// A stream ended.
    Closed,
    /// It is to be stopped.
    Cancel(Cancel),
}

fn start(command: &WorkerCommand, path: &Path, to: &Sender<Heard>) -> Result<Child, Error> {
    let failed = |what: &str| Error::internal(format!("cannot start a process for this stage: {what}"));
    let (program, args) = command.0.split_first().ok_or_else(|| failed("no program is named"))?;
    let mut command = Command::new(program);
    // A group of its own: Ctrl-C in a terminal reaches the run, which passes it on in its own way.
    command.args(args).arg(path).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(&plain(&error)).source(error))?;
    listen(child.stdout.take(), to, |line| {
        serde_json::from_str(&line).map_or(Heard::Line(line), |message| Heard::Message(Box::new(message)))
    });
    listen(child.stderr.take(), to, Heard::Line);
    Ok(child)
}

/// Hands on what comes, line by line, until it ends.
fn listen(
    from: Option<impl Read + Send + 'static>,
    to: &Sender<Heard>,
    heard: impl Fn(String) -> Heard + Send + 'static,
) {
    let without = to.clone();
    let to = to.clone();
    let listening = thread::Builder::new().spawn(move || {
        let Some(from) = from else { return };
        let mut lines = BufReader::new(from);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if !text.is_empty() && to.send(heard(text)).is_err() {
                break;
            }
        }
        let _ = to.send(Heard::Closed);
    });
    if listening.is_err() {
        // A worker whose words nobody hears has closed its mouth.
        let _ = without.send(Heard::Closed);
    }
}

/// What to say of a worker that ended without a word.
fn died(status: ExitStatus, last_words: &VecDeque<String>) -> Error {
    const KILL: i32 = 9;
    let said: Vec<&str> = last_words.iter().map(String::as_str).collect();
    let said = if said.is_empty() { String::new() } else { format!("; its last words: {}", said.join(" / ")) };
    let kept = "what it finished is kept, so the same command goes on from there";
    match status.signal() {
        Some(KILL) => {
            let message = "its process was killed, most likely for memory: the kernel does that to the largest process \
                           when memory runs out (signal 9)";
            Error::new(ErrorKind::Limit, format!("{message}{said}")).hint(Hint::LessMemory)
        }
        Some(signal) => {
            let name = name(signal).map(|name| format!(", {name}")).unwrap_or_default();
            Error::new(ErrorKind::Limit, format!("its process was ended by signal {signal}{name}{said}")).hint(kept)
        }
        None => {
            let code = status.code().unwrap_or_default();
            Error::internal(format!("its process ended with status {code} and no result{said}")).hint(kept)
        }
    }
}

/// What the usual signals mean.
fn name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        2 => "an interrupt",
        4 => "an instruction that this CPU lacks",
        6 => "which it sent itself",
        7 => "a file that shrank while it was mapped, or a disk error",
        8 => "an arithmetic fault",
        11 => "a fault in its memory",
        15 => "a request to end",
        24 => "the limit on CPU time",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_has_a_device_of_its_own() {
        let gpus = ["cuda:0".to_owned(), "cuda:1".to_owned()];
        let dealt = |devices: &[String], of| -> Vec<String> {
            (0..of).map(|number| device_of(Share { number, of }, devices, "cpu")).collect()
        };
        assert_eq!(dealt(&gpus, 2), gpus);
        assert_eq!(dealt(&gpus, 3), ["cuda:0", "cuda:1", "cuda:0"]);
        assert_eq!(dealt(&[], 2), ["cpu", "cpu"]);
    }

    #[test]
    fn deaths_are_explained() {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let rows: [(i32, VecDeque<String>); 5] = [
            (9, words(&[])),
            (6, words(&["memory allocation of 800000000000 bytes failed"])),
            (11, words(&[])),
            (31, words(&[])),
            (3 << 8, words(&["one", "two"])),
        ];
        let told: Vec<String> = rows
            .iter()
            .map(|(status, words)| {
                let error = died(ExitStatus::from_raw(*status), words);
                format!(
                    "{error} ({:?})\n  hint: {}",
                    error.kind,
                    error.hint.as_ref().map(ToString::to_string).unwrap_or_default()
                )
            })
            .collect();
        insta::assert_snapshot!(told.join("\n"));
    }
}
