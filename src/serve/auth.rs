//! Who may read the main listener: takes the token from the request, remembers verdicts, and words the refusals.
//!
//! Never logs a token or the header that it came in, and never keeps one: the memory knows digests.

use super::{
    budget::Budget,
    cache::{ALLOW_FOR, Cache, DENY_FOR, TokenDigest},
    listener::{Network, Peer},
    problem::Problem,
    review::{REVIEW_DEADLINE, ReviewError, Right, authenticate, authorize},
};
use axum::{
    extract::{ConnectInfo, FromRequestParts, rejection::ExtensionRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use k8s_openapi::api::authentication::v1::UserInfo;
use kube::Client;
use ring::digest::{SHA256, digest};
use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

/// For callers behind the apiserver's service proxy, which strips `Authorization`.
pub const TOKEN_HEADER: &str = "x-ollama-fleet-token";

/// A ServiceAccount's token is about 1 KiB, one of an identity provider with many groups a few. More than this is
/// no token, and would be sent on to the apiserver.
pub const TOKEN_MAX: usize = 16 * 1024;

/// Who holds a good token can make the operator ask by wanting many things, so each user has a share of their own.
const RIGHTS_PER_SECOND: NonZeroU32 = NonZeroU32::new(20).unwrap();

/// Both lists of somebody who may read some namespaces of very many; see `NAMESPACES_MAX`.
const RIGHTS_BURST: NonZeroU32 = NonZeroU32::new(600).unwrap();

/// Questions about rights that are under way at once, whoever asks: at a few ms each, thousands a second.
const RIGHTS_AT_ONCE: usize = 16;

/// About 500 KiB. Questions about tokens that are not known are limited to 20 a second (`budget`), so a flood of wrong
/// ones fills at most 20 × 30 s + 40 = 640 entries before the first of them expire, and cannot push out those of honest
/// callers.
const IDENTITIES_MAX: usize = 1024;

/// About 3 MiB, and what four users can fill at most: 600 + 20 × 60 s each.
const VERDICTS_MAX: usize = 8192;

/// Decides about requests.
pub enum Authorizer {
    /// Everybody may do everything; only ever on a loopback address.
    Open,
    Kubernetes(Box<Reviewer>),
}

/// Asks the apiserver, but not twice within a minute, and not for everything that anybody sends.
pub struct Reviewer {
    client: Client,
    /// Who holds a token; `None`: nobody.
    identities: Mutex<Cache<TokenDigest, Option<Arc<UserInfo>>>>,
    /// Consulted only while the identity is known, so that neither outlives its minute by the other's.
    verdicts: Mutex<Cache<(TokenDigest, Right), bool>>,
    budget: Budget,
    right_limiter: DefaultKeyedRateLimiter<String>,
    asking: Semaphore,
    /// The last failure that was logged; only a change is news.
    failure: Mutex<Option<ReviewError>>,
}

/// Whoever sent a request, as far as they say and their connection tells.
pub struct Sender {
    headers: HeaderMap,
    peer: Network,
}

/// Whoever sent a request, once their token is known to be good.
pub struct Caller<'a> {
    /// `None`: everybody, who may do everything.
    known: Option<Known<'a>>,
}

struct Known<'a> {
    reviewer: &'a Reviewer,
    token: TokenDigest,
    user: Arc<UserInfo>,
}

impl<S: Send + Sync> FromRequestParts<S> for Sender {
    type Rejection = ExtensionRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let ConnectInfo(peer) = ConnectInfo::<Peer>::from_request_parts(parts, state).await?;
        Ok(Self { headers: parts.headers.clone(), peer: peer.network() })
    }
}

