//! A proxy between an operator and the real API server that does what networks and API servers do on bad days.
//!
//! It runs on a runtime of its own, so that a test may block. Towards the operator it speaks plain HTTP on loopback;
//! towards the API server it is the control plane's administrator, unless a request brings a token of its own. It writes
//! down every request, and what it does to them is said by rules: the first rule that matches and is not used up acts.
//! It knows nothing of the operator's kinds.

mod request;
mod serve;
mod watches;

pub use request::{Answer, Fault, Match, Request};
pub use watches::Cut;

use super::{ControlPlane, control_plane::config, http};
use request::Rule;
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime};
use watches::{Editor, OpenWatch, Order};

/// A running proxy; connections through it end with it.
pub struct ApiProxy {
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
    address: SocketAddr,
    folder: TempDir,
}

struct Shared {
    administrator: kube::Client,
    /// Without a certificate: for requests that bring a token.
    nobody: kube::Client,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    requests: Vec<Request>,
    watches: Vec<OpenWatch>,
    /// What becomes of an event of a watch.
    editor: Option<Editor>,
}

impl ApiProxy {
    pub fn start(control_plane: &ControlPlane) -> Self {
        http::install_provider();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let kubeconfig = control_plane.kubeconfig().to_owned();
        // A runtime cannot be waited for from within another, hence the thread.
        let handle = runtime.handle().clone();
        let started = std::thread::spawn(move || {
            handle.block_on(async {
                let config = config(&kubeconfig).await;
                let mut without = config.clone();
                without.auth_info = kube::config::AuthInfo::default();
                let shared = Arc::new(Shared {
                    administrator: kube::Client::try_from(config).unwrap(),
                    nobody: kube::Client::try_from(without).unwrap(),
                    state: Mutex::default(),
                });
                let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
                let address = listener.local_addr().unwrap();
                tokio::spawn(serve::run(listener, Arc::clone(&shared)));
                (shared, address)
            })
        });
        let (shared, address) = started.join().unwrap();
        let folder = tempfile::Builder::new().prefix("apiserver-proxy-").tempdir().unwrap();
        let proxy = Self { shared, runtime: Some(runtime), address, folder };
        std::fs::write(proxy.kubeconfig(), proxy.kubeconfig_for(json!({})).to_string()).unwrap();
        proxy
    }

    /// For `Builder::kubeconfig`.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// A folder for files of the test; removed at the end.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A kubeconfig with a user of the test's own, such as `{"token": …}` or `{"tokenFile": …}`.
    pub fn kubeconfig_for(&self, user: Value) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "proxy", "user": user}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        })
    }

    /// From now on this is done to every request that matches.
    pub fn fault(&self, matches: Match, fault: Fault) {
        self.rule(matches, 0, None, fault);
    }

    /// This is done to the next so many requests that match.
    pub fn fault_times(&self, matches: Match, times: usize, fault: Fault) {
        self.rule(matches, 0, Some(times), fault);
    }

    /// This is done to one request: the `nth` that matches from now on, counted from 1.
    pub fn fault_nth(&self, matches: Match, nth: usize, fault: Fault) {
        self.rule(matches, nth - 1, Some(1), fault);
    }

    fn rule(&self, matches: Match, skip: usize, left: Option<usize>, fault: Fault) {
        self.lock().rules.push(Rule { matches, skip, left, fault });
    }

    /// The API server is well again: no rule is left, and events pass as they are.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.rules.clear();
        state.editor = None;
    }

    /// Every request so far, in the order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.lock().requests.clone()
    }

    /// The requests so far that match.
    pub fn seen(&self, matches: &Match) -> Vec<Request> {
        self.lock().requests.iter().filter(|request| matches.matches(request)).cloned().collect()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.lock().requests.clear();
    }

    /// Watches of a resource that are open right now.
    pub fn open_watches(&self, resource: &str) -> usize {
        self.lock().open(resource).count()
    }

    /// What becomes of each event of a watch from now on: the events that are sent in its place.
    pub fn edit_events(&self, editor: impl Fn(&str, Value) -> Vec<Value> + Send + Sync + 'static) {
        self.lock().editor = Some(Arc::new(editor));
    }

    /// Sends an event into the open watches of a resource.
    pub fn inject(&self, resource: &str, event: &Value) {
        self.order(resource, &Order::Send(format!("{event}\n")));
    }

    /// Ends the open watches of a resource.
    pub fn cut(&self, resource: &str, cut: Cut) {
        self.order(resource, &Order::Cut(cut));
    }

    /// The open watches of a resource stay open, and nothing ever comes through them any more.
    pub fn mute(&self, resource: &str) {
        self.order(resource, &Order::Mute);
    }

    fn order(&self, resource: &str, order: &Order) {
        let state = self.lock();
        for watch in state.open(resource) {
            let _ = watch.orders.send(order.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn open(&self, resource: &str) -> impl Iterator<Item = &OpenWatch> {
        self.watches.iter().filter(move |watch| watch.resource == resource && !watch.orders.is_closed())
    }

    /// What is done to this request.
    fn fault_for(&mut self, request: &Request) -> Option<Fault> {
        for rule in &mut self.rules {
            if rule.left == Some(0) || !rule.matches.matches(request) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            rule.left = rule.left.map(|left| left - 1);
            return Some(rule.fault.clone());
        }
        None
    }
}
