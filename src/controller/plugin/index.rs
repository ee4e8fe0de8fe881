//! The accepted plugins, ready to be asked, by namespace.

use crate::{
    api::{
        endpoint::{Endpoint, Host, Scheme, parse_authority},
        fleet_plugin::AgentFormat,
        ollama_server::OllamaServerSpec,
        server_status::PLUGINS_MAX,
    },
    controller::credentials::References,
    plugins::{model_need::ModelNeed, rules::CompiledRule, values::CompiledValues},
};
use kube::core::{Selector, SelectorExt};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

/// What the server's host takes the place of in a plugin's path.
const HOST_PLACE: &str = "{host}";

/// Where a plugin is asked about one server. Another place is another program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPlace {
    /// Of `pluginHosts`; `None`: the server's own host.
    pub elsewhere: Option<Host>,
    pub port: u16,
}

/// An accepted agent plugin.
#[derive(Debug)]
pub struct ActivePlugin {
    pub name: String,
    /// Another one after each edit of its spec, and for another object of the same name.
    pub revision: Arc<str>,
    pub selector: Selector,
    pub scheme: Scheme,
    pub default_port: u16,
    /// With `{host}` where the server's host belongs.
    pub path: String,
    /// What must be in the host's memory for it to be asked.
    pub need: ModelNeed,
    /// The Secrets that it is asked with, of its namespace.
    pub credentials: References,
    pub config_key: Option<String>,
    /// `None`: at every poll.
    pub interval: Option<Duration>,
    pub timeout: Duration,
    pub format: AgentFormat,
    pub values: CompiledValues,
    pub rules: Arc<[CompiledRule]>,
}

impl ActivePlugin {
    /// Where it is asked about one server; `None` turns the plugin off there.
    pub fn place(&self, spec: &OllamaServerSpec) -> Option<AgentPlace> {
        let own = |key: &String| spec.plugin_hosts.get(key).and_then(|text| parse_authority(text).ok());
        let (elsewhere, own_port) = match self.config_key.as_ref().and_then(own) {
            Some((host, port)) => (Some(host), port),
            None => (None, None),
        };
        let port = match self.config_key.as_ref().and_then(|key| spec.plugin_ports.get(key)) {
            None => own_port.unwrap_or(self.default_port),
            // 0 turns it off, wherever it is.
            Some(port) => {
                let port = u16::try_from(*port).ok().filter(|port| *port > 0)?;
                own_port.unwrap_or(port)
            }
        };
        Some(AgentPlace { elsewhere, port })
    }

    /// The base of its URL: the host's own address or the one of the place, the plugin's scheme and the place's port.
    pub fn endpoint(&self, host: &Endpoint, place: AgentPlace) -> Endpoint {
        let AgentPlace { elsewhere, port } = place;
        let host = elsewhere.unwrap_or_else(|| host.host.clone());
        Endpoint { scheme: self.scheme, host, port, prefix: String::new() }
    }

    /// The path that is asked about a host.
    pub fn path(&self, host: &Host) -> String {
        if !self.path.contains(HOST_PLACE) {
            return self.path.clone();
        }
        // An address without brackets: it is a parameter here, and no authority.
        let host = match host {
            Host::Ip(address) => address.to_string(),
            Host::Name(name) => name.clone(),
        };
        let encoded: String = url::form_urlencoded::byte_serialize(host.as_bytes()).collect();
        self.path.replace(HOST_PLACE, &encoded)
    }

    /// Time between two readings: its own interval, rounded up to a multiple of the server's.
    pub fn effective_interval(&self, server_interval: Duration) -> Duration {
        let Some(interval) = self.interval else { return server_interval };
        let ratio = interval.as_millis().div_ceil(server_interval.as_millis().max(1)).max(1);
        server_interval.saturating_mul(u32::try_from(ratio).unwrap_or(u32::MAX))
    }
}

