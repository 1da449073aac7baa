//! Runs: their values, their output, and how they end.

use super::*;
use contract::Code;

pub(crate) fn failures_of_runs_have_names_and_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = folder.path().join("it");
    flex(&it, "def main() -> str:\n    return ''\n");
    let key = key(&unique("fails"));
    machine.start(&key, 1, &it);
    let data = folder.path().join("data.jsonl");
    let run = |code: &str, lines: &str| {
        flex(&it, code);
        fs::write(&data, lines).unwrap();
        let data = (!lines.is_empty()).then(|| data.display().to_string());
        let id = unique("fails");
        let result = machine.run(
            &key,
            1,
            &id,
            &it,
            RunWish {
                data,
                ..RunWish::default()
            },
        );
        let failure = result.failure.clone().unwrap_or_else(|| panic!("{result:#?}"));
        assert_eq!(failure.message.lines().count(), 1, "{failure}");
        assert!(failure.message.contains("logs.txt"), "{failure}");
        (failure, machine.output(&id), result)
    };
    let (failure, said, _) = run("import nowhere_to_be_found\ndef main() -> str:\n    return ''\n", "");
    assert_eq!(failure.error, Code::RunImportFailed);
    assert!(
        failure.message.contains("nowhere_to_be_found")
            && failure.message.contains("add its package to the requirements"),
        "{failure}"
    );
    assert!(said.contains("code.py\", line 1"), "{said}");
    let (failure, said, _) = run("def main() -> str:\n    return 1 / 0\n", "");
    assert_eq!(failure.error, Code::RunCodeRaised);
    assert!(
        failure.message.contains("ZeroDivisionError: division by zero"),
        "{failure}"
    );
    assert!(
        said.contains("code.py\", line 2, in main") && !said.contains("_script_executor"),
        "{said}"
    );
    let (failure, ..) = run("raise RuntimeError('at import')\n", "");
    assert!(
        failure.error == Code::RunCodeRaised && failure.message.contains("at import"),
        "{failure}"
    );
    let (failure, ..) = run("def other() -> str:\n    return ''\n", "");
    assert_eq!(failure.error, Code::RunBadFlow, "{failure}");
    let (failure, ..) = run(
        "def main(a: str) -> str:\n    return a\n",
        "{\"a\": \"1\"}\n{\"a\": nonsense\n",
    );
    assert!(
        failure.error == Code::RunBadData && failure.message.contains("line 2"),
        "{failure}"
    );
    let (failure, ..) = run("def main(a: str) -> str:\n    return a\n", "{\"b\": \"1\"}\n");
    assert!(
        failure.error == Code::RunBadData && failure.message.contains("'a'"),
        "{failure}"
    );
    let (failure, ..) = run("import os\ndef main() -> str:\n    os._exit(7)\n", "");
    assert!(
        failure.error == Code::RunCrashed && failure.message.contains("code 7"),
        "{failure}"
    );
    let (failure, ..) = run("import os\ndef main() -> str:\n    os.kill(os.getpid(), 9)\n", "");
    assert!(
        failure.error == Code::RunCrashed && failure.message.contains("signal 9"),
        "{failure}"
    );
    let (failure, _, result) = run(
        "import os\ndef main(a: int) -> int:\n    if a == 2:\n        os._exit(3)\n    return a\n",
        "{\"a\": 1}\n{\"a\": 2}\n{\"a\": 3}\n",
    );
    assert!(
        failure.error == Code::RunCrashed && failure.message.contains("1 of 3 lines"),
        "{failure}"
    );
    assert_eq!((result.lines, result.failed_lines), (3, 1));
    assert_eq!(
        result.outputs,
        [json!({ "output": 1 }), Value::Null, json!({ "output": 3 })]
    );
    machine.remove(&key, 1);
}

pub(crate) fn written(result: &RunResult, name: &str) -> String {
    fs::read_to_string(Path::new(&result.folder).join(name)).unwrap()
}

pub(crate) const ODD: &str = "
import dataclasses

@dataclasses.dataclass
class Point:
    y: int
    x: list

def deep(n):
    value = 1
    for _ in range(n):
        value = [value]
    return value

def main(kind):
    return {
        'nan': lambda: {'z': float('nan'), 'a': [float('inf'), -float('inf')]},
        'surrogate': lambda: 'x\\ud800y',
        'big': lambda: 10**40,
        'deep': lambda: deep(300),
        'too deep': lambda: deep(100000),
        'dataclass': lambda: Point(1, [2]),
        'set': lambda: {1},
        'order': lambda: {'z': 1, 'a': {'y': 0.1, 'b': 1e-7}},
        'text': lambda: 'é\\u2028😀',
    }[kind]()
