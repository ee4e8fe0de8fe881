//! The ports that may be dialled: a list of numbers and ranges, as a flag has it.

use std::{fmt, ops::RangeInclusive, str::FromStr};

/// Web servers, and everything above the system's own ports but for those that are a machine's or a cluster's controls:
/// Docker and etcd (2375–2380), the API server (6443), kubelet, scheduler, controller manager and their like
/// (10248–10260).
const DEFAULT: [RangeInclusive<u16>; 6] =
    [80..=80, 443..=443, 1024..=2374, 2381..=6442, 6444..=10247, 10261..=65535];

/// A set of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(Vec<RangeInclusive<u16>>);

impl Ports {
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self(DEFAULT.to_vec())
    }
}

impl FromStr for Ports {
    type Err = String;

    /// `80,443,8000-8999`. Order and overlaps do not matter.
    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(range).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if range.start() == range.end() {
                write!(f, "{comma}{}", range.start())?;
            } else {
                write!(f, "{comma}{}-{}", range.start(), range.end())?;
            }
        }
        Ok(())
    }
}

fn range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let wrong = || format!("`{text}` is no port or range of ports; write for example 80,443,8000-8999");
    let port = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|port| digits && *port > 0)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = port(first).ok_or_else(wrong)?..=port(last).ok_or_else(wrong)?;
    if range.is_empty() {
        return Err(format!("the range `{text}` ends before it begins; write {last}-{first}"));
    }
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn the_default_is_written_as_it_is_read() {
        let text = Ports::default().to_string();
        assert_eq!(text, "80,443,1024-2374,2381-6442,6444-10247,10261-65535");
        assert_eq!(text.parse(), Ok(Ports::default()));
    }

    #[rstest]
    #[case::open(&[80, 443, 1024, 2374, 2381, 6442, 6444, 8080, 9100, 10247, 10261, 11434, 20000, 65535], true)]
    #[case::closed(&[0, 1, 22, 79, 81, 442, 444, 1023, 2375, 2379, 2380, 6443, 10248, 10250, 10255, 10260], false)]
    fn the_default_leaves_out_what_controls_machines(#[case] ports: &[u16], #[case] open: bool) {
        for port in ports {
            assert_eq!(Ports::default().contains(*port), open, "{port}");
        }
    }

    #[rstest]
    #[case("", "is no port")]
    #[case("0", "is no port")]
    #[case("65536", "is no port")]
    #[case("+80", "is no port")]
    #[case("http", "is no port")]
    #[case("80, 443", "is no port")]
    #[case("80,", "is no port")]
    #[case("1-2-3", "is no port")]
    #[case("-80", "is no port")]
    #[case("!22", "is no port")]
    #[case("9000-8000", "write 8000-9000")]
    fn what_is_no_list_is_refused_with_advice(#[case] text: &str, #[case] advice: &str) {
        let said = text.parse::<Ports>().unwrap_err();
        assert!(said.contains(advice), "{said}");
    }
}
