//! The one place where watches are configured: guarded, slimmed, with backoff, and every item reported.

use super::{api_failure::ApiFailure, seldom::Seldom, status_writer::Kind};
use crate::metrics::Metrics;
use futures::{
    Stream, StreamExt,
    stream::{BoxStream, select_all, unfold},
};
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        utils::Backoff,
        watcher::{self, DefaultBackoff},
    },
};
use serde::de::DeserializeOwned;
use std::{fmt::Debug, sync::Arc, time::Duration};
use tokio::time::sleep;

/// Seconds after which a watch is begun anew; load balancers drop idle connections after 240. Five seconds later one
/// through which nothing came, not even its end, counts as dead.
pub(super) const WATCH_SECONDS: u32 = 200;
/// Longest pause between two tries. kube's own may last a minute, for which edits would be deaf after an outage; a try in
/// ten seconds for each watch is nothing to an API server that is well.
const PAUSE_MOST: Duration = Duration::from_secs(10);

/// A list was forbidden, and is tried again. So is one in a namespace that is gone, as its Roles went with it; where the
/// right is one on all namespaces, it is empty instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// What a watch has to say.
pub type News<K> = Result<watcher::Event<DeserializeGuard<K>>, Refused>;

/// An item of a watch, and the scope (an index into the namespaces) that it came from.
pub type Item<K> = (usize, News<K>);

/// Watches a kind in all the given namespaces, or everywhere if there are none. Errors are counted and logged here and
/// followed by another try; they never end the stream.
pub fn watch<K>(
    client: &Client,
    namespaces: &[String],
    kind: Kind,
    metrics: Arc<Metrics>,
) -> impl Stream<Item = Item<K>> + Send + use<K>
where
    K: Watched,
{
    let apis: Vec<(String, Api<DeserializeGuard<K>>)> = if namespaces.is_empty() {
        vec![(String::new(), Api::all(client.clone()))]
    } else {
        let api = |namespace: &String| (namespace.clone(), Api::namespaced(client.clone(), namespace));
        namespaces.iter().map(api).collect()
    };
    let seldom = Arc::new(Seldom::default());
    let streams = apis.into_iter().enumerate().map(move |(scope, (namespace, api))| {
        let following = Following {
            items: begin(&api),
            api,
            namespace,
            pauses: DefaultBackoff::default(),
            pause: None,
            kind,
            refusals: Seldom::default(),
            metrics: Arc::clone(&metrics),
            seldom: Arc::clone(&seldom),
        };
        unfold(following, move |mut following| async move {
            let news = following.next().await?;
            Some(((scope, news), following))
        })
        .boxed()
    });
    select_all(streams)
}

/// Kinds that are watched.
pub trait Watched:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
}

impl<K> Watched for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + 'static
{
}

type Items<K> = BoxStream<'static, watcher::Result<watcher::Event<DeserializeGuard<K>>>>;

/// The watch of one scope, from one failure to the next.
struct Following<K: Watched> {
    api: Api<DeserializeGuard<K>>,
    /// Empty: all of them.
    namespace: String,
    items: Items<K>,
    pauses: DefaultBackoff,
    /// To be kept before the next try.
    pause: Option<Duration>,
    kind: Kind,
    metrics: Arc<Metrics>,
    /// Rights are missing namespace by namespace, and each is named; whatever else fails, fails for all.
    refusals: Seldom,
    seldom: Arc<Seldom>,
}

fn begin<K: Watched>(api: &Api<DeserializeGuard<K>>) -> Items<K> {
    watcher::watcher(api.clone(), watcher::Config::default().timeout(WATCH_SECONDS))
        .modify(|object| {
            // By far the largest part of an object whose status is applied by us.
            object.managed_fields_mut().clear();
            object.annotations_mut().remove("kubectl.kubernetes.io/last-applied-configuration");
        })
        .boxed()
}

impl<K: Watched> Following<K> {
    async fn next(&mut self) -> Option<News<K>> {
        loop {
            if let Some(pause) = self.pause.take() {
                sleep(pause).await;
            }
            match self.items.next().await? {
                Ok(event) => {
                    self.metrics.watched(self.kind);
                    // That a list is about to be asked for is no success yet: kube says so before every try.
                    if !matches!(event, watcher::Event::Init) {
                        self.pauses.reset();
                    }
                    return Some(Ok(event));
                }
                Err(error) => {
                    let (kind, namespace, class) = (self.kind, self.namespace.as_str(), class(&error));
                    self.metrics.watch_failed(kind, namespace, class);
                    let forbidden = cause(&error) == Some(ApiFailure::Forbidden);
                    let seldom = if forbidden { &self.refusals } else { &*self.seldom };
                    if seldom.may_tell(class) {
                        tracing::warn!(kind = kind.as_str(), namespace, %error, "watch failed, trying again");
                    }
                    if is_too_old(&error) {
                        self.items = begin(&self.api);
                    }
                    self.pause = Some(self.pauses.next().unwrap_or(PAUSE_MOST).min(PAUSE_MOST));
                    if forbidden && matches!(error, watcher::Error::InitialListFailed(_)) {
                        return Some(Err(Refused));
                    }
                }
            }
        }
    }
}

fn cause(error: &watcher::Error) -> Option<ApiFailure> {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => Some(ApiFailure::of(error)),
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => None,
    }
}

/// What is counted apart, and told once a minute.
fn class(error: &watcher::Error) -> &'static str {
    cause(error).map_or("event", ApiFailure::label)
}

/// kube lists again when the stream says that its version is too old, but asks for the same version for ever when the
/// answer to the request says so.
fn is_too_old(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410)
}

/// How many scopes a list of namespaces makes.
pub fn scopes(namespaces: &[String]) -> usize {
    namespaces.len().max(1)
}

#[cfg(test)]
#[path = "streams_tests.rs"]
mod tests;
