//! Merge patches (RFC 7386) on host states, and the scenario file.
//!
//! Pure: turns states into states. A patch is checked as a whole before any
//! host sees it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::state::HostState;

/// Applies one change to many states, once per distinct state: 10,000 hosts
/// that share a state share the changed one too.
pub struct Memo<F> {
    change: F,
    done: HashMap<usize, (Arc<HostState>, Arc<HostState>)>,
}

impl<F: FnMut(&HostState) -> Result<HostState, String>> Memo<F> {
    /// `change` must depend on the state only.
    pub fn new(change: F) -> Self {
        Self { change, done: HashMap::new() }
    }

    /// The changed state, checked.
    pub fn apply(&mut self, old: &Arc<HostState>) -> Result<Arc<HostState>, String> {
        let key = Arc::as_ptr(old).addr();
        if let Some((_, new)) = self.done.get(&key) {
            return Ok(Arc::clone(new));
        }
        let mut new = (self.change)(old)?;
        new.normalise()?;
        // Equal lists stay shared.
        if new.models == old.models {
            new.models = Arc::clone(&old.models);
        }
        if new.loaded == old.loaded {
            new.loaded = Arc::clone(&old.loaded);
        }
        let new = Arc::new(new);
        // The old state is kept so that its address cannot be used again.
        self.done.insert(key, (Arc::clone(old), Arc::clone(&new)));
        Ok(new)
    }
}

/// The state that a patch makes of another.
pub fn patched(old: &HostState, patch: &Value) -> Result<HostState, String> {
    if !patch.is_object() {
        return Err("a state patch must be a JSON object".to_owned());
    }
    let mut document = serde_json::to_value(old).map_err(|error| error.to_string())?;
    forget_replaced_faults(&mut document, patch);
    merge(&mut document, patch);
    serde_json::from_value(document).map_err(|error| format!("state: {error}"))
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        patch.clone_into(target);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(target) = target {
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else {
                merge(target.entry(key.as_str()).or_insert(Value::Null), value);
            }
        }
    }
}

/// A patch that names a mode means the whole fault: the fields of the mode
/// before would otherwise be left over and not fit the new one.
fn forget_replaced_faults(document: &mut Value, patch: &Value) {
    let named = |fault: &Value| fault.get("mode").is_some();
    for key in ["ollama", "agent"] {
        if patch.get(key).is_some_and(named)
            && let Some(object) = document.as_object_mut()
        {
            object.remove(key);
        }
    }
    if let (Some(Value::Object(patch)), Some(Value::Object(paths))) =
        (patch.get("paths"), document.get_mut("paths"))
    {
        paths.retain(|path, _| !patch.get(path).is_some_and(named));
    }
}

/// What `--scenario` names.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// For every host.
    pub defaults: Option<Value>,
    /// By selector, applied in the order of the selectors' text.
    pub hosts: BTreeMap<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Mode;
    use serde_json::json;

    #[test]
    fn merges_as_the_rfc_says() {
        let cases = [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":[1]}), json!({"a":[2,3]}), json!({"a":[2,3]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"d":1,"b":null}}), json!({"a":{"d":1}})),
            (json!([1]), json!({"a":{"b":null}}), json!({"a":{}})),
        ];
        for (mut target, patch, result) in cases {
            merge(&mut target, &patch);
            assert_eq!(target, result);
        }
    }

    #[test]
    fn a_patch_keeps_the_rest_and_null_gives_the_default() {
        let old = HostState::default();
        let hot = patched(&old, &json!({"machine":{"gpuTemperature":95}})).unwrap();
        assert!((hot.machine.gpu_temperature - 95.0).abs() < f64::EPSILON);
        assert_eq!(hot.models, old.models);
        let back = patched(&hot, &json!({"machine":null})).unwrap();
        assert_eq!(back, old);
    }

    #[test]
    fn a_new_mode_forgets_the_fields_of_the_old() {
        let busy = json!({"ollama":{"mode":"status","code":503},
                          "paths":{"/api/ps":{"mode":"huge","bytes":5}}});
        let busy = patched(&HostState::default(), &busy).unwrap();
        let hang = json!({"ollama":{"mode":"hang"},"paths":{"/api/ps":{"mode":"empty"}}});
        let mut hang = patched(&busy, &hang).unwrap();
        hang.normalise().unwrap();
        assert_eq!((hang.ollama.mode, hang.ollama.code), (Mode::Hang, None));
        let slow = patched(&busy, &json!({"ollama":{"latencyMs":7}})).unwrap();
        assert_eq!((slow.ollama.code, slow.ollama.latency_ms), (Some(503), Some(7)));
        let healthy = patched(&busy, &json!({"ollama":null,"paths":{"/api/ps":null}})).unwrap();
        assert!(healthy.ollama.is_none() && healthy.paths.is_empty());
    }

    #[test]
    fn unknown_fields_and_modes_say_what_is_allowed() {
        for patch in [
            json!({"modles":[]}),
            json!({"ollama":{"mode":"slow"}}),
            json!({"quirks":{"nullTags":true}}),
            json!({"backend":"tgi"}),
        ] {
            let error = patched(&HostState::default(), &patch).unwrap_err();
            assert!(error.contains("expected"), "{error}");
        }
        assert!(patched(&HostState::default(), &json!([])).is_err());
    }

    #[test]
    fn equal_states_stay_shared() {
        let shared = Arc::new(HostState::default());
        let mut memo = Memo::new(|old: &HostState| patched(old, &json!({"version":"1"})));
        let (a, b) = (memo.apply(&shared).unwrap(), memo.apply(&shared).unwrap());
        assert!(Arc::ptr_eq(&a, &b) && Arc::ptr_eq(&a.models, &shared.models));
        assert_eq!(a.version, "1");
    }
}
