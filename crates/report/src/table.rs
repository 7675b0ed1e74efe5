//! A table: on the page, as CSV with every digit, and as LaTeX for the paper.

use std::ops::Range;

use serde::Serialize;

/// A table.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Table {
    /// The stem of its files.
    pub name: String,
    /// What it shows.
    pub caption: String,
    /// The columns.
    pub columns: Vec<Column>,
    /// The rows.
    pub rows: Vec<Vec<Field>>,
    /// What stands below it, such as what its columns say; empty where nothing is to be said.
    pub note: String,
    /// Whether it is shown only to who asks for it.
    pub aside: bool,
}

/// A column.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Column {
    /// Its heading.
    pub title: String,
    /// What it says, in one line.
    pub doc: String,
    /// Whether it holds numbers, which stand to the right.
    pub number: bool,
    /// What follows the heading, such as a unit.
    pub unit: String,
}

/// A field.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Field {
    /// What people read.
    pub text: String,
    /// What programs read, where that differs.
    pub exact: String,
    /// An interval, as people read it; empty where there is none.
    pub interval: String,
    /// The interval's ends, as programs read them.
    pub ends: Option<[f64; 2]>,
    /// The standard deviation over repetitions.
    pub spread: Option<f64>,
    /// The number of records behind it.
    pub n: Option<usize>,
    /// Whether it is the best of its column.
    pub best: bool,
    /// Whether it is set as code: digests and the like.
    pub code: bool,
    /// Whether it says what the row above says, of rows that stand in one group.
    pub again: bool,
}

impl Column {
    /// A column of text.
    pub fn text(title: &str) -> Self {
        Self { title: title.to_owned(), ..Self::default() }
    }

    /// A column of numbers.
    pub fn number(title: &str, unit: &str, doc: &str) -> Self {
        Self { title: title.to_owned(), doc: doc.to_owned(), number: true, unit: unit.to_owned() }
    }
}

impl Field {
    /// Text that programs read as it is.
    pub fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { exact: text.clone(), text, ..Self::default() }
    }

    /// Text for people and another for programs.
    pub fn shown(text: impl Into<String>, exact: impl Into<String>) -> Self {
        Self { text: text.into(), exact: exact.into(), ..Self::default() }
    }

    /// Set as code, shortened for people.
    pub fn digest(digest: Option<&str>) -> Self {
        let digest = digest.unwrap_or_default();
        Self { text: digest.chars().take(12).collect(), exact: digest.to_owned(), code: true, ..Self::default() }
    }
}

impl Table {
    /// Groups rows by the first of `axes` columns that say what a row is: what a row shares with the one above is told once.
    pub fn mark_groups(&mut self, axes: usize) {
        for at in (1..self.rows.len()).rev() {
            for column in 0..axes.saturating_sub(1) {
                if self.rows[at][column].exact != self.rows[at - 1][column].exact {
                    break;
                }
                self.rows[at][column].again = true;
            }
        }
    }

