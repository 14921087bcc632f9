"""Answers on their way: shown as they are written, ended when nobody wants them, and never kept by halves."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from bnf_align.endpoint import Endpoint
from bnf_align.engines import Sampling
from bnf_align.engines.local import LocalEngine
from bnf_align.feedback import page
from bnf_align.feedback import talk as talking
from bnf_align.feedback.answerer import LocalAnswerer, UrlAnswerer
from bnf_align.feedback.app import chat_page
from bnf_align.feedback.serve import serve
from bnf_align.feedback.store import Store
from bnf_align.feedback.talk import BROKEN, EMPTY, STOPPED, Place, Talk
from model_server import ModelServer
from tiny_models import chatml_tokenizer
from tiny_nets import tiny_llama

TESTS = Path(__file__).parent
WORDS = "one two three four five six seven eight"


@pytest.fixture
def kept(tmp_path) -> Store:
    return Store(tmp_path / "feedback.jsonl")


def served(url: str, retries: int = 0) -> UrlAnswerer:
    return UrlAnswerer(Endpoint(url, "a-model", retries=retries, backoff=0.01, timeout=5.0), Sampling(0.8))


@pytest.fixture(scope="module")
def in_process() -> LocalAnswerer:
    tokenizer = chatml_tokenizer()
    engine = LocalEngine(tiny_llama(len(tokenizer), seed=3), tokenizer, "tiny")
    return LocalAnswerer(engine, Sampling(max_new_tokens=120))


def until(condition, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def watched(talk: Talk) -> list[str]:
    """The first answer as far as it was written each time that it was looked at, until it has ended."""
    return [talk.coming.texts[0] for _ in talk.watch() if talk.coming]


def test_a_served_answer_is_on_the_page_word_by_word_before_it_has_ended(kept):
    shown = 0
    with ModelServer(answer=lambda body: WORDS, gate=lambda sent: sent > shown) as server:
        talk = Talk([served(server.url)], kept)
        talk.ask("count")
        watching = threading.Thread(target=watched, args=[talk])
        watching.start()
        for number, word in enumerate(WORDS.split()):
            until(lambda: not talk.coming or talk.coming.texts[0].split() == WORDS.split()[: number + 1])  # noqa: B023
            html = page.show_talk(talk)
            assert word in html
            assert "data-verdict" not in html or number == 7  # half an answer has no thumbs
            shown = number + 1
        watching.join()
    assert talk.turns[0].answers[0].text == WORDS


def test_an_answer_in_process_grows_and_what_was_shown_of_it_stays(in_process, kept, monkeypatch):
    monkeypatch.setattr(talking, "PACE", 0.001)
    talk = Talk([in_process], kept)
    talk.ask("hello")
    seen = watched(talk)
    assert talk.problem == ""
    whole = talk.turns[0].answers[0].text
    assert len({len(text) for text in seen}) > 3
    assert all(whole.startswith(text) for text in seen)


def test_an_answer_that_is_cut_off_says_so_on_the_page_and_in_its_row(in_process, kept):
    tokenizer = chatml_tokenizer()
    short = LocalAnswerer(LocalEngine(tiny_llama(len(tokenizer), seed=3), tokenizer, "t"), Sampling(max_new_tokens=3))
    talk = Talk([short], kept)
    talk.ask("hello")
    watched(talk)
    assert "cut off at its longest" in page.show_talk(talk)
    talk.rate(Place(talk.id, 0), False)
    assert kept.rows()[0]["cut"] is True
    with ModelServer() as server:
        whole = Talk([served(server.url)], kept)
        whole.ask("hello")
        watched(whole)
    assert "cut off" not in page.show_talk(whole)
    whole.rate(Place(whole.id, 0), True)
    assert "cut" not in kept.rows()[1]


@pytest.mark.parametrize("kind", ["served", "in process"])
def test_of_an_answer_that_is_stopped_nothing_is_kept_and_the_question_comes_back(kind, in_process, kept):
    with ModelServer(answer=lambda body: WORDS, gate=lambda sent: sent > 2) as server:
        talk = Talk([served(server.url) if kind == "served" else in_process], kept)
        talk.ask("count")
        until(lambda: talk.coming and talk.coming.texts[0])
        ended = talk.coming.ended
        talk.stop()
        assert ended.wait(30)
        assert (talk.turns, talk.coming, talk.unanswered, talk.problem) == ([], None, "count", STOPPED)
        assert "one two" not in page.show_talk(talk)
    if kind == "in process":  # the model is free for the next one
        talk.ask("hello")
        watched(talk)
        assert [turn.question for turn in talk.turns] == ["hello"]
    assert kept.path.read_bytes() == b""


def test_an_answer_that_nobody_looks_at_is_given_up_and_the_server_is_told(kept, monkeypatch):
    monkeypatch.setattr(talking, "ALONE", 0.3)
    with ModelServer(answer=lambda body: "word " * 10_000, pace=0.01) as server:
        talk = Talk([served(server.url)], kept)
        talk.ask("count")
        until(lambda: talk.coming is None)
        assert (talk.turns, talk.unanswered) == ([], "count")
        until(lambda: server.busy == 0)
        assert 0 < server.streamed["count"] < 5_000


def test_an_answer_that_is_looked_at_may_take_as_long_as_it_wants(kept, monkeypatch):
    monkeypatch.setattr(talking, "ALONE", 0.5)
    with ModelServer(answer=lambda body: WORDS, pace=0.15) as server:
        talk = Talk([served(server.url)], kept)
        talk.ask("count")
        watched(talk)
    assert talk.turns[0].answers[0].text == WORDS


@pytest.mark.parametrize("fault", ["torn", "error", "cut", "500", "rubbish"])
def test_an_answer_that_breaks_off_is_none_and_is_asked_for_once_more(fault, kept):
    with ModelServer(answer=lambda body: WORDS, first=[fault, fault]) as server:
        talk = Talk([served(server.url)], kept)
        talk.ask("count")
        watched(talk)
        assert (talk.turns, talk.unanswered) == ([], "count")
        assert talk.problem.startswith("The model server did not answer this: ")
        again = Talk([served(server.url, retries=1)], kept)
        again.ask("count")
        watched(again)
        assert again.turns[0].answers[0].text == WORDS
        assert server.failed == {fault: 2}


def test_a_server_that_does_not_stream_is_read_all_the_same(kept):
    with ModelServer(answer=lambda body: WORDS, streams=False) as server:
        talk = Talk([served(server.url)], kept)
        talk.ask("count")
        watched(talk)
        assert server.bodies[0]["stream"] is True
    assert talk.turns[0].answers[0].text == WORDS


def test_a_model_that_breaks_is_said_and_the_next_question_is_answered(kept, in_process, caplog):
    class Broken(LocalAnswerer):
        def stream(self, messages):
            yield next(super().stream(messages))
            if messages[-1]["content"] == "one":
                raise RuntimeError("CUDA error: an illegal memory access")
            yield from super().stream(messages)

    talk = Talk([Broken(in_process._engine, in_process._sampling)], kept)
    talk.ask("one")
    watched(talk)
    assert (talk.problem, talk.turns, talk.unanswered) == (BROKEN, [], "one")
    assert "illegal memory access" in caplog.text
    assert "illegal" not in page.show_talk(talk, talk.problem)
    talk.ask("two")
    watched(talk)
    assert [turn.question for turn in talk.turns] == ["two"]


def test_nothing_but_blanks_is_no_answer(kept):
    with ModelServer(answer=lambda body: " \n") as server:
        talk = Talk([served(server.url)], kept)
        talk.ask("count")
        watched(talk)
    assert (talk.problem, talk.turns) == (EMPTY, [])


def test_two_people_who_ask_one_model_in_process_at_once_both_get_their_own_answer(in_process, kept):
    people = [Talk([in_process], kept) for _ in range(2)]
    for number, talk in enumerate(people):
        talk.ask(f"I am {number}")
    for thread in [threading.Thread(target=watched, args=[talk]) for talk in people]:
        thread.start()
    for number, talk in enumerate(people):
        until(lambda talk=talk: talk.coming is None)
        assert [turn.question for turn in talk.turns] == [f"I am {number}"]
    alone = Talk([in_process], kept)  # greedy, so what is said does not depend on who asks beside
    alone.ask("I am 1")
    watched(alone)
    assert alone.turns[0].answers == people[1].turns[0].answers


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from bnf_align.engines import Sampling
from bnf_align.engines.local import LocalEngine
from bnf_align.feedback.answerer import LocalAnswerer
from bnf_align.feedback.store import Store
from bnf_align.feedback.talk import Place, Talk
from tiny_models import chatml_tokenizer
from tiny_nets import tiny_llama
tokenizer = chatml_tokenizer()
engine = LocalEngine(tiny_llama(len(tokenizer), seed=3), tokenizer, "tiny")
class Slow(LocalAnswerer):
    def stream(self, messages):
        for one in super().stream(messages):
            yield one
            time.sleep(0.02)
talk = Talk([Slow(engine, Sampling(max_new_tokens=100))], Store(sys.argv[2]))
talk.ask("one")
for _ in talk.watch():
    pass
talk.rate(Place(talk.id, 0), False, "Ann")
print("rated", flush=True)
talk.ask("two")
for _ in talk.watch():
    if talk.coming and talk.coming.texts[0]:
        print("half", flush=True)
"""


