"""Loads a flow with promptflow's executor, in the process that runs its code."""

import os
import sys

from . import connections
from .wrong import Wrong, first_line, nearest


def load(message, is_rehearsal=False):
    """The flow's executor, made as promptflow's own client makes it: variables, variant and
    connections first."""
    import tempfile
    from pathlib import Path

    from promptflow.executor import FlowExecutor

    wish, folder = message["wish"], message["folder"]
    known = message.get("connections") or {}
    with tempfile.TemporaryDirectory(prefix="flow-") as scratch:
        file = flow_file(message, Path(scratch))
        definition = read_definition(file, wish)
        if wish.get("file") and definition.get("additional_includes"):
            raise Wrong("Run.BadFlow", "additional_includes count in flow.dag.yaml and flow.flex.yaml alone; give the flow's file that name, in a folder of its own")
        set_variables(definition, wish, known)
        provider = {} if is_rehearsal else connections.provide(known)
        if wish.get("variant"):
            file = with_variant(definition, wish["variant"], Path(scratch))
        executor = FlowExecutor.create(
            file,
            provider,
            Path(folder),
            raise_ex=False,
            node_override=overrides(definition, wish.get("connections") or {}),
            init_kwargs=wish.get("init") or None,
        )
    take_signature(executor)
    return executor


def flow_file(message, scratch):
    """The flow's file; one is written for a flow that is only an entry `module:name`."""
    from pathlib import Path

    entry = message["wish"].get("entry")
    if not entry:
        return Path(message["folder"], message["file"])
    path = scratch / "flow.flex.yaml"
    path.write_text(dump({"entry": entry}), encoding="utf-8")
    return path


def dump(value):
    import json

    # JSON is YAML, and needs no choice of style.
    return json.dumps(value)


def read_definition(file, wish):
    """Returns the parts of the flow's YAML that matter here; a prompty has none."""
    if file.suffix.lower() not in (".yaml", ".yml"):
        return {}
    text = file.read_text(encoding="utf-8")
    # Reading YAML takes milliseconds, and promptflow does it again. Only with a backslash is there
    # another way to write a name.
    if not (wish.get("variant") or wish.get("connections") or any(each in text for each in ("additional_includes", "environment_variables", "\\"))):
        return {}
    from ruamel.yaml import YAML

    value = YAML(typ="safe").load(text)
    return value if isinstance(value, dict) else {}


def set_variables(definition, wish, known):
    """Sets the variables of the flow's file, and above them those of the run."""
    written = definition.get("environment_variables") or {}
    if not isinstance(written, dict):
        raise Wrong("Run.BadFlow", "environment_variables of the flow should be a mapping of names to values")
    variables = {str(name): text_of(value) for name, value in written.items()}
    variables.update(wish.get("environment_variables") or {})
    os.environ.update(connections.resolve(variables, known))


def text_of(value):
    """A YAML scalar as the text that was meant."""
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def with_variant(definition, variant, scratch):
    """The flow with this variant of a node as the default one, as a file of its own."""
    node, _, name = variant.strip("${}").partition(".")
    variants = (definition.get("node_variants") or {}).get(node)
    if not variants or name not in (variants.get("variants") or {}):
        raise Wrong("Run.BadFlow", f"the flow has no variant {name!r} of a node {node!r}; name one as ${{node.variant}}")
    path = scratch / "flow.dag.yaml"
    changed = {**definition, "node_variants": {**definition["node_variants"], node: {**variants, "default_variant_id": name}}}
    path.write_text(dump(changed), encoding="utf-8")
    return path


def overrides(definition, others):
    """Returns the replacements of connections and deployments, as the executor takes it."""
    nodes = {node.get("name") for node in definition.get("nodes") or [] if isinstance(node, dict)}
    for node in others:
        if node not in nodes:
            raise Wrong("Run.BadFlow", f"the run's connections name the node {node!r}, which the flow has not; {nearest(node, nodes)}")
    return {f"{node}.{key}": value for node, keys in others.items() for key, value in keys.items()} or None


def take_signature(executor):
    """Has a flex flow's inputs converted to the types of its code, which promptflow's client writes
    into the flow's file first."""
    signature, inputs = getattr(executor, "_inputs_sign", None), getattr(executor, "_inputs", None)
    if signature is not None and inputs:
        for name, definition in inputs.items():
            if definition.default != "":
                signature.setdefault(name, definition)


def describe_inputs(executor):
    """The flow's inputs, as the mapping has to know them."""
    inputs = executor.get_inputs_definition() or {}
    history = [name for name, about in inputs.items() if getattr(about, "is_chat_history", None)]
    is_chat = any(getattr(about, "is_chat_input", None) for about in inputs.values())
    if not history and is_chat and "chat_history" in inputs and inputs["chat_history"].is_chat_history is not False:
        history = ["chat_history"]
    return {
        name: {"default": getattr(about, "default", None) is not None, "chat_history": name in history} for name, about in inputs.items()
    }


def sample_inputs(executor):
    """The inputs that a prompty gives as its sample, which `pf flow test` takes where none are
    given. Those of other flows it does not take."""
    prompty = getattr(executor, "prompty", None)
    if prompty is None:
        return {}
    from promptflow.core._utils import load_inputs_from_sample

    try:
        sample = load_inputs_from_sample(prompty._data.get("sample"))
    except Exception:  # noqa: BLE001
        # Only a run without inputs needs it, and that run says which of them it lacks.
        return {}
    return {str(name): value for name, value in sample.items()} if isinstance(sample, dict) else {}


def causes(error):
    """An error, and what it came from."""
    seen = set()
    while isinstance(error, BaseException) and id(error) not in seen:
        seen.add(id(error))
        yield error
        inner = getattr(error, "inner_exception", None)
        error = inner if isinstance(inner, BaseException) else error.__cause__ or error.__context__


def why_not_loaded(error, folder):
    """Names the failure to load a flow, and shows where in the user's code it came from."""
    import traceback

    chain = list(causes(error))
    for cause in chain:
        if isinstance(getattr(cause, "failure", None), dict):
            return Wrong(cause.failure["error"], cause.failure["message"])
        frames = [frame for frame in traceback.extract_tb(cause.__traceback__) if frame.filename.startswith(folder)]
        if frames or isinstance(cause, (ImportError, SyntaxError)):
            print(own_traceback(cause, folder), file=sys.stderr)
        if isinstance(cause, ImportError):
            module = getattr(cause, "name", None)
            hint = "add its package to the requirements, install them, and run again" if module else "see the traceback, and correct the code"
            return Wrong("Run.ImportFailed", f"the flow's code could not be imported: {first_line(cause)}; {hint}")
        if frames or isinstance(cause, SyntaxError):
            return Wrong("Run.CodeRaised", f"{type(cause).__name__}: {first_line(cause)}")
    print("".join(traceback.format_exception_only(chain[0])).strip(), file=sys.stderr)
    return Wrong("Run.BadFlow", f"promptflow refuses the flow: {first_line(message_of(chain))}")


def message_of(chain):
    """The message that says most: some of promptflow's errors only repeat what they wrap."""
    return next((text for text in map(str, chain) if text.strip()), type(chain[0]).__name__)


def own_traceback(error, folder):
    """A traceback from the first frame of the user's own code."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    for index, frame in enumerate(frames):
        if frame.filename.startswith(folder):
            frames = traceback.StackSummary.from_list(frames[index:])
            break
    return "Traceback (most recent call last):\n" + "".join(frames.format()) + "".join(traceback.format_exception_only(error)).rstrip()
