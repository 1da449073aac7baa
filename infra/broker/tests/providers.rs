//! A broker between a flow and its model provider, both on loopback.

use broker::{Header, Network, Provider, Providers, Roots, Way};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Mutex,
        mpsc::{Receiver, channel},
    },
    time::Duration,
};
use url::Url;

const KEY: &str = "hidden-key-of-a-provider";
const BOUND: Duration = Duration::from_secs(20);

/// A provider that says what it was asked. A stream goes on when the receiver hears.
fn provider(go_on: Receiver<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let go_on = Mutex::new(go_on);
        std::thread::scope(|scope| {
            for stream in listener.incoming().flatten() {
                scope.spawn(|| talk(stream, &go_on));
            }
        });
    });
    address
}

fn talk(mut stream: TcpStream, go_on: &Mutex<Receiver<()>>) -> Option<()> {
    stream.set_read_timeout(Some(BOUND)).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut head, mut line, mut length) = (String::new(), String::new(), 0);
    while line != "\r\n" {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = text.trim().parse().ok()?;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let path = head.split(' ').nth(1)?.to_owned();
    let say = |stream: &mut TcpStream, status: &str, headers: &str, body: &str| {
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
        .ok()
    };
    match path.as_str() {
        "/v1/away" => say(&mut stream, "302 Found", "location: http://127.0.0.1:1/\r\n", ""),
        "/v1/packed" => say(&mut stream, "200 OK", "content-encoding: br\r\n", "x"),
        "/v1/busy" => say(&mut stream, "429 Too Many", "retry-after: 7\r\n", "busy"),
        "/v1/stream" => {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
            stream.write_all(head.as_bytes()).ok()?;
            for part in ["data: one\n\n", "data: two\n\n"] {
                stream.write_all(part.as_bytes()).ok()?;
                go_on.lock().unwrap().recv_timeout(BOUND).ok()?;
            }
            Some(())
        }
        _ => {
            let said = format!("{head}{}", String::from_utf8_lossy(&body));
            let headers = format!("x-said: {KEY}\r\n");
            say(&mut stream, "200 OK", &headers, &said)
        }
    }
}

fn broker() -> Providers {
    Providers::start(Network {
        roots: Roots::Mozilla,
        http_proxy: None,
        https_proxy: None,
        no_proxy: Vec::new(),
        timeout: BOUND,
        retries: 0,
        is_offline: false,
    })
    .unwrap()
}

fn way(broker: &Providers, address: &str, header: Header) -> Way {
    let provider = Provider {
        address: Url::parse(&format!("http://{address}/v1")).unwrap(),
        key: KEY.into(),
        header,
    };
    broker.open(provider).unwrap()
}

