//! Too hot or too full: hysteresis over readings, and the machine's reboots.

use super::{agents::AgentPlan, memory::Memory, reboot::Boot};
use crate::{
    api::{
        condition::{self, Truth},
        fleet_plugin::Reading,
        ollama_server::{OllamaServerSpec, Thresholds},
    },
    controller::server::transition::{Sensor, Transition},
    plugins::readings::Readings,
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::SignedDuration,
};
use std::collections::BTreeMap;

/// Readings in a row that it takes to change a pressure; one hot second is no news.
const STREAK: u8 = 2;
/// Degrees on the good side that end a thermal pressure.
const DEGREES_BACK: i64 = 3;
/// Percent points on the good side that end the others.
const POINTS_BACK: i64 = 2;
/// Agents compute the boot time from the uptime, which jitters by a second, and clocks drift.
pub const BOOT_TIME_TOLERANCE: SignedDuration = SignedDuration::from_secs(30);

/// Whether one reading is past its threshold, and how long it has been about to change its mind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Hysteresis {
    /// `None`: unknown.
    active: Option<bool>,
    streak: u8,
}

/// The pressures of one machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pressures(BTreeMap<Sensor, Hysteresis>);

impl Pressures {
    /// What an earlier process knew, from the reasons that it wrote.
    pub fn from_conditions(conditions: &[Condition]) -> Self {
        let mut pressures = Self::default();
        for sensor in Sensor::ALL {
            if let Some(condition) = condition::find(conditions, condition_of(sensor)) {
                let active = Truth::parse(&condition.status) == Truth::True
                    && (condition.reason == sensor.reason() || condition.reason == BOTH_HOT);
                pressures.0.insert(sensor, Hysteresis { active: Some(active), streak: 0 });
            }
        }
        pressures
    }

    /// `None`: unknown.
    fn of(&self, sensor: Sensor) -> Option<bool> {
        self.0.get(&sensor).and_then(|hysteresis| hysteresis.active)
    }

    /// Type, status, reason and message of each pressure that is known.
    pub fn conditions(&self) -> Vec<(&'static str, Truth, &'static str, &'static str)> {
        let mut rows = Vec::new();
        let thermal = (self.of(Sensor::CpuTemperature), self.of(Sensor::GpuTemperature));
        match thermal {
            (None, None) => {}
            (Some(true), Some(true)) => {
                rows.push((
                    condition::THERMAL_PRESSURE,
                    Truth::True,
                    BOTH_HOT,
                    "CPU and GPU are at or above their thresholds",
                ));
            }
            (Some(true), _) => rows.push((
                condition::THERMAL_PRESSURE,
                Truth::True,
                Sensor::CpuTemperature.reason(),
                "the CPU is at or above its threshold",
            )),
            (_, Some(true)) => rows.push((
                condition::THERMAL_PRESSURE,
                Truth::True,
                Sensor::GpuTemperature.reason(),
                "a GPU is at or above its threshold",
            )),
            _ => rows.push((
                condition::THERMAL_PRESSURE,
                Truth::False,
                "TemperatureNormal",
                "no thermal pressure: the temperatures are below their thresholds",
            )),
        }
        match self.of(Sensor::MemoryAvailable) {
            None => {}
            Some(true) => rows.push((
                condition::MEMORY_PRESSURE,
                Truth::True,
                Sensor::MemoryAvailable.reason(),
                "available memory is at or below its threshold",
            )),
            Some(false) => rows.push((
                condition::MEMORY_PRESSURE,
                Truth::False,
                "MemorySufficient",
                "no memory pressure: available memory is above its threshold",
            )),
        }
        match self.of(Sensor::DiskUsed) {
            None => {}
            Some(true) => rows.push((
                condition::DISK_PRESSURE,
                Truth::True,
                Sensor::DiskUsed.reason(),
                "the disk is filled to its threshold or above",
            )),
            Some(false) => rows.push((
                condition::DISK_PRESSURE,
                Truth::False,
                "DiskSufficient",
                "no disk pressure: the disk is filled below its threshold",
            )),
        }
        rows
    }
}

const BOTH_HOT: &str = "CPUAndGPUOverheating";

fn condition_of(sensor: Sensor) -> &'static str {
    match sensor {
        Sensor::CpuTemperature | Sensor::GpuTemperature => condition::THERMAL_PRESSURE,
        Sensor::DiskUsed => condition::DISK_PRESSURE,
        Sensor::MemoryAvailable => condition::MEMORY_PRESSURE,
    }
}

