//! The environments of one machine on one base image: what there is, and where. They are built by
//! `build.rs`.

use crate::{
    digest,
    facts::Place,
    hold::hold,
    image::Base,
    index::{Environment, Index},
    lock::over,
    packages::{self, Written},
    reach::Reach,
    rooted::Root,
    uv,
};
use contract::{Failure, packages::Listed};
use network::Counts;
use sandbox::python::Python;
use std::{
    cell::{Cell, RefCell},
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The time for which a resolved request counts as what it would be resolved to now, in seconds.
const REQUEST_AGE: u64 = 24 * 3600;
/// The same of the base image: a newer one is built beside it, and every environment on it anew.
const BASE_AGE: u64 = 30 * 24 * 3600;

/// The environments of one state folder, on one base image.
pub struct Store {
    /// The packages of the base image.
    pub base: &'static Base,
    pub(crate) index: Index,
    /// The state folder that the credentials of private feeds are in.
    pub(crate) feeds: PathBuf,
    /// The Python that environments are built on.
    pub python: Python,
    /// The Python of this machine, which makes sandboxes.
    pub machine: Python,
    /// The image that all is built in, if it is not this machine.
    pub root: Option<Root>,
    /// The folder of the runner's Python package.
    pub runner: PathBuf,
    /// The user of builds on this machine, where this process is root.
    pub(crate) builder: Option<u32>,
    /// Whether a sandbox can be made; learnt on the way.
    pub namespaces: Cell<bool>,
    /// Whether a sandbox can have a network of its own; likewise.
    pub networks: Cell<bool>,
    /// The network settings of a build.
    pub reach: RefCell<Reach>,
    /// Counts of what the network of builds refused.
    pub counts: Counts,
    /// The end of the last program that was needed to build something.
    pub ended: Cell<Option<i32>>,
}

/// The variable that names a folder for the environments and their tools which several state
/// folders share. What is in there is found by its content and never written to again.
pub const FOLDER: &str = "PFSESSION_STORE";

/// The folder of the downloads of all builds' brokers.
pub(crate) fn downloads(store: &Path) -> PathBuf {
    store.join("tools/downloads")
}

/// The folder of the environments: in the state folder, unless a folder of their own is named.
pub fn folder(state: &Path) -> PathBuf {
    std::env::var_os(FOLDER).map_or_else(|| state.to_owned(), PathBuf::from)
}

impl Store {
    /// Opens the store of a state folder.
    ///
    /// # Errors
    ///
    /// When the state folder cannot be written.
    pub fn open(state: &Path, base: &'static Base, python: Python) -> io::Result<Self> {
        for folder in ["tools/root", "tools/home"] {
            fs::create_dir_all(state.join(folder))?;
        }
        let feeds = state.to_owned();
        let state = &folder(state);
        for folder in ["environments/index", "tools/root", "tools/home"] {
            fs::create_dir_all(state.join(folder))?;
        }
        // Private packages, and what a build script makes until that is read-only, are nobody
        // else's.
        fs::set_permissions(state.join("environments"), fs::Permissions::from_mode(0o700))?;
        let runner = sandbox::write_runner(state)?;
        Ok(Self {
            base,
            index: Index {
                store: state.to_owned(),
            },
            feeds,
            machine: python.clone(),
            root: None,
            python,
            runner,
            builder: sandbox::ids::of(state, sandbox::ids::BUILDS).map_err(io::Error::other)?,
            namespaces: Cell::new(true),
            networks: Cell::new(true),
            reach: RefCell::new(Reach::new(Default::default(), &[])),
            counts: Counts::default(),
            ended: Cell::new(None),
        })
    }

    /// Has all be built in an image, and for sessions on it.
    ///
    /// # Errors
    ///
    /// As [`Root::have`].
    pub async fn root_in(&mut self, name: &images::Name, say: &dyn Fn(String)) -> Result<(), Failure> {
        let place = Place {
            state: &self.feeds,
            store: &self.index.store,
            machine: &self.machine,
            runner: &self.runner,
            builder: self.builder,
        };
        let root = Root::have(&place, name, say).await?;
        if let Some(python) = &root.python {
            self.python = python.clone();
        }
        self.root = Some(root);
        Ok(())
    }

    /// Counts what the image of this container has, as [`Store::root_in`] does elsewhere.
    ///
    /// # Errors
    ///
    /// `Image.*`, each of which says what to do.
    pub async fn root_of_container(&mut self, name: String, digest: String) -> Result<(), Failure> {
        let root = Root::of_container(&self.machine, name, digest).await?;
        if let Some(python) = &root.python {
            self.python = python.clone();
        }
        self.root = Some(root);
        Ok(())
    }

    /// The image that sandboxes have as their root.
    pub fn sandbox_root(&self) -> Option<&Root> {
        self.root.as_ref().filter(|root| root.is_for_sandboxes())
    }

    /// The packages of the base image that its root does not have.
    pub(crate) fn base_packages(&self) -> Vec<String> {
        let Some(root) = &self.root else {
            return crate::words(self.base.packages);
        };
        let is_missing = |wanted: &&&str| !root.has(wanted.split('>').next().unwrap_or_default());
        self.base
            .over_image
            .iter()
            .filter(is_missing)
            .map(|wanted| (*wanted).to_owned())
            .collect()
    }

    /// The packages of the root, as the lines of a lock.
    pub(crate) fn root_lock(&self) -> String {
        self.root.as_ref().map(Root::lock).unwrap_or_default()
    }

    /// An environment that is complete.
    pub fn complete(&self, key: &str) -> Option<Environment> {
        self.index.complete(key)
    }

    /// The path at which an environment's packages are seen: a layered one where its base is, so
    /// that all paths in both stay right.
    pub fn seen_at(&self, environment: &Environment) -> PathBuf {
        self.index.path(environment.below.as_ref().unwrap_or(&environment.key))
    }

    /// The folders of an environment, uppermost first.
    pub fn lower(&self, environment: &Environment) -> Vec<PathBuf> {
        let folders = std::iter::once(&environment.key).chain(&environment.below);
        folders.map(|key| self.index.path(key)).collect()
    }

    /// Holds an environment, and what it is layered on, for as long as what it gives back lives.
    /// `None` if it has gone meanwhile.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn hold_use(&self, environment: &Environment) -> io::Result<Option<Vec<fs::File>>> {
        let keys = environment.below.iter().chain([&environment.key]);
        let held = keys
            .map(|key| hold(&self.index.path(""), key))
            .collect::<io::Result<Vec<_>>>()?;
        Ok(self.index.complete(&environment.key).map(|_| held))
    }

    /// The name of the request for the base image.
    pub(crate) fn base_request(&self) -> String {
        let python = &self.python;
        let (prefix, packages) = (python.prefix.display().to_string(), self.base_packages().join(" "));
        let parts = ["base with pip", &python.version, &python.platform, &prefix, &packages];
        match &self.root {
            None => digest(&parts),
            Some(root) => digest(&[&parts[..], &["in", &root.key()]].concat()),
        }
    }

    /// The name of the request for these lines.
    pub(crate) fn request(&self, base: &str, lines: &[flow::Line]) -> String {
        let mut parts = vec!["request".to_owned(), base.to_owned(), self.namespaces.get().to_string()];
        parts.extend(
            lines
                .iter()
                .map(|line| format!("{}{}", if line.constraint { "-c " } else { "" }, line.text)),
        );
        parts.extend(
            uv::kept_variables()
                .into_iter()
                .filter(|(name, _)| name.contains("IND"))
                .map(|(name, value)| format!("{name}={value}")),
        );
        digest(&parts.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The base image, if it is there.
    pub fn find_base(&self) -> Option<Environment> {
        self.index.find_resolved(&self.base_request(), BASE_AGE)
    }

    /// The environment of these requirements, if it is there and was resolved lately.
    pub fn find(&self, lines: &[flow::Line]) -> Option<Environment> {
        let base = self.find_base()?;
        if is_empty(lines) {
            Some(base)
        } else {
            self.index.find_resolved(&self.request(&base.key, lines), REQUEST_AGE)
        }
    }

    /// Whether the environment of a lock was built on the image that there is now: a tag may stand
    /// for another one by now.
    pub fn is_on_this_root(&self, lock: &str) -> bool {
        let pruned = || self.index.find_pruned(lock);
        let base = self.find_base().map(|base| base.key);
        let is_it = |environment: Environment| Some(environment.base) == base;
        self.root.is_none() || self.index.complete(lock).or_else(pruned).is_none_or(is_it)
    }

    /// The packages of an environment, and why each is there.
    pub fn list_packages(&self, environment: &Environment, lines: &[flow::Line]) -> Listed {
        let mut asked_by = self.index.askers(&environment.base);
        for (name, askers) in self.index.askers(&environment.key) {
            let known = asked_by.entry(name).or_default();
            known.extend(askers);
            known.sort();
            known.dedup();
        }
        // What the root has is there, whether or not an environment's lock names it.
        let lock_of = |key: &str| {
            let lock = self.index.lock_of(key);
            lock.inspect_err(|error| tracing::warn!(%error, "the packages of an environment are not known"))
                .unwrap_or_default()
        };
        packages::list_packages(
            &over(&self.root_lock(), &lock_of(&environment.key)),
            &lock_of(&environment.base),
            &asked_by,
            lines,
        )
    }

    /// The folder of the packages of an environment.
    pub fn site(&self, key: &str) -> PathBuf {
        self.index.path(key).join(self.python.site_packages())
    }

    /// The place in a session's own layer of the packages that its code has written.
    pub fn own_packages(&self, layer: &Path) -> Written {
        Written {
            layer: layer.to_owned(),
            site: Path::new("upper").join(self.python.site_packages()),
        }
    }
}

/// Whether the lines name no package.
pub(crate) fn is_empty(lines: &[flow::Line]) -> bool {
    lines.iter().all(|line| line.constraint || line.text.starts_with('-'))
}
