from promptflow.core import tool


@tool
def say(city: str, count: str) -> str:
    return f"{count} people live in {city}."
