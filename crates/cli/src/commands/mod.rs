//! One file for each command: its arguments, whose comments are the help text, and what it does.

pub mod cache;
pub mod plan;
pub mod report;
pub mod run;
pub mod schema;
pub mod stages;
pub mod validate;
pub mod why;
