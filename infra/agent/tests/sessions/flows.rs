//! Flows of each kind, over their data.

use super::*;
use contract::Code;

pub(crate) fn a_dag_flow_runs_over_lines_of_data_and_keeps_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let hello = flow(&folder.path().join("hello"), &DAG);
    let key = key(&hello.display().to_string());
    machine.start(&key, 1, &hello);
    let result: RunResult = machine.run(&key, 1, &unique("one"), &hello, inputs("name", "you"));
    assert_eq!(result.failure, None, "{result:#?}");
    assert_eq!(result.outputs, [json!({ "greeting": "Hello, you!" })]);
    let data: String = (0..20).map(|i| format!("{{\"who\": \"n{i}\"}}\n")).collect();
    std::fs::write(folder.path().join("data.jsonl"), data).unwrap();
    let wish = RunWish {
        data: Some(folder.path().join("data.jsonl").display().to_string()),
        column_mapping: BTreeMap::from([("name".into(), json!("${data.who}"))]),
        ..RunWish::default()
    };
    let result = machine.run(&key, 1, &unique("many"), &hello, wish);
    assert_eq!(result.failure, None);
    let expected: Vec<_> = (0..20)
        .map(|i| json!({ "greeting": format!("Hello, n{i}!") }))
        .collect();
    assert_eq!(result.outputs, expected);
    let written = std::fs::read_to_string(Path::new(&result.folder).join("output/outputs.jsonl")).unwrap();
    assert_eq!(written.lines().count(), 20);
    machine.remove(&key, 1);
    assert_eq!(machine.gone(&key, 1), None);
}

pub(crate) fn flex_and_class_flows_run_and_init_reaches_the_constructor() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let function = flex(
        &folder.path().join("function"),
        "def main(name: str = 'world') -> dict:\n    return {'greeting': f'Hi {name}'}\n",
    );
    let class = flow(
        &folder.path().join("class"),
        &[
            ("flow.flex.yaml", "entry: code:Greeter\n"),
            (
                "code.py",
                "class Greeter:\n    def __init__(self, word: str = 'Hi'):\n        self.word = word\n    def __call__(self, name: str) -> str:\n        return f'{self.word} {name}'\n",
            ),
        ],
    );
    let (one, two) = (key(&unique("function")), key(&unique("class")));
    machine.start(&one, 1, &function);
    machine.start(&two, 1, &class);
    assert_eq!(
        output(&machine.run(&one, 1, &unique("f"), &function, inputs("name", "Ann"))),
        json!({ "greeting": "Hi Ann" })
    );
    let wish = RunWish {
        init: BTreeMap::from([("word".into(), json!("Salut"))]),
        ..inputs("name", "Ann")
    };
    assert_eq!(
        output(&machine.run(&two, 1, &unique("c"), &class, wish)),
        json!({ "output": "Salut Ann" })
    );
    let wish = RunWish {
        environment_variables: BTreeMap::from([("COLOUR".into(), "green".into())]),
        ..RunWish::default()
    };
    flex(
        &function,
        "import os\ndef main() -> str:\n    return os.environ.get('COLOUR', '')\n",
    );
    assert_eq!(
        output(&machine.run(&one, 1, &unique("v"), &function, wish)),
        json!({ "output": "green" })
    );
    assert_eq!(
        output(&machine.run(&one, 1, &unique("v"), &function, RunWish::default())),
        json!({ "output": "" })
    );
    machine.remove(&one, 1);
    machine.remove(&two, 1);
}

pub(crate) fn an_edit_counts_in_the_next_run_and_what_a_run_writes_goes_to_its_own_folder() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let shared = folder.path().join("shared");
    flow(&shared, &[("word.txt", "one")]);
    let it = flow(
        &folder.path().join("flow"),
        &[
            (
                "flow.flex.yaml",
                "entry: code:main\nadditional_includes:\n- ../shared\n",
            ),
            (
                "code.py",
                "import pathlib\ndef main() -> str:\n    word = pathlib.Path('shared/word.txt').read_text()\n    pathlib.Path('made/deep').mkdir(parents=True)\n    pathlib.Path('made/deep/it.txt').write_text(word)\n    pathlib.Path('code.py').write_text('spoilt')\n    print('said', word)\n    return word\n",
            ),
        ],
    );
    let key = key(&unique("edit"));
    machine.start(&key, 1, &it);
    let (first, second) = (unique("edit"), unique("edit"));
    let result = machine.run(&key, 1, &first, &it, RunWish::default());
    assert_eq!(output(&result), json!({ "output": "one" }));
    fs::write(shared.join("word.txt"), "two").unwrap();
    assert_eq!(
        output(&machine.run(&key, 1, &second, &it, RunWish::default())),
        json!({ "output": "two" })
    );
    machine.remove(&key, 1);
    // After the session's end.
    let kept = Path::new(&result.folder);
    assert_eq!(fs::read_to_string(kept.join("files/made/deep/it.txt")).unwrap(), "one");
    assert_eq!(fs::read_to_string(kept.join("files/code.py")).unwrap(), "spoilt");
    assert!(!kept.join("files/shared").exists());
    assert!(fs::read_to_string(kept.join("logs.txt")).unwrap().contains("said one"));
    assert!(machine.output(&first).contains("said one"));
    assert!(fs::read_to_string(it.join("code.py")).unwrap().contains("pathlib"));
}

