//! The one place where watches are configured: guarded, slimmed, with backoff, and every item reported.

use super::{
    api_failure::ApiFailure,
    seldom::Seldom,
    status_writer::{Kind, number},
};
use crate::metrics::Metrics;
use futures::{
    Stream, StreamExt,
    stream::{BoxStream, select_all, unfold},
};
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::ListParams,
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

/// What a watch has to say beside its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A list was forbidden, and is tried again. So is one in a namespace that is gone, as its Roles went with it; where the
    /// right is one on all namespaces, it is empty instead.
    Refused,
    /// The API server has come back in an older state, as from a backup: what it lists next is what there is.
    Rewound,
}

/// What a watch has to say.
pub type News<K> = Result<watcher::Event<DeserializeGuard<K>>, Trouble>;

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
            newest: 0,
            doubted: false,
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
    /// The newest version that the API server has told of: at least that from which the watch goes on.
    newest: u64,
    /// It was away, or is asked for the first time, and may be in an older state than before. A watch from a version that
    /// is yet to come is not refused: nothing comes through it until there is something newer.
    doubted: bool,
    kind: Kind,
    metrics: Arc<Metrics>,
    /// Rights are missing namespace by namespace, and each is named; whatever else fails, fails for all.
    refusals: Seldom,
    seldom: Arc<Seldom>,
}

fn begin<K: Watched>(api: &Api<DeserializeGuard<K>>) -> Items<K> {
    // Without bookmarks, which move the version from which the watch goes on without a word. Who sees no event for so long
    // that its version is too old lists again, and has little to list.
    watcher::watcher(api.clone(), watcher::Config::default().timeout(WATCH_SECONDS).disable_bookmarks())
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
            if self.doubted {
                match self.has_gone_back().await {
                    Ok(false) => self.doubted = false,
                    Ok(true) => {
                        self.doubted = false;
                        self.items = begin(&self.api);
                        let (kind, namespace) = (self.kind.as_str(), self.namespace.as_str());
                        tracing::warn!(kind, namespace, "the API server is in an older state, listing again");
                        return Some(Err(Trouble::Rewound));
                    }
                    Err(error) => {
                        self.failed(&watcher::Error::WatchStartFailed(error));
                        continue;
                    }
                }
            }
            match self.items.next().await? {
                Ok(event) => {
                    self.metrics.watched(self.kind);
                    self.follow(&event);
                    // That a list is about to be asked for is no success yet: kube says so before every try.
                    if !matches!(event, watcher::Event::Init) {
                        self.pauses.reset();
                    }
                    return Some(Ok(event));
                }
                Err(error) => {
                    let forbidden = self.failed(&error);
                    if is_too_old(&error) {
                        self.items = begin(&self.api);
                    }
                    self.doubted = self.newest > 0;
                    if forbidden && matches!(error, watcher::Error::InitialListFailed(_)) {
                        return Some(Err(Trouble::Refused));
                    }
                }
            }
        }
    }

    /// Counts and tells a failure, after which there is a pause; whether a right is missing.
    fn failed(&mut self, error: &watcher::Error) -> bool {
        let (kind, namespace, class) = (self.kind, self.namespace.as_str(), class(error));
        self.metrics.watch_failed(kind, namespace, class);
        let forbidden = cause(error) == Some(ApiFailure::Forbidden);
        let seldom = if forbidden { &self.refusals } else { &*self.seldom };
        if seldom.may_tell(class) {
            tracing::warn!(kind = kind.as_str(), namespace, %error, "watch failed, trying again");
        }
        self.pause = Some(self.pauses.next().unwrap_or(PAUSE_MOST).min(PAUSE_MOST));
        forbidden
    }

    /// Takes note of how far the watch has come. Only the list itself has the version that it is of, and kube keeps that.
    fn follow(&mut self, event: &watcher::Event<DeserializeGuard<K>>) {
        let version = match event {
            watcher::Event::Apply(object)
            | watcher::Event::Delete(object)
            | watcher::Event::InitApply(object) => number(object.meta().resource_version.as_deref()),
            watcher::Event::Init => None,
            watcher::Event::InitDone => {
                self.doubted = true;
                None
            }
        };
        self.newest = self.newest.max(version.unwrap_or_default());
    }

    /// Whether the API server is in an older state than one that was seen before, by the version of a list of one.
    async fn has_gone_back(&mut self) -> kube::Result<bool> {
        let list = self.api.list_metadata(&ListParams::default().limit(1)).await?;
        let Some(now) = number(list.metadata.resource_version.as_deref()) else { return Ok(false) };
        let before = std::mem::replace(&mut self.newest, now);
        Ok(now < before)
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
