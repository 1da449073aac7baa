import os


def say(topic: str):
    return {"topic": topic, "key": os.environ["KEY"], **{name: os.environ[name][:17] for name in ("OWN", "ADDRESS")}}
