//! The environment of a flow's session as a Dockerfile.

use crate::{
    text::short,
    trouble::{FAILED, NONE, Trouble},
};
use contract::{
    Code, Failure,
    http::SessionView,
    packages::{Package, PackageOrigin, PackagesRow},
};
use environments::locked::Locked;
use images::{Name, Store};
use schemars::JsonSchema;
use serde::Serialize;
use std::path::Path;

/// A Dockerfile, as `image dockerfile` prints it.
#[derive(Serialize, JsonSchema)]
pub(crate) struct DockerfileView {
    /// Its base.
    base: String,
    /// The lock that it installs.
    lock: String,
    pub(crate) dockerfile: String,
}

/// The parts of a Dockerfile.
struct Contents<'a> {
    flow: &'a str,
    lock: &'a str,
    base: &'a Base,
    locked: &'a Locked,
    /// The options of the requirements that say where packages come from.
    options: Vec<String>,
    by_hand: Vec<&'a Package>,
}

/// Its base.
#[derive(Debug, PartialEq, Eq)]
struct Base {
    name: String,
    /// Whether it is the built-in one's Python, which is a Debian.
    is_python: bool,
    /// The user of its processes, if that is not root.
    user: Option<String>,
}

/// The folder of the build's files in the image.
const PLACE: &str = "/opt/pfsession";

/// A flow's session, as far as a Dockerfile is about it.
pub(crate) struct Of<'a> {
    /// The flow as it was typed.
    pub(crate) typed: &'a str,
    /// The packages installed last.
    pub(crate) row: &'a PackagesRow,
    pub(crate) session: Option<&'a SessionView>,
}

/// Makes the Dockerfile of a session.
///
/// # Errors
///
/// `Install.NoSuchLock`, until it is installed anew; `Image.NoRegistry`, as long as its image is a
/// file; `Image.*`.
pub(crate) fn make(state: &Path, of: &Of<'_>) -> Result<DockerfileView, Box<Trouble>> {
    let (named, locked) = named_and_lock(state, of)?;
    let Of { typed, row, .. } = of;
    let base = match named {
        Some((image, digest)) => base_of(image, digest, state)?,
        None => Base {
            name: python_image(&locked),
            is_python: true,
            user: None,
        },
    };
    let by_hand = row
        .packages
        .iter()
        .filter(|package| package.origin == PackageOrigin::ByHand);
    let dockerfile = dockerfile(&Contents {
        flow: typed.rsplit('/').next().unwrap_or_default(),
        lock: &row.lock,
        base: &base,
        locked: &locked,
        options: options(row),
        by_hand: by_hand.collect(),
    });
    Ok(DockerfileView {
        base: base.name,
        lock: row.lock.clone(),
        dockerfile,
    })
}

/// The base of an image with the environment of a session, and the packages to install over it.
///
/// # Errors
///
/// `Install.NoSuchLock`, until it is installed anew.
pub(super) fn base_and_lock(state: &Path, of: &Of<'_>) -> Result<(String, Locked), Box<Trouble>> {
    let (named, locked) = named_and_lock(state, of)?;
    let base = match named {
        Some((image, Some(digest))) => {
            let parsed: Name = image.parse().map_err(|failure| Trouble::of(FAILED, failure))?;
            parsed.pinned(&digest)
        }
        Some((image, None)) => image.to_owned(),
        None => python_image(&locked),
    };
    Ok((base, locked))
}

/// An image by its name, with its digest if that is known.
type NamedImage<'a> = (&'a str, Option<String>);

/// The image that a session names, with its digest, and its lock. No image if it is built in.
fn named_and_lock<'a>(
    state: &Path,
    Of { typed, row, session }: &Of<'a>,
) -> Result<(Option<NamedImage<'a>>, Locked), Box<Trouble>> {
    let named = session.and_then(|session| session.image.as_ref());
    let named = named.filter(|image| !environments::is_built_in(&image.value));
    let locked =
        environments::locked::read(state, &row.lock, named.is_some()).ok_or_else(|| no_lock(&row.lock, typed))?;
    let digest = session.and_then(|session| session.image_digest.clone());
    Ok((named.map(|image| (&*image.value, digest)), locked))
}

/// Docker's image of the Python that the built-in base images are on.
fn python_image(locked: &Locked) -> String {
    format!("docker.io/library/python:{}-slim", locked.python)
}

fn no_lock(lock: &str, typed: &str) -> Box<Trouble> {
    let message = format!("The lock {} of {typed} is not on this machine any more", short(lock, 8));
    Trouble::new(NONE, Code::InstallNoSuchLock, message).next(format!("make it anew: pfsession install {typed}"))
}

