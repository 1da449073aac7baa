//! Model providers, asked through a connection or its broker.

use super::*;

pub(crate) fn flows_of_each_kind_ask_a_provider_by_the_connection_that_they_name() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let secret = format!("hidden-{}", unique("provider"));
    let provider = Provider::start(&secret);
    let address = &provider.address;
    // The state folder outlives the test.
    let (azure, open_ai) = (unique("azure"), unique("open-ai"));
    keep(
        &machine,
        &azure,
        &format!("type: azure_open_ai\napi_base: {address}\napi_key: {secret}\n"),
    );
    keep(
        &machine,
        &open_ai,
        &format!("type: open_ai\nbase_url: {address}/v1\napi_key: {secret}\n"),
    );
    let dag = flow(
        &folder.path().join("dag"),
        &[
            (
                "flow.dag.yaml",
                &format!(
                    "inputs:\n  topic:\n    type: string\n    default: cats\noutputs:\n  text:\n    type: string\n    reference: ${{ask.output}}\n\
                     nodes:\n- name: ask\n  type: llm\n  source:\n    type: code\n    path: ask.jinja2\n  inputs:\n    deployment_name: busy-1\n\
                     \x20   topic: ${{inputs.topic}}\n  connection: {azure}\n  api: chat\n"
                ),
            ),
            ("ask.jinja2", "# system:\nYou are brief.\n\n# user:\nof {{topic}}\n"),
        ],
    );
    let flex = flow(
        &folder.path().join("flex"),
        &[
            (
                "flow.flex.yaml",
                &format!("entry: code:Asker\nsample:\n  init:\n    model_config:\n      connection: {azure}\n"),
            ),
            (
                "code.py",
                "from pathlib import Path\n\
                 from promptflow.core import AzureOpenAIModelConfiguration, Prompty\n\
                 class Asker:\n\
                \x20   def __init__(self, model_config: AzureOpenAIModelConfiguration):\n\
                \x20       self.config = model_config\n\
                \x20       self.prompty = Prompty.load(Path(__file__).parent / 'ask.prompty', model={'configuration': model_config})\n\
                \x20   def __call__(self, topic: str = 'dogs') -> dict:\n\
                \x20       return {'text': self.prompty(topic=topic), 'endpoint': self.config.azure_endpoint}\n",
            ),
            (
                "ask.prompty",
                "---\nname: ask\nmodel:\n  api: chat\n  configuration:\n    type: azure_openai\n    azure_deployment: gpt\n  parameters:\n    max_tokens: 9\ninputs:\n  topic:\n    \
                 type: string\n---\nsystem:\nYou are brief.\n\nuser:\nof {{topic}}\n",
            ),
        ],
    );
    let open = flow(
        &folder.path().join("open"),
        &[
            ("flow.flex.yaml", "entry: code:main\n"),
            (
                "code.py",
                &format!(
                    "from pathlib import Path\n\
                     from promptflow.core import Prompty\n\
                     def main(topic: str = 'birds') -> str:\n\
                    \x20   return Prompty.load(Path(__file__).parent / 'ask.prompty')(topic=topic)\n\
                     # {open_ai}\n"
                ),
            ),
            (
                "ask.prompty",
                &format!(
                    "---\nname: ask\nmodel:\n  api: chat\n  configuration:\n    type: openai\n    model: gpt\n    connection: {open_ai}\n  parameters:\n    \
                     max_tokens: 9\n\
                     inputs:\n  topic:\n    type: string\n---\nsystem:\nYou are brief.\n\nuser:\nof {{{{topic}}}}\n"
                ),
            ),
        ],
    );
    // A prompty without inputs of a run has those of its sample, which may be a file.
    let alone = flow(
        &folder.path().join("alone"),
        &[
            (
                "ask.prompty",
                &format!(
                    "---\nname: ask\nmodel:\n  api: chat\n  configuration:\n    type: openai\n    model: gpt\n    connection: {open_ai}\n  parameters:\n    \
                     max_tokens: 9\ninputs:\n  topic:\n    type: string\nsample: ${{file:sample.json}}\n---\nuser:\nof {{{{topic}}}}\n"
                ),
            ),
            ("sample.json", "{\"topic\": \"fish\"}"),
        ],
    );
    let mut gotten = Vec::new();
    let config = json!({ "connection": azure, "azure_deployment": "gpt" });
    for (it, wish) in [
        (&dag, RunWish::default()),
        (
            &flex,
            RunWish {
                init: [("model_config".to_owned(), config)].into(),
                ..RunWish::default()
            },
        ),
        (&open, RunWish::default()),
        (
            &alone,
            RunWish {
                file: Some("ask.prompty".to_owned()),
                ..RunWish::default()
            },
        ),
    ] {
        let key = key(&unique("provider"));
        machine.start(&key, 1, it);
        let network = AgentCommand::Network {
            revision: 1,
            network: Network::None,
            allow_hosts: vec![address.trim_start_matches("http://").to_owned()],
        };
        machine.tell(&key, 1, &network);
        gotten.push(output(&machine.run(&key, 1, &unique("provider"), it, wish)));
        machine.remove(&key, 1);
    }
    assert_eq!(
        gotten,
        [
            json!({ "text": "echo: of cats" }),
            json!({ "text": "echo: of dogs", "endpoint": address }),
            json!({ "output": "echo: of birds" }),
            json!({ "output": "echo: of fish" }),
        ]
    );
    let asked = provider.asked();
    let models: Vec<&str> = asked.iter().map(|each| each["model"].as_str().unwrap()).collect();
    // The first was turned away once.
    assert_eq!(models, ["busy-1", "busy-1", "gpt", "gpt", "gpt"]);
    assert!(asked.iter().all(|each| each["has_key"] == true), "{asked:?}");
}

