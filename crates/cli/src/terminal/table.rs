//! Tables without lines: they are read, copied and searched.

use std::fmt::Write as _;

use comfy_table::{Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, Width, presets};
use textwrap::core::display_width;

use super::Style;

/// A cell, with how it is drawn.
pub struct Field {
    text: String,
    look: Look,
}

/// How a cell is drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// As the rest.
    Plain,
    /// The best, the chosen.
    Bold,
    /// What matters less.
    Dim,
    /// What is fine.
    Green,
    /// What needs attention.
    Yellow,
    /// What went wrong.
    Red,
}

impl Field {
    /// A cell drawn like this.
    pub fn new(text: impl Into<String>, look: Look) -> Self {
        Self { text: text.into(), look }
    }

    fn cell(self) -> Cell {
        let cell = Cell::new(self.text);
        match self.look {
            Look::Plain => cell,
            Look::Bold => cell.add_attribute(Attribute::Bold),
            Look::Dim => cell.add_attribute(Attribute::Dim),
            Look::Green => cell.fg(Color::DarkGreen),
            Look::Yellow => cell.fg(Color::DarkYellow),
            Look::Red => cell.fg(Color::DarkRed),
        }
    }
}

impl From<&str> for Field {
    fn from(text: &str) -> Self {
        Self::new(text, Look::Plain)
    }
}

impl From<String> for Field {
    fn from(text: String) -> Self {
        Self::new(text, Look::Plain)
    }
}

/// How a column is laid out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// Text that is broken where it has to be.
    Text,
    /// A name that is not broken.
    Name,
    /// A number: to the right, not broken.
    Number,
}

/// Rows of a table that is written line by line where nobody looks. Of a hundred thousand rows, what the layout takes would be most of the time.
const LONG: usize = 1000;

/// Lays out rows under titles, as wide as the terminal; where nobody looks, no cell is broken, so that each row is a line.
pub fn table(style: &Style, columns: &[(&str, Column)], rows: Vec<Vec<Field>>) -> String {
    if rows.len() >= LONG
        && !style.terminal
        && !style.color
        && let Some(text) = plain(columns, &rows)
    {
        return text;
    }
    laid_out(style, columns, rows)
}

/// The same, of cells that are not drawn in any way and each have one line; `None` where one has more.
fn plain(columns: &[(&str, Column)], rows: &[Vec<Field>]) -> Option<String> {
    let mut widths: Vec<usize> = columns.iter().map(|(title, _)| display_width(title)).collect();
    let mut bytes = 0;
    for row in rows {
        for (width, Field { text, .. }) in widths.iter_mut().zip(row) {
            if text.contains(char::is_control) {
                return None;
            }
            *width = display_width(text).max(*width);
            bytes += text.len();
        }
    }
    let mut all = String::with_capacity(bytes + rows.len() * (columns.len() * 8));
    let mut line = |texts: &mut dyn Iterator<Item = &str>| {
        let start = all.len();
        for ((text, (_, kind)), &width) in texts.zip(columns).zip(&widths) {
            let space = width.saturating_sub(display_width(text));
            let (before, after) = if *kind == Column::Number { (space, 2) } else { (0, space + 2) };
            let _ = write!(all, "{:before$}{text}{:after$}", "", "");
        }
        all.truncate(start + all[start..].trim_end().len());
        all.push('\n');
    };
    line(&mut columns.iter().map(|(title, _)| *title));
    for row in rows {
        line(&mut row.iter().map(|field| field.text.as_str()));
    }
    Some(all)
}

fn laid_out(style: &Style, columns: &[(&str, Column)], rows: Vec<Vec<Field>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if style.color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    if style.terminal {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(style.width.min(160) as u16);
    } else {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table.set_header(columns.iter().map(|(title, _)| Field::new(*title, Look::Dim).cell()));
    for row in rows {
        table.add_row(row.into_iter().map(Field::cell));
    }
    let widths = table.column_max_content_widths();
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        let (_, kind) = columns[index];
        if kind == Column::Number {
            column.set_cell_alignment(CellAlignment::Right);
        }
        if kind != Column::Text && usize::from(widths[index]) * 2 <= style.width {
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(widths[index] + 2)));
        }
    }
    table.trim_fmt() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_tables_look_like_short_ones() {
        let style = Style { color: false, terminal: false, ..Style::stdout() };
        let columns = [("NAME", Column::Name), ("WHAT", Column::Text), ("SIZE", Column::Number), ("AGO", Column::Name)];
        let row = |n: usize| {
            let name = ["a", "longer", "", "wide 漢字"][n % 4].to_owned();
            vec![
                Field::new(name, Look::Bold),
                format!("{n} × é").into(),
                (n * n).to_string().into(),
                "x ".repeat(n % 3).into(),
            ]
        };
        let rows = || (0..40).map(row).collect::<Vec<_>>();
        assert_eq!(plain(&columns, &rows()), Some(laid_out(&style, &columns, rows())));
        assert_eq!(plain(&columns, &[vec!["a\nb".into()]]), None);
    }
}
