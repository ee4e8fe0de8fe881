//! The operator's pod under the Pod Security level *restricted*, which the API server itself enforces.

use crate::{
    chart::{EVERYTHING, MINIMAL, of_kind, render},
    support::{ControlPlane, Namespace},
};
use serde_json::{Value, json};

/// A pod made from the Deployment's template is admitted to a namespace that enforces *restricted*, without a warning. One
/// with any part of its confinement taken away is not, so it is the level that admits it and not its absence.
#[tokio::test]
async fn the_pod_is_restricted_and_a_spoiled_one_is_refused() {
    let control_plane = ControlPlane::shared();
    let enforce = [("pod-security.kubernetes.io/enforce", "restricted")];
    let namespace = Namespace::with_labels(control_plane, &enforce).await;
    let create = |pod: &Value| {
        let args = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
        control_plane.kubectl(&args, Some(&pod.to_string()))
    };
    for values in [MINIMAL, EVERYTHING] {
        let objects = render(values, &namespace);
        for account in of_kind(&objects, "ServiceAccount") {
            control_plane.kubectl(&["apply", "-f", "-"], Some(&account.to_string())).ok();
        }
        let output = create(&pod_of(&objects, &namespace));
        assert_eq!(output.stderr, "", "{values}");
        output.ok();
    }
    let good = pod_of(&render(MINIMAL, &namespace), &namespace);
    let spoils: [(&str, Value, &str); 12] = [
        ("/spec/securityContext/runAsNonRoot", Value::Null, "runAsNonRoot"),
        ("/spec/securityContext/runAsNonRoot", false.into(), "runAsNonRoot"),
        ("/spec/securityContext/runAsUser", 0.into(), "runAsUser=0"),
        ("/spec/securityContext/seccompProfile", Value::Null, "seccompProfile"),
        ("/spec/securityContext/seccompProfile/type", "Unconfined".into(), "seccompProfile"),
        (
            "/spec/containers/0/securityContext/allowPrivilegeEscalation",
            true.into(),
            "allowPrivilegeEscalation",
        ),
        (
            "/spec/containers/0/securityContext/allowPrivilegeEscalation",
            Value::Null,
            "allowPrivilegeEscalation",
        ),
        ("/spec/containers/0/securityContext/capabilities/drop", json!([]), "unrestricted capabilities"),
        ("/spec/containers/0/securityContext/capabilities/add", json!(["NET_ADMIN"]), "capabilities"),
        ("/spec/hostNetwork", true.into(), "host namespaces"),
        ("/spec/hostPID", true.into(), "host namespaces"),
        ("/spec/volumes", json!([{ "name": "root", "hostPath": { "path": "/" } }]), "hostPath"),
    ];
    for (path, value, says) in spoils {
        let mut pod = good.clone();
        let (parent, field) = path.rsplit_once('/').unwrap();
        pod.pointer_mut(parent).unwrap_or_else(|| panic!("the pod has no {parent}"))[field] = value.clone();
        let said = create(&pod).refused();
        assert!(said.contains("violates PodSecurity \"restricted"), "{path}={value}: {said}");
        assert!(said.contains(says), "{path}={value}: {said}");
    }
}

/// What the level does not ask for and the chart gives all the same: nothing of the root file system can be written, and
/// no variables about other Services are handed in.
#[test]
fn the_pod_is_tighter_than_the_level() {
    for values in [MINIMAL, EVERYTHING] {
        let pod = pod_of(&render(values, "fleet"), "fleet");
        let container = &pod["spec"]["containers"][0];
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{values}");
        assert_eq!(pod["spec"]["enableServiceLinks"], false, "{values}");
        assert!(container["resources"]["limits"]["memory"].is_string(), "{values}");
        for volume in pod["spec"]["volumes"].as_array().into_iter().flatten() {
            assert!(volume["secret"].is_object(), "{values}: {volume}");
        }
    }
}

fn pod_of(objects: &[Value], namespace: &str) -> Value {
    let template = &of_kind(objects, "Deployment")[0]["spec"]["template"];
    let mut pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"] });
    pod["metadata"]["name"] = "operator".into();
    pod["metadata"]["namespace"] = namespace.into();
    pod
}
