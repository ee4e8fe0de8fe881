//! The series of agent plugins, made from the live set when they are asked for.

use super::fleet::{Out, count};
use crate::{api::server_status::Scalar, controller::server::live::Snapshot};
use k8s_openapi::jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Names of values of one plugin that have series. A plugin names 32 at most; one that names none has as many as its
/// agents make up, each machine its own.
const NAMES_MAX: usize = 64;

/// The first names of each plugin, by namespace and plugin.
type Names<'a> = BTreeMap<(&'a str, &'a str), BTreeSet<&'a str>>;

pub fn series(out: &mut Out<'_, '_>, servers: &[Snapshot]) -> fmt::Result {
    out.series(
        "plugin_up",
        "1 if the plugin's agent answers on this server, 0 if not",
        None,
        servers,
        |server, emit| {
            for agent in server.agents.iter() {
                if let Some(up) = agent.up {
                    emit(vec![("plugin", &agent.plugin)], i64::from(up))?;
                }
            }
            Ok(())
        },
    )?;
    out.series(
        "plugin_scrape_duration_seconds",
        "How long the last reading of a plugin's agent took",
        None,
        servers,
        |server, emit| {
            for agent in server.agents.iter() {
                if let Some(took) = agent.took {
                    emit(vec![("plugin", &agent.plugin)], took.as_secs_f64())?;
                }
            }
            Ok(())
        },
    )?;
    let names = names(servers);
    let shown = |server: &Snapshot, plugin: &str, name: &str| {
        names.get(&(&*server.namespace, plugin)).is_some_and(|names| names.contains(name))
    };
    out.series(
        "plugin_value",
        "Values of plugins; times in seconds since 1970",
        None,
        servers,
        |server, emit| {
            for agent in server.agents.iter() {
                for (name, value) in agent.values.iter() {
                    if let Some(number) = number(value).filter(|_| shown(server, &agent.plugin, name)) {
                        emit(vec![("plugin", &agent.plugin), ("name", name)], number)?;
                    }
                }
            }
            Ok(())
        },
    )?;
    let dropped = servers
        .iter()
        .flat_map(|server| server.agents.iter().map(move |agent| (server, agent)))
        .map(|(server, agent)| {
            let hidden = |(name, value): &(&String, &Scalar)| {
                number(value).is_some() && !shown(server, &agent.plugin, name)
            };
            agent.values.iter().filter(hidden).count()
        })
        .sum();
    out.single(
        "plugin_series_dropped",
        "Values of plugins without a series, because their plugin has too many names",
        count(dropped),
    )?;
    out.series(
        "rule_active",
        "1 if a plugin's rule holds on this server, 0 if not",
        None,
        servers,
        |server, emit| {
            for agent in server.agents.iter() {
                for (rule, active) in &agent.rules {
                    emit(vec![("plugin", &agent.plugin), ("rule", rule)], i64::from(*active))?;
                }
            }
            Ok(())
        },
    )
}

/// The first names of each plugin in their order, so that the same ones are shown every time.
fn names(servers: &[Snapshot]) -> Names<'_> {
    let mut all: Names<'_> = BTreeMap::new();
    for server in servers {
        for agent in server.agents.iter() {
            let names = all.entry((&*server.namespace, agent.plugin.as_str())).or_default();
            for name in agent.values.keys() {
                names.insert(name);
                if names.len() > NAMES_MAX {
                    names.pop_last();
                }
            }
        }
    }
    all
}

/// Host names are no numbers.
fn number(value: &Scalar) -> Option<i64> {
    match value {
        Scalar::Integer(number) => Some(*number),
        Scalar::Boolean(truth) => Some(i64::from(*truth)),
        Scalar::Text(text) => text.parse::<Timestamp>().ok().map(Timestamp::as_second),
    }
}
