//! SIGKILL immediately before and immediately after every write of a day in the life of a small fleet: once begun again,
//! the operator comes to the same end as if nothing had happened.
//!
//! Of Events a kill may cost or double those of the one transition that was under way, and nothing else: the status that
//! says it and the Event that tells it are two writes, and no process can make them one.

use crate::support::{
    ApiProxy, ControlPlane, Fault, Fleet, Match, Namespace, Operator, PATIENCE, all_events, apply,
    eventually, full, get, is_well,
    objects::{self, has_condition, server_with},
    operator::Builder,
    patch_spec, status_of,
};
use futures::{StreamExt as _, stream};
use kube::{Client, api::DeleteParams};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ollama_fleet_operator::api::{FleetPlugin, OllamaServer};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
    time::{Duration, Instant},
};

/// Plans of the short form: some of each kind of write, and run at the same time.
const SAMPLE: usize = 6;
/// Plans at the same time in the long form; each is four processes that mostly wait.
const AT_ONCE: usize = 6;
/// Events of one transition: a model that was not there and is loaded is two.
const OF_ONE_TRANSITION: usize = 2;

/// When the operator is killed: before or after the so-and-so-manieth write.
#[derive(Clone, Copy, Debug)]
struct Plan {
    write: usize,
    after: bool,
}

/// What one run came to.
struct End {
    /// The status of every object, without times, counts and addresses.
    state: BTreeMap<String, Value>,
    /// How often each thing was told of each object.
    told: BTreeMap<(String, String), usize>,
    /// Writes in the order in which they came.
    writes: Vec<String>,
    killed: bool,
    took: Duration,
}

/// A fleet, its operator, and who begins the operator again when it was killed.
struct Day {
    builder: Builder,
    operator: Operator,
    pid: Arc<AtomicI32>,
    killed: Arc<AtomicBool>,
    restarted: bool,
    client: Client,
    namespace: Namespace,
    fleet: Fleet,
}

