//! The Secrets that a spec names, parsed once: no name of these leads out of the object's own namespace. Pure.

use crate::{api::ollama_server::LocalRef, probe::credential::Names};

/// Longest name of an object.
const NAME_MAX: usize = 253;

/// The Secrets that are used for one host or agent, by name, in the namespace of the object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    pub secret: Option<String>,
    pub certificates: Option<String>,
}

/// A reference that names no object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}.name must be the name of a Secret in this namespace: lower case letters, digits, dots and dashes"
)]
pub struct NoName(&'static str);

impl References {
    pub fn parse(secret: Option<&LocalRef>, certificates: Option<&LocalRef>) -> Result<Self, NoName> {
        let name = |reference: Option<&LocalRef>, field| {
            reference.map(|reference| checked(&reference.name).ok_or(NoName(field))).transpose()
        };
        Ok(Self { secret: name(secret, "secretRef")?, certificates: name(certificates, "certSecretRef")? })
    }

    /// For messages.
    pub fn names(&self) -> Names<'_> {
        Names { authorization: self.secret.as_deref(), certificates: self.certificates.as_deref() }
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The schema says the same; but names become a part of a path, and `../` would lead out of the namespace.
fn checked(name: &str) -> Option<String> {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (name.len() <= NAME_MAX && name.split('.').all(label)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("s", true)]
    #[case("gpu1-token.v2", true)]
    #[case("", false)]
    #[case("..", false)]
    #[case("../../other/secrets/s", false)]
    #[case("other/s", false)]
    #[case("s?x=y", false)]
    #[case("s%2f", false)]
    #[case("-s", false)]
    #[case("S", false)]
    #[case("a..b", false)]
    fn names_stay_in_their_namespace(#[case] name: &str, #[case] is_one: bool) {
        let reference = LocalRef { name: name.to_owned() };
        let both = [(Some(&reference), None), (None, Some(&reference))];
        for (secret, certificates) in both {
            assert_eq!(References::parse(secret, certificates).is_ok(), is_one);
        }
    }
}
