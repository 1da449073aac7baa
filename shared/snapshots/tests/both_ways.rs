//! Both ways to a flow folder, by the same suite: on this machine, and from a store, here a small
//! one that keeps what it is given. Stores of others are in `tests/on-aws`.

use aws_credential_types::Credentials;
use contract::snapshot::{Address, MOST_BYTES};
use expect_test::{Expect, expect};
use snapshots::{Fault, Folders, Opened, Store, digest};
use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Cursor, Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

/// The store's answer for a path: a status, and a body of this length that begins so.
#[derive(Clone)]
struct Answer {
    status: u16,
    body: Vec<u8>,
    length: u64,
}

#[derive(Clone, Default)]
struct Objects(Arc<Mutex<HashMap<String, Answer>>>);

impl Objects {
    fn put(&self, address: &Address, status: u16, body: &[u8]) {
        let answer = Answer {
            status,
            body: body.to_vec(),
            length: body.len() as u64,
        };
        self.0.lock().unwrap().insert(path(address), answer);
    }

    /// Serves on loopback until the test ends; gives back its address.
    fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let objects = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream);
                let mut first = String::new();
                let _ = reader.read_line(&mut first);
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                    line.clear();
                }
                let target = first.split(' ').nth(1).unwrap_or_default();
                assert!(
                    target.contains("X-Amz-Signature="),
                    "a request without a signature: {first}"
                );
                let found = objects
                    .0
                    .lock()
                    .unwrap()
                    .get(target.split('?').next().unwrap_or_default())
                    .cloned();
                let Answer { status, body, length } = found.unwrap_or(Answer {
                    status: 404,
                    body: Vec::new(),
                    length: 0,
                });
                let mut stream = reader.into_inner();
                let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(&body);
                let rest = length - body.len() as u64;
                let _ = std::io::copy(&mut std::io::repeat(0).take(rest), &mut stream);
            }
        });
        format!("http://{address}")
    }
}

fn path(address: &Address) -> String {
    format!("/{}/{}", address.bucket, address.key())
}

fn address(digest: String) -> Address {
    Address {
        bucket: "the-bucket".to_owned(),
        flow: flow_key(),
        digest,
    }
}

fn flow_key() -> String {
    "0f".repeat(16)
}

fn store(endpoint: &str) -> Store {
    let credentials = Credentials::new("id", "secret", Some("token".to_owned()), None, "test");
    Store::new(Some(endpoint), "eu-north-1", credentials, Duration::from_secs(10))
}

/// A flow of a repository, with an include.
fn flow_folder(root: &Path) -> PathBuf {
    let folder = root.join("repo/flow");
    fs::create_dir_all(root.join("repo/.git")).unwrap();
    fs::create_dir_all(&folder).unwrap();
    fs::write(root.join("repo/more.txt"), "six==1.16.0\n").unwrap();
    let file = "additional_includes:\n- ../more.txt\nenvironment:\n  python_requirements_txt: more.txt\nnodes: []\n";
    fs::write(folder.join("flow.dag.yaml"), file).unwrap();
    fs::write(folder.join("one.py"), "one").unwrap();
    folder
}

fn packed(folder: &Path) -> Vec<u8> {
    let view = flow::view::list(folder, &flow::include_root(folder)).unwrap();
    flow::snapshot::pack(&view, Cursor::new(Vec::new()))
        .unwrap()
        .into_inner()
}

/// The tests of both adapters.
async fn check_opens(folders: &Folders, flow: &str) {
    let opened = folders.open(&flow_key(), flow).await.unwrap();
    let lines = opened.environment().await.unwrap().requirements.unwrap().lines;
    assert_eq!(
        lines.iter().map(flow::Line::to_shown).collect::<Vec<_>>(),
        ["six==1.16.0"]
    );
    let view = opened.view().await.unwrap();
    let targets: Vec<_> = view
        .files
        .iter()
        .map(|file| file.target.display().to_string())
        .collect();
    assert_eq!(targets, ["flow.dag.yaml", "more.txt", "one.py"]);
    assert_eq!(flow::kind(opened.path()).unwrap().file(), Some("flow.dag.yaml"));
    // Asked again, it is the same.
    assert_eq!(folders.open(&flow_key(), flow).await.unwrap().path(), opened.path());
}

