//! Images beside the programs of others: Debian's registry, skopeo, umoci and podman.

#[path = "../../../infra/images/tests/common/mod.rs"]
mod common;

use common::{Image, Layer, oci_archive};
use contract::http::SessionView;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tools::roots::{execute, python_root};
use whole_system::{Machine, said, wait_for};

/// Whether these programs are here. Where they must be, they are.
fn are_here(programs: &[&str]) -> bool {
    let is_missing = |program: &&&str| Command::new(program).arg("--version").output().is_err();
    let missing: Vec<&str> = programs.iter().filter(is_missing).copied().collect();
    if missing.is_empty() {
        return true;
    }
    let names = missing.join(" ");
    assert!(
        std::env::var_os("PFSESSION_NEEDS_TOOLS").is_none(),
        "PFSESSION_NEEDS_TOOLS is set, and there is no {names}"
    );
    println!("not run: there is no {names}. Install it: apt-get install {names}");
    false
}

/// Debian's `docker-registry` on loopback, with one account.
struct DebianRegistry {
    process: Child,
    address: String,
    place: tempfile::TempDir,
}

const ACCOUNT: (&str, &str) = ("ann", "a-word-for-pulls");
/// That password by bcrypt, as the registry wants it.
const HASHED: &str = "ann:$2b$04$ZusDufZ2OErx3YFdtJ4cD.ViFAiEwz3KklQoVu6.IGRuPSxN83dsW\n";

impl DebianRegistry {
    fn start() -> Self {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name).display().to_string();
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string();
        fs::write(at("accounts"), HASHED).unwrap();
        let config = json!({
            "version": "0.1",
            "log": { "level": "error" },
            "storage": { "filesystem": { "rootdirectory": at("blobs") } },
            "http": { "addr": address, "secret": "none" },
            "auth": { "htpasswd": { "realm": "tests", "path": at("accounts") } },
        });
        // JSON is YAML, too.
        fs::write(at("config.yml"), config.to_string()).unwrap();
        let process = Command::new("docker-registry")
            .args(["serve", &at("config.yml")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self {
            process,
            address,
            place,
        };
        wait_for("the registry", Duration::from_secs(30), || {
            TcpStream::connect(&registry.address).ok()
        });
        registry
    }

    /// Puts an image there by skopeo.
    fn push(&self, image: &Image, name: &str) -> String {
        let file = self.place.path().join("image.tar");
        fs::write(&file, oci_archive(image)).unwrap();
        let credentials = format!("{}:{}", ACCOUNT.0, ACCOUNT.1);
        let (from, to) = (
            format!("oci-archive:{}", file.display()),
            format!("docker://{}/{name}", self.address),
        );
        let quietly = [
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            "--dest-creds",
            &credentials,
        ];
        execute("skopeo", &[&quietly[..], &[&from, &to]].concat());
        format!("{}/{name}", self.address)
    }

    /// The description of an image there, by skopeo.
    fn inspect(&self, name: &str) -> Value {
        let credentials = format!("{}:{}", ACCOUNT.0, ACCOUNT.1);
        let arguments = ["inspect", "--tls-verify=false", "--creds", &credentials];
        let name = format!("docker://{name}");
        serde_json::from_str(&execute("skopeo", &[&arguments[..], &[&name]].concat())).unwrap()
    }
}

impl Drop for DebianRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn python_image(text: &str) -> Image {
    let place = tempfile::tempdir().unwrap();
    let minor = python_root(place.path());
    let own = Layer::new().file("srv/text", text).file(
        &format!("opt/python/lib/python{minor}/site-packages/imagepkg/__init__.py"),
        "WORD = 'from the image'\n",
    );
    let config = json!({ "Env": ["PATH=/opt/python/bin:/bin"] });
    Image::gzipped(config, vec![Layer::new().tree(place.path()), own])
}

#[test]
fn an_image_of_debians_registry_runs_and_one_that_is_built_there_is_read_by_skopeo_and_podman() {
    if !are_here(&["docker-registry", "skopeo", "podman"]) {
        return;
    }
    let registry = DebianRegistry::start();
    let name = registry.push(&python_image("first"), "own/python:1");
    let mut machine = Machine::new();
    let home = machine.state().join("home").display().to_string();
    machine.variables.push(("DOCKER_CONFIG".into(), home));
    let folder = machine.state().join("flows/on-debians");
    fs::create_dir_all(&folder).unwrap();
    let it = folder.to_str().unwrap();
    let refused = machine.run(&["start", it, "--image", &name]);
    assert!(said(&refused).contains("[Image.Denied]"), "{}", said(&refused));
    let mut login = machine
        .command(&["registry", "login", &registry.address, "-u", ACCOUNT.0])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    login.stdin.take().unwrap().write_all(ACCOUNT.1.as_bytes()).unwrap();
    assert!(login.wait().unwrap().success());

    fs::write(folder.join("requirements.txt"), "cowsay==6.1\n").unwrap();
    machine.succeed(&["start", it, "--image", &name]);
    let view: SessionView = serde_json::from_str(&machine.succeed(&["show", it, "--json"])).unwrap();
    let seen = registry.inspect(&name);
    assert_eq!(view.image_digest.as_deref(), seen["Digest"].as_str());
    assert_eq!(machine.succeed(&["run", it, "--", "cat", "/srv/text"]).trim(), "first");

    // One that is built over it, pushed there and written to a file.
    let built = format!("{}/own/built:1", registry.address);
    let build = |more: &[&str]| -> Value {
        let arguments = [&["image", "build", it, "--json"][..], more].concat();
        serde_json::from_str(&machine.succeed(&arguments)).unwrap()
    };
    let pushed = build(&["-t", &built, "--push"]);
    let seen = registry.inspect(&built);
    assert_eq!(seen["Digest"], pushed["digest"]);
    let file = registry.place.path().join("built.tar");
    let written = build(&["-o", file.to_str().unwrap()]);
    assert_eq!(written["digest"], pushed["digest"], "the same build is the same image");
    let of_file: Value = serde_json::from_str(&execute(
        "skopeo",
        &["inspect", &format!("oci-archive:{}", file.display())],
    ))
    .unwrap();
    assert_eq!(of_file["Digest"], pushed["digest"]);
    assert_eq!(of_file["Layers"], seen["Layers"]);
    machine.succeed(&["stop", it]);
    podman_reads(&file, &of_file);
}

/// Has podman load an archive into a storage of its own, where it can keep one.
fn podman_reads(file: &Path, expected: &Value) {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name).display().to_string();
    let storage = format!(
        "[storage]\ndriver = \"vfs\"\ngraphroot = {:?}\nrunroot = {:?}\n",
        at("graph"),
        at("run")
    );
    fs::write(at("storage.conf"), storage).unwrap();
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command
            .args(arguments)
            .env("CONTAINERS_STORAGE_CONF", at("storage.conf"));
        command.output().unwrap()
    };
    let empty = at("empty.tar");
    execute("tar", &["-cf", &empty, "-T", "/dev/null"]);
    let kept = podman(&["import", &empty, "localhost/empty:1"]);
    if !kept.status.success() {
        println!("podman cannot keep an image on this machine: {}", said(&kept));
        return;
    }
    let loaded = podman(&["load", "--quiet", "--input", file.to_str().unwrap()]);
    assert!(loaded.status.success(), "{}", said(&loaded));
    let text = said(&loaded);
    let id = text.trim().rsplit(' ').next().unwrap().to_owned();
    let inspected = podman(&["image", "inspect", &id]);
    assert!(inspected.status.success(), "{}", said(&inspected));
    let all: Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert_eq!(all[0]["Config"]["Env"], expected["Env"]);
    let count = |value: &Value| value.as_array().map(Vec::len);
    assert_eq!(count(&all[0]["RootFS"]["Layers"]), count(&expected["Layers"]));
}

