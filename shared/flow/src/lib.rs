//! Flow folders: their kind, their environment, and the view that a run gets.
//!
//! * [`canonical`], [`include_root`]: where a flow lies, and how far what it names may lead.
//! * [`lineage`]: what names the flow on every machine that has its repository.
//! * [`kind`]: DAG, flex, or a plain folder of Python.
//! * [`environment()`]: the base image and the requirements.
//! * [`own_project`]: the project that the folder is itself, as its install would leave it.
//! * [`save`]: a requirements file with more packages in it.
//! * [`migrate()`]: the files that a flow needs of a runtime's environment.
//! * [`view::list`], [`view::copy_into`]: the folder as a run sees it, with the additional includes
//!   at its root.
//! * [`snapshot`]: such a view as one file, for a reader that does not see the folder.
//! * [`run_yaml`]: a run's own file.
//! * [`connection()`]: a connection's document.
//!
//! This crate knows no network, no clock, no session. It reads the file system, and writes only
//! where [`view::copy_into`] and [`snapshot::lay_out`] are told to. It never reads a file outside
//! the include root, whichever way a flow names one. Every [`Failure`] is final: somebody has to
//! change the folder first. It names the file, relative to the flow folder, with the line where
//! there is one, and what to do next; no credential of a URL is in it ([`redact`]).

#![cfg_attr(not(test), warn(clippy::too_many_lines, clippy::cognitive_complexity))]

/// Packages of conda that every environment here has; Python's version is its image's.
const CONDA_BUILT_IN: [&str; 4] = ["python", "pip", "setuptools", "wheel"];

mod connection;
mod environment;
mod folder;
mod forms;
mod migrate;
mod names;
mod project;
mod remedy;
mod repository;
mod requirement;
mod requirements;
mod run_yaml;
mod save;
mod signature;
pub mod snapshot;
pub mod view;
mod workspace_yaml;
mod yaml;

pub use connection::{
    Connection, ConnectionType, Document, SCRUBBED, Secret, connection, connections, is_good_name, nearest,
};
pub use environment::{
    DEFAULT_IMAGE, Environment, PLAIN_IMAGE, base_image, default_image, environment, python_constraints,
};
pub use folder::{Kind, Reach, canonical, include_root, is_flow_file, is_plain_flow_name, kind};
pub use lifecycle::{Code, Failure};
pub use migrate::{Migration, migrate};
pub use names::{normalize_name, package_of};
pub use project::{Described, Installed, OwnProject, PythonConstraint, own_project};
pub use repository::lineage;
pub use requirements::{INDEX_OF, Line, Requirements};
pub use run_yaml::{Identity, OrFile, Place, Resources, RunYaml, run_yaml};
pub use save::{Saved, save, save_extras, save_groups};
pub use signature::{Field, Signature, signature};
pub use workspace_yaml::{line_of, workspace_yaml};

/// Takes the credentials out of every URL in `text`: `https://user:word@host` becomes
/// `https://***@host`, and a query `?***`.
///
/// Where a password is badly written, with `/` or `@` in it, more than the password is taken out
/// rather than less.
pub fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>'))
            .unwrap_or(after.len());
        let (url, next) = after.split_at(end);
        out.push_str(&redact_after_scheme(url));
        rest = next;
    }
    out.push_str(rest);
    out
}

fn redact_after_scheme(url: &str) -> String {
    let authority = &url[..url.find(['/', '?', '#']).unwrap_or(url.len())];
    let odd_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.bytes().all(|b| b.is_ascii_digit()));
    let mut out = String::new();
    let mut rest = url;
    // The specification's `{private}` stands for a credential and is none.
    if (authority.contains('@') || odd_port)
        && !authority.starts_with("{private}@")
        && let Some(at) = url.rfind('@')
    {
        out.push_str("***");
        rest = &url[at..];
    }
    match rest.split_once('?') {
        Some((path, query)) => {
            let fragment = query
                .split_once('#')
                .map(|(_, fragment)| format!("#{fragment}"))
                .unwrap_or_default();
            out.push_str(&format!("{path}?***{fragment}"));
        }
        None => out.push_str(rest),
    }
    out
}