/// The accepted plugins of every namespace, oldest first.
#[derive(Clone, Debug, Default)]
pub struct PluginIndex {
    /// Whether the plugins have been listed at all. Before that nobody knows which plugins a server has, and a status
    /// written then would forget what the agents said.
    pub listed: bool,
    /// Namespaces of which the same is true still, because their list is refused: it may be allowed later.
    pub awaited: BTreeSet<String>,
    pub by_namespace: HashMap<String, Vec<Arc<ActivePlugin>>>,
    /// The configKeys of all plugins of every namespace, whether or not they are accepted: what is mended later is no
    /// mistake of a server.
    pub config_keys: HashMap<String, BTreeSet<String>>,
}

impl PluginIndex {
    /// The plugins that select a server with these labels, oldest first. No more are asked than status can list.
    pub fn selecting(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Vec<Arc<ActivePlugin>> {
        let plugins = self.by_namespace.get(namespace).map(Vec::as_slice).unwrap_or_default();
        plugins.iter().filter(|plugin| plugin.selector.matches(labels)).take(PLUGINS_MAX).cloned().collect()
    }

    /// Whether this is what the plugins of the namespace came to already: no server would notice a difference.
    pub fn has(
        &self,
        namespace: &str,
        plugins: &[Arc<ActivePlugin>],
        config_keys: &BTreeSet<String>,
    ) -> bool {
        let known = self.by_namespace.get(namespace).map(Vec::as_slice).unwrap_or_default();
        let same = |(one, other): (&Arc<ActivePlugin>, &Arc<ActivePlugin>)| Arc::ptr_eq(one, other);
        known.len() == plugins.len()
            && known.iter().zip(plugins).all(same)
            && self.config_keys.get(namespace).map_or(config_keys.is_empty(), |known| known == config_keys)
    }

    /// Takes over what the plugins of one namespace have come to, oldest first.
    pub fn set(&mut self, namespace: String, plugins: Vec<Arc<ActivePlugin>>, config_keys: BTreeSet<String>) {
        if config_keys.is_empty() {
            self.config_keys.remove(&namespace);
        } else {
            self.config_keys.insert(namespace.clone(), config_keys);
        }
        if plugins.is_empty() {
            self.by_namespace.remove(&namespace);
        } else {
            self.by_namespace.insert(namespace, plugins);
        }
    }

    /// Keys of a server's pluginPorts and pluginHosts that no plugin of its namespace has, each with its field.
    pub fn unknown_keys(&self, namespace: &str, spec: &OllamaServerSpec) -> Vec<String> {
        let known = self.config_keys.get(namespace);
        let unknown = |key: &&String| known.is_none_or(|known| !known.contains(*key));
        let ports = spec.plugin_ports.keys().filter(unknown).map(|key| format!("pluginPorts.{key}"));
        let hosts = spec.plugin_hosts.keys().filter(unknown).map(|key| format!("pluginHosts.{key}"));
        ports.chain(hosts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::FleetPlugin, controller::plugin::validate::validate};
    use serde_json::json;

    fn plugin() -> Arc<ActivePlugin> {
        let object: FleetPlugin = serde_json::from_value(json!({
            "apiVersion": "ollama-fleet.io/v1alpha1", "kind": "FleetPlugin", "metadata": {"name": "p"},
            "spec": {"type": "Agent", "version": "1.0.0", "agent": {"defaultPort": 9100, "endpoint": "/m"}}
        }))
        .unwrap();
        validate(&object).unwrap().active
    }

    #[test]
    fn only_what_a_server_would_notice_is_a_difference() {
        let (one, two) = (plugin(), plugin());
        let keys: BTreeSet<String> = ["k".to_owned()].into();
        let both = [Arc::clone(&one), Arc::clone(&two)];
        let mut index = PluginIndex::default();
        assert!(index.has("x", &[], &[].into()));
        index.set("x".to_owned(), both.to_vec(), keys.clone());
        assert!(index.has("x", &both, &keys));
        assert!(!index.has("x", &[Arc::clone(&two), Arc::clone(&one)], &keys), "another order");
        assert!(!index.has("x", &both[..1], &keys));
        assert!(!index.has("x", &[one, plugin()], &keys), "an edited one");
        assert!(!index.has("x", &both, &[].into()));
    }
}
