//! Installs a lock: a whole environment, or a layer over its base image.

use crate::{
    built::{bad_build, make_read_only, new_pth_files},
    index::{Environment, now},
    job::Job,
    lock::{blocks_not_in, changes, pins, require_hashes},
    pip::add_uv,
    rooted::Root,
    store::Store,
    words,
};
use contract::{Failure, agent::LineKind};
use lifecycle::count;
use sandbox::{Overlay, Sandbox, files::write_atomically, removal::remove};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Compiles what is newer than a time, in seconds since 1970; several at once if it is much.
const COMPILE: &str = r#"
import compileall, os, sys
from concurrent.futures import ProcessPoolExecutor
site, since = sys.argv[1], int(sys.argv[2])
def compile(path):
    return compileall.compile_file(path, quiet=2)
files = [os.path.join(folder, name) for folder, _, names in os.walk(site) for name in names if name.endswith('.py')]
files = [path for path in files if os.stat(path).st_ctime >= since]
if len(files) > 200:
    with ProcessPoolExecutor() as pool:
        list(pool.map(compile, files, chunksize=50))
else:
    list(map(compile, files))
"#;

impl Store {
    /// Builds a whole environment at its place.
    pub(crate) async fn build_whole(
        &self,
        job: &Job<'_>,
        environment: &Environment,
        lock: &str,
    ) -> Result<(), Failure> {
        let place = self.index.path(&environment.key);
        remove(&place)
            .and_then(|()| fs::create_dir_all(&place))
            .map_err(|error| self.index.failure(error))?;
        self.add_pip(&place).map_err(|error| self.index.failure(error))?;
        let mut lock_path = self.index.write_lock(&environment.key, lock)?;
        let mut lock = lock.to_owned();
        if let Some(root) = &self.root {
            lock = blocks_not_in(&root.lock(), &lock);
            lock_path = self.index.path(&format!("{}.added.txt", environment.key));
            self.see_root(root, &place)
                .and_then(|()| write_atomically(&lock_path, lock.as_bytes()))
                .map_err(|error| self.index.failure(error))?;
        }
        let lock = lock.as_str();
        let sandbox = self.whole_sandbox(job, &place, lock, lock_path);
        (job.say)(
            LineKind::Stage,
            format!("installing {}", count(pins(lock).len(), "package")),
        );
        self.run(sandbox, job).await?;
        make_read_only(&place, None).await.map_err(bad_build)?;
        add_uv(&place, &job.uv).map_err(bad_build)?;
        let is_base = environment.base == environment.key;
        if !is_base || self.root.is_some() {
            let base = if is_base {
                self.root_lock()
            } else {
                self.index.lock_of(&environment.base)?
            };
            let changed = changes(&base, lock);
            self.check_imports(job, &place, &[], &changed).await?;
        }
        self.index.mark(environment)
    }

    /// The sandbox in which uv makes a virtual environment and installs a lock.
    fn whole_sandbox(&self, job: &Job<'_>, place: &Path, lock: &str, lock_path: PathBuf) -> Sandbox {
        const SCRIPT: &str = r#"uv=$1 python=$2 place=$3; shift 3
            "$uv" venv --quiet --allow-existing --python "$python" "$place" && exec "$uv" pip sync --python "$place/bin/python" "$@""#;
        let mut execute = words(&["/bin/sh", "-c", SCRIPT, "sh", &job.uv.display().to_string()]);
        execute.extend([
            self.python.executable.display().to_string(),
            place.display().to_string(),
        ]);
        execute.extend(words(&["--compile-bytecode"]));
        execute.extend(require_hashes(lock));
        if lock.is_empty() {
            execute.extend(words(&["--allow-empty-requirements"]));
        }
        execute.extend(job.sources.installing());
        execute.push(lock_path.display().to_string());
        let mut sandbox = Sandbox {
            execute,
            ..self.sandbox(job)
        };
        sandbox.read.push(lock_path);
        sandbox.write.push((place.to_owned(), place.to_owned()));
        sandbox
    }

    /// Has an environment see the packages of the root's own Python, behind its own.
    pub(crate) fn see_root(&self, root: &Root, place: &Path) -> io::Result<()> {
        let site = place.join(self.python.site_packages());
        fs::create_dir_all(&site)?;
        let lines = root.facts.sites.iter().map(|folder| {
            let folder = serde_json::to_string(folder)?;
            Ok(format!("import site; site.addsitedir({folder})\n"))
        });
        let lines: String = lines.collect::<io::Result<_>>()?;
        fs::write(site.join("pfsession_image.pth"), lines)
    }

