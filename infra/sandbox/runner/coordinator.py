"""Sees one run through: reads its data, hands its lines to processes that run the flow's code, and
judges what came of them.

No code of a flow or a package runs here, and no process that runs any can write where this one
tells its results. So how many lines there are, and whether each was answered, is this one's own
knowledge.
"""

import json
import os
import resource

from . import data, mapping
from .crew import Crew
from .strays import measure_use
from .wrong import Wrong


def see_through(spec, message, result, start, given=None):
    """Runs a flow over its data, and tells what comes of it as JSON lines on the descriptor
    `result`.

    * `start`: makes a process that takes orders (see `worker`); gives its socket and its id.
    * `given`: a file in memory with what only the processes that run the flow's code are to read.
    """
    results = os.fdopen(result, "w", encoding="utf-8", errors="replace")

    def tell(value):
        results.write(json.dumps(value, ensure_ascii=False) + "\n")
        results.flush()

    lines, failed, retried, first, kept, failure = [], 0, 0, None, [], None
    crew = Crew(spec, message, start, given, tell)
    try:
        lines = read_lines(crew, message)
        for position, answer in enumerate(crew.answers(lines, earlier_lines(message))):
            wrong, number = answer.get("wrong"), lines[position].number
            retried += answer.get("retried") or 0
            if wrong:
                failed, first = failed + 1, first or wrong
            elif answer.get("kept") is not None and crew.about.get("aggregates"):
                kept.append((lines[position].inputs, answer["kept"]))
            told = {"record": answer.get("record"), "nodes": answer.get("nodes") or []}
            tell({"line": position, "number": number, "text": answer.get("text"), "wrong": wrong, **told})
        if kept and not crew.is_late:
            metrics, nodes, failure = crew.aggregate(kept)
            if nodes:
                tell({"nodes": nodes})
            if metrics is not None:
                tell({"metrics": metrics})
    except Wrong as wrong:
        failure = wrong.failure
    if cut := crew.spans.last():
        tell({"spans": [json.dumps(cut)]})
    if first:
        failure = first if len(lines) == 1 else {**first, "message": f"{failed} of {len(lines)} lines failed, the first with {first['message']}"}
    # Once the end is told, nothing of the run goes on.
    if not crew.end_all():
        os._exit(1)
    told = {"lines": len(lines), "failed": failed, "retried": retried, "failure": failure}
    tell({"done": {**told, "used": measure_use(crew.begun, [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)], crew.first_size)}})
    os._exit(0)


def earlier_lines(message):
    """By number, the lines that the run which this one resumes has completed, each as if it had
    just been run."""
    folder = message.get("earlier")
    if not folder:
        return {}
    taken = {}
    about, outputs = (read_each(os.path.join(folder, name)) for name in ("lines.jsonl", "outputs.jsonl"))
    for line, text in zip(about, outputs):
        number = json.loads(line).get("line_number")
        if "error" not in json.loads(line) and text != "null":
            # What an aggregation is to have of it is made of what its nodes gave.
            taken[number] = {"text": text, "nodes": [], "kept": {"text": text, "nodes": {}}}
    for line in read_each(os.path.join(folder, "flow_records.jsonl")):
        answer = taken.get(json.loads(line).get("line_number"))
        if answer is not None:
            answer["record"] = line
    for line in read_each(os.path.join(folder, "node_records.jsonl")):
        record = json.loads(line)
        answer, node = taken.get(record.get("line_number")), str(record.get("NodeName"))
        if answer is not None:
            answer["nodes"].append([node, line])
            answer["kept"]["nodes"][node] = record["run_info"].get("output")
    return taken


def read_each(path):
    """The lines of a file, if it is there."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return [line.rstrip("\n") for line in file]
    except FileNotFoundError:
        return []


def read_lines(crew, message):
    """The lines of the run; their data is read while the flow is loaded."""
    crew.begin()
    sources, wrong = {}, None
    try:
        sources = {name: data.read(path) for name, path in (message.get("data") or {}).items()}
    except Wrong as error:
        wrong = error
    about = crew.await_flow()
    inputs = about["inputs"]
    if wrong:
        raise wrong
    wish = message["wish"]
    if sources:
        return mapping.map_lines(sources, wish.get("column_mapping") or {}, inputs)
    return mapping.single(wish.get("inputs") or {}, inputs, about.get("sample") or {})
