"""Runs promptflow's public examples here and by promptflow itself, and prints what came of each.

    git clone --depth 1 https://github.com/microsoft/promptflow   # anywhere else: nothing of it belongs in this repository
    python -m venv venv && venv/bin/pip install promptflow==1.18.5 promptflow-tools keyrings.alt   # and what the examples' requirements name
    cargo build -p pfsession
    venv/bin/python tests/flows/sweep.py promptflow/examples target/debug/pfsession [NAME...]

NAME is a part of an example's path. Their model is the fake provider (`../provider.py`), which
answers with what it is asked. Outputs and metrics are compared as JSON, a failed line as none.
State, home and connections are in a temporary folder.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import record
import yaml

HERE = Path(__file__).resolve().parent
KEY = "sweep-key"
# How long one run may take.
SECONDS = 180
VARIABLES = {"AZURE_OPENAI_API_KEY": "${open_ai_connection.api_key}", "AZURE_OPENAI_ENDPOINT": "${open_ai_connection.api_base}", "OPENAI_API_VERSION": "2024-02-01"}
# A row for a flow that needs none, as its inputs have defaults; a prompty has none for its history.
NO_SAMPLE = {"row": 1}
# What only the text beside an example says of how it is run.
INIT = {"flex-flows/eval-criteria-with-langchain": {"custom_connection": "my_llm_connection"}}


def main():
    examples, program, *names = sys.argv[1:]
    examples, program = Path(examples).resolve(), str(Path(program).resolve())
    place = Path(tempfile.mkdtemp(prefix="sweep-"))
    os.environ.update(HOME=str(place / "home"), PFSESSION_STATE=str(place / "state"), PF_DISABLE_TRACING="true")
    (place / "home").mkdir()
    provider = subprocess.Popen([sys.executable, HERE.parent / "provider.py", KEY], stdout=subprocess.PIPE, text=True)
    try:
        address = provider.stdout.readline().strip()
        # Nobody reads what it was asked.
        provider_log = subprocess.Popen(["cat"], stdin=provider.stdout, stdout=subprocess.DEVNULL)
        sweep(Sides(place, program, address), examples, names)
    finally:
        subprocess.run([program, "down"], capture_output=True)
        # Promptflow leaves its own service running.
        subprocess.run([str(Path(sys.executable).parent / "pf"), "service", "stop"], capture_output=True)
        provider.kill()
        provider_log.wait()
        shutil.rmtree(place, ignore_errors=True)


def sweep(sides, examples, names):
    sides.make_connections()
    counts = {}
    for name, flow in find(examples):
        if names and not any(each in name for each in names):
            continue
        result, note = compare(sides, examples, name, flow)
        counts[result] = counts.get(result, 0) + 1
        print(f"| {name} | {result} | {note} |", flush=True)
    print(", ".join(f"{count} {result}" for result, count in sorted(counts.items())), f"of {sum(counts.values())}")


def find(examples):
    """Each example: a folder with a flow's file, or a prompty in a folder without."""
    for top in ("flows", "flex-flows", "prompty"):
        folders = sorted({path.parent for path in (examples / top).rglob("*") if path.suffix == ".prompty" or path.name in ("flow.dag.yaml", "flow.flex.yaml")})
        for folder in folders:
            files = [folder / name for name in ("flow.dag.yaml", "flow.flex.yaml") if (folder / name).exists()]
            for flow in [folder] if files else sorted(folder.glob("*.prompty")):
                yield str(flow.relative_to(examples)), flow


def compare(sides, examples, name, flow):
    """One word on an example, and the reason for it."""
    slug = "sweep-" + re.sub(r"[^A-Za-z0-9]+", "-", name)[-60:]
    file = sides.run_file(examples, name, flow, slug)
    theirs, ours = sides.run_theirs(file, slug), sides.run_ours(file, slug)
    if is_same(theirs["outputs"], ours["outputs"]) and is_same(theirs["metrics"], ours["metrics"], sort_keys=True) and any(theirs["outputs"]):
        failed = sum(output is None for output in ours["outputs"])
        return "equal", f"{len(ours['outputs'])} lines" + (f", {failed} of them fail in both: {ours['why']}" if failed else "")
    if not any(theirs["outputs"]) and not any(ours["outputs"]):
        return "run by neither", f"{ours['why']} (promptflow: {theirs['why']})" if ours["why"] != theirs["why"] else ours["why"]
    if not any(ours["outputs"]):
        return "run by promptflow alone", ours["why"]
    if not any(theirs["outputs"]):
        return "run here alone", f"promptflow: {theirs['why']}"
    return "different", difference(theirs, ours)