";

pub(crate) fn values_that_json_hardly_holds_come_back_as_they_are_or_fail_their_line() {
    let kinds = [
        "nan",
        "surrogate",
        "big",
        "deep",
        "too deep",
        "dataclass",
        "set",
        "order",
        "text",
    ];
    let data: String = kinds.map(|kind| format!("{{\"kind\": \"{kind}\"}}\n")).concat();
    each("values", |run| {
        let result = run(ODD, &data, RunWish::default());
        let deep = format!("{{\"output\": {}1{}}}", "[".repeat(300), "]".repeat(300));
        assert_eq!(
            written(&result, "output/outputs.jsonl").lines().collect::<Vec<_>>(),
            [
                r#"{"z": NaN, "a": [Infinity, -Infinity]}"#,
                r#"{"output": "x\ud800y"}"#,
                r#"{"output": 10000000000000000000000000000000000000000}"#,
                &deep,
                "null",
                r#"{"y": 1, "x": [2]}"#,
                "null",
                r#"{"z": 1, "a": {"y": 0.1, "b": 1e-07}}"#,
                "{\"output\": \"é\u{2028}😀\"}",
            ]
        );
        assert_eq!((result.lines, result.failed_lines), (9, 2), "{result:#?}");
        assert_eq!(result.outputs, [Value::Null; 0], "a report cannot hold them");
        // What a report can hold keeps its order there.
        let result = run(ODD, "{\"kind\": \"order\"}\n", RunWish::default());
        assert_eq!(
            serde_json::to_string(&result.outputs).unwrap(),
            r#"[{"z":1,"a":{"y":0.1,"b":1e-7}}]"#
        );
        let said = run(ODD, "{\"kind\": \"set\"}\n", RunWish::default())
            .failure
            .unwrap()
            .to_string();
        assert!(said.starts_with("Run.BadOutput: "), "{said}");
        let large = run("def main():\n    return 'é' * 30_000_000\n", "", RunWish::default());
        assert_eq!(large.failure, None, "{large:#?}");
        assert_eq!(written(&large, "output/outputs.jsonl").len(), 60_000_015);
    });
}

pub(crate) fn a_run_is_judged_by_how_its_processes_ended_whatever_they_write() {
    let forge = "
import os
def main():
    lie = b'{\"done\": {\"lines\": 1, \"failed\": 0, \"failure\": null}}\\n{\"line\": 99, \"number\": 99, \"text\": \"{}\", \"wrong\": null}\\n'
    for fd in range(3, 200):
        try:
            os.write(fd, lie)
        except OSError:
            pass
    os._exit(0)
";
    each("judged", |run| {
        for code in [
            forge,
            "import os\ndef main():\n    os._exit(1)\n",
            "import os\nos._exit(0)\n",
        ] {
            let result = run(code, "", RunWish::default());
            let failure = result.failure.as_ref().expect("it did not come to its end");
            assert_eq!(failure.error, Code::RunCrashed, "{result:#?}");
            assert!(
                result.lines <= 1 && result.outputs.iter().all(Value::is_null),
                "{result:#?}"
            );
        }
        let result = run(
            "def main():\n    raise ValueError('sur\\ud800rogate')\n",
            "",
            RunWish::default(),
        );
        assert!(result.failure.unwrap().message.contains("ValueError: sur?rogate"));
        let wish = RunWish {
            environment_variables: BTreeMap::from([("PF_LINE_TIMEOUT_SEC".into(), "1".into())]),
            ..RunWish::default()
        };
        let slow = "import time\ndef main(n):\n    time.sleep(n)\n    return n\n";
        let result = run(slow, "{\"n\": 60}\n{\"n\": 0}\n", wish);
        let said = result.failure.unwrap().to_string();
        let expected = "Run.LineTimeout: 1 of 2 lines failed, the first with the line took longer than 1 s, which is its limit \
                        (PF_LINE_TIMEOUT_SEC).";
        assert!(said.starts_with(expected), "{said}");
        let wish = RunWish {
            environment_variables: BTreeMap::from([("PF_BATCH_TIMEOUT_SEC".into(), "1".into())]),
            ..RunWish::default()
        };
        let late = run(slow, "{\"n\": 60}\n", wish);
        let said = late.failure.unwrap().to_string();
        let expected = "Run.Timeout: the run took longer than 1 s, which is its limit (PF_BATCH_TIMEOUT_SEC).";
        assert!(said.starts_with(expected), "{said}");
        assert_eq!(result.outputs, [Value::Null, json!({ "output": 0 })]);
    });
}

