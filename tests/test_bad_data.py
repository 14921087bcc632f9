"""What people bring and what they are told: one test per kind of bad data, on the message and on its numbers.

The messages say what was found, in how many rows and which first, why it matters, and the flag that mends it. Reading
writes nothing: each test also looks whether the folder holds what it held before.
"""

import json
import os
from pathlib import Path

import pytest

from bnf_align.data.doctor import examine
from bnf_align.data.read import iter_rows
from bnf_align.data.rows import preference_rows
from bnf_align.records import BadInput
from rows import assistant, pair, single, user
from tiny_models import byte_tokenizer, chatml_tokenizer, gemma_tokenizer, plain_tokenizer


@pytest.fixture
def doctor(tmp_path):
    """Examine rows in a file; nothing beside the file may appear."""

    def examined(rows, tokenizer=None, **options):
        path = tmp_path / "data.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        before = path.read_bytes()
        result = examine(path, tokenizer=tokenizer, **options)
        assert os.listdir(tmp_path) == ["data.jsonl"]
        assert path.read_bytes() == before
        return result

    return examined


def refused(result, *parts):
    assert result.status == 2
    for part in parts:
        assert part in result.error


def test_columns_under_other_names_are_guessed_and_the_flag_is_given(doctor):
    refused(
        doctor([{"question": "q", "good": "a", "bad": "b"}]),
        "No preference columns found. I see: question, good, bad.",
        "--map prompt=question chosen=good rejected=bad",
    )
    refused(
        doctor([{"prompt": "q", "answer": "a", "thumbs": 1}]),
        "I see: prompt, answer, thumbs.",
        "--map completion=answer label=thumbs",
    )
    refused(doctor([{"a": "q", "b": "x"}]), "I see: a, b.", "--map prompt=COLUMN completion=COLUMN label=COLUMN")


def test_a_prompt_with_chosen_alone_lacks_rejected(doctor):
    refused(
        doctor([{"prompt": "q", "chosen": "a"}]),
        "I see: prompt, chosen.",
        "A pair needs `rejected` too",
        "--map rejected=COLUMN",
    )
    refused(doctor([{"prompt": "q", "completion": "a"}]), "Single answers need `label` too", "--map label=COLUMN")


def test_openai_dpo_is_read_from_a_file_and_elsewhere_named_with_what_reads_it(doctor):
    outputs = {"preferred_output": [assistant("a")], "non_preferred_output": [assistant("b")]}
    row = {"input": {"messages": [user("q")]}, **outputs}
    result = doctor([row])
    assert result.report.pairs == 1
    assert result.report.notes == ["read as OpenAI's DPO format (`openai`); rows are numbered as it gives them"]
    assert result.format.startswith("OpenAI's DPO format (JSON Lines, ")
    message = (
        "rows: This looks like OpenAI's DPO format. It is read from a file .* without --map, where its rows have "
    )
    with pytest.raises(BadInput, match=message + "input, preferred_output and non_preferred_output"):
        preference_rows([row], source="rows")
    refused(doctor([row], column_map={"prompt": "input"}), "from a file", "without --map")
    refused(doctor([outputs]), "OpenAI's DPO format", "Here they have preferred_output, non_preferred_output.")


def test_sharegpt_is_read_from_a_file_and_elsewhere_named_with_what_reads_it(doctor):
    row = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "kto_tag": True}
    result = doctor([row])
    assert (result.report.ups, result.report.downs) == (1, 0)
    assert result.format.startswith("LLaMA-Factory's format, ShareGPT or Alpaca (JSON Lines, ")
    message = (
        "This looks like the ShareGPT format. It is read from a file .* conversations with kto_tag, or with chosen"
    )
    with pytest.raises(BadInput, match=message):
        preference_rows([row], source="rows")
    tagged = {"conversations": row["conversations"], "label": False}
    assert doctor([tagged]).report.downs == 1
    refused(doctor([{"conversations": row["conversations"]}]), "ShareGPT format", "Here they have conversations.")


def test_messages_with_a_label_are_read(doctor):
    rows = [{"messages": [user("q"), assistant(text)], "label": text == "a"} for text in "ab"]
    result = doctor(rows)
    assert (result.status, result.report.ups, result.report.downs) == (0, 1, 1)


