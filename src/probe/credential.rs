//! Why nothing was asked for want of credentials: all that is wrong with the Secrets at once, so that nobody mends one fault
//! to be told of the next. The words are fixed, but for the name of the Secret, which stands in the spec; they have never
//! a key's content or a byte of a Secret.
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

    /// In which turn they are mended: without the Secret nothing else can be.
    fn turn(self) -> u8 {
        match self {
            Self::Missing => 0,
            Self::Forbidden => 1,
            Self::LacksKey => 3,
            _ if self.reason() == "SecretNotAllowed" => 2,
            _ => 4,
        }
    }

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

/// Several of them, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Problems(u32);

impl Problems {
    pub const NONE: Self = Self(0);

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub fn with(self, problem: Problem) -> Self {
        Self(self.0 | 1 << problem as u32)
    }

    pub fn has(self, problem: Problem) -> bool {
        self.0 & (1 << problem as u32) != 0
    }

    pub fn iter(self) -> impl Iterator<Item = Problem> {
        Problem::ALL.into_iter().filter(move |problem| self.has(*problem))
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self::default().with(problem)
    }
}

impl FromIterator<Problem> for Problems {
    fn from_iter<I: IntoIterator<Item = Problem>>(problems: I) -> Self {
        problems.into_iter().fold(Self::default(), Self::with)
    }
}

/// Nothing was asked, because the credentials for it could not be had: what is wrong with the Secret of each reference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoCredential {
    pub authorization: Problems,
    pub certificates: Problems,
}

/// The names of the Secrets, as the spec has them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Names<'a> {
    pub authorization: Option<&'a str>,
    pub certificates: Option<&'a str>,
}

/// Longest name of a Secret in a message about an agent, of which the schema keeps 256 characters.
const NAME_MAX: usize = 24;
/// As the schema bounds messages in `status.plugins`.
const AGENT_TEXT_MAX: usize = 256;

/// What the message about an absent or unreadable Secret begins with, after the name.
const MISSING: &str = " is not in this namespace; create it with ";
const FORBIDDEN: &str = " may not be read: ";

impl Problem {
    /// What is wrong, as said of a Secret that is there.
    fn clause(self, role: Role) -> &'static str {
        match (self, role) {
            (Self::Missing | Self::Forbidden, _) => "",
            (Self::LacksKey, Role::Authorization) => "lacks the key token, or username and password",
            (Self::LacksKey, Role::Certificates) => "lacks the key ca.crt, or tls.crt and tls.key",
            (Self::NotGranted, _) => "lacks the annotation ollama-fleet.io/hosts that names this host",
            (Self::OtherHost, _) => "does not name this host in its annotation ollama-fleet.io/hosts",
            (Self::UnreadableGrant, _) => {
                "does not name this host in its annotation ollama-fleet.io/hosts, and has entries there that are no name, no *.name, no address and no network, or more than 64"
            }
            (Self::PlainHttp, _) => "lacks the annotation ollama-fleet.io/plain-http: \"true\" (no TLS)",
            (Self::Unverified, _) => {
                "lacks the annotation ollama-fleet.io/plain-http: \"true\" (insecureSkipVerify)"
            }
            (Self::NotText, _) => "has a value that is not UTF-8 text (encoded twice?)",
            (Self::Character, _) => {
                "has a value with a line break or another character that no header can carry (`echo` adds one, `printf %s` does not)"
            }
            (Self::Empty, _) => "has an empty token or username",
            (Self::TooLong, _) => {
                "has a value that is too long: at most 8 KiB for token, username and password, 256 KiB for the others"
            }
            (Self::Colon, _) => "has a username with a colon, which Basic authentication cannot carry",
            (Self::Authorities, _) => {
                "has a ca.crt that is not one or more certificates in PEM that can be read"
            }
            (Self::Identity, _) => {
                "has a tls.crt and tls.key that are not a certificate and a private key in PEM, without a passphrase"
            }
            (Self::KeyMismatch, _) => "has a tls.key that is not the key of the first certificate in tls.crt",
        }
    }

    /// What a Secret has to have, as said of one that nobody has seen.
    fn need(self, role: Role) -> Option<&'static str> {
        match (self, role) {
            (Self::LacksKey, Role::Authorization) => Some("token, or username and password"),
            (Self::LacksKey, Role::Certificates) => Some("ca.crt, or tls.crt and tls.key"),
            (Self::NotGranted, _) => Some("ollama-fleet.io/hosts that names this host"),
            (Self::PlainHttp, _) => Some("ollama-fleet.io/plain-http: \"true\" (no TLS)"),
            (Self::Unverified, _) => Some("ollama-fleet.io/plain-http: \"true\" (insecureSkipVerify)"),
            _ => None,
        }
    }
}

impl NoCredential {
    pub fn of(role: Role, problems: impl Into<Problems>) -> Self {
        let problems = problems.into();
        match role {
            Role::Authorization => Self { authorization: problems, ..Self::default() },
            Role::Certificates => Self { certificates: problems, ..Self::default() },
        }
    }

