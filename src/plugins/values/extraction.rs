//! One answer taken apart: each value looked for in its turn, with the readings that it fills. Pure.

use super::{AgentValues, CompiledValue, Source, path::Path, scalar};
use crate::{
    api::{
        fleet_plugin::{Reading, ValueType},
        server_status::Scalar,
    },
    plugins::{
        counters::{Counters, Rate, Reading as CounterReading, Sample},
        exposition::Series,
        expression::{Inputs, RunError},
        number::round,
        readings::{Implausible, boot_time_before, is_boot_time, plausible},
    },
};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value as Json;
use std::{
    cell::OnceCell,
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    ptr,
};

/// One answer under way.
pub(super) struct Extraction<'a> {
    pub found: AgentValues,
    /// Whether anything of the answer was of use, if only for the next one.
    pub anything: bool,
    counters: CounterReading<'a>,
    clock: Timestamp,
    /// Where the nodes of the answer stand, once a rate needs it.
    places: OnceCell<HashMap<*const Json, u64>>,
}

impl<'a> Extraction<'a> {
    pub fn new(counters: CounterReading<'a>, clock: Timestamp) -> Self {
        Self { found: AgentValues::default(), anything: false, counters, clock, places: OnceCell::new() }
    }

    /// What was found, whether anything was, and what to compare the counters of the next answer with.
    pub fn end(self) -> (AgentValues, bool, Counters) {
        (self.found, self.anything, self.counters.end())
    }

    /// The first path with a usable match counts.
    pub fn json(&mut self, index: usize, value: &CompiledValue, paths: &[Path], answer: &Json) {
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

    pub fn metric(&mut self, index: usize, value: &CompiledValue, series: &[Series]) {
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
    pub fn expression(&mut self, value: &CompiledValue) {
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
                // Not as a value either: rules judge those.
                self.found.implausible.insert(reading, Implausible::Range);
                return;
            }
        }
        if let Some(number) = round(number) {
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
                self.found.readings.hostname = Some(name.clone());
            }
            (Some(Reading::BootTime), Scalar::Text(time)) => {
                let time = time.parse().ok().filter(|time| is_boot_time(*time, self.clock));
                if time.is_some() {
                    let readings = &mut self.found.readings;
                    (readings.boot_time, readings.boot_time_is_computed) = (time, false);
                } else {
                    // Nor is it a value, as with numbers.
                    self.found.implausible.insert(Reading::BootTime, Implausible::Range);
                    return;
                }
            }
            _ => {}
        }
        self.found.values.insert(value.name.clone(), scalar);
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
