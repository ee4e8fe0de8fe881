//! What an expression refers to, each name a numbered input that is looked up once before an evaluation. Pure.

use super::{Inputs, RunError, ServerFacts};
use crate::api::{fleet_plugin::ValueType, server_status::Scalar};
use cel::{
    common::{
        types::{CelBool, CelInt, CelList, CelString},
        value::{CowVal, Val},
    },
    context::VariableResolver,
};
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeMap;

/// Labels of a server that a loop or `in` goes through.
pub const LABELS_MAX: usize = 64;

/// One thing that an expression refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    Value(String, ValueType),
    Previous(String, ValueType),
    Server(Field),
    Label(String),
    /// The names of all labels.
    Labels,
}

/// What `server.` may be followed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Name,
    Namespace,
    BackendType,
    Reachable,
    InMaintenance,
    ModelCount,
    LoadedCount,
    VramUsed,
    MemoryCapacity,
    VramCapacity,
}

pub const FIELDS: [(&str, Field); 10] = [
    ("name", Field::Name),
    ("namespace", Field::Namespace),
    ("backendType", Field::BackendType),
    ("reachable", Field::Reachable),
    ("inMaintenance", Field::InMaintenance),
    ("modelCount", Field::ModelCount),
    ("loadedCount", Field::LoadedCount),
    ("vramUsed", Field::VramUsed),
    ("memoryCapacity", Field::MemoryCapacity),
    ("vramCapacity", Field::VramCapacity),
];

/// What stands behind one name of the checked tree: a reference, or whether it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    pub reference: Reference,
    pub presence: bool,
}

/// The name of a slot in the checked tree; no name in a source can have an `@`.
pub fn name(slot: usize) -> String {
    format!("@{slot}")
}

#[derive(Debug)]
enum Input<'a> {
    Int(CelInt),
    Bool(CelBool),
    Text(CelString<'a>),
    Names(CelList<'a>),
}

/// The inputs of one evaluation, in the order of the slots; `None` is absent.
#[derive(Debug)]
pub struct Slots<'a>(Vec<Option<Input<'a>>>);

impl<'a> Slots<'a> {
    pub fn fill(slots: &[Slot], inputs: &Inputs<'a>) -> Result<Self, RunError> {
        let fill = |slot: &Slot| {
            if slot.presence {
                return Ok(Some(Input::Bool(slot.reference.is_present(inputs).into())));
            }
            slot.reference.find(inputs)
        };
        slots.iter().map(fill).collect::<Result<_, _>>().map(Self)
    }

    /// Everything is there, and is 0, false or empty.
    pub fn zeros(slots: &[Slot]) -> Self {
        let zero = |slot: &Slot| {
            let int = || Input::Int(0.into());
            let text = || Input::Text("".into());
            Some(match &slot.reference {
                _ if slot.presence => Input::Bool(true.into()),
                Reference::Value(_, type_) | Reference::Previous(_, type_) => match type_ {
                    ValueType::Integer | ValueType::Time => int(),
                    ValueType::Boolean => Input::Bool(false.into()),
                    ValueType::Hostname => text(),
                },
                Reference::Server(field) => match field {
                    Field::Name | Field::Namespace | Field::BackendType => text(),
                    Field::Reachable | Field::InMaintenance => Input::Bool(false.into()),
                    _ => int(),
                },
                Reference::Label(_) => text(),
                Reference::Labels => Input::Names(Vec::new().into()),
            })
        };
        Self(slots.iter().map(zero).collect())
    }
}

impl VariableResolver for Slots<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let slot: usize = variable.strip_prefix('@')?.parse().ok()?;
        let value: &'b (dyn Val + 'b) = match self.0.get(slot)?.as_ref()? {
            Input::Int(int) => int,
            Input::Bool(truth) => truth,
            Input::Text(text) => text,
            Input::Names(names) => names,
        };
        Some(CowVal::Borrowed(value))
    }
}

impl Reference {
    fn is_present(&self, inputs: &Inputs<'_>) -> bool {
        match self {
            Self::Value(name, _) => inputs.values.contains_key(name),
            Self::Previous(name, _) => inputs.previous.is_some_and(|values| values.contains_key(name)),
            Self::Server(field) => inputs.server.is_some_and(|server| field.of(server).is_some()),
            Self::Label(key) => inputs.server.is_some_and(|server| server.labels.contains_key(key)),
            Self::Labels => inputs.server.is_some(),
        }
    }

    fn find<'a>(&self, inputs: &Inputs<'a>) -> Result<Option<Input<'a>>, RunError> {
        let look_up = |values: &'a BTreeMap<String, Scalar>, name: &String, type_| {
            values.get(name).map(|scalar| scalar_of(scalar, type_)).transpose()
        };
        match self {
            Self::Value(name, type_) => look_up(inputs.values, name, *type_),
            Self::Previous(name, type_) => {
                inputs.previous.map_or(Ok(None), |values| look_up(values, name, *type_))
            }
            Self::Server(field) => Ok(inputs.server.and_then(|server| field.of(server))),
            Self::Label(key) => {
                Ok(inputs.server.and_then(|server| server.labels.get(key)).map(|label| text(label)))
            }
            Self::Labels => inputs.server.map(|server| names(&server.labels)).transpose(),
        }
    }
}

impl Field {
    fn of(self, server: &ServerFacts) -> Option<Input<'_>> {
        let int = |number: Option<i64>| number.map(|number| Input::Int(number.into()));
        match self {
            Self::Name => Some(text(&server.name)),
            Self::Namespace => Some(text(&server.namespace)),
            Self::BackendType => Some(text(&server.backend_type)),
            Self::Reachable => Some(Input::Bool(server.reachable.into())),
            Self::InMaintenance => Some(Input::Bool(server.in_maintenance.into())),
            Self::ModelCount => int(server.model_count),
            Self::LoadedCount => int(server.loaded_count),
            Self::VramUsed => int(server.vram_used),
            Self::MemoryCapacity => int(server.memory_capacity),
            Self::VramCapacity => int(server.vram_capacity),
        }
    }
}

fn text(text: &str) -> Input<'_> {
    Input::Text(text.into())
}

fn names(labels: &BTreeMap<String, String>) -> Result<Input<'_>, RunError> {
    if labels.len() > LABELS_MAX {
        return Err(RunError::ManyLabels);
    }
    let boxed = |name| -> Box<dyn Val + '_> { Box::new(CelString::from(name)) };
    Ok(Input::Names(labels.keys().map(|name| boxed(name.as_str())).collect::<Vec<_>>().into()))
}

/// A value of another type than the plugin gives it would compare as unequal instead of failing.
fn scalar_of(scalar: &Scalar, type_: ValueType) -> Result<Input<'_>, RunError> {
    match (type_, scalar) {
        (ValueType::Integer | ValueType::Time, Scalar::Integer(int)) => Ok(Input::Int((*int).into())),
        (ValueType::Boolean, Scalar::Boolean(truth)) => Ok(Input::Bool((*truth).into())),
        (ValueType::Hostname, Scalar::Text(name)) => Ok(text(name)),
        (ValueType::Time, Scalar::Text(time)) => {
            let time: Timestamp = time.parse().map_err(|_| RunError::WrongType)?;
            Ok(Input::Int(time.as_second().into()))
        }
        _ => Err(RunError::WrongType),
    }
}
