from promptflow.core import tool
@tool
def loud(text: str) -> str:
    return text.upper()
