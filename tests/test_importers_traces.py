"""Langfuse, LangSmith, Gradio, Argilla and Label Studio: hand-made exports become exactly the expected rows."""

import csv
import gzip
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnf_align.records import BadInput
from bnf_align.sources import Options, import_rows
from exports_traces import (
    TIME,
    annotation,
    argilla,
    argilla_of_the_api,
    bubble,
    chat,
    feedback,
    flagged,
    json_min,
    labelstudio,
    langfuse,
    lc,
    lines,
    observation,
    record,
    run,
    score,
    task,
)
from rows import assistant, user
from test_importers import JSON, QUICK, changed, folder, places


def imported(name, *paths, **options):
    """Rows and report."""
    rows, report = import_rows(name, paths, Options(**options))
    return list(rows), report


def left_out(name, *paths, **options):
    """Why nothing of an export is usable: reason -> number of ratings."""
    rows, report = import_rows(name, paths, Options(**options))
    with pytest.raises(BadInput, match=r"0 of .* ratings are usable"):
        list(rows)
    return dropped(report)


def dropped(report):
    return {reason: len(numbers) for reason, numbers in report.dropped.items()}


# ------------------------------------------------------------------------------------------------------------ Langfuse


def traced(folder, observations, scores, traces=()):
    """A folder as Langfuse's blob storage export fills it."""
    lines(folder / "observations_v2" / "1.jsonl", observations)
    lines(folder / "scores" / "1.jsonl", scores)
    if traces:
        lines(folder / "traces" / "1.jsonl", list(traces))
    (folder / "manifests").mkdir(exist_ok=True)
    (folder / "manifests" / "1.json").write_text(json.dumps({"exportId": "1", "files": [{"path": "scores/1.jsonl"}]}))
    return folder


def test_langfuse_scores_meet_their_observation_and_the_whole_prompt_is_kept(tmp_path):
    system = {"role": "system", "content": "Be brief."}
    said = [system, user("Hi"), assistant("Hello"), user("Why?")]
    folder = traced(
        tmp_path,
        [
            observation("o1", "t1", said, assistant("Because.")),
            observation("o2", "t2", "Who?", "You."),
            observation("o3", "t3", "never rated", "never read"),
        ],
        [
            score(1, "t1", 1, observation_id="o1", comment="Good."),
            score(2, "t2", 0, observation_id="o2"),
        ],
    )
    rows, report = imported("langfuse", folder)
    assert rows == [
        {
            "prompt": said,
            "completion": [assistant("Because.")],
            "label": True,
            "id": "score-1",
            "created_at": TIME,
            "reason": "Good.",
            "model": "llama",
        },
        {
            "prompt": [user("Who?")],
            "completion": [assistant("You.")],
            "label": False,
            "id": "score-2",
            "created_at": TIME,
            "model": "llama",
        },
    ]
    assert (report.rows, report.ups, report.downs, report.dropped) == (2, 1, 1, {})


def test_langfuse_rating_of_a_trace_is_of_its_only_model_call_or_else_of_its_own_output(tmp_path):
    def step(key, trace, given, produced, **fields):
        return observation(key, trace, given, produced, parent_observation_id=f"root-{trace}", **fields)

    folder = traced(
        tmp_path,
        [
            # One call: what the model saw, with what was retrieved for it.
            observation("root-t1", "t1", {"question": "Why?"}, {"answer": "Because."}, type="SPAN"),
            step("r1", "t1", "Why?", "documents", type="RETRIEVER"),
            step("c1", "t1", chat("Given documents: why?"), assistant("Because.")),
            # Two calls: the trace's own question and answer.
            observation("root-t2", "t2", {"question": "Who?"}, {"answer": "You."}, type="AGENT"),
            step("c2", "t2", chat("plan"), assistant("a plan")),
            step("c3", "t2", chat("act"), assistant("an act")),
            # Two calls, and an output that is no text: nothing is certain.
            observation("root-t3", "t3", {"a": 1, "b": 2}, {"ok": True, "steps": 2}, type="AGENT"),
            step("c4", "t3", chat("plan"), assistant("a plan")),
            step("c5", "t3", chat("act"), assistant("an act")),
        ],
        [score(1, "t1", 1), score(2, "t2", 0), score(3, "t3", 0), score(4, "t4", 1)],
    )
    rows, report = imported("langfuse", folder)
    assert [(row["prompt"], row["completion"], row["label"]) for row in rows] == [
        ([user("Given documents: why?")], [assistant("Because.")], True),
        ([user("Who?")], [assistant("You.")], False),
    ]
    assert dropped(report) == {
        "the rated observation or trace holds no messages and no text": 1,
        "the rated observation or trace is not in the files": 1,
    }


@pytest.mark.parametrize("order", [1, -1])
def test_langfuse_of_several_steps_side_by_side_none_takes_the_rating_of_their_trace(tmp_path, order):
    steps = [
        observation("o1", "t1", chat("Search for what?"), "tools", start_time="2026-05-29 13:46:01"),
        observation("o2", "t1", chat("Why?"), "Because.", start_time="2026-05-29 13:46:05"),
        observation("o3", "t2", chat("Who?"), "You."),
        observation("o4", "t2", chat("A title for this chat"), "Who?"),
    ][::order]
    trace = {
        "id": "t2",
        "timestamp": "2026-05-29 13:46:01",
        "name": "c",
        "input": "Who, then?",
        "output": "You, then.",
    }
    folder = traced(tmp_path, steps, [score(1, "t1", 1), score(2, "t2", 0)], [trace])
    rows, report = imported("langfuse", folder)
    assert [(row["prompt"], row["completion"], row["label"]) for row in rows] == [
        ([user("Who, then?")], [assistant("You, then.")], False)
    ]
    why = "has several steps side by side, and which one was rated is not certain"
    assert dropped(report) == {f"the rated observation or trace {why}": 1}


