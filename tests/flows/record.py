"""Records what promptflow itself gives for each flow of `recorded/`, in its `recorded.json`.

    python -m venv venv && venv/bin/pip install promptflow==1.18.5 promptflow-tools pillow keyrings.alt
    venv/bin/python tests/flows/record.py [name...]

A recording holds the outputs as lines of JSON text without their `line_number` (null where a line
failed, in the order of the line numbers; an image is given by its bytes), and the metrics as
promptflow wrote them. It takes 20 to 40 seconds a flow, so tests read the recordings and do not
make them. Flows may use the connections `the_model` (Azure OpenAI) and `other_model` (OpenAI) to
the fake provider (`../provider.py`), kept in a temporary home. A folder with a file `entry` has no
run file: the file holds `module:function`.
"""

import json
import os
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "recorded"
KEY = "recorded-key"


def record(client, folder, base):
    from promptflow._sdk._load_functions import load_run

    name = f"recorded-{uuid.uuid4().hex[:8]}"
    os.chdir(folder)
    if (folder / "entry").exists():
        client.run(flow=(folder / "entry").read_text().strip(), code=str(folder), data="data.jsonl", name=name)
    else:
        run = load_run("run.yml", params_override=[{"name": name}, *([{"run": base}] if base else [])])
        client.runs.create_or_update(run)
    place = Path(os.environ["HOME"], ".promptflow/.runs", name)
    lines = [json.loads(line) for line in (place / "flow_outputs/output.jsonl").read_text(encoding="utf-8").split("\n") if line]
    by_number = {line.pop("line_number"): line for line in lines}
    numbers = sorted({number for number in all_numbers(place)} | set(by_number))
    recorded = {
        "outputs": [json.dumps(with_images(by_number[number], place / "flow_outputs"), ensure_ascii=False) if number in by_number else None for number in numbers],
        "metrics": (place / "metrics.json").read_text(encoding="utf-8"),
    }
    (folder / "recorded.json").write_text(json.dumps(recorded, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return name


def with_images(value, folder):
    """An output with the bytes of each image, as the name of its file is random."""
    if isinstance(value, list):
        return [with_images(item, folder) for item in value]
    if not isinstance(value, dict):
        return value
    if list(value) == ["data:image/png;path"]:
        return {"image": list((folder / value["data:image/png;path"]).read_bytes())}
    return {key: with_images(item, folder) for key, item in value.items()}


def all_numbers(place):
    """The numbers of all lines, also of those that failed."""
    for file in (place / "flow_artifacts").glob("*.jsonl"):
        for line in filter(None, file.read_text(encoding="utf-8").split("\n")):
            yield json.loads(line)["line_number"]


def create_connections(client, address):
    from promptflow.connections import AzureOpenAIConnection, OpenAIConnection

    client.connections.create_or_update(AzureOpenAIConnection(name="the_model", api_key=KEY, api_base=address))
    client.connections.create_or_update(OpenAIConnection(name="other_model", api_key=KEY, base_url=f"{address}/v1"))


def main():
    os.environ["HOME"] = tempfile.mkdtemp()
    provider = subprocess.Popen([sys.executable, FOLDER.parent.parent / "provider.py", KEY], stdout=subprocess.PIPE, text=True)
    try:
        record_all(provider.stdout.readline().strip())
    finally:
        provider.kill()
        # Promptflow leaves its own service running.
        subprocess.run([Path(sys.executable).parent / "pf", "service", "stop"], capture_output=True)


def record_all(address):
    from promptflow.client import PFClient

    client = PFClient(config={"trace.destination": "none"})
    create_connections(client, address)
    names = sys.argv[1:] or sorted({path.parent.name for path in [*FOLDER.glob("*/run.yml"), *FOLDER.glob("*/entry")]})
    for name in names:
        folder = FOLDER / name
        # What a run reads of an earlier run: that of the flow that `base` names.
        base = folder / "base"
        earlier = record(client, (FOLDER / base.read_text().strip()), None) if base.exists() else None
        record(client, folder, earlier)
        # Two flows may have a module of the same name.
        for module in [name for name, module in sys.modules.items() if str(FOLDER) in str(getattr(module, "__file__", ""))]:
            del sys.modules[module]
        print(name, flush=True)


if __name__ == "__main__":
    main()
