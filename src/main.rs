//! The operator's process: TLS provider, arguments, telemetry, run; nothing else.

use ollama_fleet_operator::{
    args::{Cli, Command},
    operator, telemetry,
};
use std::process::ExitCode;

/// A poll makes and drops some 600 small pieces of memory, between tasks that move from worker to worker; the C
/// library's allocator takes a fifth of all instructions for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The one TLS provider of the whole process; whoever makes a connection first would otherwise choose, or panic.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Command::Run(args) = Cli::parse_or_exit().command;
    if let Err(error) = telemetry::init(args.log_format) {
        // There is no log yet.
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match runtime.block_on(operator::run(*args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    tracing::error!("{error}");
    ExitCode::FAILURE
}
