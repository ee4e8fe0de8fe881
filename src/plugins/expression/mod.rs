//! CEL expressions of plugins: checked and bounded once when a plugin is accepted, evaluated at each poll. Pure.
//!
//! Whoever may create a plugin writes them, and hosts say what they run on. So nothing is evaluated that was not
//! understood before: the parsed tree is checked for its types, every name in it becomes a numbered input, and what is
//! not on the short list of operators and functions is refused. Neither can use up the operator: the source is bounded
//! before it is parsed (`bounds`), its steps before it is accepted (`check`). What is absent is never 0: an expression
//! that needs it has no result. No error has a host's data in it.
//!
//! Where this is stricter than CEL: no maps, messages, bytes, unsigned numbers, `null`, regular expressions, times,
//! conversions from or to strings; strings are only compared and searched; both branches of `? :` have one type; `int` and
//! `double` compare but do not mix in arithmetic; an infinite or undefined result of arithmetic is an error, not a number.

mod bounds;
mod check;
mod inputs;
mod types;

use self::inputs::{Slot, Slots};
use crate::api::{fleet_plugin::ValueType, server_status::Scalar};
use cel::{
    Context, Env, ExecutionError, IdedExpr, Value as Cel,
    common::{
        types::{CelDouble, CelInt, DOUBLE_TYPE, INT_TYPE, Type},
        value::CowVal,
    },
    parser::Parser,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

/// What the caller needs the result to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Boolean,
    Number,
}

/// What an expression may refer to.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The values that `values.NAME` may name, with their types. Integer and Time (seconds since 1970) are int, Boolean is
    /// bool, Hostname is string.
    pub values: &'a [(&'a str, ValueType)],
    /// `true`: values may have any name, since the plugin names none; their type is int.
    pub open: bool,
    /// A rule: may refer to `server` and `previous` too.
    pub rule: bool,
}

/// What an expression is evaluated on.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    pub values: &'a BTreeMap<String, Scalar>,
    /// The values of the reading before; `None`: each of them is absent.
    pub previous: Option<&'a BTreeMap<String, Scalar>>,
    pub server: Option<&'a ServerFacts>,
}

/// What a rule may know of the server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerFacts {
    pub name: String,
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
    pub backend_type: String,
    pub reachable: bool,
    pub in_maintenance: bool,
    pub model_count: Option<i64>,
    pub loaded_count: Option<i64>,
    pub vram_used: Option<i64>,
    pub memory_capacity: Option<i64>,
    pub vram_capacity: Option<i64>,
}

/// Why an expression is refused, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    #[error("the expression is empty")]
    Empty,
    #[error("the expression has {bytes} bytes; at most {max} are allowed", max = bounds::SOURCE_MAX)]
    Long { bytes: usize },
    #[error("line {line}, column {column}: {message}")]
    At { line: usize, column: usize, message: String },
    #[error("the expression gives {given}; {wanted} is needed")]
    Result { given: &'static str, wanted: &'static str },
    #[error("the expression fails when every value is 0, false or empty: {0}")]
    OnZeros(RunError),
}

/// Why an expression has no result on what it was evaluated on. Fixed words: no data of a host is in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    #[error("division by zero")]
    DivisionByZero,
    #[error("a number does not fit 64 bits")]
    Overflow,
    #[error("a number is infinite or undefined")]
    NotFinite,
    #[error("a value has another type than the plugin says")]
    WrongType,
    #[error("the server has more labels than an expression may search")]
    ManyLabels,
    #[error("the expression does not give what is asked of it")]
    Failed,
}

/// An accepted expression.
#[derive(Debug)]
pub struct Expression {
    tree: IdedExpr,
    slots: Vec<Slot>,
}

enum Outcome {
    Number(f64),
    Boolean(bool),
}

impl Expression {
    pub fn compile(source: &str, scope: &Scope<'_>, wanted: Wanted) -> Result<Self, ExpressionError> {
        bounds::check(source)?;
        let (tree, info) = Parser::new().parse_with_source_info(source).map_err(|errors| {
            let first = errors.errors.first();
            let (line, column) = first.map_or((1, 1), |error| error.pos);
            ExpressionError::At {
                line: usize::try_from(line).unwrap_or(1).max(1),
                column: usize::try_from(column).unwrap_or(1).max(1),
                message: first.map_or_else(|| "it is no expression".to_owned(), |error| readable(&error.msg)),
            }
        })?;
        let (tree, slots) = check::check(tree, source, &info, scope, wanted)?;
        let expression = Self { tree, slots };
        match expression.run(&Slots::zeros(&expression.slots)) {
            // A value that is 0 in this test is usually not 0 on a host.
            Ok(_) | Err(RunError::DivisionByZero | RunError::NotFinite) => Ok(expression),
            Err(error) => Err(ExpressionError::OnZeros(error)),
        }
    }

    /// The number that it gives; `None`: it needs a value that is absent. An int beyond 2^53 loses its last digits.
    pub fn number(&self, inputs: &Inputs<'_>) -> Result<Option<f64>, RunError> {
        match self.run(&Slots::fill(&self.slots, inputs)?)? {
            None => Ok(None),
            Some(Outcome::Number(number)) => Ok(Some(number)),
            Some(Outcome::Boolean(_)) => Err(RunError::Failed),
        }
    }

