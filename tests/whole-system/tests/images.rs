//! Sessions on images of a registry on loopback. The images are made of this machine's own Python
//! and shell.

#[path = "../../../infra/images/tests/common/mod.rs"]
mod common;

use common::{Image, Layer, Registry};
use contract::{
    http::SessionView,
    packages::{PackageOrigin, PackagesRow},
};
use serde_json::json;
use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tools::roots::{execute, python_root, python_root_at, python_root_of, shell_root};
use whole_system::{Machine, said, wait_for};

/// An image with Python, a package of its own, and a text.
fn image(root: &Path, minor: &str, text: &str) -> Image {
    let site = format!("opt/python/lib/python{minor}/site-packages");
    let own = Layer::new()
        .file("srv/text", text)
        .file(&format!("{site}/imagepkg/__init__.py"), "WORD = 'from the image'\n")
        .file(
            &format!("{site}/imagepkg-1.5.dist-info/METADATA"),
            "Metadata-Version: 2.1\nName: imagepkg\nVersion: 1.5\n",
        );
    let config = json!({ "Env": ["PATH=/opt/python/bin:/bin", "COLOR=blue", "HOME=/nowhere"], "WorkingDir": "/srv/made", "User": "app",
        "Entrypoint": ["/bin/false"] });
    Image::gzipped(config, vec![Layer::new().tree(root), own])
}

const LOOK: &str = "import os, sys, imagepkg, json
open('/opt/written', 'w').write('x')
print(json.dumps([imagepkg.WORD, open('/srv/text').read(), os.environ['COLOR'], os.getuid(), os.path.isdir('/srv/made'),
    sys.base_prefix, os.path.exists('/etc/machine-id'), os.path.exists('/usr/share')]))
";

#[test]
fn a_session_runs_on_an_image_with_its_python_its_packages_and_its_variables() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    let minor = python_root(&root);
    let registry = Registry::start();
    let first = image(&root, &minor, "first");
    let name = registry.push("own/python", "1", &first);
    let machine = Machine::new();
    let folder = machine.state().join("flows/on-image");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("look.py"), LOOK).unwrap();
    let it = folder.to_str().unwrap();
    let look = |more: &[&str]| {
        let arguments = [&["run", it][..], more, &["--", "python", "look.py"]].concat();
        machine.succeed(&arguments).trim().to_owned()
    };
    let expected =
        |text: &str| json!(["from the image", text, "blue", 4321, true, "/opt/python", false, false]).to_string();
    let is = |said: String, text: &str| {
        let value: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
        assert_eq!(value.to_string(), expected(text));
    };
    is(look(&["--image", &name]), "first");
    // What is in the store is not pulled again.
    let layer = &first.layers[0];
    assert_eq!(registry.count(layer), 1);

    // What it has is listed as its own, and requirements lie over it.
    fs::write(folder.join("requirements.txt"), "cowsay==6.1\n").unwrap();
    machine.succeed(&["install", it]);
    let row: PackagesRow = serde_json::from_str(&machine.succeed(&["packages", it, "--json"])).unwrap();
    let of = |name: &str| {
        row.packages
            .iter()
            .find(|package| package.name == name)
            .map(|package| (package.origin, package.version.clone()))
    };
    assert_eq!(of("imagepkg"), Some((PackageOrigin::BaseImage, "1.5".into())));
    assert_eq!(of("cowsay"), Some((PackageOrigin::Requirements, "6.1".into())));
    assert_eq!(of("promptflow"), None);
    let versions = machine.succeed(&[
        "run",
        it,
        "--",
        "python",
        "-c",
        "import cowsay, imagepkg; print(cowsay.__version__)",
    ]);
    assert_eq!(versions.trim(), "6.1");
    let shown = machine.succeed(&["show", it]);
    assert!(shown.contains("owners of the image's files"), "{shown}");

    let session = || -> SessionView { serde_json::from_str(&machine.succeed(&["show", it, "--json"])).unwrap() };
    assert_eq!(session().image_digest, Some(first.digest()));
    assert!(shown.contains(&first.digest()), "{shown}");

    // The tag is resolved anew when a session is made anew, and not before.
    let second = image(&root, &minor, "second");
    registry.push("own/python", "1", &second);
    machine.succeed(&["reset", it]);
    is(look(&[]), "second");
    assert_eq!(
        (session().image_digest, session().stale_digest),
        (Some(second.digest()), None)
    );
    // The first run of a session looks whether there is a newer one.
    registry.push("own/python", "1", &first);
    machine.succeed(&["reset", it]);
    registry.push("own/python", "1", &second);
    is(look(&[]), "first");
    let stale = wait_for("a look at the tag", Duration::from_secs(30), || session().stale_digest);
    assert_eq!(stale, second.digest());
    assert_eq!(session().image_digest, Some(first.digest()));
    let shown = machine.succeed(&["show", it]);
    assert!(
        shown.contains(&format!("{stale} by now, from the next reset on")),
        "{shown}"
    );
    let events = machine.succeed(&["events", it]);
    assert!(events.contains("by now"), "{events}");
    machine.succeed(&["reset", it]);
    assert_eq!(
        (session().image_digest, session().stale_digest),
        (Some(second.digest()), None)
    );
    is(look(&[]), "second");
    assert_eq!(registry.count(layer), 1, "a layer that both have is here already");
    machine.succeed(&["stop", it]);
}

