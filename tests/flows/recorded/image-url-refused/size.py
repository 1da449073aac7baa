from promptflow.core import tool
from promptflow.contracts.multimedia import Image
@tool
def size(picture: Image) -> str:
    return str(len(bytes(picture)))
