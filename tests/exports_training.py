"""Data files of other trainers in their documented formats, with given thumbs in them.

`values` is how the format writes an up and a down.
"""

import csv
import json
from pathlib import Path

from bnf_align.sources import Options

Thumb = tuple[str, str, bool]


def lines(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def pairs(thumbs: list[Thumb]) -> list[tuple[str, str, str]]:
    """The first up against the first down, and so on, each to a prompt of its own."""
    ups = [answer for _, answer, up in thumbs if up]
    downs = [answer for _, answer, up in thumbs if not up]
    return [(f"Question {n}?", up, down) for n, (up, down) in enumerate(zip(ups, downs, strict=False))]


def openai(thumbs: list[Thumb], folder: Path) -> list[Path]:
    records = [
        {
            "input": {"messages": [{"role": "user", "content": prompt}], "tools": [], "parallel_tool_calls": True},
            "preferred_output": [{"role": "assistant", "content": up}],
            "non_preferred_output": [{"role": "assistant", "content": down}],
        }
        for prompt, up, down in pairs(thumbs)
    ]
    return [lines(folder / "dpo.jsonl", records)]


def llamafactory(thumbs: list[Thumb], folder: Path, values: tuple = (True, False)) -> list[Path]:
    records = [
        {"conversations": [{"from": "human", "value": prompt}, {"from": "gpt", "value": answer}], "kto_tag": tag}
        if n % 2
        else {"instruction": prompt, "input": "", "output": answer, "kto_tag": tag}
        for n, (prompt, answer, up) in enumerate(thumbs)
        for tag in [values[not up]]
    ]
    path = folder / "kto.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return [path]


def axolotl(thumbs: list[Thumb], folder: Path, values: tuple = (True, False)) -> list[Path]:
    records = [
        {"system": "", "instruction": prompt, "completion": answer, "label": values[not up]}
        for prompt, answer, up in thumbs
    ]
    return [lines(folder / "kto.jsonl", records)]


def ms_swift(thumbs: list[Thumb], folder: Path, values: tuple = (True, False)) -> list[Path]:
    records = [
        {
            "messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}],
            "label": values[not up],
        }
        for prompt, answer, up in thumbs
    ]
    return [lines(folder / "kto.jsonl", records)]


def hh(thumbs: list[Thumb], folder: Path) -> list[Path]:
    records = [
        {side: f"\n\nHuman: {prompt}\n\nAssistant: {answer}" for side, answer in (("chosen", up), ("rejected", down))}
        for prompt, up, down in pairs(thumbs)
    ]
    return [lines(folder / "train.jsonl", records)]


def completion(text: str, overall: float | None, **ratings: str) -> dict:
    """One completion of UltraFeedback."""
    return {
        "model": "llama",
        "principle": "helpfulness",
        "custom_system_prompt": "Be helpful.",
        "response": text,
        "annotations": {aspect: {"Rating": rating, "Rationale": "..."} for aspect, rating in ratings.items()},
        **({} if overall is None else {"overall_score": overall, "fine-grained_score": overall / 2}),
    }


def ultrafeedback(thumbs: list[Thumb], folder: Path) -> list[Path]:
    """The answers to one prompt in one record."""
    records: dict[str, dict] = {}
    for prompt, answer, up in thumbs:
        record = {"source": "sharegpt", "instruction": prompt, "models": ["llama"], "completions": []}
        scored = completion(answer, 8.5 if up else 2.0, helpfulness="4" if up else "1")
        records.setdefault(prompt, record)["completions"].append(scored)
    return [lines(folder / "ultrafeedback.jsonl", list(records.values()))]


def table(thumbs: list[Thumb], folder: Path, values: tuple = ("1", "-1")) -> list[Path]:
    path = folder / "table.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(["question", "answer", "verdict"])
        writer.writerows([prompt, answer, values[not up]] for prompt, answer, up in thumbs)
    return [path]


EXPORTS = {
    "openai": openai,
    "llamafactory": llamafactory,
    "axolotl": axolotl,
    "ms-swift": ms_swift,
    "hh": hh,
    "ultrafeedback": ultrafeedback,
    "table": table,
}
OPTIONS = {
    "table": Options(column_map={"prompt": "question", "completion": "answer", "label": "verdict"}),
    "ultrafeedback": Options(up_from=7, down_to=4),
}
PAIRS_ONLY = {"openai", "hh"}
