//! Two axes as rows and columns, a metric as shade and number.

use std::iter::empty;

use crate::curve::heading;
use crate::data::{Better, Metric};
use crate::figure::{PANEL, Panel};
use crate::number::{decimals, fixed};
use crate::svg::{Anchor, Svg, lines, width};

/// One hue from light to dark: the order shows with any colour vision, and in print.
const SHADES: [[f64; 3]; 5] =
    [[239.0, 244.0, 250.0], [198.0, 219.0, 239.0], [127.0, 179.0, 216.0], [58.0, 131.0, 189.0], [11.0, 74.0, 138.0]];
const TOP: f64 = 46.0;
const LINE: f64 = 34.0;
/// What another line of a name takes.
const MORE: f64 = 12.0;

/// A metric on two axes: `values[row][column]`. What is better is darker, where that is known; `all` are the values that shades reach over.
pub fn panel(
    metric: &Metric,
    axes: [&str; 2],
    levels: [&[String]; 2],
    values: &[Vec<Option<f64>>],
    facet: &str,
    all: &[f64],
) -> Panel {
    let known = || values.iter().flatten().copied().flatten().filter(|value| value.is_finite());
    let (low, high) = all
        .iter()
        .copied()
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), value| (l.min(value), h.max(value)));
    let decimals = decimals(metric.percent, known(), empty());
    let [rows, columns] = levels;
    let left = (rows.iter().map(|row| width(row)).fold(0.0, f64::max) + 12.0).clamp(48.0, PANEL * 0.4);
    let name = columns.iter().map(|column| width(column)).fold(0.0, f64::max) + 6.0;
    let wide = ((PANEL - left - 4.0) / columns.len().max(1) as f64).max(name).clamp(46.0, 96.0);
    let total = PANEL.max(left + wide * columns.len() as f64 + 4.0);
    // Names stay whole: those that are too long stand in several lines.
    let above = columns.iter().map(|column| lines(column, wide - 2.0).len()).max().unwrap_or(1).max(1);
    let top = TOP + MORE * (above - 1) as f64;
    let mut svg = Svg::default();
    let named = Metric { label: format!("{}{facet}", metric.label), ..metric.clone() };
    heading(&mut svg, &named);
    for (c, column) in columns.iter().enumerate() {
        let x = left + wide * (c as f64 + 0.5);
        let parts = lines(column, wide - 2.0);
        for (l, part) in parts.iter().enumerate() {
            let up = MORE * (parts.len() - 1 - l) as f64;
            svg.text((x, top - 8.0 - up), Anchor::Middle, part, "");
        }
    }
    for (r, (row, values)) in rows.iter().zip(values).enumerate() {
        let y = top + LINE * r as f64;
        let parts = lines(row, left - 10.0);
        for (l, part) in parts.iter().enumerate() {
            let down = MORE * (l as f64 - (parts.len() - 1) as f64 / 2.0);
            svg.text((left - 8.0, y + LINE / 2.0 + 3.8 + down), Anchor::End, part, "");
        }
        for (c, value) in values.iter().enumerate() {
            let x = left + wide * c as f64;
            let Some(value) = value.filter(|value| value.is_finite()) else {
                svg.text((x + wide / 2.0, y + LINE / 2.0 + 3.8), Anchor::Middle, "–", r#"opacity=".6""#);
                continue;
            };
            let place = if high > low { (value - low) / (high - low) } else { 0.5 };
            let place = if metric.better == Some(Better::Min) { 1.0 - place } else { place };
            let [red, green, blue] = shade(place);
            let fill = format!(r#"fill="rgb({red:.0},{green:.0},{blue:.0})""#);
            svg.rect((x + 1.0, y + 1.0), (wide - 2.0, LINE - 2.0), &format!(r#"{fill} rx="2""#));
            let ink = if 0.299 * red + 0.587 * green + 0.114 * blue > 140.0 { "#1b1d21" } else { "#ffffff" };
            let text = fixed(value, metric.percent, decimals);
            let at = (x + wide / 2.0, y + LINE / 2.0 + 3.8);
            // A group's colour, so that `currentColor` inside is the ink for this shade in every theme.
            svg.group(&format!(r#"color="{ink}""#), |svg| svg.text(at, Anchor::Middle, &text, ""));
        }
    }
    let height = top + LINE * rows.len() as f64 + 4.0;
    let title = format!("{} by {} (rows) and {} (columns){facet}", metric.label, axes[0], axes[1]);
    Panel { width: total, height, title, body: svg }
}

/// The colour of a place between 0 and 1.
pub fn shade(place: f64) -> [f64; 3] {
    let at = place.clamp(0.0, 1.0) * (SHADES.len() - 1) as f64;
    let from = (at.floor() as usize).min(SHADES.len() - 2);
    let part = at - from as f64;
    std::array::from_fn(|i| SHADES[from][i] + (SHADES[from + 1][i] - SHADES[from][i]) * part)
}