/// All below a folder: each path with its kind, its rights and its content.
fn listing(root: &Path) -> BTreeMap<PathBuf, String> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let (path, about) = (entry.path(), entry.metadata().unwrap());
            let mode = about.permissions().mode() & 0o777;
            let text = if about.is_dir() {
                folders.push(path.clone());
                format!("folder {mode:o}")
            } else if about.is_symlink() {
                format!("link {}", fs::read_link(&path).unwrap().display())
            } else {
                format!("file {mode:o} {}", String::from_utf8_lossy(&fs::read(&path).unwrap()))
            };
            found.insert(path.strip_prefix(root).unwrap().to_owned(), text);
        }
    }
    found
}

#[test]
fn an_unpacked_image_has_the_files_that_umoci_unpacks() {
    if !are_here(&["umoci", "skopeo"]) {
        return;
    }
    // Not here: a file below what is a link in the layer below. umoci follows it; Docker's and
    // podman's overlays, and this store, have a folder in its place.
    let below = Layer::new()
        .folder("etc/")
        .file("etc/kept", "kept")
        .file("etc/changed", "before")
        .file("etc/removed", "removed")
        .folder("opt/")
        .folder("opt/deep/")
        .file("opt/deep/hidden", "hidden")
        .file("opt/hidden", "hidden")
        .program("bin/tool", "#!/bin/sh\n")
        .hard_link("bin/same", "bin/tool")
        .link("lib", "usr/lib")
        .file("usr/lib/one", "one")
        .file("gone/a/b", "b");
    let above = Layer::new()
        .file("etc/.wh.removed", "")
        .file("etc/changed", "after")
        .folder("opt/")
        .file("opt/.wh..wh..opq", "")
        .file("opt/shown", "shown")
        .file(".wh.gone", "")
        .file("etc/\u{e4}\u{20ac}", "a name that is not ASCII");
    let third = Layer::new()
        .file("gone", "a file in place of a folder")
        .file("bin/.wh.same", "");
    let image = Image::gzipped(json!({}), vec![below, above, third]);
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name).display().to_string();
    fs::write(at("image.tar"), oci_archive(&image)).unwrap();
    let from = format!("oci-archive:{}", at("image.tar"));
    execute(
        "skopeo",
        &["copy", "--quiet", &from, &format!("oci:{}:1", at("layout"))],
    );
    let layout = format!("{}:1", at("layout"));
    execute("umoci", &["unpack", "--rootless", "--image", &layout, &at("bundle")]);
    let machine = Machine::bare();
    machine.succeed(&["image", "pull", &from]);
    let trees = machine.state().join("images/trees");
    let tree = fs::read_dir(trees).unwrap().next().unwrap().unwrap().path();
    let (ours, theirs) = (listing(&tree), listing(&place.path().join("bundle/rootfs")));
    for path in ours.keys().chain(theirs.keys()) {
        assert_eq!(ours.get(path), theirs.get(path), "{}", path.display());
    }
    assert_eq!(ours.get(Path::new("etc/changed")).unwrap(), "file 644 after");
}
