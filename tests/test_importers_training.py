"""Data files of other trainers, HH, UltraFeedback and tables: hand-made files become exactly the expected rows."""

import csv
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnf_align.records import BadInput
from bnf_align.sources import SOURCES, Options, detect, import_rows
from exports_training import completion, lines
from rows import assistant, user
from test_importers import JSON, QUICK, changed, folder, places


def system(text):
    return {"role": "system", "content": text}


HI, HELLO, WHAT = [user("Hi")], [assistant("Hello")], [assistant("What?")]
PAIR = {"prompt": HI, "chosen": HELLO, "rejected": WHAT}


def imported(name, *paths, **options):
    """Rows and report."""
    rows, report = import_rows(name, paths, Options(**options))
    return list(rows), report


def read(name, folder, records, **options):
    """The rows of a file with these records."""
    return imported(name, lines(folder / "data.jsonl", records), **options)[0]


def left_out(name, folder, records, **options):
    """Why nothing of a file is usable: reason -> number of records."""
    rows, report = import_rows(name, [lines(folder / "data.jsonl", records)], Options(**options))
    with pytest.raises(BadInput, match=r"0 of .* ratings are usable"):
        list(rows)
    return {reason: len(numbers) for reason, numbers in report.dropped.items()}


# -------------------------------------------------------------------------------------------------------------- OpenAI


def openai(**fields):
    given = {"messages": HI, "tools": [], "parallel_tool_calls": True}
    return {"input": given, "preferred_output": HELLO, "non_preferred_output": WHAT} | fields


def test_openai_preferred_is_chosen_and_tools_travel_along(tmp_path):
    tools = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
    with_tools = openai(input={"messages": [system("Be brief."), *HI], "tools": tools})
    assert read("openai", tmp_path, [openai(), with_tools]) == [
        PAIR,
        {**PAIR, "prompt": [system("Be brief."), *HI], "tools": tools},
    ]


def test_openai_an_answer_may_be_several_messages(tmp_path):
    call = {
        "role": "assistant",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    }
    said = [call, {"role": "tool", "tool_call_id": "c1", "content": "3"}, assistant("3.")]
    assert read("openai", tmp_path, [openai(preferred_output=said)]) == [{**PAIR, "chosen": said}]


def test_openai_what_is_no_pair_is_counted(tmp_path):
    records = [
        openai(preferred_output=None),
        openai(non_preferred_output=[]),
        openai(input="Hi"),
        openai(non_preferred_output=HELLO),
        openai(preferred_output=[assistant("")]),
        {"messages": HI},
    ]
    assert left_out("openai", tmp_path, records) == {
        "input or an output holds no messages": 3,
        "chosen and rejected are the same": 1,
        "an empty answer": 1,
        "not a pair with input, non_preferred_output, preferred_output": 1,
    }


# ------------------------------------------------------------------------------------------------------- LLaMA-Factory


def said(*texts):
    """ShareGPT's turns."""
    return [{"from": "gpt" if n % 2 else "human", "value": text} for n, text in enumerate(texts)]


def test_llamafactory_pairs_in_both_formats(tmp_path):
    records = [
        {
            "conversations": said("Hi", "Hello", "Why?"),
            "chosen": {"from": "gpt", "value": "Because."},
            "rejected": {"from": "gpt", "value": "No."},
            "system": "Be brief.",
            "tools": json.dumps([{"name": "add"}]),
        },
        {
            "instruction": "Translate",
            "input": "Hallo",
            "chosen": "Hello",
            "rejected": "What?",
            "system": "",
            "history": [["Who?", "Me."]],
        },
    ]
    assert read("llamafactory", tmp_path, records) == [
        {
            "prompt": [system("Be brief."), user("Hi"), assistant("Hello"), user("Why?")],
            "chosen": [assistant("Because.")],
            "rejected": [assistant("No.")],
            "tools": [{"name": "add"}],
        },
        {
            "prompt": [user("Who?"), assistant("Me."), user("Translate\nHallo")],
            "chosen": HELLO,
            "rejected": WHAT,
        },
    ]


