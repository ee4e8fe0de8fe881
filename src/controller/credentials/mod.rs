//! Credentials for hosts and agents, from Secrets of the object's own namespace.
//!
//! ```text
//! References ─▶ Store (one GET by name, kept a minute) ─▶ Material + Grant (pure) ─▶ Credentials, or why there are none
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `references` | the names that a spec has; pure |
//! | `read` | the GET |
//! | `store` | what was read, and when it is read again |
//! | `kept` | how much of that stays, by namespace; pure |
//! | `grant` | the annotations: which hosts a Secret may be used for; pure |
//! | `material` | the values: header and certificates; pure |
//!
//! Nothing here dials a host. Without credentials that may be used, its caller must not either.

mod grant;
mod kept;
mod material;
mod read;
mod references;
mod store;

pub use material::Certificates;
pub use references::{NoName, References};

use crate::{
    api::endpoint::Endpoint,
    metrics::Metrics,
    probe::{
        credential::{NoCredential, Problem, Role},
        tls::TlsSettings,
    },
};
use grant::Grant;
use hyper::header::HeaderValue;
use kube::Client;
use material::Material;
use std::sync::Arc;
use store::{Known, Need, Refusal, Store};

/// What a host or agent is asked with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Credentials {
    /// Sent as Authorization.
    pub authorization: Option<HeaderValue>,
    pub certificates: Option<Certificates>,
}

impl Credentials {
    /// The settings of a connection with these certificates.
    pub fn secure(&self, settings: &TlsSettings) -> TlsSettings {
        let Some(Certificates { authorities, identity }) = self.certificates.clone() else {
            return settings.clone();
        };
        TlsSettings { authorities, identity, ..settings.clone() }
    }
}

/// Where credentials are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub endpoint: &'a Endpoint,
    /// Whether the certificate there is checked, if it has one.
    pub checked: bool,
}

/// Why there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unobtained {
    /// A person has to change something.
    Refused(NoCredential),
    /// The API server cannot be asked, and nothing is known.
    Away,
}

/// What became of credentials that were not taken.
#[derive(Clone, Debug, PartialEq)]
pub enum Renewal {
    /// They are still the same, as far as anybody can tell.
    Same,
    New(Credentials),
    /// They may not be used any more, or are gone.
    Refused(NoCredential),
}

/// The credentials of all servers and plugins.
pub struct Secrets(Store);

impl Secrets {
    pub fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        Self(Store::new(move |key| Box::pin(read::get(client.clone(), key)), metrics))
    }

    /// The credentials for an endpoint. A Secret that cannot be used is looked at again, as somebody may be mending it.
    pub async fn obtain(
        &self,
        namespace: &str,
        references: &References,
        place: Place<'_>,
    ) -> Result<Credentials, Unobtained> {
        self.all(namespace, references, place, Need::Usual).await
    }

    /// The same after the endpoint did not take those that were used: they may have been changed since they were read.
    pub async fn renew(
        &self,
        namespace: &str,
        references: &References,
        place: Place<'_>,
        used: &Credentials,
    ) -> Renewal {
        match self.all(namespace, references, place, Need::Pressing).await {
            Ok(credentials) if credentials != *used => Renewal::New(credentials),
            Ok(_) | Err(Unobtained::Away) => Renewal::Same,
            Err(Unobtained::Refused(cause)) => Renewal::Refused(cause),
        }
    }

    async fn all(
        &self,
        namespace: &str,
        references: &References,
        place: Place<'_>,
        need: Need,
    ) -> Result<Credentials, Unobtained> {
        let mut credentials = Credentials::default();
        let mut lacking = NoCredential::default();
        if let Some(name) = &references.secret {
            let key = (namespace.to_owned(), name.clone());
            let value = |material: &Material| material.authorization().cloned();
            match self.one(&key, Role::Authorization, place, need, value).await? {
                Ok(value) => credentials.authorization = Some(value),
                Err(cause) => lacking = cause,
            }
        }
        if let Some(name) = &references.certificates {
            let key = (namespace.to_owned(), name.clone());
            let value = |material: &Material| material.certificates().cloned();
            match self.one(&key, Role::Certificates, place, need, value).await? {
                Ok(value) => credentials.certificates = Some(value),
                Err(cause) => lacking = lacking.and(cause),
            }
        }
        if lacking == NoCredential::default() { Ok(credentials) } else { Err(Unobtained::Refused(lacking)) }
    }

    /// A value of a Secret, or all that is wrong with it.
    async fn one<T>(
        &self,
        key: &store::Key,
        role: Role,
        place: Place<'_>,
        need: Need,
        value: impl Fn(&Material) -> Result<T, Problem>,
    ) -> Result<Result<T, NoCredential>, Unobtained> {
        // Certificates are shown and not given away, so whoever answers cannot use them elsewhere.
        let checked = place.checked || role == Role::Certificates;
        let judge = |known: &Known| {
            let material = match &known.word {
                Ok(material) => material,
                Err(refusal) => {
                    // What nobody has seen has to have everything.
                    let lacks = Grant::default().check(place.endpoint, checked).with(Problem::LacksKey);
                    return Err(lacks.with(match refusal {
                        Refusal::Missing => Problem::Missing,
                        Refusal::Forbidden => Problem::Forbidden,
                    }));
                }
            };
            let lacks = material.grant.check(place.endpoint, checked);
            match value(material) {
                Ok(value) if lacks.is_empty() => Ok(value),
                Ok(_) => Err(lacks),
                Err(problem) => Err(lacks.with(problem)),
            }
        };
        let known = self.0.read(key, need).await.ok_or(Unobtained::Away)?;
        let mut judged = judge(&known);
        if judged.is_err() && !known.fresh && need == Need::Usual {
            let known = self.0.read(key, Need::Pressing).await.ok_or(Unobtained::Away)?;
            judged = judge(&known);
        }
        Ok(judged.map_err(|problems| NoCredential::of(role, problems)))
    }
}
