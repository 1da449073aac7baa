//! Opening what a session's settings call its folder.

use crate::{Fault, Store, aside};
use contract::snapshot::Address;
use flow::{Environment, Kind, Reach, view::View};
use lifecycle::{Code, Failure, session::Named};
use std::{
    collections::VecDeque,
    fs,
    io::{self, Read},
    ops::Deref,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// The longest time to read the files that describe a flow.
const DESCRIPTION_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest time to read a whole folder.
const FOLDER_TIMEOUT: Duration = Duration::from_secs(120);

/// The readers of flow folders: on this machine, in a store, or both.
pub struct Folders {
    here: bool,
    store: Option<InStore>,
}

struct InStore {
    store: Store,
    /// The only bucket; `None`: whichever this reader's role may read.
    bucket: Option<String>,
    place: PathBuf,
    most: usize,
    kept: tokio::sync::Mutex<VecDeque<Arc<Laid>>>,
}

/// Something of a store that lies on this machine until nobody holds it.
#[derive(Debug)]
pub struct Laid {
    address: Address,
    is_folder: bool,
    path: PathBuf,
}

impl Drop for Laid {
    fn drop(&mut self) {
        // What cannot be taken away goes with the folder that it is in.
        let _ = if self.is_folder {
            fs::remove_dir_all(&self.path)
        } else {
            fs::remove_file(&self.path)
        };
    }
}

impl Deref for Laid {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

/// A flow folder that can be read, as long as this is held.
#[derive(Clone, Debug)]
pub enum Opened {
    /// A folder of this machine, as its user has it.
    Here(PathBuf),
    /// A snapshot, laid out.
    View(Arc<Laid>),
}

impl Opened {
    pub fn path(&self) -> &Path {
        match self {
            Self::Here(path) => path,
            Self::View(laid) => laid,
        }
    }

    /// The environment that the flow declares.
    ///
    /// # Errors
    ///
    /// As [`flow::environment()`] and [`aside`].
    pub async fn environment(&self) -> Result<Environment, Failure> {
        self.read(DESCRIPTION_TIMEOUT, |opened| match opened {
            Self::Here(path) => flow::environment(path, &flow::include_root(path)),
            Self::View(laid) => flow::environment(laid, Reach::View),
        })
        .await
    }

    /// Whether it is a folder of this machine.
    pub fn is_here(&self) -> bool {
        matches!(self, Self::Here(_))
    }

    /// The base image of the flow, if its user names none.
    ///
    /// # Errors
    ///
    /// As [`flow::base_image`] and [`aside`].
    pub async fn base_image(&self) -> Result<Named<String>, Failure> {
        self.read(DESCRIPTION_TIMEOUT, |opened| flow::base_image(opened.path()))
            .await
    }

    /// The base image of a flow that names none.
    ///
    /// # Errors
    ///
    /// As [`flow::default_image`] and [`aside`].
    pub async fn default_image(&self) -> Result<&'static str, Failure> {
        self.read(DESCRIPTION_TIMEOUT, |opened| flow::default_image(opened.path()))
            .await
    }

    /// The constraints on the version of Python that files of the folder have.
    ///
    /// # Errors
    ///
    /// As [`flow::python_constraints`] and [`aside`].
    pub async fn python_constraints(&self) -> Result<Vec<flow::PythonConstraint>, Failure> {
        self.read(DESCRIPTION_TIMEOUT, |opened| flow::python_constraints(opened.path()))
            .await
    }

    /// The kind of the folder.
    ///
    /// # Errors
    ///
    /// As [`flow::kind`] and [`aside`].
    pub async fn kind(&self) -> Result<Kind, Failure> {
        self.read(DESCRIPTION_TIMEOUT, |opened| flow::kind(opened.path())).await
    }

    /// The text of the flow's file; none where there is no such file, or its text is longer than
    /// `most` bytes.
    ///
    /// # Errors
    ///
    /// As [`flow::kind`] and [`aside`].
    pub async fn definition(&self, most: usize) -> Result<Option<String>, Failure> {
        self.read(DESCRIPTION_TIMEOUT, move |opened| {
            let file = flow::kind(opened.path())?.file().map(|name| opened.path().join(name));
            Ok(file.and_then(|file| short_text(&file, most)))
        })
        .await
    }

    /// The view of a run of the flow.
    ///
    /// # Errors
    ///
    /// As [`flow::view::list`] and [`aside`].
    pub async fn view(&self) -> Result<View, Failure> {
        self.read(FOLDER_TIMEOUT, |opened| match opened {
            Self::Here(path) => flow::view::list(path, &flow::include_root(path)),
            Self::View(laid) => flow::view::list(laid, Reach::View),
        })
        .await
    }

    async fn read<T: Send + 'static>(
        &self,
        most: Duration,
        read: impl FnOnce(&Self) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let opened = self.clone();
        aside(self.path(), most, move || read(&opened)).await
    }
}

impl Folders {
    /// Only folders of this machine.
    pub fn here() -> Self {
        Self {
            here: true,
            store: None,
        }
    }

    /// Whether folders of this machine are read.
    pub fn are_here(&self) -> bool {
        self.here
    }

    /// Only snapshots.
    ///
    /// * `bucket`: the only one whose snapshots are opened.
    /// * `place`: a folder of this process's own, in which they are laid out; `most` of them are
    ///   kept there.
    pub fn in_store(store: Store, bucket: &str, place: &Path, most: usize) -> Self {
        Self {
            here: false,
            store: Some(InStore::new(store, Some(bucket), place, most)),
        }
    }

