//! Readings: what agents say about the machine, whichever agent says it.

use crate::api::fleet_plugin::Reading;
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeMap;

/// Readings of one machine at full precision. Sizes are bytes, temperatures degrees Celsius, shares percent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Readings {
    pub hostname: Option<String>,
    pub boot_time: Option<Timestamp>,
    pub(crate) numbers: BTreeMap<Reading, i64>,
}

/// Readings of which only those of one source go together.
const FAMILIES: [&[Reading]; 2] = [
    &[Reading::DiskTotal, Reading::DiskUsed, Reading::DiskUsedPercent],
    &[Reading::MemoryTotal, Reading::MemoryAvailable],
];

impl Readings {
    pub fn set(&mut self, reading: Reading, value: i64) {
        self.numbers.insert(reading, value);
    }

    pub fn get(&self, reading: Reading) -> Option<i64> {
        self.numbers.get(&reading).copied()
    }

    pub fn is_empty(&self) -> bool {
        self.hostname.is_none() && self.boot_time.is_none() && self.numbers.is_empty()
    }

    /// Takes from `other` what is not known yet. Sizes of one thing come from one source: the size of one disk and what
    /// is used of another make no share.
    pub fn complete_with(&mut self, other: &Self) {
        if self.hostname.is_none() {
            self.hostname.clone_from(&other.hostname);
        }
        self.boot_time = self.boot_time.or(other.boot_time);
        let own: Vec<Reading> = self.numbers.keys().copied().collect();
        for (reading, value) in &other.numbers {
            let family = FAMILIES.iter().find(|family| family.contains(reading));
            if !family.is_some_and(|family| family.iter().any(|member| own.contains(member))) {
                self.numbers.entry(*reading).or_insert(*value);
            }
        }
    }

    /// Disk in use, in percent: as reported, else computed; `None` when unknown.
    pub fn disk_used_percent(&self) -> Option<i64> {
        self.get(Reading::DiskUsedPercent)
            .or_else(|| percent(self.get(Reading::DiskUsed)?, self.get(Reading::DiskTotal)?))
    }

    /// Memory still available, in percent; `None` when unknown.
    pub fn memory_available_percent(&self) -> Option<i64> {
        percent(self.get(Reading::MemoryAvailable)?, self.get(Reading::MemoryTotal)?)
    }
}

/// `part` of `whole` in percent, rounded half up; `None` for a whole of 0, which no machine has.
fn percent(part: i64, whole: i64) -> Option<i64> {
    if part < 0 || whole <= 0 {
        return None;
    }
    let (part, whole) = (i128::from(part), i128::from(whole));
    i64::try_from((part * 200 + whole) / (whole * 2)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(400, 1000, Some(40))]
    #[case(899, 1000, Some(90))]
    #[case(894, 1000, Some(89))]
    #[case(1, 0, None)]
    #[case(-1, 10, None)]
    #[case(i64::MAX, i64::MAX, Some(100))]
    fn shares_are_whole_percents(#[case] part: i64, #[case] whole: i64, #[case] expected: Option<i64>) {
        assert_eq!(percent(part, whole), expected);
    }

    #[test]
    fn the_sizes_of_one_disk_come_from_one_source() {
        let mut first = Readings::default();
        first.set(Reading::DiskTotal, 100);
        let mut second = Readings::default();
        second.set(Reading::DiskTotal, 4000);
        second.set(Reading::DiskUsed, 3000);
        second.set(Reading::MemoryTotal, 64);
        first.complete_with(&second);
        assert_eq!(first.disk_used_percent(), None, "3000 of 100 is nonsense");
        assert_eq!(first.get(Reading::MemoryTotal), Some(64));
    }

    #[test]
    fn the_first_source_of_a_reading_wins() {
        let mut first = Readings::default();
        first.set(Reading::CpuPercent, 1);
        let mut second = Readings { hostname: Some("gpu1".into()), ..Readings::default() };
        second.set(Reading::CpuPercent, 2);
        first.complete_with(&second);
        assert_eq!((first.get(Reading::CpuPercent), first.hostname.as_deref()), (Some(1), Some("gpu1")));
    }
}
