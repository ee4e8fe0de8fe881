//! What is left of a status that the API server refuses: the definition in the cluster is older than the operator, or
//! the object is too large. Something true is shown rather than nothing.

use super::Kind;
use crate::controller::api_failure::NOT_IN_SCHEMA;
use kube::core::Status;
use serde_json::Value;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// What every version of the definition has, and what says the most.
const CORE: [&str; 2] = ["conditions", "observedGeneration"];
const TOO_LARGE: u16 = 413;

/// A definition that was brought up to date is noticed within this time.
const FORGET: Duration = Duration::from_mins(10);

/// The fields of status that the definitions in the cluster do not have, as far as refusals have told: they name one at
/// a time, and are not asked for again at every write.
#[derive(Debug, Default)]
pub struct Unknown {
    fields: Mutex<HashMap<Kind, (Instant, BTreeSet<String>)>>,
}

impl Unknown {
    /// Takes note of what a refusal says of the definition.
    pub fn learn(&self, kind: Kind, refusal: &Status) {
        if !refusal.message.contains(NOT_IN_SCHEMA) {
            return;
        }
        let mut known = self.lock();
        let (_, fields) = known.entry(kind).or_insert_with(|| (Instant::now(), BTreeSet::new()));
        fields.extend(named(refusal).into_iter().map(str::to_owned));
    }

    /// The status without them, if it has any.
    pub fn without(&self, kind: Kind, status: &Value) -> Option<Value> {
        let mut known = self.lock();
        let (since, unknown) = known.get(&kind)?;
        if since.elapsed() >= FORGET {
            known.remove(&kind);
            return None;
        }
        let fields = status.as_object()?;
        if !fields.keys().any(|name| unknown.contains(name)) {
            return None;
        }
        let kept = fields.iter().filter(|(name, _)| !unknown.contains(*name));
        Some(Value::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect()))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Kind, (Instant, BTreeSet<String>)>> {
        self.fields.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The status without the fields that the refusal names, or else its conditions alone; `None` if that is what was
/// refused. The `last` try goes straight to that.
pub fn reduce(status: &Value, refusal: &Status, last: bool) -> Option<Value> {
    let fields = status.as_object()?;
    let named = if last || refusal.code == TOO_LARGE { Vec::new() } else { named(refusal) };
    let keep = |name: &String| {
        if named.is_empty() { CORE.contains(&name.as_str()) } else { !named.contains(&name.as_str()) }
    };
    let kept = |keep: &dyn Fn(&String) -> bool| {
        let kept = fields.iter().filter(|(name, _)| keep(name));
        let kept: serde_json::Map<_, _> = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        (kept.len() < fields.len()).then_some(Value::Object(kept))
    };
    kept(&keep).or_else(|| kept(&|name| CORE.contains(&name.as_str())))
}

/// The fields of status that a refusal names, as in `.status.machine: field not declared in schema`.
fn named(refusal: &Status) -> Vec<&str> {
    let causes = refusal.details.iter().flat_map(|details| &details.causes).map(|cause| cause.field.as_str());
    let mut names: Vec<&str> = causes
        .chain([refusal.message.as_str()])
        .flat_map(|text| text.split("status.").skip(1))
        .map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default())
        .filter(|name| !name.is_empty() && !CORE.contains(name))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    const OLD: &str = "failed to create typed patch object (n/s; v1, Kind=K): errors:\n  .status.machine: field not \
        declared in schema\n  .status.models[0].capabilities: field not declared in schema";

    #[rstest]
    #[case::too_large(413, "Request entity too large: limit is 3145728", &["conditions", "observedGeneration"])]
    #[case::fields_of_a_newer_version(500, OLD, &["conditions", "observedGeneration", "version"])]
    #[case::a_value(422, "is invalid: status.version: Too long", &["conditions", "machine", "models", "observedGeneration"])]
    #[case::nothing_is_named(422, "is invalid", &["conditions", "observedGeneration"])]
    #[case::the_core(422, "status.conditions[0].message: Too long", &["conditions", "observedGeneration"])]
    #[case::another_field(422, "status.unknown: Too long", &["conditions", "observedGeneration"])]
    fn what_is_refused_goes_and_the_conditions_stay(
        #[case] code: u16,
        #[case] message: &str,
        #[case] left: &[&str],
    ) {
        let status =
            json!({"conditions": [], "observedGeneration": 1, "machine": {}, "models": [], "version": "1"});
        let refusal: Status = serde_json::from_value(json!({"code": code, "message": message})).unwrap();
        let reduced = reduce(&status, &refusal, false).unwrap();
        let names: Vec<&str> = reduced.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, left);
        let last = reduce(&status, &refusal, true).unwrap();
        assert_eq!(last.as_object().unwrap().len(), 2);
        let core = reduce(&json!({"conditions": [], "observedGeneration": 1}), &refusal, false);
        assert_eq!(core, None, "nothing less can be said");
    }

    #[test]
    fn causes_name_fields_too() {
        let refusal =
            json!({"code": 422, "message": "", "details": {"causes": [{"field": "status.models[3].size"}]}});
        let refusal: Status = serde_json::from_value(refusal).unwrap();
        let reduced = reduce(&json!({"conditions": [], "models": [], "version": "1"}), &refusal, false);
        assert_eq!(reduced, Some(json!({"conditions": [], "version": "1"})));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_definition_lacks_is_learned_for_a_while() {
        let unknown = Unknown::default();
        let status = json!({"conditions": [], "machine": {}, "models": []});
        let refusal = |code: u16, message: &str| -> Status {
            serde_json::from_value(json!({"code": code, "message": message})).unwrap()
        };
        unknown.learn(Kind::OllamaServer, &refusal(422, "status.models: Too long"));
        assert_eq!(unknown.without(Kind::OllamaServer, &status), None, "a value is no field");
        unknown.learn(Kind::OllamaServer, &refusal(500, OLD));
        assert_eq!(unknown.without(Kind::OllamaServer, &status), Some(json!({"conditions": []})));
        assert_eq!(unknown.without(Kind::FleetPlugin, &status), None);
        tokio::time::advance(FORGET).await;
        assert_eq!(unknown.without(Kind::OllamaServer, &status), None);
    }
}
