//! Whether a status says anything new. Writing is what polling at scale costs, so a status is written when its meaning
//! changed, and otherwise only as a heartbeat.
//!
//! Never a reason: any time, the count of failures, values of plugins, a boot time within its jitter, numbers inside
//! their dead band. While the host fails, what follows from that (plugins, readings, pressures) is none either. Every struct is taken apart without `..`, so that a new field cannot be forgotten here.

use super::{agents::readings_of, pressure::BOOT_TIME_TOLERANCE, rules};
use crate::api::{
    OllamaServerStatus, condition,
    quantity::Quantity,
    server_status::{LoadedModel, Machine, Model, PluginReport},
};
use crate::probe::Failure;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Degrees that a temperature may move.
const DEGREES: i64 = 2;
/// Percent points that a share may move.
const POINTS: i64 = 5;
/// Share of the whole that a size may move: a hundredth of the machine's memory or disk.
const BYTES_PART: u64 = 100;

/// How much a change matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Significance {
    /// Nothing that is ever a reason to write.
    None,
    /// Only readings of the machine moved.
    Readings,
    /// Only what rules and expressions of plugins made of the values changed.
    Rules,
    /// Something that people wait for.
    Meaning,
}

/// What a status says that the one written last does not.
pub fn significance(old: &OllamaServerStatus, new: &OllamaServerStatus) -> Significance {
    let OllamaServerStatus {
        observed_generation,
        observed_endpoint,
        observed_backend,
        last_heartbeat_time: _,
        last_online_time: _,
        last_handled_requested_at,
        consecutive_failures: _,
        plugin_summary,
        version,
        models,
        model_count,
        model_size,
        models_omitted,
        loaded_models,
        loaded_count,
        vram_used,
        machine,
        plugins,
        recent_transition_times: _,
        conditions,
    } = new;
    let failing = is_failing(conditions);
    let same = *observed_generation == old.observed_generation
        && *observed_endpoint == old.observed_endpoint
        && *observed_backend == old.observed_backend
        && *last_handled_requested_at == old.last_handled_requested_at
        && *version == old.version
        && *model_count == old.model_count
        && *models_omitted == old.models_omitted
        && *loaded_count == old.loaded_count
        && near_size(model_size.as_ref(), old.model_size.as_ref(), None)
        && near_size(vram_used.as_ref(), old.vram_used.as_ref(), None)
        && same_lists(models.as_deref(), old.models.as_deref(), same_model)
        && same_lists(loaded_models.as_deref(), old.loaded_models.as_deref(), same_loaded)
        && same_conditions(&old.conditions, conditions, failing)
        && (failing
            || (*plugin_summary == old.plugin_summary
                && same_lists(plugins.as_deref(), old.plugins.as_deref(), same_plugin)));
    // A reading that no machine can have does not wait for its turn to be corrected.
    let wrong = |machine: &Machine| readings_of(machine).has_implausible();
    let mends = *machine != old.machine
        && old.machine.as_ref().is_some_and(wrong)
        && !machine.as_ref().is_some_and(wrong);
    if !same || mends {
        return Significance::Meaning;
    }
    let judged_alike = same_rules(&old.conditions, conditions)
        && same_lists(plugins.as_deref(), old.plugins.as_deref(), same_judgement);
    if !failing && !judged_alike {
        return Significance::Rules;
    }
    if !failing && !same_machine(machine.as_ref(), old.machine.as_ref()) {
        return Significance::Readings;
    }
    Significance::None
}

/// The host failed its last poll, or is known to be down.
fn is_failing(conditions: &[Condition]) -> bool {
    condition::find(conditions, condition::REACHABLE).is_some_and(|reachable| {
        reachable.reason == "ProbeFailing"
            || (reachable.status == "False" && Failure::from_reason(&reachable.reason).is_some())
    })
}

fn same_conditions(old: &[Condition], new: &[Condition], failing: bool) -> bool {
    let told = |condition: &&Condition| {
        let from_agents = matches!(
            condition.type_.as_str(),
            condition::PLUGINS_HEALTHY
                | condition::THERMAL_PRESSURE
                | condition::MEMORY_PRESSURE
                | condition::DISK_PRESSURE
        );
        let follows_from_the_host = failing && from_agents;
        !follows_from_the_host && !rules::is_rule(condition)
    };
    old.iter().filter(told).count() == new.iter().filter(told).count()
        && new.iter().filter(told).all(|new| {
            condition::find(old, &new.type_).is_some_and(|old| {
                old.status == new.status && old.reason == new.reason && old.message == new.message
            })
        })
}

fn same_lists<T>(old: Option<&[T]>, new: Option<&[T]>, same: fn(&T, &T) -> bool) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => {
            old.len() == new.len() && old.iter().zip(new).all(|(old, new)| same(old, new))
        }
        (None, None) => true,
        _ => false,
    }
}

