//! Values out of an agent's answer: compiled once when a plugin is accepted, applied to each answer. Pure.
//!
//! What is missing, null, NaN or infinite is absent and never 0. Only numbers and booleans come through; text only as
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
    counters::{Counters, Reading as CounterReading},
    exposition::{self, Series, Wanted},
    expression::{Expression, Inputs, RunError},
    readings::Readings,
};
use crate::{
    api::{
        fleet_plugin::{Metric, Reading, Reduce, ValueType},
        server_status::{PLUGIN_VALUES_MAX, Scalar},
    },
    probe::Failure,
};
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
pub struct CompiledValues(Vec<CompiledValue>);

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
}

impl CompiledValues {
    /// The names and types of all values.
    pub fn types(&self) -> Vec<(&str, ValueType)> {
        self.0.iter().map(|value| (value.name.as_str(), value.type_)).collect()
    }

    /// The readings that this plugin is a source of.
    pub fn readings(&self) -> impl Iterator<Item = Reading> {
        self.0.iter().filter_map(|value| value.reading)
    }

    /// Applies the values to an answer that came at this time; without any, keeps its numbers and booleans.
    ///
    /// An answer in which nothing is found is not this plugin's agent, often another exporter on the same port, and is
    /// [`Failure::InvalidResponse`].
    pub fn extract(
        &self,
        answer: &Answer<'_>,
        at: Instant,
        interval: Duration,
        counters: &mut Counters,
    ) -> Result<AgentValues, Failure> {
        let mut extraction = Extraction {
            found: AgentValues::default(),
            anything: false,
            counters: counters.begin(at, interval),
            places: OnceCell::new(),
        };
        match answer {
            _ if self.0.is_empty() => {
                extraction.found.values = match answer {
                    Answer::Json(json) => unnamed::of_json(json),
                    Answer::Exposition(body) => {
                        unnamed::of_samples(&exposition::unlabelled(body, PLUGIN_VALUES_MAX)?)
                    }
                };
                extraction.anything = !extraction.found.values.is_empty();
            }
            Answer::Json(json) => {
                for (index, value) in self.0.iter().enumerate() {
                    if let Source::Paths(paths) = &value.source {
                        extraction.json(index, value, paths, json);
                    } else {
                        extraction.expression(value);
                    }
                }
            }
            Answer::Exposition(body) => {
                let mut series = exposition::read(body, &self.wanted())?.into_iter();
                for (index, value) in self.0.iter().enumerate() {
                    if let Source::Metric(_) = &value.source {
                        extraction.metric(index, value, &series.next().unwrap_or_default());
                    } else {
                        extraction.expression(value);
                    }
                }
            }
        }
        let Extraction { found, anything, counters: reading, .. } = extraction;
        *counters = reading.end();
        if anything { Ok(found) } else { Err(Failure::InvalidResponse) }
    }

