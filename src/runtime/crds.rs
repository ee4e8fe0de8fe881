//! The gate of the custom resources' definitions: waits until the apiserver serves every kind of the operator.
//!
//! Only waits. It never installs or changes a definition; whoever installs the operator does that.

use super::Gate;
use crate::api::{FleetPlugin, GROUP, OllamaServer};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams},
};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The client has no deadline of its own, and a request into a black hole must not hold the start for ever.
const TRY_DEADLINE: Duration = Duration::from_secs(5);

/// `kubectl apply` of everything at once makes the definitions within a second or two.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// A forgotten definition may be installed hours later; then nobody should wait long, nor the apiserver be asked often.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// How the wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrdGate {
    /// Every kind is served; the gate is open.
    Open,
    /// The process was told to stop before that.
    Stopped,
}

/// Waits until every definition is established, saying in `gate` what is missing.
///
/// An installation that is confined to namespaces may lack the right to read definitions; then listing a kind in
/// the first of `namespaces`, or in all if there are none, stands in for it.
pub async fn wait_for_crds(
    client: &Client,
    namespaces: &[String],
    gate: &Gate,
    shutdown: &CancellationToken,
) -> CrdGate {
    let kinds = [ApiResource::erase::<OllamaServer>(&()), ApiResource::erase::<FleetPlugin>(&())];
    let mut pause = FIRST_PAUSE;
    let mut logged = String::new();
    loop {
        let missing = tokio::select! {
            missing = first_missing(client, namespaces, &kinds) => missing,
            () = shutdown.cancelled() => return CrdGate::Stopped,
        };
        let Some(Missing { reason, cause }) = missing else {
            gate.open();
            return CrdGate::Open;
        };
        if reason != logged {
            tracing::warn!(reason, cause, "waiting for the custom resources");
            logged.clone_from(&reason);
        }
        gate.wait_for(reason);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => return CrdGate::Stopped,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Why a kind is not served yet.
struct Missing {
    /// Shown without a login: no address, no name beyond those of the definitions.
    reason: String,
    /// For the log only.
    cause: Option<String>,
}

impl From<String> for Missing {
    fn from(reason: String) -> Self {
        Self { reason, cause: None }
    }
}

/// The first kind that is not served yet.
async fn first_missing(client: &Client, namespaces: &[String], kinds: &[ApiResource]) -> Option<Missing> {
    for kind in kinds {
        let name = format!("{}.{GROUP}", kind.plural);
        let served = tokio::time::timeout(TRY_DEADLINE, served(client, namespaces, kind, &name)).await;
        match served {
            Ok(Ok(())) => {}
            Ok(Err(missing)) => return Some(missing),
            Err(_) => return Some(format!("the apiserver did not answer within {TRY_DEADLINE:?}").into()),
        }
    }
    None
}

async fn served(
    client: &Client,
    namespaces: &[String],
    kind: &ApiResource,
    name: &str,
) -> Result<(), Missing> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    match definitions.get(name).await {
        Ok(definition) if established(&definition) => Ok(()),
        Ok(_) => Err(format!("CustomResourceDefinition {name} is not established yet").into()),
        Err(kube::Error::Api(status)) if status.code == 404 => Err(not_installed(name).into()),
        Err(kube::Error::Api(status)) if status.code == 403 => listed(client, namespaces, kind, name).await,
        Err(error) => Err(unanswered(&error)),
    }
}

/// Stands in for reading the definition where that is forbidden.
async fn listed(
    client: &Client,
    namespaces: &[String],
    kind: &ApiResource,
    name: &str,
) -> Result<(), Missing> {
    let objects: Api<DynamicObject> = match namespaces.first() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, kind),
        None => Api::all_with(client.clone(), kind),
    };
    match objects.list(&ListParams::default().limit(1)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Err(not_installed(name).into()),
        Err(kube::Error::Api(status)) if status.code == 403 => {
            Err(format!("no right to get CustomResourceDefinition {name}, nor to list {}", kind.plural)
                .into())
        }
        Err(error) => Err(unanswered(&error)),
    }
}

fn established(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.as_ref().and_then(|status| status.conditions.as_deref());
    conditions
        .unwrap_or_default()
        .iter()
        .any(|condition| condition.type_ == "Established" && condition.status == "True")
}

fn not_installed(name: &str) -> String {
    format!("CustomResourceDefinition {name} is not installed")
}

fn unanswered(error: &kube::Error) -> Missing {
    let reason = match error {
        kube::Error::Api(status) => format!("the apiserver answered {} {}", status.code, status.reason),
        _ => "the apiserver cannot be reached".to_owned(),
    };
    Missing { reason, cause: Some(error.to_string()) }
}
