//! The sources of images: a registry, an archive, or a container engine of this machine.

use crate::{
    Config,
    archive::{Archive, DockerImage},
    digest::digest_of,
    engine::Engine,
    failure,
    manifest::{self, Descriptor, Read as Document},
    registry::Registry,
};
use contract::{Code, Failure};
use std::path::Path;

/// The source of an image.
pub(crate) enum Source {
    Registry(Registry),
    Layout(Archive),
    Docker(Archive, DockerImage),
}

/// An image before its layers are there.
pub(crate) struct Wanted {
    pub(crate) digest: String,
    pub(crate) config: Config,
    /// The configuration's own document.
    pub(crate) document: Vec<u8>,
    pub(crate) layers: Vec<Descriptor>,
    pub(crate) diff_ids: Vec<String>,
}

/// The image that a name stands for.
pub(crate) enum Found {
    Source(Box<Source>),
    /// An image of an engine that has not been asked for its layers yet.
    Engine(Engine, String),
}

impl Found {
    /// The source of its layers. An engine writes them to an archive in that folder.
    pub(crate) fn source(self, digest: &str, folder: &Path) -> Result<Source, Failure> {
        match self {
            Self::Source(source) => Ok(*source),
            Self::Engine(engine, image) => saved(engine, &image, digest, &folder.join("saved.tar")),
        }
    }
}

fn saved(engine: Engine, image: &str, digest: &str, path: &Path) -> Result<Source, Failure> {
    engine.save(image, digest, path)?;
    let archive = Archive::open(path)?;
    // A Docker that keeps its images in containerd gives the id of a manifest.
    if archive.has_manifest(digest) {
        return Ok(Source::Layout(archive));
    }
    let saved = archive.docker_image(None)?;
    match digest_of(&saved.config) == digest {
        true => Ok(Source::Docker(archive, saved)),
        false => Err(engine.failed(image, "the archive that it wrote is of another image")),
    }
}

impl Source {
    /// Reads what an image is made of. Each document is read when it is known to be what its digest
    /// says.
    pub(crate) fn read_contents(&self, shown: &str, digest: &str) -> Result<Wanted, Failure> {
        match self {
            Self::Docker(_, saved) => saved_contents(shown, saved),
            Self::Registry(registry) => {
                let manifest = |digest: &str| registry.manifest(Some(digest)).map(|(_, bytes)| bytes);
                contents(shown, digest, &manifest, &|digest| registry.small_blob(digest))
            }
            Self::Layout(archive) => {
                let read = |digest: &str| archive.small_blob(digest);
                contents(shown, digest, &read, &read)
            }
        }
    }
}

fn saved_contents(shown: &str, saved: &DockerImage) -> Result<Wanted, Failure> {
    let (config, diff_ids) = manifest::read_config(shown, &saved.config, saved.layers.len())?;
    // Its files have no digests of their own: that of what is unpacked from them counts.
    let layers = diff_ids.iter().map(|id| Descriptor {
        media_type: String::new(),
        digest: id.clone(),
        size: 0,
        platform: None,
        annotations: Default::default(),
    });
    Ok(Wanted {
        digest: digest_of(&saved.config),
        config,
        document: saved.config.clone(),
        layers: layers.collect(),
        diff_ids,
    })
}

/// Gives the bytes of a document by its digest, checked.
type Fetch<'a> = &'a dyn Fn(&str) -> Result<Vec<u8>, Failure>;

fn contents(shown: &str, digest: &str, fetch: Fetch<'_>, blob: Fetch<'_>) -> Result<Wanted, Failure> {
    let mut document = manifest::read(shown, &fetch(digest)?)?;
    if let Document::Index(all) = &document {
        let ours = manifest::ours(shown, all)?;
        document = manifest::read(shown, &fetch(&ours.digest)?)?;
    }
    let Document::Manifest { config, layers } = document else {
        return Err(failure(
            Code::ImageBadManifest,
            format!(
                "The image {shown} cannot be read: its index leads to an index. Build or push it anew, or name another one."
            ),
        ));
    };
    let bytes = blob(&config.digest)?;
    let (config, diff_ids) = manifest::read_config(shown, &bytes, layers.len())?;
    Ok(Wanted {
        digest: digest.to_owned(),
        config,
        document: bytes,
        layers,
        diff_ids,
    })
}