def test_llamafactory_tags_are_thumbs_and_rows_without_one_are_never_downs(tmp_path):
    records = [
        {"conversations": said("Hi", "Hello"), "kto_tag": True},
        {"conversations": said("Hi", "What?"), "kto_tag": False},
        {"conversations": said("Hi", "Unrated."), "kto_tag": None},
        {"instruction": "Hi", "input": "", "output": "No.", "kto_tag": False},
        {"messages": [*HI, *WHAT], "label": False},
        {"conversations": said("Hi"), "kto_tag": True},
        {"conversations": said("Hi", "A cat."), "images": ["cat.png"], "kto_tag": True},
    ]
    rows, report = imported("llamafactory", lines(tmp_path / "data.jsonl", records), raters="all")
    assert rows == [
        {"prompt": HI, "completion": HELLO, "label": True},
        {"prompt": HI, "completion": WHAT, "label": False},
        {"prompt": HI, "completion": [assistant("No.")], "label": False},
        {"prompt": HI, "completion": WHAT, "label": False},
    ]
    assert report.dropped == {"no rating": [2], "no answer at the end": [5], "images, video or audio": [6]}


@pytest.mark.parametrize("name", ["llamafactory", "ms-swift"])
def test_a_tag_that_is_a_number_is_asked_for(tmp_path, name):
    """LLaMA-Factory passes over a tag that is no bool, and ms-swift's numbers are classes."""
    records = [{"messages": [*HI, assistant(f"A{n}")], "label": n % 3} for n in range(4)]
    with pytest.raises(BadInput, match="Seen: 2 x 0, 1 x 1, 1 x 2"):
        read(name, tmp_path, records)
    rows = read(name, tmp_path, records, label_map={"0": "drop", "1": "down", "2": "up"})
    assert [row["label"] for row in rows] == [False, True]


def test_llamafactory_function_calls_are_tool_calls(tmp_path):
    call = json.dumps({"name": "add", "arguments": {"a": 1}})
    turns = [
        {"from": "human", "value": "1 + 2?"},
        {"from": "function_call", "value": call},
        {"from": "observation", "value": "3"},
        {"from": "gpt", "value": "3."},
    ]
    function = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    assert read("llamafactory", tmp_path, [{"conversations": turns, "kto_tag": True}])[0]["prompt"] == [
        user("1 + 2?"),
        {"role": "assistant", "tool_calls": [function]},
        {"role": "tool", "content": "3"},
    ]
    turns[1]["value"] = "no call"
    broken = [{"conversations": turns, "kto_tag": True}]
    assert left_out("llamafactory", tmp_path, broken) == {"turns that are not all text": 1}


@pytest.mark.parametrize("name", ["llamafactory", "ms-swift"])
def test_tools_that_no_template_can_show_are_counted(tmp_path, name):
    row = {"messages": [*HI, *HELLO], "label": True}
    assert read(name, tmp_path, [row | {"tools": ""}]) == [{"prompt": HI, "completion": HELLO, "label": True}]
    assert left_out(name, tmp_path, [row | {"tools": "add(a, b)"}]) == {"tools that are no JSON list": 1}


def test_llamafactory_its_index_is_not_data(tmp_path):
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": {"file_name": "data.jsonl", "ranking": True}}))
    records = [{"instruction": "Hi", "chosen": "Hello", "rejected": "What?"}]
    lines(tmp_path / "data.jsonl", records)
    rows, report = imported("llamafactory", tmp_path)
    assert (rows, report.rows, report.dropped) == ([PAIR], 1, {})
    assert detect(sorted(tmp_path.iterdir())).name == "llamafactory"


# ------------------------------------------------------------------------------------------------------------- Axolotl

