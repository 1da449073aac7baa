//! Connections and secrets: who has them.

use super::*;
use contract::Code;

pub(crate) fn a_secret_is_nowhere_after_a_kill_of_its_run_its_agent_and_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let mut machine = Machine::new(&state());
    let (name, secret, token) = (
        unique("killed"),
        format!("hidden-{}", unique("killed")),
        format!("hidden-{}", unique("token")),
    );
    keep(&machine, &name, &format!("type: open_ai\napi_key: {secret}\n"));
    let it = flex(
        &folder.path().join("flow"),
        "import os, time\n\
         def main() -> str:\n\
        \x20   print('ready', os.getppid() > 0, flush=True)\n\
        \x20   if os.environ.get('ABORT'):\n\
        \x20       os.abort()\n\
        \x20   time.sleep(600)\n",
    );
    let key = key(&unique("killed"));
    machine.start(&key, 1, &it);
    let begin = |machine: &Machine, abort: &str| {
        let run = unique("killed");
        agent::connections::leave_variables(&machine.state, &run, &[("TOKEN".to_owned(), token.clone())].into())
            .unwrap();
        let wish = RunWish {
            environment_variables: [
                ("KEY".to_owned(), format!("${{{name}.api_key}}")),
                ("ABORT".to_owned(), abort.to_owned()),
            ]
            .into(),
            secret_variables: ["TOKEN".to_owned()].into(),
            ..RunWish::default()
        };
        machine.begin_run(&key, 1, &run, &it, wish);
        run
    };
    // A run that ends itself as by a crash, which would leave a core file.
    let run = begin(&machine, "1");
    let failure = machine.ended_run(&key, 1, &run).failure.unwrap();
    assert!(failure.error.as_str().starts_with("Run."), "{failure}");
    are_written_nowhere(&machine, folder.path(), &[&secret, &token]);
    // The agent in the middle of one, and the host.
    let run = begin(&machine, "");
    machine.world.wait("the run", Duration::from_secs(60), |_| {
        machine.output(&run).contains("ready").then_some(())
    });
    let about = machine.state.join("sessions").join(&key).join("1/agent.json");
    let about: Value = serde_json::from_slice(&fs::read(about).unwrap()).unwrap();
    let pid = about["pid"].as_i64().unwrap() as i32;
    machine.restart_host();
    // SAFETY: it is the agent of this test's own session.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    machine.runtime.block_on(machine.driver.recover());
    assert_eq!(machine.gone(&key, 1).unwrap().error, Code::SessionAgentDied);
    are_written_nowhere(&machine, folder.path(), &[&secret, &token]);
    for text in [&secret, &token] {
        assert_eq!(processes_with(text), Vec::<String>::new());
    }
}

pub(crate) fn a_secret_is_not_told_also_where_it_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let token = format!("hidden-{}\nand-its-second-line", unique("token"));
    let it = flex(
        &folder.path().join("flow"),
        "import os\n\
         def main():\n\
        \x20   token = os.environ['TOKEN']\n\
        \x20   print('log', token, 'end')\n\
        \x20   print('x' * 65_530 + token + 'y' * 65_530)\n\
        \x20   yield 'before ' + token[:9]\n\
        \x20   yield token[9:] + ' after ' + token[:5]\n",
    );
    let key = key(&unique("cut"));
    machine.start(&key, 1, &it);
    let run = unique("cut");
    agent::connections::leave_variables(&machine.state, &run, &[("TOKEN".to_owned(), token.clone())].into()).unwrap();
    let wish = RunWish {
        secret_variables: ["TOKEN".to_owned()].into(),
        stream: true,
        ..RunWish::default()
    };
    let result = machine.run(&key, 1, &run, &it, wish);
    assert_eq!(result.failure, None);
    let told: String = pieces(&machine, &run)
        .into_iter()
        .map(|piece| match piece {
            Chunk::GoesOn { texts, .. } => texts.concat(),
            Chunk::Begins { .. } => String::new(),
        })
        .collect();
    assert_eq!(told, "before *** after hidde");
    let log = fs::read_to_string(Path::new(&result.folder).join("logs.txt")).unwrap();
    let expected = format!(
        "log ***\n*** end\n{0}***\n***{1}\n",
        "x".repeat(65_530),
        "y".repeat(65_530)
    );
    assert!(log.contains(&expected), "{}", &log[..200]);
    machine.remove(&key, 1);
}

