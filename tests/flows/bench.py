"""Times runs of many lines beside `pf run create`, in turn, with the memory of each. Then it times
ours alone over larger and larger results, whose time a line or a megabyte is to stay the same.

    venv/bin/python tests/flows/bench.py target/release/pfsession [ROUNDS]

The virtual environment is that of `sweep.py`. Each side has a folder of its own for its state, and
does one round before that is not timed, in which its memory is taken: the most that its processes
held at a time, shared pages counted once (PSS).
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

FLOW = (
    "inputs:\n  text:\n    type: string\noutputs:\n  text:\n    type: string\n    reference: ${say.output}\n"
    "nodes:\n- name: say\n  type: python\n  source:\n    type: code\n    path: say.py\n  inputs:\n    text: ${inputs.text}\n"
)
TOOL = "import time\nfrom promptflow.core import tool\n@tool\ndef say(text: str) -> str:\n    time.sleep(%s)\n    return text\n"
CASES = {
    "2,000 lines of a one-node flow": (2000, 0),
    "200 lines that wait 0.5 s each": (200, 0.5),
    "40 lines that wait 1 s each": (40, 1),
}
# Lines, and characters of each line's output.
GROWING = [(1000, 8), (4000, 8), (16_000, 8), (64, 62_500), (64, 250_000), (64, 1_000_000)]


def main():
    program, rounds = str(Path(sys.argv[1]).resolve()), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    place = Path(tempfile.mkdtemp(prefix="bench-runs-"))
    os.environ.update(HOME=str(place / "home"), PFSESSION_STATE=str(place / "state"))
    (place / "home").mkdir()
    service = subprocess.Popen([program, "up", "--foreground"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        print("| what | `pf run create` | ours | ratio | memory, `pf run create` | memory, ours |\n| --- | --- | --- | --- | --- | --- |")
        for what, (lines, seconds) in CASES.items():
            measure(program, service, place, what, lines, seconds, rounds)
        print("\n| lines | output | ours | in other words |\n| --- | --- | --- | --- |")
        for lines, size in GROWING:
            grow(program, place, lines, size, rounds)
    finally:
        subprocess.run([program, "down"], capture_output=True)
        # Promptflow leaves its own service running.
        subprocess.run([str(Path(sys.executable).parent / "pf"), "service", "stop"], capture_output=True)
        service.wait()
        shutil.rmtree(place, ignore_errors=True)


def measure(program, service, place, what, lines, seconds, rounds):
    folder, data = place / f"flow-{lines}", place / f"{lines}.jsonl"
    folder.mkdir()
    (folder / "flow.dag.yaml").write_text(FLOW)
    (folder / "say.py").write_text(TOOL % seconds)
    data.write_text("".join(f'{{"text": "line {at}"}}\n' for at in range(lines)))
    theirs = [str(Path(sys.executable).parent / "pf"), "run", "create", "--flow", str(folder), "--data", str(data)]
    ours = [program, "run", str(folder), "--data", str(data)]
    # What is made once, ours: environment and session.
    timed(ours)
    memory = [most_memory(theirs, None), most_memory(ours, service.pid)]
    times = [[timed(theirs), timed(ours)] for _ in range(rounds)]
    one, other = (statistics.median(each) for each in zip(*times))
    ratio = statistics.median(pair[0] / pair[1] for pair in times)
    print(f"| {what} | {one:.1f} s | {other:.2f} s | {ratio:.1f} | {memory[0]:.0f} MB | {memory[1]:.0f} MB |", flush=True)


def grow(program, place, lines, size, rounds):
    folder, data = place / f"grows-{size}", place / f"grows-{lines}-{size}.jsonl"
    if not folder.exists():
        folder.mkdir()
        (folder / "flow.dag.yaml").write_text(FLOW)
        (folder / "say.py").write_text(TOOL.replace("return text", f"return text[0] * {size}") % 0)
    data.write_text("".join(f'{{"text": "line {at}"}}\n' for at in range(lines)))
    command = [program, "run", str(folder), "--data", str(data)]
    timed(command)
    took = statistics.median(timed(command) for _ in range(rounds))
    megabytes = lines * size / 1e6
    each = f"{1000 * took / lines:.2f} ms a line" if size < 1000 else f"{1000 * took / megabytes:.0f} ms a MB"
    print(f"| {lines} | {megabytes:.2f} MB | {took:.2f} s | {each} |", flush=True)


def timed(command):
    begun = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - begun


def most_memory(command, service):
    """The most that a command's processes hold at a time, with those of the service, in MB."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    most, ended = 0, threading.Event()
    threading.Thread(target=lambda: (process.wait(), ended.set()), daemon=True).start()
    while not ended.wait(0.3):
        most = max(most, held({process.pid, service} - {None}))
    return most / 1e6


def held(roots):
    """The bytes that these processes hold, with all that descend from them."""
    children, total = {}, 0
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, set()).add(int(entry.name))
        except (OSError, ValueError):
            continue
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        waiting.extend(children.get(pid, ()))
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):
            continue
    return total


if __name__ == "__main__":
    main()
