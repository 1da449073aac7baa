//! Build scripts, and what they cannot do.

use super::*;
use contract::Code;

pub(crate) fn a_find_links_line_that_names_a_folder_of_the_host_is_refused() {
    let machine = Machine::new(&state());
    let secret = tempfile::tempdir().unwrap();
    let index = Index::serve();
    let look = format!(
        "def attack():\n    import os\n    return 'seen = ' + repr(os.path.exists({:?}))\n",
        secret.path()
    );
    index.add_source("look", "1.0", &[], &look);
    let links = format!(
        "{}\n--find-links http://127.0.0.1:9/,{}\nlook\n",
        index.line(),
        secret.path().display()
    );
    let failure = installed(&machine, "links", &links, "").unwrap_err();
    assert_eq!(
        failure.to_string(),
        "Install.BadOption: requirements.txt:2: --find-links takes one URL, without commas and spaces. Correct it, and start again."
    );
    let code = "import look\ndef main() -> str:\n    return str(look.seen)\n";
    let seen = installed(&machine, "look", &format!("{}\nlook\n", index.line()), code);
    assert_eq!(seen.unwrap()["output"], "False");
}

/// Writes into all that it can write, above all into what is called after the victim.
pub(crate) const WRITE: &str = r#"
def attack():
    touched = []
    tops = [entry.path for entry in os.scandir('/') if entry.name not in ('proc', 'sys', 'dev')]
    tops += [os.environ.get(name, '/') for name in ('UV_CACHE_DIR', 'HOME', 'TMPDIR')]
    for top in tops:
        for folder, _, names in os.walk(top):
            if os.path.abspath(folder).startswith(os.getcwd()):
                continue
            for name in names:
                path = os.path.join(folder, name)
                if 'victim' in path and name.endswith(('.py', '.whl', '.msgpack', '.http', '.rev')):
                    try:
                        os.chmod(path, 0o644)
                        open(path, 'w').write("version = 'poisoned'\n")
                        touched.append(path)
                    except OSError:
                        pass
            # Its own environment reads each file of this folder, and would not load.
            if 'jsonschema_specifications' in folder:
                continue
            try:
                open(os.path.join(folder, 'victim.py'), 'w').write("version = 'poisoned'\n")
                touched.append(folder)
            except OSError:
                pass
    return 'touched = ' + repr(touched)
"#;

pub(crate) fn a_build_script_that_writes_everywhere_changes_no_other_install() {
    let machine = Machine::new(&state());
    let index = Index::serve();
    index.add("victim", "1.0", &[]);
    // Its build has the victim in its cache.
    index.add_source("evil", "1.0", &["victim"], WRITE);
    let code = "import evil\ndef main() -> str:\n    return str(len(evil.touched))\n";
    let touched = installed(&machine, "evil", &format!("{}\nevil\n", index.line()), code).unwrap();
    let touched: usize = touched["output"].as_str().unwrap().parse().unwrap();
    assert!(touched > 3, "the attack wrote to {touched} places only");
    let locked = format!(
        "{}\nvictim==1.0 --hash=sha256:{}\n",
        index.line(),
        index.hash("victim", "1.0")
    );
    let code = "import victim\ndef main() -> str:\n    return victim.version + ' ' + victim.__file__\n";
    let got = installed(&machine, "victim", &locked, code).unwrap();
    let got = got["output"].as_str().unwrap();
    assert!(got.starts_with("1.0 ") && got.ends_with("/victim/__init__.py"), "{got}");
}

/// Puts a link in the place of the lock that the resolver is about to write, or has written.
pub(crate) const SWAP: &str = r#"
def attack():
    for pid in filter(str.isdigit, os.listdir('/proc')):
        words = open(f'/proc/{pid}/cmdline').read().split('\0')
        if '--output-file' in words:
            lock = words[words.index('--output-file') + 1]
            if os.path.lexists(lock):
                os.unlink(lock)
            os.symlink('SECRET', lock)
    return ''
"#;

pub(crate) fn a_build_script_that_swaps_its_lock_for_a_link_shows_no_file_of_the_host() {
    let machine = Machine::new(&state());
    let index = Index::serve();
    // The build has a /tmp of its own, so that uv can write through the link, and the host has its
    // secret there.
    let secret = tempfile::NamedTempFile::new_in("/tmp").unwrap();
    let word = unique("s3cret");
    fs::write(secret.path(), format!("{word}==1.0\n")).unwrap();
    index.add_source(
        "swap",
        "1.0",
        &[],
        &SWAP.replace("SECRET", &secret.path().display().to_string()),
    );
    let result = installed(
        &machine,
        "swap",
        &format!("{}\nswap\n", index.line()),
        "def main() -> str:\n    return 'x'\n",
    );
    println!("the swapped lock: {result:?}");
    if let Err(failure) = result {
        assert_eq!(failure.error, Code::InstallTampered, "{failure}");
    }
    assert_eq!(fs::read_to_string(secret.path()).unwrap(), format!("{word}==1.0\n"));
    let mut folders = vec![machine.state.join("environments"), machine.state.join("logs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && entry.file_name() != "lib" {
                folders.push(entry.path());
            } else if kind.is_file() {
                let text = fs::read(entry.path()).unwrap_or_default();
                assert!(
                    !String::from_utf8_lossy(&text).contains(&word),
                    "{}",
                    entry.path().display()
                );
            }
        }
    }
}

