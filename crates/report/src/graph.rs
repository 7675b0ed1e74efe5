//! The stages as a graph, from left to right, with what happened to each.

use crate::data::{Instance, Outcome, Stage};
use crate::figure::{Figure, Panel};
use crate::number::duration;
use crate::svg::{Anchor, Svg, clip, n};
use crate::table::{Column, Field, Table};

const WIDE: f64 = 136.0;
const TALL: f64 = 58.0;
const ACROSS: f64 = 46.0;
const DOWN: f64 = 18.0;

/// The graph.
pub fn figure(stages: &[Stage]) -> Option<Figure> {
    if stages.is_empty() {
        return None;
    }
    let places = places(stages);
    let at = |i: usize| {
        let (column, row) = places[i];
        (4.0 + column as f64 * (WIDE + ACROSS), 4.0 + row * (TALL + DOWN))
    };
    let columns = places.iter().map(|(column, _)| column + 1).max().unwrap_or(1) as f64;
    let rows = places.iter().map(|(_, row)| row + 1.0).fold(1.0, f64::max);
    let mut svg = Svg::default();
    let before = reach(stages);
    for (to, stage) in stages.iter().enumerate() {
        for &from in stage.inputs.iter().filter(|&&from| from < stages.len()) {
            // What a way over other stages implies stands back, so that the order of the work can be followed.
            let implied =
                stage.inputs.iter().any(|&by| by != from && before.get(by).is_some_and(|all| all.contains(&from)));
            let ink = if implied { ".13" } else { ".5" };
            let ((x1, y1), (x2, y2)) = (at(from), at(to));
            let (x1, y1, y2) = (x1 + WIDE, y1 + TALL / 2.0, y2 + TALL / 2.0);
            let bend = ((x2 - x1) / 2.0).max(18.0);
            let way = [x1, y1, x1 + bend, y1, x2 - bend, y2, x2, y2].map(n);
            let [a, b, c, d, e, f, g, h] = way;
            svg.push(&format!(
                r#"<path d="M{a} {b}C{c} {d} {e} {f} {g} {h}" fill="none" stroke="currentColor" stroke-opacity="{ink}"/>"#
            ));
        }
    }
    for (i, stage) in stages.iter().enumerate() {
        svg.titled(&format!("{} ({})", stage.name, stage.uses), |svg| node(svg, stage, at(i)));
    }
    let panel = Panel {
        width: 8.0 + columns * (WIDE + ACROSS) - ACROSS,
        height: 8.0 + rows * (TALL + DOWN) - DOWN,
        title: "the stages and what each takes from which".to_owned(),
        body: svg,
    };
    let caption = "The stages of the pipeline. Times are those that the results took to compute, whenever that was; a bar shows \
                   the share of cells that ran in this run (full colour) or whose result was in the store (pale).";
    Some(crate::choose::figure("stages", caption, vec![panel], &[], &[], false))
}

