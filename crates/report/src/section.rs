//! What a page is made of.

use crate::figure::Figure;
use crate::table::Table;

/// What a section of the page shows.
pub struct Section {
    /// Its anchor.
    pub id: &'static str,
    /// Its name in the table of contents.
    pub short: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// Figures and tables, in order.
    pub parts: Vec<Part>,
}

/// A part of a section.
pub enum Part {
    /// A figure.
    Figure(Figure),
    /// A table.
    Table(Table),
    /// What the table before says, in words: the cell, empty where there is only one, and the words.
    Notes(Vec<(String, String)>),
}
