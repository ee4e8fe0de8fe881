//! Failures of the API server: one class a failure, and the class decides metric and retry.

use kube::{Error, core::Status};

/// In the words of the API server's typed converter.
pub(super) const NOT_IN_SCHEMA: &str = "field not declared in schema";

/// What a failed call means for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ApiFailure {
    /// The API server is away, overloaded or slow: nobody should hurry.
    Unavailable,
    /// The object has changed since it was read.
    Conflict,
    /// The object, or its namespace, is gone.
    Gone,
    /// The API server does not know who asks: a token has run out, and will be another.
    Unauthenticated,
    /// The operator may not do this; it may be allowed later.
    Forbidden,
    /// The content is refused; sending it again will not help soon.
    Refused,
}

impl ApiFailure {
    pub fn of(error: &Error) -> Self {
        match error {
            Error::Api(status) => match status.code {
                // A server that is just starting answers 404 for every kind that it does not serve yet; only one that
                // names the object knows that it is gone.
                404 if status.reason != "NotFound" || names_nothing(status) => Self::Unavailable,
                404 | 410 => Self::Gone,
                409 => Self::Conflict,
                401 => Self::Unauthenticated,
                403 if namespace_is_going(status) => Self::Gone,
                403 => Self::Forbidden,
                // What apply says of a field that the definition in the cluster does not have; it is no failure of the
                // server, and would be said again for ever.
                500 if status.message.contains(NOT_IN_SCHEMA) => Self::Refused,
                408 | 429 | 500..=599 => Self::Unavailable,
                _ => Self::Refused,
            },
            _ => Self::Unavailable,
        }
    }

    /// Label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Conflict => "conflict",
            Self::Gone => "gone",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::Refused => "refused",
        }
    }
}

fn names_nothing(status: &Status) -> bool {
    status.details.as_ref().is_none_or(|details| details.name.is_empty())
}

/// Nothing is created in a namespace that is being deleted, whatever the rights.
fn namespace_is_going(status: &Status) -> bool {
    let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case::the_object_is_gone(json!({"code": 404, "reason": "NotFound", "details": {"name": "a", "kind": "ollamaservers"}}), ApiFailure::Gone)]
    #[case::the_kind_is_not_served_yet(json!({"code": 404, "reason": "NotFound", "details": {}}), ApiFailure::Unavailable)]
    #[case::plain_text(json!({"code": 404, "reason": "Failed to parse error data"}), ApiFailure::Unavailable)]
    #[case::conflict(json!({"code": 409, "reason": "Conflict"}), ApiFailure::Conflict)]
    #[case::not_known(json!({"code": 401, "reason": "Unauthorized"}), ApiFailure::Unauthenticated)]
    #[case::an_older_definition(json!({"code": 500, "message": "failed to create typed patch object (a/b; c): .status.x: field not declared in schema"}), ApiFailure::Refused)]
    #[case::broken(json!({"code": 500, "reason": "InternalError"}), ApiFailure::Unavailable)]
    #[case::forbidden(json!({"code": 403, "reason": "Forbidden"}), ApiFailure::Forbidden)]
    #[case::namespace_is_going(json!({"code": 403, "reason": "Forbidden", "details": {"causes": [{"reason": "NamespaceTerminating", "message": "", "field": ""}]}}), ApiFailure::Gone)]
    #[case::invalid(json!({"code": 422, "reason": "Invalid"}), ApiFailure::Refused)]
    #[case::too_many(json!({"code": 429, "reason": "TooManyRequests"}), ApiFailure::Unavailable)]
    #[case::overloaded(json!({"code": 503, "reason": "ServiceUnavailable"}), ApiFailure::Unavailable)]
    fn every_answer_has_a_class(#[case] status: Value, #[case] class: ApiFailure) {
        let status: Status = serde_json::from_value(status).unwrap();
        assert_eq!(ApiFailure::of(&Error::Api(Box::new(status))), class);
    }
}
