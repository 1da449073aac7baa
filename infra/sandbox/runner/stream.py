"""The pieces of an output that a flow gives as a generator, told as they come. The output itself is
made of them as ever.

What is told is a help for who looks on: it has a bound, and the whole is the line's output.
"""

import dataclasses
import threading
from collections.abc import AsyncIterator, Iterator

# The most characters of one piece, of the outputs beside it, and of all pieces of a run; and the
# most pieces of a run.
LONGEST, MOST_BESIDE, MOST_TEXT, MOST_PIECES = 4_000, 30_000, 256 << 10, 5_000


class Stream:
    """Has an executor tell the pieces of its outputs, and its LLM nodes give theirs in pieces if
    that is how promptflow serves them."""

    def __init__(self, executor):
        self.tell, self.has_begun, self.lock = None, False, threading.Lock()
        collect, collect_async = executor._stringify_generator_output, executor._stringify_generator_output_async

        async def collect_watched(output):
            return await collect_async(self.watch(output))

        executor._stringify_generator_output = lambda output: collect(self.watch(output))
        executor._stringify_generator_output_async = collect_watched
        executor.enable_streaming_for_llm_flow(lambda: True)

    def begin(self, tell):
        """A line begins, of which `tell` takes the pieces."""
        self.tell, self.has_begun, self.told = tell, False, Bound()

    def watch(self, output):
        """An output whose generators tell what they give."""
        if isinstance(output, dict):
            fields = dict(output)
        elif dataclasses.is_dataclass(output):
            fields = {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
        else:
            fields = {"output": output}
        watched = {name: self.each(name, value) for name, value in fields.items() if isinstance(value, (Iterator, AsyncIterator))}
        if not watched:
            return output
        self.say({"begins": {"outputs": beside(fields, watched), "names": [str(name) for name in watched]}})
        if isinstance(output, dict):
            output.update(watched)
            return output
        return replace_fields(output, watched) if dataclasses.is_dataclass(output) else watched["output"]

    def each(self, name, pieces):
        if isinstance(pieces, AsyncIterator):
            return self.each_async(name, pieces)
        return self.each_sync(name, pieces)

    def each_sync(self, name, pieces):
        for piece in pieces:
            self.say_text(name, str(piece))
            yield piece

    async def each_async(self, name, pieces):
        async for piece in pieces:
            self.say_text(name, str(piece))
            yield piece

    def say_text(self, name, text):
        for start in range(0, len(text) or 1, LONGEST):
            self.say({"goes_on": {"name": str(name), "text": text[start : start + LONGEST]}})

    def say(self, chunk):
        # Outputs of one line may be collected by threads.
        with self.lock:
            self.has_begun = True
            if self.told.has_room(chunk):
                self.tell(chunk)


def replace_fields(output, fields):
    """A dataclass with other values, as promptflow puts them there."""
    try:
        for name, value in fields.items():
            setattr(output, name, value)
        return output
    except dataclasses.FrozenInstanceError:
        return dataclasses.replace(output, **fields)


def beside(fields, watched):
    """The outputs that come whole, as JSON; None if they are no JSON before images are files, or
    are long."""
    from .line import dumps, without_number

    try:
        text = dumps(without_number({name: value for name, value in fields.items() if name not in watched}))
        return text if len(text) <= MOST_BESIDE else None
    except Exception:  # noqa: BLE001
        return None


class Bound:
    """The pieces of a run that are told: a beginning, as long as there is room."""

    def __init__(self):
        self.text, self.pieces, self.is_full = MOST_TEXT, MOST_PIECES, False

    def has_room(self, chunk):
        self.text -= len(chunk["goes_on"]["text"]) if "goes_on" in chunk else 0
        self.pieces -= 1
        # A gap would be taken for the whole.
        self.is_full = self.is_full or self.text < 0 or self.pieces < 0
        return not self.is_full


def checked_chunk(chunk):
    """Returns a valid piece of a process's word: the flow's code can write anything where it says
    it."""
    if not isinstance(chunk, dict):
        return None
    begins, goes_on = chunk.get("begins"), chunk.get("goes_on")
    if isinstance(begins, dict):
        outputs, names = begins.get("outputs"), begins.get("names")
        is_beside = outputs is None or is_text(outputs, MOST_BESIDE) and "\n" not in outputs
        if is_beside and isinstance(names, list) and len(names) <= 100 and all(is_text(name, 200) for name in names):
            return {"begins": {"outputs": outputs, "names": names}}
    elif isinstance(goes_on, dict) and is_text(goes_on.get("name"), 200) and is_text(goes_on.get("text"), LONGEST):
        return {"goes_on": {"name": goes_on["name"], "text": goes_on["text"]}}
    return None


def is_text(value, most):
    return isinstance(value, str) and len(value) <= most