impl Day {
    /// Waits until something holds, and begins the operator again if it was killed.
    async fn until(&mut self, what: &str, check: impl AsyncFn(&Self) -> Result<(), String>) {
        let deadline = Instant::now() + 2 * PATIENCE;
        loop {
            self.begin_again().await;
            match check(self).await {
                Ok(()) => return,
                Err(error) => assert!(Instant::now() < deadline, "{what}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn begin_again(&mut self) {
        if self.killed.load(Ordering::SeqCst) && !self.restarted {
            self.operator.kill();
            self.restarted = true;
            self.operator = self.builder.start().await;
        }
    }

    async fn server(&self, name: &str) -> OllamaServer {
        get(&self.client, &self.namespace, name).await
    }

    async fn is(&self, name: &str, type_: &str, status: &str, reason: &str) -> Result<(), String> {
        has_condition(&self.server(name).await, type_, status, reason)
    }

    /// What happens on this day.
    async fn pass(&mut self) {
        apply(&self.client, &self.namespace, &objects::fleet_metrics(self.fleet.agent_port())).await;
        let spec = json!({"poll": {"failureThreshold": 2, "modelsInterval": "1s"}});
        for (host, name) in ["a", "b", "c"].into_iter().enumerate() {
            apply(&self.client, &self.namespace, &server_with(name, self.fleet.host(host), spec.clone()))
                .await;
        }
        for name in ["a", "b", "c"] {
            self.until("online", async |day| {
                day.is(name, "Ready", "True", "Online").await?;
                day.is(name, "PluginsHealthy", "True", "AllHealthy").await
            })
            .await;
        }
        self.fleet.action("0", "die").await;
        self.until("a host died", async |day| day.is("a", "Ready", "False", "ConnectionRefused").await).await;
        self.fleet.action("0", "revive").await;
        self.until("it returned", async |day| {
            day.is("a", "Ready", "True", "Online").await?;
            day.is("a", "PluginsHealthy", "True", "AllHealthy").await
        })
        .await;
        self.fleet.action("1", json!({"action": "pull", "model": "new:latest", "sizeBytes": 1 << 20})).await;
        self.fleet.action("1", json!({"action": "load", "model": "new:latest", "expires": "forever"})).await;
        self.until("a model was loaded", async |day| {
            let status = status_of(&day.server("b").await);
            let has = status.loaded_models.unwrap_or_default().iter().any(|model| model.name == "new:latest");
            let lists = status.models.unwrap_or_default().iter().any(|model| model.name == "new:latest");
            (has && lists).then_some(()).ok_or_else(|| "not yet".to_owned())
        })
        .await;
        let edit = json!({"displayName": "B", "maintenance": {"reason": "new PSU"}});
        patch_spec::<OllamaServer>(&self.client, &self.namespace, "b", edit).await;
        self.until("an edit", async |day| day.is("b", "Ready", "False", "Maintenance").await).await;
        patch_spec::<FleetPlugin>(&self.client, &self.namespace, "fleet-metrics", json!({"suspend": true}))
            .await;
        self.until("the plugin is suspended", async |day| {
            for name in ["a", "b", "c"] {
                let plugins = status_of(&day.server(name).await).plugins.unwrap_or_default();
                if !plugins.is_empty() {
                    return Err(format!("{name}: {plugins:?}"));
                }
            }
            let plugin: FleetPlugin = get(&day.client, &day.namespace, "fleet-metrics").await;
            let status = plugin.status.unwrap_or_default();
            // Counts alone are written at most every five seconds.
            let counted = status.servers.unwrap_or_default().summary == "0/0";
            let inactive = status.state.as_deref() == Some("Inactive");
            (counted && inactive).then_some(()).ok_or_else(|| format!("{:?}", status.state))
        })
        .await;
        let servers = objects::api::<OllamaServer>(&self.client, &self.namespace);
        servers.delete("c", &DeleteParams::default()).await.unwrap();
    }

    async fn state(&self) -> BTreeMap<String, Value> {
        let mut state = BTreeMap::new();
        for name in ["a", "b"] {
            state.insert(
                name.to_owned(),
                masked(serde_json::to_value(self.server(name).await.status).unwrap()),
            );
        }
        let plugin: FleetPlugin = get(&self.client, &self.namespace, "fleet-metrics").await;
        state.insert("fleet-metrics".to_owned(), masked(serde_json::to_value(plugin.status).unwrap()));
        state
    }

    async fn told(&self) -> BTreeMap<(String, String), usize> {
        let mut told = BTreeMap::new();
        for event in all_events(&self.client, &self.namespace).await {
            let name = event.regarding.and_then(|object| object.name).unwrap_or_default();
            let times = event.series.map_or(1, |series| usize::try_from(series.count).unwrap());
            *told.entry((name, event.reason.unwrap_or_default())).or_default() += times;
        }
        told
    }
}

/// Without what differs from run to run: times, counts, addresses, readings.
fn masked(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let differs = |name: &str| {
                name.ends_with("Time")
                    || name.ends_with("Times")
                    || matches!(name, "consecutiveFailures" | "observedEndpoint" | "values" | "machine")
            };
            fields
                .into_iter()
                .filter(|(name, _)| !differs(name))
                .map(|(name, value)| (name, masked(value)))
                .collect()
        }
        Value::Array(items) => items.into_iter().map(masked).collect(),
        other => other,
    }
}

/// Runs a day by a plan, to the end that is expected, or until nothing is written any more.
async fn run(plan: Option<Plan>, expected: Option<&BTreeMap<String, Value>>) -> End {
    let begin = Instant::now();
    let control_plane = ControlPlane::shared();
    let proxy = ApiProxy::start(control_plane);
    let namespace = Namespace::new(control_plane).await;
    let fleet = Fleet::start(3).await;
    let builder = Operator::builder(control_plane).namespace(&namespace).kubeconfig(&proxy.kubeconfig());
    let operator = builder.start().await;
    let pid = Arc::new(AtomicI32::new(operator.pid().try_into().unwrap()));
    let killed = Arc::new(AtomicBool::new(false));
    let mut day = Day {
        builder,
        operator,
        pid,
        killed,
        restarted: false,
        client: control_plane.client().await,
        namespace,
        fleet,
    };
    proxy.forget();
    if let Some(Plan { write, after }) = plan {
        let (pid, killed) = (Arc::clone(&day.pid), Arc::clone(&day.killed));
        let call: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
            // The operator of this test, which nobody has waited for yet: its id is still its own.
            kill(Pid::from_raw(pid.load(Ordering::SeqCst)), Signal::SIGKILL).unwrap();
            killed.store(true, Ordering::SeqCst);
        });
        let fault = if after { Fault::CallAfterwards(call) } else { Fault::CallThenDrop(call) };
        proxy.fault_nth(Match::writes(), write, fault);
    }
    day.pass().await;
    if let Some(expected) = expected {
        let what = format!("{plan:?}: the end is that of an undisturbed day");
        day.until(&what, async |day| {
            let state = day.state().await;
            if state == *expected { Ok(()) } else { Err(format!("{state:#?}\nexpected {expected:#?}")) }
        })
        .await;
    }
    // Until a few polls bring no write any more.
    day.until("nothing is written any more", async |day| {
        let now = proxy.seen(&Match::writes()).len();
        let polls = |stats: crate::support::fleet::HostStats| stats.count("/api/version");
        let first = polls(day.fleet.host_stats(0).await);
        eventually(PATIENCE, "two polls", async || polls(day.fleet.host_stats(0).await) >= first + 2).await;
        let after = proxy.seen(&Match::writes()).len();
        if now == after { Ok(()) } else { Err(format!("{now} writes, then {after}")) }
    })
    .await;
    is_well(&day.operator).await;
    let writes = proxy.seen(&Match::writes()).into_iter();
    let writes = writes.map(|one| format!("{} {}/{}", one.verb, one.resource, one.name)).collect();
    let killed = day.killed.load(Ordering::SeqCst);
    End { state: day.state().await, told: day.told().await, writes, killed, took: begin.elapsed() }
}

