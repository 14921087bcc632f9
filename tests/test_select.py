"""From scores to preference rows: who is chosen, who is left out, and what the data card says of it."""

import itertools
import json
import math

import pytest

from bnf_align.construct.dataset import card_text, data_card, write_selection
from bnf_align.construct.select import Choice, select, similarity
from bnf_align.data.rows import preference_rows
from bnf_align.journal import read_jsonl
from bnf_align.records import BadInput


def row(name, scores, texts=None, prompt=None) -> dict:
    texts = texts or [f"answer {i} of {name} in its own words {'abcdefgh'[i]}" for i in range(len(scores))]
    return {
        "id": str(name),
        "prompt": prompt or f"prompt {name}",
        "candidates": [{"text": text} for text in texts],
        "duplicates": len(texts) - len(set(texts)),
        "scores": scores,
    }


def many(count=2000) -> list[dict]:
    """One up and one down each, with scores that differ from prompt to prompt."""
    return [row(i, [1 + i / count, -1 - i / count], [f"good {i}", f"bad {i} indeed"]) for i in range(count)]


# ------------------------------------------------------------------------------------------------------ pairs


def test_the_best_is_chosen_and_the_worst_rejected_and_of_equals_the_earlier_one():
    found = select([row("a", [0.5, 2.0, -1.0, 2.0, -1.0])], Choice()).rows
    texts = [one["text"] for one in row("a", [0] * 5)["candidates"]]
    assert found == [
        {
            "id": "a",
            "prompt": "prompt a",
            "chosen": texts[1],
            "rejected": texts[2],
            "chosen_score": 2.0,
            "rejected_score": -1.0,
        }
    ]


def test_a_conversation_gets_answers_of_an_assistant():
    chat = [{"role": "user", "content": "Hi"}]
    (found,) = select([row("a", [1, 0], ["yes", "no"], chat)], Choice()).rows
    assert found["prompt"] == chat
    assert found["chosen"] == [{"role": "assistant", "content": "yes"}]
    assert found["rejected"] == [{"role": "assistant", "content": "no"}]


def test_a_prompt_without_a_pair_is_left_out_for_its_reason():
    data = [
        row("ties", [1.0, 1.0, 1.0]),
        row("close", [1.0, 0.6]),
        row("same", [1.0, 0.0], ["word", "word"]),
        row("empty", [1.0, 0.0], ["word", "  "]),
        row("lone", [1.0, None]),
        row("none", [None, None]),
        row("kept", [1.0, None, 0.4]),
        row("exact", [1.0, 0.5]),
    ]
    found = select(data, Choice(margin=0.5))
    assert [one["id"] for one in found.rows] == ["kept"]
    assert found.dropped == {
        "all candidates score alike": ["ties"],
        "best and worst are within the margin": ["close", "exact"],
        "best and worst say the same": ["same"],
        "an empty answer": ["empty"],
        "fewer than two candidates with a score": ["lone", "none"],
    }
    with pytest.raises(BadInput, match=r"Nothing is left of 1 prompt: 1 for all candidates score alike"):
        select(data[:1], Choice())


def test_near_identical_pairs_are_kept_or_dropped_and_counted_either_way():
    words = [f"w{i}" for i in range(20)]
    near = [" ".join(words), " ".join([*words[:-1], "x"])]
    far = [" ".join(words), " ".join([*words[:-3], "x", "y", "z"])]
    assert similarity(*near) == pytest.approx(0.95)
    assert similarity(*far) == pytest.approx(0.85)
    data = [row("near", [1, 0], near), row("far", [1, 0], far)]
    kept, dropped = select(data, Choice()), select(data, Choice(near_identical="drop"))
    assert [one["id"] for one in kept.rows] == ["near", "far"]
    assert [one["id"] for one in dropped.rows] == ["far"]
    assert kept.near_identical == dropped.near_identical == 1
    assert dropped.dropped == {"chosen and rejected are near-identical": ["near"]}
    assert kept.similarities == pytest.approx([0.95, 0.85])
    assert "near-identical (0.9 or more): 1 pair." in card_text(data_card(data, kept, {}))
    assert "near-identical (0.9 or more), left out: 1 pair." in card_text(data_card(data, dropped, {}))


