"""Judgements: kept through kills and between writers, changed, deleted, and read by training as they were meant."""

import asyncio
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest

from bnf_align.cli.main import main
from bnf_align.data.read import iter_rows
from bnf_align.data.rows import preference_rows
from bnf_align.endpoint import Endpoint
from bnf_align.engines import Sampling
from bnf_align.engines.local import LocalEngine
from bnf_align.feedback import app, page, store
from bnf_align.feedback import serve as serving
from bnf_align.feedback.answerer import DOWN, LocalAnswerer, NoAnswerError, UrlAnswerer
from bnf_align.feedback.app import chat_page
from bnf_align.feedback.review import Review, read_tasks, times_judged
from bnf_align.feedback.serve import serve
from bnf_align.feedback.store import Store, choice, thumb
from bnf_align.feedback.talk import Place, StaleError, Talk
from bnf_align.feedback.visits import Visits
from bnf_align.records import BadInput
from bnf_align.reference.cache import namespaces
from model_server import ModelServer
from tiny_models import chatml_tokenizer
from tiny_nets import tiny_llama

SOURCE = Path(__file__).parents[1] / "src"


def asked(question: str) -> list[dict]:
    return [{"role": "user", "content": question}]


def said(answer: str) -> list[dict]:
    return [{"role": "assistant", "content": answer}]


@pytest.fixture
def kept(tmp_path) -> Store:
    return Store(tmp_path / "feedback.jsonl")


def python(code: str, *arguments: str, **kwargs) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, **kwargs)


# --------------------------------------------------------------------------------------------------------- store


def test_training_reads_the_file_as_it_stands_with_every_label_as_it_was_given(kept):
    kept.append(thumb(asked("2+2?"), "4", True, user="Ann", model="m", reason="right"))
    kept.append(thumb(asked("2+2?"), "5", False))
    kept.append(choice(asked("3+3?"), "6", "7", user="Bob"))
    rows, report = preference_rows(iter_rows(kept.path), source="store")
    assert (report.pairs, report.ups, report.downs, report.dropped, report.notes) == (1, 1, 1, {}, [])
    assert rows[0] == {"row": 0, "prompt": asked("2+2?"), "completion": said("4"), "label": True}
    assert rows[1]["completion"] == said("5")
    assert rows[1]["label"] is False
    assert rows[2]["chosen"] == said("6")
    assert rows[2]["rejected"] == said("7")


def test_a_row_says_when_who_which_model_and_why(kept):
    kept.append(thumb(asked("2+2?"), "4", True, user="Ann", model="m", reason="right"))
    (row,) = kept.rows()
    assert (row["user"], row["model"], row["reason"]) == ("Ann", "m", "right")
    assert len(row["id"]) == 32
    assert row["created_at"].endswith("+00:00")


def test_when_append_returns_the_row_has_been_forced_to_the_disk(kept, monkeypatch):
    sizes = []
    monkeypatch.setattr(store.os, "fsync", lambda fd: sizes.append(os.fstat(fd).st_size))
    kept.append(thumb(asked("2+2?"), "4", True))
    assert sizes == [kept.path.stat().st_size]


def test_a_thumb_turned_over_is_one_row_in_its_old_place_with_the_new_label(kept):
    first = kept.put(None, thumb(asked("2+2?"), "4", False))
    kept.append(thumb(asked("3+3?"), "6", True))
    kept.put(first, thumb(asked("2+2?"), "4", True))
    rows = kept.rows()
    assert [(row["completion"][0]["content"], row["label"]) for row in rows] == [("4", True), ("6", True)]
    assert rows[0]["id"] == first["id"]


def test_who_reads_while_a_mind_changes_reads_the_old_file_to_its_end(kept):
    row = kept.put(None, thumb(asked("2+2?"), "4" * 9000, False))
    old = kept.path.read_bytes()
    with open(kept.path, "rb", buffering=0) as reader:
        half = reader.read(4000)
        kept.put(row, thumb(asked("2+2?"), "5" * 9000, True))
        assert half + reader.read() == old
    assert [row["label"] for row in kept.rows()] == [True]


def test_a_thumb_taken_back_leaves_nothing(kept):
    row = kept.put(None, thumb(asked("2+2?"), "4", True))
    assert kept.put(row, None) is None
    assert kept.path.read_bytes() == b""


def test_what_was_deleted_comes_back_by_a_new_thumb_alone(kept):
    row = kept.put(None, thumb(asked("2+2?"), "4", True, user="Ann"))
    kept.delete_user("Ann")
    assert not kept.replace({**row, "reason": "right"})
    assert kept.rows() == []
    kept.put(row, thumb(asked("2+2?"), "4", False, user="Ann"))
    assert [row["label"] for row in kept.rows()] == [False]


