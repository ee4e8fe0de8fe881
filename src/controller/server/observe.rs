//! IO in: one round of asking the host and, beside it, its agents.

use super::{
    accept::{Accepted, effective_timeout},
    assess::{AgentObservation, AgentPlan, Memory, Observation},
};
use crate::{
    api::ollama_server::OllamaServerSpec,
    controller::{context::Context, plugin::index::ActivePlugin},
    metrics::Metrics,
    plugins::{answer::Answer, counters::Counters, values::AgentValues},
    probe::{AgentAnswer, AgentTarget, Failure, HostOutcome, HostTarget, Lane, Owner},
};
use std::{collections::HashMap, future::pending, mem::take, sync::Arc, time::Duration};
use tokio::{
    task::{Id, JoinSet},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;

/// Why a poll was begun.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The request that it answers: the annotation's value when it began.
    pub request: Option<String>,
    /// It was begun for that request only, and does not count towards the failure threshold.
    pub extra: bool,
}

/// The poll of the host that is under way, and what has come of it.
#[derive(Default)]
pub struct Round {
    running: Option<AbortOnDropHandle<HostOutcome>>,
    asked: Asked,
    outcome: Option<(HostOutcome, Instant)>,
    /// What agents said since the last assessment, whenever they were asked.
    agents: Vec<AgentObservation>,
}

impl Round {
    pub fn start(&mut self, context: &Arc<Context>, target: HostTarget, asked: Asked) {
        let context = Arc::clone(context);
        self.asked = asked;
        self.running =
            Some(AbortOnDropHandle::new(tokio::spawn(async move { context.prober.host(&target).await })));
    }

    /// Whether the host is still being asked, or its answer waits for the agents.
    pub fn is_running(&self) -> bool {
        self.running.is_some() || self.outcome.is_some()
    }

    /// Resolves when the host has answered or its deadline has passed; never, if nothing is under way.
    pub async fn finished(&mut self, metrics: &Metrics) -> HostOutcome {
        let Some(running) = &mut self.running else { return pending().await };
        let outcome = running.await;
        self.running = None;
        // A bug in a parser costs this poll of this host and nothing else.
        outcome.unwrap_or_else(|error| {
            tracing::error!(%error, "a poll ended by a bug");
            metrics.panicked();
            HostOutcome::Failed(Failure::InvalidResponse)
        })
    }

    pub fn host_answered(&mut self, outcome: HostOutcome, grace_until: Instant) {
        self.outcome = Some((outcome, grace_until));
    }

    pub fn agent_answered(&mut self, observation: Option<AgentObservation>) {
        if let Some(observation) = observation {
            // Only the newest word of each agent counts.
            self.agents.retain(|older| older.plugin != observation.plugin);
            self.agents.push(observation);
        }
    }

    pub fn has_host(&self) -> bool {
        self.outcome.is_some()
    }

    pub fn grace_until(&self) -> Option<Instant> {
        self.outcome.as_ref().map(|(_, until)| *until)
    }

    pub fn grace_is_over(&self, now: Instant) -> bool {
        self.grace_until().is_some_and(|until| until <= now)
    }

    /// What this round has seen, and the request that it answers; agents that are still talking count in the next one.
    pub fn take(&mut self) -> Option<(Observation, Option<String>)> {
        let (host, _) = self.outcome.take()?;
        let Asked { request, extra } = take(&mut self.asked);
        // Nobody was asked, so nothing was answered.
        let request = request.filter(|_| host != HostOutcome::Skipped);
        let agents = take(&mut self.agents);
        Some((Observation::Poll { host, agents, requested: extra }, request))
    }
}

/// The agents that are being asked.
pub struct AgentRound {
    /// The server that they belong to.
    owner: Owner,
    running: JoinSet<(Option<AgentObservation>, Counters)>,
    /// The plugins that are being asked, by their task.
    asked: HashMap<Id, String>,
    /// What the counters of each plugin stood at, while it is not being asked.
    counters: HashMap<String, Counters>,
}

impl AgentRound {
    pub fn new(owner: Owner) -> Self {
        Self { owner, running: JoinSet::new(), asked: HashMap::new(), counters: HashMap::new() }
    }

