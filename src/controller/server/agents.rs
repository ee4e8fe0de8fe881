//! IO in: the agents of one server, asked beside its host, each at its own interval.

use super::{
    accept::{Accepted, effective_timeout},
    assess::{AgentObservation, AgentPlan, Memory},
    idle_pause::IdlePause,
};
use crate::{
    api::{endpoint::Endpoint, ollama_server::OllamaServerSpec},
    controller::{
        context::Context,
        credentials::{Credentials, Place, References, Renewal, Unobtained},
        plugin::index::{ActivePlugin, AgentPlace},
    },
    metrics::Metrics,
    plugins::{answer::Answer, counters::Counters, model_need::ModelNeed, values::AgentValues},
    probe::{
        AgentAnswer, AgentFailure, AgentTarget, Failure, Lane, Owner, report::LoadedSeen, tls::TlsSettings,
    },
};
use std::{collections::HashMap, future::pending, sync::Arc, time::Duration};
use tokio::{
    task::{AbortHandle, Id, JoinSet, block_in_place},
    time::Instant,
};

/// The agents that are being asked, and what is kept of them from one reading to the next.
pub struct AgentRound {
    /// The server that they belong to.
    owner: Owner,
    running: JoinSet<Told>,
    /// The plugins that are being asked, by their task.
    asked: HashMap<Id, (String, AbortHandle)>,
    /// When each plugin was asked last.
    asked_at: HashMap<String, Instant>,
    /// What the counters of each plugin stood at, while it is not being asked.
    counters: HashMap<String, Counters>,
    /// When plugins are asked that need a model in memory.
    pauses: HashMap<String, IdlePause>,
}

/// Whose agents are asked in a round: a server as it was accepted, its plugins, and what is known of it.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    pub context: &'a Arc<Context>,
    pub accepted: &'a Accepted,
    pub spec: &'a OllamaServerSpec,
    pub plugins: &'a [Arc<ActivePlugin>],
    pub memory: &'a Memory,
}

/// What came of asking one agent.
struct Told {
    /// `None`: it could not be asked.
    observation: Option<AgentObservation>,
    counters: Counters,
    /// Whether any counter moved since the answer before.
    moved: bool,
    /// Time between two answers as they are meant to come.
    interval: Duration,
}

impl AgentRound {
    pub fn new(owner: Owner) -> Self {
        Self {
            owner,
            running: JoinSet::new(),
            asked: HashMap::new(),
            asked_at: HashMap::new(),
            counters: HashMap::new(),
            pauses: HashMap::new(),
        }
    }

    /// Asks every plugin whose turn it is and that is not still talking, but for those that need a model in memory.
    pub fn start(&mut self, asking: Asking<'_>) {
        for plugin in asking.plugins.iter().filter(|plugin| plugin.need == ModelNeed::None) {
            if self.is_due(plugin, asking.accepted) {
                self.ask(asking, plugin, plugin.effective_interval(asking.accepted.interval));
            }
        }
    }

    /// Asks the plugins that need a model in memory, now that the host has told what is there.
    pub fn start_of_loaded(&mut self, asking: Asking<'_>, loaded: &[LoadedSeen]) {
        let Asking { accepted, memory, .. } = asking;
        for plugin in asking.plugins.iter().filter(|plugin| plugin.need != ModelNeed::None) {
            let pause = self.pauses.entry(plugin.name.clone()).or_default();
            pause.host_told(loaded.iter().map(|model| model.name.as_str()));
            if memory.agent_has_news(&plugin.name) {
                pause.end();
            }
            let interval = pause.pause(plugin.effective_interval(accepted.interval));
            let since = self.asked_at.get(&plugin.name).map(Instant::elapsed);
            if pause.is_due(&plugin.need, since, accepted.interval / 2) && self.is_due(plugin, accepted) {
                self.ask(asking, plugin, interval);
            }
        }
    }

    /// Nobody knows what is in the host's memory any more: what is found there next has been loaded anew.
    pub fn forget_loaded(&mut self) {
        self.pauses.values_mut().for_each(|pause| pause.host_told(std::iter::empty()));
    }

    /// Whether its interval is over. Without one it is asked at every poll, also at one that somebody asked for. Slots are
    /// multiples of the server's interval apart, but for how late a poll begins.
    fn is_due(&self, plugin: &ActivePlugin, accepted: &Accepted) -> bool {
        let interval = plugin.effective_interval(accepted.interval);
        let last = self.asked_at.get(&plugin.name).filter(|_| plugin.interval.is_some());
        last.is_none_or(|last| last.elapsed() + accepted.interval / 2 >= interval)
    }

