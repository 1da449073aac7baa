//! Names of images: of a registry, of a file, or of the Docker or podman of this machine.

use crate::{digest::is_digest, engine::Engine, failure};
use contract::{Code, Failure};
use std::{fmt, path::PathBuf, str::FromStr};

/// An image as a person names it.
///
/// # Source
///
/// The grammar is that of the Distribution project's references; `docker-archive:`,
/// `oci-archive:`, `docker-daemon:` and `containers-storage:` are skopeo's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    Registry(Reference),
    /// A file of `docker save`, and which of its images.
    DockerArchive(PathBuf, Option<String>),
    /// A tar file of an OCI layout, and which of its images.
    OciArchive(PathBuf, Option<String>),
    /// An image of a container engine of this machine, as that names it.
    Engine(Engine, String),
}

/// `registry/repository:tag@digest`, with what is left out filled in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// The registry's host, with its port if it names one.
    pub registry: String,
    pub repository: String,
    /// `latest` if neither a tag nor a digest is named.
    pub tag: Option<String>,
    /// `sha256:` and 64 hex digits.
    pub digest: Option<String>,
}

/// Docker's own registry: names without a host mean it.
const DOCKER: &str = "docker.io";
const LONGEST: usize = 255;

impl Name {
    /// This name with the digest that it was resolved to: it means that image for ever.
    pub fn pinned(&self, digest: &str) -> String {
        match self {
            Self::Registry(reference) => Reference {
                digest: Some(digest.to_owned()),
                ..reference.clone()
            }
            .to_string(),
            file => file.to_string(),
        }
    }

    /// The digest that it names.
    pub fn digest(&self) -> Option<&str> {
        match self {
            Self::Registry(reference) => reference.digest.as_deref(),
            _ => None,
        }
    }
}

impl FromStr for Name {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let file = |rest: &str| {
            let (path, image) = match rest.split_once(':') {
                Some((path, image)) if !image.is_empty() => (path, Some(image.to_owned())),
                _ => (rest.trim_end_matches(':'), None),
            };
            match path.starts_with('/') {
                true => Ok((PathBuf::from(path), image)),
                false => Err(wrong(text, "the path of an archive is absolute")),
            }
        };
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            return file(rest).map(|(path, image)| Self::DockerArchive(path, image));
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            return file(rest).map(|(path, image)| Self::OciArchive(path, image));
        }
        for engine in Engine::ALL {
            let rest = text.strip_prefix(engine.transport());
            if let Some(image) = rest.and_then(|rest| rest.strip_prefix(':')) {
                return match is_image_of_an_engine(image) {
                    true => Ok(Self::Engine(engine, image.to_owned())),
                    false => Err(wrong(text, "no image is called that by a container engine")),
                };
            }
        }
        text.parse().map(Self::Registry)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, path, image) = match self {
            Self::Registry(reference) => return reference.fmt(f),
            Self::DockerArchive(path, image) => ("docker-archive", path, image),
            Self::OciArchive(path, image) => ("oci-archive", path, image),
            Self::Engine(engine, image) => return write!(f, "{}:{image}", engine.transport()),
        };
        write!(f, "{kind}:{}", path.display())?;
        image.as_ref().map_or(Ok(()), |image| write!(f, ":{image}"))
    }
}

fn wrong(text: &str, why: &str) -> Failure {
    failure(
        Code::ImageBadName,
        format!(
            "{text:?} is no name of an image: {why}. Write it as registry/name:tag, registry/name@sha256:…, docker-archive:/file.tar, \
             oci-archive:/file.tar, docker-daemon:name:tag or containers-storage:name:tag."
        ),
    )
}

impl FromStr for Reference {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let wrong = |why: &str| wrong(text, why);
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(wrong("a digest is sha256: and 64 hex digits")),
            None => (text, None),
        };
        let (rest, tag) = match rest.rsplit_once(':') {
            Some((before, tag)) if !tag.contains('/') => (before, Some(tag.to_owned())),
            _ => (rest, None),
        };
        if tag.as_ref().is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong(
                "a tag has letters, digits, dots, dashes and underscores, 128 at most",
            ));
        }
        let (registry, repository) = match rest.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest.to_owned()),
            Some(_) => (DOCKER, rest.to_owned()),
            None => (DOCKER, format!("library/{rest}")),
        };
        let registry = match registry {
            "index.docker.io" => DOCKER,
            other => other,
        };
        if !is_host(registry) {
            return Err(wrong("its registry is no host name"));
        }
        if repository.len() > LONGEST || !repository.split('/').all(is_part) {
            return Err(wrong(
                "a repository has lower case letters and digits, between them dots, dashes and underscores",
            ));
        }
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag: tag.or_else(|| digest.is_none().then(|| "latest".to_owned())),
            digest,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

