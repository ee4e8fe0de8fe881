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
        strip_defaults_in_lists(schema.pointer_mut("/properties/spec")?);
        let status = schema.pointer_mut("/properties/status")?;
        strip_defaults(status);
        bound_conditions(status.pointer_mut("/properties/conditions/items/properties")?);
        schema.pointer_mut("/properties/status")?.as_object_mut()?.insert("default".into(), pending_status());
    }
    serde_json::from_value(crd).ok()
}

/// What the operator leaves out of status is unknown; a default would be a made-up value.
fn strip_defaults(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.remove("default");
            map.values_mut().for_each(strip_defaults);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_defaults),
        _ => {}
    }
}

/// A default in an item of a list makes the stored list another than the applied one, which client-side apply and
/// GitOps tools then take for a change, again and again. The operator knows these defaults by itself.
fn strip_defaults_in_lists(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            for (key, child) in map {
                if key == "items" { strip_defaults(child) } else { strip_defaults_in_lists(child) }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(strip_defaults_in_lists),
        _ => {}
    }
}

/// The bounds that Kubernetes' own types have, which the derived schema lacks.
fn bound_conditions(fields: &mut Value) {
    fields["type"]["maxLength"] = 316.into();
    fields["status"]["enum"] = json!(["True", "False", "Unknown"]);
    fields["reason"]["minLength"] = 1.into();
    fields["reason"]["maxLength"] = 1024.into();
    fields["message"]["maxLength"] = 32768.into();
    fields["observedGeneration"]["minimum"] = 0.into();
}

/// Removes what the API server warns about, or would explain badly: the formats of numbers (every integer that a user
/// writes has bounds instead), nulls as defaults and as enum values, and line breaks in descriptions.
fn strip_unsupported(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.get("format").and_then(Value::as_str).is_some_and(|format| format != "date-time") {
                map.remove("format");
            }
            if map.get("default").is_some_and(Value::is_null) {
                map.remove("default");
            }
            if let Some(values) = map.get_mut("enum").and_then(Value::as_array_mut) {
                values.retain(|value| !value.is_null());
            }
            // Lines of the source are no lines of the text; only an empty one ends a paragraph.
            if let Some(Value::String(text)) = map.get_mut("description") {
                let paragraphs: Vec<_> =
                    text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect();
                *text = paragraphs.join("\n\n");
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
