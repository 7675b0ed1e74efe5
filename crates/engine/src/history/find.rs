//! Which run is meant: by its id, a part of it, or counted from the last.

use super::{History, PastRun};
use crate::error::{ErrorKind, StageError};
use crate::suggest::did_you_mean;

impl History {
    /// The run that `name` stands for: an id, how an id begins or ends, `last`, or `last~2` for the second before the last.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn find(&self, name: &str) -> Result<PastRun, StageError> {
        let ids = self.ids();
        let usage = |message: String| StageError::new(ErrorKind::Usage, message);
        if ids.is_empty() {
            let message = format!("there are no runs in {}", self.root().display());
            return Err(usage(message).hint("name the folder of the store with --store; `palinode run` makes one"));
        }
        let back = match name.strip_prefix("last") {
            Some("") => Some(0),
            Some(rest) => rest.strip_prefix('~').and_then(|count| count.parse::<usize>().ok()),
            None => None,
        };
        let id = if let Some(back) = back {
            ids.get(back).ok_or_else(|| usage(format!("there are only {} runs", ids.len())))?
        } else {
            let like: Vec<&String> = ids.iter().filter(|id| id.starts_with(name) || id.ends_with(name)).collect();
            match (ids.iter().find(|id| *id == name), like.as_slice()) {
                (Some(id), _) => id,
                (None, [id]) => *id,
                (None, []) => {
                    let hint = did_you_mean(name, ids.iter().map(String::as_str));
                    let hint = hint.unwrap_or_else(|| "see `palinode runs`; `last` is the latest".to_owned());
                    return Err(usage(format!("there is no run `{name}`")).hint(hint));
                }
                (None, [first, second, ..]) => {
                    return Err(usage(format!("`{name}` is part of the ids of {} runs", like.len()))
                        .hint(format!("write more of it: {second}, {first}")));
                }
            }
        };
        self.run(id).ok_or_else(|| usage(format!("the run {id} left no event log")))
    }
}
