"""No answer is paid for twice, no budget is exceeded, and no failure of the judge is more than a count."""

import json
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bnf_align.endpoint import Endpoint
from bnf_align.judge import Judge
from bnf_align.records import BadInput
from model_server import Instead, ModelServer, prompt_of

KEY = "sk-a-secret-of-many-letters"
PRICES = (2.0, 8.0)


def judge_at(server, folder, *, model="a-judge", prices=PRICES, budget=None, **settings) -> Judge:
    settings = {"timeout": 30, "backoff": 0.001, "retries": 20, **settings}
    return Judge(Endpoint(server.url, model, **settings), folder, prices, budget)


def questions(count, start=0) -> list[tuple[str, list]]:
    return [(f"q{i}", [{"role": "user", "content": f"question {i}"}]) for i in range(start, start + count)]


def texts(judgments) -> dict[str, str]:
    return {one.id: one.text for one in judgments}


def answers(count) -> dict[str, str]:
    return {f"q{i}": f"answer to question {i}" for i in range(count)}


def served_cost(server) -> float:
    """What the server charges for what it sent whole: a token a character."""
    prompts = sum(len(json.dumps(body["messages"])) for body in server.bodies if server.served[prompt_of(body)])
    return (prompts * PRICES[0] + sum(len(f"answer to {p}") for p in server.served.elements()) * PRICES[1]) / 1e6


# Asking


def test_every_question_gets_the_judges_text_and_token_counts(tmp_path):
    with ModelServer() as server:
        judgments = list(judge_at(server, tmp_path).ask(questions(50), max_tokens=64))
        assert texts(judgments) == answers(50)
        first = next(one for one in judgments if one.id == "q0")
    tokens = (len(json.dumps(questions(1)[0][1])), len("answer to question 0"))
    assert first == ("q0", "answer to question 0", *tokens, False, None, "stop")


def test_what_is_sent_to_the_judge(tmp_path):
    with ModelServer() as server:
        list(judge_at(server, tmp_path).ask(questions(1), max_tokens=64, json_mode=True))
        list(judge_at(server, tmp_path).ask(questions(1), max_tokens=32))
    common = {"model": "a-judge", "messages": [{"role": "user", "content": "question 0"}]}
    assert server.bodies == [
        {**common, "max_tokens": 64, "temperature": 0.0, "response_format": {"type": "json_object"}},
        {**common, "max_tokens": 32, "temperature": 0.0},
    ]


def test_fields_of_the_request_are_added_and_left_out_and_make_another_question(tmp_path):
    """Some judges want `max_completion_tokens`, no temperature or no JSON mode."""
    request = {"max_tokens": None, "max_completion_tokens": 9, "temperature": None, "response_format": None}
    with ModelServer() as server:
        for fields in ({}, request):
            judge = Judge(Endpoint(server.url, "a-judge"), tmp_path, request=fields)
            list(judge.ask(questions(1), max_tokens=64, json_mode=True))
    body = {"model": "a-judge", "messages": [{"role": "user", "content": "question 0"}], "max_completion_tokens": 9}
    assert server.bodies[1:] == [body]


def test_tokens_and_cost_are_counted(tmp_path):
    with ModelServer() as server:
        judge = judge_at(server, tmp_path)
        judgments = list(judge.ask(questions(9), max_tokens=64))
    prompt, completion = sum(one.prompt_tokens for one in judgments), sum(one.completion_tokens for one in judgments)
    assert judge.counts == {"answered": 9, "prompt_tokens": prompt, "completion_tokens": completion}
    assert judge.spent == pytest.approx((2 * prompt + 8 * completion) / 1e6, rel=1e-12)
    assert judge.spent == pytest.approx(served_cost(server), rel=1e-12)


