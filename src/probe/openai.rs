//! Polling vLLM and other OpenAI-style servers: `/health`, else `/v1/models`. What it serves is both on disk and in
//! memory, and sizes are unknown.

use super::{
    Ask,
    failure::Failure,
    report::{HostReport, LoadedSeen, ModelSeen, Part},
    wire,
};

/// Online is a healthy `/health` or a well-formed `/v1/models`.
pub async fn poll(ask: &Ask<'_>) -> Result<HostReport, Failure> {
    let health = ask.get_small("/health", false).await.and_then(super::Answer::success);
    if let Err(failure) = health
        && ends_the_poll(failure)
    {
        return Err(failure);
    }
    let listed = ask
        .get_small("/v1/models", true)
        .await
        .and_then(super::Answer::success)
        .and_then(|answer| wire::openai_models(&answer.body));
    match (health, listed) {
        (_, Ok(names)) => Ok(report(names)),
        (Ok(_), Err(failure)) => Ok(HostReport {
            version: Part::Missing,
            models: Part::Failed(failure),
            loaded: Part::Failed(failure),
        }),
        (Err(failure), Err(_)) => Err(failure),
    }
}

/// Whether the other path would fail alike. An answer of any kind is none of these: only `/health` may be what it refuses,
/// or lacks.
fn ends_the_poll(failure: Failure) -> bool {
    let unanswered = matches!(failure, Failure::ConnectionRefused | Failure::Timeout | Failure::DnsFailed);
    unanswered || failure.is_tls() || failure.is_refusal() || failure == Failure::TooManyOpenFiles
}

fn report(names: Vec<String>) -> HostReport {
    let models = names.iter().map(|name| ModelSeen { name: name.clone(), ..ModelSeen::default() }).collect();
    let loaded = names.into_iter().map(|name| LoadedSeen { name, ..LoadedSeen::default() }).collect();
    HostReport { version: Part::Missing, models: Part::Known(models), loaded: Part::Known(loaded) }
}
