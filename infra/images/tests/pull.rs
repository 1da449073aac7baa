//! Images are pulled from a registry on loopback, and read from archives.

mod common;

use common::{Image, Layer, Registry, digest, docker_archive, gzip, oci_archive};
use contract::Code;
use images::{Name, Step, Store, accounts, accounts::Accounts, silent};
use serde_json::json;
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    sync::Mutex,
};
use tar::EntryType;

struct Place {
    folder: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        Self { folder, store }
    }

    fn pull(&self, name: &str) -> Result<images::Image, contract::Failure> {
        self.store.pull(&name.parse().unwrap(), &Accounts::default(), &silent)
    }

    /// The content of a folder of the store.
    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path().join("images").join(folder)).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    fn refused(&self, registry: &Registry, layer: Layer) -> String {
        let name = registry.push("bad", "1", &Image::gzipped(json!({}), vec![layer]));
        let failure = self.pull(&name).unwrap_err();
        for folder in ["layers", "trees", "records", "blobs"] {
            assert_eq!(self.names(folder), Vec::<String>::new(), "{folder} after {failure}");
        }
        failure.to_string()
    }
}

fn two_layers() -> Image {
    let below = Layer::new()
        .folder("etc/")
        .file("etc/kept", "kept")
        .file("etc/changed", "before")
        .file("etc/removed", "removed")
        .folder("opt/")
        .file("opt/hidden", "hidden")
        .file("data/x/y", "y")
        .link("bin", "usr/bin")
        .file("gone/a/b", "b");
    let above = Layer::new()
        .file("etc/.wh.removed", "")
        .file("etc/changed", "after")
        .folder("opt/")
        .file("opt/.wh..wh..opq", "")
        .file("opt/shown", "shown")
        .file(".wh.gone", "")
        .file("data", "a file in place of a folder");
    Image::gzipped(
        json!({ "Env": ["A=b"], "WorkingDir": "/srv", "User": "app" }),
        vec![below, above],
    )
}

fn read(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn layers_lie_over_each_other_with_whiteouts_and_hidden_folders() {
    let (place, registry) = (Place::new(), Registry::start());
    let image = place.pull(&registry.push("a/b", "1", &two_layers())).unwrap();
    let root = &image.tree;
    assert_eq!(
        (
            read(root, "etc/kept"),
            read(root, "etc/changed"),
            read(root, "opt/shown")
        ),
        ("kept".into(), "after".into(), "shown".into())
    );
    for gone in ["etc/removed", "opt/hidden", "gone", "etc/.wh.removed"] {
        assert!(!root.join(gone).exists(), "{gone}");
    }
    assert_eq!(read(root, "data"), "a file in place of a folder");
    assert_eq!(fs::read_link(root.join("bin")).unwrap(), Path::new("usr/bin"));
    let config = &image.record.config;
    assert_eq!(
        (config.env.as_slice(), config.workdir.as_str(), config.user.as_str()),
        (&["A=b".to_owned()][..], "/srv", "app")
    );
    // Python looks at it.
    assert_eq!(fs::metadata(root.join("etc/kept")).unwrap().mtime(), 1_600_000_000);
    assert_eq!(place.names("blobs"), Vec::<String>::new());
}

#[test]
fn a_layer_that_two_images_share_is_pulled_and_unpacked_once() {
    let (place, registry) = (Place::new(), Registry::start());
    let shared = || Layer::new().file("shared", "shared");
    let one = Image::gzipped(json!({}), vec![shared(), Layer::new().file("one", "1")]);
    let two = Image::gzipped(json!({}), vec![shared(), Layer::new().file("two", "2")]);
    let (first, second) = (registry.push("one", "1", &one), registry.push("two", "1", &two));
    let (first, second) = (place.pull(&first).unwrap(), place.pull(&second).unwrap());
    assert_eq!(registry.count(&one.layers[0]), 1);
    let inode = |image: &images::Image| fs::metadata(image.tree.join("shared")).unwrap().ino();
    assert_eq!(inode(&first), inode(&second));
    place.store.remove(&one.digest()).unwrap();
    assert_eq!(
        (
            read(&second.tree, "shared"),
            place.names("layers").len(),
            place.names("trees").len()
        ),
        ("shared".into(), 2, 1)
    );
}

#[test]
fn pulls_at_the_same_time_make_one_download_of_each_layer() {
    let (place, registry) = (Place::new(), Registry::start());
    let image = two_layers();
    let name = registry.push("a", "1", &image);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| place.pull(&name).unwrap());
        }
    });
    for layer in &image.layers {
        assert_eq!(registry.count(layer), 1, "{layer}");
    }
}

