from promptflow.core import tool


@tool
def say(text: str, times: int):
    if text == "whole":
        return text
    return pieces(text, times)


def pieces(text, times):
    for at in range(times):
        if text == "breaks" and at == 1:
            raise ValueError("bad text")
        yield f"{text} {at}\n"
