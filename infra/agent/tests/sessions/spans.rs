//! Spans of a run, and where they go.

use super::*;

/// A receiver of spans on loopback: its address, and what was sent to it.
pub(crate) fn receiver() -> (String, mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, received) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            let (mut first, mut length) = (String::new(), 0);
            reader.read_line(&mut first).unwrap();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            reader.get_mut().write_all(answer).unwrap();
            // Who no longer wants them has gone.
            let _ = sender.send((first, body));
        }
    });
    (address, received)
}

pub(crate) fn the_spans_of_a_run_go_to_the_endpoint_that_it_names_and_are_kept_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let code = "
from promptflow.tracing import trace
@trace
def inner(name):
    return name.upper()
def main(name: str):
    return inner(name)
";
    let it = flex(&folder.path().join("flow"), code);
    let key = key(&unique("spans"));
    machine.start(&key, 1, &it);
    let (address, received) = receiver();
    let network = AgentCommand::Network {
        revision: 1,
        network: Network::None,
        allow_hosts: vec![address.clone()],
    };
    machine.tell(&key, 1, &network);
    let traced = |endpoint: &str| RunWish {
        environment_variables: BTreeMap::from([("OTEL_EXPORTER_OTLP_ENDPOINT".into(), endpoint.into())]),
        ..inputs("name", "you")
    };
    let run = unique("spans");
    let result = machine.run(&key, 1, &run, &it, traced(&format!("http://{address}")));
    assert_eq!(output(&result), json!({ "output": "YOU" }), "{}", machine.output(&run));
    let (request, body) = received.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(request.trim_end(), "POST /v1/traces HTTP/1.1");
    let sent = String::from_utf8_lossy(&body);
    assert!(sent.contains("inner") && sent.contains(&run), "{sent}");
    let kept = written(&result, "spans.jsonl");
    let kept: Vec<Value> = kept.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let named = |name: &str| {
        kept.iter()
            .find(|span| span["name"] == name)
            .unwrap_or_else(|| panic!("{kept:#?}"))
    };
    assert_eq!(
        named("inner")["context"]["trace_id"],
        kept[kept.len() - 1]["context"]["trace_id"]
    );

    // Where nobody takes them the run goes on, and says so once.
    let run = unique("spans");
    let result = machine.run(&key, 1, &run, &it, traced("http://127.0.0.1:9"));
    assert_eq!(output(&result), json!({ "output": "YOU" }));
    let said = machine.output(&run);
    assert!(said.contains("spans are not sent to http://127.0.0.1:9 ("), "{said}");
    assert_eq!(written(&result, "spans.jsonl").lines().count(), kept.len());

    // Without an endpoint they are kept all the same, unless the run's variables switch that off.
    let result = machine.run(&key, 1, &unique("spans"), &it, inputs("name", "you"));
    assert_eq!(written(&result, "spans.jsonl").lines().count(), kept.len());
    let off = RunWish {
        environment_variables: BTreeMap::from([("PF_DISABLE_TRACING".into(), "true".into())]),
        ..inputs("name", "you")
    };
    let result = machine.run(&key, 1, &unique("spans"), &it, off);
    assert!(!Path::new(&result.folder).join("spans.jsonl").exists());
    machine.remove(&key, 1);
}

pub(crate) fn spans_that_are_kept_have_their_line_and_bounds_and_what_is_cut_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let code = "
from promptflow.tracing import trace
@trace
def inner(at):
    return at
def main(text: str, spans: int):
    for at in range(spans):
        inner(at)
    return len(text)
";
    let it = flex(&folder.path().join("flow"), code);
    let key = key(&unique("spans"));
    machine.start(&key, 1, &it);
    let run = |rows: Vec<Value>| {
        let data = folder.path().join("data.jsonl");
        fs::write(&data, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
        let wish = RunWish {
            data: Some(data.display().to_string()),
            ..RunWish::default()
        };
        let result = machine.run(&key, 1, &unique("spans"), &it, wish);
        let kept: Vec<Value> = written(&result, "spans.jsonl")
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        kept
    };
    let row = |text: usize, spans: usize| json!({ "text": "x".repeat(text), "spans": spans });

    let kept = run(vec![row(1, 2), row(5_000, 1)]);
    let of = |line: u64| {
        kept.iter()
            .filter(move |span| span["attributes"]["line_number"] == line)
    };
    assert_eq!((of(0).count(), of(1).count(), kept.len()), (3, 2, 5), "{kept:#?}");
    let inputs = of(1).next_back().unwrap()["attributes"]["inputs"].as_str().unwrap();
    assert!(inputs.len() < 2_100 && inputs.contains("… (cut here, "), "{inputs}");

    // Of a run 1,000 are kept.
    let kept = run(vec![row(1, 1_500)]);
    assert_eq!(kept.len(), 1_001);
    assert_eq!(kept[1_000], json!({ "left_out": { "spans": 501, "lines": 0 } }));
    let kept = run((0..40).map(|_| row(1, 99)).collect());
    assert_eq!(kept.len(), 1_001);
    let left_out = &kept[1_000]["left_out"];
    // Lines that were at work when the last was kept have made theirs.
    let lines = left_out["lines"].as_u64().unwrap();
    assert!(lines > 0 && left_out["spans"] == 100 * (30 - lines), "{left_out}");
    machine.remove(&key, 1);
}
