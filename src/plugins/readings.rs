//! Readings: what agents say about the machine, whichever agent says it, as far as it can be. Pure.
//!
//! What no machine can have is a sensor that failed, a wrong factor or another unit, and judges nothing: an hwmon chip
//! tells 255 or -274 °C, and `nvidia-smi` has told 644,245,923.

use super::number::round;
use crate::api::fleet_plugin::Reading;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// No chip works outside of these degrees Celsius; sensors that failed tell 255, 127.5 below 0, or the absolute zero.
const DEGREES: (f64, f64) = (-50.0, 150.0);
/// Shares that are computed from two readings of a counter are past their end by a little.
const PERCENT_SLACK: f64 = 1.0;
/// The first day of 1990, in seconds since 1970. No machine of a fleet runs since then; a clock that was never set
/// begins in 1970 or in 1980.
const EARLIEST: Timestamp = Timestamp::constant(631_152_000, 0);
/// A zone that was read wrong puts a boot time ahead by up to a day.
const AHEAD_MOST: SignedDuration = SignedDuration::from_hours(24);

/// Readings of one machine at full precision. Sizes are bytes, temperatures degrees Celsius, shares percent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Readings {
    pub hostname: Option<String>,
    pub boot_time: Option<Timestamp>,
    /// The boot time is computed from the time since it, and moves with the time that an answer takes.
    pub boot_time_is_computed: bool,
    pub(crate) numbers: BTreeMap<Reading, i64>,
}

/// Why a reading cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Implausible {
    /// It is outside of what there is.
    Range,
    /// It is more than the whole that the same agent tells.
    MoreThanWhole(Reading),
}

impl Implausible {
    /// In words that never change with the number.
    pub fn text(self, reading: Reading) -> String {
        let name = reading.as_str();
        match self {
            Self::MoreThanWhole(whole) => {
                format!("{name} is more than {}, and both are left out", whole.as_str())
            }
            Self::Range => {
                let range = match reading {
                    Reading::CpuTemperatureCelsius | Reading::GpuTemperatureCelsius => "within -50 to 150",
                    Reading::CpuPercent | Reading::GpuPercent | Reading::DiskUsedPercent => "within 0 to 100",
                    Reading::BootTime => "between 1990 and tomorrow",
                    Reading::UptimeSeconds => "between 0 and the time since 1990",
                    _ => "above 0",
                };
                format!("{name} is not {range} and is left out")
            }
        }
    }
}

/// A number as a reading; `None` if no machine can have it. Uptimes are [`boot_time_before`]'s.
pub fn plausible(reading: Reading, number: f64) -> Option<i64> {
    let number = match reading {
        Reading::CpuTemperatureCelsius | Reading::GpuTemperatureCelsius => {
            Some(number).filter(|degrees| (DEGREES.0..=DEGREES.1).contains(degrees))?
        }
        Reading::CpuPercent | Reading::GpuPercent | Reading::DiskUsedPercent => Some(number)
            .filter(|percent| (-PERCENT_SLACK..=100.0 + PERCENT_SLACK).contains(percent))?
            .clamp(0.0, 100.0),
        _ => Some(number).filter(|number| *number > 0.0)?,
    };
    round(number)
}

/// Whether a machine may have started then, as of now.
pub fn is_boot_time(time: Timestamp, now: Timestamp) -> bool {
    time >= EARLIEST && time.duration_since(now) <= AHEAD_MOST
}

