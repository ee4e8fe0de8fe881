//! Where a server is: `spec.host` parsed once, so that nothing after it handles a raw string.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// Ollama's own default port, used when `spec.host` names neither a scheme nor a port.
pub const OLLAMA_PORT: u16 = 11434;

/// The transport of a server or agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A host: an address that needs no resolver, or a name that does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    Ip(IpAddr),
    /// Lower case, without a trailing dot.
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Ip(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A base URL in parts: everything that is needed to talk to one server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub scheme: Scheme,
    pub host: Host,
    pub port: u16,
    /// Path before `/api/…`: empty, or starting with `/` and not ending with one.
    pub prefix: String,
}

/// Why a host string is no endpoint; the text tells a person what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    #[error(
        "host must be a name, an IPv4 address or an IPv6 address in brackets, each with an optional :port, or http(s)://host[:port][/prefix]"
    )]
    Malformed,
    #[error("host must not contain user information; put credentials into a Secret and name it in secretRef")]
    UserInfo,
    #[error("the port must be between 1 and 65535")]
    Port,
    #[error(
        "the last label of a host name must not be numeric; write an IPv4 address as four decimal numbers, for example 192.168.1.100"
    )]
    NumericName,
    #[error("a path prefix needs a scheme; write for example http://gpu1.lab:11434/ollama")]
    PrefixWithoutScheme,
}

impl Endpoint {
    /// Parses `spec.host`. The scheme decides the default port; without one it is plain HTTP on 11434.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        if !text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'\\')) {
            return Err(EndpointError::Malformed);
        }
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Some(Scheme::Http), rest),
            Some(("https", rest)) => (Some(Scheme::Https), rest),
            Some(_) => return Err(EndpointError::Malformed),
            None => (None, text),
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        if authority.contains('@') {
            return Err(EndpointError::UserInfo);
        }
        let prefix = path.trim_end_matches('/');
        if !path.is_empty() && scheme.is_none() {
            return Err(EndpointError::PrefixWithoutScheme);
        }
        let (host, port) = parse_authority(authority)?;
        let default_port = match scheme {
            None => OLLAMA_PORT,
            Some(Scheme::Http) => 80,
            Some(Scheme::Https) => 443,
        };
        let port = port.unwrap_or(default_port);
        Ok(Self { scheme: scheme.unwrap_or(Scheme::Http), host, port, prefix: prefix.to_owned() })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}{}", self.scheme.as_str(), self.host, self.port, self.prefix)
    }
}

/// A host with an optional port: `gpu1.lab`, `192.168.1.60:80`, `[fd00::1]:80`.
pub fn parse_authority(authority: &str) -> Result<(Host, Option<u16>), EndpointError> {
    let (host, port) = split_authority(authority)?;
    let port = port.map(|text| {
        let port = text.parse::<u16>().ok();
        port.filter(|port| *port > 0 && text.bytes().all(|b| b.is_ascii_digit())).ok_or(EndpointError::Port)
    });
    Ok((host, port.transpose()?))
}

fn split_authority(authority: &str) -> Result<(Host, Option<&str>), EndpointError> {
    if let Some(bracketed) = authority.strip_prefix('[') {
        let (address, rest) = bracketed.split_once(']').ok_or(EndpointError::Malformed)?;
        let address: Ipv6Addr = address.parse().map_err(|_| EndpointError::Malformed)?;
        let port = match rest {
            "" => None,
            _ => Some(rest.strip_prefix(':').ok_or(EndpointError::Malformed)?),
        };
        return Ok((Host::Ip(IpAddr::V6(address)), port));
    }
    let (name, port) = match authority.split_once(':') {
        Some((_, port)) if port.contains(':') => return Err(EndpointError::Malformed),
        Some((name, port)) => (name, Some(port)),
        None => (authority, None),
    };
    Ok((parse_name(name)?, port))
}

/// A name whose last label is a number would be read as an IPv4 address by some resolvers (`127.1`, `0x7f.1`), so
/// only the four-part decimal form counts as an address and every other numeric ending is refused.
pub fn parse_name(name: &str) -> Result<Host, EndpointError> {
    if let Ok(address) = name.parse() {
        return Ok(Host::Ip(IpAddr::V4(address)));
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let valid_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(valid_label) {
        return Err(EndpointError::Malformed);
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    if hex || last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(EndpointError::NumericName);
    }
    Ok(Host::Name(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("192.168.1.100", "http://192.168.1.100:11434")]
    #[case("192.168.1.100:8080", "http://192.168.1.100:8080")]
    #[case("[fd00::1]:11434", "http://[fd00::1]:11434")]
    #[case("[fd00::1]", "http://[fd00::1]:11434")]
    #[case("GPU1.lab.", "http://gpu1.lab:11434")]
    #[case("http://gpu1.lab", "http://gpu1.lab:80")]
    #[case("https://gpu1.lab", "https://gpu1.lab:443")]
    #[case("https://gpu1.lab:8443/ollama/", "https://gpu1.lab:8443/ollama")]
    #[case("http://[fd00::1]/x", "http://[fd00::1]:80/x")]
    fn hosts_become_endpoints(#[case] text: &str, #[case] url: &str) {
        assert_eq!(Endpoint::parse(text).unwrap().to_string(), url);
    }

    #[rstest]
    #[case("", EndpointError::Malformed)]
    #[case("fd00::1", EndpointError::Malformed)]
    #[case("2001:db8::1", EndpointError::Malformed)]
    #[case("http://user:pw@gpu1.lab", EndpointError::UserInfo)]
    #[case("ftp://gpu1.lab", EndpointError::Malformed)]
    #[case("gpu1.lab:0", EndpointError::Port)]
    #[case("gpu1.lab:70000", EndpointError::Port)]
    #[case("gpu1.lab:+80", EndpointError::Port)]
    #[case("gpu1.lab:", EndpointError::Port)]
    #[case("gpu1.lab/x", EndpointError::PrefixWithoutScheme)]
    #[case("http://gpu1.lab?x=1", EndpointError::Malformed)]
    #[case("127.1", EndpointError::NumericName)]
    #[case("0x7f.1", EndpointError::NumericName)]
    #[case("2130706433", EndpointError::NumericName)]
    #[case("0177.0.0.0x1", EndpointError::NumericName)]
    #[case("999.999.999.999", EndpointError::NumericName)]
    #[case("a..b", EndpointError::Malformed)]
    #[case("-a.b", EndpointError::Malformed)]
    #[case("a b", EndpointError::Malformed)]
    #[case("[fe80::1%eth0]", EndpointError::Malformed)]
    fn what_is_no_host_is_refused(#[case] text: &str, #[case] error: EndpointError) {
        assert_eq!(Endpoint::parse(text), Err(error));
    }
}
