//! The state of one host: what it would tell, and what is wrong with it.
//!
//! Only data, its defaults and its checks. Many hosts share one state, so a
//! state is never changed in place.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::models::{Loaded, Model};

/// Everything about one host that a test can set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HostState {
    /// What `/api/version` says.
    pub version: String,
    /// Models on disk.
    pub models: Arc<Vec<Model>>,
    /// Models in memory.
    pub loaded: Arc<Vec<Loaded>>,
    /// What the agent reports.
    pub machine: Machine,
    /// Fault of the whole Ollama port.
    pub ollama: Fault,
    /// Fault of the whole agent port.
    pub agent: Fault,
    /// Faults by path; win over those of the port.
    pub paths: BTreeMap<String, Fault>,
    /// Which server answers on the Ollama port.
    pub backend: Backend,
    /// The agent's answer to any path, instead of the usual one.
    pub agent_body: Option<String>,
    /// Content type of `agent_body`.
    pub agent_content_type: Option<String>,
    /// The Authorization header that the Ollama port wants; absent: any or none.
    pub authorization: Option<String>,
    /// The same for the agent port.
    pub agent_authorization: Option<String>,
    /// Oddities of versions and hosts.
    pub quirks: Quirks,
}

impl Default for HostState {
    fn default() -> Self {
        let (models, loaded) = crate::models::defaults();
        Self {
            version: "0.24.0".to_owned(),
            models: Arc::new(models),
            loaded: Arc::new(loaded),
            machine: Machine::default(),
            ollama: Fault::default(),
            agent: Fault::default(),
            paths: BTreeMap::new(),
            backend: Backend::default(),
            agent_body: None,
            agent_content_type: None,
            authorization: None,
            agent_authorization: None,
            quirks: Quirks::default(),
        }
    }
}

/// The server on the Ollama port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Backend {
    /// Ollama.
    #[default]
    Ollama,
    /// vLLM.
    Vllm,
    /// Anything with a health endpoint.
    Generic,
}

/// The machine as its agent sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Machine {
    /// Absent: the host's name.
    pub hostname: Option<String>,
    /// Absent: the start of the simulator.
    pub boot_time: Option<Timestamp>,
    /// Degrees Celsius.
    pub cpu_temperature: f64,
    /// Degrees Celsius.
    pub gpu_temperature: f64,
    /// Total memory in MB.
    pub memory_total_mb: f64,
    /// Available memory in MB.
    pub memory_available_mb: f64,
    /// Size of the disk in GB.
    pub disk_total_gb: f64,
    /// Used space in GB.
    pub disk_used_gb: f64,
    /// CPU use.
    pub cpu_percent: f64,
    /// GPU use.
    pub gpu_percent: f64,
    /// How many GPUs; without one there is neither `gpu0` nor `gpu_percent`.
    pub gpus: u32,
    /// Load changes, and the boot time moves by a second, from call to call.
    pub jitter: bool,
    /// Amplitude of random change in temperatures and percents.
    pub noise: f64,
    /// How the sensors are called.
    pub sensor_names: SensorNames,
    /// Top-level keys to leave out of the answer.
    pub omit: Vec<String>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            hostname: None,
            boot_time: None,
            cpu_temperature: 52.5,
            gpu_temperature: 61.0,
            memory_total_mb: 65_536.0,
            memory_available_mb: 40_000.0,
            disk_total_gb: 1000.0,
            disk_used_gb: 400.0,
            cpu_percent: 12.5,
            gpu_percent: 35.0,
            gpus: 1,
            jitter: true,
            noise: 0.0,
            sensor_names: SensorNames::Zones,
            omit: Vec::new(),
        }
    }
}

/// Names of the temperature sensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SensorNames {
    /// `thermal_zone0`, `gpu0`.
    Zones,
    /// `cpu`, `gpu`.
    Plain,
}

/// Oddities of versions and hosts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Quirks {
    /// Empty lists are `null`.
    pub null_models: bool,
    /// Sizes are written as floats.
    pub float_sizes: bool,
    /// `/api/tags` is unknown.
    pub no_tags404: bool,
    /// `/api/ps` is unknown.
    pub no_ps404: bool,
    /// The host's time zone.
    pub zone_offset: String,
    /// How far the Date header is ahead.
    pub date_skew_seconds: i64,
    /// There is no Date header.
    pub no_date: bool,
    /// `/api/tags` has capabilities and context lengths, as since v0.30.
    pub tags_capabilities: bool,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            null_models: false,
            float_sizes: false,
            no_tags404: false,
            no_ps404: false,
            zone_offset: "-07:00".to_owned(),
            date_skew_seconds: 0,
            no_date: false,
            tags_capabilities: true,
        }
    }
}

impl Quirks {
    /// The zone's distance from UTC.
    pub fn offset_seconds(&self) -> Option<i32> {
        let (sign, rest) = match self.zone_offset.split_at_checked(1)? {
            ("+", rest) => (1, rest),
            ("-", rest) => (-1, rest),
            ("Z", "") => return Some(0),
            _ => return None,
        };
        let (hours, minutes) = rest.split_once(':')?;
        let field = |text: &str, max: i32| {
            let two = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            let value: i32 = two.then(|| text.parse().ok()).flatten()?;
            (value <= max).then_some(value)
        };
        Some(sign * (field(hours, 14)? * 3600 + field(minutes, 59)? * 60))
    }
}

