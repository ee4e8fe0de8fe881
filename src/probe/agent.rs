//! Reading one agent: one GET, under its own deadline, beside the poll of the host it runs on.

use super::{
    Failure, Lane, Owner, PATIENCE_MAX, Prober,
    client::{BODY_MAX, Request},
    limits::Share,
    tls::TlsSettings,
};
use crate::api::endpoint::Endpoint;
use hyper::header::HeaderValue;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout, timeout_at};

/// One agent to be read.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentTarget {
    /// The server that it belongs to.
    pub owner: Owner,
    pub endpoint: Endpoint,
    pub path: String,
    /// Sent as Authorization; marked as sensitive, so that nothing prints it.
    pub authorization: Option<HeaderValue>,
    pub tls: TlsSettings,
    pub timeout: Duration,
    /// How long to wait for the turn at the address and for a slot: past the next poll it makes no sense.
    pub patience: Duration,
    pub lane: Lane,
}

/// What an agent answered.
#[derive(Debug)]
pub struct AgentAnswer {
    pub content_type: Option<String>,
    pub body: Vec<u8>,
    /// When it was here, for rates.
    pub came: std::time::Instant,
}

impl Prober {
    /// The agent's answer, at most 1 MiB. `None`: no slot came free in time, so nothing was asked.
    pub async fn agent(&self, target: &AgentTarget) -> Option<Result<AgentAnswer, Failure>> {
        let deadline = Instant::now() + target.timeout;
        let address = match timeout_at(deadline, self.address_of(&target.endpoint)).await {
            Err(_) => return Some(Err(Failure::DnsFailed)),
            Ok(Err(failure)) => return Some(Err(failure)),
            Ok(Ok(address)) => address,
        };
        // An agent's port may be the host's own, which is asked by one at a time, or that of another server's agents.
        let waiting = async {
            let share = Share::With(Arc::clone(&target.owner));
            let turn = self.limits.turn(address, target.endpoint.port, share).await?;
            self.limits.agent_slot(target.lane).await.map(|slot| (turn, slot))
        };
        let (turn, slot) = timeout(target.patience.min(PATIENCE_MAX), waiting).await.ok()??;
        let deadline = Instant::now() + target.timeout;
        let result = timeout_at(deadline, self.read(target)).await.unwrap_or(Err(Failure::Timeout));
        drop((turn, slot));
        Some(result)
    }

    async fn read(&self, target: &AgentTarget) -> Result<AgentAnswer, Failure> {
        let request = Request {
            endpoint: &target.endpoint,
            path: &target.path,
            host_header: None,
            lane: target.lane,
            authorization: target.authorization.as_ref(),
            tls: &target.tls,
            body_max: BODY_MAX,
            last: true,
        };
        let answer = self.clients.get(request).await?;
        match answer.status {
            // For an agent a missing path is a wrong port or endpoint.
            404 | 405 => Err(Failure::InvalidResponse),
            _ => answer.success().map(|answer| AgentAnswer {
                content_type: answer.content_type,
                body: answer.body,
                came: Instant::now().into_std(),
            }),
        }
    }
}
