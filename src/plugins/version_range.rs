//! Ranges of versions as npm writes them, by which plugins say what they depend on. Pure.
//!
//! The operators are `^ ~ > >= < <= =`, a space means "and", `||` means "or", `1.2 - 2.3` spans, `x`, `X` or `*` stand for
//! any number, and a missing number is an `x`. A pre-release matches only beside a comparator that names a pre-release of
//! the same three numbers. What is none of this is refused, never guessed, and so are forms that npm reads as something
//! else than they seem: nothing at all as any version, `~>`, and build metadata or a pre-release after an `x`.
//!
//! The matching is our own: of the two crates that read npm's ranges, nodejs-semver 7.0 takes `>1.2 <1` for any version
//! and is wrong about 752 of the 2573 ranges of the table below, node-semver 2.2 about 987, and putting that right would
//! be more than this file. `tests/fixtures/npm-ranges/table.json` is what npm itself says.

use semver::{BuildMetadata, Prerelease, Version};
use std::{cmp::Ordering, fmt};

/// Longest range in bytes. Three alternatives of two full versions with pre-releases are about 100.
const LENGTH_MAX: usize = 128;
/// Comparators that a range comes to; `^1.2` and a span come to two. Nobody writes that many, and each takes its time.
const COMPARATORS_MAX: usize = 16;
/// Digits of a number, so that one more than it is exact here as well as in npm, where 2^53 is the end.
const DIGITS_MAX: usize = 15;

/// What the API server can check by itself, in RE2: it matches every range that is accepted, and most texts that are none
/// are refused by it.
pub const RANGE_PATTERN: &str =
    r"^((^| | +- | *\|\|) *([<>]?=?|[~^]) *v?(\d+|[xX*])(\.(\d+|[xX*])){0,2}([-+][\w.+-]+)?)+ *$";

/// Why a text is no range; the message says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    #[error("the range has {0} bytes; write at most {LENGTH_MAX}")]
    TooLong(usize),
    #[error("the range comes to more than {COMPARATORS_MAX} comparisons; write a shorter one")]
    TooMany,
    #[error("there is no range; write `*` for any version")]
    Empty,
    #[error("a side of `||` is empty; write a range on both sides, or `*` for any version")]
    EmptySide,
    #[error(
        "{0:?} is not part of a range; write a space for \"and\" and `||` for \"or\", as in `>=1.2 <2 || ^3.1`"
    )]
    Joint(char),
    #[error("{0:?} cannot stand in a range; write operators, numbers and spaces only, as in `>=1.2 <2`")]
    Character(char),
    #[error(
        "a span is two versions with spaces around the hyphen and nothing else beside it; write `1.2 - 2.3`"
    )]
    Span,
    #[error("there is no version after `{0}`; write such as `{0}1.2`")]
    NoVersion(&'static str),
    #[error("{0:?} is not a version or part of one; write numbers as in `1.2.3`, `1.2` or `1.x`")]
    NoNumber(String),
    #[error(
        "{0:?} has a number with a zero in front or of more than {DIGITS_MAX} digits; write a plain number"
    )]
    Number(String),
    #[error("{0:?} has a number after an `x`; write such as `1.x`")]
    AfterAny(String),
    #[error("{0:?} has a pre-release or build metadata, but not three numbers; write such as `1.2.3-rc.1`")]
    PartialSuffix(String),
    #[error("{0:?} has a malformed pre-release or build metadata; write such as `1.2.3-rc.1`")]
    Suffix(String),
}

/// A range, read and ready to be matched.
#[derive(Clone, Debug)]
pub struct VersionRange {
    text: String,
    /// One of them has to match.
    sides: Vec<Side>,
}

/// Comparators that all have to match; without any, every version that is no pre-release does.
type Side = Vec<Comparator>;

/// `major`, `minor` and `patch`.
type Numbers = (u64, u64, u64);

#[derive(Clone, Debug)]
enum Comparator {
    /// How the version has to compare with this one: as the first or as the second.
    Ordered(Ordering, Ordering, Version),
    /// Below the numbers and their pre-releases too: npm's `<2.0.0-0`.
    Below(Numbers),
}

/// What stands before a version.
#[derive(Clone, Copy)]
enum Operator {
    Exactly,
    Caret,
    Tilde,
    More,
    AtLeast,
    Less,
    AtMost,
}

