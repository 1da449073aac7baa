from promptflow.core import tool
from promptflow.contracts.multimedia import Image
@tool
def turn(picture: Image) -> Image:
    return Image(bytes(picture)[::-1], "image/png")
