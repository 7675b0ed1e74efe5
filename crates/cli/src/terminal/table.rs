//! Tables without lines: they are read, copied and searched.

use comfy_table::{Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, Width, presets};

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

/// Lays out rows under titles, as wide as the terminal; where nobody looks, no cell is broken, so that each row is a line.
pub fn table(style: &Style, columns: &[(&str, Column)], rows: Vec<Vec<Field>>) -> String {
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