/// An image by its digest, where that is known.
fn base_of(name: &str, digest: Option<String>, state: &Path) -> Result<Base, Box<Trouble>> {
    let parsed: Name = name.parse().map_err(|failure| Trouble::of(FAILED, failure))?;
    if matches!(parsed, Name::DockerArchive(..) | Name::OciArchive(..)) {
        let message = format!("The base image {name} is a file, and a Dockerfile can name none");
        return Err(Trouble::new(FAILED, Code::ImageNoRegistry, message)
            .next("push it to a registry, and name it there: pfsession reset FLOW --image REGISTRY/NAME:TAG"));
    }
    let store = Store::open(&environments::store_folder(state)).map_err(|error| {
        let message = format!("{} cannot be used: {error}. Put that right.", state.display());
        Trouble::of(FAILED, Failure::new(Code::ImageFailed, message))
    })?;
    let digest = digest.or_else(|| store.known_digest(&parsed));
    let user = digest
        .as_ref()
        .and_then(|digest| store.find(digest))
        .map(|image| image.record.config.user);
    Ok(Base {
        name: match &parsed {
            // An engine builds on its own images by their plain names.
            Name::Engine(_, image) => image.clone(),
            _ => digest.map_or_else(|| parsed.to_string(), |digest| parsed.pinned(&digest)),
        },
        is_python: false,
        user: user.filter(|user| !matches!(user.split(':').next(), None | Some("" | "root" | "0"))),
    })
}

/// The options of the requirements that say where packages come from; those that decide between
/// versions have done so.
fn options(row: &PackagesRow) -> Vec<String> {
    const KEPT: [&str; 10] = [
        "-i",
        "--index-url",
        "--extra-index-url",
        "-f",
        "--find-links",
        "--no-index",
        "--no-binary",
        "--only-binary",
        "--prefer-binary",
        "--trusted-host",
    ];
    let is_kept = |line: &&String| KEPT.contains(&line.split(' ').next().unwrap_or_default());
    let own = |line: &String| match line.split(' ').collect::<Vec<_>>()[..] {
        // The hashes of the lock hold what comes from there.
        [flow::INDEX_OF, _, url] => Some(format!("--extra-index-url {url}")),
        _ => None,
    };
    let mut options: Vec<String> = row.requirements.iter().filter(is_kept).cloned().collect();
    for option in row.requirements.iter().filter_map(own) {
        if !options.contains(&option) {
            options.push(option);
        }
    }
    options
}

/// An option without the account in its URL, and whether it had one.
fn without_account(option: &str) -> (String, bool) {
    let Some((before, rest)) = option.split_once("://") else {
        return (option.to_owned(), false);
    };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((_, host)) => (format!("{before}://{host}{}", &rest[end..]), true),
        None => (option.to_owned(), false),
    }
}

