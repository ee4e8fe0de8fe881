//! Polling Ollama: version, what is in memory, and now and then what is on disk; one request after the other, because
//! versions before 0.32.4 can crash on concurrent readings of /api/ps.

use super::{
    Ask,
    client::MODELS_BODY_MAX,
    ends_the_poll,
    failure::Failure,
    report::{HostReport, Part},
    wire,
};

/// Online is a well-formed answer of version or ps. `GET /` decides nothing, it only tells why the others failed.
pub async fn poll(ask: &Ask<'_>) -> Result<HostReport, Failure> {
    let version = part(ask.get_small("/api/version", false).await, |answer| wire::version(&answer.body));
    if let Some(failure) = version.failure().filter(|failure| ends_the_poll(*failure)) {
        return Err(failure);
    }
    let with_models = ask.target.with_models;
    let loaded = part(ask.get_small("/api/ps", !with_models && version.known().is_some()).await, |answer| {
        wire::ps(&answer.body, answer.date)
    });
    if version.known().is_none() && loaded.known().is_none() {
        return Err(why(ask, &version, &loaded).await);
    }
    let models = if with_models {
        part(ask.get("/api/tags", MODELS_BODY_MAX, true).await, |answer| wire::tags(&answer.body))
    } else {
        Part::NotAsked
    };
    Ok(HostReport { version, models, loaded })
}

/// 404 is an old version that lacks the endpoint; whether it is Ollama at all, the other endpoints tell.
fn part<T>(
    answer: Result<super::Answer, Failure>,
    parse: impl FnOnce(&super::Answer) -> Result<T, Failure>,
) -> Part<T> {
    let answer = match answer {
        Ok(answer) if answer.status == 404 => return Part::Missing,
        other => other.and_then(super::Answer::success),
    };
    match answer.and_then(|answer| parse(&answer)) {
        Ok(value) => Part::Known(value),
        Err(failure) => Part::Failed(failure),
    }
}

async fn why(
    ask: &Ask<'_>,
    version: &Part<String>,
    loaded: &Part<Vec<super::report::LoadedSeen>>,
) -> Failure {
    if let Some(failure) = loaded.failure().filter(|failure| ends_the_poll(*failure)) {
        return failure;
    }
    match ask.get_small("/", true).await {
        // It is Ollama, so what failed is its API.
        Ok(answer) if answer.body.starts_with(b"Ollama is running") => {
            version.failure().or(loaded.failure()).unwrap_or(Failure::InvalidResponse)
        }
        // Neither endpoint exists and the greeting is another's.
        Ok(_) if *version == Part::Missing => Failure::NotOllama,
        Ok(_) => version.failure().or(loaded.failure()).unwrap_or(Failure::NotOllama),
        Err(failure) => version.failure().unwrap_or(failure),
    }
}
