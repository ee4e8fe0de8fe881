//! Whether a Secret may be used for a host: its owner says so in its annotations, and what is not named is refused. Pure.
//!
//! It must not look a name up: whoever answers for a name could then choose the network that it is in.

use crate::{
    api::endpoint::{Endpoint, Host, Scheme, parse_name},
    probe::{
        address::parse_cidr,
        credential::{Problem, Problems},
    },
};
use ipnet::IpNet;
use std::collections::BTreeMap;

/// The hosts that a Secret may be used for: names, `*.name`, addresses and networks, separated by commas.
pub const HOSTS: &str = "ollama-fleet.io/hosts";
/// Whether it may be sent over plain HTTP too: `true`.
pub const PLAIN_HTTP: &str = "ollama-fleet.io/plain-http";

/// Entries of an annotation that are read. Who has more hosts names their network or their domain.
const ENTRIES_MAX: usize = 64;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Name(String),
    /// Every name that ends with this, dot included.
    Below(String),
    Network(IpNet),
}

/// What the owner of a Secret allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// `None`: nothing.
    hosts: Option<Vec<Pattern>>,
    /// Whether there are entries that could not be read, and so allow nothing.
    unreadable: bool,
    plain_http: bool,
}

impl Grant {
    pub fn of(annotations: &BTreeMap<String, String>) -> Self {
        let plain_http = annotations.get(PLAIN_HTTP).is_some_and(|value| value == "true");
        let Some(text) = annotations.get(HOSTS) else {
            return Self { hosts: None, unreadable: false, plain_http };
        };
        let mut entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let (mut hosts, mut unreadable) = (Vec::new(), false);
        for entry in entries.by_ref().take(ENTRIES_MAX) {
            match Pattern::parse(entry) {
                Some(pattern) => hosts.push(pattern),
                None => unreadable = true,
            }
        }
        unreadable |= entries.next().is_some();
        Self { hosts: Some(hosts), unreadable, plain_http }
    }

    /// What keeps the Secret from being used at this endpoint; nothing, if it may be. One whose certificate is not checked
    /// may be anybody, as over plain HTTP, so it takes the same word of the Secret's owner.
    pub fn check(&self, endpoint: &Endpoint, checked: bool) -> Problems {
        let host = match &self.hosts {
            None => Some(Problem::NotGranted),
            Some(hosts) if hosts.iter().any(|pattern| pattern.matches(&endpoint.host)) => None,
            Some(_) if self.unreadable => Some(Problem::UnreadableGrant),
            Some(_) => Some(Problem::OtherHost),
        };
        let way = match endpoint.scheme {
            _ if self.plain_http => None,
            Scheme::Http => Some(Problem::PlainHttp),
            Scheme::Https if checked => None,
            Scheme::Https => Some(Problem::Unverified),
        };
        host.into_iter().chain(way).collect()
    }
}

