//! Which plugins of a namespace have all that they depend on. Pure.

use crate::plugins::version_range::VersionRange;
use semver::Version;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Names that the message about a circle shows.
const CIRCLE_NAMED_MAX: usize = 8;

/// What a plugin depends on.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    pub platform: Option<VersionRange>,
    pub plugins: BTreeMap<String, VersionRange>,
}

/// A plugin that is installed in the namespace.
#[derive(Clone, Copy, Debug)]
pub enum Installed<'a> {
    /// Not accepted, so that nothing can depend on it.
    Refused,
    Accepted {
        version: &'a Version,
        needs: &'a Needs,
        suspended: bool,
    },
}

/// Why a plugin cannot work yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    pub reason: &'static str,
    pub message: String,
}

/// The accepted plugins of a namespace that lack something, and what. Suspended ones are judged too: what depends on
/// them lacks them.
pub fn unmet(installed: &BTreeMap<&str, Installed<'_>>, platform: &Version) -> BTreeMap<String, Unmet> {
    let mut judged: BTreeMap<&str, Option<Unmet>> = BTreeMap::new();
    let mut waiting: BTreeSet<&str> = installed.keys().copied().collect();
    let mut dependants: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut open: BTreeMap<&str, usize> = BTreeMap::new();
    for name in installed.keys().copied() {
        for needed in needs(installed, name) {
            dependants.entry(needed).or_default().push(name);
            *open.entry(name).or_default() += 1;
        }
    }
    // From those that need nothing upwards; what is left then is in a circle or needs one.
    let mut ready: Vec<&str> = installed.keys().copied().filter(|name| !open.contains_key(name)).collect();
    while let Some(name) = ready.pop() {
        waiting.remove(name);
        let lacks = judge(installed, &judged, name, platform);
        judged.insert(name, lacks);
        for dependant in dependants.get(name).into_iter().flatten().copied() {
            if let Some(left) = open.get_mut(dependant) {
                *left -= 1;
                if *left == 0 {
                    ready.push(dependant);
                }
            }
        }
    }
    for (name, message) in circles(installed, &waiting) {
        judged.insert(name, Some(Unmet { reason: "DependencyCycle", message }));
    }
    judged.into_iter().filter_map(|(name, unmet)| Some((name.to_owned(), unmet?))).collect()
}

/// The installed plugins that one needs.
fn needs<'a>(installed: &'a BTreeMap<&'a str, Installed<'a>>, name: &str) -> impl Iterator<Item = &'a str> {
    let needs = match installed.get(name) {
        Some(Installed::Accepted { needs, .. }) => Some(*needs),
        _ => None,
    };
    needs
        .into_iter()
        .flat_map(|needs| needs.plugins.keys())
        .map(String::as_str)
        .filter(|needed| installed.contains_key(needed))
}

fn judge(
    installed: &BTreeMap<&str, Installed<'_>>,
    judged: &BTreeMap<&str, Option<Unmet>>,
    name: &str,
    platform: &Version,
) -> Option<Unmet> {
    let Some(Installed::Accepted { needs, .. }) = installed.get(name) else { return None };
    if let Some(range) = &needs.platform
        && !range.matches(platform)
    {
        let message = format!("needs platform {range}, this operator is {platform}");
        return Some(Unmet { reason: "PlatformNotMet", message });
    }
    let lacking: Vec<String> = needs
        .plugins
        .iter()
        .filter_map(|(needed, range)| {
            let lack = match installed.get(needed.as_str()) {
                None => "not installed".to_owned(),
                Some(Installed::Refused) => "which is not accepted".to_owned(),
                Some(Installed::Accepted { version, suspended, .. }) => {
                    if !range.matches(version) {
                        format!("installed {version}")
                    } else if *suspended {
                        format!("installed {version} but suspended")
                    } else if judged.get(needed.as_str()).is_some_and(Option::is_some) {
                        format!("installed {version} but inactive")
                    } else {
                        return None;
                    }
                }
            };
            Some(format!("needs {needed} {range}, {lack}"))
        })
        .collect();
    (!lacking.is_empty()).then(|| Unmet { reason: "DependencyNotMet", message: lacking.join("; ") })
}

