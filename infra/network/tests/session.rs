//! A session's network with everything real: a sandbox, its namespace, its device, the stack, and
//! hosts that listen on this machine.
//!
//! Where this machine has no namespaces, each test says so and ends.

mod common;

use common::{Session, greet, listen, own_address, rules, run};
use std::{
    collections::HashMap,
    io::{Read, Write},
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

/// Connects to each address, and prints what comes: what it read, or the name of the error.
const CONNECT: &str = r#"
import errno, socket, sys
def connect(host, port, patience=5):
    try:
        with socket.create_connection((host, port), patience) as s:
            return s.recv(100).decode() or "nothing"
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
"#;

#[test]
fn nothing_of_this_machine_or_its_networks_answers_inside() {
    run(async {
        let loopback = listen("127.0.0.1:0", greet);
        let everywhere = listen("0.0.0.0:0", greet);
        let own = own_address();
        let program = format!(
            r#"{CONNECT}
for host, port in [("127.0.0.1", {}), ("::1", {}), ("{own}", {p}), ("169.254.169.254", 80), ("10.0.0.1", 80), ("172.16.0.1", 80), ("192.168.0.1", 80),
                   ("100.64.0.1", 80), ("0.0.0.0", {p}), ("192.0.0.1", {p}), ("224.0.0.1", 80), ("::ffff:127.0.0.1", {p}), ("fe80::1", 80), ("fd00::2", {p}),
                   ("64:ff9b::a9fe:a9fe", 80), ("255.255.255.255", 80)]:
    print(host, connect(host, port))
"#,
            loopback.port(),
            loopback.port(),
            p = everywhere.port()
        );
        let Some(mut session) = Session::start(&program, rules("internet", &[]), HashMap::new()).await else {
            return;
        };
        let output = session.output().await;
        assert_eq!(output.lines().count(), 16, "{output}");
        for line in output.lines() {
            let end = line.split(' ').nth(1).unwrap();
            assert!(
                [
                    "ECONNREFUSED",
                    "EHOSTUNREACH",
                    "ENETUNREACH",
                    "EACCES",
                    "EINVAL",
                    "EADDRNOTAVAIL"
                ]
                .contains(&end),
                "it was answered, or nobody told it: {line}"
            );
        }
        let refused = session.counts.read();
        for to in ["169.254.169.254:80", "10.0.0.1:80"] {
            assert!(
                refused.by.keys().any(|(called, _)| called == to),
                "{to} is not counted: {refused:?}"
            );
        }
    });
}

#[test]
fn an_allowed_address_is_reached_and_no_longer_when_that_is_taken_back() {
    run(async {
        let loopback = listen("127.0.0.1:0", greet);
        let everywhere = listen("0.0.0.0:0", greet);
        let own = own_address();
        let program = format!(
            r#"{CONNECT}
import time
hosts = [("127.0.0.1", {}), ("{own}", {})]
while True:
    print(*[connect(*host) for host in hosts], flush=True)
    time.sleep(0.05)
"#,
            loopback.port(),
            everywhere.port()
        );
        let allowed = [
            format!("127.0.0.1:{}", loopback.port()),
            format!("{own}:{}", everywhere.port()),
        ];
        let Some(mut session) = Session::start(&program, rules("none", &[]), HashMap::new()).await else {
            return;
        };
        assert_eq!(session.line().await, "ECONNREFUSED EHOSTUNREACH");
        for (hosts, line) in [
            (&allowed[..], "hello hello"),
            (&[], "ECONNREFUSED EHOSTUNREACH"),
            (&allowed, "hello hello"),
        ] {
            session.network.set_rules(rules("none", hosts));
            let begun = Instant::now();
            while session.line().await != line {
                assert!(begun.elapsed() < Duration::from_secs(10), "{line}");
            }
        }
    });
}

#[test]
fn a_connection_is_cut_when_the_rules_allow_it_no_more() {
    run(async {
        let everywhere = listen("0.0.0.0:0", |mut stream| {
            let _ = stream.write_all(b"x");
            let _ = stream.read(&mut [0; 1]);
        });
        let own = own_address();
        let program = format!(
            "import socket\ns = socket.create_connection(('{own}', {}))\nprint(s.recv(1), flush=True)\ntry: print(s.recv(1))\nexcept OSError as e: print(e.errno)",
            everywhere.port()
        );
        let hosts = [format!("{own}:{}", everywhere.port())];
        let Some(mut session) = Session::start(&program, rules("none", &hosts), HashMap::new()).await else {
            return;
        };
        assert_eq!(session.line().await, "b'x'");
        session.network.set_rules(rules("none", &[]));
        assert_eq!(session.line().await, libc::ECONNRESET.to_string());
    });
}

/// Reads all, and then says how much that was and its sum.
fn count(mut stream: std::net::TcpStream) {
    let (mut bytes, mut sum, mut buffer) = (0usize, 0u64, vec![0; 1 << 16]);
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        bytes += read;
        sum = buffer[..read]
            .iter()
            .fold(sum, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    }
    let _ = write!(stream, "{bytes} {sum}");
}

#[test]
fn large_transfers_both_ways_at_once_and_half_closed_lose_nothing() {
    run(async {
        let counts = listen("0.0.0.0:0", count);
        let gives = listen("0.0.0.0:0", |mut stream| {
            let block: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
            for _ in 0..30 {
                if stream.write_all(&block).is_err() {
                    return;
                }
            }
        });
        let own = own_address();
        let program = format!(
            r#"
import socket, threading
block = bytes(range(256)) * 4096
def up():
    s = socket.create_connection(("{own}", {}))
    for _ in range(10): s.sendall(block)
    s.shutdown(socket.SHUT_WR)
    text = b""
    while more := s.recv(100): text += more
    print(text.decode(), flush=True)
def down():
    s = socket.create_connection(("{own}", {}))
    got = bytearray()
    while more := s.recv(1 << 20): got += more
    print(len(got), got == block * 30, flush=True)
threads = [threading.Thread(target=t) for t in [up] * 4 + [down] * 4]
[t.start() for t in threads]; [t.join() for t in threads]
"#,
            counts.port(),
            gives.port()
        );
        let Some(mut session) = Session::start(&program, rules("open", &[]), HashMap::new()).await else {
            return;
        };
        let output = session.output().await;
        let block: Vec<u8> = (0..=255).cycle().take(10 << 20).collect();
        let sum = block
            .iter()
            .fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
        let up = format!("{} {sum}", 10 << 20);
        let down = format!("{} True", 30 << 20);
        let lines = |wanted: &str| output.lines().filter(|line| *line == wanted).count();
        assert_eq!((lines(&up), lines(&down)), (4, 4), "{output}");
    });
}

#[test]
fn datagrams_go_both_ways_and_a_port_where_nobody_listens_says_so() {
    run(async {
        let own = own_address();
        let echo = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = echo.local_addr().unwrap().port();
        thread::spawn(move || {
            let mut buffer = vec![0; 65_535];
            while let Ok((length, from)) = echo.recv_from(&mut buffer) {
                let _ = echo.send_to(&buffer[..length], from);
            }
        });
        let closed = UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
        let program = format!(
            r#"
import socket
def ask(port, data):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.connect(("{own}", port))
    try:
        s.send(data); return s.recv(65535) == data
    except OSError as error:
        return error.errno
print(ask({port}, b"hi"), ask({port}, bytes(60000)), ask({closed}, b"hi"))
"#
        );
        let Some(mut session) = Session::start(&program, rules("open", &[]), HashMap::new()).await else {
            return;
        };
        assert_eq!(
            session.output().await.trim(),
            format!("True True {}", libc::ECONNREFUSED)
        );
    });
}

#[test]
fn a_door_leads_from_the_gateway_to_one_place_of_this_machine() {
    run(async {
        let broker = listen("127.0.0.1:0", greet);
        let program = format!("{CONNECT}\nprint(connect('192.0.0.1', 80), connect('192.0.0.1', 81))");
        let doors = HashMap::from([(80, broker)]);
        let Some(mut session) = Session::start(&program, rules("none", &[]), doors).await else {
            return;
        };
        assert_eq!(session.output().await.trim(), "hello EHOSTUNREACH");
    });
}

#[test]
fn a_flood_of_connections_leaves_room_and_takes_bounded_memory() {
    run(async {
        let floods = listen("0.0.0.0:0", |mut stream| {
            let block = vec![0; 1 << 16];
            while stream.write_all(&block).is_ok() {}
        });
        let own = own_address();
        let program = format!(
            r#"
import resource, socket, time
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
sockets = []
for _ in range(10000):
    try:
        s = socket.socket(); s.setblocking(False); s.connect_ex(("{own}", {})); sockets.append(s)
    except OSError:
        break
print(len(sockets), flush=True)
time.sleep(60)
"#,
            floods.port()
        );
        let before = memory();
        let Some(mut session) = Session::start(&program, rules("open", &[]), HashMap::new()).await else {
            return;
        };
        let opened: usize = session.line().await.parse().unwrap();
        assert!(opened > 1000, "{opened}");
        let begun = Instant::now();
        while !session.counts.read().by.keys().any(|(_, why)| why == "too many") {
            assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", session.counts.read());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let taken = memory().saturating_sub(before);
        assert!(taken < 300 << 20, "{} MiB", taken >> 20);
    });
}

/// The memory of this process, in bytes.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
