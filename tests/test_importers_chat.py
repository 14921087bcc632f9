"""Exports of Open WebUI, LibreChat and Chainlit become exactly the rows that their threads and ratings say."""

import csv
import json

import pytest

from bnf_align.records import BadInput
from bnf_align.sources import Options, import_rows
from exports_chat import feedback, said, step, tree
from rows import assistant, user


def imported(source: str, value, folder, **options):
    path = folder / "export.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    rows, report = import_rows(source, [path], Options(**options))
    return list(rows), report


def single(row: dict) -> tuple:
    return row["prompt"], row["completion"], row["label"]


# Open WebUI

CHAT = tree(
    ("q1", None, "user", "Hi"),
    ("a1", "q1", "assistant", "Hello."),
    ("q2", "a1", "user", "Capital of France?"),
    ("a2", "q2", "assistant", "Paris."),
    ("a3", "q2", "assistant", "Lyon."),
    ("a4", "q2", "assistant", "Nice."),
)
HISTORY = [user("Hi"), assistant("Hello."), user("Capital of France?")]


def test_openwebui_walks_the_tree_and_keeps_the_turns_before_the_answer(tmp_path):
    record = feedback(CHAT, "a2", 1, reason="accurate_information", comment="Right.")
    rows, report = imported("openwebui", [record], tmp_path)
    assert rows == [
        {
            "prompt": HISTORY,
            "completion": [assistant("Paris.")],
            "label": True,
            "id": "feedback-0",
            "created_at": 1730000000,
            "rater": "user-7",
            "model": "llama",
            "reason": "accurate_information: Right.",
        }
    ]
    assert (report.rows, report.ups, report.downs, report.pairs) == (1, 1, 0, 0)


def test_openwebui_pairs_a_sibling_up_with_one_down_and_trains_no_answer_twice(tmp_path):
    records = [
        feedback(CHAT, "a3", -1, number=0),
        feedback(CHAT, "a2", 1, number=1),
        feedback(CHAT, "a4", 1, number=2),
    ]
    rows, report = imported("openwebui", records, tmp_path)
    assert [row.get("chosen") for row in rows] == [[assistant("Paris.")], None]
    assert rows[0]["prompt"] == HISTORY
    assert rows[0]["rejected"] == [assistant("Lyon.")]
    assert (rows[0]["chosen_id"], rows[0]["rejected_id"], rows[0]["model"]) == ("feedback-1", "feedback-0", "llama")
    assert single(rows[1]) == (HISTORY, [assistant("Nice.")], True)
    assert (report.pairs, report.ups, report.downs) == (1, 1, 0)


def test_openwebui_never_takes_an_unrated_sibling_for_a_rejected_answer(tmp_path):
    record = feedback(CHAT, "a2", 1, sibling_model_ids=["mistral", "qwen"])
    record["meta"]["arena"] = True
    rows, _ = imported("openwebui", [record], tmp_path)
    assert [single(row) for row in rows] == [(HISTORY, [assistant("Paris.")], True)]
    assert rows[0]["arena"] is True


def test_openwebui_siblings_of_another_chat_with_the_same_ids_are_no_pair(tmp_path):
    records = [feedback(CHAT, "a2", 1), feedback(CHAT, "a3", -1, chat_id="chat-1")]
    rows, report = imported("openwebui", records, tmp_path)
    assert [row["label"] for row in rows] == [True, False]
    assert report.pairs == 0


def test_openwebui_a_question_edited_between_two_ratings_makes_no_pair(tmp_path):
    edited = json.loads(json.dumps(CHAT).replace("Capital of France?", "Second city of France?"))
    records = [feedback(CHAT, "a2", 1, number=0), feedback(edited, "a3", -1, number=1)]
    rows, _ = imported("openwebui", records, tmp_path)
    assert [(row["prompt"][-1]["content"], row["label"]) for row in rows] == [
        ("Capital of France?", True),
        ("Second city of France?", False),
    ]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            '<details type="reasoning" done="true" duration="3">\n<summary>T</summary>\n> hm\n</details>\nParis.',
            "Paris.",
        ),
        (
            '<details type="tool_calls" name="f" arguments="&quot;">\n<summary>x</summary>\n</details>\nParis.',
            "Paris.",
        ),
        ("<think>France? Paris.</think>\n\nParis.", "Paris."),
        ("<details><summary>More</summary>Paris.</details>", "<details><summary>More</summary>Paris.</details>"),
        ("A model writes <think> before it answers.", "A model writes <think> before it answers."),
        ("  Paris.\n", "  Paris.\n"),
    ],
)
def test_openwebui_strips_what_was_folded_away_and_nothing_else(tmp_path, content, text):
    chat = tree(("q", None, "user", "<think>Why</think>?"), ("a", "q", "assistant", content))
    rows, _ = imported("openwebui", [feedback(chat, "a", 1)], tmp_path)
    assert (rows[0]["prompt"], rows[0]["completion"]) == ([user("<think>Why</think>?")], [assistant(text)])