#[test]
fn an_image_that_no_session_can_have_says_why() {
    let registry = Registry::start();
    let name = registry.push(
        "no/python",
        "1",
        &Image::gzipped(json!({}), vec![Layer::new().program("bin/sh", "none")]),
    );
    let machine = Machine::new();
    let folder = machine.state().join("flows/refused");
    fs::create_dir_all(&folder).unwrap();
    let refused = |image: &str| said(&machine.run(&["start", folder.to_str().unwrap(), "--image", image]));
    let agents = || {
        let logs = fs::read_dir(machine.state().join("logs")).unwrap().flatten();
        let names = logs.map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("agent-")).count()
    };
    let computes = || fs::read_dir(machine.state().join("computes")).map_or(0, Iterator::count);
    for (image, code) in [
        (&*format!("{}/none:1", registry.address), "[Image.NotFound]"),
        ("127.0.0.1:1/a:1", "[Image.Unreachable]"),
        ("Bad/Name", "[Image.BadName]"),
    ] {
        // By the command line nothing is made, and no command is sent.
        let text = refused(image);
        assert!(text.contains(code), "{image}: {text}");
        let run = machine.run(&["run", folder.to_str().unwrap(), "--image", image, "--", "true"]);
        assert!(!run.status.success() && said(&run).contains(code), "{}", said(&run));
        let shown = machine.run(&["show", folder.to_str().unwrap()]);
        assert_eq!(shown.status.code(), Some(4), "{image}: {}", said(&shown));
        assert_eq!(agents(), 0, "{image}: no agent was started for it");
        assert_eq!(computes(), 0, "{image}");
    }
    // So it is with one that the flow or the workspace names.
    fs::write(
        folder.join("flow.dag.yaml"),
        "environment: {image: 127.0.0.1:1/a:1}\nnodes: []\n",
    )
    .unwrap();
    let text = said(&machine.run(&["start", folder.to_str().unwrap()]));
    assert!(text.contains("[Image.Unreachable]"), "{text}");
    assert_eq!(machine.run(&["show", folder.to_str().unwrap()]).status.code(), Some(4));
    fs::remove_file(folder.join("flow.dag.yaml")).unwrap();
    let settings = machine.state().join("workspace.yml");
    fs::write(&settings, "default_base_image: 127.0.0.1:1/b:1\n").unwrap();
    machine.succeed(&["workspace", "update", "-f", settings.to_str().unwrap()]);
    let text = said(&machine.run(&["start", folder.to_str().unwrap()]));
    assert!(
        text.contains("127.0.0.1:1/b:1") && text.contains("[Image.Unreachable]"),
        "{text}"
    );
    assert_eq!(machine.run(&["show", folder.to_str().unwrap()]).status.code(), Some(4));
    // A client of the HTTP front has asked nobody: the start fails, and leaves no compute resource
    // and no session that is on its way.
    let api = machine.api();
    let accepted = api.start("over-http", &folder).unwrap();
    assert!(!accepted.again);
    let ended = api.operation("over-http", Duration::from_secs(60));
    assert_eq!(ended.failure.unwrap().error.as_str(), "Image.Unreachable");
    assert_eq!(api.phase(&folder), Some(contract::Phase::Failed));
    wait_for("the compute resource's end", Duration::from_secs(30), || {
        (computes() == 0).then_some(())
    });
    assert_eq!(agents(), 0);
    fs::write(folder.join("requirements.txt"), "humanize\n").unwrap();
    let text = refused(&name);
    assert!(text.contains("[Image.NoPython]"), "{text}");
}