    /// Asks one plugin, unless it is turned off here or still talking. Its counters are compared over this interval.
    fn ask(&mut self, asking: Asking<'_>, plugin: &Arc<ActivePlugin>, interval: Duration) {
        let Asking { context, accepted, spec, memory, .. } = asking;
        let Some(place) = plugin.place(spec) else { return };
        if self.asked.values().any(|(asked, _)| *asked == plugin.name) {
            context.metrics.agent_skipped();
            return;
        }
        let suspect = memory.agent_is_failing(&plugin.name) || memory.is_failing();
        let target = agent_target(self.owner.clone(), accepted, plugin, place, suspect);
        let (context, plugin) = (Arc::clone(context), Arc::clone(plugin));
        let host = Host {
            endpoint: accepted.endpoint.clone(),
            checked: !accepted.tls.skip_verify,
            credentials: accepted.credentials.clone(),
        };
        let (name, own_interval) = (plugin.name.clone(), plugin.effective_interval(accepted.interval));
        self.asked_at.insert(name.clone(), Instant::now());
        let mut counters = self.counters.remove(&name).unwrap_or_default();
        // Of the others nobody asks whether they moved.
        let before = (plugin.need != ModelNeed::None).then(|| counters.clone());
        let task = self.running.spawn(async move {
            let observation = ask(&context, &host, &plugin, target, interval, &mut counters).await;
            let moved = before.is_some_and(|before| counters.moved_since(&before));
            Told { observation, counters, moved, interval: own_interval }
        });
        self.asked.insert(task.id(), (name, task));
    }

    pub fn is_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// The next agent's word; `None` if it could not be asked. Never resolves while nobody is being asked.
    pub async fn next(&mut self, metrics: &Metrics) -> Option<AgentObservation> {
        match self.running.join_next_with_id().await {
            None => pending().await,
            Some(Ok((task, told))) => {
                // One that was given up meanwhile has nothing to say any more.
                let (plugin, _) = self.asked.remove(&task)?;
                if let Some(pause) = self.pauses.get_mut(&plugin) {
                    if told.observation.as_ref().is_some_and(has_touched) {
                        pause.answered(told.moved, told.interval);
                    } else {
                        // It has kept nothing awake, so nothing is to be waited for.
                        self.asked_at.remove(&plugin);
                    }
                }
                self.counters.insert(plugin, told.counters);
                told.observation
            }
            Some(Err(error)) => {
                let (plugin, _) = self.asked.remove(&error.id())?;
                tracing::error!(%error, "a reading of an agent ended by a bug");
                metrics.panicked();
                // That agent has not answered well; the others go on.
                let result = Err(Failure::InvalidResponse.into());
                Some(AgentObservation { plugin, took: Duration::ZERO, result })
            }
        }
    }

    /// Forgets everything that is under way and that is kept: it is of another host.
    pub fn abandon(&mut self) {
        *self = Self::new(self.owner.clone());
    }

    /// Forgets what is of a plugin that was edited, is gone, or is asked elsewhere now.
    pub fn forget(&mut self, plugin: &str) {
        self.asked.retain(|_, (asked, task)| {
            let stays = asked != plugin;
            if !stays {
                task.abort();
            }
            stays
        });
        self.asked_at.remove(plugin);
        self.counters.remove(plugin);
        self.pauses.remove(plugin);
    }
}

/// Whether asking may have reached what keeps a model awake: something listened there, and was asked.
fn has_touched(observation: &AgentObservation) -> bool {
    let untouched = |failure: &AgentFailure| {
        failure.class.is_refusal() || matches!(failure.class, Failure::ConnectionRefused | Failure::DnsFailed)
    };
    !observation.result.as_ref().is_err_and(untouched)
}

/// How a plugin is asked about a host.
fn agent_target(
    owner: Owner,
    accepted: &Accepted,
    plugin: &ActivePlugin,
    place: AgentPlace,
    suspect: bool,
) -> AgentTarget {
    // The name that the host's certificate carries is not that of another machine.
    let server_name = accepted.tls.server_name.clone().filter(|_| place.elsewhere.is_none());
    AgentTarget {
        owner,
        endpoint: plugin.endpoint(&accepted.endpoint, place),
        path: plugin.path(&accepted.endpoint.host),
        accept: plugin.values.accept(),
        authorization: None,
        tls: TlsSettings { server_name, ..TlsSettings::default() },
        timeout: effective_timeout(plugin.timeout, accepted.interval),
        lane: if suspect { Lane::Suspect } else { Lane::Healthy },
    }
}

