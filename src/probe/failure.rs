//! Why a host or an agent could not be read: one class a failure, and the class decides everything after it.

use super::{
    address::AddressNotAllowed,
    connect::ConnectTimeout,
    credential::{Names, NoCredential},
    resolve::ResolveError,
};
use std::{borrow::Cow, error::Error, io};

/// ENFILE and EMFILE, for which the standard library has no name.
const OUT_OF_FILES: [i32; 2] = [23, 24];

/// The class of a failure. Its name is the reason in conditions, the label in metrics, and what a person searches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    AddressNotAllowed,
    /// Another text under the same reason: to the user both are the policy, but what to change is another flag.
    PortNotAllowed,
    DnsFailed,
    ConnectionRefused,
    Timeout,
    /// The same of a health path, by a host that was reached: it may be running models for the answer.
    HealthTimeout,
    /// TLS failed for none of the causes below, which share its reason: each of them is something else to do.
    TlsHandshake,
    TlsExpired,
    TlsNotYetValid,
    TlsWrongName,
    TlsUnknownIssuer,
    TlsBadCertificate,
    TlsIdentityWanted,
    TlsIdentityRefused,
    TlsVersion,
    /// Something else than TLS is spoken there.
    TlsNotSpoken,
    /// The host was reached, and then said too little for too long.
    TlsStalled,
    TlsClosed,
    /// Plain HTTP was spoken to a port that wants TLS.
    TlsWanted,
    Unauthorized,
    HostRejected,
    /// A 403 of an API that is asked with a key, under the reason of [`Self::HostRejected`].
    KeyRejected,
    NotOllama,
    /// 503, and the body does not tell which of the two below it is. They share its reason.
    ServerBusy,
    ServerLoading,
    ServerOverloaded,
    /// 502 or 504: whoever answers is not the server.
    ProxyError,
    InvalidResponse,
    /// Nothing is at the path that should tell of the server's health; under the reason of [`Self::InvalidResponse`].
    NoHealthPath,
    ResponseTooLarge,
    UnexpectedRedirect,
    /// Asking for the health has run models, which may cost money: it must not be asked again before an edit.
    HealthPathRunsModels,
    /// The operator's own trouble: it says nothing of the host, so it is counted and never a verdict.
    TooManyOpenFiles,
    /// Nothing was asked: the credentials for it could not be had.
    NoCredential(NoCredential),
}

impl Failure {
    /// All that asking can come to.
    pub const ALL: [Self; 32] = [
        Self::AddressNotAllowed,
        Self::PortNotAllowed,
        Self::DnsFailed,
        Self::ConnectionRefused,
        Self::Timeout,
        Self::HealthTimeout,
        Self::TlsHandshake,
        Self::TlsExpired,
        Self::TlsNotYetValid,
        Self::TlsWrongName,
        Self::TlsUnknownIssuer,
        Self::TlsBadCertificate,
        Self::TlsIdentityWanted,
        Self::TlsIdentityRefused,
        Self::TlsVersion,
        Self::TlsNotSpoken,
        Self::TlsStalled,
        Self::TlsClosed,
        Self::TlsWanted,
        Self::Unauthorized,
        Self::HostRejected,
        Self::KeyRejected,
        Self::NotOllama,
        Self::ServerBusy,
        Self::ServerLoading,
        Self::ServerOverloaded,
        Self::ProxyError,
        Self::InvalidResponse,
        Self::NoHealthPath,
        Self::ResponseTooLarge,
        Self::UnexpectedRedirect,
        Self::HealthPathRunsModels,
    ];

