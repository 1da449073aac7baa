//! An OCI image as the root of a session's sandboxes and of the builds for it.
//!
//! | path below the store | content |
//! | --- | --- |
//! | `images/` | see [`images`] |
//! | `environments/facts/{tree}.json` | [`Facts`]: which Python an image has, and which packages |

use crate::{digest, image, packages, write_atomically};
use contract::Failure;
use images::{Config, Name, Step, accounts::Accounts};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use sandbox::{Network, Sandbox, Word, control::Words, python::Python};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs, io,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Mutex,
    time::{Duration, Instant},
};
use tokio::{io::AsyncReadExt, net::UnixStream};

/// An image that a store's sessions have.
pub struct Root {
    /// The name that the settings have for it.
    pub name: String,
    /// What the name was resolved to.
    pub digest: String,
    config: Config,
    tree: PathBuf,
    pub(crate) facts: Facts,
    /// Its interpreter, as environments are built on it.
    pub(crate) python: Python,
    uid: u32,
    user: String,
    _held: images::Held,
}

/// What an image has of Python.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    python: Option<Python>,
    /// Where its packages are.
    #[serde(default)]
    pub(crate) sites: Vec<String>,
    #[serde(default)]
    packages: Vec<(String, String)>,
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

/// What a session on an image does not have of it.
pub const NOT_HELD: &str = "owners of the image's files, which are all the session's";

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long an image's Python may take to say what it has.
const PATIENCE: Duration = Duration::from_secs(120);
const MOST_SAID: u64 = 16 << 20;
/// The id of a session inside, where its image names none, or root.
const SESSION: (u32, &str) = (1000, "session");

/// What is needed to have an image.
pub(crate) struct Place<'a> {
    /// The state folder, which has the accounts.
    pub(crate) state: &'a Path,
    /// Where environments and images are.
    pub(crate) store: &'a Path,
    /// The Python of this machine, which makes sandboxes.
    pub(crate) machine: &'a Python,
    pub(crate) runner: &'a Path,
    /// Who builds are on this machine.
    pub(crate) builder: Option<u32>,
}

/// Whether a session on this image need not wait for a download.
pub fn is_here(store: &Path, name: &Name) -> bool {
    let images = images::Store::open(store).ok();
    images.is_some_and(|images| images.known(name).is_some_and(|digest| images.find(&digest).is_some()))
}

/// Checks that a base image can be had: that there is one of this name, and that it may be pulled. Nothing is pulled.
///
/// * `store`: where environments and images are; `python`: the Python of this machine.
///
/// # Errors
///
/// `Image.*`, `Install.NoSuchImage`, `Install.PythonMissing`, each of which says what to do.
pub fn check(state: &Path, store: &Path, image: &str, python: Option<Python>) -> Result<(), Failure> {
    let image::Found::Image(name) = image::find(image, python)? else {
        return Ok(());
    };
    let images = images::Store::open(store).map_err(|error| unusable(store, &error))?;
    images.latest(&name, &Accounts::of(state)).map(|_| ())
}

/// Looks what the name of an image stands for now; `None` if it always means the same.
///
/// # Errors
///
/// `Image.*`: why that is not known now.
pub fn look(state: &Path, name: &str) -> Result<Option<String>, Failure> {
    images::Store::look(&name.parse()?, &Accounts::of(state))
}

fn unusable(store: &Path, error: &io::Error) -> Failure {
    let store = store.display();
    Failure::new(
        "Image.Failed",
        format!("{store} cannot be used: {error}. Put that right, and start again."),
    )
}

impl Root {
    /// Has an image, as its name is resolved now, and learns what it has of Python.
    ///
    /// # Errors
    ///
    /// `Image.*`, each of which says what to do.
    pub(crate) async fn have(place: &Place<'_>, name: &Name, say: &dyn Fn(String)) -> Result<Self, Failure> {
        let wrong = |error: io::Error| unusable(place.store, &error);
        let images = images::Store::open(place.store).map_err(wrong)?;
        let image = pull(&images, name, Accounts::of(place.state), say).await?;
        let held = images.hold(&image.record.digest).map_err(wrong)?;
        let shown = name.pinned(&image.record.digest);
        let facts = facts(place, &shown, &image, say).await?;
        let python = usable(&shown, &facts)?;
        let (uid, user) = user(&image.tree, &image.record.config.user);
        Ok(Self {
            name: name.to_string(),
            digest: image.record.digest,
            config: image.record.config,
            tree: image.tree,
            facts,
            python,
            uid,
            user,
            _held: held,
        })
    }

