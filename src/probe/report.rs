//! What a host said, in our own types: typed, capped and cleaned, but not yet judged.

use super::failure::Failure;
use k8s_openapi::jiff::Timestamp;

/// One of the things that a host is asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Part<T> {
    /// It was not its turn.
    NotAsked,
    /// The host does not know the endpoint: an old version.
    Missing,
    /// It was asked and gave nothing usable; what was known stays.
    Failed(Failure),
    /// The host answers well and cannot tell: what was known is not known any more.
    Unknown,
    Known(T),
}

impl<T> Part<T> {
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            _ => None,
        }
    }

    pub fn failure(&self) -> Option<Failure> {
        match self {
            Self::Failed(failure) => Some(*failure),
            _ => None,
        }
    }
}

/// What an online host said.
#[derive(Clone, Debug, PartialEq)]
pub struct HostReport {
    pub version: Part<String>,
    pub models: Part<Vec<ModelSeen>>,
    pub loaded: Part<Vec<LoadedSeen>>,
}

/// A model on disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelSeen {
    pub name: String,
    pub digest: Option<String>,
    pub size: Option<u64>,
    pub family: Option<String>,
    pub parameter_size: Option<String>,
    pub quantization: Option<String>,
    pub context_length: Option<i64>,
    pub capabilities: Option<Vec<String>>,
    pub modified: Option<Timestamp>,
    pub remote_host: Option<String>,
}

/// A model in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadedSeen {
    pub name: String,
    pub digest: Option<String>,
    pub size: Option<u64>,
    pub vram: Option<u64>,
    pub context_length: Option<i64>,
    pub expires: Expiry,
}

/// When a loaded model goes if nobody uses it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    #[default]
    Unknown,
    /// More than 20 years ahead: loaded for good.
    Never,
    At(Timestamp),
    /// The time is over, by the host's own clock, and the model is still there.
    Past(Timestamp),
}
