//! Which figures show a table of measurements, by the shape of its cells.

use crate::curve::{self, Line, Point};
use crate::data::{Cell, Level, Measured, Row, Step, Steps};
use crate::figure::{Figure, Key, Panel};
use crate::look::{Look, label, level, looks, varying, words};
use crate::{dots, heat};

/// Panels of a figure.
const PANELS: usize = 4;
/// An axis of numbers with fewer levels than this is drawn like words.
const FEW: usize = 3;
/// More cells than this make dots a list that nobody reads.
const MOST_DOTS: usize = 48;
/// More facets than this make a heat map a wall.
const MOST_FACETS: usize = 12;

/// The figures of what a stage measured.
pub fn figures(measured: &Measured) -> Vec<Figure> {
    let cells: Vec<&Cell> = measured.rows.iter().map(|row| &row.cell).collect();
    let mut figures = Vec::new();
    if let Some(steps) = &measured.steps {
        figures.extend(along_steps(measured, &cells, &steps.rows));
    }
    if cells.len() < 2 {
        return figures;
    }
    let axes = varying(&cells);
    let (numbers, names): (Vec<&str>, Vec<&str>) = axes.iter().partition(|axis| numeric(&cells, axis));
    for axis in &numbers {
        figures.extend(along_axis(measured, &cells, axis, &axes));
    }
    match (names.as_slice(), numbers.as_slice()) {
        (names @ [_, _, ..], []) => figures.extend(heat_map(measured, &cells, [names[0], names[1]], &names[2..])),
        ([], [rows, columns, rest @ ..]) => figures.extend(heat_map(measured, &cells, [rows, columns], rest)),
        _ => {}
    }
    if numbers.is_empty() && measured.result && cells.len() <= MOST_DOTS {
        figures.splice(0..0, cell_dots(measured, &cells, &axes));
    }
    figures
}

/// The metrics of a figure: those of which it is known what is better, four by four; of other stages the first four.
fn chunks(measured: &Measured) -> Vec<Vec<usize>> {
    let known = measured.known();
    let judged: Vec<usize> = known.iter().copied().filter(|&at| measured.metrics[at].better.is_some()).collect();
    if measured.result && !judged.is_empty() {
        return judged.chunks(PANELS).map(<[usize]>::to_vec).collect();
    }
    known.chunks(PANELS).take(1).map(<[usize]>::to_vec).collect()
}

fn numeric(cells: &[&Cell], axis: &str) -> bool {
    levels(cells, axis).len() >= FEW && cells.iter().all(|cell| matches!(level(cell, axis), Some(Level::Number(_))))
}

fn levels<'a>(cells: &[&'a Cell], axis: &str) -> Vec<&'a Level> {
    let mut found: Vec<&Level> = Vec::new();
    for value in cells.iter().filter_map(|cell| level(cell, axis)) {
        if !found.contains(&value) {
            found.push(value);
        }
    }
    found
}

fn number(cell: &Cell, axis: &str) -> Option<f64> {
    match level(cell, axis)? {
        Level::Number(value) => Some(*value),
        Level::Text(_) => None,
    }
}

/// Lines over one axis, one for each combination of the others.
fn along_axis(measured: &Measured, cells: &[&Cell], axis: &str, axes: &[&str]) -> Vec<Figure> {
    let others: Vec<&str> = axes.iter().copied().filter(|other| *other != axis).collect();
    let mut groups: Vec<(String, Cell, Vec<&Row>)> = Vec::new();
    for row in &measured.rows {
        let name = label(&row.cell, &others);
        if let Some((_, _, rows)) = groups.iter_mut().find(|(known, _, _)| *known == name) {
            rows.push(row);
            continue;
        }
        let cell = row.cell.iter().filter(|(name, _)| others.contains(&name.as_str())).cloned().collect();
        groups.push((name, cell, vec![row]));
    }
    let drawn = looks(&groups.iter().map(|(_, cell, _)| cell).collect::<Vec<_>>());
    let levels: Vec<f64> = cells.iter().filter_map(|cell| number(cell, axis)).collect();
    let panel = |&metric: &usize| {
        let lines = groups.iter().zip(&drawn).map(|((name, _, rows), &look)| {
            let point = |row: &&Row| point(&row.values[metric], number(&row.cell, axis)?);
            line(look, name, rows.iter().filter_map(point).collect())
        });
        curve::panel(&measured.metrics[metric], axis, &levels, &lines.collect::<Vec<_>>())
    };
    let legend = legend(groups.iter().map(|(name, _, _)| name.clone()).zip(drawn.iter().copied()));
    let what = format!("{} against {}", words(&measured.stage), words(axis));
    let bars = interval_note(measured, measured.rows.iter().flat_map(|row| &row.values));
    spread(measured, &format!("{}-by-{axis}", measured.stage), &format!("{what}.{bars}"), panel, &legend, &others)
}

