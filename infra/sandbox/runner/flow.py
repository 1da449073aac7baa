"""One run of a flow over its data, by promptflow's executor."""

import json
import os
import select
import socket
import sys

from . import connections
from .control import Control
from .kernel import threads


class Wrong(Exception):
    """A failure with a stable name."""

    def __init__(self, name, message):
        super().__init__(message)
        self.failure = {"error": name, "message": message}


def create_executor(file, folder, init, variant, provider=None):
    from pathlib import Path

    from promptflow.executor import FlowExecutor

    more = {"init_kwargs": init} if init else {}
    path = Path(file)
    if variant:
        node, _, name = variant.strip("${}").partition(".")
        path = with_variant(Path(folder), file, node, name)
    return FlowExecutor.create(path, provider or {}, Path(folder), raise_ex=False, **more)


def with_variant(folder, file, node, name):
    """The flow with this variant of this node as the default one, as a file beside it."""
    from pathlib import Path

    from ruamel.yaml import YAML

    yaml = YAML(typ="safe")
    flow = yaml.load(folder / file)
    variants = (flow.get("node_variants") or {}).get(node)
    if not variants or name not in (variants.get("variants") or {}):
        raise Wrong("Run.BadFlow", f"the flow has no variant {name!r} of a node {node!r}; name one as ${{node.variant}}")
    variants["default_variant_id"] = name
    other = folder / f".variant.{file}"
    yaml.dump(flow, other)
    return Path(other.name)


def first_line(text, most=300):
    line = next((line for line in str(text).strip().splitlines() if line.strip()), "")
    return line if len(line) <= most else line[: most - 1] + "…"


def causes(error):
    seen = set()
    while isinstance(error, BaseException) and id(error) not in seen:
        seen.add(id(error))
        yield error
        inner = getattr(error, "inner_exception", None)
        error = inner if isinstance(inner, BaseException) else error.__cause__ or error.__context__


def why_not_created(error, folder):
    """Names the failure to load a flow, and shows where in the user's code it came from."""
    import traceback

    chain = list(causes(error))
    for cause in chain:
        if getattr(cause, "failure", None):
            return Wrong(cause.failure["error"], cause.failure["message"])
        frames = [frame for frame in traceback.extract_tb(cause.__traceback__) if frame.filename.startswith(folder)]
        if frames or isinstance(cause, (ImportError, SyntaxError)):
            print(own_traceback(cause, folder), file=sys.stderr)
        if isinstance(cause, ImportError):
            module = getattr(cause, "name", None)
            hint = f"add the package of {module!r} to requirements.txt" if module else "see the traceback"
            return Wrong("Run.ImportFailed", f"the flow's code could not be imported: {first_line(cause)}; {hint}, and run again")
        if frames or isinstance(cause, SyntaxError):
            return Wrong("Run.CodeRaised", f"{type(cause).__name__}: {first_line(cause)}")
    print("".join(traceback.format_exception_only(chain[0])).strip(), file=sys.stderr)
    return Wrong("Run.BadFlow", f"promptflow refuses the flow: {first_line(error)}")


def own_traceback(error, folder):
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    for index, frame in enumerate(frames):
        if frame.filename.startswith(folder):
            frames = traceback.StackSummary.from_list(frames[index:])
            break
    return "Traceback (most recent call last):\n" + "".join(frames.format()) + "".join(traceback.format_exception_only(error)).rstrip()


def read_rows(path):
    rows = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise Wrong("Run.BadData", f"line {number} of the data is no JSON: {error}") from None
            if not isinstance(row, dict):
                raise Wrong("Run.BadData", f"line {number} of the data is no JSON object: {first_line(line, 80)}")
            rows.append((number, row))
    if not rows:
        raise Wrong("Run.BadData", "the data has no lines")
    return rows


def map_columns(number, row, mapping, inputs):
    """The inputs of one line: by the mapping, and by name for the rest; what has a default may be missing."""
    import re

    values = {}
    for name in inputs:
        if name not in mapping and name in row:
            values[name] = row[name]
    for name, source in mapping.items():
        match = re.fullmatch(r"\$\{data\.([^{}]+)\}", source) if isinstance(source, str) else None
        if match is None:
            if isinstance(source, str) and re.fullmatch(r"\$\{[^{}]+\}", source):
                raise Wrong("Run.BadData", f"the column mapping of {name!r} is {source}: only ${{data.column}} and plain values are known here")
            values[name] = source
        elif match[1] in row:
            values[name] = row[match[1]]
        else:
            raise Wrong("Run.BadData", f"line {number} of the data has no column {match[1]!r}, which the column mapping of {name!r} names")
    missing = [name for name, defined in inputs.items() if name not in values and getattr(defined, "default", None) is None]
    if missing:
        raise Wrong("Run.BadData", f"line {number} of the data has no column for the input {missing[0]!r}; name one in the column mapping")
    return values


