//! `--watch-namespaces` with a Role in each: what becomes of one of them stops no other.

use crate::support::{
    ControlPlane, Fleet, Namespace, Operator, PATIENCE, apply, eventually, get, holds_for, metric_value,
    objects::{fleet_metrics, has_condition},
    operator::Builder,
    server,
};
use k8s_openapi::api::core::v1::Namespace as Object;
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use ollama_fleet_operator::api::{FleetPlugin, OllamaServer};
use serde_json::{Value, json};
use std::{fs, path::PathBuf, time::Duration};

/// Two watched namespaces, and an operator with rights in those where they are given to it.
struct World {
    client: Client,
    /// With the operator's account and its Lease.
    home: Namespace,
    other: Namespace,
    kubeconfig: PathBuf,
    fleet: Fleet,
}

impl World {
    async fn new() -> Self {
        let control_plane = ControlPlane::shared();
        let (home, other) = (Namespace::new(control_plane).await, Namespace::new(control_plane).await);
        kubectl(&home, &["create", "serviceaccount", "operator"]);
        let text = fs::read_to_string(control_plane.kubeconfig()).unwrap();
        let mut content: Value = serde_saphyr::from_str(&text).unwrap();
        content["users"][0]["user"] =
            json!({ "token": kubectl(&home, &["create", "token", "operator"]).trim() });
        let kubeconfig = control_plane.folder().join(format!("{}.kubeconfig", home.name()));
        // JSON is YAML.
        fs::write(&kubeconfig, content.to_string()).unwrap();
        let client = control_plane.client().await;
        Self { client, home, other, kubeconfig, fleet: Fleet::start(2).await }
    }

    /// As the chart's Roles with `watchNamespaces` and leader election.
    fn give_rights(&self, namespace: &str) {
        let account = format!("--serviceaccount={}:operator", self.home);
        for (role, verbs, resources) in [
            ("reads", "get,list,watch", "ollamaservers.ollama-fleet.io,fleetplugins.ollama-fleet.io"),
            ("writes", "patch", "ollamaservers.ollama-fleet.io/status,fleetplugins.ollama-fleet.io/status"),
            ("lease", "get,create,update,patch", "leases.coordination.k8s.io"),
        ] {
            let (verbs, resources) = (format!("--verb={verbs}"), format!("--resource={resources}"));
            kubectl(namespace, &["create", "role", role, &verbs, &resources]);
            kubectl(namespace, &["create", "rolebinding", role, &format!("--role={role}"), &account]);
        }
    }

    /// The other namespace is the first one that it watches.
    fn operator(&self) -> Builder {
        Operator::builder(ControlPlane::shared())
            .namespace(&self.other)
            .namespace(&self.home)
            .kubeconfig(&self.kubeconfig)
            .arg("--leader-elect")
            .arg(format!("--leader-elect-namespace={}", self.home))
    }

    async fn until(&self, namespace: &str, name: &str, status: &str, reason: &str) {
        eventually(PATIENCE, reason, async || {
            has_condition(&get::<OllamaServer>(&self.client, namespace, name).await, "Ready", status, reason)
        })
        .await;
    }
}

fn kubectl(namespace: &str, args: &[&str]) -> String {
    ControlPlane::shared().kubectl(&[args, &["-n", namespace]].concat(), None).ok()
}

/// A watched namespace is deleted, and its Roles with it. An operator that starts after that watches the others: it is
/// ready, is elected, and asks the hosts. The metric names the namespace, and when that is there again, with its Roles, its
/// servers and plugins are taken in without a restart.
#[tokio::test]
async fn a_deleted_namespace_stops_no_other_after_a_restart() {
    let world = World::new().await;
    let (client, home, other) = (&world.client, &*world.home, &*world.other);
    world.give_rights(home);
    world.give_rights(other);
    apply(client, home, &server("a", world.fleet.host(0))).await;
    let operator = world.operator().start().await;
    world.until(home, "a", "True", "Online").await;
    let namespaces: Api<Object> = Api::all(client.clone());
    namespaces.delete(other, &DeleteParams::default()).await.unwrap();
    eventually(2 * PATIENCE, "the namespace is gone", async || {
        namespaces.get_opt(other).await.is_ok_and(|namespace| namespace.is_none())
    })
    .await;
    operator.terminate();
    drop(operator);

    let operator = world.operator().start().await;
    world.fleet.action("0", "die").await;
    world.until(home, "a", "False", "ConnectionRefused").await;
    for kind in ["OllamaServer", "FleetPlugin"] {
        let labels = [("kind", kind), ("namespace", other), ("reason", "forbidden")];
        let refused = metric_value(&operator.metrics().await, "ollama_fleet_watch_errors_total", &labels);
        assert!(refused.is_some_and(|count| count >= 1.0), "{kind}: {refused:?}");
    }
    let warned = |line: &&Value| line["level"] == "WARN" && line["namespace"] == other;
    // Once for each kind, and once more when the lists are begun anew for the election.
    assert!((1..=4).contains(&operator.log_lines().iter().filter(warned).count()), "{}", operator.log());

    let mut again = Object::default();
    again.metadata.name = Some(other.to_owned());
    namespaces.create(&PostParams::default(), &again).await.unwrap();
    apply(client, other, &fleet_metrics(world.fleet.agent_port())).await;
    apply(client, other, &server("b", world.fleet.host(1))).await;
    world.give_rights(other);
    world.until(other, "b", "True", "Online").await;
    eventually(PATIENCE, "its plugin is read", async || {
        let plugin: FleetPlugin = get(client, other, "fleet-metrics").await;
        let servers = plugin.status.unwrap_or_default().servers.unwrap_or_default();
        if servers.summary == "1/1" { Ok(()) } else { Err(servers.summary) }
    })
    .await;
}

/// An operator that may list nothing anywhere is not ready, says why, and needs no restart when it is given the rights.
#[tokio::test]
async fn rights_that_are_missing_everywhere_are_waited_for() {
    let world = World::new().await;
    let home = &*world.home;
    apply(&world.client, home, &server("a", world.fleet.host(0))).await;
    // The kinds are known to be there; nothing else is allowed.
    let role = format!("{home}-definitions");
    let resource = "--resource=customresourcedefinitions.apiextensions.k8s.io";
    kubectl(home, &["create", "clusterrole", &role, "--verb=get", resource]);
    let (of, account) = (format!("--clusterrole={role}"), format!("--serviceaccount={home}:operator"));
    kubectl(home, &["create", "clusterrolebinding", &role, &of, &account]);
    let operator = world.operator().without_waiting_for_ready().start().await;
    eventually(PATIENCE, "it says what it waits for", async || {
        let said = operator.readyz().await.err().unwrap_or_default();
        if said.contains("the right to list FleetPlugins") { Ok(()) } else { Err(said) }
    })
    .await;
    // Longer than the tries take that would be enough beside another namespace.
    holds_for(Duration::from_secs(8), "it is not ready", async || operator.readyz().await.is_err()).await;
    let said = operator.readyz().await.unwrap_err();
    assert!(!said.contains(home) && !said.contains(&*world.other), "names are not for everybody: {said}");
    world.give_rights(home);
    world.until(home, "a", "True", "Online").await;
    eventually(PATIENCE, "it is ready", async || operator.readyz().await.is_ok()).await;
    kubectl(home, &["delete", "clusterrolebinding", &role]);
    kubectl(home, &["delete", "clusterrole", &role]);
}