def test_a_rating_is_read_and_its_values_are_said(doctor):
    rows = [{"prompt": f"p{i}", "completion": "a", "rating": 1 if i < 4 else -1} for i in range(6)]
    result = doctor(rows)
    assert (result.report.ups, result.report.downs) == (4, 2)
    assert "column `rating` is read as the label" in result.report.notes
    both = doctor([{**row, "label": row["rating"] < 0} for row in rows])
    assert (both.report.ups, both.report.downs) == (2, 4)
    assert both.report.notes == ["column `rating` is not read, since there is a `label`"]
    assert "label: 4 x 1 read as up, 2 x -1 read as down; another meaning? --label_map" in result.report.notes


def test_labels_as_text_are_read_and_said_once(doctor):
    result = doctor([single(i, "true" if i else "False") for i in range(3)])
    assert (result.report.ups, result.report.downs) == (2, 1)
    assert result.report.notes == ["label: 2 x true read as up, 1 x False read as down; another meaning? --label_map"]


def test_rows_without_a_label_are_left_out_and_counted(doctor):
    result = doctor([single(i, None if i in (1, 3, 4, 5) else i % 2 == 0) for i in range(8)])
    assert result.status == 1
    assert result.report.dropped == {"no label": [1, 3, 4, 5]}
    assert "  left out 4 rows (1, 3, 4, ...): no label" in result.lines()
    assert (result.report.ups, result.report.downs) == (3, 1)


@pytest.mark.parametrize(
    ("labels", "seen"),
    [((0.1, 0.9, 0.9), "2 x 0.9, 1 x 0.1"), ((2, 1, 1), "2 x 1, 1 x 2"), (("good", "bad"), "1 x good, 1 x bad")],
)
def test_labels_of_no_certain_meaning_stop_with_every_value_counted(doctor, labels, seen):
    result = doctor([single(i, label) for i, label in enumerate(labels)])
    refused(result, f"Seen: {seen}.", "nothing is guessed", f"--label_map {labels[0]}=up|down|drop")
    scale = f"which goes from {min(labels)} to {max(labels)}: `bnf-align import table FILE --up_from NUMBER"
    assert (scale in result.error) == (labels[0] != "good")


def test_a_label_of_minus_one_is_a_down_and_zero_beside_it_stops(doctor):
    assert doctor([single(0, 1), single(1, -1)]).report.downs == 1
    refused(doctor([single(0, 1), single(1, -1), single(2, 0)]), "both 0 and -1", "--label_map 1=up -1=down 0=drop")


def test_only_ups_or_only_downs_is_a_warning(doctor):
    for label, word in ((True, "only ups"), (False, "only downs")):
        result = doctor([single(i, label) for i in range(3)])
        assert result.status == 1
        assert result.report.warnings[0].startswith(word)
    assert doctor([single(), pair()]).report.warnings == []


def test_an_answer_labelled_both_ways_is_dropped_by_default_and_the_choice_is_said(doctor):
    rows = [single(0, True), single(0, False), single(0, True), single(1), single(2, False)]
    result = doctor(rows)
    assert result.report.dropped == {"the same answer is labelled both up and down": [0, 1, 2]}
    assert result.report.notes == [
        "1 answer carries both labels (2 ups, 1 down): none of them is kept (--conflicting_labels drop|majority|keep)"
    ]
    assert doctor(rows, conflicting_labels="majority").report.ups == 3


def test_pairs_of_equal_answers_are_dropped_and_counted(doctor):
    result = doctor([pair(0), pair(1, rejected="a1"), pair(2, rejected="a2")])
    assert result.report.dropped == {"chosen and rejected are the same": [1, 2]}
    assert result.report.pairs == 1


def test_empty_answers_are_dropped_and_counted(doctor):
    chat = {"prompt": [user("q")], "completion": [assistant(" ")], "label": True}
    rows = [single(0, completion=""), pair(1, rejected=" \n"), chat, {**chat, "completion": []}, pair(4)]
    rows.append({"chosen": "", "rejected": "said"})
    assert doctor(rows).report.dropped == {"an empty answer": [0, 1, 2, 3, 5]}


def test_a_missing_side_is_dropped_and_counted(doctor):
    rows = [pair(0, rejected=None), pair(1), pair(2, chosen=None), single(3, completion=None), single(4, prompt=None)]
    assert doctor(rows).report.dropped == {
        "no `rejected`": [0],
        "no `chosen`": [2],
        "no `completion`": [3],
        "no `prompt`": [4],
    }