def test_deleting_a_person_leaves_every_other_line_as_it_was(kept):
    for number in range(8):
        user = ["Ann", "ann", None, "Annabel"][number % 4]
        kept.append(thumb(asked(f"{number}?"), "ja, genau ✓", number % 2 == 0, user=user))
    others = [line for line in kept.path.read_bytes().splitlines(True) if b'"user": "Ann"' not in line]
    mode = kept.path.stat().st_mode
    assert kept.delete_user("Ann") == 2
    assert kept.path.read_bytes() == b"".join(others)
    assert kept.path.stat().st_mode == mode
    assert Counter(row["user"] for row in kept.rows()) == {"ann": 2, None: 2, "Annabel": 2}


def test_a_copy_left_by_a_kill_is_removed_before_anything_else(kept):
    """It may hold rows of somebody who was deleted since."""
    left = kept.path.with_name(f".{kept.path.name}.tmp")
    left.write_text('{"id": "old", "user": "Ann"}\n')
    assert kept.rows() == []
    assert not left.exists()


def test_a_line_cut_at_any_byte_is_mended_and_no_other_is_touched(tmp_path):
    path = tmp_path / "feedback.jsonl"
    written = Store(path)
    for number in range(2):
        written.append(thumb(asked("’?"), f"gut {number}", True))
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole)):
        path.write_bytes(whole[:cut])
        opened = Store(path)
        answers = [row["completion"][0]["content"] for row in opened.rows()]
        assert answers == (["gut 0", "gut 1"] if cut == len(whole) - 1 else ["gut 0"])
        opened.append(thumb(asked("?"), "gut 2", False))
        assert [row["completion"][0]["content"] for row in opened.rows()] == [*answers, "gut 2"]
    path.write_bytes(whole[:first] + b"\0" * 99)  # what a power cut may leave
    assert len(Store(path).rows()) == 1


@pytest.mark.parametrize("text", ["my notes", '{"id": "x"}\nmy notes', '{"prompt": "p"', "[1, 2]\n"])
def test_a_file_that_is_no_store_is_refused_and_left_as_it_is(tmp_path, text):
    path = tmp_path / "notes.jsonl"
    path.write_text(text)
    with pytest.raises(BadInput, match=r"notes\.jsonl"):
        Store(path)
    assert path.read_text() == text


def test_a_place_where_nothing_can_be_kept_is_refused_before_the_first_thumb(tmp_path):
    (tmp_path / "a-file").touch()
    (tmp_path / "folder.jsonl").mkdir()
    for path in (tmp_path / "a-file" / "feedback.jsonl", tmp_path / "folder.jsonl"):
        with pytest.raises(BadInput, match=r"cannot be kept there .*--store"):
            Store(path)


def test_a_line_that_is_no_row_stops_a_change_and_nothing_is_lost(kept):
    row = kept.put(None, thumb(asked("2+2?"), "4", True))
    with open(kept.path, "a") as file:
        file.write("[1, 2]\n")
    before = kept.path.read_bytes()
    with pytest.raises(ValueError, match="not a row"):
        kept.put(row, thumb(asked("2+2?"), "4", False))
    assert kept.path.read_bytes() == before
    assert [path.name for path in kept.path.parent.iterdir() if path.suffix == ".tmp"] == []


def test_only_the_owner_can_read_a_new_store_and_a_link_to_it_stays_a_link(kept, tmp_path):
    assert kept.path.stat().st_mode & 0o777 == 0o600
    link = tmp_path / "link.jsonl"
    link.symlink_to(kept.path)
    row = Store(link).put(None, thumb(asked("2+2?"), "4", True))
    Store(link).put(row, thumb(asked("2+2?"), "4", False))
    assert link.is_symlink()
    assert [row["label"] for row in kept.rows()] == [False]


WRITER = """
import sys
from bnf_align.feedback.store import Store, thumb
path, name, count = sys.argv[1:]
kept = Store(path)
for number in range(int(count)):
    row = kept.put(None, thumb([{"role": "user", "content": name + str(number)}], "a" * 3000, False, user=name))
    if number % 5 == 0:
        kept.put(row, thumb(row["prompt"], "a" * 3000, True, user=name))
    if number % 5 == 1:
        kept.put(row, None)
"""


def test_two_processes_and_a_thread_write_at_once_and_nothing_is_lost_or_mixed(kept):
    processes = [python(WRITER, str(kept.path), name, "40") for name in ("Ann", "Bob")]
    for number in range(40):
        kept.append(thumb(asked(f"c{number}"), "b" * 3000, True, user="Cid"))
    assert [process.wait() for process in processes] == [0, 0]
    rows = kept.rows()
    assert Counter(row["user"] for row in rows) == {"Ann": 32, "Bob": 32, "Cid": 40}
    assert sum(row["label"] for row in rows if row["user"] == "Ann") == 8
    for name in ("Ann", "Bob"):
        numbers = [int(row["prompt"][0]["content"][3:]) for row in rows if row["user"] == name]
        assert numbers == [number for number in range(40) if number % 5 != 1]


