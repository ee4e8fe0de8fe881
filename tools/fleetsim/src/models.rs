//! Models on disk and in memory: the documents, their defaults and checks.
//!
//! Only data. How Ollama writes them is in `ollama.rs`.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Limits for one host. `manyModels` streams more without holding them.
const MAX_MODELS: usize = 20_000;
const MAX_LOADED: usize = 1_000;

/// A model on disk. Only the name is needed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "named as Ollama names it")]
pub struct Model {
    /// With its tag.
    pub name: String,
    /// 64 hex digits; absent: made from the name.
    #[serde(default)]
    pub digest: String,
    /// Size on disk.
    #[serde(default = "default_size")]
    pub size_bytes: u64,
    /// `details.family`.
    #[serde(default = "default_family")]
    pub family: String,
    /// `details.parameter_size`.
    #[serde(default = "default_parameters")]
    pub parameter_size: String,
    /// `details.quantization_level`.
    #[serde(default = "default_quantization")]
    pub quantization: String,
    /// `details.context_length`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_length: Option<u64>,
    /// What the model can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
    /// Absent: a fixed time long ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified_at: Option<Timestamp>,
    /// Cloud stubs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_host: Option<String>,
    /// Cloud stubs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_model: Option<String>,
}

/// A model in memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Loaded {
    /// With its tag.
    pub name: String,
    /// Absent: that of the model on disk.
    #[serde(default)]
    pub digest: String,
    /// Memory in use.
    pub size_bytes: u64,
    /// The part of it on GPUs.
    pub vram_bytes: u64,
    /// Context in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_length: Option<u64>,
    /// When it goes.
    #[serde(default)]
    pub expires: Expires,
}

/// When a model in memory goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Expires {
    /// In four to five minutes, moving with each call.
    #[default]
    Near,
    /// Ten seconds ago, and it stays.
    Past,
    /// In 292 years.
    Forever,
    /// At a fixed time.
    At(Timestamp),
}

impl TryFrom<String> for Expires {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "near" => Ok(Self::Near),
            "past" => Ok(Self::Past),
            "forever" => Ok(Self::Forever),
            time => time.parse().map(Self::At).map_err(|_| {
                format!("expires {text:?}: allowed are near, past, forever or an RFC 3339 time")
            }),
        }
    }
}

impl From<Expires> for String {
    fn from(expires: Expires) -> Self {
        match expires {
            Expires::Near => "near".to_owned(),
            Expires::Past => "past".to_owned(),
            Expires::Forever => "forever".to_owned(),
            Expires::At(time) => time.to_string(),
        }
    }
}

fn default_size() -> u64 {
    4_683_087_332
}

fn default_family() -> String {
    "llama".to_owned()
}

fn default_parameters() -> String {
    "8.2B".to_owned()
}

fn default_quantization() -> String {
    "Q4_K_M".to_owned()
}

impl Model {
    /// A model of which only the name is known.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            digest: digest(name),
            size_bytes: default_size(),
            family: default_family(),
            parameter_size: default_parameters(),
            quantization: default_quantization(),
            context_length: Some(40_960),
            capabilities: Some(vec!["completion".to_owned(), "tools".to_owned()]),
            modified_at: None,
            remote_host: None,
            remote_model: None,
        }
    }
}

/// 64 hex digits that depend on the name only.
pub fn digest(name: &str) -> String {
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, fold);
    let [a, b, c, d] = [0, 1, 2, 3].map(|part| crate::weird::mix(hash ^ part));
    format!("{a:016x}{b:016x}{c:016x}{d:016x}")
}

/// Three models, the first of them in memory.
pub fn defaults() -> (Vec<Model>, Vec<Loaded>) {
    let model = |name: &str, size_bytes, family: &str, parameters: &str, quantization: &str| Model {
        size_bytes,
        family: family.to_owned(),
        parameter_size: parameters.to_owned(),
        quantization: quantization.to_owned(),
        ..Model::named(name)
    };
    let mut embed = model("nomic-embed-text:latest", 274_302_450, "nomic-bert", "137M", "F16");
    embed.context_length = Some(2048);
    embed.capabilities = Some(vec!["embedding".to_owned()]);
    let models = vec![
        model("qwen3:8b", 5_225_388_164, "qwen3", "8.2B", "Q4_K_M"),
        model("llama3.2:latest", 2_019_393_189, "llama", "3.2B", "Q4_K_M"),
        embed,
    ];
    let loaded = vec![Loaded {
        name: "qwen3:8b".to_owned(),
        digest: digest("qwen3:8b"),
        size_bytes: 6_442_450_944,
        vram_bytes: 6_442_450_944,
        context_length: Some(4096),
        expires: Expires::Near,
    }];
    (models, loaded)
}

/// Completes digests and checks the lists.
pub fn normalise(models: &mut Arc<Vec<Model>>, loaded: &mut Arc<Vec<Loaded>>) -> Result<(), String> {
    if models.len() > MAX_MODELS || loaded.len() > MAX_LOADED {
        return Err(format!("at most {MAX_MODELS} models and {MAX_LOADED} loaded"));
    }
    if models.iter().any(|model| model.digest.is_empty()) {
        for model in Arc::make_mut(models) {
            if model.digest.is_empty() {
                model.digest = digest(&model.name);
            }
        }
    }
    if loaded.iter().any(|entry| entry.digest.is_empty()) {
        for entry in Arc::make_mut(loaded) {
            if entry.digest.is_empty() {
                let known = models.iter().find(|model| model.name == entry.name);
                entry.digest = known.map_or_else(|| digest(&entry.name), |m| m.digest.clone());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_enough_for_a_model() {
        let model: Model = serde_json::from_str(r#"{"name":"a:b"}"#).unwrap();
        let loaded: Loaded = serde_json::from_str(r#"{"name":"a:b","sizeBytes":1,"vramBytes":1}"#).unwrap();
        let (mut models, mut memory) = (Arc::new(vec![model]), Arc::new(vec![loaded]));
        normalise(&mut models, &mut memory).unwrap();
        assert_eq!(models[0].digest.len(), 64);
        assert_eq!(models[0].digest, memory[0].digest);
        assert_eq!(models[0].digest, digest("a:b"));
        assert_ne!(models[0].digest, digest("a:c"));
    }

    #[test]
    fn expires_is_a_word_or_a_time() {
        let parse = |text: &str| Expires::try_from(text.to_owned());
        assert_eq!(parse("forever"), Ok(Expires::Forever));
        assert!(matches!(parse("2026-01-02T03:04:05-07:00"), Ok(Expires::At(_))));
        assert!(parse("soon").unwrap_err().contains("allowed"));
    }
}
