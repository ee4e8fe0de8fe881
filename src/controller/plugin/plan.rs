//! What a plugin's status should say: from the verdict about its spec and how it fares on the servers. Pure.

use super::{
    tally::{Fault, Tally},
    validate::{Refused, TOO_MANY_PLUGINS, Verdict},
};
use crate::api::{
    FleetPlugin, FleetPluginStatus,
    condition::{ACCEPTED, Builder, READY, RULES_HEALTHY, Truth},
    fleet_plugin::{Reading, ServerCounts},
    server_status::PLUGINS_MAX,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::{collections::BTreeMap, fmt::Write};

/// The status of a plugin as it should stand, after the previous one.
pub fn plan(
    plugin: &FleetPlugin,
    previous: Option<&FleetPluginStatus>,
    verdict: &Verdict,
    tally: Tally,
    now: &Time,
) -> FleetPluginStatus {
    let conditions = previous.map_or(&[][..], |status| &status.conditions);
    let mut builder = Builder::new(conditions, plugin.metadata.generation, now);
    let Tally { counts, answering, fault, left_out, uncounted, shadowed } = tally;
    if !matches!(verdict, Verdict::Refused(_)) {
        let left_out = if counts.matched > 0 { left_out } else { 0 };
        builder.set(ACCEPTED, Truth::True, "Valid", accepted(&shadowed, left_out));
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
            if counts.matched == 0 && left_out > 0 {
                let message = format!("asked nowhere: {}", left_out_on(left_out));
                builder.set(READY, Truth::False, TOO_MANY_PLUGINS, message);
            } else if uncounted && counts.matched == 0 {
                builder.set(READY, Truth::Unknown, "Pending", "the servers are not known yet");
            } else {
                let (truth, reason, message) = ready(&counts);
                builder.set(READY, truth, reason, message);
            }
            if let Some(Fault { reason, message }) = fault {
                builder.set(RULES_HEALTHY, Truth::False, reason, message);
            } else if !active.rules.is_empty() {
                let (truth, reason, message) = rules(&counts, answering);
                builder.set(RULES_HEALTHY, truth, reason, message);
            }
            "Active"
        }
    };
    FleetPluginStatus {
        state: Some(state.to_owned()),
        observed_generation: plugin.metadata.generation,
        installed_version: if matches!(verdict, Verdict::Refused(_)) {
            previous.and_then(|status| status.installed_version.clone())
        } else {
            plugin.spec.version.clone()
        },
        servers: Some(counts),
        conditions: builder.build(),
    }
}

/// Names what an older plugin feeds already, and where it is not asked, so that nobody wonders why a value does not show.
fn accepted(shadowed: &BTreeMap<Reading, String>, left_out: i32) -> String {
    let mut by_owner: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (reading, owner) in shadowed {
        by_owner.entry(owner).or_default().push(reading.as_str());
    }
    let mut message = "the spec is valid".to_owned();
    for (owner, readings) in by_owner {
        let readings = readings.join(", ");
        let _ = write!(message, "; where both are asked, the older FleetPlugin {owner} feeds {readings}");
    }
    if left_out > 0 {
        let _ = write!(message, "; {}", left_out_on(left_out));
    }
    message
}

fn left_out_on(servers: i32) -> String {
    format!(
        "{servers} of the servers that it selects have {PLUGINS_MAX} older FleetPlugins each, the most that one is asked for; narrow the serverSelector of some"
    )
}

