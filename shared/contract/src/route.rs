//! The routes of `functions/api`, in one table: clients write addresses by it, and the function
//! reads them by it.
//!
//! Their bodies, queries and answers are in [`http`](crate::http).

use lifecycle::{Code, Failure};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::{borrow::Cow, collections::BTreeMap, fmt};

/// The most characters that are said of the name of a parameter that is not known.
const LONGEST_NAME: usize = 50;

/// The characters that are escaped in a part of a URL.
///
/// # Source
///
/// RFC 3986, section 2.3: what is not unreserved.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A text as one part of a URL: of its path, its query, or what is before its host.
pub fn encode_part(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// The parts of a path, decoded. An empty part is none.
pub fn parts(path: &str) -> Vec<Cow<'_, str>> {
    let parts = path.split('/').filter(|part| !part.is_empty());
    parts.map(|part| percent_decode_str(part).decode_utf8_lossy()).collect()
}

/// The values that a parameter of a query takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Any text; the route itself may refuse it.
    Text,
    /// A whole number.
    Number,
    /// This word.
    Word(&'static str),
}

/// A parameter of a query, with its name.
pub type Parameter = (&'static str, Takes);

use Takes::{Number, Text, Word};

macro_rules! routes {
    ($(
        $route:ident $(($part:ident))? => $method:literal [$($segment:tt),*]
            $({ $($parameter:literal: $takes:expr),* })?;
    )*) => {
        /// A route, with the variable part of its path.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Route<'a> {
            $($route $((routes!(@text $part)))?,)*
        }

        impl<'a> Route<'a> {
            /// The route of a request; `None` if there is none.
            ///
            /// * `parts`: its path, as [`parts`] gives it.
            pub fn of(method: &str, parts: &[&'a str]) -> Option<Self> {
                match *parts {
                    $([$($segment),*] if method == $method => Some(Self::$route $(($part))?),)*
                    _ => None,
                }
            }

            pub fn method(&self) -> &'static str {
                match self {
                    $(Self::$route { .. } => $method,)*
                }
            }

            /// The parameters of its query.
            pub fn parameters(&self) -> &'static [Parameter] {
                match self {
                    $(Self::$route { .. } => &[$($(($parameter, $takes)),*)?],)*
                }
            }

            fn segments(&self) -> Vec<&'a str> {
                match *self {
                    $(Self::$route $(($part))? => vec![$($segment),*],)*
                }
            }

            /// Each of them, with the same variable part.
            pub fn each(part: &'a str) -> Vec<Self> {
                vec![$(Self::$route $((routes!(@value $part part)))?,)*]
            }
        }
    };
    (@text $part:ident) => { &'a str };
    (@value $part:ident $value:ident) => { $value };
}

