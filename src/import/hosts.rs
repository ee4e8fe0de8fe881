//! Hosts of the old configuration, read as the old dashboard meant them and written as `spec.host` wants them.

use crate::api::endpoint::{Endpoint, EndpointError};
use std::net::Ipv6Addr;

/// Longest `spec.host`, in characters.
const MAX: usize = 320;

/// A host that can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub text: String,
    pub endpoint: Endpoint,
    /// What is doubtful about it.
    pub note: Option<String>,
}

/// The error says what to write instead. It does not repeat the text, which may hold a password.
pub fn read(given: &str) -> Result<Host, String> {
    let trimmed = given.trim();
    let (mut text, mut note) = rewrite(trimmed)?;
    let endpoint = Endpoint::parse(&text).map_err(|error| error.to_string())?;
    if !text.contains("://") && !has_port(&text) && note.is_none() {
        // A URL without a port has always meant 80, and that is where a host that worked was asked.
        text.push_str(":80");
        note = Some(format!(
            "host has no port: the old dashboard asked port 80, so it is written as {text}; Ollama's own port is 11434"
        ));
    } else if note.is_none() && trimmed != given {
        note = Some(format!("host had blanks around it; written as {text}"));
    }
    let endpoint = if has_port(&text) { Endpoint::parse(&text).unwrap_or(endpoint) } else { endpoint };
    fits_the_schema(&text)?;
    Ok(Host { text, endpoint, note })
}

/// Forms that the old dashboard took, or could not have taken, in the form that the new field has.
fn rewrite(text: &str) -> Result<(String, Option<String>), String> {
    let read_as = |written: String| {
        let note = format!("host was read as {written}");
        Ok((written, Some(note)))
    };
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        // The old dashboard could not ask it, so there is no port that once worked: Ollama's own.
        return read_as(format!("[{address}]:11434"));
    }
    // Five digits cannot be a part of an address: here the port is known for one.
    if let Some((address, port)) = text.rsplit_once(':')
        && port.len() == 5
        && let Ok(address) = address.parse::<Ipv6Addr>()
    {
        return read_as(format!("[{address}]:{port}"));
    }
    for scheme in ["http://", "https://"] {
        if text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)) {
            return Ok((format!("{scheme}{}", &text[scheme.len()..]), None));
        }
    }
    if text.contains("://") {
        return Err("the scheme of host must be http:// or https://".to_owned());
    }
    if let Some((host, path)) = text.split_once('/') {
        if host.contains('@') {
            return Err(EndpointError::UserInfo.to_string());
        }
        if path.trim_matches('/').is_empty() {
            return read_as(if has_port(host) { host.to_owned() } else { format!("{host}:80") });
        }
        return read_as(format!("http://{text}"));
    }
    Ok((text.to_owned(), None))
}

/// Of a host without a scheme.
fn has_port(text: &str) -> bool {
    text.rsplit(']').next().unwrap_or_default().contains(':')
}

/// What the schema refuses although it can be parsed.
fn fits_the_schema(text: &str) -> Result<(), String> {
    if text.chars().count() > MAX {
        return Err(format!("host must have at most {MAX} characters"));
    }
    if !text.chars().all(|c| c.is_ascii_graphic()) {
        return Err("host must not contain spaces or letters outside ASCII; write an international name in its xn-- form".to_owned());
    }
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if path.contains(['@', '[', ']']) {
        return Err("the path of host must not contain @ or brackets".to_owned());
    }
    if has_port(authority) && authority.rsplit(':').next().is_some_and(|port| port.starts_with('0')) {
        return Err("the port must be between 1 and 65535, without zeros before it".to_owned());
    }
    let address =
        authority.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(address, _)| address);
    if address
        .and_then(|address| address.parse::<Ipv6Addr>().ok())
        .is_some_and(|a| a.to_ipv4_mapped().is_some())
    {
        return Err(
            "an IPv4 address must not be written as an IPv6 one; write for example 192.168.1.100:11434"
                .to_owned(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case("192.168.1.100:11434", "192.168.1.100:11434", false)]
    #[case("gpu1.lab:8080", "gpu1.lab:8080", false)]
    #[case("host.docker.internal:11434", "host.docker.internal:11434", false)]
    #[case("[fd00::1]:11434", "[fd00::1]:11434", false)]
    #[case("http://x:1", "http://x:1", false)]
    #[case("HTTP://x:1", "http://x:1", false)]
    #[case("https://gpu1.lab", "https://gpu1.lab", false)]
    // Without a port the old dashboard asked port 80.
    #[case("192.168.1.100", "192.168.1.100:80", true)]
    #[case("[fd00::1]", "[fd00::1]:80", true)]
    #[case("gpu1.lab/", "gpu1.lab:80", true)]
    #[case("gpu1.lab:11434/", "gpu1.lab:11434", true)]
    #[case("gpu1.lab:11434/ollama", "http://gpu1.lab:11434/ollama", true)]
    // IPv6 without brackets could not be asked at all.
    #[case("fd00::1", "[fd00::1]:11434", true)]
    #[case("2001:db8::1", "[2001:db8::1]:11434", true)]
    #[case("fd00::1:11434", "[fd00::1]:11434", true)]
    #[case("fd00::1:8080", "[fd00::1:8080]:11434", true)]
    #[case(" gpu1:11434\n", "gpu1:11434", true)]
    fn hosts_are_written_as_the_field_wants_them(
        #[case] given: &str,
        #[case] written: &str,
        #[case] doubtful: bool,
    ) {
        let host = read(given).unwrap();
        assert_eq!((host.text.as_str(), host.note.is_some()), (written, doubtful), "{:?}", host.note);
        assert_eq!(Endpoint::parse(written), Ok(host.endpoint));
    }

    #[rstest]
    #[case("user:s3cret@gpu1:11434")]
    #[case("http://user:s3cret@gpu1:11434/x")]
    #[case("user:s3cret@gpu1:11434/x")]
    #[case("ftp://s3cret")]
    #[case("gpu1:s3cret")]
    #[case("gpu1:70000")]
    #[case("gpu1:011434")]
    #[case("fe80::1%eth0")]
    #[case("[::ffff:192.0.2.1]:11434")]
    #[case("::ffff:192.0.2.1")]
    #[case("a b:1")]
    #[case("gpü:1")]
    #[case("http://gpu1/é")]
    #[case("http://gpu1/a@b")]
    #[case("300.1.1.1:1")]
    #[case(":11434")]
    #[case("/x")]
    fn what_cannot_be_a_host_is_refused_without_repeating_it(#[case] given: &str) {
        let error = read(given).unwrap_err();
        assert!(!error.contains("s3cret"), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_the_api_takes(given in ".{0,30}|[a-z0-9.:/\\[\\]@-]{0,30}|[0-9a-f:]{2,20}") {
            if let Ok(host) = read(&given) {
                prop_assert_eq!(Endpoint::parse(&host.text), Ok(host.endpoint));
            }
        }
    }
}
