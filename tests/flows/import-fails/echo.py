import a_package_that_nobody_has
from promptflow.core import tool


@tool
def echo(text: str) -> str:
    return a_package_that_nobody_has.echo(text)
