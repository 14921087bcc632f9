"""Every value of every importer's table means what the product means by it, and every other value stops.

The meanings stand here once more, as literals: an entry of a table that is turned over, added or taken out fails here.
"""

import json
from importlib import import_module
from pathlib import Path

import pytest

from bnf_align.records import BadInput
from bnf_align.sources import SOURCES, Options, import_rows

MODULES = [import_module(path.stem) for path in sorted(Path(__file__).parent.glob("exports_*.py"))]
EXPORTS = {name: export for module in MODULES for name, export in module.EXPORTS.items()}
OPTIONS = {name: options for module in MODULES for name, options in getattr(module, "OPTIONS", {}).items()}

THUMBS = ("feedback", "user_feedback", "user_score", "user_liked", "thumb", "thumbs", "thumbs_up")
THUMBS += ("like", "liked", "helpful")
YES = (1, 1.0, "1", "1.0", True, "true", "True", "TRUE")
NO = (0, 0.0, "0", "0.0", -1, -1.0, "-1", "-1.0", False, "false", "False", "FALSE")
TAG = ([True, "true"], [False, "false"])
BINARY = ([1, 1.0, "1", "1.0", True, "true"], [0, 0.0, "0", "0.0", False, "false"])
"""Values under a thumb's name, where nothing else says what they are."""
MEANT: dict[str, tuple[list, list]] = {
    "openwebui": ([1, 1.0, "1"], [-1, -1.0, "-1"]),
    "librechat": (["thumbsUp"], ["thumbsDown"]),
    "chainlit": ([1, 1.0, "1", "1.0"], [0, 0.0, "0", "0.0"]),
    "langfuse": BINARY,
    "langsmith": (
        [*YES, *((key, value) for key in THUMBS for value in YES)],
        [*NO, *((key, value) for key in THUMBS for value in NO), ("user_disliked", 1), ("user_disliked", True)],
    ),
    "gradio": (["Like"], ["Dislike"]),
    "argilla": (["up", "thumbs_up", "good", "like"], ["down", "thumbs_down", "bad", "dislike"]),
    "labelstudio": (["up", "thumbs up", "good", "Good"], ["down", "thumbs down", "bad", "Bad"]),
    "llamafactory": TAG,
    "axolotl": TAG,
    "ms-swift": TAG,
    "table": ([*YES], [*NO]),
    "chatgpt": (["thumbsUp", "thumbs_up"], ["thumbsDown", "thumbs_down"]),
    "anythingllm": (["GOOD"], ["BAD"]),
    "phoenix": ([*BINARY[0], "thumbs-up"], [*BINARY[1], "thumbs-down"]),
    "mlflow": BINARY,
    "opik": BINARY,
    "beavertails": TAG,
}
"""Importer -> what is an up, and what a down, in the types in which it may stand in a file."""
NEITHER = {"user_disliked:0", "user_disliked:false", "N/A", "--"}
WON: dict[str, dict] = {
    "pku-saferlhf": {0: "first", 1: "second"},
    "chatbot-arena": {
        "model_a": "first",
        "model_b": "second",
        "tie": "tie",
        "tie (inconsistent)": "tie",
        "tie (bothbad)": "both_bad",
        "both_bad": "both_bad",
    },
    "arena-55k": {"winner_model_a": "first", "winner_model_b": "second", "winner_tie": "tie"},
    "helpsteer-preference": {
        -3: "first",
        -2: "first",
        -1: "first",
        0: "tie",
        1: "second",
        2: "second",
        3: "second",
    },
    "shp": {1: "first", 0: "second"},
}
"""Source -> what each value says of the first and the second answer."""
WITHOUT_VALUES = {"openai", "hh", "ultrainteract", "math-step-dpo", "openassistant"}
BY_SCORE = {"ultrafeedback", "helpsteer", "webgpt"}

CONVENTIONS = [value for ups, downs in MEANT.values() for value in (*ups, *downs) if not isinstance(value, tuple)]
ODD = [2, -2, 5, 0.5, -0.5, 10**20, "yes", "no", "none", "thumbs_up", "Thumbs up", "LIKE", "n/a", " ", [1], {"a": 1}]
UNIVERSE = list({repr(value): value for value in (*CONVENTIONS, *ODD)}.values())


