//! The one way to say GET to a host: no redirect, no proxy, no compression, a capped body, an address that was checked.
//!
//! Deadlines are the caller's: one covers a whole poll, and every call here is over by it.

pub use super::clients::Route;
use super::{
    address::{AddressPolicy, SharedPolicy},
    clients::Clients,
    connect::{Attempt, Destination, Stage},
    failure::Failure,
    fair::Slot,
    limits::{Limits, Namespace, SMALL_BODY},
    resolve::CheckedResolver,
    tls::{ClientConfigs, TlsSettings},
};
use crate::api::endpoint::{Endpoint, Scheme};
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request as HttpRequest, StatusCode,
    body::{Body, Bytes, Incoming},
    header::{
        ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, DATE, HOST,
        HeaderMap, HeaderValue, USER_AGENT,
    },
};
use k8s_openapi::jiff::{Timestamp, fmt::rfc2822};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout_at};
use url::Url;

/// Largest body that is read of anything but the list of models.
pub const BODY_MAX: usize = 1 << 20;
/// Largest list of models: some 4,000 entries at the usual kilobyte each.
pub const MODELS_BODY_MAX: usize = 4 << 20;
/// A healthy LAN connects within milliseconds; a host that has failed before gets no more than this.
const SUSPECT_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Of a 400: what a server says about TLS, it says at the begin.
const COMPLAINT_MAX: usize = 1024;
/// Longer ones tell nothing that the shorter do not.
const CONTENT_TYPE_MAX: usize = 256;
/// Asks for whatever there is.
pub const ACCEPT_ANY: &str = "*/*";
const AGENT: &str = concat!("ollama-fleet-operator/", env!("CARGO_PKG_VERSION"));

/// Which slots a poll has, and how much time to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Hosts that answered last time, or were never asked.
    Healthy,
    /// Hosts that failed: a short connect timeout, and slots of their own.
    Suspect,
}

/// The clients of all polls. Cheap to clone.
#[derive(Clone)]
pub struct HttpClients {
    clients: Clients,
    policy: Arc<SharedPolicy>,
    limits: Limits,
}

/// What of an answer is used.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The host's clock, from its Date header.
    pub date: Option<Timestamp>,
    pub content_type: Option<String>,
    /// Of an error only its begin.
    pub body: Vec<u8>,
    /// Held for as long as the body is, if it is large.
    pub room: Option<Slot>,
}

/// What one request needs beyond its path.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// What it goes through.
    pub route: &'a Route,
    pub endpoint: &'a Endpoint,
    pub path: &'a str,
    /// Of whoever asks, for its share of large bodies.
    pub namespace: &'a Namespace,
    pub host_header: Option<&'a HeaderValue>,
    /// What to ask for.
    pub accept: &'static str,
    pub lane: Lane,
    pub authorization: Option<&'a HeaderValue>,
    pub tls: &'a TlsSettings,
    pub body_max: usize,
    /// Connection, headers and body are here by then, or are not waited for.
    pub deadline: Instant,
    /// Of a body that is larger the begin is enough; else it is refused.
    pub begin_is_enough: bool,
    /// The last request of a poll closes the connection, so that no idle ones pile up between polls.
    pub last: bool,
}

