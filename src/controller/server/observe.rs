//! IO in: one round of asking the host.

use super::{
    accept::Accepted,
    assess::{AgentObservation, Memory, Observation},
};
use crate::{
    controller::{
        context::Context,
        credentials::{Credentials, Place, References, Renewal, Unobtained},
    },
    metrics::Metrics,
    probe::{Failure, HostOutcome, HostTarget, Lane, Manner, Owner},
};
use std::{future::pending, mem::take, sync::Arc};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// Why a poll was begun.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The request that it answers: the annotation's value when it began.
    pub request: Option<String>,
    /// It was begun for that request only, and does not count towards the failure threshold.
    pub extra: bool,
}

/// The poll of the host that is under way, and what has come of it.
#[derive(Default)]
pub struct Round {
    running: Option<AbortOnDropHandle<HostOutcome>>,
    asked: Asked,
    outcome: Option<(HostOutcome, Instant)>,
    /// What agents said since the last assessment, whenever they were asked.
    agents: Vec<AgentObservation>,
}

impl Round {
    pub fn start(
        &mut self,
        context: &Arc<Context>,
        references: References,
        target: HostTarget,
        asked: Asked,
    ) {
        let context = Arc::clone(context);
        self.asked = asked;
        let poll = async move { poll(&context, &references, target).await };
        self.running = Some(AbortOnDropHandle::new(tokio::spawn(poll)));
    }

    /// Whether the host is still being asked, or its answer waits for the agents.
    pub fn is_running(&self) -> bool {
        self.running.is_some() || self.outcome.is_some()
    }

    /// Resolves when the host has answered or its deadline has passed; never, if nothing is under way.
    pub async fn finished(&mut self, metrics: &Metrics) -> HostOutcome {
        let Some(running) = &mut self.running else { return pending().await };
        let outcome = running.await;
        self.running = None;
        // A bug in a parser costs this poll of this host and nothing else.
        outcome.unwrap_or_else(|error| {
            tracing::error!(%error, "a poll ended by a bug");
            metrics.panicked();
            HostOutcome::Failed(Failure::InvalidResponse)
        })
    }

    pub fn host_answered(&mut self, outcome: HostOutcome, grace_until: Instant) {
        self.outcome = Some((outcome, grace_until));
    }

    pub fn agent_answered(&mut self, observation: Option<AgentObservation>) {
        if let Some(observation) = observation {
            // Only the newest word of each agent counts.
            self.agents.retain(|older| older.plugin != observation.plugin);
            self.agents.push(observation);
        }
    }

    /// A plugin that is asked elsewhere now has not said what it said.
    pub fn forget(&mut self, plugin: &str) {
        self.agents.retain(|observation| observation.plugin != plugin);
    }

    pub fn has_host(&self) -> bool {
        self.outcome.is_some()
    }

    pub fn grace_until(&self) -> Option<Instant> {
        self.outcome.as_ref().map(|(_, until)| *until)
    }

    pub fn grace_is_over(&self, now: Instant) -> bool {
        self.grace_until().is_some_and(|until| until <= now)
    }

    /// What this round has seen, and the request that it answers; agents that are still talking count in the next one.
    pub fn take(&mut self) -> Option<(Observation, Option<String>)> {
        let (host, _) = self.outcome.take()?;
        let Asked { request, extra } = take(&mut self.asked);
        // Nobody was asked, so nothing was answered.
        let request = request.filter(|_| host != HostOutcome::Skipped);
        let agents = take(&mut self.agents);
        Some((Observation::Poll { host, agents, requested: extra }, request))
    }
}