routes! {
    Health => "GET" ["v1", "health"];
    SendCommand => "POST" ["v1", "commands"];
    Check => "POST" ["v1", "checks"];
    OfferSnapshot => "POST" ["v1", "snapshots"];
    Operation(id) => "GET" ["v1", "operations", id]
        { "wait": Number };
    Runs => "GET" ["v1", "runs"]
        { "flow": Text, "status": Text, "tag": Text, "name": Text, "archived": Word("1"), "limit": Number, "after": Text };
    Run(id) => "GET" ["v1", "runs", id]
        { "wait": Number, "wish": Text };
    ChangeRun(id) => "PUT" ["v1", "runs", id];
    DeleteRun(id) => "DELETE" ["v1", "runs", id];
    RunFiles(id) => "GET" ["v1", "runs", id, "files"]
        { "path": Text, "offset": Number, "wait": Number };
    Output(id) => "GET" ["v1", "output", id]
        { "after": Number, "wait": Number };
    Sessions => "GET" ["v1", "sessions"]
        { "users": Text, "key": Text, "limit": Number, "after": Text };
    Session(key) => "GET" ["v1", "sessions", key];
    Why(key) => "GET" ["v1", "sessions", key, "why"];
    Packages(key) => "GET" ["v1", "sessions", key, "packages"];
    Installs(key) => "GET" ["v1", "sessions", key, "installs"];
    Events(key) => "GET" ["v1", "sessions", key, "events"]
        { "after": Number };
    Computes => "GET" ["v1", "computes"]
        { "users": Text, "key": Text, "limit": Number, "after": Text };
    Compute(id) => "GET" ["v1", "computes", id]
        { "wait": Number, "until": Word("gone") };
    DeleteCompute(id) => "DELETE" ["v1", "computes", id];
    Instances => "GET" ["v1", "instances"]
        { "user": Text, "users": Word("all"), "after": Text };
    Instance(name) => "GET" ["v1", "instances", name]
        { "user": Text, "wait": Number };
    Roles(workspace) => "GET" ["v1", "workspaces", workspace, "roles"]
        { "user": Text, "after": Text };
    WriteRoles(workspace) => "PUT" ["v1", "workspaces", workspace, "roles"];
    Connections(workspace) => "GET" ["v1", "workspaces", workspace, "connections"];
    KeepConnection(workspace) => "PUT" ["v1", "workspaces", workspace, "connections"];
    DeleteConnection(workspace) => "DELETE" ["v1", "workspaces", workspace, "connections"]
        { "name": Text, "for_workspace": Word("1") };
    GiveConnections(key) => "POST" ["v1", "sessions", key, "connections"];
    GiveEarlier(key) => "POST" ["v1", "sessions", key, "earlier"];
    WorkspaceSettings(workspace) => "GET" ["v1", "workspaces", workspace, "settings"];
    WriteWorkspaceSettings(workspace) => "PUT" ["v1", "workspaces", workspace, "settings"];
    Webhooks(workspace) => "GET" ["v1", "workspaces", workspace, "webhooks"];
    WriteWebhooks(workspace) => "PUT" ["v1", "workspaces", workspace, "webhooks"];
}

impl Route<'_> {
    /// Checks a query's names. The text of an error has no value of it, which may be a secret.
    ///
    /// # Errors
    ///
    /// `Http.BadQuery`, final.
    pub fn check_query(&self, query: &BTreeMap<String, String>) -> Result<(), Failure> {
        for (name, value) in query {
            let Some((_, takes)) = self.parameters().iter().find(|(own, _)| own == name) else {
                return Err(bad_query(&self.refusal_of(name)));
            };
            match takes {
                Takes::Number if value.parse::<u64>().is_err() => {
                    return Err(bad_query(&format!("The parameter {name} is a whole number.")));
                }
                Takes::Word(word) if value != word => {
                    return Err(bad_query(&format!("The parameter {name} is {word}, or is left out.")));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn refusal_of(&self, name: &str) -> String {
        let name: String = name.chars().take(LONGEST_NAME).collect();
        let known: Vec<&str> = self.parameters().iter().map(|(name, _)| *name).collect();
        match known.is_empty() {
            true => format!("This route has no parameter {name}. It has none."),
            false => format!("This route has no parameter {name}. It has {}.", known.join(", ")),
        }
    }
}

fn bad_query(message: &str) -> Failure {
    Failure::new(Code::HttpBadQuery, message)
}

/// Its path.
impl fmt::Display for Route<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut segments = self.segments().into_iter();
        segments.try_for_each(|segment| write!(f, "/{}", utf8_percent_encode(segment, ESCAPED)))
    }
}

/// The target of a request: a route and its query. Displays as path and query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    pub route: Route<'a>,
    query: String,
}

impl<'a> From<Route<'a>> for Target<'a> {
    fn from(route: Route<'a>) -> Self {
        Self {
            route,
            query: String::new(),
        }
    }
}

impl<'a> Route<'a> {
    /// With a parameter of the query.
    pub fn with(self, name: &str, value: impl fmt::Display) -> Target<'a> {
        Target::from(self).with(name, value)
    }
}