    /// Asks every plugin whose turn it is and that is not still talking.
    pub fn start(
        &mut self,
        context: &Arc<Context>,
        accepted: &Accepted,
        spec: &OllamaServerSpec,
        plugins: &[Arc<ActivePlugin>],
        memory: &Memory,
        polls: u64,
    ) {
        for plugin in plugins {
            let Some(port) = plugin.port(&spec.plugin_ports) else { continue };
            if !polls.is_multiple_of(plugin.every(accepted.interval)) {
                continue;
            }
            if self.asked.values().any(|asked| *asked == plugin.name) {
                context.metrics.agent_skipped();
                continue;
            }
            let suspect = memory.agent_is_failing(&plugin.name) || memory.is_failing();
            let target = AgentTarget {
                owner: Arc::clone(&self.owner),
                endpoint: plugin.endpoint(&accepted.endpoint, port),
                path: plugin.path.clone(),
                timeout: effective_timeout(plugin.timeout, accepted.interval),
                patience: accepted.interval,
                lane: if suspect { Lane::Suspect } else { Lane::Healthy },
            };
            let (context, plugin) = (Arc::clone(context), Arc::clone(plugin));
            let name = plugin.name.clone();
            let mut counters = self.counters.remove(&name).unwrap_or_default();
            let task = self.running.spawn(async move {
                let observation = ask(&context, &plugin, &target, &mut counters).await;
                (observation, counters)
            });
            self.asked.insert(task.id(), name);
        }
    }

    pub fn is_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// The next agent's word; `None` if it could not be asked. Never resolves while nobody is being asked.
    pub async fn next(&mut self, metrics: &Metrics) -> Option<AgentObservation> {
        match self.running.join_next_with_id().await {
            None => pending().await,
            Some(Ok((task, (observation, counters)))) => {
                if let Some(plugin) = self.asked.remove(&task) {
                    self.counters.insert(plugin, counters);
                }
                observation
            }
            Some(Err(error)) => {
                tracing::error!(%error, "a reading of an agent ended by a bug");
                metrics.panicked();
                // That agent has not answered well; the others go on.
                let plugin = self.asked.remove(&error.id())?;
                Some(AgentObservation { plugin, took: Duration::ZERO, result: Err(Failure::InvalidResponse) })
            }
        }
    }

    /// Forgets everything that is under way: it was asked of another host or by other rules. So were the counters.
    pub fn abandon(&mut self) {
        *self = Self::new(Arc::clone(&self.owner));
    }
}

async fn ask(
    context: &Context,
    plugin: &ActivePlugin,
    target: &AgentTarget,
    counters: &mut Counters,
) -> Option<AgentObservation> {
    let started = Instant::now();
    let Some(answer) = context.prober.agent(target).await else {
        context.metrics.agent_skipped();
        return None;
    };
    let took = started.elapsed();
    let result = answer.and_then(|answer| read(plugin, &answer, counters));
    context.metrics.agent_read(took, result.as_ref().err().copied());
    Some(AgentObservation { plugin: plugin.name.clone(), took, result })
}

fn read(
    plugin: &ActivePlugin,
    answer: &AgentAnswer,
    counters: &mut Counters,
) -> Result<AgentValues, Failure> {
    let read = Answer::read(plugin.format, answer.content_type.as_deref(), &answer.body)?;
    plugin.values.extract(&read, answer.came, plugin.interval, counters)
}

/// What the assessment knows of the plugins that select a server.
pub fn plans(plugins: &[Arc<ActivePlugin>], spec: &OllamaServerSpec) -> Vec<AgentPlan> {
    plugins
        .iter()
        .map(|plugin| AgentPlan {
            name: plugin.name.clone(),
            disabled: plugin.port(&spec.plugin_ports).is_none(),
            revision: Arc::clone(&plugin.revision),
            rules: Arc::clone(&plugin.rules),
        })
        .collect()
}

/// How the host is asked this time.
pub fn host_target(owner: &Owner, accepted: &Accepted, memory: &Memory, with_models: bool) -> HostTarget {
    HostTarget {
        owner: Arc::clone(owner),
        endpoint: accepted.endpoint.clone(),
        backend: accepted.backend,
        host_header: accepted.host_header.clone(),
        insecure_skip_verify: accepted.insecure_skip_verify,
        timeout: accepted.timeout,
        patience: accepted.interval,
        lane: if memory.is_failing() { Lane::Suspect } else { Lane::Healthy },
        with_models,
    }
}
