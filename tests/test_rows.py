"""Raw rows become checked rows: every shape that is read, and every row that is left out, counted by number."""

import json
import re

import datasets
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from trl import extract_prompt

from bnf_align.data.check import shared_prompt
from bnf_align.data.ledger import balance
from bnf_align.data.rows import preference_rows, split_by_prompt
from bnf_align.records import BadInput
from rows import assistant, user


def pair(prompt="p", chosen="a", rejected="b"):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def single(prompt="p", completion="a", label=True):
    return {"prompt": prompt, "completion": completion, "label": label}


def check(rows, **options):
    return preference_rows(rows, source="data", **options)


def test_pairs_and_single_answers_may_stand_in_one_source_with_their_row_numbers():
    rows, report = check([pair(), single(), single(completion="c", label=False)])
    assert rows == [{"row": 0, **pair()}, {"row": 1, **single()}, {"row": 2, **single(completion="c", label=False)}]
    assert (report.rows, report.pairs, report.ups, report.downs) == (3, 1, 1, 1)
    assert not report.dropped


def test_an_arrow_source_fills_absent_columns_with_none_and_is_read_alike():
    raw = [pair(), single(), single(completion="c", label=False)]
    names = ("prompt", "chosen", "rejected", "completion", "label")
    dataset = datasets.Dataset.from_dict({name: [row.get(name) for row in raw] for name in names})
    assert check(dataset)[0] == check(raw)[0]


def test_the_source_rows_are_left_as_they_were():
    raw = [{"messages": [{"role": "bot", "content": "q", "name": None}, assistant("a")], "rating": 1}]
    check(raw, role_map={"bot": "user"})
    assert raw == [{"messages": [{"role": "bot", "content": "q", "name": None}, assistant("a")], "rating": 1}]