def test_prompts_longer_than_max_length_are_dropped_and_counted(doctor):
    rows = [single(i, i % 2 == 0, prompt="p" * (20 if i < 4 else 5)) for i in range(8)]
    result = doctor(rows, plain_tokenizer(), max_length=16)
    assert "  left out 4 rows (0, 1, 2, ...): prompts longer than max_length=16" in result.lines()
    assert (result.report.ups, result.report.downs) == (2, 2)


def test_when_every_prompt_is_too_long_the_shortest_and_a_length_that_works_are_named(doctor):
    rows = [single(i, i % 2 == 0, prompt="p" * (103 + i)) for i in range(4)]
    refused(
        doctor(rows, plain_tokenizer(), max_length=64),
        "every prompt is longer than max_length=64 (shortest 103 tokens)",
        "Try --max_length 128",
    )
    assert doctor(rows, plain_tokenizer(), max_length=128).status == 0


def test_cut_answers_are_counted_with_their_share_and_the_lengths(doctor):
    rows = [single(i, i % 2 == 0, completion="a" * (30 if i == 7 else 5 + i)) for i in range(16)]
    result = doctor(rows, plain_tokenizer(), max_length=24)
    assert result.report.cut == [7]
    assert result.report.warnings == [
        "6.2% of answers, in 1 row (7), are cut at max_length=24 and lose their end token, so the model is not taught "
        "to stop there (prompt and answer: p50 16, p95 26 tokens). Raise --max_length if memory allows"
    ]


def test_messages_without_a_chat_template_name_the_flag(doctor):
    row = {"prompt": [user("q")], "completion": [assistant("a")], "label": True}
    refused(
        doctor([single(), row], plain_tokenizer()),
        "holds messages in 1 row (1)",
        "has no chat template: is it a base model's?",
        "--chat_template_path",
    )


def test_plain_text_without_an_eos_token_names_the_flag(doctor):
    refused(
        doctor([single(), pair()], byte_tokenizer([])), "plain text in 2 rows (0, 1)", "no EOS token", "--eos_token"
    )


def test_a_text_prompt_with_answers_that_bring_other_turns_along_names_the_row(doctor):
    refused(
        doctor([single(), single(1, completion=[user("q"), assistant("a")])]),
        "row 1: `prompt` is text, `completion` is a message list. Make all of them the same",
    )
    refused(
        doctor([pair(0, chosen=[user("q"), assistant("a")], rejected=[user("r"), assistant("b")])]),
        "row 0: `prompt` is text, `chosen` is a message list, `rejected` is a message list.",
    )


def test_a_prompt_that_ends_with_an_assistant_turn_is_a_warning(doctor):
    rows = [{"prompt": [user("q"), assistant("so")], "completion": [assistant(t)], "label": t == "a"} for t in "ab"]
    result = doctor(rows, chatml_tokenizer())
    assert (
        "the prompt ends with an assistant turn, which the answer continues: 2 rows (0, 1)" in result.report.warnings
    )
    assert result.report.ups == 1


def test_an_unknown_role_is_counted_and_mapped_by_a_flag(doctor):
    rows = [
        {"prompt": [user("q")], "completion": [{"role": "bot", "content": f"a{i}"}], "label": i > 0} for i in range(4)
    ]
    refused(
        doctor(rows),
        "Unknown role 'bot' in 4 rows (0, 1, 2, ...); known: system, user, assistant, tool.",
        "--role_map bot=assistant",
    )
    assert doctor(rows, role_map={"bot": "assistant"}).report.ups == 3
    refused(doctor(rows, role_map={"bot": "robot"}), "--role_map bot=robot: `robot` is not a role")


def test_a_system_message_under_a_template_without_one_names_the_flag(doctor):
    system = {"role": "system", "content": "s"}
    rows = [{"prompt": [system, user(f"q{i}")], "completion": [assistant("a")], "label": i == 0} for i in range(2)]
    silent = gemma_tokenizer()
    silent.chat_template = "{% for m in messages if m.role != 'system' %}{{ m.content + '<end_of_turn>' }}{% endfor %}"
    for tokenizer in (gemma_tokenizer(), silent):
        refused(doctor(rows, tokenizer), "system messages in 2 rows (0, 1)", "--merge_system_prompt")
        assert doctor(rows, tokenizer, merge_system_prompt=True).error is None


def test_an_empty_source_and_one_without_a_usable_row_say_why(doctor):
    refused(doctor([]), "data.jsonl is empty: it has 0 rows")
    refused(
        doctor([pair(0, rejected="a0"), pair(1, rejected=None), pair(2, chosen="")]),
        "0 of 3 rows are usable.",
        "chosen and rejected are the same: 1 row (0)",
        "no `rejected`: 1 row (1)",
        "an empty answer: 1 row (2)",
    )


