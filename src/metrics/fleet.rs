//! The series of each server, made from the live set when they are asked for.

use super::{budget, plugins};
use crate::{
    api::{condition, fleet_plugin::Reading, quantity::Quantity, server_status::LoadedModel},
    controller::server::live::{Live, Snapshot},
    runtime::Leadership,
};
use k8s_openapi::jiff::Timestamp;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, EncodeMetric},
    metrics::gauge::ConstGauge,
    registry::Unit,
};
use std::fmt;

pub type Labels<'a> = Vec<(&'static str, &'a str)>;

#[derive(Debug)]
pub struct FleetCollector {
    live: Live,
    /// Servers up to which every series is shown.
    server_limit: usize,
    leadership: Leadership,
}

impl FleetCollector {
    pub fn new(live: Live, server_limit: usize, leadership: Leadership) -> Self {
        Self { live, server_limit, leadership }
    }
}

impl Collector for FleetCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out { encoder: &mut encoder };
        let leads = self.leadership.holds();
        out.single("leader", "1 if this replica polls and writes, 0 if it stands by", i64::from(leads))?;
        if !leads {
            // The leader tells of the servers; from two replicas every sum would be twice as large.
            return Ok(());
        }
        let mut servers = self.live.snapshots();
        // Where there is no room for all series, it is not for chance to choose.
        servers
            .sort_unstable_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
        out.single("servers", "Servers that are watched", count(servers.len()))?;
        out.all(&servers, "server_up", "1 if the host answers, 0 if not", None, |server| {
            server.reachable().map(i64::from)
        })?;
        out.series(
            "server_condition",
            "1 for the status that a condition has",
            None,
            &servers,
            |server, emit| {
                for condition in &server.status.conditions {
                    emit(vec![("type", &condition.type_), ("status", &condition.status)], 1i64)?;
                }
                Ok(())
            },
        )?;
        out.all(
            &servers,
            "server_last_poll_timestamp_seconds",
            "When the last poll of the host ended",
            None,
            |server| server.last_poll.map(Timestamp::as_second),
        )?;
        // Of all servers, however many: who has none of this series is checked.
        out.all(
            &servers,
            "server_tls_insecure",
            "1 while the host's certificate is not checked (insecureSkipVerify)",
            None,
            |server| server.object.spec.insecure_skip_verify.then_some(1),
        )?;
        let detailed = if servers.len() <= self.server_limit { servers.as_slice() } else { &[] };
        let dropped = servers.len() - detailed.len();
        out.single(
            "metrics_servers_dropped",
            "Servers whose detailed series are left out by --metrics-server-limit",
            count(dropped),
        )?;
        details(&mut out, detailed)?;
        plugins::series(&mut out, detailed, budget::series(self.server_limit))
    }
}

fn details(out: &mut Out<'_, '_>, servers: &[Snapshot]) -> fmt::Result {
    out.series("server_info", "Version and backend of the host", None, servers, |server, emit| {
        let version = server.status.version.as_deref().unwrap_or("");
        emit(vec![("version", version), ("backend", server.backend)], 1)
    })?;
    out.all(servers, "server_consecutive_failures", "Polls that failed in a row", None, |server| {
        Some(i64::from(server.failures))
    })?;
    out.all(servers, "server_models", "Models on disk", None, |server| {
        server.status.model_count.map(i64::from)
    })?;
    out.all(servers, "server_models_bytes", "Disk space of all models", None, |server| {
        bytes(server.status.model_size.as_ref())
    })?;
    out.all(servers, "server_loaded_models", "Models in memory", None, |server| {
        server.status.loaded_count.map(i64::from)
    })?;
    out.all(servers, "server_vram_used_bytes", "GPU memory of the loaded models", None, |server| {
        bytes(server.status.vram_used.as_ref())
    })?;
    out.series(
        "server_capacity_bytes",
        "What the object says that the machine has",
        None,
        servers,
        |server, emit| {
            for (kind, quantity) in [("memory", &server.capacity_memory), ("vram", &server.capacity_vram)] {
                if let Some(bytes) = bytes(quantity.as_ref()) {
                    emit(vec![("kind", kind)], bytes)?;
                }
            }
            Ok(())
        },
    )?;
    for (name, help, value) in MODEL_SERIES {
        out.series(name, help, None, servers, |server, emit| {
            for model in server.status.loaded_models.iter().flatten() {
                if let Some(value) = value(model) {
                    emit(vec![("model", &model.name)], value)?;
                }
            }
            Ok(())
        })?;
    }
    out.series("server_temperature_celsius", "Temperatures, from agents", None, servers, |server, emit| {
        for (sensor, reading) in
            [("cpu", Reading::CpuTemperatureCelsius), ("gpu", Reading::GpuTemperatureCelsius)]
        {
            if let Some(value) = server.readings.get(reading) {
                emit(vec![("sensor", sensor)], value)?;
            }
        }
        Ok(())
    })?;
    for (name, help, reading) in READING_SERIES {
        out.all(servers, name, help, None, |server| server.readings.get(reading))?;
    }
    out.all(servers, "server_boot_timestamp_seconds", "When the machine started", None, |server| {
        server.readings.boot_time.map(Timestamp::as_second)
    })
}

