from promptflow.core import tool
@tool
def say(text: str, n: int, m: object) -> str:
    return f"{text!r} {n!r} {m!r}"
