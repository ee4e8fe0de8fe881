//! Asking the apiserver who holds a token and whether they may do something.
//!
//! Requests go through `request_text`, and answers are parsed here: a TokenReview comes back with the token in it,
//! and the client's own parsing logs a body that it cannot read.

use crate::api::{GROUP, VERSION};
use axum::http::{Request, header};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{
        NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
    },
};
use kube::Client;
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt, sync::Arc, time::Duration};

/// The audience of tokens that are good for this operator and nothing else.
pub const AUDIENCE: &str = "ollama-fleet-operator";

/// For asking who holds a token, and again for each right. A scrape gives up after 10 s by default and should be told
/// why before.
pub const REVIEW_DEADLINE: Duration = Duration::from_secs(5);

const TOKEN_REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCESS_REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

/// Something that a caller may or may not do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    /// A path of this listener, as RBAC's `nonResourceURLs` names it.
    NonResource { path: &'static str, verb: &'static str },
    /// Objects of our own group: one by its name, all of a namespace, or all.
    Resource {
        verb: &'static str,
        resource: &'static str,
        namespace: Option<Arc<str>>,
        name: Option<Arc<str>>,
    },
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NonResource { path, verb } => write!(f, "{verb} the non-resource URL {path}"),
            Self::Resource { verb, resource, namespace, name } => {
                write!(f, "{verb} {resource}.{GROUP}")?;
                if let Some(name) = name {
                    write!(f, " named {name}")?;
                }
                match namespace {
                    Some(namespace) => write!(f, " in the namespace {namespace}"),
                    None => write!(f, " in all namespaces"),
                }
            }
        }
    }
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

/// Who holds the token; `None`: nobody. Tokens for the operator alone first, then those for the apiserver, which is
/// what a pod has anyway.
pub async fn authenticate(client: &Client, token: &str) -> Result<Option<UserInfo>, ReviewError> {
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

/// May this user do that?
pub async fn authorize(client: &Client, user: &UserInfo, right: &Right) -> Result<bool, ReviewError> {
    let (resource_attributes, non_resource_attributes) = match right {
        Right::NonResource { path, verb } => {
            let (path, verb) = (Some((*path).to_owned()), Some((*verb).to_owned()));
            (None, Some(NonResourceAttributes { path, verb }))
        }
        Right::Resource { verb, resource, namespace, name } => {
            let attributes = ResourceAttributes {
                group: Some(GROUP.to_owned()),
                version: Some(VERSION.to_owned()),
                resource: Some((*resource).to_owned()),
                verb: Some((*verb).to_owned()),
                namespace: namespace.as_deref().map(str::to_owned),
                name: name.as_deref().map(str::to_owned),
                ..ResourceAttributes::default()
            };
            (Some(attributes), None)
        }
    };
    let spec = SubjectAccessReviewSpec {
        user: user.username.clone(),
        uid: user.uid.clone(),
        groups: user.groups.clone(),
        extra: user.extra.clone(),
        non_resource_attributes,
        resource_attributes,
    };
    let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
    let answer: SubjectAccessReview = ask(client, ACCESS_REVIEWS, &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed && status.denied != Some(true)))
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