/// What is left of edits by their age, a line for each row.
pub fn retention(measured: &Measured) -> Vec<Figure> {
    let cells: Vec<&Cell> = measured.rows.iter().map(|row| &row.cell).collect();
    let Some(Steps { axes, rows }) = &measured.retention else { return Vec::new() };
    let what = format!("{} at the end, by the number of edits that were made after an edit", words(&measured.stage));
    let name = format!("{}-retention", measured.stage);
    axes.last().map(|axis| along(measured, &cells, (axis, rows), &name, &what)).unwrap_or_default()
}

/// Lines over the steps of each row.
fn along_steps(measured: &Measured, cells: &[&Cell], steps: &[Step]) -> Vec<Figure> {
    let Some(axis) = measured.steps.as_ref().and_then(|steps| steps.axes.last()) else { return Vec::new() };
    let what = format!("{} as {} go on, on all edits made so far", words(&measured.stage), words(axis));
    along(measured, cells, (axis, steps), &format!("{}-steps", measured.stage), &what)
}

/// Lines over an axis that each row has points on.
fn along(measured: &Measured, cells: &[&Cell], (axis, steps): (&str, &[Step]), name: &str, what: &str) -> Vec<Figure> {
    let axes = varying_or_none(cells);
    let levels: Vec<f64> = steps.iter().filter_map(|step| step.at.last().copied()).collect();
    if levels.iter().all(|level| *level == levels[0]) {
        return Vec::new();
    }
    let drawn = looks(cells);
    let panel = |&metric: &usize| {
        let lines = measured.rows.iter().enumerate().map(|(at, row)| {
            let own = steps.iter().filter(|step| step.row == at);
            let points = own.filter_map(|step| point(&step.values[metric], *step.at.last()?));
            line(drawn[at], &label(&row.cell, &axes), points.collect())
        });
        curve::panel(&measured.metrics[metric], axis, &levels, &lines.collect::<Vec<_>>())
    };
    let named = measured.rows.iter().map(|row| label(&row.cell, &axes));
    let legend = legend(named.zip(drawn.iter().copied()));
    let bars = bars(measured.step_intervals(), steps.iter().flat_map(|step| &step.values)) + &measured.behind();
    let known = |metric: &usize| steps.iter().any(|step| step.values[*metric].value.is_some());
    spread_over(measured, name, &format!("{what}.{bars}"), panel, &legend, &axes, known)
}

/// A dot for each cell.
fn cell_dots(measured: &Measured, cells: &[&Cell], axes: &[&str]) -> Vec<Figure> {
    let labels: Vec<String> = cells.iter().map(|cell| label(cell, axes)).collect();
    let drawn = looks(cells);
    let panel = |&metric: &usize| {
        let values: Vec<_> = measured.rows.iter().map(|row| row.values[metric]).collect();
        dots::panel(&measured.metrics[metric], &labels, &drawn, &values, measured.unedited(metric))
    };
    let bars = interval_note(measured, measured.rows.iter().flat_map(|row| &row.values));
    let base = if chunks(measured).iter().flatten().any(|&metric| measured.unedited(metric).is_some()) {
        " Dashed line: the unedited model."
    } else {
        ""
    };
    let what = format!("{} of each cell ({}).{bars}{base}", words(&measured.stage), names(axes));
    spread(measured, &format!("{}-cells", measured.stage), &what, panel, &[], &[])
}

/// Two axes as rows and columns, the values of further ones as panels.
fn heat_map(measured: &Measured, cells: &[&Cell], axes: [&str; 2], rest: &[&str]) -> Vec<Figure> {
    let [rows, columns] = axes.map(|axis| levels(cells, axis));
    let texts = |levels: &[&Level]| levels.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (row_names, column_names) = (texts(&rows), texts(&columns));
    let mut facets: Vec<String> = Vec::new();
    for cell in cells {
        let name = label(cell, rest);
        if !facets.contains(&name) {
            facets.push(name);
        }
    }
    // Panels of one metric share a scale: of all its cells.
    let all = |metric: usize| measured.rows.iter().filter_map(|row| row.values[metric].value).collect::<Vec<f64>>();
    let panel = |metric: usize, facet: &String| {
        let value = |row: &Level, column: &Level| {
            let fits = |found: &&Row| {
                level(&found.cell, axes[0]) == Some(row)
                    && level(&found.cell, axes[1]) == Some(column)
                    && label(&found.cell, rest) == *facet
            };
            measured.rows.iter().find(fits).and_then(|found| found.values[metric].value)
        };
        let values: Vec<Vec<_>> =
            rows.iter().map(|row| columns.iter().map(|column| value(row, column)).collect()).collect();
        let facet = if facet.is_empty() { String::new() } else { format!(" · {facet}") };
        heat::panel(&measured.metrics[metric], axes, [&row_names, &column_names], &values, &facet, &all(metric))
    };
    let what = format!("{} by {} (rows) and {} (columns).", words(&measured.stage), words(axes[0]), words(axes[1]));
    let name = format!("{}-{}-{}", measured.stage, axes[0], axes[1]);
    if facets.len() > 1 {
        let Some(&metric) = chunks(measured).first().and_then(|chunk| chunk.first()) else { return Vec::new() };
        let panels: Vec<Panel> = facets.iter().take(MOST_FACETS).map(|facet| panel(metric, facet)).collect();
        let more = if facets.len() > MOST_FACETS {
            format!(" The first {MOST_FACETS} of {} panels.", facets.len())
        } else {
            String::new()
        };
        let what = format!("{what} All panels share one scale of colours.{more}{}", measured.behind());
        return vec![figure(&name, &what, panels, &[], &[], !measured.result)];
    }
    let no_facet = String::new();
    spread(
        measured,
        &name,
        &format!("{what} Darker is better; each panel has a scale of its own.{}", measured.behind()),
        |&metric| panel(metric, &no_facet),
        &[],
        &[],
    )
}