def test_openwebui_an_answer_that_is_reasoning_alone_is_an_empty_one(tmp_path):
    chat = tree(("q", None, "user", "Why?"), ("a", "q", "assistant", '<details type="reasoning" done="false">\nhm'))
    with pytest.raises(BadInput, match=r"0 of 1 ratings are usable. an empty answer: 1 row \(0\)"):
        imported("openwebui", [feedback(chat, "a", 1)], tmp_path)


def test_openwebui_keeps_the_system_prompt_of_the_chat(tmp_path):
    rows, _ = imported("openwebui", [feedback(CHAT, "a1", 1, params={"system": "Be brief."})], tmp_path)
    assert rows[0]["prompt"] == [{"role": "system", "content": "Be brief."}, user("Hi")]


def test_openwebui_chats_with_annotations_are_read_too(tmp_path):
    messages = json.loads(json.dumps(CHAT))
    messages["a1"]["annotation"] = {"rating": 1, "reason": "helpful"}
    messages["a3"]["annotation"] = {"rating": "-1"}
    chat = {"id": "c", "user_id": "u", "title": "t", "chat": {"history": {"messages": messages}}}
    rows, report = imported("auto", [chat], tmp_path)
    assert [single(row) for row in rows] == [
        ([user("Hi")], [assistant("Hello.")], True),
        (HISTORY, [assistant("Lyon.")], False),
    ]
    assert "read as an Open WebUI export (`openwebui`)" in report.notes


def broken(change) -> list[dict]:
    record = feedback(json.loads(json.dumps(CHAT)), "a2", 1, number=1)
    change(record, record["snapshot"]["chat"]["chat"]["history"]["messages"])
    return [feedback(CHAT, "a1", -1), record]


