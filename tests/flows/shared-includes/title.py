import helpers
from promptflow.core import tool


@tool
def title(name: str) -> str:
    return helpers.title(name)
