//! From the values of a spec to values that can be applied to answers, or to an error that names the value. Pure.

use super::{CompiledValue, CompiledValues, Source, path::Path};
use crate::{
    api::fleet_plugin::{Agent, AgentFormat, Metric, Reading, Value as ValueSpec, ValueType},
    plugins::{
        exposition,
        expression::{Expression, ExpressionError, Scope, Wanted},
        filter::Filter,
        path_cost,
    },
};

/// Bytes of all JSON paths of one plugin: 200 of ordinary length. Compiled they take some 35 times as much memory, for
/// each plugin of the cluster.
const PATH_BYTES_MAX: usize = 8 * 1024;

/// Why a value cannot be compiled; the text names the value and says what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    #[error("value {value}: the JSON path {path} is invalid at position {position}: {message}")]
    Path { value: String, path: String, position: usize, message: String },
    #[error(
        "the JSON paths search too much: {cost} of at most {most}, where one of `..`, `*`, a slice or a filter in a \
         path counts 1 and two count 8, times the selectors of its lists"
    )]
    Dear { cost: usize, most: usize },
    #[error(
        "the JSON paths have {bytes} bytes together, of at most {PATH_BYTES_MAX}; shorten them or name fewer values"
    )]
    Long { bytes: usize },
    #[error("value {value}: the expression is invalid: {error}")]
    Expression { value: String, error: ExpressionError },
    #[error("value {value}: an expression makes values of type Integer, Boolean or Time, not {type_:?}")]
    ExpressionType { value: String, type_: ValueType },
    #[error("value {value}: needs exactly one of jsonPaths, metric and expression")]
    Source { value: String },
    #[error("value {value}: {found} cannot be read out of format {format:?}")]
    Format { value: String, found: &'static str, format: AgentFormat },
    #[error("value {value}: rate is for values of type Integer with jsonPaths or metric")]
    Rate { value: String },
    #[error("value {value}: metric.label is for values of type Hostname, which need it")]
    Label { value: String },
    #[error("value {value}: metric.distinctBy has names of labels, for example [UUID]; {name} is none")]
    Distinct { value: String, name: String },
    #[error("value {value}: the multiplier is not a quantity above 0")]
    Multiplier { value: String },
    #[error("value {value}: the reading {reading:?} needs type {needed:?}")]
    ReadingType { value: String, reading: Reading, needed: ValueType },
    #[error("values {first} and {second} have the same name")]
    NameTwice { first: usize, second: usize },
    #[error("values {first} and {second} feed the same reading {reading:?}")]
    ReadingTwice { first: String, second: String, reading: Reading },
}

pub fn compile(agent: &Agent) -> Result<CompiledValues, ValueError> {
    let paths = agent.values.iter().flat_map(|value| &value.json_paths);
    let bytes: usize = paths.clone().map(String::len).sum();
    if bytes > PATH_BYTES_MAX {
        return Err(ValueError::Long { bytes });
    }
    // What is wrong with a single path is told of that path, below.
    let cost: usize = paths.map(|path| path_cost::cost(path).unwrap_or_default()).sum();
    if cost > path_cost::COST_MAX {
        return Err(ValueError::Dear { cost, most: path_cost::COST_MAX });
    }
    let mut compiled: Vec<CompiledValue> = Vec::with_capacity(agent.values.len());
    for (index, spec) in agent.values.iter().enumerate() {
        if let Some(first) = compiled.iter().position(|other| other.name == spec.name) {
            return Err(ValueError::NameTwice { first: first + 1, second: index + 1 });
        }
        let value = compile_one(spec, agent.format, &compiled)?;
        let twin = compiled.iter().find(|other| other.reading.is_some() && other.reading == value.reading);
        if let (Some(twin), Some(reading)) = (twin, value.reading) {
            return Err(ValueError::ReadingTwice { first: twin.name.clone(), second: value.name, reading });
        }
        compiled.push(value);
    }
    let filter = Filter::of(agent.values.iter().flat_map(|value| &value.json_paths).map(String::as_str));
    let accept = accept(agent.values.iter().filter_map(|value| value.metric.as_ref()));
    Ok(CompiledValues { values: compiled, filter, accept })
}

/// Only for names that need it something else is asked for than what every exporter knows.
fn accept<'a>(mut metrics: impl Iterator<Item = &'a Metric>) -> &'static str {
    let all_classic = metrics.all(|metric| {
        let labels = metric.labels.keys().chain(&metric.distinct_by).chain(&metric.label);
        [&metric.name].into_iter().chain(labels).all(|name| exposition::is_classic(name))
    });
    if all_classic { "*/*" } else { exposition::ACCEPT_UTF8 }
}

fn compile_one(
    spec: &ValueSpec,
    format: AgentFormat,
    earlier: &[CompiledValue],
) -> Result<CompiledValue, ValueError> {
    let source = source(spec, format, earlier)?;
    if spec.rate && (spec.type_ != ValueType::Integer || matches!(source, Source::Expression(_))) {
        return Err(ValueError::Rate { value: spec.name.clone() });
    }
    let multiplier = match &spec.multiplier {
        None => 1.0,
        Some(quantity) => quantity
            .value()
            .filter(|factor| *factor > 0.0)
            .ok_or_else(|| ValueError::Multiplier { value: spec.name.clone() })?,
    };
    if let Some(reading) = spec.reading {
        let needed = match reading {
            Reading::Hostname => ValueType::Hostname,
            Reading::BootTime => ValueType::Time,
            _ => ValueType::Integer,
        };
        if spec.type_ != needed {
            return Err(ValueError::ReadingType { value: spec.name.clone(), reading, needed });
        }
    }
    Ok(CompiledValue {
        name: spec.name.clone(),
        type_: spec.type_,
        source,
        rate: spec.rate,
        reduce: spec.reduce,
        multiplier,
        reading: spec.reading,
    })
}

