//! The environment of requirements or of a lock: found, else resolved and built.

use crate::{
    digest,
    facts::no_python,
    hold,
    index::Environment,
    job::{Job, Say},
    lock::{AskedBy, blocks_not_in, over, pins},
    private,
    resolve::Over,
    store::{Store, is_empty},
};
use contract::{Code, Failure, agent::LineKind};
use std::fs;

/// The failures that may come from what uv remembers of an index.
const STALE: [Code; 3] = [
    Code::InstallNoSuchVersion,
    Code::InstallNoSuchPackage,
    Code::InstallHashMismatch,
];

impl Store {
    /// The environment of these requirements; builds what is not there. Whoever else wants the same
    /// waits for it.
    ///
    /// Dropping it in the middle ends all that it started, and leaves nothing that counts.
    ///
    /// * `anew`: whether every index is asked, whatever was resolved lately.
    /// * `log`: where the whole output will be, for messages.
    ///
    /// # Errors
    ///
    /// `Install.*`, each of which says what to do.
    pub async fn get(&self, lines: &[flow::Line], anew: bool, say: Say<'_>, log: &str) -> Result<Environment, Failure> {
        check_urls(lines)?;
        if let Some(root) = self.root.as_ref().filter(|root| !root.has_python()) {
            return match self.base.runs_flows || !is_empty(lines) {
                true => Err(no_python(&root.name)),
                false => self.empty(),
            };
        }
        if let Some(environment) = self.find(lines).filter(|_| !anew) {
            return Ok(environment);
        }
        let mut made = self.make(lines, say, log, anew).await;
        for _ in 0..2 {
            // What an index says changes, and its mirrors do not change together: a version that is
            // new, or gone again.
            let stale = |failure: &Failure| STALE.contains(&failure.error);
            if !made.as_ref().is_err_and(stale) {
                break;
            }
            say(LineKind::Stage, "asking the index anew".into());
            made = self.make(lines, say, log, true).await;
        }
        made
    }

    /// The environment on an image without Python, which has nothing.
    fn empty(&self) -> Result<Environment, Failure> {
        let request = self.base_request();
        let key = digest(&[&request]);
        if let Some(environment) = self.index.complete(&key) {
            return Ok(environment);
        }
        let environment = Environment {
            key: key.clone(),
            below: None,
            base: key.clone(),
            pure: true,
            pth: Vec::new(),
        };
        fs::create_dir_all(self.index.path(&key)).map_err(|error| self.index.failure(error))?;
        self.index.write_lock(&key, "")?;
        self.index.write_askers(&key, &AskedBy::default())?;
        self.index.mark(&environment)?;
        self.index.remember(&request, &environment)?;
        Ok(environment)
    }

    /// The environment of a lock that was built here before; builds it again if it is gone.
    ///
    /// * `lines`: the requirements as they are now, for the indexes that they name.
    ///
    /// # Errors
    ///
    /// `Install.NoSuchLock`; else as [`Self::get`].
    pub async fn get_locked(
        &self,
        lock: &str,
        lines: &[flow::Line],
        say: Say<'_>,
        log: &str,
    ) -> Result<Environment, Failure> {
        if let Some(environment) = self.index.complete(lock) {
            return Ok(environment);
        }
        let gone = || {
            Failure::new(
                Code::InstallNoSuchLock,
                format!(
                    "The lock {lock} is not on this machine any more. Install what the requirements say: pfsession install."
                ),
            )
        };
        let pruned = self.index.find_pruned(lock).ok_or_else(gone)?;
        let text = fs::read_to_string(self.index.path(&format!("{lock}.txt"))).map_err(|_| gone())?;
        let job = self.job(lines, say, log, false).await?;
        if pruned.base == pruned.key {
            let _held = self.lock(lock, say).await?;
            self.build_whole(&job, &pruned, &text).await?;
            return Ok(pruned);
        }
        let base = Box::pin(self.get_locked(&pruned.base, &[], say, log)).await?;
        let base_lock = fs::read_to_string(self.index.path(&format!("{}.txt", base.key)))
            .map_err(|error| self.index.failure(error))?;
        self.build_from(&job, &base, &base_lock, &text, &self.index.askers(lock))
            .await
    }

    /// Makes an environment.
    ///
    /// * `is_refreshing`: whether every index is asked, whatever it said lately.
    async fn make(
        &self,
        lines: &[flow::Line],
        say: Say<'_>,
        log: &str,
        is_refreshing: bool,
    ) -> Result<Environment, Failure> {
        let base = match self.find_base() {
            Some(base) => base,
            None => self.build_base(&self.job(&[], say, log, is_refreshing).await?).await?,
        };
        if is_empty(lines) {
            return Ok(base);
        }
        self.build(&base, &self.job(lines, say, log, is_refreshing).await?)
            .await
    }