pub(crate) fn an_aggregation_gives_metrics_and_one_that_fails_is_told() {
    let code = |last: &str| {
        format!(
            "class main:\n    def __call__(self, n: int):\n        return {{'n': n}}\n    def __aggregate__(self, lines):\n        {last}\n"
        )
    };
    each("aggregation", |run| {
        let data = "{\"n\": 1}\n{\"n\": \"no\"}\n{\"n\": 5}\n";
        let result = run(
            &code("return {'sum': sum(line.n for line in lines), 'zero': 0.0}"),
            data,
            RunWish::default(),
        );
        assert_eq!((result.lines, result.failed_lines), (3, 1));
        assert_eq!(written(&result, "metrics.json"), "{\"sum\": 6, \"zero\": 0.0}\n");
        assert_eq!(
            serde_json::to_string(&result.metrics).unwrap(),
            r#"{"sum":6,"zero":0.0}"#
        );
        let result = run(
            &code("raise RuntimeError('cannot')"),
            "{\"n\": 1}\n{\"n\": 2}\n",
            RunWish::default(),
        );
        let failure = result.failure.expect("it is told");
        assert!(
            failure.message.contains("__aggregate__ failed: RuntimeError: cannot"),
            "{failure}"
        );
        assert_eq!((result.lines, result.failed_lines), (2, 0));
        assert_eq!(result.outputs, [json!({ "n": 1 }), json!({ "n": 2 })]);
    });
}

/// The pieces of an output that a run's agent has reported, in their order.
pub(crate) fn pieces(machine: &Machine, run: &str) -> Vec<Chunk> {
    let reports = machine.world.agent_reports.lock().unwrap();
    let mut lines: Vec<OutputLine> = Vec::new();
    for (_, body) in reports.iter() {
        if let AgentReport::Output { of, lines: more } = &body.report
            && of == run
        {
            lines.extend(more.iter().filter(|line| line.kind == LineKind::Chunk).cloned());
        }
    }
    lines.sort_by_key(|line| line.seq);
    lines.dedup_by_key(|line| line.seq);
    lines
        .iter()
        .map(|line| serde_json::from_str(&line.text).unwrap())
        .collect()
}

pub(crate) fn text_of(pieces: &[Chunk]) -> String {
    let texts = pieces.iter().map(|piece| match piece {
        Chunk::GoesOn { texts, .. } => texts.concat(),
        Chunk::Begins { .. } => String::new(),
    });
    texts.collect()
}

pub(crate) fn pieces_of_an_output_come_in_order_before_its_end_within_bounds_and_the_end_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let code = "
import os, time
def main(kind: str):
    if kind == 'waits':
        return {'answer': waits(), 'kind': kind}
    return many()
def waits():
    yield 'one '
    print('said between')
    while not os.path.exists('go'):
        time.sleep(0.01)
    yield 'two'
def many():
    for n in range(100):
        yield f'{n:05}' * 2000
";
    let it = flex(&folder.path().join("flow"), code);
    let key = key(&unique("pieces"));
    machine.start(&key, 1, &it);
    let streamed = |kind: &str| RunWish {
        stream: true,
        ..inputs("kind", kind)
    };
    let run = unique("pieces");
    machine.begin_run(&key, 1, &run, &it, streamed("waits"));
    machine.world.wait("a piece", Duration::from_secs(60), |_| {
        (text_of(&pieces(&machine, &run)) == "one ").then_some(())
    });
    // It has not ended: it waits for this file.
    fs::write(machine.state.join(format!("sessions/{key}/1/work/{run}/flow/go")), "").unwrap();
    let result = machine.ended_run(&key, 1, &run);
    assert_eq!(output(&result), json!({ "answer": "one two", "kind": "waits" }));
    let begins = json!({ "begins": { "outputs": { "kind": "waits" }, "names": ["answer"] } });
    let one = json!({ "goes-on": { "name": "answer", "texts": ["one "] } });
    let two = json!({ "goes-on": { "name": "answer", "texts": ["two"] } });
    let told: Vec<Value> = pieces(&machine, &run).iter().map(|piece| json!(piece)).collect();
    assert_eq!(told, [begins, one, two]);
    assert_eq!(result.said, Some(4), "what it has said is told among the pieces");

    let run = unique("pieces");
    let result = machine.run(&key, 1, &run, &it, streamed("many"));
    let whole = written(&result, "output/outputs.jsonl");
    let whole: Value = serde_json::from_str(&whole).unwrap();
    let whole = whole["output"].as_str().unwrap();
    let told = text_of(&pieces(&machine, &run));
    assert_eq!((whole.len(), told.len()), (1_000_000, 260_000));
    assert!(whole.starts_with(&told));

    // Of several lines, and of a run that does not stream, there are none.
    let data = folder.path().join("data.jsonl");
    fs::write(&data, "{\"kind\": \"many\"}\n{\"kind\": \"many\"}\n").unwrap();
    let over_data = RunWish {
        data: Some(data.display().to_string()),
        stream: true,
        ..RunWish::default()
    };
    for wish in [over_data, inputs("kind", "many")] {
        let run = unique("pieces");
        assert_eq!(machine.run(&key, 1, &run, &it, wish).failure, None);
        assert_eq!(pieces(&machine, &run), []);
    }
    machine.remove(&key, 1);
}

