//! Images of the Docker or podman of this machine, had by its own program.

use crate::{digest::is_digest, failure, io as wrong};
use contract::{Code, Failure};
use std::{
    path::Path,
    process::{Command, Stdio},
};

/// The environment variables that say where Docker and podman have their settings and images.
pub const VARIABLES: [&str; 11] = [
    "DOCKER_CERT_PATH",
    "DOCKER_CONFIG",
    "DOCKER_CONTEXT",
    "DOCKER_HOST",
    "DOCKER_TLS_VERIFY",
    "CONTAINERS_CONF",
    "CONTAINERS_STORAGE_CONF",
    "CONTAINER_HOST",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
];

/// A container engine of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Docker,
    Podman,
}

impl Engine {
    pub(crate) const ALL: [Self; 2] = [Self::Docker, Self::Podman];

    /// The transport in a name of an image.
    ///
    /// # Source
    ///
    /// skopeo's `docker-daemon:` and `containers-storage:`.
    pub(crate) fn transport(self) -> &'static str {
        match self {
            Self::Docker => "docker-daemon",
            Self::Podman => "containers-storage",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// Its id of an image, as a digest: that of the image's configuration, or of its manifest.
    ///
    /// # Errors
    ///
    /// `Image.NotFound` (final), `Image.Unreachable` (retry) if the engine does not answer.
    pub(crate) fn id(self, image: &str) -> Result<String, Failure> {
        let answer = self.run(image, &["image", "inspect", "--format", "{{.Id}}", image])?;
        let id = answer.trim();
        let digest = match id.starts_with("sha256:") {
            true => id.to_owned(),
            false => format!("sha256:{id}"),
        };
        match is_digest(&digest) {
            true => Ok(digest),
            false => Err(self.failed(image, "its answer is no id of an image")),
        }
    }

    /// Writes the image of an id to an archive, alone: by a name without a tag, Docker writes all
    /// images of that name.
    ///
    /// # Errors
    ///
    /// As [`Engine::id`].
    pub(crate) fn save(self, image: &str, id: &str, archive: &Path) -> Result<(), Failure> {
        let file = archive.to_string_lossy();
        let id = id.trim_start_matches("sha256:");
        self.run(image, &["image", "save", "--output", &file, id]).map(drop)
    }

    fn run(self, image: &str, arguments: &[&str]) -> Result<String, Failure> {
        let run = Command::new(self.program())
            .args(arguments)
            .stdin(Stdio::null())
            .output();
        let output = run.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => failure(
                Code::ImageUnreachable,
                format!(
                    "The image {}:{image} cannot be had: there is no program {} on the PATH of the service. Install it, or name the image \
                     of a registry or an archive.",
                    self.transport(),
                    self.program()
                ),
            ),
            _ => wrong(Path::new(self.program()), error),
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said
            .lines()
            .rfind(|line| !line.trim().is_empty())
            .unwrap_or_default()
            .trim();
        let lower = said.to_lowercase();
        if ["no such image", "image not known"]
            .iter()
            .any(|known| lower.contains(known))
        {
            return Err(failure(
                Code::ImageNotFound,
                format!(
                    "{} has no image {image}. See which there are: {} image ls.",
                    self.program(),
                    self.program()
                ),
            ));
        }
        Err(self.failed(image, last))
    }

    pub(crate) fn failed(self, image: &str, why: &str) -> Failure {
        failure(
            Code::ImageUnreachable,
            format!(
                "{} does not give the image {image}: {why}. Look at it by `{} image inspect {image}`, as the user of the service.",
                self.program(),
                self.program()
            ),
        )
    }
}