    async fn build_base(&self, job: &Job<'_>) -> Result<Environment, Failure> {
        let request = self.base_request();
        let _held = self.lock(&request, job.say).await?;
        if let Some(base) = self.find_base() {
            return Ok(base);
        }
        (job.say)(
            LineKind::Stage,
            match &self.root {
                None => format!(
                    "building the base image {} on Python {}, once for this machine",
                    self.base.name,
                    self.python.minor()
                ),
                Some(root) => format!("building on the image {}, once for this machine", root.name),
            },
        );
        let root_lock = self.root_lock();
        let (lock, asked_by) = match self.resolve(job, &Over::Root(&root_lock)).await {
            // What is added takes the place of what the image has.
            Err(failure) if self.root.is_some() && is_conflict(&failure) => {
                self.resolve(job, &Over::Preferred(&root_lock)).await?
            }
            resolved => resolved?,
        };
        let lock = over(&root_lock, &lock);
        let key = digest(&[&request, &lock]);
        let environment = Environment {
            key: key.clone(),
            below: None,
            base: key,
            pure: true,
            pth: Vec::new(),
        };
        // Never built over: sessions may be looking at it.
        if self.index.complete(&environment.key).is_none() {
            self.index.write_askers(&environment.key, &asked_by)?;
            self.build_whole(job, &environment, &lock).await?;
        }
        self.index.remember(&request, &environment)?;
        Ok(environment)
    }

    async fn build(&self, base: &Environment, job: &Job<'_>) -> Result<Environment, Failure> {
        let request = self.request(&base.key, job.lines);
        let base_lock = fs::read_to_string(self.index.path(&format!("{}.txt", base.key)))
            .map_err(|error| self.index.failure(error))?;
        // Most requirements only add to the base: then nothing but them has to be asked for and
        // looked at.
        let (lock, asked_by) = match self.resolve(job, &Over::Held(&base_lock)).await {
            Ok((lock, asked_by)) => {
                let added = blocks_not_in(&base_lock, &lock);
                if added.is_empty() {
                    self.index.remember(&request, base)?;
                    return Ok(base.clone());
                }
                (format!("{base_lock}{added}"), asked_by)
            }
            Err(failure) if is_conflict(&failure) => {
                let text = "the base image's versions do not fit: resolving all of them anew";
                (job.say)(LineKind::Stage, text.into());
                let resolved = self.resolve(job, &Over::Preferred(&base_lock)).await;
                // An index that has not the base image's packages says nothing of what is wanted.
                resolved.map_err(|second| match second.error {
                    Code::InstallNoSuchPackage => failure,
                    _ => second,
                })?
            }
            Err(failure) => return Err(failure),
        };
        let environment = self.build_from(job, base, &base_lock, &lock, &asked_by).await?;
        self.index.remember(&request, &environment)?;
        Ok(environment)
    }

    /// The environment of a lock over a base image.
    async fn build_from(
        &self,
        job: &Job<'_>,
        base: &Environment,
        base_lock: &str,
        lock: &str,
        asked_by: &AskedBy,
    ) -> Result<Environment, Failure> {
        let pure = pins(base_lock).is_subset(&pins(lock));
        // Without an overlay a layer can add to its base and not change it.
        let layered = pure || self.namespaces.get();
        let how = if layered { "layered" } else { "whole" };
        let key = digest(&["on", &base.key, how, &job.sources.identity(), lock]);
        let _held = self.lock(&key, job.say).await?;
        if let Some(environment) = self.index.complete(&key) {
            return Ok(environment);
        }
        self.index.write_askers(&key, asked_by)?;
        let below = layered.then(|| base.key.clone());
        let mut environment = Environment {
            key,
            below,
            base: base.key.clone(),
            pure,
            pth: Vec::new(),
        };
        if layered {
            let added = pure.then(|| blocks_not_in(base_lock, lock));
            self.build_layer(job, &mut environment, lock, added.as_deref()).await?;
        } else {
            self.build_whole(job, &environment, lock).await?;
        }
        Ok(environment)
    }

    /// Waits until no other process builds under this name.
    async fn lock(&self, name: &str, say: Say<'_>) -> Result<fs::File, Failure> {
        let waiting = || {
            say(
                LineKind::Stage,
                "waiting for another session that builds the same environment".into(),
            );
        };
        let locked = hold::lock(&self.index.path(&format!("{name}.lock")), waiting).await;
        locked.map_err(|error| self.index.failure(error))
    }
}

fn is_conflict(failure: &Failure) -> bool {
    matches!(failure.error, Code::InstallConflict | Code::InstallNoSuchVersion)
}

/// A lock would hold the credential of a requirement's own URL.
fn check_urls(lines: &[flow::Line]) -> Result<(), Failure> {
    for line in lines
        .iter()
        .filter(|line| !line.text.starts_with('-') && line.text.contains("://"))
    {
        if flow::redact(&line.text) != line.text || line.text.contains(private::PLACEHOLDER) {
            return Err(Failure::new(
                Code::InstallBadRequirement,
                format!(
                    "{}:{}: the URL of a package holds a credential or a query, which would be kept in files. Name the package, and its index by \
                     --extra-index-url.",
                    line.file, line.number
                ),
            ));
        }
    }
    Ok(())
}
