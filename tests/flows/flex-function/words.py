from typing import TypedDict


class Counts(TypedDict):
    words: int
    longest: str


def count(text: str) -> Counts:
    words = text.split()
    return {"words": len(words), "longest": max(words, key=len, default="")}
