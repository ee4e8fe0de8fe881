//! The paths that show the fleet: servers and plugins, all that the caller may list, those of a namespace, or one.
//!
//! - `access`: which namespaces a caller sees. `plugin`, `server`: what is shown of each; pure.
//! - `array`: long lists, written while they are read.
//!
//! Only reads, from memory: it asks neither hosts nor the apiserver for objects. Whose right is missing learns nothing
//! about what exists, and nothing of a Secret is shown, not even its name.

mod access;
mod array;
mod plugin;
mod server;

#[cfg(test)]
pub use self::{access::NAMESPACES_MAX, plugin::SERVER_STATES_MAX};
use super::{
    auth::{Authorizer, Caller, Sender},
    problem::Problem,
    review::Right,
};
use crate::{
    api::FleetPlugin,
    controller::{
        plugin::installed::{ByName, Installed},
        server::live::{Live, Snapshot},
    },
    runtime::Readiness,
};
use access::{Kind, Namespaces, visible};
use axum::{
    Json, Router,
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Lists that are being written at once. Each holds what it lists, some 5 MiB for 10,000 servers, until its reader
/// has taken the last of it.
const LISTS_MAX: usize = 4;

/// What is shown, and when and where it holds.
#[derive(Clone)]
pub struct Shown {
    pub live: Live,
    pub installed: Installed,
    /// Before everything is listed, what is missing would look as if it did not exist.
    pub readiness: Readiness,
    /// The namespaces that are watched; empty: all.
    pub namespaces: Arc<[String]>,
}

#[derive(Clone)]
struct Fleet {
    shown: Shown,
    authorizer: Arc<Authorizer>,
    lists: Arc<Semaphore>,
}

type InNamespace = Result<Path<String>, PathRejection>;
type Named = Result<Path<(String, String)>, PathRejection>;

pub fn router<S>(shown: Shown, authorizer: Arc<Authorizer>) -> Router<S> {
    Router::new()
        .route("/api/plugins", get(plugins))
        .route("/api/servers", get(servers))
        .route("/api/namespaces/{namespace}/plugins", get(plugins_of))
        .route("/api/namespaces/{namespace}/servers", get(servers_of))
        .route("/api/namespaces/{namespace}/plugins/{name}", get(one_plugin))
        .route("/api/namespaces/{namespace}/servers/{name}", get(one_server))
        .with_state(Fleet { shown, authorizer, lists: Arc::new(Semaphore::new(LISTS_MAX)) })
}

async fn plugins(State(fleet): State<Fleet>, sender: Sender) -> Result<Response, Problem> {
    let caller = fleet.authorizer.identify(&sender).await?;
    let namespaces = fleet.plugins()?.keys().map(|(namespace, _)| namespace.as_str().into()).collect();
    let seen = visible(&caller, Kind::Plugins, namespaces).await?;
    fleet.write_plugins(&seen)
}

async fn plugins_of(
    State(fleet): State<Fleet>,
    path: InNamespace,
    sender: Sender,
) -> Result<Response, Problem> {
    let namespace = fleet.listable(Kind::Plugins, path, &sender).await?;
    fleet.write_plugins(&Namespaces::only(namespace))
}

async fn one_plugin(State(fleet): State<Fleet>, path: Named, sender: Sender) -> Result<Response, Problem> {
    let caller = fleet.authorizer.identify(&sender).await?;
    let (namespace, name) = names(path)?;
    require_get(&caller, Kind::Plugins, &namespace, &name).await?;
    // Which servers there are is for those to know who may list them.
    let with_servers = caller.may(&Kind::Servers.list(Some(&namespace))).await?;
    fleet.watched(&namespace)?;
    let plugins = fleet.plugins()?;
    let found = plugins.get(&(namespace.to_string(), name.to_string())).ok_or_else(no_such_object)?;
    let servers = with_servers.then(|| fleet.shown.live.select(|server| server.namespace == namespace));
    Ok(Json(plugin::details(found, servers.as_deref())).into_response())
}

async fn servers(State(fleet): State<Fleet>, sender: Sender) -> Result<Response, Problem> {
    let caller = fleet.authorizer.identify(&sender).await?;
    fleet.is_complete()?;
    let seen = visible(&caller, Kind::Servers, fleet.shown.live.namespaces()).await?;
    fleet.write_servers(&seen)
}

async fn servers_of(
    State(fleet): State<Fleet>,
    path: InNamespace,
    sender: Sender,
) -> Result<Response, Problem> {
    let namespace = fleet.listable(Kind::Servers, path, &sender).await?;
    fleet.write_servers(&Namespaces::only(namespace))
}

async fn one_server(State(fleet): State<Fleet>, path: Named, sender: Sender) -> Result<Response, Problem> {
    let caller = fleet.authorizer.identify(&sender).await?;
    let (namespace, name) = names(path)?;
    require_get(&caller, Kind::Servers, &namespace, &name).await?;
    fleet.watched(&namespace)?;
    fleet.is_complete()?;
    let found = fleet.shown.live.select(|server| server.namespace == namespace && server.name == name);
    let found = found.first().ok_or_else(no_such_object)?;
    Ok(Json(server::details(found)).into_response())
}

impl Fleet {
    fn is_complete(&self) -> Result<(), Problem> {
        if self.shown.readiness.snapshot().ready { Ok(()) } else { Err(not_ready()) }
    }

    fn plugins(&self) -> Result<Arc<ByName>, Problem> {
        self.is_complete()?;
        self.shown.installed.all().ok_or_else(not_ready)
    }

    /// The namespace of the path, if the caller may list this kind there and somebody looks at it.
    async fn listable(&self, kind: Kind, path: InNamespace, sender: &Sender) -> Result<Arc<str>, Problem> {
        let caller = self.authorizer.identify(sender).await?;
        let namespace = namespace(path)?;
        caller.require(&kind.list(Some(&namespace))).await?;
        self.watched(&namespace)?;
        Ok(namespace)
    }

    /// An empty answer about a namespace that nobody looks at would be a lie.
    fn watched(&self, namespace: &str) -> Result<(), Problem> {
        let watched = &self.shown.namespaces;
        if watched.is_empty() || watched.iter().any(|name| name == namespace) {
            return Ok(());
        }
        let detail = format!("the operator does not watch the namespace {namespace}; see --watch-namespaces");
        Err(Problem::new(StatusCode::NOT_FOUND, detail))
    }

    fn write_plugins(&self, seen: &Namespaces) -> Result<Response, Problem> {
        let permit = self.permit()?;
        let plugins = self.plugins()?;
        let plugins: Vec<Arc<FleetPlugin>> = plugins
            .iter()
            .filter(|((namespace, _), _)| seen.contains(namespace))
            .map(|(_, plugin)| Arc::clone(plugin))
            .collect();
        Ok(array::respond(
            plugins,
            |plugin, out| serde_json::to_writer(out, &plugin::manifest(plugin)),
            permit,
        ))
    }

    fn write_servers(&self, seen: &Namespaces) -> Result<Response, Problem> {
        let permit = self.permit()?;
        self.is_complete()?;
        let mut servers = self.shown.live.select(|server| seen.contains(&server.namespace));
        let key = |server: &Snapshot| (Arc::clone(&server.namespace), Arc::clone(&server.name));
        servers.sort_by_cached_key(key);
        Ok(array::respond(servers, |server, out| serde_json::to_writer(out, &server::brief(server)), permit))
    }

    fn permit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.lists)
            .try_acquire_owned()
            .map_err(|_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many lists at once").retry_soon())
    }
}

