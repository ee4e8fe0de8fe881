//! Checks a parsed expression: names, types, functions and steps. Pure.
//!
//! What it accepts it hands back with each name replaced by that of a slot, so that evaluating looks nothing up by path.
//! What it does not know it refuses, whatever the parser may learn to parse. It recurses as deep as the tree, which
//! `bounds` keeps flat.

use super::{
    ExpressionError, FINITE, Scope, Wanted, bounds,
    inputs::{self, FIELDS, Field, LABELS_MAX, Reference, Slot},
    types::{FUNCTIONS, MEMBERS, Simple, Type, member_type, result_type, short, unknown_function},
};
use crate::api::fleet_plugin::ValueType;
use cel::{
    IdedExpr,
    common::ast::{
        CallExpr, ComprehensionExpr, Expr, ListExpr, LiteralValue, SelectExpr, SourceInfo, operators as op,
    },
};
use std::mem;

const ELEMENTS_MAX: usize = 64;
/// Steps of one evaluation: nodes of the tree, those of a loop as often as it goes round. One takes 0.05 µs, so that all
/// of them take 0.2 ms in a release build.
const STEPS_MAX: usize = 4096;
/// Names that a message lists.
const LISTED_MAX: usize = 8;

type Checked = Result<(IdedExpr, Type), ExpressionError>;

pub fn check(
    tree: IdedExpr,
    source: &str,
    places: &SourceInfo,
    scope: &Scope<'_>,
    wanted: Wanted,
) -> Result<(IdedExpr, Vec<Slot>), ExpressionError> {
    let mut check =
        Check { source, places, scope, slots: Vec::new(), loops: 0, element: None, times: 1, steps: 0 };
    let root = tree.id;
    let (tree, type_) = check.part(tree)?;
    if check.steps > STEPS_MAX {
        let message = format!(
            "it takes {} steps, at most {STEPS_MAX} are allowed; what is in a loop counts for each element",
            check.steps
        );
        return Err(check.refused(root, message));
    }
    match wanted {
        Wanted::Boolean if type_ != Type::Bool => {
            Err(ExpressionError::Result { given: type_.words(), wanted: "a bool" })
        }
        Wanted::Number if !type_.is_number() => {
            Err(ExpressionError::Result { given: type_.words(), wanted: "a number" })
        }
        _ => Ok((tree, check.slots)),
    }
}

struct Check<'a> {
    source: &'a str,
    places: &'a SourceInfo,
    scope: &'a Scope<'a>,
    slots: Vec<Slot>,
    loops: usize,
    /// The name of the element within a loop, and its type.
    element: Option<(String, Type)>,
    /// How often what is being checked is evaluated.
    times: usize,
    steps: usize,
}