/// The clients could not be made; nothing works without them.
#[derive(Debug, thiserror::Error)]
#[error("cannot make an HTTP client: {0}")]
pub struct ClientError(#[from] rustls::Error);

impl HttpClients {
    pub fn new(
        resolver: CheckedResolver,
        policy: Arc<SharedPolicy>,
        limits: Limits,
    ) -> Result<Self, ClientError> {
        Ok(Self { clients: Clients::new(resolver, ClientConfigs::new()?), policy, limits })
    }

    /// What one poll asks one address with.
    pub fn route(&self, tls: &TlsSettings, destination: Destination) -> Route {
        self.clients.route(tls, destination)
    }

    /// One GET. Any status is an answer; what is not an answer at all is a [`Failure`].
    pub async fn get(&self, request: Request<'_>) -> Result<Answer, Failure> {
        let url = checked_url(request.endpoint, request.path, &self.policy.get())?;
        let connected_by = match request.lane {
            Lane::Healthy => request.deadline,
            Lane::Suspect => request.deadline.min(Instant::now() + SUSPECT_CONNECT_TIMEOUT),
        };
        let attempt = Attempt::new(Arc::clone(&request.route.destination), connected_by);
        let asking = attempt.clone().scope(self.ask(&url, &request, &attempt));
        let answer = timeout_at(request.deadline, asking).await.unwrap_or(Err(Failure::Timeout));
        if answer.is_err() {
            attempt.closed().await;
        }
        answer.map_err(|failure| {
            let failure = in_the_light_of(&attempt, failure);
            if request.tls.identity.is_none() { failure.without_identity() } else { failure }
        })
    }

    async fn ask(&self, url: &Url, request: &Request<'_>, attempt: &Attempt) -> Result<Answer, Failure> {
        let mut http_request = http_request(url, request)?;
        attempt.follow(&mut http_request);
        let sent = request.route.client.request(http_request).await;
        let response = sent.map_err(|error| Failure::from_client(&error))?;
        let (head, mut body) = response.into_parts();
        if is_encoded(&head.headers) {
            return Err(Failure::InvalidResponse);
        }
        let status = head.status;
        let (body, room) = if status.is_success() {
            self.read(&mut body, request).await?
        } else {
            let complaint = complaint(&mut body).await;
            let plain = request.endpoint.scheme == Scheme::Http;
            if plain && status == StatusCode::BAD_REQUEST && complains_about_tls(&complaint) {
                return Err(Failure::TlsWanted);
            }
            (complaint, None)
        };
        let (date, content_type) = (date_of(&head.headers), content_type_of(&head.headers));
        Ok(Answer { status: status.as_u16(), date, content_type, body, room })
    }

    /// The body, and the slot that it takes once it is large.
    async fn read(
        &self,
        incoming: &mut Incoming,
        request: &Request<'_>,
    ) -> Result<(Vec<u8>, Option<Slot>), Failure> {
        let announced = incoming.size_hint().lower();
        if announced > request.body_max as u64 && !request.begin_is_enough {
            return Err(Failure::ResponseTooLarge);
        }
        let announced = usize::try_from(announced).unwrap_or_default();
        let mut body = Vec::with_capacity(announced.min(SMALL_BODY));
        let mut room = None;
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|error| Failure::from_body(&error))?;
            // Trailers tell nothing.
            let Ok(mut chunk) = frame.into_data() else { continue };
            let left = request.body_max - body.len();
            let is_begin = chunk.len() > left;
            if is_begin {
                if !request.begin_is_enough {
                    return Err(Failure::ResponseTooLarge);
                }
                chunk.truncate(left);
            }
            if body.len() + chunk.len() > SMALL_BODY && room.is_none() {
                room = self.limits.large_body(request.namespace).await;
                body.reserve_exact(announced.min(request.body_max).saturating_sub(body.len()));
            }
            body.extend_from_slice(&chunk);
            if is_begin {
                break;
            }
        }
        Ok((body, room))
    }
}

fn http_request(url: &Url, request: &Request<'_>) -> Result<HttpRequest<Empty<Bytes>>, Failure> {
    let mut builder = HttpRequest::get(url.as_str())
        .header(USER_AGENT, AGENT)
        .header(ACCEPT, request.accept)
        .header(ACCEPT_ENCODING, "identity");
    if let Some(host) = request.host_header {
        builder = builder.header(HOST, host);
    }
    if let Some(authorization) = request.authorization {
        builder = builder.header(AUTHORIZATION, authorization);
    }
    if request.last {
        builder = builder.header(CONNECTION, "close");
    }
    builder.body(Empty::new()).map_err(|_| Failure::InvalidResponse)
}

/// The begin of what an error has to say. Only its class is kept; the rest is read for the sake of the connection, if
/// short.
async fn complaint(incoming: &mut Incoming) -> Vec<u8> {
    let (mut said, mut read) = (Vec::new(), 0);
    while read <= SMALL_BODY
        && incoming.size_hint().lower() <= SMALL_BODY as u64
        && let Some(Ok(frame)) = incoming.frame().await
    {
        let Ok(chunk) = frame.into_data() else { continue };
        read += chunk.len();
        said.extend_from_slice(&chunk[..chunk.len().min(COMPLAINT_MAX - said.len())]);
    }
    said
}

