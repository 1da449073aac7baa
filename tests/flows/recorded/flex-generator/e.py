def say(topic: str):
    for word in ["of ", topic, " and more"]:
        yield word