def run_flow(spec, message, result):
    """Runs a flow over its data, in this process or in forks of it, and writes what comes of it to `result` as JSON lines."""
    wish, folder = message["wish"], message["folder"]
    results = os.fdopen(result, "w", buffering=1, encoding="utf-8")

    def tell(value):
        results.write(json.dumps(value, default=str) + "\n")
        results.flush()

    sys.dont_write_bytecode = True
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)
    os.environ.update(wish.get("environment_variables") or {})
    os.chdir(folder)
    sys.path.insert(0, folder)
    lines = failed = 0
    failure = None
    try:
        try:
            provider = connections.provide(message.get("connections") or {})
            executor = create_executor(message["file"], folder, wish.get("init"), wish.get("variant"), provider)
        except Wrong:
            raise
        except BaseException as error:  # noqa: BLE001
            raise why_not_created(error, folder) from None
        inputs = executor.get_inputs_definition()
        mapping = wish.get("column_mapping") or {}
        if message.get("data"):
            work = [map_columns(number, row, mapping, inputs) for number, row in read_rows(message["data"])]
        else:
            given = {**(wish.get("inputs") or {})}
            missing = [name for name, defined in inputs.items() if name not in given and getattr(defined, "default", None) is None]
            if missing:
                raise Wrong("Run.BadData", f"the flow's input {missing[0]!r} has no default; give it a value, or data")
            work = [given]
        lines = len(work)
        for index, (output, wrong) in enumerate(run_lines(executor, message["run"], work, spec["cores"], folder)):
            if wrong:
                failed += 1
                failure = failure or wrong
            tell({"line": index, "output": output, "wrong": wrong})
        if failure and lines > 1:
            failure = {**failure, "message": f"{failed} of {lines} lines failed, the first with {failure['message']}"}
    except Wrong as wrong:
        failure = wrong.failure
        failed = lines
    sys.stdout.flush()
    sys.stderr.flush()
    tell({"done": {"lines": lines, "failed": failed, "failure": failure}})
    os._exit(0)


def run_line(executor, run, index, values, folder):
    """The output of one line, and why it failed if it did."""
    import traceback

    try:
        answer = executor.exec_line(values, index=index, run_id=run)
    except BaseException as error:  # noqa: BLE001
        traceback.print_exc()
        return None, {"error": "Run.CodeRaised", "message": f"{type(error).__name__}: {first_line(error)}"}
    wrong = answer.run_info.error
    if wrong:
        details = [each.get("info") or {} for each in wrong.get("additionalInfo") or []]
        info = details[0] if details else {}
        if info.get("traceback"):
            print(user_part(info["traceback"], folder), file=sys.stderr)
        if info.get("type"):
            name = "Run.ImportFailed" if info["type"] in ("ImportError", "ModuleNotFoundError") else "Run.CodeRaised"
            return None, {"error": name, "message": f"{info['type']}: {first_line(info.get('message'))}"}
        name = "Run.BadData" if "Input" in str((wrong.get("innerError") or {}).get("code")) else "Run.CodeRaised"
        return None, {"error": name, "message": first_line(wrong.get("message"))}
    return plain(answer.output), None


def user_part(text, folder):
    """A traceback from the first line of the user's own code."""
    lines = text.rstrip().splitlines()
    for index, line in enumerate(lines):
        if line.lstrip().startswith("File ") and folder in line:
            return "\n".join(lines[:1] + lines[index:])
    return "\n".join(lines)


def plain(output):
    """An output as a JSON object; its place in the order says which line it is of."""
    import dataclasses

    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        output = dataclasses.asdict(output)
    if not isinstance(output, dict):
        output = {"output": output}
    return {name: value for name, value in output.items() if name != "line_number"}


def run_lines(executor, run, work, cores, folder):
    """What `run_line` gives for each line, in order; several at a time in forks, where that is safe."""
    if len(work) == 1 or cores == 1 or threads() > 1:
        for index, values in enumerate(work):
            yield run_line(executor, run, index, values, folder)
        return
    sys.stdout.flush()
    sys.stderr.flush()
    waiting, answers, workers, next_index = list(range(len(work)))[::-1], {}, {}, 0

    def hire():
        mine, theirs = socket.socketpair()
        pid = os.fork()
        if not pid:
            mine.close()
            for other in workers:
                other.close()
            line_worker(Control(theirs), executor, run, work, folder)
        theirs.close()
        workers[mine] = [pid, Control(mine), None]
        give(mine)

    def give(worker):
        if waiting:
            workers[worker][2] = waiting.pop()
            workers[worker][1].send(workers[worker][2])
        else:
            dismiss(worker)

    def dismiss(worker):
        pid = workers.pop(worker)[0]
        worker.close()
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    while waiting or workers:
        while waiting and len(workers) < min(cores, len(work)):
            hire()
        for worker in select.select(list(workers), [], [])[0]:
            _, control, index = workers[worker]
            try:
                answer = control.receive()
            except OSError:
                answer = None
            if answer is None:
                code = dismiss(worker)
                answers[index] = None, {"error": "Run.Crashed", "message": f"its process ended in the middle of the line ({ended(code)})"}
            else:
                answers[index] = answer
                give(worker)
        while next_index in answers:
            yield answers.pop(next_index)
            next_index += 1


def ended(code):
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def line_worker(control, executor, run, work, folder):
    status = 1
    try:
        while (index := control.receive()) is not None:
            answer = run_line(executor, run, index, work[index], folder)
            sys.stdout.flush()
            sys.stderr.flush()
            control.send(answer)
        status = 0
    finally:
        os._exit(status)
