//! What every controller task shares.

use super::{
    credentials::Secrets,
    event_queue::EventQueue,
    plugin::{index::PluginIndex, installed::Installed},
    server::live::Live,
    status_writer::StatusWriter,
};
use crate::{args::PollArgs, metrics::Metrics, probe::Prober, runtime::Leadership};
use kube::Client;
use std::sync::Arc;
use tokio::sync::watch;

/// Everything that the tasks share; made once.
pub struct Context {
    pub client: Client,
    /// Whether this replica may poll and write.
    pub leadership: Leadership,
    pub prober: Prober,
    pub secrets: Secrets,
    pub poll: PollArgs,
    pub writer: StatusWriter,
    pub events: EventQueue,
    pub metrics: Arc<Metrics>,
    pub live: Live,
    pub installed: Installed,
    /// The accepted plugins; the plugin controller keeps it true.
    pub plugins: watch::Sender<Arc<PluginIndex>>,
}