def test_a_prompt_inside_chosen_and_rejected_is_taken_out_in_messages_and_in_text():
    chat = {"chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]}
    text = {"chosen": "Q: 1+1? A: 2", "rejected": "Q: 1+1? A: 3"}
    rows, report = check([chat, text])
    assert rows[0] == {"row": 0, **pair([user("q")], [assistant("a")], [assistant("b")])}
    assert rows[1] == {"row": 1, **pair("Q: 1+1? A:", " 2", " 3")}
    assert report.notes == ["there is no `prompt`: it is read from what chosen and rejected begin with: 2 rows (0, 1)"]


WORDS = st.text("ab ", min_size=1, max_size=6)


def split(chosen, rejected):
    at = shared_prompt(None, chosen, rejected)
    return {"prompt": chosen[:at], "chosen": chosen[at:], "rejected": rejected[at:]}


@given(WORDS, WORDS)
def test_a_prompt_inside_conversations_ends_where_trl_ends_it(chosen, rejected):
    assume(chosen[0] == rejected[0] and chosen != rejected)  # of others TRL makes nonsense
    chosen, rejected = ([{"role": "assistant", "content": letter} for letter in text] for text in (chosen, rejected))
    assert split(chosen, rejected) == extract_prompt({"chosen": chosen, "rejected": rejected})


@given(st.text("ab ?:\n", max_size=6), st.sampled_from(["Q: x? ", "x:\n", "问：四？"]), WORDS, WORDS)
def test_a_prompt_inside_texts_ends_where_trl_ends_it_or_before_the_word(more, start, chosen, rejected):
    chosen, rejected = start + more + chosen, start + more + rejected
    assume(chosen != rejected)
    ours, theirs = split(chosen, rejected), extract_prompt({"chosen": chosen, "rejected": rejected})
    assert theirs["prompt"].startswith(ours["prompt"])
    between = theirs["prompt"][len(ours["prompt"]) :]
    assert not set(between.strip()) & set(" \n：？")
    assert not any(ours[side][:1].strip() and ours["prompt"][-1:].isalnum() for side in ("chosen", "rejected"))


def test_words_that_two_answers_begin_with_are_no_prompt():
    raw = [
        {"chosen": "Six.", "rejected": "Seven."},
        {"chosen": "It is four.", "rejected": "It is five."},
        {"chosen": "Sure. Pi is 3.14", "rejected": "Sure. Pi is 3.15"},
        {"chosen": "Q: Pi? A: 3.14", "rejected": "Q: Pi? A: 3.15"},
    ]
    rows, report = check(raw)
    assert rows == [{"row": 3, **pair("Q: Pi? A:", " 3.14", " 3.15")}]
    assert report.dropped == {"no `prompt`": [0, 1, 2]}


def test_no_prompt_is_guessed_where_another_column_may_be_it():
    turns = [
        {"from": "user", "value": "2+2?"},
        {"from": "gpt", "value": "Let me see."},
        {"from": "human", "value": "Go"},
    ]
    raw = [{"task": "Math", "trajectory": turns, "chosen": "Six.", "rejected": "Seven.", "parent_id": "0"}]
    with pytest.raises(BadInput, match=r"no `prompt`, and `trajectory` may be it. .*--map prompt=trajectory, or take"):
        check(raw)
    rows, report = check(raw, column_map={"prompt": "trajectory"})
    prompt = [user("2+2?"), assistant("Let me see."), user("Go")]
    assert rows == [{"row": 0, **pair(prompt, [assistant("Six.")], [assistant("Seven.")])}]
    assert report.warnings == []
    with pytest.raises(BadInput, match=r"`question` may be it"):
        check([{"question": "How many?", "chosen": "Q: a", "rejected": "Q: b"}])
    conversation = {"chosen": [user("How many?"), assistant("6")], "rejected": [user("How many?"), assistant("7")]}
    assert check([{"question": "How many?", **conversation}])[0][0]["prompt"] == [user("How many?")]


def test_a_column_that_looks_like_part_of_the_conversation_is_never_left_unread_in_silence():
    said = "column `{}` looks like part of the conversation and is not read. Read it with --map {}={}, or take it out"
    for name, ours, value in [
        ("system_prompt", "system", "Be brief."),
        ("history", "prompt", "We talked before."),
        ("turns", "prompt", [{"role": "user", "content": "before"}]),
        ("asked", "prompt", '[{"role": "user", "content": "before"}]'),
    ]:
        _, report = check([pair() | {name: value}])
        assert report.warnings == [said.format(name, ours, name)]
    copies = {
        "question": "What is it?",
        "messages": [user("What is it?"), assistant("a")],
        "user": "u-17",
        "source": "s t",
    }
    assert check([pair("Well: What is it?") | copies])[1].warnings == []
    assert check([pair() | {"system_prompt": "Be brief."}], column_map={"system": "system_prompt"})[0][0][
        "prompt"
    ] == [
        {"role": "system", "content": "Be brief."},
        user("p"),
    ]


SYSTEM = {"role": "system", "content": "Be a pirate."}


def test_a_system_column_becomes_the_system_message_of_every_kind_of_row():
    raw = [
        pair() | {"system": "Be a pirate."},
        single([user("q")], [assistant("a")]) | {"system": "Be a pirate."},
        {"messages": [user("q"), assistant("b")], "label": False, "system": "Be a pirate."},
        {"chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")], "system": "Be a pirate."},
        pair("r") | {"system": ""},
        single([SYSTEM, user("q")], [assistant("c")]) | {"system": "Be a pirate."},
        single([SYSTEM, user("q")], [assistant("d")]) | {"system": "Be a parrot."},
    ]
    rows, report = check(raw)
    assert [row["prompt"] for row in rows[:4]] == [[SYSTEM, user("p")], *[[SYSTEM, user("q")]] * 3]
    assert rows[0]["chosen"] == [assistant("a")]
    assert rows[4] == {"row": 4, **pair([user("r")], [assistant("a")], [assistant("b")])}
    assert rows[5]["prompt"] == rows[6]["prompt"] == [SYSTEM, user("q")]
    assert "column `system` is read as the system message: 4 rows (0, 1, 2, ...)" in report.notes
    assert report.warnings == [
        "column `system` is not used where the conversation has another system message: 1 row (6)"
    ]