/// Looks for a word wherever a process can look; ends the build where it finds it.
pub(crate) const LOOK_FOR: &str = r#"
def attack():
    secret = 'TERCES'[::-1].encode()
    found, looked = [], 0
    def look(place, data):
        nonlocal looked
        looked += 1
        if secret in data:
            found.append(place)
    for name, value in os.environb.items():
        look(name, value)
    for top in (entry.path for entry in os.scandir('/') if entry.name not in ('usr', 'lib', 'lib64', 'bin', 'sbin', 'sys', 'dev')):
        for folder, names, files in os.walk(top):
            names[:] = [name for name in names if name not in ('task', 'net', 'lib') and os.path.join(folder, name) != os.getcwd()]
            for name in files:
                path = os.path.join(folder, name)
                try:
                    if name == 'kmsg' or name == 'kcore' or not os.path.isfile(path):
                        continue
                    with open(path, 'rb') as file:
                        look(path, file.read(1 << 22))
                except OSError:
                    pass
    if found:
        raise RuntimeError('found in ' + ' '.join(map(str, found)))
    return 'looked = ' + repr(looked)
"#;

pub(crate) fn a_build_script_finds_no_credential_wherever_it_looks() {
    let machine = Machine::new(&state());
    let index = Index::serve();
    let secret = unique("t0ken");
    let reversed: String = secret.chars().rev().collect();
    index.add_source("seeker", "1.0", &[], &LOOK_FOR.replace("TERCES", &reversed));
    let mut feeds = environments::private::Feeds::default();
    feeds.set(&index.host(), Some(&secret));
    feeds.write(&machine.state).unwrap();
    index.lock(&format!("pfsession:{secret}"));
    let code = "import seeker\ndef main() -> str:\n    return str(seeker.looked)\n";
    let line = index.line().replace("http://", "http://{private}@");
    let looked = installed(&machine, "seeker", &format!("{line}\nseeker\n"), code);
    feeds.set(&index.host(), None);
    feeds.write(&machine.state).unwrap();
    let looked: usize = looked.unwrap()["output"].as_str().unwrap().parse().unwrap();
    assert!(looked > 50, "it looked at {looked} places only");
    // A URL of the author's own with a credential is no other.
    let line = index.line().replace("http://", &format!("http://pfsession:{secret}@"));
    let looked = installed(
        &machine,
        "seeker",
        &format!("{line}\n--trusted-host localhost\nseeker\n"),
        code,
    );
    assert!(looked.is_ok(), "{looked:?}");
}

pub(crate) fn the_credential_of_a_private_feed_reaches_the_feed_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let index = Index::serve();
    let secret = format!("se/cret+{}", unique("token"));
    index.lock(&format!("pfsession:{secret}"));
    index.add("alpha", "1.0", &[]);
    let it = flex(
        &folder.path().join("flow"),
        "import os, importlib.metadata\ndef main() -> list:\n    return [importlib.metadata.version('alpha'), str(dict(os.environ))]\n",
    );
    let private = index.line().replace("http://", "http://{private}@");
    fs::write(it.join("requirements.txt"), private + "\nalpha\n").unwrap();
    let key = key(&unique("private"));
    machine.launch(&key, 1, &it);
    let failure = machine.install(&key, 1, &unique("without"), &it).unwrap();
    assert!(
        failure.error == Code::InstallPrivateFeed
            && failure.message.starts_with("requirements.txt:1: ")
            && failure.message.contains("pfsession private 127.0.0.1:"),
        "{failure}"
    );
    let mut feeds = environments::private::Feeds::default();
    feeds.set(&index.host(), Some("wrong"));
    feeds.write(&machine.state).unwrap();
    let failure = machine.install(&key, 1, &unique("wrong"), &it).unwrap();
    assert_eq!(failure.error, Code::InstallIndexRefused, "{failure}");
    feeds.set(&index.host(), Some(&secret));
    feeds.write(&machine.state).unwrap();
    assert_eq!(machine.install(&key, 1, &unique("private"), &it), None);
    let seen = output(&machine.run(&key, 1, &unique("private"), &it, RunWish::default()));
    assert_eq!(seen["output"][0], "1.0");
    assert!(!seen.to_string().contains("cret"), "{seen}");
    feeds.set(&index.host(), None);
    feeds.write(&machine.state).unwrap();
    // Not in a report, a process, a file: logs, locks, environments and uv's cache are all below
    // the state folder.
    let said = machine
        .world
        .agent_reports
        .lock()
        .unwrap()
        .iter()
        .map(|(signed, _)| signed.body.clone())
        .collect::<String>();
    let encoded = secret.replace('/', "%2F").replace('+', "%2B");
    for text in [&secret, &encoded] {
        assert!(!said.contains(text.as_str()));
        assert_eq!(processes_with(text), Vec::<String>::new());
    }
    let mut folders = vec![machine.state.clone(), folder.path().to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && is_new(&entry) {
                files += 1;
                let bytes = fs::read(entry.path()).unwrap_or_default();
                let holds = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
                assert!(
                    !holds(&secret) && !holds(&encoded),
                    "{} holds it",
                    entry.path().display()
                );
            }
        }
    }
    assert!(files > 20, "{files} files were looked at");
    machine.remove(&key, 1);
}