fn dockerfile(contents: &Contents<'_>) -> String {
    let Contents {
        flow,
        lock,
        base,
        locked,
        options,
        by_hand,
    } = contents;
    let options: Vec<(String, bool)> = options.iter().map(|option| without_account(option)).collect();
    let is_private = options.iter().any(|(_, had_account)| *had_account);
    let options: String = options.into_iter().map(|(option, _)| option + "\n").collect();
    let mut text = format!(
        "# syntax=docker/dockerfile:1\n# The environment of {flow} as its session has it: lock {}, Python {}.\n",
        short(lock, 8),
        locked.python
    );
    text += match is_private {
        false => "# Build it: docker build -t IMAGE - < Dockerfile\n",
        true => {
            "# An index wants an account, which is in no layer: your .netrc has it.\n\
             # Build it: docker build --secret id=netrc,src=$HOME/.netrc -t IMAGE - < Dockerfile\n"
        }
    };
    if !by_hand.is_empty() {
        let names: Vec<&str> = by_hand.iter().map(|package| package.name.as_str()).collect();
        text += &format!(
            "# What a run has installed by hand is not in it: {}.\n",
            names.join(", ")
        );
    }
    text += &format!("FROM {}\n", base.name);
    if base.user.is_some() {
        text += "USER root\n";
    }
    if locked.bare.iter().any(|line| line.contains("git+")) {
        text += match base.is_python {
            true => {
                "RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*\n"
            }
            false => "# Packages below come from repositories: the image needs git.\n",
        };
    }
    let bare: String = locked.bare.iter().map(|line| ::flow::redact(line) + "\n").collect();
    for (file, lines, more) in [
        ("requirements.txt", &locked.hashed, " --require-hashes"),
        ("without-hashes.txt", &bare, ""),
    ] {
        if lines.is_empty() {
            continue;
        }
        let secret = match is_private {
            true => "--mount=type=secret,id=netrc NETRC=/run/secrets/netrc ",
            false => "",
        };
        text += &format!(
            "COPY <<'EOF' {PLACE}/{file}\n{options}{lines}EOF\n\
             RUN {secret}PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --no-cache-dir --no-deps{more} \
             -r {PLACE}/{file}\n"
        );
    }
    if let Some(user) = &base.user {
        text += &format!("USER {user}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(base: &Base, locked: &Locked, options: &[&str], by_hand: &[&Package], expected: Expect) {
        expected.assert_eq(&dockerfile(&Contents {
            flow: "my-flow",
            lock: "873ebe6a1fcb7e6b143c2d9d027e8eb7",
            base,
            locked,
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            by_hand: by_hand.to_vec(),
        }));
    }

    #[test]
    fn a_dockerfile_installs_what_the_lock_says_over_the_python_of_the_session() {
        let base = Base {
            name: "docker.io/library/python:3.11.7-slim".into(),
            is_python: true,
            user: None,
        };
        let locked = Locked {
            hashed: "cowsay==6.1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n".into(),
            bare: Vec::new(),
            python: "3.11.7".into(),
        };
        check(
            &base,
            &locked,
            &[],
            &[],
            expect![[r#"
            # syntax=docker/dockerfile:1
            # The environment of my-flow as its session has it: lock 873ebe6a, Python 3.11.7.
            # Build it: docker build -t IMAGE - < Dockerfile
            FROM docker.io/library/python:3.11.7-slim
            COPY <<'EOF' /opt/pfsession/requirements.txt
            cowsay==6.1 \
                --hash=sha256:aa \
                --hash=sha256:bb
            EOF
            RUN PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --no-cache-dir --no-deps --require-hashes -r /opt/pfsession/requirements.txt
        "#]],
        );
    }

    #[test]
    fn repositories_private_indexes_and_the_user_of_an_image_are_in_a_dockerfile_and_no_account_is() {
        let base = Base {
            name: "ex.org/a:1@sha256:00".into(),
            is_python: false,
            user: Some("app".into()),
        };
        let locked = Locked {
            hashed: "a==1 \\\n    --hash=sha256:aa\nd @ https://h/d-1.whl \\\n    --hash=sha256:dd\n".into(),
            bare: vec!["b @ git+https://h/b.git@c0ffee".into()],
            python: "3.12.1".into(),
        };
        let options = [
            "-i https://***@feed.example/simple",
            "--extra-index-url https://open.example/simple",
            "--only-binary a",
        ];
        let by_hand = Package {
            name: "tiny".into(),
            version: "1".into(),
            origin: PackageOrigin::ByHand,
            named: None,
            asked_by: Vec::new(),
        };
        check(
            &base,
            &locked,
            &options,
            &[&by_hand],
            expect![[r#"
            # syntax=docker/dockerfile:1
            # The environment of my-flow as its session has it: lock 873ebe6a, Python 3.12.1.
            # An index wants an account, which is in no layer: your .netrc has it.
            # Build it: docker build --secret id=netrc,src=$HOME/.netrc -t IMAGE - < Dockerfile
            # What a run has installed by hand is not in it: tiny.
            FROM ex.org/a:1@sha256:00
            USER root
            # Packages below come from repositories: the image needs git.
            COPY <<'EOF' /opt/pfsession/requirements.txt
            -i https://feed.example/simple
            --extra-index-url https://open.example/simple
            --only-binary a
            a==1 \
                --hash=sha256:aa
            d @ https://h/d-1.whl \
                --hash=sha256:dd
            EOF
            RUN --mount=type=secret,id=netrc NETRC=/run/secrets/netrc PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --no-cache-dir --no-deps --require-hashes -r /opt/pfsession/requirements.txt
            COPY <<'EOF' /opt/pfsession/without-hashes.txt
            -i https://feed.example/simple
            --extra-index-url https://open.example/simple
            --only-binary a
            b @ git+https://h/b.git@c0ffee
            EOF
            RUN --mount=type=secret,id=netrc NETRC=/run/secrets/netrc PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --no-cache-dir --no-deps -r /opt/pfsession/without-hashes.txt
            USER app
        "#]],
        );
    }

    #[test]
    fn an_image_of_a_file_is_refused_with_what_to_do() {
        let state = tempfile::tempdir().unwrap();
        expect![[r#"
            error: The base image docker-archive:/tmp/a.tar is a file, and a Dockerfile can name none [Image.NoRegistry]
              next: push it to a registry, and name it there: pfsession reset FLOW --image REGISTRY/NAME:TAG"#]]
        .assert_eq(
            &base_of("docker-archive:/tmp/a.tar", None, state.path())
                .unwrap_err()
                .to_string(),
        );
        let pinned = base_of("ex.org/a:1", Some(format!("sha256:{}", "0".repeat(64))), state.path()).unwrap();
        assert_eq!(pinned.name, format!("ex.org/a:1@sha256:{}", "0".repeat(64)));
    }
}