#[test]
fn a_download_that_was_cut_off_goes_on_where_it_ended() {
    let (place, registry) = (Place::new(), Registry::start());
    let image = Image::gzipped(
        json!({}),
        vec![Layer::new().file("a", &"0123456789abcdef".repeat(200_000))],
    );
    let name = registry.push("a", "1", &image);
    let layer = &image.layers[0];
    registry.state().cut.insert(layer.clone(), 5000);
    assert_eq!(read(&place.pull(&name).unwrap().tree, "a").len(), 3_200_000);
    let seen: Vec<String> = registry
        .state()
        .seen
        .iter()
        .filter(|line| line.contains(layer))
        .cloned()
        .collect();
    assert_eq!(
        seen,
        [
            format!("GET /v2/a/blobs/{layer} "),
            format!("GET /v2/a/blobs/{layer} 5000")
        ]
    );
}

#[test]
fn what_is_not_as_its_digest_says_is_never_used() {
    let (place, registry) = (Place::new(), Registry::start());
    let image = two_layers();
    let name = registry.push("a", "1", &image);
    let check = |what: &str| {
        let failure = place.pull(&name).unwrap_err().to_string();
        assert!(failure.starts_with("Image.DigestMismatch: The "), "{what}: {failure}");
        assert!(
            place.names("trees").is_empty() && place.names("records").is_empty(),
            "{what}"
        );
    };
    let good = image.blobs[&image.layers[1]].clone();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    registry.put_blob(&image.layers[1], bad);
    check("another byte");
    registry.put_blob(&image.layers[1], [&good[..], b"more"].concat());
    check("more bytes");
    registry.put_blob(&image.layers[1], good);
    let config = digest(&image.config);
    registry.put_blob(&config, b"{}".to_vec());
    check("another configuration");
    registry.put_blob(&config, image.config.clone());
    place.pull(&name).unwrap();
    let pinned = format!("{}/a@{}", registry.address, digest(b"other"));
    registry.push_manifest("a", &digest(b"other"), &image.manifest);
    let failure = place.pull(&pinned).unwrap_err().to_string();
    assert!(
        failure.starts_with("Image.DigestMismatch: The manifest sha256:"),
        "{failure}"
    );
    // A layer whose download is right, and which unpacks to something else than its configuration
    // names.
    let tar = Layer::new().file("a", "a").tar();
    let other = Image::of(json!({}), vec![(Layer::new().file("b", "b").tar(), gzip(&tar))]);
    let failure = Place::new()
        .pull(&registry.push("other", "1", &other))
        .unwrap_err()
        .to_string();
    assert!(
        failure.starts_with("Image.DigestMismatch: The unpacked layer sha256:"),
        "{failure}"
    );
}

#[test]
fn hostile_layers_are_refused_and_leave_nothing() {
    let (place, registry) = (Place::new(), Registry::start());
    let outside = place.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let to = outside.to_str().unwrap();
    for (what, layer, why) in [
        (
            "a path out",
            Layer::new().file("../../x", "x"),
            "\"../../x\" leads out of its folder",
        ),
        (
            "a link out, and a file through it",
            Layer::new().link("l", to).file("l/x", "x"),
            "\"l\" leads through a link or a file",
        ),
        (
            "a link up, and a file through it",
            Layer::new().link("l", "..").file("l/x", "x"),
            "\"l\" leads through a link or a file",
        ),
        (
            "a folder through a link",
            Layer::new().link("l", to).folder("l/x/y/"),
            "\"l/x\" leads through a link or a file",
        ),
        (
            "a hard link out",
            Layer::new().hard_link("x", "../../outside"),
            "\"../../outside\" leads out of its folder",
        ),
        (
            "a hard link through a link",
            Layer::new().link("l", "/etc").hard_link("x", "l/passwd"),
            "\"l\" leads through a link or a file",
        ),
        (
            "a hard link to nothing",
            Layer::new().hard_link("x", "etc/passwd"),
            "\"etc\" is not there",
        ),
        (
            "a whiteout of what is above",
            Layer::new().file("a/.wh...", ""),
            "\"..\" removes no name",
        ),
        (
            "a folder that becomes a file",
            Layer::new().folder("a/").file("a", ""),
            "\"a\" is there twice, once as a folder",
        ),
        (
            "a deep folder",
            Layer::new()
                .folder(&"a/".repeat(49))
                .entry(EntryType::GNULongName, "l", 0, "", "a/".repeat(300).as_bytes())
                .file("x", ""),
            "is too long, or too deep",
        ),
        (
            "a kind of entry that is none",
            Layer::new().entry(EntryType::GNUSparse, "s", 0o644, "", b""),
            "is of the kind 'S', which is not read here",
        ),
    ] {
        let failure = place.refused(&registry, layer);
        assert!(
            failure.starts_with("Image.BadLayer: The layer sha256:") && failure.contains(why),
            "{what}: {failure}"
        );
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{what}");
    }
}

