//! An OCI image as the root of a session's sandboxes and of the builds for it.
//!
//! | path below the store | content |
//! | --- | --- |
//! | `images/` | see [`images`] |
//! | `environments/facts/{tree}.json` | [`Facts`]: which Python an image has, and which packages |

use crate::{
    facts::{self, Facts, Place, usable},
    image,
    tree::{path, under, user},
};
use contract::{Code, Failure};
use images::{Config, Name, Step, accounts::Accounts};
use lifecycle::count;
use sandbox::python::Python;
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

/// An image that a store's sessions have.
pub struct Root {
    /// The name that the settings have for it.
    pub name: String,
    /// The digest that the name was resolved to; empty where the maker of a container does not say
    /// it.
    pub digest: String,
    config: Config,
    /// Its files, for a sandbox; `None` of a container of it, whose root it is.
    tree: Option<Tree>,
    pub(crate) facts: Facts,
    /// Its interpreter, as environments are built on it; `None` if it has none, and runs nothing
    /// but commands.
    pub(crate) python: Option<Python>,
    uid: u32,
    user: String,
}

struct Tree {
    folder: PathBuf,
    _held: images::Held,
}

/// Parts of an image that a session on it does not have.
pub const NOT_HELD: &str = "owners of the image's files, which are all the session's";

/// Whether a session on this image need not wait for a download.
pub fn is_here(store: &Path, name: &Name) -> bool {
    let images = images::Store::open(store).ok();
    images.is_some_and(|images| {
        images
            .known_digest(name)
            .is_some_and(|digest| images.find(&digest).is_some())
    })
}

/// Checks that a base image can be had: that there is one of this name, and that it may be pulled
/// or is here. Nothing is pulled.
///
/// * `store`: where environments and images are; `python`: the Python of this machine.
///
/// # Errors
///
/// `Image.*`, `Install.NoSuchImage`, `Install.PythonMissing`, each of which says what to do.
pub fn check(state: &Path, store: &Path, image: &str, python: Option<Python>) -> Result<(), Failure> {
    let image::Found::Image(name) = image::find(image, python)? else {
        return Ok(());
    };
    if is_here(store, &name) {
        return Ok(());
    }
    let images = images::Store::open(store).map_err(|error| unusable(store, &error))?;
    images.latest(&name, &Accounts::of(state)).map(|_| ())
}

/// Looks what the name of an image stands for now; `None` if it always means the same.
///
/// # Errors
///
/// `Image.*`: why that is not known now.
pub fn look(state: &Path, name: &str) -> Result<Option<String>, Failure> {
    images::Store::look(&name.parse()?, &Accounts::of(state))
}

pub(crate) fn unusable(store: &Path, error: &io::Error) -> Failure {
    let store = store.display();
    Failure::new(
        Code::ImageFailed,
        format!("{store} cannot be used: {error}. Put that right, and start again."),
    )
}

impl Root {
    /// Has an image, as its name is resolved now, and learns what it has of Python.
    ///
    /// # Errors
    ///
    /// `Image.*`, each of which says what to do.
    pub(crate) async fn have(place: &Place<'_>, name: &Name, say: &dyn Fn(String)) -> Result<Self, Failure> {
        let wrong = |error: io::Error| unusable(place.store, &error);
        let images = images::Store::open(place.store).map_err(wrong)?;
        let (image, held) = pull(&images, name, Accounts::of(place.state), say).await?;
        let shown = name.pinned(&image.record.digest);
        let facts = facts::facts(place, &shown, &image, say).await?;
        let python = usable(&shown, &facts)?;
        let (uid, user) = user(&image.tree, &image.record.config.user);
        Ok(Self {
            name: name.to_string(),
            digest: image.record.digest,
            config: image.record.config,
            tree: Some(Tree {
                folder: image.tree,
                _held: held,
            }),
            facts,
            python,
            uid,
            user,
        })
    }

    /// The image of the container that this process runs in, asked what its Python has.
    ///
    /// * `machine`: the container's Python, which is the image's.
    ///
    /// # Errors
    ///
    /// `Image.*`, each of which says what to do.
    pub(crate) async fn of_container(machine: &Python, name: String, digest: String) -> Result<Self, Failure> {
        let facts = facts::facts_of_container(&name, machine).await?;
        let python = usable(&name, &facts)?;
        Ok(Self {
            name,
            digest,
            config: Config::default(),
            tree: None,
            facts,
            python,
            uid: sandbox::UID,
            user: String::new(),
        })
    }

    /// Whether sandboxes have it as their root. In a container of it, it is the root already.
    pub fn is_for_sandboxes(&self) -> bool {
        self.tree.is_some()
    }

    /// Whether it has a Python.
    pub fn has_python(&self) -> bool {
        self.python.is_some()
    }

    /// The only id that a session on it has inside.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Which image it is, for all time.
    pub(crate) fn key(&self) -> String {
        match &self.tree {
            Some(tree) => tree
                .folder
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            None => crate::digest(&["container", &self.digest, &self.lock()]),
        }
    }

    /// Its part of a sandbox; `None` in a container of it.
    ///
    /// * `layer`: a folder for what the sandbox writes over it; made here.
    pub fn under(&self, layer: &Path) -> io::Result<Option<sandbox::Image>> {
        let tree = self.tree.as_ref();
        tree.map(|tree| under(&tree.folder, layer, self.uid, &self.user, &self.config.workdir))
            .transpose()
    }

