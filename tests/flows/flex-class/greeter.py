from typing import TypedDict


class Greeting(TypedDict):
    greeting: str


class Greeter:
    """Greets in the way that it was made for."""

    def __init__(self, word: str, mark: str = "!"):
        self.word = word
        self.mark = mark

    def __call__(self, name: str) -> Greeting:
        return {"greeting": f"{self.word}, {name}{self.mark}"}
