"""What several flows share. It comes into each by `additional_includes`."""

import inflection


def title(words: str) -> str:
    return inflection.titleize(words)
