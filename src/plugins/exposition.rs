//! Numbers out of what Prometheus would scrape: its text format 0.0.4 and the text of OpenMetrics 1.0. Pure.
//!
//! The text is read line by line, and nothing of it is kept but what was asked for. One line that is not of this format
//! makes the whole body [`Failure::InvalidResponse`], as Prometheus refuses the whole scrape: a sum over the other lines
//! would be a lie. So a page, JSON or a log is refused at its first line. Comments are not looked into, so that a body of
//! nothing else, or of nothing at all, has no series and is no failure. Beyond Prometheus, lines may end in CR LF.
//!
//! A series that stands there twice counts once, with what it says last, as a later sample is the newer one. NaN and the
//! infinities are no value and never 0. A label with an empty value is the same as none.
//!
//! It is our own because the crates that read the format make objects of the whole text, and besides prometheus-parse 0.2
//! ends a label's value at a comma and passes over lines that it does not understand, and openmetrics-parser 0.5 is LGPL.

use crate::probe::Failure;
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

/// Longest line of a sample. With a few labels it has 200 bytes; with all of a Kubernetes object's some thousands.
const LINE_MAX: usize = 64 * 1024;
/// Labels of one sample. Exporters have up to a dozen, and they are sorted at each line.
const LABELS_MAX: usize = 64;
/// Longest name or value of a label, and longest name of a metric: paths are among them, and Linux ends those here.
const TEXT_MAX: usize = 4096;
/// Series of one wanted metric: a machine with 256 CPUs has 2048 of `node_cpu_seconds_total`. A sum over some of them
/// would be a lie, so more are refused.
const SERIES_MAX: usize = 4096;
/// Bytes of label text that are kept for all wanted metrics: 64 for each series of one that has the most.
const KEPT_TEXT_MAX: usize = 256 * 1024;
/// Comparisons with wanted labels in one answer: a plugin with all 32 values of one metric, and all 8 labels at each,
/// looks at 16,384 samples of it, more than an answer of an exporter has. They take some 0.1 s.
const COMPARISONS_MAX: usize = 32 * 8 * 16_384;

/// A metric that is wanted: its name and the labels that a series must have, with exactly these values; an empty one
/// wants the label to be absent or empty.
pub struct Wanted<'a> {
    pub name: &'a str,
    pub labels: &'a BTreeMap<String, String>,
    /// The label whose text is wanted beside the number.
    pub label: Option<&'a str>,
}

/// One series of a wanted metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Hash of the name and all labels: the same in any order of the labels, in any process and after any restart.
    pub key: u64,
    pub number: f64,
    /// Of the wanted label; absent if the label is absent or empty.
    pub text: Option<String>,
}

/// What is looked for once, however many want it.
struct Lookup<'a> {
    /// Those that must be there come first: most samples lack one of them.
    labels: Vec<(&'a str, &'a str)>,
    label: Option<&'a str>,
    /// Places among what is wanted.
    wanted_at: Vec<usize>,
    found: Vec<Series>,
}

/// What is wanted, by the name of the metric.
fn lookups<'a>(wanted: &[Wanted<'a>]) -> HashMap<&'a str, Vec<Lookup<'a>>> {
    let mut by_name: HashMap<&str, Vec<Lookup<'_>>> = HashMap::new();
    for (place, wanted) in wanted.iter().enumerate() {
        let (absent, present): (Vec<_>, Vec<_>) = wanted
            .labels
            .iter()
            .map(|(label, value)| (label.as_str(), value.as_str()))
            .partition(|(_, value)| value.is_empty());
        let labels = [present, absent].concat();
        let known = by_name.entry(wanted.name).or_default();
        if let Some(lookup) =
            known.iter_mut().find(|lookup| lookup.labels == labels && lookup.label == wanted.label)
        {
            lookup.wanted_at.push(place);
        } else {
            let wanted_at = vec![place];
            known.push(Lookup { labels, label: wanted.label, wanted_at, found: Vec::new() });
        }
    }
    by_name
}

