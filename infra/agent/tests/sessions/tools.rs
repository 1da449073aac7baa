//! Tools of packages, and what their connections give them.

use super::*;

/// A session that reaches the hosts of these addresses alone.
fn reach(machine: &Machine, key: &str, addresses: &[&str]) {
    let hosts = addresses.iter().map(|address| address.trim_start_matches("http://"));
    let network = AgentCommand::Network {
        revision: 1,
        network: Network::None,
        allow_hosts: hosts.map(str::to_owned).collect(),
    };
    machine.tell(key, 1, &network);
}

/// A flow of one LLM node that asks by this connection.
fn asking(folder: &Path, connection: &str) -> std::path::PathBuf {
    let dag = format!(
        "inputs: {{}}\noutputs:\n  text:\n    type: string\n    reference: ${{ask.output}}\nnodes:\n- name: ask\n  type: llm\n  source:\n    type: code\n    \
         path: ask.jinja2\n  inputs:\n    deployment_name: gpt\n  connection: {connection}\n  api: chat\n"
    );
    flow(folder, &[("flow.dag.yaml", &dag), ("ask.jinja2", "# user:\nhello\n")])
}

/// A package with a tool whose connection is of a type of its own.
const GREET: &str = "
from promptflow.connections import CustomStrongTypeConnection
from promptflow.contracts.types import Secret
from promptflow.core import tool

class GreetConnection(CustomStrongTypeConnection):
    word: str
    token: Secret

@tool
def greet(connection: GreetConnection, text: str) -> dict:
    return {'said': f'{connection.word} {text}', 'type': type(connection).__name__, 'token': len(connection.token)}
";
const LISTED: &str = "
def list_package_tools():
    inputs = {'connection': {'type': ['CustomConnection'], 'custom_type': ['GreetConnection']}, 'text': {'type': ['string']}}
    about = {'name': 'Greet', 'type': 'python', 'module': 'greet_tools.greet', 'function': 'greet', 'inputs': inputs}
    return {'greet_tools.greet.greet': about}
";

pub(crate) fn package_tools_and_connections_of_their_own_type_come_from_a_wheel() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let index = Index::serve();
    // The store of environments outlives the test, and each index has another address.
    index.add_files(
        "greet-tools",
        "1.0",
        &[],
        &[
            ("greet_tools/__init__.py", ""),
            ("greet_tools/greet.py", GREET),
            ("greet_tools/listed.py", LISTED),
            (
                "greet_tools-1.0.dist-info/entry_points.txt",
                "[package_tools]\ngreet = greet_tools.listed:list_package_tools\n",
            ),
        ],
    );
    let (connection, token) = (unique("strong"), unique("hidden"));
    keep(
        &machine,
        &connection,
        &format!(
            "type: custom\ncustom_type: GreetConnection\nmodule: greet_tools.greet\npackage: greet-tools\npackage_version: '1.0'\n\
             configs:\n  word: Salut\nsecrets:\n  token: {token}\n"
        ),
    );
    let head = "inputs:\n  text:\n    type: string\n    default: Ann\noutputs:\n  greeting:\n    type: object\n    reference: ${greet.output}\nnodes:\n- name: greet\n  type: python\n";
    let inputs = format!("  inputs:\n    connection: {connection}\n    text: ${{inputs.text}}\n");
    let of_package = format!("{head}  source:\n    type: package\n    tool: greet_tools.greet.greet\n{inputs}");
    // A script that takes a connection of that type.
    let script = "from greet_tools.greet import GreetConnection, greet as of_package\nfrom promptflow.core import tool\n\n@tool\ndef greet(connection: \
                  GreetConnection, text: str) -> dict:\n    return of_package(connection, text)\n";
    let of_script = format!("{head}  source:\n    type: code\n    path: mine.py\n{inputs}");
    let it = flow(
        &folder.path().join("flow"),
        &[
            ("flow.dag.yaml", &of_package),
            ("mine.py", script),
            ("requirements.txt", &format!("{}\ngreet-tools\n", index.line())),
        ],
    );
    let key = key(&unique("tools"));
    machine.start(&key, 1, &it);
    let expected = json!({ "greeting": { "said": "Salut Ann", "type": "GreetConnection", "token": token.len() } });
    for text in [&of_package, &of_script] {
        fs::write(it.join("flow.dag.yaml"), text).unwrap();
        let result = machine.run(&key, 1, &unique("tools"), &it, RunWish::default());
        assert_eq!(output(&result), expected);
    }
    machine.remove(&key, 1);
}

