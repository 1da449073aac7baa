//! A broker between a reader and an index that is as bad as can be, both on loopback.

use broker::{Broker, Config, Credential, Fault, Feed, Kind, Names, Network, Roots};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use url::Url;

/// Status, headers as they are sent, body.
type Answer = (u16, String, Vec<u8>);

#[derive(Clone, Default)]
struct Index {
    host: String,
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
    /// Each request: its path, and its header lines.
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl Index {
    fn serve() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let index = Self {
            host: listener.local_addr().unwrap().to_string(),
            ..Self::default()
        };
        let served = index.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let index = served.clone();
                std::thread::spawn(move || index.talk(stream));
            }
        });
        index
    }

    fn talk(&self, stream: TcpStream) -> Option<()> {
        let mut writer = stream.try_clone().ok()?;
        let mut reader = BufReader::new(stream);
        loop {
            let (mut head, mut line) = (String::new(), String::new());
            while line != "\r\n" {
                line.clear();
                if reader.read_line(&mut line).ok()? == 0 {
                    return None;
                }
                head.push_str(&line);
            }
            let path = head.split(' ').nth(1)?.to_owned();
            self.asked
                .lock()
                .unwrap()
                .push((path.clone(), head.to_ascii_lowercase()));
            let answer = self.answers.lock().unwrap().get(&path).cloned();
            let (status, headers, body) = answer.unwrap_or((404, String::new(), Vec::new()));
            let body = if head.starts_with("HEAD") { &[][..] } else { &body };
            let length = if headers.contains("chunked") {
                String::new()
            } else {
                format!("content-length: {}\r\n", body.len())
            };
            write!(writer, "HTTP/1.1 {status} x\r\n{headers}{length}\r\n").ok()?;
            writer.write_all(body).ok()?;
        }
    }

    fn answer(&self, path: &str, status: u16, headers: &str, body: impl AsRef<[u8]>) {
        self.answers
            .lock()
            .unwrap()
            .insert(path.to_owned(), (status, headers.to_owned(), body.as_ref().to_vec()));
    }

    fn page(&self, path: &str, links: &str) {
        self.answer(path, 200, "content-type: text/html\r\n", links);
    }

    fn url(&self, path: &str) -> Url {
        Url::parse(&format!("http://{}{path}", self.host)).unwrap()
    }

    /// The header lines of the requests for a path.
    fn asked(&self, path: &str) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|(asked, _)| asked == path)
            .map(|(_, head)| head.clone())
            .collect()
    }
}

fn network() -> Network {
    Network {
        roots: Roots::Mozilla,
        http_proxy: None,
        https_proxy: None,
        no_proxy: Vec::new(),
        timeout: Duration::from_secs(2),
        retries: 0,
        is_offline: false,
    }
}

fn feed(index: &Index, secret: Option<&str>) -> Feed {
    Feed {
        url: index.url("/simple"),
        credential: secret.map(|secret| Credential {
            user: "me".into(),
            secret: secret.into(),
        }),
        kind: Kind::Index,
        names: Names::default(),
    }
}

fn config(feeds: Vec<Feed>, downloads: &Path) -> Config {
    Config {
        feeds,
        insecure: Vec::new(),
        network: network(),
        is_refreshing: false,
        downloads: downloads.to_owned(),
    }
}

