//! What happened to a server, and what Event that makes. Events are made on transitions only, and here is the one
//! place that says which.

use crate::probe::Failure;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use std::borrow::Cow;

/// Something that happened, found by comparing what was known with what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transition {
    ServerOnline,
    ServerOffline(Option<Failure>),
    /// The spec is not accepted, or is refused for another reason than before: Accepted's reason and message.
    SpecRefused {
        reason: String,
        message: String,
    },
    ServerRebooted,
    ModelLoaded(String),
    ModelUnloaded(String),
    ModelAdded(String),
    ModelRemoved(String),
    VersionChanged {
        from: String,
        to: String,
    },
    PluginFailed {
        plugin: String,
        reason: &'static str,
    },
    PluginRecovered(String),
    Pressure(Sensor),
    PressureResolved(Sensor),
    /// A rule of a plugin begins to hold, or ends.
    Rule {
        plugin: String,
        rule: String,
        active: bool,
        warning: bool,
        message: String,
    },
}

/// A reading with a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sensor {
    CpuTemperature,
    GpuTemperature,
    DiskUsed,
    MemoryAvailable,
}

impl Sensor {
    pub const ALL: [Self; 4] =
        [Self::CpuTemperature, Self::GpuTemperature, Self::DiskUsed, Self::MemoryAvailable];

    /// Reason of the Event when the threshold is passed.
    pub fn reason(self) -> &'static str {
        match self {
            Self::CpuTemperature => "CPUOverheating",
            Self::GpuTemperature => "GPUOverheating",
            Self::DiskUsed => "DiskNearlyFull",
            Self::MemoryAvailable => "LowMemory",
        }
    }

    fn resolved_reason(self) -> &'static str {
        match self {
            Self::CpuTemperature => "CPUOverheatingResolved",
            Self::GpuTemperature => "GPUOverheatingResolved",
            Self::DiskUsed => "DiskNearlyFullResolved",
            Self::MemoryAvailable => "LowMemoryResolved",
        }
    }
}

/// An Event as it will be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventText {
    pub reason: Cow<'static, str>,
    pub warning: bool,
    pub note: String,
    /// Names the model or plugin, so that Events about two of them are not merged into one series.
    pub field_path: Option<String>,
}

impl EventText {
    /// A spec is refused: Accepted's reason, and its message.
    pub fn refused(reason: &str, message: &str) -> Self {
        Self { reason: reason.to_owned().into(), warning: true, note: message.to_owned(), field_path: None }
    }
}

impl Transition {
    /// The spec is refused, as Accepted says.
    pub fn refused(accepted: &Condition) -> Self {
        let Condition { reason, message, .. } = accepted.clone();
        Self::SpecRefused { reason, message }
    }

    /// Whether the fleet's operators want to know first of all.
    pub fn is_urgent(&self) -> bool {
        matches!(self, Self::ServerOnline | Self::ServerOffline(_))
    }

    pub fn event(&self) -> EventText {
        let event = |reason: &'static str, warning, note: String| EventText {
            reason: reason.into(),
            warning,
            note,
            field_path: None,
        };
        let about = |reason: &'static str, warning, note: String, field: &str, name: &str| EventText {
            reason: reason.into(),
            warning,
            note,
            field_path: Some(format!("status.{field}{{{name}}}")),
        };
        match self {
            Self::ServerOnline => event("ServerOnline", false, "the host answers again".into()),
            Self::ServerOffline(failure) => event(
                "ServerOffline",
                true,
                match failure {
                    Some(failure) => format!("{}: {}", failure.reason(), failure.text()),
                    None => "the host does not answer".into(),
                },
            ),
            Self::SpecRefused { reason, message } => EventText::refused(reason, message),
            Self::ServerRebooted => {
                event("ServerRebooted", true, "the machine's boot time has changed".into())
            }
            Self::ModelLoaded(name) => {
                about("ModelLoaded", false, format!("{name} is in memory"), "loadedModels", name)
            }
            Self::ModelUnloaded(name) => {
                about("ModelUnloaded", false, format!("{name} is no longer in memory"), "loadedModels", name)
            }
            Self::ModelAdded(name) => {
                about("ModelAdded", false, format!("{name} is on disk"), "models", name)
            }
            Self::ModelRemoved(name) => {
                about("ModelRemoved", false, format!("{name} is no longer on disk"), "models", name)
            }
            Self::VersionChanged { from, to } => {
                event("VersionChanged", false, format!("from {from} to {to}"))
            }
            Self::PluginFailed { plugin, reason } => {
                about("PluginFailed", true, format!("plugin {plugin}: {reason}"), "plugins", plugin)
            }
            Self::PluginRecovered(plugin) => {
                about("PluginRecovered", false, format!("plugin {plugin} works again"), "plugins", plugin)
            }
            Self::Pressure(sensor) => event(
                sensor.reason(),
                true,
                match sensor {
                    Sensor::CpuTemperature => "the CPU is at or above its temperature threshold".into(),
                    Sensor::GpuTemperature => "a GPU is at or above its temperature threshold".into(),
                    Sensor::DiskUsed => "the disk is filled to its threshold or above".into(),
                    Sensor::MemoryAvailable => "available memory is at or below its threshold".into(),
                },
            ),
            Self::Rule { plugin, rule, active, warning, message } => EventText {
                reason: if *active { rule.clone().into() } else { format!("{rule}Resolved").into() },
                warning: *warning,
                note: format!("plugin {plugin}: {}{message}", if *active { "" } else { "no longer: " }),
                field_path: Some(format!("status.plugins{{{plugin}}}")),
            },
            Self::PressureResolved(sensor) => event(sensor.resolved_reason(), false, "back to normal".into()),
        }
    }
}