KILLED = """
import sys
from bnf_align.feedback.store import Store, thumb
kept, number = Store(sys.argv[1]), 0
def say(text): print(text, flush=True)
while True:
    question = [{"role": "user", "content": str(number)}]
    row = kept.put(None, thumb(question, "a" * 2000, False)); say(f"{number} down")
    if number % 3 == 0: kept.put(row, thumb(question, "a" * 2000, True)); say(f"{number} up")
    if number % 3 == 1: kept.put(row, None); say(f"{number} none")
    number += 1
"""


def test_whenever_it_is_killed_what_was_acknowledged_is_there_and_at_most_one_act_more(tmp_path):
    kill_and_look(tmp_path, 6, random.Random(0))


def kill_and_look(tmp_path: Path, kills: int, chance: random.Random) -> None:
    for kill in range(kills):
        path = tmp_path / f"{kill}.jsonl"
        process = python(KILLED, str(path))
        lines = [process.stdout.readline()]
        end = time.monotonic() + chance.uniform(0.0, 0.3)
        while time.monotonic() < end:
            lines.append(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
        process.wait()
        said_state = {int(number): label for number, label in (line.split() for line in lines if line.endswith("\n"))}
        found = {int(row["prompt"][0]["content"]): row["label"] for row in Store(path).rows()}
        assert len(found) == len(Store(path).rows())
        wanted = {number: label == "up" for number, label in said_state.items() if label != "none"}
        differing = {n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n)}
        assert differing <= {max(said_state), max(said_state) + 1}
        assert len(differing) <= 1


FULL = """
import resource, sys
from bnf_align.feedback.store import Store, thumb
kept = Store(sys.argv[1])
before = kept.put(None, thumb([{"role": "user", "content": "q"}], "a" * 500, True))
resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))
for act in (lambda: kept.append(thumb([], "b" * 900, True)), lambda: kept.put(before, thumb([], "b" * 900, False))):
    try:
        act()
    except OSError:
        print("refused")
"""


def test_a_full_disk_is_an_error_and_what_was_there_stays(kept):
    process = python(FULL, str(kept.path))
    assert process.communicate()[0].split() == ["refused", "refused"]
    assert sorted(path.name for path in kept.path.parent.iterdir()) == [".feedback.jsonl.lock", "feedback.jsonl"]
    (row,) = kept.rows()
    assert row["completion"] == said("a" * 500)
    assert row["label"] is True


# ---------------------------------------------------------------------------------------------------------- talk


@pytest.fixture(scope="module")
def server():
    with ModelServer() as running:
        yield running


def served(url: str, **kwargs) -> UrlAnswerer:
    return UrlAnswerer(Endpoint(url, "a-model", retries=0, backoff=0.01, timeout=5.0, **kwargs), Sampling(0.8))


def answered(talk: Talk, question: str) -> None:
    """Asks, and waits as a page does that stays open."""
    talk.ask(question)
    for _ in talk.watch():
        pass
    if talk.problem:
        raise NoAnswerError(talk.problem)


@pytest.fixture
def talk(kept, server) -> Talk:
    return Talk([served(server.url)], kept, system="Be brief.")


def test_a_thumb_is_stored_with_all_that_was_said_before_the_answer(talk, kept, server):
    answered(talk, "one")
    answered(talk, "two")
    talk.rate(Place(talk.id, 1), False, "Ann")
    talk.rate(Place(talk.id, 0), True, None)
    second, first = kept.rows()
    system = [{"role": "system", "content": "Be brief."}]
    assert first["prompt"] == [*system, *asked("one")]
    assert second["prompt"] == [*system, *asked("one"), *said("answer to one"), *asked("two")]
    assert second["completion"] == said("answer to two")
    assert (first["label"], second["label"]) == (True, False)
    assert (first["user"], second["user"], second["model"]) == (None, "Ann", "a-model")
    assert server.bodies[-1]["messages"] == second["prompt"]


def test_a_changed_mind_keeps_one_row_and_drops_the_reason_of_the_old_one(talk, kept):
    answered(talk, "one")
    place = Place(talk.id, 0)
    talk.rate(place, True)
    talk.explain(place, " kind ")
    assert [(row["label"], row["reason"]) for row in kept.rows()] == [(True, "kind")]
    talk.rate(place, True)  # a second click says the same
    assert [(row["label"], row["reason"]) for row in kept.rows()] == [(True, "kind")]
    talk.rate(place, False)
    assert [(row["label"], row["reason"]) for row in kept.rows()] == [(False, None)]
    talk.rate(place, None)
    assert kept.rows() == []
    assert talk.turns[0].verdict is None


