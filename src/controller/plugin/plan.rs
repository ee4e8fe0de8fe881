//! What a plugin's status should say: from the verdict about its spec and how it fares on the servers. Pure.

use super::validate::Refused;
use crate::{
    api::{
        FleetPlugin, FleetPluginStatus,
        condition::{ACCEPTED, Builder, READY, Truth},
        fleet_plugin::ServerCounts,
    },
    controller::server::live::Snapshot,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Counts a plugin over the servers of its namespace, from what each server's status says of it.
pub fn count<'a>(plugin: &str, servers: impl Iterator<Item = &'a Snapshot>) -> ServerCounts {
    let mut counts = ServerCounts::default();
    for server in servers {
        let reports = server.status.plugins.as_deref().unwrap_or_default();
        let Some(report) = reports.iter().find(|report| report.name == plugin) else { continue };
        counts.matched += 1;
        match report.state.as_deref() {
            Some("Active") => counts.healthy += 1,
            Some("Error") => counts.failing += 1,
            Some("Disabled") => counts.disabled += 1,
            _ => {}
        }
    }
    counts.summary = format!("{}/{}", counts.healthy, counts.matched - counts.disabled);
    counts
}

/// The status of a plugin as it should stand.
pub fn plan(
    plugin: &FleetPlugin,
    verdict: Result<(), &Refused>,
    counts: ServerCounts,
    now: &Time,
) -> FleetPluginStatus {
    let previous = plugin.status.clone().unwrap_or_default();
    let mut builder = Builder::new(&previous.conditions, plugin.metadata.generation, now);
    let state = if let Err(refused) = verdict {
        let Refused { reason, message } = refused;
        builder.set(ACCEPTED, Truth::False, reason, message).set(READY, Truth::False, reason, message);
        "Error"
    } else {
        builder.set(ACCEPTED, Truth::True, "Valid", "the spec is valid");
        if plugin.spec.suspend {
            builder.set(READY, Truth::False, "Suspended", "asked nowhere: spec.suspend is true");
            "Inactive"
        } else {
            let (truth, reason, message) = ready(&counts);
            builder.set(READY, truth, reason, message);
            "Active"
        }
    };
    FleetPluginStatus {
        state: Some(state.to_owned()),
        observed_generation: plugin.metadata.generation,
        installed_version: if verdict.is_ok() {
            plugin.spec.version.clone()
        } else {
            previous.installed_version
        },
        servers: Some(counts),
        conditions: builder.build(),
    }
}

/// The status of an object that cannot be read.
pub fn unreadable(generation: Option<i64>, now: &Time) -> FleetPluginStatus {
    const MESSAGE: &str = "the object does not have the form that the operator understands; compare it with `kubectl explain fleetplugin.spec`";
    let mut builder = Builder::new(&[], generation, now);
    builder.set(ACCEPTED, Truth::False, "InvalidSpec", MESSAGE).set(
        READY,
        Truth::False,
        "InvalidSpec",
        MESSAGE,
    );
    FleetPluginStatus {
        state: Some("Error".to_owned()),
        observed_generation: generation,
        conditions: builder.build(),
        ..FleetPluginStatus::default()
    }
}

fn ready(counts: &ServerCounts) -> (Truth, &'static str, &'static str) {
    let asked = counts.matched - counts.disabled;
    if counts.matched == 0 {
        (Truth::True, "NoServers", "no server is selected")
    } else if asked == 0 {
        (Truth::True, "Disabled", "turned off on every selected server")
    } else if counts.healthy > 0 {
        (Truth::True, "Healthy", "answers on at least one server")
    } else if counts.failing > 0 {
        (Truth::False, "Failing", "answers on no server")
    } else {
        (Truth::Unknown, "Pending", "no server has been asked yet")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(0, 0, 0, 0, Truth::True)]
    #[case(2, 1, 1, 0, Truth::True)]
    #[case(2, 0, 2, 0, Truth::False)]
    #[case(2, 0, 0, 2, Truth::True)]
    #[case(2, 0, 0, 0, Truth::Unknown)]
    fn ready_is_accepted_and_useful(
        #[case] matched: i32,
        #[case] healthy: i32,
        #[case] failing: i32,
        #[case] disabled: i32,
        #[case] expected: Truth,
    ) {
        let counts = ServerCounts { matched, healthy, failing, disabled, summary: String::new() };
        assert_eq!(ready(&counts).0, expected);
    }
}
