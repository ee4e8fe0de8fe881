//! The settings of the old dashboard: what they were called, which of them live on, and what replaces the others.

use super::report::Report;
use std::collections::BTreeMap;

/// The setting that holds the servers, as JSON.
pub const SERVERS: &str = "OLLAMA_SERVERS";
pub const POLL_INTERVAL: &str = "POLL_INTERVAL";
pub const TIMEOUT: &str = "HEALTH_CHECK_TIMEOUT";
pub const THRESHOLD: &str = "OFFLINE_THRESHOLD";

/// The old dashboard's settings by name; names that it did not know are not in here.
pub type Settings = BTreeMap<String, String>;

const PROXY: &str =
    "the operator routes no requests; keep a proxy of your choice, and let it follow the condition Ready";
/// Settings that nothing here takes, by name or, with a `_` at the end, by how they begin.
const WITHOUT_HOME: [(&str, &str); 8] = [
    (
        "WAN_",
        "the operator does not watch your uplink; an outage shows as ServerOffline of every host, which Alertmanager can inhibit",
    ),
    ("PROXY_", PROXY),
    ("SOURCE_NAMES", PROXY),
    ("MUTE_MODEL_NOT_FOUND_ALERTS", PROXY),
    (
        "TELEGRAM_",
        "alerts are Prometheus' rules over the metrics ollama_fleet_…; Alertmanager has a receiver for Telegram",
    ),
    (
        "DATABASE_URL",
        "there is no database: the present is in the objects' status, the past in Prometheus and Events",
    ),
    ("ADMIN_USERNAME", "access is a matter of Kubernetes' RBAC"),
    ("ADMIN_PASSWORD", "access is a matter of Kubernetes' RBAC"),
];

/// Whether the old dashboard read a variable of this name.
pub fn is_setting(name: &str) -> bool {
    [SERVERS, POLL_INTERVAL, TIMEOUT, THRESHOLD].contains(&name) || hint(name).is_some()
}

fn hint(name: &str) -> Option<&'static str> {
    let matches = |known: &str| name == known || (known.ends_with('_') && name.starts_with(known));
    WITHOUT_HOME.iter().find(|(known, _)| matches(known)).map(|(_, hint)| *hint)
}

/// A setting as the old dashboard read it: without blanks around it, and absent if nothing is left.
pub fn get<'a>(settings: &'a Settings, name: &str) -> Option<&'a str> {
    settings.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
}

/// Names each setting that is lost, never its value: some are secrets.
pub fn report_without_home(settings: &Settings, report: &mut Report) {
    for name in settings.keys() {
        if let (Some(hint), Some(_)) = (hint(name), get(settings, name)) {
            report.no_home(name, hint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("OLLAMA_SERVERS", true)]
    #[case("WAN_CHECK_INTERVAL", true)]
    #[case("PROXY_MIN_NUM_CTX", true)]
    #[case("TELEGRAM_CHAT_ID", true)]
    #[case("SOURCE_NAMES", true)]
    #[case("SOURCE_NAMES_2", false)]
    #[case("HTTP_PROXY", false)]
    #[case("PATH", false)]
    fn only_the_old_dashboards_settings_are_known(#[case] name: &str, #[case] known: bool) {
        assert_eq!(is_setting(name), known);
    }

    #[test]
    fn settings_without_a_home_are_named_and_their_values_are_not() {
        let settings = [("TELEGRAM_BOT_TOKEN", "s3cret"), ("TELEGRAM_CHAT_ID", " "), ("POLL_INTERVAL", "10")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut report = Report::default();
        report_without_home(&settings.into(), &mut report);
        let lines: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("no home: TELEGRAM_BOT_TOKEN: ") && !lines[0].contains("s3cret"));
    }
}
