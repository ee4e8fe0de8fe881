//! The one way to say GET to a host: no redirect, no proxy, no compression, a capped body, an address that was checked.
//!
//! Deadlines are the caller's: every call here runs inside one `timeout_at` that covers a whole poll.

use super::{
    address::{AddressPolicy, SharedPolicy},
    failure::Failure,
    limits::{Limits, Namespace, SMALL_BODY},
    resolve::CheckedResolver,
    tls::TlsSettings,
};
use crate::api::endpoint::Endpoint;
use k8s_openapi::jiff::{Timestamp, fmt::rfc2822};
use reqwest::{
    Client, StatusCode, Url,
    header::{
        ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, DATE, HOST, HeaderMap,
        HeaderValue,
    },
    redirect,
};
use std::{sync::Arc, time::Duration};

/// Largest body that is read of anything but the list of models.
pub const BODY_MAX: usize = 1 << 20;
/// Largest list of models: some 4,000 entries at the usual kilobyte each.
pub const MODELS_BODY_MAX: usize = 4 << 20;
/// A healthy LAN connects within milliseconds; a host that has failed before gets no more than this.
const SUSPECT_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A poll closes its connection with its last request; what a failed poll left open goes after this.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Headers of one answer; Ollama and the known exporters send fewer than ten.
const HEADERS_MAX: usize = 64;
/// Longer ones tell nothing that the shorter do not.
const CONTENT_TYPE_MAX: usize = 256;
const USER_AGENT: &str = concat!("ollama-fleet-operator/", env!("CARGO_PKG_VERSION"));

/// Which client a request goes through.
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
    verified: [Client; 2],
    unverified: [Client; 2],
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
    pub body: Vec<u8>,
}

/// What one request needs beyond its path.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub endpoint: &'a Endpoint,
    pub path: &'a str,
    /// Of whoever asks, for its share of large bodies.
    pub namespace: &'a Namespace,
    pub host_header: Option<&'a HeaderValue>,
    pub lane: Lane,
    pub authorization: Option<&'a HeaderValue>,
    pub tls: &'a TlsSettings,
    pub body_max: usize,
    /// The last request of a poll closes the connection, so that no idle ones pile up between polls.
    pub last: bool,
}

/// The clients could not be made; nothing works without them.
#[derive(Debug, thiserror::Error)]
#[error("cannot make an HTTP client: {0}")]
pub struct ClientError(#[from] reqwest::Error);

impl HttpClients {
    pub fn new(
        resolver: &CheckedResolver,
        policy: Arc<SharedPolicy>,
        tls: &rustls::ClientConfig,
        limits: Limits,
    ) -> Result<Self, ClientError> {
        let build = |lane: Lane, verify: bool| {
            let mut builder = Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .dns_resolver(Arc::new(resolver.clone()))
                .redirect(redirect::Policy::none())
                .no_proxy()
                .http1_only()
                .http1_max_headers(HEADERS_MAX)
                .pool_max_idle_per_host(1)
                .pool_idle_timeout(IDLE_TIMEOUT)
                .user_agent(USER_AGENT);
            if !verify {
                builder = builder.tls_backend_preconfigured(super::tls::unverified(tls));
            }
            if lane == Lane::Suspect {
                builder = builder.connect_timeout(SUSPECT_CONNECT_TIMEOUT);
            }
            builder.build()
        };
        Ok(Self {
            verified: [build(Lane::Healthy, true)?, build(Lane::Suspect, true)?],
            unverified: [build(Lane::Healthy, false)?, build(Lane::Suspect, false)?],
            policy,
            limits,
        })
    }

    /// One GET. Any status is an answer; what is not an answer at all is a [`Failure`].
    pub async fn get(&self, request: Request<'_>) -> Result<Answer, Failure> {
        let url = checked_url(request.endpoint, request.path, &self.policy.get())?;
        let clients = if request.tls.skip_verify { &self.unverified } else { &self.verified };
        let mut builder = clients[request.lane as usize].get(url).header(ACCEPT_ENCODING, "identity");
        if let Some(host) = request.host_header {
            builder = builder.header(HOST, host);
        }
        if let Some(authorization) = request.authorization {
            builder = builder.header(AUTHORIZATION, authorization);
        }
        if request.last {
            builder = builder.header(CONNECTION, "close");
        }
        let mut response = builder.send().await.map_err(|error| Failure::from_client(&error))?;
        let status = response.status();
        if is_encoded(response.headers()) {
            return Err(Failure::InvalidResponse);
        }
        let date = date_of(response.headers());
        let content_type = content_type_of(response.headers());
        let announced = response.content_length().unwrap_or_default();
        if !status.is_success() {
            // Only the class of an error is kept. What it has to say is read for the sake of the connection, if short.
            let mut read = 0;
            while read <= SMALL_BODY
                && announced <= SMALL_BODY as u64
                && let Ok(Some(chunk)) = response.chunk().await
            {
                read += chunk.len();
            }
            return Ok(Answer { status: status.as_u16(), date, content_type, body: Vec::new() });
        }
        if announced > request.body_max as u64 {
            return Err(Failure::ResponseTooLarge);
        }
        let announced = usize::try_from(announced).unwrap_or_default();
        let mut body = Vec::with_capacity(announced.min(SMALL_BODY));
        let mut large = None;
        while let Some(chunk) = response.chunk().await.map_err(|error| body_failure(&error))? {
            let length = body.len() + chunk.len();
            if length > request.body_max {
                return Err(Failure::ResponseTooLarge);
            }
            if length > SMALL_BODY && large.is_none() {
                large = self.limits.large_body(request.namespace).await;
                body.reserve_exact(announced.saturating_sub(body.len()));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status: status.as_u16(), date, content_type, body })
    }
}

impl Answer {
    /// The body of a 2xx answer, or the class of any other status.
    pub fn success(self) -> Result<Self, Failure> {
        if StatusCode::from_u16(self.status).is_ok_and(|status| status.is_success()) {
            Ok(self)
        } else {
            Err(Failure::from_status(self.status))
        }
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

/// A connection that breaks in the middle of a body is a broken answer, not a refused connection.
fn body_failure(error: &reqwest::Error) -> Failure {
    match Failure::from_client(error) {
        Failure::ConnectionRefused => Failure::InvalidResponse,
        other => other,
    }
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