def label(name: str, value, folder: Path, **options) -> bool | None:
    """What an export with one answer, rated with a value, makes of it; None where it makes no row."""
    settings = OPTIONS.get(name, Options(**options))
    try:
        rows = list(import_rows(name, EXPORTS[name]([("Why?", "So.", True)], folder, (value, value)), settings)[0])
    except BadInput:
        return None
    assert len(rows) == 1
    return rows[0]["label"]


def spelled(value) -> str:
    """A value as the tables write it."""
    if isinstance(value, tuple):
        return f"{value[0]}:{spelled(value[1]).lower()}"
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return str(int(value)) if isinstance(value, float) else str(value).lower()
    return str(value)


def test_the_meanings_speak_of_every_importer_and_of_every_entry_of_every_table():
    assert set(MEANT) | WITHOUT_VALUES | BY_SCORE | set(WON) == set(SOURCES)
    for name, importer in SOURCES.items():
        ups, downs = MEANT.get(name, ([], []))
        assert set(importer.values) <= {spelled(value) for value in (*ups, *downs)} | NEITHER, name
        assert {str(value): side for value, side in WON.get(name, {}).items()} == dict(importer.winners), name
    assert {name for name in WITHOUT_VALUES if SOURCES[name].values} == set()


CASES = [(name, value) for name, (ups, downs) in MEANT.items() for value in (*ups, *downs)]


@pytest.mark.parametrize(("name", "value"), CASES, ids=str)
def test_every_value_of_a_table_means_what_the_product_means_by_it(name, value, tmp_path):
    ups, _ = MEANT[name]
    assert label(name, value, tmp_path) is any(repr(value) == repr(up) for up in ups)


def known_in_text(name: str, value) -> bool:
    """Whether a value is in the meanings; a table in text files knows no types."""
    write = str if name in ("gradio", "table") else repr
    return any(write(value) == write(meant) for side in MEANT[name] for meant in side)


@pytest.mark.parametrize("name", MEANT)
def test_every_other_value_stops_whatever_it_means_elsewhere(name, tmp_path):
    foreign = [value for value in UNIVERSE if not known_in_text(name, value)]
    assert len(foreign) > 10
    read = {repr(value): label(name, value, tmp_path) for value in foreign}
    assert {value: up for value, up in read.items() if up is not None} == {}


@pytest.mark.parametrize("value", [("user_disliked", 0), ("user_disliked", False)])
def test_not_to_dislike_is_not_to_like(value, tmp_path):
    thumbs = [("Why?", "So.", True), ("Who?", "You.", False)]
    rows, report = import_rows("langsmith", EXPORTS["langsmith"](thumbs, tmp_path, (("user_liked", 1), value)))
    assert [row["label"] for row in rows] == [True]
    assert len(report.dropped["a rating that means neither up nor down"]) == 1


def test_a_score_that_was_not_given_is_no_score(tmp_path):
    record = {"instruction": "Hi", "completions": []}
    for answer, points in (("a", "N/A"), ("b", 9)):
        record["completions"].append({"response": answer, "overall_score": points, "model": "m"})
    (tmp_path / "1.jsonl").write_text(json.dumps(record))
    rows, report = import_rows("ultrafeedback", [tmp_path / "1.jsonl"], Options(up_from=7, down_to=4))
    assert [row["completion"][0]["content"] for row in rows] == ["b"]
    assert report.dropped == {"a rating that means neither up nor down": [0]}
    with pytest.raises(BadInput, match="no two completions of different score"):
        list(import_rows("ultrafeedback", [tmp_path / "1.jsonl"])[0])


@pytest.mark.parametrize("name", [name for name in MEANT if name not in ("table", "langsmith")])
@pytest.mark.parametrize("foreign", [5, 10, -5])
def test_a_known_number_beside_one_of_another_scale_is_not_read_as_a_thumb(name, foreign, tmp_path):
    """A 1 among marks from 1 to 10 is the lowest mark, and no thumb up."""
    up = MEANT[name][0][0]
    thumbs = [("Why?", "So.", True), ("Who?", "You.", False)]
    with pytest.raises(BadInput, match="--label_map"):
        list(import_rows(name, EXPORTS[name](thumbs, tmp_path, (up, foreign)), OPTIONS.get(name))[0])
