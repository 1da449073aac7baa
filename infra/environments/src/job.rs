//! One build: its requirements, where its packages come from, and who hears of it.

use crate::{
    private::Feeds,
    sources::Sources,
    store::{Store, downloads},
    uv,
};
use broker::Broker;
use contract::{Failure, agent::LineKind};
use std::{collections::BTreeMap, path::PathBuf};

/// Takes each line of output, redacted.
pub type Say<'a> = &'a dyn Fn(LineKind, String);

/// The inputs of one build.
pub(crate) struct Job<'a> {
    pub(crate) uv: PathBuf,
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) sources: Sources,
    pub(crate) broker: Broker,
    pub(crate) lines: &'a [flow::Line],
    /// The texts that no output may have.
    pub(crate) secrets: Vec<String>,
    pub(crate) say: Say<'a>,
    pub(crate) log: &'a str,
}

impl Job<'_> {
    /// The file and line at which the requirements name a package.
    pub(crate) fn place(&self, package: &str) -> Option<String> {
        let wanted = package.to_ascii_lowercase().replace('_', "-");
        let is_it = |line: &&flow::Line| line.text.to_ascii_lowercase().replace('_', "-").starts_with(&wanted);
        let line = self.lines.iter().find(is_it).filter(|_| !wanted.is_empty())?;
        Some(format!("{}:{}", line.file, line.number))
    }
}

impl Store {
    /// Begins a job: parses where its packages come from, and starts the broker that stands in for
    /// these places.
    pub(crate) async fn job<'a>(
        &self,
        lines: &'a [flow::Line],
        say: Say<'a>,
        log: &'a str,
        is_refreshing: bool,
    ) -> Result<Job<'a>, Failure> {
        let mut sources = Sources::of_owner(&uv::kept_variables())?;
        if !lines.is_empty() {
            sources.add(lines, &Feeds::read(&self.feeds)?)?;
        }
        let broker = Broker::start(broker::Config {
            feeds: sources.feeds(),
            insecure: sources.insecure().to_vec(),
            network: uv::network(),
            is_refreshing,
            downloads: downloads(&self.index.store),
        });
        let broker = broker.map_err(|error| self.index.failure(error))?;
        let mut variables = uv::variables(&self.index.store.join("tools/home"));
        if self.reach.borrow().is_none() {
            // The proxy is not reached, and what the requirements name is reached directly.
            variables.retain(|name, _| !name.to_ascii_uppercase().ends_with("_PROXY"));
        }
        sources.tell_uv(&broker, &mut variables);
        let uv = uv::find(&self.index.store, &self.machine, &|text| say(LineKind::Stage, text)).await?;
        Ok(Job {
            uv,
            variables,
            secrets: sources.secrets(),
            sources,
            broker,
            lines,
            say,
            log,
        })
    }
}
