//! `kubectl ollama`: a file a verb. The help text is the reference.
//!
//! Standard output has what was asked for, standard error what a person should know. 0: done; 1: done, with what the
//! verb's help calls a failure; 2: wrong usage, or input that cannot be read.

pub mod import;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Commands for Ollama Fleet Operator.
#[derive(Debug, Parser)]
#[command(name = "kubectl-ollama", bin_name = "kubectl ollama", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Import(Box<import::ImportArgs>),
}

pub fn main() -> ExitCode {
    let Command::Import(args) = Cli::parse().command;
    import::run(&args)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
