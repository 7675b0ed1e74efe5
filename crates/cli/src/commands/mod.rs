//! One file for each command: its arguments, whose comments are the help text, and what it does.

pub mod cache;
pub mod model;
pub mod plan;
pub mod run;
pub mod schema;
pub mod stages;
pub mod validate;
pub mod why;