fn node(svg: &mut Svg, stage: &Stage, (x, y): (f64, f64)) {
    let (ran, cached, failed) = counts(&stage.instances);
    let all = stage.instances.len().max(1) as f64;
    svg.rect((x, y), (WIDE, TALL), r##"rx="5" class="node" fill="#f5f6f8" stroke="currentColor" stroke-opacity=".5""##);
    let times = if stage.instances.len() > 1 { format!(" ×{}", stage.instances.len()) } else { String::new() };
    let name = clip(&stage.name, WIDE - 18.0 - 8.0 * times.chars().count() as f64) + &times;
    svg.text((x + 9.0, y + 17.0), Anchor::Start, &name, r#"font-weight="600" font-size="12""#);
    svg.text((x + 9.0, y + 31.0), Anchor::Start, &clip(&stage.uses, WIDE - 18.0), r#"opacity=".75""#);
    let seconds: Vec<f64> = stage.instances.iter().filter_map(|instance| instance.seconds).collect();
    let time = if seconds.is_empty() { String::new() } else { duration(seconds.iter().sum()) };
    svg.text((x + 9.0, y + 47.0), Anchor::Start, &time, "");
    let state = match (ran, cached, failed) {
        (_, _, 1..) => "failed",
        (1.., 0, _) => "ran",
        (0, 1.., _) => "cached",
        (1.., 1.., _) => "ran, cached",
        _ => "not run",
    };
    let look = match state {
        "failed" => r##"class="c1" color="#D55E00""##,
        "not run" => r#"opacity=".6""#,
        _ => r##"class="c2" color="#009E73""##,
    };
    svg.group(look, |svg| {
        svg.text((x + WIDE - 9.0, y + 47.0), Anchor::End, state, "");
        let bar = |svg: &mut Svg, from: f64, part: f64, style: &str| {
            if part > 0.0 {
                svg.rect((x + from * WIDE, y + TALL - 3.0), (part * WIDE, 3.0), style);
            }
        };
        let (ran, cached) = (ran as f64 / all, cached as f64 / all);
        bar(svg, 0.0, ran, r#"fill="currentColor""#);
        bar(svg, ran, cached, r#"fill="currentColor" fill-opacity=".35""#);
    });
}

fn counts(instances: &[Instance]) -> (usize, usize, usize) {
    let count = |like: fn(&Outcome) -> bool| instances.iter().filter(|instance| like(&instance.outcome)).count();
    (
        count(|outcome| *outcome == Outcome::Ran),
        count(|outcome| *outcome == Outcome::Cached),
        count(|outcome| matches!(outcome, Outcome::Failed(_))),
    )
}

/// The stages that each stage takes from, directly or over others.
fn reach(stages: &[Stage]) -> Vec<Vec<usize>> {
    let mut before: Vec<Vec<usize>> = Vec::new();
    for (to, stage) in stages.iter().enumerate() {
        let mut all: Vec<usize> = Vec::new();
        for &from in stage.inputs.iter().filter(|&&from| from < to) {
            all.push(from);
            all.extend(&before[from]);
        }
        all.sort_unstable();
        all.dedup();
        before.push(all);
    }
    before
}

/// Column and row of each stage: a column for each longest way from a stage without inputs; stages without inputs stand right
/// before the first that needs them. Rows follow those that a stage takes from, so that lines cross little.
fn places(stages: &[Stage]) -> Vec<(usize, f64)> {
    let mut columns = vec![0usize; stages.len()];
    for (to, stage) in stages.iter().enumerate() {
        // Each stage comes after those it takes from.
        columns[to] = stage.inputs.iter().filter(|&&from| from < to).map(|&from| columns[from] + 1).max().unwrap_or(0);
    }
    for from in 0..stages.len() {
        let users =
            stages.iter().enumerate().filter(|(_, stage)| stage.inputs.contains(&from)).map(|(to, _)| columns[to]);
        if let Some(first) = users.min().filter(|_| stages[from].inputs.is_empty()) {
            columns[from] = first.saturating_sub(1).max(columns[from]);
        }
    }
    let mut rows = vec![0.0; stages.len()];
    let most = columns.iter().copied().max().unwrap_or(0);
    let mut tallest = 0;
    for column in 0..=most {
        let mut here: Vec<usize> = (0..stages.len()).filter(|&i| columns[i] == column).collect();
        let wish = |i: usize| {
            let from: Vec<f64> = stages[i].inputs.iter().filter(|&&from| from < i).map(|&from| rows[from]).collect();
            if from.is_empty() { i as f64 } else { from.iter().sum::<f64>() / from.len() as f64 }
        };
        let mut wishes: Vec<(f64, usize)> = here.iter().map(|&i| (wish(i), i)).collect();
        wishes.sort_by(|a, b| a.0.total_cmp(&b.0));
        here = wishes.into_iter().map(|(_, i)| i).collect();
        for (row, &i) in here.iter().enumerate() {
            rows[i] = row as f64;
        }
        tallest = tallest.max(here.len());
    }
    // Short columns stand in the middle.
    let count = |column: usize| columns.iter().filter(|&&other| other == column).count();
    (0..stages.len()).map(|i| (columns[i], rows[i] + (tallest - count(columns[i])) as f64 / 2.0)).collect()
}

/// Where every result comes from.
pub fn table(stages: &[Stage]) -> Table {
    let columns = [
        ("instance", false),
        ("kind", false),
        ("state", false),
        ("time", true),
        ("finished (UTC)", false),
        ("run", false),
        ("device", false),
        ("program", false),
        ("seeds", false),
        ("key", false),
        ("result", false),
    ];
    let columns = columns.map(|(title, number)| Column { number, ..Column::text(title) });
    let row = |stage: &Stage, instance: &Instance| {
        let text = |value: &Option<String>| Field::text(value.clone().unwrap_or_default());
        let version = instance.version.map(|version| format!(" v{version}")).unwrap_or_default();
        let seconds = instance.seconds;
        let seeds: Vec<String> = instance.seeds.iter().map(|(name, value)| format!("{name}={value}")).collect();
        vec![
            Field::text(instance.name.clone()),
            Field::text(format!("{}{version}", stage.uses)),
            Field::text(state(&instance.outcome)),
            Field::shown(seconds.map(duration).unwrap_or_default(), seconds.map(|s| s.to_string()).unwrap_or_default()),
            text(&instance.finished),
            text(&instance.run),
            text(&instance.device),
            text(&instance.program),
            Field::text(seeds.join(", ")),
            Field::digest(instance.key.as_deref()),
            Field::digest(instance.content.as_deref()),
        ]
    };
    let rows = stages.iter().flat_map(|stage| stage.instances.iter().map(move |instance| row(stage, instance)));
    Table {
        name: "provenance".to_owned(),
        caption: "Every result: what made it, when and where. Keys cover the stage kind and its version, all parameters and the \
                  contents of all inputs; digests are BLAKE3, here their first twelve digits."
            .to_owned(),
        columns: columns.to_vec(),
        rows: rows.collect(),
        note: String::new(),
        aside: true,
    }
}

/// Files from outside, by content.
pub fn files(stages: &[Stage]) -> Table {
    let mut rows: Vec<Vec<Field>> = Vec::new();
    for stage in stages {
        let mut known: Vec<&str> = Vec::new();
        for file in stage.instances.iter().flat_map(|instance| &instance.files) {
            if known.contains(&file.digest.as_str()) {
                continue;
            }
            known.push(&file.digest);
            let size = if file.size > 0 {
                Field::shown(crate::number::size(file.size), file.size.to_string())
            } else {
                Field::default()
            };
            let digest = Field { text: file.digest.clone(), ..Field::digest(Some(&file.digest)) };
            rows.push(vec![Field::text(stage.name.clone()), Field::text(file.name.clone()), size, digest]);
        }
    }
    let size = Column { number: true, ..Column::text("size") };
    Table {
        name: "inputs".to_owned(),
        caption: "Files from outside that were read, with the BLAKE3 digests of what they held.".to_owned(),
        columns: vec![Column::text("stage"), Column::text("file"), size, Column::text("digest")],
        rows,
        note: String::new(),
        aside: true,
    }
}

fn state(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ran => "ran".to_owned(),
        Outcome::Cached => "cached".to_owned(),
        Outcome::Failed(message) => format!("failed: {message}"),
        Outcome::Missing => "not run".to_owned(),
    }
}
