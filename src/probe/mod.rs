//! Talking to hosts and agents. The only place that dials anything: every connection passes the address policy, one
//! deadline covers a whole poll, and every body has a cap.
//!
//! ```text
//! Prober::host(target) ── resolve (checked) ── turn at an address ── backend (ollama | openai | generic) ─▶ HostReport
//! Prober::agent(target) ─ resolve (checked) ── turn at an address ── one GET ─▶ body
//! ```

pub mod address;
mod agent;
mod agent_failure;
mod client;
mod clients;
mod connect;
pub mod credential;
mod failure;
mod fair;
mod generic;
pub mod health;
mod limits;
mod ollama;
mod openai;
pub mod openai_wire;
pub mod report;
mod resolve;
mod shape;
pub mod text;
pub mod tls;
mod turns;
mod visit;
pub mod wire;

pub use agent::{AgentAnswer, AgentTarget};
pub use agent_failure::{AgentFailure, MESSAGE_MAX};
pub use client::{ClientError, Lane};
pub use failure::Failure;
pub use limits::Owner;
pub use resolve::NameServers;

use crate::{
    api::{endpoint::Endpoint, ollama_server::BackendType},
    metrics::Metrics,
};
use address::{AddressPolicy, SharedPolicy};
use client::{ACCEPT_ANY, Answer, BODY_MAX, HttpClients, Request, Route};
use fair::Slot;
use hyper::header::HeaderValue;
use limits::Limits;
use report::HostReport;
use resolve::CheckedResolver;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tls::TlsSettings;
use tokio::{sync::watch, time::Instant};
use turns::Asker;
use visit::{Question, Visit};

/// One host to be polled, and how.
#[derive(Clone, Debug)]
pub struct HostTarget {
    /// The server that it belongs to.
    pub owner: Owner,
    pub endpoint: Endpoint,
    pub backend: BackendType,
    pub host_header: Option<HeaderValue>,
    /// Sent as Authorization; marked as sensitive, so that nothing prints it.
    pub authorization: Option<HeaderValue>,
    pub tls: TlsSettings,
    /// Bounds everything from the name lookup to the last byte.
    pub timeout: Duration,
    pub lane: Lane,
    /// Whether the list of models on disk is due.
    pub with_models: bool,
    pub manner: Manner,
}

/// What is known of a host that decides what it is asked, and in which order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// The path that tells of the server's health, if the spec names one; only for backends that are asked for it.
    pub health_path: Option<Arc<str>>,
    /// The list of models was due last time as well, and what is asked before it took all the time.
    pub models_first: bool,
    /// This host has shown a list of models before, so that it is known to speak its backend's API.
    pub proven: bool,
}

impl Question for HostTarget {
    type Answer = HostReport;

    fn visit(&self) -> Visit<'_> {
        // Ollama is asked one thing at a time; the agent of another backend, at the port of that backend, may be read
        // beside it.
        let asker = match self.backend {
            BackendType::Ollama => Asker::alone(&self.owner),
            _ => Asker::beside_its_own(&self.owner),
        };
        Visit { endpoint: &self.endpoint, owner: &self.owner, asker, tls: &self.tls, time: self.timeout }
    }

    async fn slot(&self, limits: &Limits) -> Option<Slot> {
        limits.host_slot(self.lane, &self.owner.namespace).await
    }

    async fn ask(&self, prober: &Prober, route: &Route, deadline: Instant) -> Result<HostReport, Failure> {
        let ask = Ask { prober, target: self, route, deadline, answered: AtomicBool::new(false) };
        match self.backend {
            BackendType::Ollama => ollama::poll(&ask).await,
            BackendType::Vllm => openai::poll(&ask).await,
            // A provider plugin is asked elsewhere; until it exists such a server is not accepted.
            BackendType::Generic | BackendType::Plugin => generic::poll(&ask).await,
        }
    }
}

/// How a poll ended.
#[derive(Clone, Debug, PartialEq)]
pub enum HostOutcome {
    Online(HostReport),
    Failed(Failure),
    /// Nothing was asked, because no slot came free or another object kept asking the same address.
    Skipped,
}