    /// What is wrong with both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let both = |one: Problems, two: Problems| Problems(one.0 | two.0);
        Self {
            authorization: both(self.authorization, other.authorization),
            certificates: both(self.certificates, other.certificates),
        }
    }

    fn parts(self) -> [(Role, Problems); 2] {
        [(Role::Authorization, self.authorization), (Role::Certificates, self.certificates)]
    }

    /// The reason of what has to be mended first.
    pub fn reason(self) -> &'static str {
        let first = |(_, problems): (Role, Problems)| problems.iter().min_by_key(|problem| problem.turn());
        self.parts().into_iter().find_map(first).unwrap_or(Problem::Missing).reason()
    }

    /// All that is wrong, in words about a server.
    pub fn text(self, names: Names<'_>) -> String {
        let forbidden = "add this namespace to the chart's secretNamespaces, or bind its ClusterRole …-secret-reader here by a RoleBinding; it needs ";
        self.written("", names, usize::MAX, forbidden)
    }

    /// The same about an agent, whose references stand in its plugin.
    pub fn agent_text(self, names: Names<'_>) -> String {
        let forbidden = "it needs a RoleBinding to …-secret-reader, ";
        let text = self.written("agent.", names, NAME_MAX, forbidden);
        if text.chars().count() <= AGENT_TEXT_MAX {
            return text;
        }
        text.chars().take(AGENT_TEXT_MAX - 1).chain(['…']).collect()
    }

    fn written(self, prefix: &str, names: Names<'_>, name_max: usize, forbidden: &str) -> String {
        let of_role = |(role, problems): (Role, Problems)| {
            let (field, name) = match role {
                Role::Authorization => ("secretRef", names.authorization),
                Role::Certificates => ("certSecretRef", names.certificates),
            };
            let name = short(name.unwrap_or("of that name"), name_max);
            let needs = || {
                let needs: Vec<_> = problems.iter().filter_map(|problem| problem.need(role)).collect();
                needs.join("; ")
            };
            let rest = if problems.has(Problem::Missing) {
                format!("{MISSING}{}", needs())
            } else if problems.has(Problem::Forbidden) {
                format!("{FORBIDDEN}{forbidden}{}", needs())
            } else {
                let clauses: Vec<_> = problems.iter().map(|problem| problem.clause(role)).collect();
                format!(" {}", clauses.join("; "))
            };
            format!("{prefix}{field}: Secret {name}{rest}")
        };
        let parts: Vec<_> =
            self.parts().into_iter().filter(|(_, problems)| !problems.is_empty()).map(of_role).collect();
        parts.join("; ")
    }

    /// What was wrong, out of the words about it, as they stand in a status. `None`: these are other words.
    pub fn from_text(text: &str) -> Option<Self> {
        let text = text.strip_prefix("agent.").unwrap_or(text);
        // Neither a name nor any of the words has a colon behind this one.
        let (authorization, certificates) = match text.find("certSecretRef: ") {
            Some(at) => (&text[..at], &text[at..]),
            None => (text, ""),
        };
        if !authorization.is_empty() && !authorization.starts_with("secretRef: ") {
            return None;
        }
        let found = Self {
            authorization: problems_in(authorization, Role::Authorization),
            certificates: problems_in(certificates, Role::Certificates),
        };
        (found != Self::default()).then_some(found)
    }

    /// What a report may mean that has a reason, and words of another version.
    pub fn of_reason(reason: &str) -> Option<Self> {
        let problem = Problem::ALL.into_iter().find(|problem| problem.reason() == reason)?;
        Some(Self::of(Role::Authorization, problem))
    }

    /// Causes of every kind, for tests of what is read and told.
    pub fn all() -> impl Iterator<Item = Self> + Clone {
        let of = |role| Problem::ALL.into_iter().map(move |problem| Self::of(role, problem));
        of(Role::Authorization).chain(of(Role::Certificates))
    }
}

fn problems_in(text: &str, role: Role) -> Problems {
    let said = |phrase: &str| text.contains(phrase);
    for (phrase, problem) in [(MISSING, Problem::Missing), (FORBIDDEN, Problem::Forbidden)] {
        if said(phrase) {
            let needs = Problem::ALL.into_iter().filter(|problem| problem.need(role).is_some_and(said));
            return needs.chain([problem]).collect();
        }
    }
    let clauses = Problem::ALL.into_iter().filter(|problem| {
        let clause = problem.clause(role);
        !clause.is_empty() && said(clause)
    });
    let found: Problems = clauses.collect();
    // Its words begin with those of the other.
    if found.has(Problem::UnreadableGrant) {
        return found.iter().filter(|problem| *problem != Problem::OtherHost).collect();
    }
    found
}