#[test]
fn rights_devices_and_absolute_paths_are_neutralised() {
    let (place, registry) = (Place::new(), Registry::start());
    let layer = Layer::new()
        .entry(EntryType::Regular, "/absolute/su", 0o6755, "", b"x")
        .entry(EntryType::Directory, "shut/", 0, "", b"")
        .entry(EntryType::Char, "dev/null", 0o666, "", b"")
        .entry(EntryType::Fifo, "pipe", 0o666, "", b"")
        .hard_link("again", "absolute/su")
        .link("out", "/etc/passwd");
    let image = place
        .pull(&registry.push("a", "1", &Image::gzipped(json!({}), vec![layer])))
        .unwrap();
    let about = |path: &str| fs::symlink_metadata(image.tree.join(path)).unwrap();
    assert_eq!(about("absolute/su").permissions().mode() & 0o7777, 0o755);
    assert_eq!(about("again").ino(), about("absolute/su").ino());
    // SAFETY: it takes nothing and cannot fail.
    assert_eq!(about("absolute/su").uid(), unsafe { libc::geteuid() });
    assert_eq!(about("shut").permissions().mode() & 0o7777, 0o700);
    assert!(about("out").is_symlink());
    assert_eq!(
        (
            image.record.left_out,
            image.tree.join("dev/null").exists(),
            image.tree.join("pipe").exists()
        ),
        (2, false, false)
    );
}

#[test]
fn a_bomb_is_refused_while_it_unpacks_and_zeros_take_no_room() {
    let (place, registry) = (Place::new(), Registry::start());
    let large = "\0".repeat(64 << 20);
    let hole = Layer::new().file("zeros", &large);
    let image = place
        .pull(&registry.push("hole", "1", &Image::gzipped(json!({}), vec![hole])))
        .unwrap();
    let about = fs::metadata(image.tree.join("zeros")).unwrap();
    assert!(
        about.len() == 64 << 20 && about.blocks() < 100,
        "{} blocks",
        about.blocks()
    );
    place.store.remove(&image.record.digest).unwrap();
    // More than 1 GiB, out of some MiB.
    let bomb = (0..17).fold(Layer::new(), |layer, at| layer.file(&format!("zeros-{at}"), &large));
    let failure = place.refused(&registry, bomb);
    assert!(failure.starts_with("Image.TooLarge: The layer sha256:"), "{failure}");
    assert!(
        failure.contains("it unpacks to more than it may have for its download"),
        "{failure}"
    );
}

#[test]
fn layers_in_zstd_and_without_compression_are_unpacked() {
    let (place, registry) = (Place::new(), Registry::start());
    let (plain, zstd) = (
        Layer::new().file("plain", "plain").tar(),
        Layer::new().file("zstd", &"zstd ".repeat(50_000)).tar(),
    );
    let pack = |bytes: &[u8]| ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest);
    // Two frames, and one that is to be skipped.
    let (first, second) = zstd.split_at(zstd.len() / 2);
    let packed = [
        pack(first),
        vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3],
        pack(second),
    ]
    .concat();
    let image = Image::of(json!({}), vec![(plain.clone(), plain), (zstd, packed)]);
    let image = place.pull(&registry.push("a", "1", &image)).unwrap();
    assert_eq!(
        (read(&image.tree, "plain").as_str(), read(&image.tree, "zstd").len()),
        ("plain", 250_000)
    );
}

