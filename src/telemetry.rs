//! Logs on standard error: their format, their filter, and panics as log lines.
//!
//! Sets up process-wide state once. It must not decide what is logged; the modules that know do.

use crate::args::LogFormat;
use std::io::{self, IsTerminal};
use tracing::Level;
use tracing_subscriber::{
    EnvFilter, Layer, filter::ParseError, fmt, layer::SubscriberExt, util::SubscriberInitExt,
    util::TryInitError,
};

/// What is logged where `RUST_LOG` says nothing.
const DEFAULT_FILTER: &str = "info";

/// Two of kube's tell of every failed try of what the operator tells of itself, once a minute.
/// Crates whose `info` is about their own inner life. A name in `RUST_LOG` (`kube=debug`) overrides its line here;
/// a bare level (`debug`) does not, because whoever turns the operator up wants to read the operator.
const QUIET: &str = "axum=warn,axum_server=warn,h2=warn,hickory_proto=warn,hickory_resolver=warn,hyper=warn,\
hyper_util=warn,kube=warn,kube_client=warn,kube_client::client::builder=off,kube_runtime=error,rustls=warn,tower=warn,tower_http=warn";

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("RUST_LOG=`{text}` is no filter: {source}; write for example info or info,kube=debug")]
    Filter { text: String, source: ParseError },
    #[error("a log subscriber is already installed: {0}")]
    Installed(#[from] TryInitError),
}

/// Starts logging. To be called once, before anything that logs.
pub fn init(format: LogFormat) -> Result<(), TelemetryError> {
    let filter = filter(std::env::var("RUST_LOG").ok().as_deref())?;
    let base = fmt::layer().with_writer(io::stderr);
    let layer = match format {
        LogFormat::Json => base.json().flatten_event(true).with_span_list(false).boxed(),
        // Escape codes make a file or a log collector unreadable.
        LogFormat::Text => base.with_ansi(io::stderr().is_terminal()).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()?;
    log_panics();
    Ok(())
}

fn filter(rust_log: Option<&str>) -> Result<EnvFilter, TelemetryError> {
    let text = rust_log.map(str::trim).filter(|text| !text.is_empty()).unwrap_or(DEFAULT_FILTER);
    EnvFilter::builder()
        .with_default_directive(Level::INFO.into())
        .parse(format!("{QUIET},{text}"))
        .map_err(|source| TelemetryError::Filter { text: text.to_owned(), source })
}

/// The default hook writes several lines of plain text, which breaks a JSON log.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no message");
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(location, message, "panicked");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noisy_crates_stay_quiet_until_named() {
        for (rust_log, expected) in [
            (None, "kube=warn"),
            (Some("debug"), "kube=warn"),
            (Some(""), "kube=warn"),
            (Some("info,kube=debug"), "kube=debug"),
        ] {
            let text = filter(rust_log).unwrap().to_string();
            assert!(text.split(',').any(|directive| directive == expected), "{rust_log:?} gave {text}");
        }
    }

    #[test]
    fn a_bare_level_is_the_level_of_the_operator() {
        let text = filter(Some("debug")).unwrap().to_string();
        assert!(text.split(',').any(|directive| directive == "debug"), "{text}");
        assert!(!text.split(',').any(|directive| directive == "info"), "{text}");
        let text = filter(None).unwrap().to_string();
        assert!(text.split(',').any(|directive| directive == "info"), "{text}");
    }

    #[test]
    fn a_bad_filter_is_an_error_that_shows_it() {
        let error = filter(Some("kube=loud")).unwrap_err().to_string();
        assert!(error.contains("RUST_LOG=`kube=loud`"), "{error}");
    }
}
