//! Polling anything with a health endpoint: the path that the spec names, and nothing else.

use super::{
    Ask,
    failure::Failure,
    health::{self, Health},
    report::{HostReport, Part},
};

/// Online is a 2xx, also one with a page: whoever named the path knows what is there.
pub async fn poll(ask: &Ask<'_>) -> Result<HostReport, Failure> {
    match health::ask(ask, true).await? {
        Health::Well | Health::Page => {
            Ok(HostReport { version: Part::Missing, models: Part::Missing, loaded: Part::Unknown })
        }
        Health::NotThere => Err(Failure::NoHealthPath),
    }
}
