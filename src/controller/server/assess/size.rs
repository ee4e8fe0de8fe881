//! Bytes that parts of a status take in the object: exactly, by writing them, or quickly no less than that. Nearly
//! every status is far from its bounds, so that the quick answer is enough at nearly every poll.

use crate::api::server_status::{LoadedModel, Model, PluginReport, Scalar};
use serde::Serialize;
use std::collections::BTreeMap;

/// Names of fields, punctuation, numbers and times of one entry of a list; the longest has some 200.
const ENTRY: usize = 256;
/// A number, a truth or `null`.
const NUMBER: usize = 20;

/// Bytes of a value in the object.
pub fn bytes(value: &impl Serialize) -> usize {
    // What cannot be written takes all the room there is.
    serde_json::to_vec(value).map_or(usize::MAX / 4, |json| json.len())
}

/// What knows how large it may be at most in the object.
pub trait AtMost {
    fn at_most(&self) -> usize;
}

impl AtMost for str {
    /// Quotes, backslashes and control characters are escaped, some with six bytes.
    fn at_most(&self) -> usize {
        let escaped = self.bytes().filter(|byte| *byte < b' ' || matches!(byte, b'"' | b'\\')).count();
        self.len() + 5 * escaped + "\"\"".len()
    }
}

impl AtMost for String {
    fn at_most(&self) -> usize {
        self.as_str().at_most()
    }
}

impl<T: AtMost> AtMost for [T] {
    fn at_most(&self) -> usize {
        self.iter().map(|entry| entry.at_most() + ",".len()).sum::<usize>() + "[]".len()
    }
}

impl AtMost for BTreeMap<String, Scalar> {
    fn at_most(&self) -> usize {
        let value = |scalar: &Scalar| match scalar {
            Scalar::Text(text) => text.at_most(),
            Scalar::Integer(_) | Scalar::Boolean(_) => NUMBER,
        };
        let entries = self.iter().map(|(name, scalar)| name.at_most() + value(scalar) + ":,".len());
        entries.sum::<usize>() + "{}".len()
    }
}

impl AtMost for Model {
    fn at_most(&self) -> usize {
        let Self {
            name,
            digest,
            size,
            family,
            parameter_size,
            quantization,
            context_length: _,
            capabilities,
            modified_time: _,
            remote_host,
        } = self;
        ENTRY
            + name.at_most()
            + size.as_ref().map_or(0, |size| size.0.at_most())
            + capabilities.as_ref().map_or(0, |capabilities| capabilities.as_slice().at_most())
            + [digest, family, parameter_size, quantization, remote_host].map(text).iter().sum::<usize>()
    }
}

impl AtMost for LoadedModel {
    fn at_most(&self) -> usize {
        let Self { name, digest, size, vram, context_length: _, processor, state, expiration_time: _ } = self;
        ENTRY
            + name.at_most()
            + state.at_most()
            + [size, vram].iter().filter_map(|size| Some(size.as_ref()?.0.at_most())).sum::<usize>()
            + [digest, processor].map(text).iter().sum::<usize>()
    }
}

impl AtMost for PluginReport {
    fn at_most(&self) -> usize {
        let Self { name, state, reason, message, last_success_time: _, values, active_rules } = self;
        ENTRY
            + name.at_most()
            + [state, reason, message].map(text).iter().sum::<usize>()
            + values.at_most()
            + active_rules.as_slice().at_most()
    }
}

/// An absent field is not written at all.
#[allow(clippy::ref_option)] // Every caller has a field of this type.
fn text(text: &Option<String>) -> usize {
    text.as_ref().map_or(0, AtMost::at_most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::quantity::Quantity;
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
    use proptest::{collection::vec, prelude::*};
    use std::sync::Arc;

    /// The longest forms of what is not text.
    const NUMBER_MAX: i64 = i64::MIN;
    const TIME_MAX: Time = Time(Timestamp::MAX);

    proptest! {
        #[test]
        fn the_quick_answer_is_never_too_small(text in vec(any::<String>(), 9), some in any::<bool>()) {
            let text = |at: usize| text[at].clone();
            let perhaps = |at: usize| some.then(|| text(at));
            let model = Model {
                name: text(0),
                digest: perhaps(1),
                size: some.then(|| Quantity(text(2))),
                family: perhaps(3),
                parameter_size: perhaps(4),
                quantization: perhaps(5),
                context_length: Some(NUMBER_MAX),
                capabilities: some.then(|| vec![text(6), text(7)]),
                modified_time: Some(TIME_MAX),
                remote_host: perhaps(8),
            };
            let loaded = LoadedModel {
                name: text(0),
                digest: perhaps(1),
                size: some.then(|| Quantity(text(2))),
                vram: some.then(|| Quantity(text(3))),
                context_length: Some(NUMBER_MAX),
                processor: perhaps(4),
                state: text(5),
                expiration_time: Some(TIME_MAX),
            };
            let values = [Scalar::Integer(NUMBER_MAX), Scalar::Boolean(false), Scalar::Text(text(1))];
            let report = PluginReport {
                name: text(0),
                state: perhaps(1),
                reason: perhaps(2),
                message: perhaps(3),
                last_success_time: Some(TIME_MAX),
                values: Arc::new((1..).map(text).zip(values).collect()),
                active_rules: vec![text(7), text(8)],
            };
            prop_assert!(bytes(&model) <= model.at_most());
            prop_assert!(bytes(&loaded) <= loaded.at_most());
            prop_assert!(bytes(&report) <= report.at_most());
            prop_assert!(bytes(&*report.values) <= report.values.at_most());
            prop_assert!(bytes(&vec![model.clone(), model.clone()]) <= [model.clone(), model].at_most());
        }
    }
}
