//! Resolves requirements to a lock with hashes.

use crate::{
    built::read_lock,
    job::Job,
    lock::{self, AskedBy, pins},
    scratch::Scratch,
    sources,
    store::Store,
    words,
};
use contract::{Code, Failure, agent::LineKind};
use lifecycle::count;
use sandbox::Sandbox;
use std::fs;

/// The inputs of a resolution.
pub(crate) enum Over<'a> {
    /// The base image itself is resolved, over what its root has.
    Root(&'a str),
    /// The versions of this lock are kept; the requirements alone are resolved.
    Held(&'a str),
    /// The versions of this lock are taken where they can be; those of the base image's own
    /// packages are kept.
    Preferred(&'a str),
}

impl Store {
    /// Resolves the requirements to a lock with hashes.
    pub(crate) async fn resolve(&self, job: &Job<'_>, over: &Over<'_>) -> Result<(String, AskedBy), Failure> {
        let io = |error| self.index.failure(error);
        let folder = Scratch::new(&self.index.path("")).map_err(io)?;
        let file = |name: &str| folder.0.join(name).display().to_string();
        let (input, limits, lock) = (file("requirements.txt"), file("constraints.txt"), file("lock.txt"));
        let (wanted, constraints) = self.requirements_and_constraints(job, over)?;
        // The plain base image has nothing in it.
        if wanted.is_empty() {
            return Ok((String::new(), AskedBy::default()));
        }
        (job.say)(
            LineKind::Stage,
            format!("resolving {}", count(wanted.len(), "requirement")),
        );
        let prepare = || {
            fs::write(&input, wanted.join("\n") + "\n")?;
            fs::write(&limits, constraints.join("\n") + "\n")?;
            if let Over::Preferred(base) = over {
                fs::write(&lock, base)
            } else {
                Ok(())
            }
        };
        prepare().map_err(io)?;
        let mut execute = vec![job.uv.display().to_string()];
        execute.extend(words(&["pip", "compile", "--generate-hashes", "--no-header"]));
        execute.extend(words(&["--annotation-style", "line", "--output-file", &lock]));
        execute.extend(words(&["--python", &self.python.executable.display().to_string()]));
        if !constraints.is_empty() {
            execute.extend(words(&["--constraint", &limits]));
        }
        execute.extend(job.sources.resolving());
        execute.push(input);
        let mut sandbox = Sandbox {
            execute,
            ..self.sandbox(job)
        };
        sandbox.write.push((folder.0.clone(), folder.0.clone()));
        self.run(sandbox, job).await?;
        let annotated = read_lock(&folder.0)?;
        let (lock, asked_by) = lock::without_annotations(&annotated);
        let lock = lock::with_own_hashes(&lock, job.lines).map_err(|line| {
            Failure::new(
                Code::InstallHashMismatch,
                format!(
                    "{}:{}: no file of the index has a hash that this line promises. Do not trust it; see where the index has it from.",
                    line.file, line.number
                ),
            )
        })?;
        if job.sources.requires_hashes() {
            let (Over::Root(base) | Over::Held(base) | Over::Preferred(base)) = over;
            require_own_hashes(&lock, base, job.lines)?;
        }
        Ok((lock, asked_by))
    }

    /// The packages to resolve, and what their versions must meet.
    fn requirements_and_constraints(
        &self,
        job: &Job<'_>,
        over: &Over<'_>,
    ) -> Result<(Vec<String>, Vec<String>), Failure> {
        let own = |constraint: bool| {
            let lines = job
                .lines
                .iter()
                .filter(move |line| line.constraint == constraint && !line.text.starts_with('-'));
            lines.map(sources::requirement).collect::<Result<Vec<_>, _>>()
        };
        let (mut wanted, mut constraints) = (own(false)?, own(true)?);
        match over {
            Over::Root(root) => {
                wanted.extend(self.base_packages());
                constraints.extend(pins(root));
            }
            Over::Preferred(_) => wanted.extend(self.base_packages()),
            Over::Held(base) => constraints.extend(pins(base)),
        }
        if let (Over::Preferred(base), Some(family)) = (over, self.base.family) {
            constraints.extend(pins(base).into_iter().filter(|pin| pin.starts_with(family)));
        }
        Ok((wanted, constraints))
    }
}

/// Refuses a lock that adds packages to its base for which no line has a hash.
///
/// # Source
///
/// pip's *Secure installs*: `--require-hashes` wants them for dependencies too.
fn require_own_hashes(lock: &str, base: &str, lines: &[flow::Line]) -> Result<(), Failure> {
    let Some((name, version)) = lock::without_promise(&lock::blocks_not_in(base, lock), lines) else {
        return Ok(());
    };
    let named = |line: &&flow::Line| line.option().is_none() && lock::name_of(&line.text).as_deref() == Some(&*name);
    let option = |line: &&flow::Line| line.option().is_some_and(|(option, _)| option == "--require-hashes");
    let line = lines.iter().find(named).or_else(|| lines.iter().find(option));
    let place = line
        .map(|line| format!("{}:{}: ", line.file, line.number))
        .unwrap_or_default();
    Err(Failure::new(
        Code::InstallBadRequirement,
        format!(
            "{place}--require-hashes wants a hash for each package, and {name} has none. Write `{name}=={version} --hash=sha256:HASH`, as \
             `uv pip compile --generate-hashes` writes it for all, or take --require-hashes out."
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_require_hashes_each_added_package_has_one_in_a_line() {
        let line = |number: usize, text: &str| lock::tests::line(number, text, false);
        let lock = "a==1 \\\n    --hash=sha256:00\nb==2 \\\n    --hash=sha256:11\nc==3\n";
        let mut lines = vec![line(1, "--require-hashes"), line(2, "a==1 --hash=sha256:00")];
        expect_test::expect!["Install.BadRequirement: requirements.txt:1: --require-hashes wants a hash for each package, and b has none. Write `b==2 --hash=sha256:HASH`, as `uv pip compile --generate-hashes` writes it for all, or take --require-hashes out."]
            .assert_eq(&require_own_hashes(lock, "c==3\n", &lines).unwrap_err().to_string());
        lines.push(line(3, "B"));
        let failure = require_own_hashes(lock, "c==3\n", &lines).unwrap_err();
        assert!(failure.message.starts_with("requirements.txt:3: "), "{failure}");
        lines.push(line(4, "b==2 --hash=sha256:11"));
        assert_eq!(require_own_hashes(lock, "c==3\n", &lines), Ok(()));
    }
}
