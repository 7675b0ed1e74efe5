//! The page itself. Every text goes through a template that escapes it; only drawings, which escape theirs, do not.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Value, context};

use crate::data::{Report, Sample};
use crate::figure::Figure;
use crate::section::{Part, Section};
use crate::table::Table;

const PAGE: &str = include_str!("../templates/page.html");
const TABLE: &str = include_str!("../templates/table.html");
const FIGURE: &str = include_str!("../templates/figure.html");
const NOTES: &str = include_str!("../templates/notes.html");
const EDITS: &str = include_str!("../templates/edits.html");
const STYLE: &str = include_str!("../templates/style.css");
const SCRIPT: &str = include_str!("../templates/page.js");

/// Samples on the page.
const SAMPLES: usize = 12;
/// Of one sample, cells on the page.
const SAMPLE_CELLS: usize = 24;
/// Doubts that are shown before the others are folded away.
const DOUBTS: usize = 12;
/// Notes that are not folded away.
const FOLDED: usize = 6;
/// Rows of a table on the page; its file has all of them.
const ROWS: usize = 400;

/// Renders the page.
pub fn page(report: &Report, sections: &[Section]) -> Result<String, minijinja::Error> {
    let mut environment = Environment::empty();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    let draw = Drawer { environment };
    let (mut figures, mut tables) = (0, 0);
    let mut before = Vec::new();
    let mut after = Vec::new();
    for section in sections {
        let mut parts = Vec::new();
        for part in &section.parts {
            parts.push(match part {
                Part::Figure(figure) => {
                    figures += 1;
                    draw.figure(figure, figures)?
                }
                Part::Table(table) => {
                    tables += 1;
                    draw.table(table, tables)?
                }
                Part::Notes(notes) => {
                    let (count, folded) = (notes.len(), notes.len() > FOLDED);
                    draw.render(NOTES, context! { notes => Serde(notes), count => count, folded => folded })?
                }
            });
        }
        let shown = context! { id => section.id, short => section.short, title => section.title, parts => parts };
        // What was measured comes before the single edits; where it comes from, after them.
        if section.id == "stages" { after.push(shown) } else { before.push(shown) }
    }
    let edits = report.edits.view();
    let edits = edits.map(|view| draw.render(EDITS, context! { view => Serde(view) })).transpose()?;
    let count = report.samples.len();
    let (doubts, more_doubts) = report.doubts.split_at(report.doubts.len().min(DOUBTS));
    let mut html = draw.environment.render_str(
        PAGE,
        context! {
            title => &report.title,
            description => &report.description,
            facts => Serde(&report.facts),
            doubts => Serde(doubts),
            more_doubts => Serde(more_doubts),
            doubts_left => more_doubts.len(),
            before => before,
            edits => edits,
            samples => report.samples.iter().take(SAMPLES).map(sample).collect::<Vec<_>>(),
            more_samples => count.saturating_sub(SAMPLES),
            after => after,
            resolved => &report.resolved,
            style => Value::from_safe_string(STYLE.to_owned()),
            script => Value::from_safe_string(SCRIPT.to_owned()),
        },
    )?;
    // Models say anything; what no page can hold is left out.
    html.retain(|char| !char.is_control() || matches!(char, '\n' | '\t'));
    Ok(html)
}

struct Drawer {
    environment: Environment<'static>,
}

impl Drawer {
    fn render(&self, template: &str, with: Value) -> Result<Value, minijinja::Error> {
        self.environment.render_str(template, with).map(Value::from_safe_string)
    }

    fn figure(&self, figure: &Figure, number: usize) -> Result<Value, minijinja::Error> {
        let keys = figure.keys().into_iter();
        let keys: Vec<_> =
            keys.map(|(svg, label)| context! { svg => Value::from_safe_string(svg), label => label }).collect();
        let panels: Vec<_> = figure.drawings().into_iter().map(Value::from_safe_string).collect();
        let wide = figure.panels.iter().any(|panel| panel.width > crate::figure::PANEL * 1.5);
        let with = context! {
            number => number,
            caption => &figure.caption,
            legend_title => &figure.legend_title,
            keys => keys,
            panels => panels,
            wide => wide,
            aside => figure.aside,
        };
        self.render(FIGURE, with)
    }

    fn table(&self, table: &Table, number: usize) -> Result<Value, minijinja::Error> {
        let more = table.rows.len().saturating_sub(ROWS);
        let mut shown = table.clone();
        shown.rows.truncate(ROWS);
        self.render(TABLE, context! { number => number, table => Serde(shown), more => more })
    }
}

fn sample(sample: &Sample) -> Value {
    let after: Vec<_> = sample.after.iter().take(SAMPLE_CELLS).collect();
    context! {
        prompt => &sample.prompt,
        fields => Serde(&sample.fields),
        before => &sample.before,
        after => Serde(after),
        more => sample.after.len().saturating_sub(SAMPLE_CELLS),
    }
}
