//! How the plugins fare on the servers, counted in one pass over what is known of each. Pure.

use super::index::{ActivePlugin, PluginIndex};
use crate::{
    api::{
        fleet_plugin::{Reading, ServerCounts},
        server_status::{PLUGINS_MAX, PluginReport},
    },
    controller::server::{
        assess::{EVALUATION_FAILED, TOO_MANY_CONDITIONS},
        live::Snapshot,
    },
};
use kube::core::SelectorExt;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// How one plugin fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub counts: ServerCounts,
    /// Servers where it has answered; where it is idle it is well, and has said nothing.
    pub answering: i32,
    /// What is wrong with its rules or values on some server.
    pub fault: Option<Fault>,
    /// Servers that it selects and on which it is not asked, because older plugins are as many as one is asked for.
    pub left_out: i32,
    /// The servers that it selects are not known yet.
    pub uncounted: bool,
    /// Readings that an older plugin feeds on some server where both are asked, and which.
    pub shadowed: BTreeMap<Reading, String>,
}

/// A reason and a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub reason: &'static str,
    pub message: String,
}

/// The plugins of all namespaces, by namespace and name.
#[derive(Debug, Default)]
pub struct Tallies(HashMap<String, HashMap<String, Tally>>);

impl Tallies {
    pub fn take(&mut self, namespace: &str, plugin: &str) -> Tally {
        let mut tally =
            self.0.get_mut(namespace).and_then(|plugins| plugins.remove(plugin)).unwrap_or_default();
        let counts = &mut tally.counts;
        counts.summary = format!("{}/{}", counts.healthy, counts.matched - counts.disabled);
        tally
    }
}

pub fn tally(servers: &[Snapshot], index: &PluginIndex) -> Tallies {
    let mut tallies = Tallies::default();
    let mut sources: HashMap<&str, HashMap<&str, (usize, &ActivePlugin)>> = HashMap::new();
    for (namespace, plugins) in &index.by_namespace {
        let by_name =
            plugins.iter().enumerate().map(|(age, plugin)| (plugin.name.as_str(), (age, &**plugin)));
        sources.insert(namespace, by_name.collect());
    }
    for server in servers {
        let reports = server.status.plugins.as_deref().unwrap_or_default();
        if reports.is_empty() {
            continue;
        }
        let here = tallies.0.entry(server.namespace.to_string()).or_default();
        for report in reports {
            count(here.entry(report.name.clone()).or_default(), report, server.object.spec.suspend);
        }
        let Some(known) = sources.get(&*server.namespace) else { continue };
        let active = index.by_namespace.get(&*server.namespace).map(Vec::as_slice).unwrap_or_default();
        for plugin in left_out(server, reports, active) {
            here.entry(plugin.name.clone()).or_default().left_out += 1;
        }
        let mut asked: Vec<(usize, &ActivePlugin)> = reports
            .iter()
            .filter(|report| report.state.as_deref() != Some("Disabled"))
            .filter_map(|report| known.get(report.name.as_str()).copied())
            .collect();
        asked.sort_unstable_by_key(|(age, _)| *age);
        let mut owners: BTreeMap<Reading, &str> = BTreeMap::new();
        for (_, plugin) in asked {
            for reading in plugin.values.readings() {
                match owners.get(&reading) {
                    None => {
                        owners.insert(reading, &plugin.name);
                    }
                    Some(owner) => {
                        let tally = here.entry(plugin.name.clone()).or_default();
                        tally.shadowed.entry(reading).or_insert_with(|| (*owner).to_owned());
                    }
                }
            }
        }
    }
    await_reports(&mut tallies, servers, index);
    tallies
}

/// Counts the servers that a plugin selects where none of them has a word of it yet: it was just made, or they were.
fn await_reports(tallies: &mut Tallies, servers: &[Snapshot], index: &PluginIndex) {
    for (namespace, plugins) in &index.by_namespace {
        let here = tallies.0.entry(namespace.clone()).or_default();
        let unheard = plugins
            .iter()
            .filter(|plugin| {
                here.get(&plugin.name).is_none_or(|tally| tally.counts.matched == 0 && tally.left_out == 0)
            })
            .cloned()
            .collect::<Vec<_>>();
        if unheard.is_empty() {
            continue;
        }
        let nothing = BTreeMap::new();
        for server in servers.iter().filter(|server| *server.namespace == **namespace) {
            let labels = server.object.metadata.labels.as_ref().unwrap_or(&nothing);
            for plugin in unheard.iter().filter(|plugin| plugin.selector.matches(labels)) {
                here.entry(plugin.name.clone()).or_default().counts.matched += 1;
            }
        }
    }
}

/// The plugins that select a server which is asked for as many others as it can be.
fn left_out<'a>(
    server: &Snapshot,
    reports: &[PluginReport],
    active: &'a [Arc<ActivePlugin>],
) -> impl Iterator<Item = &'a ActivePlugin> {
    let full = reports.len() >= PLUGINS_MAX && active.len() > PLUGINS_MAX;
    let asked: HashSet<String> = reports.iter().filter(|_| full).map(|report| report.name.clone()).collect();
    let labels = server.object.metadata.labels.clone().filter(|_| full).unwrap_or_default();
    let candidates = if full { active } else { &[] };
    candidates
        .iter()
        .map(|plugin| &**plugin)
        .filter(move |plugin| !asked.contains(&plugin.name) && plugin.selector.matches(&labels))
}

fn count(tally: &mut Tally, report: &PluginReport, suspended: bool) {
    let counts = &mut tally.counts;
    counts.matched += 1;
    if suspended {
        // Its last word is kept in its status, and says nothing of today.
        counts.disabled += 1;
        return;
    }
    match report.state.as_deref() {
        Some("Active") => {
            counts.healthy += 1;
            tally.answering += 1;
        }
        Some("Idle") => counts.healthy += 1,
        Some("Error") => counts.failing += 1,
        Some("Disabled") => counts.disabled += 1,
        _ => {}
    }
    let reason = match report.reason.as_deref() {
        Some(EVALUATION_FAILED) => EVALUATION_FAILED,
        Some(TOO_MANY_CONDITIONS) => TOO_MANY_CONDITIONS,
        _ => return,
    };
    // What cannot be judged at all is worse than what is judged and not shown.
    if tally.fault.as_ref().is_none_or(|fault| fault.reason != EVALUATION_FAILED && fault.reason != reason) {
        tally.fault = Some(Fault { reason, message: report.message.clone().unwrap_or_default() });
    }
}

#[cfg(test)]
#[path = "tally_tests.rs"]
mod tests;
