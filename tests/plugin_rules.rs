//! Plugins' rules on the real control plane: conditions, Events and metrics that begin and end with what an agent says.

use crate::support::{
    Agent, ControlPlane, Fleet, Namespace, Operator, PATIENCE, apply, condition, eventually, get,
    metric_value,
    objects::{self, count, events, has_condition},
    patch_spec, plugin, server, status_of,
};
use kube::{Client, api::DeleteParams};
use ollama_fleet_operator::api::{FleetPlugin, OllamaServer, server_status::Scalar};
use serde_json::{Value, json};

const LONG: &str = "queue.plugins.ollama-fleet.io/QueueLong";

/// A rule's condition and metric follow the values, its Event is told once on each edge, a restart of the operator is
/// no news, and all of it goes with the plugin.
#[tokio::test]
async fn conditions_events_and_metrics_follow_a_rule() {
    let mut scene = Scene::new("queue_depth 3\n").await;
    scene
        .plugin(json!([
            {"name": "QueueLong", "when": "values.depth > 10", "severity": "Critical", "message": "add a machine"},
            {"name": "Jammed", "when": "values.depth > 10 && server.reachable", "as": "Event", "message": "look at it"},
        ]))
        .await;
    scene.until(LONG, "False", "Critical").await;
    scene.until_metric("ollama_fleet_rule_active", &[("rule", "QueueLong")], Some(0.0)).await;
    scene.until_metric("ollama_fleet_plugin_value", &[("name", "depth")], Some(3.0)).await;
    assert_eq!(scene.told("Jammed").await, 0);

    scene.agent.say("queue_depth 12\n");
    scene.until(LONG, "True", "Critical").await;
    scene.until_told("Jammed", 1).await;
    let server: OllamaServer = get(&scene.client, &scene.namespace, "s00").await;
    has_condition(&server, "Ready", "True", "Online").unwrap();
    let (.., message) = condition(&server, LONG).unwrap();
    assert_eq!(message, "add a machine");
    let report = status_of(&server).plugins.unwrap().remove(0);
    assert_eq!(report.active_rules, ["Jammed", "QueueLong"]);
    scene.until_metric("ollama_fleet_rule_active", &[("rule", "Jammed")], Some(1.0)).await;

    let asked = scene.agent.asked();
    scene.restart().await;
    eventually(PATIENCE, "the new process has read the agent twice", async || {
        scene.agent.asked() >= asked + 2
    })
    .await;
    scene.until_metric("ollama_fleet_rule_active", &[("rule", "Jammed")], Some(1.0)).await;
    assert_eq!(scene.told("Jammed").await, 1, "a restart is no news");

    scene.agent.say("queue_depth 1\n");
    scene.until(LONG, "False", "Critical").await;
    scene.until_told("JammedResolved", 1).await;

    let api = objects::api::<FleetPlugin>(&scene.client, &scene.namespace);
    api.delete("queue", &DeleteParams::default()).await.unwrap();
    eventually(PATIENCE, "the condition is gone", async || {
        let server: OllamaServer = get(&scene.client, &scene.namespace, "s00").await;
        condition(&server, LONG).map_or(Ok(()), |condition| Err(format!("{condition:?}")))
    })
    .await;
    scene.until_metric("ollama_fleet_rule_active", &[("rule", "Jammed")], None).await;
    scene.until_metric("ollama_fleet_plugin_value", &[("name", "depth")], None).await;
    scene.until_metric("ollama_fleet_plugin_scrape_duration_seconds", &[("plugin", "queue")], None).await;
}

