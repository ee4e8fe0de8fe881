//! The JSON of OpenAI-style servers: the list of models, and what llama.cpp's server says of itself. Pure.

use super::{
    failure::Failure,
    report::{LoadedSeen, ModelSeen, Part},
    shape::parse,
    wire::{Bounded, Scalar, name_of},
};
use serde::Deserialize;

/// `GET /v1/models`: who is there and in which state. Sizes are unknown, not 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing {
    /// Sorted by name, and each once.
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub maker: Maker,
    /// `None`: the server does not say.
    pub state: Option<State>,
}

/// Whose list it is, by `owned_by`: those of which it is known what being listed means, and what `/health` costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    Vllm,
    LlamaCpp,
    SgLang,
    Other,
}

/// `status.value` of llama.cpp's router and of llama-swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Loaded,
    /// On disk only, or asleep, or on its way: its weights are not in memory, or not all of them.
    NotLoaded,
    /// A word of another version.
    Unknown,
}

impl Maker {
    fn of(owned_by: Option<&str>) -> Self {
        match owned_by {
            Some("vllm") => Self::Vllm,
            Some("llamacpp") => Self::LlamaCpp,
            Some("sglang") => Self::SgLang,
            _ => Self::Other,
        }
    }

    /// Whether this server's `/health` runs no model, whatever the version.
    pub fn has_free_health(self) -> bool {
        matches!(self, Self::Vllm | Self::LlamaCpp)
    }
}

impl State {
    fn of(value: &str) -> Self {
        match value {
            "loaded" => Self::Loaded,
            "unloaded" | "loading" | "sleeping" | "failed" | "downloading" | "downloaded" => Self::NotLoaded,
            _ => Self::Unknown,
        }
    }
}

impl Listing {
    /// Whose it is, if all entries agree; a proxy lists those of many.
    pub fn maker(&self) -> Maker {
        let mut makers = self.entries.iter().map(|entry| entry.maker);
        match makers.next() {
            Some(first) if makers.all(|maker| maker == first) => first,
            _ => Maker::Other,
        }
    }

    /// Whether only `/props` can tell if the one model sleeps: llama.cpp's server, and not its router.
    pub fn needs_props(&self) -> bool {
        self.maker() == Maker::LlamaCpp && self.entries.iter().all(|entry| entry.state.is_none())
    }

    pub fn models(&self) -> Vec<ModelSeen> {
        let entries = self.entries.iter();
        entries.map(|entry| ModelSeen { name: entry.name.clone(), ..ModelSeen::default() }).collect()
    }

    /// What is in memory. `sleeps` is what `/props` said, where it was asked. A part of the truth would count too few,
    /// so it is known of all entries or not at all.
    pub fn loaded(&self, sleeps: Option<bool>) -> Part<Vec<LoadedSeen>> {
        let mut loaded = Vec::new();
        for entry in &self.entries {
            let is_loaded = match (entry.state, entry.maker, sleeps) {
                (Some(State::Loaded), ..) | (None, Maker::Vllm | Maker::SgLang, _) => true,
                (Some(State::NotLoaded), ..) => false,
                (None, Maker::LlamaCpp, Some(sleeps)) if self.needs_props() => !sleeps,
                _ => return Part::Unknown,
            };
            if is_loaded {
                loaded.push(LoadedSeen { name: entry.name.clone(), ..LoadedSeen::default() });
            }
        }
        // Of an empty list nobody knows whose it is.
        if self.entries.is_empty() { Part::Unknown } else { Part::Known(loaded) }
    }
}

/// `GET /v1/models`.
pub fn models(body: &[u8]) -> Result<Listing, Failure> {
    #[derive(Deserialize)]
    struct Wire {
        id: String,
        #[serde(default)]
        owned_by: Scalar,
        #[serde(default)]
        status: Status,
    }
    #[derive(Deserialize)]
    struct List {
        // It must be there, although it may be null: `{}` is some other service.
        #[serde(deserialize_with = "present")]
        data: Option<Bounded<Wire>>,
    }
    let list: List = parse(body, "data")?;
    let mut entries = Vec::new();
    for wire in list.data.unwrap_or_default().within()? {
        entries.push(Entry {
            name: name_of(&wire.id)?,
            maker: Maker::of(wire.owned_by.text()),
            state: wire.status.0,
        });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries.dedup_by(|a, b| a.name == b.name);
    Ok(Listing { entries })
}

fn present<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::deserialize(deserializer)
}

/// `GET /props` of llama.cpp's server: whether its model sleeps. Builds that do not say so cannot let it sleep.
pub fn sleeps(body: &[u8]) -> Result<bool, Failure> {
    #[derive(Deserialize)]
    struct Props {
        #[serde(default)]
        is_sleeping: Option<bool>,
        // What every build has, so that another server's object is no answer.
        #[serde(rename = "default_generation_settings")]
        _settings: serde::de::IgnoredAny,
    }
    let props: Props = parse(body, "default_generation_settings")?;
    Ok(props.is_sleeping.unwrap_or(false))
}

/// `{"value": "loaded", …}`; anything else is no state.
#[derive(Default)]
struct Status(Option<State>);

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Object {
            #[serde(default)]
            value: Scalar,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Any {
            Object(Object),
            Other(serde::de::IgnoredAny),
        }
        Ok(Self(match Any::deserialize(deserializer)? {
            Any::Object(object) => object.value.text().map(State::of),
            Any::Other(_) => None,
        }))
    }
}

#[cfg(test)]
#[path = "openai_wire_tests.rs"]
mod tests;
