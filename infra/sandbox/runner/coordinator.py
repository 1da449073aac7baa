"""Sees one run through: reads its data, hands its lines to processes that run the flow's code, and judges what came of them.

No code of a flow or a package runs here, and no process that runs any can write where this one tells its results. So how many lines
there are, and whether each was answered, is this one's own knowledge.
"""

import json
import os

from . import data, mapping
from .crew import Crew
from .wrong import Wrong


def see_through(spec, message, result, start, given=None):
    """Runs a flow over its data, and tells what comes of it as JSON lines on the descriptor `result`.

    * `start`: makes a process that takes orders (see `worker`); gives its socket and its id.
    * `given`: a file in memory with what only the processes that run the flow's code are to read.
    """
    results = os.fdopen(result, "w", encoding="utf-8", errors="replace")

    def tell(value):
        results.write(json.dumps(value, ensure_ascii=False) + "\n")
        results.flush()

    lines, failed, first, kept, failure = [], 0, None, [], None
    crew = Crew(spec, message, start, given)
    try:
        lines = read_lines(crew, message)
        for position, answer in enumerate(crew.answers(lines)):
            wrong, number = answer.get("wrong"), lines[position].number
            if wrong:
                failed, first = failed + 1, first or wrong
            elif answer.get("kept") is not None:
                kept.append((lines[position].inputs, answer["kept"]))
            tell({"line": position, "number": number, "text": answer.get("text"), "wrong": wrong})
        if kept and not crew.is_late:
            metrics, failure = crew.aggregate(kept)
            if metrics is not None:
                tell({"metrics": metrics})
    except Wrong as wrong:
        failure = wrong.failure
    if first:
        failure = first if len(lines) == 1 else {**first, "message": f"{failed} of {len(lines)} lines failed, the first with {first['message']}"}
    # Once the end is told, nothing of the run goes on.
    if not crew.end_all():
        os._exit(1)
    tell({"done": {"lines": len(lines), "failed": failed, "failure": failure}})
    os._exit(0)


def read_lines(crew, message):
    """The lines of the run; their data is read while the flow is loaded."""
    crew.begin()
    sources, wrong = {}, None
    try:
        sources = {name: data.read(path) for name, path in (message.get("data") or {}).items()}
    except Wrong as error:
        wrong = error
    inputs = crew.loaded()["inputs"]
    if wrong:
        raise wrong
    wish = message["wish"]
    if sources:
        return mapping.map_lines(sources, wish.get("column_mapping") or {}, inputs)
    return mapping.single(wish.get("inputs") or {}, inputs)
