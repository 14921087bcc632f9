"""One raw row as a pair or as a single answer, or the reason why it is neither."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bnf_align.data.messages import is_empty, split_last_answer
from bnf_align.data.template import shared_prefix
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
    place = f"{report.source}, row {number}"
    _check_kinds(texts, place)
    label = {"label": row.get("label")} if "completion" in texts else {}
    return {"row": number, **texts, **label, **_extras(row, place)}


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
    """The texts with what the answers begin with as the prompt, cut where `extract_prompt` of trl 1.16 cuts.

    Importing that takes seconds and 300 MB, and it compares character by character.
    """
    chosen, rejected = texts["chosen"], texts["rejected"]
    at = shared_prefix(chosen, rejected)
    # Nothing in common is no prompt. An answer that begins with the other keeps one element, and a space goes with
    # the word after it, as tokenizers have it.
    if at == 0:
        return texts
    if at == min(len(chosen), len(rejected)) or chosen[at - 1] == " ":
        at -= 1
    return {"prompt": chosen[:at], "chosen": chosen[at:], "rejected": rejected[at:]}


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
        if name == "tools" and not all(isinstance(tool, dict) for tool in value or ()):
            raise BadInput(f"{place}: `tools` must be a list of objects, JSON schemas: {value!r:.60}")
        if value:
            extras[name] = value
    return extras