def test_an_empty_system_column_leaves_plain_text_as_it_is():
    assert check([pair() | {"system": ""}, pair("q") | {"system": None}])[0][0] == {"row": 0, **pair()}


def test_messages_as_json_or_python_text_are_read_as_messages():
    raw = [
        {name: json.dumps(value) for name, value in pair([user("q")], [assistant("a")], [assistant("b")]).items()},
        pair(str([user("q")]), str([assistant("c")]), json.dumps(assistant("d"))),
    ]
    rows, report = check(raw)
    assert rows[0] == {"row": 0, **pair([user("q")], [assistant("a")], [assistant("b")])}
    assert rows[1] == {"row": 1, **pair([user("q")], [assistant("c")], [assistant("d")])}
    assert report.notes == ["messages that stand there as text, read as messages: 2 rows (0, 1)"]
    texts = pair('[{"role": "user"', '{"role": 1, "a": [}', "[role] from")
    assert check([texts])[0] == [{"row": 0, **texts}]


def test_one_message_where_a_list_is_meant_is_a_list_of_one():
    rows, report = check([pair("2+2?", assistant("4"), assistant("5"))])
    assert rows == [{"row": 0, **pair([user("2+2?")], [assistant("4")], [assistant("5")])}]
    assert report.notes[0] == "a message where a list of them is meant, read as a list of one: 1 row (0)"


def test_a_text_beside_messages_is_a_turn_of_its_own_and_said():
    rows, report = check([pair("q", [assistant("a")], [assistant("b")]), single([user("q")], "c")])
    assert rows[0] == {"row": 0, **pair([user("q")], [assistant("a")], [assistant("b")])}
    assert rows[1] == {"row": 1, **single([user("q")], [assistant("c")])}
    assert report.notes == [
        "a text beside messages, read as a turn: a prompt as the user's, an answer as the assistant's: 2 rows (0, 1)"
    ]


def test_empty_picture_columns_are_no_pictures():
    empty = {"images": [], "videos": [None], "audio": "", "image": None}
    assert check([pair() | empty, single() | {"images": [[]]}])[1].pairs == 1
    with pytest.raises(BadInput, match=r"column `images`: only text is supported"):
        check([pair() | empty, pair("q") | {"images": ["x.png"]}])


def test_names_in_capitals_are_known_for_the_guess():
    raw = [{"Prompt": "p", "Completion ": "a", "Label": True}]
    with pytest.raises(BadInput, match=r"--map prompt=Prompt completion=Completion  label=Label"):
        check(raw)


def test_gaps_of_pandas_and_lists_of_numpy_are_read_as_what_they_are():
    chat = single(np.array([user("q")]), np.array([assistant("a")]))
    rows, report = check([chat, single(completion=float("nan")), single(label=float("nan")), single(np.nan)])
    assert rows == [{"row": 0, **single([user("q")], [assistant("a")])}]
    assert report.dropped == {"no `completion`": [1], "no `prompt`": [3], "no label": [2]}
    tool = {"type": "function", "function": {"name": "f"}}
    gaps = {"system": np.nan, "tools": np.nan, "chat_template_kwargs": np.nan, "images": np.array([], dtype=object)}
    rows, _ = check([single() | gaps, single() | gaps | {"tools": np.array([tool])}])
    assert rows == [{"row": 0, **single()}, {"row": 1, **single(), "tools": [tool]}]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"train": [], "test": []}, r"data: a dict of train, test is given where rows are wanted.*rows\['train'\]"),
        (datasets.DatasetDict(test=datasets.Dataset.from_list([single()])), r"DatasetDict of test .*set\['test'\]"),
        (pd.DataFrame([single()]), r"a table of pandas is given where rows are wanted: give .*to_dict\('records'\)"),
        ("rows.jsonl", r"data, row 0: a row is a dict of columns, not str: 'r'"),
    ],
)  # fmt: skip
def test_what_holds_rows_and_is_none_says_how_to_get_at_them(rows, message):
    with pytest.raises(BadInput, match=message):
        check(rows)
    with pytest.raises(BadInput, match=message.replace("data", "the rows", 1) if message[:4] == "data" else message):
        split_by_prompt(rows, 0.5)