/// Status, header lines, body; `None` if the answer ends before it should.
fn get(url: &str, headers: &str) -> Option<(u16, String, Vec<u8>)> {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_at(rest.find('/').unwrap());
    let mut stream = TcpStream::connect(host).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n"
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_ascii_lowercase();
    let body = answer.split_off(end + 4);
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let is_whole = match length {
        Some(length) => body.len() == length,
        None => body.ends_with(b"0\r\n\r\n"),
    };
    is_whole.then(|| (head.split(' ').nth(1).unwrap().parse().unwrap(), head.clone(), body))
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The URLs of the files on a package's page.
fn files(broker: &Broker, package: &str) -> Vec<String> {
    let address = broker.address(0);
    let (status, _, body) = get(&format!("{address}{package}/"), "").unwrap();
    assert_eq!(status, 200);
    let page: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let host = address.split('/').take(3).collect::<Vec<_>>().join("/");
    let urls = page["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| host.clone() + file["url"].as_str().unwrap());
    urls.collect()
}

#[test]
fn a_credential_goes_to_its_feed_and_not_where_the_feed_sends() {
    let place = tempfile::tempdir().unwrap();
    let (own, other) = (Index::serve(), Index::serve());
    let broker = Broker::start(config(
        vec![feed(&own, Some("s3cret")), feed(&other, None)],
        place.path(),
    ))
    .unwrap();
    let links = format!(
        "<a href='/f/a-1.whl'>x</a> <a href='http://{}/f/b-1.whl'>y</a>",
        other.host
    );
    own.page("/simple/a/", &links);
    own.answer(
        "/f/a-1.whl",
        302,
        &format!("location: http://{}/f/c-1.whl\r\n", other.host),
        "",
    );
    other.answer("/f/b-1.whl", 200, "", "b");
    other.answer("/f/c-1.whl", 200, "", "c");
    let urls = files(&broker, "a");
    let bodies: Vec<Vec<u8>> = urls.iter().map(|url| get(url, "").unwrap().2).collect();
    assert_eq!(bodies, [b"c", b"b"]);
    for path in ["/simple/a/", "/f/a-1.whl"] {
        assert!(
            own.asked(path)[0].contains("authorization: basic bwu6cznjcmv0"),
            "{path}"
        );
    }
    for path in ["/f/b-1.whl", "/f/c-1.whl"] {
        assert!(!other.asked(path)[0].contains("authorization"), "{path}");
    }
    // Nothing of a feed with a credential is shared: whoever knows a hash does not have the file
    // yet.
    let kept = std::fs::read_dir(place.path().join("files")).unwrap().count();
    assert_eq!(
        (kept, std::fs::read_dir(place.path().join("pages")).unwrap().count()),
        (0, 0)
    );
}

#[test]
fn a_file_is_shared_under_a_hash_that_was_checked_and_a_wrong_one_reaches_nobody() {
    let place = tempfile::tempdir().unwrap();
    let index = Index::serve();
    let (good, bad) = (vec![b'g'; 200_000], vec![b'b'; 200_000]);
    let links = format!(
        "<a href='/f/good-1.whl#sha256={0}'>x</a> <a href='/f/bad-1.whl#sha256={0}'>y</a> <a href='/f/bare-1.whl'>z</a> \
         <a href='/f/chunked-1.whl#sha256={0}'>y</a>",
        hash(&good)
    );
    index.page("/simple/a/", &links);
    index.answer("/f/bad-1.whl", 200, "", &bad);
    index.answer("/f/bare-1.whl", 200, "", &bad);
    let chunked = [format!("{:x}\r\n", bad.len()).as_bytes(), &bad, b"\r\n0\r\n\r\n"].concat();
    index.answer("/f/chunked-1.whl", 200, "transfer-encoding: chunked\r\n", chunked);
    let start = || Broker::start(config(vec![feed(&index, None)], place.path())).unwrap();
    let broker = start();
    let urls = files(&broker, "a");
    assert!(
        get(&urls[1], "").is_none_or(|(status, ..)| status != 200),
        "the wrong file came whole"
    );
    assert_eq!(
        broker.fault(),
        Some(Fault::HashMismatch {
            file: "bad-1.whl".into()
        })
    );
    assert!(
        get(&urls[3], "").is_none_or(|(status, ..)| status != 200),
        "the wrong file came whole, in chunks"
    );
    // Without a hash it is passed on, for this build alone.
    assert_eq!(get(&urls[2], "").unwrap().2, bad);
    let shared = || std::fs::read_dir(place.path().join("files")).unwrap().count();
    assert_eq!(shared(), 0);

    index.answer("/f/good-1.whl", 200, "", &good);
    assert_eq!(get(&urls[0], "").unwrap().2, good);
    assert_eq!(shared(), 1);
    // The next build has it without asking, and so has one of another index that states the same
    // hash.
    index.answer("/f/good-1.whl", 500, "", "");
    let next = start();
    let urls = files(&next, "a");
    assert_eq!(get(&urls[0], "").unwrap().2, good);
    let (status, head, part) = get(&urls[0], "range: bytes=10-19\r\n").unwrap();
    assert_eq!(
        (status, part.len(), head.contains("bytes 10-19/200000")),
        (206, 10, true)
    );
    assert_eq!(index.asked("/f/good-1.whl").len(), 1);
    // What is on the disk is checked too.
    let kept = place.path().join("files").join(&hash(&good)[..2]).join(hash(&good));
    std::fs::write(&kept, &bad).unwrap();
    assert!(get(&urls[0], "").is_none());
    assert!(!kept.exists());
}

#[test]
fn a_build_reaches_packages_and_links_and_no_other_path_or_broker() {
    let place = tempfile::tempdir().unwrap();
    let index = Index::serve();
    for path in ["/secret", "/simple/", "/simple/../secret/", "/"] {
        index.answer(path, 200, "content-type: text/html\r\n", "hidden");
    }
    index.page(
        "/simple/a/",
        "<a href='http://169.254.169.254/latest/a-1.whl'>x</a> <a href='http://127.0.0.1:9/a-2.whl'>y</a>",
    );
    let (broker, other) = (
        Broker::start(config(vec![feed(&index, None)], place.path())).unwrap(),
        Broker::start(config(vec![feed(&index, None)], place.path())).unwrap(),
    );
    let address = broker.address(0);
    let host = address.split('/').take(3).collect::<Vec<_>>().join("/");
    let foreign = format!(
        "{host}/{}",
        other.address(0).split('/').skip(3).collect::<Vec<_>>().join("/")
    );
    for bad in [
        format!("{address}../secret"),
        format!("{address}%2e%2e/secret"),
        format!("{address}..%2fsecret/"),
        format!("{address}a/../../secret"),
        address.clone(),
        address.replace("/index/0/", "/index/1/"),
        format!("{foreign}a/"),
        format!("{host}/a"),
        format!("{host}//simple/a/"),
    ] {
        assert_eq!(get(&bad, "").unwrap().0, 404, "{bad}");
    }
    let asked = index.asked.lock().unwrap().clone();
    assert!(asked.is_empty(), "{asked:?}");
    for url in files(&broker, "a") {
        assert_eq!(get(&url, "").unwrap().0, 424, "{url}");
    }
}

#[test]
fn a_feed_serves_the_packages_that_it_may_serve_and_no_other() {
    let downloads = tempfile::tempdir().unwrap();
    let index = Index::serve();
    let link = "<a href='/my_pack-1.0-py3-none-any.whl'>x</a>";
    index.page("/simple/my-pack/", link);
    index.page("/simple/My__Pack/", link);
    index.page("/simple/other/", "<a href='/other-1.0.tar.gz'>x</a>");
    let more = "<a href='/My.Pack-2.tar.gz'>x</a><a href='/my_pack_more-1.0.tar.gz'>x</a>";
    index.page("/links/", &format!("{link}{more}"));
    let names = || std::collections::BTreeSet::from(["my-pack".to_owned()]);
    let links = Feed {
        url: index.url("/links/"),
        kind: Kind::Links,
        ..feed(&index, None)
    };
    let of = |feed: &Feed, names| Feed { names, ..feed.clone() };
    let plain = feed(&index, None);
    let feeds = vec![
        of(&plain, Names::Only(names())),
        of(&plain, Names::AllBut(names())),
        of(&links, Names::Only(names())),
        of(&links, Names::AllBut(names())),
    ];
    let broker = Broker::start(config(feeds, downloads.path())).unwrap();
    let status = |feed: usize, package: &str| get(&format!("{}{package}/", broker.address(feed)), "").unwrap().0;
    for (package, expected) in [("my-pack", [200, 404]), ("My__Pack", [200, 404]), ("other", [404, 200])] {
        assert_eq!([status(0, package), status(1, package)], expected, "{package}");
    }
    let files = |feed: usize| {
        let page = String::from_utf8(get(&broker.address(feed), "").unwrap().2).unwrap();
        ["my_pack-1.0", "My.Pack-2", "my_pack_more-1.0"].map(|name| page.contains(name))
    };
    assert_eq!(files(2), [true, true, false]);
    assert_eq!(files(3), [false, false, true]);
}

#[test]
fn why_an_index_cannot_be_read_is_known_and_a_text_has_its_own_url() {
    let place = tempfile::tempdir().unwrap();
    let index = Index::serve();
    index.answer("/simple/refused/", 403, "", "");
    index.answer("/simple/slow/", 500, "", "");
    index.answer("/simple/text/", 200, "content-type: text/plain\r\n", "");
    let broker = Broker::start(config(vec![feed(&index, Some("s3cret"))], place.path())).unwrap();
    let address = broker.address(0);
    let status = |package: &str| get(&format!("{address}{package}/"), "").unwrap().0;
    assert_eq!((status("nothing"), broker.fault()), (404, None));
    let url = format!("http://{}/simple", index.host);
    assert_eq!(
        (status("refused"), broker.fault()),
        (403, Some(Fault::Refused { url: url.clone() }))
    );
    let why = "it answers with 500 Internal Server Error".to_owned();
    assert_eq!(
        (status("slow"), broker.fault()),
        (
            424,
            Some(Fault::Unreachable {
                url: format!("{url}/slow/"),
                why
            })
        )
    );
    assert_eq!(status("text"), 424);
    assert!(matches!(broker.fault(), Some(Fault::Unreachable { why, .. }) if why.contains("no page of an index")));
    let told = broker.without_broker(&format!(
        "failed to fetch `{address}slow/` of {address} ({})",
        address.trim_end_matches('/')
    ));
    assert_eq!(told, format!("failed to fetch `{url}/slow/` of {url}/ ({url})"));
}

#[test]
fn a_page_is_kept_as_long_as_its_index_says_and_asked_for_anew_where_that_is_wanted() {
    let place = tempfile::tempdir().unwrap();
    let index = Index::serve();
    let headers = |control: &str| format!("content-type: text/html\r\netag: \"1\"\r\ncache-control: {control}\r\n");
    for (package, control) in [
        ("fresh", "max-age=600, public"),
        ("stale", "max-age=0"),
        ("never", "no-store"),
    ] {
        index.answer(
            &format!("/simple/{package}/"),
            200,
            &headers(control),
            "<a href='/f/a-1.whl'>x</a>",
        );
    }
    let read = |is_refreshing: bool| {
        let config = config(vec![feed(&index, None)], place.path());
        let broker = Broker::start(Config {
            is_refreshing,
            ..config
        })
        .unwrap();
        for package in ["fresh", "stale", "never"] {
            assert_eq!(files(&broker, package).len(), 1, "{package}");
        }
    };
    let counts = || ["fresh", "stale", "never"].map(|package| index.asked(&format!("/simple/{package}/")).len());
    read(false);
    assert_eq!(counts(), [1, 1, 1]);
    index.answer("/simple/stale/", 304, "", "");
    read(false);
    assert_eq!(counts(), [1, 2, 2]);
    assert!(index.asked("/simple/stale/")[1].contains("if-none-match: \"1\""));
    index.page("/simple/stale/", "<a href='/f/a-1.whl'>x</a>");
    read(true);
    assert_eq!(counts(), [2, 3, 3]);
    assert!(!index.asked("/simple/stale/")[2].contains("if-none-match"));
}