# ---------------------------------------------------------------------------------------------- pairing ratio


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 1.0])
def test_a_pairing_ratio_keeps_that_share_of_the_pairs_and_leaves_out_either_side_of_half_of_the_others(ratio):
    data = many()
    rows = select(data, Choice(pairing_ratio=ratio)).rows
    assert [one["id"] for one in rows] == [one["id"] for one in data]
    pairs = [one for one in rows if "chosen" in one]
    ups = sum(one.get("label") is True for one in rows)
    downs = sum(one.get("label") is False for one in rows)
    assert len(pairs) == ratio * len(data)
    assert ups == downs == (1 - ratio) * len(data) / 2
    for one in rows:
        if "label" in one:
            assert one["completion"].startswith("good" if one["label"] else "bad")
            assert (one["score"] > 0) is one["label"]


def test_a_pair_that_is_kept_at_a_low_ratio_is_kept_at_a_higher_one_and_sides_stay():
    found = {ratio: select(many(), Choice(pairing_ratio=ratio)).rows for ratio in (0.0, 0.25, 0.3335, 0.5, 1.0)}
    kept = {ratio: {one["id"] for one in rows if "chosen" in one} for ratio, rows in found.items()}
    assert kept[0.0] < kept[0.25] < kept[0.3335] < kept[0.5] < kept[1.0]
    labels = {ratio: {one["id"]: one["label"] for one in rows if "label" in one} for ratio, rows in found.items()}
    assert all(labels[0.0][name] is label for ratio in (0.25, 0.3335, 0.5) for name, label in labels[ratio].items())
    other = {one["id"] for one in select(many(), Choice(pairing_ratio=0.5, seed=1)).rows if "chosen" in one}
    assert 0.2 < len(other & kept[0.5]) / len(many()) < 0.3  # another seed draws anew
    turned = select(many()[::-1], Choice(pairing_ratio=0.5)).rows[::-1]
    assert turned == found[0.5]  # a pair's place in the file says nothing


def published(count=400) -> list[dict]:
    return [
        {
            "prompt_id": f"p{i}",
            "prompt": f"prompt {i // 2}",  # two pairs each
            "chosen": f"good {i}",
            "rejected": f"bad {i} indeed",
            "chosen_score": 8.5,
            "rejected_score": 2.0,
        }
        for i in range(count)
    ]


@pytest.mark.parametrize(("ratio", "whole"), [(0, 0), (0.25, 100), (0.5, 200), (1, 400)])
def test_a_published_set_of_pairs_gets_a_pairing_ratio_too(tmp_path, ratio, whole):
    out, data = tmp_path / "out.jsonl", published()
    card = write_selection(scored_file(tmp_path, data), out, Choice(pairing_ratio=ratio))
    rows = list(read_jsonl(out))
    assert [row["prompt_id"] for row in rows] == [row["prompt_id"] for row in data]
    assert [row for row in rows if "chosen" in row] == [
        pair for pair, row in zip(data, rows, strict=True) if "chosen" in row
    ]
    assert (card["pairs"], card["ups"], card["downs"]) == (whole, (400 - whole) // 2, (400 - whole) // 2)
    assert (card["prompts"], card["candidates"], card["left_out"]) == (200, 800, {})
    for pair, row in zip(data, rows, strict=True):
        if "label" in row:
            side, score = ("chosen", 8.5) if row["label"] else ("rejected", 2.0)
            about = {"prompt_id": pair["prompt_id"], "prompt": pair["prompt"], "score": score}
            assert row == {**about, "completion": pair[side], "label": row["label"]}
    _, report = preference_rows(rows, source="out")
    assert (report.pairs, report.ups + report.downs) == (whole, 400 - whole)


def test_the_draw_over_pairs_follows_from_the_seed_and_the_halves_are_no_pattern_of_the_file():
    def labels(seed):
        return [row["label"] for row in select(published(), Choice(pairing_ratio=0, seed=seed)).rows]

    assert labels(0) == labels(0) != labels(1)
    # Sides drawn without regard to the place: of 399 neighbours about half agree (four standard deviations).
    same = sum(a == b for a, b in itertools.pairwise(labels(0)))
    assert abs(same - 399 / 2) < 4 * math.sqrt(399) / 2


def test_pairs_of_messages_are_read_as_train_reads_them_and_what_it_leaves_out_is_counted(tmp_path):
    """UltraFeedback's shape: a plain prompt beside conversations that hold it, and a pair of equal answers."""

    def talk(answer):
        return [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer}]

    data = [{"prompt": "Hi", "chosen": talk("Hello"), "rejected": talk(worse)} for worse in ("What?", "Hello", " ")]
    data.append({"prompt": talk("")[:1], "completion": talk("Hey")[1:], "label": True, "id": 7})
    card = write_selection(scored_file(tmp_path, data), tmp_path / "out.jsonl", Choice(pairing_ratio=0))
    first, single = read_jsonl(tmp_path / "out.jsonl")
    assert first == {"prompt": talk("")[:1], "completion": talk("Hello")[1:], "label": True}
    assert single == data[3]  # a single answer stays as it is
    assert card["left_out"] == {"chosen and rejected are the same": 1, "an empty answer": 1}
    assert (card["pairs"], card["ups"], card["downs"]) == (0, 2, 0)
    assert "Scores of all candidates" not in card_text(card)


