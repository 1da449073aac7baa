"""Runs the lines of a flow, and its aggregation, in the process that has loaded it."""

import base64
import dataclasses
import json
import os
import pickle
import sys

from . import records, turned_away
from .connections import NO_TOKEN
from .wrong import first_line

NUMBER = "line_number"


def run_line(executor, run, number, inputs, message, stream=None):
    """Returns the answer of one line, also if its provider turns it away for a while; `retried` is
    how often it was run again.

    * `stream`: tells pieces of its output; a line of which one was told is not run again.
    """
    import random
    import time

    for again in range(turned_away.MOST + 1):
        turned_away.listen()
        answer = run_once(executor, run, number, inputs, message)
        wrong = answer.get("wrong")
        if not wrong or not turned_away.is_turned_away(wrong) or again == turned_away.MOST or (stream and stream.has_begun):
            break
        seconds = turned_away.wait_before(again, random.random())
        if seconds is None:
            break
        print(f"line {number}: its model provider turned it away; it is run again in {seconds:.1f} s", file=sys.stderr, flush=True)
        time.sleep(seconds)
    return {**answer, "retried": again}


def run_once(executor, run, number, inputs, message):
    """Returns the answer of one line: `text`, its output in JSON, or `wrong`; `kept`, what an
    aggregation is to have of it; and its records."""
    import traceback

    try:
        answer = executor.exec_line(inputs, index=number, run_id=run)
    except BaseException as error:  # noqa: BLE001
        traceback.print_exc()
        return {"wrong": error_of(error)}
    told = records.of_line(answer, number)
    if answer.run_info.error:
        return {"wrong": why_failed(answer.run_info.error, message["folder"]), **told}
    try:
        kept = keep(executor, answer)
        return {"text": to_text(executor, answer.output, message["output"]), **kept, **told}
    except BaseException as error:  # noqa: BLE001
        return {"wrong": {"error": "Run.BadOutput", "message": f"the line's output is no JSON: {describe(error)}"}, **told}


def error_of(error):
    return {"error": "Run.CodeRaised", "message": describe(error)}


def describe(error):
    """An exception in one line, whatever its own text does."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    try:
        text = first_line(error)
    except BaseException:  # noqa: BLE001
        text = "its text cannot be made"
    return f"{type(error).__name__}: {text}"


def why_failed(error, folder):
    """The failure that promptflow's record of a line or node tells, with the traceback on standard
    error."""
    details = [each.get("info") or {} for each in error.get("additionalInfo") or []]
    info = details[0] if details else {}
    if info.get("traceback"):
        print(user_part(info["traceback"], folder), file=sys.stderr)
    token = NO_TOKEN + ": "
    if token in str(info.get("message") or error.get("message")):
        text = str(info.get("message") or error.get("message"))
        return {"error": NO_TOKEN, "message": first_line(text[text.index(token) + len(token) :], 1000)}
    if info.get("type"):
        name = "Run.ImportFailed" if info["type"] in ("ImportError", "ModuleNotFoundError") else "Run.CodeRaised"
        return {"error": name, "message": f"{info['type']}: {first_line(info.get('message'))}"}
    codes = json.dumps(error.get("innerError") or {}, default=str)
    name = "Run.BadData" if "Input" in codes else "Run.BadOutput" if "FlowOutputUnserializable" in codes else "Run.CodeRaised"
    return {"error": name, "message": first_line(error.get("message"))}


def user_part(text, folder):
    """A traceback from the first line of the user's own code."""
    lines = text.rstrip().splitlines()
    for index, line in enumerate(lines):
        if line.lstrip().startswith("File ") and folder in line:
            return "\n".join(lines[:1] + lines[index:])
    return "\n".join(lines)


def is_dag(executor):
    from promptflow.executor._script_executor import ScriptExecutor

    return not isinstance(executor, ScriptExecutor)


def keep(executor, answer):
    """Returns the part of a line that the aggregation needs, as bytes that the process between need
    not understand."""
    if not executor.has_aggregation_node:
        return {}
    value = answer.aggregation_inputs if is_dag(executor) else without_number(answer.output)
    return {"kept": base64.b64encode(pickle.dumps(value)).decode()}


def to_text(executor, output, folder):
    """An output as a JSON object, written as promptflow writes it. Its place in the order says
    which line it is of."""
    os.makedirs(folder, exist_ok=True)
    if is_dataclass(output):
        output = plain(output)
    output = executor._multimedia_processor.persist_multimedia_data(output, folder)
    if not isinstance(output, dict):
        output = {"output": output}
    return dumps(without_number(output))


def without_number(output):
    """An output as the flow gave it: promptflow adds the number of its line."""
    return {name: value for name, value in output.items() if name != NUMBER} if isinstance(output, dict) else output


def dumps(value):
    text = json.dumps(value, ensure_ascii=False, default=plain)
    try:
        text.encode()
    except UnicodeEncodeError:
        # A lone surrogate is no UTF-8, and JSON has a way to write it.
        return json.dumps(value, default=plain)
    return text


def is_dataclass(value):
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def plain(value):
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"a value of type {type(value).__name__} is not JSON")
