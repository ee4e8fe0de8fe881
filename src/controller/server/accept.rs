//! Whether a spec can be acted on, and what it comes to with the operator's defaults filled in. Pure.

use crate::{
    api::{
        duration,
        endpoint::{Endpoint, Scheme, parse_authority},
        ollama_server::{BackendType, OllamaServerSpec},
    },
    args::PollArgs,
    controller::credentials::References,
    probe::{Failure, address::AddressPolicy, text::clean, tls::TlsSettings},
};
use hyper::header::HeaderValue;
use k8s_openapi::jiff::Timestamp;
use rustls::pki_types::DnsName;
use std::time::Duration;

/// A list of models is dear for the host: it reads every manifest from disk.
const MODELS_INTERVAL: Duration = Duration::from_mins(1);

/// A spec that can be acted on.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    pub endpoint: Endpoint,
    pub backend: BackendType,
    pub host_header: Option<HeaderValue>,
    pub tls: TlsSettings,
    /// The Secrets that the host is asked with.
    pub credentials: References,
    pub interval: Duration,
    pub timeout: Duration,
    pub failure_threshold: u32,
    pub success_threshold: u32,
    pub models_interval: Duration,
    /// What the user should know although the spec is valid; shown in Accepted's message.
    pub notes: Vec<&'static str>,
}

impl Accepted {
    /// Who is asked, and how: whoever changes any of it waits for the answer.
    pub fn way(&self) -> (Endpoint, BackendType, Option<HeaderValue>, TlsSettings, References) {
        let Self { endpoint, backend, host_header, tls, credentials, .. } = self;
        (endpoint.clone(), *backend, host_header.clone(), tls.clone(), credentials.clone())
    }
}

/// A spec that cannot be acted on before somebody changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub reason: &'static str,
    pub message: String,
}

impl Rejected {
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { reason: "InvalidSpec", message: message.into() }
    }
}

/// Judges a spec. What only a lookup can tell (a name that leads to a refused address) comes with the poll.
pub fn accept(
    spec: &OllamaServerSpec,
    defaults: &PollArgs,
    policy: &AddressPolicy,
) -> Result<Accepted, Rejected> {
    let endpoint = Endpoint::parse(&spec.host).map_err(|error| Rejected::invalid(error.to_string()))?;
    policy.check_endpoint(&endpoint).map_err(|refused| Rejected {
        reason: Failure::from(refused).reason(),
        message: refused.to_string(),
    })?;
    if spec.backend_type == BackendType::Plugin {
        return Err(Rejected {
            reason: "ProviderNotFound",
            message: "providerRef names no hook plugin that offers a provider".into(),
        });
    }
    let credentials = References::parse(spec.secret_ref.as_ref(), spec.cert_secret_ref.as_ref())
        .map_err(|error| Rejected::invalid(error.to_string()))?;
    if credentials.certificates.is_some() && endpoint.scheme == Scheme::Http {
        return Err(Rejected::invalid(
            "certSecretRef needs TLS: write https:// before the host, or remove it",
        ));
    }
    for (key, place) in &spec.plugin_hosts {
        parse_authority(place).map_err(|_| {
            Rejected::invalid(format!(
                "pluginHosts.{}: write a name or an address with an optional :port, for example 192.168.1.60:80",
                clean(key, 63)
            ))
        })?;
    }
    let host_header = match &spec.host_header {
        Some(text) => Some(
            HeaderValue::from_str(text).map_err(|_| Rejected::invalid("hostHeader is no header value"))?,
        ),
        None => None,
    };
    let server_name = server_name(spec, &endpoint)?;
    let poll = spec.poll.clone().unwrap_or_default();
    let mut notes = Vec::new();
    let wanted = optional(poll.interval.as_deref(), "poll.interval")?.unwrap_or(defaults.poll_interval);
    if wanted < defaults.min_poll_interval {
        notes.push("the interval is raised to the operator's --min-poll-interval");
    }
    let interval = wanted.max(defaults.min_poll_interval);
    let timeout = optional(poll.timeout.as_deref(), "poll.timeout")?.unwrap_or(defaults.poll_timeout);
    if spec.insecure_skip_verify {
        notes.push("insecureSkipVerify is on: the host's certificate is not checked");
    }
    Ok(Accepted {
        endpoint,
        backend: spec.backend_type,
        host_header,
        credentials,
        tls: TlsSettings { server_name, skip_verify: spec.insecure_skip_verify, ..TlsSettings::default() },
        interval,
        timeout: effective_timeout(timeout, interval),
        failure_threshold: threshold(poll.failure_threshold, defaults.failure_threshold),
        success_threshold: threshold(poll.success_threshold, 1),
        models_interval: optional(poll.models_interval.as_deref(), "poll.modelsInterval")?
            .unwrap_or(MODELS_INTERVAL),
        notes,
    })
}

/// The name to be verified in place of the host's. Without https nothing would be verified, and whoever wrote it
/// believes otherwise.
fn server_name(spec: &OllamaServerSpec, endpoint: &Endpoint) -> Result<Option<DnsName<'static>>, Rejected> {
    let Some(text) = &spec.tls_server_name else { return Ok(None) };
    if endpoint.scheme != Scheme::Https {
        return Err(Rejected::invalid(
            "tlsServerName needs https; write https:// in front of the host, or remove tlsServerName",
        ));
    }
    // Lower case, so that two spellings of a name share a client.
    DnsName::try_from(text.to_ascii_lowercase()).map(Some).map_err(|_| {
        Rejected::invalid("tlsServerName must be a DNS name without a port, for example gpu1.lab")
    })
}

