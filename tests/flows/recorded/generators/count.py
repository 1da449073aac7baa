from promptflow.core import tool


@tool
def count(text) -> int:
    return len("".join(text))
