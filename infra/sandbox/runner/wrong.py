"""Failures with stable names, and the text that tells them."""


class Wrong(Exception):
    """A failure with a stable name."""

    def __init__(self, name, message):
        super().__init__(message)
        self.failure = {"error": name, "message": message}


def first_line(text, most=300):
    """The first line of a text that is not blank, cut to `most` characters."""
    line = next((line for line in str(text).strip().splitlines() if line.strip()), "")
    return line if len(line) <= most else line[: most - 1] + "…"


def ended(status):
    """The end of a process, in words."""
    return f"signal {-status}" if status < 0 else f"exit code {status}"


def nearest(name, known):
    """Names what was probably meant, or all that there is."""
    import difflib

    known = list(known)
    close = difflib.get_close_matches(name, known, 1, 0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"there are: {', '.join(map(repr, known))}" if known else "there is none"
