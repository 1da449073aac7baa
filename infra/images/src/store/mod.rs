//! The images of one machine.

mod pulls;
mod removal;

use crate::{
    Config, Name, Progress, Step,
    accounts::Accounts,
    archive::Archive,
    digest::{digest_of, file_name},
    io as wrong,
    layer::Layer,
    registry::Registry,
    source::{Found, Source},
};
use contract::Failure;
use sandbox::{
    files::{random, write_atomically},
    removal::remove,
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The most layers of an image that are downloaded at once.
const AT_ONCE: usize = 3;
/// The time that a download that nobody goes on with is kept.
const KEEP_PARTIAL: Duration = Duration::from_secs(24 * 3600);

/// The images below one folder.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) root: PathBuf,
}

/// An image that is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The resolved name: the digest of a manifest or an index; of an archive of `docker save` that
    /// of its configuration.
    pub digest: String,
    /// The key of its tree, which images with the same layers share.
    pub tree: String,
    pub config: Config,
    /// The digests of its layers, unpacked.
    pub layers: Vec<String>,
    pub bytes: u64,
    pub entries: u64,
    /// The number of devices, pipes and sockets that were left out.
    pub left_out: u64,
    /// The time of the pull, in seconds since 1970.
    pub pulled: u64,
}

/// An image that is there, and where its files are.
#[derive(Clone, Debug)]
pub struct Image {
    pub record: Record,
    pub tree: PathBuf,
}

/// An image in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    pub digest: String,
    /// The names that stood for it when they were last asked for.
    pub names: Vec<String>,
    pub bytes: u64,
    pub layers: usize,
    /// In milliseconds since 1970.
    pub pulled: u64,
    pub used: u64,
    pub is_in_use: bool,
}

/// The result of a removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    pub digests: Vec<String>,
}

