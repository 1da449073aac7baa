//! A view as one file, and back.

use crate::tree::{Tree, shown};
use expect_test::{Expect, expect};
use flow::{Reach, snapshot};
use std::{
    fs,
    io::{Cursor, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, SystemTime},
};
use zip::write::SimpleFileOptions;

const FILES: &[(&str, &str)] = &[
    (
        "flow.dag.yaml",
        "additional_includes:\n- ../shared/requirements.txt\n- ../shared/helpers\n- ../shared/kit.zip\nenvironment:\n  python_requirements_txt: requirements.txt\n",
    ),
    ("one.py", "one"),
    ("run.sh", "#!/bin/sh"),
    ("empty/", ""),
    (".venv/pyvenv.cfg", "no run needs it"),
    ("__pycache__/one.pyc", "nor this"),
    ("linked.py", "-> ../shared/helpers/h.py"),
    ("/repo/shared/requirements.txt", "six==1.16.0\n-r helpers/more.txt\n"),
    ("/repo/shared/helpers/h.py", "h"),
    ("/repo/shared/helpers/more.txt", "flask\n"),
    ("/repo/shared/kit/k.py", "k"),
];

fn packed(folder: &Path) -> Vec<u8> {
    let view = flow::view::list(folder, &flow::include_root(folder)).unwrap();
    snapshot::pack(&view, Cursor::new(Vec::new())).unwrap().into_inner()
}

#[test]
fn a_snapshot_is_the_same_whatever_the_times_and_the_order_of_the_files() {
    let tree = Tree::new(FILES);
    let backwards: Vec<_> = FILES.iter().rev().copied().collect();
    let other = Tree::new(&backwards);
    let program = fs::Permissions::from_mode(0o700);
    fs::set_permissions(tree.at("run.sh"), program.clone()).unwrap();
    fs::set_permissions(other.at("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    let file = fs::File::options().write(true).open(other.at("one.py")).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(1_000_000))
        .unwrap();
    let first = packed(&tree.folder());
    assert!(first == packed(&other.folder()), "the same folder has two snapshots");
    fs::write(other.at("one.py"), "two").unwrap();
    assert!(first != packed(&other.folder()), "another folder has the same snapshot");
    fs::write(other.at("one.py"), "one").unwrap();
    fs::set_permissions(other.at("run.sh"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(first != packed(&other.folder()), "a program is no other file");
}

#[test]
fn what_is_laid_out_again_has_the_environment_and_the_view_of_its_folder() {
    let tree = Tree::new(FILES);
    fs::set_permissions(tree.at("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    let to = tree.at("/laid");
    fs::create_dir(&to).unwrap();
    snapshot::lay_out(Cursor::new(packed(&tree.folder())), &to).unwrap();
    let root = flow::include_root(&tree.folder());
    let view = flow::view::list(&tree.folder(), &root).unwrap();
    let plain = tree.at("/plain");
    flow::view::copy_into(&view, &plain).unwrap();
    let binary = |folder: &Path| fs::read(folder.join("kit.zip")).unwrap();
    assert!(binary(&to) == binary(&plain));
    fs::remove_file(to.join("kit.zip")).unwrap();
    fs::remove_file(plain.join("kit.zip")).unwrap();
    assert_eq!(shown(&to), shown(&plain));
    let mode = |file: &str| fs::metadata(to.join(file)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("run.sh"), mode("one.py")), (0o755, 0o644));
    // Its includes are in it, and are not looked for again.
    let lines = |requirements: Option<flow::Requirements>| -> Vec<String> {
        requirements.unwrap().lines.iter().map(flow::Line::to_shown).collect()
    };
    let of_folder = flow::environment(&tree.folder(), &root).unwrap();
    let of_view = flow::environment(&to, Reach::View).unwrap();
    assert_eq!(lines(of_view.requirements), lines(of_folder.requirements));
    let again = flow::view::list(&to, Reach::View).unwrap();
    assert_eq!(again.files.len(), view.files.len());
    assert_eq!(again.warnings, Vec::<String>::new());
}

fn check_refused(write: impl FnOnce(&mut zip::ZipWriter<Cursor<Vec<u8>>>), expected: Expect) {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    write(&mut zip);
    check_bytes(zip.finish().unwrap().into_inner(), expected);
}

fn check_bytes(bytes: Vec<u8>, expected: Expect) {
    let to = tempfile::tempdir().unwrap();
    let inside = to.path().join("in");
    fs::create_dir(&inside).unwrap();
    let failure = snapshot::lay_out(Cursor::new(bytes), &inside).unwrap_err();
    expected.assert_eq(&failure.to_string());
    assert_eq!(
        fs::read_dir(to.path()).unwrap().count(),
        1,
        "something was written beside it"
    );
}

#[test]
fn what_is_no_snapshot_is_refused_and_leads_nowhere() {
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    check_bytes(
        b"no zip".to_vec(),
        expect![
            "Snapshot.Unreadable: The snapshot of the flow folder cannot be read: invalid Zip archive: Could not find EOCD. Send the flow again with this version of pfsession."
        ],
    );
    check_refused(
        |zip| zip.start_file("../out.py", stored).unwrap(),
        expect![[
            r#"Snapshot.Unreadable: The snapshot of the flow folder cannot be read: "../out.py" is no file of a flow folder. Send the flow again with this version of pfsession."#
        ]],
    );
    check_refused(
        |zip| zip.start_file("/out.py", stored).unwrap(),
        expect![[
            r#"Snapshot.Unreadable: The snapshot of the flow folder cannot be read: "/out.py" is no file of a flow folder. Send the flow again with this version of pfsession."#
        ]],
    );
    check_refused(
        |zip| zip.add_symlink("link", "/etc", stored).unwrap(),
        expect![[
            r#"Snapshot.Unreadable: The snapshot of the flow folder cannot be read: "link" is no file of a flow folder. Send the flow again with this version of pfsession."#
        ]],
    );
    check_refused(
        |zip| {
            for at in 0..=flow::view::MOST_FILES {
                zip.add_directory(format!("d{at}"), stored).unwrap();
            }
        },
        expect![
            "Snapshot.TooLarge: The snapshot of the flow folder holds more than 10000 files and folders. Move out what the flow does not need, such as data and caches."
        ],
    );
    check_refused(
        |zip| {
            let half = vec![0; usize::try_from(flow::view::MOST_BYTES / 2 + 1).unwrap()];
            for name in ["one", "two"] {
                zip.start_file(name, stored).unwrap();
                zip.write_all(&half).unwrap();
            }
        },
        expect![
            "Snapshot.TooLarge: The snapshot of the flow folder holds more than 200 MiB. Move out what the flow does not need, such as data and caches."
        ],
    );
}

#[test]
fn a_snapshot_for_which_there_is_no_room_says_so() {
    let tree = Tree::new(FILES);
    let missing = tree.at("/laid");
    fs::create_dir(&missing).unwrap();
    fs::write(missing.join("one.py"), "somebody else's").unwrap();
    let failure = snapshot::lay_out(Cursor::new(packed(&tree.folder())), &missing).unwrap_err();
    expect!["Snapshot.NoRoom: The snapshot of the flow folder cannot be laid out: File exists (os error 17). Free some room on the disk, and try again."].assert_eq(&failure.to_string());
}
