//! YAML as users write it, read within a budget.
//!
//! `serde-saphyr`: its time grows with the text alone, and depth, values, aliases and merges have a
//! bound. Rejected: `serde_yaml_ng`, with no release since May 2024, which refuses deep text late
//! (100 kB of brackets after 1.2 s, 200 kB after 2.4 s, by measurement); it stays for our own
//! template, whose tags it keeps.

use crate::{Code, Failure};
use serde::{
    Deserializer,
    de::{DeserializeOwned, Error as _, Visitor, value},
};
use serde_json::Value;
use serde_saphyr::{Error, MessageFormatter, UserMessageFormatter, options::NonFiniteFloatPolicy};

/// The budget of a file.
const MOST_DEPTH: usize = 64;
const MOST_VALUES: usize = 50_000;
const MOST_ALIASES: usize = 1_000;

/// The treatment of a number that JSON cannot express.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Infinite {
    /// Nothing: nobody asks for the value.
    Passes,
    IsAnError,
}

/// Reads YAML.
///
/// * `shown`: the file's name, for the error; `code`: the error's code.
pub(crate) fn read<T: DeserializeOwned>(shown: &str, text: &str, code: Code, infinite: Infinite) -> Result<T, Failure> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MOST_DEPTH,
            flow_nesting_limit: MOST_DEPTH,
            max_nodes: MOST_VALUES,
            max_events: 4 * MOST_VALUES,
            max_aliases: MOST_ALIASES,
            max_anchors: MOST_ALIASES,
            max_recorded_anchor_events: 2 * MOST_VALUES,
            max_merge_keys: MOST_ALIASES,
            max_total_scalar_bytes: 4 << 20,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MOST_VALUES },
        non_finite_float_policy: match infinite {
            Infinite::Passes => NonFiniteFloatPolicy::PassThrough,
            Infinite::IsAnError => NonFiniteFloatPolicy::Reject,
        },
        // As YAML 1.2 has it, and ruamel, by which promptflow reads the same file.
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error.location().map(|at| format!(":{}", at.line())).unwrap_or_default();
        Failure::new(
            code,
            format!(
                "{shown}{line}: the YAML is wrong: {}. Correct it.",
                crate::redact(&describe(&error))
            ),
        )
    })
}

/// The most characters of what the parser says: it may repeat a key, which may be as long as the
/// file.
const LONGEST: usize = 300;

/// The parser's message, without the place.
fn describe(error: &Error) -> String {
    match error.without_snippet() {
        Error::AliasError { .. }
        | Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            format!(
                "a file may have {MOST_VALUES} values, {MOST_DEPTH} levels and {MOST_ALIASES} aliases, and this has more"
            )
        }
        Error::Unexpected { expected, .. } => {
            let expected = match *expected {
                "mapping start" => "a mapping",
                "sequence start" => "a list",
                "string scalar" => "a text",
                other => other,
            };
            format!("there should be {expected}")
        }
        error => {
            let said = UserMessageFormatter.format_message(error);
            said.chars().take(LONGEST).collect()
        }
    }
}

/// Reads YAML that has to be a mapping.
///
/// * `such_as`: what it may hold, for the error.
pub(crate) fn mapping(shown: &str, text: &str, code: Code, such_as: &str) -> Result<Value, Failure> {
    match read(shown, text, code.clone(), Infinite::Passes)? {
        value @ Value::Object(_) => Ok(value),
        other => Err(Failure::new(
            code,
            format!(
                "{shown} is {}. It should be a mapping, such as {such_as}.",
                type_of(&other)
            ),
        )),
    }
}

/// A value's type, in words.
pub(crate) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}
/// The names of the fields of a struct.
pub(crate) fn fields<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Fields(&'static [&'static str]);

    impl<'de> Deserializer<'de> for &mut Fields {
        type Error = value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(value::Error::custom("it has names and no values"))
        }
        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            self.0 = fields;
            self.deserialize_any(visitor)
        }
        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut fields = Fields(&[]);
    let _ = T::deserialize(&mut fields);
    fields.0
}