/// The two ports of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Port {
    /// Ollama's.
    Ollama,
    /// The agent's.
    Agent,
}

impl Port {
    /// Both, in the order of [`Port::slot`].
    pub const BOTH: [Self; 2] = [Self::Ollama, Self::Agent];

    /// Place in an array of two.
    pub fn slot(self) -> usize {
        match self {
            Self::Ollama => 0,
            Self::Agent => 1,
        }
    }
}

/// Prefix of agent paths in `paths` and in the statistics.
pub const AGENT_PREFIX: &str = "agent:";

impl HostState {
    /// The Authorization header that a port wants.
    pub fn wanted_authorization(&self, port: Port) -> Option<&str> {
        match port {
            Port::Ollama => self.authorization.as_deref(),
            Port::Agent => self.agent_authorization.as_deref(),
        }
    }

    /// The fault of a whole port.
    pub fn port_fault(&self, port: Port) -> &Fault {
        match port {
            Port::Ollama => &self.ollama,
            Port::Agent => &self.agent,
        }
    }

    /// The fault that a request meets.
    pub fn fault(&self, port: Port, path: &str) -> &Fault {
        let own = match port {
            Port::Ollama => self.paths.get(path),
            Port::Agent if self.paths.is_empty() => None,
            Port::Agent => self.paths.get(&format!("{AGENT_PREFIX}{path}")),
        };
        own.unwrap_or_else(|| self.port_fault(port))
    }

    /// The fault that a connection meets before any request: only when no path
    /// of the port has a fault of its own, which could be told by reading only.
    pub fn connection_fault(&self, port: Port) -> Option<&Fault> {
        let fault = self.port_fault(port);
        let of_port = |path: &String| path.starts_with(AGENT_PREFIX) == (port == Port::Agent);
        let by_path = fault.before_request() && self.paths.keys().any(of_port);
        (fault.before_request() && !by_path).then_some(fault)
    }

    /// Whether something listens on the port.
    pub fn listens(&self, port: Port) -> bool {
        self.port_fault(port).mode != crate::fault::Mode::Refuse
    }

    /// Completes what was left out and says what is wrong, if anything is.
    pub fn normalise(&mut self) -> Result<(), String> {
        crate::models::normalise(&mut self.models, &mut self.loaded)?;
        let faults = [("ollama", &self.ollama), ("agent", &self.agent)];
        let by_path = self.paths.iter().map(|(path, fault)| (path.as_str(), fault));
        for (name, fault) in faults.into_iter().chain(by_path) {
            fault.check().map_err(|error| format!("{name}: {error}"))?;
        }
        let path_ok = |path: &String| {
            let bare = path.strip_prefix(AGENT_PREFIX).unwrap_or(path);
            bare.starts_with('/') && path.len() <= 256
        };
        if self.paths.len() > 64 || !self.paths.keys().all(path_ok) {
            return Err("paths: at most 64, each /path or agent:/path".to_owned());
        }
        if self.quirks.offset_seconds().is_none() {
            return Err("quirks.zoneOffset must look like -07:00".to_owned());
        }
        if self.quirks.date_skew_seconds.abs() > 1_000_000_000 {
            return Err("quirks.dateSkewSeconds must be within 1000000000".to_owned());
        }
        if self.machine.gpus > 16 || self.machine.omit.len() > 32 {
            return Err("machine: at most 16 gpus and 32 keys in omit".to_owned());
        }
        let line = |text: &Option<String>| {
            text.as_deref().is_none_or(|text| text.len() <= 256 && !text.contains(['\r', '\n']))
        };
        if !line(&self.agent_content_type) || self.version.len() > 4096 {
            return Err("agentContentType must be one short line, version short".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Mode;

    #[test]
    fn zones() {
        let mut quirks = Quirks::default();
        assert_eq!(quirks.offset_seconds(), Some(-7 * 3600));
        for (text, seconds) in [("+05:30", Some(19_800)), ("Z", Some(0)), ("+5:30", None)] {
            text.clone_into(&mut quirks.zone_offset);
            assert_eq!(quirks.offset_seconds(), seconds, "{text}");
        }
    }

    #[test]
    fn a_paths_fault_wins_over_the_ports() {
        let mut state = HostState { ollama: Fault::of(Mode::Hang), ..HostState::default() };
        assert_eq!(state.connection_fault(Port::Ollama).unwrap().mode, Mode::Hang);
        state.paths.insert("agent:/metrics".to_owned(), Fault::of(Mode::Html));
        assert!(state.connection_fault(Port::Ollama).is_some());
        state.paths.insert("/api/ps".to_owned(), Fault::of(Mode::Empty));
        assert!(state.connection_fault(Port::Ollama).is_none());
        assert_eq!(state.fault(Port::Ollama, "/api/ps").mode, Mode::Empty);
        assert_eq!(state.fault(Port::Ollama, "/").mode, Mode::Hang);
        assert_eq!(state.fault(Port::Agent, "/metrics").mode, Mode::Html);
        assert_eq!(state.fault(Port::Agent, "/").mode, Mode::Healthy);
    }
}