def test_equal_questions_are_asked_once(tmp_path):
    twice = [("a", questions(1)[0][1]), ("b", questions(1)[0][1])]
    with ModelServer() as server:
        judgments = {one.id: one for one in judge_at(server, tmp_path).ask(twice, max_tokens=64)}
        assert server.received == {"question 0": 1}
    assert judgments["a"].text == judgments["b"].text == "answer to question 0"
    assert (judgments["a"].cached, judgments["b"].cached) == (False, True)


# The cache


def test_a_repeat_costs_nothing_and_says_so(tmp_path):
    with ModelServer() as server:
        first = list(judge_at(server, tmp_path).ask(questions(30), max_tokens=64))
        server.received.clear()
        judge = judge_at(server, tmp_path)
        second = list(judge.ask(questions(30), max_tokens=64))
        assert server.received == {}
    assert [one.id for one in second] == [name for name, _ in questions(30)], "cached ones in the order asked"
    assert {one._replace(cached=False) for one in second} == set(first)
    assert all(one.cached for one in second)
    assert (judge.spent, judge.counts) == (0.0, {"cached": 30})


@pytest.mark.parametrize("change", [{"model": "another"}, {"max_tokens": 65}, {"json_mode": True}, {"system": True}])
def test_another_judge_length_or_message_is_another_question(tmp_path, change):
    asked = questions(1)
    with ModelServer() as server:
        list(judge_at(server, tmp_path).ask(asked, max_tokens=64))
        if change.pop("system", False):
            asked = [("q0", [{"role": "system", "content": "be strict"}, *asked[0][1]])]
        judge = judge_at(server, tmp_path, model=change.pop("model", "a-judge"))
        list(judge.ask(asked, **{"max_tokens": 64, **change}))
        assert server.served["question 0"] == 2


def test_an_answer_is_on_disk_before_it_is_yielded(tmp_path):
    with ModelServer() as server:
        for one in judge_at(server, tmp_path).ask(questions(20), max_tokens=64):
            assert one.text in "".join(path.read_text() for path in tmp_path.rglob("*.jsonl"))


def test_answers_that_nobody_took_are_kept(tmp_path):
    """Whoever iterates may stop, or fail, while further answers are there already."""
    with ModelServer() as server:
        judgments = judge_at(server, tmp_path).ask(questions(40), max_tokens=64)
        next(judgments)
        while len(cached_prompts(tmp_path)) < 40:
            time.sleep(0.001)
        judgments.close()
        assert texts(judge_at(server, tmp_path).ask(questions(40), max_tokens=64)) == answers(40)
        assert set(server.served.values()) == {1}


def test_two_judges_at_once_share_a_folder(tmp_path):
    with ModelServer() as server:
        one, two = judge_at(server, tmp_path), judge_at(server, tmp_path)
        first, second = one.ask(questions(10), 64), two.ask(questions(10, start=10), 64)
        assert texts(pair for both in zip(first, second, strict=True) for pair in both) == answers(20)
        assert texts(judge_at(server, tmp_path).ask(questions(20), 64)) == answers(20)
        assert server.served.total() == 20


def test_a_torn_cache_line_costs_that_answer_alone(tmp_path, caplog):
    with ModelServer() as server:
        list(judge_at(server, tmp_path).ask(questions(10), max_tokens=64))
        (shard,) = tmp_path.rglob("*.jsonl")
        shard.write_bytes(shard.read_bytes()[:-20])
        assert texts(judge_at(server, tmp_path).ask(questions(10), max_tokens=64)) == answers(10)
        assert server.served.total() == 11
    assert "1 lines are damaged and ignored" in caplog.text


def test_half_a_surrogate_pair_survives_the_cache(tmp_path):
    with ModelServer(answer=lambda body: "half \ud83d") as server:
        for _ in range(2):
            assert texts(judge_at(server, tmp_path).ask(questions(1), max_tokens=64)) == {"q0": "half \ud83d"}
        assert server.served.total() == 1


