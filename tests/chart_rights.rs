//! The operator needs no right that the chart does not give it.

use crate::{
    chart::{CHART, MINIMAL},
    support::{
        ControlPlane, Fleet, Namespace, Operator, PATIENCE, apply, condition, count, events, eventually, get,
        http, objects, rights, server,
    },
};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::{Api, api::PostParams};
use ollama_fleet_operator::api::{FleetPlugin, OllamaServer};
use serde_json::{Value, json};
use std::{fs, path::PathBuf};

const RELEASE: &str = "fleet";
const NAMESPACE: &str = "fleet";

/// A kubeconfig of the same control plane with a ServiceAccount's token instead of the administrator's certificate.
fn kubeconfig_of(control_plane: &ControlPlane, account: &str) -> PathBuf {
    let text = fs::read_to_string(control_plane.kubeconfig()).unwrap();
    let mut kubeconfig: Value = serde_saphyr::from_str(&text).unwrap();
    kubeconfig["users"][0]["user"] = json!({ "token": token_of(control_plane, account) });
    let file = control_plane.folder().join(format!("{account}.kubeconfig"));
    // JSON is YAML.
    fs::write(&file, kubeconfig.to_string()).unwrap();
    file
}

fn token_of(control_plane: &ControlPlane, account: &str) -> String {
    let args = ["create", "token", account, "-n", NAMESPACE, "--duration=1h"];
    control_plane.kubectl(&args, None).ok().trim().to_owned()
}

/// With exactly the ServiceAccount that the chart installs, over the whole cluster: a server becomes Ready, an Event is
/// told, a plugin gets its status, and `/metrics` and the API tell callers apart. Nothing is forbidden to it on the way.
#[tokio::test]
async fn the_charts_service_account_is_enough() {
    let control_plane = ControlPlane::start_bare();
    let args = ["install", RELEASE, CHART, "-n", NAMESPACE, "--create-namespace", "-f", MINIMAL];
    control_plane.helm(&args).ok();
    let crds = ["crd/ollamaservers.ollama-fleet.io", "crd/fleetplugins.ollama-fleet.io"];
    control_plane.kubectl(&[&["wait", "--for=condition=Established"], &crds[..]].concat(), None).ok();
    let account = format!("{RELEASE}-ollama-fleet-operator");
    let client = control_plane.client().await;
    let fleet = Fleet::start(1).await;

    let builder = Operator::builder(&control_plane).kubeconfig(&kubeconfig_of(&control_plane, &account));
    let operator = builder.arg("--api-auth=kubernetes").start().await;

    apply(&client, "default", &objects::fleet_metrics(fleet.agent_port())).await;
    apply(&client, "default", &server("a", fleet.host(0))).await;
    eventually(PATIENCE, "the server is Ready", async || {
        objects::has_condition(&get::<OllamaServer>(&client, "default", "a").await, "Ready", "True", "Online")
    })
    .await;
    eventually(PATIENCE, "the plugin is Ready on the server", async || {
        let plugin: FleetPlugin = get(&client, "default", "fleet-metrics").await;
        let healthy =
            plugin.status.as_ref().and_then(|status| status.servers.as_ref()).map(|servers| servers.healthy);
        let ready = condition(&plugin, "Ready").is_some_and(|(status, ..)| status == "True");
        if ready && healthy == Some(1) { Ok(()) } else { Err(format!("{:?}", plugin.status)) }
    })
    .await;
    fleet.action("0", json!({ "action": "load", "model": "new-model:1b" })).await;
    eventually(PATIENCE, "the loaded model is told", async || {
        count(&events(&client, "default", "a").await, "ModelLoaded") == 1
    })
    .await;

    metrics_tell_callers_apart(&control_plane, &operator).await;
    the_view_role_shows_one_namespace(&control_plane, &operator).await;
    let log = operator.log();
    assert!(!log.to_lowercase().contains("forbidden"), "a right is missing");
}

/// `/metrics` needs a token (401), of someone with the right to read it (403), as the chart's role gives.
async fn metrics_tell_callers_apart(control_plane: &ControlPlane, operator: &Operator) {
    for account in ["scraper", "stranger"] {
        control_plane.kubectl(&["create", "serviceaccount", account, "-n", NAMESPACE], None).ok();
    }
    let role = format!("--clusterrole={RELEASE}-ollama-fleet-operator-metrics-reader");
    let scraper = format!("--serviceaccount={NAMESPACE}:scraper");
    control_plane.kubectl(&["create", "clusterrolebinding", "scraper", &role, &scraper], None).ok();
    let url = format!("http://{}/metrics", operator.api_address());
    let (scraper, stranger) = (token_of(control_plane, "scraper"), token_of(control_plane, "stranger"));
    for (token, expected) in
        [(None, 401), (Some("nonsense"), 401), (Some(stranger.as_str()), 403), (Some(scraper.as_str()), 200)]
    {
        eventually(PATIENCE, "/metrics tells callers apart", async || {
            let (status, body) = http::get_with_token(&url, token).await?;
            let right = status == expected && (expected == 200) == body.contains("ollama_fleet_");
            if right { Ok(()) } else { Err(format!("{status} instead of {expected}: {body}")) }
        })
        .await;
    }
}

