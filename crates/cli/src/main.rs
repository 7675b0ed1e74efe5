//! The `palinode` program: the only part that reads the command line, prints, and ends the process.
#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::invalid_html_tags,
    reason = "doc comments of arguments are help texts, which are printed as they are"
)]

mod again;
mod allocator;
mod cli;
mod command_error;
mod commands;
mod detach;
mod executor;
mod input;
mod interrupt;
mod logging;
mod on_end;
mod outputs;
mod past;
mod results;
mod settings;
mod terminal;
mod threads;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    allocator::keep_pages();
    logging::quiet_panics();
    cli::Cli::parse().run()
}