    /// Both, and snapshots of whichever bucket the store's credentials may read.
    pub fn both(store: Store, place: &Path, most: usize) -> Self {
        Self {
            here: true,
            store: Some(InStore::new(store, None, place, most)),
        }
    }

    /// Opens the folder of a flow.
    ///
    /// * `flow`: the flow's key: what is another's is not opened.
    /// * `folder`: an absolute path, or the address of a snapshot.
    ///
    /// # Errors
    ///
    /// `Flow.NoSnapshot`, `Snapshot.NotYours`, `Snapshot.Unreadable`, and what [`Store::get`] says.
    pub async fn open(&self, flow: &str, folder: &str) -> Result<Opened, Fault> {
        match (&self.store, Path::new(folder).is_absolute()) {
            (_, true) if self.here => Ok(Opened::Here(folder.into())),
            (Some(store), false) => store.lay_out(flow, folder, true).await.map(Opened::View),
            _ => Err(no_snapshot(&format!("The flow folder {folder}"))),
        }
    }

    /// Opens a file of a flow's, such as the data of a run.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub async fn open_file(&self, flow: &str, file: &str) -> Result<OpenedFile, Fault> {
        match (&self.store, Path::new(file).is_absolute()) {
            (_, true) if self.here => Ok(OpenedFile::Here(file.into())),
            (Some(store), false) => store.lay_out(flow, file, false).await.map(OpenedFile::Laid),
            _ => Err(no_snapshot(&format!("The file {file}"))),
        }
    }
}

/// A file that can be read, as long as this is held.
#[derive(Clone, Debug)]
pub enum OpenedFile {
    Here(PathBuf),
    Laid(Arc<Laid>),
}

impl OpenedFile {
    pub fn path(&self) -> &Path {
        match self {
            Self::Here(path) => path,
            Self::Laid(laid) => laid,
        }
    }
}

/// The text of a file, if it is one of at most so many bytes.
pub fn short_text(file: &Path, most: usize) -> Option<String> {
    let mut text = String::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    fs::File::open(file).ok()?.take(limit).read_to_string(&mut text).ok()?;
    (text.len() <= most).then_some(text)
}

fn no_snapshot(what: &str) -> Fault {
    Fault::Wrong(Failure::new(
        Code::FlowNoSnapshot,
        format!(
            "{what} cannot be seen from here. Send the command with pfsession, which uploads it, or name the address of what was uploaded."
        ),
    ))
}

impl Laid {
    /// Lays the snapshot's file out in a folder that is there and empty.
    fn into_folder(self, folder: PathBuf) -> Result<Self, Failure> {
        let view = Self {
            address: self.address.clone(),
            is_folder: true,
            path: folder,
        };
        let file = fs::File::open(&self.path).map_err(|error| {
            Failure::new(
                Code::SnapshotNoRoom,
                format!("{} is gone: {error}. Try again.", self.path.display()),
            )
        })?;
        flow::snapshot::lay_out(io::BufReader::new(file), &view.path)?;
        Ok(view)
    }
}

impl InStore {
    fn new(store: Store, bucket: Option<&str>, place: &Path, most: usize) -> Self {
        Self {
            store,
            bucket: bucket.map(str::to_owned),
            place: place.to_owned(),
            most,
            kept: tokio::sync::Mutex::default(),
        }
    }

    async fn lay_out(&self, flow: &str, text: &str, is_folder: bool) -> Result<Arc<Laid>, Fault> {
        let address = Address::read(text).ok_or_else(|| no_snapshot(text))?;
        if address.flow != flow || self.bucket.as_ref().is_some_and(|bucket| *bucket != address.bucket) {
            return Err(Fault::Wrong(Failure::new(
                Code::SnapshotNotYours,
                format!(
                    "{address} is no snapshot of this flow. Send the command with pfsession, which uploads the flow's own."
                ),
            )));
        }
        // One at a time: each may be large.
        let mut kept = self.kept.lock().await;
        let is_wanted = |laid: &&Arc<Laid>| laid.address == address && laid.is_folder == is_folder;
        if let Some(laid) = kept.iter().find(is_wanted) {
            return Ok(Arc::clone(laid));
        }
        // First of all: there may be no room for one more.
        while kept.len() >= self.most.max(1) {
            kept.pop_front();
        }
        let no_room = |error: io::Error| {
            Fault::Wrong(Failure::new(
                Code::SnapshotNoRoom,
                format!(
                    "{} cannot be written: {error}. Put that right, and try again.",
                    self.place.display()
                ),
            ))
        };
        fs::create_dir_all(&self.place).map_err(no_room)?;
        let mut random = [0; 8];
        // Without a source of randomness the process id in front of it has to do.
        let _ = getrandom::fill(&mut random);
        let path = self
            .place
            .join(format!("{}-{}", std::process::id(), hex::encode(random)));
        // Whatever comes of it, it is taken away.
        let mut laid = Laid {
            address,
            is_folder: false,
            path,
        };
        self.store.get(&laid.address, &laid.path).await?;
        if is_folder {
            let folder = laid.path.with_extension("view");
            fs::create_dir(&folder).map_err(no_room)?;
            laid = tokio::task::spawn_blocking(move || laid.into_folder(folder))
                .await
                .unwrap_or_else(|error| Err(Failure::new(Code::SnapshotUnreadable, error.to_string())))?;
        }
        let laid = Arc::new(laid);
        kept.push_back(Arc::clone(&laid));
        Ok(laid)
    }
}