    /// Builds what an environment adds to its base, as a layer over it.
    ///
    /// * `added`: the part of the lock that the base has not, if it has all the rest.
    pub(crate) async fn build_layer(
        &self,
        job: &Job<'_>,
        environment: &mut Environment,
        lock: &str,
        added: Option<&str>,
    ) -> Result<(), Failure> {
        let io = |error| self.index.failure(error);
        let layer = Layer {
            place: self.index.path(&environment.key),
            partial: self.index.path(&format!("{}.partial", environment.key)),
            below: self.seen_at(environment),
        };
        layer.prepare(added.unwrap_or(lock)).map_err(io)?;
        self.index.write_lock(&environment.key, lock)?;
        let sandbox = self.layer_sandbox(job, &layer, lock, added);
        let changed = changes(&self.index.lock_of(&environment.base)?, lock);
        (job.say)(
            LineKind::Stage,
            format!("installing {}", count(changed.len(), "package")),
        );
        self.run(sandbox, job).await?;
        let site = self.python.site_packages();
        let (upper, below) = (layer.upper(), &layer.below);
        environment.pth = new_pth_files(&upper, &site, &below.join(&site)).map_err(bad_build)?;
        let shadows = make_read_only(&upper, Some(below)).await.map_err(bad_build)?;
        // What only adds files leaves what the base imports as it was.
        if shadows || !environment.pure {
            self.check_imports(job, below, std::slice::from_ref(&upper), &changed)
                .await?;
        }
        layer.finish().map_err(io)?;
        self.index.mark(environment)
    }

    /// The sandbox in which uv installs the packages of a layer, and Python compiles them.
    fn layer_sandbox(&self, job: &Job<'_>, layer: &Layer, lock: &str, added: Option<&str>) -> Sandbox {
        const SCRIPT: &str = r#"uv=$1 python=$2 site=$3 since=$4 compile=$5; shift 5
            "$uv" pip "$@" && exec "$python" -I -c "$compile" "$site" "$since""#;
        let (overlaid, below, upper) = (self.namespaces.get(), &layer.below, layer.upper());
        let text = |path: &Path| path.display().to_string();
        let python = text(&below.join("bin/python"));
        let compiled = if overlaid { below } else { &upper };
        let mut execute = words(&["/bin/sh", "-c", SCRIPT, "sh", &text(&job.uv), &python]);
        execute.push(text(&compiled.join(self.python.site_packages())));
        execute.extend(words(&[&now().to_string(), COMPILE]));
        execute.extend(match added {
            Some(_) => words(&["install", "--no-deps", "--requirement"]),
            None => words(&["sync"]),
        });
        execute.push(text(&layer.list()));
        if !overlaid {
            execute.extend(words(&["--prefix", &text(&upper)]));
        }
        execute.extend(words(&["--python", &python]));
        execute.extend(require_hashes(added.unwrap_or(lock)));
        execute.extend(job.sources.installing());
        let overlay = Overlay {
            lower: vec![below.clone()],
            upper: upper.clone(),
            work: layer.work(),
            at: vec![below.clone()],
        };
        let mut sandbox = Sandbox {
            execute,
            overlay: Some(overlay).filter(|_| overlaid),
            ..self.sandbox(job)
        };
        sandbox.read.push(layer.list());
        if !overlaid {
            sandbox.read.push(below.clone());
            sandbox.write.push((upper.clone(), upper));
        }
        sandbox
    }
}

/// A layer while it is built.
struct Layer {
    /// The final folder.
    place: PathBuf,
    /// The folder until it is complete.
    partial: PathBuf,
    /// The environment that it lies over.
    below: PathBuf,
}

impl Layer {
    fn upper(&self) -> PathBuf {
        self.partial.join("upper")
    }

    fn work(&self) -> PathBuf {
        self.partial.join("work")
    }

    /// The lock that uv reads.
    fn list(&self) -> PathBuf {
        self.partial.join("install.txt")
    }

    fn prepare(&self, list: &str) -> io::Result<()> {
        remove(&self.partial)?;
        remove(&self.place)?;
        fs::create_dir_all(self.upper())?;
        fs::create_dir_all(self.work())?;
        fs::write(self.list(), list)
    }

    fn finish(&self) -> io::Result<()> {
        fs::rename(self.upper(), &self.place)?;
        remove(&self.partial)
    }
}
