from promptflow.core import tool
@tool
def grade(text: str, truth: str) -> str:
    if text == "bad": raise ValueError("bad text")
    return "Correct" if text == truth else "Incorrect"