FORMATS = {
    "argilla": {"instruction": "Hi", "chosen_response": "Hello", "rejected_response": "What?"},
    "icr": {"input": "Hi", "chosen": "Hello", "rejected": "What?"},
    "intel": {"question": "Hi", "chosen": "Hello", "rejected": "What?"},
    "prompt_pairs": {"prompt": "Hi", "chosen": "Hello", "rejected": "What?"},
    "ultra": {"prompt": "Hi", "chosen": [*HI, *HELLO], "rejected": [*HI, *WHAT]},
    "argilla_chat": {"chosen": [*HI, *HELLO], "rejected": [*HI, *WHAT]},
    "chat_template": {"messages": HI, "chosen": HELLO[0], "rejected": WHAT[0]},
}


@pytest.mark.parametrize("name", FORMATS)
def test_axolotl_every_format_of_a_pair_is_the_same_pair(tmp_path, name):
    assert read("axolotl", tmp_path, [FORMATS[name]]) == [PAIR]


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "argilla_chat"])
def test_axolotl_a_system_prompt_stands_before_the_prompt(tmp_path, name):
    row = read("axolotl", tmp_path, [{"system": "Be brief.", **FORMATS[name]}])[0]
    assert row["prompt"] == [system("Be brief."), *HI]


def test_axolotl_a_whole_conversation_is_kept(tmp_path):
    before = [*HI, *HELLO, user("Why?")]
    record = {"prompt": "Why?", "chosen": [*before, assistant("So.")], "rejected": [*before, assistant("No.")]}
    assert read("axolotl", tmp_path, [record]) == [
        {"prompt": before, "chosen": [assistant("So.")], "rejected": [assistant("No.")]}
    ]


def test_axolotl_rank_one_is_the_best_and_nectar_prompts_are_transcripts(tmp_path):
    def ranked(*ranks, prompt="\n\nHuman: Hi\n\nAssistant: "):
        answers = [{"answer": f"rank {rank}", "model": f"m{rank}", "rank": rank} for rank in ranks]
        return {"prompt": prompt, "answers": answers}

    rows, report = imported("axolotl", lines(tmp_path / "data.jsonl", [ranked(2, 1.0, 3), ranked(1, 1), ranked(1)]))
    assert rows == [
        {
            "prompt": HI,
            "chosen": [assistant("rank 1.0")],
            "rejected": [assistant("rank 3")],
            "chosen_model": "m1.0",
            "rejected_model": "m3",
        }
    ]
    assert report.dropped == {"fewer than two answers of different rank": [1, 2]}


@pytest.mark.parametrize(
    "record",
    [
        {"instruction": "Hi", "completion": "What?"},
        {"question": "Hi", "completion": "What?"},
        {"prompt": "Hi", "completion": "What?"},
        {"completion": [*HI, *WHAT]},
        {"chosen": HI, "completion": WHAT},
    ],
)
def test_axolotl_every_format_of_a_completion_is_the_same_thumb(tmp_path, record):
    down, unrated = record | {"label": False}, record | {"label": None}
    assert read("axolotl", tmp_path, [down, unrated]) == [{"prompt": HI, "completion": WHAT, "label": False}]
    with pytest.raises(BadInput, match="Seen: 1 x -1"):
        read("axolotl", tmp_path, [record | {"label": -1}])


def test_axolotl_answers_to_two_prompts_are_no_pair(tmp_path):
    record = {"chosen": [*HI, *HELLO], "rejected": [user("Bye"), *WHAT]}
    half = {"input": "Hi", "chosen": "Hello", "rejected": None}
    alone = {"completion": "Hello", "label": True}
    assert left_out("axolotl", tmp_path, [record, half, alone]) == {
        "chosen and rejected do not answer one prompt": 1,
        "chosen or rejected is missing, or is no answer": 1,
        "a completion without prompt, or that is no answer": 1,
    }


