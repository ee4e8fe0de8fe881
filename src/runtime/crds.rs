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
/// one of `namespaces`, or in all if there are none, stands in for it.
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

/// Stands in for reading the definition where that is forbidden. A namespace that refuses says nothing of the kind: it may be
/// gone, with the rights in it; the next one is asked.
async fn listed(
    client: &Client,
    namespaces: &[String],
    kind: &ApiResource,
    name: &str,
) -> Result<(), Missing> {
    let in_namespace = |namespace| Api::namespaced_with(client.clone(), namespace, kind);
    let mut places: Vec<Api<DynamicObject>> =
        namespaces.iter().map(String::as_str).map(in_namespace).collect();
    if places.is_empty() {
        places.push(Api::all_with(client.clone(), kind));
    }
    for objects in places {
        match objects.list(&ListParams::default().limit(1)).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 403 => {}
            Err(kube::Error::Api(status)) if status.code == 404 => return Err(not_installed(name).into()),
            Err(error) => return Err(unanswered(&error)),
        }
    }
    Err(format!("no right to get CustomResourceDefinition {name}, nor to list {}", kind.plural).into())
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
        kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => {
            "the apiserver's answer cannot be read".to_owned()
        }
        _ => "the apiserver cannot be reached".to_owned(),
    };
    Missing { reason, cause: Some(error.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Readiness;
    use axum::http::{Request, Response};
    use kube::client::Body;
    use rstest::rstest;
    use serde_json::{Value, json};

    /// An apiserver that answers by path.
    fn apiserver(answer: impl Fn(&str) -> (u16, Value) + Clone + Send + 'static) -> Client {
        let service = tower::service_fn(move |request: Request<Body>| {
            let (status, body) = answer(request.uri().path());
            let body = Body::from(body.to_string().into_bytes());
            async move { Response::builder().status(status).body(body) }
        });
        Client::new(service, "default")
    }

    fn failure(code: u16, reason: &str) -> (u16, Value) {
        (code, json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "m"}))
    }

    fn definition(path: &str, established: &str) -> (u16, Value) {
        let name = path.rsplit('/').next().unwrap();
        let names = json!({"kind": "K", "plural": "ks"});
        let spec = json!({"group": GROUP, "names": names, "scope": "Namespaced", "versions": []});
        let conditions = json!([{"type": "Established", "status": established}]);
        (200, json!({"metadata": {"name": name}, "spec": spec, "status": {"conditions": conditions}}))
    }

    fn definitions(path: &str) -> bool {
        path.starts_with("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/")
    }

    async fn missing(
        namespaces: &[&str],
        answer: impl Fn(&str) -> (u16, Value) + Clone + Send + 'static,
    ) -> Option<String> {
        let kinds = [ApiResource::erase::<OllamaServer>(&()), ApiResource::erase::<FleetPlugin>(&())];
        let namespaces: Vec<_> = namespaces.iter().map(ToString::to_string).collect();
        first_missing(&apiserver(answer), &namespaces, &kinds).await.map(|missing| missing.reason)
    }

    #[tokio::test]
    async fn both_definitions_must_be_established() {
        assert_eq!(missing(&[], |path| definition(path, "True")).await, None);
        let reason = missing(&[], |path| {
            definition(path, if path.contains("fleetplugins") { "False" } else { "True" })
        });
        let expected = "CustomResourceDefinition fleetplugins.ollama-fleet.io is not established yet";
        assert_eq!(reason.await.as_deref(), Some(expected));
    }

    #[rstest]
    #[case(
        failure(404, "NotFound"),
        "CustomResourceDefinition ollamaservers.ollama-fleet.io is not installed"
    )]
    #[case(failure(500, "InternalError"), "the apiserver answered 500 InternalError")]
    #[case((200, json!("nonsense")), "the apiserver's answer cannot be read")]
    #[tokio::test]
    async fn reasons(#[case] answer: (u16, Value), #[case] expected: &str) {
        assert_eq!(missing(&[], move |_| answer.clone()).await.as_deref(), Some(expected));
    }

    #[rstest]
    #[case::everywhere(&[], "/apis/ollama-fleet.io/v1alpha1/")]
    #[case::confined(&["fleet"], "/apis/ollama-fleet.io/v1alpha1/namespaces/fleet/")]
    #[tokio::test]
    async fn a_list_stands_in_for_a_forbidden_definition(
        #[case] namespaces: &[&str],
        #[case] prefix: &'static str,
    ) {
        let listing = |status: (u16, Value)| {
            move |path: &str| match path {
                _ if definitions(path) => failure(403, "Forbidden"),
                _ if path.starts_with(prefix) => status.clone(),
                _ => failure(500, "WrongPath"),
            }
        };
        let empty = (200, json!({"metadata": {}, "items": []}));
        assert_eq!(missing(namespaces, listing(empty)).await, None);
        let reason = missing(namespaces, listing(failure(404, "NotFound"))).await.unwrap();
        assert!(reason.ends_with("is not installed"), "{reason}");
        let reason = missing(namespaces, listing(failure(403, "Forbidden"))).await.unwrap();
        assert!(reason.starts_with("no right to get"), "{reason}");
    }

    #[tokio::test]
    async fn a_namespace_that_refuses_says_nothing_of_the_kind() {
        let answer = |path: &str| match path {
            _ if path.contains("/namespaces/lab/") => (200, json!({"metadata": {}, "items": []})),
            _ => failure(403, "Forbidden"),
        };
        assert_eq!(missing(&["gone", "lab", "gone-too"], answer).await, None);
        let reason = missing(&["gone", "gone-too"], answer).await.unwrap();
        assert!(reason.starts_with("no right to get"), "{reason}");
    }

    #[tokio::test]
    async fn the_gate_opens_or_the_wait_is_stopped() {
        let shutdown = CancellationToken::new();
        let readiness = Readiness::new();
        let gate = readiness.gate("crds");
        let there = apiserver(|path| definition(path, "True"));
        assert_eq!(wait_for_crds(&there, &[], &gate, &shutdown).await, CrdGate::Open);
        assert!(readiness.snapshot().ready);

        gate.close("again");
        let absent = apiserver(|_| failure(404, "NotFound"));
        let stop = async {
            let said = || readiness.snapshot().waiting_for[0].detail.ends_with("is not installed");
            let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
            while !said() && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert!(said());
            shutdown.cancel();
        };
        let (ended, ()) = tokio::join!(wait_for_crds(&absent, &[], &gate, &shutdown), stop);
        assert_eq!(ended, CrdGate::Stopped);
        assert!(!readiness.snapshot().ready);
    }
}
