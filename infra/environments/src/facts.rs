//! The facts about an image's Python, asked once for each image, in a sandbox without a network.
//!
//! It is kept in `environments/facts/{tree}.json`.

use crate::{
    digest,
    scratch::Scratch,
    tree::{SESSION, find_python, under},
    write_atomically,
};
use contract::{Code, Failure};
use sandbox::{Network, Sandbox, Word, control::Words, python::Python};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs, io, path::Path, process::Stdio, time::Duration};
use tokio::{io::AsyncReadExt, net::UnixStream};

/// The facts about an image's Python.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    python: Option<Python>,
    /// The folders of its packages.
    #[serde(default)]
    pub(crate) sites: Vec<String>,
    #[serde(default)]
    pub(crate) packages: Vec<(String, String)>,
    /// Modules of the standard library that a session needs and that it has not.
    #[serde(default)]
    lacks: Vec<String>,
    #[serde(default)]
    is_musl: bool,
}

/// Also runs on a Python that is too old, which then says so.
const ASK: &str = "import sys, json
def words():
    said, lacks = {}, []
    for name in 'ctypes importlib.metadata select socket struct sysconfig'.split():
        try:
            __import__(name)
        except ImportError:
            lacks.append(name)
    said['lacks'] = lacks
    import os, site
    version = sys.version.split()[0]
    executable = os.path.realpath(getattr(sys, '_base_executable', None) or sys.executable)
    tag, platform, soabi = 'none', 'none', ''
    if 'sysconfig' not in lacks:
        import sysconfig
        tag, platform, soabi = sys.implementation.cache_tag, sysconfig.get_platform(), sysconfig.get_config_var('SOABI') or ''
        soabi += sysconfig.get_config_var('HOST_GNU_TYPE') or ''
    said['is_musl'] = 'musl' in soabi
    said['python'] = {'executable': executable, 'version': version, 'platform': tag + '-' + platform, 'prefix': os.path.realpath(sys.base_prefix)}
    said['sites'] = [path for path in site.getsitepackages() if os.path.isdir(path)]
    if 'importlib.metadata' not in lacks:
        from importlib.metadata import distributions
        found = {}
        for each in distributions():
            name, version = each.metadata['Name'], each.version
            if name and version:
                found.setdefault(name, version)
        said['packages'] = sorted(found.items())
    return said
sys.stdout.write(json.dumps(words()))
";

/// The longest time that an image's Python may take to say what it has.
const FACTS_TIMEOUT: Duration = Duration::from_secs(120);

const MOST_SAID: u64 = 16 << 20;

/// The place where images are kept and asked.
pub(crate) struct Place<'a> {
    /// The state folder, which has the accounts.
    pub(crate) state: &'a Path,
    /// The folder of environments and images.
    pub(crate) store: &'a Path,
    /// The Python of this machine, which makes sandboxes.
    pub(crate) machine: &'a Python,
    pub(crate) runner: &'a Path,
    /// The user of builds on this machine.
    pub(crate) builder: Option<u32>,
}

/// The facts about an image's Python, asked once for each of its trees, in a sandbox without a
/// network.
pub(crate) async fn facts(
    place: &Place<'_>,
    name: &str,
    image: &images::Image,
    say: &dyn Fn(String),
) -> Result<Facts, Failure> {
    let key = image.tree.file_name().unwrap_or_default().to_string_lossy();
    // What is asked is part of it: another version of this program asks anew.
    let path = place
        .store
        .join(format!("environments/facts/{key}-{}.json", &digest(&[ASK])[..8]));
    if let Some(known) = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
        return Ok(known);
    }
    let facts = match find_python(&image.tree, &image.record.config) {
        None => Facts::default(),
        Some(program) => {
            say(format!("looking at the Python of {name}"));
            ask(place, image, program).await.map_err(|why| {
                Failure::new(
                    Code::ImageBadPython,
                    format!("The Python of the image {name} does not run in a sandbox: {why}. Name an image whose python3 runs."),
                )
            })?
        }
    };
    let text = serde_json::to_vec(&facts).unwrap_or_default();
    if let Err(error) = write_atomically(&path, &text) {
        tracing::warn!(%error, "what an image has cannot be kept");
    }
    Ok(facts)
}

/// The facts about the Python of the container that this process runs in: it is the image's, and
/// the container is the sandbox.
pub(crate) async fn facts_of_container(name: &str, python: &Python) -> Result<Facts, Failure> {
    let asked = async {
        let mut command = tokio::process::Command::new(&python.executable);
        command.args(["-I", "-c", ASK]).stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.map_err(|error| error.to_string())?;
        serde_json::from_slice(&output.stdout).map_err(|_| last_line(&output.stderr))
    };
    let asked = tokio::time::timeout(FACTS_TIMEOUT, asked).await;
    asked.unwrap_or_else(|_| Err("it takes too long".into())).map_err(|why| {
        Failure::new(
            Code::ImageBadPython,
            format!("The Python of the image {name} does not run in its container: {why}. Name an image whose python3 runs."),
        )
    })
}

/// The failure of a session whose image has no Python, and that needs one.
pub(crate) fn no_python(name: &str) -> Failure {
    let message = format!(
        "The image {name} has no python3 in its PATH, which flows and packages need; without them it runs commands. Name one that has, or \
         add Python to it."
    );
    Failure::new(Code::ImageNoPython, message)
}

