import humanize
from promptflow.core import tool


@tool
def count(people: int) -> str:
    return humanize.intcomma(people)