/// The host that the agents run on.
struct Host {
    endpoint: Endpoint,
    /// Whether its certificate is, if it has one.
    checked: bool,
    credentials: References,
}

impl Host {
    fn place(&self) -> Place<'_> {
        Place { endpoint: &self.endpoint, checked: self.checked }
    }
}

async fn ask(
    context: &Context,
    host: &Host,
    plugin: &ActivePlugin,
    target: AgentTarget,
    interval: Duration,
    counters: &mut Counters,
) -> Option<AgentObservation> {
    // Where the host may not be asked, its agents are not either: nothing is dialled there.
    let namespace = Arc::clone(&target.owner.namespace);
    let may = context.secrets.obtain(&namespace, &host.credentials, host.place()).await.is_ok();
    let place = Place { endpoint: &target.endpoint, checked: !target.tls.skip_verify };
    let own = context.secrets.obtain(&namespace, &plugin.credentials, place).await;
    let credentials = match own {
        Ok(credentials) if may => credentials,
        Err(Unobtained::Refused(cause)) if may => {
            let failure = Failure::NoCredential(cause);
            context.metrics.agent_failed(failure);
            let plugin = plugin.name.clone();
            return Some(AgentObservation { plugin, took: Duration::ZERO, result: Err(failure.into()) });
        }
        _ => {
            context.metrics.agent_skipped();
            return None;
        }
    };
    let started = Instant::now();
    let Some(answer) = read_with(context, plugin, target, credentials).await else {
        context.metrics.agent_skipped();
        return None;
    };
    let took = started.elapsed();
    let result = match answer {
        Err(failure) => Err(failure),
        Ok(answer) => match context.prober.parsing_slot(&namespace, &answer).await {
            None => read(plugin, &answer, interval, counters),
            Some(_slot) => block_in_place(|| read(plugin, &answer, interval, counters)),
        },
    };
    context.metrics.agent_read(took, result.as_ref().err().map(|failure| failure.class));
    for reading in result.iter().flat_map(|found| found.implausible.keys()) {
        context.metrics.reading_rejected(*reading);
    }
    Some(AgentObservation { plugin: plugin.name.clone(), took, result })
}

/// Reads the agent; once more if it does not take the credentials and they have been changed meanwhile.
async fn read_with(
    context: &Context,
    plugin: &ActivePlugin,
    target: AgentTarget,
    credentials: Credentials,
) -> Option<Result<AgentAnswer, AgentFailure>> {
    let with = |credentials: &Credentials, target: &AgentTarget| AgentTarget {
        authorization: credentials.authorization.clone(),
        tls: credentials.secure(&target.tls),
        ..target.clone()
    };
    let begin = Instant::now();
    let answer = context.prober.agent(&with(&credentials, &target)).await?;
    if !answer.as_ref().is_err_and(|failure| failure.class.may_be_of_credentials()) {
        return Some(answer);
    }
    let place = Place { endpoint: &target.endpoint, checked: !target.tls.skip_verify };
    let namespace = &target.owner.namespace;
    match context.secrets.renew(namespace, &plugin.credentials, place, &credentials).await {
        Renewal::Same => Some(answer),
        Renewal::Refused(cause) => Some(Err(Failure::NoCredential(cause).into())),
        Renewal::New(credentials) => {
            let left = target.timeout.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return Some(answer);
            }
            let target = AgentTarget { timeout: left, ..target };
            context.prober.agent(&with(&credentials, &target)).await
        }
    }
}

fn read(
    plugin: &ActivePlugin,
    answer: &AgentAnswer,
    interval: Duration,
    counters: &mut Counters,
) -> Result<AgentValues, AgentFailure> {
    let (content_type, filter) = (answer.content_type.as_deref(), plugin.values.filter());
    let read = Answer::read(plugin.format, content_type, &answer.body, filter)?;
    plugin.values.extract(&read, answer.came, interval, counters)
}

/// What the assessment knows of the plugins that select a server.
pub fn plans(plugins: &[Arc<ActivePlugin>], spec: &OllamaServerSpec, interval: Duration) -> Vec<AgentPlan> {
    plugins
        .iter()
        .map(|plugin| AgentPlan {
            name: plugin.name.clone(),
            revision: Arc::clone(&plugin.revision),
            place: plugin.place(spec),
            need: plugin.need.clone(),
            interval: plugin.effective_interval(interval),
            rules: Arc::clone(&plugin.rules),
            credentials: plugin.credentials.clone(),
        })
        .collect()
}
