//! Why a host or an agent could not be read: one class a failure, and the class decides everything after it.

use super::address::AddressNotAllowed;
use super::credential::NoCredential;
use super::resolve::LookupFailed;
use std::{error::Error, io};

/// The class of a failure. Its name is the reason in conditions, the label in metrics, and what a person searches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    AddressNotAllowed,
    /// Another text under the same reason: to the user both are the policy, but what to change is another flag.
    PortNotAllowed,
    DnsFailed,
    ConnectionRefused,
    Timeout,
    TlsFailed,
    Unauthorized,
    HostRejected,
    NotOllama,
    ServerBusy,
    InvalidResponse,
    ResponseTooLarge,
    UnexpectedRedirect,
    /// Nothing was asked: the credentials for it could not be had.
    NoCredential(NoCredential),
}

impl Failure {
    /// All that asking can come to.
    pub const ALL: [Self; 13] = [
        Self::AddressNotAllowed,
        Self::PortNotAllowed,
        Self::DnsFailed,
        Self::ConnectionRefused,
        Self::Timeout,
        Self::TlsFailed,
        Self::Unauthorized,
        Self::HostRejected,
        Self::NotOllama,
        Self::ServerBusy,
        Self::InvalidResponse,
        Self::ResponseTooLarge,
        Self::UnexpectedRedirect,
    ];

    /// The reason as it stands in conditions and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::AddressNotAllowed | Self::PortNotAllowed => "AddressNotAllowed",
            Self::DnsFailed => "DNSFailed",
            Self::ConnectionRefused => "ConnectionRefused",
            Self::Timeout => "Timeout",
            Self::TlsFailed => "TLSFailed",
            Self::Unauthorized => "Unauthorized",
            Self::HostRejected => "HostRejected",
            Self::NotOllama => "NotOllama",
            Self::ServerBusy => "ServerBusy",
            Self::InvalidResponse => "InvalidResponse",
            Self::ResponseTooLarge => "ResponseTooLarge",
            Self::UnexpectedRedirect => "UnexpectedRedirect",
            Self::NoCredential(cause) => cause.reason(),
        }
    }

    /// The failure in words that never change with the answer: no address, no number, no byte of a response.
    pub fn text(self) -> &'static str {
        match self {
            Self::AddressNotAllowed => "the operator's address policy refuses where the name leads to",
            Self::PortNotAllowed => {
                "the port is not one of those that the operator may dial (--allowed-ports)"
            }
            Self::DnsFailed => "the host name cannot be resolved",
            Self::ConnectionRefused => {
                "the connection was refused or reset; is the server running and listening on this address?"
            }
            Self::Timeout => "no full answer in time, or no route to the host",
            Self::TlsFailed => "the TLS handshake or the certificate failed",
            Self::Unauthorized => "the host wants credentials (401), or other ones than those of secretRef",
            Self::HostRejected => {
                "the host refuses the request (403); Ollama does so for Host names it does not know: set hostHeader"
            }
            Self::NotOllama => "something answers there, but not the expected API",
            Self::ServerBusy => "the server is overloaded (429 or 503)",
            Self::InvalidResponse => "the answer is not what the API promises",
            Self::ResponseTooLarge => "the answer is larger than the operator reads",
            Self::UnexpectedRedirect => {
                "the host redirects, and redirects are never followed; write the final address"
            }
            Self::NoCredential(cause) => cause.text(),
        }
    }

    /// The same about an agent, where words about hosts would mislead.
    pub fn agent_text(self) -> &'static str {
        match self {
            Self::ConnectionRefused => {
                "the connection was refused or reset; is the agent running, and listening on this address and port?"
            }
            Self::Unauthorized => {
                "the agent wants credentials (401), or other ones than those of agent.secretRef"
            }
            Self::HostRejected => "the agent refuses the request (403)",
            Self::InvalidResponse => {
                "the answer is an HTTP error, or is not in the plugin's format, or has none of its values"
            }
            Self::UnexpectedRedirect => {
                "the agent redirects, and redirects are never followed; write the final path into agent.endpoint"
            }
            Self::NoCredential(cause) => cause.agent_text(),
            _ => self.text(),
        }
    }

    /// From the reason, as it stands in a condition.
    pub fn from_reason(reason: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|failure| failure.reason() == reason)
    }

    /// From reason and text, as they stand in a report. The text of another version counts as the first of its reason.
    pub fn from_report(reason: &str, text: Option<&str>) -> Option<Self> {
        let all = Self::ALL.into_iter().chain(NoCredential::all().map(Self::NoCredential));
        let mut same = all.filter(|failure| failure.reason() == reason);
        let told = |failure: &Self| [failure.text(), failure.agent_text()].map(Some).contains(&text);
        same.clone().find(told).or_else(|| same.next())
    }

    /// From what Accepted says of a host that was not dialled.
    pub fn refusal_of(reason: &str, text: &str) -> Option<Self> {
        let all = Self::ALL.into_iter().chain(NoCredential::all().map(Self::NoCredential));
        all.filter(|failure| failure.is_refusal())
            .find(|failure| failure.reason() == reason && failure.text() == text)
    }

    /// Whether nothing was dialled: the address policy refuses it, or there are no credentials that may be used.
    pub fn is_refusal(self) -> bool {
        matches!(self, Self::AddressNotAllowed | Self::PortNotAllowed | Self::NoCredential(_))
    }

    /// Whether other credentials or certificates might have been taken.
    pub fn may_be_of_credentials(self) -> bool {
        matches!(self, Self::Unauthorized | Self::HostRejected) || self.reason() == Self::TlsFailed.reason()
    }

    /// Whether asking again cannot help before somebody changes something.
    pub fn is_permanent(self) -> bool {
        matches!(self, Self::Unauthorized | Self::HostRejected | Self::NotOllama)
    }

    /// The class of an HTTP status other than 2xx. 404 is the caller's to judge: an old version may lack an endpoint.
    pub fn from_status(status: u16) -> Self {
        match status {
            401 | 407 => Self::Unauthorized,
            403 => Self::HostRejected,
            429 | 503 => Self::ServerBusy,
            300..=399 => Self::UnexpectedRedirect,
            404 | 405 => Self::NotOllama,
            _ => Self::InvalidResponse,
        }
    }

    /// The class of an error of the HTTP client, found by walking its causes.
    pub fn from_client(error: &reqwest::Error) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(current) = cause {
            if let Some(class) = classify(current) {
                return class;
            }
            // An `io::Error` that wraps another error hides it from `source`.
            cause = current.downcast_ref::<io::Error>().and_then(wrapped).or_else(|| current.source());
        }
        if error.is_timeout() {
            Self::Timeout
        } else if error.is_connect() {
            Self::ConnectionRefused
        } else {
            Self::InvalidResponse
        }
    }
}

