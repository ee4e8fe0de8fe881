//! One write of one status: the call to the API server, and what its answer means.
//!
//! Server-side apply with our own field manager, forced, and with the newest resourceVersion seen for the object's
//! UID, so that a recreated object of the same name refuses what was meant for the old one.

use super::{
    reduce::{Unknown, reduce},
    standing::Strays,
};
use crate::{
    api::{FleetPlugin, MANAGER, OllamaServer},
    controller::{api_failure::ApiFailure, seldom::Seldom},
    metrics::Metrics,
    runtime::leader::{Leadership, Unwritten},
};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use kube::{
    Api, Client,
    api::{PartialObjectMeta, Patch, PatchParams},
};
use serde_json::{Value, json};
use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// Deadline of one call; kube's client has none of its own.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a conflict is answered by reading again before the object's turn is over.
const CONFLICTS_MAX: u32 = 3;
/// How often a status is made smaller: each time without the fields that were named, and in the end the conditions alone.
const REDUCTIONS_MAX: u32 = 6;

/// The object that a status belongs to.
#[derive(Clone, Debug)]
pub struct Target {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// The newest resourceVersion seen for this UID, by whoever saw it last.
    pub newest: Arc<AtomicU64>,
}

/// The kinds whose status is written here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    OllamaServer,
    FleetPlugin,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OllamaServer => "OllamaServer",
            Self::FleetPlugin => "FleetPlugin",
        }
    }
}

/// Calls the API server for the writer.
pub struct Calls {
    pub client: Client,
    pub leadership: Leadership,
    pub metrics: Arc<Metrics>,
    pub seldom: Seldom,
    unknown: Unknown,
    /// Each request that writes takes a token, be it the first of a status or another try.
    pub limiter: DefaultDirectRateLimiter,
}

/// How a write ended.
pub enum Outcome {
    /// With the version that the object now has.
    Written(Option<u64>),
    /// The object moved on or is gone; whoever made the status will make another.
    Dropped,
    Failed(ApiFailure),
    /// Another replica may lead by now: it writes what is true.
    NotLeading,
}

impl Calls {
    pub fn new(client: Client, leadership: Leadership, metrics: Arc<Metrics>, quota: Quota) -> Self {
        let limiter = RateLimiter::direct(quota);
        Self { client, leadership, metrics, seldom: Seldom::default(), unknown: Unknown::default(), limiter }
    }

    /// Writes a status into its object; the token for the first request is taken already. `generation` is that of the
    /// spec that the status is about.
    pub async fn write(&self, target: &Target, generation: Option<i64>, status: &Value) -> Outcome {
        match target.kind {
            Kind::OllamaServer => self.write_as::<OllamaServer>(target, generation, status).await,
            Kind::FleetPlugin => self.write_as::<FleetPlugin>(target, generation, status).await,
        }
    }

    /// Removes what somebody else has put beside a status. Whether it could be removed shows when the status is seen again.
    pub async fn remove(&self, target: &Target, strays: &Strays) {
        match target.kind {
            _ if strays.paths.is_empty() => {}
            Kind::OllamaServer => self.remove_as::<OllamaServer>(target, strays).await,
            Kind::FleetPlugin => self.remove_as::<FleetPlugin>(target, strays).await,
        }
    }

