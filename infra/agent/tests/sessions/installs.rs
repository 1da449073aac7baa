//! Installs: requirements, locks, and what fails.

use super::*;
use contract::Code;

pub(crate) fn a_requirement_is_installed_on_top_of_the_base_and_imported() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = flex(&folder.path().join("flow"), IMPORTS);
    fs::write(it.join("requirements.txt"), "# a cow\ncowsay==6.1\n").unwrap();
    let key = key(&unique("requirement"));
    machine.start(&key, 1, &it);
    assert_eq!(
        output(&machine.run(&key, 1, &unique("cow"), &it, RunWish::default()))["version"],
        "6.1"
    );
    machine.remove(&key, 1);
    // A base package at another version: the warm process cannot serve, and a fresh interpreter
    // does.
    fs::write(
        it.join("requirements.txt"),
        "cowsay==6.1\ntabulate==0.9.0\nPyJWT<2.12\n",
    )
    .unwrap();
    flex(
        &it,
        "import importlib.metadata as m\ndef main() -> list:\n    import jwt, cowsay\n    return [m.version('tabulate'), jwt.__version__ == m.version('PyJWT'), jwt.__version__ < '2.12']\n",
    );
    machine.start(&key, 2, &it);
    assert_eq!(
        output(&machine.run(&key, 2, &unique("cow"), &it, RunWish::default())),
        json!({ "output": ["0.9.0", true, true] })
    );
    machine.remove(&key, 2);
}

pub(crate) fn a_folder_has_the_python_that_it_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = folder.path().join("plain");
    fs::create_dir_all(&it).unwrap();
    let key = key(&unique("python"));
    for (generation, python) in (1..).zip(sandbox::python::Python::all()) {
        // A session chooses its Python as soon as it is launched.
        fs::write(it.join(".python-version"), "2.7.18\n").unwrap();
        machine.launch(&key, generation, &it);
        let failure = machine.install(&key, generation, &unique("none"), &it).unwrap();
        assert_eq!(failure.error, Code::InstallOtherPython, "{failure}");
        // The remedy that it names.
        fs::write(it.join(".python-version"), python.minor()).unwrap();
        assert_eq!(machine.install(&key, generation, &unique("there"), &it), None);
        let wish = RunWish {
            command: ["python", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
                .map(str::to_owned)
                .to_vec(),
            ..RunWish::default()
        };
        let run = unique("version");
        assert_eq!(machine.run(&key, generation, &run, &it, wish).failure, None);
        assert_eq!(machine.output(&run), python.minor());
        machine.remove(&key, generation);
    }
}

pub(crate) fn an_install_into_a_session_in_use_swaps_the_packages_and_a_failed_one_leaves_them() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = flex(&folder.path().join("flow"), IMPORTS);
    let key = key(&unique("swap"));
    machine.start(&key, 1, &it);
    let without = machine.run(&key, 1, &unique("cow"), &it, RunWish::default());
    let failure = without.failure.unwrap();
    assert_eq!(failure.error, Code::RunImportFailed, "{failure}");
    assert!(failure.message.contains("cowsay"), "{failure}");
    fs::write(it.join("requirements.txt"), "cowsay==6.1\n").unwrap();
    assert_eq!(machine.install(&key, 1, &unique("more"), &it), None);
    assert_eq!(
        output(&machine.run(&key, 1, &unique("cow"), &it, RunWish::default()))["version"],
        "6.1"
    );
    fs::write(it.join("requirements.txt"), "cowsay==6.1\nno-such-package-of-ours\n").unwrap();
    assert_eq!(
        machine.install(&key, 1, &unique("bad"), &it).unwrap().error,
        Code::InstallNoSuchPackage
    );
    assert_eq!(
        output(&machine.run(&key, 1, &unique("cow"), &it, RunWish::default()))["version"],
        "6.1"
    );
    machine.remove(&key, 1);
}