pub(crate) fn lines_that_wait_share_the_processor() {
    each("waiting", |run| {
        let data: String = (0..40).map(|n| format!("{{\"n\": {n}}}\n")).collect();
        let result = run(
            "import time\ndef main(n):\n    begun = time.time()\n    time.sleep(1)\n    return [begun, time.time()]\n",
            &data,
            RunWish::default(),
        );
        assert_eq!(result.failure, None);
        let times: Vec<[f64; 2]> = result
            .outputs
            .iter()
            .map(|output| serde_json::from_value(output["output"].clone()).unwrap())
            .collect();
        assert_eq!(times.len(), 40);
        let at_once = |at: f64| {
            times
                .iter()
                .filter(|[begun, ended]| *begun <= at && at < *ended)
                .count()
        };
        let most = times.iter().map(|[begun, _]| at_once(*begun)).max().unwrap();
        // Promptflow has four at a time.
        assert!(most > 4, "{most} at once: {times:?}");
    });
}

pub(crate) fn a_variable_that_no_process_takes_is_refused_and_the_runner_lives_on() {
    let with = |size: usize| RunWish {
        environment_variables: BTreeMap::from([("LARGE".into(), "x".repeat(size))]),
        ..RunWish::default()
    };
    each("variable", |run| {
        let code = "import os\ndef main():\n    return len(os.environ['LARGE'])\n";
        let failure = run(code, "", with(200_000)).failure.expect("it is refused");
        let expected = "Run.VariableTooLarge: the environment variable LARGE has 200007 bytes, and Linux takes at most 131072; put the \
                        value in a file of the flow.";
        assert!(failure.to_string().starts_with(expected), "{failure}");
        let command = RunWish {
            command: vec!["true".into()],
            ..with(200_000)
        };
        assert_eq!(run(code, "", command).failure.unwrap().error, Code::RunVariableTooLarge);
        let many = RunWish {
            command: vec!["true".into()],
            environment_variables: (0..40).map(|n| (format!("LARGE_{n}"), "x".repeat(100_000))).collect(),
            ..RunWish::default()
        };
        let said = run(code, "", many).failure.unwrap().to_string();
        let expected = "Run.NotStarted: the run's process could not be started: Argument list too long.";
        assert!(said.starts_with(expected), "{said}");
        assert_eq!(output(&run(code, "", with(120_000))), json!({ "output": 120_000 }));
    });
}

pub(crate) fn a_long_line_of_output_is_whole_in_the_log() {
    each("long-line", |run| {
        let result = run(
            "def main():\n    print('é' * 600_000 + 'end')\n    print('next')\n",
            "",
            RunWish::default(),
        );
        let log = written(&result, "logs.txt");
        let mut lines = log.lines().skip_while(|line| !line.starts_with('é'));
        assert_eq!(lines.next().map(|line| line.chars().count()), Some(600_003));
        assert_eq!(lines.next(), Some("next"));
    });
}

pub(crate) fn what_a_run_used_is_measured() {
    let mine = "def main() -> str:\n    held = bytearray(200 << 20)\n    return str(sum(range(10**7)) and len(held))\n";
    let used = once("measured", mine).used.expect("a flow's run is measured");
    assert!((200 << 20..2 << 30).contains(&used.memory), "{used:?}");
    assert!(used.processor >= 50 && used.took >= 50, "{used:?}");
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = flow(&folder.path().join("it"), &[("a.py", "")]);
    let key = key(&unique("measured"));
    machine.start(&key, 1, &it);
    let code =
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'bytearray(200 << 20); sum(range(10**7))'])";
    let command = ["python", "-c", code].map(str::to_owned).to_vec();
    let wish = RunWish {
        command,
        ..RunWish::default()
    };
    let used = machine.run(&key, 1, &unique("measured"), &it, wish).used;
    let used = used.expect("so is a command, with the processes that it has waited for");
    assert!((200 << 20..2 << 30).contains(&used.memory), "{used:?}");
    assert!(used.processor >= 50 && used.took >= 50, "{used:?}");
    machine.remove(&key, 1);
}
