//! Writes the demo pipeline's corpus, model and edit requests; see the README beside this program.

mod check;
mod commands;
mod corpus;
mod error;
mod facts;
mod mask;
mod piece;
mod prose;
mod requests;
mod rows;
mod task;
mod train;
mod vocabulary;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match commands::run(commands::Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