# ------------------------------------------------------------------------------------------------------------ ms-swift


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [*HI, *HELLO]},
        {"query": "Hi", "response": "Hello"},
        {"instruction": "Hi", "input": "", "output": "Hello"},
        {"conversation": [{"human": "Hi", "assistant": "Hello"}]},
    ],
)
def test_ms_swift_the_last_answer_is_preferred_to_the_rejected_one(tmp_path, record):
    text, whole = record | {"rejected_response": "What?"}, record | {"rejected_messages": [*HI, *WHAT]}
    brief = record | {"rejected_response": "What?", "system": "Be brief."}
    assert read("ms-swift", tmp_path, [text, whole]) == [PAIR, PAIR]
    assert read("ms-swift", tmp_path, [brief])[0]["prompt"] == [system("Be brief."), *HI]


def test_ms_swift_labels_are_thumbs_and_the_history_is_kept(tmp_path):
    records = [
        {"messages": [*HI, *HELLO, user("Why?"), *WHAT], "label": False},
        {"query": "Why?", "response": "So.", "history": [["Hi", "Hello"]], "label": True},
        {"messages": HI, "label": True},
        {"messages": [user("<image>?"), *HELLO], "images": ["cat.png"], "label": True},
        {"messages": [*HI, *HELLO]},
    ]
    rows, report = imported("ms-swift", lines(tmp_path / "data.jsonl", records))
    assert rows == [
        {"prompt": [*HI, *HELLO, user("Why?")], "completion": WHAT, "label": False},
        {"prompt": [*HI, *HELLO, user("Why?")], "completion": [assistant("So.")], "label": True},
    ]
    assert report.dropped == {
        "no answer at the end": [2],
        "images, video or audio": [3],
        "not a row with a conversation and rejected_response or label": [4],
    }


def test_ms_swift_tool_calls_and_responses_are_read(tmp_path):
    turns = [
        user("1 + 2?"),
        {"role": "tool_call", "content": json.dumps({"name": "add", "arguments": {"a": 1}})},
        {"role": "tool_response", "content": "3"},
        assistant("3."),
    ]
    row = read("ms-swift", tmp_path, [{"messages": turns, "label": True, "tools": json.dumps([{"name": "add"}])}])[0]
    function = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    assert row["prompt"][1:] == [{"role": "assistant", "tool_calls": [function]}, {"role": "tool", "content": "3"}]
    assert row["tools"] == [{"name": "add"}]


# ------------------------------------------------------------------------------------------------------------------ HH


def spoken(*texts):
    return "".join(f"\n\n{'Assistant' if n % 2 else 'Human'}: {text}" for n, text in enumerate(texts))


def test_hh_transcripts_are_turns_and_what_they_share_is_the_prompt(tmp_path):
    before = ("Hi", "Hello\n\nyou", "Why?")
    records = [
        {"chosen": spoken(*before, "Because.") + "\n", "rejected": spoken(*before, "No.")},
        {"prompt": spoken("Hi") + "\n\nAssistant:", "chosen": " Hello", "rejected": " What?"},
    ]
    assert read("hh", tmp_path, records) == [
        {
            "prompt": [user("Hi"), assistant("Hello\n\nyou"), user("Why?")],
            "chosen": [assistant("Because.")],
            "rejected": [assistant("No.")],
        },
        PAIR,
    ]


def test_hh_what_is_no_pair_of_answers_is_counted(tmp_path):
    records = [
        {"chosen": spoken("Hi", "Hello"), "rejected": spoken("Bye", "What?")},
        {"chosen": spoken("Hi", "Hello"), "rejected": spoken("Hi", "Hello")},
        {"chosen": spoken("Hi", "Hello"), "rejected": spoken("Hi", "Hello", "Hm")},
        {"chosen": spoken("Hi", ""), "rejected": spoken("Hi", "What?")},
        {"chosen": "Hello", "rejected": "What?"},
        {"chosen": spoken("Hi", "Hello"), "rejected": None},
    ]
    assert left_out("hh", tmp_path, records) == {
        "chosen and rejected do not answer one prompt": 1,
        "chosen and rejected are the same": 1,
        "chosen or rejected is missing, or is no answer": 1,
        "an empty answer": 1,
        "not a pair of transcripts (chosen and rejected)": 2,
    }