    /// Comma-separated values (RFC 4180). A column of measurements is followed by its standard deviation over repetitions, the ends of its
    /// interval and its number of records, where any row has them.
    pub fn csv(&self) -> String {
        type More = (&'static str, fn(&Field) -> Option<String>);
        const MORE: [More; 4] = [
            ("sd", |field| field.spread.map(|spread| spread.to_string())),
            ("low", |field| field.ends.map(|ends| ends[0].to_string())),
            ("high", |field| field.ends.map(|ends| ends[1].to_string())),
            ("n", |field| field.n.map(|n| n.to_string())),
        ];
        let has = |column: usize, more: &More| self.rows.iter().any(|row| more.1(&row[column]).is_some());
        let more: Vec<Vec<&More>> =
            (0..self.columns.len()).map(|column| MORE.iter().filter(|more| has(column, more)).collect()).collect();
        let mut text = String::new();
        let mut line = |fields: Vec<String>| text.push_str(&(fields.join(",") + "\r\n"));
        let titles = self.columns.iter().zip(&more).flat_map(|(column, more)| {
            let title = &column.title;
            std::iter::once(quote(title)).chain(more.iter().map(move |(name, _)| quote(&format!("{title} {name}"))))
        });
        line(titles.collect());
        for row in &self.rows {
            let fields = row.iter().zip(&more).flat_map(|(field, more)| {
                let more = more.iter().map(|(_, value)| value(field).unwrap_or_default());
                std::iter::once(quote(&field.exact)).chain(more)
            });
            line(fields.collect());
        }
        text
    }

    /// A `table` for a document that uses the packages `booktabs` and `graphicx`; several below each other where one would be wider or taller than
    /// a page, each with the columns that say what a row is.
    pub fn latex(&self) -> String {
        let mut text = String::from("% needs \\usepackage{booktabs,graphicx}\n");
        let parts = self.latex_parts();
        let pages = self.rows.len().div_ceil(LATEX_ROWS).max(1);
        let page = self.rows.len().div_ceil(pages).max(1);
        let rows = (0..pages).map(|at| at * page..self.rows.len().min((at + 1) * page));
        let all: Vec<_> = rows.flat_map(|rows| parts.iter().map(move |part| (part, rows.clone()))).collect();
        for (at, (part, rows)) in all.iter().enumerate() {
            text.push_str(&self.latex_part(part, rows.clone(), at, at + 1 == all.len()));
        }
        text
    }

    /// The columns of each table: those in front of the first number are in all of them.
    fn latex_parts(&self) -> Vec<Vec<usize>> {
        let width = |column: usize| {
            let title = &self.columns[column];
            let field = |row: &Vec<Field>| {
                let Field { text, interval, .. } = &row[column];
                // An interval is set smaller.
                text.chars().count() + (interval.chars().count() * 7).div_ceil(10) + 2
            };
            let fields = self.rows.iter().map(field).max().unwrap_or(0);
            fields.max(title.title.chars().count() + title.unit.chars().count()) + 2
        };
        let fixed = self.columns.iter().position(|column| column.number).unwrap_or(self.columns.len());
        let first: Vec<usize> = (0..fixed).collect();
        let taken: usize = first.iter().map(|&column| width(column)).sum();
        let mut parts = vec![first.clone()];
        let mut room = LATEX_WIDTH.saturating_sub(taken);
        for column in fixed..self.columns.len() {
            let last = parts.len() - 1;
            if width(column) > room && parts[last].len() > fixed {
                parts.push(first.clone());
                room = LATEX_WIDTH.saturating_sub(taken);
            }
            let last = parts.len() - 1;
            parts[last].push(column);
            room = room.saturating_sub(width(column));
        }
        parts
    }

    /// Whether a group of rows begins here; none does where rows have no groups.
    fn begins_group(&self, row: usize) -> bool {
        let grouped = self.rows.iter().any(|row| row.first().is_some_and(|field| field.again));
        grouped && self.rows[row].first().is_some_and(|field| !field.again)
    }

    fn latex_part(&self, part: &[usize], rows: Range<usize>, at: usize, last: bool) -> String {
        let align: String = part.iter().map(|&column| if self.columns[column].number { 'r' } else { 'l' }).collect();
        let row = |fields: Vec<String>| format!("    {} \\\\\n", fields.join(" & "));
        let title = |&column: &usize| tex(&format!("{}{}", self.columns[column].title, self.columns[column].unit));
        let caption = if at == 0 { tex(&self.caption) } else { format!("{} (continued)", tex(&short(&self.caption))) };
        let label = if at == 0 { self.name.clone() } else { format!("{}-{}", self.name, at + 1) };
        // A table that is a little wider than the estimate is set a little smaller.
        let mut text = format!(
            "\\begin{{table}}[tp]\n  \\centering\\footnotesize\n  \\caption{{{caption}}}\n  \\label{{tab:{label}}}\n  \\setbox0=\\hbox{{%\n  \
             \\begin{{tabular}}{{@{{}}{align}@{{}}}}\n    \\toprule\n{}    \\midrule\n",
            row(part.iter().map(title).collect())
        );
        for (number, fields) in self.rows.iter().enumerate().take(rows.end).skip(rows.start) {
            let first = number == rows.start;
            if !first && self.begins_group(number) {
                text.push_str("    \\addlinespace\n");
            }
            let field = |&column: &usize| {
                let field = &fields[column];
                if field.again && !first {
                    return String::new();
                }
                let shown = tex(&field.text);
                let shown = if field.best { format!("\\textbf{{{shown}}}") } else { shown };
                let interval = if field.interval.is_empty() {
                    String::new()
                } else {
                    format!(" {{\\scriptsize [{}]}}", tex(&field.interval))
                };
                shown + &interval
            };
            text.push_str(&row(part.iter().map(field).collect()));
        }
        text.push_str(
            "    \\bottomrule\n  \\end{tabular}}%\n  \\ifdim\\wd0>\\linewidth\\resizebox{\\linewidth}{!}{\\usebox0}\\else\\usebox0\\fi\n",
        );
        if last && !self.note.is_empty() {
            text.push_str(&format!("\n  \\smallskip\n  {{\\footnotesize {}}}\n", tex(&self.note)));
        }
        text + "\\end{table}\n"
    }
}

/// How many rows of `footnotesize` a page has, below a caption of some lines and above a note.
const LATEX_ROWS: usize = 40;
/// How many characters of `footnotesize` a line of a page has.
const LATEX_WIDTH: usize = 96;

/// The first sentence.
fn short(caption: &str) -> String {
    caption.split_inclusive(". ").next().unwrap_or_default().trim_end_matches(['.', ' ']).to_owned()
}

/// A field of CSV. One that a spreadsheet would take for a formula is not one of ours: numbers may begin with a minus sign,
/// texts that begin like a formula get a quote in front.
fn quote(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']) && text.parse::<f64>().is_err();
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    let escape = |char: char| {
        let hostile = char.is_control() && !matches!(char, '\n' | '\r' | '\t');
        if hostile { char.escape_unicode().to_string() } else { char.to_string() }
    };
    let text: String = text.chars().map(escape).collect();
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

/// Text for LaTeX: its own characters escaped, those of formulas that fonts lack as mathematics, and a bracket so that it is no argument of
/// what stands before it. What no font of the usual classes has is a question mark, and not an error in a compilation.
fn tex(text: &str) -> String {
    let mut out = String::new();
    for char in text.chars() {
        match char {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', char]),
            '[' | ']' => out.push_str(&format!("{{{char}}}")),
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '<' | '>' | '|' => out.push_str(&format!("${char}$")),
            '"' => out.push_str("''"),
            ' '..='~' => out.push(char),
            char if char.is_control() => out.push(' '),
            char => match SIGNS.iter().find(|(known, _)| *known == char) {
                Some((_, sign)) => out.push_str(sign),
                // Latin letters: the usual encodings of LaTeX's input and fonts have them.
                None if ('\u{a1}'..='\u{17f}').contains(&char) => out.push(char),
                None => out.push('?'),
            },
        }
    }
    out
}

/// Signs that text has and fonts do not.
const SIGNS: [(char, &str); 47] = [
    ('\u{a0}', "~"),
    ('\u{202f}', "\\,"),
    ('−', "$-$"),
    ('·', "$\\cdot$"),
    ('×', "$\\times$"),
    ('±', "$\\pm$"),
    ('‖', "$\\|$"),
    ('Δ', "$\\Delta$"),
    ('Σ', "$\\Sigma$"),
    ('δ', "$\\delta$"),
    ('λ', "$\\lambda$"),
    ('ε', "$\\epsilon$"),
    ('μ', "$\\mu$"),
    ('µ', "$\\mu$"),
    ('ρ', "$\\rho$"),
    ('σ', "$\\sigma$"),
    ('τ', "$\\tau$"),
    ('η', "$\\eta$"),
    ('α', "$\\alpha$"),
    ('β', "$\\beta$"),
    ('ᵀ', "$^{\\top}$"),
    ('ᵢ', "$_{i}$"),
    ('ₚ', "$_{p}$"),
    ('√', "$\\surd$"),
    ('≤', "$\\le$"),
    ('≥', "$\\ge$"),
    ('≈', "$\\approx$"),
    ('≠', "$\\ne$"),
    ('∞', "$\\infty$"),
    ('↑', "$\\uparrow$"),
    ('↓', "$\\downarrow$"),
    ('→', "$\\to$"),
    ('–', "--"),
    ('—', "---"),
    ('…', "\\dots{}"),
    ('‘', "`"),
    ('’', "'"),
    ('“', "``"),
    ('”', "''"),
    ('⁻', "$^{-}$"),
    ('⁰', "$^{0}$"),
    ('¹', "$^{1}$"),
    ('²', "$^{2}$"),
    ('³', "$^{3}$"),
    ('⁴', "$^{4}$"),
    ('₀', "$_{0}$"),
    ('₁', "$_{1}$"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_escaped() {
        let table = Table {
            name: "t".to_owned(),
            caption: "50% of A_1 & more".to_owned(),
            columns: vec![Column::text("cell"), Column::number("S", " (%) ↑", "")],
            rows: vec![vec![
                Field::text("=1+1, \"x\""),
                Field {
                    interval: "96.0, 100.0".to_owned(),
                    ends: Some([0.96, 1.0]),
                    best: true,
                    ..Field::shown("98.4", "0.984")
                },
            ]],
            note: String::new(),
            aside: false,
        };
        insta::assert_snapshot!(format!("{}\n{}", table.csv(), table.latex()));
    }
}
