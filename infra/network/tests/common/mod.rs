//! A sandbox with a network of its own, and hosts on this machine that it may reach.

use network::{Counts, Ends, Rules, Service, start};
use sandbox::{Network as Kind, Sandbox, control::Words, python::Python};
use std::{
    collections::HashMap,
    io::Write,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    process::Stdio,
    thread,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Child,
};

/// A sandbox that runs a Python program, with a network of its own.
pub(crate) struct Session {
    child: Child,
    pub(crate) network: Service,
    pub(crate) counts: Counts,
    _folder: tempfile::TempDir,
}

pub(crate) fn rules(network: &str, hosts: &[String]) -> Rules {
    Rules {
        network: match network {
            "none" => lifecycle::network::Network::None,
            "internet" => lifecycle::network::Network::Internet,
            _ => lifecycle::network::Network::Open,
        },
        hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
    }
}

impl Session {
    /// `None` where this machine has no namespaces.
    pub(crate) async fn start(program: &str, rules: Rules, doors: HashMap<u16, SocketAddr>) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let python = Python::find().unwrap();
        let (root, runner) = (
            folder.path().join("root"),
            sandbox::write_runner(folder.path()).unwrap(),
        );
        std::fs::create_dir_all(&root).unwrap();
        let read = [python.prefix.clone()];
        let mut sandbox = Sandbox {
            namespaces: true,
            root,
            network: Kind::Own,
            read: read.into_iter().filter(|path| !path.starts_with("/usr")).collect(),
            seccomp: sandbox::seccomp(true),
            execute: ["-I", "-c", program].into_iter().fold(
                vec![python.executable.display().to_string()],
                |mut all, each| {
                    all.push(each.to_owned());
                    all
                },
            ),
            ..Sandbox::default()
        };
        let (child, socket) = sandbox::start(&python, &runner, &mut sandbox, Stdio::piped(), Stdio::inherit()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut words = Words::new(tokio::net::UnixStream::from_std(socket).unwrap());
        let mut said = String::new();
        while let Some(word) = words.next().await.unwrap() {
            said.push_str(std::str::from_utf8(&word).unwrap());
            if said.contains("\"isolated\"") {
                break;
            }
        }
        if said.contains("\"cannot\"") || said.contains("\"no_network\"") {
            println!("skipped: this machine has no network namespaces: {said}");
            return None;
        }
        let (mut socket, _, descriptors) = words.into_parts();
        let mut descriptors = descriptors.into_iter();
        let packets = descriptors.next().unwrap_or_else(|| panic!("no network: {said}"));
        let ends = Ends {
            packets,
            sockets: descriptors.collect(),
        };
        let counts = Counts::default();
        let network = start(ends, rules, counts.clone(), doors).unwrap();
        socket.write_all(b"{}\n").await.unwrap();
        Some(Self {
            child,
            network,
            counts,
            _folder: folder,
        })
    }

    /// Its output until its end.
    pub(crate) async fn output(&mut self) -> String {
        let mut text = String::new();
        let mut stdout = self.child.stdout.take().unwrap();
        tokio::time::timeout(Duration::from_secs(60), stdout.read_to_string(&mut text))
            .await
            .expect("it ends")
            .unwrap();
        text
    }

    /// Its next line.
    pub(crate) async fn line(&mut self) -> String {
        let stdout = self.child.stdout.as_mut().unwrap();
        let mut line = Vec::new();
        loop {
            match tokio::time::timeout(Duration::from_secs(60), stdout.read_u8())
                .await
                .expect("it goes on")
            {
                Ok(b'\n') | Err(_) => return String::from_utf8(line).unwrap(),
                Ok(byte) => line.push(byte),
            }
        }
    }
}

/// Runs a test on a runtime, if there are namespaces.
pub(crate) fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test);
}

/// Answers each connection by `serve`, for as long as the test's process lives.
pub(crate) fn listen(address: &str, serve: fn(std::net::TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind(address).unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    at
}

pub(crate) fn greet(mut stream: std::net::TcpStream) {
    let _ = stream.write_all(b"hello");
}

/// An address of this machine that is not loopback.
pub(crate) fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.123:9").unwrap();
    socket.local_addr().unwrap().ip()
}
