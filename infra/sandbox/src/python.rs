//! The Python that this machine has.

use contract::{Code, Failure};
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The interpreter that environments are built on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Python {
    /// The real program, not a shim.
    pub executable: PathBuf,
    /// `3.11.7`.
    pub version: String,
    /// The platform of compiled packages: interpreter, system, machine.
    pub platform: String,
    /// The folder in which it is installed.
    pub prefix: PathBuf,
}

/// The oldest that promptflow runs on.
const OLDEST: (u32, u32) = (3, 9);

/// The newest that is looked for by its name.
const NEWEST: u32 = 14;

const ASK: &str = "import sys, sysconfig, json, os
executable = os.path.realpath(getattr(sys, '_base_executable', None) or sys.executable)
print(json.dumps({'executable': executable, 'version': sys.version.split()[0],
'platform': sys.implementation.cache_tag + '-' + sysconfig.get_platform(), 'prefix': os.path.realpath(sys.base_prefix)}))";

impl Python {
    /// Finds the Python of `PFSESSION_PYTHON`, else the first on PATH that is new enough.
    ///
    /// # Errors
    ///
    /// `Install.PythonMissing`. Final until somebody installs it.
    pub fn find() -> Result<Self, Failure> {
        let named = std::env::var_os("PFSESSION_PYTHON").map(PathBuf::from);
        let candidates = match &named {
            Some(path) => vec![path.clone()],
            None => [
                "python3",
                "python",
                "python3.13",
                "python3.12",
                "python3.11",
                "python3.10",
                "python3.9",
            ]
            .map(PathBuf::from)
            .to_vec(),
        };
        let mut old = None;
        for candidate in &candidates {
            match Self::ask(candidate) {
                Some(python) if python.is_new_enough() => return Ok(python),
                Some(python) => old = old.or(Some(python)),
                None => {}
            }
        }
        let (major, minor) = OLDEST;
        let there = match (old, named) {
            (Some(old), _) => format!("{} is Python {}", old.executable.display(), old.version),
            (None, Some(path)) => format!(
                "PFSESSION_PYTHON names {}, which does not run as Python",
                path.display()
            ),
            (None, None) => "there is no python3 on PATH".to_owned(),
        };
        Err(Failure::new(
            Code::InstallPythonMissing,
            format!(
                "Flows need Python {major}.{minor} or newer, and {there}. Install it (on Debian and Ubuntu: apt install python3), or name one in \
                 PFSESSION_PYTHON."
            ),
        ))
    }

    /// All that are new enough, one of each minor version: that of `PFSESSION_PYTHON` and what is
    /// first on PATH before others.
    pub fn all() -> Vec<Self> {
        let named = std::env::var_os("PFSESSION_PYTHON").map(PathBuf::from);
        let mut all: Vec<Self> = Vec::new();
        let numbered = (OLDEST.1..=NEWEST)
            .rev()
            .map(|minor| PathBuf::from(format!("python3.{minor}")));
        let candidates = named
            .into_iter()
            .chain(["python3", "python"].map(PathBuf::from))
            .chain(numbered);
        // A pyenv's shim takes its time.
        let asked = std::thread::scope(|scope| {
            let asking: Vec<_> = candidates
                .map(|candidate| scope.spawn(move || Self::ask(&candidate)))
                .collect();
            asking
                .into_iter()
                .map(|each| each.join().ok().flatten())
                .collect::<Vec<_>>()
        });
        for python in asked.into_iter().flatten() {
            if python.is_new_enough() && !all.iter().any(|known| known.minor() == python.minor()) {
                all.push(python);
            }
        }
        all
    }

    /// `3.11`.
    pub fn minor(&self) -> String {
        self.version.split('.').take(2).collect::<Vec<_>>().join(".")
    }

    fn ask(program: &Path) -> Option<Self> {
        let mut command = Command::new(program);
        command
            .args(["-I", "-S", "-c", ASK])
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let answer = crate::descriptors::keep_only(&mut command, &[]).output().ok()?;
        serde_json::from_slice(&answer.stdout).ok()
    }

    /// Whether promptflow runs on it.
    pub fn is_new_enough(&self) -> bool {
        let mut parts = self.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        version >= OLDEST && version.0 == OLDEST.0
    }

    /// `lib/python3.11/site-packages`, below an environment.
    pub fn site_packages(&self) -> PathBuf {
        PathBuf::from(format!("lib/python{}/site-packages", self.minor()))
    }
}