pub(crate) fn a_line_that_its_provider_turns_away_is_run_again_and_that_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let provider = Provider::start("word-of-nobody");
    let name = unique("busy");
    let address = &provider.address;
    keep(
        &machine,
        &name,
        &format!("type: open_ai\nbase_url: {address}/v1\napi_key: word-of-nobody\nbrokered: true\n"),
    );
    let asking = |head: &str| {
        format!(
            "from openai import OpenAI\nfrom promptflow.connections import ConnectionProvider\n{head}(model: str) -> str:\n\
            \x20   to = ConnectionProvider.get_instance().get('{name}')\n\
            \x20   client = OpenAI(base_url=to.base_url, api_key=to.api_key, max_retries=0)\n\
            \x20   asked = [{{'role': 'user', 'content': 'x'}}]\n\
            \x20   return client.chat.completions.create(model=model, messages=asked).choices[0].message.content\n"
        )
    };
    let dag = flow(
        &folder.path().join("dag"),
        &[
            (
                "flow.dag.yaml",
                "inputs:\n  model:\n    type: string\noutputs:\n  text:\n    type: string\n    reference: ${ask.output}\n\
                 nodes:\n- name: ask\n  type: python\n  source:\n    type: code\n    path: ask.py\n  inputs:\n    model: ${inputs.model}\n",
            ),
            ("ask.py", &asking("from promptflow.core import tool\n@tool\ndef ask")),
        ],
    );
    let flex = flex(&folder.path().join("flex"), &asking("def main"));
    let mut gotten = Vec::new();
    for (it, models) in [
        (&dag, ["gpt", "busy-2", "busy-90"]),
        (&flex, ["gpt", "busy-3", "busy-91"]),
    ] {
        let data = it.join("data.jsonl");
        fs::write(
            &data,
            models.map(|model| json!({ "model": model }).to_string()).join("\n"),
        )
        .unwrap();
        let key = key(&unique("busy"));
        machine.start(&key, 1, it);
        let run = unique("busy");
        let wish = RunWish {
            data: Some(data.display().to_string()),
            ..RunWish::default()
        };
        let result = machine.run(&key, 1, &run, it, wish);
        gotten.push((result.lines, result.failed_lines, result.retried));
        assert_eq!(
            result.outputs.iter().filter(|output| !output.is_null()).count(),
            2,
            "{result:#?}"
        );
        let failure = result.failure.unwrap();
        assert!(failure.message.contains("RateLimitError"), "{failure}");
        assert!(
            machine
                .output(&run)
                .contains("its model provider turned it away; it is run again in 0.0 s")
        );
        machine.remove(&key, 1);
    }
    // As often as it takes, and five times at the most.
    assert_eq!(gotten, [(3, 1, 2 + 5), (3, 1, 3 + 5)]);
}