def test_langfuse_legacy_traces_answer_for_what_has_no_observation(tmp_path):
    trace = {"id": "t1", "timestamp": TIME, "name": "chat", "input": "Why?", "output": "Because.", "tags": []}
    folder = traced(tmp_path, [observation("o9", "t9", "x", "y")], [score(1, "t1", 0)], [trace])
    rows, _ = imported("langfuse", folder)
    assert [(row["prompt"], row["completion"], row["label"]) for row in rows] == [
        ([user("Why?")], [assistant("Because.")], False)
    ]


def test_langfuse_answers_of_its_api_are_read_as_well(tmp_path):
    (tmp_path / "scores.json").write_text(
        json.dumps(
            {
                "data": [
                    {
                        "id": "s1",
                        "traceId": "t1",
                        "observationId": "o1",
                        "name": "user-feedback",
                        "dataType": "BOOLEAN",
                        "value": 0,
                        "stringValue": "False",
                        "authorUserId": "u1",
                        "timestamp": TIME,
                    }
                ],
                "meta": {"page": 1, "limit": 50, "totalItems": 1, "totalPages": 1},
            }
        )
    )
    (tmp_path / "observations.json").write_text(
        json.dumps(
            {
                "data": [
                    {
                        "id": "o1",
                        "traceId": "t1",
                        "type": "GENERATION",
                        "startTime": TIME,
                        "parentObservationId": None,
                        "input": {"messages": chat("Why?"), "tools": [{"type": "function"}]},
                        "output": assistant("Because."),
                        "model": "llama",
                    }
                ],
                "meta": {},
            }
        )
    )
    rows, _ = imported("langfuse", tmp_path)
    assert rows == [
        {
            "prompt": [user("Why?")],
            "completion": [assistant("Because.")],
            "label": False,
            "id": "s1",
            "created_at": TIME,
            "rater": "u1",
            "model": "llama",
            "tools": [{"type": "function"}],
        }
    ]


@pytest.mark.parametrize("kind", ["csv", "parquet", "json.gz"])
def test_langfuse_tables_say_the_same_in_every_file_type(tmp_path, kind):
    observations = [observation("o1", "t1", chat("Why?"), assistant("Because."))]
    scores = [score(1, "t1", 1), score(2, "t1", 0, observation_id="o1")]
    for name, table in (("observations_v2", observations), ("scores", scores)):
        (tmp_path / name).mkdir()
        path = tmp_path / name / f"1.{kind}"
        table = [{key: value for key, value in row.items() if value != {}} for row in table]
        if kind == "csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, table[0])
                writer.writeheader()
                writer.writerows({key: "" if cell is None else cell for key, cell in row.items()} for row in table)
        elif kind == "parquet":
            pq.write_table(pa.Table.from_pylist(table), path)
        else:
            path.write_bytes(gzip.compress(json.dumps(table).encode()))
    rows, _ = imported("langfuse", tmp_path, raters="all")
    assert [(row["prompt"], row["completion"], row["label"]) for row in rows] == [
        ([user("Why?")], [assistant("Because.")], True),
        ([user("Why?")], [assistant("Because.")], False),
    ]
    # One person rated the trace and one its only call: the same answer, and they disagree.
    assert left_out("langfuse", tmp_path) == {"its raters disagree (--raters majority)": 1}


@pytest.mark.parametrize(
    ("raters", "votes", "labels"),
    [
        ("majority", (1, 0, 1), [True]),
        ("majority", (0, 1, 0), [False]),
        ("unanimous", (0, 0, 0), [False]),
        ("all", (1, 0), [True, False]),
    ],
)
def test_langfuse_several_raters_of_one_answer_are_merged_by_the_rule(tmp_path, raters, votes, labels):
    scores = [score(n, "t1", vote, observation_id="o1", author_user_id=f"u{n}") for n, vote in enumerate(votes)]
    folder = traced(tmp_path, [observation("o1", "t1", "Why?", "Because.")], scores)
    rows, _ = imported("langfuse", folder, raters=raters)
    assert [row["label"] for row in rows] == labels


def numbers(folder, values, **fields):
    observations = [observation(f"o{n}", f"t{n}", f"Question {n}?", f"Answer {n}.") for n in range(len(values))]
    return traced(folder, observations, [score(n, f"t{n}", value, **fields) for n, value in enumerate(values)])


def test_langfuse_numbers_on_an_unknown_scale_stop_with_their_counts_and_the_flags(tmp_path):
    folder = numbers(tmp_path, [1, 0.25, 1, 0], data_type="NUMERIC")
    with pytest.raises(BadInput, match=r"Seen: 2 x 1, 1 x 0\.25, 1 x 0\..*--label_map 1=up\|down\|drop") as error:
        imported("langfuse", folder)
    assert "goes from 0 to 1: --up_from NUMBER --down_to NUMBER" in str(error.value)
    rows, report = imported("langfuse", folder, label_map={"1": "up", "0": "down", "0.25": "drop"})
    assert [row["label"] for row in rows] == [True, True, False]
    assert dropped(report) == {"a rating that means neither up nor down": 1}


