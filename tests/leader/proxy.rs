//! A proxy before the API server that can spoil everything about Leases and nothing else, and that writes down every
//! other request that changes something: the witness of what a replica sends.

use crate::support::ControlPlane;
use axum::{
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use kube::Client;
use serde_json::json;
use std::{
    future::pending,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// It is taken, and never answered.
    Hang,
    /// It is answered with this.
    Answer(u16, &'static str),
}

#[derive(Clone)]
struct Shared {
    client: Client,
    leases: Arc<Mutex<Fault>>,
    /// For requests that change something other than a Lease.
    writes: Arc<Mutex<Fault>>,
    seen: Arc<Mutex<Vec<String>>>,
}

/// A running proxy; it ends with the test.
pub struct Proxy {
    shared: Shared,
    kubeconfig: PathBuf,
    _folder: TempDir,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(control_plane: &ControlPlane) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let shared = Shared {
            client: control_plane.client().await,
            leases: Arc::new(Mutex::new(Fault::None)),
            writes: Arc::new(Mutex::new(Fault::None)),
            seen: Arc::default(),
        };
        let router = axum::Router::new().fallback(forward).with_state(shared.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let folder = tempfile::Builder::new().prefix("proxy-").tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": server}}],
            "users": [{"name": "proxy", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}]});
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        Self { shared, kubeconfig, _folder: folder, task }
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    pub fn leases(&self, fault: Fault) {
        *self.shared.leases.lock().unwrap() = fault;
    }

    pub fn writes(&self, fault: Fault) {
        *self.shared.writes.lock().unwrap() = fault;
    }

    /// Every request so far that would change something other than a Lease.
    pub fn seen(&self) -> Vec<String> {
        self.shared.seen.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(State(shared): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().unwrap().as_str();
    let fault = if path.contains("/leases") {
        *shared.leases.lock().unwrap()
    } else if parts.method == Method::GET {
        Fault::None
    } else {
        shared.seen.lock().unwrap().push(format!("{} {path}", parts.method));
        *shared.writes.lock().unwrap()
    };
    match fault {
        Fault::None => {}
        Fault::Hang => pending().await,
        Fault::Answer(code, reason) => {
            let status = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code,
                "reason": reason, "message": "spoilt by the test"});
            let json = [(header::CONTENT_TYPE, "application/json")];
            return (StatusCode::from_u16(code).unwrap(), json, status.to_string()).into_response();
        }
    }
    let body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
    let mut request = axum::http::Request::builder().method(&parts.method).uri(path);
    for name in [header::CONTENT_TYPE, header::ACCEPT] {
        if let Some(value) = parts.headers.get(&name) {
            request = request.header(name, value);
        }
    }
    match shared.client.send(request.body(body.into()).unwrap()).await {
        Ok(answer) => answer.map(Body::new),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}
