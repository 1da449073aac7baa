//! Expressions: condition, filter, key condition, update and projection, parsed with their names
//! and values put in.
//!
//! The subset that the functions use. List indexes, `IN`, `attribute_type` and `list_append` are
//! refused by name.

use super::{
    attribute::{Attribute, Item},
    invalid,
};
use crate::wire::AwsError;
use std::collections::{BTreeMap, BTreeSet};

/// The most bytes of an expression, as in DynamoDB.
const LONGEST: usize = 4096;
/// DynamoDB's reserved words (Amazon DynamoDB Developer Guide, *Reserved words in DynamoDB*): as a
/// name they need a placeholder.
const RESERVED: &str = include_str!("reserved.txt");
/// The most parentheses and `NOT`s around a condition.
const DEEPEST: usize = 64;

/// Attribute names from the item downwards.
pub(super) type Path = Vec<String>;

#[derive(Debug, PartialEq)]
pub(super) enum Operand {
    Path(Path),
    Value(Attribute),
    Size(Path),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    AtMost,
    More,
    AtLeast,
}

#[derive(Debug, PartialEq)]
pub(super) enum Condition {
    Compare(Operand, Comparison, Operand),
    Between(Operand, Operand, Operand),
    Exists(Path),
    BeginsWith(Operand, Operand),
    Contains(Operand, Operand),
    Not(Box<Condition>),
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
}

/// The right side of an assignment.
#[derive(Debug, PartialEq)]
pub(super) enum Term {
    Operand(Operand),
    IfNotExists(Path, Operand),
    Sum(Box<Term>, Box<Term>),
    Difference(Box<Term>, Box<Term>),
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Update {
    pub(super) set: Vec<(Path, Term)>,
    pub(super) remove: Vec<Path>,
    pub(super) add: Vec<(Path, Attribute)>,
    pub(super) delete: Vec<(Path, Attribute)>,
}

/// The placeholders of a request, and which of them were used.
#[derive(Default)]
pub(super) struct Placeholders {
    names: BTreeMap<String, String>,
    values: Item,
    used: BTreeSet<String>,
}

impl Placeholders {
    pub(super) fn new(names: Option<BTreeMap<String, String>>, values: Option<Item>) -> Self {
        Self {
            names: names.unwrap_or_default(),
            values: values.unwrap_or_default(),
            used: BTreeSet::new(),
        }
    }

    pub(super) fn condition(&mut self, text: &str) -> Result<Condition, AwsError> {
        self.parse(text, |parser| parser.or(0))
    }

    pub(super) fn update(&mut self, text: &str) -> Result<Update, AwsError> {
        self.parse(text, |parser| parser.update())
    }

    pub(super) fn projection(&mut self, text: &str) -> Result<Vec<Path>, AwsError> {
        let paths = self.parse(text, |parser| parser.list(|parser| parser.path()))?;
        match paths.iter().find(|path| path.len() > 1) {
            None => Ok(paths),
            Some(path) => Err(invalid(format!(
                "This host projects whole attributes, not {}.",
                path.join(".")
            ))),
        }
    }

    fn parse<T>(
        &mut self,
        text: &str,
        read: impl FnOnce(&mut Parser<'_>) -> Result<T, AwsError>,
    ) -> Result<T, AwsError> {
        if text.len() > LONGEST {
            return Err(invalid(format!("An expression has more than {LONGEST} bytes.")));
        }
        let mut parser = Parser {
            tokens: tokens(text)?,
            at: 0,
            given: self,
        };
        let read = read(&mut parser)?;
        match parser.peek() {
            None => Ok(read),
            Some(token) => Err(unexpected(token)),
        }
    }

    /// Refuses a name or a value that no expression used, as DynamoDB does.
    pub(super) fn finish(self) -> Result<(), AwsError> {
        let given = self.names.keys().chain(self.values.keys());
        match given.into_iter().find(|name| !self.used.contains(*name)) {
            None => Ok(()),
            Some(name) => Err(invalid(format!("{name} is given and no expression uses it."))),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    /// `#name` or `:value`.
    Placeholder(String),
    Sign(&'static str),
}

fn tokens(text: &str) -> Result<Vec<Token>, AwsError> {
    const SIGNS: [&str; 12] = ["<>", "<=", ">=", "<", ">", "=", "(", ")", ",", ".", "+", "-"];
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if first.is_ascii_alphabetic() || first == '_' || first == '#' || first == ':' {
            let more = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let length = 1 + rest[1..].find(|c| !more(c)).unwrap_or(rest.len() - 1);
            let word = rest[..length].to_owned();
            found.push(if first == '#' || first == ':' {
                Token::Placeholder(word)
            } else {
                Token::Word(word)
            });
            length
        } else {
            let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign));
            let sign =
                sign.ok_or_else(|| invalid(format!("An expression has a `{first}`, which is not known here.")))?;
            found.push(Token::Sign(sign));
            sign.len()
        };
        rest = rest[length..].trim_start();
    }
    Ok(found)
}

struct Parser<'a> {
    tokens: Vec<Token>,
    at: usize,
    given: &'a mut Placeholders,
}

impl Parser<'_> {
    fn or(&mut self, depth: usize) -> Result<Condition, AwsError> {
        let mut left = self.and(depth)?;
        while self.take_word("OR") {
            left = Condition::Or(left.into(), self.and(depth)?.into());
        }
        Ok(left)
    }

