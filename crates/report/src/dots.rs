//! A dot for each cell, with its interval: what to compare where axes are words.

use std::iter::empty;

use crate::curve::heading;
use crate::data::{Measure, Metric};
use crate::figure::{PANEL, Panel};
use crate::look::Look;
use crate::number::{decimals, fixed};
use crate::scale::Scale;
use crate::svg::{Anchor, Svg, lines, width};

const TOP: f64 = 26.0;
const LINE: f64 = 19.0;
const BOTTOM: f64 = 24.0;
/// What another line of a label takes.
const MORE: f64 = 12.0;
/// How far outside the dots a line may be, in their range.
const NEAR: f64 = 0.6;

/// One metric in all cells. `base` is the value of the unedited model, a line through all rows.
pub fn panel(metric: &Metric, labels: &[String], looks: &[Look], values: &[Measure], base: Option<f64>) -> Panel {
    let reach: Vec<f64> = values.iter().flat_map(|m| m.interval.into_iter().flatten().chain(m.value)).collect();
    // A line far from all dots would press them together; its value is told instead.
    let finite = || reach.iter().copied().filter(|value| value.is_finite());
    let (low, high) = finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), value| (l.min(value), h.max(value)));
    let room = NEAR * (high - low);
    let near = base.filter(|base| (low - room..=high + room).contains(base));
    let scale = Scale::values(reach.iter().copied().chain(near).collect::<Vec<_>>().into_iter(), metric.percent);
    let wanted = labels.iter().map(|label| width(label)).fold(0.0, f64::max) + 12.0;
    let left = wanted.min(PANEL * 0.46);
    // Labels stay whole: those that are too long stand in several lines.
    let labels: Vec<(&String, Vec<String>)> = labels.iter().map(|label| (label, lines(label, left - 10.0))).collect();
    let most = labels.iter().map(|(_, lines)| lines.len()).max().unwrap_or(1).max(1);
    let line = LINE + (most - 1) as f64 * MORE;
    let (inner, tall) = (PANEL - left - 14.0, line * labels.len() as f64);
    let at = |value: f64| left + scale.at(value) * inner;
    let mut svg = Svg::default();
    heading(&mut svg, metric);
    let mut free = f64::NEG_INFINITY;
    for (value, text) in &scale.ticks {
        svg.line((at(*value), TOP), (at(*value), TOP + tall), r#"stroke-opacity=".13""#);
        // A label that would touch the one before it is left out.
        let half = width(text) / 2.0;
        if at(*value) - half > free && at(*value) + half <= PANEL {
            svg.text((at(*value), TOP + tall + 15.0), Anchor::Middle, text, r#"opacity=".8""#);
            free = at(*value) + half + 5.0;
        }
    }
    if let (Some(base), None) = (base, near) {
        let told = format!(
            "unedited {}",
            fixed(base, metric.percent, decimals(metric.percent, finite().chain([base]), empty()))
        );
        svg.text((PANEL - 14.0, 13.0), Anchor::End, &told, r#"opacity=".7""#);
    }
    if let Some(base) = near {
        svg.titled("the unedited model", |svg| {
            svg.line((at(base), TOP), (at(base), TOP + tall), r#"stroke-opacity=".7" stroke-dasharray="3 3""#);
        });
    }
    for (i, (((label, lines), look), measure)) in labels.iter().zip(looks).zip(values).enumerate() {
        let y = TOP + line * (i as f64 + 0.5);
        for (l, part) in lines.iter().enumerate() {
            let y = y + 3.8 + MORE * (l as f64 - (lines.len() - 1) as f64 / 2.0);
            svg.text((left - 8.0, y), Anchor::End, part, "");
        }
        let Some(value) = measure.value else { continue };
        svg.titled(label, |svg| {
            svg.group(&look.group(), |svg| {
                if let Some([low, high]) = measure.interval {
                    svg.line((at(low), y), (at(high), y), r#"stroke-width="1.6" stroke-opacity=".6""#);
                }
                look.mark(svg, (at(value), y));
            });
        });
    }
    Panel { width: PANEL, height: TOP + tall + BOTTOM, title: format!("{} of each cell", metric.label), body: svg }
}
