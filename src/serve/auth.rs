//! Who may read the main listener: takes the token from the request, remembers verdicts, and words the refusals.
//!
//! Never logs a token or the header that it came in, and never keeps one: the memory knows digests.

use super::{
    cache::{Cache, TokenDigest},
    problem::Problem,
    review::{ReviewError, Right, Verdict, review},
};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use kube::Client;
use ring::digest::{SHA256, digest};
use std::{
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// For callers behind the apiserver's service proxy, which strips `Authorization`.
pub const TOKEN_HEADER: &str = "x-ollama-fleet-token";

/// A ServiceAccount's token is about 1 KiB, one of an identity provider with many groups a few. More than this is
/// no token, and would be sent on to the apiserver.
pub const TOKEN_MAX: usize = 16 * 1024;

/// Everybody who reaches the port can make the operator ask the apiserver by inventing tokens. Honest callers need
/// two reviews a minute each.
const REVIEWS_PER_SECOND: NonZeroU32 = NonZeroU32::new(20).unwrap();

/// A few dozen scrapers whose verdicts expire at once, at start for example.
const REVIEW_BURST: NonZeroU32 = NonZeroU32::new(40).unwrap();

/// Decides about requests.
pub enum Authorizer {
    /// Everybody may do everything; only ever on a loopback address.
    Open,
    Kubernetes(Box<Reviewer>),
}

/// Asks the apiserver, but not twice within a minute, and not for everything that anybody sends.
pub struct Reviewer {
    client: Client,
    cache: Mutex<Cache>,
    limiter: DefaultDirectRateLimiter,
    /// The last failure that was logged; only a change is news.
    failure: Mutex<Option<ReviewError>>,
}

impl Authorizer {
    pub fn kubernetes(client: Client) -> Self {
        let quota = Quota::per_second(REVIEWS_PER_SECOND).allow_burst(REVIEW_BURST);
        Self::Kubernetes(Box::new(Reviewer {
            client,
            cache: Mutex::default(),
            limiter: RateLimiter::direct(quota),
            failure: Mutex::default(),
        }))
    }

    /// May the sender of these headers do this?
    pub async fn check(&self, headers: &HeaderMap, right: &Right) -> Result<(), Problem> {
        match self {
            Self::Open => Ok(()),
            Self::Kubernetes(reviewer) => reviewer.check(headers, right).await,
        }
    }
}

impl Reviewer {
    async fn check(&self, headers: &HeaderMap, right: &Right) -> Result<(), Problem> {
        let token = token(headers)?;
        let key = key(token);
        let known = lock(&self.cache).get(key, right, Instant::now());
        let verdict = match known {
            Some(verdict) => verdict,
            None => self.ask(token, key, right).await?,
        };
        match verdict {
            Verdict::Allowed => Ok(()),
            Verdict::Forbidden { user } => {
                let Right::NonResource { path, verb } = right;
                let detail = format!("user {user:?} has no right to {verb} the non-resource URL {path}");
                Err(Problem::new(StatusCode::FORBIDDEN, detail))
            }
            Verdict::Unknown => Err(unauthorized("the apiserver does not accept this token")),
        }
    }

    async fn ask(&self, token: &str, key: TokenDigest, right: &Right) -> Result<Verdict, Problem> {
        let unavailable = |detail| Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_soon();
        if self.limiter.check().is_err() {
            return Err(unavailable("too many tokens to check"));
        }
        let answer = review(&self.client, token, right).await;
        self.note(answer.as_ref().err());
        let verdict = answer.map_err(|_| unavailable("the apiserver cannot be asked about this token"))?;
        lock(&self.cache).put(key, right.clone(), verdict.clone(), Instant::now());
        Ok(verdict)
    }

    /// One line when checks begin to fail, fail otherwise, or work again.
    fn note(&self, now: Option<&ReviewError>) {
        let mut last = lock(&self.failure);
        if last.as_ref() == now {
            return;
        }
        if let Some(error) = now {
            tracing::warn!(%error, "cannot check who reads the listener; answering 503");
        } else {
            tracing::info!("checking who reads the listener works again");
        }
        *last = now.cloned();
    }
}

/// The token of a request: `Authorization: Bearer`, else the header that passes the service proxy.
fn token(headers: &HeaderMap) -> Result<&str, Problem> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("Bearer").then_some(token)
    });
    let token = bearer
        .or_else(|| headers.get(TOKEN_HEADER).and_then(|value| value.to_str().ok()))
        .map(str::trim)
        .filter(|token| !token.is_empty())
        .ok_or_else(|| unauthorized("a bearer token is required in Authorization or X-Ollama-Fleet-Token"))?;
    if token.len() > TOKEN_MAX {
        return Err(unauthorized("no token is that long"));
    }
    Ok(token)
}

fn unauthorized(detail: &'static str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, detail)
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

fn key(token: &str) -> TokenDigest {
    let mut key = TokenDigest::default();
    key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    key
}

/// Both values are whole between two statements, so a panic elsewhere does not spoil them.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