#[test]
fn a_command_runs_on_an_image_that_has_no_python() {
    let place = tempfile::tempdir().unwrap();
    shell_root(place.path(), &[]);
    let registry = Registry::start();
    let config = json!({ "Env": ["PATH=/bin", "COLOR=blue"], "User": "app" });
    let layers = vec![Layer::new().tree(place.path()), Layer::new().file("srv/text", "first ")];
    let name = registry.push("own/shell", "1", &Image::gzipped(config, layers));
    let machine = Machine::new();
    let folder = machine.state().join("flows/bare");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("own"), "own ").unwrap();
    let it = folder.to_str().unwrap();
    machine.succeed(&["start", it, "--image", &name]);
    let look = "cat /srv/text own; read id rest < /proc/self/status; echo $COLOR $WORD; test -e /usr/bin || exit 3";
    for generation in 1..=2 {
        let ended = machine.run(&["run", it, "--env", "WORD=given", "--", "sh", "-c", look]);
        assert_eq!(ended.status.code(), Some(3), "{}", said(&ended));
        assert_eq!(String::from_utf8_lossy(&ended.stdout).trim(), "first own blue given");
        let ended = machine.run(&["run", it, "--", "python3", "-c", ""]);
        assert_eq!(ended.status.code(), Some(127), "{}", said(&ended));
        assert!(said(&ended).contains("python3: No such file"), "{}", said(&ended));
        let listed: PackagesRow = serde_json::from_str(&machine.succeed(&["packages", it, "--json"])).unwrap();
        assert_eq!(listed.packages, [], "{generation}");
        if generation == 1 {
            machine.succeed(&["reset", it]);
        }
    }
    // What needs Python is refused before the session goes.
    fs::write(folder.join("requirements.txt"), "humanize\n").unwrap();
    for arguments in [["reset", it], ["install", it]] {
        let ended = machine.run(&arguments);
        let text = said(&ended);
        assert!(
            !ended.status.success() && text.contains("[Image.NoPython]"),
            "{arguments:?}: {text}"
        );
    }
    fs::remove_file(folder.join("requirements.txt")).unwrap();
    assert_eq!(
        machine.succeed(&["run", it, "--", "cat", "own", "/srv/text"]).trim(),
        "own first"
    );
    machine.succeed(&["stop", it]);
}