/// A poll is over well before the next one begins.
pub fn effective_timeout(timeout: Duration, interval: Duration) -> Duration {
    timeout.min(interval * 4 / 5)
}

fn optional(text: Option<&str>, field: &str) -> Result<Option<Duration>, Rejected> {
    text.map(|text| {
        duration::parse(text)
            .filter(|value| !value.is_zero())
            .ok_or_else(|| Rejected::invalid(format!("{field} must be a duration, for example 10s")))
    })
    .transpose()
}

fn threshold(wanted: Option<i32>, default: u32) -> u32 {
    wanted.and_then(|count| u32::try_from(count).ok()).unwrap_or(default).max(1)
}

/// Whether the server is in maintenance at `now`, and until when.
pub fn maintenance(spec: &OllamaServerSpec, now: Timestamp) -> Option<Option<Timestamp>> {
    let maintenance = spec.maintenance.as_ref()?;
    // An end that cannot be read is no end: it takes an edit to leave such a maintenance.
    let end: Option<Timestamp> = maintenance.end_time.as_deref().and_then(|text| text.parse().ok());
    end.is_none_or(|end| now < end).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        poll: PollArgs,
    }

    fn judge(spec: Value) -> Result<Accepted, Rejected> {
        let spec: OllamaServerSpec = serde_json::from_value(spec).unwrap();
        accept(&spec, &Flags::parse_from(["x"]).poll, &AddressPolicy::default())
    }

    #[test]
    fn absent_settings_follow_the_flags() {
        let accepted = judge(json!({"host": "192.168.1.100"})).unwrap();
        assert_eq!(accepted.interval, Duration::from_secs(10));
        assert_eq!(accepted.timeout, Duration::from_secs(5));
        assert_eq!((accepted.failure_threshold, accepted.success_threshold), (3, 1));
        assert!(accepted.notes.is_empty());
    }

    #[test]
    fn short_intervals_are_raised_and_said_so() {
        let accepted = judge(json!({"host": "192.168.1.100", "poll": {"interval": "1s"}})).unwrap();
        assert_eq!((accepted.interval, accepted.timeout), (Duration::from_secs(5), Duration::from_secs(4)));
        assert_eq!(accepted.notes.len(), 1);
    }

    #[rstest]
    #[case::metadata(json!({"host": "169.254.169.254"}), "AddressNotAllowed")]
    #[case::loopback(json!({"host": "127.0.0.1"}), "AddressNotAllowed")]
    #[case::port(json!({"host": "192.168.1.1:22"}), "AddressNotAllowed")]
    #[case::port_of_a_name(json!({"host": "gpu1.lab:6443"}), "AddressNotAllowed")]
    #[case::local_name(json!({"host": "a.localhost"}), "AddressNotAllowed")]
    #[case::metadata_name(json!({"host": "metadata.google.internal"}), "AddressNotAllowed")]
    #[case::numeric_name(json!({"host": "127.1"}), "InvalidSpec")]
    #[case::agent_at_a_numeric_name(json!({"host": "192.168.1.1", "pluginHosts": {"plugPort": "127.1"}}), "InvalidSpec")]
    #[case::agent_at_no_host(json!({"host": "192.168.1.1", "pluginHosts": {"plugPort": "http://x/"}}), "InvalidSpec")]
    #[case::secret_by_path(json!({"host": "192.168.1.1", "secretRef": {"name": "../../x/secrets/s"}}), "InvalidSpec")]
    #[case::certificates_without_tls(json!({"host": "192.168.1.1", "certSecretRef": {"name": "s"}}), "InvalidSpec")]
    #[case::server_name_without_tls(json!({"host": "192.168.1.1", "tlsServerName": "gpu1.lab"}), "InvalidSpec")]
    #[case::address_as_server_name(json!({"host": "https://gpu1.lab", "tlsServerName": "192.168.1.1"}), "InvalidSpec")]
    #[case::provider(json!({"host": "192.168.1.1", "backendType": "Plugin", "providerRef": {"name": "p"}}), "ProviderNotFound")]
    #[case::zero_interval(json!({"host": "192.168.1.1", "poll": {"interval": "0s"}}), "InvalidSpec")]
    fn what_cannot_be_acted_on_is_rejected_with_a_reason(#[case] spec: Value, #[case] reason: &str) {
        assert_eq!(judge(spec).unwrap_err().reason, reason);
    }

    #[test]
    fn a_server_name_is_for_the_host_and_its_spelling_does_not_matter() {
        let accepted = judge(json!({"host": "https://192.168.1.1", "tlsServerName": "GPU_1.lab"})).unwrap();
        assert_eq!(accepted.tls.server_name.unwrap().as_ref(), "gpu_1.lab");
    }

    #[rstest]
    #[case(json!({}), Some(None))]
    #[case(json!({"endTime": "2026-12-01T18:00:00Z"}), Some(Some("2026-12-01T18:00:00Z")))]
    #[case(json!({"endTime": "2026-11-01T18:00:00+01:00"}), None)]
    fn a_maintenance_ends_by_itself(#[case] maintenance_spec: Value, #[case] expected: Option<Option<&str>>) {
        let spec = json!({"host": "h.lab", "maintenance": maintenance_spec});
        let spec: OllamaServerSpec = serde_json::from_value(spec).unwrap();
        let now = "2026-11-22T00:00:00Z".parse().unwrap();
        assert_eq!(maintenance(&spec, now), expected.map(|end| end.map(|text| text.parse().unwrap())));
    }
}
