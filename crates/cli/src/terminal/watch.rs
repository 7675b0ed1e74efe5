//! How a run is watched.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use palinode::{Event, Observer, Pipeline};

use super::bars::{Bars, LARGE};
use super::lines::Lines;
use super::{Journal, Style, complain, format, safe};
use crate::command_error::in_words;

/// What the reader of a run wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Bars on a terminal, plain lines elsewhere.
    Person,
    /// Every event as a JSON line on stdout.
    Json,
    /// Nothing but warnings.
    Quiet,
}

/// The observer for a run of this pipeline.
pub fn watch(how: How, pipeline: &Pipeline) -> Arc<dyn Observer> {
    let style = Style::stderr();
    let journal = Journal::new(pipeline, style);
    match how {
        How::Json => Arc::new(Json(Mutex::new(io::stdout()))),
        How::Quiet => Arc::new(Quiet),
        How::Person if style.terminal => Arc::new(Bars::new(journal)),
        How::Person => Arc::new(Lines::new(journal)),
    }
}

struct Json(Mutex<io::Stdout>);

impl Observer for Json {
    fn event(&self, event: &Event) {
        let worded;
        let event = match event {
            Event::StageFinished { instance, outcome, key, seconds } => {
                let outcome = in_words(outcome);
                worded = Event::StageFinished { instance: instance.clone(), outcome, key: *key, seconds: *seconds };
                &worded
            }
            event => event,
        };
        let Ok(line) = serde_json::to_string(event) else { return };
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The run goes on when nobody listens any more: its results are what counts.
        let _ = writeln!(out, "{}", safe::json(&line)).and_then(|()| out.flush());
    }
}

struct Quiet;

impl Observer for Quiet {
    fn event(&self, event: &Event) {
        if let Some(warning) = event.warning_line() {
            complain(&format!("warning: {warning}\n"));
        }
    }
}

/// Tells of nothing but what takes long outside a run: reading large files for their digests.
pub struct Reading;

impl Observer for Reading {
    fn event(&self, event: &Event) {
        if let Event::Hashing { path, size } = event
            && *size > LARGE
        {
            complain(&format!("reading {} for its digest ({})\n", path.display(), format::size(*size)));
        }
    }
}