def is_same(one, other, **how):
    """Whether two values are the same as JSON text, in which NaN is NaN and keys have an order."""
    return json.dumps(one, **how) == json.dumps(other, **how)


def difference(theirs, ours):
    if not is_same(theirs["metrics"], ours["metrics"], sort_keys=True):
        return f"metrics {theirs['metrics']} are {ours['metrics']} here; {ours['why']}"
    if len(theirs["outputs"]) != len(ours["outputs"]):
        return f"{len(theirs['outputs'])} lines are {len(ours['outputs'])} here"
    at = next(at for at, both in enumerate(zip(theirs["outputs"], ours["outputs"])) if not is_same(*both))
    pair = [json.dumps(side["outputs"][at], ensure_ascii=False) for side in (theirs, ours)]
    from_ = max(0, next((i for i, (a, b) in enumerate(zip(*pair)) if a != b), 0) - 40)
    return one_line(f"line {at}: `{pair[0][from_:from_ + 160]}` is `{pair[1][from_:from_ + 160]}` here; {ours['why'] or theirs['why']}")


def one_line(text):
    return " ".join(str(text).split()).replace("|", "\\|")[:400]


class Sides:
    """Both sides: promptflow in forks of this process, ours by its command line."""

    def __init__(self, place, program, address):
        self.place, self.program, self.address = place, program, address

    def make_connections(self):
        azure = {"type": "azure_open_ai", "api_key": KEY, "api_base": self.address, "api_type": "azure", "api_version": "2024-02-01"}
        custom = {"type": "custom", "configs": {"api_base": self.address, "azure_endpoint": self.address, "api_type": "azure", "api_version": "2024-02-01"}}
        known = {name: azure for name in ("open_ai_connection", "azure_open_ai_connection", "aoai_gpt4v_connection", "azure_openai", "your_open_ai_connection")}
        known |= {name: {**custom, "secrets": {"api_key": KEY, "openai_api_key": KEY}} for name in ("basic_custom_connection", "custom_connection", "my_llm_connection")}
        files = []
        for name, document in known.items():
            file = self.place / f"{name}.yml"
            file.write_text(json.dumps({"name": name, **document}))
            files.append(file)
            subprocess.run([self.program, "connection", "create", "-f", file], check=True, capture_output=True)
        if wrong := in_fork(self.place / "connections.json", lambda: create_theirs(files)):
            raise SystemExit(f"promptflow's connections: {wrong['why']}")

    def run_file(self, examples, name, flow, slug):
        """The example's own run.yml with whole paths, or one that gives its data, or its sample, or
        a row without a column."""
        folder = flow if flow.is_dir() else flow.parent
        written = yaml.safe_load((folder / "run.yml").read_text()) if (folder / "run.yml").exists() else {}
        own = written if flow.is_dir() or written.get("flow") == flow.name else {}
        data = [path for path in [*folder.glob("*.jsonl"), *folder.glob("data/*.jsonl")] if is_data(path)]
        data.sort(key=lambda path: path.name != "data.jsonl")
        rows = self.place / f"{slug}.jsonl"
        rows.write_text(json.dumps(sample(folder, flow)) + "\n")
        value = {"environment_variables": VARIABLES, **own}
        if name in INIT or (folder / "init.json").exists():
            # By the texts beside the examples. What their run.yml says of it, promptflow refuses.
            value["init"] = INIT.get(name) or json.loads((folder / "init.json").read_text())
        value |= {"flow": str(flow), "data": str(folder / own["data"] if "data" in own else data[0] if data else rows)}
        file = self.place / f"{slug}.yml"
        file.write_text(json.dumps(value))
        return file

    def run_theirs(self, file, slug):
        told = in_fork(self.place / f"{slug}.json", lambda: run_theirs(file, slug))
        return told or {"outputs": [], "metrics": {}, "why": f"no end within {SECONDS} s"}

    def run_ours(self, file, slug):
        allowed = self.address.removeprefix("http://")
        arguments = [self.program, "run", str(file), "--name", slug, "--allow-host", allowed, "--idle", "60s"]
        try:
            ended = subprocess.run(arguments, capture_output=True, text=True, timeout=SECONDS + 120, errors="replace")
        except subprocess.TimeoutExpired:
            subprocess.run([self.program, "runs", "cancel", slug], capture_output=True)
            return {"outputs": [], "metrics": {}, "why": f"no end within {SECONDS} s"}
        place = self.place / "state/runs" / slug
        texts = read_lines(place / "output/outputs.jsonl")
        outputs = [record.with_images(json.loads(text), place / "output") for text in texts]
        why = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
        metrics = place / "metrics.json"
        why = re.sub(r"^error: (the run of \S+ did not succeed: )?", "", why[0]).split(" The run's output is in")[0] if why else ""
        return {"outputs": outputs, "metrics": json.loads(metrics.read_text()) if metrics.exists() else {}, "why": one_line(why)}


