//! Values out of an agent's answer: compiled once when a plugin is accepted, applied to each answer. Pure.
//!
//! What is missing, null, NaN or infinite is absent and never 0, and a sum with such a member is absent too. Only numbers
//! and booleans come through; text only as a parsed time or host name, so that an agent does not become a way to read
//! other services. A number is read as a double, made a rate if it is to be one, reduced, multiplied, and then rounded
//! half away from zero; expressions and rules work with what came out of that, which is what people see in status.

mod compile;
mod extraction;
mod path;
mod scalar;
mod unnamed;

pub use compile::{ValueError, compile};

use super::{
    answer::Answer,
    counters::Counters,
    exposition::{self, Wanted},
    expression::Expression,
    filter::Filter,
    readings::{Implausible, Readings},
};
use crate::{
    api::{
        fleet_plugin::{Metric, Reading, Reduce, ValueType},
        server_status::{PLUGIN_VALUES_MAX, Scalar},
    },
    probe::AgentFailure,
};
use extraction::Extraction;
use k8s_openapi::jiff::Timestamp;
use path::Path;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// All values of a plugin, in their order.
#[derive(Debug)]
pub struct CompiledValues {
    values: Vec<CompiledValue>,
    /// What of a JSON answer they can reach.
    filter: Filter,
    /// What to ask the agent for, in the words of the Accept header.
    accept: &'static str,
}

/// When an answer was here.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// By a clock that is never set, for rates.
    pub at: Instant,
    /// By the one on the wall, for the time that a machine started.
    pub clock: Timestamp,
}

/// A value of a plugin, ready to be applied to answers.
#[derive(Debug)]
struct CompiledValue {
    name: String,
    type_: ValueType,
    source: Source,
    rate: bool,
    reduce: Reduce,
    multiplier: f64,
    reading: Option<Reading>,
}

#[derive(Debug)]
enum Source {
    Paths(Vec<Path>),
    Metric(Metric),
    Expression(Expression),
}

/// What one answer said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentValues {
    pub values: BTreeMap<String, Scalar>,
    pub readings: Readings,
    /// The first expression that could not be computed, and why; the value is absent then.
    pub fault: Option<String>,
    /// Readings that no machine can have; they are absent, and what is out of range is no value either.
    pub implausible: BTreeMap<Reading, Implausible>,
}

impl CompiledValues {
    /// The names and types of all values.
    pub fn types(&self) -> Vec<(&str, ValueType)> {
        self.values.iter().map(|value| (value.name.as_str(), value.type_)).collect()
    }

    /// The readings that this plugin is a source of.
    pub fn readings(&self) -> impl Iterator<Item = Reading> {
        self.values.iter().filter_map(|value| value.reading)
    }

    /// What of a JSON answer has to be kept for them.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// What to ask the agent for, in the words of the Accept header.
    pub fn accept(&self) -> &'static str {
        self.accept
    }

    /// Applies the values to an answer that came at this time; without any, keeps its numbers and booleans.
    ///
    /// An answer in which nothing is found is not this plugin's agent, often another exporter on the same port, and is
    /// [`Failure::InvalidResponse`]. One that says of something that it does not know it is an answer.
    ///
    /// [`Failure::InvalidResponse`]: crate::probe::Failure::InvalidResponse
    pub fn extract(
        &self,
        answer: &Answer<'_>,
        arrival: Arrival,
        interval: Duration,
        counters: &mut Counters,
    ) -> Result<AgentValues, AgentFailure> {
        let mut extraction = Extraction::new(counters.begin(arrival.at, interval), arrival.clock);
        match answer {
            _ if self.values.is_empty() => {
                (extraction.found.values, extraction.anything) = match answer {
                    Answer::Json(json) => unnamed::of_json(json),
                    Answer::Exposition(text) => {
                        let found = exposition::unlabelled(*text, PLUGIN_VALUES_MAX)?;
                        (unnamed::of_samples(&found.numbers), found.any)
                    }
                };
            }
            Answer::Json(json) => {
                for (index, value) in self.values.iter().enumerate() {
                    if let Source::Paths(paths) = &value.source {
                        extraction.json(index, value, paths, json);
                    } else {
                        extraction.expression(value);
                    }
                }
            }
            Answer::Exposition(text) => {
                let mut series = exposition::read(*text, &self.wanted())?.into_iter();
                for (index, value) in self.values.iter().enumerate() {
                    if let Source::Metric(_) = &value.source {
                        extraction.metric(index, value, &series.next().unwrap_or_default());
                    } else {
                        extraction.expression(value);
                    }
                }
            }
        }
        let (mut found, anything, known) = extraction.end();
        *counters = known;
        let dropped = found.readings.drop_more_than_whole();
        found.implausible.extend(dropped);
        if anything { Ok(found) } else { Err(self.nothing_found(matches!(answer, Answer::Json(_)))) }
    }

    /// Names the first value that is looked for in such an answer.
    fn nothing_found(&self, json: bool) -> AgentFailure {
        let first = self.values.iter().find_map(|value| match &value.source {
            Source::Paths(paths) if json => {
                paths.first().map(|path| format!("value {}, path {}", value.name, path.text()))
            }
            Source::Metric(metric) if !json => Some(format!("value {}, metric {}", value.name, metric.name)),
            _ => None,
        });
        AgentFailure::invalid(&match first {
            _ if self.values.is_empty() => "the answer has no number and no boolean".to_owned(),
            Some(first) => {
                format!("none of the plugin's values is in the answer; the first that is missing: {first}")
            }
            None if json => "the answer is JSON, and no value of the plugin has jsonPaths".to_owned(),
            None => {
                "the answer is in Prometheus' text format, and no value of the plugin has a metric".to_owned()
            }
        })
    }

    /// The metrics that are looked for, in the order of their values.
    fn wanted(&self) -> Vec<Wanted<'_>> {
        let metrics = self.values.iter().filter_map(|value| match &value.source {
            Source::Metric(metric) => Some(metric),
            _ => None,
        });
        metrics
            .map(|metric| Wanted {
                name: &metric.name,
                labels: &metric.labels,
                distinct_by: &metric.distinct_by,
                label: metric.label.as_deref(),
            })
            .collect()
    }
}

impl CompiledValue {
    /// One number of several, multiplied and not yet rounded.
    fn number(&self, numbers: impl Iterator<Item = f64>) -> Option<f64> {
        Some(scalar::reduce(self.reduce, numbers)? * self.multiplier)
    }

    fn boolean(&self, numbers: impl Iterator<Item = f64>) -> Option<Scalar> {
        scalar::boolean(scalar::reduce(self.reduce, numbers)?).map(Scalar::Boolean)
    }
}

#[cfg(test)]
mod tests;