impl From<AddressNotAllowed> for Failure {
    fn from(refused: AddressNotAllowed) -> Self {
        match refused {
            AddressNotAllowed::Address => Self::AddressNotAllowed,
            AddressNotAllowed::Port => Self::PortNotAllowed,
        }
    }
}

fn wrapped(error: &io::Error) -> Option<&(dyn Error + 'static)> {
    error.get_ref().map(|inner| inner as &(dyn Error + 'static))
}

fn classify(error: &(dyn Error + 'static)) -> Option<Failure> {
    if let Some(refused) = error.downcast_ref::<AddressNotAllowed>() {
        return Some((*refused).into());
    }
    if error.is::<LookupFailed>() {
        return Some(Failure::DnsFailed);
    }
    if error.is::<rustls::Error>() {
        return Some(Failure::TlsFailed);
    }
    if let Some(hyper) = error.downcast_ref::<hyper::Error>() {
        // The connection ended before the answer did.
        if hyper.is_incomplete_message() || hyper.is_canceled() {
            return Some(Failure::ConnectionRefused);
        }
        if hyper.is_parse_too_large() {
            return Some(Failure::ResponseTooLarge);
        }
        if hyper.is_parse() {
            return Some(Failure::InvalidResponse);
        }
    }
    match error.downcast_ref::<io::Error>()?.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => Some(Failure::ConnectionRefused),
        io::ErrorKind::TimedOut
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown => Some(Failure::Timeout),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn every_report_leads_back_to_its_class() {
        for failure in NoCredential::all().map(Failure::NoCredential) {
            assert_eq!(Failure::from_report(failure.reason(), Some(failure.agent_text())), Some(failure));
        }
        for failure in Failure::ALL {
            assert_eq!(Failure::from_report(failure.reason(), Some(failure.text())), Some(failure));
            let by_reason = Failure::from_reason(failure.reason()).unwrap();
            assert_eq!(by_reason.reason(), failure.reason());
            assert_eq!(Failure::from_report(failure.reason(), Some("other words")), Some(by_reason));
        }
    }

    #[test]
    fn what_is_said_about_agents_is_not_about_hosts() {
        for failure in Failure::ALL {
            let text = failure.agent_text();
            assert!(!text.contains("Ollama") && !text.contains("hostHeader"), "{failure:?}: {text}");
        }
    }

    #[rstest]
    #[case(401, Failure::Unauthorized)]
    #[case(403, Failure::HostRejected)]
    #[case(404, Failure::NotOllama)]
    #[case(405, Failure::NotOllama)]
    #[case(429, Failure::ServerBusy)]
    #[case(500, Failure::InvalidResponse)]
    #[case(502, Failure::InvalidResponse)]
    #[case(503, Failure::ServerBusy)]
    #[case(301, Failure::UnexpectedRedirect)]
    #[case(308, Failure::UnexpectedRedirect)]
    fn statuses_have_classes(#[case] status: u16, #[case] class: Failure) {
        assert_eq!(Failure::from_status(status), class);
    }
}