/// The interpreter of an image, `None` if it has none; or why no session can have it.
pub(crate) fn usable(name: &str, facts: &Facts) -> Result<Option<Python>, Failure> {
    let refused = |code: Code, why: String| Err(Failure::new(code, format!("The image {name} {why}")));
    let Some(python) = &facts.python else {
        return Ok(None);
    };
    if facts.is_musl {
        return refused(
            Code::ImageMusl,
            "is built on musl (Alpine), for which most packages have no wheels. Name one that is built on glibc, such as Debian's \"slim\"."
                .into(),
        );
    }
    if !python.is_new_enough() {
        let why = format!(
            "has Python {}, and a session needs 3.9 or newer. Name one with a newer Python.",
            python.version
        );
        return refused(Code::ImageOldPython, why);
    }
    if !facts.lacks.is_empty() {
        let why = format!(
            "has a Python without {}. Install all of Python in it (on Debian: python3, not python3-minimal).",
            facts.lacks.join(", ")
        );
        return refused(Code::ImageBadPython, why);
    }
    Ok(Some(python.clone()))
}

/// Runs an image's Python in a sandbox, and takes in what it says.
async fn ask(place: &Place<'_>, image: &images::Image, program: String) -> Result<Facts, String> {
    let text = |error: io::Error| error.to_string();
    let scratch = Scratch::new(&place.store.join("environments")).map_err(text)?;
    let config = &image.record.config;
    let mut variables: BTreeMap<String, String> = config
        .env
        .iter()
        .filter_map(|each| each.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    variables.insert("HOME".into(), "/tmp".into());
    let tmp = scratch.0.join("tmp");
    fs::create_dir_all(&tmp).map_err(text)?;
    let mut sandbox = Sandbox {
        namespaces: true,
        user: place.builder,
        writes_as_root: true,
        root: place.store.join("tools/root"),
        network: Network::Host,
        // No sockets but those of its own.
        seccomp: sandbox::seccomp(false),
        image: Some(under(&image.tree, &scratch.0.join("root"), SESSION.0, SESSION.1, "").map_err(text)?),
        write: vec![(tmp, "/tmp".into())],
        variables,
        execute: vec![program, "-I".into(), "-c".into(), ASK.into()],
        cores: 1,
        ..Sandbox::default()
    };
    let (mut child, socket) = sandbox::start(
        place.machine,
        place.runner,
        &mut sandbox,
        Stdio::piped(),
        Stdio::piped(),
    )
    .map_err(text)?;
    socket.set_nonblocking(true).map_err(text)?;
    let mut words = Words::new(UnixStream::from_std(socket).map_err(text)?);
    let said = async {
        wait_for_close(&mut words).await?;
        let (stdout, stderr) = child.stdout.take().zip(child.stderr.take()).ok_or("no output")?;
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        let (mut stdout, mut stderr) = (stdout.take(MOST_SAID), stderr.take(MOST_SAID));
        let (read, _) = tokio::join!(stdout.read_to_end(&mut out), stderr.read_to_end(&mut errors));
        read.map_err(text)?;
        serde_json::from_slice(&out).map_err(|_| last_line(&errors))
    };
    tokio::time::timeout(FACTS_TIMEOUT, said)
        .await
        .map_err(|_| "it takes too long".to_owned())?
}

/// Waits until the sandbox is closed.
async fn wait_for_close(words: &mut Words) -> Result<(), String> {
    loop {
        let line = words.next().await.map_err(|error| error.to_string())?;
        match Word::read(&line.ok_or("it ended before it was closed")?) {
            Some(Word::Isolated(_)) => return Ok(()),
            Some(Word::Cannot(why) | Word::NoNetwork(why) | Word::Failed(why)) => return Err(why),
            None => {}
        }
    }
}

/// The last line of what a program wrote to standard error, cut to 300 characters.
fn last_line(errors: &[u8]) -> String {
    let errors = String::from_utf8_lossy(errors);
    let last = errors.trim().lines().last();
    last.unwrap_or("it says nothing that is known here")
        .chars()
        .take(300)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[test]
    fn what_no_session_can_have_of_an_image_is_refused_with_what_to_do() {
        let python = |version: &str| Python {
            executable: "/usr/bin/python3".into(),
            version: version.into(),
            platform: "p".into(),
            prefix: "/usr".into(),
        };
        let check =
            |facts: Facts, expected: Expect| expected.assert_eq(&usable("ex.org/a:1", &facts).unwrap_err().to_string());
        assert_eq!(usable("ex.org/a:1", &Facts::default()), Ok(None));
        expect!["Image.NoPython: The image ex.org/a:1 has no python3 in its PATH, which flows and packages need; without them it runs commands. Name one that has, or add Python to it."].assert_eq(&no_python("ex.org/a:1").to_string());
        let of = |version: &str| Facts {
            python: Some(python(version)),
            ..Facts::default()
        };
        check(
            of("3.8.10"),
            expect![
                "Image.OldPython: The image ex.org/a:1 has Python 3.8.10, and a session needs 3.9 or newer. Name one with a newer Python."
            ],
        );
        check(
            Facts {
                is_musl: true,
                ..of("3.12.1")
            },
            expect![[
                r#"Image.Musl: The image ex.org/a:1 is built on musl (Alpine), for which most packages have no wheels. Name one that is built on glibc, such as Debian's "slim"."#
            ]],
        );
        check(
            Facts {
                lacks: vec!["ctypes".into()],
                ..of("3.12.1")
            },
            expect![
                "Image.BadPython: The image ex.org/a:1 has a Python without ctypes. Install all of Python in it (on Debian: python3, not python3-minimal)."
            ],
        );
        assert!(usable("a", &of("3.9.0")).is_ok());
    }
}