#[test]
fn an_account_is_sent_to_its_registry_and_one_that_is_refused_says_what_to_do() {
    let (place, registry) = (Place::new(), Registry::start());
    let name: Name = registry.push("a", "1", &two_layers()).parse().unwrap();
    registry.state().account = Some("ann:word-that-nobody-sees".into());
    let accounts = Accounts::of(place.folder.path());
    let refused = |what: &str| {
        let failure = place.store.pull(&name, &accounts, &silent).unwrap_err().to_string();
        assert!(
            failure.starts_with(&format!(
                "Image.Denied: {} does not give the image {name} {what}",
                registry.address
            )),
            "{failure}"
        );
        assert!(
            failure.ends_with(&format!("Log in: pfsession registry login {}", registry.address)),
            "{failure}"
        );
        assert!(!failure.contains("word"), "{failure}");
    };
    refused("without an account");
    accounts::keep(place.folder.path(), &registry.address, Some(("ann", "wrong-word"))).unwrap();
    refused("with the account that is given for it");
    accounts::keep(
        place.folder.path(),
        &registry.address,
        Some(("ann", "word-that-nobody-sees")),
    )
    .unwrap();
    let image = place.store.pull(&name, &accounts, &silent).unwrap();
    let record = fs::read_dir(place.folder.path().join("images/records"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert!(!fs::read_to_string(record.path()).unwrap().contains("word"));
    assert_eq!(read(&image.tree, "etc/kept"), "kept");
}

#[test]
fn an_index_gives_the_manifest_of_this_machine_or_says_what_it_has() {
    let (place, registry) = (Place::new(), Registry::start());
    let image = two_layers();
    registry.push("a", "plain", &image);
    let index = |architecture: &str| {
        json!({ "schemaVersion": 2, "manifests": [
            { "digest": digest(b"other"), "size": 1, "platform": { "os": "linux", "architecture": "s390x" } },
            { "digest": image.digest(), "size": image.manifest.len(), "platform": { "os": "linux", "architecture": architecture } },
        ] })
        .to_string()
    };
    registry.push_manifest("a", "many", index(common::architecture()).as_bytes());
    let pulled = place.pull(&format!("{}/a:many", registry.address)).unwrap();
    assert_eq!(pulled.record.digest, digest(index(common::architecture()).as_bytes()));
    registry.push_manifest("a", "none", index("mips").as_bytes());
    let failure = place
        .pull(&format!("{}/a:none", registry.address))
        .unwrap_err()
        .to_string();
    assert!(
        failure.starts_with("Image.NoPlatform: The image ") && failure.contains("it is for linux/s390x, linux/mips"),
        "{failure}"
    );
}

#[test]
fn a_tag_is_resolved_anew_and_a_digest_that_is_here_needs_no_registry() {
    let (place, registry) = (Place::new(), Registry::start());
    let (old, new) = (
        two_layers(),
        Image::gzipped(json!({}), vec![Layer::new().file("new", "new")]),
    );
    let text = registry.push("a", "1", &old);
    let name: Name = text.parse().unwrap();
    assert_eq!(place.pull(&text).unwrap().record.digest, old.digest());
    registry.push("a", "1", &new);
    assert_eq!(place.store.known_digest(&name).unwrap(), old.digest());
    assert_eq!(place.store.latest(&name, &Accounts::default()).unwrap(), new.digest());
    assert_eq!(place.store.known_digest(&name).unwrap(), new.digest());
    let asked = registry.state().seen.len();
    place.pull(&name.pinned(&old.digest())).unwrap();
    assert_eq!(registry.state().seen.len(), asked);
    for (name, begins) in [
        (format!("{}/none:1", registry.address), "Image.NotFound: "),
        (
            "127.0.0.1:1/a:1".to_owned(),
            "Image.Unreachable: The image 127.0.0.1:1/a:1 cannot be had from 127.0.0.1:1 now: ",
        ),
    ] {
        let failure = place.pull(&name).unwrap_err().to_string();
        assert!(failure.starts_with(begins), "{failure}");
    }
}

#[test]
fn documents_that_are_none_are_refused_with_the_reason() {
    let (place, registry) = (Place::new(), Registry::start());
    let layer = json!({ "digest": digest(b""), "size": 1u64 << 40 });
    let config = json!({ "digest": digest(b"{}"), "size": 2 });
    registry.put_blob(&digest(b"{}"), b"{}".to_vec());
    for (manifest, begins) in [
        ("[]".to_owned(), "Image.BadManifest: "),
        (json!({ "schemaVersion": 1 }).to_string(), "Image.BadManifest: "),
        (json!({ "schemaVersion": 2 }).to_string(), "Image.BadManifest: "),
        (
            json!({ "schemaVersion": 2, "config": config, "layers": [layer] }).to_string(),
            "Image.TooLarge: ",
        ),
        (
            json!({ "schemaVersion": 2, "config": { "digest": "../../x", "size": 1 }, "layers": [] }).to_string(),
            "Image.BadManifest: ",
        ),
        (
            json!({ "schemaVersion": 2, "config": config, "layers": [] }).to_string(),
            "Image.BadManifest: ",
        ),
        ("x".repeat(5 << 20), "Image.TooLarge: "),
    ] {
        registry.push_manifest("a", "1", manifest.as_bytes());
        let failure = place
            .pull(&format!("{}/a:1", registry.address))
            .unwrap_err()
            .to_string();
        assert!(
            failure.starts_with(begins),
            "{}: {failure}",
            &manifest[..manifest.len().min(80)]
        );
    }
}

#[test]
fn archives_of_docker_and_of_oci_are_images_too() {
    let place = Place::new();
    let (image, other) = (
        two_layers(),
        Image::gzipped(json!({}), vec![Layer::new().file("other", "other")]),
    );
    let write = |name: &str, bytes: Vec<u8>| {
        let path = place.folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let docker = write("docker.tar", docker_archive(&[("a:1", &image), ("b:1", &other)]));
    let failure = place.pull(&format!("docker-archive:{docker}")).unwrap_err().to_string();
    assert!(
        failure.starts_with("Image.BadArchive: ") && failure.ends_with("Name one of it behind a colon: a:1, b:1."),
        "{failure}"
    );
    let pulled = place.pull(&format!("docker-archive:{docker}:a:1")).unwrap();
    assert_eq!(
        (read(&pulled.tree, "etc/changed"), &pulled.record.digest),
        ("after".into(), &digest(&image.config))
    );
    let pulled = place
        .pull(&format!("oci-archive:{}", write("oci.tar", oci_archive(&image))))
        .unwrap();
    assert_eq!(
        (read(&pulled.tree, "etc/changed"), &pulled.record.digest),
        ("after".into(), &image.digest())
    );
    // One tree for both.
    assert_eq!(place.names("trees").len(), 1);
    let mut broken = image.clone();
    broken.blobs.get_mut(&image.layers[0]).unwrap()[30] ^= 1;
    let broken = Place::new()
        .pull(&format!("oci-archive:{}", write("broken.tar", oci_archive(&broken))))
        .unwrap_err();
    assert_eq!(broken.error, Code::ImageDigestMismatch);
    let none = place
        .pull(&format!("docker-archive:{}", write("none.tar", gzip(b"x"))))
        .unwrap_err();
    assert_eq!(none.error, Code::ImageBadArchive);
    // One of these never opens, and the other never ends.
    let pipe = place.folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    for path in [&*pipe, Path::new("/dev/zero"), place.folder.path()] {
        let refused = place.pull(&format!("oci-archive:{}", path.display())).unwrap_err();
        assert!(refused.to_string().contains("it is no file"), "{refused}");
    }
}

#[test]
fn an_image_in_use_is_not_removed_and_one_that_nobody_uses_is_after_a_time() {
    let (place, registry) = (Place::new(), Registry::start());
    let name = registry.push("a", "1", &two_layers());
    let image = place.pull(&name).unwrap();
    let held = place.store.hold(&image.record.digest).unwrap();
    let failure = place.store.remove(&name).unwrap_err().to_string();
    assert_eq!(
        failure,
        format!("Image.InUse: Sessions use the image {name}. Stop them, then remove it: pfsession list")
    );
    place.store.prune(std::time::Duration::ZERO);
    let listed = place.store.list();
    assert_eq!(
        (listed[0].names.as_slice(), listed[0].is_in_use, listed[0].layers),
        (&[name.clone()][..], true, 2)
    );
    drop(held);
    assert!(!place.store.list()[0].is_in_use);
    place.store.prune(std::time::Duration::from_secs(3600));
    assert_eq!(place.store.list().len(), 1);
    std::thread::sleep(std::time::Duration::from_millis(2));
    place.store.prune(std::time::Duration::ZERO);
    assert!(place.store.list().is_empty() && place.names("trees").is_empty() && place.names("layers").is_empty());
    let failure = place.store.remove(&name).unwrap_err().to_string();
    assert_eq!(
        failure,
        format!("Image.NotHere: No image {name} is here. See which there are: pfsession image list")
    );
}

/// A file system of its own, if this machine lets one be mounted.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(mebibytes: u32) -> Option<Self> {
        let small = Self(tempfile::tempdir().unwrap());
        small.resize("size", mebibytes).then_some(small)
    }

    fn resize(&self, how: &str, mebibytes: u32) -> bool {
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("{how}={mebibytes}m"), "none"]);
        mount
            .arg(self.0.path())
            .output()
            .is_ok_and(|ended| ended.status.success())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).output();
    }
}

