from promptflow.core import tool
@tool
def say(text: str, other: str, number: int, own: str, more: str = "more") -> str:
    return f"{text}, {other}, {number!r}, {own}, {more}"