pub(crate) fn a_flow_is_given_by_its_file_or_entry_and_reads_an_earlier_run() {
    each("file", |run| {
        let code = "def main(text: str) -> str:\n    return f'said {text}'\n\ndef grade(text: str, answer: str, n: int = 0) -> dict:\n    return {'right': answer == f'said {text}', 'n': n}\n";
        let entry = |name: &str| RunWish {
            entry: Some(format!("code:{name}")),
            ..RunWish::default()
        };
        let first = run(
            code,
            "{\"text\": \"a\", \"line_number\": 4}\n{\"text\": \"b\", \"line_number\": 2}\n",
            entry("main"),
        );
        assert_eq!(
            first.outputs,
            [json!({ "output": "said b" }), json!({ "output": "said a" })]
        );
        let earlier = Path::new(&first.folder)
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let mapping = [
            ("text", json!("${run.inputs.text}")),
            ("answer", json!("${run.outputs.output}")),
            ("n", json!(7)),
        ];
        let graded = RunWish {
            run: Some(earlier),
            column_mapping: mapping.map(|(name, source)| (name.to_owned(), source)).into(),
            ..entry("grade")
        };
        let result = run(code, "", graded);
        assert_eq!(result.failure, None, "{result:#?}");
        assert_eq!(
            result.outputs,
            [json!({ "right": true, "n": 7 }), json!({ "right": true, "n": 7 })]
        );
        let none = RunWish {
            run: Some("no-such-run".into()),
            ..entry("grade")
        };
        let said = run(code, "", none).failure.unwrap().to_string();
        let expected = "Run.NoSuchRun: The outputs of the run no-such-run are not here: ";
        assert!(said.starts_with(expected), "{said}");
        let file = |name: &str| RunWish {
            file: Some(name.into()),
            ..RunWish::default()
        };
        assert_eq!(
            output(&run(
                "def main() -> str:\n    return 'by file'\n",
                "",
                file("flow.flex.yaml")
            )),
            json!({ "output": "by file" })
        );
        for name in ["other.yaml", "../flow.flex.yaml"] {
            assert_eq!(
                run(code, "", file(name)).failure.unwrap().error,
                Code::RunBadFlow,
                "{name}"
            );
        }
        let unknown = RunWish {
            column_mapping: [("txet".to_owned(), json!("${data.text}"))].into(),
            ..entry("main")
        };
        let failure = run(code, "{\"text\": \"a\"}\n", unknown).failure.unwrap();
        let expected = "Run.UnknownInput: the column mapping names the input 'txet', and the flow has no such input; did you mean 'text'";
        assert!(failure.to_string().starts_with(expected), "{failure}");
    });
}

pub(crate) fn a_column_that_gives_way_to_a_default_is_said_in_the_log() {
    each("default", |run| {
        let code = "def main(text: str = 'mine', n: int = 0) -> str:\n    return f'said {text}'\n";
        let data = "{\"text\": \"a\"}\n";
        let log = |result: &RunResult| fs::read_to_string(Path::new(&result.folder).join("logs.txt")).unwrap();
        let said = "the data's column 'text' is not used: the flow has a default for this input, and promptflow takes that; to use the column, \
                    map it: --column-mapping text='${data.text}'\n";
        let unmapped = run(code, data, RunWish::default());
        assert_eq!(output(&unmapped), json!({ "output": "said mine" }));
        assert!(log(&unmapped).contains(said), "{}", log(&unmapped));
        let mapped = RunWish {
            column_mapping: [("text".to_owned(), json!("${data.text}"))].into(),
            ..RunWish::default()
        };
        let mapped = run(code, data, mapped);
        assert_eq!(output(&mapped), json!({ "output": "said a" }));
        assert!(!log(&mapped).contains("is not used"), "{}", log(&mapped));
    });
}

/// Data that no row can be read from, and what is said of it.
const BAD_DATA: [(&str, &[u8], &str); 5] = [
    (
        "latin.jsonl",
        b"{\"text\": \"a\"}\n{\"text\": \"caf\xe9\"}\n",
        "line 2 of the data latin.jsonl is not UTF-8 (byte 0xe9); save the file as UTF-8.",
    ),
    (
        "wide.jsonl",
        b"\xff\xfe{\0}\0\n\0",
        "the data wide.jsonl is UTF-16 text; save it as UTF-8.",
    ),
    (
        "wide.csv",
        b"\xfe\xff\0a\0\n",
        "the data wide.csv is UTF-16 text; save it as UTF-8.",
    ),
    (
        "uneven.csv",
        b"text,more\na,b\nc\n",
        "line 3 of the data uneven.csv has 1 fields, and the first line 2.",
    ),
    (
        "rows.xlsx",
        b"text\na\n",
        "line 1 of the data rows.xlsx is no JSON: Expecting value: line 1 column 1 (char 0).",
    ),
];

