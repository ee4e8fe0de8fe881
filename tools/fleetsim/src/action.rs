//! Named changes of a host, as they happen to real machines.
//!
//! Pure: turns a state into a state.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;

use crate::fault::{Fault, Mode};
use crate::models::{Expires, Loaded, Model, digest};
use crate::state::{HostState, Machine};

/// What `POST /hosts/{sel}/actions` takes.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "action", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Action {
    /// A model is loaded.
    Load {
        /// Its name.
        model: String,
        /// Absent: the model's size on disk.
        size_bytes: Option<u64>,
        /// Absent: all of it.
        vram_bytes: Option<u64>,
        /// Context in use.
        context_length: Option<u64>,
        /// When it goes.
        #[serde(default)]
        expires: Expires,
    },
    /// A model leaves memory.
    Unload {
        /// Its name.
        model: String,
    },
    /// A model is on disk now.
    Pull {
        /// Its name.
        model: String,
        /// Its size on disk.
        size_bytes: Option<u64>,
        /// Its digest.
        digest: Option<String>,
    },
    /// A model is deleted.
    Remove {
        /// Its name.
        model: String,
    },
    /// The machine starts anew.
    Reboot {},
    /// Ollama has another version.
    Upgrade {
        /// The new one.
        version: String,
    },
    /// The GPU is too hot.
    Hot {},
    /// Temperatures as by default.
    Cool {},
    /// The disk is 98 % full.
    DiskFull {},
    /// Both ports are dead.
    Die {},
    /// Both ports are healthy.
    Revive {},
}

impl Action {
    /// Reads an action.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(body).map_err(|error| format!("action: {error}"))
    }

    /// Whether open connections end with it.
    pub fn resets(&self) -> bool {
        matches!(self, Self::Reboot {} | Self::Die {})
    }

    /// The state after it. In shared mode a dead host resets connections,
    /// because the listener of all cannot be closed for one.
    pub fn apply(&self, old: &HostState, now: Timestamp, shared: bool) -> HostState {
        let mut state = old.clone();
        match self {
            Self::Load { model, size_bytes, vram_bytes, context_length, expires } => {
                let known = state.models.iter().find(|known| known.name == *model);
                let size_bytes =
                    size_bytes.or(known.map(|model| model.size_bytes)).or(*vram_bytes).unwrap_or(1 << 30);
                let entry = Loaded {
                    name: model.clone(),
                    digest: known.map_or_else(|| digest(model), |model| model.digest.clone()),
                    size_bytes,
                    vram_bytes: vram_bytes.unwrap_or(size_bytes),
                    context_length: context_length.or(Some(4096)),
                    expires: expires.clone(),
                };
                let loaded = Arc::make_mut(&mut state.loaded);
                loaded.retain(|other| other.name != *model);
                loaded.push(entry);
            }
            Self::Unload { model } => {
                Arc::make_mut(&mut state.loaded).retain(|other| other.name != *model);
            }
            Self::Pull { model, size_bytes, digest } => {
                let mut entry = Model::named(model);
                entry.modified_at = Some(now);
                entry.size_bytes = size_bytes.unwrap_or(entry.size_bytes);
                entry.digest = digest.clone().unwrap_or(entry.digest);
                let models = Arc::make_mut(&mut state.models);
                models.retain(|other| other.name != *model);
                models.insert(0, entry);
            }
            Self::Remove { model } => {
                Arc::make_mut(&mut state.models).retain(|other| other.name != *model);
                Arc::make_mut(&mut state.loaded).retain(|other| other.name != *model);
            }
            Self::Reboot {} => {
                state.machine.boot_time = Some(now);
                state.loaded = Arc::default();
            }
            Self::Upgrade { version } => version.clone_into(&mut state.version),
            Self::Hot {} => state.machine.gpu_temperature = 95.0,
            Self::Cool {} => {
                state.machine.gpu_temperature = Machine::default().gpu_temperature;
                state.machine.cpu_temperature = Machine::default().cpu_temperature;
            }
            Self::DiskFull {} => {
                state.machine.disk_used_gb = state.machine.disk_total_gb * 0.98;
            }
            Self::Die {} => {
                let mode = if shared { Mode::Reset } else { Mode::Refuse };
                state.ollama = Fault::of(mode);
                state.agent = Fault::of(mode);
                state.paths.clear();
            }
            Self::Revive {} => {
                state.ollama = Fault::default();
                state.agent = Fault::default();
                state.paths.clear();
            }
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn act(old: &HostState, action: &str) -> HostState {
        let action = Action::parse(action.as_bytes()).unwrap();
        action.apply(old, Timestamp::UNIX_EPOCH, false)
    }

    #[test]
    fn models_come_and_go() {
        let old = HostState::default();
        let state = act(&old, r#"{"action":"load","model":"llama3.2:latest","vramBytes":7}"#);
        assert_eq!(state.loaded.len(), 2);
        assert_eq!((state.loaded[1].size_bytes, state.loaded[1].vram_bytes), (2_019_393_189, 7));
        assert_eq!(state.loaded[1].digest, old.models[1].digest);
        let state = act(&state, r#"{"action":"unload","model":"qwen3:8b"}"#);
        assert_eq!(state.loaded.len(), 1);
        let state = act(&state, r#"{"action":"pull","model":"new:1b"}"#);
        assert_eq!((state.models.len(), state.models[0].name.as_str()), (4, "new:1b"));
        let state = act(&state, r#"{"action":"remove","model":"llama3.2:latest"}"#);
        assert_eq!((state.models.len(), state.loaded.len()), (3, 0));
    }

    #[test]
    fn hosts_die_and_live() {
        let old = HostState::default();
        let dead = act(&old, r#"{"action":"die"}"#);
        assert_eq!((dead.ollama.mode, dead.agent.mode), (Mode::Refuse, Mode::Refuse));
        let shared = Action::Die {}.apply(&old, Timestamp::UNIX_EPOCH, true);
        assert_eq!(shared.ollama.mode, Mode::Reset);
        assert_eq!(act(&dead, r#"{"action":"revive"}"#), old);
        let fresh = act(&old, r#"{"action":"reboot"}"#);
        assert_eq!(fresh.machine.boot_time, Some(Timestamp::UNIX_EPOCH));
        assert!(fresh.loaded.is_empty());
    }

    #[test]
    fn unknown_actions_say_what_is_allowed() {
        let error = |text: &str| Action::parse(text.as_bytes()).unwrap_err();
        assert!(error(r#"{"action":"explode"}"#).contains("diskFull"));
        assert!(error(r#"{"action":"load"}"#).contains("model"));
        assert!(error(r#"{"action":"hot","much":1}"#).contains("much"));
    }
}
