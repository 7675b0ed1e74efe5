//! Runs that go on by themselves.

use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use palinode::{CommandLine, Error, ErrorKind, Holder, Runs, Store};

use crate::again;
use crate::command_error::{Failure, exit_code};
use crate::terminal::{complain, print};

/// The argument that says that this is the process that goes on.
pub const DETACHED: &str = "--detached";

/// How this command was started, so that it can be again.
pub fn command_line() -> Option<CommandLine> {
    let words = env::args().skip(1).filter(|word| word != DETACHED && word != "--detach").collect();
    Some(CommandLine { folder: env::current_dir().ok()?, words })
}

/// Starts this command once more, in a session of its own, and leaves once its run has begun.
pub fn start(store: &Path) -> Result<(), Failure> {
    let failed = |what: &str, error| Error::internal(format!("cannot {what}")).source(error);
    let program = env::current_exe().map_err(|error| failed("find the program", error))?;
    Store::make(store)?;
    let log = store.join("runs").join(format!(".detached-{}.log", std::process::id()));
    let file = File::create(&log).map_err(|error| Error::io(ErrorKind::Store, "write", &log, error))?;
    let out = file.try_clone().map_err(|error| failed("write a log", error))?;
    let mut words: Vec<String> = env::args().skip(1).filter(|word| word != "--detach").collect();
    words.push(DETACHED.to_owned());
    let mut child = Command::new(program)
        .args(&words)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(file)
        .spawn()
        .map_err(|error| failed("start the run", error))?;
    loop {
        let run = Holder::of(store).filter(|holder| holder.pid == child.id()).and_then(|holder| holder.run);
        if let Some(run) = run {
            let kept = Runs::of(store).dir(&run).join("detached.log");
            let _ = fs::rename(&log, &kept);
            let say = |command: &str| again::on_store(&format!("palinode {command} {run}"));
            return print(&format!(
                "run {run} goes on by itself\n  {}\n  {}\n  {}\n  {}\n",
                again::on_store("palinode status"),
                say("logs --follow"),
                say("attach"),
                say("cancel"),
            ));
        }
        if let Some(status) = child.try_wait().map_err(|error| failed("wait for the run", error))? {
            let said = fs::read_to_string(&log).unwrap_or_default();
            let _ = fs::remove_file(&log);
            if status.success() {
                return print(&said);
            }
            complain(&said);
            let code = status.code().unwrap_or_default();
            return Err(Failure::Told(kind_of(code)));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The kind of error that ended a program with this code.
fn kind_of(code: i32) -> ErrorKind {
    let all = [
        ErrorKind::Usage,
        ErrorKind::Pipeline,
        ErrorKind::Input,
        ErrorKind::Numerical,
        ErrorKind::Store,
        ErrorKind::Limit,
        ErrorKind::Changed,
        ErrorKind::Unworkable,
        ErrorKind::Doubtful,
        ErrorKind::Interrupted,
    ];
    all.into_iter().find(|kind| i32::from(exit_code(*kind)) == code).unwrap_or(ErrorKind::Internal)
}
