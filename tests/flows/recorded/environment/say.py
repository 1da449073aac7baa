import os
from promptflow.core import tool
AT_IMPORT = os.environ.get("STYLE")
@tool
def say(text: str) -> str:
    return f"{text} {AT_IMPORT} {os.environ.get('STYLE')} {os.environ.get('COUNT')} {os.environ.get('MORE')}"