def test_a_plain_copy_of_the_prompt_beside_whole_conversations_gives_way_to_them():
    """UltraFeedback's shape."""
    chosen, rejected = [user("q"), assistant("a")], [user("q"), assistant("b")]
    assert check([pair("q", chosen, rejected)])[0] == [{"row": 0, **pair([user("q")], chosen[1:], rejected[1:])}]


def test_answers_without_a_common_prompt_are_dropped_even_where_the_first_ends_in_a_space():
    _, report = check([{"chosen": "yes ", "rejected": "no"}, {"chosen": "x: a", "rejected": "x: b"}])
    assert report.dropped == {"no `prompt`": [0]}


def test_the_last_assistant_turn_of_messages_is_the_completion():
    messages = [user("q"), assistant("a"), user("r"), assistant("b"), user("thanks")]
    rows, _ = check([{"messages": messages, "label": True}])
    assert rows == [{"row": 0, **single(messages[:3], [assistant("b")])}]


def test_a_message_keeps_the_order_of_its_keys():
    """Files that are written from rows, and what is found by their hash, follow from it."""
    turns = [{"content": "q", "role": "user"}, {"content": "a", "role": "assistant"}]
    rows, _ = preference_rows([{"messages": turns, "label": True}], source="x")
    assert [list(turn) for turn in (*rows[0]["prompt"], *rows[0]["completion"])] == [["content", "role"]] * 2


def test_messages_without_an_assistant_turn_or_anything_before_it_are_dropped():
    only_user, only_assistant = {"messages": [user("q")], "label": True}, {"messages": [assistant("a")], "label": True}
    _, report = check([only_user, only_assistant, single()])
    assert report.dropped == {"no assistant turn in `messages`": [0], "no `prompt`": [1]}


def test_a_rating_is_read_as_the_label_and_said():
    raw = [{"prompt": "p", "completion": "a", "rating": 1}, {"prompt": "p", "completion": "b", "rating": -1}]
    rows, report = check(raw)
    assert [row["label"] for row in rows] == [True, False]
    assert report.notes == [
        "column `rating` is read as the label",
        "label: 1 x 1 read as up, 1 x -1 read as down; another meaning? --label_map",
    ]


def test_a_map_renames_columns_and_may_swap_them():
    raw = [{"question": "p", "good": "a", "bad": "b"}]
    assert check(raw, column_map={"prompt": "question", "chosen": "good", "rejected": "bad"})[0] == [
        {"row": 0, **pair()}
    ]
    swapped = check([pair()], column_map={"chosen": "rejected", "rejected": "chosen"})[0]
    assert swapped == [{"row": 0, **pair(chosen="b", rejected="a")}]


def test_a_map_names_what_it_cannot_find():
    with pytest.raises(
        BadInput, match=r"--map prompt=query: no row has a column `query`. I see: prompt, chosen, rejected"
    ):
        check([pair()], column_map={"prompt": "query"})
    with pytest.raises(BadInput, match=r"--map answer=chosen: there is no column `answer` here"):
        check([pair()], column_map={"answer": "chosen"})