pub(crate) fn data_that_is_no_utf8_or_no_table_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let it = flex(
        &folder.path().join("flow"),
        "def main(text: str) -> str:\n    return text\n",
    );
    let key = key(&unique("data"));
    machine.start(&key, 1, &it);
    let run = |name: &str, bytes: &[u8]| {
        let file = folder.path().join(name);
        fs::write(&file, bytes).unwrap();
        let wish = RunWish {
            data: Some(file.display().to_string()),
            ..RunWish::default()
        };
        machine.run(&key, 1, &unique("data"), &it, wish)
    };
    for (name, bytes) in [
        ("mark.jsonl", &b"\xef\xbb\xbf{\"text\": \"\xc3\xa4\"}\n"[..]),
        ("mark.csv", b"\xef\xbb\xbftext\n\xc3\xa4\n"),
        ("mark.tsv", b"\xef\xbb\xbftext\n\xc3\xa4\n"),
        ("mark.json", b"\xef\xbb\xbf[{\"text\": \"\xc3\xa4\"}]"),
    ] {
        assert_eq!(output(&run(name, bytes)), json!({ "output": "ä" }), "{name}");
    }
    for (name, bytes, why) in BAD_DATA {
        let failure = run(name, bytes).failure.unwrap();
        assert_eq!(failure.error, Code::RunBadData, "{failure}");
        assert!(failure.message.starts_with(why), "{name}: {failure}");
    }
    machine.remove(&key, 1);
}

pub(crate) fn as_many_lines_run_at_once_as_a_run_wants() {
    each("workers", |run| {
        let code = "import os, time\ndef main(n):\n    begun = time.time()\n    time.sleep(0.2)\n    return [begun, time.time(), os.getpid()]\n";
        let data: String = (0..8).map(|n| format!("{{\"n\": {n}}}\n")).collect();
        for wanted in [1, 2] {
            let wish = RunWish {
                environment_variables: [("PF_WORKER_COUNT".to_owned(), wanted.to_string())].into(),
                ..RunWish::default()
            };
            let result = run(code, &data, wish);
            assert_eq!(result.failure, None, "{result:#?}");
            let times: Vec<(f64, f64, u32)> = result
                .outputs
                .iter()
                .map(|output| serde_json::from_value(output["output"].clone()).unwrap())
                .collect();
            let at_once = |at: f64| {
                times
                    .iter()
                    .filter(|(begun, ended, _)| *begun <= at && at < *ended)
                    .count()
            };
            let most = times.iter().map(|(begun, ..)| at_once(*begun)).max();
            assert_eq!((times.len(), most), (8, Some(wanted)), "{times:?}");
            let mut workers: Vec<u32> = times.iter().map(|(.., worker)| *worker).collect();
            workers.sort_unstable();
            workers.dedup();
            assert_eq!(workers.len(), wanted);
        }
    });
}

pub(crate) fn a_flows_file_is_read_before_the_run_that_asks_for_it_and_each_reader_has_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::new(&state());
    let code = "
from pfsession_runner import definitions
from promptflow._utils import flow_utils
def main() -> dict:
    known = list(definitions.KNOWN)
    flow_utils.load_yaml('flow.flex.yaml')['entry'] = 'another'
    return {'known': known, 'entry': flow_utils.load_yaml('flow.flex.yaml')['entry']}
";
    let it = flex(&folder.path().join("flow"), code);
    let file = it.join("flow.flex.yaml");
    let started_with = fs::read_to_string(&file).unwrap();
    let mut texts = vec![started_with.clone()];
    let mut edit = || {
        let next = format!("{started_with}# edited {} times\n", texts.len());
        fs::write(&file, &next).unwrap();
        texts.push(next);
        (texts[texts.len() - 2].clone(), texts[texts.len() - 1].clone())
    };
    let key = key(&unique("ahead"));
    machine.start(&key, 1, &it);
    // The text that was read ahead is one that this run does not load itself. A run that comes at
    // once finds nothing read.
    let is_read_ahead = (0..50).any(|_| {
        let (before, now) = edit();
        let result = machine.run(&key, 1, &unique("ahead"), &it, RunWish::default());
        let said = output(&result);
        assert_eq!(said["entry"], "code:main");
        let known: Vec<&str> = said["known"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert!(known.contains(&now.as_str()), "{said}");
        known.contains(&before.as_str())
    });
    assert!(is_read_ahead);
    // One that cannot be read is the run's failure alone.
    fs::write(&file, "entry: [\n").unwrap();
    for _ in 0..2 {
        let result = machine.run(&key, 1, &unique("ahead"), &it, RunWish::default());
        assert_eq!(result.failure.unwrap().error, contract::Code::FlowBadFlowFile);
    }
    fs::write(&file, &started_with).unwrap();
    let result = machine.run(&key, 1, &unique("ahead"), &it, RunWish::default());
    assert_eq!(output(&result)["entry"], "code:main");
    machine.remove(&key, 1);
}
