"""Lines that their model provider turned away with 429, as it was asked too often.

promptflow itself has LLM nodes (100 times) and prompties (10 times) wait and ask again, as
`Retry-After` says, and so they do here. A line of code that asks by a client of its own fails with
promptflow once the client gives up (OpenAI's after two more tries). Here it is run again.
"""

import re
import sys

# How often a line is run again, and how long it waits before each time, in seconds. It waits in the
# place that it has among the lines, so that fewer ask at once.
MOST, FIRST_WAIT, MOST_WAIT = 5, 1.0, 60.0

# What the provider said last: after how many seconds it may be asked again.
last = {"after": None}


def listen():
    """Has OpenAI's client tell what the provider says of when to ask again, if the flow uses it."""
    kind = getattr(sys.modules.get("openai"), "RateLimitError", None)
    if not isinstance(kind, type) or getattr(kind, "_tells", False):
        return
    before = kind.__init__

    def begin(self, *arguments, **named):
        before(self, *arguments, **named)
        last["after"] = after(getattr(getattr(self, "response", None), "headers", None))

    kind.__init__, kind._tells = begin, True


def after(headers):
    """The seconds that headers name; None if they name none."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers.get(name)) / unit
        except (AttributeError, TypeError, ValueError):
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    return None


def is_turned_away(wrong):
    """Whether this failure of a line says so. A quota that is used up does not come back by
    waiting."""
    kind, _, message = wrong.get("message", "").partition(": ")
    if wrong.get("error") != "Run.CodeRaised" or "insufficient_quota" in message:
        return False
    return kind == "RateLimitError" or kind in ("HTTPStatusError", "HTTPError") and bool(re.search(r"\b429\b", message))


def wait_before(again, random):
    """Returns the wait before a line is run again for this time, in seconds; None if the provider
    wants more than is waited for.

    * `random`: a number from 0 to 1, so that lines that were turned away together do not come back
      together.
    """
    said, last["after"] = last["after"], None
    if said is not None:
        return said if said <= MOST_WAIT else None
    return min(FIRST_WAIT * 2**again * (0.75 + random / 2), MOST_WAIT)
