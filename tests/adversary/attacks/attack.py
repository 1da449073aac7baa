"""Runs every attack in this folder, each in a process of its own, and prints what came of it as
JSON lines.

An attack is a function `try_…(target)` of a module here. It returns what it got; nothing, an
`OSError` or its own death is a wall that held.
"""

import ctypes
import importlib
import json
import os
import pathlib
import signal
import sys

libc = ctypes.CDLL(None, use_errno=True)
HERE = pathlib.Path(__file__).resolve().parent
SECONDS = 20


def call(number, *arguments):
    """A system call; an error is an `OSError`."""
    libc.syscall.restype = ctypes.c_long
    converted = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = libc.syscall(ctypes.c_long(number), *converted)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def got(attempts):
    """The outcome of each attempt that no error stopped: pairs of a name and a function."""
    found = []
    for name, attempt in attempts:
        try:
            value = attempt()
        except (OSError, ValueError, LookupError):
            continue
        found.append(f"{name}: {value!r:.200}")
    return found


def write(path, text):
    fd = os.open(path, os.O_WRONLY)
    try:
        return os.write(fd, text)
    finally:
        os.close(fd)


def run(attack, target):
    ours, theirs = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(ours)
        signal.alarm(getattr(attack, "seconds", SECONDS))
        try:
            said = attack(target)
        except OSError:
            said = None
        except BaseException as error:  # noqa: BLE001
            # An attack with a fault of its own has shown nothing.
            said = f"FAULT {type(error).__name__}: {error}"
        os.write(theirs, json.dumps(said, default=str).encode()[:60000])
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as file:
        text = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return json.loads(text) if text else None, status


def main():
    target = json.loads((HERE / "target.json").read_text())
    for path in sorted(HERE.glob("*.py")):
        if path.stem == "attack" or (path.stem == "long" and not target["long"]):
            continue
        module = importlib.import_module(path.stem)
        for name, attack in vars(module).items():
            if name.startswith("try_"):
                about = {"attack": f"{path.stem}.{name[4:]}", "got": None}
                wall_is_missing = any(words in lack for words in getattr(attack, "unless", ()) for lack in target["not_held"])
                if wall_is_missing:
                    # It would do what it tries, to the machine of whoever runs it.
                    about["is_said"] = True
                else:
                    said, about["status"] = run(attack, target)
                    about["got"] = said or None
                print(json.dumps(about), flush=True)


def unless(*words):
    """Marks an attack on a wall that is not there if the session's isolation says one of these of
    what it does not hold."""

    def mark(attack):
        attack.unless = words
        return attack

    return mark


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    sys.modules["attack"] = sys.modules["__main__"]
    main()