impl Reference {
    /// Whether its registry is on this machine, where plain HTTP is as good as TLS.
    pub(crate) fn is_here(&self) -> bool {
        let host = self
            .registry
            .rsplit_once(':')
            .map_or(self.registry.as_str(), |(host, _)| host);
        matches!(host, "localhost" | "127.0.0.1" | "[::1]")
    }
}

/// Whether it is a name with or without a tag or digest, or an id. It is an argument of a program.
fn is_image_of_an_engine(text: &str) -> bool {
    let is_id = text.len() >= 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id || text.parse::<Reference>().is_ok()
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_part(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = [text.bytes().next(), text.bytes().last()];
    ends.into_iter().all(|byte| byte.is_some_and(is_word))
        && text
            .bytes()
            .all(|byte| is_word(byte) || matches!(byte, b'.' | b'-' | b'_'))
        && !text.contains("..")
}

fn is_host(text: &str) -> bool {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, "443"));
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let begins = host.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let is_there = begins && host.bytes().all(is_name) && !host.contains("..") || host == "[::1]";
    is_there && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_name_is_filled_in_as_docker_fills_it_in() {
        for (text, full) in [
            ("ubuntu", "docker.io/library/ubuntu:latest"),
            ("ubuntu:24.04", "docker.io/library/ubuntu:24.04"),
            ("ann/flow", "docker.io/ann/flow:latest"),
            ("index.docker.io/ann/flow:1", "docker.io/ann/flow:1"),
            ("localhost/flow", "localhost/flow:latest"),
            ("localhost:5000/a/b-c/d_e:V1.0", "localhost:5000/a/b-c/d_e:V1.0"),
            ("ghcr.io/a/b", "ghcr.io/a/b:latest"),
            ("docker-archive:/tmp/a.tar", "docker-archive:/tmp/a.tar"),
            ("oci-archive:/tmp/a.tar:one:two", "oci-archive:/tmp/a.tar:one:two"),
            ("docker-daemon:ann/flow", "docker-daemon:ann/flow"),
            ("docker-daemon:4bb46517cac3", "docker-daemon:4bb46517cac3"),
            (
                "containers-storage:localhost/flow:1",
                "containers-storage:localhost/flow:1",
            ),
        ] {
            assert_eq!(text.parse::<Name>().unwrap().to_string(), full);
        }
        let pinned = format!("ghcr.io/a/b@{DIGEST}");
        assert_eq!(pinned.parse::<Name>().unwrap().to_string(), pinned);
        assert_eq!(
            "ghcr.io/a/b:1".parse::<Name>().unwrap().pinned(DIGEST),
            format!("ghcr.io/a/b:1@{DIGEST}")
        );
    }

    #[test]
    fn what_names_no_image_is_refused() {
        for text in [
            "",
            ":",
            "a:",
            "A",
            "a//b",
            "a/../b",
            "../a",
            "a b",
            "a@sha256:1",
            "a@md5:1",
            "ex.org:port/a",
            "a:-1",
            "ex.org/",
            "a\n",
            "docker-archive:a.tar",
            "docker-daemon:",
            "docker-daemon:--help",
            "containers-storage:a b",
            "http://ex.org/a",
            "user:word@ex.org/a",
            "ex.org/a?b",
            "-a",
        ] {
            assert_eq!(text.parse::<Name>().unwrap_err().error, Code::ImageBadName, "{text:?}");
        }
        expect![[r#"Image.BadName: "Ubuntu" is no name of an image: a repository has lower case letters and digits, between them dots, dashes and underscores. Write it as registry/name:tag, registry/name@sha256:…, docker-archive:/file.tar, oci-archive:/file.tar, docker-daemon:name:tag or containers-storage:name:tag."#]].assert_eq(&"Ubuntu".parse::<Name>().unwrap_err().to_string());
    }
}
