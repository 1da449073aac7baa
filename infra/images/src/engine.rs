//! Images of the Docker or podman of this machine, had by its own program.

use crate::{
    digest::is_digest,
    failure, io as wrong,
    program::{self, Ended, Fault},
};
use contract::{Code, Failure};
use std::{fs::File, io::Write, path::Path, process::Command, time::Duration};

/// The longest time that an engine may take to say which image it has.
const ANSWER: Duration = Duration::from_secs(30);
/// The longest time that an engine may write nothing of an image. Docker has each layer in a
/// folder of its own before its first byte.
const NEXT_BYTES: Duration = Duration::from_secs(300);

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
        let mut answer = Vec::new();
        let arguments = ["image", "inspect", "--format", "{{.Id}}", image];
        self.run(image, &arguments, ANSWER, (&mut answer, Path::new("")))?;
        let answer = String::from_utf8_lossy(&answer);
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
    /// images of that name. The engine's own `--output` would not tell how far it is.
    ///
    /// # Errors
    ///
    /// As [`Engine::id`]; `Image.DiskFull`.
    pub(crate) fn save(self, image: &str, id: &str, archive: &Path) -> Result<(), Failure> {
        let mut file = File::create(archive).map_err(|error| wrong(archive, error))?;
        let id = id.trim_start_matches("sha256:");
        self.run(image, &["image", "save", id], NEXT_BYTES, (&mut file, archive))
    }

    fn run(
        self,
        image: &str,
        arguments: &[&str],
        silence: Duration,
        (sink, place): (&mut dyn Write, &Path),
    ) -> Result<(), Failure> {
        let mut command = Command::new(self.program());
        match program::run(command.args(arguments), b"", silence, sink) {
            Ok(ended) if ended.status.success() => Ok(()),
            Ok(ended) => Err(self.refused(image, &ended)),
            Err(Fault::Sink(error)) => Err(wrong(place, error)),
            Err(Fault::Silent) => Err(self.silent(image, silence)),
            Err(Fault::Program(error)) if error.kind() == std::io::ErrorKind::NotFound => Err(failure(
                Code::ImageUnreachable,
                format!(
                    "The image {}:{image} cannot be had: there is no program {} on the PATH of the service. Install it, or name the image \
                     of a registry or an archive.",
                    self.transport(),
                    self.program()
                ),
            )),
            Err(Fault::Program(error)) => Err(wrong(Path::new(self.program()), error)),
        }
    }

    fn silent(self, image: &str, silence: Duration) -> Failure {
        let program = self.program();
        failure(
            Code::ImageUnreachable,
            format!(
                "{program} does not give the image {image}: it wrote nothing for {} s, and was ended. See by `{program} info` that it \
                 answers, and pull again, or write an archive: {program} image save --output FILE {image}",
                silence.as_secs()
            ),
        )
    }

    fn refused(self, image: &str, ended: &Ended) -> Failure {
        let said = &ended.error;
        let last = said
            .lines()
            .rfind(|line| !line.trim().is_empty())
            .unwrap_or_default()
            .trim();
        let lower = said.to_lowercase();
        let is_unknown = ["no such image", "image not known"]
            .iter()
            .any(|known| lower.contains(known));
        if is_unknown {
            let program = self.program();
            let message = format!("{program} has no image {image}. See which there are: {program} image ls.");
            return failure(Code::ImageNotFound, message);
        }
        self.failed(image, last)
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

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn an_engine_that_is_silent_says_so_and_what_to_do() {
        expect!["Image.Unreachable: docker does not give the image a:1: it wrote nothing for 300 s, and was ended. See by `docker info` that it answers, and pull again, or write an archive: docker image save --output FILE a:1"]
            .assert_eq(&Engine::Docker.silent("a:1", NEXT_BYTES).to_string());
    }
}