impl Check<'_> {
    fn refused(&self, id: u64, message: impl Into<String>) -> ExpressionError {
        let start = self.places.offset_for(id).map_or(0, |(start, _)| start as usize);
        // The parser counts characters.
        let at = self.source.char_indices().nth(start).map_or(0, |(at, _)| at);
        bounds::refused(self.source, at, message)
    }

    fn refuse<T>(&self, id: u64, message: impl Into<String>) -> Result<T, ExpressionError> {
        Err(self.refused(id, message))
    }

    fn step(&mut self, count: usize) {
        self.steps = self.steps.saturating_add(count.saturating_mul(self.times));
    }

    fn part(&mut self, part: IdedExpr) -> Checked {
        self.step(1);
        let IdedExpr { id, expr } = part;
        match expr {
            Expr::Literal(literal) => self.literal(id, literal),
            Expr::Ident(name) => self.name(id, name),
            Expr::Select(select) => self.select(id, &select),
            Expr::List(list) => self.list(id, list),
            Expr::Call(call) => self.call(id, call),
            Expr::Comprehension(comprehension) => self.comprehension(id, *comprehension),
            Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => {
                self.refuse(id, "there are no maps and messages here")
            }
        }
    }

    fn literal(&self, id: u64, literal: LiteralValue) -> Checked {
        let type_ = match &literal {
            LiteralValue::Int(_) => Type::Int,
            LiteralValue::Double(double) if double.is_finite() => Type::Double,
            LiteralValue::Boolean(_) => Type::Bool,
            LiteralValue::String(_) => Type::Text,
            LiteralValue::Double(_) => return self.refuse(id, "this number is too large"),
            LiteralValue::UInt(_) => return self.refuse(id, "write the number without `u`"),
            LiteralValue::Null => {
                return self
                    .refuse(id, "nothing is null here; write has(values.NAME) to see whether it is there");
            }
            LiteralValue::Bytes(_) => return self.refuse(id, "there are no bytes here"),
        };
        Ok((IdedExpr { id, expr: Expr::Literal(literal) }, type_))
    }

    fn name(&self, id: u64, name: String) -> Checked {
        if let Some((element, type_)) = &self.element
            && *element == name
        {
            return Ok((IdedExpr { id, expr: Expr::Ident(name) }, *type_));
        }
        let roots = self.roots();
        if roots.contains(&name.as_str()) {
            let what = if name == "server" { "server.name" } else { "values.NAME" };
            return self.refuse(id, format!("`{name}` needs a name after it, like {what}"));
        }
        self.refuse(id, self.unknown(&name))
    }

    fn roots(&self) -> &'static [&'static str] {
        if self.scope.rule { &["values", "previous", "server"] } else { &["values"] }
    }

    fn unknown(&self, name: &str) -> String {
        let name = short(name);
        match (name.as_str(), self.scope.rule) {
            ("previous" | "server", false) => format!("only a rule may use `{name}`; a value may use values"),
            (_, true) => format!("unknown name `{name}`; an expression may use values, previous and server"),
            (_, false) => format!("unknown name `{name}`; an expression may use values"),
        }
    }

    fn select(&mut self, id: u64, select: &SelectExpr) -> Checked {
        let Some(mut path) = path_of(&select.operand) else {
            return self.refuse(id, format!("only {} have fields", self.roots().join(", ")));
        };
        path.push(&select.field);
        self.reference(id, &path, select.test)
    }

    /// `values.x`, `server.labels.x` and so on, the names after each other; `presence`: within `has()`.
    fn reference(&mut self, id: u64, path: &[&str], presence: bool) -> Checked {
        let (root, names) = (path.first().copied().unwrap_or_default(), path.get(1..).unwrap_or_default());
        if self.element.as_ref().is_some_and(|(element, _)| element == root) {
            return self.refuse(id, format!("`{}` is one element and has no fields", short(root)));
        }
        if !self.roots().contains(&root) {
            return self.refuse(id, self.unknown(root));
        }
        let (reference, type_) = match (root, names) {
            ("server", ["labels"]) => (Reference::Labels, Type::List(Simple::Text)),
            ("server", ["labels", key]) => (Reference::Label((*key).to_owned()), Type::Text),
            ("server", [field]) => {
                let Some((_, field)) = FIELDS.iter().find(|(name, _)| name == field) else {
                    let known: Vec<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
                    let message = format!(
                        "`server.{}` is unknown; there are labels, {}",
                        short(field),
                        known.join(", ")
                    );
                    return self.refuse(id, message);
                };
                let type_ = match field {
                    Field::Name | Field::Namespace | Field::BackendType => Type::Text,
                    Field::Reachable | Field::InMaintenance => Type::Bool,
                    _ => Type::Int,
                };
                (Reference::Server(*field), type_)
            }
            ("values" | "previous", [name]) => {
                let type_ = self.value_type(id, root, name)?;
                let name = (*name).to_owned();
                let reference = if root == "values" {
                    Reference::Value(name, type_)
                } else {
                    Reference::Previous(name, type_)
                };
                (reference, type_.into())
            }
            _ => {
                let message =
                    format!("`{}` is one value and has no fields", short(&path[..path.len() - 1].join(".")));
                return self.refuse(id, message);
            }
        };
        // Each name is looked at.
        if reference == Reference::Labels && !presence {
            self.step(LABELS_MAX);
        }
        let slot = Slot { reference, presence };
        let index = self.slots.iter().position(|other| *other == slot).unwrap_or_else(|| {
            self.slots.push(slot);
            self.slots.len() - 1
        });
        let type_ = if presence { Type::Bool } else { type_ };
        Ok((IdedExpr { id, expr: Expr::Ident(inputs::name(index)) }, type_))
    }

    fn value_type(&self, id: u64, root: &str, name: &str) -> Result<ValueType, ExpressionError> {
        let values = self.scope.values;
        if let Some((_, type_)) = values.iter().find(|(known, _)| *known == name) {
            return Ok(*type_);
        }
        if self.scope.open {
            return Ok(ValueType::Integer);
        }
        let wrong = format!("`{root}.{}` is not one of the plugin's values", short(name));
        if values.is_empty() {
            return self.refuse(id, format!("{wrong}: there is none that can be used here"));
        }
        let mut known: Vec<&str> = values.iter().take(LISTED_MAX).map(|(name, _)| *name).collect();
        if values.len() > LISTED_MAX {
            known.push("…");
        }
        self.refuse(id, format!("{wrong}: {}", known.join(", ")))
    }

    fn list(&mut self, id: u64, list: ListExpr) -> Checked {
        if list.elements.len() > ELEMENTS_MAX || !list.optional_indices.is_empty() {
            return self.refuse(id, format!("a list has at most {ELEMENTS_MAX} elements"));
        }
        let mut elements = Vec::with_capacity(list.elements.len());
        let mut one_type = None;
        for element in list.elements {
            let at = element.id;
            let (element, type_) = self.part(element)?;
            if one_type.is_some_and(|one| one != type_) {
                return self.refuse(at, "the elements of a list have one type");
            }
            one_type = Some(type_);
            elements.push(element);
        }
        match one_type.map(Type::simple) {
            None => self.refuse(id, "this list is empty"),
            Some(None) => self.refuse(id, "there are no lists of lists"),
            Some(Some(simple)) => {
                Ok((IdedExpr { id, expr: Expr::List(ListExpr::new(elements)) }, Type::List(simple)))
            }
        }
    }

    fn call(&mut self, id: u64, call: CallExpr) -> Checked {
        let CallExpr { func_name, target, args } = call;
        if func_name == op::INDEX {
            let whole = IdedExpr { id, expr: Expr::Call(CallExpr { func_name, target, args }) };
            return match path_of(&whole) {
                Some(path) => self.reference(id, &path, false),
                None => self.refuse(id, "`[ ]` after a value takes a name in quotes, as in values[\"name\"]"),
            };
        }
        let mut arguments = Vec::with_capacity(args.len() + 1);
        let mut given = Vec::with_capacity(args.len() + 1);
        let member = target.is_some();
        if let Some(target) = target {
            // Before its parts, so that the message is about the function.
            if !MEMBERS.contains(&func_name.as_str()) {
                return self.refuse(id, unknown_function(&func_name));
            }
            let (target, type_) = self.part(*target)?;
            arguments.push(target);
            given.push(type_);
        } else if func_name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
            && !FUNCTIONS.contains(&func_name.as_str())
        {
            return self.refuse(id, unknown_function(&func_name));
        }
        for argument in args {
            let (argument, type_) = self.part(argument)?;
            arguments.push(argument);
            given.push(type_);
        }
        let type_ =
            match if member { member_type(&func_name, &given) } else { result_type(&func_name, &given) } {
                Ok(type_) => type_,
                Err(message) => return self.refuse(id, message),
            };
        let mut arguments = arguments.into_iter();
        let target = if member { arguments.next().map(Box::new) } else { None };
        let arithmetic = matches!(func_name.as_str(), op::ADD | op::SUBSTRACT | op::MULTIPLY | op::DIVIDE);
        let call = CallExpr { func_name, target, args: arguments.collect() };
        let mut tree = IdedExpr { id, expr: Expr::Call(call) };
        if arithmetic && type_ == Type::Double {
            self.step(1);
            let call = CallExpr { func_name: FINITE.to_owned(), target: None, args: vec![tree] };
            tree = IdedExpr { id, expr: Expr::Call(call) };
        }
        Ok((tree, type_))
    }

    /// What `all`, `exists`, `exists_one`, `map` and `filter` become. Of the tree that the parser makes of them, only
    /// the list and what the user wrote for each element is checked; the rest is always the same.
    fn comprehension(&mut self, id: u64, mut loop_: ComprehensionExpr) -> Checked {
        self.loops += 1;
        if self.loops > 1 {
            return self.refuse(id, "one of all, exists, exists_one, map and filter is allowed, once");
        }
        let count = match &loop_.iter_range.expr {
            Expr::List(list) => list.elements.len(),
            _ => LABELS_MAX,
        };
        let (range, type_) = self.part(mem::take(&mut loop_.iter_range))?;
        let Type::List(element) = type_ else {
            let message = format!("it goes through {}; a list or server.labels is needed", type_.words());
            return self.refuse(id, message);
        };
        loop_.iter_range = range;
        if ["values", "previous", "server"].contains(&loop_.iter_var.as_str()) {
            return self.refuse(id, "the element needs another name");
        }
        self.element = Some((loop_.iter_var.clone(), element.into()));
        self.times = count;
        let result = self.body(id, &mut loop_);
        self.element = None;
        self.times = 1;
        Ok((IdedExpr { id, expr: Expr::Comprehension(Box::new(loop_)) }, result?))
    }

    fn body(&mut self, id: u64, loop_: &mut ComprehensionExpr) -> Result<Type, ExpressionError> {
        // Its condition, its result so far, the element.
        self.step(6);
        let Expr::Call(step) = &mut loop_.loop_step.expr else {
            return self.refuse(id, "this loop is not supported");
        };
        match (step.func_name.as_str(), step.args.as_mut_slice()) {
            (op::LOGICAL_AND | op::LOGICAL_OR, [_, each]) => {
                self.condition(each)?;
                Ok(Type::Bool)
            }
            (op::ADD, [_, added]) => self.added(id, added),
            (op::CONDITIONAL, [condition, IdedExpr { expr: Expr::Call(add), .. }, _]) => {
                self.condition(condition)?;
                match (add.func_name.as_str(), add.args.as_mut_slice()) {
                    (op::ADD, [_, IdedExpr { expr: Expr::Literal(_), .. }]) => Ok(Type::Bool),
                    (op::ADD, [_, added]) => self.added(id, added),
                    _ => self.refuse(id, "this loop is not supported"),
                }
            }
            _ => self.refuse(id, "this loop is not supported"),
        }
    }

    fn condition(&mut self, each: &mut IdedExpr) -> Result<(), ExpressionError> {
        let at = each.id;
        let (tree, type_) = self.part(mem::take(each))?;
        *each = tree;
        if type_ == Type::Bool {
            return Ok(());
        }
        self.refuse(at, format!("for each element it gives {}; a bool is needed", type_.words()))
    }

    /// The list of one element that `map` and `filter` add.
    fn added(&mut self, id: u64, added: &mut IdedExpr) -> Result<Type, ExpressionError> {
        let (tree, type_) = self.part(mem::take(added))?;
        *added = tree;
        if matches!(type_, Type::List(_)) { Ok(type_) } else { self.refuse(id, "this loop is not supported") }
    }
}

/// The names of `a.b["c"]`; `None` for anything else, and for keys that are computed.
fn path_of(tree: &IdedExpr) -> Option<Vec<&str>> {
    let mut names = Vec::new();
    let mut part = &tree.expr;
    loop {
        match part {
            Expr::Ident(name) => {
                names.push(name.as_str());
                names.reverse();
                return Some(names);
            }
            Expr::Select(select) if !select.test => {
                names.push(&select.field);
                part = &select.operand.expr;
            }
            Expr::Call(CallExpr { func_name, target: None, args }) if func_name == op::INDEX => {
                let [operand, IdedExpr { expr: Expr::Literal(LiteralValue::String(key)), .. }] =
                    args.as_slice()
                else {
                    return None;
                };
                names.push(key.inner());
                part = &operand.expr;
            }
            _ => return None,
        }
    }
}
