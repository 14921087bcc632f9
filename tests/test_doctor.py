"""The doctor says what training would do, because it calls what training calls; and which rows have each finding."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnf_align.data.doctor import DoctorResult, examine
from bnf_align.data.doctor.result import page
from bnf_align.data.doctor.source import Source, Step, again
from bnf_align.data.ledger import balance
from bnf_align.data.read import iter_rows
from bnf_align.data.rows import preference_rows
from bnf_align.data.tokenize import tokenize_rows
from bnf_align.records import BadInput, DataReport
from bnf_align.sources.ratings import read_ratings
from bnf_align.stats import auc, wilson
from exports_chat import feedback, tree
from rows import assistant, pair, single, user
from tiny_models import byte_tokenizer, chatml_tokenizer, gemma_tokenizer, plain_tokenizer

GOOD = [{"prompt": "p", "completion": "a", "label": True}, {"prompt": "p", "completion": "b", "label": False}]
NOISE = random.Random(0)


def chat(question, answer, label=True, before=()):
    return {"prompt": [*before, user(question)], "completion": [assistant(answer)], "label": label}


def found(result) -> dict[str, list[int]]:
    """Name -> rows of every finding."""
    return {finding.name: list(finding.rows) for finding in result.findings}


def finding(result, name):
    return next(finding for finding in result.findings if finding.name == name)


# Status, counts, agreement with training


def test_clean_rows_have_status_0(write):
    path = write(GOOD)
    result = examine(path, tokenizer=plain_tokenizer(), max_length=8)
    assert (result.status, result.error, result.findings) == (0, None, [])
    assert result.lines() == [
        f"{path}: 2 rows -> 0 pairs, 1 up, 1 down",
        "  JSON Lines, 101 bytes; single answers, in plain text",
        "  tokens of prompt and answer: p50 3, p95 3, max 3",
        "verdict: clean",
    ]


@pytest.mark.parametrize(
    ("rows", "max_length"),
    [
        (GOOD[:1], None),  # a warning: only ups
        ([*GOOD, {**GOOD[0], "completion": ""}], None),  # a row left out
        ([*GOOD, {**GOOD[0], "completion": "long answer"}], 5),  # a row cut
    ],
)
def test_warnings_dropped_rows_and_cut_rows_have_status_1(write, rows, max_length):
    result = examine(write(rows), tokenizer=plain_tokenizer(), max_length=max_length)
    assert result.status == 1
    assert result.lines()[-1] == "verdict: usable; look at what was found first"


def test_a_warning_that_no_finding_says_has_status_1_and_is_shown():
    result = DoctorResult(DataReport("export.json", warnings=["half of it is missing"]))
    assert result.status == 1
    assert "  warning: half of it is missing" in result.lines()


def test_unusable_sources_have_status_2_and_the_reason(write):
    result = examine(write([{"question": "q", "good": "a", "bad": "b"}]))
    assert result.status == 2
    assert "--map prompt=question chosen=good rejected=bad" in result.lines()[0]
    assert result.as_dict()["error"] == result.error
    assert examine("nowhere.jsonl").status == 2
    system = {"prompt": [{"role": "system", "content": "s"}], "completion": [assistant("a")]}
    assert "--merge_system_prompt" in examine(write([{**system, "label": True}]), tokenizer=gemma_tokenizer()).error


def test_the_flags_that_mend_a_source_mend_it_here_too(write):
    path = write([{"question": "q", "good": "a", "bad": "b"}])
    assert examine(path, column_map={"prompt": "question", "chosen": "good", "rejected": "bad"}).report.pairs == 1


def test_the_numbers_are_those_of_training(write):
    path = write(
        [*GOOD, {**GOOD[0], "label": None}, {**GOOD[0], "prompt": "p" * 9}, {**GOOD[1], "completion": "bbbbbbb"}]
    )
    rows, report = preference_rows(iter_rows(path), source=str(path))
    tokenize_rows(rows, plain_tokenizer(), report, max_length=8)
    assert examine(path, tokenizer=plain_tokenizer(), max_length=8).report == report


SIDE = st.sampled_from(["a", "b", "", "aa aa", "é", [assistant("a")], [assistant("")], [user("q"), assistant("a")]])
ASKED = st.sampled_from(["p", "", [user("q")], [user("q"), assistant("a")], [{"role": "system", "content": "s"}]])
LABEL = st.sampled_from([True, False, None, 1, 0, "true"])
RAW = st.fixed_dictionaries({"prompt": ASKED, "completion": SIDE, "label": LABEL}) | st.fixed_dictionaries(
    {"prompt": ASKED, "chosen": SIDE, "rejected": SIDE}
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(RAW, max_size=12), rule=st.sampled_from(["drop", "keep", "majority"]), tokens=st.booleans())
def test_a_streamed_source_gets_the_report_that_training_gives_it(tmp_path, rows, rule, tokens):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = chatml_tokenizer() if tokens else None
    result = examine(path, conflicting_labels=rule, tokenizer=tokenizer, max_length=60)
    try:
        checked, report = preference_rows(iter_rows(path), source=str(path), conflicting_labels=rule)
        if tokenizer:
            tokenize_rows(checked, tokenizer, report, max_length=60)
        if found := balance(report):
            found.say(report)
        expected = (None, report)
    except BadInput as error:
        expected = (str(error), result.report)
    assert (result.error, result.report) == expected


def test_a_source_that_changes_between_two_readings_is_named():
    steps = [Step(n, {}, {"row": n}) for n in range(3)]
    assert [side for _, side in again(iter([*steps, Step(3, {}, None)]), [0, 1, 2], "log.jsonl")] == [0, 1, 2, -1]
    for sides in ([0, 1], [0, 1, 2, 2]):
        with pytest.raises(BadInput, match=r"log.jsonl was changed while it was read"):
            list(again(iter(steps), sides, "log.jsonl"))


def test_rows_that_are_added_while_the_source_is_read_wait_for_the_next_time(write):
    path = write([single(0), single(1, False)])
    source = Source(str(path))
    source.survey(DataReport(""))
    write([single(0), single(1, False), single(2)])
    assert [step.number for step in source.steps(DataReport(""), "")] == [0, 1]


def test_a_list_and_lines_of_the_same_rows_are_found_alike(write, tmp_path):
    rows = [*GOOD, *GOOD[:1], single(1, completion=""), pair(3)]
    lines = examine(write(rows))
    (tmp_path / "rows.json").write_text(json.dumps({"data": rows}, indent=1))
    listed = examine(tmp_path / "rows.json")
    assert found(lines) == found(listed) == {"empty_answer": [3], "repeats": [2]}
    assert (
        listed.format
        == f"JSON, {(tmp_path / 'rows.json').stat().st_size} bytes; pairs and single answers, in plain text"
    )


def test_json_holds_every_row_number(write):
    path = write([*GOOD, *({**GOOD[0], "completion": ""} for _ in range(9))])
    result = json.loads(json.dumps(examine(path).as_dict()))
    assert result["status"] == 1
    assert result["dropped"] == {"an empty answer": 9}
    assert result["reasons"] == {"an empty answer": {"code": "empty_answer", "parameters": {}}}
    assert result["dropped_rows"] == {"an empty answer": [2, 3, 4, 5, 6, 7, 8, 9, 10]}
    assert result["findings"][0]["name"] == "empty_answer"
    assert result["findings"][0]["rows"] == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert result["columns"] == ["prompt", "completion", "label"]


# One test per finding, each with a control


def test_rows_left_out_are_findings_with_their_names_and_rows(write):
    rows = [pair(0), pair(1, rejected="a1"), pair(2, chosen=" "), single(3, None), single(4), single(4, False)]
    rows += [{"messages": [user("q")], "label": True}, single(7, completion="\ud83d"), pair(8, rejected=None)]
    assert found(examine(write(rows))) == {
        "equal_answers": [1],
        "empty_answer": [2],
        "no_answer": [6],
        "half_character": [7],
        "missing_column": [8],
        "no_label": [3],
        "both_labels": [4, 5],
    }
    assert found(examine(write([pair(0), single(1), single(2, False)]))) == {}


def test_answers_with_both_labels_are_a_warning_where_they_are_kept(write):
    rows = [single(0), single(1), single(0, False)]
    result = examine(write(rows), conflicting_labels="keep")
    assert found(result) == {"both_labels": [0, 2]}
    assert result.status == 1


def test_repeated_rows_are_found_but_for_the_first_of_them(write):
    rows = [single(0), single(1), single(0), pair(2), single(0), pair(2), single(3, False), chat("q", "a", False)]
    assert found(examine(write(rows))) == {"repeats": [2, 4, 5]}
    assert found(examine(write([single(0), single(1, False), single(0, prompt="p9"), pair(2), pair(3)]))) == {}


def test_a_letter_that_moves_from_prompt_to_answer_makes_another_row(write):
    rows = [single(0, prompt="p", completion="ab"), single(0, False, prompt="pa", completion="b")]
    rows += [pair(1, chosen="a", rejected="bc"), pair(1, chosen="ab", rejected="c")]
    assert found(examine(write(rows))) == {}


def test_rows_that_differ_in_tools_alone_are_no_repeats(write):
    rows = [chat("q", "a"), {**chat("q", "a"), "tools": [{"name": "f"}]}, chat("q", "b", False)]
    assert found(examine(write(rows))) == {}


def test_empty_prompts_and_prompts_that_end_with_an_answer_are_found(write):
    rows = [single(0, prompt=" "), single(1, False), chat("q", "a"), chat("q", "a", False)]
    rows[3]["prompt"].append(assistant("so"))
    result = examine(write(rows))
    assert found(result) == {"continued_prompt": [3], "empty_prompt": [0]}
    assert "the prompt is empty: 1 row (0)" in result.report.warnings


ANSWER = "".join(NOISE.choices("abcdefgh ", k=40))


def test_near_identical_pairs_are_counted_with_their_share_and_distance(write):
    near = [ANSWER[:20] + "X" + ANSWER[21:], "X" + ANSWER, ANSWER[:-3] + "XYZ", ANSWER[:-4]]
    rows = [pair(n, chosen=ANSWER, rejected=rejected) for n, rejected in enumerate(near)]
    rows.append(pair(4, chosen=ANSWER, rejected=ANSWER[:-5] + "VWXYZ"))  # an eighth of it
    result = examine(write(rows))
    assert found(result)["near_identical"] == [0, 1, 2, 3]
    assert finding(result, "near_identical").figures == {
        "share": 0.8,
        "pairs": 5,
        "edits_p50": 2.0,
        "edits_max": 4,
        "one_edit": 2,
    }
    assert (finding(result, "near_identical").level, result.status) == ("warning", 1)
    assert "80.0% of pairs are near-identical" in finding(result, "near_identical").text


def test_few_near_identical_pairs_among_many_are_a_note(write):
    rows = [pair(n) for n in range(19)] + [pair(19, chosen=ANSWER, rejected=ANSWER[:-1])]
    result = examine(write(rows))
    assert (found(result), result.status) == ({"near_identical": [19]}, 0)
    assert found(examine(write(rows[:19]))) == {}


def test_with_a_tokenizer_the_distance_is_in_scored_tokens(write):
    """One merged token in 20 is another: 1 edit of 21 with the end token, though 2 of 40 characters differ."""
    tokenizer = byte_tokenizer(["<eos>"], merges=(("a", "b"), ("c", "d")), eos_token="<eos>")
    rows = [pair(0, chosen="ab" * 20, rejected="ab" * 10 + "cd" + "ab" * 9)]
    assert finding(examine(write(rows), tokenizer=tokenizer), "near_identical").figures["edits_p50"] == 1
    assert finding(examine(write(rows)), "near_identical").figures["edits_p50"] == 2


def test_what_answers_share_with_their_prompt_makes_them_no_nearer(write):
    rows = [pair(n, prompt="p" * 200) for n in range(2)]
    result = examine(write(rows), tokenizer=plain_tokenizer())
    assert found(result) == {}
    assert result.lengths["prompts"]["max"] == 200
    assert result.lengths["ups"]["max"] == 3  # a0 and the end token


def test_pairs_that_are_left_out_are_not_compared(write):
    rows = [pair(0, prompt="\ud83d", chosen=ANSWER, rejected=ANSWER[:-1]), pair(1)]
    assert found(examine(write(rows))) == {"half_character": [0]}


def test_under_a_tokenizer_lengths_are_told_apart_too_and_rows_left_out_say_nothing(write):
    rows = [chat("q", "a" * 10), chat("q", "b" * 20, False), single(2, None)]
    result = examine(write(rows), tokenizer=chatml_tokenizer())
    assert {side: result.lengths[side]["max"] for side in ("ups", "downs")} == {"ups": 11, "downs": 21}
    assert result.report.notes == []


def test_answers_of_many_thousand_characters_are_compared_in_their_beginnings(write):
    rows = [pair(0, chosen="a" * 200_000, rejected="a" * 100_000 + "b" * 100_000)]
    assert found(examine(write(rows)))["near_identical"] == [0]


@pytest.mark.parametrize(("longer", "share"), [(True, 1.0), (False, 0.0)])
def test_a_label_that_length_alone_tells_is_found_either_way(write, longer, share):
    rows = [single(n, n % 2 == 0, completion="a" * (20 if (n % 2 == 0) == longer else 10)) for n in range(40)]
    result = examine(write([{**row, "prompt": str(n)} for n, row in enumerate(rows)]))
    figures = finding(result, "length_tells_label").figures
    assert (figures["auc"], figures["n"]) == (share, 20)
    pairs = [pair(n, chosen="ab" * (9 if longer else 1), rejected="no ") for n in range(20)]
    assert finding(examine(write(pairs)), "length_tells_label").figures["auc"] == share


def test_small_files_and_lengths_that_say_little_are_not_accused(write):
    few = [single(n, n % 2 == 0, completion=str(n) + "a" * (20 if n % 2 == 0 else 10)) for n in range(6)]
    assert found(examine(write(few))) == {}
    lengths = NOISE.choices(range(5, 60), k=200)
    many = [single(n, n % 2 == 0, completion=str(n) + "a" * length) for n, length in enumerate(lengths)]
    assert found(examine(write(many))) == {}
    pairs = [pair(n, chosen="a" * (2 + n % 3), rejected="b" * (2 + n // 3 % 3)) for n in range(90)]
    assert found(examine(write(pairs))) == {}


def test_five_long_ups_among_many_downs_are_five_cases(write):
    rows = [single(n, n < 5, completion="a" * (20 if n < 5 else 10)) for n in range(65)]
    assert found(examine(write(rows))) == {"unbalanced": []}


def test_lengths_are_told_apart_by_prompts_ups_and_downs(write):
    rows = [pair(0, chosen="a" * 10, rejected="b" * 20), single(1, prompt="p" * 5, completion="a" * 12)]
    rows += [single(2, False, completion="b" * 40), single(3, None, completion="c" * 99)]
    assert examine(write(rows)).lengths == {
        "prompts": {"p5": 2, "p50": 2, "p95": 5, "max": 5},
        "ups": {"p5": 10, "p50": 11, "p95": 12, "max": 12},
        "downs": {"p5": 21, "p50": 30, "p95": 39, "max": 40},
    }


def test_the_area_and_its_interval_are_those_of_the_books():
    import numpy as np

    assert auc(np.array([1, 2, 3]), np.array([1, 2, 3])) == 0.5
    assert auc(np.array([2]), np.array([1, 3, 3, 2])) == (1 + 0.5) / 4
    # Newcombe (1998), table I: 81 of 263, and 0 of 20.
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_prompts_of_the_test_rows_are_found_whatever_their_case_spaces_and_form(write):
    rows = [
        single(0),
        single(1),
        single(2, False),
        chat("p3", "a3"),
        chat("p4", "a", before=[user("x"), assistant("y")]),
        single(7),
    ]
    test = [chat("P0", "z"), single(2, prompt=" p2\n"), single(3), single(4), single(9)]
    result = examine(write(rows), test=write(test, "test.jsonl"))
    assert found(result) == {"leak": [0, 2, 3]}
    assert finding(result, "leak").figures == {"prompts": 3, "share": 0.6}
    assert "3 of the 5 prompts" in finding(result, "leak").text
    assert found(examine(write(rows), test=write([single(5), single(9)], "test.jsonl"))) == {}


def test_a_row_that_is_left_out_leaks_nothing(write):
    rows = [single(0), single(1, False), single(2, None)]
    assert found(examine(write(rows), test=write([single(2)], "test.jsonl"))) == {"no_label": [2]}


def test_the_same_words_in_another_role_are_another_prompt(write):
    rows = [{**chat("q", "a"), "prompt": [{"role": "tool", "content": "q"}]}, single(1, False)]
    assert found(examine(write(rows), test=write([single(0, prompt="q")], "test.jsonl"))) == {}


def test_a_prompt_under_another_system_message_is_another(write):
    rows, other = [chat("q", "a"), chat("r", "b", False)], [{"role": "system", "content": "Answer in rhymes."}]
    assert found(examine(write(rows), test=write([chat("q", "c", before=other)], "test.jsonl"))) == {}


def test_the_splits_of_a_folder_are_compared(tmp_path):
    for name, rows in (("train", [single(0), single(1, False)]), ("test", [single(1), single(5)])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = examine(tmp_path, test_split="test")
    assert found(result) == {"leak": [1]}
    assert result.format == "a folder; single answers, in plain text"


def test_test_rows_that_cannot_be_read_are_named(write):
    assert "test.jsonl: No preference columns" in examine(write(GOOD), test=write([{"a": 1}], "test.jsonl")).error


def test_likely_personal_data_is_counted_in_rows_and_kinds_and_masked_in_examples(write):
    rows = [
        single(0, completion="write to ann@example.org"),
        single(1, False, completion="at 10:30 on 2024-01-02 it was 3.14159265358979"),
        single(2, None, prompt="left out: bob@example.org"),
        chat("Is 4111 1111 1111 1111 my card? eve@example.org", "Yes."),
        pair(4, chosen="call (212) 555-0123", rejected="no"),
    ]
    result = examine(write(rows))
    assert found(result) == {"no_label": [2], "personal_data": [0, 3, 4]}
    assert finding(result, "personal_data").figures == {"e-mail address": 2, "phone number": 1, "card number": 1}
    shown = json.dumps([finding.examples for finding in result.findings])
    assert "[e-mail]" in shown
    assert "[phone]" in shown
    for secret in ("ann@", "bob@", "eve@", "4111", "555-0123"):
        assert secret not in shown
    assert found(examine(write([*rows[1:2], single(9)]))) == {}


def test_keys_and_tokens_are_a_finding_of_their_own_and_never_shown(write, tmp_path):
    key, token = "AKIAIOSFODNN7EXAMPLE", "ghp_" + "a1B2" * 9
    rows = [
        single(0, completion=f"use {key}"),
        single(1, False, completion="x" * 4980 + f" {token}"),
        pair(2, chosen=f"{'same ' * 990}{token} a", rejected=f"{'same ' * 990}{token} b"),
        single(3, None, prompt=f"left out: {key}"),
        {**chat("q", "a"), "tools": f"[{token}"},
    ]
    result = examine(write(rows[:4]), fix=tmp_path / "clean.jsonl", redact=True)
    assert found(result)["secrets"] == [0, 1, 2]
    assert finding(result, "secrets").figures == {"AWS key": 1, "GitHub token": 2}
    assert finding(result, "secrets").level == "warning"
    written = "".join(path.read_text() for path in tmp_path.glob("clean*"))
    refused = examine(write(rows))
    assert "`tools` is text but not JSON" in refused.error
    for text in (*result.lines(), json.dumps(result.as_dict()), page(result), written, refused.error):
        assert key not in text
        assert token not in text
        assert token[:20] not in text


def test_cut_answers_and_prompts_too_long_are_found_under_a_tokenizer(write):
    rows = [*GOOD, single(2, completion="a" * 9), single(3, prompt="p" * 20), pair(4, rejected="b" * 30)]
    result = examine(write(rows), tokenizer=plain_tokenizer(), max_length=10)
    assert found(result) == {"prompt_too_long": [3], "cut": [2, 4]}
    assert found(examine(write(rows), tokenizer=plain_tokenizer(), max_length=40)) == {}


def test_a_template_without_an_end_and_prompts_that_change_before_their_answer_are_found(write):
    rows = [chat("q", "a"), chat("q", "b", False)]
    endless = chatml_tokenizer()
    endless.chat_template = "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}"
    assert found(examine(write(rows), tokenizer=endless)) == {"no_end": [0, 1], "context": [0, 1]}
    assert found(examine(write(rows), tokenizer=chatml_tokenizer())) == {}
    merging = byte_tokenizer(["<eos>"], merges=(("a", "b"),), eos_token="<eos>")
    plain = [single(0, prompt="xa", completion="bc"), single(1, False)]
    assert found(examine(write(plain), tokenizer=merging)) == {"not_a_prefix": [0]}


def test_one_sided_and_unbalanced_labels_are_found(write):
    assert found(examine(write([single(n) for n in range(3)]))) == {"one_sided": []}
    many = [single(n, n > 0) for n in range(22)]
    assert found(examine(write(many))) == {"unbalanced": []}
    assert found(examine(write(many[:21]))) == {}
    downs = [single(n, n < 2) for n in range(8)]  # three for each up, where BNF has collapsed
    (finding,) = examine(write(downs)).findings
    assert (finding.name, "select FILE --balance" in finding.text) == ("unbalanced", True)
    assert found(examine(write(downs[:7]))) == {}


def test_an_export_is_examined_as_the_rows_that_its_importer_gives(tmp_path):
    records = []
    for n, rating in enumerate((1, -1, 1, None)):
        messages = tree(
            (f"q{n}", None, "user", f"Why {n}?"), (f"a{n}", f"q{n}", "assistant", "" if n == 2 else f"So {n}.")
        )
        records.append(feedback(messages, f"a{n}", rating, number=n, chat_id=f"chat-{n}"))
    (tmp_path / "export.json").write_text(json.dumps(records))
    result = examine(tmp_path / "export.json", fix=tmp_path / "clean.jsonl")
    assert (result.error, result.report.ups, result.report.downs) == (None, 1, 1)
    assert any("openwebui" in note for note in result.report.notes)
    # The numbers of these are the export's own: they must show, and leave out, none of the rows.
    left_out = [finding for finding in result.findings if finding.level == "left out"]
    assert sum(len(finding.rows) for finding in left_out) == 2
    assert all(finding.name == "in_the_export" and not finding.examples for finding in left_out)
    assert [row["label"] for row in iter_rows(tmp_path / "clean.jsonl")] == [True, False]


def write_export(path, *ratings):
    turns = [(("q", None, "user", "Why?"), ("a", "q", "assistant", f"So {n}.")) for n in range(len(ratings))]
    records = [feedback(tree(*turns[n]), "a", rating, number=n, chat_id=f"c{n}") for n, rating in enumerate(ratings)]
    path.write_text(json.dumps(records))
    return path


def test_the_report_names_the_product_whose_export_it_is(tmp_path):
    result = examine(write_export(tmp_path / "export.json", 1, -1))
    size = (tmp_path / "export.json").stat().st_size / 1000
    assert result.lines()[1] == f"  an Open WebUI export (JSON, {size:.3g} kB); single answers, in messages"
    assert result.as_dict()["format"] == result.lines()[1].strip()
    assert examine(tmp_path).format == "an Open WebUI export (a folder); single answers, in messages"


def test_an_export_is_recognised_and_its_ratings_are_learnt_once(tmp_path, monkeypatch):
    from bnf_align.sources import merge

    learnt = []
    monkeypatch.setattr(merge, "read_ratings", lambda *a: learnt.append(1) or read_ratings(*a))
    examine(write_export(tmp_path / "export.json", 1, -1), fix=tmp_path / "clean.jsonl")
    assert len(learnt) == 1


def test_an_export_that_changes_between_two_readings_is_learnt_anew(tmp_path):
    source = Source(str(write_export(tmp_path / "export.json", 1, -1)))
    source.survey(DataReport(""))
    write_export(tmp_path / "export.json", -1, -1, 1, 1)
    assert [step.raw["label"].value for step in source.steps(DataReport(""), "")] == [False, False]


# Nothing that is read ends in a traceback

SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("\ud83d")
NAMES = ["prompt", "chosen", "rejected", "completion", "label", "messages", "tools", "chat_template_kwargs", "row"]
NAMES += ["role", "content", "type", "text", "tool_calls", "rating", "conversations", "from", "value", "images"]
VALUE = st.recursive(
    SCALAR | st.sampled_from(["user", "assistant", "system"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), inner),
    max_leaves=12,
)
EXTRAS = {"tools": VALUE, "chat_template_kwargs": st.dictionaries(st.sampled_from(["think", "return_tensors"]), VALUE)}
CHAT = st.fixed_dictionaries(
    {"prompt": st.just([user("q")]), "completion": st.just([assistant("a")]), "label": LABEL}, optional=EXTRAS
)
ROWS = st.lists(CHAT, max_size=3) | st.lists(
    st.dictionaries(st.sampled_from(NAMES[:9]), VALUE, max_size=5) | RAW | VALUE, max_size=6
)
KINDS = ("jsonl", "json", "jsonl.gz", "csv", "parquet")
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def examined(path, tokenizer=None):
    result = examine(path, tokenizer=tokenizer, fix=path.parent / "out" / "fixed.jsonl", redact=True)
    assert result.status in (0, 1, 2)
    assert result.lines()
    json.dumps(result.as_dict())
    return result


@QUICK
@given(rows=ROWS, lines=st.booleans(), tokens=st.booleans())
def test_any_json_ends_in_a_result(tmp_path, rows, lines, tokens):
    path = tmp_path / ("rows.jsonl" if lines else "rows.json")
    path.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows))
    examined(path, chatml_tokenizer() if tokens else None)


@QUICK
@given(
    content=st.binary(max_size=200), name=st.sampled_from(["a.jsonl", "a.json", "a.jsonl.gz", "a.csv", "a.parquet"])
)
def test_any_bytes_end_in_a_result(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    examined(tmp_path / name)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"prompt": ' * 5_000, '{"label": ' + "9" * 5_000 + "}", "\x00" * 99])
def test_deep_and_huge_values_end_in_a_result(tmp_path, text):
    for name in ("rows.jsonl", "rows.json"):
        (tmp_path / name).write_text(text)
        assert examined(Path(tmp_path / name)).status == 2


def test_a_row_nested_as_deep_as_json_allows_ends_in_a_result(write):
    deep: list = []
    for _ in range(900):
        deep = [deep]
    rows = [chat("q", "a"), {**chat("q", "b", False), "tools": [{"name": deep}]}]
    assert examine(write(rows)).error is None
    assert examined(write(rows)).status < 2 or "nested too deeply" in examined(write(rows)).error  # to mask it
    examined(write(rows), chatml_tokenizer())
    rows[1]["tools"] = "[" * 100_000
    assert "row 1: it is nested too deeply" in examined(write(rows)).error


def test_tools_that_are_no_objects_are_named(write):
    for tools in ([1], "[[1]]", [{"name": "f"}, "g"]):
        assert (
            "row 1: `tools` must be a list of objects"
            in examine(write([*GOOD[:1], {**chat("q", "a"), "tools": tools}])).error
        )
