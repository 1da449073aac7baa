//! The fields of a part of a definition, each of which has to be known.

use super::{Next, Path, ResultPath, Unsupported};
use serde_json::{Map, Value};

/// The fields of an object, taken out one by one: what is left over is what is not known.
pub(super) struct Fields {
    pub(super) of: String,
    pub(super) rest: Map<String, Value>,
}

impl Fields {
    pub(super) fn of(of: &str, value: &Value) -> Result<Self, Unsupported> {
        let rest = value
            .as_object()
            .cloned()
            .ok_or_else(|| Unsupported(format!("{of} is no object")))?;
        Ok(Self {
            of: of.to_owned(),
            rest,
        })
    }

    pub(super) fn optional(&mut self, name: &str) -> Option<Value> {
        self.rest.remove(name)
    }

    pub(super) fn require(&mut self, name: &str) -> Result<Value, Unsupported> {
        self.optional(name)
            .ok_or_else(|| Unsupported(format!("{} has no {name}", self.of)))
    }

    pub(super) fn wrong(&self, name: &str) -> Unsupported {
        Unsupported(format!("{} has a {name} that this host cannot read", self.of))
    }

    pub(super) fn optional_text(&mut self, name: &str) -> Result<Option<String>, Unsupported> {
        match self.optional(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(name)),
        }
    }

    pub(super) fn text(&mut self, name: &str) -> Result<String, Unsupported> {
        self.optional_text(name)?
            .ok_or_else(|| Unsupported(format!("{} has no {name}", self.of)))
    }

    pub(super) fn texts(&mut self, name: &str) -> Result<Vec<String>, Unsupported> {
        serde_json::from_value(self.require(name)?).map_err(|_| self.wrong(name))
    }

    pub(super) fn number(&mut self, name: &str) -> Result<Option<f64>, Unsupported> {
        match self.optional(name) {
            None => Ok(None),
            Some(value) => match value.as_f64().filter(|number| *number >= 0.0) {
                Some(number) => Ok(Some(number)),
                None => Err(self.wrong(name)),
            },
        }
    }

    /// In milliseconds.
    pub(super) fn seconds(&mut self, name: &str) -> Result<Option<i64>, Unsupported> {
        Ok(self.number(name)?.map(|seconds| (seconds * 1000.0) as i64))
    }

    pub(super) fn list<T>(
        &mut self,
        name: &str,
        read: impl Fn(Self) -> Result<T, Unsupported>,
    ) -> Result<Vec<T>, Unsupported> {
        match self.optional(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| read(Self::of(&format!("{}, {name},", self.of), item)?))
                .collect(),
            Some(_) => Err(self.wrong(name)),
        }
    }

    pub(super) fn result_path(&mut self) -> Result<ResultPath, Unsupported> {
        match self.optional("ResultPath") {
            None => Ok(ResultPath::At(Vec::new())),
            Some(Value::Null) => Ok(ResultPath::Discard),
            Some(Value::String(text)) => match Path::read(&self.of, &text)? {
                Path {
                    of_context: false,
                    fields,
                } => Ok(ResultPath::At(fields)),
                _ => Err(self.wrong("ResultPath")),
            },
            Some(_) => Err(self.wrong("ResultPath")),
        }
    }

    pub(super) fn next(&mut self) -> Result<Next, Unsupported> {
        match (self.optional_text("Next")?, self.optional("End")) {
            (Some(next), None) => Ok(Some(next)),
            (None, Some(Value::Bool(true))) => Ok(None),
            _ => Err(Unsupported(format!("{} has neither a Next nor an End", self.of))),
        }
    }

    pub(super) fn end(self) -> Result<(), Unsupported> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = self.rest.keys().map(String::as_str).collect();
        Err(Unsupported(format!(
            "{} has {}, which this host does not know",
            self.of,
            names.join(", ")
        )))
    }
}
