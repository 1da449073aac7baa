//! A new image: the layers of a base as they are, and one layer of a folder over them. The same
//! base and folder give the same digest.

use crate::{
    How, Name, Progress, Reference, Step, Store,
    accounts::Accounts,
    digest::{self, digest_of, digest_of_file, file_name},
    io as wrong,
    manifest::Descriptor,
    registry::Registry,
    source::{Source, Wanted},
    tarball::{Layout, NewLayer, write_layer},
    upload::{Content, Told, present},
};
use contract::{Code, Failure};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The addition of a new image to its base.
#[derive(Clone, Copy, Debug)]
pub struct Addition<'a> {
    /// The folder whose content is the new layer.
    pub folder: &'a Path,
    /// The path of that in the image.
    pub at: &'a Path,
    /// Put before the `PATH` of the base.
    pub path: &'a str,
    /// The layer's text in the history.
    pub history: &'a str,
    /// The time of the image, in the form of RFC 3339; that of the base if it is not given.
    pub created: Option<&'a str>,
}

/// The target of a new image.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// An archive of an OCI layout, and the name that the image has in it.
    File(&'a Path, Option<&'a str>),
    Registry(&'a Reference),
}

/// A layer of a new image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltLayer {
    pub digest: String,
    pub bytes: u64,
    pub how: How,
}

/// An image that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// That of its manifest.
    pub digest: String,
    pub layers: Vec<BuiltLayer>,
}

/// A place that parts of an image are put to.
enum Sink<'a> {
    Archive(Layout, &'a Path),
    Registry(Box<Registry>),
}

/// A blob of the base, on the disk as long as this lives.
struct Blob {
    file: File,
    path: PathBuf,
    _mine: Option<File>,
}

impl Drop for Blob {
    fn drop(&mut self) {
        // A file that stays is removed with old downloads.
        let _ = fs::remove_file(&self.path);
    }
}

impl Store {
    /// Builds an image, and writes it to an archive or sends it to its registry.
    ///
    /// # Errors
    ///
    /// `Image.*`, each of which says what to do.
    pub fn build(
        &self,
        base: &Name,
        accounts: &Accounts,
        addition: &Addition<'_>,
        target: Target<'_>,
        progress: Progress<'_>,
    ) -> Result<Built, Failure> {
        let (found, digest) = self.ask(base, accounts)?;
        let partial = self.partial("blobs")?;
        let source = found.source(&digest, &partial.0)?;
        let mut wanted = source.read_contents(&base.to_string(), &digest)?;
        let (layer, file) = self.new_layer(addition, &partial.0)?;
        let sizes = wanted.layers.iter().map(|each| (each.digest.as_str(), each.size));
        progress(Step::Layers {
            missing: sizes.chain([(layer.digest.as_str(), layer.size)]).collect(),
            present: 0,
        });
        let written = partial.0.join("image.tar");
        let mut sink = match target {
            Target::File(..) => {
                let file = File::create(&written).map_err(|error| wrong(&written, error))?;
                Sink::Archive(Layout::new(file), &written)
            }
            Target::Registry(reference) => {
                let from = match base {
                    Name::Registry(base) => Some(base),
                    _ => None,
                };
                Sink::Registry(Box::new(Registry::for_push(reference, from, accounts)?))
            }
        };
        let mut layers = Vec::new();
        let mut seen = BTreeSet::new();
        for at in 0..wanted.layers.len() {
            let how = self.put_base_layer(&source, &mut wanted, at, &mut sink, &mut seen, progress)?;
            layers.push(built(&wanted.layers[at], how, progress));
        }
        let over = descriptor(&format!("{LAYER}+gzip"), &layer.digest, layer.size);
        let how = match sink.find(&over, &mut seen)? {
            Some(how) => how,
            None => sink.put(&over, &file, progress)?,
        };
        layers.push(built(&over, how, progress));
        let config = config_of(&wanted, &layer, addition)?;
        let config_digest = sink.put_text(&config)?;
        let config = descriptor(CONFIG, &config_digest, config.len() as u64);
        let all: Vec<&Descriptor> = wanted.layers.iter().chain([&over]).collect();
        let manifest = manifest_of(&config, &all, &digest).to_string().into_bytes();
        let digest = digest_of(&manifest);
        sink.finish(&manifest, target)?;
        Ok(Built { digest, layers })
    }