pub(crate) fn the_connections_of_a_run_reach_its_own_process_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = flex(
        &folder.path().join("flow"),
        "import os, time\n\
         from promptflow.connections import AzureOpenAIConnection, ConnectionProvider\n\
         from promptflow.client import PFClient\n\
         class Asker:\n\
        \x20   def __init__(self, connection: AzureOpenAIConnection):\n\
        \x20       self.connection = connection\n\
        \x20   def __call__(self) -> dict:\n\
        \x20       print('ready', flush=True)\n\
        \x20       while not os.path.exists('go'):\n\
        \x20           time.sleep(0.005)\n\
        \x20       by_name = ConnectionProvider.get_instance().get('the_custom')\n\
        \x20       by_client = PFClient().connections.get('the_custom')\n\
        \x20       return {'base': self.connection.api_base, 'key': len(self.connection.api_key), 'custom': by_name.secrets == by_client.secrets,\n\
        \x20               'plain': by_name.configs['plain'], 'variable': os.environ['KEY'] == self.connection.api_key, 'token': len(os.environ['TOKEN'])}\n",
    );
    fs::write(it.join("flow.flex.yaml"), "entry: code:Asker\n").unwrap();
    let secret = |of: &str| format!("hidden-{of}-{}", unique("key"));
    let [key_of_it, word, token] = ["key", "word", "token"].map(secret);
    keep(
        &machine,
        "the_model",
        &format!("type: azure_open_ai\napi_base: http://here\napi_key: {key_of_it}\n"),
    );
    keep(
        &machine,
        "the_custom",
        &format!("type: custom\nconfigs:\n  plain: seen\nsecrets:\n  word: {word}\n"),
    );
    let key = key(&unique("connections"));
    machine.start(&key, 1, &it);
    let run = unique("connections");
    agent::connections::leave_variables(&machine.state, &run, &[("TOKEN".to_owned(), token.clone())].into()).unwrap();
    let wish = RunWish {
        init: [("connection".to_owned(), json!("the_model"))].into(),
        environment_variables: [("KEY".to_owned(), "${the_model.api_key}".to_owned())].into(),
        secret_variables: ["TOKEN".to_owned()].into(),
        ..RunWish::default()
    };
    machine.begin_run(&key, 1, &run, &it, wish);
    machine.world.wait("the run", Duration::from_secs(60), |_| {
        machine.output(&run).contains("ready").then_some(())
    });
    let session = format!("/sessions/{key}/");
    // Its own process, and no other of its session: not the runner, not the one that waits for the
    // next run.
    let (found, looked_at) = memories_with(&session, &key_of_it);
    if looked_at > 1 {
        assert_eq!(found.len(), 1, "{found:?} of {looked_at}");
    } else {
        println!("  the memory of other processes cannot be read here");
    }
    let view = machine
        .state
        .join("sessions")
        .join(&key)
        .join("1/work")
        .join(&run)
        .join("flow");
    fs::write(view.join("go"), "").unwrap();
    let result = machine.ended_run(&key, 1, &run);
    assert_eq!(
        output(&result),
        json!({ "base": "http://here", "key": key_of_it.len(), "custom": true, "plain": "seen", "variable": true, "token": token.len() })
    );
    for text in [&key_of_it, &word, &token] {
        assert_eq!(processes_with(text), Vec::<String>::new());
        assert_eq!(memories_with(&session, text).0, Vec::<i32>::new());
    }
    // Code that prints its key is no leak of ours; the log and the errors do not have it all the
    // same.
    let printing =
        "import os\ndef main():\n    print('it is', os.environ['KEY'])\n    raise ValueError(os.environ['KEY'])\n";
    flex(&it, printing);
    let wish = RunWish {
        environment_variables: [("KEY".to_owned(), "${the_model.api_key}".to_owned())].into(),
        ..RunWish::default()
    };
    let run = unique("connections");
    let failure = machine.run(&key, 1, &run, &it, wish).failure.unwrap();
    assert!(failure.message.starts_with("ValueError: ***"), "{failure}");
    assert!(machine.output(&run).contains("it is ***"), "{}", machine.output(&run));
    are_written_nowhere(&machine, folder.path(), &[&key_of_it, &word, &token]);
    machine.remove(&key, 1);
}