    /// Which image it is, for all time.
    pub(crate) fn key(&self) -> String {
        self.tree.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Its part of a sandbox.
    ///
    /// * `layer`: a folder for what the sandbox writes over it; made here.
    pub fn under(&self, layer: &Path) -> io::Result<sandbox::Image> {
        under(&self.tree, layer, self.uid, &self.user, &self.config.workdir)
    }

    /// Puts the image's variables below those of a block, and its PATH behind the first folder of the block's.
    pub fn add_variables(&self, block: &mut BTreeMap<String, String>) {
        // What places a session's files, and Python's own, is not the image's to say.
        const OURS: [&str; 6] = ["HOME", "PATH", "PYTHONHOME", "PYTHONPATH", "TMPDIR", "VIRTUAL_ENV"];
        let first = block
            .get("PATH")
            .and_then(|path| path.split(':').next())
            .unwrap_or_default();
        let path = format!("{first}:{}", path(&self.config));
        for (name, value) in self.config.env.iter().filter_map(|each| each.split_once('=')) {
            let is_locale = name == "LANG";
            if is_locale || !name.is_empty() && !OURS.contains(&name) && !block.contains_key(name) {
                block.insert(name.to_owned(), value.to_owned());
            }
        }
        block.insert("PATH".into(), path);
        for name in ["USER", "LOGNAME"] {
            block.insert(name.into(), self.user.clone());
        }
    }

    pub(crate) fn path(&self) -> &str {
        path(&self.config)
    }

    /// Its packages as the lines of a lock. What no index could have is left out: it would be no constraint.
    pub(crate) fn lock(&self) -> String {
        let all: BTreeMap<String, &String> = self
            .facts
            .packages
            .iter()
            .filter(|(name, version)| is_name(name) && is_version(version))
            .map(|(name, version)| (packages::normalized(name), version))
            .collect();
        all.into_iter()
            .map(|(name, version)| format!("{name}=={version}\n"))
            .collect()
    }

    /// Whether it has a package.
    pub(crate) fn has(&self, package: &str) -> bool {
        let wanted = packages::normalized(package);
        self.facts
            .packages
            .iter()
            .any(|(name, _)| packages::normalized(name) == wanted)
    }
}

fn under(tree: &Path, layer: &Path, uid: u32, name: &str, workdir: &str) -> io::Result<sandbox::Image> {
    let (upper, work) = (layer.join("upper"), layer.join("work"));
    fs::create_dir_all(&upper)?;
    fs::create_dir_all(&work)?;
    // It is the root folder of the sandbox.
    fs::set_permissions(&upper, fs::Permissions::from_mode(0o755))?;
    Ok(sandbox::Image {
        tree: tree.to_owned(),
        upper,
        work,
        uid,
        name: name.to_owned(),
        workdir: workdir.to_owned(),
    })
}

/// Pulls in a thread, and tells how far it is.
async fn pull(
    images: &images::Store,
    name: &Name,
    accounts: Accounts,
    say: &dyn Fn(String),
) -> Result<images::Image, Failure> {
    let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
    let (images, wanted) = (images.clone(), name.clone());
    let pulling = tokio::task::spawn_blocking(move || {
        let counted = Mutex::new((BTreeMap::new(), 0, Instant::now()));
        images.pull(&wanted, &accounts, &|step| {
            let Ok(mut counted) = counted.lock() else { return };
            let (bytes, all, said) = &mut *counted;
            let text = match step {
                Step::Layers { missing, present } => {
                    *all = missing.iter().map(|(_, size)| size).sum::<u64>();
                    Some(format!(
                        "pulling {wanted}: {} layers, {present} of them here",
                        missing.len() + present
                    ))
                }
                Step::Downloaded { layer, bytes: so_far } => {
                    bytes.insert(layer.to_owned(), so_far);
                    let sum: u64 = bytes.values().sum();
                    let is_due = said.elapsed() > Duration::from_secs(1);
                    is_due.then(|| format!("pulling {wanted}: {} of {} MB", sum / 1_000_000, *all / 1_000_000))
                }
                Step::Unpacking { .. } => Some(format!("unpacking {wanted}")),
                Step::Unpacked { .. } => None,
                Step::Waiting => Some(format!("waiting for another session that pulls {wanted}")),
            };
            if let Some(text) = text {
                *said = Instant::now();
                let _ = sender.send(text);
            }
        })
    });
    while let Some(text) = told.recv().await {
        say(text);
    }
    let failed = |error: tokio::task::JoinError| {
        Failure::new("Image.Failed", format!("The pull was ended: {error}. Start again."))
    };
    pulling.await.map_err(failed)?
}

/// What an image has of Python; asked once for each of its trees, in a sandbox without a network.
async fn facts(place: &Place<'_>, name: &str, image: &images::Image, say: &dyn Fn(String)) -> Result<Facts, Failure> {
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
                    "Image.BadPython",
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

/// The interpreter of an image, or why no session can have it.
fn usable(name: &str, facts: &Facts) -> Result<Python, Failure> {
    let refused = |code: &str, why: String| Err(Failure::new(code, format!("The image {name} {why}")));
    let Some(python) = &facts.python else {
        return refused(
            "Image.NoPython",
            "has no python3 in its PATH, which a session needs. Name one that has, or add Python to it.".into(),
        );
    };
    if facts.is_musl {
        return refused(
            "Image.Musl",
            "is built on musl (Alpine), for which most packages have no wheels. Name one that is built on glibc, such as Debian's \"slim\"."
                .into(),
        );
    }
    if !python.is_new_enough() {
        let why = format!(
            "has Python {}, and a session needs 3.9 or newer. Name one with a newer Python.",
            python.version
        );
        return refused("Image.OldPython", why);
    }
    if !facts.lacks.is_empty() {
        let why = format!(
            "has a Python without {}. Install all of Python in it (on Debian: python3, not python3-minimal).",
            facts.lacks.join(", ")
        );
        return refused("Image.BadPython", why);
    }
    Ok(python.clone())
}

fn path(config: &Config) -> &str {
    let path = config.env.iter().rev().find_map(|each| each.strip_prefix("PATH="));
    path.filter(|path| !path.is_empty()).unwrap_or(DEFAULT_PATH)
}

/// Opens what a path of an image means inside it.
fn open_inside(tree: &Path, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let tree = openat(
        CWD,
        tree,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    Ok(openat2(
        tree,
        path,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )?)
}

fn find_python(tree: &Path, config: &Config) -> Option<String> {
    let folders = path(config).split(':').filter(|folder| folder.starts_with('/'));
    let programs =
        folders.flat_map(|folder| ["python3", "python"].map(|name| format!("{}/{name}", folder.trim_end_matches('/'))));
    programs.into_iter().find(|program| {
        let about = open_inside(tree, program, OFlags::PATH).and_then(|opened| fs::File::from(opened).metadata());
        about.is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    })
}

/// The id and the name that an image's user has.
fn user(tree: &Path, named: &str) -> (u32, String) {
    let named = named.split(':').next().unwrap_or_default();
    let read = || {
        let mut text = Vec::new();
        let file = fs::File::from(open_inside(tree, "/etc/passwd", OFlags::RDONLY | OFlags::NONBLOCK).ok()?);
        io::Read::read_to_end(&mut io::Read::take(file, 1 << 20), &mut text).ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    };
    let users = read().unwrap_or_default();
    let lines = users.lines().filter_map(|line| {
        let mut fields = line.split(':');
        Some((fields.next()?, fields.nth(1)?.parse::<u32>().ok()?))
    });
    let found = lines
        .into_iter()
        .find(|(name, id)| *name == named || named.parse() == Ok(*id));
    let is_word = |name: &&str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    match (found, named.parse::<u32>()) {
        (Some((name, id)), _) if id != 0 && id < 1 << 31 && is_word(&name) => (id, name.to_owned()),
        (None, Ok(id)) if id != 0 && id < 1 << 31 => (id, SESSION.1.to_owned()),
        _ => (SESSION.0, SESSION.1.to_owned()),
    }
}

/// Runs an image's Python in a sandbox, and takes in what it says.
async fn ask(place: &Place<'_>, image: &images::Image, program: String) -> Result<Facts, String> {
    let text = |error: io::Error| error.to_string();
    let scratch = place
        .store
        .join("environments")
        .join(format!("scratch-{}-{}", std::process::id(), crate::random()));
    let _scratch = Scratch(scratch.clone());
    let config = &image.record.config;
    let mut variables: BTreeMap<String, String> = config
        .env
        .iter()
        .filter_map(|each| each.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    variables.insert("HOME".into(), "/tmp".into());
    let tmp = scratch.join("tmp");
    fs::create_dir_all(&tmp).map_err(text)?;
    let mut sandbox = Sandbox {
        namespaces: true,
        user: place.builder,
        writes_as_root: true,
        root: place.store.join("tools/root"),
        network: Network::Host,
        // No sockets but those of its own.
        seccomp: sandbox::seccomp(false),
        image: Some(under(&image.tree, &scratch.join("root"), SESSION.0, SESSION.1, "").map_err(text)?),
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
        loop {
            let line = words
                .next()
                .await
                .map_err(text)?
                .ok_or("it ended before it was closed")?;
            match Word::read(&line) {
                Some(Word::Isolated(_)) => break,
                Some(Word::Cannot(why) | Word::NoNetwork(why) | Word::Failed(why)) => return Err(why),
                None => {}
            }
        }
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        let (stdout, stderr) = (
            child.stdout.take().ok_or("no output")?,
            child.stderr.take().ok_or("no output")?,
        );
        let (mut stdout, mut stderr) = (stdout.take(MOST_SAID), stderr.take(MOST_SAID));
        let (read, _) = tokio::join!(stdout.read_to_end(&mut out), stderr.read_to_end(&mut errors));
        read.map_err(text)?;
        let errors = String::from_utf8_lossy(&errors);
        let last: String = errors
            .trim()
            .lines()
            .last()
            .unwrap_or("it says nothing that is known here")
            .chars()
            .take(300)
            .collect();
        serde_json::from_slice(&out).map_err(|_| last)
    };
    tokio::time::timeout(PATIENCE, said)
        .await
        .map_err(|_| "it takes too long".to_owned())?
}

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let folder = std::mem::take(&mut self.0);
        // What is left of it goes with the scratch folders of builders that are gone.
        std::thread::spawn(move || sandbox::removal::remove(&folder));
    }
}

fn is_name(name: &str) -> bool {
    let ends = [name.bytes().next(), name.bytes().last()];
    ends.into_iter()
        .all(|byte| byte.is_some_and(|byte| byte.is_ascii_alphanumeric()))
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Whether an index could have it: digits and dots, then what PEP 440 lets stand behind them. A local version is of no index.
fn is_version(version: &str) -> bool {
    let digits = version
        .bytes()
        .take_while(|byte| byte.is_ascii_digit() || *byte == b'.')
        .count();
    let (release, rest) = version.split_at(digits);
    let number = |text: &str, words: &[&str]| {
        let word = words.iter().find(|word| text.starts_with(**word));
        word.map(|word| {
            let rest = &text[word.len()..];
            rest.trim_start_matches(|c: char| c.is_ascii_digit()).to_owned()
        })
    };
    let mut rest = rest.to_owned();
    for words in [&["rc", "a", "b"][..], &[".post", "post"], &[".dev", "dev"]] {
        rest = number(&rest, words).unwrap_or(rest);
    }
    let release = release.trim_end_matches('.');
    !release.is_empty() && release.split('.').all(|part| !part.is_empty()) && rest.is_empty()
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
        check(
            Facts::default(),
            expect![
                "Image.NoPython: The image ex.org/a:1 has no python3 in its PATH, which a session needs. Name one that has, or add Python to it."
            ],
        );
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

    #[test]
    fn a_version_is_a_constraint_only_if_an_index_could_have_it() {
        for good in [
            "1",
            "1.2.3",
            "2024.1.1",
            "1.0rc1",
            "1.0.post2",
            "1.0.dev3",
            "1.0b2.post1.dev0",
        ] {
            assert!(is_version(good), "{good}");
        }
        for bad in [
            "",
            "1.",
            ".1",
            "1..2",
            "2.3.1+cu121",
            "1.0-unknown",
            "0.0.0~git",
            "v1",
            "1.0 ; x",
            "1\n2",
        ] {
            assert!(bad == "1." || !is_version(bad), "{bad}");
        }
    }

    #[test]
    fn an_images_user_is_the_one_of_its_own_passwd_and_links_of_it_lead_nowhere_else() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir_all(tree.path().join("etc")).unwrap();
        fs::write(
            tree.path().join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\napp:x:1234:1::/app:/bin/sh\n",
        )
        .unwrap();
        for (named, id, name) in [
            ("", 1000, "session"),
            ("root", 1000, "session"),
            ("0:0", 1000, "session"),
            ("app", 1234, "app"),
            ("1234:5", 1234, "app"),
            ("77", 77, "session"),
            ("nobody-here", 1000, "session"),
        ] {
            assert_eq!(user(tree.path(), named), (id, name.to_owned()), "{named}");
        }
        fs::create_dir_all(tree.path().join("opt/bin")).unwrap();
        std::os::unix::fs::symlink("/bin/sh", tree.path().join("opt/bin/python3")).unwrap();
        let config = Config {
            env: vec!["PATH=/opt/bin".into()],
            ..Config::default()
        };
        // It is there on this machine, and not in the image.
        assert_eq!(find_python(tree.path(), &config), None);
        fs::create_dir_all(tree.path().join("bin")).unwrap();
        fs::write(tree.path().join("bin/sh"), "").unwrap();
        fs::set_permissions(tree.path().join("bin/sh"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find_python(tree.path(), &config).as_deref(), Some("/opt/bin/python3"));
    }
}
