//! The values of a definition that are filled in, tested and placed.

use super::{Fields, Unsupported};
use serde_json::{Map, Value};

/// The place of a result in the input.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ResultPath {
    Discard,
    At(Vec<String>),
}

/// JSON with places to fill in.
#[derive(Debug)]
pub(crate) enum Template {
    Value(Value),
    Path(Path),
    Object(Vec<(String, Template)>),
    Array(Vec<Template>),
}

/// `$.a.b`, or `$$.a.b` of the context.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Path {
    pub(super) of_context: bool,
    pub(super) fields: Vec<String>,
}

#[derive(Debug)]
pub(crate) enum Test {
    All(Vec<Test>),
    Any(Vec<Test>),
    Not(Box<Test>),
    Compare(Path, Comparison),
}

#[derive(Debug)]
pub(crate) enum Comparison {
    StringEquals(String),
    NumericEquals(f64),
    BooleanEquals(bool),
    IsPresent(bool),
    IsNull(bool),
}

impl ResultPath {
    /// The data of the next state, from a state's input and result.
    pub(crate) fn place(&self, input: Value, result: Value) -> Value {
        let Self::At(fields) = self else { return input };
        if fields.is_empty() {
            return result;
        }
        let mut whole = if input.is_object() {
            input
        } else {
            Value::Object(Map::new())
        };
        let mut place = &mut whole;
        for field in fields {
            if !place.is_object() {
                *place = Value::Object(Map::new());
            }
            place = &mut place[field.as_str()];
        }
        *place = result;
        whole
    }
}

impl Template {
    pub(super) fn read(of: &str, value: Value) -> Result<Self, Unsupported> {
        Ok(match value {
            Value::Object(fields) => Self::Object(
                fields
                    .into_iter()
                    .map(|(name, value)| match name.strip_suffix(".$") {
                        Some(plain) => {
                            let path = value
                                .as_str()
                                .ok_or_else(|| Unsupported(format!("{of}: {name:?} is no path")))?;
                            Ok((plain.to_owned(), Self::Path(Path::read(of, path)?)))
                        }
                        None => Ok((name, Self::read(of, value)?)),
                    })
                    .collect::<Result<_, _>>()?,
            ),
            Value::Array(items) => Self::Array(
                items
                    .into_iter()
                    .map(|item| Self::read(of, item))
                    .collect::<Result<_, _>>()?,
            ),
            value => Self::Value(value),
        })
    }

    /// The JSON, filled in.
    ///
    /// # Errors
    ///
    /// The path that leads nowhere.
    pub(crate) fn fill(&self, data: &Value, context: &Value) -> Result<Value, String> {
        Ok(match self {
            Self::Value(value) => value.clone(),
            Self::Path(path) => path.find(data, context).cloned().ok_or_else(|| path.to_string())?,
            Self::Object(fields) => Value::Object(
                fields
                    .iter()
                    .map(|(name, value)| Ok((name.clone(), value.fill(data, context)?)))
                    .collect::<Result<_, String>>()?,
            ),
            Self::Array(items) => Value::Array(
                items
                    .iter()
                    .map(|item| item.fill(data, context))
                    .collect::<Result<_, _>>()?,
            ),
        })
    }
}

impl Path {
    pub(super) fn read(of: &str, text: &str) -> Result<Self, Unsupported> {
        let unknown = || Unsupported(format!("{of} has the path {text:?}"));
        let (of_context, rest) = match text.strip_prefix("$$") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('$').ok_or_else(unknown)?),
        };
        let plain = |field: &str| {
            !field.is_empty()
                && field
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        };
        let fields: Vec<_> = match rest.strip_prefix('.') {
            Some(fields) => fields.split('.').map(str::to_owned).collect(),
            None if rest.is_empty() => Vec::new(),
            None => return Err(unknown()),
        };
        if fields.iter().all(|field| plain(field)) {
            Ok(Self { of_context, fields })
        } else {
            Err(unknown())
        }
    }

    pub(super) fn find<'a>(&self, data: &'a Value, context: &'a Value) -> Option<&'a Value> {
        let whole = if self.of_context { context } else { data };
        self.fields.iter().try_fold(whole, |value, field| value.get(field))
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.of_context { "$$" } else { "$" })?;
        self.fields.iter().try_for_each(|field| write!(f, ".{field}"))
    }
}

impl Test {
    pub(super) fn read(mut fields: Fields) -> Result<Self, Unsupported> {
        let of = fields.of.clone();
        let several = |value: Value| match value {
            Value::Array(items) => items
                .iter()
                .map(|item| Self::read(Fields::of(&of, item)?))
                .collect::<Result<Vec<_>, _>>(),
            _ => Err(Unsupported(format!("{of} has an And or Or that is no list"))),
        };
        fields.optional("Comment");
        let test = if let Some(tests) = fields.optional("And") {
            Self::All(several(tests)?)
        } else if let Some(tests) = fields.optional("Or") {
            Self::Any(several(tests)?)
        } else if let Some(test) = fields.optional("Not") {
            Self::Not(Box::new(Self::read(Fields::of(&of, &test)?)?))
        } else {
            let variable = Path::read(&of, &fields.text("Variable")?)?;
            let comparison = if let Some(text) = fields.optional_text("StringEquals")? {
                Comparison::StringEquals(text)
            } else if let Some(number) = fields.number("NumericEquals")? {
                Comparison::NumericEquals(number)
            } else if let Some(Value::Bool(wanted)) = fields.optional("BooleanEquals") {
                Comparison::BooleanEquals(wanted)
            } else if let Some(Value::Bool(wanted)) = fields.optional("IsPresent") {
                Comparison::IsPresent(wanted)
            } else if let Some(Value::Bool(wanted)) = fields.optional("IsNull") {
                Comparison::IsNull(wanted)
            } else {
                let names: Vec<_> = fields.rest.keys().cloned().collect();
                return Err(Unsupported(format!("{of} compares by {}", names.join(", "))));
            };
            Self::Compare(variable, comparison)
        };
        fields.end()?;
        Ok(test)
    }

    pub(crate) fn holds(&self, data: &Value, context: &Value) -> bool {
        match self {
            Self::All(tests) => tests.iter().all(|test| test.holds(data, context)),
            Self::Any(tests) => tests.iter().any(|test| test.holds(data, context)),
            Self::Not(test) => !test.holds(data, context),
            Self::Compare(path, comparison) => {
                let value = path.find(data, context);
                match comparison {
                    Comparison::StringEquals(text) => value.and_then(Value::as_str) == Some(text),
                    Comparison::NumericEquals(number) => value.and_then(Value::as_f64) == Some(*number),
                    Comparison::BooleanEquals(wanted) => value.and_then(Value::as_bool) == Some(*wanted),
                    Comparison::IsPresent(wanted) => value.is_some() == *wanted,
                    Comparison::IsNull(wanted) => value.is_some_and(Value::is_null) == *wanted,
                }
            }
        }
    }
}
