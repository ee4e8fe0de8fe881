//! The series of agent plugins, made from the live set when they are asked for.

use super::{
    budget::Room,
    fleet::{Out, count},
};
use crate::{
    api::server_status::{PLUGIN_VALUES_MAX, Scalar},
    controller::server::live::{AgentSnapshot, Snapshot},
};
use k8s_openapi::jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Names of values of one plugin that have series. A plugin names 32 at most; one that names none has as many as its
/// agents make up, each machine its own.
const NAMES_MAX: usize = 64;

/// What the agents of one plugin have, all together.
#[derive(Default)]
struct Known<'a> {
    /// The first names in their order, so that the same ones are shown every time.
    names: BTreeSet<&'a str>,
    /// How many rules any of them has.
    rules: usize,
}

impl Known<'_> {
    fn values(&self) -> usize {
        self.names.len().min(PLUGIN_VALUES_MAX)
    }

    /// Series that one agent may have: whether it is up and how long it took, and all else.
    fn series(&self) -> usize {
        2 + self.rules + self.values()
    }
}

/// The plugins, by namespace and name.
struct Plugins<'a>(BTreeMap<(&'a str, &'a str), Known<'a>>);

impl<'a> Plugins<'a> {
    fn of(servers: &'a [Snapshot]) -> Self {
        let mut all: BTreeMap<(&str, &str), Known<'_>> = BTreeMap::new();
        for (server, agent) in agents(servers) {
            let known = all.entry((&*server.namespace, agent.plugin.as_str())).or_default();
            known.rules = known.rules.max(agent.rules.len());
            for name in agent.values.keys() {
                known.names.insert(name);
                if known.names.len() > NAMES_MAX {
                    known.names.pop_last();
                }
            }
        }
        Self(all)
    }

    fn get(&self, server: &'a Snapshot, agent: &'a AgentSnapshot) -> Option<&Known<'a>> {
        self.0.get(&(&*server.namespace, agent.plugin.as_str()))
    }

    /// Series that each namespace may have.
    fn wanted(&self, servers: &'a [Snapshot]) -> BTreeMap<&'a str, usize> {
        let mut wanted = BTreeMap::new();
        for (server, agent) in agents(servers) {
            *wanted.entry(&*server.namespace).or_default() +=
                self.get(server, agent).map_or(0, Known::series);
        }
        wanted
    }
}

fn agents(servers: &[Snapshot]) -> impl Iterator<Item = (&Snapshot, &AgentSnapshot)> {
    servers.iter().flat_map(|server| server.agents.iter().map(move |agent| (server, agent)))
}

/// At most `most` series, in the order of the servers. Where they are too many, whether agents answer goes before what
/// they say.
pub fn series(out: &mut Out<'_, '_>, servers: &[Snapshot], most: usize) -> fmt::Result {
    let plugins = Plugins::of(servers);
    let mut room = Room::share(&plugins.wanted(servers), most);
    let mut dropped = 0;
    out.series(
        "plugin_up",
        "1 if the plugin's agent answers on this server, 0 if not",
        None,
        servers,
        |server, emit| {
            for agent in server.agents.iter() {
                let fits = room.take(&server.namespace, 1);
                match agent.up {
                    Some(up) if fits => emit(vec![("plugin", &agent.plugin)], i64::from(up))?,
                    Some(_) => dropped += 1,
                    None => {}
                }
            }
            Ok(())
        },
    )?;
    out.series(
        "rule_active",
        "1 if a plugin's rule holds on this server, 0 if not",
        None,
        servers,
        |server, emit| {
            for agent in server.agents.iter() {
                let rules = plugins.get(server, agent).map_or(0, |known| known.rules);
                if room.take(&server.namespace, rules) {
                    for (rule, active) in &agent.rules {
                        emit(vec![("plugin", &agent.plugin), ("rule", rule)], i64::from(*active))?;
                    }
                } else {
                    dropped += agent.rules.len();
                }
            }
            Ok(())
        },
    )?;
    out.series(
        "plugin_value",
        "Values of plugins; times in seconds since 1970",
        None,
        servers,
        |server, emit| {
            for agent in server.agents.iter() {
                let Some(known) = plugins.get(server, agent) else { continue };
                let fits = room.take(&server.namespace, known.values());
                for (name, value) in agent.values.iter() {
                    match number(value) {
                        Some(number) if fits && known.names.contains(name.as_str()) => {
                            emit(vec![("plugin", &agent.plugin), ("name", name)], number)?;
                        }
                        Some(_) => dropped += 1,
                        None => {}
                    }
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
                let fits = room.take(&server.namespace, 1);
                match agent.took {
                    Some(took) if fits => emit(vec![("plugin", &agent.plugin)], took.as_secs_f64())?,
                    Some(_) => dropped += 1,
                    None => {}
                }
            }
            Ok(())
        },
    )?;
    out.single(
        "plugin_series_dropped",
        "Series of plugins that are left out, because their plugin has too many names or there are too many in all",
        count(dropped),
    )
}

/// Host names are no numbers.
fn number(value: &Scalar) -> Option<i64> {
    match value {
        Scalar::Integer(number) => Some(*number),
        Scalar::Boolean(truth) => Some(i64::from(*truth)),
        Scalar::Text(text) => text.parse::<Timestamp>().ok().map(Timestamp::as_second),
    }
}