impl Authorizer {
    pub fn kubernetes(client: Client) -> Self {
        let rights = Quota::per_second(RIGHTS_PER_SECOND).allow_burst(RIGHTS_BURST);
        Self::Kubernetes(Box::new(Reviewer {
            client,
            identities: Mutex::new(Cache::new(IDENTITIES_MAX)),
            verdicts: Mutex::new(Cache::new(VERDICTS_MAX)),
            budget: Budget::new(),
            right_limiter: RateLimiter::keyed(rights),
            asking: Semaphore::new(RIGHTS_AT_ONCE),
            failure: Mutex::default(),
        }))
    }

    /// Who sent this request?
    pub async fn identify(&self, sender: &Sender) -> Result<Caller<'_>, Problem> {
        match self {
            Self::Open => Ok(Caller { known: None }),
            Self::Kubernetes(reviewer) => {
                let token = token(&sender.headers)?;
                let digest = key(token);
                let user = reviewer
                    .identity(token, digest, sender.peer)
                    .await?
                    .ok_or_else(|| unauthorized("the apiserver does not accept this token"))?;
                Ok(Caller { known: Some(Known { reviewer, token: digest, user }) })
            }
        }
    }
}

impl Caller<'_> {
    /// May they do this?
    pub async fn may(&self, right: &Right) -> Result<bool, Problem> {
        match &self.known {
            None => Ok(true),
            Some(known) => known.reviewer.verdict(known, right).await,
        }
    }

    /// A refusal that says what is missing, unless they may do this.
    pub async fn require(&self, right: &Right) -> Result<(), Problem> {
        if self.may(right).await? { Ok(()) } else { Err(self.forbidden(right)) }
    }

    pub fn forbidden(&self, right: &Right) -> Problem {
        let user = self.known.as_ref().and_then(|known| known.user.username.as_deref()).unwrap_or_default();
        Problem::new(StatusCode::FORBIDDEN, format!("user {user:?} has no right to {right}"))
    }
}

impl Reviewer {
    async fn identity(
        &self,
        token: &str,
        digest: TokenDigest,
        peer: Network,
    ) -> Result<Option<Arc<UserInfo>>, Problem> {
        let known = lock(&self.identities).get(&digest, Instant::now());
        if let Some(user) = known {
            return Ok(user);
        }
        if !self.budget.allows(&digest, peer, Instant::now()) {
            return Err(unavailable("too many tokens to check"));
        }
        let user = self.asked(authenticate(&self.client, token)).await?.map(Arc::new);
        let lifetime = if user.is_some() { ALLOW_FOR } else { DENY_FOR };
        lock(&self.identities).put(digest, user.clone(), lifetime, Instant::now());
        self.budget.note(digest, user.is_some(), Instant::now());
        // Users who have their whole share again need not be remembered.
        self.right_limiter.retain_recent();
        Ok(user)
    }

    async fn verdict(&self, known: &Known<'_>, right: &Right) -> Result<bool, Problem> {
        let key = (known.token, right.clone());
        let verdict = lock(&self.verdicts).get(&key, Instant::now());
        if let Some(allowed) = verdict {
            return Ok(allowed);
        }
        let name = known.user.username.clone().unwrap_or_default();
        if self.right_limiter.check_key(&name).is_err() {
            return Err(unavailable("too many rights to check"));
        }
        let asking = async {
            let _permit = self.asking.acquire().await.map_err(|_| ReviewError::Unreachable)?;
            authorize(&self.client, &known.user, right).await
        };
        let allowed = self.asked(asking).await?;
        let lifetime = if allowed { ALLOW_FOR } else { DENY_FOR };
        lock(&self.verdicts).put(key, allowed, lifetime, Instant::now());
        Ok(allowed)
    }

    /// What the apiserver answers in time. A failure is not remembered: the next request asks again.
    async fn asked<T>(&self, asking: impl Future<Output = Result<T, ReviewError>>) -> Result<T, Problem> {
        let answer = timeout(REVIEW_DEADLINE, asking).await.unwrap_or(Err(ReviewError::Timeout));
        self.note(answer.as_ref().err());
        answer.map_err(|_| unavailable("the apiserver cannot be asked about this caller"))
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

fn unavailable(detail: &'static str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_soon()
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