/// The cluster's own role `view`, bound in a namespace, shows what is there, by the chart's aggregated role; elsewhere
/// nothing.
async fn the_view_role_shows_one_namespace(control_plane: &ControlPlane, operator: &Operator) {
    let bind = |account: &str, namespace: &str| {
        control_plane.kubectl(&["create", "serviceaccount", account, "-n", NAMESPACE], None).ok();
        let account = format!("--serviceaccount={NAMESPACE}:{account}");
        let args = ["create", "rolebinding", "viewer", "--clusterrole=view", &account, "-n", namespace];
        control_plane.kubectl(&args, None).ok();
    };
    bind("viewer", "default");
    bind("viewer-elsewhere", NAMESPACE);
    for (account, expected) in [("viewer", 1), ("viewer-elsewhere", 0)] {
        let token = token_of(control_plane, account);
        for path in ["/api/plugins", "/api/servers"] {
            let url = format!("http://{}{path}", operator.api_address());
            eventually(PATIENCE, "the list is the caller's", async || {
                let (status, body) = http::get_with_token(&url, Some(&token)).await?;
                let rows =
                    serde_json::from_str::<Vec<Value>>(&body).map_err(|error| format!("{error}: {body}"))?;
                if status == 200 && rows.len() == expected { Ok(()) } else { Err(body) }
            })
            .await;
        }
    }
}

/// The cluster's own roles cover our kinds by the chart's aggregated roles: view reads, edit and admin write specs too, and
/// nobody writes a status or, by these rules, anything else.
#[tokio::test]
async fn the_clusters_own_roles_cover_the_kinds() {
    const READS: [&str; 3] = ["get", "list", "watch"];
    const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];
    let control_plane = ControlPlane::shared();
    let namespace = Namespace::new(control_plane).await;
    let client = control_plane.client().await;
    rights::kubeconfig(control_plane.kubeconfig(), control_plane.folder(), &[], false, None).await;
    let reviews = Api::<SubjectAccessReview>::all(client.clone());
    let may = async |user: &str, verb: &str, resource: &str, subresource: &str| {
        let review = json!({ "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": { "user": user, "resourceAttributes": { "group": "ollama-fleet.io", "resource": resource,
                "subresource": subresource, "verb": verb, "namespace": namespace.name() } } });
        let answer = reviews.create(&PostParams::default(), &serde_json::from_value(review).unwrap()).await;
        answer.unwrap().status.unwrap().allowed
    };
    for role in ["view", "edit", "admin"] {
        let user = format!("{role}-of-{}", namespace.name());
        let (clusterrole, to) = (format!("--clusterrole={role}"), format!("--user={user}"));
        let args = ["create", "rolebinding", role, &clusterrole, &to, "-n", namespace.name()];
        control_plane.kubectl(&args, None).ok();
        let last = if role == "view" { "watch" } else { "deletecollection" };
        eventually(PATIENCE, "the roles are aggregated", async || may(&user, last, "fleetplugins", "").await)
            .await;
        for kind in ["ollamaservers", "fleetplugins"] {
            for verb in READS {
                assert!(may(&user, verb, kind, "").await, "{role}: {verb} {kind}");
                assert!(may(&user, verb, kind, "status").await, "{role}: {verb} {kind}/status");
            }
            for verb in WRITES {
                assert_eq!(may(&user, verb, kind, "").await, role != "view", "{role}: {verb} {kind}");
                assert!(!may(&user, verb, kind, "status").await, "{role}: {verb} {kind}/status");
            }
            assert!(!may(&user, "impersonate", kind, "").await, "{role}: impersonate {kind}");
        }
    }
    // As the API server says, so it does.
    let object = json!({ "apiVersion": "ollama-fleet.io/v1alpha1", "kind": "OllamaServer",
        "metadata": { "name": "a", "namespace": namespace.name() }, "spec": { "host": "192.0.2.1" } });
    let create = |role: &str| {
        let user = format!("--as={role}-of-{}", namespace.name());
        control_plane.kubectl(&["create", &user, "-f", "-"], Some(&object.to_string()))
    };
    assert!(create("view").refused().contains("forbidden"));
    create("edit").ok();
}