#[test]
fn a_pull_without_room_says_so_downloads_nothing_and_leaves_nothing() {
    // 1 GiB is kept free.
    let Some(small) = Small::mount(1030) else {
        println!("not run: no file system can be mounted here");
        return;
    };
    let registry = Registry::start();
    let store = Store::open(small.0.path()).unwrap();
    let pull = |name: &str| store.pull(&name.parse().unwrap(), &Accounts::default(), &silent);
    let large = || Layer::new().file("large", &"0123456789abcdef".repeat(500_000)).tar();
    // One is too large to download. There is no room to unpack the other.
    let whole = Image::of(json!({}), vec![(large(), large())]);
    let packed = Image::of(json!({}), vec![(large(), gzip(&large()))]);
    let (whole_name, packed_name) = (
        registry.push("whole", "1", &whole),
        registry.push("packed", "1", &packed),
    );
    let is_refused = |name: &str| {
        let failure = pull(name).unwrap_err();
        assert_eq!(failure.error, Code::ImageDiskFull, "{name}: {failure}");
        for folder in ["layers", "trees", "records", "blobs"] {
            let place = small.0.path().join("images").join(folder);
            assert_eq!(fs::read_dir(&place).unwrap().count(), 0, "{name}: {folder}");
        }
    };
    is_refused(&whole_name);
    assert_eq!(registry.count(&whole.layers[0]), 0, "no byte of it was fetched");
    assert!(small.resize("remount,size", 1000));
    is_refused(&packed_name);
    // With room both are pulled.
    assert!(small.resize("remount,size", 1100));
    for name in [whole_name, packed_name] {
        let image = pull(&name).unwrap();
        assert_eq!(fs::metadata(image.tree.join("large")).unwrap().len(), 8_000_000);
    }
}