/// An image in use, for as long as this lives.
#[derive(Debug)]
pub struct Held(#[allow(dead_code, reason = "the lock is what counts")] File);

#[derive(Serialize, Deserialize)]
struct Tag {
    name: String,
    digest: String,
    /// In seconds since 1970.
    at: u64,
}

impl Store {
    /// Opens the images below the folder of a store. Makes what is not there.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written. Final until that is put right.
    pub fn open(store: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let root = store.join("images");
        // An image may have files that are nobody else's.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&root)?;
        for folder in ["blobs", "layers", "trees", "records", "tags", "locks"] {
            fs::create_dir_all(root.join(folder))?;
        }
        Ok(Self { root })
    }

    /// The image of a digest, if it is there.
    pub fn find(&self, digest: &str) -> Option<Image> {
        let text = fs::read(self.root.join("records").join(format!("{}.json", file_name(digest)))).ok()?;
        let record: Record = serde_json::from_slice(&text).ok()?;
        let tree = self.root.join("trees").join(&record.tree);
        tree.is_dir().then_some(Image { record, tree })
    }

    /// The digest that a name had when it was last asked for.
    pub fn known_digest(&self, name: &Name) -> Option<String> {
        if let Some(digest) = name.digest() {
            return Some(digest.to_owned());
        }
        let tag: Tag = serde_json::from_slice(&fs::read(self.tag(name)).ok()?).ok()?;
        Some(tag.digest)
    }

    /// Asks what a name stands for now. Nothing is pulled.
    ///
    /// # Errors
    ///
    /// `Image.*`: why the image cannot be had.
    pub fn latest(&self, name: &Name, accounts: &Accounts) -> Result<String, Failure> {
        match name.digest() {
            Some(digest) if self.find(digest).is_some() => Ok(digest.to_owned()),
            _ => self.ask(name, accounts).map(|(_, wanted)| wanted),
        }
    }

    /// Looks what a name stands for now, and keeps nothing of it. `None` for a name that always
    /// means the same.
    ///
    /// # Errors
    ///
    /// `Image.*`: why that is not known now.
    pub fn look(name: &Name, accounts: &Accounts) -> Result<Option<String>, Failure> {
        match name {
            Name::Registry(reference) if reference.digest.is_none() => {
                Registry::new(reference, accounts)?.digest().map(Some)
            }
            Name::Engine(engine, image) => engine.id(image).map(Some),
            _ => Ok(None),
        }
    }

    pub(crate) fn ask(&self, name: &Name, accounts: &Accounts) -> Result<(Found, String), Failure> {
        let (found, digest) = match name {
            Name::Registry(reference) => {
                let registry = Registry::new(reference, accounts)?;
                let (digest, _) = registry.manifest(None)?;
                (Found::Source(Box::new(Source::Registry(registry))), digest)
            }
            Name::OciArchive(path, image) => {
                let archive = Archive::open(path)?;
                let digest = archive.layout(image.as_deref())?;
                (Found::Source(Box::new(Source::Layout(archive))), digest)
            }
            Name::DockerArchive(path, image) => {
                let archive = Archive::open(path)?;
                let saved = archive.docker_image(image.as_deref())?;
                let digest = digest_of(&saved.config);
                (Found::Source(Box::new(Source::Docker(archive, saved))), digest)
            }
            Name::Engine(engine, image) => (Found::Engine(*engine, image.clone()), engine.id(image)?),
        };
        let tag = Tag {
            name: name.to_string(),
            digest: digest.clone(),
            at: now(),
        };
        let text = serde_json::to_vec(&tag).map_err(|error| wrong(&self.root, error.into()))?;
        write_atomically(&self.tag(name), &text).map_err(|error| wrong(&self.root, error))?;
        Ok((found, digest))
    }

    /// Has an image: what the name stands for now, pulled if it is not there. Whoever else wants
    /// the same waits for it.
    ///
    /// # Errors
    ///
    /// `Image.*`, each of which says what to do.
    pub fn pull(&self, name: &Name, accounts: &Accounts, progress: Progress<'_>) -> Result<Image, Failure> {
        if let Some(image) = name.digest().and_then(|digest| self.find(digest)) {
            return Ok(image);
        }
        let (found, digest) = self.ask(name, accounts)?;
        if let Some(image) = self.find(&digest) {
            return Ok(image);
        }
        let _kept = self.lock("collect", false, progress)?;
        let _mine = self.lock(&file_name(&digest), true, progress)?;
        if let Some(image) = self.find(&digest) {
            return Ok(image);
        }
        let partial = self.partial("blobs")?;
        let source = found.source(&digest, &partial.0)?;
        let wanted = source.read_contents(&name.to_string(), &digest)?;
        self.have_layers(&source, &wanted, name, progress)?;
        self.finish(&wanted, progress)
    }

    /// Has an image as [`Store::pull`] does, and holds it: one that is removed in between is pulled
    /// again.
    ///
    /// # Errors
    ///
    /// As [`Store::pull`].
    pub fn pull_and_hold(
        &self,
        name: &Name,
        accounts: &Accounts,
        progress: Progress<'_>,
    ) -> Result<(Image, Held), Failure> {
        loop {
            let digest = self.pull(name, accounts, progress)?.record.digest;
            let held = self.hold(&digest).map_err(|error| wrong(&self.root, error))?;
            if let Some(image) = self.find(&digest) {
                return Ok((image, held));
            }
        }
    }

    /// Holds an image, so that nobody removes it. It may have been removed before: look for it
    /// afterwards.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn hold(&self, digest: &str) -> io::Result<Held> {
        loop {
            let file = self.open_mark(digest)?;
            file.lock_shared()?;
            file.set_modified(SystemTime::now())?;
            // A removal takes the file away, and a lock on that holds nothing.
            let about = |about: fs::Metadata| (about.dev(), about.ino());
            let is_there = fs::metadata(self.mark(digest)).is_ok_and(|there| {
                let own = file.metadata();
                own.is_ok_and(|own| about(own) == about(there))
            });
            if is_there {
                return Ok(Held(file));
            }
        }
    }

    fn mark(&self, digest: &str) -> PathBuf {
        self.root.join(format!("{}.used", file_name(digest)))
    }

    fn open_mark(&self, digest: &str) -> io::Result<File> {
        let path = self.mark(digest);
        File::options().create(true).truncate(false).write(true).open(path)
    }

    /// All images that are there, the last used first.
    pub fn list(&self) -> Vec<Listed> {
        let tags = self.tags();
        let mut all: Vec<Listed> = self
            .records()
            .into_iter()
            .map(|record| {
                let used = self.open_mark(&record.digest).ok();
                let time = used.as_ref().and_then(|file| file.metadata().ok()?.modified().ok());
                let names = tags
                    .iter()
                    .filter(|tag| tag.digest == record.digest)
                    .map(|tag| tag.name.clone());
                Listed {
                    names: names.collect(),
                    bytes: record.bytes,
                    layers: record.layers.len(),
                    pulled: record.pulled * 1000,
                    used: time.map_or(0, millis),
                    is_in_use: used.is_some_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock))),
                    digest: record.digest,
                }
            })
            .collect();
        all.sort_by_key(|listed| std::cmp::Reverse(listed.used));
        all
    }

    /// A layer that is there whole: its folder, and what it holds.
    fn layer(&self, diff_id: &str) -> Option<(PathBuf, Layer)> {
        let folder = self.root.join("layers").join(file_name(diff_id));
        let layer = serde_json::from_slice(&fs::read(folder.join("layer.json")).ok()?).ok()?;
        Some((folder.join("root"), layer))
    }

    fn records(&self) -> Vec<Record> {
        let entries = fs::read_dir(self.root.join("records")).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| serde_json::from_slice(&fs::read(entry.path()).ok()?).ok())
            .collect()
    }

    fn tags(&self) -> Vec<Tag> {
        let entries = fs::read_dir(self.root.join("tags")).into_iter().flatten().flatten();
        let mut tags: Vec<Tag> = entries
            .filter_map(|entry| serde_json::from_slice(&fs::read(entry.path()).ok()?).ok())
            .collect();
        tags.sort_by(|a, b| a.name.cmp(&b.name));
        tags
    }

    fn tag(&self, name: &Name) -> PathBuf {
        self.tag_file(&name.to_string())
    }

    fn tag_file(&self, name: &str) -> PathBuf {
        self.root
            .join("tags")
            .join(format!("{}.json", sandbox::files::digest(&[name])))
    }

    /// Waits until nobody else holds a lock; one that is shared is held by all who do not want it
    /// alone.
    pub(crate) fn lock(&self, name: &str, is_alone: bool, progress: Progress<'_>) -> Result<File, Failure> {
        let io_failure = |error| wrong(&self.root, error);
        let path = self.root.join("locks").join(name);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(io_failure)?;
        let tried = if is_alone {
            file.try_lock()
        } else {
            file.try_lock_shared()
        };
        match tried {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => progress(Step::Waiting),
            Err(TryLockError::Error(error)) => return Err(io_failure(error)),
        }
        if is_alone { file.lock() } else { file.lock_shared() }.map_err(io_failure)?;
        Ok(file)
    }

    pub(crate) fn partial(&self, folder: &str) -> Result<Partial, Failure> {
        let path = self
            .root
            .join(folder)
            .join(format!(".{}-{}", std::process::id(), random()));
        fs::create_dir(&path).map_err(|error| wrong(&self.root, error))?;
        Ok(Partial(path))
    }
}

/// A folder that is not whole yet.
pub(crate) struct Partial(pub(crate) PathBuf);

impl Partial {
    /// Puts it into its place, once it is on the disk: what is there is whole, also after a loss of
    /// power.
    fn keep(&self, place: &Path) -> io::Result<()> {
        let folder = File::open(&self.0)?;
        rustix::fs::syncfs(folder)?;
        fs::rename(&self.0, place)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // One that was kept is gone from here.
        if let Err(error) = remove(&self.0) {
            tracing::warn!(%error, "what was unpacked in part could not be removed");
        }
    }
}

fn now() -> u64 {
    millis(SystemTime::now()) / 1000
}

fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
