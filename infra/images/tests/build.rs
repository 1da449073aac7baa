//! Images are built over a base, written to archives, and pushed to a registry on loopback.

mod common;

use common::{Image, Layer, Registry, docker_archive};
use contract::Failure;
use expect_test::expect;
use images::{Addition, Built, How, Name, Store, Target, accounts, accounts::Accounts, silent};
use serde_json::json;
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

struct Place {
    folder: tempfile::TempDir,
    store: Store,
    accounts: Accounts,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let added = folder.path().join("added");
        fs::create_dir_all(added.join("bin")).unwrap();
        fs::write(added.join("bin/tool"), "#!/opt/env/bin/python\n").unwrap();
        fs::set_permissions(added.join("bin/tool"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::create_dir_all(added.join(format!("lib/{}", "deep".repeat(40)))).unwrap();
        fs::write(added.join(format!("lib/{}/text", "deep".repeat(40))), "text").unwrap();
        symlink("/opt/python", added.join("bin/python")).unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        Self {
            folder,
            store,
            accounts: Accounts::default(),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn build(&self, base: &str, target: Target<'_>) -> Result<Built, Failure> {
        let addition = Addition {
            folder: &self.file("added"),
            at: Path::new("/opt/env"),
            path: "/opt/env/bin",
            history: "an environment",
            created: None,
        };
        self.store
            .build(&base.parse().unwrap(), &self.accounts, &addition, target, &silent)
    }

    fn push(&self, base: &str, to: &str) -> Result<Built, Failure> {
        let Name::Registry(reference) = to.parse().unwrap() else {
            panic!("{to}")
        };
        self.build(base, Target::Registry(&reference))
    }

    fn pull(&self, name: &str) -> images::Image {
        self.store
            .pull(&name.parse().unwrap(), &self.accounts, &silent)
            .unwrap()
    }
}

fn base() -> Image {
    let layers = vec![
        Layer::new().file("etc/below", "below"),
        Layer::new().file("etc/above", "above"),
    ];
    Image::gzipped(
        json!({ "Env": ["A=b", "PATH=/bin"], "User": "app", "Cmd": ["run"] }),
        layers,
    )
}

fn how(built: &Built) -> Vec<How> {
    built.layers.iter().map(|layer| layer.how).collect()
}

#[test]
fn an_image_is_built_as_an_archive_that_is_read_again() {
    let (place, registry) = (Place::new(), Registry::start());
    let name = registry.push("own/base", "1", &base());
    let (file, again) = (place.file("one.tar"), place.file("two.tar"));
    let built = place.build(&name, Target::File(&file, Some("ex.org/a:1"))).unwrap();
    assert_eq!(how(&built), [How::Written; 3]);
    let image = place.pull(&format!("oci-archive:{}:ex.org/a:1", file.display()));
    assert_eq!(image.record.digest, built.digest);
    let read = |path: &str| fs::read_to_string(image.tree.join(path)).unwrap();
    assert_eq!((read("etc/below"), read("etc/above")), ("below".into(), "above".into()));
    assert_eq!(read(&format!("opt/env/lib/{}/text", "deep".repeat(40))), "text");
    let mode = |path: &str| fs::metadata(image.tree.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("opt/env/bin/tool"), mode("opt/env/lib")), (0o755, 0o755));
    assert_eq!(
        fs::read_link(image.tree.join("opt/env/bin/python")).unwrap(),
        Path::new("/opt/python")
    );
    let config = &image.record.config;
    assert_eq!(
        (config.env.join(" "), &*config.user),
        ("PATH=/opt/env/bin:/bin A=b".into(), "app")
    );
    // Times and owners of files do not count.
    let text = place.file(&format!("added/lib/{}/text", "deep".repeat(40)));
    fs::File::options()
        .write(true)
        .open(text)
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH)
        .unwrap();
    assert_eq!(
        place.build(&name, Target::File(&again, Some("ex.org/a:1"))).unwrap(),
        built
    );
    assert!(fs::read(file).unwrap() == fs::read(again).unwrap());
    // Nothing of it stays in the store.
    assert_eq!(fs::read_dir(place.file("store/images/blobs")).unwrap().count(), 0);
}

#[test]
fn an_image_of_docker_is_a_base_whose_layers_are_not_compressed() {
    let place = Place::new();
    let saved = place.file("saved.tar");
    fs::write(&saved, docker_archive(&[("own:1", &base())])).unwrap();
    let file = place.file("one.tar");
    let built = place
        .build(
            &format!("docker-archive:{}", saved.display()),
            Target::File(&file, None),
        )
        .unwrap();
    let image = place.pull(&format!("oci-archive:{}", file.display()));
    assert_eq!(image.record.digest, built.digest);
    assert_eq!(fs::read_to_string(image.tree.join("etc/below")).unwrap(), "below");
}

#[test]
fn a_push_sends_what_the_registry_does_not_have() {
    let (place, registry, other) = (Place::new(), Registry::start(), Registry::start());
    let name = registry.push("own/base", "1", &base());
    let to = format!("{}/own/built:2", registry.address);
    let first = place.push(&name, &to).unwrap();
    assert_eq!(how(&first), [How::Mounted, How::Mounted, How::Sent]);
    assert_eq!(
        registry.count(&format!("GET /v2/own/base/blobs/{}", base().layers[0])),
        0,
        "it is not fetched"
    );
    let puts = registry.count("PUT /v2/own/built/blobs");
    let second = place.push(&name, &to).unwrap();
    assert_eq!((how(&second), &second.digest), (vec![How::Present; 3], &first.digest));
    assert_eq!(registry.count("PUT /v2/own/built/blobs"), puts, "nothing is sent twice");
    assert_eq!(place.pull(&to).record.digest, first.digest);
    // Another registry has nothing of it, and breaks off twice.
    other.state().cut_uploads = 2;
    let elsewhere = place.push(&name, &format!("{}/a:1", other.address)).unwrap();
    assert_eq!(
        (how(&elsewhere), &elsewhere.digest),
        (vec![How::Sent; 3], &first.digest)
    );
}

#[test]
fn a_push_that_is_refused_says_why() {
    let (mut place, registry, base_at) = (Place::new(), Registry::start(), Registry::start());
    let name = base_at.push("own/base", "1", &base());
    let to = format!("{}/own/built:2", registry.address);
    let said = |place: &Place, to: &str| {
        let text = place.push(&name, to).unwrap_err().to_string();
        text.replace(&registry.address, "HOST")
    };
    registry.state().cut_uploads = 3;
    let text = said(&place, &to);
    let begins = "Image.Unreachable: The image HOST/own/built:2 cannot be sent to HOST now: ";
    let ends = ". Send it again: what the registry has by now is not sent twice.";
    assert!(text.starts_with(begins) && text.ends_with(ends), "{text}");
    registry.state().account = Some("ann:secret".into());
    expect!["Image.PushDenied: HOST does not take the image HOST/own/built:2 without an account. Log in with one that may push there: pfsession registry login HOST"].assert_eq(&said(&place, &to));
    accounts::keep(place.folder.path(), &registry.address, Some(("ann", "wrong"))).unwrap();
    place.accounts = Accounts::of(place.folder.path());
    expect!["Image.PushDenied: HOST does not take the image HOST/own/built:2 with the account that is given for it. Log in with one that may push there: pfsession registry login HOST"].assert_eq(&said(&place, &to));
    // The remedy.
    accounts::keep(place.folder.path(), &registry.address, Some(("ann", "secret"))).unwrap();
    registry.state().is_read_only = true;
    assert!(said(&place, &to).starts_with("Image.PushDenied: "));
    registry.state().is_read_only = false;
    place.push(&name, &to).unwrap();
    assert!(registry.count("scope=repository%3Aown%2Fbuilt%3Apull%2Cpush") > 0);
    expect!["Image.PushRefused: HOST refuses the image HOST/closed/a:1 (400 Bad Request): tags are immutable here. See that the repository is there and takes new tags, and send it again."].assert_eq(&said(&place, &format!("{}/closed/a:1", registry.address)));
}