/// A rule that cannot be computed shows in what the plugin and its report say, and neither in the server's Ready nor
/// in `PluginsHealthy`; it heals when it can.
#[tokio::test]
async fn a_rule_that_fails_shows_in_the_plugin_and_not_in_ready() {
    let scene = Scene::new("queue_depth 3\nqueue_limit 0\n").await;
    scene
        .plugin(
            json!([{"name": "Full", "when": "values.depth * 100 / values.limit > 90", "message": "nearly full"}]),
        )
        .await;
    eventually(PATIENCE, "the plugin says that its rule fails", async || {
        let plugin: FleetPlugin = get(&scene.client, &scene.namespace, "queue").await;
        has_condition(&plugin, "RulesHealthy", "False", "EvaluationFailed")?;
        has_condition(&plugin, "Ready", "True", "Healthy")?;
        let (.., message) = condition(&plugin, "RulesHealthy").unwrap();
        if message == "rule Full: division by zero" { Ok(()) } else { Err(message) }
    })
    .await;
    let server: OllamaServer = get(&scene.client, &scene.namespace, "s00").await;
    has_condition(&server, "Ready", "True", "Online").unwrap();
    has_condition(&server, "PluginsHealthy", "True", "AllHealthy").unwrap();
    let report = status_of(&server).plugins.unwrap().remove(0);
    assert_eq!(
        (report.state.as_deref(), report.reason.as_deref()),
        (Some("Active"), Some("EvaluationFailed"))
    );
    assert_eq!(report.values["depth"], Scalar::Integer(3), "the values are as good as ever");
    assert_eq!(condition(&server, "queue.plugins.ollama-fleet.io/Full"), None, "unknown is not False");

    scene.agent.say("queue_depth 30\nqueue_limit 30\n");
    scene.until("queue.plugins.ollama-fleet.io/Full", "True", "Warning").await;
    eventually(PATIENCE, "the plugin is well again", async || {
        let plugin: FleetPlugin = get(&scene.client, &scene.namespace, "queue").await;
        has_condition(&plugin, "RulesHealthy", "True", "Evaluated")
    })
    .await;
}

/// A rule on a rate is told once: neither another plugin that comes nor a restart of the operator is news. And on
/// another port another program counts, so that its counter is compared with nothing.
#[tokio::test]
async fn a_rule_on_a_rate_is_told_once_and_another_port_is_another_counter() {
    let mut scene = Scene::new("").await;
    let slow = Agent::counting(scene.fleet.address(0), "jobs_total", 100.0, 50.0).await;
    let other = Agent::counting(scene.fleet.address(0), "jobs_total", 5e6, 50.0).await;
    let agent = json!({
        "configKey": "jobsPort",
        "values": [{"name": "rate", "metric": {"name": "jobs_total"}, "rate": true}],
        "rules": [{"name": "Busy", "when": "values.rate > 10", "as": "Event", "message": "busy"}],
    });
    apply(&scene.client, &scene.namespace, &plugin("jobs", slow.port, agent)).await;
    scene.until_told("Busy", 1).await;

    let answers = async |agent: &Agent, more: usize| {
        let asked = agent.asked();
        eventually(PATIENCE, "the agent was read again", async || agent.asked() >= asked + more).await;
    };
    scene.agent.say("queue_depth 1\n");
    scene.plugin(json!([])).await;
    eventually(PATIENCE, "the other plugin works", async || scene.agent.asked() > 0).await;
    answers(&slow, 3).await;
    scene.restart().await;
    answers(&slow, 4).await;
    assert_eq!(scene.told("Busy").await, 1);
    assert_eq!(scene.told("BusyResolved").await, 0);

    let ports = json!({"pluginPorts": {"jobsPort": other.port}});
    patch_spec::<OllamaServer>(&scene.client, &scene.namespace, "s00", ports).await;
    eventually(PATIENCE, "the other program is read four times", async || {
        let text = scene.operator.as_ref().unwrap().metrics().await;
        let labels = [("server", "s00"), ("name", "rate")];
        let rate = metric_value(&text, "ollama_fleet_plugin_value", &labels);
        assert!(rate.is_none_or(|rate| rate < 1000.0), "a leap from one counter to another: {rate:?}");
        other.asked() >= 4
    })
    .await;
}

