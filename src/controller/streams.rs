//! The one place where watches are configured: guarded, slimmed, with backoff, and every item reported.

use super::status_writer::Kind;
use crate::metrics::Metrics;
use futures::{Stream, StreamExt, stream::select_all};
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::{WatchStreamExt, utils::Backoff, watcher},
};
use serde::de::DeserializeOwned;
use std::{fmt::Debug, sync::Arc, time::Duration};

/// Seconds after which a watch is begun anew; load balancers drop idle connections after 240.
const WATCH_SECONDS: u32 = 200;

/// Pause after a failed watch, doubled each time. A few watches do not hurt an API server that is away; but when it is back
/// it fails each of them twice more, with roles that it has not read yet and with versions that it does not know any
/// more, and client-go's 30 s each time would leave new objects unseen for a minute.
const BACKOFF_LEAST: Duration = Duration::from_millis(800);
const BACKOFF_MOST: Duration = Duration::from_secs(5);

/// An item of a watch, and the scope (an index into the namespaces) that it came from.
pub type Item<K> = (usize, watcher::Event<DeserializeGuard<K>>);

/// Watches a kind in all the given namespaces, or everywhere if there are none. Errors are counted and logged here and
/// followed by another try; they never end the stream.
pub fn watch<K>(
    client: &Client,
    namespaces: &[String],
    kind: Kind,
    metrics: Arc<Metrics>,
) -> impl Stream<Item = Item<K>> + Send + use<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    let apis: Vec<Api<DeserializeGuard<K>>> = if namespaces.is_empty() {
        vec![Api::all(client.clone())]
    } else {
        namespaces.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect()
    };
    let streams = apis.into_iter().enumerate().map(move |(scope, api)| {
        let metrics = Arc::clone(&metrics);
        watcher(api, watcher::Config::default().timeout(WATCH_SECONDS))
            .backoff(Doubled(BACKOFF_LEAST))
            .modify(|object| {
                // By far the largest part of an object whose status is applied by us.
                object.managed_fields_mut().clear();
                object.annotations_mut().remove("kubectl.kubernetes.io/last-applied-configuration");
            })
            .filter_map(move |item| {
                let metrics = Arc::clone(&metrics);
                async move {
                    match item {
                        Ok(event) => {
                            metrics.watched(kind);
                            Some((scope, event))
                        }
                        Err(error) => {
                            metrics.watch_failed(kind);
                            tracing::warn!(kind = kind.as_str(), %error, "watch failed, trying again");
                            None
                        }
                    }
                }
            })
            .boxed()
    });
    select_all(streams)
}

/// The next pause; the first one again when something has come.
struct Doubled(Duration);

impl Iterator for Doubled {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0;
        self.0 = (2 * pause).min(BACKOFF_MOST);
        Some(pause)
    }
}

impl Backoff for Doubled {
    fn reset(&mut self) {
        self.0 = BACKOFF_LEAST;
    }
}

/// How many scopes a list of namespaces makes.
pub fn scopes(namespaces: &[String]) -> usize {
    namespaces.len().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_doubled_up_to_a_bound_and_begin_anew() {
        let mut pauses = Doubled(BACKOFF_LEAST);
        let taken: Vec<u128> = pauses.by_ref().take(5).map(|pause| pause.as_millis()).collect();
        assert_eq!(taken, [800, 1600, 3200, 5000, 5000]);
        pauses.reset();
        assert_eq!(pauses.next(), Some(BACKOFF_LEAST));
    }
}
