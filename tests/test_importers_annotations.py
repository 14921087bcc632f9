"""Argilla's rankings and Label Studio's JSON-MIN become exactly the pairs and thumbs that people gave."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bnf_align.reasons import Reason
from bnf_align.records import BadInput
from bnf_align.sources import Options, detect, import_rows, matching
from exports_traces import annotation, argilla_of_the_api, json_min, lines, ranked, record, task
from rows import assistant, user

TWO = {"prompt": "Hi", "response1": "Hello", "response2": "What?"}
THREE = TWO | {"response3": "Hey"}


def imported(name, folder, records, **options):
    rows, report = import_rows(name, [lines(folder / "export.jsonl", records)], Options(**options))
    return list(rows), report


def left_out(name, folder, records, **options):
    rows, report = import_rows(name, [lines(folder / "export.jsonl", records)], Options(**options))
    with pytest.raises(BadInput, match=r"0 of .* ratings are usable"):
        list(rows)
    return report.dropped


def pairs(rows):
    return [(row["id"], row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows]


# ------------------------------------------------------------------------------------------------------------- Argilla


@pytest.mark.parametrize("of_the_api", [False, True])
def test_argilla_ranks_say_which_field_is_the_best_and_which_the_worst(tmp_path, of_the_api):
    make = argilla_of_the_api if of_the_api else record
    tied = [{"rank": 1, "value": "response1"}, {"rank": 1, "value": "response2"}]
    records = [
        make(1, "best", [ranked("response3", "response1", "response2")], **THREE),
        make(2, "best", [ranked("response2", "response1")], **TWO),
        make(3, "best", [tied], **TWO),
        make(4, "best", [ranked("response1", "response2"), ranked("response2", "response1")], **TWO),
        make(5, "best", [ranked("response1", "response2")] * 2 + [ranked("response2", "response1")], **TWO),
        make(6, "best", [ranked("response1", "response2")], status=["draft"], **TWO),
        make(7, "best", [ranked("response1", "gone")], **TWO),
    ]
    rows, report = imported("auto", tmp_path, records)
    assert pairs(rows) == [
        ("record-1", "Hey", "What?"),
        ("record-2", "What?", "Hello"),
        ("record-5", "Hello", "What?"),
    ]
    assert all(row["prompt"] == [user("Hi")] for row in rows)
    assert report.dropped == {
        "a response that prefers no field": [2, 6],
        "its raters disagree (--raters majority)": [3],
        "no submitted response": [5],
    }


def test_argilla_a_ranking_without_ranks_is_in_the_order_of_the_interface_and_never_a_preference(tmp_path):
    """The Python export writes ["response1", "response2"] whatever people answered (argilla issue 5712)."""
    bare = record(1, "best", [["response1", "response2"]], **TWO)
    assert left_out("argilla", tmp_path, [bare]) == {Reason("no_ranks"): [0]}
    rows, report = imported("argilla", tmp_path, [bare, record(2, "best", [ranked("response2", "response1")], **TWO)])
    assert (pairs(rows), report.dropped) == ([("record-2", "What?", "Hello")], {Reason("no_ranks"): [0]})


@pytest.mark.parametrize(
    ("votes", "raters", "kept"),
    [
        (("response1", "tie", "response1"), "majority", 1),
        (("response1", "tie", "tie"), "majority", 0),
        (("response1", "tie"), "majority", 0),
        (("response1", "response1", "tie"), "unanimous", 0),
        (("response1", "tie"), "all", 1),
    ],
)
@pytest.mark.parametrize("name", ["argilla", "labelstudio"])
def test_who_prefers_neither_is_counted_among_the_raters(tmp_path, name, votes, raters, kept):
    sides = {"response1": "left", "tie": "tie"}
    where = {"control": "pw", "target": "response1,response2"}
    given = [annotation("pairwise", {"selected": sides[vote]}, by=by, **where) for by, vote in enumerate(votes)]
    export = {"argilla": record(1, "best", list(votes), **TWO), "labelstudio": task(1, TWO, *given)}[name]
    if kept:
        assert [pair[1:] for pair in pairs(imported(name, tmp_path, [export], raters=raters)[0])] == [
            ("Hello", "What?")
        ]
    else:
        assert left_out(name, tmp_path, [export], raters=raters) == {f"its raters disagree (--raters {raters})": [0]}


def test_argilla_a_ranking_that_names_what_is_no_field_prefers_nothing(tmp_path):
    mixed = [*ranked("response1", "response2"), "response3"]
    dropped = left_out("argilla", tmp_path, [record(1, "best", [mixed], **THREE)])
    assert dropped == {"a response that prefers no field": [0]}


def test_argilla_a_label_that_names_a_field_prefers_it_to_the_only_other_answer(tmp_path):
    records = [
        record(1, "best", ["response2"], **TWO),
        record(2, "best", ["response2"], **THREE),
        record(3, "best", ["prompt"], prompt="Hi", response="Hello"),
        record(4, "best", ["status"], **TWO),
    ]
    rows, report = imported("argilla", tmp_path, records)
    assert pairs(rows) == [("record-1", "What?", "Hello")]
    assert report.dropped == {"a response that prefers no field": [1, 2, 3]}


def test_argilla_suggestions_and_unsubmitted_responses_are_no_ratings(tmp_path):
    suggested = record(1, "thumb", ["good"], status=["discarded"], prompt="Hi", response="Hello")
    suggested |= {"thumb.suggestion": "bad", "thumb.suggestion.score": 0.9, "thumb.suggestion.agent": "model"}
    of_the_api = argilla_of_the_api(2, "thumb", ["good"], status=["draft"], prompt="Hi", response="Hello")
    of_the_api["suggestions"] = [{"question_id": "q", "value": "bad", "type": "model"}]
    rated = argilla_of_the_api(3, "thumb", ["bad"], prompt="Hi", response="No.")
    rows, report = imported("argilla", tmp_path, [suggested, of_the_api, rated])
    assert [(row["completion"], row["label"], row["rater"]) for row in rows] == [
        ([assistant("No.")], False, "user-0"),
    ]
    assert report.dropped == {"no submitted response": [0, 1]}


def test_argilla_a_status_that_stands_beside_no_value_rates_nothing(tmp_path):
    crooked = record(1, "thumb", ["good", "bad"], status=["submitted"], prompt="Hi", response="Hello")
    assert left_out("argilla", tmp_path, [crooked]) == {"no submitted response": [0]}


# -------------------------------------------------------------------------------------------------------- Label Studio

ONE = {"prompt": "Hi", "response": "Hello"}
SIDES = {"left": "response1", "right": "response2"}


def test_json_min_choices_are_thumbs_and_several_annotators_of_a_task_are_merged(tmp_path):
    rows, report = imported(
        "auto",
        tmp_path,
        [
            json_min(1, ONE, verdict="good"),
            json_min(2, ONE | {"response": "What?"}, verdict="bad", by="ann@example.org"),
            json_min(3, ONE | {"response": "Hm."}, verdict="good", by=10),
            json_min(3, ONE | {"response": "Hm."}, verdict="bad", by=11),
            json_min(3, ONE | {"response": "Hm."}, verdict="bad", by=12),
            json_min(4, ONE | {"response": "Unrated."}),
            json_min(5, ONE | {"response": "Both."}, verdict={"choices": ["good", "bad"]}),
        ],
    )
    assert rows[0] == {
        "prompt": [user("Hi")],
        "completion": [assistant("Hello")],
        "label": True,
        "id": 1,
        "created_at": "2026-03-09T22:16:08.728353Z",
        "rater": 10,
    }
    assert [(row["completion"][0]["content"], row["label"]) for row in rows[1:]] == [("What?", False), ("Hm.", False)]
    assert report.dropped == {"no annotation that was completed": [5], "an annotation with no or several choices": [6]}


@pytest.mark.parametrize(
    ("value", "options", "labels"),
    [
        ([{"rating": 4}], {"up_from": 4, "down_to": 2}, [True]),
        ([{"rating": 1}], {"up_from": 4, "down_to": 2}, [False]),
        ("fine", {"label_map": {"fine": "up"}}, [True]),
    ],
)
def test_json_min_ratings_and_other_choices_are_read_as_the_user_says(tmp_path, value, options, labels):
    records = [json_min(1, ONE, verdict=value)]
    assert [row["label"] for row in imported("labelstudio", tmp_path, records, **options)[0]] == labels
    with pytest.raises(BadInput, match="--label_map"):
        imported("labelstudio", tmp_path, records)


def test_json_min_says_nothing_of_the_sides_of_a_comparison_so_they_are_named(tmp_path):
    records = [
        json_min(1, TWO, pw=[{"selected": "left"}]),
        json_min(2, TWO, pw=[{"selected": "right"}], by=10),
        json_min(2, TWO, pw=[{"selected": "right"}], by=11),
        json_min(2, TWO, pw=[{"selected": "left"}], by=12),
    ]
    with pytest.raises(BadInput, match=r"it is not certain which data these names show.*--map left=KEY right=KEY"):
        imported("labelstudio", tmp_path, records)
    rows, _ = imported("labelstudio", tmp_path, records, column_map=SIDES)
    assert pairs(rows) == [(1, "Hello", "What?"), (2, "What?", "Hello")]


def test_json_min_says_the_same_as_the_full_export(tmp_path):
    given = [("good", 10), ("bad", 11), ("bad", 12)]
    full = [
        annotation("choices", {"choices": [choice]}, control="v", target="response", by=by) for choice, by in given
    ]
    times = {"created_at": "2026-03-09T22:16:08.728353Z"}
    small = [json_min(1, ONE, v=choice, by=by) | times for choice, by in given]
    assert imported("labelstudio", tmp_path, small)[0] == imported("labelstudio", tmp_path, [task(1, ONE, *full)])[0]


def test_json_min_of_two_projects_with_the_same_task_ids_does_not_merge_two_answers(tmp_path):
    records = [json_min(1, ONE, verdict="good"), json_min(1, ONE | {"response": "No."}, verdict="bad")]
    assert [row["label"] for row in imported("labelstudio", tmp_path, records)[0]] == [True, False]


def test_json_min_data_that_look_like_controls_are_asked_about(tmp_path):
    """Where the data have an `id` of their own, what follows it cannot be told from a control."""
    records = [json_min(1, {"id": 7, **ONE}, verdict="bad")]
    with pytest.raises(BadInput, match=r"prompt \(1\), response \(1\), verdict \(1\)\. Say --score_name NAME"):
        imported("labelstudio", tmp_path, records)
    assert [row["label"] for row in imported("labelstudio", tmp_path, records, score_name="verdict")[0]] == [False]


def test_labelstudio_csv_is_a_table(tmp_path):
    record = json_min(1, ONE, verdict="bad")
    (tmp_path / "export.json").write_text(json.dumps([dict(sorted(record.items()))]))
    assert matching([tmp_path / "export.json"]) == []
    with pytest.raises(BadInput, match=r"Read are the exports named JSON, a list of tasks .* and JSON-MIN"):
        list(import_rows("labelstudio", [tmp_path / "export.json"])[0])
    names = {"completion": "response", "label": "verdict", "rater": "annotator"}
    options = Options(column_map=names, label_map={"bad": "down"})
    rows = list(import_rows("table", [tmp_path / "export.json"], options)[0])
    assert [(row["prompt"], row["completion"], row["label"], row["rater"]) for row in rows] == [
        ("Hi", "Hello", False, 10)
    ]


def test_time_stamps_of_a_parquet_file_are_text(tmp_path):
    table = pa.table({"prompt": ["Hi"], "completion": ["Hello"], "label": [True], "when": pa.array([0], pa.date32())})
    pq.write_table(table, tmp_path / "t.parquet")
    rows = list(import_rows("table", [tmp_path / "t.parquet"], Options(column_map={"created_at": "when"}))[0])
    assert json.loads(json.dumps(rows)) == rows
    assert rows[0]["created_at"] == "1970-01-01"


def test_both_exports_are_found_by_auto(tmp_path):
    for number, records in enumerate(([json_min(1, ONE, verdict="bad")], [argilla_of_the_api(1, "thumb", [], **ONE)])):
        path = lines(tmp_path / f"{number}.jsonl", records)
        assert detect([path]).name == ("labelstudio", "argilla")[number]