def test_langfuse_thresholds_are_the_users_and_what_lies_between_is_left_out(tmp_path):
    folder = numbers(tmp_path, [0.9, 0.8, 0.5, 0.2, 0.1], data_type="NUMERIC")
    rows, report = imported("langfuse", folder, up_from=0.8, down_to=0.2)
    assert [row["label"] for row in rows] == [True, True, False, False]
    assert dropped(report) == {"a rating that means neither up nor down": 1}
    assert "0.8 read as up" in report.notes[0]
    assert report.notes[0].endswith("(--up_from, --down_to)")
    with pytest.raises(BadInput, match=r"--up_from 0\.2 --down_to 0\.8"):
        imported("langfuse", folder, up_from=0.2, down_to=0.8)


def test_langfuse_a_yes_to_hallucination_is_no_thumbs_up(tmp_path):
    folder = numbers(tmp_path, [1, 0], name="hallucination")
    with pytest.raises(BadInput, match=r"Seen: 1 x 1, 1 x 0.*--label_map"):
        imported("langfuse", folder)
    rows, _ = imported("langfuse", folder, label_map={"1": "down", "0": "up"})
    assert [row["label"] for row in rows] == [False, True]


def test_langfuse_categories_are_asked_for_and_free_text_is_no_rating(tmp_path):
    observations = [observation(f"o{n}", f"t{n}", "Q?", f"A{n}.") for n in range(3)]
    scores = [
        score(0, "t0", 0, data_type="CATEGORICAL", string_value="positive"),
        score(1, "t1", 1, data_type="CATEGORICAL", string_value="negative"),
        score(2, "t2", 0, data_type="TEXT", string_value="Nice!"),
        score(3, None, 0, data_type="CATEGORICAL", string_value="positive", session_id="s1"),
    ]
    folder = traced(tmp_path, observations, scores)
    with pytest.raises(BadInput, match="1 x positive, 1 x negative"):
        imported("langfuse", folder)
    rows, report = imported("langfuse", folder, label_map={"positive": "up", "negative": "down"})
    assert [row["label"] for row in rows] == [True, False]
    assert dropped(report) == {
        "a score that is free text": 1,
        "a score of a session or a run, not of an answer": 1,
    }


def test_langfuse_of_several_scores_the_thumb_is_read_and_a_choice_is_said(tmp_path):
    observations = [observation("o1", "t1", "Q?", "A.")]
    judge = score(1, "t1", 0.3, name="toxicity", data_type="NUMERIC", source="EVAL")
    folder = traced(tmp_path, observations, [score(0, "t1", 0), judge])
    rows, report = imported("langfuse", folder)
    assert [row["label"] for row in rows] == [False]
    assert any("score `user-feedback` is read" in note and "toxicity (1)" in note for note in report.notes)
    traced(tmp_path, observations, [judge, score(2, "t1", 0.3, name="relevance", data_type="NUMERIC")])
    with pytest.raises(BadInput, match=r"toxicity \(1\), relevance \(1\)\. Say --score_name NAME"):
        imported("langfuse", folder)
    with pytest.raises(BadInput, match=r"--score_name thumbs: there is no such score\. There are: toxicity"):
        imported("langfuse", folder, score_name="thumbs")


def test_langfuse_without_one_of_its_two_halves_says_which(tmp_path):
    observations, scores = langfuse([("Q?", "A.", True)], tmp_path)
    with pytest.raises(BadInput, match="hold no scores: give the folder of the whole export"):
        imported("langfuse", observations)
    with pytest.raises(BadInput, match="hold no observations or traces"):
        imported("langfuse", scores)


def test_langfuse_json_that_a_model_said_stays_text(tmp_path):
    said = '{"city": "Paris"}'
    folder = traced(tmp_path, [observation("o1", "t1", chat("As JSON?"), said)], [score(1, "t1", 1)])
    assert imported("langfuse", folder)[0][0]["completion"] == [assistant(said)]


def test_langfuse_what_the_model_only_thought_is_no_part_of_its_answer(tmp_path):
    parts = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Because."}]
    said = {"role": "assistant", "content": parts}
    folder = traced(tmp_path, [observation("o1", "t1", chat("Why?"), said)], [score(1, "t1", 1)])
    assert imported("langfuse", folder)[0][0]["completion"] == [assistant("Because.")]


def test_langfuse_pictures_are_left_out_and_counted(tmp_path):
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]
    folder = traced(tmp_path, [observation("o1", "t1", picture, assistant("A cat."))], [score(1, "t1", 1)])
    assert left_out("langfuse", folder) == {"a message that is not text": 1}


# ----------------------------------------------------------------------------------------------------------- LangSmith


