//! Conditions and updates, applied to an item.

use super::{
    attribute::{Attribute, Item, Number},
    expression::{Comparison, Condition, Operand, Path, Term, Update},
    invalid,
};
use crate::wire::AwsError;
use std::cmp::Ordering;

/// Returns the attribute at a path.
pub(super) fn find<'a>(item: &'a Item, path: &[String]) -> Option<&'a Attribute> {
    let (name, rest) = path.split_first()?;
    match (item.get(name)?, rest) {
        (found, []) => Some(found),
        (Attribute::M(inner), rest) => find(inner, rest),
        _ => None,
    }
}

impl Operand {
    fn read(&self, item: &Item) -> Option<Attribute> {
        match self {
            Self::Path(path) => find(item, path).cloned(),
            Self::Value(value) => Some(value.clone()),
            Self::Size(path) => {
                let count = i128::try_from(find(item, path)?.count()?).ok()?;
                Number::new(count).map(Attribute::N)
            }
        }
    }
}

impl Condition {
    /// Tells whether the condition holds. A missing attribute, or one of another type, meets no
    /// comparison but `<>`.
    pub(super) fn holds(&self, item: &Item) -> bool {
        match self {
            Self::Exists(path) => find(item, path).is_some(),
            Self::Not(inner) => !inner.holds(item),
            Self::And(one, two) => one.holds(item) && two.holds(item),
            Self::Or(one, two) => one.holds(item) || two.holds(item),
            Self::Compare(left, comparison, right) => compare(left.read(item), *comparison, right.read(item)),
            Self::Between(value, low, high) => {
                let value = value.read(item);
                compare(value.clone(), Comparison::AtLeast, low.read(item))
                    && compare(value, Comparison::AtMost, high.read(item))
            }
            Self::BeginsWith(value, start) => match (value.read(item), start.read(item)) {
                (Some(Attribute::S(value)), Some(Attribute::S(start))) => value.starts_with(&start),
                _ => false,
            },
            Self::Contains(whole, part) => match (whole.read(item), part.read(item)) {
                (Some(Attribute::S(whole)), Some(Attribute::S(part))) => whole.contains(&part),
                (Some(Attribute::Texts(set)), Some(Attribute::S(part))) => set.contains(&part),
                (Some(Attribute::Numbers(set)), Some(Attribute::N(part))) => set.contains(&part),
                (Some(Attribute::L(list)), Some(part)) => list.contains(&part),
                _ => false,
            },
        }
    }
}

fn compare(left: Option<Attribute>, comparison: Comparison, right: Option<Attribute>) -> bool {
    match comparison {
        Comparison::Equal => left.is_some() && left == right,
        Comparison::NotEqual => left != right,
        _ => {
            let (Some(left), Some(right)) = (left, right) else {
                return false;
            };
            matches!(
                (left.order(&right), comparison),
                (Some(Ordering::Less), Comparison::Less | Comparison::AtMost)
                    | (Some(Ordering::Equal), Comparison::AtMost | Comparison::AtLeast)
                    | (Some(Ordering::Greater), Comparison::More | Comparison::AtLeast)
            )
        }
    }
}

impl Update {
    /// Returns the changed item. The right sides read the item as it was.
    ///
    /// # Errors
    ///
    /// `ValidationException`, final: a path whose parent is missing, an attribute that is read and
    /// missing, or an attribute of another type.
    pub(super) fn apply(&self, before: &Item) -> Result<Item, AwsError> {
        let mut after = before.clone();
        for (path, term) in &self.set {
            let value = term.read(before)?;
            write(&mut after, path, Some(value))?;
        }
        for path in &self.remove {
            write(&mut after, path, None)?;
        }
        for (path, by) in &self.add {
            let value = add(find(before, path), by)?;
            write(&mut after, path, Some(value))?;
        }
        for (path, what) in &self.delete {
            if let Some(was) = find(before, path) {
                let value = subtract(was, what)?;
                write(&mut after, path, value)?;
            }
        }
        Ok(after)
    }

    /// Returns each path that the update writes.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        let set = self.set.iter().map(|(path, _)| path);
        let changes = self.add.iter().chain(&self.delete).map(|(path, _)| path);
        set.chain(&self.remove).chain(changes)
    }
}

impl Term {
    fn read(&self, item: &Item) -> Result<Attribute, AwsError> {
        let missing = || invalid("An update reads an attribute that the item does not have.");
        match self {
            Self::Operand(operand) => operand.read(item).ok_or_else(missing),
            Self::IfNotExists(path, operand) => match find(item, path) {
                Some(value) => Ok(value.clone()),
                None => operand.read(item).ok_or_else(missing),
            },
            Self::Sum(one, two) => calculate(&one.read(item)?, &two.read(item)?, i128::checked_add),
            Self::Difference(one, two) => calculate(&one.read(item)?, &two.read(item)?, i128::checked_sub),
        }
    }
}

fn calculate(
    one: &Attribute,
    two: &Attribute,
    how: impl Fn(i128, i128) -> Option<i128>,
) -> Result<Attribute, AwsError> {
    let (Attribute::N(one), Attribute::N(two)) = (one, two) else {
        return Err(invalid("An update calculates with what is no number."));
    };
    how(one.get(), two.get())
        .and_then(Number::new)
        .map(Attribute::N)
        .ok_or_else(|| invalid("A number has more than 38 digits."))
}

fn add(was: Option<&Attribute>, by: &Attribute) -> Result<Attribute, AwsError> {
    match (was, by) {
        (None, Attribute::N(_) | Attribute::Texts(_) | Attribute::Numbers(_)) => Ok(by.clone()),
        (Some(Attribute::Texts(was)), Attribute::Texts(by)) => Ok(Attribute::Texts(was | by)),
        (Some(Attribute::Numbers(was)), Attribute::Numbers(by)) => Ok(Attribute::Numbers(was | by)),
        (Some(was @ Attribute::N(_)), Attribute::N(_)) => calculate(was, by, i128::checked_add),
        _ => Err(invalid(
            "An ADD is of a number or a set, to one of the same type.".to_owned(),
        )),
    }
}

/// Takes elements out of a set. An empty set is no attribute.
fn subtract(was: &Attribute, what: &Attribute) -> Result<Option<Attribute>, AwsError> {
    match (was, what) {
        (Attribute::Texts(was), Attribute::Texts(what)) => {
            let left = was - what;
            Ok((!left.is_empty()).then_some(Attribute::Texts(left)))
        }
        (Attribute::Numbers(was), Attribute::Numbers(what)) => {
            let left = was - what;
            Ok((!left.is_empty()).then_some(Attribute::Numbers(left)))
        }
        _ => Err(invalid("A DELETE is of a set, from one of the same type.")),
    }
}

/// Sets the attribute at a path, or removes it.
fn write(item: &mut Item, path: &[String], value: Option<Attribute>) -> Result<(), AwsError> {
    let no_parent = || invalid("An update names a path whose parent the item does not have.");
    match path {
        [] => Err(no_parent()),
        [name] => {
            match value {
                Some(value) => item.insert(name.clone(), value),
                None => item.remove(name),
            };
            Ok(())
        }
        [name, rest @ ..] => match item.get_mut(name) {
            Some(Attribute::M(inner)) => write(inner, rest, value),
            _ => Err(no_parent()),
        },
    }
}