@pytest.mark.slow
def test_a_kill_in_the_middle_of_an_answer_loses_nothing_that_was_rated_and_keeps_no_half(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(TESTS), str(tmp_path / "feedback.jsonl")]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "rated\n"
    before = (tmp_path / "feedback.jsonl").read_bytes()
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / "feedback.jsonl").read_bytes() == before
    (row,) = Store(tmp_path / "feedback.jsonl").rows()
    assert (row["user"], row["label"], row["prompt"][0]["content"]) == ("Ann", False, "one")


# The page itself, over HTTP as a browser asks it


@pytest.fixture
def page_of(kept):
    """Serves a page for an answerer; returns its URL and the number of its function that asks."""
    opened = []

    def start(answerer) -> tuple[str, int]:
        blocks = chat_page([answerer], kept)
        opened.append(blocks)
        url = serve(blocks)
        return url, next(number for number, fn in blocks.fns.items() if fn.name == "ask")

    yield start
    for blocks in opened:
        blocks.close(verbose=False)


def events(client: httpx.Client, session: str):
    with client.stream("GET", "gradio_api/queue/data", params={"session_hash": session}, timeout=30) as answer:
        for line in answer.iter_lines():
            if line.startswith("data:"):
                yield json.loads(line[5:])


def test_the_page_sends_an_answer_piece_by_piece(page_of, kept):
    sent = 0
    with ModelServer(answer=lambda body: WORDS, gate=lambda number: number > sent) as server:
        url, ask = page_of(served(server.url))
        with httpx.Client(base_url=url) as client:
            question = {"fn_index": ask, "session_hash": "s1", "data": [None, "", "count"]}
            assert client.post("gradio_api/queue/join", json=question).status_code == 200
            pieces = []
            for event in events(client, "s1"):
                text = json.dumps(event)
                if event["msg"] == "process_generating":
                    pieces += [word for word in WORDS.split() if word in text and word not in pieces]
                    sent = len(pieces)
                if event["msg"] == "process_completed":
                    break
    assert pieces == WORDS.split()  # none was sent before the one ahead of it was on the page
    assert event["success"]


def test_a_page_that_is_closed_ends_the_answer(page_of, monkeypatch):
    monkeypatch.setattr(talking, "ALONE", 0.5)
    with ModelServer(answer=lambda body: "word " * 10_000, pace=0.01) as server:
        url, ask = page_of(served(server.url))
        with httpx.Client(base_url=url) as client:
            question = {"fn_index": ask, "session_hash": "s2", "data": [None, "", "count"]}
            client.post("gradio_api/queue/join", json=question)
            for event in events(client, "s2"):
                if "word word" in json.dumps(event):
                    break
        until(lambda: server.busy == 0)
        assert 0 < server.streamed["count"] < 5_000