def langsmith_files(folder, runs, votes):
    return lines(folder / "runs.jsonl", runs), lines(folder / "feedback.jsonl", votes)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ({"messages": [user("Hi")]}, {"messages": [assistant("Hello")]}),
        ({"messages": [user("Hi")]}, {"messages": [user("Hi"), assistant("Hello")]}),
        ({"messages": [user("Hi")]}, {"choices": [{"index": 0, "message": assistant("Hello")}]}),
        ({"messages": [user("Hi")]}, {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]}),
        ({"messages": [{"type": "human", "content": "Hi"}]}, {"messages": [{"type": "ai", "content": "Hello"}]}),
        ({"messages": [[lc("human", "Hi")]]}, {"generations": [[{"text": "", "message": lc("ai", "Hello")}]]}),
        ({"messages": [{"type": "human", "data": {"content": "Hi"}}]}, {"output": lc("ai", "Hello")}),
        ({"input": "Hi"}, {"output": "Hello"}),
        ({"question": "Hi"}, {"answer": "Hello"}),
        ({"prompts": ["Hi"]}, {"generations": [[{"text": "Hello"}]]}),
        (json.dumps({"messages": [user("Hi")]}), json.dumps({"messages": [assistant("Hello")]})),
    ],
)
def test_langsmith_reads_every_documented_wrapping_of_one_exchange(tmp_path, inputs, outputs):
    files = langsmith_files(tmp_path, [run("r1", inputs, outputs)], [feedback(1, "r1", 0)])
    rows, _ = imported("langsmith", *files)
    assert rows == [
        {
            "prompt": [user("Hi")],
            "completion": [assistant("Hello")],
            "label": False,
            "id": "feedback-1",
            "created_at": "2026-05-05T23:23:11.077838",
            "model": "llama",
        }
    ]


def test_langsmith_feedback_on_the_root_is_of_its_only_model_call(tmp_path):
    said = [lc("system", "Be brief."), lc("human", "Why?")]
    files = langsmith_files(
        tmp_path,
        [
            run("root", {"input": "Why?"}, {"output": "Because."}, kind="chain"),
            run("call", {"messages": [said]}, {"generations": [[{"message": lc("ai", "Because.")}]]}, trace="root"),
            run("two", {"input": "Who?"}, {"output": "You."}, kind="chain"),
            run("a", {"input": "plan"}, {"output": "a plan"}, trace="two"),
            run("b", {"input": "act"}, {"output": "an act"}, trace="two"),
        ],
        [feedback(1, "root", True), feedback(2, "two", False, comment="No."), feedback(3, "b", True)],
    )
    rows, _ = imported("langsmith", *files)
    assert [(row["prompt"], row["completion"], row["label"]) for row in rows] == [
        ([{"role": "system", "content": "Be brief."}, user("Why?")], [assistant("Because.")], True),
        ([user("Who?")], [assistant("You.")], False),
        ([user("act")], [assistant("an act")], True),
    ]
    assert rows[1]["reason"] == "No."


def test_langsmith_tool_calls_stay_in_the_history(tmp_path):
    call = {"type": "ai", "content": "", "tool_calls": [{"name": "add", "args": {"a": 1}, "id": "c1"}]}
    tool = {"type": "tool", "content": "3", "tool_call_id": "c1", "name": "add"}
    said = [{"type": "human", "content": "1 + 2?"}, call, tool]
    files = langsmith_files(
        tmp_path, [run("r1", {"messages": said}, {"messages": [assistant("3.")]})], [feedback(1, "r1", 1)]
    )
    function = {"type": "function", "id": "c1", "function": {"name": "add", "arguments": {"a": 1}}}
    assert imported("langsmith", *files)[0][0]["prompt"] == [
        user("1 + 2?"),
        {"role": "assistant", "content": "", "tool_calls": [function]},
        {"role": "tool", "content": "3", "name": "add", "tool_call_id": "c1"},
    ]


def few_runs(count=4):
    return [run(f"r{n}", {"input": f"Question {n}?"}, {"output": f"Answer {n}."}) for n in range(count)]


def test_langsmith_the_two_buttons_of_its_docs_are_told_apart(tmp_path):
    votes = [
        feedback(0, "r0", 1, "user_liked"),
        feedback(1, "r1", 1, "user_disliked"),
        feedback(2, "r2", 0, "user_disliked"),
    ]
    rows, report = imported("langsmith", *langsmith_files(tmp_path, few_runs(), votes))
    assert [(row["prompt"][0]["content"], row["label"]) for row in rows] == [
        ("Question 0?", True),
        ("Question 1?", False),
    ]
    assert dropped(report) == {"a rating that means neither up nor down": 1}


def test_langsmith_a_dislike_stays_one_where_its_button_has_other_values_too(tmp_path):
    votes = [
        feedback(0, "r0", 1, "user_disliked"),
        feedback(1, "r1", 2, "user_disliked"),
        feedback(2, "r2", 1, "user_liked"),
    ]
    files = langsmith_files(tmp_path, few_runs(), votes)
    with pytest.raises(BadInput, match="Values user_disliked:2 in 1 row"):
        imported("langsmith", *files)
    rows, _ = imported("langsmith", *files, label_map={"1": "up", "user_disliked:2": "drop"})
    assert [row["label"] for row in rows] == [False, True]


def test_langsmith_a_one_among_five_stars_is_no_thumbs_up(tmp_path):
    files = langsmith_files(
        tmp_path, few_runs(), [feedback(n, f"r{n}", stars) for n, stars in enumerate((1, 5, 2, 4))]
    )
    with pytest.raises(BadInput, match="Seen: 1 x 1, 1 x 5, 1 x 2, 1 x 4"):
        imported("langsmith", *files)
    with pytest.raises(BadInput, match="Seen: 1 x 1, 1 x 5, 1 x 2, 1 x 4"):
        imported("langsmith", *files, label_map={"5": "up", "4": "up", "2": "down"})
    rows, _ = imported("langsmith", *files, up_from=4, down_to=2)
    assert [row["label"] for row in rows] == [False, True, False, True]


def test_langsmith_zero_beside_minus_one_is_asked_for(tmp_path):
    files = langsmith_files(tmp_path, few_runs(), [feedback(n, f"r{n}", value) for n, value in enumerate((1, 0, -1))])
    with pytest.raises(BadInput, match=r"both 0 \(1\) and -1 \(1\).*user_score:-1=down user_score:0=drop"):
        imported("langsmith", *files)
    rows, _ = imported("langsmith", *files, label_map={"user_score:-1": "down", "user_score:0": "drop"})
    assert [row["label"] for row in rows] == [True, False]


