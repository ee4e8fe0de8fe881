//! What a plugin's status should say: from the verdict about its spec and how it fares on the servers. Pure.

use super::{
    tally::Tally,
    validate::{Refused, Verdict},
};
use crate::{
    api::{
        FleetPlugin, FleetPluginStatus,
        condition::{ACCEPTED, Builder, READY, RULES_HEALTHY, Truth},
        fleet_plugin::{Reading, ServerCounts},
    },
    controller::server::assess::EVALUATION_FAILED,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::{collections::BTreeMap, fmt::Write};

/// The status of a plugin as it should stand.
pub fn plan(plugin: &FleetPlugin, verdict: &Verdict, tally: Tally, now: &Time) -> FleetPluginStatus {
    let previous = plugin.status.clone().unwrap_or_default();
    let mut builder = Builder::new(&previous.conditions, plugin.metadata.generation, now);
    let Tally { counts, fault, shadowed } = tally;
    if !matches!(verdict, Verdict::Refused(_)) {
        builder.set(ACCEPTED, Truth::True, "Valid", accepted(&shadowed));
    }
    let state = match verdict {
        Verdict::Refused(Refused { reason, message }) => {
            builder.set(ACCEPTED, Truth::False, reason, message).set(READY, Truth::False, reason, message);
            "Error"
        }
        Verdict::Inactive(Refused { reason, message }) => {
            builder.set(READY, Truth::False, reason, message);
            "Inactive"
        }
        Verdict::Active(active) => {
            let (truth, reason, message) = ready(&counts);
            builder.set(READY, truth, reason, message);
            if let Some(fault) = fault {
                builder.set(RULES_HEALTHY, Truth::False, EVALUATION_FAILED, fault);
            } else if !active.rules.is_empty() {
                builder.set(RULES_HEALTHY, Truth::True, "Evaluated", "every rule can be judged");
            }
            "Active"
        }
    };
    FleetPluginStatus {
        state: Some(state.to_owned()),
        observed_generation: plugin.metadata.generation,
        installed_version: if matches!(verdict, Verdict::Refused(_)) {
            previous.installed_version
        } else {
            plugin.spec.version.clone()
        },
        servers: Some(counts),
        conditions: builder.build(),
    }
}

/// Names what an older plugin feeds already, so that nobody wonders why a value does not show.
fn accepted(shadowed: &BTreeMap<Reading, String>) -> String {
    let mut by_owner: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (reading, owner) in shadowed {
        by_owner.entry(owner).or_default().push(reading.as_str());
    }
    let mut message = "the spec is valid".to_owned();
    for (owner, readings) in by_owner {
        let readings = readings.join(", ");
        let _ = write!(message, "; where both are asked, the older FleetPlugin {owner} feeds {readings}");
    }
    message
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
