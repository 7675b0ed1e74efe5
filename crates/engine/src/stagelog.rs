//! One log for each stage that works: what a person wants to read when it takes long or fails.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::event::{Event, Outcome};
use palinode_error::utc;
use palinode_fingerprint::Digest;

/// Longest name of a log before its ending; file systems allow 255 bytes.
const LONGEST: usize = 120;

/// Where the log of a stage instance lies in the folder of a run.
pub fn stage_log(dir: &Path, instance: &str) -> PathBuf {
    let plain = |char: char| char.is_ascii_alphanumeric() || "-_.,=[]".contains(char);
    let safe: String = instance.chars().map(|char| if plain(char) { char } else { '_' }).collect();
    // A name that could not be kept gets a mark, so that two of them stay apart.
    let name = if safe == instance && safe.len() <= LONGEST {
        safe
    } else {
        let cut: String = safe.chars().take(LONGEST).collect();
        format!("{cut}-{}", &Digest::of(instance.as_bytes()).short()[..8])
    };
    dir.join("stages").join(name + ".log")
}

/// Appends what an event says of a stage to that stage's log. Nothing depends on it: a log that cannot be written is traced.
pub fn append(dir: &Path, event: &Event, at_ms: u64) {
    let Some((instance, text)) = line(event) else { return };
    let path = stage_log(dir, instance);
    let line = format!("{}.{:03}Z  {text}\n", utc(at_ms / 1000), at_ms % 1000);
    let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
    let written = folder
        .and_then(|()| File::options().append(true).create(true).open(&path))
        .and_then(|mut file| file.write_all(line.as_bytes()));
    if let Err(error) = written {
        tracing::warn!(%error, path = %path.display(), "the log of a stage cannot be written");
    }
}

fn line(event: &Event) -> Option<(&str, String)> {
    Some(match event {
        Event::StageStarted { instance, uses, reasons } => {
            (instance.as_str(), format!("started ({uses}): {}", reasons.join("; ")))
        }
        Event::ProgressStarted { instance, what, total } => {
            let total = total.map_or_else(String::new, |total| format!("{total} "));
            (instance.as_str(), format!("counting {total}{what}"))
        }
        Event::Progress { instance, what, done, total, note, .. } => {
            let total = total.map_or_else(String::new, |total| format!("/{total}"));
            (instance.as_str(), format!("{done}{total} {what}  {note}").trim_end().to_owned())
        }
        Event::ProgressEnded { instance, what, done, seconds } => {
            (instance.as_str(), format!("{done} {what} in {seconds:.1} s"))
        }
        Event::StageRetried { instance, failed, left, message } => {
            (instance.as_str(), format!("attempt {failed} failed, {left} left: {message}"))
        }
        Event::Said { instance, line } => (instance.as_str(), format!("| {line}")),
        Event::StageFinished { instance, outcome, seconds, .. } => {
            let text = match outcome {
                Outcome::Ran => format!("done in {seconds:.1} s"),
                Outcome::Failed { message, hint, .. } => {
                    let hint = hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
                    format!("failed after {seconds:.1} s: {message}{hint}")
                }
                // These did not work in this run.
                Outcome::Cached | Outcome::Skipped { .. } | Outcome::NotAsked => return None,
            };
            (instance.as_str(), text)
        }
        Event::Warning { instance: Some(instance), message } => (instance.as_str(), format!("warning: {message}")),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |instance: &str, expect: &str| {
            let path = stage_log(Path::new("r"), instance).display().to_string();
            assert!(path.starts_with(expect), "{path}");
        };
        check("solve", "r/stages/solve.log");
        check("solve[objective=rome,layers=[1,2]]", "r/stages/solve[objective=rome,layers=[1,2]].log");
        check("a[path=../x y]", "r/stages/a[path=.._x_y]-");
        assert_ne!(stage_log(Path::new("r"), "a[b=x y]"), stage_log(Path::new("r"), "a[b=x/y]"));
    }
}