/// What a failure means, given how far the connection came and what was said on it.
fn in_the_light_of(attempt: &Attempt, failure: Failure) -> Failure {
    if let Some(heard) = attempt.heard() {
        return heard;
    }
    match (attempt.stage(), failure) {
        (Stage::Handshake, Failure::Timeout) => Failure::TlsStalled,
        (Stage::Handshake, Failure::ConnectionRefused | Failure::InvalidResponse) => Failure::TlsClosed,
        _ => failure,
    }
}

/// Whether a server tells that it was spoken to without TLS: those of Go, nginx and Apache, in their words.
fn complains_about_tls(body: &[u8]) -> bool {
    const COMPLAINTS: [&str; 3] = [
        "sent an HTTP request to an HTTPS server",
        "plain HTTP request was sent to HTTPS port",
        "speaking plain HTTP to an SSL-enabled server port",
    ];
    let text = String::from_utf8_lossy(body);
    COMPLAINTS.iter().any(|complaint| text.contains(complaint))
}

impl Answer {
    fn is_success(&self) -> bool {
        StatusCode::from_u16(self.status).is_ok_and(|status| status.is_success())
    }

    /// The body of a 2xx answer, or the class of any other status.
    pub fn success(self) -> Result<Self, Failure> {
        if self.is_success() { Ok(self) } else { Err(Failure::from_answer(self.status, &self.body)) }
    }
}

/// Literals never reach the resolver, and no port does, so they are checked here: as the client will read them, which
/// is the URL and not the endpoint.
fn checked_url(endpoint: &Endpoint, path: &str, policy: &AddressPolicy) -> Result<Url, Failure> {
    let url = Url::parse(&format!("{endpoint}{path}")).map_err(|_| Failure::InvalidResponse)?;
    let literal = match url.host() {
        Some(url::Host::Ipv4(address)) => Some(address.into()),
        Some(url::Host::Ipv6(address)) => Some(address.into()),
        _ => None,
    };
    if let Some(address) = literal {
        policy.check(address)?;
    }
    policy.check_port(url.port_or_known_default().unwrap_or_default())?;
    Ok(url)
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn content_type_of(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    (text.len() <= CONTENT_TYPE_MAX).then(|| text.to_owned())
}

fn date_of(headers: &HeaderMap) -> Option<Timestamp> {
    let text = headers.get(DATE)?.to_str().ok()?;
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod connection_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_header_is_read() {
        let mut headers = HeaderMap::new();
        headers.insert(DATE, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert_eq!(date_of(&headers).unwrap().as_second(), 784_111_777);
        headers.insert(DATE, HeaderValue::from_static("yesterday"));
        assert_eq!(date_of(&headers), None);
    }

    #[test]
    fn servers_that_were_spoken_to_without_tls_are_understood() {
        assert!(complains_about_tls(b"Client sent an HTTP request to an HTTPS server.\n"));
        assert!(complains_about_tls(b"<center>The plain HTTP request was sent to HTTPS port</center>"));
        assert!(!complains_about_tls(b"{\"error\": \"no such model\"}"));
        assert!(!complains_about_tls(&[0xff; 3]));
    }

    #[test]
    fn literals_are_checked_before_the_client_sees_them() {
        let check = |host| {
            checked_url(&Endpoint::parse(host).unwrap(), "/", &AddressPolicy::default())
                .map(|url| url.to_string())
        };
        assert_eq!(check("127.0.0.1:8080"), Err(Failure::AddressNotAllowed));
        assert_eq!(check("192.168.1.1:22"), Err(Failure::PortNotAllowed));
        assert_eq!(check("gpu1.lab:6443"), Err(Failure::PortNotAllowed));
        assert_eq!(check("http://192.168.1.1"), Ok("http://192.168.1.1/".into()));
        assert_eq!(check("https://gpu1.lab"), Ok("https://gpu1.lab/".into()));
    }
}
