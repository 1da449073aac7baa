from pathlib import Path

from promptflow.core import AzureOpenAIModelConfiguration, Prompty


class Asker:
    def __init__(self, model_config: AzureOpenAIModelConfiguration, word: str = "Hi"):
        self.word = word
        self.prompty = Prompty.load(Path(__file__).parent / "ask.prompty", model={"configuration": model_config})

    def __call__(self, topic: str):
        return {"word": self.word, "said": self.prompty(topic=topic)}
