//! What the agents said: state of each plugin on this server, and readings of the machine.

use super::{
    memory::Memory,
    pressure::BOOT_TIME_TOLERANCE,
    rules::{self, RuleMemory},
    size::{AtMost, bytes},
};
use crate::{
    api::{
        OllamaServerStatus,
        condition::{self, Truth},
        fleet_plugin::Reading,
        quantity::Quantity,
        server_status::{Machine, PLUGINS_MAX, PluginReport, Scalar},
    },
    controller::{
        credentials::References,
        plugin::index::AgentPlace,
        server::{live::AgentSnapshot, transition::Transition},
    },
    plugins::{model_need::ModelNeed, readings::Readings, rules::CompiledRule, values::AgentValues},
    probe::{AgentFailure, Failure, MESSAGE_MAX, text::clean},
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// Bytes of the values of all plugins of a server; those of the shipped one take some 500.
const VALUES_BYTES_MAX: usize = 4 * 1024;

/// Reason in the report of a plugin that answers, but one of whose expressions or rules cannot be computed.
pub const EVALUATION_FAILED: &str = "EvaluationFailed";
/// Reason in the report of a plugin that answers, but whose conditions have no room on this server.
pub const TOO_MANY_CONDITIONS: &str = "TooManyConditions";
/// Message of a plugin that is not asked now.
const IDLE: &str = "not asked: no model that it needs is known to be awake in the host's memory";
/// Reason in the report of a plugin that answers, but one of whose readings no machine can have.
pub const IMPLAUSIBLE_READING: &str = "ImplausibleReading";

/// Bytes of the names of rules that hold, and of messages, of all plugins of a server: some 60 names of the usual
/// length. What is beyond is judged and told all the same, but told again after a restart.
const RULES_BYTES_MAX: usize = 4 * 1024;

/// A plugin that selects this server.
#[derive(Clone, Debug)]
pub struct AgentPlan {
    pub name: String,
    /// Changes when the plugin is edited.
    pub revision: Arc<str>,
    /// Where it is asked; `None`: it is turned off here.
    pub place: Option<AgentPlace>,
    /// What must be in the host's memory for it to be asked.
    pub need: ModelNeed,
    /// Time between two readings as they are meant to come.
    pub interval: Duration,
    pub rules: Arc<[CompiledRule]>,
    /// The Secrets that it is asked with, by name.
    pub credentials: References,
}

impl AgentPlan {
    /// Its port is 0 here.
    pub fn is_disabled(&self) -> bool {
        self.place.is_none()
    }
}

/// One reading of one agent.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentObservation {
    pub plugin: String,
    /// How long it took, whatever came of it.
    pub took: Duration,
    pub result: Result<AgentValues, AgentFailure>,
}

/// What is known of one plugin on this server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentMemory {
    state: State,
    misses: u32,
    /// Misses while the host itself answered: only those are news about the plugin.
    misses_beside_host: u32,
    /// Whether the last Event said that it fails.
    announced: bool,
    failure: Option<AgentFailure>,
    last_success: Option<Time>,
    took: Option<Duration>,
    values: Arc<BTreeMap<String, Scalar>>,
    /// Whether the next answer may be compared with these: this process has read them, and by the same plugin.
    comparable: bool,
    /// Those of the answer before.
    previous: Option<Arc<BTreeMap<String, Scalar>>>,
    rules: BTreeMap<String, RuleMemory>,
    /// The revision of the plugin and the place that all this is from; `None` if an earlier process heard it.
    source: Option<(Arc<str>, Option<AgentPlace>)>,
    /// What could not be computed in the last answer: of its values, and of its rules.
    value_fault: Option<String>,
    rule_fault: Option<String>,
    /// What is said of readings that no machine can have.
    implausible: Option<String>,
    /// `None` until this process has heard of it.
    readings: Option<Readings>,
    /// Whether the readings are new in this assessment.
    fresh: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Unknown,
    Active,
    /// It is not asked, for what it needs is not in the host's memory.
    Idle,
    Error,
}

impl AgentMemory {
    /// What was read by other values or judged by other rules is compared with nothing.
    pub fn adopt(&mut self, plan: &AgentPlan) {
        self.rules.retain(|name, _| plan.rules.iter().any(|rule| rule.name == *name));
        let same = self
            .source
            .as_ref()
            .is_none_or(|(revision, place)| *revision == plan.revision && *place == plan.place);
        if !same {
            self.comparable = false;
            self.rules.values_mut().for_each(RuleMemory::begin_anew);
        }
        if !same || self.source.is_none() {
            self.source = Some((Arc::clone(&plan.revision), plan.place.clone()));
        }
    }

