//! What the answer of a health endpoint tells. A 2xx is well whatever its body, with two exceptions that only the body
//! shows: an error under a 200, and a server that has run its models for this answer.

use super::{Ask, failure::Failure, shape::is_page};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Where nothing else is named.
pub const DEFAULT_PATH: &str = "/health";

/// How a health endpoint answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Well,
    /// 2xx with a page for people. As good as any 2xx where somebody has named the path; else it may be what a web
    /// application says at any path.
    Page,
    /// There is no such path.
    NotThere,
}

/// Asks the health path of the spec, or the default one.
pub(super) async fn ask(ask: &Ask<'_>, last: bool) -> Result<Health, Failure> {
    let path = ask.target.manner.health_path.as_deref().unwrap_or(DEFAULT_PATH);
    let answer = match ask.get_health(path, last).await {
        Err(Failure::Timeout) if ask.route.destination.reached() => return Err(Failure::HealthTimeout),
        answer => answer?,
    };
    judge(answer.status, &answer.body)
}

/// From a status and a body, or the begin of one.
pub fn judge(status: u16, body: &[u8]) -> Result<Health, Failure> {
    let said = Said::of(body);
    if said.ran_models() {
        return Err(Failure::HealthPathRunsModels);
    }
    if matches!(status, 404 | 405) {
        return Ok(Health::NotThere);
    }
    if !(200..300).contains(&status) {
        return Err(match Failure::from_answer(status, body) {
            Failure::HostRejected => Failure::KeyRejected,
            failure => failure,
        });
    }
    match said.error {
        // LM Studio says this, with a 200, at every path that it does not have.
        Some(Complaint::NoSuchPath) => Ok(Health::NotThere),
        Some(Complaint::Other) => Err(Failure::InvalidResponse),
        None if is_page(body) => Ok(Health::Page),
        None => Ok(Health::Well),
    }
}

/// What of a JSON object is looked at. Of a body that ends in the middle, what came before.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    healthy: bool,
    unhealthy: bool,
    error: Option<Complaint>,
    whole: bool,
}

/// What stands under the key `error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Complaint {
    NoSuchPath,
    Other,
}

impl Said {
    fn of(body: &[u8]) -> Self {
        let mut said = Self::default();
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let read = deserializer.deserialize_map(&mut said);
        said.whole = read.is_ok() && deserializer.end().is_ok();
        if !said.whole {
            said.error = None;
        }
        said
    }

    /// `LiteLLM` lists the endpoints that it has just tried under two keys. Of a list that is longer than what is read, or
    /// of an error's begin, the first has to do.
    fn ran_models(&self) -> bool {
        if self.whole { self.healthy && self.unhealthy } else { self.healthy || self.unhealthy }
    }
}

impl<'de> Visitor<'de> for &mut Said {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "healthy_endpoints" => self.healthy = true,
                "unhealthy_endpoints" => self.unhealthy = true,
                "error" => {
                    self.error = map.next_value_seed(ErrorSeed)?;
                    continue;
                }
                _ => {}
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

fn other(is_one: bool) -> Option<Complaint> {
    is_one.then_some(Complaint::Other)
}

/// `null`, `false`, `""` and `0` are no complaint.
struct ErrorSeed;

impl<'de> DeserializeSeed<'de> for ErrorSeed {
    type Value = Option<Complaint>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ErrorSeed {
    type Value = Option<Complaint>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(other(value))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(other(value != 0))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(other(value != 0))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(other(value != 0.0))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        if value.starts_with("Unexpected endpoint") {
            return Ok(Some(Complaint::NoSuchPath));
        }
        Ok(other(!value.trim().is_empty()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut any = false;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            any = true;
        }
        Ok(other(any))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(other(true))
    }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
