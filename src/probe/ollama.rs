//! Polling Ollama: version, what is in memory, and now and then what is on disk; one request after the other, because
//! versions before 0.32.4 can crash on concurrent readings of /api/ps.

use super::{
    Ask,
    client::MODELS_BODY_MAX,
    failure::Failure,
    report::{HostReport, LoadedSeen, ModelSeen, Part},
    wire,
};

/// The first version with /api/ps; 0.1.36 answers 404.
const FIRST_WITH_PS: (u64, u64, u64) = (0, 1, 38);

/// Online is what [`judge`] says. `GET /` decides nothing, it only tells why the others failed.
pub async fn poll(ask: &Ask<'_>) -> Result<HostReport, Failure> {
    let version = part(ask.get_small("/api/version", false).await, |answer| wire::version(&answer.body));
    if let Some(failure) = version.failure().filter(|failure| ends_the_poll(*failure)) {
        return Err(failure);
    }
    let with_models = ask.target.with_models;
    let has_version = version.known().is_some();
    let (mut models, loaded) = if with_models && ask.target.manner.models_first && has_version {
        let models = tags(ask, false).await;
        (models, ps(ask, true).await)
    } else {
        let loaded = ps(ask, !with_models && has_version).await;
        let goes_on = with_models && (has_version || loaded.known().is_some());
        (if goes_on { tags(ask, true).await } else { Part::NotAsked }, loaded)
    };
    let mut verdict = judge(&version, &loaded, &models, ask.target.manner.proven);
    if verdict.is_err() && models == Part::NotAsked && has_version {
        // The list of models is asked for before its time only if nothing else shows that this is Ollama.
        models = tags(ask, true).await;
        verdict = judge(&version, &loaded, &models, ask.target.manner.proven);
    }
    match verdict {
        Ok(()) => Ok(HostReport { version, models, loaded }),
        Err(failure) if has_version => Err(failure),
        Err(_) => Err(why(ask, &version, &loaded).await),
    }
}

async fn ps(ask: &Ask<'_>, last: bool) -> Part<Vec<LoadedSeen>> {
    part(ask.get_small("/api/ps", last).await, |answer| wire::ps(&answer.body, answer.date))
}

async fn tags(ask: &Ask<'_>, last: bool) -> Part<Vec<ModelSeen>> {
    part(ask.get("/api/tags", MODELS_BODY_MAX, last).await, |answer| wire::tags(&answer.body))
}

/// Whether what was said is Ollama's: a well-formed list, with or without a version; or a version that is older than the
/// list of what is in memory. A version beside the word of another API is also what `Open WebUI` and llama-swap have; a
/// list that is silent says nothing. A host that is `proven`, as it has shown a list before, stays Ollama while only the
/// lists are in trouble.
fn judge(
    version: &Part<String>,
    loaded: &Part<Vec<LoadedSeen>>,
    models: &Part<Vec<ModelSeen>>,
    proven: bool,
) -> Result<(), Failure> {
    if loaded.known().is_some() || models.known().is_some() {
        return Ok(());
    }
    let Some(known) = version.known() else {
        return Err(version.failure().or(loaded.failure()).unwrap_or(Failure::NotOllama));
    };
    match loaded {
        Part::Missing if is_older(known, FIRST_WITH_PS) => Ok(()),
        _ if models.failure() == Some(Failure::NotOllama) => Err(Failure::NotOllama),
        Part::Failed(failure) if proven && is_trouble(*failure) => Ok(()),
        // Silence is no word against the version.
        Part::Failed(failure) if failure.is_of_the_way() => Ok(()),
        Part::Failed(failure) => Err(*failure),
        _ => Err(Failure::NotOllama),
    }
}

/// Whether a failure says nothing about who answers.
fn is_trouble(failure: Failure) -> bool {
    !matches!(
        failure,
        Failure::NotOllama | Failure::Unauthorized | Failure::HostRejected | Failure::UnexpectedRedirect
    )
}

/// Whether a version is known to be older. Builds from source say 0.0.0 and have everything.
fn is_older(version: &str, than: (u64, u64, u64)) -> bool {
    let number = version.split(['-', '+']).next().unwrap_or_default();
    let mut parts = number.split('.').map(|part| part.parse::<u64>().ok());
    match (parts.next().flatten(), parts.next().flatten(), parts.next().flatten(), parts.next()) {
        (Some(major), Some(minor), Some(patch), None) => {
            let version = (major, minor, patch);
            version != (0, 0, 0) && version < than
        }
        _ => false,
    }
}

/// Failures after which asking the same host for something else is pointless.
fn ends_the_poll(failure: Failure) -> bool {
    !matches!(failure, Failure::InvalidResponse | Failure::NotOllama | Failure::ResponseTooLarge)
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

/// Why neither a version nor a list came.
async fn why(ask: &Ask<'_>, version: &Part<String>, loaded: &Part<Vec<LoadedSeen>>) -> Failure {
    if let Some(failure) = loaded.failure().filter(|failure| ends_the_poll(*failure)) {
        return failure;
    }
    let is_foreign = version.failure() == Some(Failure::NotOllama);
    // Pages, or another API's answers, need no more words.
    if is_foreign && matches!(loaded, Part::Missing | Part::Failed(Failure::NotOllama)) {
        return Failure::NotOllama;
    }
    // Where one of them is Ollama's, the other is a broken answer of it.
    let broken = || match version.failure().or(loaded.failure()) {
        Some(Failure::NotOllama) => Some(Failure::InvalidResponse),
        failure => failure,
    };
    match ask.get_small("/", true).await {
        // It is Ollama, so what failed is its API.
        Ok(answer) if answer.body.starts_with(b"Ollama is running") => {
            broken().unwrap_or(Failure::InvalidResponse)
        }
        // Neither endpoint exists and the greeting is another's.
        Ok(_) if *version == Part::Missing => Failure::NotOllama,
        Ok(_) => broken().unwrap_or(Failure::NotOllama),
        Err(failure) => broken().unwrap_or(failure),
    }
}

#[cfg(test)]
#[path = "ollama_tests.rs"]
mod tests;