    async fn remove_as<K>(&self, target: &Target, strays: &Strays)
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug,
    {
        let api: Api<PartialObjectMeta<K>> = Api::namespaced(self.client.clone(), &target.namespace);
        let Ok(removals) = serde_json::from_value(strays.patch()) else { return };
        // Not an apply: that leaves alone what others have set. What is only removed makes nobody its owner.
        let (params, patch) = (
            PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() },
            Patch::Json::<()>(removals),
        );
        match self.leadership.write(CALL_TIMEOUT, api.patch_status(&target.name, &params, &patch)).await {
            Ok(Ok(object)) => seen(&target.newest, object.metadata.resource_version.as_deref()),
            Ok(Err(error)) => {
                tracing::debug!(kind = target.kind.as_str(), namespace = target.namespace, name = target.name, %error, "what somebody else put into the status was not removed");
            }
            Err(_) => {}
        }
        self.limiter.until_ready().await;
    }

    async fn write_as<K>(&self, target: &Target, generation: Option<i64>, status: &Value) -> Outcome
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug,
    {
        let api: Api<PartialObjectMeta<K>> = Api::namespaced(self.client.clone(), &target.namespace);
        let params = PatchParams::apply(MANAGER).force();
        let (mut conflicts, mut reductions) = (0, 0);
        let known = self.unknown.without(target.kind, status);
        let mut status = known.map_or(Cow::Borrowed(status), Cow::Owned);
        let mut first = true;
        while conflicts < CONFLICTS_MAX {
            if !std::mem::take(&mut first) {
                self.limiter.until_ready().await;
            }
            let body = json!({
                "apiVersion": K::api_version(&()),
                "kind": K::kind(&()),
                "metadata": {
                    "name": target.name,
                    "namespace": target.namespace,
                    "resourceVersion": target.newest.load(Ordering::Relaxed).to_string(),
                },
                "status": status,
            });
            let patch = Patch::Apply(&body);
            let started = Instant::now();
            let answer =
                self.leadership.write(CALL_TIMEOUT, api.patch_status(&target.name, &params, &patch)).await;
            self.metrics.write_took(target.kind, started.elapsed());
            let failure = match answer {
                Ok(Ok(object)) => {
                    let version = object.metadata.resource_version.as_deref();
                    seen(&target.newest, version);
                    return Outcome::Written(number(version));
                }
                Ok(Err(error)) => {
                    let failure = ApiFailure::of(&error);
                    if failure == ApiFailure::Refused {
                        if self.seldom.may_tell(target.kind.as_str()) {
                            tracing::error!(kind = target.kind.as_str(), namespace = target.namespace, name = target.name, %error, "status write refused; is the CustomResourceDefinition older than the operator?");
                        }
                        if let (kube::Error::Api(refusal), true) = (&error, reductions < REDUCTIONS_MAX) {
                            reductions += 1;
                            self.unknown.learn(target.kind, refusal);
                            if let Some(smaller) = reduce(&status, refusal, reductions == REDUCTIONS_MAX) {
                                self.metrics.wrote(target.kind, failure.label());
                                status = Cow::Owned(smaller);
                                continue;
                            }
                        }
                    } else {
                        tracing::debug!(kind = target.kind.as_str(), namespace = target.namespace, name = target.name, %error, "status write failed");
                    }
                    failure
                }
                Err(Unwritten::Late) => ApiFailure::Unavailable,
                Err(Unwritten::NotLeading) => return Outcome::NotLeading,
            };
            match failure {
                ApiFailure::Gone => return Outcome::Dropped,
                ApiFailure::Conflict => {}
                other => return Outcome::Failed(other),
            }
            conflicts += 1;
            self.metrics.wrote(target.kind, failure.label());
            // Somebody changed the object since it was last seen. Another UID is another object; another generation
            // deserves another status, which its own watch event will bring.
            match timeout(CALL_TIMEOUT, api.get_metadata(&target.name)).await {
                Ok(Ok(current)) => {
                    if current.metadata.uid.as_deref() != Some(target.uid.as_str())
                        || (generation.is_some() && current.metadata.generation != generation)
                    {
                        return Outcome::Dropped;
                    }
                    // The object as it is now, whatever was seen before: after a restore of etcd versions are lower.
                    if let Some(number) = number(current.metadata.resource_version.as_deref()) {
                        target.newest.store(number, Ordering::Relaxed);
                    }
                }
                Ok(Err(error)) if ApiFailure::of(&error) == ApiFailure::Gone => return Outcome::Dropped,
                Ok(Err(error)) => return Outcome::Failed(ApiFailure::of(&error)),
                Err(_) => return Outcome::Failed(ApiFailure::Unavailable),
            }
        }
        Outcome::Failed(ApiFailure::Conflict)
    }
}

/// Resource versions are compared as numbers, which Kubernetes promises since 1.35 and has always kept.
pub fn seen(newest: &AtomicU64, resource_version: Option<&str>) {
    if let Some(number) = number(resource_version) {
        newest.fetch_max(number, Ordering::Relaxed);
    }
}

/// A version as it is ordered.
pub fn number(resource_version: Option<&str>) -> Option<u64> {
    resource_version.and_then(|text| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_wins_whoever_saw_it() {
        let newest = AtomicU64::new(5);
        seen(&newest, Some("9"));
        seen(&newest, Some("7"));
        seen(&newest, Some("not a number"));
        assert_eq!(newest.load(Ordering::Relaxed), 9);
    }
}
