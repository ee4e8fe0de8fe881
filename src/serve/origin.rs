//! Which `Host` and `Origin` a request may carry: protection of whoever has a browser next to this listener.
//!
//! A web page can make its visitor's browser send requests here, and with DNS rebinding under a name of its own.
//! So a name in `Host` must be one that no stranger can own: `localhost`, a name inside a cluster (`….svc`,
//! `….svc.cluster.local`), or a bare word with `ollama-fleet-operator` in it, as Services of the chart are called.
//! An IP address cannot be rebound, and is what Prometheus scrapes. Other names only if `--allowed-hosts` has them.
//! Everything else is refused, and so is every page that does not come from this very listener. Says nothing about who
//! the caller is; `auth` does.
//!
//! The apiserver's service proxy passes on the Host that its own caller used. So through it those get in who reach
//! their apiserver by address or as localhost or `kubernetes.default.svc`, and by a public name if that is allowed.

use super::problem::Problem;
use axum::http::{HeaderMap, StatusCode, Uri, header, uri::Authority};
use std::{net::IpAddr, sync::Arc};

/// A name of a Service that the chart makes holds this word, whatever the release is called.
const SERVICE_NAME: &str = "ollama-fleet-operator";

/// Suffixes that exist inside clusters only: `svc` is no top-level domain, and `cluster.local` none of the public DNS.
const CLUSTER_SUFFIXES: [&str; 2] = [".svc", ".svc.cluster.local"];

/// A DNS name's bound.
const HOST_MAX: usize = 253;

/// The names that this listener goes by.
#[derive(Clone, Debug)]
pub struct Hosts {
    /// What a Host without a port means.
    default_port: u16,
    /// Names that are allowed besides those that nobody else can own.
    more: Arc<[String]>,
}

impl Hosts {
    /// `more` as [`parse_host`] returns them.
    pub fn new(default_port: u16, more: &[String]) -> Self {
        Self { default_port, more: more.into() }
    }

    /// Checks the target and the origin of a request.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        let host = target(uri, headers)?;
        let name = normal(host.host());
        if !safe(&name) && !self.more.contains(&name) {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "this Host is not served; use an IP address, localhost, the Service's name ending in .svc, or a name in \
                 --allowed-hosts",
            ));
        }
        if same_origin(headers, &name, host.port_u16().unwrap_or(self.default_port)) {
            return Ok(());
        }
        Err(Problem::new(StatusCode::FORBIDDEN, "requests from pages of another origin are refused"))
    }
}

/// A name for [`Hosts`], as a flag has it.
pub fn parse_host(text: &str) -> Result<String, String> {
    let name = normal(text);
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() <= HOST_MAX && name.split('.').all(label) {
        return Ok(name);
    }
    Err(format!(
        "`{text}` is no host name; write such as fleet.example.com, without scheme, port or wildcard"
    ))
}

/// The authority that the request is for. A request line with one overrides the header, so both would have to pass;
/// who sends two different ones is up to no good.
fn target(uri: &Uri, headers: &HeaderMap) -> Result<Authority, Problem> {
    let bad = || Problem::new(StatusCode::BAD_REQUEST, "exactly one well-formed Host is required");
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(bad()) };
    let host: Authority = host.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(bad)?;
    let other = uri.authority().is_some_and(|authority| authority != &host);
    if other || host.as_str().contains('@') || host.host().is_empty() {
        return Err(bad());
    }
    Ok(host)
}

/// Lower case, without the root's dot and the brackets of an IPv6 address.
fn normal(host: &str) -> String {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.strip_suffix('.').unwrap_or(bare).to_ascii_lowercase()
}

/// A name that no stranger can own.
fn safe(name: &str) -> bool {
    name == "localhost"
        || name.parse::<IpAddr>().is_ok()
        || (name.contains(SERVICE_NAME) && !name.contains('.'))
        || CLUSTER_SUFFIXES
            .iter()
            .any(|suffix| name.strip_suffix(suffix).is_some_and(|rest| !rest.is_empty()))
}

