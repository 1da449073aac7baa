//! The speed of a session's downloads and uploads by its own network, beside the same program with
//! this machine's network.
//!
//! `cargo bench -p network`

#[allow(dead_code, reason = "shared with the tests")]
#[path = "../tests/common/mod.rs"]
mod common;

use common::{Session, listen, own_address, rules, run};
use std::{
    collections::HashMap,
    io::{Read, Write},
    process::Command,
};

const BYTES: usize = 200 << 20;

fn main() {
    let gives = listen("0.0.0.0:0", |mut stream| {
        let block = vec![7; 1 << 20];
        for _ in 0..BYTES >> 20 {
            if stream.write_all(&block).is_err() {
                return;
            }
        }
    });
    let takes = listen("0.0.0.0:0", |mut stream| {
        let mut buffer = vec![0; 1 << 20];
        while let Ok(1..) = stream.read(&mut buffer) {}
        let _ = stream.write_all(b".");
    });
    let own = own_address();
    let program = format!(
        r#"
import socket, time
def down():
    s = socket.create_connection(("{own}", {})); got = 0; space = bytearray(1 << 20)
    while more := s.recv_into(space): got += more
    assert got == {BYTES}
def up():
    s = socket.create_connection(("{own}", {})); block = bytes(1 << 20)
    for _ in range({BYTES} >> 20): s.sendall(block)
    s.shutdown(socket.SHUT_WR); s.recv(1)
def timed(what, times=1):
    begun = time.perf_counter()
    for _ in range(times): what()
    return (time.perf_counter() - begun) / times
def connect(): socket.create_connection(("{own}", {})).close()
print(f"{{timed(down):.3f}} s down, {{timed(up):.3f}} s up, {{timed(connect, 200) * 1e6:.0f}} us to connect", flush=True)
"#,
        gives.port(),
        takes.port(),
        takes.port()
    );
    for round in 1..=3 {
        run(async {
            let Some(mut session) = Session::start(&program, rules("open", &[]), HashMap::new()).await else {
                return;
            };
            println!("{round}. own network:      {}", session.output().await.trim());
        });
        let python = sandbox::python::Python::find().unwrap();
        let plain = Command::new(python.executable)
            .args(["-I", "-c", &program])
            .output()
            .unwrap();
        println!(
            "{round}. machine's network: {}",
            String::from_utf8_lossy(&plain.stdout).trim()
        );
    }
}
