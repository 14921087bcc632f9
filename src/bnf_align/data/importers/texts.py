"""The texts of an export as training takes them: messages cleaned, and what makes no row named."""

from __future__ import annotations

import json
from typing import Any

from bnf_align.data.check import clean_message, is_empty
from bnf_align.data.importers.importer import Pair, Text, Thumb
from bnf_align.records import BadInput


def cleaned(item: Thumb | Pair) -> Thumb | Pair | str:
    """A thumb or pair with clean messages, or why it makes no row."""
    names = ["completion"] if isinstance(item, Thumb) else ["chosen", "rejected"]
    names += ["better"] if isinstance(item, Thumb) and item.better is not None else []
    if not item.prompt and item.prompt != "":
        return "no prompt"
    try:
        texts: dict[str, Any] = {name: _clean(getattr(item, name)) for name in ("prompt", *names)}
    except BadInput:
        return "a message that is not text"
    if any(not texts[name] or is_empty(texts[name]) for name in names):
        return "an empty answer"
    if len({isinstance(text, str) for text in texts.values()}) > 1:
        return "prompt and answer are not both text or both messages"
    try:
        json.dumps(texts, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return "half a character (a lone surrogate), which no tokenizer reads"
    if isinstance(item, Pair) and texts["chosen"] == texts["rejected"]:
        return "chosen and rejected are the same"
    if "better" in texts and texts["better"] == texts["completion"]:
        texts["better"] = None
    return item._replace(**texts)


def _clean(text: Any) -> Text:
    if text is None or isinstance(text, str):
        return text or ""
    if not isinstance(text, list):
        raise BadInput(type(text).__name__)
    return [clean_message(message, "", {}) for message in text]
