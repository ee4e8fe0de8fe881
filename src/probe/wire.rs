//! The JSON of Ollama. Tolerant where a field is optional (nulls, floats, missing or
//! wrongly typed fields become "unknown"), strict about what makes an answer an answer. Pure.

use super::{
    failure::Failure,
    report::{Expiry, LoadedSeen, ModelSeen},
    shape::parse,
    text::clean,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use std::fmt;

/// Models of one host that are looked at; a longer list is refused whole, as half a list would be a lie.
pub const MODELS_MAX: usize = 2000;
/// Characters of a model's name; also the bound in the schema.
const NAME_MAX: usize = 253;
/// Characters of the shorter words: version, family, digest.
const WORD_MAX: usize = 64;
const SHORT_WORD_MAX: usize = 32;
const CAPABILITIES_MAX: usize = 16;
/// How far the Date header and `expires_at` may disagree before "in the past" is believed.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(2);
/// `keep_alive: -1` puts the expiry some 292 years ahead; the CLI calls everything beyond 20 years "Forever".
const FOREVER: SignedDuration = SignedDuration::from_hours(20 * 365 * 24);

/// `GET /api/version` of Ollama, `GET /version` of vLLM.
pub fn version(body: &[u8]) -> Result<String, Failure> {
    #[derive(Deserialize)]
    struct Wire {
        version: String,
    }
    let wire: Wire = parse(body, "version")?;
    let version = clean(&wire.version, WORD_MAX);
    if version.is_empty() { Err(Failure::InvalidResponse) } else { Ok(version) }
}

/// `GET /api/tags`.
pub fn tags(body: &[u8]) -> Result<Vec<ModelSeen>, Failure> {
    let wire: ModelList<WireModel> = parse(body, "models")?;
    let mut models: Vec<ModelSeen> =
        wire.into_models()?.into_iter().map(WireModel::on_disk).collect::<Result<_, _>>()?;
    models.sort_by(|a, b| a.name.cmp(&b.name));
    models.dedup_by(|a, b| a.name == b.name);
    Ok(models)
}

/// `GET /api/ps`; `now` is the host's own clock, from the Date header of this answer.
pub fn ps(body: &[u8], now: Option<Timestamp>) -> Result<Vec<LoadedSeen>, Failure> {
    let wire: ModelList<WireModel> = parse(body, "models")?;
    let mut models: Vec<LoadedSeen> =
        wire.into_models()?.into_iter().map(|model| model.in_memory(now)).collect::<Result<_, _>>()?;
    models.sort_by(|a, b| a.name.cmp(&b.name));
    models.dedup_by(|a, b| a.name == b.name);
    Ok(models)
}

pub(super) fn name_of(raw: &str) -> Result<String, Failure> {
    let name = clean(raw, NAME_MAX);
    if name.is_empty() { Err(Failure::InvalidResponse) } else { Ok(name) }
}

/// `{"models": […]}`. The key must be there; null is an empty list (v0.1.35 to v0.1.37 say so).
struct ModelList<T>(Bounded<T>);

impl<T> ModelList<T> {
    fn into_models(self) -> Result<Vec<T>, Failure> {
        self.0.within()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for ModelList<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = ModelList<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with `models`")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut models = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key == "models" {
                        models = Some(map.next_value::<Option<Bounded<T>>>()?.unwrap_or_default());
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                models.map(ModelList).ok_or_else(|| A::Error::missing_field("models"))
            }
        }
        deserializer.deserialize_map(ObjectVisitor(std::marker::PhantomData))
    }
}

/// A list of which no more than [`MODELS_MAX`] entries are ever held.
pub(super) struct Bounded<T> {
    items: Vec<T>,
    overflown: bool,
}

impl<T> Default for Bounded<T> {
    fn default() -> Self {
        Self { items: Vec::new(), overflown: false }
    }
}

impl<T> Bounded<T> {
    pub(super) fn within(self) -> Result<Vec<T>, Failure> {
        if self.overflown { Err(Failure::ResponseTooLarge) } else { Ok(self.items) }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
            type Value = Bounded<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while items.len() < MODELS_MAX {
                    match seq.next_element()? {
                        Some(item) => items.push(item),
                        None => return Ok(Bounded { items, overflown: false }),
                    }
                }
                let mut overflown = false;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    overflown = true;
                }
                Ok(Bounded { items, overflown })
            }
        }
        deserializer.deserialize_seq(ListVisitor(std::marker::PhantomData))
    }
}

/// An entry of tags or ps. Only the name is required; `model` repeats it and stands in for it.
#[derive(Deserialize)]
struct WireModel {
    #[serde(default)]
    name: Scalar,
    #[serde(default)]
    model: Scalar,
    #[serde(default)]
    digest: Scalar,
    #[serde(default)]
    size: Scalar,
    #[serde(default)]
    size_vram: Scalar,
    #[serde(default)]
    context_length: Scalar,
    #[serde(default)]
    modified_at: Scalar,
    #[serde(default)]
    expires_at: Scalar,
    #[serde(default)]
    remote_host: Scalar,
    #[serde(default)]
    capabilities: Words,
    #[serde(default, deserialize_with = "details_or_default")]
    details: WireDetails,
}

