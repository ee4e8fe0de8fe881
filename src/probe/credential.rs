//! Why nothing was asked for want of credentials. Each cause has a fixed text that says what to do; never a name, a key's
//! content or a byte of a Secret.
//!
//! Only words. What a Secret may be used for is decided where it is read.

/// Which reference of a spec the Secret is named in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `secretRef`: what is sent.
    Authorization,
    /// `certSecretRef`: whom to trust, and who one is.
    Certificates,
}

/// What is wrong with a Secret, or with the right to use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Problem {
    Missing,
    LacksKey,
    Forbidden,
    /// It lacks the annotation that lets it be used.
    NotGranted,
    /// The annotation names other hosts.
    OtherHost,
    /// The annotation names other hosts, or has entries that are none.
    UnreadableGrant,
    PlainHttp,
    /// The host's certificate is not checked.
    Unverified,
    NotText,
    /// A line break, or another character that no header can carry.
    Character,
    Empty,
    TooLong,
    Colon,
    Authorities,
    Identity,
    KeyMismatch,
}

impl Problem {
    pub const ALL: [Self; 16] = [
        Self::Missing,
        Self::LacksKey,
        Self::Forbidden,
        Self::NotGranted,
        Self::OtherHost,
        Self::UnreadableGrant,
        Self::PlainHttp,
        Self::Unverified,
        Self::NotText,
        Self::Character,
        Self::Empty,
        Self::TooLong,
        Self::Colon,
        Self::Authorities,
        Self::Identity,
        Self::KeyMismatch,
    ];

    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing | Self::LacksKey => "SecretNotFound",
            Self::Forbidden => "SecretForbidden",
            Self::NotGranted
            | Self::OtherHost
            | Self::UnreadableGrant
            | Self::PlainHttp
            | Self::Unverified => "SecretNotAllowed",
            Self::NotText
            | Self::Character
            | Self::Empty
            | Self::TooLong
            | Self::Colon
            | Self::Authorities
            | Self::Identity
            | Self::KeyMismatch => "InvalidSpec",
        }
    }
}

/// Nothing was asked, because the credentials for it could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoCredential {
    pub role: Role,
    pub problem: Problem,
}

/// The text about a Secret that `$field` names.
macro_rules! text {
    ($field:literal, $keys:literal, $problem:expr) => {
        match $problem {
            Problem::Missing => {
                concat!($field, ": there is no Secret of that name in this namespace; create it")
            }
            Problem::LacksKey => concat!($field, ": the Secret lacks a key; it needs ", $keys),
            Problem::Forbidden => concat!(
                $field,
                ": the operator may not read Secrets of this namespace; add the namespace to the chart's secretNamespaces, or bind its ClusterRole …-secret-reader here with a RoleBinding"
            ),
            Problem::NotGranted => concat!(
                $field,
                ": the Secret lacks the annotation ollama-fleet.io/hosts, which names the hosts that it is for, for example gpu1.lab, *.lab or 192.168.1.0/24"
            ),
            Problem::OtherHost => concat!(
                $field,
                ": the Secret's annotation ollama-fleet.io/hosts does not name this host; names match names, and addresses match addresses and networks"
            ),
            Problem::UnreadableGrant => concat!(
                $field,
                ": the Secret's annotation ollama-fleet.io/hosts does not name this host, and has entries that are no name, no *.name, no address and no network, or more than 64; write for example gpu1.lab, *.lab, 192.168.1.0/24"
            ),
            Problem::PlainHttp => concat!(
                $field,
                ": credentials are not sent over plain HTTP; use https://, or add the annotation ollama-fleet.io/plain-http: \"true\" to the Secret"
            ),
            Problem::Unverified => concat!(
                $field,
                ": credentials are not sent where insecureSkipVerify is on; put the authority's certificate as ca.crt into the Secret of certSecretRef, or add the annotation ollama-fleet.io/plain-http: \"true\" to the Secret"
            ),
            Problem::NotText => {
                concat!($field, ": a value in the Secret is not UTF-8 text; is it encoded twice?")
            }
            Problem::Character => concat!(
                $field,
                ": a value in the Secret has a line break or another character that no header can carry; `echo` adds a line break, `printf %s` does not"
            ),
            Problem::Empty => concat!($field, ": token or username is empty in the Secret"),
            Problem::TooLong => concat!(
                $field,
                ": a value in the Secret is too long; at most 8 KiB for token, username and password, 256 KiB for the others"
            ),
            Problem::Colon => {
                concat!($field, ": username has a colon, which Basic authentication cannot carry")
            }
            Problem::Authorities => {
                concat!($field, ": ca.crt in the Secret is not one or more certificates in PEM that can be read")
            }
            Problem::Identity => concat!(
                $field,
                ": tls.crt and tls.key in the Secret are not a certificate and a private key in PEM that can be used, without a passphrase"
            ),
            Problem::KeyMismatch => {
                concat!($field, ": tls.key in the Secret is not the key of the first certificate in tls.crt")
            }
        }
    };
}

impl NoCredential {
    /// Every cause, for reading reports.
    pub fn all() -> impl Iterator<Item = Self> + Clone {
        let of = |role| Problem::ALL.into_iter().map(move |problem| Self { role, problem });
        of(Role::Authorization).chain(of(Role::Certificates))
    }

    pub fn reason(self) -> &'static str {
        self.problem.reason()
    }

    /// The cause in words about a server.
    pub fn text(self) -> &'static str {
        match self.role {
            Role::Authorization => text!("secretRef", "token, or username and password", self.problem),
            Role::Certificates => text!("certSecretRef", "ca.crt, or tls.crt and tls.key", self.problem),
        }
    }

    /// The same about an agent, whose references stand in its plugin.
    pub fn agent_text(self) -> &'static str {
        match self.role {
            Role::Authorization => text!("agent.secretRef", "token, or username and password", self.problem),
            Role::Certificates => {
                text!("agent.certSecretRef", "ca.crt, or tls.crt and tls.key", self.problem)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_cause_has_a_text_of_its_own_that_fits_into_a_report() {
        let texts: BTreeSet<&str> =
            NoCredential::all().flat_map(|cause| [cause.text(), cause.agent_text()]).collect();
        assert_eq!(texts.len(), 4 * Problem::ALL.len());
        // As the schema bounds messages in status.plugins.
        assert!(texts.iter().all(|text| text.len() <= 256), "{texts:?}");
    }
}
