//! Values out of an agent's answer: compiled once when a plugin is accepted, applied to each answer. Pure.
//!
//! What is missing, null, NaN or infinite is absent and never 0, and a sum with such a member is absent too. Only numbers and booleans come through; text only as
//! a parsed time or host name, so that an agent does not become a way to read other services. A number is read as a
//! double, made a rate if it is to be one, reduced, multiplied, and then rounded half away from zero; expressions and
//! rules work with what came out of that, which is what people see in status.

mod compile;
mod path;
mod scalar;
mod unnamed;

pub use compile::{ValueError, compile};

use super::{
    answer::Answer,
    counters::{Counters, Rate, Reading as CounterReading, Sample},
    exposition::{self, Series, Wanted},
    expression::{Expression, Inputs, RunError},
    filter::Filter,
    readings::{Implausible, Readings, boot_time_before, is_boot_time, plausible},
};
use crate::{
    api::{
        fleet_plugin::{Metric, Reading, Reduce, ValueType},
        server_status::{PLUGIN_VALUES_MAX, Scalar},
    },
    probe::AgentFailure,
};
use k8s_openapi::jiff::Timestamp;
use path::Path;
use serde_json::Value as Json;
use std::{
    cell::OnceCell,
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    ptr,
    time::{Duration, Instant},
};

/// All values of a plugin, in their order.
#[derive(Debug)]
pub struct CompiledValues {
    values: Vec<CompiledValue>,
    /// What of a JSON answer they can reach.
    filter: Filter,
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
    /// Readings that no machine can have; they are absent, and the values are as they were reported.
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
        let classic = |metric: &Metric| {
            let labels = metric.labels.keys().chain(&metric.distinct_by).chain(&metric.label);
            [&metric.name].into_iter().chain(labels).all(|name| exposition::is_classic(name))
        };
        let all_classic = self.values.iter().all(|value| match &value.source {
            Source::Metric(metric) => classic(metric),
            Source::Paths(_) | Source::Expression(_) => true,
        });
        if all_classic { "*/*" } else { exposition::ACCEPT_UTF8 }
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
        let mut extraction = Extraction {
            found: AgentValues::default(),
            anything: false,
            counters: counters.begin(arrival.at, interval),
            clock: arrival.clock,
            places: OnceCell::new(),
        };
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
        let Extraction { mut found, anything, counters: reading, .. } = extraction;
        *counters = reading.end();
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

/// One answer under way.
struct Extraction<'a> {
    found: AgentValues,
    /// Whether anything of the answer was of use, if only for the next one.
    anything: bool,
    counters: CounterReading<'a>,
    clock: Timestamp,
    /// Where the nodes of the answer stand, once a rate needs it.
    places: OnceCell<HashMap<*const Json, u64>>,
}

