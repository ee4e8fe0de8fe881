//! Polling anything with a health endpoint: `/health`, and `/` only if that does not answer at all.

use super::{
    Ask,
    failure::Failure,
    report::{HostReport, Part},
};

/// Online is a 2xx. A `/health` that answers with an error is an unhealthy server, whatever `/` says.
pub async fn poll(ask: &Ask<'_>) -> Result<HostReport, Failure> {
    let answer = match ask.get_small("/health", true).await {
        Err(Failure::InvalidResponse | Failure::ConnectionRefused) => ask.get_small("/", true).await,
        answer => answer,
    };
    answer?.success()?;
    Ok(HostReport { version: Part::Missing, models: Part::Missing, loaded: Part::Missing })
}