    /// The reason as it stands in conditions and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::AddressNotAllowed | Self::PortNotAllowed => "AddressNotAllowed",
            Self::DnsFailed => "DNSFailed",
            Self::ConnectionRefused => "ConnectionRefused",
            Self::Timeout | Self::HealthTimeout => "Timeout",
            Self::TlsHandshake
            | Self::TlsExpired
            | Self::TlsNotYetValid
            | Self::TlsWrongName
            | Self::TlsUnknownIssuer
            | Self::TlsBadCertificate
            | Self::TlsIdentityWanted
            | Self::TlsIdentityRefused
            | Self::TlsVersion
            | Self::TlsNotSpoken
            | Self::TlsStalled
            | Self::TlsClosed
            | Self::TlsWanted => "TLSFailed",
            Self::Unauthorized => "Unauthorized",
            Self::HostRejected | Self::KeyRejected => "HostRejected",
            Self::NotOllama => "NotOllama",
            Self::ServerBusy | Self::ServerLoading | Self::ServerOverloaded => "ServerBusy",
            Self::ProxyError => "ProxyError",
            Self::InvalidResponse | Self::NoHealthPath => "InvalidResponse",
            Self::HealthPathRunsModels => "HealthPathRunsModels",
            Self::ResponseTooLarge => "ResponseTooLarge",
            Self::UnexpectedRedirect => "UnexpectedRedirect",
            Self::TooManyOpenFiles => "TooManyOpenFiles",
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
            Self::HealthTimeout => {
                "the host takes the connection, but its health path gives no full answer in time; if asking it runs models, as with LiteLLM, SGLang and TGI, set spec.healthPath to one that does not"
            }
            Self::TlsHandshake => {
                "the TLS handshake failed; the other side may want another version of TLS, other ciphers or a client certificate"
            }
            Self::TlsExpired => "the certificate has expired; renew it",
            Self::TlsNotYetValid => {
                "the certificate is not valid yet; compare the clocks of the machine and of the operator's node"
            }
            Self::TlsWrongName => {
                "the certificate is for another name; write one that it carries into spec.host or tlsServerName"
            }
            Self::TlsUnknownIssuer => {
                "the certificate is self-signed or of an unknown authority; put the authority's certificate as ca.crt into the Secret of certSecretRef"
            }
            Self::TlsBadCertificate => {
                "the certificate is broken, or is not one for a server; an authority's own cannot be used as one"
            }
            Self::TlsIdentityWanted => {
                "a client certificate is wanted; put tls.crt and tls.key into the Secret of certSecretRef"
            }
            Self::TlsIdentityRefused => {
                "the client certificate is refused; tls.crt in the Secret of certSecretRef must be valid and of an authority that is trusted there"
            }
            Self::TlsVersion => {
                "there is no version of TLS, or no cipher, that both sides know; TLS 1.2 or 1.3 is needed there"
            }
            Self::TlsNotSpoken => {
                "what answers there does not speak TLS; write the port that does, or http:// if there is none"
            }
            Self::TlsStalled => {
                "the connection was made, but the TLS handshake was not finished in time; does that port speak TLS?"
            }
            Self::TlsClosed => {
                "the connection was closed in the middle of the TLS handshake; does that port speak TLS, and for this name?"
            }
            Self::TlsWanted => {
                "the port speaks TLS, and plain HTTP was sent; write https:// in front of the host"
            }
            Self::Unauthorized => {
                "the host wants credentials (401), or other ones; put them into a Secret and name it in spec.secretRef"
            }
            Self::HostRejected => {
                "the host refuses the request (403); Ollama does so for Host names it does not know: set hostHeader"
            }
            Self::KeyRejected => {
                "the host refuses the request (403), or the key in it; put the right one into a Secret and name it in spec.secretRef"
            }
            Self::NotOllama => {
                "something answers there, but not the expected API; check the port and spec.backendType"
            }
            Self::ServerBusy => "the server is overloaded or still loading its model (503)",
            Self::ServerLoading => "the server is still loading its model (503)",
            Self::ServerOverloaded => "the server is overloaded (429 or 503)",
            Self::ProxyError => "a proxy answers (502 or 504); the server behind it does not",
            Self::InvalidResponse => "the answer is not what the API promises",
            Self::NoHealthPath => {
                "there is nothing at the health path (404 or 405); set spec.healthPath to one that the server has"
            }
            Self::HealthPathRunsModels => {
                "asking the health path runs models, as LiteLLM's /health does; it is not asked again: set spec.healthPath to one that does not, for LiteLLM /health/liveliness"
            }
            Self::ResponseTooLarge => "the answer is larger than the operator reads",
            Self::UnexpectedRedirect => {
                "the host redirects, and redirects are never followed; write the final address"
            }
            Self::TooManyOpenFiles => "the operator has no descriptor left",
            Self::NoCredential(_) => "the credentials for it cannot be had",
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
            Self::NotOllama => "something answers there, but not the agent",
            Self::ServerBusy | Self::ServerLoading => "the agent is overloaded or not ready yet (503)",
            Self::ServerOverloaded => "the agent is overloaded (429 or 503)",
            Self::ProxyError => "a proxy answers (502 or 504); the agent behind it does not",
            Self::InvalidResponse | Self::NoHealthPath => {
                "the answer is an HTTP error, or is not in the plugin's format, or has none of its values"
            }
            Self::UnexpectedRedirect => {
                "the agent redirects, and redirects are never followed; write the final path into agent.endpoint"
            }
            Self::TlsNotSpoken => {
                "what answers there does not speak TLS; write the port that does, or scheme: http in the plugin"
            }
            Self::TlsWanted => {
                "the port speaks TLS, and plain HTTP was sent; write scheme: https in the plugin"
            }
            _ => self.text(),
        }
    }

    /// The failure in words, with all that is wrong with the Secrets of these names if it is that.
    pub fn told(self, secrets: Names<'_>) -> Cow<'static, str> {
        match self {
            Self::NoCredential(cause) => cause.text(secrets).into(),
            other => other.text().into(),
        }
    }

    /// The same about an agent.
    pub fn agent_told(self, secrets: Names<'_>) -> Cow<'static, str> {
        match self {
            Self::NoCredential(cause) => cause.agent_text(secrets).into(),
            other => other.agent_text().into(),
        }
    }

    /// From the reason, as it stands in a condition.
    pub fn from_reason(reason: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|failure| failure.reason() == reason)
    }

    /// From reason and text, as they stand in a report. The text of another version counts as the first of its reason.
    pub fn from_report(reason: &str, text: Option<&str>) -> Option<Self> {
        if let Some(cause) = text.and_then(NoCredential::from_text).filter(|cause| cause.reason() == reason) {
            return Some(Self::NoCredential(cause));
        }
        let mut same = Self::ALL.into_iter().filter(|failure| failure.reason() == reason);
        let told = |failure: &Self| [failure.text(), failure.agent_text()].map(Some).contains(&text);
        let known = same.clone().find(told).or_else(|| same.next());
        known.or_else(|| NoCredential::of_reason(reason).map(Self::NoCredential))
    }

    /// From what Accepted says of a host that was not dialled.
    pub fn refusal_of(reason: &str, text: &str) -> Option<Self> {
        // Whatever the words of another version were: asking once more would cost what it has cost before.
        if reason == Self::HealthPathRunsModels.reason() {
            return Some(Self::HealthPathRunsModels);
        }
        if let Some(cause) = NoCredential::from_text(text).filter(|cause| cause.reason() == reason) {
            return Some(Self::NoCredential(cause));
        }
        Self::ALL
            .into_iter()
            .filter(|failure| failure.is_refusal())
            .find(|failure| failure.reason() == reason && failure.text() == text)
    }

    /// Whether it is the spec that cannot be acted on: the address policy refuses the host, there are no credentials that
    /// may be used, or asking runs models.
    pub fn is_refusal(self) -> bool {
        matches!(
            self,
            Self::AddressNotAllowed
                | Self::PortNotAllowed
                | Self::NoCredential(_)
                | Self::HealthPathRunsModels
        )
    }

    /// Whether the host must not be asked again before its spec is edited.
    pub fn bars(self) -> bool {
        self == Self::HealthPathRunsModels
    }

    /// Whether it is of the way to the host, so that asking for something else there would fail alike. An answer of any
    /// kind is none of these.
    pub fn is_of_the_way(self) -> bool {
        let unanswered = matches!(
            self,
            Self::ConnectionRefused
                | Self::Timeout
                | Self::HealthTimeout
                | Self::DnsFailed
                | Self::TooManyOpenFiles
        );
        unanswered || self.is_tls() || self.is_refusal()
    }

    /// Whether other credentials or certificates might have been taken.
    pub fn may_be_of_credentials(self) -> bool {
        matches!(self, Self::Unauthorized | Self::HostRejected | Self::KeyRejected) || self.is_tls()
    }

    /// Whether it is one of the ways in which TLS fails.
    pub fn is_tls(self) -> bool {
        self.reason() == Self::TlsHandshake.reason()
    }

    /// Whether asking again cannot help before somebody changes something.
    pub fn is_permanent(self) -> bool {
        matches!(
            self,
            Self::Unauthorized
                | Self::HostRejected
                | Self::KeyRejected
                | Self::NotOllama
                | Self::NoHealthPath
        )
    }

    /// The class of an HTTP status other than 2xx. 404 is the caller's to judge: an old version may lack an endpoint.
    pub fn from_status(status: u16) -> Self {
        match status {
            401 | 407 => Self::Unauthorized,
            403 => Self::HostRejected,
            429 => Self::ServerOverloaded,
            503 => Self::ServerBusy,
            502 | 504 => Self::ProxyError,
            300..=399 => Self::UnexpectedRedirect,
            404 | 405 => Self::NotOllama,
            _ => Self::InvalidResponse,
        }
    }

    /// The same with the begin of the body, which may tell what a 503 is about.
    pub fn from_answer(status: u16, body: &[u8]) -> Self {
        match Self::from_status(status) {
            Self::ServerBusy => busy(body),
            class => class,
        }
    }

    /// The class of an error of the HTTP client.
    pub fn from_client(error: &hyper_util::client::legacy::Error) -> Self {
        // A connection that was closed for a cause is told of by the cause.
        find(error, cause).or_else(|| find(error, symptom)).unwrap_or(if error.is_connect() {
            Self::ConnectionRefused
        } else {
            Self::InvalidResponse
        })
    }

    /// The class of an error in the middle of an answer. A connection that breaks there is a broken answer, not a
    /// refused connection.
    pub fn from_body(error: &hyper::Error) -> Self {
        match find(error, cause).or_else(|| find(error, symptom)) {
            None | Some(Self::ConnectionRefused) => Self::InvalidResponse,
            Some(class) => class,
        }
    }

    /// The class of an error of TLS, if it is one.
    pub fn from_tls(error: &io::Error) -> Option<Self> {
        find(error, |error| error.downcast_ref().map(Self::of_tls))
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

impl From<ResolveError> for Failure {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::NotAllowed(refused) => refused.into(),
            ResolveError::Lookup(_) => Self::DnsFailed,
        }
    }
}

