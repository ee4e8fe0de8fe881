//! Numbers out of what Prometheus would scrape: its text format 0.0.4 and the text of OpenMetrics 1.0. Pure.
//!
//! The text is read line by line, and nothing of it is kept but what was asked for. One line that is not of this format
//! makes the whole body [`Failure::InvalidResponse`], as Prometheus refuses the whole scrape: a sum over the other lines
//! would be a lie. So a page, JSON or a log is refused at its first line. Comments are not looked into, so that a body of
//! nothing else, or of nothing at all, has no series and is no failure. Beyond Prometheus, lines may end in CR LF.
//!
//! A series that stands there several times counts once, with its newest sample: an agent that collects for others sends
//! what it heard in any order. A sample without a timestamp is of now, and of several the last is the newest. NaN and the
//! infinities are no number and never 0; the series is there, and what it stands at is unknown. A label with an empty
//! value is the same as none.
//!
//! It is our own because the crates that read the format make objects of the whole text, and besides prometheus-parse 0.2
//! ends a label's value at a comma and passes over lines that it does not understand, and openmetrics-parser 0.5 is LGPL.
//!
//! [`Failure::InvalidResponse`]: crate::probe::Failure::InvalidResponse

mod line;
mod names;

pub use names::{ACCEPT_UTF8, is_classic};

use crate::probe::AgentFailure;
use line::{Fault, Labels, Rest, key};
use names::Name;
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

/// Longest line of a sample. With a few labels it has 200 bytes; with all of a Kubernetes object's some thousands.
const LINE_MAX: usize = 64 * 1024;
/// Series of one wanted metric: a machine with 256 CPUs has 2048 of `node_cpu_seconds_total`. A sum over some of them
/// would be a lie, so more are refused.
const SERIES_MAX: usize = 4096;
/// Bytes of label text that are kept for all wanted metrics: 64 for each series of one that has the most.
const KEPT_TEXT_MAX: usize = 256 * 1024;
/// Looks at labels in one answer: a plugin with all 32 values of one metric, and all 8 labels at each, looks at 16,384
/// samples of it, more than an answer of an exporter has. They take some 0.1 s.
const COMPARISONS_MAX: usize = 32 * 8 * 16_384;
/// Samples without labels that are remembered for each one that is wanted, as the newest of a series may be NaN.
const UNLABELLED_SPARE: usize = 8;

/// An answer in the text format.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    pub body: &'a [u8],
    /// Timestamps are seconds, as in `OpenMetrics`, and not milliseconds.
    pub seconds: bool,
}

/// A metric that is wanted: its name and the labels that a series must have, with exactly these values; an empty one
/// wants the label to be absent or empty.
pub struct Wanted<'a> {
    pub name: &'a str,
    pub labels: &'a BTreeMap<String, String>,
    /// Labels that make one group of the series that agree in them.
    pub distinct_by: &'a [String],
    /// The label whose text is wanted beside the number.
    pub label: Option<&'a str>,
}

/// One series of a wanted metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Hash of the name and all labels: the same in any order of the labels, in any process and after any restart.
    pub key: u64,
    /// The same for all series that measure one thing; without `distinct_by` that of the series itself.
    pub group: u64,
    /// Not finite: unknown.
    pub number: f64,
    /// When the agent took the sample, in seconds since 1970, where it tells.
    pub at: Option<f64>,
    /// Of the wanted label; absent if the label is absent or empty.
    pub text: Option<String>,
}

/// The samples without labels.
#[derive(Debug, PartialEq)]
pub struct Unlabelled {
    pub numbers: BTreeMap<String, f64>,
    /// Whether there was any, also one without a number.
    pub any: bool,
}

/// What is looked for once, however many want it.
struct Lookup<'a> {
    /// Those that must be there come first: most samples lack one of them.
    labels: Vec<(Name<'a>, &'a str)>,
    distinct_by: Vec<Name<'a>>,
    label: Option<Name<'a>>,
    /// Places among what is wanted, and which form of the name this is there: an earlier one is nearer.
    wanted_at: Vec<(usize, usize)>,
    found: Vec<Series>,
}

