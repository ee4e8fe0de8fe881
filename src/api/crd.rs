//! The CustomResourceDefinitions as they are installed: the derived schema, and what the derive cannot say.

use super::{FleetPlugin, OllamaServer};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

/// Every CustomResourceDefinition of the operator, ready to be applied.
pub fn all() -> Vec<CustomResourceDefinition> {
    [OllamaServer::crd(), FleetPlugin::crd()].into_iter().filter_map(finish).collect()
}

/// Name of the file that a definition is kept in.
pub fn file_name(crd: &CustomResourceDefinition) -> String {
    format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural)
}

/// `kubectl get` shows a new object as `Unknown`/`Pending` before the operator has written anything.
fn pending_status() -> Value {
    json!({ "conditions": [{
        "type": "Ready", "status": "Unknown", "reason": "Pending",
        "message": "waiting for the operator", "lastTransitionTime": "1970-01-01T00:00:00Z"
    }] })
}

fn finish(crd: CustomResourceDefinition) -> Option<CustomResourceDefinition> {
    let mut crd = serde_json::to_value(crd).ok()?;
    for version in crd.pointer_mut("/spec/versions")?.as_array_mut()? {
        let schema = version.pointer_mut("/schema/openAPIV3Schema")?;
        strip_unsupported(schema);
        schema.pointer_mut("/properties/status")?.as_object_mut()?.insert("default".into(), pending_status());
    }
    serde_json::from_value(crd).ok()
}

/// Removes what the apiserver warns about or refuses: number formats it does not know, bounds on int-or-string
/// fields that structural schemas do not allow there, and `default: null`.
fn strip_unsupported(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            let known = ["date-time", "int32", "int64"];
            if map.get("format").and_then(Value::as_str).is_some_and(|format| !known.contains(&format)) {
                map.remove("format");
            }
            if map.get("default").is_some_and(Value::is_null) {
                map.remove("default");
            }
            // An explicit null is then dropped by the apiserver, or refused where it would mean something else.
            map.remove("nullable");
            for child in map.values_mut() {
                strip_unsupported(child);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(strip_unsupported),
        // Bounds are derived as floats; `minimum: 1` reads better than `minimum: 1.0`.
        Value::Number(number) => {
            #[allow(clippy::cast_possible_truncation)]
            if let Some(whole) = number.as_f64().filter(|value| value.fract() == 0.0 && value.abs() < 1e15) {
                *number = (whole as i64).into();
            }
        }
        _ => {}
    }
}