/// The series of each wanted metric, in the order of the text.
pub fn read(body: &[u8], wanted: &[Wanted<'_>]) -> Result<Vec<Vec<Series>>, Failure> {
    let mut by_name = lookups(wanted);
    let mut text_left = KEPT_TEXT_MAX;
    let mut comparisons_left = COMPARISONS_MAX;
    each_sample(body, |name, labels, number| {
        let mut key = None;
        for lookup in by_name.get_mut(name).into_iter().flatten() {
            let mut same = true;
            for (label, value) in &lookup.labels {
                comparisons_left = comparisons_left.checked_sub(1).ok_or(Failure::ResponseTooLarge)?;
                if labels.get(label).unwrap_or_default() != *value {
                    same = false;
                    break;
                }
            }
            if !same {
                continue;
            }
            if lookup.found.len() == SERIES_MAX {
                return Err(Failure::ResponseTooLarge);
            }
            let text = lookup.label.and_then(|label| labels.get(label));
            let kept = text.map_or(0, str::len) * lookup.wanted_at.len();
            text_left = text_left.checked_sub(kept).ok_or(Failure::ResponseTooLarge)?;
            let key = *key.get_or_insert_with(|| labels.key(name));
            lookup.found.push(Series { key, number, text: text.map(str::to_owned) });
        }
        Ok(())
    })?;
    let mut found: Vec<Vec<Series>> = wanted.iter().map(|_| Vec::new()).collect();
    for mut lookup in by_name.into_values().flatten() {
        last_of_each(&mut lookup.found);
        for place in lookup.wanted_at {
            found[place].clone_from(&lookup.found);
        }
    }
    Ok(found)
}

/// The samples without labels, by name: at most `most`, those whose names come first, whatever the order of the text.
pub fn unlabelled(body: &[u8], most: usize) -> Result<BTreeMap<String, f64>, Failure> {
    let mut found: BTreeMap<String, f64> = BTreeMap::new();
    each_sample(body, |name, labels, number| {
        if !labels.0.is_empty() {
            return Ok(());
        }
        if !number.is_finite() {
            found.remove(name);
        } else if let Some(known) = found.get_mut(name) {
            *known = number;
        } else if found.len() < most || found.last_key_value().is_some_and(|(last, _)| name < last.as_str()) {
            found.insert(name.to_owned(), number);
            if found.len() > most {
                found.pop_last();
            }
        }
        Ok(())
    })?;
    Ok(found)
}

/// Leaves each series once, at its first place with its last number, and only if that is one.
fn last_of_each(series: &mut Vec<Series>) {
    let mut places: HashMap<u64, usize> = HashMap::with_capacity(series.len());
    let mut kept: Vec<Series> = Vec::with_capacity(series.len());
    for one in series.drain(..) {
        if let Some(&place) = places.get(&one.key) {
            kept[place] = one;
        } else {
            places.insert(one.key, kept.len());
            kept.push(one);
        }
    }
    kept.retain(|one| one.number.is_finite());
    *series = kept;
}

/// The labels of one sample, sorted by name, without empty ones.
#[derive(Default)]
struct Labels<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl Labels<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        let place = self.0.binary_search_by(|(known, _)| known.as_ref().cmp(name)).ok()?;
        Some(&self.0[place].1)
    }

    /// FNV-1a with a byte between the texts that UTF-8 never has.
    fn key(&self, name: &str) -> u64 {
        let texts = self.0.iter().flat_map(|(name, value)| [name.as_ref(), value.as_ref()]);
        let mut key = 0xcbf2_9ce4_8422_2325_u64;
        for text in [name].into_iter().chain(texts) {
            for byte in text.bytes().chain([0xff]) {
                key = (key ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        key
    }

    fn sort(&mut self) -> Result<(), Failure> {
        self.0.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        if self.0.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(Failure::InvalidResponse);
        }
        self.0.retain(|(_, value)| !value.is_empty());
        Ok(())
    }
}

/// Calls `visit` with name, labels and number of each sample.
fn each_sample<'a>(
    body: &'a [u8],
    mut visit: impl FnMut(&str, &Labels<'a>, f64) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let text = str::from_utf8(body).map_err(|_| Failure::InvalidResponse)?;
    let mut labels = Labels::default();
    let mut exemplar = Labels::default();
    for line in text.split('\n') {
        let mut rest = Rest(line.strip_suffix('\r').unwrap_or(line));
        rest.skip_blanks();
        if rest.0.is_empty() || rest.0.starts_with('#') {
            continue;
        }
        let (name, number) = rest.sample(&mut labels, &mut exemplar)?;
        // Only now, so that a long line of something else is known as that.
        if line.len() > LINE_MAX {
            return Err(Failure::ResponseTooLarge);
        }
        labels.sort()?;
        visit(&name, &labels, number)?;
    }
    Ok(())
}

/// What is still to be read of a line.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    /// `name{label="value"} number timestamp # {label="value"} number timestamp`, of which most may be absent.
    fn sample(
        &mut self,
        labels: &mut Labels<'a>,
        exemplar: &mut Labels<'a>,
    ) -> Result<(Cow<'a, str>, f64), Failure> {
        labels.0.clear();
        let mut name = match self.word(true) {
            "" => None,
            word => Some(bounded(Cow::Borrowed(word))?),
        };
        let bare = self.0.len();
        self.skip_blanks();
        if self.eat('{') {
            self.labels(labels, &mut name)?;
            self.skip_blanks();
        } else if self.0.len() == bare {
            // Neither a label nor a blank ends the name.
            return Err(Failure::InvalidResponse);
        }
        let name = name.ok_or(Failure::InvalidResponse)?;
        let number = self.number()?;
        self.timestamp()?;
        if self.eat('#') {
            exemplar.0.clear();
            self.skip_blanks();
            if !self.eat('{') {
                return Err(Failure::InvalidResponse);
            }
            // It has no name of its own, and this is none either.
            self.labels(exemplar, &mut Some(Cow::Borrowed("")))?;
            self.skip_blanks();
            self.number()?;
            self.timestamp()?;
        }
        if self.0.is_empty() { Ok((name, number)) } else { Err(Failure::InvalidResponse) }
    }

    /// The labels after `{`, and the metric's name, which is one in quotes without a value.
    fn labels(&mut self, labels: &mut Labels<'a>, name: &mut Option<Cow<'a, str>>) -> Result<(), Failure> {
        loop {
            self.skip_blanks();
            if self.eat('}') {
                return Ok(());
            }
            let quoted = self.eat('"');
            let label = if quoted { self.quoted()? } else { bounded(Cow::Borrowed(self.word(false)))? };
            if label.is_empty() {
                return Err(Failure::InvalidResponse);
            }
            self.skip_blanks();
            if self.eat('=') {
                self.skip_blanks();
                if !self.eat('"') {
                    return Err(Failure::InvalidResponse);
                }
                let value = self.quoted()?;
                if labels.0.len() == LABELS_MAX {
                    return Err(Failure::ResponseTooLarge);
                }
                labels.0.push((label, value));
            } else if quoted && name.is_none() {
                *name = Some(label);
            } else {
                return Err(Failure::InvalidResponse);
            }
            self.skip_blanks();
            if self.eat('}') {
                return Ok(());
            }
            if !self.eat(',') {
                return Err(Failure::InvalidResponse);
            }
        }
    }

    /// A name as it stands without quotes; that of a metric may have colons.
    fn word(&mut self, colons: bool) -> &'a str {
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || colons && *byte == b':';
        let bytes = self.0.as_bytes();
        if bytes.first().is_some_and(u8::is_ascii_digit) {
            return "";
        }
        self.take(bytes.iter().position(|byte| !fits(byte)).unwrap_or(bytes.len()))
    }

    /// The text up to the closing quote. Only a quote, a backslash and a line break are escaped; as in OpenMetrics, a
    /// backslash before anything else is itself, for paths of Windows.
    fn quoted(&mut self) -> Result<Cow<'a, str>, Failure> {
        let mut text = Cow::Borrowed("");
        loop {
            let special = self.0.bytes().position(|byte| matches!(byte, b'"' | b'\\'));
            let plain = self.take(special.ok_or(Failure::InvalidResponse)?);
            if text.is_empty() {
                text = Cow::Borrowed(plain);
            } else {
                text.to_mut().push_str(plain);
            }
            if text.len() > TEXT_MAX {
                return Err(Failure::ResponseTooLarge);
            }
            if self.eat('"') {
                return Ok(text);
            }
            self.take(1);
            let escaped = match self.0.bytes().next() {
                Some(b'n') => '\n',
                Some(b'"') => '"',
                Some(b'\\') => '\\',
                _ => {
                    text.to_mut().push('\\');
                    continue;
                }
            };
            self.take(1);
            text.to_mut().push(escaped);
        }
    }

    fn number(&mut self) -> Result<f64, Failure> {
        let end = self.0.bytes().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(self.0.len());
        let number = self.take(end).parse().map_err(|_| Failure::InvalidResponse)?;
        self.skip_blanks();
        Ok(number)
    }

    /// In milliseconds or in seconds, by the format; both are numbers.
    fn timestamp(&mut self) -> Result<(), Failure> {
        let absent = self.0.is_empty() || self.0.starts_with('#');
        if absent || self.number()?.is_finite() { Ok(()) } else { Err(Failure::InvalidResponse) }
    }

    fn skip_blanks(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    fn eat(&mut self, sign: char) -> bool {
        self.0.strip_prefix(sign).map(|rest| self.0 = rest).is_some()
    }

    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.0.split_at(bytes);
        self.0 = rest;
        taken
    }
}

fn bounded(text: Cow<'_, str>) -> Result<Cow<'_, str>, Failure> {
    if text.len() > TEXT_MAX { Err(Failure::ResponseTooLarge) } else { Ok(text) }
}

#[cfg(test)]
#[path = "exposition_tests.rs"]
mod tests;