/// What is wanted, by each form of the metric's name.
fn lookups<'a>(wanted: &[Wanted<'a>]) -> HashMap<Cow<'a, str>, Vec<Lookup<'a>>> {
    let mut by_name: HashMap<Cow<'_, str>, Vec<Lookup<'_>>> = HashMap::new();
    for (place, wanted) in wanted.iter().enumerate() {
        let (absent, present): (Vec<_>, Vec<_>) = wanted
            .labels
            .iter()
            .map(|(label, value)| (Name::new(label), value.as_str()))
            .partition(|(_, value)| value.is_empty());
        let labels = [present, absent].concat();
        let distinct_by: Vec<Name<'_>> = wanted.distinct_by.iter().map(|label| Name::new(label)).collect();
        let label = wanted.label.map(Name::new);
        for (rank, form) in Name::new(wanted.name).into_forms().enumerate() {
            let known = by_name.entry(form).or_default();
            if let Some(lookup) = known.iter_mut().find(|lookup| {
                lookup.labels == labels && lookup.distinct_by == distinct_by && lookup.label == label
            }) {
                lookup.wanted_at.push((place, rank));
            } else {
                known.push(Lookup {
                    labels: labels.clone(),
                    distinct_by: distinct_by.clone(),
                    label: label.clone(),
                    wanted_at: vec![(place, rank)],
                    found: Vec::new(),
                });
            }
        }
    }
    by_name
}

/// The series of each wanted metric, in the order of the text. Of a name that exporters write in several forms, those of
/// the nearest form that is there.
pub fn read(text: Text<'_>, wanted: &[Wanted<'_>]) -> Result<Vec<Vec<Series>>, AgentFailure> {
    let mut by_name = lookups(wanted);
    let mut text_left = KEPT_TEXT_MAX;
    let mut looks_left = COMPARISONS_MAX;
    let mut look = || {
        looks_left = looks_left.checked_sub(1)?;
        Some(())
    };
    let dear =
        || AgentFailure::too_large("the answer has more samples of the plugin's metrics than are read");
    each_sample(text, |name, labels, number, at| {
        let mut own_key = None;
        for lookup in by_name.get_mut(name).into_iter().flatten() {
            let mut same = true;
            for (label, value) in &lookup.labels {
                look().ok_or_else(dear)?;
                if labels.find(label).unwrap_or_default() != *value {
                    same = false;
                    break;
                }
            }
            if !same {
                continue;
            }
            if lookup.found.len() == SERIES_MAX {
                return Err(AgentFailure::too_large(&format!(
                    "metric {name} has more than {SERIES_MAX} series; choose some by metric.labels"
                )));
            }
            let text = lookup.label.as_ref().and_then(|label| labels.find(label));
            let kept = text.map_or(0, str::len) * lookup.wanted_at.len();
            text_left = text_left.checked_sub(kept).ok_or_else(dear)?;
            let own_key = *own_key.get_or_insert_with(|| labels.key(name));
            let mut group = own_key;
            if !lookup.distinct_by.is_empty() {
                lookup.distinct_by.iter().try_for_each(|_| look()).ok_or_else(dear)?;
                group = key(lookup.distinct_by.iter().map(|label| labels.find(label).unwrap_or_default()));
            }
            lookup.found.push(Series { key: own_key, group, number, at, text: text.map(str::to_owned) });
        }
        Ok(())
    })?;
    let mut found: Vec<(usize, Vec<Series>)> = wanted.iter().map(|_| (usize::MAX, Vec::new())).collect();
    for mut lookup in by_name.into_values().flatten() {
        newest_of_each(&mut lookup.found);
        for (place, rank) in lookup.wanted_at {
            if !lookup.found.is_empty() && rank < found[place].0 {
                found[place] = (rank, lookup.found.clone());
            }
        }
    }
    Ok(found.into_iter().map(|(_, series)| series).collect())
}

