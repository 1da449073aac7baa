//! The images of one machine.

use crate::{
    Config, Name, Progress, Step,
    accounts::Accounts,
    archive::Archive,
    digest::{self, digest_of, file_name},
    failure, io as wrong,
    layer::{self, Fault, Layer, Most},
    manifest::{self, Descriptor, Read as Document},
    registry::Registry,
    tree,
};
use contract::{Code, Failure};
use sandbox::{
    files::{random, write_atomically},
    removal::remove,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How many layers of an image are had at once.
const AT_ONCE: usize = 3;
/// How long a download that nobody goes on with is kept.
const KEEP_PARTIAL: Duration = Duration::from_secs(24 * 3600);

/// The images below one folder.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// An image that is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The resolved name: the digest of a manifest or an index; of an archive of `docker save` that of its configuration.
    pub digest: String,
    /// The key of its tree, which images with the same layers share.
    pub tree: String,
    pub config: Config,
    /// The digests of its layers, unpacked.
    pub layers: Vec<String>,
    pub bytes: u64,
    pub entries: u64,
    /// How many devices, pipes and sockets were left out.
    pub left_out: u64,
    /// When it was pulled, in seconds since 1970.
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

/// Where an image comes from.
enum Source {
    Registry(Registry),
    Layout(Archive),
    /// With the name of the file of each layer.
    Docker(Archive, Vec<String>),
}

/// An image before its layers are there.
struct Wanted {
    digest: String,
    config: Config,
    layers: Vec<Descriptor>,
    diff_ids: Vec<String>,
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
    pub fn known(&self, name: &Name) -> Option<String> {
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

    /// Looks what a name stands for now, and keeps nothing of it. `None` for a name that always means the same.
    ///
    /// # Errors
    ///
    /// `Image.*`: why that is not known now.
    pub fn look(name: &Name, accounts: &Accounts) -> Result<Option<String>, Failure> {
        match name {
            Name::Registry(reference) if reference.digest.is_none() => {
                Registry::new(reference, accounts)?.digest().map(Some)
            }
            _ => Ok(None),
        }
    }

    fn ask(&self, name: &Name, accounts: &Accounts) -> Result<(Source, String), Failure> {
        let (source, digest) = match name {
            Name::Registry(reference) => {
                let registry = Registry::new(reference, accounts)?;
                let (digest, _) = registry.manifest(None)?;
                (Source::Registry(registry), digest)
            }
            Name::OciArchive(path, image) => {
                let archive = Archive::open(path)?;
                let digest = archive.layout(image.as_deref())?;
                (Source::Layout(archive), digest)
            }
            Name::DockerArchive(path, image) => {
                let archive = Archive::open(path)?;
                let saved = archive.docker_image(image.as_deref())?;
                let digest = digest_of(&saved.config);
                (Source::Docker(archive, saved.layers), digest)
            }
        };
        let tag = Tag {
            name: name.to_string(),
            digest: digest.clone(),
            at: now(),
        };
        let text = serde_json::to_vec(&tag).map_err(|error| wrong(&self.root, error.into()))?;
        write_atomically(&self.tag(name), &text).map_err(|error| wrong(&self.root, error))?;
        Ok((source, digest))
    }

    /// Has an image: what the name stands for now, pulled if it is not there. Whoever else wants the same waits for it.
    ///
    /// # Errors
    ///
    /// `Image.*`, each of which says what to do.
    pub fn pull(&self, name: &Name, accounts: &Accounts, progress: Progress<'_>) -> Result<Image, Failure> {
        if let Some(image) = name.digest().and_then(|digest| self.find(digest)) {
            return Ok(image);
        }
        let (source, digest) = self.ask(name, accounts)?;
        if let Some(image) = self.find(&digest) {
            return Ok(image);
        }
        let _kept = self.lock("collect", false, progress)?;
        let _mine = self.lock(&file_name(&digest), true, progress)?;
        if let Some(image) = self.find(&digest) {
            return Ok(image);
        }
        let wanted = source.wanted(&name.to_string(), &digest, name)?;
        self.have_layers(&source, &wanted, name, progress)?;
        self.finish(&wanted, progress)
    }

    fn have_layers(
        &self,
        source: &Source,
        wanted: &Wanted,
        name: &Name,
        progress: Progress<'_>,
    ) -> Result<(), Failure> {
        let all: BTreeSet<(&str, usize)> = wanted
            .diff_ids
            .iter()
            .enumerate()
            .map(|(at, id)| (id.as_str(), at))
            .collect();
        let mut seen = BTreeSet::new();
        let missing: Vec<usize> = all
            .into_iter()
            .filter(|(id, _)| seen.insert(*id) && self.layer(id).is_none())
            .map(|(_, at)| at)
            .collect();
        let sizes = missing
            .iter()
            .map(|at| (wanted.layers[*at].digest.as_str(), wanted.layers[*at].size));
        progress(Step::Layers {
            missing: sizes.collect(),
            present: wanted.layers.len() - missing.len(),
        });
        let (next, failed) = (Mutex::new(missing.into_iter()), Mutex::new(None));
        let work = || {
            while let Some(at) = next.lock().ok().and_then(|mut next| next.next()) {
                let done = self.have_layer(source, wanted, at, name, progress);
                if let (Err(failure), Ok(mut failed)) = (done, failed.lock()) {
                    failed.get_or_insert(failure);
                }
                if failed.lock().is_ok_and(|failed| failed.is_some()) {
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(work);
            }
        });
        match failed.into_inner() {
            Ok(None) => Ok(()),
            Ok(Some(failure)) => Err(failure),
            Err(_) => Err(wrong(&self.root, io::Error::other("a download has panicked"))),
        }
    }

    /// Has one layer unpacked. It is renamed into place when it is whole and on the disk.
    fn have_layer(
        &self,
        source: &Source,
        wanted: &Wanted,
        at: usize,
        name: &Name,
        progress: Progress<'_>,
    ) -> Result<(), Failure> {
        let (blob, diff_id) = (&wanted.layers[at], &wanted.diff_ids[at]);
        let _mine = self.lock(&format!("layer-{}", file_name(diff_id)), true, progress)?;
        if self.layer(diff_id).is_some() {
            return Ok(());
        }
        let blobs = self.root.join("blobs");
        let path = blobs.join(file_name(&blob.digest));
        let _download = self.lock(&format!("blob-{}", file_name(&blob.digest)), true, progress)?;
        let file = match source {
            Source::Registry(registry) => crate::blobs::download(registry, blob, &path, progress)?,
            Source::Layout(archive) => archive.copy(&blob.digest, None, &blobs)?,
            Source::Docker(archive, files) => archive.copy(&blob.digest, files.get(at).map(String::as_str), &blobs)?,
        };
        progress(Step::Unpacking { layer: &blob.digest });
        let partial = self.partial("layers")?;
        let root = partial.0.join("root");
        let unpacked = fs::create_dir(&root).map_err(Fault::from).and_then(|()| {
            let compressed = file.metadata()?.len();
            layer::unpack(file, diff_id, &root, Most::of(compressed))
        });
        let layer = unpacked.map_err(|fault| self.layer_failure(fault, name, &blob.digest))?;
        let text = serde_json::to_vec(&layer).map_err(|error| wrong(&self.root, error.into()))?;
        let place = self.root.join("layers").join(file_name(diff_id));
        let finish = || {
            fs::write(partial.0.join("layer.json"), text)?;
            partial.keep(&place)?;
            fs::remove_file(&path)
        };
        finish().map_err(|error| wrong(&self.root, error))?;
        progress(Step::Unpacked { layer: &blob.digest });
        Ok(())
    }

    fn layer_failure(&self, fault: Fault, name: &Name, layer: &str) -> Failure {
        let _ = fs::remove_file(self.root.join("blobs").join(file_name(layer)));
        match fault {
            Fault::Io(error) => wrong(&self.root, error),
            Fault::OtherDigest => digest::other_digest(&format!("The unpacked layer {layer}")),
            Fault::TooLarge(why) => failure(
                Code::ImageTooLarge,
                format!("The layer {layer} of the image {name} is not unpacked: {why}. Name an image that is smaller."),
            ),
            Fault::Hostile(why) => failure(
                Code::ImageBadLayer,
                format!(
                    "The layer {layer} of the image {name} is not unpacked: {why}. Build the image anew, or do not trust it."
                ),
            ),
        }
    }

    /// Makes the tree of an image whose layers are there, and records that it is complete.
    fn finish(&self, wanted: &Wanted, progress: Progress<'_>) -> Result<Image, Failure> {
        let gone = || wrong(&self.root, io::Error::other("a layer was removed meanwhile"));
        let layers = wanted.diff_ids.iter().map(|id| self.layer(id).ok_or_else(gone));
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        let key = file_name(&digest_of(wanted.diff_ids.join("\n").as_bytes()));
        let place = self.root.join("trees").join(&key);
        {
            let _mine = self.lock(&format!("tree-{key}"), true, progress)?;
            if !place.is_dir() {
                let partial = self.partial("trees")?;
                let merged = tree::merge(&layers, &partial.0);
                merged.map_err(|fault| match fault {
                    Fault::Io(error) => wrong(&self.root, error),
                    fault => wrong(&self.root, io::Error::other(format!("{fault:?}"))),
                })?;
                partial.keep(&place).map_err(|error| wrong(&self.root, error))?;
            }
        }
        let sum = |of: fn(&Layer) -> u64| layers.iter().map(|(_, layer)| of(layer)).sum();
        let record = Record {
            digest: wanted.digest.clone(),
            tree: key,
            config: wanted.config.clone(),
            layers: wanted.diff_ids.clone(),
            bytes: sum(|layer| layer.bytes),
            entries: sum(|layer| layer.entries),
            left_out: sum(|layer| layer.left_out),
            pulled: now(),
        };
        let text = serde_json::to_vec(&record).map_err(|error| wrong(&self.root, error.into()))?;
        let path = self
            .root
            .join("records")
            .join(format!("{}.json", file_name(&wanted.digest)));
        write_atomically(&path, &text).map_err(|error| wrong(&self.root, error))?;
        self.hold(&wanted.digest).map_err(|error| wrong(&self.root, error))?;
        Ok(Image { record, tree: place })
    }

    /// Holds an image, so that nobody removes it.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn hold(&self, digest: &str) -> io::Result<Held> {
        let file = self.used(digest)?;
        file.lock_shared()?;
        file.set_modified(SystemTime::now())?;
        Ok(Held(file))
    }

    fn used(&self, digest: &str) -> io::Result<File> {
        let path = self.root.join(format!("{}.used", file_name(digest)));
        File::options().create(true).truncate(false).write(true).open(path)
    }

    /// All images that are there, the last used first.
    pub fn list(&self) -> Vec<Listed> {
        let tags = self.tags();
        let mut all: Vec<Listed> = self
            .records()
            .into_iter()
            .map(|record| {
                let used = self.used(&record.digest).ok();
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

    /// Removes the images that a text names: by a name, by a digest, or by how that begins.
    ///
    /// # Errors
    ///
    /// `Image.NotHere`; `Image.InUse`, until its sessions have ended.
    pub fn remove(&self, text: &str) -> Result<Removed, Failure> {
        let named = text.parse::<Name>().ok();
        let name = named.as_ref().map(Name::to_string);
        let pinned = named.as_ref().and_then(Name::digest);
        let begins = |digest: &str| {
            let hex = digest.trim_start_matches("sha256:");
            text.len() >= 6 && (digest.starts_with(text) || hex.starts_with(text))
        };
        let found: Vec<Listed> = self
            .list()
            .into_iter()
            .filter(|each| {
                let is_named = each.names.iter().any(|known| Some(known) == name.as_ref());
                is_named || pinned == Some(&each.digest) || begins(&each.digest)
            })
            .collect();
        if found.is_empty() {
            let message = format!("No image {text} is here. See which there are: pfsession image list");
            return Err(failure(Code::ImageNotHere, message));
        }
        for each in &found {
            if !self.forget(&each.digest).map_err(|error| wrong(&self.root, error))? {
                let message = format!("Sessions use the image {text}. Stop them, then remove it: pfsession list");
                return Err(failure(Code::ImageInUse, message));
            }
        }
        self.collect();
        Ok(Removed {
            digests: found.into_iter().map(|each| each.digest).collect(),
        })
    }

    /// Removes images that nobody has used for so long, and all that no image needs.
    pub fn prune(&self, unused: Duration) {
        let until = millis(SystemTime::now()).saturating_sub(unused.as_millis() as u64);
        for each in self
            .list()
            .into_iter()
            .filter(|each| each.used < until && !each.is_in_use)
        {
            match self.forget(&each.digest) {
                Ok(true) => tracing::info!(image = each.digest, "an image that nobody has used for long is gone"),
                Ok(false) => {}
                Err(error) => tracing::warn!(image = each.digest, %error, "an image could not be removed"),
            }
        }
        self.collect();
    }

    /// Takes away an image's record, if nobody holds it. Whether it did.
    fn forget(&self, digest: &str) -> io::Result<bool> {
        if self.used(digest)?.try_lock().is_err() {
            return Ok(false);
        }
        fs::remove_file(self.root.join("records").join(format!("{}.json", file_name(digest))))?;
        for tag in self.tags().into_iter().filter(|tag| tag.digest == digest) {
            let _ = fs::remove_file(self.tag_file(&tag.name));
        }
        let _ = fs::remove_file(self.root.join(format!("{}.used", file_name(digest))));
        Ok(true)
    }

    /// Removes what no record needs. Not while somebody pulls: what that has so far is in no record yet.
    fn collect(&self) {
        let Ok(lock) = File::create(self.root.join("locks/collect")) else {
            return;
        };
        if lock.try_lock().is_err() {
            return;
        }
        let records = self.records();
        let trees: BTreeSet<String> = records.iter().map(|record| record.tree.clone()).collect();
        let layers: BTreeSet<String> = records
            .iter()
            .flat_map(|record| &record.layers)
            .map(|id| file_name(id))
            .collect();
        for (folder, needed) in [("trees", &trees), ("layers", &layers)] {
            for entry in fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten() {
                let is_needed = entry.file_name().to_str().is_some_and(|name| needed.contains(name));
                if !is_needed && let Err(error) = remove(&entry.path()) {
                    tracing::warn!(%error, "what no image needs could not be removed");
                }
            }
        }
        for entry in fs::read_dir(self.root.join("blobs")).into_iter().flatten().flatten() {
            let age = entry
                .metadata()
                .and_then(|about| about.modified())
                .ok()
                .and_then(|time| time.elapsed().ok());
            if age.is_some_and(|age| age > KEEP_PARTIAL) {
                let _ = fs::remove_file(entry.path());
            }
        }
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

    /// Waits until nobody else holds a lock; one that is shared is held by all who do not want it alone.
    fn lock(&self, name: &str, is_alone: bool, progress: Progress<'_>) -> Result<File, Failure> {
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

    fn partial(&self, folder: &str) -> Result<Partial, Failure> {
        let path = self
            .root
            .join(folder)
            .join(format!(".{}-{}", std::process::id(), random()));
        fs::create_dir(&path).map_err(|error| wrong(&self.root, error))?;
        Ok(Partial(path))
    }
}

/// A folder that is not whole yet.
struct Partial(PathBuf);

impl Partial {
    /// Puts it into its place, once it is on the disk: what is there is whole, also after a loss of power.
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

impl Source {
    /// Reads what an image is made of. Each document is read when it is known to be what its digest says.
    fn wanted(&self, shown: &str, digest: &str, name: &Name) -> Result<Wanted, Failure> {
        let fetch = |digest: &str| match self {
            Self::Registry(registry) => registry.manifest(Some(digest)).map(|(_, bytes)| bytes),
            Self::Layout(archive) | Self::Docker(archive, _) => archive.small_blob(digest),
        };
        if let (Self::Docker(archive, files), Name::DockerArchive(_, image)) = (self, name) {
            let saved = archive.docker_image(image.as_deref())?;
            let (config, diff_ids) = manifest::read_config(shown, &saved.config, files.len())?;
            // Its files have no digests of their own: that of what is unpacked from them counts.
            let layers = diff_ids.iter().map(|id| Descriptor {
                media_type: String::new(),
                digest: id.clone(),
                size: 0,
                platform: None,
                annotations: Default::default(),
            });
            return Ok(Wanted {
                digest: digest_of(&saved.config),
                config,
                layers: layers.collect(),
                diff_ids,
            });
        }
        let mut document = manifest::read(shown, &fetch(digest)?)?;
        if let Document::Index(all) = &document {
            let ours = manifest::ours(shown, all)?;
            document = manifest::read(shown, &fetch(&ours.digest)?)?;
        }
        let Document::Manifest { config, layers } = document else {
            return Err(failure(
                Code::ImageBadManifest,
                format!(
                    "The image {shown} is none that can be read: its index leads to an index. Build or push it anew, or name another one."
                ),
            ));
        };
        let bytes = match self {
            Self::Registry(registry) => registry.small_blob(&config.digest)?,
            Self::Layout(archive) | Self::Docker(archive, _) => archive.small_blob(&config.digest)?,
        };
        let (config, diff_ids) = manifest::read_config(shown, &bytes, layers.len())?;
        Ok(Wanted {
            digest: digest.to_owned(),
            config,
            layers,
            diff_ids,
        })
    }
}

fn now() -> u64 {
    millis(SystemTime::now()) / 1000
}

fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