# ------------------------------------------------------------------------------------------------------- UltraFeedback


def scored(*completions):
    return {"source": "sharegpt", "instruction": "Hi", "models": [], "completions": list(completions)}


SCORED = scored(
    completion("fair", 6.0, helpfulness="5"),
    completion("worst", 2.0, helpfulness="3"),
    completion("best", 8.5, helpfulness="1"),
    completion("unscored", None, helpfulness="N/A"),
)


def test_ultrafeedback_the_best_is_chosen_and_the_worst_rejected(tmp_path):
    same = scored(completion("a", 5.0), completion("b", 5.0))
    alone = scored(completion("a", 5.0), completion("b", None))
    rows, report = imported("ultrafeedback", lines(tmp_path / "data.jsonl", [SCORED, same, alone]))
    assert rows == [
        {
            "prompt": HI,
            "chosen": [assistant("best")],
            "rejected": [assistant("worst")],
            "chosen_model": "llama",
            "rejected_model": "llama",
            "chosen_score": 8.5,
            "rejected_score": 2.0,
        }
    ]
    assert report.dropped == {"no two completions of different score": [1, 2]}


def test_ultrafeedback_another_score_may_be_named(tmp_path):
    row = read("ultrafeedback", tmp_path, [SCORED], score_name="helpfulness")[0]
    assert (row["chosen"], row["rejected"]) == ([assistant("fair")], [assistant("best")])
    without = scored(completion("a", None, helpfulness="4"), completion("b", None, helpfulness="2", honesty="1"))
    with pytest.raises(
        BadInput, match=r"No completion has a score `overall_score`\. There are: helpfulness \(1\), honesty \(1\)"
    ):
        read("ultrafeedback", tmp_path, [without])


def test_ultrafeedback_scores_are_thumbs_by_a_threshold_of_the_users(tmp_path):
    rows, report = imported("ultrafeedback", lines(tmp_path / "data.jsonl", [SCORED]), up_from=8, down_to=2)
    assert rows == [
        {"prompt": HI, "completion": [assistant("worst")], "label": False, "model": "llama", "score": 2.0},
        {"prompt": HI, "completion": [assistant("best")], "label": True, "model": "llama", "score": 8.5},
    ]
    assert report.dropped == {"a rating that means neither up nor down": [0], "no rating": [0]}
    only_ups, _ = imported("ultrafeedback", lines(tmp_path / "data.jsonl", [SCORED]), up_from=6)
    assert [row["label"] for row in only_ups] == [True, True]


def test_ultrafeedback_a_map_must_name_every_score(tmp_path):
    with pytest.raises(BadInput, match=r"Seen: 1 x 6, 1 x 2, 1 x 8\.5"):
        read("ultrafeedback", tmp_path, [SCORED], label_map={"8.5": "up", "2": "down"})
    rows = read("ultrafeedback", tmp_path, [SCORED], label_map={"8.5": "up", "2": "down", "6": "drop"})
    assert [row["label"] for row in rows] == [False, True]


def test_ultrafeedback_a_ten_beside_low_marks_was_a_one_and_is_left_out(tmp_path):
    """Its first version wrote 10 for a critic's 1 (issue 8 of OpenBMB/UltraFeedback)."""
    record = scored(
        completion("wrong ten", 10.0, helpfulness="1", honesty="2"),
        completion("ten", 10.0, helpfulness="5", honesty="4"),
        completion("fair", 6.0, helpfulness="3", honesty="3"),
    )
    rows, report = imported("ultrafeedback", lines(tmp_path / "data.jsonl", [record]))
    assert (rows[0]["chosen"], rows[0]["rejected"]) == ([assistant("ten")], [assistant("fair")])
    assert report.dropped == {"an overall score of 10 beside low marks in detail": [0]}
    rows = read("ultrafeedback", tmp_path, [record], up_from=8, down_to=2)
    assert [row["completion"] for row in rows] == [[assistant("ten")]]
    assert read("ultrafeedback", tmp_path, [record], score_name="honesty")[0]["rejected"] == [assistant("wrong ten")]