/// Asks by a connection of each kind that a broker holds, streamed and not, and tells all that it
/// can reach of their keys: its variables, its connections, its arguments, and the memory of each
/// process that it may read.
pub(crate) const PRYING: &str = r#"
import hashlib, json, os, re, time, urllib.error, urllib.request
from pathlib import Path
from openai import AzureOpenAI, OpenAI
from promptflow.client import PFClient
from promptflow.connections import ConnectionProvider

def memories(digest, length):
    found, looked_at = [], 0
    for pid in [each for each in os.listdir("/proc") if each.isdigit()]:
        try:
            maps, memory = open(f"/proc/{pid}/maps").read(), open(f"/proc/{pid}/mem", "rb", 0)
        except OSError:
            continue
        looked_at += 1
        for line in maps.splitlines():
            start, _, end = line.split()[0].partition("-")
            if " rw" not in line:
                continue
            try:
                memory.seek(int(start, 16))
                data = memory.read(int(end, 16) - int(start, 16))
            except (OSError, ValueError, OverflowError):
                continue
            for match in re.finditer(b"hidden-broker-", data):
                if hashlib.sha256(data[match.start() : match.start() + length]).hexdigest() == digest:
                    found.append(pid)
    return found, looked_at

def ask(url):
    try:
        return urllib.request.urlopen(url, timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return type(error).__name__

def main() -> dict:
    about = json.loads(Path("about.json").read_text())
    azure, plain, serverless = [ConnectionProvider.get_instance().get(name) for name in about["names"]]
    clients = {
        "azure": AzureOpenAI(azure_endpoint=azure.api_base, api_key=azure.api_key, api_version=azure.api_version),
        "plain": OpenAI(base_url=plain.base_url, api_key=plain.api_key),
        "serverless": OpenAI(base_url=serverless.api_base + "/v1", api_key=serverless.api_key),
    }
    answers = {}
    for name, client in clients.items():
        asked = [{"role": "user", "content": f"of {name}"}]
        answers[name] = client.chat.completions.create(model="gpt", messages=asked).choices[0].message.content
        stream = client.chat.completions.create(model="gpt", messages=asked, stream=True)
        answers[name] += " | " + "/".join(chunk.choices[0].delta.content for chunk in stream)
    embedding = clients["azure"].embeddings.create(model="e", input="four").data[0].embedding
    found, looked_at = memories(about["digest"], about["length"])
    texts = [dict(os.environ), *[vars(each) for each in (azure, plain, serverless)], open("/proc/self/cmdline").read()]
    texts += [vars(PFClient().connections.get(name, with_secrets=True)) for name in about["names"]]
    print("all of it:", texts)
    Path("address").write_text(azure.api_base)
    until = time.monotonic() + 60
    while not os.path.exists("go") and time.monotonic() < until:
        time.sleep(0.005)
    foreign = ask(about["foreign"]) if "foreign" in about else None
    return {"answers": answers, "embedding": embedding, "found": found, "looked": looked_at > 0, "key": os.environ["KEY"], "foreign": foreign}
"#;

pub(crate) fn a_key_that_a_broker_holds_is_in_nothing_that_a_flow_can_reach() {
    use sha2::{Digest, Sha256};
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let secret = format!("hidden-broker-{}", unique("key"));
    let provider = Provider::start(&secret);
    let address = &provider.address;
    // The state folder outlives the test.
    let names = ["azure", "plain", "serverless"].map(unique);
    for (name, document) in names.iter().zip([
        format!("type: azure_open_ai\napi_base: {address}/\n"),
        format!("type: open_ai\nbase_url: {address}/v1\n"),
        format!("type: serverless\napi_base: {address}\n"),
    ]) {
        keep(
            &machine,
            name,
            &format!("{document}api_key: {secret}\nbrokered: true\n"),
        );
    }
    let digest = hex(&Sha256::digest(&secret));
    let mut about = json!({ "names": names, "digest": digest, "length": secret.len() });
    let lay = |name: &str, about: &Value| {
        let it = flex(&folder.path().join(name), PRYING);
        fs::write(it.join("about.json"), about.to_string()).unwrap();
        it
    };
    let wish = || RunWish {
        environment_variables: [("KEY".to_owned(), format!("${{{}.api_key}}", names[0]))].into(),
        ..RunWish::default()
    };
    let view = |key: &str, run: &str| {
        let session = machine.state.join("sessions").join(key);
        session.join("1/work").join(run).join("flow")
    };
    // No network at all, and a broker all the same.
    let it = lay("first", &about);
    let first = key(&unique("broker"));
    machine.start(&first, 1, &it);
    let network = |network| AgentCommand::Network {
        revision: 1,
        network,
        allow_hosts: Vec::new(),
    };
    machine.tell(&first, 1, &network(Network::None));
    let run = unique("broker");
    machine.begin_run(&first, 1, &run, &it, wish());
    let way = machine
        .world
        .wait("the flow's answers", Duration::from_secs(60), |world| {
            let reports = world.agent_reports.lock().unwrap();
            let ended = reports.iter().find_map(|(_, body)| match &body.report {
                AgentReport::RunDone { run: done, result, .. } if *done == run => Some(result.clone()),
                _ => None,
            });
            assert!(ended.is_none(), "it ended early: {ended:?}");
            let written = fs::read_to_string(view(&first, &run).join("address")).unwrap_or_default();
            (!written.is_empty()).then_some(written)
        });
    assert!(way.starts_with("http://192.0.0.1/"), "{way}");
    let (inside, _) = memories_with(&format!("/sessions/{first}/"), &secret);
    assert_eq!(inside, Vec::<i32>::new());
    // Another session, while that one's way is open; and one that has this machine's network.
    about["foreign"] = json!(format!("{way}openai/deployments/gpt"));
    let mut others = Vec::new();
    for (wanted, begins) in [
        (Network::Internet, "http://192.0.0.1/"),
        (Network::Open, "http://127.0.0.1:"),
    ] {
        let it = lay(&unique("other"), &about);
        fs::write(it.join("go"), "").unwrap();
        let other = key(&unique("broker"));
        machine.start(&other, 1, &it);
        machine.tell(&other, 1, &network(wanted));
        let run = unique("broker");
        let result = machine.run(&other, 1, &run, &it, wish());
        others.push((output(&result), machine.output(&run)));
        let file = machine.state.join("runs").join(&run).join("files/address");
        let written = fs::read_to_string(file).unwrap();
        assert!(written.starts_with(begins), "{written}");
        // The open one asks by its own broker what it was told of the first.
        about["foreign"] = json!(format!(
            "{}{}",
            written.trim_end_matches('/').rsplit_once('/').unwrap().0,
            "/0123/openai"
        ));
        machine.remove(&other, 1);
    }
    fs::write(view(&first, &run).join("go"), "").unwrap();
    let result = machine.ended_run(&first, 1, &run);
    let expected = |foreign: Value| {
        json!({
            "answers": {
                "azure": "echo: of azure | echo: /of /azure ",
                "plain": "echo: of plain | echo: /of /plain ",
                "serverless": "echo: of serverless | echo: /of /serverless ",
            },
            "embedding": [4.0, 0.5], "found": [], "looked": true, "key": "held-by-the-broker", "foreign": foreign,
        })
    };
    assert_eq!(output(&result), expected(Value::Null));
    for (output, _) in &others {
        assert_eq!(*output, expected(json!(404)));
    }
    for said in others.iter().map(|(_, said)| said).chain([&machine.output(&run)]) {
        assert!(said.contains("all of it:") && !said.contains(&secret), "{said}");
    }
    are_written_nowhere(&machine, folder.path(), &[&secret]);
    machine.remove(&first, 1);
    let asked = provider.asked();
    assert_eq!(asked.len(), 3 * 7);
    assert!(asked.iter().all(|each| each["has_key"] == true), "{asked:?}");
}