def test_langsmith_other_keys_and_words_are_asked_for(tmp_path):
    toxic = [feedback(0, "r0", 1, "toxicity"), feedback(1, "r1", 0, "toxicity")]
    files = langsmith_files(tmp_path, few_runs(), toxic)
    with pytest.raises(BadInput, match="Seen: 1 x 1, 1 x 0"):
        imported("langsmith", *files)
    words = [feedback(0, "r0", None, "tone", value="kind"), feedback(1, "r1", None, "tone", value="rude")]
    files = langsmith_files(tmp_path, few_runs(), words)
    rows, _ = imported("langsmith", *files, label_map={"kind": "up", "rude": "down"})
    assert [row["label"] for row in rows] == [True, False]


def test_langsmith_without_score_or_run_is_counted_and_never_a_down(tmp_path):
    votes = [feedback(0, "r0", None, comment="just words"), feedback(1, "r9", 0), feedback(2, "r2", 1)]
    broken = run("r2", {"input": "Q?"}, None)
    assert left_out("langsmith", *langsmith_files(tmp_path, [*few_runs(2), broken], votes)) == {
        "no rating": 1,
        "the rated run is not in the files": 1,
        "the rated run holds no messages and no text": 1,
    }


def test_langsmith_a_bulk_export_alone_has_no_feedback(tmp_path):
    runs, votes = langsmith_files(tmp_path, few_runs(), [feedback(0, "r0", 1)])
    with pytest.raises(BadInput, match=r"hold no feedback: .*client\.list_feedback"):
        imported("langsmith", runs)
    with pytest.raises(BadInput, match="hold no runs"):
        imported("langsmith", votes)


# -------------------------------------------------------------------------------------------------------------- Gradio


def test_gradio_reads_four_fields_under_five_names(tmp_path):
    talk = [bubble("user", "Hi"), bubble("assistant", "Hello"), bubble("user", "Why?"), bubble("assistant", "No.")]
    log = flagged(tmp_path / "log.csv", [(talk[:2], 1, "Like"), (talk, 3, "Dislike")])
    assert log.read_text().splitlines()[0] == "conversation,index,value,flag,timestamp"
    rows, report = imported("gradio", log)
    assert rows == [
        {"prompt": [user("Hi")], "completion": [assistant("Hello")], "label": True, "created_at": TIME},
        {
            "prompt": [user("Hi"), assistant("Hello"), user("Why?")],
            "completion": [assistant("No.")],
            "label": False,
            "created_at": TIME,
        },
    ]
    assert report.dropped == {}


def test_gradio_reads_five_fields_as_the_header_says(tmp_path):
    path = tmp_path / "log.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["conversation", "index", "value", "flag", "username", "timestamp"])
        writer.writerow([json.dumps(chat("Hi", "Hello")), 1, "Hello", "Dislike", "ann", TIME])
    rows, _ = imported("gradio", path)
    assert rows == [
        {
            "prompt": [user("Hi")],
            "completion": [assistant("Hello")],
            "label": False,
            "created_at": TIME,
            "rater": "ann",
        }
    ]


def test_gradio_reads_json_that_was_quoted_against_formulas(tmp_path):
    log = flagged(tmp_path / "log.csv", [(chat("Hi", "a,=b"), 1, "Dislike")])
    log.write_text(log.read_text().replace('"[{', "\"'[{"))
    rows, _ = imported("gradio", log)
    assert [(row["completion"], row["label"]) for row in rows] == [([assistant("a,=b")], False)]


@pytest.mark.parametrize("index", ["[1, 1]", "(1, 1)"])
def test_gradio_pairs_of_the_older_format_are_turns(tmp_path, index):
    pairs = [["Hi", "Hello"], ["Why?", "Because."], ["Who?", None]]
    rows, _ = imported("gradio", flagged(tmp_path / "log.csv", [(pairs, index, "Like")]))
    assert rows[0]["prompt"] == [user("Hi"), assistant("Hello"), user("Why?")]
    assert rows[0]["completion"] == [assistant("Because.")]


def test_gradio_thoughts_are_not_the_answer_and_one_bubble_is_rated_as_one(tmp_path):
    talk = [
        bubble("user", "Hi"),
        bubble("assistant", "let me see", title="Thinking"),
        bubble("assistant", "Hello."),
        bubble("assistant", "How are you?"),
        bubble("user", "Fine"),
    ]
    rows, _ = imported("gradio", flagged(tmp_path / "log.csv", [(talk, 1, "Like")]))
    assert rows[0]["prompt"] == [user("Hi")]
    assert rows[0]["completion"] == [assistant("Hello."), assistant("How are you?")]


def test_gradio_a_thumb_taken_back_counts_for_nothing(tmp_path):
    one, two = [chat("Hi", answer) for answer in ("Hello", "What?")]
    clicks = [(one, 1, "Like"), (two, 1, "Like"), (one, 1, ""), (one, 1, "Dislike")]
    rows, report = imported("gradio", flagged(tmp_path / "log.csv", clicks))
    assert [(row["completion"][0]["content"], row["label"]) for row in rows] == [("What?", True), ("Hello", False)]
    assert report.dropped == {"a thumb that was taken back": [0, 2]}