    pub fn from_status(status: &OllamaServerStatus) -> BTreeMap<String, Self> {
        let host_was_up = condition::truth(&status.conditions, condition::REACHABLE) == Truth::True;
        let reports =
            status.plugins.iter().flatten().filter(|report| report.state.as_deref() != Some("Disabled"));
        reports
            .map(|report| {
                let state = match report.state.as_deref() {
                    Some("Active") => State::Active,
                    Some("Idle") => State::Idle,
                    Some("Error") => State::Error,
                    _ => State::Unknown,
                };
                let memory = Self {
                    state,
                    // An agent that went with its host was not told of.
                    announced: state == State::Error && host_was_up,
                    failure: report
                        .reason
                        .as_deref()
                        .and_then(|reason| AgentFailure::from_report(reason, report.message.as_deref())),
                    implausible: report
                        .message
                        .clone()
                        .filter(|_| report.reason.as_deref() == Some(IMPLAUSIBLE_READING)),
                    last_success: report.last_success_time.clone(),
                    values: Arc::clone(&report.values),
                    rules: rules::from_status(status, report),
                    ..Self::default()
                };
                (report.name.clone(), memory)
            })
            .collect()
    }

    pub fn is_failing(&self) -> bool {
        self.misses > 0 || self.state == State::Error
    }

    /// Whether it has failed for so long that its readings are gone.
    pub fn is_error(&self) -> bool {
        self.state == State::Error
    }

    /// Whether it answers, or is not asked for a good reason.
    pub fn is_healthy(&self) -> bool {
        matches!(self.state, State::Active | State::Idle)
    }

    pub fn has_news(&self) -> bool {
        self.rules.values().any(RuleMemory::is_held)
    }

    /// Nobody asks it now, so nothing is known of what it would say.
    fn rest(&mut self) {
        *self = Self {
            state: State::Idle,
            announced: self.announced,
            last_success: self.last_success.take(),
            source: self.source.take(),
            readings: Some(Readings::default()),
            ..Self::default()
        };
    }
}

/// Takes over what the agents said. While the host itself fails, a failing agent is no news of its own: the machine is
/// probably off.
pub fn observe(
    memory: &mut Memory,
    plans: &[AgentPlan],
    observations: Vec<AgentObservation>,
    threshold: u32,
    now: &Time,
    transitions: &mut Vec<Transition>,
) {
    let host_is_up = memory.reach.is_up();
    for agent in memory.agents.values_mut() {
        agent.fresh = false;
    }
    let idle: BTreeSet<&str> =
        plans.iter().filter(|plan| is_idle(memory, plan)).map(|plan| plan.name.as_str()).collect();
    for plugin in &idle {
        memory.agents.entry((*plugin).to_owned()).or_default().rest();
    }
    for AgentObservation { plugin, took, result } in observations {
        // A plugin that was deselected meanwhile has nothing to say any more.
        let Some(plan) = plans.iter().find(|plan| plan.name == plugin && !plan.is_disabled()) else {
            continue;
        };
        // What it said while the model was still awake is over.
        if idle.contains(plugin.as_str()) {
            continue;
        }
        let agent = memory.agents.entry(plugin.clone()).or_default();
        agent.adopt(plan);
        agent.took = Some(took);
        match result {
            Ok(AgentValues { values, mut readings, fault, implausible }) => {
                let held = agent.readings.as_ref().and_then(|own| own.boot_time);
                hold_boot_time(&mut readings, held.or(memory.boot.map(|boot| boot.time)));
                let implausible: Vec<String> =
                    implausible.iter().map(|(reading, why)| why.text(*reading)).collect();
                if std::mem::take(&mut agent.announced) {
                    transitions.push(Transition::PluginRecovered(plugin));
                }
                let before = std::mem::replace(&mut agent.values, Arc::new(values));
                *agent = AgentMemory {
                    state: State::Active,
                    last_success: Some(now.clone()),
                    took: Some(took),
                    values: Arc::clone(&agent.values),
                    comparable: true,
                    previous: agent.comparable.then_some(before),
                    rules: std::mem::take(&mut agent.rules),
                    source: agent.source.take(),
                    value_fault: fault,
                    implausible: (!implausible.is_empty())
                        .then(|| clean(&implausible.join("; "), MESSAGE_MAX)),
                    readings: Some(readings),
                    fresh: true,
                    ..AgentMemory::default()
                };
            }
            Err(failure) => {
                agent.misses = agent.misses.saturating_add(1);
                agent.misses_beside_host =
                    if host_is_up { agent.misses_beside_host.saturating_add(1) } else { 0 };
                let (class, reason) = (failure.class, failure.reason());
                // What is told stays as it is while the cause does.
                if !agent.failure.as_ref().is_some_and(|told| told.is_like(&failure)) {
                    agent.failure = Some(failure);
                }
                // Whom nobody could ask needs no more tries to be believed.
                let unasked = matches!(class, Failure::NoCredential(_));
                if agent.misses >= threshold || unasked {
                    agent.state = State::Error;
                    agent.values = Arc::default();
                    (agent.comparable, agent.previous) = (false, None);
                    agent.rules.clear();
                    (agent.value_fault, agent.rule_fault, agent.implausible) = (None, None, None);
                    agent.readings = Some(Readings::default());
                }
                let told = agent.misses_beside_host >= threshold || (unasked && host_is_up);
                if agent.state == State::Error && told && !agent.announced {
                    agent.announced = true;
                    transitions.push(Transition::PluginFailed { plugin, reason });
                }
            }
        }
    }
}

