//! A table: on the page, as CSV with every digit, and as LaTeX for the paper.

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
    /// Whether it is the best of its column.
    pub best: bool,
    /// Whether it is set as code: digests and the like.
    pub code: bool,
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
    /// Comma-separated values (RFC 4180). A column with intervals is followed by two with their ends.
    pub fn csv(&self) -> String {
        let ends: Vec<bool> =
            (0..self.columns.len()).map(|c| self.rows.iter().any(|row| row[c].ends.is_some())).collect();
        let mut text = String::new();
        let mut line = |fields: Vec<String>| text.push_str(&(fields.join(",") + "\r\n"));
        let titles = self.columns.iter().zip(&ends).flat_map(|(column, ends)| {
            let title = &column.title;
            let more =
                if *ends { vec![quote(&format!("{title} low")), quote(&format!("{title} high"))] } else { vec![] };
            std::iter::once(quote(title)).chain(more)
        });
        line(titles.collect());
        for row in &self.rows {
            let fields = row.iter().zip(&ends).flat_map(|(field, ends)| {
                let more = match (ends, field.ends) {
                    (false, _) => vec![],
                    (true, None) => vec![String::new(); 2],
                    (true, Some(ends)) => ends.iter().map(f64::to_string).collect(),
                };
                std::iter::once(quote(&field.exact)).chain(more)
            });
            line(fields.collect());
        }
        text
    }

    /// A `table` for a document that uses the package `booktabs`.
    pub fn latex(&self) -> String {
        let align: String = self.columns.iter().map(|column| if column.number { 'r' } else { 'l' }).collect();
        let row = |fields: Vec<String>| format!("    {} \\\\\n", fields.join(" & "));
        let titles = self.columns.iter().map(|column| tex(&format!("{}{}", column.title, column.unit))).collect();
        let mut text = format!(
            "% needs \\usepackage{{booktabs}}\n\\begin{{table}}[t]\n  \\centering\n  \\caption{{{}}}\n  \\label{{tab:{}}}\n  \
             \\begin{{tabular}}{{{align}}}\n    \\toprule\n{}    \\midrule\n",
            tex(&self.caption),
            self.name,
            row(titles)
        );
        for fields in &self.rows {
            let field = |field: &Field| {
                let shown = tex(&field.text);
                let shown = if field.best { format!("\\textbf{{{shown}}}") } else { shown };
                let interval = if field.interval.is_empty() {
                    String::new()
                } else {
                    format!(" {{\\scriptsize [{}]}}", tex(&field.interval))
                };
                shown + &interval
            };
            text.push_str(&row(fields.iter().map(field).collect()));
        }
        text.push_str("    \\bottomrule\n  \\end{tabular}\n");
        if !self.note.is_empty() {
            text.push_str(&format!("\n  \\smallskip\n  {{\\footnotesize {}}}\n", tex(&self.note)));
        }
        text + "\\end{table}\n"
    }
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

/// Text for LaTeX: its own characters escaped, and those of formulas that fonts lack as mathematics.
fn tex(text: &str) -> String {
    let mut out = String::new();
    for char in text.chars() {
        match char {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', char]),
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '<' | '>' | '|' => out.push_str(&format!("${char}$")),
            '−' => out.push_str("$-$"),
            '·' => out.push_str("$\\cdot$"),
            '×' => out.push_str("$\\times$"),
            '‖' => out.push_str("$\\|$"),
            'Δ' => out.push_str("$\\Delta$"),
            'Σ' => out.push_str("$\\Sigma$"),
            'δ' => out.push_str("$\\delta$"),
            'λ' => out.push_str("$\\lambda$"),
            'ε' => out.push_str("$\\epsilon$"),
            '↑' => out.push_str("$\\uparrow$"),
            '↓' => out.push_str("$\\downarrow$"),
            '→' => out.push_str("$\\to$"),
            '–' => out.push_str("--"),
            '…' => out.push_str("\\dots{}"),
            '⁻' => out.push_str("$^{-}$"),
            '⁰' => out.push_str("$^{0}$"),
            '¹' => out.push_str("$^{1}$"),
            '²' => out.push_str("$^{2}$"),
            '³' => out.push_str("$^{3}$"),
            '⁴'..='⁹' => out.push_str(&format!("$^{{{}}}$", char as u32 - '⁰' as u32)),
            char if char.is_control() => out.push(' '),
            char => out.push(char),
        }
    }
    out
}

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