/// The longer ones come first.
const OPERATORS: [(&str, Operator); 7] = [
    (">=", Operator::AtLeast),
    ("<=", Operator::AtMost),
    (">", Operator::More),
    ("<", Operator::Less),
    ("=", Operator::Exactly),
    ("^", Operator::Caret),
    ("~", Operator::Tilde),
];

/// A version of which numbers may be missing, from the right.
enum Partial {
    Any,
    Major(u64),
    Minor(u64, u64),
    Full(Version),
}

impl VersionRange {
    pub fn parse(text: &str) -> Result<Self, RangeError> {
        if text.len() > LENGTH_MAX {
            return Err(RangeError::TooLong(text.len()));
        }
        if text.trim_matches(' ').is_empty() {
            return Err(RangeError::Empty);
        }
        check_characters(text)?;
        let mut sides = text.split("||").map(side).collect::<Result<Vec<Side>, _>>()?;
        if sides.iter().map(Vec::len).sum::<usize>() > COMPARATORS_MAX || sides.len() > COMPARATORS_MAX {
            return Err(RangeError::TooMany);
        }
        // As npm has it: any version "or" a pre-release is any version, which is no pre-release.
        if sides.iter().any(Vec::is_empty) {
            sides = vec![Side::new()];
        }
        Ok(Self { text: text.to_owned(), sides })
    }