@pytest.mark.parametrize(
    ("settings", "flag"), [({"unpaired": True, "threshold": 0.5}, "--unpaired"), ({"margin": 0.5}, "--margin")]
)
def test_what_goes_by_scores_is_refused_for_pairs(settings, flag):
    with pytest.raises(BadInput, match=f"{flag} goes by the scores of candidates, and these rows are pairs"):
        select(published(4), Choice(**settings))


def test_near_identical_pairs_of_a_published_set_are_left_out_and_thumbs_balanced():
    data = [{"prompt": "p", "chosen": "a b c d e f g h i j k", "rejected": "a b c d e f g h i j x"}, *published(9)]
    found = select(data, Choice(near_identical="drop", pairing_ratio=0, balance=True))
    assert found.near_identical == 1
    assert [row["label"] for row in found.rows].count(True) == len(found.rows) / 2 == 4
    assert {reason: len(rows) for reason, rows in found.dropped.items()} == {
        "chosen and rejected are near-identical": 1,
        "left out to balance ups and downs": 1,
    }


# ----------------------------------------------------------------------------------------------------- thumbs


def test_a_threshold_makes_ups_from_it_on_and_downs_below():
    (first, second, third) = select([row("a", [0.4, 0.5, 0.6])], Choice(unpaired=True, threshold=0.5)).rows
    assert [one["label"] for one in (first, second, third)] == [False, True, True]
    assert [one["id"] for one in (first, second, third)] == ["a/0", "a/1", "a/2"]
    assert first.keys() == {"id", "prompt", "completion", "label", "score"}


@pytest.mark.parametrize(
    ("top", "bottom", "ups", "downs"),
    [(0.25, 0.25, [4.0], [1.0]), (0.5, 0.25, [3.0, 4.0], [1.0]), (0.0, 0.5, [], [1.0, 2.0]), (0.1, 0.0, [4.0], [])],
)
def test_the_top_and_the_bottom_share_are_counted_each_from_its_own_end(top, bottom, ups, downs):
    rows = select([row("a", [3.0, 1.0]), row("b", [2.0, 4.0])], Choice(unpaired=True, top=top, bottom=bottom)).rows
    assert sorted(one["score"] for one in rows if one["label"]) == ups
    assert sorted(one["score"] for one in rows if not one["label"]) == downs


def test_a_score_on_both_bounds_is_neither_up_nor_down():
    data = [row("a", [0.0, 1.0, 1.0, 1.0, 1.0, 2.0])]
    found = select(data, Choice(unpaired=True, top=0.5, bottom=0.5))
    assert [(one["score"], one["label"]) for one in found.rows] == [(0.0, False), (2.0, True)]
    assert len(found.dropped["a candidate between the bottom and the top"]) == 4


def test_thumbs_leave_out_what_has_no_score_says_nothing_or_was_said_before():
    data = [row("a", [1.0, None, 0.0, 1.0, 0.0], ["x", "y", " ", "x", "z"])]
    found = select(data, Choice(unpaired=True, threshold=0.5, repeats="drop"))
    assert [(one["id"], one["label"]) for one in found.rows] == [("a/0", True), ("a/4", False)]
    assert {reason: len(ids) for reason, ids in found.dropped.items()} == {
        "a candidate without a score": 1,
        "an empty answer": 1,
        "a candidate that says what an earlier one does": 1,
    }


