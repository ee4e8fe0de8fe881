//! Polling vLLM and other OpenAI-style servers: the list of models, which is free everywhere, and then only what is known
//! to be free at this server. `/health` is not: `LiteLLM` runs a completion of every model for it, `SGLang` generates a token.

use super::{
    Ask,
    failure::Failure,
    health::{self, Health},
    openai_wire::{self, Listing, Maker},
    report::{HostReport, Part},
    wire,
};

/// What came of asking for the list.
#[derive(Clone, Debug, PartialEq)]
enum List {
    Known(Listing),
    /// There is no such endpoint: 404 or 405.
    NotThere,
    Failed(Failure),
}

/// Online is a well-formed list that no bad health outweighs, or where there is no list, a good health.
pub async fn poll(ask: &Ask<'_>) -> Result<HostReport, Failure> {
    let named = ask.target.manner.health_path.is_some();
    let list = match ask.get_small("/v1/models", false).await {
        Err(failure) => List::Failed(failure),
        Ok(answer) if matches!(answer.status, 404 | 405) => List::NotThere,
        Ok(answer) => match answer.success().and_then(|answer| openai_wire::models(&answer.body)) {
            Ok(listing) => List::Known(listing),
            Err(Failure::HostRejected) => List::Failed(Failure::KeyRejected),
            Err(failure) => List::Failed(failure),
        },
    };
    let (version_due, props_due) = match &list {
        List::Known(listing) => {
            (listing.maker() == Maker::Vllm && ask.target.with_models, listing.needs_props())
        }
        _ => (false, false),
    };
    let more = version_due || props_due;
    let health = if wants_health(&list, named) { Some(health::ask(ask, !more).await) } else { None };
    verdict(&list, health, named)?;
    let listing = match list {
        List::Known(listing) => listing,
        List::NotThere => {
            return Ok(HostReport { version: Part::Missing, models: Part::Missing, loaded: Part::Missing });
        }
        List::Failed(failure) => {
            let (models, loaded) = (Part::Failed(failure), Part::Failed(failure));
            return Ok(HostReport { version: Part::NotAsked, models, loaded });
        }
    };
    let version = match listing.maker() {
        Maker::Vllm if version_due => version(ask).await,
        Maker::Vllm => Part::NotAsked,
        // Of others it is not known where they tell it.
        _ => Part::Unknown,
    };
    let loaded = match if props_due { sleeps(ask).await } else { Ok(None) } {
        Ok(sleeps) => listing.loaded(sleeps),
        Err(failure) => Part::Failed(failure),
    };
    Ok(HostReport { version, models: Part::Known(listing.models()), loaded })
}

/// Whether the health is asked for: where the list tells too little, where asking is known to be free, or where the spec
/// names the path.
fn wants_health(list: &List, named: bool) -> bool {
    match list {
        List::Known(listing) => named || listing.entries.is_empty() || listing.maker().has_free_health(),
        List::NotThere => true,
        List::Failed(failure) => named && is_excused(*failure),
    }
}

/// Failures of the list beside which a health path of the spec's may still say that the server is well: the list is for
/// others, or is broken by itself. What says that nobody is there, or somebody else, is none.
fn is_excused(failure: Failure) -> bool {
    matches!(
        failure,
        Failure::Unauthorized
            | Failure::KeyRejected
            | Failure::InvalidResponse
            | Failure::ResponseTooLarge
            | Failure::UnexpectedRedirect
    )
}

/// Whether the host is online, from its list and its health. `named`: the health path is the spec's own.
fn verdict(list: &List, health: Option<Result<Health, Failure>>, named: bool) -> Result<(), Failure> {
    match (list, health) {
        (List::Known(_), None) | (_, Some(Ok(Health::Well))) => Ok(()),
        (List::Failed(failure), None) => Err(*failure),
        (_, Some(Ok(Health::Page))) if named => Ok(()),
        (_, Some(Ok(Health::NotThere))) if named => Err(Failure::NoHealthPath),
        // Beside a list, a default path that is not there, or not for everybody, says nothing.
        (
            List::Known(_),
            Some(Ok(Health::Page | Health::NotThere) | Err(Failure::Unauthorized | Failure::KeyRejected)),
        ) if !named => Ok(()),
        (List::NotThere, None) | (_, Some(Ok(Health::Page | Health::NotThere))) => Err(Failure::NotOllama),
        (_, Some(Err(failure))) => Err(failure),
    }
}

/// vLLM's own version; behind a proxy that shows only its API there is none.
async fn version(ask: &Ask<'_>) -> Part<String> {
    match ask.get_small("/version", true).await {
        Ok(answer) if answer.status == 404 => Part::Missing,
        answer => {
            match answer.and_then(super::Answer::success).and_then(|answer| wire::version(&answer.body)) {
                Ok(version) => Part::Known(version),
                Err(failure) => Part::Failed(failure),
            }
        }
    }
}

/// Whether the model of llama.cpp's server sleeps; `None`: it does not tell, or not us. Asking does not wake it. A failure
/// says nothing, so that what was known stands.
async fn sleeps(ask: &Ask<'_>) -> Result<Option<bool>, Failure> {
    match ask.get_small("/props", true).await.and_then(super::Answer::success) {
        Ok(answer) => Ok(openai_wire::sleeps(&answer.body).ok()),
        Err(Failure::Unauthorized | Failure::HostRejected | Failure::KeyRejected | Failure::NotOllama) => {
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
#[path = "openai_tests.rs"]
mod tests;