    /// Build metadata never counts.
    pub fn matches(&self, version: &Version) -> bool {
        self.sides.iter().any(|side| {
            side.iter().all(|comparator| comparator.matches(version))
                && (version.pre.is_empty()
                    || side.iter().any(|comparator| comparator.names_pre_release_of(version)))
        })
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Comparator {
    fn matches(&self, version: &Version) -> bool {
        match self {
            Self::Ordered(one, other, bound) => {
                let order = version.cmp_precedence(bound);
                order == *one || order == *other
            }
            Self::Below(bound) => numbers(version) < *bound,
        }
    }

    fn names_pre_release_of(&self, version: &Version) -> bool {
        matches!(self, Self::Ordered(_, _, bound) if !bound.pre.is_empty() && numbers(bound) == numbers(version))
    }
}

fn numbers(version: &Version) -> Numbers {
    (version.major, version.minor, version.patch)
}

/// Characters that no range has; the usual mistakes get an answer of their own.
fn check_characters(text: &str) -> Result<(), RangeError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || " .^~<>=|*+-".contains(c);
    match text.chars().find(|c| !fits(*c)) {
        Some(joint @ (',' | ';' | '&')) => Err(RangeError::Joint(joint)),
        Some(other) => Err(RangeError::Character(other)),
        None if text.replace("||", "").contains('|') => Err(RangeError::Joint('|')),
        None => Ok(()),
    }
}

/// What stands between two `||`.
fn side(text: &str) -> Result<Side, RangeError> {
    let mut words = text.split(' ').filter(|word| !word.is_empty());
    let mut side = Side::new();
    if let [from, "-", to] = words.clone().collect::<Vec<_>>()[..] {
        // Only up to here differs a span from `>=1.2 <=2.3`.
        let bare =
            |word: &str| if operator(word).0.is_some() { Err(RangeError::Span) } else { partial(word) };
        compare(Operator::AtLeast, bare(from)?, &mut side);
        compare(Operator::AtMost, bare(to)?, &mut side);
    } else {
        let mut any = false;
        while let Some(word) = words.next() {
            any = true;
            let version = match operator(word) {
                (_, "-") => return Err(RangeError::Span),
                (Some((sign, operator)), "") => {
                    let next = words.next().ok_or(RangeError::NoVersion(sign))?;
                    (operator, next)
                }
                (found, version) => (found.map_or(Operator::Exactly, |(_, operator)| operator), version),
            };
            compare(version.0, partial(version.1)?, &mut side);
        }
        if !any {
            return Err(RangeError::EmptySide);
        }
    }
    // As npm has it: at least 0.0.0 says nothing, not even that 0.0.0-rc.1 is less.
    side.retain(|comparator| {
        !matches!(comparator, Comparator::Ordered(Ordering::Greater, Ordering::Equal, bound)
            if bound.pre.is_empty() && numbers(bound) == (0, 0, 0))
    });
    Ok(side)
}

/// The operator at the beginning of a word, and what follows it.
fn operator(word: &str) -> (Option<(&'static str, Operator)>, &str) {
    let found =
        OPERATORS.iter().find_map(|&(sign, operator)| Some(((sign, operator), word.strip_prefix(sign)?)));
    found.map_or((None, word), |(operator, rest)| (Some(operator), rest))
}

fn partial(word: &str) -> Result<Partial, RangeError> {
    let named = || word.to_owned();
    let plain = word.strip_prefix('v').unwrap_or(word);
    let (plain, build) = plain.split_once('+').map_or((plain, None), |(head, tail)| (head, Some(tail)));
    let (plain, pre) = plain.split_once('-').map_or((plain, None), |(head, tail)| (head, Some(tail)));
    let mut parts = [None; 3];
    let mut ended = false;
    for (n, part) in plain.split('.').enumerate() {
        let place = parts.get_mut(n).ok_or_else(|| RangeError::NoNumber(named()))?;
        if matches!(part, "x" | "X" | "*") {
            ended = true;
        } else if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(RangeError::NoNumber(named()));
        } else if part.len() > DIGITS_MAX || part.len() > 1 && part.starts_with('0') {
            return Err(RangeError::Number(named()));
        } else if ended {
            return Err(RangeError::AfterAny(named()));
        } else {
            *place = part.parse().ok();
        }
    }
    match parts {
        [Some(major), Some(minor), Some(patch)] => {
            let mut version = Version::new(major, minor, patch);
            version.pre = pre.map_or(Ok(Prerelease::EMPTY), |pre| suffix(pre, word, Prerelease::new))?;
            build.map_or(Ok(BuildMetadata::EMPTY), |build| suffix(build, word, BuildMetadata::new))?;
            Ok(Partial::Full(version))
        }
        _ if pre.is_some() || build.is_some() => Err(RangeError::PartialSuffix(named())),
        [Some(major), Some(minor), None] => Ok(Partial::Minor(major, minor)),
        [Some(major), ..] => Ok(Partial::Major(major)),
        [None, ..] => Ok(Partial::Any),
    }
}

fn suffix<T>(text: &str, word: &str, read: fn(&str) -> Result<T, semver::Error>) -> Result<T, RangeError> {
    let malformed = || RangeError::Suffix(word.to_owned());
    if text.is_empty() { Err(malformed()) } else { read(text).map_err(|_| malformed()) }
}

/// Adds the comparators that an operator and a version come to.
fn compare(operator: Operator, partial: Partial, side: &mut Side) {
    use Ordering::{Equal, Greater, Less};
    // The first version, and the first numbers that no longer belong to the partial version.
    let (from, next) = match partial {
        Partial::Any => {
            // Nothing is more or less than any version.
            if matches!(operator, Operator::More | Operator::Less) {
                side.push(Comparator::Below((0, 0, 0)));
            }
            return;
        }
        Partial::Major(major) => (Version::new(major, 0, 0), Some((major + 1, 0, 0))),
        Partial::Minor(major, minor) => (Version::new(major, minor, 0), Some((major, minor + 1, 0))),
        Partial::Full(version) => (version, None),
    };
    let (major, minor, patch) = numbers(&from);
    let at_least = |version| Comparator::Ordered(Greater, Equal, version);
    match (operator, next) {
        (Operator::Exactly, None) => side.push(Comparator::Ordered(Equal, Equal, from)),
        (Operator::More, None) => side.push(Comparator::Ordered(Greater, Greater, from)),
        (Operator::Less, None) => side.push(Comparator::Ordered(Less, Less, from)),
        (Operator::AtMost, None) => side.push(Comparator::Ordered(Less, Equal, from)),
        (Operator::AtLeast, _) => side.push(at_least(from)),
        (Operator::More, Some((major, minor, patch))) => {
            side.push(at_least(Version::new(major, minor, patch)));
        }
        (Operator::Less, Some(_)) => side.push(Comparator::Below((major, minor, patch))),
        (Operator::AtMost, Some(next)) => side.push(Comparator::Below(next)),
        (Operator::Exactly, Some(next)) => side.extend([at_least(from), Comparator::Below(next)]),
        (Operator::Tilde, next) => {
            side.extend([at_least(from), Comparator::Below(next.unwrap_or((major, minor + 1, 0)))]);
        }
        (Operator::Caret, next) => {
            // The leftmost number that is not 0 stays as it is.
            let end = match next {
                _ if major > 0 => (major + 1, 0, 0),
                Some(next) => next,
                None if minor > 0 => (0, minor + 1, 0),
                None => (0, 0, patch + 1),
            };
            side.extend([at_least(from), Comparator::Below(end)]);
        }
    }
}

#[cfg(test)]
#[path = "version_range_tests.rs"]
mod tests;
