//! Asking the apiserver who holds a token and whether they may do something.
//!
//! Requests go through `request_text`, and answers are parsed here: a TokenReview comes back with the token in it,
//! and the client's own parsing logs a body that it cannot read.

use axum::http::{Request, header};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::Client;
use serde::{Serialize, de::DeserializeOwned};
use std::{sync::Arc, time::Duration};

/// The audience of tokens that are good for this operator and nothing else.
pub const AUDIENCE: &str = "ollama-fleet-operator";

/// For everything that one decision asks. A scrape gives up after 10 s by default and should be told why before.
pub const REVIEW_DEADLINE: Duration = Duration::from_secs(5);

const TOKEN_REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCESS_REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

/// Something that a caller may or may not do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    /// A path of this listener, as RBAC's `nonResourceURLs` names it.
    NonResource { path: &'static str, verb: &'static str },
}

/// What the apiserver says about a token and a right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    /// The token's owner is known and may not.
    Forbidden {
        user: Arc<str>,
    },
    /// The apiserver does not know the token.
    Unknown,
}

/// The apiserver could not be asked. The text has no token in it: it comes from status codes and reasons alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    #[error("the apiserver did not answer within {REVIEW_DEADLINE:?}")]
    Timeout,
    #[error("the apiserver refused {path}: {code} {reason}")]
    Refused { path: &'static str, code: u16, reason: String },
    #[error("the apiserver cannot be reached")]
    Unreachable,
    #[error("the apiserver's answer to {path} cannot be read")]
    Unreadable { path: &'static str },
}

/// Who holds the token, and may they?
pub async fn review(client: &Client, token: &str, right: &Right) -> Result<Verdict, ReviewError> {
    let asking = async {
        match authenticate(client, token).await? {
            Some(user) => authorize(client, user, right).await,
            None => Ok(Verdict::Unknown),
        }
    };
    tokio::time::timeout(REVIEW_DEADLINE, asking).await.unwrap_or(Err(ReviewError::Timeout))
}

/// Tokens for the operator alone first, then those for the apiserver, which is what a pod has anyway.
async fn authenticate(client: &Client, token: &str) -> Result<Option<UserInfo>, ReviewError> {
    for audiences in [Some(vec![AUDIENCE.to_owned()]), None] {
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: audiences.clone() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let answer: TokenReview = ask(client, TOKEN_REVIEWS, &review).await?;
        let Some(status) = answer.status else { continue };
        // An authenticator that knows no audiences returns none; the token is then one for the apiserver, which
        // is good as well. One that returns others than asked for speaks of a token that is not for us.
        let returned = status.audiences.unwrap_or_default();
        let ours = audiences.is_none() || returned.is_empty() || returned.iter().any(|name| name == AUDIENCE);
        if status.authenticated == Some(true) && ours {
            return Ok(status.user);
        }
    }
    Ok(None)
}

async fn authorize(client: &Client, user: UserInfo, right: &Right) -> Result<Verdict, ReviewError> {
    let Right::NonResource { path, verb } = right;
    let name: Arc<str> = user.username.as_deref().unwrap_or_default().into();
    let spec = SubjectAccessReviewSpec {
        user: user.username,
        uid: user.uid,
        groups: user.groups,
        extra: user.extra,
        non_resource_attributes: Some(NonResourceAttributes {
            path: Some((*path).to_owned()),
            verb: Some((*verb).to_owned()),
        }),
        resource_attributes: None,
    };
    let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
    let answer: SubjectAccessReview = ask(client, ACCESS_REVIEWS, &review).await?;
    let allowed = answer.status.is_some_and(|status| status.allowed && status.denied != Some(true));
    Ok(if allowed { Verdict::Allowed } else { Verdict::Forbidden { user: name } })
}

async fn ask<T: Serialize + DeserializeOwned>(
    client: &Client,
    path: &'static str,
    review: &T,
) -> Result<T, ReviewError> {
    let unreadable = ReviewError::Unreadable { path };
    let body = serde_json::to_vec(review).map_err(|_| unreadable.clone())?;
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(|_| unreadable.clone())?;
    let text = client.request_text(request).await.map_err(|error| match error {
        kube::Error::Api(status) => {
            ReviewError::Refused { path, code: status.code, reason: status.reason.clone() }
        }
        _ => ReviewError::Unreachable,
    })?;
    serde_json::from_str(&text).map_err(|_| unreadable)
}