pub(crate) fn what_is_installed_is_reported_with_why_it_is_there_also_what_a_run_does_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let index = Index::serve();
    index.add("alpha", "1.0", &["beta>=1"]);
    index.add("beta", "1.0", &[]);
    let index_line = format!("--extra-index-url {}", index.url());
    let by_hand = "import pathlib, tabulate\ndef main() -> str:\n    site = pathlib.Path(tabulate.__file__).parent.parent\n    made = site / 'gamma_x-2.0.dist-info'\n    made.mkdir()\n    (made / 'METADATA').write_text('Name: gamma-x')\n    gone = next(site.glob('tabulate-*.dist-info'))\n    import shutil\n    shutil.rmtree(gone)\n    return ''\n";
    let it = flex(&folder.path().join("flow"), by_hand);
    fs::write(
        it.join("requirements.txt"),
        format!("{index_line}\n# one\nAlpha\ntabulate\n"),
    )
    .unwrap();
    let key = key(&unique("listed"));
    machine.start(&key, 1, &it);
    let first = installation(&machine, &key);
    let version = first
        .listed
        .as_ref()
        .unwrap()
        .packages
        .iter()
        .find(|package| package.name == "tabulate")
        .unwrap()
        .version
        .clone();
    let known = told(&first, &["alpha", "beta", "tabulate"]);
    assert_eq!(
        known[..2],
        [
            "alpha 1.0 Requirements requirements.txt:3 ",
            "beta 1.0 Dependency - alpha"
        ]
    );
    assert!(
        known[2].starts_with(&format!("tabulate {version} BaseImage requirements.txt:4 ")),
        "{known:?}"
    );
    assert!(first.by_hand.is_empty() && first.isolation.is_some(), "{first:?}");
    output(&machine.run(&key, 1, &unique("by-hand"), &it, RunWish::default()));
    let second = installation(&machine, &key);
    assert_eq!((second.count, &second.lock), (2, &first.lock));
    let changed: Vec<_> = second
        .by_hand
        .iter()
        .map(|each| (each.name.as_str(), each.version.as_deref()))
        .collect();
    assert_eq!(changed, [("gamma-x", Some("2.0")), ("tabulate", None)]);
    // Nothing new, nothing said.
    flex(&it, "def main() -> str:\n    return ''\n");
    output(&machine.run(&key, 1, &unique("nothing"), &it, RunWish::default()));
    assert_eq!(installation(&machine, &key).count, 2);
    // An install that fails says how: its exit code, and the end of its output.
    fs::write(
        it.join("requirements.txt"),
        format!("{index_line}\nno-such-package-of-ours\n"),
    )
    .unwrap();
    let operation = unique("fails");
    assert!(machine.install(&key, 1, &operation, &it).is_some());
    let setup = machine.report("its end", Duration::from_secs(5), &key, 1, |report| match report {
        AgentReport::InstallFailed {
            operation: o, setup, ..
        } if *o == operation => setup.clone(),
        _ => None,
    });
    assert!(
        setup.exit_code == 1 && setup.tail.join(" ").contains("no-such-package-of-ours"),
        "{setup:?}"
    );
    machine.remove(&key, 1);
}

pub(crate) fn a_lock_brings_back_what_was_installed_also_when_its_environment_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let index = Index::serve();
    index.add("alpha", "1.0", &[]);
    index.add("alpha", "2.0", &[]);
    let it = flex(
        &folder.path().join("flow"),
        "import importlib.metadata\ndef main() -> str:\n    return importlib.metadata.version('alpha')\n",
    );
    let version = |machine: &Machine, key: &str| {
        output(&machine.run(key, 1, &unique("version"), &it, RunWish::default()))["output"].clone()
    };
    fs::write(it.join("requirements.txt"), index.line() + "\nalpha==1.0\n").unwrap();
    let key = key(&unique("lock"));
    machine.start(&key, 1, &it);
    let lock = installation(&machine, &key).lock;
    fs::write(it.join("requirements.txt"), index.line() + "\nalpha==2.0\n").unwrap();
    assert_eq!(machine.install(&key, 1, &unique("two"), &it), None);
    assert_eq!(version(&machine, &key), "2.0");
    // As pruning leaves it.
    let environments = machine.state.join("environments");
    fs::rename(
        environments.join(format!("{lock}.json")),
        environments.join(format!("{lock}.gone.json")),
    )
    .unwrap();
    fs::remove_dir_all(environments.join(&lock)).unwrap();
    let back = |lock: &str| {
        let operation = unique("back");
        let command = AgentCommand::Install {
            operation: operation.clone(),
            attempt: 1,
            settings: settings(&it),
            lock: Some(lock.into()),
            resolve: false,
        };
        machine.tell(&key, 1, &command);
        machine.ended_install(&key, 1, &operation)
    };
    assert_eq!(back(&lock), None);
    assert_eq!(version(&machine, &key), "1.0");
    let said = installation(&machine, &key);
    assert_eq!((said.lock.as_str(), said.listed), (lock.as_str(), None));
    let failure = back("00000000000000000000000000000000").unwrap();
    assert_eq!(
        failure.to_string(),
        "Install.NoSuchLock: The lock 00000000000000000000000000000000 is not on this machine any more. Install what the requirements say: \
         pfsession install."
    );
    assert_eq!(version(&machine, &key), "1.0");
    machine.remove(&key, 1);
}