/// Asks hosts and agents. Cheap to clone.
#[derive(Clone)]
pub struct Prober {
    clients: HttpClients,
    resolver: CheckedResolver,
    policy: Arc<SharedPolicy>,
    limits: Limits,
    metrics: Arc<Metrics>,
}

impl Prober {
    pub fn new(
        policy: Arc<SharedPolicy>,
        servers: NameServers,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ClientError> {
        let resolver = CheckedResolver::new(Arc::clone(&policy), servers);
        let limits = Limits::default();
        let clients = HttpClients::new(resolver.clone(), Arc::clone(&policy), limits.clone())?;
        Ok(Self { clients, resolver, policy, limits, metrics })
    }

    /// The address policy of now.
    pub fn policy(&self) -> Arc<AddressPolicy> {
        self.policy.get()
    }

    /// Tells when the address policy is another.
    pub fn policy_changes(&self) -> watch::Receiver<()> {
        self.policy.changes()
    }

    /// Polls one host. Waiting for a slot and for the turn does not count against the host's deadline.
    pub async fn host(&self, target: &HostTarget) -> HostOutcome {
        match self.visit(target).await {
            None => HostOutcome::Skipped,
            Some(Ok(report)) => HostOutcome::Online(report),
            Some(Err(failure @ Failure::TooManyOpenFiles)) => {
                self.metrics.poll_failed(failure);
                HostOutcome::Skipped
            }
            Some(Err(failure)) => HostOutcome::Failed(failure),
        }
    }
}

/// One poll under way: what a backend needs to ask, and nothing else.
struct Ask<'a> {
    prober: &'a Prober,
    target: &'a HostTarget,
    route: &'a Route,
    deadline: Instant,
    /// The host has answered before, and may have kept the connection.
    answered: AtomicBool,
}

impl Ask<'_> {
    /// Asks for one path; whatever happens, it is over by the poll's deadline.
    async fn get(&self, path: &str, body_max: usize, last: bool) -> Result<Answer, Failure> {
        self.ask(path, call(path), body_max, false, last).await
    }

    async fn ask(
        &self,
        path: &str,
        call: &'static str,
        body_max: usize,
        begin_is_enough: bool,
        last: bool,
    ) -> Result<Answer, Failure> {
        // What was asked before has taken all the time: nothing is sent that nobody would read.
        if self.deadline <= Instant::now() {
            return Err(Failure::Timeout);
        }
        let request = Request {
            route: self.route,
            endpoint: &self.target.endpoint,
            path,
            namespace: &self.target.owner.namespace,
            host_header: self.target.host_header.as_ref(),
            accept: ACCEPT_ANY,
            lane: self.target.lane,
            authorization: self.target.authorization.as_ref(),
            tls: &self.target.tls,
            body_max,
            begin_is_enough,
            deadline: self.deadline,
            last,
        };
        let started = Instant::now();
        let answer = self.prober.clients.get(request).await;
        // A host may end a kept connection whenever it likes, also when the next request is under way already. That says
        // nothing about the host, so it is asked once more, on a new one.
        let may_be_old = self.answered.swap(answer.is_ok(), Relaxed);
        let answer = match answer {
            Err(Failure::ConnectionRefused) if may_be_old => self.prober.clients.get(request).await,
            answer => answer,
        };
        self.prober.metrics.request_took(call, started.elapsed());
        answer
    }

    async fn get_small(&self, path: &str, last: bool) -> Result<Answer, Failure> {
        self.get(path, BODY_MAX, last).await
    }

    /// The path that tells of the server's health. It may be any, so it has one label in metrics.
    async fn get_health(&self, path: &str, last: bool) -> Result<Answer, Failure> {
        self.ask(path, "health", BODY_MAX, true, last).await
    }
}

/// The label of a request in metrics.
fn call(path: &str) -> &'static str {
    match path {
        "/api/version" | "/version" => "version",
        "/api/ps" => "ps",
        "/api/tags" => "tags",
        "/v1/models" => "models",
        "/props" => "props",
        _ => "root",
    }
}
