//! One line of the text format: name, labels, number, timestamp, and the exemplar that may follow. Pure.

use super::names::Name;
use std::borrow::Cow;

/// Labels of one sample. Exporters have up to a dozen, and they are sorted at each line.
pub const LABELS_MAX: usize = 64;
/// Longest name or value of a label, and longest name of a metric: paths are among them, and Linux ends those here.
pub const TEXT_MAX: usize = 4096;

/// Why a line cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not of this format.
    Format,
    /// It has more labels, or longer ones, than are read.
    Large,
}

/// The labels of one sample, sorted by name, without empty ones.
#[derive(Default)]
pub struct Labels<'a>(pub Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl Labels<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        let place = self.0.binary_search_by(|(known, _)| known.as_ref().cmp(name)).ok()?;
        Some(&self.0[place].1)
    }

    /// The value of a label, in whichever form the exporter writes its name; `None` if it is absent or empty.
    pub fn find(&self, name: &Name<'_>) -> Option<&str> {
        let found = self.get(name.as_wanted);
        // Nearly no name has others, and most samples lack what is looked for.
        if found.is_some() || name.escaped.is_empty() {
            return found;
        }
        name.escaped.iter().find_map(|form| self.get(form))
    }

    /// The same for the same name and labels.
    pub fn key(&self, name: &str) -> u64 {
        let texts = self.0.iter().flat_map(|(name, value)| [name.as_ref(), value.as_ref()]);
        key([name].into_iter().chain(texts))
    }

    pub fn sort(&mut self) -> Result<(), Fault> {
        self.0.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        if self.0.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(Fault::Format);
        }
        self.0.retain(|(_, value)| !value.is_empty());
        Ok(())
    }
}

/// FNV-1a with a byte between the texts that UTF-8 never has.
pub fn key<'a>(texts: impl Iterator<Item = &'a str>) -> u64 {
    let mut key = 0xcbf2_9ce4_8422_2325_u64;
    for text in texts {
        for byte in text.bytes().chain([0xff]) {
            key = (key ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    key
}

/// What a line says beside its labels.
pub struct Sample<'a> {
    pub name: Cow<'a, str>,
    pub number: f64,
    /// As it stands there; its unit is the format's.
    pub timestamp: Option<f64>,
}

/// What is still to be read of a line.
pub struct Rest<'a>(pub &'a str);

impl<'a> Rest<'a> {
    /// `name{label="value"} number timestamp # {label="value"} number timestamp`, of which most may be absent.
    pub fn sample(
        &mut self,
        labels: &mut Labels<'a>,
        exemplar: &mut Labels<'a>,
    ) -> Result<Sample<'a>, Fault> {
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
            return Err(Fault::Format);
        }
        let name = name.ok_or(Fault::Format)?;
        let number = self.number()?;
        let timestamp = self.timestamp()?;
        if self.eat('#') {
            exemplar.0.clear();
            self.skip_blanks();
            if !self.eat('{') {
                return Err(Fault::Format);
            }
            // It has no name of its own, and this is none either.
            self.labels(exemplar, &mut Some(Cow::Borrowed("")))?;
            self.skip_blanks();
            self.number()?;
            self.timestamp()?;
        }
        if self.0.is_empty() { Ok(Sample { name, number, timestamp }) } else { Err(Fault::Format) }
    }

    /// The labels after `{`, and the metric's name, which is one in quotes without a value.
    fn labels(&mut self, labels: &mut Labels<'a>, name: &mut Option<Cow<'a, str>>) -> Result<(), Fault> {
        loop {
            self.skip_blanks();
            if self.eat('}') {
                return Ok(());
            }
            let quoted = self.eat('"');
            let label = if quoted { self.quoted()? } else { bounded(Cow::Borrowed(self.word(false)))? };
            if label.is_empty() {
                return Err(Fault::Format);
            }
            self.skip_blanks();
            if self.eat('=') {
                self.skip_blanks();
                if !self.eat('"') {
                    return Err(Fault::Format);
                }
                let value = self.quoted()?;
                if labels.0.len() == LABELS_MAX {
                    return Err(Fault::Large);
                }
                labels.0.push((label, value));
            } else if quoted && name.is_none() {
                *name = Some(label);
            } else {
                return Err(Fault::Format);
            }
            self.skip_blanks();
            if self.eat('}') {
                return Ok(());
            }
            if !self.eat(',') {
                return Err(Fault::Format);
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
    fn quoted(&mut self) -> Result<Cow<'a, str>, Fault> {
        let mut text = Cow::Borrowed("");
        loop {
            let special = self.0.bytes().position(|byte| matches!(byte, b'"' | b'\\'));
            let plain = self.take(special.ok_or(Fault::Format)?);
            if text.is_empty() {
                text = Cow::Borrowed(plain);
            } else {
                text.to_mut().push_str(plain);
            }
            if text.len() > TEXT_MAX {
                return Err(Fault::Large);
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

    fn number(&mut self) -> Result<f64, Fault> {
        let end = self.0.bytes().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(self.0.len());
        let number = self.take(end).parse().map_err(|_| Fault::Format)?;
        self.skip_blanks();
        Ok(number)
    }

    /// In milliseconds or in seconds, by the format; both are numbers.
    fn timestamp(&mut self) -> Result<Option<f64>, Fault> {
        if self.0.is_empty() || self.0.starts_with('#') {
            return Ok(None);
        }
        let timestamp = self.number()?;
        if timestamp.is_finite() { Ok(Some(timestamp)) } else { Err(Fault::Format) }
    }

    pub fn skip_blanks(&mut self) {
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

fn bounded(text: Cow<'_, str>) -> Result<Cow<'_, str>, Fault> {
    if text.len() > TEXT_MAX { Err(Fault::Large) } else { Ok(text) }
}