    fn and(&mut self, depth: usize) -> Result<Condition, AwsError> {
        let mut left = self.not(depth)?;
        while self.take_word("AND") {
            left = Condition::And(left.into(), self.not(depth)?.into());
        }
        Ok(left)
    }

    fn not(&mut self, depth: usize) -> Result<Condition, AwsError> {
        if depth > DEEPEST {
            return Err(invalid("A condition is nested too deeply."));
        }
        if self.take_word("NOT") {
            return Ok(Condition::Not(self.not(depth + 1)?.into()));
        }
        if self.take_sign("(") {
            let inner = self.or(depth + 1)?;
            self.expect(")")?;
            return Ok(inner);
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Condition, AwsError> {
        match self.function().as_deref() {
            Some("attribute_exists") => return Ok(Condition::Exists(self.arguments(Self::path)?)),
            Some("attribute_not_exists") => {
                let exists = Condition::Exists(self.arguments(Self::path)?);
                return Ok(Condition::Not(exists.into()));
            }
            Some(name @ ("begins_with" | "contains")) => {
                let (one, two) = self.arguments(Self::pair)?;
                return Ok(if name == "contains" {
                    Condition::Contains(one, two)
                } else {
                    Condition::BeginsWith(one, two)
                });
            }
            Some("size") => {
                let size = Operand::Size(self.arguments(Self::path)?);
                return self.read_comparison(size);
            }
            Some(other) => return Err(invalid(format!("The function {other} is not known here."))),
            None => {}
        }
        let left = self.operand()?;
        self.read_comparison(left)
    }

    fn read_comparison(&mut self, left: Operand) -> Result<Condition, AwsError> {
        if self.take_word("BETWEEN") {
            let low = self.operand()?;
            if !self.take_word("AND") {
                return Err(invalid("A BETWEEN has no AND."));
            }
            return Ok(Condition::Between(left, low, self.operand()?));
        }
        let comparison = match self.next()? {
            Token::Sign("=") => Comparison::Equal,
            Token::Sign("<>") => Comparison::NotEqual,
            Token::Sign("<") => Comparison::Less,
            Token::Sign("<=") => Comparison::AtMost,
            Token::Sign(">") => Comparison::More,
            Token::Sign(">=") => Comparison::AtLeast,
            token => return Err(unexpected(&token)),
        };
        Ok(Condition::Compare(left, comparison, self.operand()?))
    }

    fn operand(&mut self) -> Result<Operand, AwsError> {
        if let Some(name) = self.function() {
            if name == "size" {
                return Ok(Operand::Size(self.arguments(Self::path)?));
            }
            return Err(invalid(format!("The function {name} is not known here.")));
        }
        if matches!(self.peek(), Some(Token::Placeholder(name)) if name.starts_with(':')) {
            return Ok(Operand::Value(self.value()?));
        }
        Ok(Operand::Path(self.path()?))
    }

    fn update(&mut self) -> Result<Update, AwsError> {
        let mut update = Update::default();
        let mut clauses = BTreeSet::new();
        while self.peek().is_some() {
            let token = self.next()?;
            let clause = match &token {
                Token::Word(word) => word.to_ascii_uppercase(),
                _ => return Err(unexpected(&token)),
            };
            match clause.as_str() {
                "SET" => update.set = self.list(Self::assignment)?,
                "REMOVE" => update.remove = self.list(Self::path)?,
                "ADD" => update.add = self.list(Self::change)?,
                "DELETE" => update.delete = self.list(Self::change)?,
                _ => return Err(unexpected(&token)),
            }
            if !clauses.insert(clause) {
                return Err(invalid("An update has a clause twice."));
            }
        }
        if clauses.is_empty() {
            return Err(invalid("An update is empty."));
        }
        Ok(update)
    }

    fn assignment(&mut self) -> Result<(Path, Term), AwsError> {
        let path = self.path()?;
        self.expect("=")?;
        let left = self.term()?;
        let term = if self.take_sign("+") {
            Term::Sum(left.into(), self.term()?.into())
        } else if self.take_sign("-") {
            Term::Difference(left.into(), self.term()?.into())
        } else {
            left
        };
        Ok((path, term))
    }

    fn term(&mut self) -> Result<Term, AwsError> {
        let is_default = matches!(self.peek(), Some(Token::Word(word)) if word == "if_not_exists");
        if is_default && self.function().is_some() {
            return self.arguments(|parser| {
                let path = parser.path()?;
                parser.expect(",")?;
                Ok(Term::IfNotExists(path, parser.operand()?))
            });
        }
        Ok(Term::Operand(self.operand()?))
    }

    fn change(&mut self) -> Result<(Path, Attribute), AwsError> {
        Ok((self.path()?, self.value()?))
    }

    fn pair(&mut self) -> Result<(Operand, Operand), AwsError> {
        let one = self.operand()?;
        self.expect(",")?;
        Ok((one, self.operand()?))
    }

    fn path(&mut self) -> Result<Path, AwsError> {
        let mut path = vec![self.name()?];
        while self.take_sign(".") {
            path.push(self.name()?);
        }
        Ok(path)
    }

    fn name(&mut self) -> Result<String, AwsError> {
        match self.next()? {
            Token::Word(word) => {
                let upper = word.to_ascii_uppercase();
                if RESERVED.split_ascii_whitespace().any(|reserved| reserved == upper) {
                    return Err(invalid(format!(
                        "Attribute name is a reserved keyword; reserved keyword: {word}"
                    )));
                }
                Ok(word)
            }
            Token::Placeholder(name) if name.starts_with('#') => {
                let Some(meant) = self.given.names.get(&name).cloned() else {
                    return Err(invalid(format!("An expression uses {name}, which is not given.")));
                };
                self.given.used.insert(name);
                Ok(meant)
            }
            token => Err(unexpected(&token)),
        }
    }

    fn value(&mut self) -> Result<Attribute, AwsError> {
        match self.next()? {
            Token::Placeholder(name) if name.starts_with(':') => {
                let Some(value) = self.given.values.get(&name).cloned() else {
                    return Err(invalid(format!("An expression uses {name}, which is not given.")));
                };
                self.given.used.insert(name);
                Ok(value)
            }
            token => Err(unexpected(&token)),
        }
    }

    /// Takes a word that a parenthesis follows, and the parenthesis.
    fn function(&mut self) -> Option<String> {
        let [Token::Word(name), Token::Sign("("), ..] = &self.tokens[self.at..] else {
            return None;
        };
        self.at += 2;
        Some(name.clone())
    }

    /// Reads a function's arguments up to the closing parenthesis.
    fn arguments<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, AwsError>) -> Result<T, AwsError> {
        let read = read(self)?;
        self.expect(")")?;
        Ok(read)
    }

    fn list<T>(&mut self, read: impl Fn(&mut Self) -> Result<T, AwsError>) -> Result<Vec<T>, AwsError> {
        let mut all = vec![read(self)?];
        while self.take_sign(",") {
            all.push(read(self)?);
        }
        Ok(all)
    }

    fn take_word(&mut self, wanted: &str) -> bool {
        self.take(|token| matches!(token, Token::Word(word) if word.eq_ignore_ascii_case(wanted)))
    }

    fn take_sign(&mut self, wanted: &str) -> bool {
        self.take(|token| matches!(token, Token::Sign(sign) if *sign == wanted))
    }

    fn take(&mut self, is_it: impl Fn(&Token) -> bool) -> bool {
        let found = self.peek().is_some_and(is_it);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, wanted: &str) -> Result<(), AwsError> {
        match self.next()? {
            Token::Sign(sign) if sign == wanted => Ok(()),
            token => Err(unexpected(&token)),
        }
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Result<Token, AwsError> {
        let token = self.peek().cloned();
        self.at += 1;
        token.ok_or_else(|| invalid("An expression ends too early."))
    }
}

fn unexpected(token: &Token) -> AwsError {
    let text = match token {
        Token::Word(text) | Token::Placeholder(text) => text,
        Token::Sign(sign) => *sign,
    };
    invalid(format!("An expression has `{text}` where something else belongs."))
}