def test_balance_leaves_out_the_more_frequent_kind_at_random():
    data = [row(i, [1.0, 1.0, 1.0, 0.0]) for i in range(300)]
    found = select(data, Choice(unpaired=True, threshold=0.5, balance=True))
    ups = [one for one in found.rows if one["label"]]
    assert len(ups) == len(found.rows) - len(ups) == 300
    assert len(found.dropped["left out to balance ups and downs"]) == 600
    again = select(data, Choice(unpaired=True, threshold=0.5, balance=True))
    other = select(data, Choice(unpaired=True, threshold=0.5, balance=True, seed=1))
    assert again.rows == found.rows != other.rows
    sides = [one["id"][-1] for one in ups]
    assert all(abs(sides.count(side) - 100) < 40 for side in "012")
    masked = select(many(400), Choice(pairing_ratio=0.5, balance=True)).rows
    assert sum(one.get("label") is True for one in masked) == sum(one.get("label") is False for one in masked) > 50


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unpaired": True}, "needs one way"),
        ({"unpaired": True, "threshold": 1.0, "top": 0.1, "bottom": 0.1}, "needs one way"),
        ({"unpaired": True, "top": 0.1}, "needs one way"),
        ({"unpaired": True, "threshold": 1.0, "top": 0.1}, "needs one way"),
        ({"unpaired": True, "top": 0.6, "bottom": 0.6}, "more than all"),
        ({"pairing_ratio": 1.5}, "--pairing-ratio 1.5"),
        ({"margin": -0.1}, "--margin"),
        ({"margin": math.nan}, "--margin nan"),
        ({"unpaired": True, "threshold": math.nan}, "--threshold nan"),
        ({"threshold": 0.5}, "--threshold is for --unpaired"),
        ({"unpaired": True, "threshold": 0.5, "pairing_ratio": 0.5}, "--pairing-ratio is for pairs"),
        ({"near_identical": "hide"}, "keep or drop"),
    ],
)
def test_a_choice_that_contradicts_itself_is_refused(settings, message):
    with pytest.raises(BadInput, match=message):
        Choice(**settings)


# ---------------------------------------------------------------------------------------------------- on disk


def scored_file(folder, rows):
    path = folder / "scored.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def test_a_selection_is_split_by_prompt_and_read_by_train(tmp_path):
    out = tmp_path / "set.jsonl"
    card = write_selection(scored_file(tmp_path, many(400)), out, Choice(pairing_ratio=0.5), 0.25)
    train, test = (list(read_jsonl(tmp_path / name)) for name in ("set.jsonl", "set.test.jsonl"))
    assert len(train) + len(test) == 400
    assert card["test_rows"] == len(test)
    assert 60 < len(test) < 140
    assert not {one["prompt"] for one in train} & {one["prompt"] for one in test}
    assert all("row" not in one for one in train)
    _, report = preference_rows(read_jsonl(out), source=str(out))
    assert (report.pairs, report.ups, report.downs) == tuple(
        sum(test(one) for one in train)
        for test in (
            lambda one: "chosen" in one,
            lambda one: one.get("label") is True,
            lambda one: one.get("label") is False,
        )
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "scored.jsonl",
        "set.jsonl",
        "set.jsonl.card.json",
        "set.jsonl.card.md",
        "set.test.jsonl",
    ]
    with pytest.raises(BadInput, match="--test-fraction"):
        write_selection(scored_file(tmp_path, many(2)[:1]), out, Choice(), 0.5)


def test_rows_without_scores_are_refused(tmp_path):
    data = many(3)
    del data[1]["scores"]
    data[2]["scores"] = [1.0]
    data += [row("text", ["1", "0"]), row("nan", [1.0, math.nan]), {**row("one", [1.0]), "scores": 1.0}]
    data += [row("more than a float holds", [0.0, 10**400])]
    with pytest.raises(BadInput, match=r"6 rows \(1, 2, 3, \.\.\.\) without one score per candidate"):
        write_selection(scored_file(tmp_path, data), tmp_path / "out.jsonl", Choice())


def test_rows_go_into_a_file_of_lines_and_not_over_their_scores(tmp_path):
    scored = scored_file(tmp_path, many(3))
    before = scored.read_bytes()
    with pytest.raises(BadInput, match="Nothing is changed in place"):
        write_selection(scored, tmp_path / "." / "scored.jsonl", Choice())
    assert scored.read_bytes() == before
    for name in ("out.csv", "out.jsonl.gz", "out"):
        with pytest.raises(BadInput, match="JSON Lines"):
            write_selection(scored, tmp_path / name, Choice())


