//! Progress on a terminal: a line for each stage at work, and a bar for each count within it.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use palinode::{Event, Observer};

use super::keys;
use super::output::{self, BARS};
use super::{Journal, Style, format, safe};

/// Files from this size take long enough to read that the reader should know.
pub const LARGE: u64 = 256 << 20;

/// Columns of a stage's line beside its name and what it uses.
const STAGE: usize = 14;

/// Columns of a count's line beside its name, its numbers and its note.
const COUNT: usize = 54;

/// Redraws of a stage's line, so that its time goes on.
const TICK: Duration = Duration::from_millis(100);

/// Draws a run.
pub struct Bars {
    bars: MultiProgress,
    state: Mutex<State>,
}

struct State {
    journal: Journal,
    stages: HashMap<String, ProgressBar>,
    /// For each count: its bar, and how much of it an earlier run had done.
    counts: HashMap<(String, String), (ProgressBar, u64)>,
    reading: Option<ProgressBar>,
}

impl Bars {
    /// For a run.
    pub fn new(journal: Journal) -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        let bars = BARS.get_or_init(|| bars).clone();
        keys::hide();
        let state = State { journal, stages: HashMap::new(), counts: HashMap::new(), reading: None };
        Self { bars, state: Mutex::new(state) }
    }
}

impl Observer for Bars {
    fn event(&self, event: &Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.draw(&self.bars, event);
        for line in state.journal.lines(event) {
            let _ = self.bars.println(safe::safe(&line));
        }
        if matches!(event, Event::RunFinished { .. }) {
            output::clear();
        }
    }
}

impl State {
    fn draw(&mut self, bars: &MultiProgress, event: &Event) {
        if !matches!(event, Event::Progress { .. })
            && let Some(reading) = self.reading.take()
        {
            remove(bars, &reading);
        }
        let style = *self.journal.style();
        match event {
            Event::Hashing { path, size } if *size > LARGE => {
                let bar = bars.add(ProgressBar::new_spinner().with_style(stage_style(&style)));
                let name = safe::line(&path.file_name().unwrap_or(path.as_os_str()).to_string_lossy());
                bar.set_message(format!("reading {name} for its digest ({})", format::size(*size)));
                bar.enable_steady_tick(TICK);
                self.reading = Some(bar);
            }
            Event::StageStarted { instance, uses, reasons } => {
                let bar = bars.add(ProgressBar::new_spinner().with_style(stage_style(&style)));
                let why = safe::line(reasons.first().map(String::as_str).unwrap_or_default());
                let name = safe::line(instance);
                let room = room(STAGE + instance.chars().count() + uses.len());
                bar.set_message(format!("{}  {uses}  {}", style.bold(&name), style.dim(&clip(&why, room))));
                bar.enable_steady_tick(TICK);
                self.stages.insert(instance.clone(), bar);
            }
            Event::ProgressStarted { instance, what, total } => {
                let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
                let bar = bars.add(bar.with_style(count_style(&style, total.is_some())).with_prefix(safe::line(what)));
                if let Some((before, _)) = self.counts.insert((instance.clone(), what.clone()), (bar, 0)) {
                    remove(bars, &before);
                }
            }
            Event::Progress { instance, what, done, kept, note, .. } => {
                if let Some((bar, found)) = self.counts.get_mut(&(instance.clone(), what.clone())) {
                    let counts = done.to_string().len() + bar.length().map_or(0, |total| total.to_string().len());
                    bar.set_message(clip(&safe::line(note), room(COUNT + what.chars().count().max(10) + counts)));
                    bar.set_position(*done);
                    // Work of an earlier run came at once and says nothing of the time that is left.
                    if std::mem::replace(found, *kept) != *kept {
                        bar.reset_eta();
                    }
                }
            }
            Event::ProgressEnded { instance, what, .. } => {
                if let Some((bar, _)) = self.counts.remove(&(instance.clone(), what.clone())) {
                    remove(bars, &bar);
                }
            }
            Event::StageFinished { instance, .. } => {
                if let Some(bar) = self.stages.remove(instance) {
                    remove(bars, &bar);
                }
            }
            _ => {}
        }
    }
}

/// Columns left in a line.
fn room(taken: usize) -> usize {
    Style::stderr().width.saturating_sub(taken + 1)
}

fn clip(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        Some(_) if width == 0 => String::new(),
        Some(_) => text.chars().take(width - 1).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

fn remove(bars: &MultiProgress, bar: &ProgressBar) {
    bar.finish_and_clear();
    bars.remove(bar);
}

fn stage_style(style: &Style) -> ProgressStyle {
    let template = if style.color { "{spinner:.cyan} {elapsed:.dim} {msg}" } else { "{spinner} {elapsed} {msg}" };
    template_of(template).with_key("elapsed", |state: &ProgressState, out: &mut dyn Write| {
        let seconds = state.elapsed().as_secs();
        let _ = write!(out, "{}:{:02}", seconds / 60, seconds % 60);
    })
}

fn count_style(style: &Style, known: bool) -> ProgressStyle {
    let template = match (known, style.color) {
        (false, _) => "  {prefix:10} {pos} {speed} {msg}",
        (true, true) => "  {prefix:10} {bar:24.cyan/dim} {pos}/{len} {speed:.dim} {left}  {msg:.dim}",
        (true, false) => "  {prefix:10} {bar:24} {pos}/{len} {speed} {left}  {msg}",
    };
    template_of(template)
        .progress_chars("━╸─")
        .with_key("speed", |state: &ProgressState, out: &mut dyn Write| {
            let _ = write!(out, "{:>9}", format::rate(state.per_sec()));
        })
        .with_key("left", |state: &ProgressState, out: &mut dyn Write| {
            let left = state.eta().as_secs_f64();
            let text = if left > 0.0 && state.pos() > 0 { format::left(left) } else { String::new() };
            let _ = write!(out, "{text:>12}");
        })
}

fn template_of(template: &str) -> ProgressStyle {
    // The templates are ours; one that does not parse falls back to the plain bar.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