#[derive(Default, Deserialize)]
struct WireDetails {
    #[serde(default)]
    family: Scalar,
    #[serde(default)]
    parameter_size: Scalar,
    #[serde(default)]
    quantization_level: Scalar,
    #[serde(default)]
    context_length: Scalar,
}

fn details_or_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WireDetails, D::Error> {
    Ok(Option::<WireDetails>::deserialize(deserializer)?.unwrap_or_default())
}

impl WireModel {
    fn name(&self) -> Result<String, Failure> {
        let raw = self.name.text().filter(|name| !name.trim().is_empty()).or_else(|| self.model.text());
        name_of(raw.ok_or(Failure::InvalidResponse)?)
    }

    fn on_disk(self) -> Result<ModelSeen, Failure> {
        Ok(ModelSeen {
            name: self.name()?,
            digest: self.digest.word(WORD_MAX),
            size: self.size.unsigned(),
            family: self.details.family.word(WORD_MAX),
            parameter_size: self.details.parameter_size.word(SHORT_WORD_MAX),
            quantization: self.details.quantization_level.word(SHORT_WORD_MAX),
            context_length: self.details.context_length.positive(),
            capabilities: self.capabilities.0,
            modified: self.modified_at.time(),
            remote_host: self.remote_host.word(NAME_MAX),
        })
    }

    fn in_memory(self, now: Option<Timestamp>) -> Result<LoadedSeen, Failure> {
        Ok(LoadedSeen {
            name: self.name()?,
            digest: self.digest.word(WORD_MAX),
            size: self.size.unsigned(),
            vram: self.size_vram.unsigned(),
            context_length: self.context_length.positive(),
            expires: expiry(&self.expires_at, now),
        })
    }
}

fn expiry(raw: &Scalar, now: Option<Timestamp>) -> Expiry {
    let Some(at) = raw.time() else {
        // Go prints times beyond the year 9999 too; nothing of ours can, and they mean "never".
        return Expiry::Unknown;
    };
    let Some(now) = now else { return Expiry::At(at) };
    let ahead = at.duration_since(now);
    if ahead > FOREVER {
        Expiry::Never
    } else if ahead < -CLOCK_TOLERANCE {
        Expiry::Past(at)
    } else {
        Expiry::At(at)
    }
}

/// Any JSON value, of which only scalars are kept: a wrong type is an unknown, not an error.
#[derive(Debug, Default, PartialEq)]
pub(super) enum Scalar {
    #[default]
    Absent,
    Text(String),
    Number(f64),
}

impl Scalar {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    fn word(&self, max: usize) -> Option<String> {
        self.text().map(|text| clean(text, max)).filter(|word| !word.is_empty())
    }

    fn unsigned(&self) -> Option<u64> {
        // Sizes are whole bytes; f64 is exact up to 8 PiB.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        match self {
            Self::Number(number) if (0.0..=9.0e15).contains(number) => Some(*number as u64),
            _ => None,
        }
    }

    fn positive(&self) -> Option<i64> {
        self.unsigned().filter(|number| *number > 0).and_then(|number| i64::try_from(number).ok())
    }

    fn time(&self) -> Option<Timestamp> {
        let time: Timestamp = self.text()?.parse().ok()?;
        // Go's zero time means "not set".
        (time.as_second() > 0).then_some(time)
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyVisitor;
        impl<'de> Visitor<'de> for AnyVisitor {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }
            fn visit_bool<E>(self, _: bool) -> Result<Scalar, E> {
                Ok(Scalar::Absent)
            }
            fn visit_unit<E>(self) -> Result<Scalar, E> {
                Ok(Scalar::Absent)
            }
            #[allow(clippy::cast_precision_loss)]
            fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar::Number(value as f64))
            }
            #[allow(clippy::cast_precision_loss)]
            fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar::Number(value as f64))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar::Number(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<Scalar, E> {
                let most = 4 * NAME_MAX;
                // What has no more bytes has no more characters.
                let short = value.len() <= most;
                Ok(Scalar::Text(if short { value.to_owned() } else { value.chars().take(most).collect() }))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::Absent)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Absent)
            }
        }
        deserializer.deserialize_any(AnyVisitor)
    }
}

/// A list of words, or anything else, which counts as no list.
#[derive(Default)]
struct Words(Option<Vec<String>>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordsVisitor;
        impl<'de> Visitor<'de> for WordsVisitor {
            type Value = Words;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }
            fn visit_bool<E>(self, _: bool) -> Result<Words, E> {
                Ok(Words(None))
            }
            fn visit_unit<E>(self) -> Result<Words, E> {
                Ok(Words(None))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Words, E> {
                Ok(Words(None))
            }
            fn visit_u64<E>(self, _: u64) -> Result<Words, E> {
                Ok(Words(None))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Words, E> {
                Ok(Words(None))
            }
            fn visit_str<E>(self, _: &str) -> Result<Words, E> {
                Ok(Words(None))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Words, A::Error> {
                let mut words = Vec::new();
                while words.len() < CAPABILITIES_MAX
                    && let Some(word) = seq.next_element::<Scalar>()?
                {
                    words.extend(word.word(SHORT_WORD_MAX));
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Words((!words.is_empty()).then_some(words)))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Words, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Words(None))
            }
        }
        deserializer.deserialize_any(WordsVisitor)
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
