//! The way a process ends: the first signal asks everything to finish, the second ends it at once.

use std::io;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a shell reports for a program that Ctrl-C ended.
const ABORTED: i32 = 130;

/// A token that is cancelled by the first SIGTERM or SIGINT. A second one ends the process with exit code 130,
/// finished or not. To be called inside a runtime.
pub fn shutdown_signal() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let shutdown = token.clone();
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if shutdown.is_cancelled() {
                tracing::warn!(signal = name, "second signal: ending at once");
                std::process::exit(ABORTED);
            }
            tracing::info!(signal = name, "shutting down");
            shutdown.cancel();
        }
    });
    Ok(token)
}