def test_gradio_what_cannot_be_rated_is_counted(tmp_path):
    clicks = [
        (chat("Hi", "Hello"), 0, "Like"),
        (chat("Hi", "Hello"), 7, "Like"),
        (chat("Hi", "Hello"), "x", "Like"),
        ("no list", 1, "Like"),
        ([user("Hi"), {"role": "assistant", "content": [{"file": {"path": "cat.png"}, "type": "file"}]}], 1, "Like"),
    ]
    assert left_out("gradio", flagged(tmp_path / "log.csv", clicks)) == {
        "the rated message is not an answer": 1,
        "the rated message is not in the conversation": 1,
        "no conversation or no index": 2,
        "a message that is not text": 1,
    }


def test_gradio_flags_of_ones_own_are_asked_for(tmp_path):
    log = flagged(tmp_path / "log.csv", [(chat("Hi", "Hello"), 1, "Like"), (chat("Hi", "Buy!"), 1, "Spam")])
    with pytest.raises(BadInput, match=r"Values Spam in 1 row \(1\).*Seen: 1 x Like, 1 x Spam"):
        imported("gradio", log)
    rows, _ = imported("gradio", log, label_map={"Spam": "down"})
    assert [row["label"] for row in rows] == [True, False]


def test_gradio_the_log_of_an_interface_is_none_of_a_chat(tmp_path):
    path = tmp_path / "dataset1.csv"
    path.write_text("question,answer,flag,timestamp\nWhy?,Because.,Like,2026\n")
    with pytest.raises(BadInput, match=r"no record is a line of a chat's flagging log\. The first one has: question"):
        imported("gradio", path)


# ------------------------------------------------------------------------------------------------------------- Argilla


def test_argilla_only_submitted_responses_count_and_annotators_are_merged(tmp_path):
    records = [
        record(1, "thumb", ["good", "bad", "good"], prompt="Hi", response="Hello"),
        record(2, "thumb", ["good", "bad"], prompt="Hi", response="What?"),
        record(
            3,
            "thumb",
            ["good", "good", "bad"],
            status=["draft", "discarded", "submitted"],
            prompt="Hi",
            response="No.",
        ),
        record(4, "thumb", ["good"], status=["draft"], prompt="Hi", response="Yo."),
        record(5, "thumb", [], prompt="Hi", response="Unrated."),
    ]
    rows, report = imported("argilla", lines(tmp_path / "records.jsonl", records))
    assert rows == [
        {
            "prompt": [user("Hi")],
            "completion": [assistant("Hello")],
            "label": True,
            "id": "record-1",
            "rater": "user-0",
        },
        {
            "prompt": [user("Hi")],
            "completion": [assistant("No.")],
            "label": False,
            "id": "record-3",
            "rater": "user-2",
        },
    ]
    assert dropped(report) == {"its raters disagree (--raters majority)": 1, "no submitted response": 2}


def test_argilla_ratings_have_a_scale_that_only_its_owner_knows(tmp_path):
    stars = (5, 1, 3, 1)
    records = [record(n, "quality", [star], prompt="Hi", response=f"A{n}") for n, star in enumerate(stars)]
    path = tmp_path / "records.parquet"
    pq.write_table(pa.Table.from_pylist(records), path)
    with pytest.raises(BadInput, match=r"Seen: 2 x 1, 1 x 5, 1 x 3.*--up_from NUMBER --down_to NUMBER"):
        imported("argilla", path)
    rows, _ = imported("argilla", path, up_from=4, down_to=2)
    assert [row["label"] for row in rows] == [True, False, False]


def test_argilla_fields_and_questions_of_other_names_are_given(tmp_path):
    one = record(1, "fluent", ["yes"], question="Hi", reply="Hello") | record(1, "helpful", ["no"])
    path = lines(tmp_path / "records.jsonl", [one])
    with pytest.raises(
        BadInput, match=r"There is no field `completion` or `response`.*question, reply.*--map completion=FIELD"
    ):
        imported("argilla", path, score_name="helpful")
    names = {"prompt": "question", "completion": "reply"}
    rows, _ = imported("argilla", path, score_name="helpful", column_map=names, label_map={"no": "down"})
    assert [(row["prompt"], row["label"]) for row in rows] == [([user("Hi")], False)]
    with pytest.raises(BadInput, match="There is no field `answer`, which --map names as the completion"):
        imported("argilla", path, score_name="helpful", column_map={"completion": "answer"})


def test_argilla_chat_fields_are_their_messages(tmp_path):
    one = record(1, "thumb", ["bad"], prompt=chat("Hi", "Hello", "Why?"), response="No.")
    rows, _ = imported("argilla", lines(tmp_path / "records.jsonl", [one]))
    assert rows[0]["prompt"] == [user("Hi"), assistant("Hello"), user("Why?")]


def test_argilla_nested_records_do_not_say_what_was_submitted(tmp_path):
    nested = {
        "id": "1",
        "fields": {"prompt": "Hi", "response": "Hello"},
        "metadata": {},
        "suggestions": {},
        "responses": {"thumb": [{"value": "good", "user_id": "u1"}]},
        "vectors": {},
    }
    path = tmp_path / "records.json"
    path.write_text(json.dumps([nested]))
    with pytest.raises(BadInput, match=r"do not say which responses were submitted.*to_datasets\(\)\.to_parquet"):
        imported("argilla", path)


