def say(topic: str, times: int = 2):
    return {"said": topic * times, "times": times}
