from promptflow.core import tool
@tool
def join(a: str = None, b: str = None) -> str:
    return f"{a} {b}"
