//! The lines that stay on the screen: one for each stage that worked, one for many that were cached.

use std::collections::HashMap;

use palinode::{ErrorKind, Event, Outcome, Pipeline};

use super::{Style, format};

/// Names are lined up to this width; longer ones stick out.
const NAMES: usize = 48;

/// Turns events into lines that stay.
pub struct Journal {
    style: Style,
    /// Width of names and of what they use.
    widths: (usize, usize),
    /// What each started stage uses.
    uses: HashMap<String, String>,
    /// Cached stages that were not told yet.
    cached: Vec<String>,
}

impl Journal {
    /// For a run of this pipeline.
    pub fn new(pipeline: &Pipeline, style: Style) -> Self {
        let names = pipeline.instances.iter().map(|instance| instance.name.chars().count().min(NAMES));
        let uses = pipeline.instances.iter().map(|instance| instance.kind.info().name.len());
        let widths = (names.max().unwrap_or(0), uses.max().unwrap_or(0));
        Self { style, widths, uses: HashMap::new(), cached: Vec::new() }
    }

    /// How to draw.
    pub fn style(&self) -> &Style {
        &self.style
    }

    /// What this event adds, oldest first.
    pub fn lines(&mut self, event: &Event) -> Vec<String> {
        let mut lines = Vec::new();
        match event {
            Event::StageStarted { instance, uses, .. } => {
                lines.extend(self.cached());
                self.uses.insert(instance.clone(), uses.clone());
            }
            Event::StageFinished { instance, outcome: Outcome::Cached, .. } => self.cached.push(instance.clone()),
            Event::StageFinished { instance, outcome, seconds, .. } => {
                lines.extend(self.cached());
                lines.push(self.finished(instance, outcome, *seconds));
            }
            Event::Warning { .. } => {
                lines.extend(self.cached());
                let line = event.warning_line().unwrap_or_default();
                lines.push(format!("{} {line}", self.style.yellow("warning:")));
            }
            Event::StageRetried { instance, failed, left, message } => {
                lines.extend(self.cached());
                let left = if *left == 0 { "the last time".to_owned() } else { format!("{left} more after this") };
                let what = format!("{instance}: attempt {failed} failed, trying again ({left}): {message}");
                lines.push(format!("{} {what}", self.style.yellow("↻")));
            }
            Event::Said { instance, line } => lines.push(self.style.dim(&format!("  {instance}: {line}"))),
            Event::RunFinished { .. } => lines.extend(self.cached()),
            _ => {}
        }
        lines
    }

    fn cached(&mut self) -> Option<String> {
        let names = std::mem::take(&mut self.cached);
        let count = names.len();
        let short = format!("{count} cached");
        let long = if names.is_empty() || count > 12 { None } else { Some(format!("{short}: {}", names.join(", "))) };
        let text = long.filter(|text| text.chars().count() + 2 <= self.style.prose()).unwrap_or(short);
        (count > 0).then(|| self.style.dim(&format!("· {text}")))
    }

    fn finished(&self, instance: &str, outcome: &Outcome, seconds: f64) -> String {
        let (names, kinds) = self.widths;
        let uses = self.uses.get(instance).map_or("", String::as_str);
        let took = format::duration(seconds);
        let (mark, end) = match outcome {
            Outcome::Failed { kind: ErrorKind::Interrupted, .. } => {
                (self.style.yellow("!"), format!("stopped after {took}"))
            }
            Outcome::Failed { .. } => (self.style.red("✗"), self.style.red(&format!("failed after {took}"))),
            _ => (self.style.green("✓"), took),
        };
        format!("{mark} {instance:names$}  {}  {end}", self.style.dim(&format!("{uses:kinds$}")))
    }
}
