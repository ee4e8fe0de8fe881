//! Whether a machine has started anew, or only its clock was set.
//!
//! A boot time is told by the machine's clock, or computed from an uptime by ours. A clock that is set (by NTP once there
//! is a network, or from 1970 where no battery keeps it) moves the boot time of a machine that has run all along. Only a
//! machine that started anew has a boot time after the last answer in which it told of the old one.

use super::pressure::BOOT_TIME_TOLERANCE;
use crate::api::OllamaServerStatus;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// By how much the clocks of the machine and of the operator may differ.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_secs(60);

/// When a machine started, as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    pub time: Timestamp,
    /// When an answer first said so, as far as it is known.
    pub since: Timestamp,
    /// When one last did.
    pub shown: Timestamp,
}

impl Boot {
    /// From the first answer that tells.
    pub fn first(time: Timestamp, now: Timestamp) -> Self {
        Self { time, since: now, shown: now }
    }

    /// What an earlier process knew: the boot time, and the latest that any plugin answered.
    pub fn from_status(status: &OllamaServerStatus) -> Option<Self> {
        let time = status.machine.as_ref()?.boot_time.as_ref()?.0;
        let answers = status.plugins.iter().flatten().filter_map(|report| report.last_success_time.as_ref());
        let shown = answers.max().or(status.last_online_time.as_ref())?.0;
        Some(Self { time, since: time, shown })
    }

    /// Takes over what an answer says, and tells whether the machine has started anew since. Jitter moves nothing.
    pub fn step(&mut self, time: Timestamp, now: Timestamp) -> bool {
        let before = *self;
        let moved = time.duration_since(before.time);
        self.shown = now;
        if moved.abs() <= BOOT_TIME_TOLERANCE {
            return false;
        }
        (self.time, self.since) = (time, now);
        // A machine that has just started sets its clock, often by minutes.
        let has_just_started = before.shown.duration_since(before.since) <= CLOCKS_DIFFER;
        let tolerance = if has_just_started { SignedDuration::ZERO } else { CLOCKS_DIFFER };
        moved > BOOT_TIME_TOLERANCE && before.shown.duration_since(time) <= tolerance
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// A machine that started at 10:00:00 and said so last at 12:00:00 tells of this boot time at 12:10:00.
    #[rstest]
    #[case::the_same("10:00:00", false)]
    #[case::jitter("10:00:30", false)]
    #[case::jitter_back("09:59:30", false)]
    #[case::clock_forward("10:10:00", false)] // chrony 4.3 steps at start; the machine has run for two hours.
    #[case::clock_forward_by_hours("11:58:59", false)]
    #[case::clock_back("09:50:00", false)]
    #[case::a_reboot("12:05:00", true)]
    #[case::a_reboot_by_a_clock_that_is_behind("11:59:30", true)]
    #[case::a_reboot_by_a_clock_that_is_ahead("12:15:00", true)]
    fn only_a_boot_after_the_last_answer_is_a_reboot(#[case] told: &str, #[case] expected: bool) {
        let at = |time: &str| format!("2026-11-22T{time}Z").parse::<Timestamp>().unwrap();
        let mut boot = Boot { shown: at("12:00:00"), ..Boot::first(at("10:00:00"), at("10:00:20")) };
        assert_eq!(boot.step(at(told), at("12:10:00")), expected);
        assert_eq!(boot.shown, at("12:10:00"));
        assert!(!boot.step(at(told), at("12:10:10")), "it is told once");
    }

    /// A Raspberry Pi without a battery: after the reboot its clock goes on from the last shutdown, until NTP sets it.
    #[test]
    fn a_clock_that_is_set_after_a_reboot_makes_no_second_one() {
        let at = |time: &str| format!("2026-11-22T{time}Z").parse::<Timestamp>().unwrap();
        let mut boot = Boot { shown: at("12:00:00"), ..Boot::first(at("10:00:00"), at("10:00:20")) };
        assert!(boot.step(at("12:00:05"), at("12:30:40")));
        assert!(!boot.step(at("12:30:00"), at("12:30:50")));
        assert!(boot.step(at("12:31:10"), at("12:31:30")), "and one that starts again is told");
    }

    #[test]
    fn a_reboot_while_nobody_looked_is_told_after() {
        let at = |time: &str| format!("2026-11-22T{time}Z");
        let status = |success: Option<&str>| {
            serde_json::from_value::<OllamaServerStatus>(serde_json::json!({
                "lastOnlineTime": at("12:00:00"),
                "machine": {"bootTime": at("10:00:00")},
                "plugins": [{"name": "m", "lastSuccessTime": success.map(at)}, {"name": "n"}],
            }))
            .unwrap()
        };
        let mut boot = Boot::from_status(&status(Some("11:00:00"))).unwrap();
        assert_eq!(boot.shown, at("11:00:00").parse().unwrap());
        assert!(boot.step(at("11:30:00").parse().unwrap(), at("13:00:00").parse().unwrap()));
        let mut boot = Boot::from_status(&status(None)).unwrap();
        assert!(!boot.step(at("11:30:00").parse().unwrap(), at("13:00:00").parse().unwrap()));
    }
}