ASKER = """
import sys
sys.path.insert(0, sys.argv[4])
from test_judge import judge_at, questions
from types import SimpleNamespace
judge = judge_at(SimpleNamespace(url=sys.argv[1]), sys.argv[2], concurrency=64)
assert all(one.error is None for one in judge.ask(questions(int(sys.argv[3])), max_tokens=64))
"""


def cached_prompts(folder) -> set[str]:
    """Prompts whose answer is whole on disk."""
    lines = [line for path in folder.rglob("*.jsonl") for line in path.read_bytes().split(b"\n")[:-1]]
    return {json.loads(line)["text"].removeprefix("answer to ") for line in lines}


@pytest.mark.slow
def test_killed_and_resumed_no_answer_received_is_asked_for_again(tmp_path):
    """2,000 calls, 30 % failures, two kills; `benchmarks/judge_calls.py` does the same with 10,000."""
    total = 2000
    with ModelServer(failures=0.3) as server:
        command = [sys.executable, "-c", ASKER, server.url, str(tmp_path), str(total), str(Path(__file__).parent)]
        kept = set()
        for goal in (300, 1100, None):
            before = server.received.copy()
            asker = subprocess.Popen(command)
            while asker.poll() is None and (goal is None or server.served.total() < goal):
                time.sleep(0.005)
            asker.send_signal(signal.SIGKILL) if goal else None
            assert asker.wait() == (-signal.SIGKILL if goal else 0)
            assert not [prompt for prompt in kept if server.received[prompt] != before[prompt]]
            kept = cached_prompts(tmp_path)
            # Only what the kill met between the server's socket and the disk is lost, and asked again.
            assert len(server.served) - len(kept) <= 64
        assert len(kept) == total
        assert server.served.total() - total <= 2 * 64


# Failures


def test_a_judge_that_returns_rubbish_is_a_count_and_no_crash(tmp_path):
    with ModelServer(failures=1.0) as server:
        judge = judge_at(server, tmp_path, retries=2)
        judgments = list(judge.ask(questions(30), max_tokens=64))
    assert [one.text for one in judgments] == [""] * 30
    assert all("after 3 attempts" in one.error for one in judgments)
    assert judge.counts == {"failed": 30}
    assert sum(judge.endpoint.unanswered.values()) == 90


def test_a_failure_is_not_remembered(tmp_path):
    with ModelServer(first=["500"]) as server:
        judge = judge_at(server, tmp_path, retries=0)
        assert {one.error for one in judge.ask(questions(5), max_tokens=64)} == {"HTTP 500, after 1 attempts"}
        assert texts(judge.ask(questions(5), max_tokens=64)) == answers(5)