@pytest.mark.parametrize("place", [("other", 0), (None, 1), (None, -1)])
def test_a_thumb_for_what_is_not_there_any_more_is_refused(talk, kept, place):
    answered(talk, "one")
    with pytest.raises(StaleError):
        talk.rate(Place(place[0] or talk.id, place[1]), True)
    assert kept.rows() == []


def test_a_reason_for_a_thumb_that_was_deleted_does_not_bring_it_back(talk, kept):
    answered(talk, "one")
    talk.rate(Place(talk.id, 0), True, "Ann")
    kept.delete_user("Ann")
    with pytest.raises(StaleError):
        talk.explain(Place(talk.id, 0), "kind")
    assert kept.rows() == []
    assert talk.turns[0].verdict is None


def test_without_an_answer_the_question_is_kept_and_a_later_one_is_answered(kept):
    with ModelServer(first=["500"]) as server:
        talk = Talk([served(server.url)], kept)
        with pytest.raises(NoAnswerError, match="HTTP 500"):
            answered(talk, "one")
        assert (talk.unanswered, talk.turns) == ("one", [])
        answered(talk, "one")
    assert (talk.unanswered, talk.turns[0].answers[0].text) == ("", "answer to one")


def test_of_a_server_that_is_down_people_hear_that_and_the_log_says_where(kept, caplog):
    with ModelServer() as server:
        url = server.url
    with pytest.raises(NoAnswerError, match="server is down") as error:
        answered(Talk([served(url)], kept), "one")
    assert str(error.value) == DOWN
    assert url in caplog.text
    assert url not in DOWN


def test_an_empty_answer_is_nothing_to_judge(kept):
    with ModelServer(answer=lambda body: " \n") as server, pytest.raises(NoAnswerError, match="empty"):
        answered(Talk([served(server.url)], kept), "one")


def test_a_second_question_waits_until_the_first_is_answered(kept):
    refused = threading.Event()
    with ModelServer(hold=lambda body: not refused.is_set()) as server:
        talk = Talk([served(server.url)], kept)
        talk.ask("one")
        assert "one" in page.show_talk(talk)  # a reload meanwhile shows it
        with pytest.raises(NoAnswerError, match="still"):
            talk.ask("two")
        refused.set()
        for _ in talk.watch():
            pass
    assert [turn.question for turn in talk.turns] == ["one"]


def test_a_model_in_process_answers_and_says_when_a_conversation_is_too_long(kept):
    tokenizer = chatml_tokenizer()
    engine = LocalEngine(tiny_llama(len(tokenizer), seed=3), tokenizer, "tiny")
    talk = Talk([LocalAnswerer(engine, Sampling(max_new_tokens=8))], kept)
    answered(talk, "hello")
    assert talk.turns[0].answers[0].text.strip()
    with pytest.raises(NoAnswerError, match=r"^1 of 1 prompts leave no room"):
        answered(talk, "x" * 600)
    talk.rate(Place(talk.id, 0), True)
    assert kept.rows()[0]["model"] == "tiny"


def test_a_visit_is_found_by_its_token_alone_and_the_oldest_is_forgotten(monkeypatch):
    monkeypatch.setattr("bnf_align.feedback.visits.MOST", 2)
    visits = Visits(list)
    first, second = visits.of(None), visits.of("a guess")
    assert visits.of(first.token, "Ann").user == "Ann"
    assert first.token != second.token
    visits.of({})
    assert visits.of(first.token) is first
    assert visits.of(second.token) is not second


# -------------------------------------------------------------------------------------------------------- review


def prepared(folder: Path, *rows: dict) -> Path:
    path = folder / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_every_shape_of_prepared_answers_is_read(tmp_path):
    path = prepared(
        tmp_path,
        {"prompt": "p1", "candidates": ["a", {"text": "b", "model": "B"}, " "], "model": "A"},
        {"prompt": asked("p2"), "completions": [{"content": "c"}]},
        {"prompt": asked("p3"), "chosen": said("d"), "rejected": said("e"), "label": None},
        {"prompt": "p4", "completion": "f"},
        {"prompt": "p4", "completion": "f"},
    )
    tasks = read_tasks(path, pairs=False)
    assert [task.answers[0].text for task in tasks] == ["a", "b", "c", "d", "e", "f"]
    assert [task.answers[0].model for task in tasks] == ["A", "B", None, None, None, None]
    pairs = read_tasks(path, pairs=True)
    assert [tuple(answer.text for answer in task.answers) for task in pairs] == [("a", "b"), ("d", "e")]


