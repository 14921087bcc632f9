"""One raw row as a pair or as a single answer, or the reason why it is neither."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from trl import extract_prompt

from bnf_align.data.messages import is_empty, split_last_answer
from bnf_align.records import BadInput, DataReport, PreferenceRow

Texts = dict[str, Any]

EMPTY = "an empty answer"


def checked_row(number: int, row: Mapping[str, Any], report: DataReport) -> PreferenceRow | None:
    """A row as a pair, or as a single answer with its raw label; None, and counted, where it is neither.

    Args:
        number: The row's number in the source.
        row: Columns under our names, messages normalised.
        report: Where a row that is left out is counted.

    Raises:
        BadInput: If prompt and answer are not of one kind, or `tools` or `chat_template_kwargs` cannot be read.
    """
    if row.get("chosen") is not None and row.get("rejected") is not None:
        texts = _pair(row)
    elif row.get("completion") is not None or row.get("messages") is not None:
        texts = _single(row)
    else:
        columns = ("chosen", "rejected") if "chosen" in row or "rejected" in row else ("completion",)
        texts = "no " + " and ".join(f"`{name}`" for name in columns if row.get(name) is None)
    texts = texts if isinstance(texts, str) else _whole(texts)
    if isinstance(texts, str):
        report.drop(texts, number)
        return None
    _check_kinds(texts, f"{report.source}, row {number}")
    label = {"label": row.get("label")} if "completion" in texts else {}
    return {"row": number, **texts, **label, **_extras(row, f"{report.source}, row {number}")}


def _pair(row: Mapping[str, Any]) -> Texts | str:
    """Prompt, chosen and rejected of a row, or why it has none."""
    texts = {name: row.get(name) for name in ("prompt", "chosen", "rejected")}
    if not texts["chosen"] or not texts["rejected"]:
        return EMPTY
    if texts["chosen"] == texts["rejected"]:
        return "chosen and rejected are the same"
    if _holds_its_prompt(texts):
        texts = _with_prompt_extracted(texts)
    return texts


def _holds_its_prompt(texts: Texts) -> bool:
    """Whether the answers begin with their prompt: there is no other, or (as in UltraFeedback) only a plain copy."""
    answers_chat = isinstance(texts["chosen"], list) and isinstance(texts["rejected"], list)
    return texts["prompt"] is None or (isinstance(texts["prompt"], str) and answers_chat)


def _with_prompt_extracted(texts: Texts) -> Texts:
    # TRL's function looks at the element before the first that differs, which for the very first is the last one.
    if texts["chosen"][0] != texts["rejected"][0]:
        return texts
    return dict(extract_prompt({"chosen": texts["chosen"], "rejected": texts["rejected"]}))


def _single(row: Mapping[str, Any]) -> Texts | str:
    """Prompt and completion of a row, or why it has none."""
    if row.get("completion") is not None:
        return {"prompt": row.get("prompt"), "completion": row["completion"]}
    split = split_last_answer(row["messages"])
    return "no assistant turn in `messages`" if split is None else {"prompt": split[0], "completion": split[1]}


def _whole(texts: Texts) -> Texts | str:
    """The texts, or what is missing in them."""
    if texts["prompt"] is None or texts["prompt"] == []:
        return "no `prompt`"
    if any(is_empty(text) for name, text in texts.items() if name != "prompt"):
        return EMPTY
    try:
        json.dumps(texts, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "half a character (a lone surrogate), which no tokenizer reads"
    return texts


def _check_kinds(texts: Texts, place: str) -> None:
    kinds = {name: "a message list" if isinstance(text, list) else "text" for name, text in texts.items()}
    if len(set(kinds.values())) > 1:
        listed = ", ".join(f"`{name}` is {kind}" for name, kind in kinds.items())
        raise BadInput(f"{place}: {listed}. Make all of them the same, text or message lists.")


def _extras(row: Mapping[str, Any], place: str) -> dict[str, Any]:
    """What the chat template gets beside the messages, as objects where the source has JSON text."""
    extras = {}
    for name, kind in (("tools", list), ("chat_template_kwargs", dict)):
        value = row.get(name)
        try:
            value = json.loads(value) if isinstance(value, str) and value else value
        except json.JSONDecodeError as error:
            raise BadInput(f"{place}: `{name}` is text but not JSON ({error.msg}): {value:.60}") from error
        if value and not isinstance(value, kind):
            raise BadInput(f"{place}: `{name}` must be a {kind.__name__}, not {type(value).__name__}.")
        if value:
            extras[name] = value
    return extras
