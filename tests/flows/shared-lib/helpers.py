"""Code of several flows. It comes into each by `additional_includes`."""

import inflection


def title(words: str) -> str:
    return inflection.titleize(words)
