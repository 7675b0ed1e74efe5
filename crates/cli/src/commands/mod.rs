//! One file for each command: its arguments, whose comments are the help text, and what it does.

pub mod apply;
pub mod ask;
pub mod cache;
pub mod edit;
pub mod plan;
pub mod quick;
pub mod report;
pub mod revert;
pub mod run;
pub mod schema;
pub mod stages;
pub mod validate;
pub mod why;
pub mod worker;