    fn new_layer(&self, addition: &Addition<'_>, folder: &Path) -> Result<(NewLayer, Blob), Failure> {
        let path = folder.join("layer.tar.gz");
        let write = || {
            let file = File::create(&path)?;
            let layer = write_layer(
                addition.folder,
                addition.at.strip_prefix("/").unwrap_or(addition.at),
                file,
            )?;
            Ok((layer, File::open(&path)?))
        };
        let (layer, file) = write().map_err(|error: io::Error| wrong(&path, error))?;
        let blob = Blob {
            file,
            path: path.clone(),
            _mine: None,
        };
        Ok((layer, blob))
    }

    /// Puts a layer of the base to its target. It is downloaded if it has to be sent or written.
    fn put_base_layer(
        &self,
        source: &Source,
        wanted: &mut Wanted,
        at: usize,
        sink: &mut Sink<'_>,
        seen: &mut BTreeSet<String>,
        progress: Progress<'_>,
    ) -> Result<How, Failure> {
        let mut blob = None;
        if let Source::Docker(..) = source {
            blob = Some(self.base_blob(source, wanted, at, progress)?);
        }
        wanted.layers[at].media_type = media_type(&wanted.layers[at].media_type);
        let layer = wanted.layers[at].clone();
        if let Some(how) = sink.find(&layer, seen)? {
            return Ok(how);
        }
        let blob = match blob {
            Some(blob) => blob,
            None => self.base_blob(source, wanted, at, progress)?,
        };
        sink.put(&layer, &blob, progress)
    }

    fn base_blob(
        &self,
        source: &Source,
        wanted: &mut Wanted,
        at: usize,
        progress: Progress<'_>,
    ) -> Result<Blob, Failure> {
        let layer = &mut wanted.layers[at];
        let mine = self.lock(&format!("blob-{}", file_name(&layer.digest)), true, progress)?;
        let blobs = self.root.join("blobs");
        let path = blobs.join(file_name(&layer.digest));
        let file = match source {
            Source::Registry(registry) => crate::blobs::download(registry, layer, &path, progress)?,
            Source::Layout(archive) => archive.copy(&layer.digest, None, &blobs)?,
            Source::Docker(archive, saved) => {
                let mut file = archive.copy(&layer.digest, saved.layers.get(at).map(String::as_str), &blobs)?;
                // Its files have no digests of their own, and may be compressed.
                let mut begins = [0; 2];
                let looked = file.read(&mut begins).and_then(|_| file.rewind());
                looked.map_err(|error| wrong(&path, error))?;
                layer.digest = digest_of_file(&mut file).map_err(|error| wrong(&path, error))?;
                layer.size = file.metadata().map_err(|error| wrong(&path, error))?.len();
                layer.media_type = if begins == [0x1f, 0x8b] {
                    format!("{LAYER}+gzip")
                } else if layer.digest == wanted.diff_ids[at] {
                    LAYER.to_owned()
                } else {
                    return Err(digest::other_digest(&format!("The layer {}", wanted.diff_ids[at])));
                };
                file
            }
        };
        Ok(Blob {
            file,
            path,
            _mine: Some(mine),
        })
    }
}

impl Sink<'_> {
    /// Says how a layer is there already, if it is.
    ///
    /// * `seen`: the layers so far, to which it is added.
    fn find(&self, layer: &Descriptor, seen: &mut BTreeSet<String>) -> Result<Option<How>, Failure> {
        if !seen.insert(layer.digest.clone()) {
            return Ok(Some(How::Present));
        }
        match self {
            Self::Archive(..) => Ok(None),
            Self::Registry(registry) => present(registry, layer),
        }
    }

    /// Puts a layer that is not there.
    fn put(&mut self, layer: &Descriptor, blob: &Blob, progress: Progress<'_>) -> Result<How, Failure> {
        let told = |file: File| Told {
            inner: file,
            layer: &layer.digest,
            bytes: 0,
            progress,
        };
        let open = || {
            let mut file = blob.file.try_clone()?;
            file.seek(SeekFrom::Start(0))?;
            Ok(told(file))
        };
        match self {
            Self::Archive(layout, path) => {
                let added = open().and_then(|content| layout.add_blob(&layer.digest, layer.size, content));
                added.map_err(|error: io::Error| wrong(path, error))?;
                Ok(How::Written)
            }
            Self::Registry(registry) => {
                let open = || open().map(|content| Box::new(content) as Box<dyn Read>);
                let content = Content {
                    size: layer.size,
                    open: &open,
                };
                registry.upload(&layer.digest, &content)?;
                Ok(How::Sent)
            }
        }
    }

    /// Puts a document as a blob. Returns its digest.
    fn put_text(&mut self, text: &[u8]) -> Result<String, Failure> {
        let digest = digest_of(text);
        match self {
            Self::Archive(layout, path) => layout
                .add_blob(&digest, text.len() as u64, text)
                .map_err(|error| wrong(path, error))?,
            Self::Registry(registry) if registry.has_blob(&digest)? => {}
            Self::Registry(registry) => {
                let content = Content {
                    size: text.len() as u64,
                    open: &|| Ok(Box::new(text)),
                };
                registry.upload(&digest, &content)?;
            }
        }
        Ok(digest)
    }

    /// Puts the manifest last: what it names is there.
    fn finish(mut self, manifest: &[u8], target: Target<'_>) -> Result<(), Failure> {
        if let Self::Registry(registry) = &self {
            return registry.put_manifest(MANIFEST, manifest);
        }
        let digest = self.put_text(manifest)?;
        let (Self::Archive(mut layout, path), Target::File(place, name)) = (self, target) else {
            return Ok(());
        };
        let annotations =
            name.map(|name| json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": name }));
        let mut only = json!({ "mediaType": MANIFEST, "digest": digest, "size": manifest.len() });
        if let Some(annotations) = annotations {
            only["annotations"] = annotations;
        }
        let index =
            json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [only] })
                .to_string();
        let about = r#"{"imageLayoutVersion":"1.0.0"}"#;
        let finish = || {
            layout.add("index.json", index.len() as u64, index.as_bytes())?;
            layout.add("oci-layout", about.len() as u64, about.as_bytes())?;
            layout.finish()?;
            move_file(path, place)
        };
        finish().map_err(|error| wrong(place, error))
    }
}