BROKEN = {
    "a message of its thread is missing": lambda record, messages: messages.pop("a1"),
    "its thread goes in a circle": lambda record, messages: messages["q1"].update(parentId="a2"),
    "the answer is not in its thread": lambda record, messages: record["meta"].update(message_id="gone"),
    "what is rated is not an assistant's answer": lambda record, messages: record["meta"].update(message_id="q2"),
    "no rating": lambda record, messages: record["data"].update(rating=None),
    "no snapshot of its chat (take the export of all feedback: the list of it has none)": (
        lambda record, messages: record.update(snapshot=None)
    ),
    "a message that is not text": lambda record, messages: messages["q1"].update(content=None),
    "an image in its conversation: only text is read": (
        lambda record, messages: messages["q1"].update(files=[{"type": "image", "url": "x"}])
    ),
    "an error message in its conversation": lambda record, messages: messages["a2"].update(error=True),
    "an empty answer": lambda record, messages: messages["a2"].update(content=" "),
    "feedback of another type than rating": lambda record, messages: record.update(type="survey"),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_openwebui_leaves_out_what_it_cannot_rebuild_and_says_why(tmp_path, reason):
    rows, report = imported("openwebui", broken(BROKEN[reason]), tmp_path)
    assert [row["label"] for row in rows] == [False]
    assert report.dropped == {reason: [1]}
    assert report.rows == 2


def test_openwebui_a_tree_with_several_roots_is_walked_to_the_own_one(tmp_path):
    chat = CHAT | tree(("other", None, "user", "Another beginning"), ("b", "other", "assistant", "Yes."))
    rows, _ = imported("openwebui", [feedback(chat, "b", -1)], tmp_path)
    assert [single(row) for row in rows] == [([user("Another beginning")], [assistant("Yes.")], False)]


def test_openwebui_a_scale_of_a_fork_stops_with_every_value_and_the_flag(tmp_path):
    records = [feedback(CHAT, f"a{n}", value, number=n) for n, value in ((1, 10), (2, 1), (3, -1))]
    message = r"openwebui: Values 10, 1, -1 in 3 rows .* Seen: 1 x 10, 1 x 1, 1 x -1. .*--label_map 10=up\|down\|drop"
    with pytest.raises(BadInput, match=message):
        imported("openwebui", records, tmp_path)
    rows, _ = imported("openwebui", records, tmp_path, label_map={"10": "up", "1": "drop", "-1": "down"})
    assert [single(row)[1:] for row in rows] == [([assistant("Hello.")], True), ([assistant("Lyon.")], False)]


# Several raters


def three(*ratings) -> list[dict]:
    return [feedback(CHAT, "a1", rating, number=n) | {"user_id": f"u{n}"} for n, rating in enumerate(ratings)]


@pytest.mark.parametrize(
    ("raters", "ratings", "labels"),
    [
        ("majority", (1, -1, 1), [True]),
        ("majority", (-1, 1, -1), [False]),
        ("unanimous", (-1, -1, -1), [False]),
        ("all", (1, -1, 1), [True, False, True]),
    ],
)
def test_several_ratings_of_one_answer_are_merged_by_the_rule(tmp_path, raters, ratings, labels):
    rows, _ = imported("openwebui", three(*ratings), tmp_path, raters=raters)
    assert [row["label"] for row in rows] == labels


@pytest.mark.parametrize(("raters", "ratings"), [("majority", (1, -1)), ("unanimous", (1, 1, -1))])
def test_raters_who_disagree_leave_no_row(tmp_path, raters, ratings):
    records = [*three(*ratings), feedback(CHAT, "a2", 1)]
    rows, report = imported("openwebui", records, tmp_path, raters=raters)
    assert [row["completion"] for row in rows] == [[assistant("Paris.")]]
    assert report.dropped == {f"its raters disagree (--raters {raters})": [0]}


# LibreChat

SAID = [
    said("m1", None, "Hi", by_user=True),
    said("m2", "m1", "Hello.", by_user=False),
    said("m3", "m2", "Capital of France?", by_user=True),
    said("m4", "m3", "Paris.", by_user=False, rating="thumbsUp"),
    said("m5", "m3", "Lyon.", by_user=False, rating="thumbsDown"),
]
PAIR = {"prompt": HISTORY, "chosen": [assistant("Paris.")], "rejected": [assistant("Lyon.")]}


def nested(messages: list[dict], parent: str) -> list[dict]:
    return [
        one | {"children": nested(messages, one["messageId"])} for one in messages if one["parentMessageId"] == parent
    ]


@pytest.mark.parametrize("form", ["flat", "tree", "collection"])
def test_librechat_conversations_trees_and_collections_give_the_same_rows(tmp_path, form):
    root = SAID[0]["parentMessageId"]
    value = {
        "flat": {"conversationId": "conversation-0", "title": "t", "messages": SAID[::-1]},
        "tree": {"conversationId": "conversation-0", "title": "t", "messagesTree": nested(SAID, root)},
        "collection": SAID[::-1],
    }[form]
    rows, report = imported("auto", value, tmp_path)
    assert [{name: row[name] for name in PAIR} for row in rows] == [PAIR]
    assert (rows[0]["chosen_id"], rows[0]["rejected_id"], rows[0]["reason"]) == ("m4", "m5", "helpful")
    assert report.notes[0] == "read as a LibreChat export (`librechat`)"


def test_librechat_reads_the_text_parts_of_a_message_and_leaves_thoughts_and_tools_out(tmp_path):
    parts = [
        {"type": "think", "think": "hm"},
        {"type": "text", "text": {"value": "Paris"}},
        {"type": "tool_call", "tool_call": {"name": "f"}},
        {"type": "text", "text": "is it."},
    ]
    answer = said("m2", "m1", "", by_user=False, rating="thumbsDown", content=parts)
    fenced = said("m3", "m1", ":::thinking\nhm\n:::\n\nLyon.", by_user=False, rating="thumbsDown")
    rows, _ = imported("librechat", [SAID[0], answer, fenced], tmp_path)
    assert [row["completion"] for row in rows] == [[assistant("Paris\n\nis it.")], [assistant("Lyon.")]]


def test_librechat_leaves_out_missing_parents_circles_errors_and_images(tmp_path):
    up = {"by_user": False, "rating": "thumbsUp"}
    records = [
        said("ok", None, "fine", **up),
        said("a", "gone", "x", **up),
        said("b", "c", "x", **up),
        said("c", "b", "x", **up),
        said("d", None, "x", **up, error=True),
        said("e", None, "x", **up, files=[{"type": "image/png"}]),
        said("f", None, "x", by_user=True, rating="thumbsUp"),
        said("q", None, "Hi", by_user=True),
        said("g", "q", "Hello.", **up),
        said("h", "q", "Hel", **up, unfinished=True),
    ]
    rows, report = imported("librechat", records, tmp_path)
    assert [single(row) for row in rows] == [([user("Hi")], [assistant("Hello.")], True)]
    assert report.dropped == {
        "no prompt": [0],
        "a message of its thread is missing": [1],
        "its thread goes in a circle": [2, 3],
        "an error message in its conversation": [4],
        "an image in its conversation: only text is read": [5],
        "what is rated is not an assistant's answer": [6],
        "an answer that was stopped before its end: it would teach to stop there": [9],
    }


def test_librechat_keeps_the_system_prompt_and_an_answer_that_was_stopped_as_history(tmp_path):
    stopped = said("m2", "m1", "Hel", by_user=False, unfinished=True)
    value = {
        "conversationId": "c",
        "options": {"promptPrefix": "Be brief."},
        "messages": [SAID[0], stopped, *SAID[2:4]],
    }
    rows, _ = imported("librechat", value, tmp_path)
    history = [user("Hi"), assistant("Hel"), user("Capital of France?")]
    assert [row["prompt"] for row in rows] == [[{"role": "system", "content": "Be brief."}, *history]]


def test_librechat_another_rating_is_never_guessed(tmp_path):
    records = [*SAID, said("m6", "m3", "Nice.", by_user=False, rating="thumbs_up")]
    with pytest.raises(BadInput, match=r"librechat: Values thumbs_up in 1 row .* Seen: .*1 x thumbs_up.*--label_map"):
        imported("librechat", records, tmp_path)


def test_librechat_dates_of_mongoexport_are_read(tmp_path):
    record = said("m2", "m1", "Yes.", by_user=False, rating="thumbsUp", createdAt={"$date": "2025-05-01T10:00:00Z"})
    rows, _ = imported("librechat", [SAID[0], record], tmp_path)
    assert rows[0]["created_at"] == "2025-05-01T10:00:00Z"


# Chainlit

STEPS = [
    step("u1", "user_message", "Hi", 0),
    step("r1", "run", "", 1, parent="u1"),
    step("tool", "tool", "{}", 2, parent="r1"),
    step("a1", "assistant_message", "Hello.", 3, parent="r1"),
    step("u2", "user_message", "Capital of France?", 4),
    step("r2", "run", "", 5, parent="u2"),
    step("a2", "assistant_message", "Well.", 6, parent="r2"),
    step("a3", "assistant_message", "Paris.", 7, parent="r2"),
]


def thread(**ratings) -> dict:
    steps = [
        one | {"feedback": {"forId": one["id"], "value": ratings[one["id"]], "comment": "so"}}
        if one["id"] in ratings
        else one
        for one in STEPS
    ]
    return {"id": "t0", "createdAt": "2025-05-01", "userIdentifier": "ann", "steps": steps[::-1]}


def test_chainlit_takes_the_turns_in_the_order_of_time(tmp_path):
    rows, _ = imported("auto", [thread(a1=0, a2=1)], tmp_path)
    assert {json.dumps(row["completion"]): (row["prompt"], row["label"]) for row in rows} == {
        json.dumps([assistant("Hello.")]): ([user("Hi")], False),
        json.dumps([assistant("Well.")]): (HISTORY, True),
    }
    assert {row["rater"] for row in rows} == {"ann"}


def test_chainlit_a_rated_run_is_answered_by_its_messages_together(tmp_path):
    rows, _ = imported("chainlit", [thread(r2=0)], tmp_path)
    assert [single(row) for row in rows] == [(HISTORY, [assistant("Well.\n\nParis.")], False)]


@pytest.mark.parametrize("column", ["forId", "stepId"])
@pytest.mark.parametrize("form", ["json", "csv"])
def test_chainlit_tables_are_joined(tmp_path, column, form):
    feedbacks = [
        {"id": "f1", column: "a1", "value": 0.0, "comment": ""},
        {"id": "f2", column: "a3", "value": 1.0, "comment": "yes"},
        {"id": "f3", column: "gone", "value": 1.0, "comment": ""},
    ]
    for name, records in (("feedbacks", feedbacks), ("steps", [{**one, "feedback": ""} for one in STEPS])):
        if form == "json":
            (tmp_path / f"{name}.json").write_text(json.dumps(records))
        else:
            with (tmp_path / f"{name}.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, list(records[0]))
                writer.writeheader()
                writer.writerows(records)
    rows, report = import_rows("auto", [tmp_path])
    assert [single(row) for row in rows] == [
        ([user("Hi")], [assistant("Hello.")], False),
        ([*HISTORY, assistant("Well.")], [assistant("Paris.")], True),
    ]
    assert report.dropped == {"the step that is rated is not there": [2]}


def test_chainlit_steps_without_the_table_of_feedbacks_are_said(tmp_path):
    with pytest.raises(BadInput, match="There are steps, but no feedbacks"):
        imported("chainlit", STEPS, tmp_path)


def test_chainlit_minus_one_of_old_versions_is_never_guessed(tmp_path):
    with pytest.raises(BadInput, match=r"chainlit: Values -1 .* Seen: 1 x -1"):
        imported("chainlit", [thread(a1=-1)], tmp_path)
