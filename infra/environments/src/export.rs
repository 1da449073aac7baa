//! The environment of a lock as a folder of a new image.

use crate::{facts::no_python, job::Say, lock::require_hashes, locked::Locked, scratch::Scratch, store::Store, words};
use contract::Failure;
use sandbox::Sandbox;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Makes a virtual environment, installs a lock into it, and compiles it. Compiled files hold no
/// time, and so are the same each time.
const SCRIPT: &str = r#"uv=$1 python=$2 place=$3 compile=$4; shift 4
"$uv" venv --quiet --allow-existing --python "$python" "$place" && "$uv" pip sync --python "$place/bin/python" "$@" && exec "$place/bin/python" -I -B -c "$compile" "$place""#;

const COMPILE: &str = "
import compileall, os, py_compile, sys
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
for folder, inner, names in os.walk(sys.argv[1]):
    inner.sort()
    for name in sorted(names):
        if name.endswith('.py'):
            compileall.compile_file(os.path.join(folder, name), quiet=2, force=True, invalidation_mode=mode)
";

/// Files at the top of a virtual environment that are the builder's own.
const LEFT_OUT: [&str; 3] = [".lock", ".gitignore", "CACHEDIR.TAG"];

/// An environment for an image; its files are there as long as this lives.
pub struct Exported {
    folder: Scratch,
    /// The path in the image. Its content decides the name, so that an image can be the base of
    /// another.
    pub at: PathBuf,
}

impl Exported {
    /// The files of the environment.
    pub fn folder(&self) -> PathBuf {
        self.folder.0.join("env")
    }
}

impl Store {
    /// Installs a lock for an image whose base is the root of this store.
    ///
    /// * `lines`: the requirements as they are now, for the indexes that they name.
    /// * `log`: where the whole output is, for messages.
    ///
    /// # Errors
    ///
    /// `Install.*`, and `Image.NoPython`, each of which says what to do.
    pub async fn export(
        &self,
        locked: &Locked,
        lines: &[flow::Line],
        say: Say<'_>,
        log: &str,
    ) -> Result<Exported, Failure> {
        let io = |error| self.index.failure(error);
        let lock = locked.hashed.clone() + &locked.bare.iter().map(|line| format!("{line}\n")).collect::<String>();
        let (digest, name) = self
            .root
            .as_ref()
            .map(|root| (&*root.digest, &*root.name))
            .unwrap_or_default();
        if !self.root.as_ref().is_some_and(crate::rooted::Root::has_python) {
            return Err(no_python(name));
        }
        let key = crate::digest(&[digest, &lock]);
        let exported = Exported {
            folder: Scratch::new(&self.index.path("")).map_err(io)?,
            at: Path::new("/opt/pfsession").join(&key[..12]),
        };
        let (folder, list) = (exported.folder(), exported.folder.0.join("lock.txt"));
        self.prepare_export(&folder, &list, &lock).map_err(io)?;
        let job = self.job(lines, say, log, false).await?;
        let text = |path: &Path| path.display().to_string();
        let mut execute = words(&["/bin/sh", "-c", SCRIPT, "sh", &text(&job.uv)]);
        execute.extend([text(&self.python.executable), text(&exported.at), COMPILE.into()]);
        execute.extend(require_hashes(&lock));
        if lock.is_empty() {
            execute.extend(words(&["--allow-empty-requirements"]));
        }
        execute.extend(job.sources.installing());
        execute.push(text(&list));
        let mut sandbox = Sandbox {
            execute,
            ..self.sandbox(&job)
        };
        sandbox.read.push(list);
        sandbox.write.push((folder.clone(), exported.at.clone()));
        self.run(sandbox, &job).await?;
        for name in LEFT_OUT {
            let _ = fs::remove_file(folder.join(name));
        }
        Ok(exported)
    }

    fn prepare_export(&self, folder: &Path, list: &Path, lock: &str) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(list, lock)?;
        match &self.root {
            Some(root) => self.see_root(root, folder),
            None => Ok(()),
        }
    }
}
