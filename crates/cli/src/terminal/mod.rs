//! Everything that is drawn: text in, text out, and the one file that prints it.

mod bars;
mod download;
pub mod errors;
pub mod format;
mod journal;
mod keys;
mod lines;
mod output;
mod safe;
mod style;
pub mod table;
mod watch;

pub use download::Downloads;
pub use journal::Journal;
pub use output::{clear, complain, print, print_json};
pub use style::Style;
pub use watch::{How, Reading, watch};