/// Nothing is known of rules before an agent has answered.
fn rules(counts: &ServerCounts, answering: i32) -> (Truth, &'static str, &'static str) {
    if answering > 0 {
        (Truth::True, "Evaluated", "every rule can be judged")
    } else if counts.failing > 0 {
        (Truth::Unknown, "Pending", "no agent answers")
    } else {
        (Truth::Unknown, "Pending", "no agent has answered yet")
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
        (Truth::True, "Disabled", "turned off or suspended on every selected server")
    } else if counts.healthy > 0 {
        (Truth::True, "Healthy", "answers, or is idle, on at least one server")
    } else if counts.failing > 0 {
        (Truth::False, "Failing", "answers on no server")
    } else {
        (Truth::Unknown, "Pending", "no server has been asked yet")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;
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

    fn planned(tally: Tally) -> FleetPluginStatus {
        let plugin: FleetPlugin = serde_json::from_value(serde_json::json!({
            "apiVersion": "ollama-fleet.io/v1alpha1", "kind": "FleetPlugin",
            "metadata": {"name": "p", "namespace": "x", "generation": 1},
            "spec": {"type": "Agent", "version": "1.0.0", "agent": {"defaultPort": 9100, "endpoint": "/m",
                "values": [{"name": "a", "jsonPaths": ["$.a"]}],
                "rules": [{"name": "High", "when": "values.a > 1", "severity": "Warning", "as": "Condition", "message": "m"}]}}
        }))
        .unwrap();
        let active = crate::controller::plugin::validate::validate(&plugin).unwrap().active;
        let now = Time(Timestamp::UNIX_EPOCH);
        plan(&plugin, None, &Verdict::Active(active), tally, &now)
    }

    fn said(status: &FleetPluginStatus, type_: &str) -> [String; 3] {
        let found = crate::api::condition::find(&status.conditions, type_).unwrap();
        [found.status.clone(), found.reason.clone(), found.message.clone()]
    }

    fn counts(matched: i32, healthy: i32, failing: i32) -> ServerCounts {
        ServerCounts { matched, healthy, failing, ..ServerCounts::default() }
    }

    #[rstest]
    #[case::not_asked(0, 0, "Unknown", "Pending", "no agent has answered yet")]
    #[case::failing(0, 1, "Unknown", "Pending", "no agent answers")]
    #[case::healthy(1, 0, "True", "Evaluated", "every rule can be judged")]
    fn rules_are_healthy_once_an_agent_answers(
        #[case] healthy: i32,
        #[case] failing: i32,
        #[case] truth: &str,
        #[case] reason: &str,
        #[case] message: &str,
    ) {
        let answering = healthy;
        let status = planned(Tally { counts: counts(1, healthy, failing), answering, ..Tally::default() });
        assert_eq!(said(&status, RULES_HEALTHY), [truth, reason, message]);
    }

    #[rstest]
    #[case::servers_unknown(true, 0, ["Unknown", "Pending", "the servers are not known yet"])]
    #[case::not_asked(true, 2, ["Unknown", "Pending", "no server has been asked yet"])]
    #[case::none_selected(false, 0, ["True", "NoServers", "no server is selected"])]
    fn a_plugin_that_has_not_counted_yet_is_pending(
        #[case] uncounted: bool,
        #[case] matched: i32,
        #[case] expected: [&str; 3],
    ) {
        let status = planned(Tally { counts: counts(matched, 0, 0), uncounted, ..Tally::default() });
        assert_eq!(said(&status, READY), expected);
    }

    /// A plugin that needs a model in memory, on servers that have none: it is well, and has said nothing.
    #[test]
    fn idle_is_healthy_and_judges_no_rule() {
        let status = planned(Tally { counts: counts(1, 1, 0), ..Tally::default() });
        assert_eq!(said(&status, READY)[..2], ["True", "Healthy"].map(str::to_owned)[..]);
        assert_eq!(said(&status, RULES_HEALTHY)[..2], ["Unknown", "Pending"].map(str::to_owned)[..]);
    }

    #[test]
    fn rules_without_a_condition_are_not_healthy() {
        let fault = Some(Fault { reason: "TooManyConditions", message: "more than 16".to_owned() });
        let status = planned(Tally { counts: counts(1, 1, 0), fault, ..Tally::default() });
        assert_eq!(said(&status, RULES_HEALTHY), ["False", "TooManyConditions", "more than 16"]);
    }

    #[test]
    fn a_plugin_that_no_server_has_room_for_says_so() {
        let nowhere = planned(Tally { left_out: 3, ..Tally::default() });
        let [truth, reason, message] = said(&nowhere, READY);
        assert_eq!((truth.as_str(), reason.as_str()), ("False", "TooManyPlugins"));
        assert!(
            message.starts_with("asked nowhere: 3 of the servers that it selects have 64 older"),
            "{message}"
        );
        let some = planned(Tally { left_out: 3, counts: counts(1, 1, 0), ..Tally::default() });
        assert_eq!(said(&some, READY)[1], "Healthy");
        assert!(said(&some, ACCEPTED)[2].contains("; 3 of the servers"), "{some:?}");
    }
}