fn ask(broker: &Providers, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(broker.address()).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// All that is answered to a request.
fn answer(broker: &Providers, request: &str) -> String {
    let mut text = String::new();
    ask(broker, request).read_to_string(&mut text).unwrap();
    text
}

fn get(broker: &Providers, path: &str) -> String {
    answer(broker, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"))
}

#[test]
fn a_provider_gets_the_key_and_no_answer_has_it() {
    let (_go_on, heard) = channel();
    let address = provider(heard);
    let broker = broker();
    for (header, is_sent) in [
        (Header::Bearer, format!("authorization: Bearer {KEY}")),
        (Header::ApiKey, format!("api-key: {KEY}")),
    ] {
        let way = way(&broker, &address, header);
        let request = format!(
            "POST {}/chat?x=1 HTTP/1.1\r\nhost: 192.0.0.1\r\nauthorization: Bearer other\r\napi-key: other\r\naccept-encoding: br\r\nx-own: mine\r\n\
             content-length: 5\r\n\r\nhello",
            way.path()
        );
        let said = answer(&broker, &request);
        let stars = "*".repeat(KEY.len());
        assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
        assert!(said.contains("POST /v1/chat?x=1 HTTP/1.1"), "{said}");
        assert!(said.contains(&is_sent.replace(KEY, &stars)), "{said}");
        assert!(said.contains(&format!("x-said: {stars}")), "{said}");
        assert!(
            said.contains("x-own: mine") && said.contains(&format!("host: {address}")),
            "{said}"
        );
        assert!(
            said.contains("\r\n\r\nhello\r\n") && said.ends_with("\r\n0\r\n\r\n"),
            "{said}"
        );
        assert!(said.contains("accept-encoding: identity"), "{said}");
        assert!(!said.contains(KEY) && !said.contains("other"), "{said}");
    }
    let way = way(&broker, &address, Header::Bearer);
    let busy = get(&broker, &format!("{}/busy", way.path()));
    assert!(
        busy.starts_with("HTTP/1.1 429 ") && busy.contains("retry-after: 7"),
        "{busy}"
    );
}

#[test]
fn a_stream_comes_as_it_is_made() {
    let (go_on, heard) = channel();
    let broker = broker();
    let way = way(&broker, &provider(heard), Header::Bearer);
    let mut stream = ask(&broker, &format!("GET {}/stream HTTP/1.1\r\n\r\n", way.path()));
    let (mut text, mut part) = (String::new(), [0; 4096]);
    for (word, other) in [("one", "two"), ("two", "three")] {
        while !text.contains(word) {
            let count = stream.read(&mut part).unwrap();
            assert_ne!(count, 0, "{text}");
            text += std::str::from_utf8(&part[..count]).unwrap();
        }
        assert!(!text.contains(other), "{text}");
        go_on.send(()).unwrap();
    }
}

#[test]
fn what_is_not_for_the_connections_own_host_and_path_is_refused() {
    let (_go_on, heard) = channel();
    let address = provider(heard);
    let broker = broker();
    let open = way(&broker, &address, Header::Bearer);
    let path = open.path();
    let token = open.token().to_owned();
    let over = way(&broker, &address, Header::Bearer).path();
    let long = "x".repeat(70_000);
    let mut said = Vec::new();
    for request in [
        format!("GET {path}/away HTTP/1.1\r\n\r\n"),
        format!("GET {path}/packed HTTP/1.1\r\n\r\n"),
        format!("GET {over}/chat HTTP/1.1\r\n\r\n"),
        "GET /v1/chat HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET /{token}/v2/chat HTTP/1.1\r\n\r\n"),
        format!("GET {path}/../v2 HTTP/1.1\r\n\r\n"),
        format!("CONNECT {path}/chat HTTP/1.1\r\n\r\n"),
        format!("GET {path}/chat HTTP/1.1\r\nupgrade: websocket\r\n\r\n"),
        format!("POST {path}/chat HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("POST {path}/chat HTTP/1.1\r\ncontent-length: 1000000000\r\n\r\n"),
        format!("POST {path}/chat HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"),
        format!("GET {path}/chat HTTP/1.1\r\nx: {long}\r\n\r\n"),
        "no request\r\n\r\n".to_owned(),
    ] {
        let answer = answer(&broker, &request);
        let status = answer.split(' ').nth(1).unwrap().to_owned();
        let body = answer.rsplit("\r\n").next().unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let message = body["error"]["message"].as_str().unwrap().replace(&address, "HOST");
        said.push(format!("{status} {message}"));
    }
    expect_test::expect![[r#"
        502 http://HOST/v1/away sends elsewhere, which is not followed.
        502 The provider answers in an encoding that nobody asked for.
        404 There is no such connection, or its run is over.
        404 There is no such connection, or its run is over.
        403 The path is not below the address of the connection.
        403 The path is not below the address of the connection.
        405 The broker forwards no request of this method.
        501 The broker forwards no WebSocket.
        411 The broker takes a body whose length the request says.
        413 The request's body has more than 512 MiB.
        400 The request says the length of its body more than once.
        431 The request's headers are too large.
        400 That is no request."#]]
    .assert_eq(&said.join("\n"));
    drop(open);
    assert!(get(&broker, &format!("{path}/chat")).starts_with("HTTP/1.1 404 "));
}

#[test]
fn a_connection_that_a_broker_cannot_hold_says_why() {
    let broker = broker();
    let said = |address: &str, key: &str| {
        let provider = Provider {
            address: Url::parse(address).unwrap(),
            key: key.into(),
            header: Header::Bearer,
        };
        broker.open(provider).err().unwrap()
    };
    let said = [
        said("ftp://a.example/", KEY),
        said("https://me:pw@a.example/", KEY),
        said("https://a.example/", "two\nlines"),
        said("https://a.example/", ""),
    ];
    expect_test::expect![[r#"
        its address is no URL with http or https
        its address has a user, a password or a query
        its key is empty, or has characters that no header takes
        its key is empty, or has characters that no header takes"#]]
    .assert_eq(&said.join("\n"));
}

#[test]
fn a_broker_that_is_dropped_listens_no_more() {
    let broker = broker();
    let address = broker.address();
    drop(broker);
    let until = std::time::Instant::now() + BOUND;
    while TcpStream::connect(address).is_ok() {
        assert!(std::time::Instant::now() < until, "it listens still");
        std::thread::yield_now();
    }
}
