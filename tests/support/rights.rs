//! Who the operator under test is: the chart's ServiceAccount, with what the chart renders and nothing more.
//!
//! `TEST_RIGHTS=namespaced` runs the operators of all tests that name their namespaces as `watchNamespaces` does: with
//! Roles in these, and cluster-wide only what has no namespace.

use super::{PATIENCE, child, control_plane, control_plane::helm_command, eventually};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    authorization::v1::SubjectAccessReview,
    core::v1::{Namespace, ServiceAccount},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    env,
    path::{Path, PathBuf},
    sync::OnceLock,
};
use tempfile::TempDir;
use tokio::sync::Mutex;

const CHART: &str = "charts/ollama-fleet-operator";
const VALUES: &str = "charts/ollama-fleet-operator/ci/minimal-values.yaml";
/// The release's namespace. Only the ServiceAccount is in it; the operator itself is a process of the test.
const HOME: &str = "operator-under-test";
const ACCOUNT: &str = "ollama-fleet-operator";
/// Replaced in what the chart renders; helm is asked once a mode and not once a test.
const PLACEHOLDER: &str = "namespace-of-a-test";
/// Longer than any soak.
const TOKEN_SECONDS: i64 = 48 * 3600;

/// How far the chart's rights reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// The default values: the fleet of the whole cluster.
    Cluster,
    /// `watchNamespaces`.
    Namespaces,
}

impl Reach {
    /// Of an operator that watches these; without any it watches everything, which takes rights on everything.
    pub fn of_tests(namespaces: &[String]) -> Self {
        let narrow = env::var_os("TEST_RIGHTS").is_some_and(|value| value == "namespaced");
        if narrow && !namespaces.is_empty() { Self::Namespaces } else { Self::Cluster }
    }

    /// The chart's roles, bindings and accounts, for servers and Secrets in [`PLACEHOLDER`].
    fn rendered(self) -> &'static [Value] {
        static RENDERED: [OnceLock<Vec<Value>>; 2] = [const { OnceLock::new() }; 2];
        RENDERED[self as usize].get_or_init(|| {
            let folder = TempDir::new().unwrap();
            let secrets = format!("secretNamespaces={{{PLACEHOLDER}}}");
            let watched = format!("watchNamespaces={{{PLACEHOLDER}}}");
            let mut args = vec!["template", ACCOUNT, CHART, "-f", VALUES, "-n", HOME, "--set", &secrets];
            // Two releases: the cluster-wide objects of one would replace those of the other.
            let release = format!("fullnameOverride={}", self.account());
            args.extend(["--set", &release]);
            if self == Self::Namespaces {
                args.extend(["--set", &watched]);
            }
            let text = child::run(&mut helm_command(folder.path(), &args), None).ok();
            let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
            let of_rights = |object: &Value| {
                object["apiVersion"] == "rbac.authorization.k8s.io/v1" || object["kind"] == "ServiceAccount"
            };
            objects.into_iter().filter(of_rights).collect()
        })
    }

    fn account(self) -> &'static str {
        match self {
            Self::Cluster => ACCOUNT,
            Self::Namespaces => "ollama-fleet-operator-namespaced",
        }
    }

    fn user(self) -> String {
        format!("system:serviceaccount:{HOME}:{}", self.account())
    }
}

/// A kubeconfig of the chart's ServiceAccount on this control plane, which may then do what the chart lets it do with the
/// objects in these namespaces and, if asked for, their Secrets.
pub async fn kubeconfig(admin: &Path, folder: &Path, namespaces: &[String], secrets: bool) -> PathBuf {
    /// What is installed already: kubeconfig of the administrator, reach, and namespace.
    static INSTALLED: Mutex<Option<HashSet<(PathBuf, Reach, String)>>> = Mutex::const_new(None);
    let reach = Reach::of_tests(namespaces);
    let file = folder.join(format!("{}.kubeconfig", reach.account()));
    let mut guard = INSTALLED.lock().await;
    let installed = guard.get_or_insert_default();
    let mut wanted: Vec<(Option<&str>, String)> = vec![(None, String::new())];
    for namespace in namespaces {
        wanted.push((Some(namespace), namespace.clone()));
        if secrets {
            wanted.push((Some(namespace), format!("{namespace}/secrets")));
        }
    }
    for (namespace, key) in wanted {
        let key = (admin.to_owned(), reach, key);
        if installed.contains(&key) {
            continue;
        }
        let client = control_plane::client(admin).await;
        let of_secrets = key.2.ends_with("/secrets");
        install(&client, reach, namespace, of_secrets).await;
        if namespace.is_none() {
            write_kubeconfig(&client, reach, admin, &file).await;
        }
        installed.insert(key);
    }
    file
}

/// Applies the part of the chart's rights that belongs to this namespace, or to none of a test's, and waits until the
/// API server goes by it.
async fn install(client: &Client, reach: Reach, namespace: Option<&str>, secrets: bool) {
    let parameters = PatchParams::apply("tests").force();
    if namespace.is_none() {
        let home = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": HOME } });
        Api::<Namespace>::all(client.clone()).patch(HOME, &parameters, &Patch::Apply(home)).await.unwrap();
    }
    for object in reach.rendered() {
        let placed = object["metadata"]["namespace"] == PLACEHOLDER;
        let of_secrets =
            object["roleRef"]["name"].as_str().is_some_and(|name| name.ends_with("-secret-reader"));
        if placed != namespace.is_some() || (placed && of_secrets != secrets) {
            continue;
        }
        let text = object.to_string().replace(PLACEHOLDER, namespace.unwrap_or_default());
        let object: DynamicObject = serde_json::from_str(&text).unwrap();
        let types = object.types.clone().unwrap();
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types).unwrap());
        let api: Api<DynamicObject> = match object.namespace() {
            Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        api.patch(&object.name_any(), &parameters, &Patch::Apply(&object)).await.unwrap();
    }
    let attributes = match (namespace, reach) {
        (None, _) => {
            json!({ "group": "authentication.k8s.io", "resource": "tokenreviews", "verb": "create" })
        }
        (Some(namespace), _) if secrets => {
            json!({ "resource": "secrets", "verb": "get", "name": "any", "namespace": namespace })
        }
        (Some(namespace), _) => json!({ "group": "ollama-fleet.io", "resource": "ollamaservers",
            "subresource": "status", "verb": "patch", "namespace": namespace }),
    };
    let review = json!({ "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": { "user": reach.user(), "resourceAttributes": attributes } });
    let review: SubjectAccessReview = serde_json::from_value(review).unwrap();
    let reviews = Api::<SubjectAccessReview>::all(client.clone());
    eventually(PATIENCE, "the chart's rights are in force", async || {
        let answer =
            reviews.create(&PostParams::default(), &review).await.map_err(|error| error.to_string())?;
        let status = answer.status.unwrap_or_default();
        if status.allowed { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}

async fn write_kubeconfig(client: &Client, reach: Reach, admin: &Path, file: &Path) {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), HOME);
    let spec = TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let answer =
        accounts.create_token_request(reach.account(), &PostParams::default(), &request).await.unwrap();
    let token = answer.status.expect("a token was asked for").token;
    let mut kubeconfig: Value = serde_saphyr::from_str(&std::fs::read_to_string(admin).unwrap()).unwrap();
    kubeconfig["users"][0]["user"] = json!({ "token": token });
    // JSON is YAML.
    std::fs::write(file, kubeconfig.to_string()).unwrap();
}
