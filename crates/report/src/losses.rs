//! How targets were found: losses, step by step.

use crate::choose::figure;
use crate::curve::{self, Line, Point};
use crate::data::{Losses, Metric, Trace};
use crate::figure::{Figure, Key, Panel};
use crate::look::{Look, words};
use crate::number::short;
use crate::svg::{Anchor, Svg, clip};

/// So many requests have a small curve of their own.
const SMALL: usize = 60;
const WIDE: f64 = 148.0;
const TALL: f64 = 62.0;

impl Losses {
    /// Over all requests: the middle loss and the middle half, and the middles of its terms.
    pub fn summary(&self) -> Option<Figure> {
        let steps = self.traces.iter().map(|trace| trace.loss.len()).max().filter(|steps| *steps > 1)?;
        let levels: Vec<f64> = (1..=steps).map(|step| step as f64).collect();
        let middle = |value: &dyn Fn(&Trace, usize) -> Option<f64>, half: bool| {
            let point = |step: usize| {
                // A request that is done stays where it was.
                let mut all: Vec<f64> = self.traces.iter().filter_map(|trace| value(trace, step)).collect();
                all.retain(|value| value.is_finite());
                all.sort_by(f64::total_cmp);
                let at = |share: f64| all.get(((all.len().max(1) - 1) as f64 * share).round() as usize).copied();
                let interval = if half { at(0.25).zip(at(0.75)).map(|(low, high)| [low, high]) } else { None };
                Some(Point { x: (step + 1) as f64, y: at(0.5)?, interval })
            };
            (0..steps).filter_map(point).collect::<Vec<_>>()
        };
        let of = |values: &[f64], step: usize| values.get(step).or(values.last()).copied();
        let metric = |label: &str| Metric { label: label.to_owned(), ..Metric::default() };
        let whole = Line {
            look: Look::nth(0),
            label: "loss".to_owned(),
            points: middle(&|trace, step| of(&trace.loss, step), true),
        };
        let terms: Vec<Line> = self
            .terms
            .iter()
            .enumerate()
            .map(|(at, term)| Line {
                look: Look::nth(at + 1),
                label: term.clone(),
                points: middle(&|trace, step| of(trace.terms.get(at)?, step), false),
            })
            .collect();
        let mut legend = vec![Key { look: Look::nth(0), label: "loss".to_owned() }];
        legend.extend(terms.iter().map(|line| Key { look: line.look, label: line.label.clone() }));
        let mut panels = vec![curve::panel(&metric("loss"), "step", &levels, &[whole])];
        if !terms.is_empty() {
            panels.push(curve::panel(&metric("terms of the loss"), "step", &levels, &terms));
        }
        let instance = words(&self.instance);
        let caption = match self.traces.len() {
            1 => format!("Optimisation of 1 target ({instance})."),
            all => format!(
                "Optimisation of {all} targets ({instance}): the median over requests, and the band that holds their middle half."
            ),
        };
        Some(figure(&format!("{}-losses", stem(&self.instance)), &caption, panels, &legend, &[], false))
    }

    /// A small curve for each request, those with the highest final loss first.
    pub fn each(&self) -> Option<Figure> {
        let last = |trace: &Trace| trace.loss.last().copied().unwrap_or(f64::NEG_INFINITY);
        let mut traces: Vec<&Trace> = self.traces.iter().filter(|trace| trace.loss.len() > 1).collect();
        traces.sort_by(|a, b| last(b).total_cmp(&last(a)));
        if traces.len() < 2 {
            return None;
        }
        let most = traces.iter().flat_map(|trace| &trace.loss).copied().filter(|v| v.is_finite()).fold(0.0, f64::max);
        let steps = traces.iter().map(|trace| trace.loss.len()).max().unwrap_or(1);
        let shown = traces.len().min(SMALL);
        let panels = traces[..shown].iter().map(|trace| small(trace, steps, most)).collect();
        let which = if shown < traces.len() { format!("The {shown} requests") } else { "Requests".to_owned() };
        let caption = format!(
            "{which} with the highest final loss first ({}); loss over steps, all on one scale from 0 to {}.",
            words(&self.instance),
            short(most)
        );
        Some(figure(&format!("{}-losses-each", stem(&self.instance)), &caption, panels, &[], &[], true))
    }
}

fn small(trace: &Trace, steps: usize, most: f64) -> Panel {
    let (top, bottom) = (18.0, 6.0);
    let at_x = |step: usize| 2.0 + step as f64 / (steps.max(2) - 1) as f64 * (WIDE - 42.0);
    let at_y = |loss: f64| top + (1.0 - (loss / most.max(1e-12)).clamp(0.0, 1.0)) * (TALL - top - bottom);
    let points: Vec<_> = trace.loss.iter().enumerate().map(|(step, loss)| (at_x(step), at_y(*loss))).collect();
    let mut svg = Svg::default();
    svg.text((2.0, 11.0), Anchor::Start, &clip(&trace.label, WIDE - 4.0), "");
    svg.line((2.0, at_y(0.0)), (WIDE - 40.0, at_y(0.0)), r#"stroke-opacity=".2""#);
    svg.group(&Look::nth(0).group(), |svg| svg.path(&points, r#"stroke-width="1.4""#));
    if let (Some((x, y)), Some(loss)) = (points.last(), trace.loss.last()) {
        svg.text((x + 5.0, (y + 3.8).min(TALL - 3.0)), Anchor::Start, &short(*loss), r#"opacity=".8""#);
    }
    Panel { width: WIDE, height: TALL, title: format!("loss of {}", trace.label), body: svg }
}

/// A name for files.
pub fn stem(name: &str) -> String {
    let kept = |char: char| if char.is_ascii_alphanumeric() || "-_.".contains(char) { char } else { '-' };
    let text: String = name.chars().map(kept).collect();
    text.trim_matches(['-', '.']).to_owned()
}