/// Names the circle that each plugin that is left is in or needs: each of them needs another one that is left, so whoever
/// follows the first of each comes round. Each is followed once, however many there are.
fn circles<'a>(
    installed: &'a BTreeMap<&'a str, Installed<'a>>,
    left: &BTreeSet<&'a str>,
) -> Vec<(&'a str, String)> {
    let first_needed: HashMap<&str, &str> = left
        .iter()
        .filter_map(|name| Some((*name, needs(installed, name).find(|needed| left.contains(needed))?)))
        .collect();
    // Where whoever follows comes into a circle; for those that are in one, at themselves.
    let mut entries: HashMap<&str, &str> = HashMap::new();
    for name in left {
        let mut path: Vec<&str> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut here = *name;
        while !entries.contains_key(here) && !places.contains_key(here) {
            places.insert(here, path.len());
            path.push(here);
            let Some(next) = first_needed.get(here) else { break };
            here = next;
        }
        let in_circle = path.split_off(places.get(here).copied().unwrap_or(path.len()));
        entries.extend(in_circle.into_iter().map(|name| (name, name)));
        let entry = entries.get(here).copied().unwrap_or(here);
        entries.extend(path.into_iter().map(|name| (name, entry)));
    }
    let message = |name: &str| {
        let (Some(entry), Some(next)) = (entries.get(name), first_needed.get(name)) else {
            return "depends on itself".to_owned();
        };
        let mut circle = vec![*entry];
        let mut here = first_needed.get(entry);
        while let Some(name) = here.filter(|name| *name != entry) {
            if circle.len() == CIRCLE_NAMED_MAX {
                circle.push("…");
                break;
            }
            circle.push(name);
            here = first_needed.get(name);
        }
        circle.push(entry);
        let circle = circle.join(" -> ");
        if *entry == name {
            format!("depends on itself: {circle}")
        } else {
            format!("needs {next}, which cannot work: {circle} depend on each other")
        }
    };
    left.iter().map(|name| (*name, message(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// A line for each plugin: its name and version, then what it needs, each after a bar.
    fn messages(lines: &str, suspended: &[&str], refused: &[&'static str]) -> Vec<String> {
        let built: Vec<(String, Version, Needs)> = lines
            .lines()
            .map(|line| {
                let mut parts = line.split('|').map(|part| part.trim().split_once(' ').unwrap());
                let (name, version) = parts.next().unwrap();
                let mut needs = Needs::default();
                for (needed, text) in parts {
                    let range = VersionRange::parse(text).unwrap();
                    if needed == "platform" {
                        needs.platform = Some(range);
                    } else {
                        needs.plugins.insert(needed.to_owned(), range);
                    }
                }
                (name.to_owned(), version.parse().unwrap(), needs)
            })
            .collect();
        let mut installed: BTreeMap<&str, Installed<'_>> = built
            .iter()
            .map(|(name, version, needs)| {
                let suspended = suspended.contains(&name.as_str());
                (name.as_str(), Installed::Accepted { version, needs, suspended })
            })
            .collect();
        installed.extend(refused.iter().map(|name| (*name, Installed::Refused)));
        unmet(&installed, &Version::new(0, 1, 0))
            .into_iter()
            .map(|(name, unmet)| format!("{name}: {}: {}", unmet.reason, unmet.message))
            .collect()
    }

    #[rstest]
    #[case::nothing("a 1.0.0", "")]
    #[case::platform("a 1.0.0 | platform >=0.1 <1", "")]
    #[case::newer_platform(
        "a 1.0.0 | platform >=2",
        "a: PlatformNotMet: needs platform >=2, this operator is 0.1.0"
    )]
    #[case::met("a 1.0.0 | core >=2\ncore 2.1.0", "")]
    #[case::missing("a 1.0.0 | core >=2", "a: DependencyNotMet: needs core >=2, not installed")]
    #[case::older("a 1.0.0 | core >=2\ncore 1.4.0", "a: DependencyNotMet: needs core >=2, installed 1.4.0")]
    #[case::two(
        "a 1.0.0 | b 1 | c 1",
        "a: DependencyNotMet: needs b 1, not installed; needs c 1, not installed"
    )]
    #[case::chain(
        "a 1.0.0 | b 1\nb 1.0.0 | c 1",
        "a: DependencyNotMet: needs b 1, installed 1.0.0 but inactive\nb: DependencyNotMet: needs c 1, not installed"
    )]
    #[case::itself("a 1.0.0 | a 1", "a: DependencyCycle: depends on itself: a -> a")]
    #[case::circle(
        "a 1.0.0 | b 1\nb 1.0.0 | a 1\nc 1.0.0",
        "a: DependencyCycle: depends on itself: a -> b -> a\nb: DependencyCycle: depends on itself: b -> a -> b"
    )]
    #[case::above_a_circle(
        "a 1.0.0 | b 1\nb 1.0.0 | b 1",
        "a: DependencyCycle: needs b, which cannot work: b -> b depend on each other\nb: DependencyCycle: depends on itself: b -> b"
    )]
    fn both_sides_are_named(#[case] plugins: &str, #[case] expected: &str) {
        assert_eq!(messages(plugins, &[], &[]).join("\n"), expected);
    }

    #[test]
    fn suspended_and_refused_plugins_help_nobody() {
        assert_eq!(
            messages("a 1.0.0 | b 1 | c 1\nb 1.2.0", &["b"], &["c"]),
            [
                "a: DependencyNotMet: needs b 1, installed 1.2.0 but suspended; needs c 1, which is not accepted"
            ]
        );
    }

    #[test]
    fn a_long_chain_is_judged_in_one_pass() {
        let chain: Vec<String> = (1..3000).map(|i| format!("p{i} 1.0.0 | p{} 1", i - 1)).collect();
        let lines = format!("p0 1.0.0\n{}", chain.join("\n"));
        assert_eq!(messages(&lines, &[], &[]), Vec::<String>::new());
    }

    /// `count` plugins in one circle, each of which needs the next.
    fn circle(count: usize) -> Vec<String> {
        let lines: Vec<String> =
            (0..count).map(|i| format!("p{i:04} 1.0.0 | p{:04} 1", (i + 1) % count)).collect();
        messages(&lines.join("\n"), &[], &[])
    }

    #[test]
    fn a_large_circle_is_found_once() {
        let start = std::time::Instant::now();
        let found = circle(3000);
        assert!(start.elapsed().as_secs() < 2, "{:?}", start.elapsed());
        assert_eq!(found.len(), 3000);
        assert_eq!(
            found[2999],
            "p2999: DependencyCycle: depends on itself: p2999 -> p0000 -> p0001 -> p0002 -> p0003 -> p0004 -> p0005 -> p0006 -> … -> p2999"
        );
        assert!(circle(8)[0].ends_with("p0006 -> p0007 -> p0000"), "all of a small one are named");
    }

    #[test]
    fn those_above_a_circle_name_where_they_come_into_it() {
        let found = messages("a 1.0.0 | c 1\nb 1.0.0 | c 1\nc 1.0.0 | b 1\nd 1.0.0 | a 1", &[], &[]);
        assert_eq!(
            found[0],
            "a: DependencyCycle: needs c, which cannot work: c -> b -> c depend on each other"
        );
        assert_eq!(found[1], "b: DependencyCycle: depends on itself: b -> c -> b");
        assert_eq!(
            found[3],
            "d: DependencyCycle: needs a, which cannot work: c -> b -> c depend on each other"
        );
    }
}