fn short(name: &str, max: usize) -> String {
    if name.len() <= max {
        return name.to_owned();
    }
    name.chars().take(max - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    const NAMES: Names<'_> = Names { authorization: Some("gpu-token"), certificates: Some("gpu-tls") };

    fn problems(of: &[Problem]) -> Problems {
        of.iter().copied().collect()
    }

    #[rstest]
    #[case::all_that_it_lacks(
        &[Problem::LacksKey, Problem::NotGranted, Problem::PlainHttp],
        "secretRef: Secret gpu-token lacks the key token, or username and password; lacks the annotation ollama-fleet.io/hosts that names this host; lacks the annotation ollama-fleet.io/plain-http: \"true\" (no TLS)"
    )]
    #[case::not_there(
        &[Problem::Missing, Problem::LacksKey, Problem::NotGranted, Problem::PlainHttp],
        "secretRef: Secret gpu-token is not in this namespace; create it with token, or username and password; ollama-fleet.io/hosts that names this host; ollama-fleet.io/plain-http: \"true\" (no TLS)"
    )]
    #[case::unreadable(
        &[Problem::Forbidden, Problem::LacksKey, Problem::NotGranted],
        "secretRef: Secret gpu-token may not be read: add this namespace to the chart's secretNamespaces, or bind its ClusterRole …-secret-reader here by a RoleBinding; it needs token, or username and password; ollama-fleet.io/hosts that names this host"
    )]
    fn all_that_is_wrong_is_said_at_once(#[case] of: &[Problem], #[case] text: &str) {
        assert_eq!(NoCredential::of(Role::Authorization, problems(of)).text(NAMES), text);
    }

    #[rstest]
    #[case(&[Problem::LacksKey, Problem::Forbidden], "SecretForbidden")]
    #[case(&[Problem::LacksKey, Problem::NotGranted, Problem::Missing], "SecretNotFound")]
    #[case(&[Problem::LacksKey, Problem::NotGranted], "SecretNotAllowed")]
    #[case(&[Problem::LacksKey], "SecretNotFound")]
    #[case(&[Problem::Character, Problem::PlainHttp], "SecretNotAllowed")]
    fn the_reason_is_that_of_what_has_to_be_mended_first(#[case] of: &[Problem], #[case] reason: &str) {
        assert_eq!(NoCredential::of(Role::Certificates, problems(of)).reason(), reason);
    }

    /// What one Secret can come to: it cannot be had, or it is granted or not, and holds what it should or not.
    fn wrong() -> impl Strategy<Value = Problems> {
        use Problem as P;
        let grants = [P::NotGranted, P::OtherHost, P::UnreadableGrant];
        let plain = prop::option::of(prop::sample::select(vec![P::PlainHttp, P::Unverified]));
        let rest = [
            P::LacksKey,
            P::NotText,
            P::Character,
            P::Empty,
            P::TooLong,
            P::Colon,
            P::Authorities,
            P::Identity,
            P::KeyMismatch,
        ];
        let seen = (
            prop::option::of(prop::sample::select(grants.to_vec())),
            plain.clone(),
            prop::option::of(prop::sample::select(rest.to_vec())),
        )
            .prop_map(|(grant, plain, rest)| grant.into_iter().chain(plain).chain(rest).collect());
        let unseen = (prop::sample::select(vec![P::Missing, P::Forbidden]), plain)
            .prop_map(|(why, plain)| [why, P::LacksKey, P::NotGranted].into_iter().chain(plain).collect());
        prop_oneof![seen, unseen]
    }

    proptest! {
        /// A restart of the operator, which has only the words, makes nothing else of it.
        #[test]
        fn what_was_said_is_what_is_read(authorization in wrong(), certificates in wrong(), long: bool) {
            let cause = NoCredential { authorization, certificates };
            let name = "a".repeat(253);
            let names = if long { Names { authorization: Some(&name), certificates: Some(&name) } } else { NAMES };
            let expected = Some(cause).filter(|cause| *cause != NoCredential::default());
            prop_assert_eq!(NoCredential::from_text(&cause.text(names)), expected);
            let agent = cause.agent_text(names);
            prop_assert!(agent.chars().count() <= AGENT_TEXT_MAX);
            if !agent.ends_with('…') {
                prop_assert_eq!(NoCredential::from_text(&agent), expected);
            }
        }

        /// All that one Secret of an agent lacks fits, whatever its name.
        #[test]
        fn what_the_secret_of_an_agent_lacks_is_whole(wrong in wrong(), name in "[a-z]{1,253}") {
            use Problem as P;
            let lacks = [P::Missing, P::Forbidden, P::LacksKey, P::NotGranted, P::OtherHost, P::PlainHttp, P::Unverified];
            let lacks: Problems = lacks.into_iter().filter(|problem| wrong.has(*problem)).collect();
            for role in [Role::Authorization, Role::Certificates] {
                let names = Names { authorization: Some(&name), certificates: Some(&name) };
                let text = NoCredential::of(role, lacks).agent_text(names);
                prop_assert!(text.chars().count() <= AGENT_TEXT_MAX && !text.ends_with('…'), "{}", text);
                prop_assert!(NoCredential::from_text(&text).is_none_or(|read| read == NoCredential::of(role, lacks)), "{}", text);
            }
        }

        #[test]
        fn other_words_are_nothing(text in ".{0,80}") {
            let _ = NoCredential::from_text(&text);
            prop_assert_eq!(NoCredential::from_text("the address is refused"), None);
        }
    }
}