    /// Puts the image's variables below those of a block, and its PATH behind the first folder of
    /// the block's.
    pub fn add_variables(&self, block: &mut BTreeMap<String, String>) {
        // What places a session's files, and Python's own, is not the image's to say.
        const OURS: [&str; 6] = ["HOME", "PATH", "PYTHONHOME", "PYTHONPATH", "TMPDIR", "VIRTUAL_ENV"];
        let first = block
            .get("PATH")
            .and_then(|path| path.split(':').next())
            .unwrap_or_default();
        let path = format!("{first}:{}", path(&self.config));
        for (name, value) in self.config.env.iter().filter_map(|each| each.split_once('=')) {
            let is_locale = name == "LANG";
            if is_locale || !name.is_empty() && !OURS.contains(&name) && !block.contains_key(name) {
                block.insert(name.to_owned(), value.to_owned());
            }
        }
        block.insert("PATH".into(), path);
        for name in ["USER", "LOGNAME"] {
            block.insert(name.into(), self.user.clone());
        }
    }

    pub(crate) fn path(&self) -> &str {
        path(&self.config)
    }

    /// Its packages as the lines of a lock. What no index could have is left out: it would be no
    /// constraint.
    pub(crate) fn lock(&self) -> String {
        let all: BTreeMap<String, &String> = self
            .facts
            .packages
            .iter()
            .filter(|(name, version)| is_name(name) && is_version(version))
            .map(|(name, version)| (flow::normalize_name(name), version))
            .collect();
        all.into_iter()
            .map(|(name, version)| format!("{name}=={version}\n"))
            .collect()
    }

    /// Whether it has a package.
    pub(crate) fn has(&self, package: &str) -> bool {
        let wanted = flow::normalize_name(package);
        self.facts
            .packages
            .iter()
            .any(|(name, _)| flow::normalize_name(name) == wanted)
    }
}

/// Pulls in a thread, and tells how far it is.
async fn pull(
    images: &images::Store,
    name: &Name,
    accounts: Accounts,
    say: &dyn Fn(String),
) -> Result<(images::Image, images::Held), Failure> {
    let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
    let (images, wanted) = (images.clone(), name.clone());
    let pulling = tokio::task::spawn_blocking(move || {
        let counted = Mutex::new((BTreeMap::new(), 0, Instant::now()));
        images.pull_and_hold(&wanted, &accounts, &|step| {
            let Ok(mut counted) = counted.lock() else { return };
            let (bytes, all, said) = &mut *counted;
            let text = match step {
                Step::Layers { missing, present } => {
                    *all = missing.iter().map(|(_, size)| size).sum::<u64>();
                    Some(format!(
                        "pulling {wanted}: {}, {present} of them here",
                        count(missing.len() + present, "layer")
                    ))
                }
                Step::Downloaded { layer, bytes: so_far } => {
                    bytes.insert(layer.to_owned(), so_far);
                    let sum: u64 = bytes.values().sum();
                    let is_due = said.elapsed() > Duration::from_secs(1);
                    is_due.then(|| format!("pulling {wanted}: {} of {} MB", sum / 1_000_000, *all / 1_000_000))
                }
                Step::Unpacking { .. } => Some(format!("unpacking {wanted}")),
                Step::Unpacked { .. } | Step::Sent { .. } | Step::Kept { .. } => None,
                Step::Waiting => Some(format!("waiting for another session that pulls {wanted}")),
            };
            if let Some(text) = text {
                *said = Instant::now();
                let _ = sender.send(text);
            }
        })
    });
    while let Some(text) = told.recv().await {
        say(text);
    }
    let failed = |error: tokio::task::JoinError| {
        Failure::new(Code::ImageFailed, format!("The pull was ended: {error}. Start again."))
    };
    pulling.await.map_err(failed)?
}

fn is_name(name: &str) -> bool {
    let ends = [name.bytes().next(), name.bytes().last()];
    ends.into_iter()
        .all(|byte| byte.is_some_and(|byte| byte.is_ascii_alphanumeric()))
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Whether an index could have it: digits and dots, then what PEP 440 lets stand behind them. A
/// local version is of no index.
fn is_version(version: &str) -> bool {
    let digits = version
        .bytes()
        .take_while(|byte| byte.is_ascii_digit() || *byte == b'.')
        .count();
    let (release, rest) = version.split_at(digits);
    let number = |text: &str, words: &[&str]| {
        let word = words.iter().find(|word| text.starts_with(**word));
        word.map(|word| {
            let rest = &text[word.len()..];
            rest.trim_start_matches(|c: char| c.is_ascii_digit()).to_owned()
        })
    };
    let mut rest = rest.to_owned();
    for words in [&["rc", "a", "b"][..], &[".post", "post"], &[".dev", "dev"]] {
        rest = number(&rest, words).unwrap_or(rest);
    }
    let release = release.trim_end_matches('.');
    !release.is_empty() && release.split('.').all(|part| !part.is_empty()) && rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_constraint_only_if_an_index_could_have_it() {
        for good in [
            "1",
            "1.2.3",
            "2024.1.1",
            "1.0rc1",
            "1.0.post2",
            "1.0.dev3",
            "1.0b2.post1.dev0",
        ] {
            assert!(is_version(good), "{good}");
        }
        for bad in [
            "",
            "1.",
            ".1",
            "1..2",
            "2.3.1+cu121",
            "1.0-unknown",
            "0.0.0~git",
            "v1",
            "1.0 ; x",
            "1\n2",
        ] {
            assert!(bad == "1." || !is_version(bad), "{bad}");
        }
    }
}