def test_every_row_is_either_kept_or_counted_under_one_reason(doctor):
    rows = [pair(0), single(1), pair(2, rejected="a2"), single(3, None), single(4, completion=""), single(5, False)]
    report = doctor([*rows, single(6, False, prompt="p" * 99)], plain_tokenizer(), max_length=20).report
    left_out = [row for numbers in report.dropped.values() for row in numbers]
    assert sorted(left_out) == [2, 3, 4, 6]
    assert report.pairs + report.ups + report.downs + len(left_out) == report.rows == 7


CASES = os.environ.get("BNF_ALIGN_CASES", "../shared/cases")
READ = {
    "empty_image_columns/images_empty_list": (1, 0, 0),
    "empty_image_columns/kto_images": (0, 1, 1),
    "json_text_messages/nested_json_strings": (1, 0, 0),
    "system_column/system_beside_messages": (0, 1, 1),
    "system_column/truthy_dpo": (2, 0, 0),
    "pretemplated_end_twice/pretemplated": (1, 0, 0),
    "small/chosen_is_object2": (1, 0, 0),
    "small/multi_content": (1, 0, 0),
    "small/nan_label": (0, 1, 1),
    "small/prompt_str_completion_list": (1, 0, 0),
}


@pytest.mark.skipif(not Path(CASES).is_dir(), reason="needs the inputs that fail: set BNF_ALIGN_CASES to their folder")
@pytest.mark.parametrize("name", READ)
def test_the_inputs_that_failed_are_read(name):
    result = examine(Path(CASES) / f"{name}.jsonl", tokenizer=chatml_tokenizer())
    assert result.error is None
    assert (result.report.pairs, result.report.ups, result.report.downs) == READ[name]


@pytest.mark.skipif(not Path(CASES).is_dir(), reason="needs the inputs that fail: set BNF_ALIGN_CASES to their folder")
def test_the_inputs_that_must_stop_say_why():
    cases = Path(CASES)
    refused(examine(cases / "implicit_prompt/no_prompt_plain.jsonl"), "0 of 2 rows are usable", "no `prompt`: 2 rows")
    pairs = cases / "implicit_prompt/ultrainteract_pair.jsonl"  # its columns are known, its rows alone are not
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    with pytest.raises(BadInput, match="--map prompt=trajectory"):
        preference_rows(rows, source="the rows")
    for column_map in (None, {"prompt": "trajectory"}):
        assert examine(pairs, column_map=column_map).report.pairs == 2
    refused(examine(cases / "small/capital_names.parquet"), "--map prompt=Prompt completion=Completion label=Label")
    tokenizer = byte_tokenizer(["<pad>", "<eos>", "<tool>", "</tool>"], eos_token="<eos>", pad_token="<pad>")
    beyond = examine(cases / "tokens_beyond_embedding/tooltok.jsonl", tokenizer=tokenizer, vocab_size=258)
    refused(beyond, "embedding has 258 rows, the tokenizer 260 tokens", "resize_token_embeddings")


PUBLIC = os.environ.get("BNF_ALIGN_DATA")


@pytest.mark.skipif(not PUBLIC, reason="needs the public data: set BNF_ALIGN_DATA to its folder")
@pytest.mark.parametrize(
    ("name", "rows", "counts", "empty"),
    [
        ("gsm8k_model_solutions.unpaired", 5276, (0, 2001, 3275), 0),
        ("gsm8k_model_solutions.pairs", 2426, (2426, 0, 0), 0),
        ("hh_rlhf_harmless_base_test", 2307, (2303, 0, 0), 4),
    ],
)
def test_the_public_preference_data_is_read_whole_with_its_labels(name, rows, counts, empty):
    raw = list(iter_rows(Path(PUBLIC) / "preference" / f"{name}.jsonl.gz"))
    checked, report = preference_rows(raw, source=name)
    assert len(raw) == report.rows == rows
    assert (report.pairs, report.ups, report.downs) == counts
    assert sum(map(len, report.dropped.values())) == empty
    for row in checked:
        for column in ("prompt", "chosen", "rejected", "completion", "label"):
            assert row.get(column) == raw[row["row"]].get(column)
    if "unpaired" in name:
        assert [row["label"] for row in checked] == [row["label"] for row in raw]