/// Whether the plugin needs a model in memory that is not known to be there.
fn is_idle(memory: &Memory, plan: &AgentPlan) -> bool {
    let met = match memory.loaded() {
        Some(loaded) => plan.need.is_met(loaded),
        None => plan.need == ModelNeed::None,
    };
    !met && !plan.is_disabled()
}

/// A boot time that is computed from an uptime moves with the time that each answer takes; it stands where it stood while
/// it is the same one.
fn hold_boot_time(readings: &mut Readings, held: Option<Timestamp>) {
    if let (Some(now), Some(held)) = (readings.boot_time, held)
        && readings.boot_time_is_computed
        && now.duration_since(held).abs() <= BOOT_TIME_TOLERANCE
    {
        readings.boot_time = Some(held);
    }
}

/// Brings the readings and the list of plugins up to date.
pub fn summarise(memory: &mut Memory, plans: &[AgentPlan]) {
    let mut readings = Readings::default();
    let mut all_heard = true;
    for plan in plans.iter().filter(|plan| !plan.is_disabled()) {
        match memory.agents.get(&plan.name).and_then(|agent| agent.readings.as_ref()) {
            Some(own) => readings.complete_with(own),
            None => all_heard = false,
        }
    }
    if all_heard {
        memory.seed = None;
    } else if let Some(seed) = &memory.seed {
        readings.complete_with(seed);
    }
    memory.status_mut().machine = (!readings.is_empty()).then(|| machine(&readings));
    memory.readings = readings;

    let asked = plans.iter().filter(|plan| !plan.is_disabled()).count();
    let active = plans
        .iter()
        .filter(|plan| memory.agents.get(&plan.name).is_some_and(AgentMemory::is_healthy))
        .count();
    memory.status_mut().plugin_summary = (asked > 0).then(|| format!("{active}/{asked}"));
    let without_room = rules::without_room(memory, plans);
    let mut reports: Vec<PluginReport> =
        plans.iter().map(|plan| report(plan, memory, &without_room)).collect();
    reports.sort_by(|a, b| a.name.cmp(&b.name));
    reports.truncate(PLUGINS_MAX);
    bound(&mut reports);
    memory.status_mut().plugins = (!reports.is_empty()).then_some(reports);
}

/// Agents of strangers must not make the object larger than it may be; metrics have every reading anyway.
fn bound(reports: &mut [PluginReport]) {
    if reports.iter().map(AtMost::at_most).sum::<usize>() <= VALUES_BYTES_MAX.min(RULES_BYTES_MAX) {
        return;
    }
    let (mut room, mut rules_room) = (VALUES_BYTES_MAX, RULES_BYTES_MAX);
    for report in reports {
        match room.checked_sub(bytes(&*report.values)) {
            Some(left) => room = left,
            None => report.values = Arc::default(),
        }
        let told = bytes(&report.active_rules) + report.message.as_ref().map_or(0, String::len);
        if let Some(left) = rules_room.checked_sub(told) {
            rules_room = left;
        } else {
            report.active_rules.clear();
            report.message = None;
        }
    }
}

