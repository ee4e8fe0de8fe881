//! `kubectl ollama`: a plugin of kubectl, found on the PATH by its name. The work is in `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ollama_fleet_operator::cli::main()
}