type ModelSeries = (&'static str, &'static str, fn(&LoadedModel) -> Option<i64>);

const MODEL_SERIES: [ModelSeries; 4] = [
    ("model_loaded", "1 for each model in memory", |_| Some(1)),
    ("model_vram_bytes", "GPU memory of a loaded model", |model| bytes(model.vram.as_ref())),
    ("model_size_bytes", "Memory of a loaded model in all", |model| bytes(model.size.as_ref())),
    ("model_context_length", "Context that a model was loaded with, in tokens", |model| model.context_length),
];

const READING_SERIES: [(&str, &str, Reading); 6] = [
    ("server_cpu_percent", "CPU in use, in percent", Reading::CpuPercent),
    ("server_gpu_percent", "GPU in use, in percent", Reading::GpuPercent),
    ("server_memory_size_bytes", "Main memory", Reading::MemoryTotal),
    ("server_memory_available_bytes", "Main memory still available", Reading::MemoryAvailable),
    ("server_disk_size_bytes", "Size of the disk", Reading::DiskTotal),
    ("server_disk_used_bytes", "Disk space in use", Reading::DiskUsed),
];

fn bytes(quantity: Option<&Quantity>) -> Option<i64> {
    i64::try_from(quantity?.bytes()?).ok()
}

pub fn count(servers: usize) -> i64 {
    i64::try_from(servers).unwrap_or(i64::MAX)
}

impl Snapshot {
    /// `None`: no verdict, or not polled.
    fn reachable(&self) -> Option<bool> {
        match condition::truth(&self.status.conditions, condition::REACHABLE) {
            condition::Truth::True => Some(true),
            condition::Truth::False => Some(false),
            condition::Truth::Unknown => None,
        }
    }
}

/// Where the series go.
pub struct Out<'a, 'e> {
    encoder: &'a mut DescriptorEncoder<'e>,
}

impl Out<'_, '_> {
    pub fn single(&mut self, name: &str, help: &str, value: i64) -> fmt::Result {
        let gauge = ConstGauge::new(value);
        let metric = self.encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
        gauge.encode(metric)
    }

    /// One series a server, where there is a value.
    fn all(
        &mut self,
        servers: &[Snapshot],
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: impl Fn(&Snapshot) -> Option<i64>,
    ) -> fmt::Result {
        self.series(name, help, unit, servers, |server, emit| match value(server) {
            Some(value) => emit(Vec::new(), value),
            None => Ok(()),
        })
    }

    /// Any number of series a server, told apart by more labels.
    pub fn series<'s, N: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        servers: &'s [Snapshot],
        mut each: impl FnMut(&'s Snapshot, &mut dyn FnMut(Labels<'s>, N) -> fmt::Result) -> fmt::Result,
    ) -> fmt::Result {
        if servers.is_empty() {
            return Ok(());
        }
        let mut family = self.encoder.encode_descriptor(
            name,
            help,
            unit,
            prometheus_client::metrics::MetricType::Gauge,
        )?;
        for server in servers {
            each(server, &mut |extra, value| {
                let mut labels: Labels<'s> = vec![("namespace", &server.namespace), ("server", &server.name)];
                labels.extend(extra);
                encode_gauge(&labels, value, &mut family)
            })?;
        }
        Ok(())
    }
}

fn encode_gauge<N: EncodeGaugeValue>(
    labels: &impl EncodeLabelSet,
    value: N,
    family: &mut prometheus_client::encoding::MetricEncoder<'_>,
) -> fmt::Result {
    ConstGauge::new(value).encode(family.encode_family(labels)?)
}