/// Asks the host, with the credentials that are wanted for it or not at all. If it does not take them, and they have been
/// changed since they were read, it is asked once more with the new ones, so that a rotation costs no verdict.
async fn poll(context: &Context, references: &References, target: HostTarget) -> HostOutcome {
    let namespace = Arc::clone(&target.owner.namespace);
    let endpoint = target.endpoint.clone();
    let place = Place { endpoint: &endpoint, checked: !target.tls.skip_verify };
    let credentials = match context.secrets.obtain(&namespace, references, place).await {
        Ok(credentials) => credentials,
        Err(Unobtained::Refused(cause)) => return HostOutcome::Failed(Failure::NoCredential(cause)),
        Err(Unobtained::Away) => return HostOutcome::Skipped,
    };
    let with = |credentials: &Credentials, target: &HostTarget| HostTarget {
        authorization: credentials.authorization.clone(),
        tls: credentials.secure(&target.tls),
        ..target.clone()
    };
    let begin = Instant::now();
    let outcome = context.prober.host(&with(&credentials, &target)).await;
    let HostOutcome::Failed(failure) = outcome else { return outcome };
    if !failure.may_be_of_credentials() {
        return outcome;
    }
    match context.secrets.renew(&namespace, references, place, &credentials).await {
        Renewal::Same => outcome,
        Renewal::Refused(cause) => HostOutcome::Failed(Failure::NoCredential(cause)),
        Renewal::New(credentials) => {
            let left = target.timeout.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return outcome;
            }
            let target = HostTarget { timeout: left, ..target };
            context.prober.host(&with(&credentials, &target)).await
        }
    }
}

/// What of the models on disk is asked this time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// The list is due.
    pub with_models: bool,
    /// It was due last time as well and did not get its turn: it is asked before what is in memory.
    pub models_first: bool,
}

impl Turn {
    /// Whether the list was due and got no turn, because what was asked before it took all the time. A host that hangs at
    /// what is in memory would else never be asked for it. A list that came first had its turn, however it ended: so
    /// each of the two has all the time in every second poll in which both are due.
    pub fn was_missed(self, outcome: &HostOutcome) -> bool {
        let no_time = match outcome {
            HostOutcome::Online(report) => report.models.failure() == Some(Failure::Timeout),
            HostOutcome::Failed(failure) => *failure == Failure::Timeout,
            HostOutcome::Skipped => false,
        };
        self.with_models && !self.models_first && no_time
    }
}

/// How the host is asked this time.
pub fn host_target(owner: &Owner, accepted: &Accepted, memory: &Memory, turn: Turn) -> HostTarget {
    HostTarget {
        owner: owner.clone(),
        endpoint: accepted.endpoint.clone(),
        backend: accepted.backend,
        host_header: accepted.host_header.clone(),
        authorization: None,
        tls: accepted.tls.clone(),
        timeout: accepted.timeout,
        lane: if memory.is_failing() { Lane::Suspect } else { Lane::Healthy },
        with_models: turn.with_models,
        manner: Manner {
            health_path: accepted.health_path.clone(),
            models_first: turn.models_first,
            proven: memory.has_lists(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::report::{HostReport, Part};
    use rstest::rstest;

    fn online(models: Part<Vec<crate::probe::report::ModelSeen>>) -> HostOutcome {
        let (version, loaded) = (Part::Known("0.24.0".into()), Part::Failed(Failure::Timeout));
        HostOutcome::Online(HostReport { version, models, loaded })
    }

    /// Ollama before 0.5 holds /api/ps back while it loads a model from a slow disk, for minutes.
    #[rstest]
    #[case::in_time(online(Part::Known(Vec::new())), false)]
    #[case::no_time_left(online(Part::Failed(Failure::Timeout)), true)]
    #[case::an_error_is_an_answer(online(Part::Failed(Failure::InvalidResponse)), false)]
    #[case::nothing_in_time(HostOutcome::Failed(Failure::Timeout), true)]
    #[case::nobody_there(HostOutcome::Failed(Failure::ConnectionRefused), false)]
    #[case::not_asked(HostOutcome::Skipped, false)]
    fn what_was_due_and_got_no_time_comes_first_and_only_once(
        #[case] outcome: HostOutcome,
        #[case] missed: bool,
    ) {
        let turn = |with_models, models_first| Turn { with_models, models_first };
        assert_eq!(turn(true, false).was_missed(&outcome), missed);
        assert!(!turn(true, true).was_missed(&outcome), "it had its turn");
        assert!(!turn(false, false).was_missed(&outcome), "it was not due");
    }
}