/// When a machine started that runs for so long now; `None` if no machine does.
pub fn boot_time_before(now: Timestamp, uptime_seconds: f64) -> Option<Timestamp> {
    let longest = now.duration_since(EARLIEST).as_secs_f64();
    let uptime = Some(uptime_seconds).filter(|seconds| (0.0..=longest).contains(seconds))?;
    let started = now.checked_sub(SignedDuration::try_from_secs_f64(uptime).ok()?).ok()?;
    // Whole seconds, as agents tell it.
    Timestamp::from_second(started.as_second()).ok()
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
        if self.boot_time.is_none() {
            self.boot_time = other.boot_time;
            self.boot_time_is_computed = other.boot_time_is_computed;
        }
        let own: Vec<Reading> = self.numbers.keys().copied().collect();
        for (reading, value) in &other.numbers {
            let family = FAMILIES.iter().find(|family| family.contains(reading));
            if !family.is_some_and(|family| family.iter().any(|member| own.contains(member))) {
                self.numbers.entry(*reading).or_insert(*value);
            }
        }
    }

    /// Takes out what is more than its whole, and the whole with it: which of them is wrong nobody knows.
    pub fn drop_more_than_whole(&mut self) -> BTreeMap<Reading, Implausible> {
        let pairs =
            [(Reading::DiskUsed, Reading::DiskTotal), (Reading::MemoryAvailable, Reading::MemoryTotal)];
        let mut dropped = BTreeMap::new();
        for (part, whole) in pairs {
            if self.get(part).zip(self.get(whole)).is_some_and(|(part, whole)| part > whole) {
                self.numbers.remove(&part);
                self.numbers.remove(&whole);
                dropped.insert(part, Implausible::MoreThanWhole(whole));
            }
        }
        dropped
    }

    /// Whether any of them cannot be: an earlier version of the operator took what it was told.
    pub fn has_implausible(&self) -> bool {
        let mut mended = self.clone();
        mended.drop_implausible();
        mended != *self
    }

    /// Takes out what cannot be.
    pub fn drop_implausible(&mut self) {
        #[allow(clippy::cast_precision_loss)] // Far from any bound.
        self.numbers.retain(|reading, number| plausible(*reading, *number as f64).is_some());
        self.boot_time = self.boot_time.filter(|time| *time >= EARLIEST);
        self.drop_more_than_whole();
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

    #[rstest]
    #[case::cold(Reading::CpuTemperatureCelsius, -50.0, Some(-50))]
    #[case::hot(Reading::GpuTemperatureCelsius, 150.0, Some(150))]
    // An ADT7470 of Linux' hwmon without a sensor.
    #[case::no_sensor(Reading::CpuTemperatureCelsius, 255.0, None)]
    // 0 K, less 1, of coretemp while the machine wakes.
    #[case::absolute_zero(Reading::CpuTemperatureCelsius, -274.0, None)]
    // nvidia_gpu_exporter 1.14 with a driver that answers with a power in place of a temperature.
    #[case::another_field(Reading::GpuTemperatureCelsius, 644_245_923.0, None)]
    #[case::whole(Reading::CpuPercent, 100.0, Some(100))]
    #[case::a_little_past(Reading::CpuPercent, 100.9, Some(100))]
    #[case::a_little_below(Reading::GpuPercent, -0.9, Some(0))]
    #[case::past(Reading::DiskUsedPercent, 101.1, None)]
    #[case::below(Reading::CpuPercent, -1.1, None)]
    #[case::no_memory(Reading::MemoryAvailable, 0.0, None)]
    #[case::negative_disk(Reading::DiskUsed, -4096.0, None)]
    #[case::size(Reading::MemoryTotal, 68_719_476_736.0, Some(68_719_476_736))]
    #[case::overflow(Reading::DiskTotal, 1e300, None)]
    #[case::unknown(Reading::CpuPercent, f64::NAN, None)]
    fn readings_are_what_a_machine_can_have(
        #[case] reading: Reading,
        #[case] number: f64,
        #[case] expected: Option<i64>,
    ) {
        assert_eq!(plausible(reading, number), expected);
    }

    #[rstest]
    #[case::never_set("1970-01-01T00:03:20Z", false)]
    #[case::dos("1980-01-01T00:00:00Z", false)]
    #[case::long_ago("1990-01-01T00:00:00Z", true)]
    #[case::wrong_zone("2026-11-22T23:59:00Z", true)]
    #[case::ahead("2026-11-23T00:01:00Z", false)]
    fn boot_times_are_what_a_clock_can_tell(#[case] time: &str, #[case] expected: bool) {
        assert_eq!(is_boot_time(time.parse().unwrap(), "2026-11-22T00:00:00Z".parse().unwrap()), expected);
    }

    #[rstest]
    #[case(0.0, Some("2026-11-22T00:00:00Z"))]
    #[case(86_400.4, Some("2026-11-20T23:59:59Z"))]
    #[case(-1.0, None)]
    #[case(1.8e9, None)]
    #[case(1e300, None)]
    fn an_uptime_has_a_boot_time(#[case] uptime: f64, #[case] expected: Option<&str>) {
        let found = boot_time_before("2026-11-22T00:00:00Z".parse().unwrap(), uptime);
        assert_eq!(found, expected.map(|text| text.parse().unwrap()));
    }

    #[test]
    fn a_part_is_no_more_than_its_whole() {
        let mut readings = Readings::default();
        for (reading, value) in
            [(Reading::DiskTotal, 100), (Reading::DiskUsed, 101), (Reading::MemoryTotal, 64)]
        {
            readings.set(reading, value);
        }
        assert!(readings.has_implausible());
        let dropped = readings.drop_more_than_whole();
        assert_eq!(dropped, [(Reading::DiskUsed, Implausible::MoreThanWhole(Reading::DiskTotal))].into());
        assert_eq!(readings.numbers, [(Reading::MemoryTotal, 64)].into());
        assert!(!readings.has_implausible());
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
