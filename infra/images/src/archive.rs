//! Images in files: `docker save`, and tar files of OCI layouts.

use crate::{
    digest::{self, digest_of, file_name},
    failure, io as wrong,
    manifest::{Descriptor, MOST_DOCUMENT},
};
use contract::{Code, Failure};
use serde::Deserialize;
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};
use tar::EntryType;

const MOST_ENTRIES: usize = 100_000;

/// A tar file, and where its files are in it.
pub(crate) struct Archive {
    path: PathBuf,
    files: HashMap<String, (u64, u64)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Layout {
    manifests: Vec<Descriptor>,
}

/// The content of an archive of `docker save`.
pub(crate) struct DockerImage {
    pub(crate) config: Vec<u8>,
    /// The names of its layers' files.
    pub(crate) layers: Vec<String>,
}

impl Archive {
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        // A pipe would never open, and a device never end.
        let is_file = std::fs::metadata(path).map(|about| about.is_file());
        if !is_file.map_err(|error| bad(path, &error.to_string()))? {
            return Err(bad(path, "it is no file"));
        }
        let file = File::open(path).map_err(|error| bad(path, &error.to_string()))?;
        let mut archive = tar::Archive::new(file);
        let mut files = HashMap::new();
        let entries = archive
            .entries_with_seek()
            .map_err(|error| bad(path, &error.to_string()))?;
        for entry in entries.raw(true) {
            let entry = entry.map_err(|_| {
                bad(
                    path,
                    "it is no tar file; one that is compressed is to be unpacked first",
                )
            })?;
            if entry.header().entry_type() == EntryType::Regular
                && let Ok(name) = std::str::from_utf8(&entry.path_bytes())
            {
                let name = name.trim_start_matches("./").to_owned();
                files.insert(name, (entry.raw_file_position(), entry.size()));
            }
            if files.len() > MOST_ENTRIES {
                return Err(bad(path, "it has more files than an image has"));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            files,
        })
    }

    fn part(&self, name: &str) -> Result<io::Take<File>, Failure> {
        let (at, size) = self
            .files
            .get(name)
            .ok_or_else(|| bad(&self.path, &format!("it has no file {name}")))?;
        let open = || {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(*at))?;
            Ok(file.take(*size))
        };
        open().map_err(|error: io::Error| bad(&self.path, &error.to_string()))
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, Failure> {
        let mut part = self.part(name)?;
        if part.limit() > MOST_DOCUMENT {
            return Err(bad(&self.path, &format!("its {name} is too large")));
        }
        let mut bytes = Vec::new();
        part.read_to_end(&mut bytes)
            .map_err(|error| bad(&self.path, &error.to_string()))?;
        Ok(bytes)
    }

    /// A small blob of an OCI layout, which is what its digest says.
    pub(crate) fn small_blob(&self, digest: &str) -> Result<Vec<u8>, Failure> {
        let bytes = self.document(&format!("blobs/{}", digest.replace(':', "/")))?;
        match digest_of(&bytes) == digest {
            true => Ok(bytes),
            false => Err(digest::other_digest(&format!(
                "The document {digest} of {}",
                self.path.display()
            ))),
        }
    }

    /// Copies a layer out, checked if it has a digest of its own.
    ///
    /// * `name`: its file, if not that of a layout's digest.
    pub(crate) fn copy(&self, digest: &str, name: Option<&str>, folder: &Path) -> Result<File, Failure> {
        let blob = format!("blobs/{}", digest.replace(':', "/"));
        let mut part = self.part(name.unwrap_or(&blob))?;
        let path = folder.join(file_name(digest));
        let copy = |part: &mut io::Take<File>| {
            let mut file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)?;
            io::copy(part, &mut file)?;
            file.seek(SeekFrom::Start(0))?;
            Ok(file)
        };
        let mut file = copy(&mut part).map_err(|error| wrong(&path, error))?;
        if name.is_none() {
            let found = digest::digest_of_file(&mut file).map_err(|error| wrong(&path, error))?;
            if found != digest {
                return Err(digest::other_digest(&format!(
                    "The layer {digest} of {}",
                    self.path.display()
                )));
            }
        }
        Ok(file)
    }

    /// The image of that name, or the only one.
    pub(crate) fn docker_image(&self, wanted: Option<&str>) -> Result<DockerImage, Failure> {
        let text = self.document("manifest.json")?;
        let all: Vec<Saved> = serde_json::from_slice(&text).map_err(|error| bad(&self.path, &error.to_string()))?;
        let is_it = |saved: &&Saved| match wanted {
            Some(wanted) => saved.repo_tags.iter().flatten().any(|tag| tag == wanted),
            None => all.len() == 1,
        };
        let names = all
            .iter()
            .flat_map(|saved| saved.repo_tags.iter().flatten())
            .cloned()
            .collect();
        let found = all.iter().find(is_it).ok_or_else(|| which(&self.path, names))?;
        Ok(DockerImage {
            config: self.document(&found.config)?,
            layers: found.layers.clone(),
        })
    }

    /// Whether it is an OCI layout whose index names that manifest.
    pub(crate) fn has_manifest(&self, digest: &str) -> bool {
        let layout = self.document("index.json").ok();
        let layout: Option<Layout> = layout.and_then(|text| serde_json::from_slice(&text).ok());
        layout.is_some_and(|layout| layout.manifests.iter().any(|each| each.digest == digest))
    }

    /// The digest of the manifest of that name, or of the only one.
    pub(crate) fn layout(&self, wanted: Option<&str>) -> Result<String, Failure> {
        const NAME: &str = "org.opencontainers.image.ref.name";
        let text = self.document("index.json")?;
        let layout: Layout = serde_json::from_slice(&text).map_err(|error| bad(&self.path, &error.to_string()))?;
        let is_it = |each: &&Descriptor| match wanted {
            Some(wanted) => each.annotations.get(NAME).is_some_and(|name| name == wanted),
            None => layout.manifests.len() == 1,
        };
        let names = layout
            .manifests
            .iter()
            .filter_map(|each| each.annotations.get(NAME).cloned())
            .collect();
        let found = layout
            .manifests
            .iter()
            .find(is_it)
            .ok_or_else(|| which(&self.path, names))?;
        match crate::digest::is_digest(&found.digest) {
            true => Ok(found.digest.clone()),
            false => Err(bad(&self.path, "it names a digest that is not of SHA-256")),
        }
    }
}

fn bad(path: &Path, why: &str) -> Failure {
    failure(
        Code::ImageBadArchive,
        format!(
            "{} is no archive of an image that can be read: {why}. Write it anew: docker save, or skopeo copy to oci-archive.",
            path.display()
        ),
    )
}

fn which(path: &Path, names: Vec<String>) -> Failure {
    failure(
        Code::ImageBadArchive,
        format!(
            "{} has not the one image that is meant. Name one of it behind a colon: {}.",
            path.display(),
            if names.is_empty() {
                "it names none".to_owned()
            } else {
                names.join(", ")
            }
        ),
    )
}
