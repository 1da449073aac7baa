//! The network of a session.

use super::*;

pub(crate) fn a_session_reaches_what_its_network_allows_and_reports_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut stream, b"hello");
        }
    });
    let code = format!(
        "import errno, socket\ndef ask(host, port):\n    try:\n        with socket.create_connection((host, port), 10) as s:\n            return s.recv(9).decode()\n    except OSError as error:\n        return errno.errorcode.get(error.errno, str(error))\ndef kind(family):\n    try:\n        socket.socket(family, socket.SOCK_STREAM).close()\n        return 'made'\n    except OSError as error:\n        return errno.errorcode[error.errno]\ndef main() -> str:\n    return ' '.join([ask('127.0.0.1', {port}), ask('169.254.169.254', 80), kind(40), kind(38), kind(17)])\n"
    );
    let it = flex(&folder.path().join("flow"), &code);
    let key = key(&unique("network"));
    machine.start(&key, 1, &it);
    let isolation = installation(&machine, &key).isolation.unwrap();
    if isolation.not_held.iter().any(|lack| lack.contains("network")) {
        println!("not tried: a sandbox has no network of its own here: {isolation}");
        return;
    }
    let ask = || match &output(&machine.run(&key, 1, &unique("ask"), &it, RunWish::default()))["output"] {
        Value::String(said) => said.clone(),
        other => panic!("{other}"),
    };
    let barred = "EPERM EPERM EPERM";
    assert_eq!(ask(), format!("ECONNREFUSED EHOSTUNREACH {barred}"));
    let soon = Duration::from_secs(60);
    let refused = machine.report("what was refused", soon, &key, 1, |report| match report {
        AgentReport::Refused { refused } => Some(refused.clone()),
        _ => None,
    });
    let metadata = refused.by.iter().find(|refusal| refusal.to == "169.254.169.254:80");
    assert_eq!(
        metadata.map(|refusal| (refusal.why.as_str(), refusal.times)),
        Some(("link-local", 1)),
        "{refused:?}"
    );
    let revision = std::cell::Cell::new(0);
    let update = |network, hosts: &[String]| {
        revision.set(revision.get() + 1);
        let allow_hosts = hosts.to_vec();
        let command = AgentCommand::Network {
            revision: revision.get(),
            network,
            allow_hosts,
        };
        machine.tell(&key, 1, &command);
    };
    // Each counts for the next run at the latest; the queue of an agent keeps no order, so it is
    // asked until it is so.
    let becomes = |network, hosts: &[String], said: &str| {
        update(network, hosts);
        let begun = Instant::now();
        loop {
            let now = ask();
            if now == format!("{said} {barred}") {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{now}");
        }
    };
    becomes(Network::None, &[format!("127.0.0.1:{port}")], "hello EHOSTUNREACH");
    becomes(Network::Internet, &[], "ECONNREFUSED EHOSTUNREACH");
    update(Network::Open, &[]);
    let begun = Instant::now();
    while !ask().starts_with("hello ") {
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
    becomes(Network::None, &[], "ECONNREFUSED EHOSTUNREACH");
}
