from promptflow.core import tool
@tool
def echo(text: str, times: int) -> str:
    if text == "bad":
        raise ValueError("bad text")
    return text * times
