//! Lines over a numeric axis, with intervals.

use crate::data::{Better, Metric};
use crate::figure::{PANEL, Panel};
use crate::look::Look;
use crate::scale::Scale;
use crate::svg::{Anchor, Svg, clip, width};

/// A line.
#[derive(Clone, Debug)]
pub struct Line {
    /// How it is drawn.
    pub look: Look,
    /// What it is.
    pub label: String,
    /// Its points, from left to right.
    pub points: Vec<Point>,
}

/// A point of a line.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Where.
    pub x: f64,
    /// How much.
    pub y: f64,
    /// From where to where it may be.
    pub interval: Option<[f64; 2]>,
}

const HEIGHT: f64 = 204.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 40.0;
/// Intervals of lines with more points than this are bands instead of bars.
const BARS: usize = 12;

/// One metric's lines. `levels` are all values on the horizontal axis, which `axis` is the name of.
pub fn panel(metric: &Metric, axis: &str, levels: &[f64], lines: &[Line]) -> Panel {
    let points = || lines.iter().flat_map(|line| &line.points);
    let reach = points().flat_map(|point| {
        let [low, high] = point.interval.unwrap_or([point.y; 2]);
        [low, high, point.y]
    });
    let (x, y) = (Scale::levels(levels), Scale::values(reach, metric.percent));
    let left = y.ticks.iter().map(|(_, text)| width(text)).fold(0.0, f64::max) + 12.0;
    let (inner, tall) = (PANEL - left - 10.0, HEIGHT - TOP - BOTTOM);
    let at_x = |value: f64| left + x.at(value) * inner;
    let at_y = |value: f64| TOP + (1.0 - y.at(value)) * tall;

    let mut svg = Svg::default();
    heading(&mut svg, metric);
    for (value, text) in &y.ticks {
        let y = at_y(*value);
        svg.line((left, y), (left + inner, y), r#"stroke-opacity=".13""#);
        svg.text((left - 6.0, y + 3.8), Anchor::End, text, r#"opacity=".8""#);
    }
    svg.line((left, TOP + tall), (left + inner, TOP + tall), r#"stroke-opacity=".6""#);
    let mut free = f64::NEG_INFINITY;
    for (value, text) in &x.ticks {
        let (x, half) = (at_x(*value), width(text) / 2.0);
        svg.line((x, TOP + tall), (x, TOP + tall + 4.0), r#"stroke-opacity=".6""#);
        if x - half > free {
            svg.text((x, TOP + tall + 16.0), Anchor::Middle, text, r#"opacity=".8""#);
            free = x + half + 5.0;
        }
    }
    let log = if x.is_log() { " (log scale)" } else { "" };
    let name = clip(&format!("{}{log}", crate::look::words(axis)), inner);
    svg.text((left + inner / 2.0, HEIGHT - 6.0), Anchor::Middle, &name, "");
    let apart = (10.0 / lines.len().max(1) as f64).min(4.0);
    for (number, line) in lines.iter().enumerate() {
        // Intervals that would stand on top of each other stand beside each other.
        let aside = (number as f64 - (lines.len() - 1) as f64 / 2.0) * apart;
        let aside = if line.points.len() <= BARS && points().any(|p| p.interval.is_some()) { aside } else { 0.0 };
        let place = |point: &Point| (at_x(point.x) + aside, at_y(point.y));
        svg.titled(&line.label, |svg| {
            svg.group(&line.look.group(), |svg| {
                intervals(svg, line, aside, &at_x, &at_y);
                svg.path(&line.points.iter().map(place).collect::<Vec<_>>(), &line.look.line());
                for point in line.points.iter().filter(|_| line.points.len() <= 3 * BARS) {
                    line.look.mark(svg, place(point));
                }
            });
        });
    }
    Panel {
        width: PANEL,
        height: HEIGHT,
        title: format!("{} against {}", metric.label, crate::look::words(axis)),
        body: svg,
    }
}

fn intervals(svg: &mut Svg, line: &Line, aside: f64, at_x: &dyn Fn(f64) -> f64, at_y: &dyn Fn(f64) -> f64) {
    let known = line.points.iter().filter_map(|point| Some((at_x(point.x) + aside, point.interval?)));
    if line.points.len() <= BARS {
        for (x, [low, high]) in known {
            svg.line((x, at_y(low)), (x, at_y(high)), r#"stroke-width="1.2" stroke-opacity=".55""#);
        }
        return;
    }
    let (above, below): (Vec<_>, Vec<_>) = known.map(|(x, [low, high])| ((x, at_y(high)), (x, at_y(low)))).unzip();
    let around: Vec<_> = above.into_iter().chain(below.into_iter().rev()).collect();
    if around.len() > 3 {
        svg.area(&around, r#"fill-opacity=".14""#);
    }
}

/// A panel's title: the metric, its unit, and which way is better.
pub fn heading(svg: &mut Svg, metric: &Metric) {
    let unit = if metric.percent { " (%)" } else { "" };
    let arrow = match metric.better {
        Some(Better::Max) => " ↑",
        Some(Better::Min) => " ↓",
        None => "",
    };
    let text = clip(&format!("{}{unit}{arrow}", metric.label), PANEL - 8.0);
    svg.text((2.0, 13.0), Anchor::Start, &text, r#"font-weight="600" font-size="12""#);
}
