//! One file for each command: its arguments, whose comments are the help text, and what it does.

pub mod apply;
pub mod ask;
pub mod cache;
pub mod completions;
pub mod diff;
pub mod doctor;
pub mod edit;
pub mod graph;
pub mod init;
pub mod logs;
pub mod model;
pub mod plan;
pub mod quick;
pub mod report;
pub mod revert;
pub mod run;
pub mod runs;
pub mod schema;
pub mod show;
pub mod stages;
pub mod status;
pub mod ui;
pub mod validate;
pub mod why;
pub mod worker;