def test_two_equal_answers_are_no_question_and_a_fifth_has_no_partner(tmp_path):
    path = prepared(tmp_path, {"prompt": "p", "candidates": ["a", "b", "c", "c", "d"]})
    assert [task.answers[0].text for task in read_tasks(path, pairs=True)] == ["a"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "p", "candidates": ["a"]}, "needs a `prompt`"),
        ({"prompt": "p", "candidates": [3]}, "answer 0"),
        ({"prompt": [{"from": "human"}], "candidates": ["a"]}, "role and a content"),
        ({"prompt": "p"}, "no row has an answer"),
    ],
)
def test_answers_of_another_shape_are_named(tmp_path, row, message):
    with pytest.raises(BadInput, match=message):
        read_tasks(prepared(tmp_path, row), pairs=False)


def pair_rows(count: int) -> list[dict]:
    return [
        {"prompt": f"p{n}", "candidates": [{"text": f"x{n}", "model": "X"}, {"text": f"y{n}", "model": "Y"}]}
        for n in range(count)
    ]


def test_whichever_side_it_stands_on_the_answer_said_to_be_better_is_the_chosen_one(tmp_path, kept):
    tasks = read_tasks(prepared(tmp_path, *pair_rows(40)), pairs=True)
    review, sides = Review(tasks, kept), []
    better = {task.prompt: "XY"[at % 2] for at, task in enumerate(tasks)}
    while review.task:
        sides.append(review.task.answers[0].model == "X")
        review.judge(review.task.id, review.task.answers[0].model == better[review.task.prompt])
    for row in kept.rows():
        assert (row["chosen"][0].upper(), row["model"]) == (better[row["prompt"]],) * 2
        assert {row["rejected"][0].upper(), row["rejected_model"]} == {"X", "Y"} - {row["model"]}
    assert 5 < sum(sides) < 35
    assert [row["prompt"] for row in kept.rows()] != [task.prompt for task in tasks]


def test_nothing_on_the_page_tells_whose_answer_it_is(tmp_path, kept):
    row = {"prompt": "p", "candidates": [{"text": "x", "model": "one-7b"}, {"text": "y", "model": "two-7b"}]}
    for pairs in (True, False):
        review = Review(read_tasks(prepared(tmp_path, row), pairs), kept)
        assert "-7b" not in page.show_review(review)
        review.judge(review.task.id, True)
        review.back()
        assert review.verdict is True
        assert "-7b" not in page.show_review(review)


def test_a_thumb_on_a_prepared_answer_is_its_label(tmp_path, kept):
    review = Review(read_tasks(prepared(tmp_path, {"prompt": "p", "candidates": ["good", "bad"]}), False), kept)
    while review.task:
        review.judge(review.task.id, review.task.answers[0].text == "good", " why ", "Ann")
    labels = {row["completion"]: row["label"] for row in kept.rows()}
    assert labels == {"good": True, "bad": False}
    assert {(row["reason"], row["user"]) for row in kept.rows()} == {("why", "Ann")}


def test_of_two_answers_both_may_be_good_or_bad_which_is_a_thumb_for_each(tmp_path, kept):
    review = Review(read_tasks(prepared(tmp_path, *pair_rows(3)), True), kept)
    told = {}
    for verdict, label in (("both", True), ("neither", False)):
        task = review.task
        review.judge(task.id, verdict, "equal", "Ann")
        told |= {(task.prompt, answer.text): (label, answer.model) for answer in task.answers}
    rows = kept.rows()
    assert {(row["prompt"], row["completion"]): (row["label"], row["model"]) for row in rows} == told
    assert {(row["user"], row["reason"]) for row in rows} == {("Ann", "equal")}
    review.back()
    assert (review.verdict, review.reason) == ("neither", "equal")
    assert 'data-verdict="neither" aria-pressed="true"' in page.show_review(review)
    review.explain(review.task.id, "both wrong")
    assert [row["reason"] for row in kept.rows()] == ["equal", "equal", "both wrong", "both wrong"]
    chosen = review.task.answers[0].text
    review.judge(review.task.id, True, user="Ann")  # a changed mind: the two rows become one
    assert [row.get("chosen") for row in kept.rows()] == [None, None, chosen]
    review.back()
    review.judge(review.task.id, None)
    assert len(kept.rows()) == 2


def test_a_person_who_comes_back_finds_a_tie_as_one_judgement(tmp_path, kept):
    tasks = read_tasks(prepared(tmp_path, *pair_rows(2)), True)
    first = Review(tasks, kept)
    done = first.task.id
    first.judge(done, "both", user="Ann")
    again = Review(tasks, kept)
    again.recall("Ann")
    assert again.progress == (1, 2)
    assert again.task.id != done
    again.back()
    assert (again.task.id, again.verdict) == (done, "both")


