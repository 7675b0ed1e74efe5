//! A stage in a process of its own, seen from the run that starts it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use crate::action::Action;
use crate::context::RunContext;
use crate::event::Event;
use crate::stop::Stop;
use crate::worker::Message;
use palinode_error::{ErrorKind, Hint, StageError, plain};
use palinode_store::Manifest;

/// What starts a worker: a program and its arguments; the path of the action file is added. The program has to call
/// [`crate::work_aloud`], to finish its unit and stop when a line comes on its stdin, and to end at once when its stdin
/// closes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerCommand(pub Vec<OsString>);

/// How often a worker's process is looked after while it says nothing.
const LOOK: Duration = Duration::from_millis(50);

/// Lines of a worker's stderr that are kept for the message should it die.
const LAST_WORDS: usize = 3;

/// Runs an action in a process of its own and adopts its result.
pub(crate) fn perform_apart(
    run: &RunContext,
    command: &WorkerCommand,
    path: &Path,
    action: &Action,
    stop: &Stop,
) -> Result<Manifest, StageError> {
    action.write(path)?;
    let (mut child, heard) = start(command, path)?;
    let mut stdin = child.stdin.take();
    let mut asked = false;
    let mut killed = false;
    let mut end: Option<Result<(), StageError>> = None;
    let mut last_words: VecDeque<String> = VecDeque::new();
    loop {
        let wanted = run.interrupt.load(Ordering::Relaxed) || stop.finish.load(Ordering::Relaxed);
        if wanted && !std::mem::replace(&mut asked, true) {
            // A worker that is gone already says so by its end.
            let _ = stdin.as_mut().map(|stdin| stdin.write_all(b"finish\n").and_then(|()| stdin.flush()));
        }
        if stop.end.load(Ordering::Relaxed) && !std::mem::replace(&mut killed, true) {
            let _ = child.kill();
        }
        match heard.recv_timeout(LOOK) {
            Ok(Heard::Message(message)) => match *message {
                Message::Event(event) => run.observer.event(&event),
                Message::Done { places } => {
                    for place in &places {
                        run.store.learn(place);
                    }
                    end = Some(Ok(()));
                }
                Message::Failed { kind, message, hint, at } => {
                    let mut error = StageError::new(kind, message);
                    error.hint = hint;
                    error.at = at.map(Box::new);
                    end = Some(Err(error));
                }
            },
            Ok(Heard::Line(line)) => {
                run.observer.event(&Event::Said { instance: action.instance.clone(), line: line.clone() });
                last_words.push_back(line);
                if last_words.len() > LAST_WORDS {
                    last_words.pop_front();
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child.wait().map_err(|error| StageError::internal("cannot wait for the worker").source(error))?;
    drop(stdin);
    match end {
        Some(Ok(())) => run.store.adopt(&action.key).ok_or_else(|| {
            StageError::store("the worker says that it is done, but its result is not in the store")
                .hint("is the store on a file system that the worker shares?")
        }),
        Some(Err(error)) => Err(error),
        None if killed => Err(StageError::interrupted()),
        None => Err(died(status, &last_words)),
    }
}

/// What comes from a worker.
enum Heard {
    /// A line of its stdout.
    Message(Box<Message>),
    /// A line of its stderr, or one of its stdout that is no message.
    Line(String),
}

fn start(command: &WorkerCommand, path: &Path) -> Result<(Child, Receiver<Heard>), StageError> {
    let failed = |what: &str| StageError::internal(format!("cannot start a process for this stage: {what}"));
    let (program, args) = command.0.split_first().ok_or_else(|| failed("no program is named"))?;
    let mut command = Command::new(program);
    // A group of its own: Ctrl-C in a terminal reaches the run, which passes it on in its own way.
    command.args(args).arg(path).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(&plain(&error)).source(error))?;
    let (sender, heard) = mpsc::channel();
    listen(child.stdout.take(), &sender, |line| {
        serde_json::from_str(&line).map_or(Heard::Line(line), |message| Heard::Message(Box::new(message)))
    });
    listen(child.stderr.take(), &sender, Heard::Line);
    Ok((child, heard))
}

/// Hands on what comes, line by line, until it ends.
fn listen(
    from: Option<impl Read + Send + 'static>,
    to: &Sender<Heard>,
    heard: impl Fn(String) -> Heard + Send + 'static,
) {
    let (Some(from), to) = (from, to.clone()) else { return };
    thread::spawn(move || {
        let mut lines = BufReader::new(from);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if !text.is_empty() && to.send(heard(text)).is_err() {
                break;
            }
        }
    });
}

/// What to say of a worker that ended without a word.
fn died(status: ExitStatus, last_words: &VecDeque<String>) -> StageError {
    const KILL: i32 = 9;
    let said: Vec<&str> = last_words.iter().map(String::as_str).collect();
    let said = if said.is_empty() { String::new() } else { format!("; its last words: {}", said.join(" / ")) };
    let kept = "what it finished is kept, so the same command goes on from there";
    match status.signal() {
        Some(KILL) => {
            let message = "its process was killed, most likely for memory: the kernel does that to the largest process \
                           when memory runs out (signal 9)";
            StageError::new(ErrorKind::Limit, format!("{message}{said}")).hint(Hint::LessMemory)
        }
        Some(signal) => {
            let name = name(signal).map(|name| format!(", {name}")).unwrap_or_default();
            StageError::new(ErrorKind::Limit, format!("its process was ended by signal {signal}{name}{said}"))
                .hint(kept)
        }
        None => {
            let code = status.code().unwrap_or_default();
            StageError::internal(format!("its process ended with status {code} and no result{said}")).hint(kept)
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
