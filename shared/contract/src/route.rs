//! The routes of `functions/api`, in one table: clients write addresses by it, and the function
//! reads them by it.
//!
//! Their bodies, queries and answers are in [`http`](crate::http).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::{borrow::Cow, fmt};

/// The characters that are escaped in a part of a URL.
///
/// # Source
///
/// RFC 3986, section 2.3: what is not unreserved.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A text as one part of a URL: of its path, its query, or what is before its host.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// The parts of a path, decoded. An empty part is none.
pub fn parts(path: &str) -> Vec<Cow<'_, str>> {
    let parts = path.split('/').filter(|part| !part.is_empty());
    parts.map(|part| percent_decode_str(part).decode_utf8_lossy()).collect()
}

macro_rules! routes {
    ($($route:ident $(($part:ident))? => $method:literal [$($segment:tt),*];)*) => {
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
    Operation(id) => "GET" ["v1", "operations", id];
    Runs => "GET" ["v1", "runs"];
    Run(id) => "GET" ["v1", "runs", id];
    ChangeRun(id) => "PUT" ["v1", "runs", id];
    DeleteRun(id) => "DELETE" ["v1", "runs", id];
    RunFiles(id) => "GET" ["v1", "runs", id, "files"];
    Output(id) => "GET" ["v1", "output", id];
    Sessions => "GET" ["v1", "sessions"];
    Session(key) => "GET" ["v1", "sessions", key];
    Why(key) => "GET" ["v1", "sessions", key, "why"];
    Packages(key) => "GET" ["v1", "sessions", key, "packages"];
    Installs(key) => "GET" ["v1", "sessions", key, "installs"];
    Events(key) => "GET" ["v1", "sessions", key, "events"];
    Computes => "GET" ["v1", "computes"];
    Compute(id) => "GET" ["v1", "computes", id];
    DeleteCompute(id) => "DELETE" ["v1", "computes", id];
    Instances => "GET" ["v1", "instances"];
    Instance(name) => "GET" ["v1", "instances", name];
    Roles(workspace) => "GET" ["v1", "workspaces", workspace, "roles"];
    WriteRoles(workspace) => "PUT" ["v1", "workspaces", workspace, "roles"];
    Connections(workspace) => "GET" ["v1", "workspaces", workspace, "connections"];
    KeepConnection(workspace) => "PUT" ["v1", "workspaces", workspace, "connections"];
    DeleteConnection(workspace) => "DELETE" ["v1", "workspaces", workspace, "connections"];
    GiveConnections(key) => "POST" ["v1", "sessions", key, "connections"];
    WorkspaceSettings(workspace) => "GET" ["v1", "workspaces", workspace, "settings"];
    WriteWorkspaceSettings(workspace) => "PUT" ["v1", "workspaces", workspace, "settings"];
    Webhooks(workspace) => "GET" ["v1", "workspaces", workspace, "webhooks"];
    WriteWebhooks(workspace) => "PUT" ["v1", "workspaces", workspace, "webhooks"];
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
        self.query.push(if self.query.is_empty() { '?' } else { '&' });
        self.query += &format!("{name}={}", encoded(&value.to_string()));
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
    fn a_query_is_escaped() {
        let target = Route::Runs
            .with("name", "a b&c")
            .with_any("tag", None::<&str>)
            .with("limit", 5);
        assert_eq!(target.to_string(), "/v1/runs?name=a%20b%26c&limit=5");
    }
}