fn same_model(new: &Model, old: &Model) -> bool {
    let Model {
        name,
        digest,
        size,
        family,
        parameter_size,
        quantization,
        context_length,
        capabilities,
        modified_time: _,
        remote_host,
    } = new;
    *name == old.name
        && *digest == old.digest
        && near_size(size.as_ref(), old.size.as_ref(), None)
        && *family == old.family
        && *parameter_size == old.parameter_size
        && *quantization == old.quantization
        && *context_length == old.context_length
        && *capabilities == old.capabilities
        && *remote_host == old.remote_host
}

fn same_loaded(new: &LoadedModel, old: &LoadedModel) -> bool {
    let LoadedModel { name, digest, size, vram, context_length, processor, state, expiration_time } = new;
    *name == old.name
        && *digest == old.digest
        && near_size(size.as_ref(), old.size.as_ref(), None)
        && near_size(vram.as_ref(), old.vram.as_ref(), None)
        && *context_length == old.context_length
        && *processor == old.processor
        && *state == old.state
        // Whether it ever goes is news; when, is not.
        && expiration_time.is_some() == old.expiration_time.is_some()
}

fn same_plugin(new: &PluginReport, old: &PluginReport) -> bool {
    // What is said of one that answers, its rules have made.
    let PluginReport { name, state, reason, message, last_success_time: _, values: _, active_rules: _ } = new;
    let answers = state.as_deref() == Some("Active");
    *name == old.name
        && *state == old.state
        && (answers || (*reason == old.reason && *message == old.message))
}

/// What rules and expressions have made of the answers.
fn same_judgement(new: &PluginReport, old: &PluginReport) -> bool {
    new.reason == old.reason && new.message == old.message && new.active_rules == old.active_rules
}

/// The conditions that rules have made; conditions are sorted by type.
fn same_rules(old: &[Condition], new: &[Condition]) -> bool {
    fn told(conditions: &[Condition]) -> impl Iterator<Item = [&str; 4]> {
        let rules = conditions.iter().filter(|condition| rules::is_rule(condition));
        rules.map(|rule| [&rule.type_, &rule.status, &rule.reason, &rule.message].map(String::as_str))
    }
    told(old).eq(told(new))
}

fn same_machine(new: Option<&Machine>, old: Option<&Machine>) -> bool {
    let (new, old) = match (new, old) {
        (Some(new), Some(old)) => (new, old),
        (None, None) => return true,
        _ => return false,
    };
    let Machine {
        hostname,
        boot_time,
        cpu_percent,
        gpu_percent,
        cpu_temperature_celsius,
        gpu_temperature_celsius,
        memory_total,
        memory_available,
        disk_total,
        disk_used,
        disk_used_percent,
    } = new;
    *hostname == old.hostname
        && near_time(boot_time.as_ref(), old.boot_time.as_ref())
        && near(*cpu_percent, old.cpu_percent, POINTS)
        && near(*gpu_percent, old.gpu_percent, POINTS)
        && near(*cpu_temperature_celsius, old.cpu_temperature_celsius, DEGREES)
        && near(*gpu_temperature_celsius, old.gpu_temperature_celsius, DEGREES)
        && near_size(memory_total.as_ref(), old.memory_total.as_ref(), None)
        && near_size(memory_available.as_ref(), old.memory_available.as_ref(), memory_total.as_ref())
        && near_size(disk_total.as_ref(), old.disk_total.as_ref(), None)
        && near_size(disk_used.as_ref(), old.disk_used.as_ref(), disk_total.as_ref())
        && near(*disk_used_percent, old.disk_used_percent, POINTS)
}

fn near(new: Option<i64>, old: Option<i64>, band: i64) -> bool {
    match (new, old) {
        (Some(new), Some(old)) => new.abs_diff(old) <= band.unsigned_abs(),
        (None, None) => true,
        _ => false,
    }
}

/// Within a hundredth of `whole`, or of the size itself where there is no whole.
fn near_size(new: Option<&Quantity>, old: Option<&Quantity>, whole: Option<&Quantity>) -> bool {
    let (new, old) = match (new, old) {
        (Some(new), Some(old)) => (new, old),
        (None, None) => return true,
        _ => return false,
    };
    match (new.bytes(), old.bytes()) {
        (Some(new), Some(old)) => {
            let whole = whole.and_then(Quantity::bytes).unwrap_or(old).max(old);
            new.abs_diff(old) <= whole / BYTES_PART
        }
        _ => new == old,
    }
}

fn near_time(new: Option<&Time>, old: Option<&Time>) -> bool {
    match (new, old) {
        (Some(new), Some(old)) => new.0.duration_since(old.0).abs() <= BOOT_TIME_TOLERANCE,
        (None, None) => true,
        _ => false,
    }
}