    /// Whether it holds; `None`: it needs a value that is absent.
    pub fn boolean(&self, inputs: &Inputs<'_>) -> Result<Option<bool>, RunError> {
        match self.run(&Slots::fill(&self.slots, inputs)?)? {
            None => Ok(None),
            Some(Outcome::Boolean(holds)) => Ok(Some(holds)),
            Some(Outcome::Number(_)) => Err(RunError::Failed),
        }
    }

    fn run(&self, slots: &Slots<'_>) -> Result<Option<Outcome>, RunError> {
        let mut context = Context::with_env(Arc::clone(&FUNCTIONS));
        context.set_variable_resolver(slots);
        // Not `resolve_val`: a debug build would compile that as part of this crate, at 20 KiB of stack a step.
        match Cel::resolve(&self.tree, &context) {
            Ok(Cel::Bool(holds)) => Ok(Some(Outcome::Boolean(holds))),
            #[allow(clippy::cast_precision_loss)]
            Ok(Cel::Int(int)) => Ok(Some(Outcome::Number(int as f64))),
            Ok(Cel::Float(double)) if double.is_finite() => Ok(Some(Outcome::Number(double))),
            Ok(Cel::Float(_)) => Err(RunError::NotFinite),
            Ok(_) => Err(RunError::Failed),
            // Only an absent input is ever undeclared: all other names were checked.
            Err(ExecutionError::UndeclaredReference(_)) => Ok(None),
            Err(error) => Err(reason(&error)),
        }
    }
}

fn reason(error: &ExecutionError) -> RunError {
    match error {
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => RunError::DivisionByZero,
        ExecutionError::Overflow(..) => RunError::Overflow,
        ExecutionError::FunctionError { function, .. } if function == FINITE => RunError::NotFinite,
        ExecutionError::FunctionError { function, .. } if function == "int" || function == "abs" => {
            RunError::Overflow
        }
        _ => RunError::Failed,
    }
}

/// What the parser says, without its own words and the list of everything that it would have taken.
fn readable(message: &str) -> String {
    let message = message.strip_prefix("Syntax error: ").unwrap_or(message);
    let message = message.split(" expecting ").next().unwrap_or(message);
    let unexpected = ["mismatched input ", "extraneous input ", "no viable alternative at input "];
    let message = match unexpected.iter().find_map(|words| message.strip_prefix(words)) {
        Some("'<EOF>'") => "the end is not expected here".to_owned(),
        Some(part) => format!("{part} is not expected here"),
        None => message.to_owned(),
    };
    message.chars().take(160).collect()
}

/// Wraps the arithmetic of doubles, so that a division by 0 is no number that then is above every threshold. No name in
/// a source can have an `@`.
const FINITE: &str = "@finite";
/// `min` and `max` take as many numbers.
const ARGUMENTS_MAX: usize = 8;

/// The standard functions of CEL, and ours. One for all expressions: building it takes 70 µs.
static FUNCTIONS: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    let mut added = vec![
        env.add_overload(FINITE, "finite", vec![DOUBLE_TYPE], finite),
        env.add_overload("abs", "abs_int", vec![INT_TYPE], absolute),
        env.add_overload("abs", "abs_double", vec![DOUBLE_TYPE], absolute),
    ];
    for count in 2..=ARGUMENTS_MAX {
        let types = |type_: fn() -> Type| (0..count).map(|_| type_()).collect::<Vec<_>>();
        let (int, double) = (|| INT_TYPE, || DOUBLE_TYPE);
        added.push(env.add_overload("min", &format!("min_int_{count}"), types(int), least));
        added.push(env.add_overload("min", &format!("min_double_{count}"), types(double), least));
        added.push(env.add_overload("max", &format!("max_int_{count}"), types(int), greatest));
        added.push(env.add_overload("max", &format!("max_double_{count}"), types(double), greatest));
    }
    // Two of the same name are the only way to fail, and would show in every test.
    debug_assert!(added.iter().all(Result::is_ok), "{added:?}");
    Arc::new(env)
});

fn wrong(function: &str) -> ExecutionError {
    ExecutionError::function_error(function, "")
}

fn finite<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let number = arguments.into_iter().next().ok_or_else(|| wrong(FINITE))?;
    let is_finite = number.downcast_ref::<CelDouble>().is_some_and(|double| double.is_finite());
    if is_finite { Ok(number) } else { Err(wrong(FINITE)) }
}

fn absolute<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let number = arguments.into_iter().next().ok_or_else(|| wrong("abs"))?;
    if let Some(double) = number.downcast_ref::<CelDouble>() {
        return Ok(CowVal::owned(CelDouble::from(double.abs())));
    }
    let int =
        number.downcast_ref::<CelInt>().and_then(|int| int.checked_abs()).ok_or_else(|| wrong("abs"))?;
    Ok(CowVal::owned(CelInt::from(int)))
}

fn least<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    extreme(arguments, std::cmp::Ordering::Less)
}

fn greatest<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    extreme(arguments, std::cmp::Ordering::Greater)
}

fn extreme<'b, 'v>(
    arguments: Vec<CowVal<'b, 'v>>,
    side: std::cmp::Ordering,
) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let mut best: Option<CowVal<'b, 'v>> = None;
    for argument in arguments {
        let better = match &best {
            None => true,
            Some(best) => argument.as_comparer().ok_or_else(|| wrong("max"))?.compare(best.as_ref())? == side,
        };
        if better {
            best = Some(argument);
        }
    }
    best.ok_or_else(|| wrong("max"))
}

#[cfg(test)]
mod tests;
