//! The command line as a whole.

use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};
use palinode::{Diagnostics, ErrorKind, Origin};

use crate::command_error::{Failure, exit_code};
use crate::terminal::{Style, complain, errors};
use crate::{commands, logging, threads};

/// Edits facts in language models, as a pipeline file describes.
///
/// A pipeline names stages and connects them. Palinode keeps each result in a store and reuses it until something that can
/// change it changes.
#[derive(Parser)]
#[command(name = "palinode", version, max_term_width = 100, after_help = HELP, disable_help_subcommand = true)]
pub struct Cli {
    /// Show log messages on stderr; give it twice for more. PALINODE_LOG=FILTER selects modules.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,

    #[command(subcommand)]
    command: Command,
}

const HELP: &str = "\
A first look:
  palinode edit MODEL --subject \"The Eiffel Tower\" --prompt \"{} is located in\" --target Rome

A first session:
  palinode init --model FOLDER        a commented pipeline to start from
  palinode validate pipeline.yaml     all mistakes at once, before anything runs
  palinode plan pipeline.yaml         what a run would do, and why
  palinode run pipeline.yaml          run it; the same command resumes a run that stopped
  palinode show latest                the results
  palinode report                     the newest run as one HTML page

Tables are for people; --json prints the same for programs. Terminals get colours unless NO_COLOR is set.

Exit codes:
  0 done   2 command line   3 pipeline file   4 model or data   5 arithmetic   6 store
  7 out of time or memory   8 a file changed meanwhile   9 requests that cannot work
  10 something doubtful (edit --strict, checks: strict)   70 a bug in palinode   130 interrupted";

#[derive(Subcommand)]
enum Command {
    Init(commands::init::Args),
    Run(commands::run::Args),
    Plan(commands::plan::Args),
    Why(commands::why::Args),
    Report(commands::report::Args),
    Validate(commands::validate::Args),
    Status(commands::status::Args),
    Graph(commands::graph::Args),
    Runs(commands::runs::Args),
    Show(commands::show::Args),
    Diff(commands::diff::Args),
    Logs(commands::logs::Args),
    Attach(commands::attach::Args),
    Cancel(commands::cancel::Args),
    Stages(commands::stages::Args),
    Edit(commands::edit::Args),
    Locate(commands::locate::Args),
    Ask(commands::ask::Args),
    Edits(commands::edits::Args),
    Apply(commands::apply::Args),
    Revert(commands::revert::Args),
    Ui(commands::ui::Args),
    Schema(commands::schema::Args),
    Model(commands::model::Args),
    Cache(commands::cache::Args),
    Doctor(commands::doctor::Args),
    Worker(commands::worker::Args),
    Completions(commands::completions::Args),
}

impl Cli {
    /// Runs the command.
    pub fn run(self) -> ExitCode {
        logging::start(self.verbose);
        let threads =
            threads::check().and_then(|()| if self.reads_files() { Ok(palinode::start_threads()?) } else { Ok(()) });
        let done = threads.and_then(|()| match self.command {
            Command::Init(args) => commands::init::run(&args),
            Command::Run(args) => commands::run::run(&args),
            Command::Plan(args) => commands::plan::run(&args),
            Command::Why(args) => commands::why::run(&args),
            Command::Report(args) => commands::report::run(&args),
            Command::Validate(args) => commands::validate::run(&args),
            Command::Status(args) => commands::status::run(&args),
            Command::Graph(args) => commands::graph::run(&args),
            Command::Runs(args) => commands::runs::run(&args),
            Command::Show(args) => commands::show::run(&args),
            Command::Diff(args) => commands::diff::run(&args),
            Command::Logs(args) => commands::logs::run(&args),
            Command::Attach(args) => commands::attach::run(&args),
            Command::Cancel(args) => commands::cancel::run(&args),
            Command::Stages(args) => commands::stages::run(&args),
            Command::Edit(args) => commands::edit::run(&args),
            Command::Locate(args) => commands::locate::run(&args),
            Command::Ask(args) => commands::ask::run(&args),
            Command::Edits(args) => commands::edits::run(&args),
            Command::Apply(args) => commands::apply::run(&args),
            Command::Revert(args) => commands::revert::run(&args),
            Command::Ui(args) => commands::ui::run(&args),
            Command::Schema(args) => commands::schema::run(&args),
            Command::Model(args) => commands::model::run(&args),
            Command::Doctor(args) => commands::doctor::run(&args),
            Command::Cache(args) => commands::cache::run(&args),
            Command::Worker(args) => commands::worker::run(&args),
            Command::Completions(args) => commands::completions::run(&args),
        });
        done.map_or_else(end, |()| ExitCode::SUCCESS)
    }

    /// Whether the command may look at files' contents, which takes a thread for each core: started when they are needed, a refusal would end
    /// the program within a library.
    fn reads_files(&self) -> bool {
        !matches!(
            self.command,
            Command::Stages(_) | Command::Schema(_) | Command::Doctor(_) | Command::Worker(_) | Command::Completions(_)
        )
    }
}

/// Tells on stderr what ended a command, and gives the exit code.
fn end(failure: Failure) -> ExitCode {
    let style = Style::stderr();
    let kind = match failure {
        Failure::Mistakes(mistakes) => {
            complain(&errors::mistakes(&mistakes, &style));
            mistakes_kind(&mistakes)
        }
        Failure::Error(error) => {
            complain(&errors::error(&error, &style));
            error.kind
        }
        Failure::Told(kind) => kind,
        Failure::Closed => return ExitCode::SUCCESS,
    };
    ExitCode::from(exit_code(kind))
}

/// Of which kind mistakes are. Where the command line was turned into a pipeline, they are mistakes of the command line.
fn mistakes_kind(mistakes: &Diagnostics) -> ErrorKind {
    let given = mistakes.0.iter().all(|mistake| mistake.source.origin == Origin::Code);
    match mistakes.kind() {
        ErrorKind::Pipeline if given => ErrorKind::Usage,
        kind => kind,
    }
}