def test_a_task_that_enough_people_have_judged_is_not_asked_and_begun_ones_come_first(tmp_path, kept):
    tasks = read_tasks(prepared(tmp_path, *pair_rows(4)), True)
    once, twice = tasks[1], tasks[2]
    for user, task, verdict in (("Ann", once, True), ("Ann", twice, "both"), ("Bob", twice, False)):
        review = Review([task], kept)
        review.judge(task.id, verdict, user=user)
    assert times_judged(kept.rows()) == {once.id: 1, twice.id: 2}
    for _ in range(5):  # whatever the order drawn
        review = Review(tasks, kept, raters=2)
        assert review.progress == (0, 3)
        assert review.task.id == once.id
    assert Review(tasks, kept).progress == (0, 4)


def test_people_without_a_name_are_told_apart_by_when_they_judged():
    rows = [{"item": "a", "user": None, "created_at": second, "id": f"{at}"} for at, second in enumerate("1122")]
    assert times_judged([*rows, {"item": "a", "user": "Ann", "created_at": "1", "id": "x"}]) == {"a": 3}


def test_the_owner_sees_who_judged_what_and_whether_they_agree(tmp_path, kept, capsys):
    tasks = read_tasks(prepared(tmp_path, *pair_rows(4)), True)
    for user, verdicts in (("Ann", (True, True, True)), ("Bob", (True, False))):
        for task, first_is_better in zip(tasks, verdicts, strict=False):
            review = Review([task], kept)
            chosen = review.task.answers[0].text == task.answers[0].text
            review.judge(task.id, first_is_better is chosen, user=user)
    assert (
        main(
            ["collect", "--status", "--store", str(kept.path), "--review", str(tmp_path / "answers.jsonl"), "--pairs"]
        )
        == 0
    )
    said = capsys.readouterr().out
    assert "5 rows" in said
    assert "Ann: 3 pairs" in said
    assert "Bob: 2 pairs" in said
    assert "4 tasks, 1 judged by nobody, 1 by one person, 2 by two or more" in said
    assert "agree in 50% of cases, Krippendorff's alpha" in said
    assert "2 of 3 answers have two ratings or more" in said


def test_the_second_click_of_a_double_click_judges_nothing(tmp_path, kept):
    review = Review(read_tasks(prepared(tmp_path, *pair_rows(3)), True), kept)
    task = review.task.id
    review.judge(task, True)
    review.judge(task, True)
    review.skip(task)
    assert review.progress == (1, 3)
    assert len(kept.rows()) == 1


def test_back_shows_what_was_said_and_lets_it_be_changed_or_taken_back(tmp_path, kept):
    review = Review(read_tasks(prepared(tmp_path, *pair_rows(3)), True), kept)
    assert not review.begun  # so that the page has nothing to go back to
    assert 'data-way="back" disabled' in page.show_review(review)
    first, chosen = review.task.id, review.task.answers[0].text
    review.judge(first, True, "clear")
    review.skip(review.task.id)
    assert 'data-way="back">' in page.show_review(review)
    review.back()
    review.back()
    assert (review.task.id, review.verdict, review.reason) == (first, True, "clear")
    review.explain(first, "clearer")
    assert kept.rows()[0]["reason"] == "clearer"
    review.judge(first, False)
    assert [row["rejected"] for row in kept.rows()] == [chosen]
    review.back()
    review.judge(first, None)
    assert (kept.rows(), review.task.id, review.verdict) == ([], first, None)
    seen = set()
    while review.task:
        seen.add(review.task.id)
        review.judge(review.task.id, True)
    assert len(seen) == 3


def test_a_person_who_comes_back_under_the_same_name_goes_on_and_another_begins(tmp_path, kept):
    tasks = read_tasks(prepared(tmp_path, *pair_rows(3)), True)
    review = Review(tasks, kept)
    done = review.task.id
    review.judge(done, True, user="Ann")
    again = Review(tasks, kept)
    again.recall("Ann")
    assert again.progress == (1, 3)
    left = []
    while again.task:
        left.append(again.task.id)
        again.judge(again.task.id, True, user="Ann")
    assert len(left) == 2
    assert done not in left
    other = Review(tasks, kept)
    other.recall("Bob")
    assert other.progress == (0, 3)


# ---------------------------------------------------------------------------------------------------------- page

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "${alert(1)} {{value}} `",
    '" onfocus=alert(1) autofocus="',
    "\ud800 half a character",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_people_and_models_write_is_text_on_the_page(tmp_path, kept, text):
    with ModelServer(answer=lambda body: text) as server:
        talk = Talk([served(server.url)], kept)
        answered(talk, text)
    talk.rate(Place(talk.id, 0), True)
    talk.explain(Place(talk.id, 0), text)
    tasks = read_tasks(prepared(tmp_path, {"prompt": asked(text), "candidates": [text]}), False)
    for shown in (page.show_talk(talk, notice=text), page.show_review(Review(tasks, kept), notice=text)):
        assert not any(sign in shown for sign in ("<script", "<img", "<a ", '" onfocus'))
        shown.encode()