def test_argilla_ids_that_repeat_do_not_merge_two_answers(tmp_path):
    folders = [
        lines(tmp_path / f"{n}.jsonl", [record(1, "thumb", [value], prompt="Hi", response=f"A{n}")])
        for n, value in enumerate(("good", "bad"))
    ]
    rows, _ = imported("argilla", *folders)
    assert [(row["completion"][0]["content"], row["label"]) for row in rows] == [("A0", True), ("A1", False)]


# -------------------------------------------------------------------------------------------------------- Label Studio

TWO = {"prompt": "Hi", "answer1": "Hello", "answer2": "What?"}


def compared(side, *, by=10, target="answer1,answer2", **fields):
    return annotation("pairwise", {"selected": side}, control="pw", target=target, by=by, **fields)


def written(folder, tasks):
    path = folder / "export.json"
    path.write_text(json.dumps(tasks))
    return path


def test_labelstudio_left_is_the_first_name_and_right_the_second(tmp_path):
    tasks = [
        task(1, TWO, compared("left")),
        task(2, TWO, compared("right")),
        task(3, TWO, compared("left", target="answer2,answer1")),
        task(4, TWO, compared("left", cancelled=True)),
        task(5, TWO, compared("tie")),
        task(6, TWO),
    ]
    rows, report = imported("labelstudio", written(tmp_path, tasks))
    hello, what = [assistant("Hello")], [assistant("What?")]
    assert rows == [
        {"prompt": [user("Hi")], "chosen": hello, "rejected": what, "id": 1},
        {"prompt": [user("Hi")], "chosen": what, "rejected": hello, "id": 2},
        {"prompt": [user("Hi")], "chosen": what, "rejected": hello, "id": 3},
    ]
    assert dropped(report) == {
        "no annotation that was completed": 2,
        "a comparison that prefers neither side": 1,
    }


@pytest.mark.parametrize(("raters", "kept"), [("majority", ["Hello"]), ("all", ["Hello", "Hello", "What?"])])
def test_labelstudio_several_annotators_choose_by_the_rule(tmp_path, raters, kept):
    votes = [compared(side, by=by) for by, side in enumerate(("left", "left", "right"))]
    rows, report = imported("labelstudio", written(tmp_path, [task(1, TWO, *votes)]), raters=raters)
    assert [row["chosen"][0]["content"] for row in rows] == kept
    assert report.dropped == {}


@pytest.mark.parametrize(
    ("raters", "votes"), [("majority", ("left", "right")), ("unanimous", ("left", "left", "right"))]
)
def test_labelstudio_annotators_who_disagree_choose_nothing(tmp_path, raters, votes):
    path = written(tmp_path, [task(1, TWO, *(compared(side, by=by) for by, side in enumerate(votes)))])
    assert left_out("labelstudio", path, raters=raters) == {f"its raters disagree (--raters {raters})": 1}


def test_labelstudio_names_that_show_unknown_data_are_never_guessed(tmp_path):
    path = written(tmp_path, [task(1, TWO, compared("left", target="txt-1,txt-2"))])
    with pytest.raises(BadInput, match=r"compares txt-1, txt-2.*prompt, answer1, answer2: say --map left=KEY"):
        imported("labelstudio", path)
    rows, _ = imported("labelstudio", path, column_map={"left": "answer2", "right": "answer1"})
    assert rows[0]["chosen"] == [assistant("What?")]
    bare = compared("left")
    del bare["result"][0]["to_name"]
    with pytest.raises(BadInput, match="say --map left=KEY right=KEY"):
        imported("labelstudio", written(tmp_path, [task(1, TWO, bare)]))


def test_labelstudio_choices_and_ratings_are_thumbs(tmp_path):
    def rated(number, kind, value, **fields):
        data = {"prompt": "Hi", "reply": f"A{number}"}
        return task(number, data, annotation(kind, value, control="verdict", target="reply", **fields))

    tasks = [
        rated(1, "choices", {"choices": ["good"]}, by={"id": 3, "email": "a@b.c"}),
        rated(2, "choices", {"choices": ["bad"]}),
        rated(3, "choices", {"choices": ["good", "bad"]}),
    ]
    rows, report = imported("labelstudio", written(tmp_path, tasks))
    assert rows[0] == {
        "prompt": [user("Hi")],
        "completion": [assistant("A1")],
        "label": True,
        "id": 1,
        "created_at": "2026-03-09T22:16:08.728353Z",
        "rater": 3,
    }
    assert [row["label"] for row in rows] == [True, False]
    assert dropped(report) == {"an annotation with no or several choices": 1}
    stars = [rated(n, "rating", {"rating": star}) for n, star in enumerate((5, 1, 3, 1))]
    path = written(tmp_path, stars)
    with pytest.raises(BadInput, match=r"labelstudio: Values 5, 1, 3 in 4 rows.*Seen: 2 x 1, 1 x 5, 1 x 3"):
        imported("labelstudio", path)
    rows, _ = imported("labelstudio", path, label_map={"5": "up", "3": "drop", "1": "down"})
    assert [row["label"] for row in rows] == [True, False, False]


def test_labelstudio_task_ids_that_repeat_do_not_merge_two_answers(tmp_path):
    files = []
    for name, verdict in (("one", "good"), ("two", "bad")):
        (tmp_path / name).mkdir()
        rating = annotation("choices", {"choices": [verdict]}, control="verdict", target="reply")
        files.append(written(tmp_path / name, [task(1, {"prompt": "Hi", "reply": name}, rating)]))
    rows, _ = imported("labelstudio", *files)
    assert [(row["completion"][0]["content"], row["label"]) for row in rows] == [("one", True), ("two", False)]


