"""Raw rows become checked rows: every shape that is read, and every row that is left out, counted by number."""

import datasets
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from trl import extract_prompt

from bnf_align.data.check import _with_prompt_extracted
from bnf_align.data.rows import preference_rows, remark_on_balance, split_by_prompt
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
    rows, _ = check([chat, text])
    assert rows[0] == {"row": 0, **pair([user("q")], [assistant("a")], [assistant("b")])}
    assert rows[1] == {"row": 1, **pair("Q: 1+1? A:", " 2", " 3")}


WORDS = st.text("ab ", min_size=1, max_size=6)


@given(WORDS, WORDS, st.booleans())
def test_a_prompt_inside_the_answers_ends_where_trl_ends_it(chosen, rejected, chat):
    pair = {"chosen": chosen, "rejected": rejected}
    if chat:
        pair = {name: [{"role": "assistant", "content": letter} for letter in text] for name, text in pair.items()}
    assume(chosen[0] == rejected[0] and chosen != rejected)  # of others TRL makes nonsense
    assert _with_prompt_extracted({"prompt": None, **pair}) == extract_prompt(pair)


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
    remark_on_balance(report)
    assert report.warnings == ["21 ups against 1 downs: the rarer label has little say in the mean of a step"]
    _, report = check([*(single(completion=f"a{i}") for i in range(20)), single(completion="b", label=False)])
    remark_on_balance(report)
    assert report.warnings == []


def test_a_row_that_no_tokenizer_can_read_is_dropped_and_counted():
    rows, report = check([single(completion="\ud83d"), single()])
    assert [row["row"] for row in rows] == [1]
    assert report.dropped == {"half a character (a lone surrogate), which no tokenizer reads": [0]}


def test_an_answer_that_is_neither_text_nor_messages_is_named():
    with pytest.raises(BadInput, match=r"Row 1: `chosen` is neither text nor a list of messages, but dict"):
        check([pair(), pair(chosen={"from": "gpt", "value": "a"})])
    with pytest.raises(BadInput, match=r"row 0, chosen: a message needs `role` and `content`, .* keys from, value"):
        check([pair([user("q")], [{"from": "gpt", "value": "a"}], [assistant("b")])])


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


def test_a_fraction_that_leaves_a_side_empty_is_refused_and_none_holds_nothing_out():
    assert split_by_prompt([single()], 0.0) == ([{"row": 0, **single()}], [])
    with pytest.raises(
        BadInput, match=r"--eval_fraction 0.01 leaves no evaluation rows: 3 rows have 1 different prompts"
    ):
        split_by_prompt([single(), single(), single()], 0.01)