fn report(plan: &AgentPlan, memory: &Memory, without_room: &BTreeSet<&str>) -> PluginReport {
    let name = plan.name.clone();
    if plan.is_disabled() {
        return PluginReport { name, state: Some("Disabled".into()), ..PluginReport::default() };
    }
    let Some(agent) = memory.agents.get(&plan.name) else {
        return PluginReport { name, ..PluginReport::default() };
    };
    let failure = agent.failure.as_ref().filter(|_| agent.state == State::Error);
    let (reason, message) = if let Some(failure) = failure {
        (Some(failure.reason()), Some(failure.agent_told(plan.credentials.names()).into_owned()))
    } else if agent.state == State::Idle {
        (None, Some(IDLE.to_owned()))
    } else if let Some(fault) = agent.fault() {
        (Some(EVALUATION_FAILED), Some(fault.chars().take(MESSAGE_MAX).collect()))
    } else if let Some(implausible) = agent.implausible.clone() {
        (Some(IMPLAUSIBLE_READING), Some(implausible))
    } else if without_room.contains(plan.name.as_str()) {
        (
            Some(TOO_MANY_CONDITIONS),
            Some(format!("the server has room for {} conditions of rules", rules::CONDITIONS_MAX)),
        )
    } else {
        (None, None)
    };
    PluginReport {
        name,
        state: match agent.state {
            State::Unknown => None,
            State::Active => Some("Active".into()),
            State::Idle => Some("Idle".into()),
            State::Error => Some("Error".into()),
        },
        reason: reason.map(str::to_owned),
        message,
        last_success_time: agent.last_success.clone(),
        values: Arc::clone(&agent.values),
        active_rules: rules::active(&agent.rules),
    }
}

fn machine(readings: &Readings) -> Machine {
    let bytes = |reading| {
        let value = readings.get(reading)?;
        u64::try_from(value).ok().map(Quantity::from_bytes_mi)
    };
    Machine {
        hostname: readings.hostname.clone(),
        boot_time: readings.boot_time.map(Time),
        cpu_percent: readings.get(Reading::CpuPercent),
        gpu_percent: readings.get(Reading::GpuPercent),
        cpu_temperature_celsius: readings.get(Reading::CpuTemperatureCelsius),
        gpu_temperature_celsius: readings.get(Reading::GpuTemperatureCelsius),
        memory_total: bytes(Reading::MemoryTotal),
        memory_available: bytes(Reading::MemoryAvailable),
        disk_total: bytes(Reading::DiskTotal),
        disk_used: bytes(Reading::DiskUsed),
        disk_used_percent: readings.disk_used_percent(),
    }
}

/// The readings that a status tells of, for the time until the agents speak for themselves.
pub fn readings_of(machine: &Machine) -> Readings {
    let mut readings = Readings {
        hostname: machine.hostname.clone(),
        boot_time: machine.boot_time.as_ref().map(|time| time.0),
        ..Readings::default()
    };
    let bytes =
        |quantity: &Option<Quantity>| quantity.as_ref()?.bytes().and_then(|bytes| i64::try_from(bytes).ok());
    for (reading, value) in [
        (Reading::CpuPercent, machine.cpu_percent),
        (Reading::GpuPercent, machine.gpu_percent),
        (Reading::CpuTemperatureCelsius, machine.cpu_temperature_celsius),
        (Reading::GpuTemperatureCelsius, machine.gpu_temperature_celsius),
        (Reading::MemoryTotal, bytes(&machine.memory_total)),
        (Reading::MemoryAvailable, bytes(&machine.memory_available)),
        (Reading::DiskTotal, bytes(&machine.disk_total)),
        (Reading::DiskUsed, bytes(&machine.disk_used)),
        (Reading::DiskUsedPercent, machine.disk_used_percent),
    ] {
        if let Some(value) = value {
            readings.set(reading, value);
        }
    }
    readings
}

impl AgentMemory {
    /// Its last readings; `None` until this process has heard of it.
    pub fn readings(&self) -> Option<&Readings> {
        self.readings.as_ref()
    }

    /// Whether it has spoken since the last assessment.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// The values of its last answer, and of the one before.
    pub fn last_two(&self) -> (&BTreeMap<String, Scalar>, Option<&BTreeMap<String, Scalar>>) {
        (&self.values, self.previous.as_deref())
    }

    pub fn rules(&self) -> &BTreeMap<String, RuleMemory> {
        &self.rules
    }

    /// Takes over what became of its rules.
    pub fn judged(&mut self, rules: BTreeMap<String, RuleMemory>, fault: Option<String>) {
        self.rules = rules;
        self.rule_fault = fault;
    }

    fn fault(&self) -> Option<&String> {
        self.value_fault.as_ref().or(self.rule_fault.as_ref())
    }

    /// What metrics show of it: whether it answers, how long it took, its values and rules.
    pub fn shown(&self, plugin: &str) -> AgentSnapshot {
        AgentSnapshot {
            plugin: plugin.to_owned(),
            up: match self.state {
                _ if self.misses > 0 => Some(false),
                State::Unknown | State::Idle => None,
                State::Active => Some(true),
                State::Error => Some(false),
            },
            // Those that an earlier process wrote are of unknown age, and after a miss they are old.
            values: if self.readings.is_some() && self.misses == 0 {
                Arc::clone(&self.values)
            } else {
                Arc::default()
            },
            took: self.took,
            rules: self.rules.iter().filter_map(|(name, rule)| Some((name.clone(), rule.active?))).collect(),
        }
    }
}