/// Judges the readings that are known after this poll. While the host fails there are no Events about its machine.
pub fn observe(
    memory: &mut Memory,
    plans: &[AgentPlan],
    spec: &OllamaServerSpec,
    now: &Time,
    transitions: &mut Vec<Transition>,
) {
    let Known { all, fresh } = Known::of(memory, plans);
    let host_is_up = memory.reach.is_up();
    // A machine that boots is away for longer than its readings stand, and its agent may be back before the host is.
    if let Some(time) = all.boot_time.filter(|_| host_is_up && fresh.boot_time == all.boot_time) {
        let boot = memory.boot.get_or_insert(Boot::first(time, now.0));
        if boot.step(time, now.0) {
            transitions.push(Transition::ServerRebooted);
        }
    }
    for sensor in Sensor::ALL {
        let Some((past, good)) = judge(sensor, &all, &spec.thresholds) else {
            // Gone, and without a word: nobody knows whether it is resolved.
            if !still_pending(memory) {
                memory.pressures.0.remove(&sensor);
            }
            continue;
        };
        if judge(sensor, &fresh, &spec.thresholds).is_none() {
            // An old reading is not a second one.
            continue;
        }
        let hysteresis = memory.pressures.0.entry(sensor).or_default();
        if let Some(active) = hysteresis.step(past, good)
            && host_is_up
        {
            transitions.push(if active {
                Transition::Pressure(sensor)
            } else {
                Transition::PressureResolved(sensor)
            });
        }
    }
}

/// A pressure goes with its reading, also where nobody is polled.
pub fn forget_unknown(memory: &mut Memory, spec: &OllamaServerSpec) {
    if !still_pending(memory) {
        let readings = &memory.readings;
        memory.pressures.0.retain(|sensor, _| judge(*sensor, readings, &spec.thresholds).is_some());
    }
}

/// What the agents have said.
#[derive(Default)]
struct Known {
    /// All of it; the first source of a reading wins, as in status.
    all: Readings,
    /// Of that, what is new in this poll.
    fresh: Readings,
}

impl Known {
    fn of(memory: &Memory, plans: &[AgentPlan]) -> Self {
        let mut known = Self::default();
        for agent in plans.iter().filter_map(|plan| memory.agents.get(&plan.name)) {
            let Some(own) = agent.readings() else { continue };
            if agent.is_fresh() {
                let mut news = own.clone();
                news.numbers.retain(|reading, _| known.all.get(*reading).is_none());
                known.fresh.complete_with(&news);
            }
            known.all.complete_with(own);
        }
        known
    }
}

/// Some agent has not spoken since this process began, so that what an earlier one knew still stands.
fn still_pending(memory: &Memory) -> bool {
    memory.seed.is_some() && memory.agents.values().any(|agent| agent.readings().is_none())
}

impl Hysteresis {
    /// `Some` when the pressure begins or ends.
    fn step(&mut self, past: bool, good: bool) -> Option<bool> {
        let towards = match self.active {
            Some(true) => good,
            Some(false) | None => past,
        };
        if !towards {
            self.streak = 0;
            self.active = self.active.or(Some(false));
            return None;
        }
        self.streak += 1;
        if self.streak < STREAK {
            return None;
        }
        let begins = self.active != Some(true);
        *self = Self { active: Some(begins), streak: 0 };
        Some(begins)
    }
}

/// Whether the reading is at or past its threshold, and whether it is well on the good side; `None`: unknown.
fn judge(sensor: Sensor, readings: &Readings, thresholds: &Thresholds) -> Option<(bool, bool)> {
    let above =
        |value: i64, limit: i32, back: i64| (value >= i64::from(limit), value <= i64::from(limit) - back);
    Some(match sensor {
        Sensor::CpuTemperature => above(
            readings.get(Reading::CpuTemperatureCelsius)?,
            thresholds.cpu_temperature_celsius,
            DEGREES_BACK,
        ),
        Sensor::GpuTemperature => above(
            readings.get(Reading::GpuTemperatureCelsius)?,
            thresholds.gpu_temperature_celsius,
            DEGREES_BACK,
        ),
        Sensor::DiskUsed => above(readings.disk_used_percent()?, thresholds.disk_used_percent, POINTS_BACK),
        Sensor::MemoryAvailable => {
            let (value, limit) =
                (readings.memory_available_percent()?, i64::from(thresholds.memory_available_percent));
            (value <= limit, value >= limit + POINTS_BACK)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_two_readings_either_way() {
        let mut hysteresis = Hysteresis::default();
        assert_eq!(hysteresis.step(true, false), None);
        assert_eq!(hysteresis.active, None, "one hot reading is no verdict");
        assert_eq!(hysteresis.step(true, false), Some(true));
        assert_eq!(hysteresis.step(true, false), None);
        assert_eq!(hysteresis.step(false, true), None);
        assert_eq!(hysteresis.step(false, false), None, "between the marks the count starts again");
        assert_eq!(hysteresis.step(false, true), None);
        assert_eq!(hysteresis.step(false, true), Some(false));
    }
}