def test_the_key_is_in_no_file_log_or_error(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def answer(body):
        if prompt_of(body) == "question 3":
            raise Instead(401, f"no access for {KEY}")
        return f"you sent {KEY}"

    with ModelServer(answer=answer) as server:
        judge = judge_at(server, tmp_path, concurrency=1)
        with pytest.raises(BadInput, match="no access for") as raised:
            list(judge.ask(questions(5), max_tokens=64))
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert files.count(b"you sent [key]") == 3
    assert KEY not in files.decode() + caplog.text + str(raised.value) + repr(judge.endpoint) + str(vars(judge))


# Budget


@pytest.mark.parametrize("failures", [0.0, 0.3])
def test_a_budget_stops_before_it_is_exceeded_and_not_much_before(tmp_path, failures):
    # Each answer costs 0.00024 to 0.0003 and at most 0.001; what is lost on the way may have been charged.
    budget = 0.02
    with ModelServer(failures=failures, delay=0.005) as server:
        judge = judge_at(server, tmp_path, budget=budget, concurrency=32)
        with pytest.raises(BadInput, match=r"The budget of 0.02 is used up: .* questions are not asked yet") as raised:
            list(judge.ask(questions(200), max_tokens=64))
        assert served_cost(server) <= judge.spent + 1e-12 <= budget
        assert judge.spent > budget - 0.001, "it goes on until one more call could be too much"
        assert len(cached_prompts(tmp_path)) == server.served.total() == judge.counts["answered"]
        assert f"{200 - server.served.total():,} questions" in str(raised.value)
        if not failures:
            assert judge.spent == pytest.approx(served_cost(server), rel=1e-12)

        rest = judge_at(server, tmp_path)
        assert texts(rest.ask(questions(200), max_tokens=64)) == answers(200)
        assert rest.counts["cached"] == judge.counts["answered"]
        assert set(server.served.values()) == {1}


def test_judgments_within_the_budget_are_yielded_before_the_stop(tmp_path):
    with ModelServer() as server:
        judgments = judge_at(server, tmp_path, budget=0.002).ask(questions(50), max_tokens=64)
        got = []
        with pytest.raises(BadInput, match="Every answer is kept"):
            got.extend(judgments)
        assert len(got) == server.served.total() > 0


def test_cached_answers_come_even_when_the_budget_is_zero(tmp_path):
    with ModelServer() as server:
        list(judge_at(server, tmp_path).ask(questions(5), max_tokens=64))
        judgments = judge_at(server, tmp_path, budget=0.0).ask(questions(6), max_tokens=64)
        assert texts(next(judgments) for _ in range(5)) == answers(5)
        with pytest.raises(BadInput, match="0 is spent, 1 questions"):
            next(judgments)
        assert server.received.total() == 5


def test_the_budget_holds_over_several_asks(tmp_path):
    with ModelServer() as server:
        judge = judge_at(server, tmp_path, budget=0.003)
        list(judge.ask(questions(5), max_tokens=64))
        with pytest.raises(BadInput):
            list(judge.ask(questions(50, start=5), max_tokens=64))
        assert judge.spent == pytest.approx(served_cost(server), rel=1e-12)
        assert judge.spent <= 0.003


def test_an_answer_without_token_counts_is_charged_at_its_worst(tmp_path):
    with ModelServer(usage=False) as server:
        judge = judge_at(server, tmp_path, budget=10.0)
        list(judge.ask(questions(1), max_tokens=64))
    # 10 bytes of text, 16 tokens for the message's header, 128 for the template.
    assert judge.spent == pytest.approx(((10 + 16 + 128) * 2 + 64 * 8) / 1e6, rel=1e-12)


def test_a_budget_without_prices_is_refused(tmp_path):
    with ModelServer() as server, pytest.raises(BadInput, match="--prices"):
        judge_at(server, tmp_path, prices=None, budget=1.0)


# The dry run


def test_an_estimate_makes_no_call_and_counts_what_is_new(tmp_path):
    asked = [(f"q{i}", [{"role": "user", "content": "x" * 4000 + str(i)}]) for i in range(10)]
    with ModelServer() as server:
        judge = judge_at(server, tmp_path)
        list(judge.ask(asked[:3], max_tokens=100))
        server.received.clear()
        estimate = judge.estimate([*asked, ("again", asked[9][1])], max_tokens=100)
        assert server.received == {}
    # 4,001 bytes are 1,000 tokens, and 8 for the header.
    assert (estimate.questions, estimate.cached) == (11, 4)
    assert (estimate.prompt_tokens, estimate.completion_tokens) == (7 * 1008, 7 * 100)
    assert estimate.cost == pytest.approx((7 * 1008 * 2 + 700 * 8) / 1e6, rel=1e-12)
    assert "11 questions, 4 of them answered before and free" in estimate.lines()[0]


def test_an_estimate_without_prices_has_no_cost(tmp_path):
    with ModelServer() as server:
        estimate = judge_at(server, tmp_path, prices=None).estimate(questions(1), max_tokens=100)
    assert estimate.cost is None
    assert "unknown without prices" in estimate.lines()[-1]
    assert list(tmp_path.iterdir()) == []