#[test]
fn the_python_of_a_conda_image_is_found_with_its_packages() {
    let place = tempfile::tempdir().unwrap();
    let minor = python_root_at(place.path(), "opt/conda");
    let site = format!("opt/conda/lib/python{minor}/site-packages");
    let own = Layer::new()
        .file("opt/conda/conda-meta/history", "")
        .file(&format!("{site}/imagepkg/__init__.py"), "WORD = 'of conda'\n")
        .file(
            &format!("{site}/imagepkg-1.5.dist-info/METADATA"),
            "Metadata-Version: 2.1\nName: imagepkg\nVersion: 1.5\n",
        );
    // As continuumio/miniconda3 has it; Debian's own Python would come behind it.
    let config = json!({ "Env": ["PATH=/opt/conda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["/bin/bash"] });
    let registry = Registry::start();
    let image = Image::gzipped(config, vec![Layer::new().tree(place.path()), own]);
    let name = registry.push("own/conda", "1", &image);
    let machine = Machine::new();
    let folder = machine.state().join("flows/on-conda");
    fs::create_dir_all(&folder).unwrap();
    let it = folder.to_str().unwrap();
    let code = "import imagepkg, sys; print(imagepkg.WORD, sys.base_prefix)";
    let ran = machine.succeed(&["run", it, "--image", &name, "--", "python", "-c", code]);
    assert_eq!(ran.trim(), "of conda /opt/conda");
    let listed: PackagesRow = serde_json::from_str(&machine.succeed(&["packages", it, "--json"])).unwrap();
    let packages = listed.packages;
    let of_image = packages.iter().find(|package| package.name == "imagepkg").unwrap();
    assert_eq!(of_image.origin, PackageOrigin::BaseImage);
    machine.succeed(&["stop", it]);
    a_flow_imports_from_the_image(&machine, &name, "of conda", "/opt/conda");
}

/// Runs a prompt flow whose node imports a package that the image alone has. promptflow is
/// installed over it.
fn a_flow_imports_from_the_image(machine: &Machine, image: &str, word: &str, prefix: &str) {
    let folder = machine.state().join("flows/of-the-image");
    fs::create_dir_all(&folder).unwrap();
    let flow = whole_system::flow("one-node");
    fs::copy(flow.join("flow.dag.yaml"), folder.join("flow.dag.yaml")).unwrap();
    let tool = "import sys\nimport imagepkg\nfrom promptflow.core import tool\n\n\n@tool\ndef echo(text: str) -> str:\n    \
                return ' '.join([text, imagepkg.WORD, sys.base_prefix])\n";
    fs::write(folder.join("echo.py"), tool).unwrap();
    let it = folder.to_str().unwrap();
    let lines = machine.succeed(&["run", it, "--image", image, "--inputs", "text=hi"]);
    assert!(lines.contains(&format!("hi {word} {prefix}")), "{lines}");
    let listed: PackagesRow = serde_json::from_str(&machine.succeed(&["packages", it, "--json"])).unwrap();
    let of = |name: &str| {
        listed
            .packages
            .iter()
            .find(|package| package.name == name)
            .unwrap()
            .origin
    };
    // Both are there before any requirement: the image's own, and what flows need over it.
    assert_eq!(of("imagepkg"), PackageOrigin::BaseImage);
    assert!(listed.packages.iter().any(|package| package.name == "promptflow"));
    machine.succeed(&["stop", it]);
}

#[test]
fn a_prompt_flow_runs_on_the_python_of_debian_with_the_packages_of_debian() {
    let python = "/usr/bin/python3";
    if !Path::new("/etc/debian_version").exists() || !Path::new(python).exists() {
        println!("not run: this machine has no Python of Debian's");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    python_root_of(place.path(), "usr", python);
    // As `apt-get install python3-imagepkg` has it.
    let site = "usr/lib/python3/dist-packages";
    let own = Layer::new()
        .file(&format!("{site}/imagepkg/__init__.py"), "WORD = 'of Debian'\n")
        .file(
            &format!("{site}/imagepkg-1.5.egg-info/PKG-INFO"),
            "Metadata-Version: 2.1\nName: imagepkg\nVersion: 1.5\n",
        );
    let registry = Registry::start();
    let image = Image::gzipped(json!({}), vec![Layer::new().tree(place.path()), own]);
    let name = registry.push("own/debian", "12", &image);
    a_flow_imports_from_the_image(&Machine::new(), &name, "of Debian", "/usr");
}

#[test]
fn a_python_on_musl_is_refused_by_name_and_a_reset_onto_it_leaves_the_session() {
    let place = tempfile::tempdir().unwrap();
    let minor = python_root(place.path());
    // Python knows by what it was built with.
    let library = place.path().join(format!("opt/python/lib/python{minor}"));
    for file in fs::read_dir(library).unwrap().flatten() {
        if file.file_name().to_string_lossy().starts_with("_sysconfigdata") {
            let text = fs::read_to_string(file.path()).unwrap();
            fs::write(file.path(), text.replace("linux-gnu", "linux-musl")).unwrap();
        }
    }
    let registry = Registry::start();
    let config = json!({ "Env": ["PATH=/opt/python/bin:/bin"] });
    let image = Image::gzipped(config, vec![Layer::new().tree(place.path())]);
    let name = registry.push("own/alpine", "1", &image);
    let machine = Machine::new();
    let folder = machine.state().join("flows/on-musl");
    fs::create_dir_all(&folder).unwrap();
    let it = folder.to_str().unwrap();
    machine.succeed(&["start", it]);
    let ended = machine.run(&["reset", it, "--image", &name]);
    assert!(
        !ended.status.success() && said(&ended).contains("[Image.Musl]"),
        "{}",
        said(&ended)
    );
    assert_eq!(
        machine
            .succeed(&["run", it, "--", "python", "-c", "print(6 * 7)"])
            .trim(),
        "42"
    );
    machine.succeed(&["stop", it]);
}

#[test]
fn a_prompt_flow_runs_on_an_image_that_has_no_promptflow() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    let minor = python_root(&root);
    let registry = Registry::start();
    let name = registry.push("own/flows", "1", &image(&root, &minor, "flows"));
    let machine = Machine::new();
    let flow = Path::new(env!("CARGO_MANIFEST_DIR")).join("../flows/one-node");
    let data = flow.join("data.jsonl");
    let arguments = [
        "run",
        flow.to_str().unwrap(),
        "--image",
        &name,
        "--data",
        data.to_str().unwrap(),
    ];
    let lines = machine.succeed(&arguments);
    assert_eq!(
        lines.lines().count(),
        fs::read_to_string(data).unwrap().lines().count(),
        "{lines}"
    );
}

#[test]
fn a_reset_onto_an_image_that_cannot_be_had_leaves_the_session_as_it_is() {
    let registry = Registry::start();
    let machine = Machine::new();
    let folder = machine.state().join("flows/goes-on");
    fs::create_dir_all(&folder).unwrap();
    let it = folder.to_str().unwrap();
    machine.succeed(&["start", it]);
    let missing = format!("{}/none:1", registry.address);
    let refused = |arguments: &[&str], code: &str| {
        let ended = machine.run(arguments);
        let text = said(&ended);
        assert!(!ended.status.success() && text.contains(code), "{arguments:?}: {text}");
        assert!(text.contains("The session goes on as it was."), "{text}");
        let shown: serde_json::Value = serde_json::from_str(&machine.succeed(&["show", it, "--json"])).unwrap();
        assert_eq!((&shown["phase"], &shown["generation"]), (&json!("ready"), &json!(1)));
    };
    let runs = || {
        let said = machine.succeed(&["run", it, "--", "python", "-c", "print(6 * 7)"]);
        assert_eq!(said.trim(), "42");
    };
    refused(&["reset", it, "--image", &missing], "[Image.NotFound]");
    runs();
    refused(&["reset", it, "--image", "127.0.0.1:1/a:1"], "[Image.Unreachable]");
    // The image is had before the session goes.
    let bare = Image::gzipped(json!({}), vec![Layer::new().program("bin/sh", "none")]);
    let name = registry.push("no/python", "1", &bare);
    fs::write(folder.join("requirements.txt"), "humanize\n").unwrap();
    refused(&["reset", it, "--image", &name], "[Image.NoPython]");
    fs::remove_file(folder.join("requirements.txt")).unwrap();
    let other = Image::gzipped(json!({}), vec![Layer::new().program("bin/sh", "other")]);
    let name = registry.push("bad/layer", "1", &other);
    let layer = &other.layers[0];
    let mut corrupt = other.blobs[layer].clone();
    let last = corrupt.len() - 1;
    corrupt[last] ^= 1;
    registry.put_blob(layer, corrupt);
    refused(&["reset", it, "--image", &name], "[Image.DigestMismatch]");
    refused(&["reset", it, "--image", "python:2.7"], "[Install.NoSuchImage]");
    // A new size makes the session anew, too.
    let update = ["update", it, "--size", "Standard_D2_v3", "--image", &name];
    refused(&update, "[Image.DigestMismatch]");
    // Alone it counts from the next reset on, and is asked for now.
    refused(&["update", it, "--image", &missing], "[Image.NotFound]");
    machine.succeed(&["update", it, "--image", &name]);
    refused(&["reset", it], "[Image.DigestMismatch]");
    fs::write(folder.join("flow.dag.yaml"), "inputs: [").unwrap();
    refused(&["reset", it, "--image", "python"], "[Flow.BadFlowFile]");
    fs::remove_file(folder.join("flow.dag.yaml")).unwrap();
    runs();
    machine.succeed(&["reset", it, "--image", "python"]);
    let shown: serde_json::Value = serde_json::from_str(&machine.succeed(&["show", it, "--json"])).unwrap();
    assert_eq!((&shown["phase"], &shown["generation"]), (&json!("ready"), &json!(2)));
    machine.succeed(&["stop", it]);
}

#[test]
fn an_image_that_is_built_of_a_session_has_its_packages_and_runs_it() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    let minor = python_root(&root);
    let registry = Registry::start();
    let base = registry.push("own/base", "1", &image(&root, &minor, "base"));
    let machine = Machine::new();
    let folder = machine.state().join("flows/built");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("requirements.txt"), "cowsay==6.1\n").unwrap();
    let it = folder.to_str().unwrap();
    machine.succeed(&["start", it, "--image", &base]);
    let tag = format!("{}/own/built:1", registry.address);
    let build = |more: &[&str]| -> serde_json::Value {
        let arguments = [&["image", "build", it, "--json"][..], more].concat();
        serde_json::from_str(&machine.succeed(&arguments)).unwrap()
    };
    let sent = build(&["-t", &tag, "--push"]);
    let how = |built: &serde_json::Value| -> Vec<String> {
        let layers = built["layers"].as_array().unwrap().iter();
        layers.map(|layer| layer["how"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(how(&sent), ["mounted", "mounted", "sent"]);
    let again = build(&["-t", &tag, "--push"]);
    assert_eq!(
        (how(&again), &again["digest"]),
        (vec!["present".to_owned(); 3], &sent["digest"])
    );
    let file = place.path().join("built.tar");
    let written = build(&["-o", file.to_str().unwrap()]);
    assert_eq!(written["digest"], sent["digest"], "{written}");
    machine.succeed(&["stop", it]);

    // Sessions on it install nothing, and its packages are the image's own.
    let code = "import cowsay, imagepkg; print(cowsay.__version__, imagepkg.WORD, cowsay.__file__.split('/')[2])";
    for image in [tag, format!("oci-archive:{}", file.display())] {
        machine.succeed(&["start", it, "--image", &image]);
        let listed: PackagesRow = serde_json::from_str(&machine.succeed(&["packages", it, "--json"])).unwrap();
        let of = |name: &str| {
            listed
                .packages
                .iter()
                .find(|package| package.name == name)
                .map(|package| package.origin)
        };
        let own = Some(PackageOrigin::BaseImage);
        assert_eq!((of("cowsay"), of("imagepkg")), (own, own), "{image}");
        let ran = machine.succeed(&["run", it, "--", "python", "-c", code]);
        assert_eq!(ran.trim(), "6.1 from the image pfsession");
        machine.succeed(&["stop", it]);
    }
    let ended = machine.run(&["image", "build", it, "-t", "127.0.0.1:1/a:1", "--push"]);
    assert!(said(&ended).contains("[Image.Unreachable]"), "{}", said(&ended));
}

/// A podman with a storage of its own.
struct Podman(tempfile::TempDir);

impl Podman {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name).display().to_string();
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = {:?}\nrunroot = {:?}\n",
            at("graph"),
            at("run")
        );
        fs::write(at("storage.conf"), storage).unwrap();
        Self(place)
    }

    fn variable(&self) -> (&str, PathBuf) {
        ("CONTAINERS_STORAGE_CONF", self.0.path().join("storage.conf"))
    }

    fn succeed(&self, arguments: &[&str]) -> String {
        let ended = Command::new("podman")
            .args(arguments)
            .envs([self.variable()])
            .output()
            .unwrap();
        assert!(ended.status.success(), "podman {arguments:?}: {}", said(&ended));
        String::from_utf8(ended.stdout).unwrap().trim().to_owned()
    }

    /// Keeps an image, or says why it cannot: podman needs rights that a container may lack.
    fn try_it(&self) -> Result<(), String> {
        let tar = self.0.path().join("empty.tar");
        let empty = tempfile::tempdir().unwrap();
        let folder = empty.path().display().to_string();
        execute("tar", &["-C", &folder, "-cf", tar.to_str().unwrap(), "."]);
        let import = Command::new("podman")
            .arg("import")
            .arg(&tar)
            .envs([self.variable()])
            .output();
        let ended = import.map_err(|error| error.to_string())?;
        if ended.status.success() {
            Ok(())
        } else {
            Err(said(&ended))
        }
    }

    /// Makes an image of a root folder with a text.
    fn import(&self, root: &Path, name: &str, text: &str) {
        fs::create_dir_all(root.join("srv")).unwrap();
        fs::write(root.join("srv/text"), text).unwrap();
        let tar = self.0.path().join("root.tar").display().to_string();
        execute("tar", &["-C", root.to_str().unwrap(), "-cf", &tar, "."]);
        self.succeed(&["import", "--change", "ENV PATH=/bin", &tar, name]);
    }
}

#[test]
fn a_session_runs_on_an_image_of_podman_and_a_newer_one_makes_it_stale() {
    if Command::new("podman").arg("--version").output().is_err() {
        assert!(
            std::env::var_os("PFSESSION_NEEDS_TOOLS").is_none(),
            "PFSESSION_NEEDS_TOOLS is set, and there is no podman"
        );
        println!("not run: there is no podman. Install it: apt-get install podman");
        return;
    }
    let (place, podman, machine) = (tempfile::tempdir().unwrap(), Podman::new(), Machine::new());
    if let Err(why) = podman.try_it() {
        println!("not run: podman cannot keep an image on this machine: {why}");
        return;
    }
    shell_root(place.path(), &[]);
    podman.import(place.path(), "localhost/shell:1", "first");
    let up = machine.command(&["up"]).envs([podman.variable()]).output().unwrap();
    assert!(up.status.success(), "{}", said(&up));
    let folder = machine.state().join("flows/podman");
    fs::create_dir_all(&folder).unwrap();
    let it = folder.to_str().unwrap();
    machine.succeed(&["start", it, "--image", "containers-storage:localhost/shell:1"]);
    let shown = || -> SessionView { serde_json::from_str(&machine.succeed(&["show", it, "--json"])).unwrap() };
    let id = podman.succeed(&["image", "inspect", "--format", "{{.Id}}", "localhost/shell:1"]);
    assert_eq!(shown().image_digest, Some(format!("sha256:{id}")));
    let text = || {
        machine
            .succeed(&["run", it, "--", "cat", "/srv/text"])
            .trim()
            .to_owned()
    };
    assert_eq!(text(), "first");

    podman.import(place.path(), "localhost/shell:1", "second");
    assert_eq!(text(), "first");
    machine.succeed(&["reset", it]);
    assert_eq!(text(), "second");

    let refused = |arguments: &[&str], code: &str| {
        let ended = machine.run(arguments);
        assert!(
            !ended.status.success() && said(&ended).contains(code),
            "{}",
            said(&ended)
        );
    };
    podman.succeed(&["image", "rm", "localhost/shell:1"]);
    refused(&["reset", it], "[Image.NotFound]");
    refused(
        &["reset", it, "--image", "containers-storage:--help"],
        "[Image.BadName]",
    );
    assert_eq!(text(), "second", "the session goes on");
    machine.succeed(&["stop", it]);
    if Command::new("docker").arg("--version").output().is_err() {
        refused(
            &["start", it, "--image", "docker-daemon:shell:1"],
            "there is no program docker",
        );
    }
}

/// The command line as another user of this machine, who has nothing but a state folder.
fn as_somebody(state: &Path, arguments: &[&str]) -> std::process::Output {
    const USER: u32 = 54_321;
    Command::new(state.join("pfsession"))
        .args(arguments)
        .env_clear()
        .envs([("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LANG", "C.UTF-8")])
        .envs([("HOME", state), ("PFSESSION_STATE", &state.join("state"))])
        .current_dir(state)
        .stdin(std::process::Stdio::null())
        .uid(USER)
        .gid(USER)
        .output()
        .unwrap()
}

#[test]
fn a_session_of_an_ordinary_user_runs_on_an_image_and_says_whose_its_files_are() {
    if !is_root() {
        println!("not run: every other test here is an ordinary user's");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    let minor = python_root(&root);
    let registry = Registry::start();
    let name = registry.push("own/python", "1", &image(&root, &minor, "theirs"));
    let home = tempfile::tempdir().unwrap();
    let state = home.path();
    fs::copy(whole_system::pfsession(), state.join("pfsession")).unwrap();
    let folder = state.join("flow");
    fs::create_dir_all(&folder).unwrap();
    let look = "import json, os, sys, imagepkg
about = [os.stat(path).st_uid for path in ('/srv/text', '/opt/python/bin/python3', '/')]
print(json.dumps([imagepkg.WORD, open('/srv/text').read(), os.getuid(), about, sys.base_prefix]))
";
    fs::write(folder.join("look.py"), look).unwrap();
    execute("chown", &["-R", "54321:54321", state.to_str().unwrap()]);
    let succeed = |arguments: &[&str]| {
        let ended = as_somebody(state, arguments);
        assert!(ended.status.success(), "{arguments:?}: {}", said(&ended));
        String::from_utf8(ended.stdout).unwrap()
    };
    let it = folder.to_str().unwrap();
    let ran = succeed(&["run", it, "--image", &name, "--", "python", "look.py"]);
    let seen: serde_json::Value = serde_json::from_str(ran.trim()).unwrap_or_else(|_| panic!("{ran}"));
    // The image's user, and every file is that user's: the machine lets this one map no other.
    assert_eq!(
        seen,
        json!(["from the image", "theirs", 4321, [4321, 4321, 4321], "/opt/python"])
    );
    let shown = succeed(&["show", it]);
    assert!(
        shown.contains("owners of the image's files, which are all the session's"),
        "{shown}"
    );
    let view: serde_json::Value = serde_json::from_str(&succeed(&["show", it, "--json"])).unwrap();
    assert!(view.to_string().contains("owners of the image's files"), "{view}");
    let listed: PackagesRow = serde_json::from_str(&succeed(&["packages", it, "--json"])).unwrap();
    let own = listed
        .packages
        .iter()
        .find(|package| package.name == "imagepkg")
        .unwrap();
    assert_eq!(own.origin, PackageOrigin::BaseImage);
    // Nothing that was unpacked is anybody else's.
    let layers = state.join("state/images/layers");
    assert!(layers.is_dir(), "the store is this user's own");
    let strange = execute("find", &[state.to_str().unwrap(), "!", "-uid", "54321"]);
    assert_eq!(strange, "");
    succeed(&["stop", it]);
    succeed(&["down"]);
}

fn is_root() -> bool {
    execute("id", &["-u"]).trim() == "0"
}
