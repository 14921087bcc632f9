"""Links that leave `docs/`: the site does not hold the file, so it is named."""

import re


def on_page_markdown(markdown: str, **_: object) -> str:
    """`[text](../file)` as text with the file's name."""
    return re.sub(r"(?<!!)\[([^\]]+)\]\(\.\./([^)]+)\)", r"\1 (`\2`)", markdown)
