"""Flows' YAML, of which each text is read once: promptflow reads a flow's file twice for a run, and
20 nodes take 24 ms each time."""

import pickle
import sys
from io import StringIO

# The most characters of a text that is kept, and the most texts.
LONGEST, MOST = 256 << 10, 8
# By text, what promptflow's reader made of it. From this each reader gets a copy of its own, in a
# fortieth of the time.
KNOWN = {}


def read_each_once():
    """Has the modules of promptflow that are loaded read each text once."""
    from promptflow._utils import yaml_utils

    read = yaml_utils.load_yaml

    def load_yaml(source):
        text = text_of(source)
        if text is None:
            return read(source)
        if text in KNOWN:
            return pickle.loads(KNOWN[text])
        value = read(source)
        keep(text, value)
        return value

    for name, module in list(sys.modules.items()):
        if name.startswith("promptflow.") and vars(module).get("load_yaml") is read:
            module.load_yaml = load_yaml


def text_of(source):
    """The text that is to be read, if it is one that may be kept. An open file then stands where it
    stood."""
    try:
        if not hasattr(source, "read"):
            with open(source, encoding="utf-8") as file:
                return short(file)
        start = source.tell()
        text = short(source)
        source.seek(start)
        return text
    except Exception:  # noqa: BLE001
        # promptflow's reader says what is wrong with it.
        return None


def short(file):
    text = file.read(LONGEST + 1)
    return text if isinstance(text, str) and len(text) <= LONGEST else None


def keep(text, value):
    try:
        copy = pickle.dumps(value)
    except Exception:  # noqa: BLE001
        return
    if len(KNOWN) >= MOST:
        del KNOWN[next(iter(KNOWN))]
    KNOWN[text] = copy


def read_ahead(text):
    """Reads a text that a run is likely to ask for. Of one that cannot be read, the run says so."""
    from promptflow._utils import yaml_utils

    if text not in KNOWN:
        try:
            keep(text, yaml_utils.load_yaml(StringIO(text)))
        except Exception:  # noqa: BLE001
            pass
