//! The documents of an image: index, manifest and configuration.
//!
//! `oci-spec` was weighed: 13 crates for the six fields that count here, and it checks none of what
//! is checked here.

use crate::{digest::is_digest, failure};
use contract::{Code, Failure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The most bytes of a document, as registries have it.
pub(crate) const MOST_DOCUMENT: u64 = 4 << 20;
/// The most layers; Docker makes 127 at most.
const MOST_LAYERS: usize = 256;
/// The most bytes of one layer as it is sent.
pub(crate) const MOST_BLOB: u64 = 16 << 30;

/// The media types of manifests and indexes that are accepted.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) architecture: String,
}

/// An index, or a manifest: which one it is, its fields say.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

#[derive(Debug)]
pub(crate) enum Read {
    Index(Vec<Descriptor>),
    Manifest {
        config: Descriptor,
        layers: Vec<Descriptor>,
    },
}

/// The parts of an image's configuration that count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// `NAME=value`.
    #[serde(default)]
    pub env: Vec<String>,
    /// The working directory.
    #[serde(default)]
    pub workdir: String,
    /// A name or a number, if need be with a group behind a colon.
    #[serde(default)]
    pub user: String,
}

#[derive(Deserialize)]
struct ConfigDocument {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    config: Option<ConfigFields>,
    rootfs: RootFs,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ConfigFields {
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// This machine's architecture, in the words of images.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn bad(name: &str, why: &str) -> Failure {
    failure(
        Code::ImageBadManifest,
        format!("The image {name} cannot be read: {why}. Build or push it anew, or name another one."),
    )
}

/// Reads an index or a manifest whose digest was checked.
///
/// * `name`: of the image, for messages.
pub(crate) fn read(name: &str, bytes: &[u8]) -> Result<Read, Failure> {
    let document: Document = serde_json::from_slice(bytes).map_err(|error| bad(name, &error.to_string()))?;
    if document.schema_version != 2 {
        return Err(bad(
            name,
            "its manifest is of version 1, which registries gave up in 2019",
        ));
    }
    let all = document.manifests.iter().flatten().chain(&document.config);
    for each in all.chain(document.layers.iter().flatten()) {
        if !is_digest(&each.digest) {
            return Err(bad(name, "it names a digest that is not of SHA-256"));
        }
        if each.size > MOST_BLOB {
            return Err(failure(
                Code::ImageTooLarge,
                format!(
                    "A layer of the image {name} has {} bytes; {MOST_BLOB} are the most.",
                    each.size
                ),
            ));
        }
    }
    match (document.manifests, document.config, document.layers) {
        (Some(manifests), None, None) => Ok(Read::Index(manifests)),
        (None, Some(config), Some(layers)) if layers.len() <= MOST_LAYERS => Ok(Read::Manifest { config, layers }),
        (None, Some(_), Some(_)) => Err(bad(name, &format!("it has more than {MOST_LAYERS} layers"))),
        _ => Err(bad(name, "it is neither an index nor a manifest")),
    }
}

/// The manifest of an index that is for this machine.
pub(crate) fn ours<'a>(name: &str, all: &'a [Descriptor]) -> Result<&'a Descriptor, Failure> {
    let platforms = || all.iter().filter_map(|each| each.platform.as_ref());
    let is_ours = |platform: &Platform| platform.os == "linux" && platform.architecture == architecture();
    let found = all.iter().find(|each| each.platform.as_ref().is_some_and(is_ours));
    // An index of one image need not name its platform; its configuration does.
    let found = found.or_else(|| all.first().filter(|only| all.len() == 1 && only.platform.is_none()));
    found.ok_or_else(|| {
        let there: Vec<String> = platforms()
            .filter(|platform| platform.os != "unknown")
            .map(|platform| format!("{}/{}", platform.os, platform.architecture))
            .collect();
        no_platform(name, &there.join(", "))
    })
}

fn no_platform(name: &str, there: &str) -> Failure {
    failure(
        Code::ImageNoPlatform,
        format!(
            "The image {name} is not made for linux/{}, which this machine is; it is for {}. Name an image that is made for it.",
            architecture(),
            if there.is_empty() {
                "nothing that it names"
            } else {
                there
            }
        ),
    )
}

/// Reads the configuration whose digest was checked, and the diff id of each layer.
pub(crate) fn read_config(name: &str, bytes: &[u8], layers: usize) -> Result<(Config, Vec<String>), Failure> {
    let document: ConfigDocument = serde_json::from_slice(bytes).map_err(|error| bad(name, &error.to_string()))?;
    if (document.os.as_str(), document.architecture.as_str()) != ("linux", architecture()) {
        return Err(no_platform(name, &format!("{}/{}", document.os, document.architecture)));
    }
    let diff_ids = document.rootfs.diff_ids;
    if diff_ids.len() != layers || !diff_ids.iter().all(|id| is_digest(id)) {
        return Err(bad(name, "its configuration does not name each of its layers"));
    }
    let fields = document.config.unwrap_or_default();
    let config = Config {
        env: fields.env.unwrap_or_default(),
        workdir: fields.working_dir.unwrap_or_default(),
        user: fields.user.unwrap_or_default(),
    };
    let texts = config.env.iter().chain([&config.workdir, &config.user]);
    if texts.into_iter().any(|text| text.contains('\0')) {
        return Err(bad(name, "its configuration has a zero byte"));
    }
    Ok((config, diff_ids))
}