/// What a 503 is about, in the words of llama.cpp ("Loading model") and of Ollama ("server busy, please try again.
/// maximum pending requests exceeded").
fn busy(body: &[u8]) -> Failure {
    let text = String::from_utf8_lossy(body).to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match (says(&["loading"]), says(&["overload", "busy", "too many", "capacity"])) {
        (true, false) => Failure::ServerLoading,
        (false, true) => Failure::ServerOverloaded,
        _ => Failure::ServerBusy,
    }
}

/// The first class that any link of the chain of causes has.
fn find(
    error: &(dyn Error + 'static),
    classify: impl Fn(&(dyn Error + 'static)) -> Option<Failure>,
) -> Option<Failure> {
    let mut link = Some(error);
    while let Some(current) = link {
        if let Some(class) = classify(current) {
            return Some(class);
        }
        // An `io::Error` that wraps another error hides it from `source`.
        link = current.downcast_ref::<io::Error>().and_then(wrapped).or_else(|| current.source());
    }
    None
}

fn wrapped(error: &io::Error) -> Option<&(dyn Error + 'static)> {
    error.get_ref().map(|inner| inner as &(dyn Error + 'static))
}

/// What ended a request for certain.
fn cause(error: &(dyn Error + 'static)) -> Option<Failure> {
    if let Some(error) = error.downcast_ref::<ResolveError>() {
        return Some((*error).into());
    }
    if error.is::<ConnectTimeout>() {
        return Some(Failure::Timeout);
    }
    error.downcast_ref().map(Failure::of_tls)
}

/// How it looked.
fn symptom(error: &(dyn Error + 'static)) -> Option<Failure> {
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
    let error = error.downcast_ref::<io::Error>()?;
    if error.raw_os_error().is_some_and(|code| OUT_OF_FILES.contains(&code)) {
        return Some(Failure::TooManyOpenFiles);
    }
    match error.kind() {
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
            let text = failure.agent_told(Names::default());
            assert_eq!(Failure::from_report(failure.reason(), Some(&text)), Some(failure));
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
    #[case(429, Failure::ServerOverloaded)]
    #[case(500, Failure::InvalidResponse)]
    #[case(502, Failure::ProxyError)]
    #[case(503, Failure::ServerBusy)]
    #[case(504, Failure::ProxyError)]
    #[case(301, Failure::UnexpectedRedirect)]
    #[case(308, Failure::UnexpectedRedirect)]
    fn statuses_have_classes(#[case] status: u16, #[case] class: Failure) {
        assert_eq!(Failure::from_status(status), class);
    }

    #[rstest]
    // llama.cpp's server b10434 on every path while it loads.
    #[case(
        br#"{"error":{"message":"Loading model","type":"unavailable_error","code":503}}"#,
        Failure::ServerLoading
    )]
    // Ollama 0.34.0 with a full queue.
    #[case(
        br#"{"error":"server busy, please try again.  maximum pending requests exceeded"}"#,
        Failure::ServerOverloaded
    )]
    // text-generation-inference 3.3 with a full queue.
    #[case(br#"{"error":"Model is overloaded","error_type":"overloaded"}"#, Failure::ServerOverloaded)]
    // vLLM 0.32.0 with a dead engine, and nginx.
    #[case(b"", Failure::ServerBusy)]
    #[case(b"<h1>503 Service Temporarily Unavailable</h1>", Failure::ServerBusy)]
    #[case(b"overloaded by loading", Failure::ServerBusy)]
    #[case(b"\xff\xfe", Failure::ServerBusy)]
    fn a_503_is_told_apart_where_its_body_does(#[case] body: &[u8], #[case] class: Failure) {
        assert_eq!(Failure::from_answer(503, body), class);
        assert_eq!(class.reason(), "ServerBusy");
        assert_eq!(Failure::from_answer(502, body), Failure::ProxyError);
    }

    #[test]
    fn what_runs_models_bars_the_host_whatever_another_version_called_it() {
        let class = Failure::HealthPathRunsModels;
        assert_eq!(Failure::refusal_of(class.reason(), "other words"), Some(class));
        assert!(class.text().contains("/health/liveliness") && class.text().contains("spec.healthPath"));
    }
}