/// Puts a file into its place whole, also on another file system.
fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    let mut beside = to.as_os_str().to_owned();
    beside.push(format!(".{}.partial", std::process::id()));
    let beside = PathBuf::from(beside);
    let moved = fs::copy(from, &beside).and_then(|_| fs::rename(&beside, to));
    if moved.is_err() {
        let _ = fs::remove_file(&beside);
    }
    moved
}

fn built(layer: &Descriptor, how: How, progress: Progress<'_>) -> BuiltLayer {
    progress(Step::Kept {
        layer: &layer.digest,
        how,
    });
    BuiltLayer {
        digest: layer.digest.clone(),
        bytes: layer.size,
        how,
    }
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: digest.to_owned(),
        size,
        platform: None,
        annotations: Default::default(),
    }
}

/// Docker's own names of layers, in the words of OCI: one manifest has one kind.
fn media_type(named: &str) -> String {
    match named {
        "application/vnd.docker.image.rootfs.diff.tar.gzip" | "" => format!("{LAYER}+gzip"),
        "application/vnd.docker.image.rootfs.diff.tar" => LAYER.to_owned(),
        other => other.to_owned(),
    }
}

/// The configuration of the base with one more layer.
fn config_of(wanted: &Wanted, layer: &NewLayer, addition: &Addition<'_>) -> Result<Vec<u8>, Failure> {
    let bad = |_| {
        let message = "The configuration of the base image cannot be read. Build it anew, or name another one.";
        Failure::new(Code::ImageBadManifest, message)
    };
    let mut config: Value = serde_json::from_slice(&wanted.document).map_err(bad)?;
    let created = addition.created.map_or_else(
        || match &config["created"] {
            Value::String(created) => created.clone(),
            _ => "1980-01-01T00:00:00Z".to_owned(),
        },
        str::to_owned,
    );
    let path = wanted
        .config
        .env
        .iter()
        .rev()
        .find_map(|each| each.strip_prefix("PATH="));
    let path = path.filter(|path| !path.is_empty()).unwrap_or(crate::DEFAULT_PATH);
    let others = wanted.config.env.iter().filter(|each| !each.starts_with("PATH="));
    let mut env: Vec<String> = others.cloned().collect();
    env.insert(0, format!("PATH={}:{path}", addition.path));
    config["config"]["Env"] = json!(env);
    let diff_ids = wanted.diff_ids.iter().chain([&layer.diff_id]);
    config["rootfs"]["diff_ids"] = json!(diff_ids.collect::<Vec<_>>());
    let mut history = config["history"].as_array().cloned().unwrap_or_default();
    history.push(json!({ "created": created, "created_by": addition.history }));
    config["history"] = Value::from(history);
    config["created"] = Value::from(created);
    Ok(config.to_string().into_bytes())
}

fn manifest_of(config: &Descriptor, layers: &[&Descriptor], base: &str) -> Value {
    let part = |part: &Descriptor| json!({ "mediaType": part.media_type, "digest": part.digest, "size": part.size });
    let layers: Vec<Value> = layers.iter().map(|layer| part(layer)).collect();
    json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": part(config), "layers": layers,
        "annotations": { "org.opencontainers.image.base.digest": base } })
}
