//! Progress where there is no terminal: lines that a log can keep, few of them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use palinode::{Event, Observer};

use super::{Journal, complain, format};

/// At most one line of progress in this time.
const EVERY: Duration = Duration::from_secs(5);

/// Tells of a run in plain lines.
pub struct Lines(Mutex<State>);

struct State {
    journal: Journal,
    /// When progress was last told.
    told: Instant,
    counts: HashMap<(String, String), Counted>,
}

/// Something that is counted.
struct Counted {
    /// When it was last told of, or begun.
    at: Instant,
    /// How much this run had done by then.
    done: u64,
    /// How many there are, where known.
    total: Option<u64>,
    /// Whether it was told of at all.
    told: bool,
}

impl Lines {
    /// For a run.
    pub fn new(journal: Journal) -> Self {
        Self(Mutex::new(State { journal, told: Instant::now(), counts: HashMap::new() }))
    }
}

impl Observer for Lines {
    fn event(&self, event: &Event) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = state.journal.lines(event);
        lines.extend(state.line(event));
        if !lines.is_empty() {
            complain(&(lines.join("\n") + "\n"));
        }
    }
}

impl State {
    fn line(&mut self, event: &Event) -> Option<String> {
        match event {
            Event::RunStarted { run, pipeline, stages } => {
                Some(format!("run {run} of {pipeline}: {}", format::count(*stages, "stage")))
            }
            Event::Hashing { path, size } if *size > super::bars::LARGE => {
                Some(format!("reading {} for its digest ({})", path.display(), format::size(*size)))
            }
            Event::StageStarted { instance, uses, reasons } => {
                self.told = Instant::now();
                let why = reasons.first().map(|reason| format!(": {reason}")).unwrap_or_default();
                Some(format!("> {instance} ({uses}){why}"))
            }
            Event::ProgressStarted { instance, what, total } => {
                let new = Counted { at: Instant::now(), done: 0, total: *total, told: false };
                self.counts.insert((instance.clone(), what.clone()), new);
                None
            }
            Event::Progress { instance, what, done, kept, total, note } => {
                self.progress(instance, what, *done, *kept, *total, note)
            }
            Event::ProgressEnded { instance, what, done, seconds } => {
                // Whoever saw it go on sees where it ended.
                let Counted { total, .. } =
                    self.counts.remove(&(instance.clone(), what.clone())).filter(|count| count.told)?;
                let of = total.map(|total| format!("/{total}")).unwrap_or_default();
                Some(format!("  {instance}: {done}{of} {what} in {}", format::duration(*seconds)))
            }
            _ => None,
        }
    }

    fn progress(
        &mut self,
        instance: &str,
        what: &str,
        done: u64,
        kept: u64,
        total: Option<u64>,
        note: &str,
    ) -> Option<String> {
        if self.told.elapsed() < EVERY {
            return None;
        }
        self.told = Instant::now();
        let new = || Counted { at: Instant::now(), done, total, told: false };
        let count = self.counts.entry((instance.to_owned(), what.to_owned())).or_insert_with(new);
        let worked = done.saturating_sub(kept);
        let rate = worked.saturating_sub(count.done) as f64 / count.at.elapsed().as_secs_f64().max(1e-3);
        *count = Counted { at: Instant::now(), done: worked, total, told: true };
        let of = total.map(|total| format!("/{total}")).unwrap_or_default();
        let left = total.filter(|_| rate > 0.0).map(|total| format::left(total.saturating_sub(done) as f64 / rate));
        let parts = [Some(format::rate(rate)), left, Some(note.to_owned())];
        let parts: Vec<String> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
        let after = if parts.is_empty() { String::new() } else { format!(", {}", parts.join(", ")) };
        Some(format!("  {instance}: {done}{of} {what}{after}"))
    }
}