@pytest.fixture(scope="module")
def url(tmp_path_factory, server) -> str:
    kept = Store(tmp_path_factory.mktemp("page") / "feedback.jsonl")
    blocks = chat_page([served(server.url)], kept)
    yield serve(blocks, password="sesame")
    blocks.close(verbose=False)


def test_nobody_gets_in_without_the_password(url):
    with httpx.Client(base_url=url) as client:
        assert client.get("gradio_api/info").status_code == 401
        assert client.post("login", data={"username": "Ann", "password": "sesam"}).status_code == 400
        assert client.get("gradio_api/info").status_code == 401
        assert client.post("login", data={"username": "Ann", "password": "sesame"}).status_code == 200
        assert client.get("gradio_api/info").status_code == 200


def test_another_sites_name_for_this_machine_opens_the_page_only_with_the_password(url, kept, server):
    """As a web site does that gives its own name the address 127.0.0.1 (DNS rebinding)."""
    blocks = chat_page([served(server.url)], kept)
    open_url = serve(blocks)
    foreign = {"Host": "evil.example"}
    assert httpx.get(open_url).status_code == 200
    assert httpx.get(open_url, headers={"Host": "localhost:7860"}).status_code == 200
    assert httpx.get(open_url, headers=foreign).status_code == 400
    assert httpx.get(open_url, headers={"Origin": "http://evil.example"}).status_code == 400
    assert httpx.get(url, headers=foreign).status_code == 200  # the form that asks for the password
    assert httpx.get(f"{url}gradio_api/info", headers=foreign).status_code == 401
    blocks.close(verbose=False)


def test_what_another_site_sends_is_refused_and_the_cookie_stays_at_home(url):
    """Behind a proxy, under its name: Gradio would take every origin, and say SameSite=none."""
    at_home = {"Host": "thumbs.example", "Origin": "https://thumbs.example"}
    person = {"username": "Ann", "password": "sesame"}
    with httpx.Client(base_url=url) as client:
        for origin in (
            "https://evil.example",
            "null",
            "https://thumbs.example.evil.example",
            "http://thumbs.example:1",
        ):
            foreign = {**at_home, "Origin": origin, "X-Forwarded-Host": "evil.example"}
            for path in ("login", "gradio_api/queue/join", "gradio_api/info"):
                answer = client.post(path, headers=foreign, data=person)
                assert answer.status_code == 403
                assert "proxy_set_header Host" in answer.text
            assert client.get("gradio_api/info", headers=foreign).status_code == 403
        answer = client.post("login", headers=at_home, data=person)
        assert answer.status_code == 200
        cookies = answer.headers.get_list("set-cookie")
        assert len(cookies) == 2
        for cookie in cookies:
            assert cookie.lower().count("samesite") == 1
            assert cookie.endswith("; SameSite=Lax")
            assert "HttpOnly" in cookie


def test_a_request_that_is_too_large_or_hides_its_length_is_not_read(url):
    def endless():
        yield b"x"

    with httpx.Client(base_url=url) as client:
        client.post("login", data={"username": "Ann", "password": "sesame"})
        for path in ("login", "gradio_api/queue/join", "gradio_api/upload"):
            assert client.post(path, content=b"x" * (2**20 + 1)).status_code == 413
            assert client.post(path, content=endless()).status_code == 411
        assert client.post("gradio_api/queue/join", content=b"x" * 2**20).status_code == 422  # read: it is no JSON


def test_a_message_that_is_too_long_or_empty_reaches_nobody_and_the_page_says_so(talk, server):
    asked_before = server.served.total()
    notice = "A message may have 100,000 characters; this one has 100,001."
    assert app._asked(talk, "x" * (app.LONGEST_MESSAGE + 1)) == notice
    assert app._asked(talk, " \n") == "Write a message first."
    assert talk.coming is None
    assert server.served.total() == asked_before
    assert app._asked(talk, "x" * app.LONGEST_MESSAGE) == ""


def test_the_pages_boxes_end_where_the_server_does():
    assert app._typed("n" * 5_000_000, app.LONGEST_NAME) == "n" * 100
    assert app._typed("\ud83d r", app.LONGEST_REASON) == "? r"
    assert f'maxlength="{app.LONGEST_REASON}"' in page.read("talk.html")
    assert f'maxlength="{app.LONGEST_REASON}"' in page.read("verdicts.html")


