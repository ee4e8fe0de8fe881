//! What a Secret holds, as it is used: the value of an Authorization header, and certificates. Pure.
//!
//! Everything is made once, when the Secret is read, and nothing else of it is kept. Whatever cannot be used as it stands is
//! refused: nothing is trimmed or guessed. Nothing here prints a byte of a Secret.

use super::grant::Grant;
use crate::probe::{
    credential::Problem,
    tls::{Authorities, Identity, TlsMaterialError},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::header::HeaderValue;
use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::Deserialize;
use std::fmt;

/// Longest token, username or password: what servers accept as one line of a header.
const VALUE_MAX: usize = 8 * 1024;
/// Longest ca.crt, tls.crt or tls.key: every public authority in one bundle takes some 220 KiB.
const PEM_MAX: usize = 256 * 1024;

/// A Secret on the wire, of which only the keys that mean something are decoded.
#[derive(Deserialize)]
pub struct Wire {
    metadata: ObjectMeta,
    #[serde(default)]
    data: Option<Data>,
}

#[derive(Default, Deserialize)]
struct Data {
    token: Option<ByteString>,
    username: Option<ByteString>,
    password: Option<ByteString>,
    #[serde(rename = "ca.crt")]
    ca: Option<ByteString>,
    #[serde(rename = "tls.crt")]
    certificate: Option<ByteString>,
    #[serde(rename = "tls.key")]
    key: Option<ByteString>,
}

/// Certificates for connections to a host.
#[derive(Clone, Debug, PartialEq)]
pub struct Certificates {
    pub authorities: Option<Authorities>,
    pub identity: Option<Identity>,
}

/// A Secret that was read.
pub struct Material {
    /// UID and resourceVersion: equal for what was not changed in between.
    version: (Option<String>, Option<String>),
    pub grant: Grant,
    authorization: Result<HeaderValue, Problem>,
    certificates: Result<Certificates, Problem>,
    /// About how much memory it takes.
    pub bytes: usize,
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material").field("grant", &self.grant).finish_non_exhaustive()
    }
}

impl Material {
    pub fn of(secret: Wire) -> Self {
        let Wire { metadata, data } = secret;
        let data = data.unwrap_or_default();
        let (authorization, certificates) = (authorization(&data), certificates(&data));
        // Of what cannot be used nothing is kept.
        let header = authorization.as_ref().map_or(0, HeaderValue::len);
        let pem = [&data.ca, &data.certificate, &data.key].into_iter().flatten().map(|value| value.0.len());
        let bytes = header + certificates.as_ref().map_or(0, |_| pem.sum());
        Self {
            version: (metadata.uid, metadata.resource_version),
            grant: Grant::of(&metadata.annotations.unwrap_or_default()),
            authorization,
            certificates,
            bytes,
        }
    }

    /// Whether it is the same object in the same state.
    pub fn is_same(&self, other: &Self) -> bool {
        self.version == other.version
    }

    /// What is sent as Authorization.
    pub fn authorization(&self) -> Result<&HeaderValue, Problem> {
        self.authorization.as_ref().map_err(|problem| *problem)
    }

    /// Whom to trust, and as whom to appear.
    pub fn certificates(&self) -> Result<&Certificates, Problem> {
        self.certificates.as_ref().map_err(|problem| *problem)
    }
}

fn authorization(data: &Data) -> Result<HeaderValue, Problem> {
    let text = match (&data.token, &data.username, &data.password) {
        (Some(token), ..) => format!("Bearer {}", token_text(&token.0)?),
        (None, Some(username), Some(password)) => {
            let (username, password) = (plain_text(&username.0)?, plain_text(&password.0)?);
            if username.is_empty() {
                return Err(Problem::Empty);
            }
            if username.contains(':') {
                return Err(Problem::Colon);
            }
            format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{password}")))
        }
        _ => return Err(Problem::LacksKey),
    };
    let mut value = HeaderValue::try_from(text).map_err(|_| Problem::Character)?;
    value.set_sensitive(true);
    Ok(value)
}

/// A token is sent as it is, so it has to be one word of visible ASCII.
fn token_text(bytes: &[u8]) -> Result<&str, Problem> {
    let text = plain_text(bytes)?;
    if text.is_empty() {
        return Err(Problem::Empty);
    }
    if text.bytes().all(|byte| byte.is_ascii_graphic()) { Ok(text) } else { Err(Problem::Character) }
}

fn plain_text(bytes: &[u8]) -> Result<&str, Problem> {
    if bytes.len() > VALUE_MAX {
        return Err(Problem::TooLong);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Problem::NotText)?;
    if text.contains(char::is_control) { Err(Problem::Character) } else { Ok(text) }
}

fn certificates(data: &Data) -> Result<Certificates, Problem> {
    // An issuer without an authority of its own leaves an empty ca.crt.
    let value = |value: &'_ Option<ByteString>| value.clone().filter(|value| !value.0.is_empty());
    let (ca, certificate, key) = (value(&data.ca), value(&data.certificate), value(&data.key));
    if [&ca, &certificate, &key].into_iter().flatten().any(|value| value.0.len() > PEM_MAX) {
        return Err(Problem::TooLong);
    }
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => {
            Some(Identity::from_pem(&certificate.0, &key.0).map_err(|error| match error {
                TlsMaterialError::Mismatch => Problem::KeyMismatch,
                _ => Problem::Identity,
            })?)
        }
        (None, None) => None,
        // Half a pair is a mistake, not a wish to stay anonymous.
        _ => return Err(Problem::LacksKey),
    };
    let authorities = ca.map(|ca| Authorities::from_pem(&ca.0)).transpose();
    let authorities = authorities.map_err(|_| Problem::Authorities)?;
    if authorities.is_none() && identity.is_none() {
        return Err(Problem::LacksKey);
    }
    Ok(Certificates { authorities, identity })
}

#[cfg(test)]
#[path = "material_tests.rs"]
mod tests;
