"""The record that promptflow makes of a line and of its nodes: inputs, outputs, times, tokens and
logs, in promptflow's own form.

`flow_artifacts` and `node_artifacts` of a run's folder hold these records, a line each, and
promptflow's own loader reads them.
"""

import dataclasses
import json

# The most characters of a line's records together, and of a text in them where they are more.
MOST, LONGEST = 1 << 20, 2000


def of_line(answer, number):
    """The records of a line: its own, and those of its nodes by name."""
    try:
        own = record(answer.run_info, number, {"name": "", "description": "", "tags": None})
        nodes = [[name, record(info, number, {"NodeName": name})] for name, info in (answer.node_run_infos or {}).items()]
    except Exception:  # noqa: BLE001
        # A value that cannot be told fails no line: its output is told all the same.
        return {}
    return {"record": own, "nodes": nodes}


def of_nodes(infos):
    """The records of the nodes of an aggregation."""
    found = []
    for name, info in (infos or {}).items():
        try:
            found.append([name, record(info, None, {"NodeName": name})])
        except Exception:  # noqa: BLE001
            continue
    return found


def record(info, number, more):
    times = {name: time.isoformat() if time else None for name, time in (("start_time", info.start_time), ("end_time", info.end_time))}
    value = {**more, "line_number": number, "run_info": serialize(info), **times, "status": info.status.value}
    text = dumps(value)
    return text if len(text) <= MOST else dumps(shorten(value))


# What promptflow gives back as it is.
AS_IS = (str, int, float, bool, type(None))


def serialize(value):
    """The value as promptflow writes it. Of most values it is clear without asking promptflow,
    which takes 10 µs for each."""
    kind = type(value)
    if kind in AS_IS:
        return value
    if kind is dict:
        return {key: serialize(item) for key, item in value.items()}
    if kind is list:
        return [serialize(item) for item in value]
    if kind.__module__ == "promptflow.contracts.run_info" and dataclasses.is_dataclass(value):
        return {field.name: serialize(getattr(value, field.name)) for field in dataclasses.fields(value)}
    from promptflow.tracing._utils import serialize as by_promptflow

    return by_promptflow(value)


def dumps(value):
    return json.dumps(value, default=str)


def shorten(value):
    """A value whose long texts are cut, each with a word on that: the whole output is in
    `outputs.jsonl`."""
    if isinstance(value, str) and len(value) > LONGEST:
        return f"{value[:LONGEST]}… (cut here, {len(value) - LONGEST} characters more)"
    if isinstance(value, dict):
        return {name: shorten(item) for name, item in value.items()}
    if isinstance(value, list):
        kept = [shorten(item) for item in value[:LONGEST]]
        return kept if len(value) <= LONGEST else [*kept, f"… (cut here, {len(value) - LONGEST} items more)"]
    return value