    /// The metrics that are looked for, in the order of their values.
    fn wanted(&self) -> Vec<Wanted<'_>> {
        let metrics = self.0.iter().filter_map(|value| match &value.source {
            Source::Metric(metric) => Some(metric),
            _ => None,
        });
        metrics
            .map(|metric| Wanted {
                name: &metric.name,
                labels: &metric.labels,
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
    /// Where the nodes of the answer stand, once a rate needs it.
    places: OnceCell<HashMap<*const Json, u64>>,
}

impl Extraction<'_> {
    /// The first path with a usable match counts.
    fn json(&mut self, index: usize, value: &CompiledValue, paths: &[Path], answer: &Json) {
        if value.rate {
            let scalar = self.json_rate(index, value, paths, answer);
            self.keep(value, scalar);
            return;
        }
        let scalar = paths.iter().find_map(|path| {
            let mut nodes = path.query(answer);
            match value.type_ {
                ValueType::Integer => value.number(nodes.filter_map(Json::as_f64)),
                ValueType::Boolean => {
                    value.boolean(nodes.filter_map(Json::as_bool).map(|truth| f64::from(u8::from(truth))))
                }
                ValueType::Time => nodes
                    .find_map(|node| match node {
                        Json::Number(number) => scalar::time_of_seconds(number.as_f64()? * value.multiplier),
                        Json::String(text) => scalar::time_of_text(text),
                        _ => None,
                    })
                    .map(scalar::time),
                ValueType::Hostname => nodes.find_map(|node| scalar::hostname(node.as_str()?)),
            }
        });
        self.anything |= scalar.is_some();
        self.keep(value, scalar);
    }

    /// The first path with a number counts, whether or not it has a rate yet: another one is another counter.
    fn json_rate(
        &mut self,
        index: usize,
        value: &CompiledValue,
        paths: &[Path],
        answer: &Json,
    ) -> Option<Scalar> {
        let places = self.places.get_or_init(|| places(answer));
        let numbers = paths.iter().find_map(|path| {
            let numbers = path
                .query(answer)
                .filter_map(|node| Some((*places.get(&ptr::from_ref(node))?, node.as_f64()?)));
            Some(numbers.collect::<Vec<(u64, f64)>>()).filter(|numbers| !numbers.is_empty())
        })?;
        self.anything = true;
        value.number(self.counters.rates(index, numbers.into_iter()).into_iter())
    }

    fn metric(&mut self, index: usize, value: &CompiledValue, series: &[Series]) {
        self.anything |= !series.is_empty();
        let numbers = series.iter().map(|series| series.number);
        let scalar = if value.rate {
            let rates = self.counters.rates(index, series.iter().map(|series| (series.key, series.number)));
            value.number(rates.into_iter())
        } else {
            match value.type_ {
                ValueType::Integer => value.number(numbers),
                ValueType::Boolean => value.boolean(numbers),
                ValueType::Time => scalar::reduce(value.reduce, numbers)
                    .and_then(|number| scalar::time_of_seconds(number * value.multiplier))
                    .map(scalar::time),
                ValueType::Hostname => {
                    series.iter().find_map(|series| scalar::hostname(series.text.as_deref()?))
                }
            }
        };
        self.keep(value, scalar);
    }

    /// What needs a source that this answer does not have is absent, as is what needs an absent value.
    fn expression(&mut self, value: &CompiledValue) {
        let Source::Expression(expression) = &value.source else { return };
        let inputs = Inputs { values: &self.found.values, previous: None, server: None };
        let outcome = match value.type_ {
            ValueType::Boolean => expression.boolean(&inputs).map(|truth| truth.map(Scalar::Boolean)),
            ValueType::Time => expression.number(&inputs).map(|number| {
                number.and_then(|number| scalar::time_of_seconds(number * value.multiplier)).map(scalar::time)
            }),
            _ => expression.number(&inputs).map(|number| value.number(number.into_iter())),
        };
        match outcome {
            Ok(scalar) => self.keep(value, scalar),
            // A share of nothing is not known, and no mistake of the expression.
            Err(RunError::DivisionByZero | RunError::NotFinite) => {}
            Err(error) => {
                self.found.fault.get_or_insert_with(|| format!("value {}: {error}", value.name));
            }
        }
    }

    fn keep(&mut self, value: &CompiledValue, scalar: Option<Scalar>) {
        let Some(scalar) = scalar else { return };
        if let Some(reading) = value.reading {
            feed(&mut self.found.readings, reading, &scalar);
        }
        self.found.values.insert(value.name.clone(), scalar);
    }
}

impl CompiledValue {
    fn number(&self, numbers: impl Iterator<Item = f64>) -> Option<Scalar> {
        scalar::round(scalar::reduce(self.reduce, numbers)? * self.multiplier).map(Scalar::Integer)
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

fn feed(readings: &mut Readings, reading: Reading, scalar: &Scalar) {
    match (reading, scalar) {
        (Reading::Hostname, Scalar::Text(name)) => readings.hostname = Some(name.clone()),
        (Reading::BootTime, Scalar::Text(time)) => readings.boot_time = time.parse().ok(),
        (_, Scalar::Integer(number)) => readings.set(reading, *number),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
