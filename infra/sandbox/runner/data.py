"""The data of a run: rows from a file of JSON lines, JSON, CSV or TSV, or from a folder of such
files."""

import csv
import io
import json
import os

from .wrong import Wrong, first_line

MOST_BYTES = 1 << 30
IMAGES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff")
# Two bytes that no UTF-8 text begins with, and the name of the encoding that does.
MARKS = ((b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))


def read(path):
    """The rows of a file, or of all files below a folder in the order of their paths."""
    if not os.path.isdir(path):
        return read_file(path)
    rows = []
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            # Images lie beside the data that names them.
            if not name.lower().endswith(IMAGES):
                rows += read_file(os.path.join(folder, name))
    return rows


def read_file(path):
    name = os.path.basename(path)
    kind = os.path.splitext(name)[1].lower()
    if kind == ".parquet":
        raise Wrong("Run.BadData", f"the data {name} is a Parquet file, which is not read here; save it as JSON lines or CSV")
    text = decode(path, name)
    if kind == ".csv":
        rows = read_table(text, name, ",")
    elif kind == ".tsv":
        rows = read_table(text, name, "\t")
    elif kind == ".json":
        rows = read_json(text, name)
    else:
        rows = read_lines(text, name)
    if "data:image" not in text:
        return rows
    # What a file names by a relative path lies beside it.
    folder = os.path.dirname(path)
    return [resolve_images(row, folder) for row in rows]


def decode(path, name):
    try:
        size = os.path.getsize(path)
        if size > MOST_BYTES:
            raise Wrong("Run.BadData", f"the data {name} has {size >> 20} MiB, and a run takes at most {MOST_BYTES >> 20}; split it")
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise Wrong("Run.BadData", f"the data {name} cannot be read: {error.strerror}") from None
    for mark, encoding in MARKS:
        if data.startswith(mark):
            raise Wrong("Run.BadData", f"the data {name} is {encoding} text; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Wrong("Run.BadData", f"line {line} of the data {name} is not UTF-8 (byte 0x{data[error.start]:02x}); save the file as UTF-8") from None


def parse(text, what):
    try:
        return json.loads(text)
    except RecursionError:
        raise Wrong("Run.BadData", f"{what} is nested too deeply") from None
    except ValueError as error:
        raise Wrong("Run.BadData", f"{what} is no JSON: {first_line(error)}") from None


def check_row(row, what):
    if not isinstance(row, dict):
        raise Wrong("Run.BadData", f"{what} is no JSON object: {first_line(json.dumps(row), 80)}")
    return row


def read_lines(text, name):
    rows = []
    # Only a line feed ends a line: text may hold the other separators that Unicode has.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            what = f"line {number} of the data {name}"
            rows.append(check_row(parse(line, what), what))
    return rows


def read_json(text, name):
    value = parse(text, f"the data {name}") if text.strip() else []
    if isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values()):
        # By column, as promptflow takes it too.
        if len({len(column) for column in value.values()}) > 1:
            raise Wrong("Run.BadData", f"the columns of the data {name} have different lengths")
        return [dict(zip(value, row)) for row in zip(*value.values())]
    if not isinstance(value, list):
        raise Wrong("Run.BadData", f"the data {name} is no list of JSON objects")
    return [check_row(row, f"item {number} of the data {name}") for number, row in enumerate(value, 1)]


def read_table(text, name, separator):
    csv.field_size_limit(MOST_BYTES)
    rows, header = [], None
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        for fields in reader:
            if not fields:
                continue
            if header is None:
                header = column_names(fields)
            elif len(fields) != len(header):
                raise Wrong("Run.BadData", f"line {reader.line_num} of the data {name} has {len(fields)} fields, and the first line {len(header)}")
            else:
                rows.append(dict(zip(header, fields)))
    except csv.Error as error:
        raise Wrong("Run.BadData", f"line {reader.line_num} of the data {name}: {error}") from None
    return rows


def column_names(fields):
    """Names a column that comes again `x.1`, as promptflow does."""
    names, seen = [], {}
    for field in fields:
        count = seen.get(field, 0)
        seen[field] = count + 1
        names.append(f"{field}.{count}" if count else field)
    return names


def resolve_images(value, folder):
    """Makes the paths of images absolute."""
    if isinstance(value, list):
        return [resolve_images(item, folder) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (key, path), = value.items()
        if key.startswith("data:image/") and key.endswith(";path") and isinstance(path, str):
            return {key: os.path.normpath(os.path.join(folder, path))}
    if value.get("type") == "image_file" and isinstance(value.get("image_file"), dict):
        about = value["image_file"]
        if isinstance(about.get("path"), str):
            return {**value, "image_file": {**about, "path": os.path.normpath(os.path.join(folder, about["path"]))}}
    return {key: resolve_images(item, folder) for key, item in value.items()}
