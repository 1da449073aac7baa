//! The files of an image: where its Python is, who its user is, and how a sandbox has it as its
//! root.

use images::Config;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::Path,
};

/// The id of a session inside, where its image names none, or root.
pub(crate) const SESSION: (u32, &str) = (sandbox::UID, "session");

pub(crate) fn path(config: &Config) -> &str {
    let path = config.env.iter().rev().find_map(|each| each.strip_prefix("PATH="));
    path.filter(|path| !path.is_empty()).unwrap_or(images::DEFAULT_PATH)
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

pub(crate) fn find_python(tree: &Path, config: &Config) -> Option<String> {
    let folders = path(config).split(':').filter(|folder| folder.starts_with('/'));
    let programs =
        folders.flat_map(|folder| ["python3", "python"].map(|name| format!("{}/{name}", folder.trim_end_matches('/'))));
    programs.into_iter().find(|program| {
        let about = open_inside(tree, program, OFlags::PATH).and_then(|opened| fs::File::from(opened).metadata());
        about.is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    })
}

/// The id and the name that an image's user has.
pub(crate) fn user(tree: &Path, named: &str) -> (u32, String) {
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

pub(crate) fn under(tree: &Path, layer: &Path, uid: u32, name: &str, workdir: &str) -> io::Result<sandbox::Image> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