impl Pattern {
    fn parse(entry: &str) -> Option<Self> {
        // As addresses stand in `spec.host`.
        let address = entry.strip_prefix('[').and_then(|entry| entry.strip_suffix(']'));
        if let Some(address) = address {
            let address: std::net::Ipv6Addr = address.parse().ok()?;
            return parse_cidr(&address.to_string()).ok().map(Self::Network);
        }
        if let Ok(network) = parse_cidr(entry) {
            return Some(Self::Network(network));
        }
        let (below, name) = match entry.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, entry),
        };
        let Ok(Host::Name(name)) = parse_name(name) else { return None };
        Some(if below { Self::Below(format!(".{name}")) } else { Self::Name(name) })
    }

    fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Name(name), Host::Name(host)) => name == host,
            (Self::Below(suffix), Host::Name(host)) => host.len() > suffix.len() && host.ends_with(suffix),
            // Networks of mapped addresses are IPv4 ones, so a mapped address has to be too.
            (Self::Network(network), Host::Ip(address)) => network.contains(&address.to_canonical()),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const NOTHING: Problems = Problems::NONE;

    fn both(one: Problem, two: Problem) -> Problems {
        Problems::from(one).with(two)
    }

    fn grant(hosts: &str) -> Grant {
        Grant::of(&BTreeMap::from([(HOSTS.into(), hosts.into()), (PLAIN_HTTP.into(), "true".into())]))
    }

    #[rstest]
    #[case::name("gpu1.lab", "gpu1.lab")]
    #[case::upper_case_pattern("GPU1.Lab", "gpu1.lab")]
    #[case::upper_case_host("gpu1.lab", "GPU1.LAB:80")]
    #[case::dot_of_the_pattern("gpu1.lab.", "gpu1.lab")]
    #[case::dot_of_the_host("gpu1.lab", "gpu1.lab.")]
    #[case::single_label("gpu1", "gpu1:8080")]
    #[case::any_port_and_path("gpu1.lab", "https://gpu1.lab:8443/ollama")]
    #[case::wildcard("*.lab", "gpu1.lab")]
    #[case::wildcard_of_any_depth("*.lab", "a.b.lab")]
    #[case::wildcard_in_upper_case("*.LAB.", "gpu1.lab")]
    #[case::underscore("my_gpu.lab", "my_gpu.lab")]
    #[case::address("192.168.1.7", "192.168.1.7:11434")]
    #[case::network("192.168.1.0/24", "192.168.1.200")]
    #[case::every_ipv4("0.0.0.0/0", "203.0.113.9")]
    #[case::ipv6("fd00::1", "[fd00::1]:11434")]
    #[case::ipv6_spelled_otherwise("FD00:0:0::1", "[fd00::1]")]
    #[case::ipv6_in_brackets("[fd00::1]", "[fd00:0::1]")]
    #[case::ipv6_network("fd00::/8", "[fd12::1]")]
    #[case::mapped_host("192.168.1.0/24", "[::ffff:192.168.1.5]")]
    #[case::mapped_pattern("::ffff:192.168.1.0/120", "192.168.1.5")]
    #[case::mapped_both("[::ffff:192.168.1.5]", "[::ffff:c0a8:105]")]
    #[case::second_of_a_list("a.lab, gpu1.lab", "gpu1.lab")]
    #[case::white_space(" \n a.lab ,\n\tgpu1.lab \n", "gpu1.lab")]
    #[case::empty_entries(",,gpu1.lab,,", "gpu1.lab")]
    #[case::beside_an_unreadable_one("https://x, gpu1.lab", "gpu1.lab")]
    fn what_is_named_is_allowed(#[case] annotation: &str, #[case] host: &str) {
        assert_eq!(grant(annotation).check(&Endpoint::parse(host).unwrap(), true), NOTHING);
    }

    #[rstest]
    #[case::another_name("gpu1.lab", "gpu2.lab")]
    #[case::a_name_below("gpu1.lab", "x.gpu1.lab")]
    #[case::a_longer_name("lab", "gpu1.lab")]
    #[case::a_name_that_ends_alike("gpu1.lab", "evilgpu1.lab")]
    #[case::a_name_that_begins_alike("gpu1.lab", "gpu1.lab.example.com")]
    #[case::wildcard_and_the_domain_itself("*.lab", "lab")]
    #[case::wildcard_and_a_name_that_ends_alike("*.lab", "gpu1.evillab")]
    #[case::wildcard_and_an_address("*.lab", "192.168.1.1")]
    #[case::another_address("192.168.1.7", "192.168.1.8")]
    #[case::another_network("192.168.1.0/24", "192.168.2.1")]
    #[case::network_and_a_name("0.0.0.0/0", "gpu1.lab")]
    #[case::ipv4_network_and_ipv6("0.0.0.0/0", "[fd00::1]")]
    #[case::ipv6_network_and_ipv4("::/0", "192.168.1.1")]
    #[case::nat64("192.168.1.0/24", "[64:ff9b::192.168.1.5]")]
    #[case::empty("", "gpu1.lab")]
    #[case::commas(" , ,", "gpu1.lab")]
    fn what_is_not_named_is_refused(#[case] annotation: &str, #[case] host: &str) {
        assert_eq!(grant(annotation).check(&Endpoint::parse(host).unwrap(), true), Problem::OtherHost.into());
    }

    #[rstest]
    #[case::everything("*")]
    #[case::wildcard_of_nothing("*.")]
    #[case::wildcard_of_the_root("*..")]
    #[case::two_wildcards("*.*.lab")]
    #[case::wildcard_in_the_middle("gpu*.lab")]
    #[case::wildcard_at_the_end("gpu1.*")]
    #[case::wildcard_without_a_dot("*lab")]
    #[case::port("gpu1.lab:11434")]
    #[case::port_of_an_address("192.168.1.1:11434")]
    #[case::port_behind_brackets("[fd00::1]:11434")]
    #[case::url("https://gpu1.lab")]
    #[case::path("gpu1.lab/ollama")]
    #[case::user("x@gpu1.lab")]
    #[case::numeric_name("127.1")]
    #[case::numeric_wildcard("*.168.1.1")]
    #[case::bits_behind_the_prefix("192.168.1.7/24")]
    #[case::prefix_too_long("192.168.1.0/33")]
    #[case::zone("fe80::1%eth0")]
    #[case::network_in_brackets("[fd00::/8]")]
    #[case::half_a_bracket("[fd00::1")]
    #[case::semicolon("a.lab;gpu1.lab")]
    #[case::space("a.lab gpu1.lab")]
    #[case::not_ascii("gpü1.lab")]
    #[case::regular_expression(".*")]
    fn what_cannot_be_read_allows_nothing(#[case] annotation: &str) {
        for host in ["gpu1.lab", "192.168.1.1", "[fd00::1]"] {
            let endpoint = Endpoint::parse(host).unwrap();
            assert_eq!(grant(annotation).check(&endpoint, true), Problem::UnreadableGrant.into(), "{host}");
        }
    }

    #[rstest]
    #[case::without_a_word(None, Problem::Unverified.into())]
    #[case::with_it(Some("true"), NOTHING)]
    fn a_host_that_is_not_checked_needs_the_same_word(
        #[case] word: Option<&str>,
        #[case] expected: Problems,
    ) {
        let mut annotations = BTreeMap::from([(HOSTS.to_owned(), "gpu1.lab".to_owned())]);
        annotations.extend(word.map(|word| (PLAIN_HTTP.to_owned(), word.to_owned())));
        let endpoint = Endpoint::parse("https://gpu1.lab").unwrap();
        assert_eq!(Grant::of(&annotations).check(&endpoint, false), expected);
        assert_eq!(Grant::of(&annotations).check(&endpoint, true), NOTHING);
    }

    #[test]
    fn only_the_first_entries_count() {
        let list = |before: usize| format!("{}gpu1.lab", "a.lab,".repeat(before));
        let endpoint = Endpoint::parse("gpu1.lab").unwrap();
        assert_eq!(grant(&list(ENTRIES_MAX - 1)).check(&endpoint, true), NOTHING);
        assert_eq!(grant(&list(ENTRIES_MAX)).check(&endpoint, true), Problem::UnreadableGrant.into());
    }

    #[rstest]
    #[case::absent(None, "gpu1.lab", Problem::PlainHttp.into())]
    #[case::absent_with_tls(None, "https://gpu1.lab", NOTHING)]
    #[case::yes(Some("true"), "gpu1.lab", NOTHING)]
    #[case::no(Some("false"), "gpu1.lab", Problem::PlainHttp.into())]
    #[case::another_word(Some("True"), "http://gpu1.lab", Problem::PlainHttp.into())]
    #[case::empty(Some(""), "gpu1.lab", Problem::PlainHttp.into())]
    #[case::for_another_host(Some("true"), "gpu2.lab", Problem::OtherHost.into())]
    #[case::for_another_host_and_absent(None, "gpu2.lab", both(Problem::OtherHost, Problem::PlainHttp))]
    fn plain_http_needs_a_word(#[case] word: Option<&str>, #[case] host: &str, #[case] expected: Problems) {
        let mut annotations = BTreeMap::from([(HOSTS.to_owned(), "gpu1.lab".to_owned())]);
        annotations.extend(word.map(|word| (PLAIN_HTTP.to_owned(), word.to_owned())));
        assert_eq!(Grant::of(&annotations).check(&Endpoint::parse(host).unwrap(), true), expected);
        annotations.remove(HOSTS);
        let lacks = Grant::of(&annotations).check(&Endpoint::parse(host).unwrap(), true);
        assert!(lacks.has(Problem::NotGranted) && !lacks.has(Problem::OtherHost));
    }
}
