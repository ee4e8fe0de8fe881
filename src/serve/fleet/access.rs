//! Which namespaces a caller sees: everything if they may list everywhere, else those where they may list.

use crate::serve::{auth::Caller, problem::Problem, review::Right};
use axum::http::StatusCode;
use futures::{StreamExt, TryStreamExt, stream};
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::timeout;

/// Most namespaces that one request asks the apiserver about. Who may read some of more than this asks for one
/// namespace at a time; leaving some out would be a list that lies.
pub const NAMESPACES_MAX: usize = 256;

/// Questions of one request that are under way at once.
const AT_ONCE: usize = 8;

/// For all questions of one request.
const DEADLINE: Duration = Duration::from_secs(10);

/// The kinds that are shown.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Plugins,
    Servers,
}

impl Kind {
    pub fn resource(self) -> &'static str {
        match self {
            Self::Plugins => "fleetplugins",
            Self::Servers => "ollamaservers",
        }
    }

    /// The right to list it in a namespace, or everywhere.
    pub fn list(self, namespace: Option<&Arc<str>>) -> Right {
        Right::Resource { verb: "list", resource: self.resource(), namespace: namespace.cloned(), name: None }
    }
}

/// The namespaces whose objects are shown.
#[derive(Debug)]
pub enum Namespaces {
    All,
    Some(HashSet<Arc<str>>),
}

impl Namespaces {
    pub fn only(namespace: Arc<str>) -> Self {
        Self::Some(HashSet::from([namespace]))
    }

    pub fn contains(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Some(names) => names.contains(namespace),
        }
    }
}

/// Those of these namespaces where the caller may list objects of that kind. If one question cannot be answered, none
/// is: part of a list would pass for all of it.
pub async fn visible(
    caller: &Caller<'_>,
    kind: Kind,
    namespaces: BTreeSet<Arc<str>>,
) -> Result<Namespaces, Problem> {
    let asking = async {
        if caller.may(&kind.list(None)).await? {
            return Ok(Namespaces::All);
        }
        if namespaces.len() > NAMESPACES_MAX {
            let refused = caller.forbidden(&kind.list(None));
            return Err(refused.and_so(
                "there are too many namespaces to look each of them up; ask /api/namespaces/NAMESPACE/… for one",
            ));
        }
        let seen: HashSet<Arc<str>> = stream::iter(namespaces)
            .map(|namespace| async move {
                let allowed = caller.may(&kind.list(Some(&namespace))).await?;
                Ok(allowed.then_some(namespace))
            })
            .buffer_unordered(AT_ONCE)
            .try_filter_map(|namespace| std::future::ready(Ok(namespace)))
            .try_collect()
            .await?;
        Ok(Namespaces::Some(seen))
    };
    timeout(DEADLINE, asking).await.unwrap_or_else(|_| {
        let detail = "the apiserver takes too long to say what this caller may list";
        Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_soon())
    })
}