fn source(spec: &ValueSpec, format: AgentFormat, earlier: &[CompiledValue]) -> Result<Source, ValueError> {
    let wrong_format = |found| ValueError::Format { value: spec.name.clone(), found, format };
    match (spec.json_paths.as_slice(), &spec.metric, &spec.expression) {
        (paths @ [_, ..], None, None) => {
            if format == AgentFormat::Prometheus {
                return Err(wrong_format("jsonPaths"));
            }
            paths.iter().map(|path| json_path(spec, path)).collect::<Result<_, _>>().map(Source::Paths)
        }
        ([], Some(metric), None) => {
            if format == AgentFormat::Json {
                return Err(wrong_format("metric"));
            }
            if metric.label.is_some() != (spec.type_ == ValueType::Hostname) {
                return Err(ValueError::Label { value: spec.name.clone() });
            }
            if let Some(name) = metric.distinct_by.iter().find(|name| !is_label(name)) {
                return Err(ValueError::Distinct { value: spec.name.clone(), name: harmless(name) });
            }
            Ok(Source::Metric(metric.clone()))
        }
        ([], None, Some(text)) => {
            let wanted = match spec.type_ {
                ValueType::Integer | ValueType::Time => Wanted::Number,
                ValueType::Boolean => Wanted::Boolean,
                ValueType::Hostname => {
                    return Err(ValueError::ExpressionType { value: spec.name.clone(), type_: spec.type_ });
                }
            };
            let values: Vec<(&str, ValueType)> =
                earlier.iter().map(|value| (value.name.as_str(), value.type_)).collect();
            let scope = Scope { values: &values, open: false, rule: false };
            Expression::compile(text, &scope, wanted)
                .map(Source::Expression)
                .map_err(|error| ValueError::Expression { value: spec.name.clone(), error })
        }
        _ => Err(ValueError::Source { value: spec.name.clone() }),
    }
}

/// A name that a label may have: in UTF-8, without what separates labels.
fn is_label(name: &str) -> bool {
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '{' | '}' | '=' | ',' | '"');
    !name.is_empty() && !name.contains(odd)
}

fn json_path(spec: &ValueSpec, path: &str) -> Result<Path, ValueError> {
    let error = |position, message: &str| ValueError::Path {
        value: spec.name.clone(),
        path: harmless(path),
        position,
        message: message.to_owned(),
    };
    path_cost::cost(path).map_err(|(position, message)| match without_brackets(path) {
        Some(plain) => {
            error(position, &format!("a filter stands without round brackets; write {}", harmless(&plain)))
        }
        None => error(position, message),
    })?;
    Path::parse(path).map_err(|found| error(found.position(), found.message()))
}

/// The path that is meant by filters in round brackets, which many other programs want: `[?(@.x == 1)]`.
fn without_brackets(path: &str) -> Option<String> {
    let plain = path.replace("?(", "?").replace(")]", "]");
    (plain != path && path_cost::cost(&plain).is_ok() && Path::parse(&plain).is_ok()).then_some(plain)
}

/// A path as a message may show it, with escapes for what would steer a terminal.
fn harmless(path: &str) -> String {
    let mut shown = String::with_capacity(path.len());
    for c in path.chars() {
        if matches!(c, '\'' | '"' | '\\') {
            shown.push(c);
        } else {
            shown.extend(c.escape_debug());
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn agent(values: usize, path: &str) -> Agent {
        let value = |n: usize| json!({"name": format!("v{n}"), "jsonPaths": [path, path, path, path]});
        let values: Vec<_> = (0..values).map(value).collect();
        serde_json::from_value(json!({"defaultPort": 1, "endpoint": "/", "values": values})).unwrap()
    }

    #[test]
    fn all_paths_together_are_bounded() {
        let path = format!("$.{}", "a".repeat(254));
        assert!(compile(&agent(8, &path)).is_ok());
        let error = compile(&agent(9, &path)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the JSON paths have 9216 bytes together, of at most 8192; shorten them or name fewer values"
        );
    }

    /// The form that Kubernetes' own JSONPath, jq's users and older libraries know.
    #[test]
    fn a_filter_in_brackets_is_answered_with_the_form_that_works() {
        let error = compile(&agent(1, "$.sensors[?(@.name == 'gpu')].value")).unwrap_err().to_string();
        assert!(error.ends_with("write $.sensors[?@.name == 'gpu'].value"), "{error}");
        let error = compile(&agent(1, "$.a[?search(@.b, 'c')]")).unwrap_err().to_string();
        assert!(error.ends_with("functions and brackets are not supported"), "{error}");
    }

    #[test]
    fn distinct_by_has_names_of_labels() {
        let with = |name: &str| {
            let value = json!({"name": "v", "metric": {"name": "m", "distinctBy": [name]}});
            let agent = json!({"defaultPort": 1, "endpoint": "/", "values": [value]});
            compile(&serde_json::from_value(agent).unwrap()).map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!((with("UUID"), with("k8s.pod")), (Ok(()), Ok(())));
        let refused = "value v: metric.distinctBy has names of labels, for example [UUID]; a b is none";
        assert_eq!(with("a b"), Err(refused.to_owned()));
        assert!(with("a=\"1\"").is_err() && with("").is_err());
    }

    #[test]
    fn paths_in_messages_steer_no_terminal() {
        let error = compile(&agent(1, "$.\u{1b}[31m\u{202e}")).unwrap_err().to_string();
        assert!(error.contains(r"$.\u{1b}[31m\u{202e}") && !error.contains('\u{1b}'), "{error}");
    }
}
