"""What must be joined is joined through the disk: memory does not grow with the texts."""

import json
import tracemalloc

import pytest

from bnf_align.records import BadInput
from bnf_align.sources import import_rows
from bnf_align.sources.trees import Shelf
from exports_chat import said, step


def test_records_are_found_by_id_and_by_group_in_their_order():
    records = [("a", "x", {"n": 0}), ("b", "y", {"n": 1}), (None, "x", {"n": 2}), (10**30, "x", {"n": 3})]
    shelf = Shelf(records)
    assert (shelf.get("b"), shelf.get(10**30), shelf.get("c")) == ({"n": 1}, {"n": 3}, None)
    assert shelf.group("x") == [{"n": 0}, {"n": 2}, {"n": 3}]
    assert shelf.group("z") == []


def test_ids_are_told_apart_by_their_type_and_the_last_of_several_counts():
    shelf = Shelf([(1, None, {"n": 0}), ("1", None, {"n": 1}), (1, None, {"n": 2})])
    assert (shelf.get(1), shelf.get("1")) == ({"n": 2}, {"n": 1})


def test_texts_come_back_as_they_were():
    record = {"text": "\x00 é \U0001f600 \ud800 '); DROP TABLE record", "none": None, "deep": [{"a": [1.5, True]}]}
    assert Shelf([("'; --\x00\ud800", None, record)]).get("'; --\x00\ud800") == record


def test_a_fault_of_a_file_is_said_as_it_is():
    def broken():
        yield "a", None, {}
        raise BadInput("line 2 is broken")

    with pytest.raises(BadInput, match="line 2 is broken"):
        Shelf(broken())


TEXT = "x" * 20_000
COUNT = 300


def librechat(folder):
    with (folder / "messages.jsonl").open("w") as file:
        for n in reversed(range(COUNT)):  # answers before their questions
            answer = said(f"a{n}", f"q{n}", f"{n}{TEXT}", by_user=False, rating="thumbsDown")
            for message in (answer, said(f"q{n}", None, TEXT, by_user=True)):
                file.write(json.dumps(message) + "\n")


def chainlit(folder):
    with (folder / "steps.jsonl").open("w") as steps, (folder / "feedbacks.jsonl").open("w") as feedbacks:
        for n in range(COUNT):
            asked = step(f"q{n}", "user_message", TEXT, 0, thread=f"t{n}")
            answered = step(f"a{n}", "assistant_message", f"{n}{TEXT}", 1, thread=f"t{n}")
            steps.write(json.dumps(answered) + "\n" + json.dumps(asked) + "\n")
            feedbacks.write(json.dumps({"id": f"f{n}", "forId": f"a{n}", "value": 0, "comment": ""}) + "\n")


@pytest.mark.parametrize("export", [librechat, chainlit])
def test_a_join_holds_no_more_than_a_conversation_in_memory(tmp_path, export):
    """A file of 12 MB is joined in a third of that."""
    export(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) > 12e6
    tracemalloc.start()
    rows, report = import_rows("auto", [tmp_path])
    count = sum(1 for _ in rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (count, report.downs, report.dropped) == (COUNT, COUNT, {})
    assert peak < 4e6
