//! The types of an expression, and what its operators and functions take and give. Pure.
//!
//! What is not here is refused: there is no operator that makes a string or a list longer.

use super::ARGUMENTS_MAX;
use crate::api::fleet_plugin::ValueType;
use cel::common::ast::operators as op;

/// The type of a part of an expression; the elements of a list are of one simple type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Int,
    Double,
    Bool,
    Text,
    List(Simple),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Simple {
    Int,
    Double,
    Bool,
    Text,
}

impl Type {
    pub fn words(self) -> &'static str {
        match self {
            Self::Int => "an int",
            Self::Double => "a double",
            Self::Bool => "a bool",
            Self::Text => "a string",
            Self::List(_) => "a list",
        }
    }

    pub fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::Double)
    }

    pub fn simple(self) -> Option<Simple> {
        match self {
            Self::Int => Some(Simple::Int),
            Self::Double => Some(Simple::Double),
            Self::Bool => Some(Simple::Bool),
            Self::Text => Some(Simple::Text),
            Self::List(_) => None,
        }
    }

    /// Whether `==` can be true; lists are not compared.
    pub fn equals(self, other: Self) -> bool {
        self.simple().is_some() && (self == other || self.is_number() && other.is_number())
    }
}

impl From<Simple> for Type {
    fn from(simple: Simple) -> Self {
        match simple {
            Simple::Int => Self::Int,
            Simple::Double => Self::Double,
            Simple::Bool => Self::Bool,
            Simple::Text => Self::Text,
        }
    }
}

impl From<ValueType> for Type {
    fn from(type_: ValueType) -> Self {
        match type_ {
            ValueType::Integer | ValueType::Time => Self::Int,
            ValueType::Boolean => Self::Bool,
            ValueType::Hostname => Self::Text,
        }
    }
}

pub const FUNCTIONS: [&str; 6] = ["size", "int", "double", "min", "max", "abs"];
pub const MEMBERS: [&str; 4] = ["size", "startsWith", "endsWith", "contains"];

pub fn unknown_function(name: &str) -> String {
    format!(
        "unknown function `{}`; there are has, size, int, double, min, max, abs, startsWith, endsWith, contains, all, \
         exists, exists_one, map and filter",
        short(name)
    )
}

pub fn member_type(function: &str, types: &[Type]) -> Result<Type, String> {
    match (function, types) {
        ("size", [Type::Text | Type::List(_)]) => Ok(Type::Int),
        ("size", _) => Err("size() is that of a string or a list".to_owned()),
        (_, [Type::Text, Type::Text]) => Ok(Type::Bool),
        _ => Err(format!("{function} asks whether a string has another: text.{function}(\"part\")")),
    }
}

/// The type that an operator or a function gives, or what is wrong with what it is given.
pub fn result_type(function: &str, types: &[Type]) -> Result<Type, String> {
    let sign = function.trim_matches('_');
    match (function, types) {
        ("size", [Type::Text | Type::List(_)])
        | ("int", [Type::Int | Type::Double])
        | (op::MODULO, [Type::Int, Type::Int]) => Ok(Type::Int),
        ("double", [Type::Int | Type::Double]) => Ok(Type::Double),
        ("abs" | op::NEGATE, [number]) if number.is_number() => Ok(*number),
        ("min" | "max", [first, ..]) if types.len() >= 2 && first.is_number() => {
            if types.len() > ARGUMENTS_MAX {
                return Err(format!("{function} takes at most {ARGUMENTS_MAX} numbers"));
            }
            types.iter().all(|type_| type_ == first).then_some(*first).ok_or_else(mixed)
        }
        (op::LOGICAL_NOT, [Type::Bool]) | (op::LOGICAL_AND | op::LOGICAL_OR, [Type::Bool, Type::Bool]) => {
            Ok(Type::Bool)
        }
        (op::LOGICAL_NOT, _) => Err("`!` takes a bool".to_owned()),
        (op::LOGICAL_AND | op::LOGICAL_OR, _) => Err(format!("`{sign}` takes two bools")),
        (op::ADD | op::SUBSTRACT | op::MULTIPLY | op::DIVIDE, [left, right])
            if left.is_number() && right.is_number() =>
        {
            if left == right {
                Ok(*left)
            } else {
                Err(mixed())
            }
        }
        (op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS, [left, right])
            if left.is_number() && right.is_number() =>
        {
            Ok(Type::Bool)
        }
        (op::EQUALS | op::NOT_EQUALS, [left, right]) if left.equals(*right) => Ok(Type::Bool),
        (op::IN, [one, Type::List(element)]) if one.equals(Type::from(*element)) => Ok(Type::Bool),
        (op::CONDITIONAL, [Type::Bool, yes, no]) if yes == no => Ok(*yes),
        (op::CONDITIONAL, [Type::Bool, yes, no]) => {
            Err(format!("`? :` gives either {} or {}; both must be of one type", yes.words(), no.words()))
        }
        (op::CONDITIONAL, _) => Err("`?` stands after a bool".to_owned()),
        (op::IN, [one, other]) => {
            Err(format!("`in` looks for one element in a list, not for {} in {}", one.words(), other.words()))
        }
        (op::NEGATE, _) => Err("`-` takes a number".to_owned()),
        ("size" | "int" | "double" | "abs", _) => Err(format!("{function}() does not take this")),
        ("min" | "max", _) => Err(format!("{function}() takes two numbers or more")),
        (_, [left, right]) => {
            Err(format!("`{sign}` does not go with {} and {}", left.words(), right.words()))
        }
        _ => Err("this is not supported".to_owned()),
    }
}

fn mixed() -> String {
    "int and double do not mix; write 2.0 instead of 2, or double(x)".to_owned()
}

/// As much of a name as a message shows.
pub fn short(name: &str) -> String {
    name.chars().take(63).collect()
}
