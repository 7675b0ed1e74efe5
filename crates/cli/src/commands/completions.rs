//! `palinode completions`

use clap::{Args as ClapArgs, CommandFactory};
use clap_complete::{Shell, generate};

use crate::cli::Cli;
use crate::command_error::Failure;
use crate::terminal::print;

/// Print completions for a shell
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode completions bash > ~/.local/share/bash-completion/completions/palinode
  palinode completions zsh > \"${fpath[1]}/_palinode\"
  palinode completions fish > ~/.config/fish/completions/palinode.fish")]
pub struct Args {
    /// The shell.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Prints them.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "palinode", &mut script);
    print(&String::from_utf8_lossy(&script))
}