@pytest.mark.parametrize("lacking", ["prompt", "answer1", "answer2"])
def test_labelstudio_one_task_without_its_texts_is_counted_and_stops_no_other(tmp_path, lacking):
    part = {name: text for name, text in TWO.items() if name != lacking}
    path = written(tmp_path, [task(1, part, compared("left")), task(2, TWO, compared("right"))])
    rows, report = imported("labelstudio", path)
    assert [row["chosen"] for row in rows] == [[assistant("What?")]]
    assert report.dropped == {"a task whose data lack the prompt or an answer that others have": [0]}


@pytest.mark.parametrize("lacking", ["prompt", "response"])
def test_labelstudio_one_rated_task_without_its_texts_is_counted_and_stops_no_other(tmp_path, lacking):
    whole = {"prompt": "Hi", "response": "Hello"}
    part = {name: text for name, text in whole.items() if name != lacking}
    good = annotation("choices", {"choices": ["good"]}, control="quality", target="response", by=1)
    rows, report = imported("labelstudio", written(tmp_path, [task(1, whole, good), task(2, part, good)]))
    assert [(row["completion"], row["label"]) for row in rows] == [([assistant("Hello")], True)]
    assert report.dropped == {"a task whose data lack the prompt or an answer that others have": [1]}


def test_labelstudio_one_of_several_controls_is_named(tmp_path):
    both = annotation("choices", {"choices": ["bad"]}, control="verdict", target="reply")
    both["result"].append({"from_name": "tone", "to_name": "reply", "type": "choices", "value": {"choices": ["good"]}})
    path = written(tmp_path, [task(1, {"prompt": "Hi", "reply": "No."}, both)])
    with pytest.raises(BadInput, match=r"verdict \(1\), tone \(1\)\. Say --score_name NAME"):
        imported("labelstudio", path)
    assert [row["label"] for row in imported("labelstudio", path, score_name="verdict")[0]] == [False]


@pytest.mark.parametrize(("name", "export"), [("argilla", argilla), ("labelstudio", labelstudio)])
def test_nothing_but_the_rating_decides_the_label(tmp_path, name, export):
    """The same file with every rating turned over gives the same rows with every label turned over."""
    thumbs = [("Hi", "Hello", True), ("Hi", "What?", False)]
    rows, _ = imported(name, *export(thumbs, tmp_path))
    turned, _ = imported(name, *export([(prompt, answer, not up) for prompt, answer, up in thumbs], tmp_path))
    assert turned == [{**row, "label": not row["label"]} for row in rows]


# ----------------------------------------------------------------------------------------------------------------- all

RANKS = [{"rank": 1, "value": "answer1"}, {"rank": 2, "value": "answer2"}]
STARS = annotation("rating", {"rating": 4}, control="pw", target="answer1")
CALL = {"type": "ai", "content": "", "tool_calls": [{"name": "f", "args": {}}]}
MIN = [json_min(1, TWO, pw=[{"selected": "left"}]), json_min(2, TWO, pw="good"), json_min(2, TWO, by=11, pw="bad")]
SHAPES = {
    "argilla": {
        "1.jsonl": [
            *(record(n, "best", value, **TWO) for n, value in enumerate(([RANKS], ["answer1"], [4]))),
            argilla_of_the_api(3, "best", [RANKS, "answer1"], **TWO),
        ]
    },
    "labelstudio": {"1.jsonl": [task(1, TWO, compared("left"), compared("right", by=2)), task(2, TWO, STARS), *MIN]},
    "langfuse": {
        "observations.jsonl": [
            observation("o1", "t1", chat("Hi"), assistant("Hello")),
            observation("o2", "t2", {"question": "Hi"}, {"choices": [{"message": assistant("Hello")}]}, type="SPAN"),
        ],
        "scores.jsonl": [score(1, "t1", 1), score(2, "t2", 0, observation_id="o2"), score(3, "t2", 0)],
    },
    "langsmith": {
        "runs.jsonl": [
            run("r1", {"messages": [[lc("human", "Hi")]]}, {"generations": [[{"message": lc("ai", "Hello")}]]}),
            run("r2", {"messages": [user("Hi"), CALL]}, {"messages": [{"type": "ai", "data": {"content": "Hello"}}]}),
        ],
        "feedback.jsonl": [
            feedback(1, "r1", 1),
            feedback(2, "r2", -1, correction={"output": assistant("Good day.")}),
            feedback(3, "r2", None, "correction", correction="Good evening."),
        ],
    },
}
ODD = st.sampled_from([..., [user("Hi")], {"role": "user"}, "[1]", '{"a": 1}', '[{"role": "user"}]', {"kwargs": {}}])


@pytest.mark.parametrize("name", SHAPES)
@given(seed=st.integers(0, 10**9), part=JSON | ODD)
@settings(QUICK, max_examples=100)
def test_any_part_of_a_record_replaced_is_counted_or_said_and_never_a_traceback(name, seed, part):
    choose = random.Random(seed)
    file = choose.choice(list(SHAPES[name]))
    way = choose.choice(list(places(SHAPES[name][file])))
    options = choose.choice([Options(), Options(up_from=3, down_to=2), Options(label_map={"1": "up"})])
    with folder() as path:
        for other, records in SHAPES[name].items():
            lines(path / other, changed(records, way, part) if other == file else records)
        try:
            rows = list(import_rows(name, [path], options)[0])
        except BadInput:
            return
    assert all("chosen" in row or isinstance(row["label"], bool) for row in rows)