#[test]
fn what_begins_every_digest_removes_nothing() {
    let (place, registry) = (Place::new(), Registry::start());
    let image = two_layers();
    place.pull(&registry.push("a", "1", &image)).unwrap();
    for text in ["sha256:", "sha256", "", "sha256:12", "sha2"] {
        let refused = place.store.remove(text).unwrap_err();
        assert_eq!(refused.error, Code::ImageNotHere, "{text}");
    }
    let hex = image.digest()["sha256:".len()..].to_owned();
    assert_eq!(place.store.remove(&hex[..6]).unwrap().digests, [image.digest()]);
}

#[test]
fn an_image_that_is_held_is_there_whoever_removes_images_meanwhile() {
    let (place, registry) = (Place::new(), Registry::start());
    let name: Name = registry.push("a", "1", &two_layers()).parse().unwrap();
    std::thread::scope(|scope| {
        let holders: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    for round in 0..40 {
                        // One that another holds, and one that is not here, are refused.
                        let _ = place.store.remove(&name.to_string());
                        let (image, _held) = place.store.pull_and_hold(&name, &Accounts::default(), &silent).unwrap();
                        for _ in 0..20 {
                            let text = fs::read_to_string(image.tree.join("etc/changed"));
                            assert_eq!(text.ok().as_deref(), Some("after"), "round {round}: its files are gone");
                        }
                    }
                })
            })
            .collect();
        for holder in holders {
            holder.join().unwrap();
        }
    });
}

#[test]
fn progress_names_each_layer_with_its_size_and_its_bytes() {
    let (place, registry) = (Place::new(), Registry::start());
    let image = two_layers();
    let name: Name = registry.push("a", "1", &image).parse().unwrap();
    let said = Mutex::new(Vec::new());
    let note = |step: Step<'_>| said.lock().unwrap().push(format!("{step:?}"));
    place.store.pull(&name, &Accounts::default(), &note).unwrap();
    let said = said.into_inner().unwrap();
    assert!(said[0].starts_with("Layers { missing: ["), "{said:?}");
    for layer in &image.layers {
        let size = image.blobs[layer].len();
        assert!(said[0].contains(&format!("(\"{layer}\", {size})")), "{said:?}");
        assert!(
            said.contains(&format!("Downloaded {{ layer: \"{layer}\", bytes: {size} }}")),
            "{said:?}"
        );
        assert!(said.contains(&format!("Unpacked {{ layer: \"{layer}\" }}")), "{said:?}");
    }
}
