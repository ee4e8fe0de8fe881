//! Reading one agent: one GET, under its own deadline, beside the poll of the host it runs on.

use super::{
    AgentFailure, Failure, Lane, Owner, Prober,
    client::{BODY_MAX, Request, Route},
    fair::Slot,
    limits::{Limits, Namespace},
    tls::TlsSettings,
    turns::Asker,
    visit::{Question, Visit},
};
use crate::{api::endpoint::Endpoint, plugins::values::Arrival};
use hyper::header::HeaderValue;
use k8s_openapi::jiff::Timestamp;
use std::time::Duration;
use tokio::time::Instant;

/// Answers from which on taking them apart may take so long that others should not wait for it. Those of agents are
/// some kilobytes; exporters' reach 150.
const LARGE_ANSWER: usize = 64 * 1024;

/// One agent to be read.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentTarget {
    /// The server that it belongs to.
    pub owner: Owner,
    pub endpoint: Endpoint,
    pub path: String,
    /// What to ask for.
    pub accept: &'static str,
    /// Sent as Authorization; marked as sensitive, so that nothing prints it.
    pub authorization: Option<HeaderValue>,
    pub tls: TlsSettings,
    pub timeout: Duration,
    pub lane: Lane,
}

/// What an agent answered.
#[derive(Debug)]
pub struct AgentAnswer {
    pub content_type: Option<String>,
    pub body: Vec<u8>,
    /// When it was here.
    pub came: Arrival,
    /// Of a large body: so many bodies are here at once, also while they wait to be taken apart.
    _room: Option<Slot>,
}

impl Prober {
    /// The agent's answer, at most 1 MiB. `None`: no slot came free in time, so nothing was asked.
    pub async fn agent(&self, target: &AgentTarget) -> Option<Result<AgentAnswer, AgentFailure>> {
        let result = self.visit(target).await?;
        match result {
            Err(Failure::TooManyOpenFiles) => None,
            Err(failure) => Some(Err(failure.into())),
            Ok(answer) => Some(answer),
        }
    }

    /// A slot for taking an answer apart that is so large that others could have to wait for it; `None` if it is not.
    pub async fn parsing_slot(&self, namespace: &Namespace, answer: &AgentAnswer) -> Option<Slot> {
        if answer.body.len() < LARGE_ANSWER { None } else { self.limits.parsing_slot(namespace).await }
    }
}

impl Question for AgentTarget {
    /// A status other than 2xx is an answer to the question too.
    type Answer = Result<AgentAnswer, AgentFailure>;

    fn visit(&self) -> Visit<'_> {
        // An agent's port may be the host's own, which is asked by one at a time, or that of another server's agents.
        let asker = Asker::beside_its_own(&self.owner);
        Visit { endpoint: &self.endpoint, owner: &self.owner, asker, tls: &self.tls, time: self.timeout }
    }

    async fn slot(&self, limits: &Limits) -> Option<Slot> {
        limits.agent_slot(self.lane, &self.owner.namespace).await
    }

    async fn ask(&self, prober: &Prober, route: &Route, deadline: Instant) -> Result<Self::Answer, Failure> {
        let request = Request {
            route,
            endpoint: &self.endpoint,
            path: &self.path,
            namespace: &self.owner.namespace,
            host_header: None,
            accept: self.accept,
            lane: self.lane,
            authorization: self.authorization.as_ref(),
            tls: &self.tls,
            body_max: BODY_MAX,
            begin_is_enough: false,
            deadline,
            last: true,
        };
        let answer = prober.clients.get(request).await?;
        let status = answer.status;
        let Ok(answer) = answer.success() else {
            return Ok(Err(AgentFailure::status(status, &self.path)));
        };
        Ok(Ok(AgentAnswer {
            content_type: answer.content_type,
            body: answer.body,
            came: Arrival { at: Instant::now().into_std(), clock: Timestamp::now() },
            _room: answer.room,
        }))
    }
}
