//! Failures of the API server: one class a failure, and the class decides metric and retry.

use kube::Error;

/// What a failed call means for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ApiFailure {
    /// The API server is away, overloaded or slow: nobody should hurry.
    Unavailable,
    /// The object has changed since it was read.
    Conflict,
    /// The object, or its namespace, is gone.
    Gone,
    /// The operator may not do this; it may be allowed later.
    Forbidden,
    /// The content is refused; sending it again will not help soon.
    Refused,
}

impl ApiFailure {
    pub fn of(error: &Error) -> Self {
        match error {
            Error::Api(status) => match status.code {
                404 | 410 => Self::Gone,
                409 => Self::Conflict,
                401 | 403 => Self::Forbidden,
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
            Self::Forbidden => "forbidden",
            Self::Refused => "refused",
        }
    }
}