/// What an expression may not be is refused with its place, the unknown name and what would be known, and takes
/// effect nowhere meanwhile.
#[tokio::test]
async fn a_bad_expression_is_refused_with_its_place_and_the_unknown_name() {
    let scene = Scene::new("queue_depth 3\nqueue_limit 0\n").await;
    let rule = |when: &str| json!([{"name": "Full", "when": when, "message": "nearly full"}]);
    scene.plugin(rule("values.dept > 3")).await;
    for (when, words) in [
        ("values.dept > 3", ["rule Full", "line 1, column", "dept"]),
        ("valeus.depth > 3", ["rule Full", "line 1, column", "valeus"]),
        ("values.depth >", ["rule Full", "line 1, column", ""]),
        ("values.depth + 1", ["rule Full", "a bool is needed", ""]),
        ("server.labels.all(x, server.labels.all(y, x == y))", ["rule Full", "line 1, column", "once"]),
    ] {
        patch_spec::<FleetPlugin>(
            &scene.client,
            &scene.namespace,
            "queue",
            json!({"agent": {"rules": rule(when)}}),
        )
        .await;
        eventually(PATIENCE, &format!("{when} is refused"), async || {
            let plugin: FleetPlugin = get(&scene.client, &scene.namespace, "queue").await;
            has_condition(&plugin, "Accepted", "False", "InvalidSpec")?;
            let (.., message) = condition(&plugin, "Accepted").unwrap();
            let current = plugin.status.as_ref().and_then(|status| status.observed_generation)
                == plugin.metadata.generation;
            if current && words.iter().all(|word| message.contains(word)) { Ok(()) } else { Err(message) }
        })
        .await;
    }
    assert_eq!(scene.agent.asked(), 0);
    patch_spec::<FleetPlugin>(
        &scene.client,
        &scene.namespace,
        "queue",
        json!({"agent": {"rules": rule("values.depth > 1")}}),
    )
    .await;
    scene.until("queue.plugins.ollama-fleet.io/Full", "True", "Warning").await;
}

/// One server and one agent that speaks Prometheus' text.
struct Scene {
    client: Client,
    namespace: Namespace,
    agent: Agent,
    operator: Option<Operator>,
    fleet: Fleet,
}

impl Scene {
    async fn new(answer: &str) -> Self {
        let fleet = Fleet::start(1).await;
        let control_plane = ControlPlane::shared();
        let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
        let operator = Some(Operator::builder(control_plane).namespace(&namespace).start().await);
        let agent = Agent::start(fleet.address(0), answer).await;
        apply(&client, &namespace, &server("s00", fleet.host(0))).await;
        Self { client, namespace, agent, operator, fleet }
    }

    async fn plugin(&self, rules: Value) {
        let values = json!([
            {"name": "depth", "metric": {"name": "queue_depth"}},
            {"name": "limit", "metric": {"name": "queue_limit"}},
        ]);
        let agent = json!({"format": "Prometheus", "values": values, "rules": rules});
        apply(&self.client, &self.namespace, &plugin("queue", self.agent.port, agent)).await;
    }

    /// Kills the operator and starts another one.
    async fn restart(&mut self) {
        if let Some(operator) = self.operator.take() {
            operator.kill();
        }
        let builder = Operator::builder(ControlPlane::shared()).namespace(&self.namespace);
        self.operator = Some(builder.start().await);
    }

    async fn until(&self, type_: &str, status: &str, reason: &str) {
        eventually(PATIENCE, &format!("{type_} is {status}"), async || {
            let server: OllamaServer = get(&self.client, &self.namespace, "s00").await;
            has_condition(&server, type_, status, reason)
        })
        .await;
    }

    async fn told(&self, reason: &str) -> usize {
        count(&events(&self.client, &self.namespace, "s00").await, reason)
    }

    async fn until_told(&self, reason: &str, times: usize) {
        eventually(PATIENCE, &format!("{reason} is told"), async || {
            let told = self.told(reason).await;
            if told == times { Ok(()) } else { Err(format!("{told} times")) }
        })
        .await;
    }

    async fn until_metric(&self, name: &str, labels: &[(&str, &str)], expected: Option<f64>) {
        let labels: Vec<_> = [("server", "s00")].iter().chain(labels).copied().collect();
        eventually(PATIENCE, &format!("{name} is {expected:?}"), async || {
            let text = self.operator.as_ref().unwrap().metrics().await;
            let value = metric_value(&text, name, &labels);
            if value == expected { Ok(()) } else { Err(format!("{value:?}")) }
        })
        .await;
    }
}