#[tokio::test]
async fn a_flow_folder_is_the_same_on_this_machine_and_from_a_store() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = flow_folder(temporary.path());
    check_opens(&Folders::here(), folder.to_str().unwrap()).await;

    let (objects, place) = (Objects::default(), temporary.path().join("place"));
    let bytes = packed(&folder);
    let address = address(digest(&bytes));
    objects.put(&address, 200, &bytes);
    let endpoint = objects.serve();
    let in_store = Folders::in_store(store(&endpoint), "the-bucket", &place, 1);
    check_opens(&in_store, &address.to_string()).await;
    let both = Folders::both(store(&endpoint), &place, 1);
    check_opens(&both, &address.to_string()).await;
    check_opens(&both, folder.to_str().unwrap()).await;
}

#[tokio::test]
async fn what_nobody_holds_any_more_is_taken_away() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = flow_folder(temporary.path());
    let objects = Objects::default();
    let folders = Folders::both(store(&objects.serve()), &temporary.path().join("place"), 1);
    let mut opened: Vec<Opened> = Vec::new();
    for text in ["one", "two", "three"] {
        fs::write(folder.join("one.py"), text).unwrap();
        let bytes = packed(&folder);
        let address = address(digest(&bytes));
        objects.put(&address, 200, &bytes);
        opened.push(folders.open(&flow_key(), &address.to_string()).await.unwrap());
    }
    let is_there = |at: usize| fs::read_to_string(opened[at].path().join("one.py")).ok();
    // Held by whoever runs from it, whatever came after.
    assert_eq!(is_there(0).as_deref(), Some("one"));
    let first = opened[0].path().to_owned();
    opened.remove(0);
    assert!(!first.exists());
    drop(opened);
    let left = fs::read_dir(temporary.path().join("place")).unwrap().count();
    assert_eq!(left, 1, "one is kept for the next run, and no file beside it");
}

async fn check_refused(folders: &Folders, name: &str, temporary: &str, expected: Expect) {
    let fault = folders.open(&flow_key(), name).await.unwrap_err();
    let word = match &fault {
        Fault::Wrong(_) => "final",
        Fault::NotNow(_) => "worth a retry",
    };
    let text = fault.to_string().replace(temporary, "PLACE");
    expected.assert_eq(&format!("{word}\n{text}\n"));
}