def test_test_rows_of_an_earlier_selection_do_not_stay_beside_rows_that_may_hold_their_prompts(tmp_path):
    out, test = tmp_path / "set.jsonl", tmp_path / "set.test.jsonl"
    write_selection(scored_file(tmp_path, many(40)), out, Choice(), 0.25)
    assert test.exists()
    write_selection(scored_file(tmp_path, many(40)), out, Choice())
    assert not test.exists()
    assert len(list(read_jsonl(out))) == 40
    test.write_text("somebody's own\n")
    write_selection(scored_file(tmp_path, many(40)), out, Choice())
    assert test.read_text() == "somebody's own\n"


@pytest.mark.parametrize(
    ("scorer", "warned"),
    [({"scorer": "pairrm:m"}, True), ({"scorer": "judge:j", "pairs": True}, True), ({"scorer": "armorm:m"}, False)],
)
def test_a_card_says_what_scored_and_scores_within_prompts_are_said_where_thumbs_compare_between_them(
    tmp_path, caplog, scorer, warned
):
    file = scored_file(tmp_path, many(40))
    (tmp_path / "scored.jsonl.card.json").write_text(json.dumps(scorer))
    assert write_selection(file, tmp_path / "pairs.jsonl", Choice())["scored"] == scorer
    assert not caplog.text
    write_selection(file, tmp_path / "thumbs.jsonl", Choice(unpaired=True, threshold=0.0))
    assert ("do not compare" in caplog.text) is warned


def test_the_data_card_counts_what_is_there():
    data = [
        row("a", [0.0, 10.0], ["short", "much longer than it"]),
        row("b", [5.0, 5.0, None], ["one", "two", "two"]),
        row("c", [9.0, 1.0], ["a long enough answer", "no"]),
    ]
    selected = select(data, Choice())
    card = data_card(data, selected, {"command": "x", "scored": {"scorer": "verifier:exact"}, "test_rows": 1})
    assert (card["prompts"], card["candidates"], card["duplicates"]) == (3, 7, 1)
    assert (card["pairs"], card["ups"], card["downs"]) == (2, 0, 0)
    assert card["left_out"] == {"all candidates score alike": 1}
    assert card["reasons"] == {"all candidates score alike": {"code": "scores_alike", "parameters": {}}}
    assert card["scores"]["counts"] == [1, 1, 0, 0, 0, 2, 0, 0, 0, 2]
    assert card["scores"]["edges"] == pytest.approx(range(11))
    assert card["characters"]["ups"]["p50"] == pytest.approx((19 + 20) / 2)
    assert card["characters"]["downs"]["p50"] == pytest.approx((5 + 2) / 2)
    assert card["length_auc"] == 1.0
    assert card["near_identical_pairs"] == 0
    assert card["command"] == "x"
    text = card_text(card)
    assert "| scored by | verifier:exact |" in text
    assert "| pairs | 2 |" in text
    assert "| of these rows in the test file | 1 |" in text
    assert "| left out: all candidates score alike | 1 |" in text
    assert "probability 1.00" in text
    assert "a model learns it first" in text
    assert not [line for line in text.splitlines() if line != line.rstrip()]


def test_the_length_bias_of_a_card_is_the_probability_that_an_up_is_longer():
    data = [row(i, [1.0, 0.0], ["x" * a, "y" * b]) for i, (a, b) in enumerate([(3, 3), (1, 2), (5, 4)])]
    card = data_card(data, select(data, Choice()), {})
    # 3, 1, 5 against 3, 2, 4: of nine comparisons 3 > 2, 5 > 3, 5 > 2, 5 > 4 are won, 3 = 3 is half.
    assert card["length_auc"] == pytest.approx(4.5 / 9)
    assert "learns it first" not in card_text(card)
    ups_only = select([row("a", [1.0, 1.0])], Choice(unpaired=True, threshold=0.0))
    assert data_card([row("a", [1.0, 1.0])], ups_only, {})["length_auc"] is None


def test_an_answer_counts_as_often_as_the_model_gave_it_unless_repeats_are_dropped():
    """A model gives right answers again and again and errs in many ways: without repeats the downs would outweigh."""
    row = {"id": "p", "prompt": "x", "candidates": [{"text": t} for t in ("yes", "yes", "no", "yes", "nay")]}
    scored = [{**row, "scores": [1.0, 1.0, 0.0, 1.0, 0.0]}]
    kept = select(scored, Choice(unpaired=True, threshold=0.5))
    assert [thumb["label"] for thumb in kept.rows] == [True, True, False, True, False]
    dropped = select(scored, Choice(unpaired=True, threshold=0.5, repeats="drop"))
    assert [thumb["label"] for thumb in dropped.rows] == [True, False, False]