def test_tools_and_template_arguments_are_kept_as_objects():
    tools = [{"type": "function", "function": {"name": "f"}}]
    raw = {**single([user("q")], [assistant("a")]), "tools": '[{"type": "function", "function": {"name": "f"}}]'}
    rows, _ = check([{**raw, "chat_template_kwargs": {"enable_thinking": False}}, {**raw, "tools": None}])
    assert rows[0]["tools"] == tools
    assert rows[0]["chat_template_kwargs"] == {"enable_thinking": False}
    assert "tools" not in rows[1]
    with pytest.raises(BadInput, match=r"row 0: `tools` is text but not JSON"):
        check([{**raw, "tools": "[{"}])


def test_a_tool_call_is_an_answer_though_it_has_no_text():
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    rows, _ = check([single([user("q")], [call])])
    assert rows[0]["completion"] == [{key: value for key, value in call.items() if key != "content"}]


def test_content_in_parts_is_joined_and_said_and_pictures_are_refused():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    rows, report = check([single([user(parts)], [assistant("c")])])
    assert rows[0]["prompt"] == [user("ab")]
    assert report.notes == ["message contents in several parts, joined to one text: 1 row (0)"]
    several = single([user(parts), user(parts)], [assistant(parts)])
    assert check([several])[1].notes == ["message contents in several parts, joined to one text: 1 row (0)"]
    with pytest.raises(BadInput, match=r"row 0, prompt: a message content holds image_url: only text"):
        check([single([user([{"type": "image_url", "image_url": "x"}])], [assistant("c")])])
    with pytest.raises(BadInput, match=r"column `images`: only text is supported"):
        check([{**pair(), "images": ["x.png"]}])


def test_majority_keeps_the_more_frequent_label_and_a_tie_loses_both():
    votes = [single(label=label) for label in (True, True, False)]
    tie = [single("q", label=label) for label in (True, False)]
    rows, report = check([*votes, *tie, single("r", label=False)], conflicting_labels="majority")
    assert [row["row"] for row in rows] == [0, 1, 5]
    assert report.dropped == {"the same answer is labelled both up and down": [2, 3, 4]}
    kept, report = check([*votes, *tie], conflicting_labels="keep")
    assert len(kept) == 5
    assert "2 answers carry both labels (3 ups, 2 downs): kept" in report.warnings[0]
    with pytest.raises(BadInput, match=r"--conflicting_labels first: known are drop, keep and majority"):
        check(votes, conflicting_labels="first")


def test_the_same_answer_to_another_prompt_or_with_other_tools_is_no_conflict():
    chat = single([user("q")], [assistant("a")])
    rows, _ = check([chat, {**chat, "label": False, "tools": [{"name": "f"}]}, single(), single("q", label=False)])
    assert len(rows) == 4


def test_exact_repeats_are_counted_and_kept():
    rows, report = check([single(), single(), single(), single(label=False, completion="b")])
    assert len(rows) == 4
    assert report.warnings == ["an earlier row is repeated word for word, and so counts twice: 2 rows (1, 2)"]


def test_few_downs_among_many_ups_are_pointed_out():
    _, report = check([*(single(completion=f"a{i}") for i in range(21)), single(completion="b", label=False)])
    assert balance(report).text == "21 ups against 1 down: the rarer label has little say in the mean of a step"
    _, report = check([*(single(completion=f"a{i}") for i in range(20)), single(completion="b", label=False)])
    assert balance(report) is None


def test_a_row_that_no_tokenizer_can_read_is_dropped_and_counted():
    rows, report = check([single(completion="\ud83d"), single()])
    assert [row["row"] for row in rows] == [1]
    assert report.dropped == {"half a character (a lone surrogate), which no tokenizer reads": [0]}


def test_an_answer_that_is_neither_text_nor_messages_is_named():
    with pytest.raises(BadInput, match=r"Row 1: `chosen` is neither text nor a list of messages, but int: 7"):
        check([pair(), pair(chosen=7)])
    with pytest.raises(BadInput, match=r"row 0, chosen: a message needs `role` and `content`, .* keys who, said"):
        check([pair([user("q")], [{"who": "gpt", "said": "a"}], [assistant("b")])])