/// True without an `Origin`: what is no browser sends none.
fn same_origin(headers: &HeaderMap, host: &str, port: u16) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return true };
    let Some(origin) = origin.to_str().ok().and_then(|text| text.parse::<Uri>().ok()) else { return false };
    let default_port = match origin.scheme_str() {
        Some("https") => 443,
        Some("http") => 80,
        _ => return false,
    };
    let same = origin.host().is_some_and(|name| normal(name) == host)
        && origin.port_u16().unwrap_or(default_port) == port;
    same && origins.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{http::HeaderValue, response::IntoResponse};
    use rstest::rstest;

    fn verdict(uri: &str, hosts: &[&str], origins: &[&str]) -> u16 {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, HeaderValue::from_str(host).unwrap());
        }
        for origin in origins {
            headers.append(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        let hosts = Hosts::new(443, &[parse_host("Fleet.example.com").unwrap()]);
        match hosts.check(&uri.parse().unwrap(), &headers) {
            Ok(()) => 200,
            Err(problem) => problem.into_response().status().as_u16(),
        }
    }

    #[rstest]
    #[case::loopback_name("localhost:8443", 200)]
    #[case::any_case("LocalHost", 200)]
    #[case::root_dot("localhost.", 200)]
    #[case::loopback("127.0.0.1:8443", 200)]
    #[case::loopback_v6("[::1]:8443", 200)]
    #[case::pod_address("10.42.0.7:8443", 200)]
    #[case::pod_address_v6("[fd00::7]:8443", 200)]
    #[case::service("ollama-fleet-operator", 200)]
    #[case::service_of_a_release("prod-ollama-fleet-operator:8443", 200)]
    #[case::service_in_namespace("fleet.monitoring.svc", 200)]
    #[case::service_in_cluster("fleet.monitoring.svc.cluster.local:443", 200)]
    #[case::configured("fleet.example.com", 200)]
    #[case::configured_with_port_and_case("FLEET.Example.com.:8443", 200)]
    #[case::below_configured("evil.fleet.example.com", 403)]
    #[case::above_configured("example.com", 403)]
    #[case::stranger("evil.example", 403)]
    #[case::stranger_with_our_name("ollama-fleet-operator.evil.example", 403)]
    #[case::stranger_in_a_namespace_like_domain("ollama-fleet-operator.dev", 403)]
    #[case::only_the_suffix(".svc", 403)]
    #[case::suffix_without_dot("evilsvc", 403)]
    #[case::localhost_as_subdomain("localhost.evil.example", 403)]
    #[case::below_localhost("evil.localhost", 403)]
    #[case::short_address("127.1", 403)]
    #[case::user("localhost@evil.example", 400)]
    #[case::user_of_localhost("evil@localhost", 400)]
    #[case::empty("", 400)]
    #[case::nonsense("a b", 400)]
    fn hosts(#[case] host: &str, #[case] expected: u16) {
        assert_eq!(verdict("/metrics", &[host], &[]), expected);
    }

    #[rstest]
    #[case::name("fleet", Some("fleet"))]
    #[case::any_case_with_dot("Fleet.Example.COM.", Some("fleet.example.com"))]
    #[case::wildcard("*.example.com", None)]
    #[case::url("https://fleet.example.com", None)]
    #[case::port("fleet.example.com:8443", None)]
    #[case::empty("", None)]
    #[case::empty_label("fleet..example", None)]
    #[case::dash("-fleet", None)]
    fn flags(#[case] text: &str, #[case] expected: Option<&str>) {
        assert_eq!(parse_host(text).ok().as_deref(), expected);
    }

    #[test]
    fn one_host_is_required() {
        assert_eq!(verdict("/metrics", &[], &[]), 400);
        assert_eq!(verdict("/metrics", &["localhost", "localhost"], &[]), 400);
    }

    #[test]
    fn the_request_line_must_agree() {
        assert_eq!(verdict("https://localhost:8443/metrics", &["localhost:8443"], &[]), 200);
        assert_eq!(verdict("https://evil.example/metrics", &["localhost:8443"], &[]), 400);
    }

    #[rstest]
    #[case::same("localhost:8443", &["https://localhost:8443"], 200)]
    #[case::configured("fleet.example.com", &["https://fleet.example.com"], 200)]
    #[case::configured_elsewhere("localhost", &["https://fleet.example.com"], 403)]
    #[case::any_case("localhost:8443", &["https://LOCALHOST:8443"], 200)]
    #[case::default_port("localhost", &["https://localhost"], 200)]
    #[case::default_port_written("localhost:443", &["https://localhost"], 200)]
    #[case::v6("[::1]:8443", &["https://[::1]:8443"], 200)]
    #[case::other_port("localhost:8443", &["https://localhost:3000"], 403)]
    #[case::other_name("localhost:8443", &["https://evil.example"], 403)]
    #[case::other_name_of_the_same("localhost:8443", &["https://127.0.0.1:8443"], 403)]
    #[case::sandboxed("localhost:8443", &["null"], 403)]
    #[case::extension("localhost:8443", &["moz-extension://localhost:8443"], 403)]
    #[case::garbage("localhost:8443", &["://"], 403)]
    #[case::two("localhost:8443", &["https://localhost:8443", "https://evil.example"], 403)]
    fn pages(#[case] host: &str, #[case] origins: &[&str], #[case] expected: u16) {
        assert_eq!(verdict("/metrics", &[host], origins), expected);
    }
}
