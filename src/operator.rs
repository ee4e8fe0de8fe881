//! The operator put together: what is made in which order, and what ends when.

use crate::{
    args::RunArgs,
    controller::{
        api_client,
        context::Context,
        credentials::Secrets,
        event_queue::EventQueue,
        own_addresses::{self, OwnAddresses},
        plugin::{Plugins, index::PluginIndex, installed::Installed},
        server::{fleet::Fleet, live::Live},
        status_writer::StatusWriter,
    },
    metrics::Metrics,
    probe::{ClientError, NameServers, Prober, address::SharedPolicy},
    runtime::{
        CrdGate, Elector, Leadership, LeadershipLost, Readiness, Watchdog, leader::TimingError,
        shutdown_signal, wait_for_crds,
    },
    serve::{ServeError, Serving, Shown},
};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use std::{env, io, sync::Arc};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Why the operator cannot run. Nothing of this passes by itself, so the process ends and says so.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(
        "no cluster to talk to: {0}\nhint: pass --kubeconfig FILE, set KUBECONFIG, or run in a pod with a ServiceAccount"
    )]
    Cluster(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Http(#[from] ClientError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] io::Error),
    #[error("a part of the operator ended by a bug: {0}")]
    Bug(#[from] tokio::task::JoinError),
    #[error(transparent)]
    LeadershipLost(#[from] LeadershipLost),
    #[error(transparent)]
    LeaseTimes(#[from] TimingError),
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(args: RunArgs) -> Result<(), RunError> {
    let shutdown = shutdown_signal().map_err(RunError::Signals)?;
    raise_file_limit();
    let config = config(&args).await?;
    let (client, hold) =
        api_client::build(config.clone()).map_err(|error| RunError::Cluster(error.into()))?;
    let policy = SharedPolicy::new(args.address.policy());
    let own = own_addresses::known(&config);
    let mut own_addresses = OwnAddresses::new(client.clone(), Arc::clone(&policy), own);
    let live = Live::default();
    let installed = Installed::default();
    let elects = args.leader.leader_elect;
    let leadership = if elects { Leadership::none_yet() } else { Leadership::always() };
    let metrics = Metrics::new(&live, args.metrics_server_limit, &leadership);
    let readiness = Readiness::new();
    let readiness = if elects { readiness.with_leadership(leadership.clone()) } else { readiness };
    let crds = readiness.gate("crds");
    let servers = readiness.gate("servers");
    let plugins = readiness.gate("plugins");
    let elector = if elects {
        let namespace = lease_namespace(&args, &config);
        let (timing, metrics) = (args.leader.timing()?, Arc::clone(&metrics));
        // A client of its own: its calls must not wait behind others.
        Some(Elector::new(connect(&config)?, &namespace, timing, leadership.clone(), &readiness, metrics))
    } else {
        None
    };

    let exposition = Arc::clone(&metrics);
    let serving = Serving::bind(
        &args.serve,
        client.clone(),
        readiness.clone(),
        Watchdog::start(),
        Arc::new(move || exposition.expose()),
        Shown {
            live: live.clone(),
            installed: installed.clone(),
            readiness,
            namespaces: args.watch_namespaces.clone().into(),
        },
    )?;
    let addresses = serving.local_addrs();
    tracing::info!(health = %addresses.health, api = %addresses.main, tls = addresses.tls, "listening");
    // The listeners outlive the rest, so that a probe during shutdown still gets an answer.
    let listeners_shutdown = CancellationToken::new();
    let mut listeners = JoinSet::new();
    listeners.spawn(serving.run(listeners_shutdown.clone()));

    let writer = StatusWriter::new(client.clone(), hold.clone(), leadership.clone(), Arc::clone(&metrics));
    let events = EventQueue::new(client.clone(), hold, leadership.clone(), Arc::clone(&metrics));
    metrics.watch_queues(
        {
            let writer = writer.clone();
            move || writer.depth()
        },
        {
            let events = events.clone();
            move || events.depth()
        },
    );
    let context = Arc::new(Context {
        client: client.clone(),
        leadership,
        prober: Prober::new(policy, NameServers::System, Arc::clone(&metrics))?,
        secrets: Secrets::new(client.clone(), Arc::clone(&metrics)),
        poll: args.poll.clone(),
        writer: writer.clone(),
        events: events.clone(),
        metrics,
        live,
        installed,
        plugins: watch::Sender::new(Arc::new(PluginIndex::default())),
    });
    let namespaces = args.watch_namespaces.clone();
    let plugin_controller = Plugins::new(Arc::clone(&context), &namespaces, plugins);
    let fleet = Fleet::new(context, &namespaces, servers);

    if matches!(wait_for_crds(&client, &namespaces, &crds, &shutdown).await, CrdGate::Open) {
        // Before anything is dialled.
        own_addresses.learn(&shutdown).await;
        let mut controllers = JoinSet::new();
        controllers.spawn(own_addresses.run(shutdown.clone()));
        controllers.spawn(plugin_controller.run(namespaces.clone(), shutdown.clone()));
        controllers.spawn(fleet.run(namespaces, shutdown.clone()));
        // The writers end last: what the controllers published is still sent.
        let writers_shutdown = CancellationToken::new();
        let mut writers = JoinSet::new();
        writers.spawn(writer.run(writers_shutdown.clone()));
        writers.spawn(events.run(writers_shutdown.clone()));
        // The lease is given back after the last write, so that none comes after the next leader's first.
        let release = CancellationToken::new();
        let mut election = JoinSet::new();
        if let Some(elector) = elector {
            election.spawn(elector.run(shutdown.clone(), release.clone()));
        }
        let writers = (writers, writers_shutdown);
        until_the_end(controllers, writers, (election, release), &mut listeners).await?;
    }
    listeners_shutdown.cancel();
    while let Some(ended) = listeners.join_next().await {
        ended?;
    }
    tracing::info!("stopped");
    Ok(())
}

type Tasks<T> = (JoinSet<T>, CancellationToken);

/// Waits for the controllers, then ends the writers, then gives back the lease. Whatever of this ends by a bug ends the
/// process: half an operator would look well and write nothing. So does the loss of the lease, at once: another replica
/// may act by now.
async fn until_the_end(
    mut controllers: JoinSet<()>,
    (mut writers, stop_writing): Tasks<()>,
    (mut election, release): Tasks<Result<(), LeadershipLost>>,
    listeners: &mut JoinSet<()>,
) -> Result<(), RunError> {
    while !controllers.is_empty() {
        tokio::select! {
            Some(ended) = controllers.join_next() => ended?,
            Some(ended) = writers.join_next() => ended?,
            Some(ended) = listeners.join_next() => ended?,
            Some(ended) = election.join_next() => ended??,
        }
    }
    stop_writing.cancel();
    while !writers.is_empty() {
        tokio::select! {
            Some(ended) = writers.join_next() => ended?,
            Some(ended) = election.join_next() => ended??,
        }
    }
    release.cancel();
    while let Some(ended) = election.join_next().await {
        ended??;
    }
    Ok(())
}

/// From --kubeconfig, then $KUBECONFIG, then the pod, then ~/.kube/config.
async fn config(args: &RunArgs) -> Result<Config, RunError> {
    let mut config = match &args.kubeconfig {
        Some(file) => {
            let kubeconfig = Kubeconfig::read_from(file).map_err(|error| RunError::Cluster(error.into()))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .map_err(|error| RunError::Cluster(error.into()))?
        }
        None => Config::infer().await.map_err(|error| RunError::Cluster(error.into()))?,
    };
    // The client's own retries can hold a call for minutes; every caller here has a deadline and its own pace.
    config.default_retry = false;
    Ok(config)
}

/// A client with connections of its own.
fn connect(config: &Config) -> Result<Client, RunError> {
    Client::try_from(config.clone()).map_err(|error| RunError::Cluster(error.into()))
}

/// Where the replicas of this installation meet: the operator's own namespace, as far as it is known.
fn lease_namespace(args: &RunArgs, config: &Config) -> String {
    let pod = || env::var("POD_NAMESPACE").ok().filter(|namespace| !namespace.is_empty());
    let named = args.leader.leader_elect_namespace.clone();
    named.or_else(pod).unwrap_or_else(|| config.default_namespace.clone())
}

/// Every poll takes a descriptor; the usual soft limit of 1024 is far below the hard one.
fn raise_file_limit() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::debug!(limit, "open files"),
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open files"),
    }
}