def test_ultrafeedback_distilabel_writes_lists(tmp_path):
    record = {
        "instruction": "Hi",
        "generations": ["Hello", "What?", "Hm"],
        "ratings": [5, 1, None],
        "generation_models": ["a", "b", "c"],
    }
    path = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist([record]), path)
    rows, _ = imported("ultrafeedback", path)
    extras = {"chosen_model": "a", "rejected_model": "b", "chosen_score": 5, "rejected_score": 1}
    assert rows == [PAIR | extras]


# --------------------------------------------------------------------------------------------------------------- table


def written(path, *rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def test_table_columns_are_named_and_a_csv_number_is_a_number(tmp_path):
    path = written(
        tmp_path / "t.csv",
        ["question", "answer", "verdict", "when", "who"],
        ["Hi", "Hello", "1", "2026-01-01", "ann"],
        ["Hi", "What?", "-1", "", ""],
        ["Hi", "Unrated.", "", "", ""],
        ["Hi", "", "1", "", ""],
    )
    names = {
        "prompt": "question",
        "completion": "answer",
        "label": "verdict",
        "created_at": "when",
        "rater": "who",
    }
    rows, report = imported("table", path, column_map=names)
    assert rows == [
        {"prompt": "Hi", "completion": "Hello", "label": True, "created_at": "2026-01-01", "rater": "ann"},
        {"prompt": "Hi", "completion": "What?", "label": False},
    ]
    assert report.dropped == {"no rating": [2], "no completion": [3]}


def test_table_pairs_and_columns_that_change_places(tmp_path):
    path = written(tmp_path / "t.tsv", ["prompt\tchosen\trejected"], ["Hi\tHello\tWhat?"])
    assert imported("table", path)[0] == [{"prompt": "Hi", "chosen": "Hello", "rejected": "What?"}]
    turned, _ = imported("table", path, column_map={"chosen": "rejected", "rejected": "chosen"})
    assert turned == [{"prompt": "Hi", "chosen": "What?", "rejected": "Hello"}]


def test_table_cells_with_messages_are_messages_and_other_json_stays_text(tmp_path):
    path = written(
        tmp_path / "t.csv",
        ["prompt", "completion", "label"],
        [json.dumps([*HI, *HELLO, user("Why?")]), json.dumps(WHAT), "false"],
        ["As JSON?", '{"a": [1, 2]}', "true"],
        ["A list?", "[1, 2]", "true"],
    )
    assert imported("table", path)[0] == [
        {"prompt": [*HI, *HELLO, user("Why?")], "completion": WHAT, "label": False},
        {"prompt": "As JSON?", "completion": '{"a": [1, 2]}', "label": True},
        {"prompt": "A list?", "completion": "[1, 2]", "label": True},
    ]


def test_table_rows_are_messages_where_any_part_of_them_is(tmp_path):
    rows = [
        {"prompt": "Hi", "chosen": HELLO, "rejected": WHAT},
        {"prompt": "Hi", "chosen": [*HI, *HELLO], "rejected": [*HI, *WHAT]},
        {"prompt": None, "chosen": [*HI, *HELLO], "rejected": [*HI, *WHAT]},
        {"prompt": HI, "chosen": "Hello", "rejected": "What?"},
    ]
    assert read("table", tmp_path, rows) == [PAIR] * 4
    rows = [{"prompt": "Hi", "completion": WHAT, "label": 0}, {"prompt": HI, "completion": "Hello", "label": 1}]
    assert read("table", tmp_path, rows) == [
        {"prompt": HI, "completion": WHAT, "label": False},
        {"prompt": HI, "completion": HELLO, "label": True},
    ]
    assert left_out("table", tmp_path, [{"chosen": "Hello", "rejected": "What?"}]) == {
        "chosen and rejected do not answer one prompt": 1
    }


def test_table_messages_and_label_are_split_before_the_answer(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(
        pa.Table.from_pylist([{"messages": [*HI, *WHAT], "rating": -1}, {"messages": HI, "rating": 1}]), path
    )
    rows, report = imported("table", path)
    assert rows == [{"prompt": HI, "completion": WHAT, "label": False}]
    assert report.dropped == {"no completion": [1]}


def test_table_without_the_columns_says_which_flag_names_them(tmp_path):
    path = written(tmp_path / "t.csv", ["question", "good", "bad"], ["Hi", "Hello", "What?"])
    with pytest.raises(BadInput, match="--map prompt=question chosen=good rejected=bad"):
        imported("table", path)
    with pytest.raises(BadInput, match="--map prompt=query: no row has a column `query`"):
        imported("table", path, column_map={"prompt": "query"})
    names = {"prompt": "question", "chosen": "good", "rejected": "bad", "rater": "who"}
    with pytest.raises(BadInput, match=r"--map rater=who: no such column\. There are: question, good, bad"):
        imported("table", path, column_map=names)


def test_table_scales_and_words_are_asked_for(tmp_path):
    stars = ["5", "1", "3"]
    path = written(tmp_path / "t.csv", ["prompt", "completion", "label"], *(["Hi", f"A{n}", n] for n in stars))
    with pytest.raises(BadInput, match=r"Values 5, 3 in 2 rows.*Seen: 1 x 5, 1 x 1, 1 x 3.*--up_from NUMBER"):
        imported("table", path)
    rows, _ = imported("table", path, up_from=4, down_to=2)
    assert [row["label"] for row in rows] == [True, False]
    path = written(tmp_path / "t.csv", ["prompt", "completion", "label"], ["Hi", "A", "yes"], ["Hi", "B", "no"])
    with pytest.raises(BadInput, match="Seen: 1 x yes, 1 x no"):
        imported("table", path)
    labels = (["Hi", f"A{n}", n] for n in ("1", "0", "-1"))
    path = written(tmp_path / "t.csv", ["prompt", "completion", "label"], *labels)
    with pytest.raises(BadInput, match="hold both 0 and -1"):
        imported("table", path)


# ----------------------------------------------------------------------------------------------------------------- all

OF_ROWS = ("openai", "llamafactory", "axolotl", "ms-swift", "hh", "ultrafeedback", "langfuse", "gradio", "argilla")


@pytest.mark.parametrize("name", OF_ROWS)
def test_another_product_s_file_is_refused_and_named(tmp_path, name):
    path = lines(tmp_path / "data.jsonl", [{"city": "Paris", "population": 2}] * 3)
    with pytest.raises(BadInput, match=r"city|hold no|No record"):
        imported(name, path)


def test_what_train_reads_as_it_is_belongs_to_no_product():
    """TRL's own types must never be taken for an export of something else."""
    own = [
        {"prompt": "Hi", "chosen": "Hello", "rejected": "What?"},
        {"prompt": HI, "chosen": HELLO, "rejected": WHAT},
        {"chosen": [*HI, *HELLO], "rejected": [*HI, *WHAT]},
        {"prompt": "Hi", "completion": "Hello", "label": True},
        {"prompt": HI, "completion": HELLO, "label": False},
    ]
    for record in own:
        assert [name for name in SOURCES if SOURCES[name].matches(record, None)] == []


RANKED = {"prompt": "Hi", "answers": [{"answer": "Hello", "rank": 1}, {"answer": "What?", "rank": 2}]}
CALLED = [*said("Hi"), {"from": "function_call", "value": '{"name": "f", "arguments": {}}'}, *said("?", "Hello")[1:]]
SHAPES = {
    "openai": [openai()],
    "llamafactory": [
        {"conversations": said("Hi"), "chosen": said("", "Hello")[1], "rejected": said("", "What?")[1], "tools": "[]"},
        {"instruction": "Hi", "input": "", "history": [["a", "b"]], "chosen": "Hello", "rejected": "What?"},
        {"conversations": CALLED, "kto_tag": True},
    ],
    "axolotl": [*FORMATS.values(), RANKED, {"completion": [*HI, *WHAT], "label": False}],
    "ms-swift": [
        {"messages": [*HI, *HELLO], "rejected_messages": [*HI, *WHAT]},
        {"query": "Hi", "response": "Hello", "history": [["a", "b"]], "rejected_response": "What?"},
        {"conversation": [{"human": "Hi", "assistant": "Hello"}], "rejected_response": "What?"},
    ],
    "hh": [{"chosen": spoken("Hi", "Hello"), "rejected": spoken("Hi", "What?")}],
    "ultrafeedback": [SCORED, {"instruction": "Hi", "generations": ["Hello", "What?"], "ratings": [5, 1]}],
    "table": [PAIR, {"messages": [*HI, *WHAT], "label": 1}, {"prompt": "Hi", "completion": "Hello", "label": 1}],
}
ODD = st.sampled_from(
    [..., [HI], {"role": "user"}, "[1]", '{"a": 1}', '[{"role": "user"}]', {"id": [1], "kwargs": {}}]
)


@pytest.mark.parametrize("name", SHAPES)
@given(seed=st.integers(0, 10**9), part=JSON | ODD)
@settings(QUICK, max_examples=100)
def test_any_part_of_a_record_replaced_is_counted_or_said_and_never_a_traceback(name, seed, part):
    choose = random.Random(seed)
    way = choose.choice(list(places(SHAPES[name])))
    options = choose.choice([Options(), Options(up_from=3, down_to=2), Options(label_map={"1": "up"})])
    with folder() as path:
        file = lines(path / "data.jsonl", changed(SHAPES[name], way, part))
        try:
            rows = list(import_rows(name, [file], options)[0])
        except BadInput:
            return
    assert all("chosen" in row or isinstance(row["label"], bool) for row in rows)


def test_a_winner_that_is_named_by_its_model_is_not_one_side_in_every_row(tmp_path):
    battle = {
        "prompt": "Hi",
        "response_a": "Yes",
        "response_b": "No",
        "model_a": "m1",
        "model_b": "m2",
        "winner": "m1",
    }
    swapped = battle | {"model_a": "m2", "model_b": "m1"}
    options = Options(
        {"m1": "first", "m2": "second"}, {"first": "response_a", "second": "response_b"}, winner="winner"
    )
    path = tmp_path / "battles.jsonl"
    path.write_text(json.dumps(battle) + "\n" + json.dumps(battle | {"winner": "m2"}) + "\n")
    assert [row["chosen"] for row in import_rows("table", [path], options)[0]] == ["Yes", "No"]
    path.write_text(json.dumps(battle) + "\n" + json.dumps(swapped) + "\n")
    numbers = [
        battle | {"winner": "1", "turns": "1", "votes": "3"},
        battle | {"winner": "1", "turns": "2", "votes": "1"},
    ]
    path.with_name("numbers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in numbers))
    by_number = Options({"1": "first", "2": "second"}, options.column_map, winner="winner")  # a number stands anywhere
    rows = import_rows("table", [path.with_name("numbers.jsonl")], by_number)[0]
    assert [row["chosen"] for row in rows] == ["Yes", "Yes"]
    with pytest.raises(BadInput, match="'m1' stands in `model_a` in earlier rows and in `model_b` in row 1"):
        list(import_rows("table", [path], options)[0])
