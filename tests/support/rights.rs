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
///
/// `lease` is where the test wants its Lease; as in the release's namespace, a Role for it is made there.
pub async fn kubeconfig(
    admin: &Path,
    folder: &Path,
    namespaces: &[String],
    secrets: bool,
    lease: Option<&str>,
) -> PathBuf {
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
    if let Some(namespace) = lease {
        wanted.push((Some(namespace), format!("{namespace}/lease")));
    }
    for (namespace, key) in wanted {
        let key = (admin.to_owned(), reach, key);
        if installed.contains(&key) {
            continue;
        }
        let client = control_plane::client(admin).await;
        let part = match key.2.split_once('/') {
            _ if namespace.is_none() => Part::Cluster,
            Some((_, "secrets")) => Part::Secrets,
            Some(_) => Part::Lease,
            None => Part::Fleet,
        };
        install(&client, reach, namespace, part).await;
        if namespace.is_none() {
            write_kubeconfig(&client, reach, admin, &file).await;
        }
        installed.insert(key);
    }
    file
}

/// What of the chart's rights is installed at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Everything that belongs to no namespace of a test.
    Cluster,
    /// The Role for servers and plugins of a namespace, if the reach is that.
    Fleet,
    /// The binding to the reader of Secrets of a namespace.
    Secrets,
    /// The Role for the Lease, in a namespace of a test instead of the release's.
    Lease,
}

impl Part {
    /// The object as it is to be applied, if it belongs to this part.
    fn of(self, object: &Value, namespace: Option<&str>) -> Option<String> {
        let placed = object["metadata"]["namespace"] == PLACEHOLDER;
        let named =
            |suffix: &str| object["metadata"]["name"].as_str().is_some_and(|name| name.ends_with(suffix));
        let (secrets, lease) = (named("-secret-reader"), named("-leader-election"));
        let (belongs, from) = match self {
            Self::Cluster => (!placed, PLACEHOLDER),
            Self::Fleet => (placed && !secrets, PLACEHOLDER),
            Self::Secrets => (placed && secrets, PLACEHOLDER),
            Self::Lease => (lease, HOME),
        };
        let mut object = object.clone();
        if let Some(namespace) = namespace
            && object["metadata"]["namespace"] == from
        {
            object["metadata"]["namespace"] = namespace.into();
        }
        belongs.then(|| object.to_string())
    }
}

/// Applies a part of the chart's rights, and waits until the API server goes by it.
async fn install(client: &Client, reach: Reach, namespace: Option<&str>, part: Part) {
    let parameters = PatchParams::apply("tests").force();
    if part == Part::Cluster {
        let home = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": HOME } });
        Api::<Namespace>::all(client.clone()).patch(HOME, &parameters, &Patch::Apply(home)).await.unwrap();
    }
    for text in reach.rendered().iter().filter_map(|object| part.of(object, namespace)) {
        let object: DynamicObject = serde_json::from_str(&text).unwrap();
        let types = object.types.clone().unwrap();
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types).unwrap());
        let api: Api<DynamicObject> = match object.namespace() {
            Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        api.patch(&object.name_any(), &parameters, &Patch::Apply(&object)).await.unwrap();
    }
    let namespace = namespace.unwrap_or_default();
    let attributes = match part {
        Part::Cluster => {
            json!({ "group": "authentication.k8s.io", "resource": "tokenreviews", "verb": "create" })
        }
        Part::Fleet => {
            json!({ "group": "ollama-fleet.io", "resource": "ollamaservers", "subresource": "status",
            "verb": "patch", "namespace": namespace })
        }
        Part::Secrets => {
            json!({ "resource": "secrets", "verb": "get", "name": "any", "namespace": namespace })
        }
        Part::Lease => json!({ "group": "coordination.k8s.io", "resource": "leases", "verb": "create",
            "namespace": namespace }),
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
    kubeconfig["contexts"][0]["context"]["namespace"] = HOME.into();
    // JSON is YAML.
    std::fs::write(file, kubeconfig.to_string()).unwrap();
}