/// One figure for each four metrics; all but the first are for who asks.
fn spread(
    measured: &Measured,
    name: &str,
    caption: &str,
    panel: impl Fn(&usize) -> Panel,
    legend: &[Key],
    axes: &[&str],
) -> Vec<Figure> {
    spread_over(measured, name, caption, panel, legend, axes, |_| true)
}

/// As [`spread`], of the metrics of which `known` says that there is something to draw.
fn spread_over(
    measured: &Measured,
    name: &str,
    caption: &str,
    panel: impl Fn(&usize) -> Panel,
    legend: &[Key],
    axes: &[&str],
    known: impl Fn(&usize) -> bool,
) -> Vec<Figure> {
    let all = chunks(measured).into_iter().map(|chunk| chunk.into_iter().filter(&known).collect::<Vec<_>>());
    let chunks = all.filter(|chunk| !chunk.is_empty()).enumerate();
    chunks
        .map(|(at, metrics)| {
            let name = if at == 0 { name.to_owned() } else { format!("{name}-{}", at + 1) };
            let panels = metrics.iter().map(&panel).collect();
            let labels: Vec<&str> = metrics.iter().map(|&metric| measured.metrics[metric].label.as_str()).collect();
            let caption = if at == 0 { caption.to_owned() } else { format!("{} – {caption}", labels.join(", ")) };
            figure(&name, &caption, panels, legend, axes, at > 0 || !measured.result)
        })
        .collect()
}

/// A figure with a caption that begins as sentences do.
pub fn figure(name: &str, caption: &str, panels: Vec<Panel>, legend: &[Key], axes: &[&str], aside: bool) -> Figure {
    let caption = sentence(caption);
    let legend_title = if legend.is_empty() { String::new() } else { names(axes) };
    Figure { name: name.to_owned(), caption, legend_title, legend: legend.to_vec(), panels, aside }
}

/// A text that begins as sentences do.
pub fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// A legend, where there is anything to tell apart.
pub fn legend(entries: impl Iterator<Item = (String, Look)>) -> Vec<Key> {
    let keys: Vec<Key> = entries.map(|(label, look)| Key { look, label }).collect();
    if keys.len() > 1 { keys } else { Vec::new() }
}

/// "objective · strategy"
fn names(axes: &[&str]) -> String {
    axes.iter().map(|axis| words(axis)).collect::<Vec<_>>().join(" · ")
}

fn varying_or_none<'a>(cells: &[&'a Cell]) -> Vec<&'a str> {
    if cells.is_empty() { Vec::new() } else { varying(cells) }
}

fn line(look: Look, label: &str, mut points: Vec<Point>) -> Line {
    points.sort_by(|a, b| a.x.total_cmp(&b.x));
    Line { look, label: label.to_owned(), points }
}

fn point(measure: &crate::data::Measure, x: f64) -> Option<Point> {
    let y = measure.value.filter(|value| value.is_finite())?;
    Some(Point { x, y, interval: measure.interval })
}

/// What bars and bands are, and what stands behind the numbers.
fn interval_note<'a>(measured: &Measured, measures: impl Iterator<Item = &'a crate::data::Measure>) -> String {
    bars(measured.intervals(), measures) + &measured.behind()
}

/// What bars and bands are, where there are any.
fn bars<'a>(intervals: &str, mut measures: impl Iterator<Item = &'a crate::data::Measure>) -> String {
    let any = measures.any(|measure| measure.interval.is_some());
    if any { format!(" Bars or bands: {intervals}.") } else { String::new() }
}
