//! `Query` and `Scan`.

use super::{
    attribute::Attribute,
    expression::{Comparison, Condition, Operand},
    invalid,
    operations::{PageInput, Refusal, read, shape},
    rows::{self, Range},
    shape::{Keys, Part, Shape},
};
use crate::wire::AwsError;
use rusqlite::Connection;
use serde_json::Value;

pub(super) fn query(db: &Connection, shapes: &[Shape], body: &[u8]) -> Result<Value, Refusal> {
    let input: PageInput = read(body)?;
    let shape = shape(shapes, &input.table_name)?;
    let index = input.index_name.as_deref().map(|name| shape.index(name)).transpose()?;
    if index.is_some() && input.consistent_read == Some(true) {
        return Err(invalid("Consistent reads are not supported on global secondary indexes").into());
    }
    let (page, condition, mut reading) = input.begin(shape)?;
    let condition = condition.ok_or_else(|| invalid("A query has no KeyConditionExpression."))?;
    let keys = index.map_or(&shape.keys, |index| &index.keys);
    let (hash, range) = key_condition(keys, &condition)?;
    match index {
        None => rows::query(db, shape, (&hash, &range), &page, |item| reading.take(item))?,
        Some(index) => rows::query_index(db, (shape, index), (&hash, &range), &page, |item| reading.take(item))?,
    }
    Ok(reading.answer(|name| shape.keys.has(name) || keys.has(name)))
}

pub(super) fn scan(db: &Connection, shapes: &[Shape], body: &[u8]) -> Result<Value, Refusal> {
    let input: PageInput = read(body)?;
    let shape = shape(shapes, &input.table_name)?;
    if input.index_name.is_some() || input.key_condition_expression.is_some() {
        return Err(invalid("This host scans tables, without an index or a key condition.").into());
    }
    let (page, _, mut reading) = input.begin(shape)?;
    rows::scan(db, shape, &page, |item| reading.take(item))?;
    Ok(reading.answer(|name| shape.keys.has(name)))
}

/// Reads the partition and the range of sort keys out of a condition.
fn key_condition(keys: &Keys, condition: &Condition) -> Result<(Part, Range), AwsError> {
    let (one, two) = match condition {
        Condition::And(one, two) => (&**one, Some(&**two)),
        one => (one, None),
    };
    let hash = |condition: &Condition| match condition {
        Condition::Compare(Operand::Path(path), Comparison::Equal, Operand::Value(value))
            if path.len() == 1 && path[0] == keys.hash() =>
        {
            Some(keys.part(&path[0], value))
        }
        _ => None,
    };
    let (hash, rest) = match (hash(one), two.map(|two| (two, hash(two)))) {
        (Some(part), rest) => (part?, rest.map(|(two, _)| two)),
        (None, Some((_, Some(part)))) => (part?, Some(one)),
        _ => return Err(invalid(format!("A key condition has no `{} =`.", keys.hash()))),
    };
    Ok((hash, rest.map_or(Ok(Range::All), |rest| range(keys, rest))?))
}

fn range(keys: &Keys, condition: &Condition) -> Result<Range, AwsError> {
    let wrong = || invalid("A key condition has more than one range of the sort key.");
    let part = |operand: &Operand, value: &Operand| match (operand, value) {
        (Operand::Path(path), Operand::Value(value)) if path.len() == 1 && keys.sort() == Some(&path[0]) => {
            keys.part(&path[0], value)
        }
        _ => Err(wrong()),
    };
    match condition {
        Condition::Compare(operand, comparison, value) => {
            let sign = match comparison {
                Comparison::Equal => "=",
                Comparison::Less => "<",
                Comparison::AtMost => "<=",
                Comparison::More => ">",
                Comparison::AtLeast => ">=",
                Comparison::NotEqual => return Err(wrong()),
            };
            Ok(Range::Compare(sign, part(operand, value)?))
        }
        Condition::Between(operand, low, high) => Ok(Range::Between(part(operand, low)?, part(operand, high)?)),
        Condition::BeginsWith(operand, start @ Operand::Value(Attribute::S(text))) => {
            part(operand, start)?;
            Ok(Range::Prefix(text.clone()))
        }
        _ => Err(wrong()),
    }
}