def rows_of(prompts):
    return [single(prompt, f"{prompt} {n}", label=n == 0) for prompt in prompts for n in range(3)]


def test_all_rows_of_a_prompt_land_on_one_side_whatever_else_is_in_the_file():
    few, many = rows_of(range(100)), rows_of(range(300))
    few, many = ([{**row, "prompt": str(row["prompt"])} for row in rows] for rows in (few, many))
    train, held_out = split_by_prompt(few, 0.2)
    prompts = [{row["prompt"] for row in side} for side in (train, held_out)]
    assert not prompts[0] & prompts[1]
    assert len(train) + len(held_out) == 300
    assert 10 <= len(prompts[1]) <= 30
    assert prompts[1] == {row["prompt"] for row in split_by_prompt(many, 0.2)[1]} & {str(n) for n in range(100)}
    assert prompts[1] == {row["prompt"] for row in split_by_prompt(few[::-1], 0.2)[1]}
    assert prompts[1] != {row["prompt"] for row in split_by_prompt(few, 0.2, seed=1)[1]}


def test_split_rows_keep_their_number_in_the_source():
    raw = [{"messages": [user(str(i // 2)), assistant(f"a{i}")], "label": i % 2} for i in range(60)]
    train, held_out = split_by_prompt(raw, 0.3)
    rows = sorted(check(train)[0] + check(held_out)[0], key=lambda row: row["row"])
    assert [row["completion"][0]["content"] for row in rows] == [f"a{i}" for i in range(60)]
    assert [row["row"] for row in rows] == list(range(60))
    assert all((a["row"] ^ 1) in {b["row"] for b in train} for a in train)


def test_raw_pairs_are_split_by_their_mapped_or_implicit_prompt():
    mapped = [{"q": str(i // 2), "chosen": f"a{i}", "rejected": f"b{i}"} for i in range(60)]
    train, _ = split_by_prompt(mapped, 0.3, column_map={"prompt": "q"})
    assert all((a["row"] ^ 1) in {b["row"] for b in train} for a in train)
    assert 20 < len(train) < 60
    chats = [
        {name: [user(str(i // 2)), assistant(f"{name}{i}")] for name in ("chosen", "rejected")} for i in range(60)
    ]
    train, _ = split_by_prompt(chats, 0.3)
    assert all((a["row"] ^ 1) in {b["row"] for b in train} for a in train)
    assert 20 < len(train) < 60


@pytest.mark.parametrize("fraction", [-0.1, 1.5, float("nan"), float("inf")])
def test_a_fraction_that_is_no_share_is_refused(fraction):
    with pytest.raises(BadInput, match=rf"--eval_fraction {fraction} is no share of the prompts: it goes from 0 to 1"):
        split_by_prompt(rows_of("abc"), fraction)


def test_a_fraction_that_leaves_a_side_empty_is_refused_and_none_holds_nothing_out():
    assert split_by_prompt([single()], 0.0) == ([{"row": 0, **single()}], [])
    with pytest.raises(
        BadInput,
        match=r"--eval_fraction 0.01 leaves no evaluation rows: 3 rows with 1 different prompt, .* Take more prompts",
    ):
        split_by_prompt([single(), single(), single()], 0.01)


@pytest.mark.parametrize(
    "beside",
    [{"chosen_score": 1, "rejected_score": 5}, {"score_chosen": 2.5, "score_rejected": 2.6}, {"winner": "rejected"}],
)
def test_what_stands_beside_a_pair_and_speaks_for_its_rejected_answer_is_said(beside):
    agreeing = {"chosen_score": 5, "rejected_score": 5, "score_chosen": 3, "score_rejected": 2, "winner": "chosen"}
    rows, report = check([pair() | agreeing, pair("q") | beside, pair("r") | dict.fromkeys(beside)])
    assert len(rows) == 3
    assert [warning for warning in report.warnings if "swapped" in warning] == [
        "chosen has the lower score of the two, or another column says that rejected won; are the sides swapped?: "
        "1 row (1)"
    ]


def test_no_prompt_is_made_up_for_a_row_where_others_have_one():
    raw = [{"prompt": None, "chosen": "Sure!\nIt is six", "rejected": "Sure!\nIt is seven"}, pair()]
    rows, report = check(raw)
    assert [row["row"] for row in rows] == [1]
    assert report.dropped == {"no `prompt`": [0]}


@pytest.mark.parametrize("winner", ["winner", "preference_strength", "Overall_Preference"])
def test_an_answer_is_not_taken_for_the_better_one_beside_a_winner_that_is_not_read(winner):
    raw = [{"prompt": "Hi", "response_a": "Yes", "response_b": "No", winner: "model_b"}]
    with pytest.raises(
        BadInput, match=rf"import table FILE --map first=response_a second=response_b --winner {winner}"
    ):
        check(raw, column_map={"chosen": "response_a", "rejected": "response_b"})
    with pytest.raises(BadInput, match=f"If `{winner}` says which of two answers won: .*--winner {winner}"):
        check(raw)


def test_scores_beside_swapped_columns_speak_for_the_side_that_the_map_gives_them():
    swap = {"chosen": "rejected", "rejected": "chosen"}
    for scores, swapped in (((1, 9), False), ((9, 1), True)):
        raw = [pair() | dict(zip(("chosen_score", "rejected_score"), scores, strict=True))]
        for column_map, said in (({}, not swapped), (swap, swapped), ({"rejected": "third"}, False)):
            _, report = check([raw[0] | {"third": "neither"}], column_map=column_map)
            assert any("are the sides swapped" in warning for warning in report.warnings) is said


def test_a_rating_beside_a_label_and_a_system_text_in_capitals_are_said():
    _, report = check([single() | {"rating": -1}])
    assert "column `rating` is not read, since there is a `label`" in report.notes
    _, report = check([pair() | {"System": "You are a pirate."}])
    assert any("--map system=System" in warning for warning in report.warnings)


def test_pairs_that_stand_the_other_way_round_in_another_row_are_said():
    chat = [{"role": "user", "content": "p"}]
    yes, no = ([{"role": "assistant", "content": text}] for text in ("a", "b"))
    rows = [pair(), pair(chosen="b", rejected="a"), pair(chosen="b", rejected="c"), pair("q", "b", "a")]
    rows += [pair(chat, yes, no), pair(chat, no, yes) | {"tools": [{"name": "f"}]}]
    kept, report = check(rows)
    assert len(kept) == 6
    assert [warning for warning in report.warnings if "other way round" in warning] == [
        "another row has the same two answers the other way round, chosen and rejected, so they cancel each other: "
        "2 rows (0, 1)"
    ]


def test_a_share_that_leaves_one_side_empty_is_told_which_shares_do_not():
    rows = [pair(f"p{number}") for number in range(10)]
    with pytest.raises(BadInput, match=r"leaves no evaluation rows: 10 rows with 10 different prompts") as raised:
        split_by_prompt(rows, 1e-6)
    low, high = map(float, re.search(r"above (0\.\d+) and below (0\.\d+)", str(raised.value)).groups())
    assert len(split_by_prompt(rows, low + 0.001)[1]) == 1
    assert len(split_by_prompt(rows, high - 0.001)[0]) == 1


def test_an_answer_that_is_anothers_prompt_is_another_row():
    rows = [single("yes", "no", label=True), single("no", "yes", label=False)]
    rows += [pair("a", "b", "c"), pair("b", "a", "c"), pair("a", "c", "b") | {"prompt": "c"}]
    kept, report = check(rows)
    assert len(kept) == 5
    assert not report.dropped
    assert not report.warnings