pub(crate) fn a_connection_that_is_not_there_is_named_with_those_that_are() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    // The state folder outlives the test.
    let (kept, other) = (unique("kept"), unique("other"));
    let it = flow(
        &folder.path().join("flow"),
        &[
            (
                "flow.dag.yaml",
                "inputs: {}\noutputs:\n  text:\n    type: string\n    reference: ${ask.output}\nnodes:\n- name: ask\n  type: python\n  source:\n\
                \x20   type: code\n    path: ask.py\n  inputs:\n    connection: OTHER\n    # or KEPT\n",
            ),
            (
                "ask.py",
                "from promptflow.core import tool\nfrom promptflow.connections import OpenAIConnection\n\n@tool\ndef ask(connection: \
                 OpenAIConnection) -> str:\n    return connection.base_url\n",
            ),
        ],
    );
    keep(
        &machine,
        &kept,
        "type: open_ai\nbase_url: http://here\napi_key: hidden-word\n",
    );
    let file = it.join("flow.dag.yaml");
    let text = fs::read_to_string(&file)
        .unwrap()
        .replace("OTHER", &other)
        .replace("KEPT", &kept);
    fs::write(&file, text).unwrap();
    let key = key(&unique("no-connection"));
    machine.start(&key, 1, &it);
    let result = machine.run(&key, 1, &unique("no-connection"), &it, RunWish::default());
    let failure = result.failure.clone().unwrap();
    assert_eq!(failure.error, Code::ConnectionNone, "{failure}");
    assert!(
        failure.message.starts_with(&format!(
            "there is no connection '{other}', which the flow names; there are {kept}."
        )),
        "{failure}"
    );
    keep(
        &machine,
        &other,
        "type: open_ai\nbase_url: http://there\napi_key: hidden-word\n",
    );
    let result = machine.run(&key, 1, &unique("no-connection"), &it, RunWish::default());
    assert_eq!(output(&result), json!({ "text": "http://there" }));
    machine.remove(&key, 1);
}

pub(crate) fn a_connection_without_a_key_says_what_gives_the_run_an_identity() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let name = unique("keyless");
    keep(
        &machine,
        &name,
        "type: azure_open_ai\napi_base: http://127.0.0.1:9\nauth_mode: meid_token\n",
    );
    let ask = format!(
        "outputs:\n  text:\n    type: string\n    reference: ${{ask.output}}\nnodes:\n- name: ask\n  type: llm\n  source:\n    type: code\n    \
         path: ask.jinja2\n  inputs:\n    deployment_name: gpt\n  connection: {name}\n  api: chat\n"
    );
    let files = [("flow.dag.yaml", ask.as_str()), ("ask.jinja2", "# user:\nhello\n")];
    let it = flow(&folder.path().join("flow"), &files);
    let key = key(&unique("keyless"));
    machine.start(&key, 1, &it);
    let with_secret = RunWish {
        environment_variables: BTreeMap::from([("AZURE_CLIENT_SECRET".into(), "s".into())]),
        ..RunWish::default()
    };
    for (wish, why) in [
        (RunWish::default(), "none of the run's variables names one"),
        (
            with_secret,
            "DefaultAzureCredential failed to retrieve a token from the included credentials",
        ),
    ] {
        let failure = machine.run(&key, 1, &unique("keyless"), &it, wish).failure.unwrap();
        let said = failure.to_string().replace(&name, "NAME");
        let expected = format!(
            "Connection.NoToken: the connection 'NAME' has no key (auth_mode: meid_token), and the run has no identity of Microsoft Entra to ask for a \
             token with: {why}. Give the run the variables AZURE_TENANT_ID, AZURE_CLIENT_ID and, as a secret, AZURE_CLIENT_SECRET, or give the \
             connection a key."
        );
        assert!(said.starts_with(&expected), "{said}");
    }
    machine.remove(&key, 1);
}
