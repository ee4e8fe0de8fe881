//! What the metrics agent of a host answers when nothing is wrong.
//!
//! Pure: a state and a request give an answer.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use crate::http::{Answer, Request};
use crate::ollama::Moment;
use crate::state::{HostState, Machine, SensorNames};
use crate::weird::fraction;

/// The answer to a request.
pub fn answer(state: &HostState, request: &Request, moment: &Moment) -> Answer {
    if let Some(body) = &state.agent_body {
        let content_type = state.agent_content_type.clone();
        return Answer {
            content_type: Some(content_type.unwrap_or("application/json".to_owned()).into()),
            ..Answer::text(200, body)
        };
    }
    if request.path != "/metrics" {
        return Answer::text(404, "Not Found");
    }
    if request.method != "GET" {
        return Answer::text(405, "Method Not Allowed");
    }
    let mut answer = Answer::json(serde_json::to_vec(&metrics(state, moment)).unwrap_or_default());
    answer.content_type = Some("application/json".into());
    answer
}

/// Numbers that differ from call to call, in -1 to 1.
struct Noise {
    tick: u64,
    drawn: u64,
}

impl Noise {
    fn next(&mut self) -> f64 {
        self.drawn += 1;
        fraction(self.tick.wrapping_mul(31).wrapping_add(self.drawn)) * 2.0 - 1.0
    }
}

fn metrics(state: &HostState, moment: &Moment) -> Map<String, Value> {
    let machine = &state.machine;
    let mut noise = Noise { tick: moment.tick, drawn: 0 };
    let boot = machine.boot_time.unwrap_or(moment.start);
    let uptime = moment.now.duration_since(boot).max(SignedDuration::ZERO);
    // The real agent subtracts two clocks that were read one after the other.
    let drift =
        if machine.jitter { SignedDuration::from_secs_f64(noise.next() * 0.5) } else { SignedDuration::ZERO };
    let told_boot = boot.checked_add(drift).unwrap_or(boot);
    let mut around = |value: f64, max: f64| {
        let value = value + noise.next() * machine.noise;
        if machine.noise == 0.0 { value } else { value.clamp(0.0, max) }
    };
    let available = around(machine.memory_available_mb, machine.memory_total_mb);
    let hostname = machine.hostname.clone();
    let document = json!({
        "hostname": hostname.unwrap_or_else(|| crate::address::name(moment.index)),
        "uptime_seconds": uptime.as_secs_f64(),
        "boot_time": iso(told_boot),
        "temperatures": temperatures(machine, &mut around),
        "memory": {
            "total_mb": machine.memory_total_mb,
            "used_mb": machine.memory_total_mb - available,
            "available_mb": available,
            "swap_total_mb": 8192.0,
            "swap_used_mb": 128.5,
        },
        "load_avg": load(machine.jitter, moment.tick),
        "cpu_percent": around(machine.cpu_percent, 100.0),
        "gpu_percent": (machine.gpus > 0).then(|| around(machine.gpu_percent, 100.0)),
        "recent_boots": [boot.strftime("%a %b %d %H:%M:%S %Y").to_string()],
        "reboot_causes": {"last": {"cause": "unknown", "detail": ""}},
        "disk": {
            "total_gb": machine.disk_total_gb,
            "used_gb": machine.disk_used_gb,
            "free_gb": machine.disk_total_gb - machine.disk_used_gb,
        },
    });
    let Value::Object(mut document) = document else {
        return Map::new();
    };
    document.retain(|key, _| !machine.omit.contains(key));
    document
}

/// As Python's `isoformat` writes it.
fn iso(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string()
}

fn load(jitter: bool, tick: u64) -> [f64; 3] {
    if jitter {
        [1, 2, 3].map(|n| (fraction(tick.wrapping_mul(7) + n) * 400.0).round() / 100.0)
    } else {
        [0.5, 0.5, 0.5]
    }
}

fn temperatures(machine: &Machine, around: &mut impl FnMut(f64, f64) -> f64) -> Map<String, Value> {
    let (zone, gpu) = match machine.sensor_names {
        SensorNames::Zones => ("thermal_zone0", "gpu0"),
        SensorNames::Plain => ("cpu", "gpu"),
    };
    let mut sensors = Map::new();
    sensors.insert(zone.to_owned(), around(machine.cpu_temperature, 200.0).into());
    for number in 0..machine.gpus {
        let name = match number {
            0 => gpu.to_owned(),
            _ => format!("gpu{number}"),
        };
        // The first GPU is the hottest, so that the setting is the maximum.
        let cooler = machine.gpu_temperature - f64::from(number);
        sensors.insert(name, around(cooler, 200.0).into());
    }
    sensors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(state: &HostState, tick: u64) -> Map<String, Value> {
        let start = Timestamp::UNIX_EPOCH;
        let moment = Moment { now: start + SignedDuration::from_secs(100), start, tick, index: 7 };
        metrics(state, &moment)
    }

    #[test]
    fn only_load_and_boot_time_move_by_default() {
        let state = HostState::default();
        let (mut a, mut b) = (at(&state, 1), at(&state, 2));
        assert_eq!(a["hostname"], "sim-00007");
        assert_eq!(a["uptime_seconds"], 100.0);
        assert_eq!(a["temperatures"], json!({"thermal_zone0": 52.5, "gpu0": 61.0}));
        assert_eq!(a["memory"]["used_mb"], 25_536.0);
        for key in ["boot_time", "load_avg"] {
            assert_ne!(a.remove(key), b.remove(key));
        }
        assert_eq!(a, b);
    }

    #[test]
    fn machines_differ() {
        let mut state = HostState::default();
        state.machine.jitter = false;
        state.machine.gpus = 0;
        state.machine.sensor_names = SensorNames::Plain;
        state.machine.omit = vec!["disk".to_owned()];
        let a = at(&state, 1);
        assert_eq!(a, at(&state, 2));
        assert_eq!(a["temperatures"], json!({"cpu": 52.5}));
        assert_eq!(a["gpu_percent"], Value::Null);
        assert_eq!(a["boot_time"], "1970-01-01T00:00:00.000000+00:00");
        assert!(!a.contains_key("disk"));
        state.machine.noise = 2.0;
        assert_ne!(at(&state, 1)["temperatures"], at(&state, 2)["temperatures"]);
    }
}