pub(crate) fn every_form_of_requirement_does_with_a_small_index_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let index = Index::serve();
    for (name, version) in [
        ("alpha", "1.0"),
        ("alpha", "2.0"),
        ("alpha", "3.0rc1"),
        ("beta-x", "1.0"),
    ] {
        index.add(
            name,
            version,
            if name == "alpha" {
                &["beta-x ; extra == 'more'"]
            } else {
                &[]
            },
        );
    }
    let other = Index::serve();
    other.add("delta", "1.0", &[]);
    let hash = index.hash("alpha", "1.0");
    let wrong = "0".repeat(64);
    let it = flex(&folder.path().join("flow"), "def main() -> str:\n    return ''\n");
    let key = key(&unique("forms"));
    machine.launch(&key, 1, &it);
    let index_line = index.line();
    // What is installed of ours, or the name of the failure.
    let install = |requirements: &str, more: &[(&str, &str)]| -> String {
        flow(&it, more);
        fs::write(it.join("requirements.txt"), requirements).unwrap();
        match machine.install(&key, 1, &unique("form"), &it) {
            Some(failure) => failure.error.to_string(),
            None => {
                let listed = installation(&machine, &key).listed.unwrap().packages;
                let ours = listed
                    .iter()
                    .filter(|package| ["alpha", "beta-x", "delta"].contains(&package.name.as_str()));
                ours.map(|package| format!("{}={}", package.name, package.version))
                    .collect::<Vec<_>>()
                    .join(" ")
            }
        }
    };
    /// Name, requirements, more files, and the packages of ours that are installed, or the error.
    type Case<'a> = (&'a str, String, &'a [(&'a str, &'a str)], &'a str);
    let cases: &[Case] = &[
        ("a name", format!("{index_line}\nalpha"), &[], "alpha=2.0"),
        (
            "a mark and line ends of Windows",
            format!("\u{feff}{index_line}\r\nalpha==1.0 \\\r\n  ; python_version > '3'\r\n"),
            &[],
            "alpha=1.0",
        ),
        (
            "an extra, and a comment",
            format!("{index_line}\nAlpha[more]<2 # not two\n"),
            &[],
            "alpha=1.0 beta-x=1.0",
        ),
        (
            "a marker that is not met",
            format!("{index_line}\nalpha ; sys_platform == 'win32'\nbeta_x\n"),
            &[],
            "beta-x=1.0",
        ),
        (
            "a file that is named",
            format!("{index_line}\n-r more/r.txt\n"),
            &[("more/r.txt", "alpha\n-c c.txt\n"), ("more/c.txt", "alpha<2\n")],
            "alpha=1.0",
        ),
        (
            "a hash",
            format!("{index_line}\nalpha==1.0 --hash=sha256:{hash}\n"),
            &[],
            "alpha=1.0",
        ),
        (
            "another hash",
            format!("{index_line}\nalpha==1.0 \\\n  --hash=sha256:{wrong}\n"),
            &[],
            "Install.HashMismatch",
        ),
        (
            "an option behind a requirement",
            format!("{index_line}\nalpha --only-binary=:all:\n"),
            &[],
            "Install.BadRequirement",
        ),
        (
            "the same, as the refusal says to write it",
            format!("{index_line}\n--only-binary alpha\nalpha\n"),
            &[],
            "alpha=2.0",
        ),
        (
            "one more index, in one line",
            format!("{index_line} --extra-index-url {}\ndelta\nalpha\n", other.url()),
            &[],
            "alpha=2.0 delta=1.0",
        ),
        (
            "a URL",
            format!("{index_line}\nalpha @ {}\n", index.wheel("alpha", "1.0")),
            &[],
            "alpha=alpha-1.0-py3-none-any.whl",
        ),
        (
            "links",
            format!("--no-index\n-f {}\nalpha\n", index.links("alpha")),
            &[],
            "alpha=2.0",
        ),
        (
            "what is not released yet",
            format!("{index_line}\n--pre\nalpha\n"),
            &[],
            "alpha=3.0rc1",
        ),
        (
            "no wheels, of which there is nothing else",
            format!("{index_line}\n--no-binary alpha\nalpha\n"),
            &[],
            "Install.NoSuchVersion",
        ),
        (
            "nothing there",
            format!("{index_line}\nalpha\nomega\n"),
            &[],
            "Install.NoSuchPackage",
        ),
    ];
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(what, requirements, more, expected)| {
            let found = install(requirements, more);
            (found != *expected).then(|| format!("{what}: {found}, not {expected}"))
        })
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
    machine.remove(&key, 1);
}