/// The samples without labels, by name: at most `most`, those whose names come first, whatever the order of the text.
pub fn unlabelled(text: Text<'_>, most: usize) -> Result<Unlabelled, AgentFailure> {
    let mut found: BTreeMap<String, (f64, Option<f64>)> = BTreeMap::new();
    let room = most.saturating_mul(UNLABELLED_SPARE);
    each_sample(text, |name, labels, number, at| {
        if !labels.0.is_empty() {
            return Ok(());
        }
        if let Some(known) = found.get_mut(name) {
            if is_newer(at, known.1) {
                *known = (number, at);
            }
        } else if found.len() < room || found.last_key_value().is_some_and(|(last, _)| name < last.as_str()) {
            found.insert(name.to_owned(), (number, at));
            if found.len() > room {
                found.pop_last();
            }
        }
        Ok(())
    })?;
    let any = !found.is_empty();
    let known = found.into_iter().map(|(name, (number, _))| (name, number));
    Ok(Unlabelled { numbers: known.filter(|(_, number)| number.is_finite()).take(most).collect(), any })
}

/// Whether a later sample of a series is newer than an earlier one, by their times. One without a time is of now.
fn is_newer(later: Option<f64>, earlier: Option<f64>) -> bool {
    match (later, earlier) {
        (Some(later), Some(earlier)) => later >= earlier,
        (Some(_), None) => false,
        (None, _) => true,
    }
}

/// Leaves each series once, at its first place with its newest sample.
fn newest_of_each(series: &mut Vec<Series>) {
    let mut places: HashMap<u64, usize> = HashMap::with_capacity(series.len());
    let mut kept: Vec<Series> = Vec::with_capacity(series.len());
    for one in series.drain(..) {
        if let Some(&place) = places.get(&one.key) {
            if is_newer(one.at, kept[place].at) {
                kept[place] = one;
            }
        } else {
            places.insert(one.key, kept.len());
            kept.push(one);
        }
    }
    *series = kept;
}

/// Calls `visit` with name, labels, number and time of each sample.
fn each_sample<'a>(
    Text { body, seconds }: Text<'a>,
    mut visit: impl FnMut(&str, &Labels<'a>, f64, Option<f64>) -> Result<(), AgentFailure>,
) -> Result<(), AgentFailure> {
    let text = str::from_utf8(body)
        .map_err(|error| not_text(body, body[..error.valid_up_to()].split(|byte| *byte == b'\n').count()))?;
    let unit = if seconds { 1.0 } else { 1000.0 };
    let mut labels = Labels::default();
    let mut exemplar = Labels::default();
    for (index, line) in text.split('\n').enumerate() {
        let mut rest = Rest(line.strip_suffix('\r').unwrap_or(line));
        rest.skip_blanks();
        if rest.0.is_empty() || rest.0.starts_with('#') {
            continue;
        }
        let at_line = |fault| match fault {
            Fault::Format => not_text(body, index + 1),
            Fault::Large => too_long(index + 1),
        };
        let sample = rest.sample(&mut labels, &mut exemplar).map_err(at_line)?;
        // Only now, so that a long line of something else is known as that.
        if line.len() > LINE_MAX {
            return Err(too_long(index + 1));
        }
        labels.sort().map_err(at_line)?;
        visit(&sample.name, &labels, sample.number, sample.timestamp.map(|timestamp| timestamp / unit))?;
    }
    Ok(())
}

/// What the answer is, where it is known, else the first line that is no sample.
fn not_text(body: &[u8], line: usize) -> AgentFailure {
    match body.trim_ascii_start().first() {
        Some(b'<') => AgentFailure::invalid("the answer is a page (HTML or XML), not metrics"),
        Some(b'{' | b'[') => AgentFailure::invalid("the answer is JSON, not Prometheus' text format"),
        _ => AgentFailure::invalid(&format!("line {line} of the answer is not in Prometheus' text format")),
    }
}

fn too_long(line: usize) -> AgentFailure {
    AgentFailure::too_large(&format!(
        "line {line} of the answer has more labels, or longer ones, than the operator reads"
    ))
}

#[cfg(test)]
mod tests;