async fn require_get(
    caller: &Caller<'_>,
    kind: Kind,
    namespace: &Arc<str>,
    name: &Arc<str>,
) -> Result<(), Problem> {
    let right = Right::Resource {
        verb: "get",
        resource: kind.resource(),
        namespace: Some(Arc::clone(namespace)),
        name: Some(Arc::clone(name)),
    };
    caller.require(&right).await
}

fn namespace(path: InNamespace) -> Result<Arc<str>, Problem> {
    let Path(namespace) = path.map_err(|_| no_such_object())?;
    check_name(&namespace)?;
    Ok(namespace.into())
}

fn names(path: Named) -> Result<(Arc<str>, Arc<str>), Problem> {
    let Path((namespace, name)) = path.map_err(|_| no_such_object())?;
    check_name(&namespace)?;
    check_name(&name)?;
    Ok((namespace.into(), name.into()))
}

/// The characters and the length of an object's name. Nothing with another one exists, and the apiserver is not asked
/// about it.
fn check_name(name: &str) -> Result<(), Problem> {
    let letter =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    if name.len() <= 253 && name.bytes().all(letter) { Ok(()) } else { Err(no_such_object()) }
}

fn no_such_object() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is no such object")
}

fn not_ready() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "not everything is listed yet; /readyz says what is missing",
    )
    .retry_soon()
}