pub(crate) fn no_install_takes_away_what_the_base_image_loads() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let index = Index::serve();
    let line = format!("--extra-index-url {}", index.url());
    let asks = "from importlib.metadata import version\n\
                def main(name: str) -> str:\n    return version(name)\n";
    let it = flex(&folder.path().join("it"), asks);
    let key = key(&unique("base"));
    machine.launch(&key, 1, &it);
    let install = |requirements: &str| {
        fs::write(it.join("requirements.txt"), requirements).unwrap();
        machine.install(&key, 1, &unique("base"), &it)
    };
    // What needs another version of what promptflow-tools needs names both sides.
    let failure = install("openai==0.28.1\n").expect("it does not fit");
    assert_eq!(failure.error, Code::InstallConflict, "{failure}");
    for side in ["promptflow-tools", "openai==0.28.1"] {
        assert!(failure.message.contains(side), "{side}: {failure}");
    }
    // What puts a file of its own in the place of one of the base image's.
    let text = "raise ImportError('another one')\n";
    index.add_file("pfsbreaks", "1.0", &[], "promptflow/tools/__init__.py", text);
    let failure = install(&format!("{line}\npfsbreaks\n")).expect("it cannot be imported");
    let begins = "Install.Conflict: requirements.txt:2: promptflow.tools of the base image promptflow cannot be imported beside pfsbreaks 1.0: \
                  ImportError: another one. Take another version in the requirements, and start again. The whole output is in ";
    assert!(failure.to_string().starts_with(begins), "{failure}");
    // An index that comes first has an old version of the base image's own package, and what is
    // wanted changes another one.
    index.add("promptflow-tools", "0.0.1", &[]);
    index.add("pfsold", "1.0", &["certifi<2024"]);
    let failure = install(&format!("{line}\npfsold\n"));
    assert_eq!(failure, None);
    let version = |name: &str| {
        let wish = RunWish {
            inputs: [("name".to_owned(), json!(name))].into(),
            ..RunWish::default()
        };
        output(&machine.run(&key, 1, &unique("base"), &it, wish))["output"].clone()
    };
    assert_eq!(version("certifi"), json!("2023.11.17"));
    assert_ne!(version("promptflow-tools"), json!("0.0.1"));
    machine.remove(&key, 1);
}

pub(crate) fn failures_of_installs_have_names_and_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = flex(&folder.path().join("it"), "def main() -> str:\n    return ''\n");
    let key = key(&unique("installs"));
    machine.launch(&key, 1, &it);
    let install = |requirements: &str| {
        fs::write(it.join("requirements.txt"), requirements).unwrap();
        let id = unique("install");
        let failure = machine
            .install(&key, 1, &id, &it)
            .unwrap_or_else(|| panic!("{requirements} was installed"));
        assert_eq!(failure.message.lines().count(), 1, "{failure}");
        failure
    };
    let failure = install("tabulate\nno-such-package-of-ours\n");
    assert_eq!(failure.error, Code::InstallNoSuchPackage, "{failure}");
    assert!(failure.message.starts_with("requirements.txt:2: "), "{failure}");
    let log = failure.message.split_whitespace().last().unwrap().trim_end_matches('.');
    assert!(
        fs::read_to_string(log).unwrap().contains("no-such-package-of-ours"),
        "{failure}"
    );
    let failure = install("tabulate==99.1\n");
    assert!(
        failure.error == Code::InstallNoSuchVersion && failure.message.contains("tabulate==99.1"),
        "{failure}"
    );
    let failure = install("flask==3.1.3\nwerkzeug<3\n");
    assert!(
        failure.error == Code::InstallConflict && failure.message.contains("werkzeug"),
        "{failure}"
    );
    let failure = install("--index-url http://me:hidden@127.0.0.1:9/simple\ntabulate\n");
    assert_eq!(failure.error, Code::InstallIndexUnreachable, "{failure}");
    assert!(!failure.message.contains("hidden"), "{failure}");
    let failure = install("it @ https://me:hidden@127.0.0.1:9/it-1-py3-none-any.whl\n");
    assert!(
        failure.error == Code::InstallBadRequirement && !failure.message.contains("hidden"),
        "{failure}"
    );
    let failure = install("tabulate ==\n");
    assert!(
        failure.error == Code::FlowBadRequirement && failure.message.starts_with("requirements.txt:1"),
        "{failure}"
    );
    flow(
        &it,
        &[(
            "flow.flex.yaml",
            "entry: code:main\nenvironment:\n  image: 127.0.0.1:1/image:1\n",
        )],
    );
    // The container that there is has its image for life; the next one is made from the new one.
    fs::write(it.join("requirements.txt"), "tabulate\n").unwrap();
    assert_eq!(machine.install(&key, 1, &unique("install"), &it), None);
    machine.remove(&key, 1);
    machine.launch(&key, 2, &it);
    let failure = machine.install(&key, 2, &unique("install"), &it).unwrap();
    assert!(
        failure.error == Code::ImageUnreachable && failure.message.contains("127.0.0.1:1/image:1"),
        "{failure}"
    );
    machine.remove(&key, 2);
}