def sample(folder, flow):
    """The row that an example gives as its sample."""
    if (folder / "sample.json").exists():
        return json.loads((folder / "sample.json").read_text())
    file = flow / "flow.flex.yaml" if flow.is_dir() else flow
    if not file.exists():
        return NO_SAMPLE
    text = file.read_text(encoding="utf-8")
    about = yaml.safe_load(text.split("---")[1] if file.suffix == ".prompty" else text) or {}
    given = about.get("sample") or {}
    given = given.get("inputs", given) if isinstance(given, dict) else {}
    return given or {**NO_SAMPLE, "chat_history": []}


def is_data(path):
    """Whether a file has a JSON object in its first line: one of the examples is in lines of
    another kind."""
    try:
        return isinstance(json.loads(path.read_text(encoding="utf-8-sig").partition("\n")[0]), dict)
    except ValueError:
        return False


def read_lines(path):
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line] if path.exists() else []


def in_fork(result, work):
    """The result of `work` in a process of its own, which harms no other; None if it takes too
    long."""
    pid = os.fork()
    if not pid:
        os.setpgid(0, 0)
        signal.alarm(SECONDS)
        log = os.open(str(result) + ".log", os.O_CREAT | os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            result.write_text(json.dumps(work()))
        except BaseException as error:  # noqa: BLE001
            result.write_text(json.dumps({"outputs": [], "metrics": {}, "why": one_line(f"{type(error).__name__}: {error}")}))
        os._exit(0)
    os.waitpid(pid, 0)
    try:
        # What it has left behind.
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    return json.loads(result.read_text()) if result.exists() else None


def create_theirs(files):
    from promptflow._sdk._load_functions import load_connection
    from promptflow.client import PFClient

    for file in files:
        PFClient().connections.create_or_update(load_connection(file))


def run_theirs(file, slug):
    from promptflow._sdk._load_functions import load_run
    from promptflow.client import PFClient

    client = PFClient(config={"trace.destination": "none"})
    why = ""
    try:
        run = client.runs.create_or_update(load_run(file, params_override=[{"name": slug}]))
        why = ((run._to_dict().get("error") or {}).get("message")) or ""
    except Exception as error:  # noqa: BLE001
        why = f"{type(error).__name__}: {error}"
    place = Path(os.environ["HOME"], ".promptflow/.runs", slug)
    lines = [json.loads(line) for line in read_lines(place / "flow_outputs/output.jsonl")]
    by_number = {line.pop("line_number"): line for line in lines}
    numbers = sorted({*record.all_numbers(place), *by_number})
    outputs = [record.with_images(by_number[number], place / "flow_outputs") if number in by_number else None for number in numbers]
    metrics = place / "metrics.json"
    return {"outputs": outputs, "metrics": json.loads(metrics.read_text()) if metrics.exists() else {}, "why": one_line(why)}


if __name__ == "__main__":
    main()