impl Target<'_> {
    /// With a further parameter of the query.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        debug_assert!(
            self.route.parameters().iter().any(|(own, _)| *own == name),
            "the route has no parameter {name}"
        );
        self.query.push(if self.query.is_empty() { '?' } else { '&' });
        self.query += &format!("{name}={}", encode_part(&value.to_string()));
        self
    }

    /// With a further parameter of the query, if there is a value.
    #[must_use]
    pub fn with_any(self, name: &str, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}{}", self.route, self.query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The route of a path.
    fn read<'a>(method: &str, parts: &'a [Cow<str>]) -> Option<Route<'a>> {
        Route::of(method, &parts.iter().map(AsRef::as_ref).collect::<Vec<_>>())
    }

    #[test]
    fn each_route_is_read_as_it_is_written_whatever_its_variable_part() {
        for part in ["a", "files", "my lab/ä?#%41", "v1", "."] {
            for route in Route::each(part) {
                let path = route.to_string();
                assert_eq!(read(route.method(), &parts(&path)), Some(route), "{path}");
            }
        }
        assert_eq!(read("PATCH", &parts("/v1/runs")), None);
        assert_eq!(read("GET", &parts("/v1/runs/a/b")), None);
    }

    #[test]
    fn each_route_is_in_the_table_of_the_documentation_and_no_other_is() {
        let documentation = include_str!("http.rs");
        let rows = documentation
            .lines()
            .filter_map(|line| line.strip_prefix("//! | `")?.split_once('`'));
        let documented: Vec<String> = rows
            .map(|(row, _)| {
                let (begin, end) = row.split_once('{').unwrap_or((row, "}"));
                let (_, end) = end.split_once('}').expect("a part has an end");
                let part = if begin == row { "" } else { "x" };
                format!("{begin}{part}{end}")
            })
            .collect();
        let written = |route: Route| format!("{} {route}", route.method());
        for route in Route::each("x") {
            assert!(
                documented.contains(&written(route)),
                "{} is not documented",
                written(route)
            );
        }
        for row in &documented {
            assert!(
                Route::each("x").into_iter().any(|route| written(route) == *row),
                "{row} is no route"
            );
        }
    }

    #[test]
    fn each_parameter_of_a_query_is_in_the_table_of_the_documentation() {
        let documentation = include_str!("http.rs");
        for route in Route::each("x") {
            let begin = format!("{} {route}", route.method());
            let rows = documentation.lines().filter_map(|line| {
                let mut cells = line.strip_prefix("//! | `")?.split(" | ");
                let (own, query) = (cells.next()?.trim_end_matches('`'), cells.next()?);
                let (before, after) = own.split_once('{').unwrap_or((own, "}"));
                let part = if before == own { "" } else { "x" };
                let own = format!("{before}{part}{}", after.split_once('}')?.1);
                (own == begin).then_some(query)
            });
            let queries = rows.collect::<Vec<_>>().join(" ");
            for (name, _) in route.parameters() {
                let is_there = queries.contains(&format!("`{name}`")) || queries.contains(&format!("`{name}="));
                assert!(is_there, "{begin} has the parameter {name}, which is not documented");
            }
        }
    }

    #[test]
    fn a_query_has_the_parameters_of_its_route_and_their_values_alone() {
        let check = |route: Route, name: &str, value: &str| {
            let query = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            route
                .check_query(&query)
                .err()
                .map(|failure| failure.to_string())
                .unwrap_or_default()
        };
        for route in Route::each("x") {
            assert!(check(route, "token", "s3cret").starts_with("Http.BadQuery: This route has no parameter token."));
            for (name, takes) in route.parameters() {
                let (good, bad) = match takes {
                    Takes::Text => ("any", None),
                    Takes::Number => ("7", Some("-7")),
                    Takes::Word(word) => (*word, Some("s3cret")),
                };
                assert_eq!(check(route, name, good), "");
                let refused = bad.map(|bad| check(route, name, bad));
                assert!(refused.is_none_or(|text| text.starts_with("Http.BadQuery") && !text.contains("s3cret")));
            }
        }
        assert_eq!(
            [
                check(Route::Compute("c"), "untill", "gone"),
                check(Route::Compute("c"), "until", "later"),
                check(Route::Compute("c"), "wait", "long"),
                check(Route::Health, "x", ""),
            ],
            [
                "Http.BadQuery: This route has no parameter untill. It has wait, until.",
                "Http.BadQuery: The parameter until is gone, or is left out.",
                "Http.BadQuery: The parameter wait is a whole number.",
                "Http.BadQuery: This route has no parameter x. It has none.",
            ]
        );
    }

    #[test]
    fn a_query_is_escaped() {
        let target = Route::Runs
            .with("name", "a b&c")
            .with_any("tag", None::<&str>)
            .with("limit", 5);
        assert_eq!(target.to_string(), "/v1/runs?name=a%20b%26c&limit=5");
    }
}