/// All plans, or some of them that lie evenly among all.
fn plans(writes: usize) -> Vec<Plan> {
    let all: Vec<Plan> =
        (1..=writes).flat_map(|write| [false, true].map(|after| Plan { write, after })).collect();
    if full() {
        return all;
    }
    (0..SAMPLE).map(|number| all[number * (all.len() - 1) / (SAMPLE - 1)]).collect()
}

/// For each write of the day: killed before it, and killed after it and before its answer, the operator comes to the same
/// end; no Event is invented, and at most those of one transition are missing or told once more. A sample of the plans;
/// all of them in the long form.
#[tokio::test]
async fn a_kill_at_any_write_changes_no_end() {
    let undisturbed = run(None, None).await;
    let plans = plans(undisturbed.writes.len());
    eprintln!("undisturbed: {} writes in {:.1?}", undisturbed.writes.len(), undisturbed.took);
    let runs = stream::iter(plans.clone())
        .map(async |plan| (plan, run(Some(plan), Some(&undisturbed.state)).await))
        .buffer_unordered(AT_ONCE);
    let ends: Vec<(Plan, End)> = runs.collect().await;
    let (mut lost, mut doubled, mut unreached) = (0, 0, 0);
    for (plan, end) in &ends {
        let invented: Vec<_> = end.told.keys().filter(|told| !undisturbed.told.contains_key(*told)).collect();
        assert!(invented.is_empty(), "{plan:?}: {invented:?}");
        let missing: Vec<_> = undisturbed.told.keys().filter(|told| !end.told.contains_key(*told)).collect();
        let more: Vec<_> =
            end.told.iter().filter(|(told, times)| undisturbed.told[*told] < **times).collect();
        assert!(missing.len() <= OF_ONE_TRANSITION, "{plan:?}: {missing:?} are missing");
        assert!(more.len() <= OF_ONE_TRANSITION, "{plan:?}: {more:?} were told more often");
        assert!(
            more.iter().all(|(told, times)| **times <= undisturbed.told[*told] + 1),
            "{plan:?}: {more:?}"
        );
        assert_eq!(end.state, undisturbed.state, "{plan:?}");
        lost += missing.len();
        doubled += more.len();
        unreached += usize::from(!end.killed);
        let write = end.writes.get(plan.write - 1).map_or("never came", String::as_str);
        let when = if plan.after { "after" } else { "before" };
        eprintln!(
            "killed {when} write {} ({write}): same end in {:.1?}, missing {missing:?}, twice {more:?}",
            plan.write, end.took
        );
    }
    assert!(unreached * 4 <= ends.len(), "{unreached} of {} plans were never reached", ends.len());
    eprintln!(
        "figure: {} plans of {}: {lost} Events lost, {doubled} told twice, {unreached} not reached",
        ends.len(),
        2 * undisturbed.writes.len()
    );
}