pub(crate) fn a_node_asks_by_the_connection_and_deployment_that_replace_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let secret = unique("hidden");
    let (named, other) = (Provider::start(&secret), Provider::start(&secret));
    let (mine, theirs) = (unique("mine"), unique("theirs"));
    for (name, provider) in [(&mine, &named), (&theirs, &other)] {
        let document = format!(
            "type: azure_open_ai\napi_base: {}\napi_key: {secret}\n",
            provider.address
        );
        keep(&machine, name, &document);
    }
    let it = asking(&folder.path().join("flow"), &mine);
    let key = key(&unique("replaced"));
    machine.start(&key, 1, &it);
    reach(&machine, &key, &[&named.address, &other.address]);
    let replaced = [("connection", theirs.as_str()), ("deployment_name", "another")];
    let replaced = replaced.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let wish = RunWish {
        connections: [("ask".to_owned(), replaced.into())].into(),
        ..RunWish::default()
    };
    for wish in [RunWish::default(), wish] {
        let result = machine.run(&key, 1, &unique("replaced"), &it, wish);
        assert_eq!(output(&result), json!({ "text": "echo: hello" }));
    }
    machine.remove(&key, 1);
    let models =
        |provider: Provider| -> Vec<Value> { provider.asked().iter().map(|each| each["model"].clone()).collect() };
    assert_eq!(
        (models(named), models(other)),
        (vec![json!("gpt")], vec![json!("another")])
    );
}

pub(crate) fn a_changed_secret_counts_in_the_next_run_of_the_session() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let (old, new, name) = (unique("old"), unique("new"), unique("changed"));
    let provider = Provider::start(&new);
    let connection = |key: &str| format!("type: azure_open_ai\napi_base: {}\napi_key: {key}\n", provider.address);
    keep(&machine, &name, &connection(&old));
    let it = asking(&folder.path().join("flow"), &name);
    let key = key(&unique("changed"));
    machine.start(&key, 1, &it);
    reach(&machine, &key, &[&provider.address]);
    let failure = machine
        .run(&key, 1, &unique("changed"), &it, RunWish::default())
        .failure
        .unwrap();
    assert!(failure.message.contains("Access denied."), "{failure}");
    keep(&machine, &name, &connection(&new));
    let result = machine.run(&key, 1, &unique("changed"), &it, RunWish::default());
    assert_eq!(output(&result), json!({ "text": "echo: hello" }));
    machine.remove(&key, 1);
}

/// Serves the tokens of a platform's identity. Returns its address, and each request's head.
fn identity(token: &str) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (teller, asked) = mpsc::channel();
    let answer = json!({ "access_token": token, "expires_on": "4102444800", "resource": "r", "token_type": "Bearer" })
        .to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            let mut head = String::new();
            while reader.read_line(&mut head).is_ok_and(|length| length > 2) {}
            let length = answer.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{answer}"
            );
            let _ = reader.into_inner().write_all(answer.as_bytes());
            let _ = teller.send(head);
        }
    });
    (address, asked)
}

pub(crate) fn a_connection_without_a_key_sends_the_token_of_the_runs_identity() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let (token, name) = (unique("token"), unique("keyless"));
    // It takes no other key.
    let provider = Provider::start(&token);
    let (address, asked) = identity(&token);
    keep(
        &machine,
        &name,
        &format!(
            "type: azure_open_ai\napi_base: {}\nauth_mode: meid_token\n",
            provider.address
        ),
    );
    let it = asking(&folder.path().join("flow"), &name);
    let key = key(&unique("keyless"));
    machine.start(&key, 1, &it);
    reach(&machine, &key, &[&provider.address, &address]);
    let variables = [
        ("IDENTITY_ENDPOINT", format!("{address}/token")),
        ("IDENTITY_HEADER", "of-the-platform".to_owned()),
    ];
    let wish = RunWish {
        environment_variables: variables.map(|(name, value)| (name.to_owned(), value)).into(),
        ..RunWish::default()
    };
    let result = machine.run(&key, 1, &unique("keyless"), &it, wish);
    assert_eq!(output(&result), json!({ "text": "echo: hello" }));
    machine.remove(&key, 1);
    let head = asked
        .recv_timeout(Duration::from_secs(10))
        .unwrap()
        .to_ascii_lowercase();
    assert!(
        head.starts_with("get /token?") && head.contains("cognitiveservices.azure.com"),
        "{head}"
    );
    assert!(head.contains("x-identity-header: of-the-platform"), "{head}");
    let asked = provider.asked();
    assert!(asked.len() == 1 && asked[0]["has_key"] == true, "{asked:?}");
}

pub(crate) fn a_client_of_promptflow_serves_each_of_eight_lines_with_a_new_filelock() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = flex(
        &folder.path().join("flow"),
        "import filelock, os\nfrom promptflow.client import PFClient\nCLIENT = PFClient()\n\ndef main(n):\n    clients = [CLIENT, PFClient()]\n    runs = \
         [len(client.runs.list()) for client in clients]\n    lock = int(filelock.__version__.split('.')[1])\n    return [n, runs, lock >= 16]\n",
    );
    fs::write(it.join("requirements.txt"), "filelock>=3.16,<4\n").unwrap();
    let data = folder.path().join("data.jsonl");
    fs::write(&data, (0..8).map(|n| format!("{{\"n\": {n}}}\n")).collect::<String>()).unwrap();
    let key = key(&unique("filelock"));
    machine.start(&key, 1, &it);
    let wish = RunWish {
        data: Some(data.display().to_string()),
        ..RunWish::default()
    };
    let result = machine.run(&key, 1, &unique("filelock"), &it, wish);
    assert_eq!(result.failure, None, "{result:#?}");
    let expected: Vec<Value> = (0..8).map(|n| json!({ "output": [n, [0, 0], true] })).collect();
    assert_eq!(result.outputs, expected);
    machine.remove(&key, 1);
}
