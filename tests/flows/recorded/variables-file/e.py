import os


def say(topic: str):
    names = ("WORD", "TWO", "QUOTED", "OWN")
    return {"topic": topic, **{name: os.environ.get(name) for name in names}}
