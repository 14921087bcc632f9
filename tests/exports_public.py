"""Public preference sets under their own columns, with given thumbs in them.

Sets of thumbs take `values`, how the set writes an up and a down. Sets of pairs write the first up against the first
down, and so on, in turns as the first and as the second answer.
"""

import json
from pathlib import Path

from bnf_align.sources import Options
from exports_training import lines, pairs

Thumb = tuple[str, str, bool]


def sided(thumbs: list[Thumb]) -> list[tuple[str, str, str, bool]]:
    """Prompt, first and second answer, and whether the first is the better one."""
    return [
        (prompt, up, down, True) if n % 2 else (prompt, down, up, False)
        for n, (prompt, up, down) in enumerate(pairs(thumbs))
    ]


def pku(prompt: str, first: str, second: str, is_first: bool) -> dict:
    better = 0 if is_first else 1
    return {
        "prompt": prompt,
        "response_0": first,
        "response_1": second,
        "is_response_0_safe": True,
        "is_response_1_safe": True,
        "better_response_id": better,
        "safer_response_id": 1 - better,
    }


def arena(prompt: str, first: str, second: str, winner) -> dict:
    asked = {"role": "user", "content": prompt}
    return {
        "question_id": "q",
        "model_a": "m1",
        "model_b": "m2",
        "winner": {True: "model_a", False: "model_b"}.get(winner, winner),
        "conversation_a": [asked, {"role": "assistant", "content": first}],
        "conversation_b": [asked, {"role": "assistant", "content": second}],
        "turn": 1,
    }


def arena_55k(prompt: str, first: str, second: str, is_first) -> dict:
    return {
        "id": 1,
        "prompt": json.dumps([prompt]),
        "response_a": json.dumps([first]),
        "response_b": json.dumps([second]),
        "winner_model_a": int(is_first is True),
        "winner_model_b": int(is_first is False),
        "winner_tie": int(is_first is None),
    }


def helpsteer_preference(prompt: str, first: str, second: str, is_first: bool) -> dict:
    strength = -1 if is_first else 3
    return {"prompt": prompt, "response_1": first, "response_2": second, "preference_strength": strength}


def shp(prompt: str, first: str, second: str, is_first: bool) -> dict:
    return {"history": prompt, "human_ref_A": first, "human_ref_B": second, "labels": int(is_first), "score_A": 3}


def webgpt(prompt: str, first: str, second: str, is_first: bool) -> dict:
    points = 0.5 if is_first else -0.5
    question = {"dataset": "eli5", "id": "1", "full_text": prompt}
    return {"question": question, "answer_0": first, "score_0": points, "answer_1": second, "score_1": -points}


def contests(record):
    def export(thumbs: list[Thumb], folder: Path) -> list[Path]:
        return [lines(folder / "set.jsonl", [record(*one) for one in sided(thumbs)])]

    return export


def ultrainteract(thumbs: list[Thumb], folder: Path) -> list[Path]:
    records = [
        {"task": "Math", "trajectory": [{"from": "user", "value": prompt}], "chosen": up, "rejected": down}
        for prompt, up, down in pairs(thumbs)
    ]
    return [lines(folder / "set.jsonl", records)]


def math_step(thumbs: list[Thumb], folder: Path) -> list[Path]:
    records = [
        {"prompt": prompt, "initial_reason_steps": "", "chosen": up, "rejected": down, "full_chosen": up}
        for prompt, up, down in pairs(thumbs)
    ]
    return [lines(folder / "set.jsonl", records)]


def helpsteer(thumbs: list[Thumb], folder: Path) -> list[Path]:
    records = [
        {"prompt": prompt, "response": answer, "helpfulness": 4 if up else 0, "verbosity": 2}
        for prompt, answer, up in thumbs
    ]
    return [lines(folder / "set.jsonl", records)]


def beavertails(thumbs: list[Thumb], folder: Path, values: tuple = (True, False)) -> list[Path]:
    records = [
        {"prompt": prompt, "response": answer, "category": {}, "is_safe": values[not up]}
        for prompt, answer, up in thumbs
    ]
    return [lines(folder / "set.jsonl", records)]


def oasst(key: str, parent: str | None, role: str, text: str, rank: int | None = None, **fields) -> dict:
    """A message of OpenAssistant's."""
    named = {"message_id": key, "parent_id": parent, "role": role, "text": text, "rank": rank, "deleted": False}
    return {**named, "message_tree_id": "m1", **fields}


def openassistant(thumbs: list[Thumb], folder: Path) -> list[Path]:
    records = []
    for n, (prompt, up, down) in enumerate(pairs(thumbs)):
        records += [
            oasst(f"q{n}", None, "prompter", prompt),
            oasst(f"d{n}", f"q{n}", "assistant", down, rank=1),
            oasst(f"u{n}", f"q{n}", "assistant", up, rank=0),
        ]
    return [lines(folder / "messages.jsonl", records)]


CONTESTS = {
    "pku-saferlhf": pku,
    "chatbot-arena": arena,
    "arena-55k": arena_55k,
    "helpsteer-preference": helpsteer_preference,
    "shp": shp,
    "webgpt": webgpt,
}
EXPORTS = {name: contests(record) for name, record in CONTESTS.items()} | {
    "ultrainteract": ultrainteract,
    "math-step-dpo": math_step,
    "helpsteer": helpsteer,
    "beavertails": beavertails,
    "openassistant": openassistant,
}
OPTIONS = {"helpsteer": Options(up_from=3, down_to=1)}
PAIRS_ONLY = {*CONTESTS, "ultrainteract", "math-step-dpo", "openassistant"}