def test_passwords_are_looked_at_one_by_one_and_a_crowd_is_turned_away(monkeypatch):
    """A right one too: whoever guesses must not learn more from a crowd than from one guess at a time."""
    asleep, most, slept = 0, 0, []

    async def sleep(seconds):
        nonlocal asleep, most
        asleep += 1
        most = max(most, asleep)
        slept.append(seconds)
        await asyncio.sleep(0)
        asleep -= 1

    async def crowd():
        guesses = [lets_in("Ann", f"guess {number}") for number in range(serving.WAITING + 5)]
        return await asyncio.gather(*guesses, lets_in("Ann", "sesame"), return_exceptions=True)

    monkeypatch.setattr(serving, "asyncio", SimpleNamespace(sleep=sleep, Lock=asyncio.Lock))
    lets_in = serving._lets_in("sesame")
    answers = asyncio.run(crowd())
    assert answers[: serving.WAITING] == [False] * serving.WAITING
    assert [answer.status_code for answer in answers[serving.WAITING :]] == [429] * 6
    assert (most, slept) == (1, [serving.WRONG] * serving.WAITING)
    assert asyncio.run(lets_in("Ann", "sesame"))
    assert not asyncio.run(lets_in("Ann", "\ud83d"))


@pytest.mark.parametrize("path", ["/etc/passwd", "{store}", "../../../../etc/passwd", "http://192.0.2.1/x"])
def test_the_page_serves_no_file_of_this_machine(url, kept, path):
    kept.append(thumb(asked("?"), "a secret", True))
    with httpx.Client(base_url=url) as client:
        client.post("login", data={"username": "Ann", "password": "sesame"})
        answer = client.get(f"gradio_api/file={path.format(store=kept.path)}")
    assert answer.status_code in (403, 404)
    assert "root:" not in answer.text
    assert "secret" not in answer.text


def test_the_page_takes_no_files_and_may_load_from_and_send_to_itself_alone(url):
    with httpx.Client(base_url=url) as client:
        client.post("login", data={"username": "Ann", "password": "sesame"})
        assert client.post("gradio_api/upload", files={"files": b"a file"}).status_code == 413
        policy = client.get("").headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy


# --------------------------------------------------------------------------------------------------- command line


def test_the_command_says_what_is_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BNF_ALIGN_PASSWORD", raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    taken = socket.create_server(("127.0.0.1", 0))
    review = ["--review", str(prepared(tmp_path, {"prompt": "p", "candidates": ["a"]}))]
    for flags, message in {
        (): "--model_name_or_path",
        ("--store", "thumbs.csv", *review): ".jsonl",
        (*review, "--pairs"): "two different answers",
        (*review, "--password"): "BNF_ALIGN_PASSWORD",
        (*review, "--port", str(taken.getsockname()[1])): "--port",
        ("--model_name_or_path", "m", "--url", "localhost:8000"): "not a URL",
        ("--delete-user", "Ann", "--store", "other.jsonl"): "no file other.jsonl",
    }.items():
        assert main(["collect", *flags]) == 2
        assert message in capsys.readouterr().err
    taken.close()


def test_deleting_an_unknown_name_lists_the_known_ones(kept, capsys):
    kept.append(thumb(asked("?"), "!", True, user="Ann"))
    assert main(["collect", "--store", str(kept.path), "--delete-user", "Anne"]) == 2
    assert "Names in it: Ann" in capsys.readouterr().err
    assert len(kept.rows()) == 1


def test_a_deleted_person_leaves_neither_rows_nor_a_cache_and_the_others_keep_their_rows(kept, tmp_path, capsys):
    from bnf_align.reference.cache import ReferenceCache

    for number in range(8):
        kept.append(thumb(asked(f"{number}?"), "yes", True, user="Ann" if number in (2, 5) else "Bob"))
    ReferenceCache(tmp_path / "cache", {"weights": "w"}).write({b"k" * 16: np.array([-1.0], np.float32)})
    flags = ["--ref_cache_dir", str(tmp_path / "cache")]
    assert main(["collect", "--store", str(kept.path), "--delete-user", "Ann", *flags]) == 0
    said_text = capsys.readouterr().out
    assert "Deleted 2 rows" in said_text
    assert "Cleared the reference cache" in said_text
    assert [row["user"] for row in kept.rows()] == ["Bob"] * 6
    assert namespaces(tmp_path / "cache") == []


def test_without_a_cache_named_the_rows_go_and_the_cache_is_not_said_to_be_clean(kept, capsys):
    kept.append(thumb(asked("?"), "!", True, user="Ann"))
    assert main(["collect", "--store", str(kept.path), "--delete-user", "Ann"]) == 0
    said_text = capsys.readouterr().out
    assert "was not touched" in said_text
    assert "bnf-align reference gc --older_than_days 0" in said_text
    assert kept.rows() == []
