"""From the rows of the data to the inputs of each line, as promptflow's column mapping says."""

import math
import re
import sys

from .wrong import Wrong, nearest

NUMBER = "line_number"
REFERENCE = re.compile(r"\$\{([^{}]+)\}")


class Line:
    """One line of a run: its number, and its inputs."""

    def __init__(self, number, inputs):
        self.number, self.inputs = number, inputs


def merge(sources):
    """By line number, what each source has of it; a line that one of them lacks is left out."""
    for name, rows in sources.items():
        if not rows:
            raise Wrong("Run.BadData", f"{SOURCES.get(name, name)} has no lines")
    unnumbered = {name: len(rows) for name, rows in sources.items() if not any(NUMBER in row for row in rows)}
    if len(set(unnumbered.values())) > 1:
        counts = ", ".join(f"{SOURCES.get(name, name)}: {count}" for name, count in unnumbered.items())
        raise Wrong("Run.BadData", f"the sources have different numbers of lines ({counts}); give each line its `{NUMBER}`")
    merged = {}
    for name, rows in sources.items():
        for index, row in enumerate(rows):
            if name in unnumbered or NUMBER in row:
                number = index if name in unnumbered else whole(row[NUMBER])
                merged.setdefault(number, {})[name] = row
    lines = {number: rows for number, rows in sorted(merged.items()) if len(rows) == len(sources)}
    if not lines:
        raise Wrong("Run.BadData", f"no `{NUMBER}` is in all of {' and '.join(SOURCES.get(name, name) for name in sources)}")
    return lines


SOURCES = {"data": "the data", "run.outputs": "the outputs of the other run", "run.inputs": "the inputs of the other run"}


def whole(number):
    try:
        return int(number)
    except (TypeError, ValueError):
        raise Wrong("Run.BadData", f"the data's `{NUMBER}` {number!r} is no whole number") from None


def check_names(names, inputs, what):
    """Refuses a name that no input of the flow has."""
    for name in names:
        if name not in inputs and name != NUMBER:
            raise Wrong("Run.UnknownInput", f"{what} {name!r}, and the flow has no such input; {nearest(name, inputs)}")


def map_lines(sources, mapping, inputs):
    """The lines of a run over data.

    * `inputs`: of the flow by name, each with whether it has a default, and whether it is the
      history of a chat.
    """
    check_names(mapping, inputs, "the column mapping names the input")
    lines = merge(sources)
    # An input's default goes before the column of its name.
    whole_mapping = {name: f"${{data.{name}}}" for name, about in inputs.items() if not about.get("default")}
    whole_mapping.update(mapping)
    columns = {name: set().union(*map(dict.keys, rows)) for name, rows in sources.items()}
    for name in inputs.keys() - whole_mapping.keys():
        if name in columns.get("data", ()):
            print(
                f"the data's column {name!r} is not used: the flow has a default for this input, and promptflow takes that; "
                f"to use the column, map it: --column-mapping {name}='${{data.{name}}}'",
                file=sys.stderr,
            )
    for name, source in list(whole_mapping.items()):
        match = REFERENCE.fullmatch(source) if isinstance(source, str) else None
        if not match or find(match[1], columns):
            continue
        if name not in mapping and inputs[name].get("chat_history"):
            whole_mapping[name] = []
            continue
        raise no_column(name, match[1], name in mapping, columns)
    return [map_line(number, rows, whole_mapping) for number, rows in lines.items()]


def no_column(name, reference, is_mapped, columns):
    source, _, column = reference.partition(".") if reference.startswith("data.") else reference.rpartition(".")
    if is_mapped and source not in columns:
        known = ", ".join(f"${{{each}.…}}" for each in columns)
        return Wrong("Run.BadData", f"the column mapping of {name!r} is ${{{reference}}}, and the run has only {known}")
    where = SOURCES.get(source, source) if source in columns else "the data"
    if is_mapped:
        return Wrong("Run.BadData", f"{where} has no column {column!r}, which the column mapping of {name!r} names; {nearest(column, columns[source])}")
    hint = nearest(name, columns.get("data", ()))
    return Wrong("Run.BadData", f"{where} has no column for the input {name!r}; name one in the column mapping ({hint})")


def find(reference, sources):
    """Which source a reference means, and the column in it: the source with fewer dots goes
    first."""
    parts = reference.split(".")
    for count in range(1, len(parts)):
        source, column = ".".join(parts[:count]), ".".join(parts[count:])
        if source in sources and column in sources[source]:
            return source, column
    return None


def map_line(number, rows, mapping):
    inputs = {}
    for name, source in mapping.items():
        match = REFERENCE.fullmatch(source) if isinstance(source, str) else None
        if name == NUMBER:
            continue
        if not match:
            inputs[name] = source
        elif found := find(match[1], rows):
            inputs[name] = rows[found[0]][found[1]]
        else:
            # As promptflow has it for a column that only other lines have.
            print(f"line {number} has no {match[1]}: the input {name!r} is NaN there", file=sys.stderr)
            inputs[name] = math.nan
    return Line(number, inputs)


def single(given, inputs, sample):
    """The one line of a run without data: of what is given, or, where nothing is, of the flow's
    sample."""
    check_names(given, inputs, "--inputs names")
    values = dict(given or sample)
    for name, about in inputs.items():
        if name not in values and not about.get("default"):
            if not about.get("chat_history"):
                raise Wrong("Run.BadData", f"the flow's input {name!r} has no default; give it a value, or data")
            values[name] = []
    return [Line(0, values)]
