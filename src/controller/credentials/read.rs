//! IO: one GET of one Secret by name. Secrets are never listed or watched.
//!
//! Nothing of an answer is logged, whatever it is: kube's own way of reading an object logs the text of one that it cannot
//! understand.

use super::{
    material::{Material, Wire},
    store::Key,
};
use crate::controller::api_failure::ApiFailure;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Client, Error, Resource,
    api::GetParams,
    core::{Request, request::Error as RequestError},
};

/// Why a Secret was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFailure {
    Missing,
    Forbidden,
    /// Nobody knows whether it is there.
    Unavailable,
}

impl ReadFailure {
    fn of(error: &Error) -> Self {
        match (ApiFailure::of(error), error) {
            (ApiFailure::Gone, _) => Self::Missing,
            // 401 is about the operator's own token, and says nothing about the Secret.
            (ApiFailure::Forbidden, Error::Api(status)) if status.code == 403 => Self::Forbidden,
            _ => Self::Unavailable,
        }
    }
}

/// Reads a Secret; the deadline is the caller's.
pub async fn get(client: Client, (namespace, name): Key) -> Result<Material, ReadFailure> {
    let request = Request::new(Secret::url_path(&(), Some(&namespace))).get(&name, &GetParams::default());
    let request = request.map_err(|error: RequestError| {
        tracing::error!(%error, "a Secret cannot be asked for");
        ReadFailure::Unavailable
    })?;
    let text = client.request_text(request).await.map_err(|error| ReadFailure::of(&error))?;
    serde_json::from_str::<Wire>(&text).map(Material::of).map_err(|_| {
        tracing::warn!(namespace, secret = name, "the API server's answer is no Secret");
        ReadFailure::Unavailable
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case::missing(json!({"code": 404, "reason": "NotFound", "details": {"name": "s", "kind": "secrets"}}), ReadFailure::Missing)]
    #[case::no_right(json!({"code": 403, "reason": "Forbidden"}), ReadFailure::Forbidden)]
    #[case::own_token(json!({"code": 401, "reason": "Unauthorized"}), ReadFailure::Unavailable)]
    #[case::overloaded(json!({"code": 429, "reason": "TooManyRequests"}), ReadFailure::Unavailable)]
    #[case::away(json!({"code": 503, "reason": "ServiceUnavailable"}), ReadFailure::Unavailable)]
    fn only_what_is_said_of_the_secret_counts(#[case] status: Value, #[case] failure: ReadFailure) {
        let status: Status = serde_json::from_value(status).unwrap();
        assert_eq!(ReadFailure::of(&Error::Api(Box::new(status))), failure);
    }
}