#[tokio::test]
async fn what_cannot_be_opened_says_why_and_what_to_do() {
    let temporary = tempfile::tempdir().unwrap();
    let place = temporary.path().to_str().unwrap();
    let objects = Objects::default();
    let endpoint = objects.serve();
    let folders = Folders::in_store(store(&endpoint), "the-bucket", &temporary.path().join("in"), 1);
    let of = |letter: &str| address(letter.repeat(64));
    objects.put(&of("b"), 403, b"");
    objects.put(&of("c"), 503, b"");
    objects.put(&of("d"), 200, b"something else");
    objects.0.lock().unwrap().insert(
        path(&of("e")),
        Answer {
            status: 200,
            body: Vec::new(),
            length: MOST_BYTES + 1,
        },
    );
    let no_zip = address(digest(b"no zip"));
    objects.put(&no_zip, 200, b"no zip");

    check_refused(&folders, "/home/ann/flow", place, expect![[r#"
        final
        Flow.NoSnapshot: The flow folder /home/ann/flow cannot be seen from here. Send the command with pfsession, which uploads it, or name the address of what was uploaded.
    "#]]).await;
    check_refused(&folders, "nothing of the kind", place, expect![[r#"
        final
        Flow.NoSnapshot: nothing of the kind cannot be seen from here. Send the command with pfsession, which uploads it, or name the address of what was uploaded.
    "#]]).await;
    check_refused(&folders, &of("a").to_string(), place, expect![[r#"
        final
        Snapshot.Missing: There is no s3://the-bucket/flows/0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa (any more). Send the flow again with pfsession, which uploads it.
    "#]]).await;
    check_refused(&folders, &of("b").to_string(), place, expect![[r#"
        final
        Snapshot.Refused: The store answers 403 to a request for s3://the-bucket/flows/0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb here: it is not there, or may not be read. Send the flow again with pfsession, which uploads it; if that does not help, give this role s3:GetObject there.
    "#]]).await;
    check_refused(
        &folders,
        &of("c").to_string(),
        place,
        expect![[r#"
        worth a retry
        Snapshot.Unreachable: The store of flow folders cannot be asked: it answered 503. Try again in a moment.
    "#]],
    )
    .await;
    check_refused(&folders, &of("d").to_string(), place, expect![[r#"
        final
        Snapshot.Damaged: What is at s3://the-bucket/flows/0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f/dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd is not what that name says. Delete that object, and send the flow again with pfsession.
    "#]]).await;
    check_refused(&folders, &of("e").to_string(), place, expect![[r#"
        final
        Snapshot.TooLarge: s3://the-bucket/flows/0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee has more than 256 MiB. Move out what the flow does not need, such as data and caches.
    "#]]).await;
    check_refused(&folders, &no_zip.to_string(), place, expect![[r#"
        final
        Snapshot.Unreadable: The snapshot of the flow folder cannot be read: invalid Zip archive: Could not find EOCD. Send the flow again with this version of pfsession.
    "#]]).await;
    let others = Address {
        flow: "1e".repeat(16),
        ..of("a")
    };
    check_refused(&folders, &others.to_string(), place, expect![[r#"
        final
        Snapshot.NotYours: s3://the-bucket/flows/1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa is no snapshot of this flow. Send the command with pfsession, which uploads the flow's own.
    "#]]).await;
    let elsewhere = Address {
        bucket: "another".to_owned(),
        ..of("a")
    };
    check_refused(&folders, &elsewhere.to_string(), place, expect![[r#"
        final
        Snapshot.NotYours: s3://another/flows/0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa is no snapshot of this flow. Send the command with pfsession, which uploads the flow's own.
    "#]]).await;
    assert_eq!(
        fs::read_dir(temporary.path().join("in")).unwrap().count(),
        0,
        "something is left"
    );

    let full = temporary.path().join("full");
    fs::write(&full, "no folder").unwrap();
    let nowhere = Folders::in_store(store(&endpoint), "the-bucket", &full, 1);
    check_refused(
        &nowhere,
        &of("a").to_string(),
        place,
        expect![[r#"
        final
        Snapshot.NoRoom: PLACE/full cannot be written: File exists (os error 17). Put that right, and try again.
    "#]],
    )
    .await;
    let gone = Folders::in_store(
        store("http://127.0.0.1:1"),
        "the-bucket",
        &temporary.path().join("in"),
        1,
    );
    check_refused(&gone, &of("a").to_string(), place, expect![[r#"
        worth a retry
        Snapshot.Unreachable: The store of flow folders cannot be asked: io: Connection refused (os error 111). Try again in a moment.
    "#]]).await;
    check_refused(&Folders::here(), &of("a").to_string(), place, expect![[r#"
        final
        Flow.NoSnapshot: The flow folder s3://the-bucket/flows/0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa cannot be seen from here. Send the command with pfsession, which uploads it, or name the address of what was uploaded.
    "#]]).await;
}

#[tokio::test]
async fn an_upload_is_bound_to_its_bytes_and_its_place_and_shows_itself_in_no_log() {
    let store = store("http://s3.example");
    let upload = store.upload(&address(digest(b"hello")), 5).await.unwrap();
    expect![[r#"
        {
            "content-length": "5",
            "x-amz-checksum-sha256": "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=",
        }
    "#]]
    .assert_debug_eq(&upload.headers);
    let query = upload.url.split_once('?').unwrap().1;
    assert!(
        upload
            .url
            .starts_with(&format!("http://s3.example{}?", path(&address(digest(b"hello")))))
    );
    for part in [
        "X-Amz-SignedHeaders=content-length%3Bhost%3Bx-amz-checksum-sha256",
        "X-Amz-Expires=600",
        "X-Amz-Security-Token=token",
    ] {
        assert!(query.split('&').any(|said| said == part), "{part} is not in {query}");
    }
    assert_eq!(format!("{upload:?}"), "Upload { .. }");
}

#[test]
fn the_templates_bucket_keeps_what_is_fresh_at_least_twice_as_long() {
    let template = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../infra/template.yaml")).unwrap();
    let days: u64 = template
        .split("ExpirationInDays: ")
        .nth(1)
        .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
        .expect("the template's bucket lets things expire");
    assert!(days * 24 * 3600 >= 2 * snapshots::FRESH.as_secs(), "{days} days");
}
