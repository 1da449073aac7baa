from promptflow.core import tool


@tool
def share(number: int) -> str:
    return str(12 // number)