impl Extraction<'_> {
    /// The first path with a usable match counts.
    fn json(&mut self, index: usize, value: &CompiledValue, paths: &[Path], answer: &Json) {
        match value.type_ {
            ValueType::Integer if value.rate => {
                let number = self.json_rate(index, value, paths, answer);
                self.keep_number(value, number);
            }
            ValueType::Integer => {
                let number = self.first_known(paths, answer, scalar::number_of);
                self.keep_number(value, number.and_then(|numbers| value.number(numbers.into_iter())));
            }
            ValueType::Boolean => {
                let truths = self.first_known(paths, answer, |node| match node {
                    Json::Bool(truth) => Some(f64::from(u8::from(*truth))),
                    Json::Array(_) | Json::Object(_) => None,
                    _ => Some(f64::NAN),
                });
                self.keep(value, truths.and_then(|truths| value.boolean(truths.into_iter())));
            }
            ValueType::Time => {
                let time = self.first_usable(paths, answer, |node| match node {
                    Json::Number(number) => scalar::time_of_seconds(number.as_f64()? * value.multiplier),
                    Json::String(text) => scalar::time_of_text(text).or_else(|| {
                        scalar::time_of_seconds(scalar::number_of_text(text)? * value.multiplier)
                    }),
                    _ => None,
                });
                self.keep(value, time.map(scalar::time));
            }
            ValueType::Hostname => {
                let name = self.first_usable(paths, answer, |node| scalar::hostname(node.as_str()?));
                self.keep(value, name);
            }
        }
    }

    /// The matches of the first path that has a known number among them.
    fn first_known(
        &mut self,
        paths: &[Path],
        answer: &Json,
        read: impl Fn(&Json) -> Option<f64>,
    ) -> Option<Vec<f64>> {
        paths.iter().find_map(|path| {
            let numbers: Vec<f64> = path.query(answer).filter_map(&read).collect();
            self.anything |= !numbers.is_empty();
            Some(numbers).filter(|numbers| numbers.iter().any(|number| number.is_finite()))
        })
    }

    /// The first match of the first path that has one of this kind.
    fn first_usable<T>(
        &mut self,
        paths: &[Path],
        answer: &Json,
        read: impl Fn(&Json) -> Option<T>,
    ) -> Option<T> {
        paths.iter().flat_map(|path| path.query(answer)).find_map(|node| {
            self.anything |= !matches!(node, Json::Array(_) | Json::Object(_));
            read(node)
        })
    }

    /// The first path with a number counts, whether or not it has a rate yet: another one is another counter.
    fn json_rate(
        &mut self,
        index: usize,
        value: &CompiledValue,
        paths: &[Path],
        answer: &Json,
    ) -> Option<f64> {
        let places = self.places.get_or_init(|| places(answer));
        let samples = paths.iter().find_map(|path| {
            let samples = path.query(answer).filter_map(|node| {
                let series = *places.get(&ptr::from_ref(node))?;
                Some(Sample { series, group: series, number: scalar::number_of(node)?, at: None })
            });
            let samples: Vec<Sample> = samples.collect();
            self.anything |= !samples.is_empty();
            Some(samples).filter(|samples| samples.iter().any(|sample| sample.number.is_finite()))
        })?;
        let rates = self.counters.rates(index, samples.into_iter());
        value.number(rates.into_iter().map(|rate| rate.number))
    }

    fn metric(&mut self, index: usize, value: &CompiledValue, series: &[Series]) {
        let Source::Metric(metric) = &value.source else { return };
        self.anything |= !series.is_empty();
        let counted = |members: &mut dyn Iterator<Item = (u64, f64)>| {
            if metric.distinct_by.is_empty() {
                members.map(|(_, number)| number).collect()
            } else {
                scalar::largest_of_each(members)
            }
        };
        let numbers: Vec<f64> = if value.rate {
            let samples = series.iter().map(|one| Sample {
                series: one.key,
                group: one.group,
                number: one.number,
                at: one.at,
            });
            let rates = self.counters.rates(index, samples);
            counted(&mut rates.into_iter().map(|Rate { group, number }| (group, number)))
        } else {
            counted(&mut series.iter().map(|one| (one.group, one.number)))
        };
        let numbers = numbers.into_iter();
        match value.type_ {
            ValueType::Integer => self.keep_number(value, value.number(numbers)),
            ValueType::Boolean => self.keep(value, value.boolean(numbers)),
            ValueType::Time => {
                let time = scalar::reduce(value.reduce, numbers)
                    .and_then(|number| scalar::time_of_seconds(number * value.multiplier));
                self.keep(value, time.map(scalar::time));
            }
            ValueType::Hostname => {
                // A label of a series that stands at nothing is none.
                let known = series.iter().filter(|series| series.number.is_finite());
                let mut names = known.filter_map(|series| scalar::hostname(series.text.as_deref()?));
                self.keep(value, names.next());
            }
        }
    }

    /// What needs a source that this answer does not have is absent, as is what needs an absent value.
    fn expression(&mut self, value: &CompiledValue) {
        let Source::Expression(expression) = &value.source else { return };
        let inputs = Inputs { values: &self.found.values, previous: None, server: None };
        let outcome = match value.type_ {
            ValueType::Boolean => {
                expression.boolean(&inputs).map(|truth| self.keep(value, truth.map(Scalar::Boolean)))
            }
            ValueType::Time => expression.number(&inputs).map(|number| {
                let time = number.and_then(|number| scalar::time_of_seconds(number * value.multiplier));
                self.keep(value, time.map(scalar::time));
            }),
            _ => expression
                .number(&inputs)
                .map(|number| self.keep_number(value, value.number(number.into_iter()))),
        };
        match outcome {
            // A share of nothing is not known, and no mistake of the expression.
            Ok(()) | Err(RunError::DivisionByZero | RunError::NotFinite) => {}
            Err(error) => {
                self.found.fault.get_or_insert_with(|| format!("value {}: {error}", value.name));
            }
        }
    }

    /// A number becomes a reading before it is rounded: what is past what can be must not come within it.
    fn keep_number(&mut self, value: &CompiledValue, number: Option<f64>) {
        let Some(number) = number else { return };
        if let Some(reading) = value.reading {
            let good = if reading == Reading::UptimeSeconds {
                self.start_from_uptime(number)
            } else {
                plausible(reading, number).map(|number| self.found.readings.set(reading, number)).is_some()
            };
            if !good {
                self.found.implausible.insert(reading, Implausible::Range);
            }
        }
        if let Some(number) = scalar::round(number) {
            self.found.values.insert(value.name.clone(), Scalar::Integer(number));
        }
    }

    /// Whether it can be. A boot time that the agent tells itself is nearer to the truth.
    fn start_from_uptime(&mut self, seconds: f64) -> bool {
        let Some(started) = boot_time_before(self.clock, seconds) else { return false };
        let readings = &mut self.found.readings;
        if readings.boot_time.is_none() {
            (readings.boot_time, readings.boot_time_is_computed) = (Some(started), true);
        }
        true
    }

    fn keep(&mut self, value: &CompiledValue, scalar: Option<Scalar>) {
        let Some(scalar) = scalar else { return };
        match (value.reading, &scalar) {
            (Some(Reading::Hostname), Scalar::Text(name)) => {
                self.found.readings.hostname = Some(name.clone())
            }
            (Some(Reading::BootTime), Scalar::Text(time)) => {
                let time = time.parse().ok().filter(|time| is_boot_time(*time, self.clock));
                if time.is_some() {
                    let readings = &mut self.found.readings;
                    (readings.boot_time, readings.boot_time_is_computed) = (time, false);
                } else {
                    self.found.implausible.insert(Reading::BootTime, Implausible::Range);
                }
            }
            _ => {}
        }
        self.found.values.insert(value.name.clone(), scalar);
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

/// A hash of where each node stands: the same in each answer. A path that matches one node many times, at the end of a
/// long way, would write that way down for each match; so every way is walked once.
fn places(answer: &Json) -> HashMap<*const Json, u64> {
    let below = |place: u64, step: &dyn Fn(&mut DefaultHasher)| {
        let mut hasher = DefaultHasher::new();
        place.hash(&mut hasher);
        step(&mut hasher);
        hasher.finish()
    };
    let mut places = HashMap::new();
    let mut left = vec![(answer, 0)];
    while let Some((node, place)) = left.pop() {
        places.insert(ptr::from_ref(node), place);
        match node {
            Json::Array(items) => left.extend(
                items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| (item, below(place, &|hasher| index.hash(hasher)))),
            ),
            Json::Object(fields) => {
                left.extend(
                    fields.iter().map(|(key, item)| (item, below(place, &|hasher| key.hash(hasher)))),
                );
            }
            _ => {}
        }
    }
    places
}

#[cfg(test)]
mod tests;
