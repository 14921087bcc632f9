"""Calls come back whole through every failure a server knows, and keys never come back at all."""

import itertools
import logging
import socket
import threading
import time
import traceback

import pytest

from bnf_align.endpoint import Call, Endpoint, Unanswered
from bnf_align.endpoint.call import read_reply
from bnf_align.endpoint.server import _wait
from bnf_align.records import BadInput
from model_server import KINDS, Instead, ModelServer, prompt_of

KEY = "sk-a-secret-of-many-letters"


def endpoint(*servers, **settings) -> Endpoint:
    urls = [getattr(server, "url", server) for server in servers]
    return Endpoint(urls, "a-model", **{"timeout": 30, "backoff": 0.001, **settings})


def calls(count, **fields) -> list[Call]:
    return [Call(str(i), [{"role": "user", "content": f"question {i}"}], **fields) for i in range(count)]


def texts(replies) -> dict[str, list[str]]:
    return {reply.id: reply.texts for reply in replies}


def answers(count) -> dict[str, list[str]]:
    return {str(i): [f"answer to question {i}"] for i in range(count)}


def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


# What is sent and what comes back


def test_every_call_gets_its_reply_once():
    with ModelServer() as server:
        replies = list(endpoint(server).chat(calls(100)))
        assert texts(replies) == answers(100)
        assert len(replies) == 100
        assert set(server.served.values()) == {1}


def test_a_reply_carries_reasons_and_the_servers_token_counts():
    with ModelServer(answer=lambda body: ["one", "three"]) as server:
        (reply,) = endpoint(server).chat([Call("x", "text", extra={"n": 2})])
    assert reply == ("x", ["one", "three"], ["stop", "stop"], 8, len('"text"'), None)


def test_token_counts_are_none_where_the_server_does_not_count():
    with ModelServer(usage=False) as server:
        (reply,) = endpoint(server).chat(calls(1))
    assert (reply.prompt_tokens, reply.completion_tokens) == (None, None)


def test_only_what_is_set_is_sent_and_extra_fields_can_take_one_out():
    with ModelServer() as server:
        list(endpoint(server).chat([Call("a", "text")]))
        extra = {"n": 1, "top_k": 5, "max_tokens": None}
        sampling = {"max_tokens": 9, "temperature": 0.0, "top_p": 1.0, "seed": 0, "stop": ("x",)}
        list(endpoint(server).chat([Call("b", [{"role": "user", "content": "c"}], **sampling, extra=extra)]))
    assert server.bodies == [
        {"model": "a-model", "prompt": "text"},
        {
            "model": "a-model",
            "messages": [{"role": "user", "content": "c"}],
            **{"n": 1, "temperature": 0.0, "top_p": 1.0, "seed": 0, "stop": ["x"], "top_k": 5},
        },
    ]


def test_half_a_surrogate_pair_in_a_prompt_is_sent_as_a_replacement_character():
    with ModelServer() as server:
        (reply,) = endpoint(server).chat([Call("a", "half \ud83d, whole \ud83d\ude00")])
    assert reply.texts == ["answer to half \ufffd, whole \U0001f600"]


def test_replies_come_as_they_are_ready_and_a_slow_one_holds_up_none():
    here = []
    with ModelServer(hold=lambda body: prompt_of(body) == "question 0" and len(here) < 29) as server:
        for reply in endpoint(server).chat(calls(30)):
            here.append(reply.id)
    assert len(here) == 30
    assert here[-1] == "0"


def test_the_number_of_calls_on_their_way_is_bounded():
    with ModelServer(hold=lambda body: server.busiest < 7) as server:
        list(endpoint(server, concurrency=7).chat(calls(70)))
        assert server.busiest == 7


def test_calls_are_taken_as_places_become_free():
    taken = []

    def endless():
        for call in (Call(str(i), "x") for i in itertools.count()):
            taken.append(call)
            yield call

    with ModelServer(hold=lambda body: server.served.total() > 0) as server:
        replies = endpoint(server, concurrency=4).chat(endless())
        next(replies)
        replies.close()
        assert len(taken) <= 5, "one answer, and four calls on their way"


def test_closing_the_iterator_cancels_what_is_on_its_way():
    with ModelServer(delay=lambda body: 60.0 if prompt_of(body) != "question 0" else 0.0) as server:
        replies = endpoint(server).chat(calls(5))
        assert next(replies).id == "0"
        replies.close()
        assert "endpoint" not in {thread.name for thread in threading.enumerate()}


def test_an_error_of_whoever_makes_the_calls_reaches_whoever_iterates():
    def broken():
        yield Call("a", "x")
        raise KeyError("a column")

    with ModelServer() as server, pytest.raises(KeyError, match="a column"):
        list(endpoint(server).chat(broken()))


def test_what_runs_around_an_attempt_sees_it_first_and_may_drop_the_call():
    seen = []

    async def around(call, attempt):
        if call.id == "3":
            return None
        reply = await attempt()
        seen.append(reply.id)
        return reply

    with ModelServer() as server:
        for reply in (replies := endpoint(server, concurrency=2).chat(calls(9), around)):
            assert reply.id in seen
        assert server.received["question 3"] == 0
    assert next(replies, None) is None
    assert sorted(seen) == list("01245678")


# Failures


@pytest.mark.parametrize("kind", [*KINDS, "408", "409", "502", "503", "504"])
def test_a_failed_attempt_is_repeated(kind):
    with ModelServer(first=[kind, kind]) as server:
        one = endpoint(server)
        assert texts(one.chat(calls(20))) == answers(20)
        assert set(server.received.values()) == {3}
    assert sum(one.unanswered.values()) == 40, "every failure is counted"


def test_a_silent_server_is_given_up_and_asked_again():
    with ModelServer(first=["timeout"]) as server:
        one = endpoint(server, timeout=0.5)
        assert texts(one.chat(calls(3))) == answers(3)
        assert server.failed == {"timeout": 3}
    assert set(one.unanswered) == {"a time-out"}
    assert one.unanswered["a time-out"] >= 3  # where the machine is busy, an answer may come too late as well


def test_failures_are_named_and_counted():
    with ModelServer(first=KINDS) as server:
        one = endpoint(server)
        list(one.chat(calls(10)))
    assert one.unanswered == {
        "HTTP 500": 10,
        "HTTP 429": 10,
        "a cut connection": 20,
        "an answer that is not JSON": 20,
        "an answer in another form": 10,
    }


@pytest.mark.parametrize("seed", range(2))
def test_nothing_received_is_asked_for_again_under_30_percent_failures(seed):
    with ModelServer(failures=0.3, seed=seed) as server:
        replies = list(endpoint(server, retries=20).chat(calls(200)))
        assert texts(replies) == answers(200)
        assert set(server.served.values()) == {1}
        assert sum(server.failed.values()) > 40


def test_a_call_that_always_fails_gives_an_error_and_the_others_go_on():
    def answer(body):
        if prompt_of(body) == "question 1":
            raise Instead(500, "no")
        return "yes"

    with ModelServer(answer=answer) as server:
        replies = {reply.id: reply for reply in endpoint(server, retries=3).chat(calls(3))}
        assert server.received["question 1"] == 4
    assert (replies["1"].texts, replies["1"].error) == ([], "HTTP 500, after 4 attempts")
    assert replies["0"].error is replies["2"].error is None


def test_retry_after_is_honoured():
    with ModelServer(first=["429", "429"], retry_after=0.3) as server:
        assert texts(endpoint(server).chat(calls(5))) == answers(5)
        assert server.too_early == 0
        assert server.failed["429"] == 10


def test_retry_after_is_read_as_seconds_or_a_date():
    soon = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 5000))
    assert _wait({"retry-after": "1.5"}) == 1.5
    assert 4000 < _wait({"retry-after": soon}) < 5001
    assert _wait({"retry-after": "-3"}) == 0.0
    assert [_wait(headers) for headers in ({}, {"retry-after": "soon"}, {"retry-after": "nan"})] == [None] * 3


@pytest.mark.parametrize("body", ["[" * 100_000, "null", "[]", "3", '{"choices": []}', '{"choices": null}', "\xff"])
def test_an_answer_that_is_no_completion_is_counted_and_no_crash(body):
    def answer(_):
        raise Instead(200, body)

    with ModelServer(answer=answer) as server:
        replies = list(endpoint(server, retries=1).chat(calls(3)))
    assert all("after 2 attempts" in reply.error for reply in replies)
    assert len(replies) == 3


@pytest.mark.parametrize(
    "choice", [None, 3, {}, {"message": None}, {"message": {}}, {"message": {"content": ["x"]}}, {"text": 3}]
)
def test_a_choice_without_a_text_is_no_answer(choice):
    with pytest.raises(Unanswered):
        read_reply(Call("x", "y"), {"choices": [choice]})


def test_a_refusal_and_a_thought_without_end_are_empty_answers():
    reply = read_reply(Call("x", "y"), {"choices": [{"message": {"content": None}, "finish_reason": "length"}]})
    assert (reply.texts, reply.finish_reasons, reply.error) == ([""], ["length"], None)


# Where going on makes no sense


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refusal_of_everything_stops_at_once_and_says_why(status, monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with ModelServer(first=[str(status)] * 9) as server:
        with pytest.raises(BadInput) as raised:
            list(endpoint(server, concurrency=2, api_key_env="JUDGE_KEY").chat(calls(50)))
        assert sum(server.received.values()) <= 2
    message = str(raised.value)
    assert f"{server.url} refuses the model 'a-model' with HTTP {status}" in message
    assert f"failure {status}" in message
    assert "environment variable JUDGE_KEY, which is not set" in message


def test_what_is_done_before_a_stop_is_yielded():
    def answer(body):
        if prompt_of(body) == "question 5":
            raise Instead(401, "expired")
        return "yes"

    with ModelServer(answer=answer) as server:
        replies = endpoint(server, concurrency=1).chat(calls(9))
        assert [next(replies).id for _ in range(5)] == list("01234")
        with pytest.raises(BadInput, match="expired"):
            next(replies)


def test_a_prompt_that_is_too_long_fails_alone():
    def answer(body):
        if prompt_of(body) == "question 0":
            raise Instead(400, "This model's maximum context length is 4096 tokens.")
        return "yes"

    with ModelServer(answer=answer) as server:
        replies = {reply.id: reply for reply in endpoint(server, concurrency=1).chat(calls(4))}
        assert server.received["question 0"] == 1
    assert replies["0"].error == "HTTP 400: This model's maximum context length is 4096 tokens."
    assert [replies[name].texts for name in "123"] == [["yes"]] * 3


def test_a_400_after_an_answer_is_about_its_own_prompt():
    def answer(body):
        if prompt_of(body) == "question 2":
            raise Instead(400, "what is this")
        return "yes"

    with ModelServer(answer=answer) as server:
        replies = {reply.id: reply.error for reply in endpoint(server, concurrency=1).chat(calls(4))}
    assert replies == {"0": None, "1": None, "2": "HTTP 400: what is this", "3": None}


@pytest.mark.parametrize("sign", ["quota", "wait"])
def test_an_exhausted_quota_stops(sign):
    def answer(_):
        raise Instead(429, '{"error": {"code": "insufficient_quota"}}')

    server = ModelServer(answer=answer) if sign == "quota" else ModelServer(first=["429"], retry_after=3600)
    with server, pytest.raises(BadInput, match="HTTP 429"):
        list(endpoint(server).chat(calls(5)))


def test_a_server_that_is_not_there_is_named():
    url = closed_port()
    with pytest.raises(BadInput, match=f"No answer from {url}: no connection .*Is the server up"):
        list(endpoint(url, retries=2).chat(calls(5)))


# Several URLs


def test_several_urls_share_the_load():
    with ModelServer(delay=0.01) as one, ModelServer(delay=0.01) as two:
        assert texts(endpoint(one, two, concurrency=8).chat(calls(80))) == answers(80)
        assert (one.served + two.served).total() == 80
        assert min(one.served.total(), two.served.total()) > 20


def test_the_least_busy_url_is_asked_first():
    with ModelServer() as fast, ModelServer(hold=lambda body: fast.served.total() < 90) as slow:
        list(endpoint(slow, fast, concurrency=4).chat(calls(100)))
        assert slow.served.total() < 20


def test_a_dead_url_costs_no_answer():
    with ModelServer() as alive:
        assert texts(endpoint(closed_port(), alive).chat(calls(100))) == answers(100)


def test_a_failing_url_is_set_aside_and_used_again_when_it_works():
    def alone(_):  # once it works, an answer waits for a second call
        return ill.served.total() > 0 and ill.busiest < 2

    with ModelServer(failures=1.0, kinds=["500"], hold=alone) as ill, ModelServer(delay=0.01) as well:

        def until_both_serve():
            for number in range(3000):
                if number == 50:
                    assert ill.received.total() <= 8, "after three failures in a row it rests"
                    ill.failures, ill.busiest = 0.0, 0
                if ill.served.total() > 20:
                    return
                yield Call(str(number), f"question {number}")

        assert all(reply.error is None for reply in endpoint(ill, well, concurrency=4).chat(until_both_serve()))
        assert ill.busiest >= 2, "it has its share again"


# URLs and keys


def test_a_bare_host_gets_the_version():
    assert Endpoint("http://localhost:8000/", "m").urls == ["http://localhost:8000/v1"]
    assert Endpoint(["https://a.b/openai/v2/"], "m").urls == ["https://a.b/openai/v2"]


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://a.b", "", "http://", "http://[::1:8000"])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(BadInput, match="is not a URL"):
        Endpoint(url, "m")


def test_a_password_in_a_url_is_refused_without_repeating_it():
    for url in ("http://user:hidden@host/v1", "https://host/v1?api-key=hidden"):
        with pytest.raises(BadInput) as raised:
            Endpoint(url, "m")
        assert "hidden" not in str(raised.value)


def test_no_key_is_needed_where_the_server_wants_none(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with ModelServer() as server:
        assert texts(endpoint(server).chat(calls(2))) == answers(2)


def test_the_key_is_read_from_the_variable_named(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with ModelServer() as server:
        list(endpoint(server, api_key_env="JUDGE_KEY").chat(calls(2)))
        assert server.keys == {f"Bearer {KEY}"}


def test_a_server_that_sends_the_key_back_finds_it_nowhere(monkeypatch, caplog):
    """Not in a text, an error, a traceback or a log of any library at its most talkative."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    refuse = []

    def answer(body):
        if refuse:
            raise Instead(refuse[0], f"you sent {KEY} " + "x" * 190 + KEY)
        return f"you sent {KEY}"

    with ModelServer(answer=answer) as server:
        one = endpoint(server, retries=1)
        (reply,) = one.chat(calls(1))
        assert reply.texts == ["you sent [key]"]
        for status in (401, 400, 500):
            refuse[:] = [status]
            try:
                shown = str(list(one.chat(calls(1))))
            except BadInput as error:
                shown = "".join(traceback.format_exception(error)) + repr(error)
            assert KEY not in shown
            assert KEY[:12] not in shown
    assert KEY not in repr(one) + str(vars(one)) + caplog.text


def test_a_placeholder_key_is_no_secret_and_texts_that_hold_it_stay_whole(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")
    with ModelServer(answer=lambda body: "The list is EMPTY.") as server:
        (reply,) = endpoint(server).chat(calls(1))
    assert reply.texts == ["The list is EMPTY."]


# Answers on their way


def streamed(server, call=None, **settings):
    return endpoint(server, **settings).stream(call or calls(1)[0])


@pytest.mark.parametrize("prompt", ["question 0", [{"role": "user", "content": "question 0"}]], ids=["text", "chat"])
def test_a_streamed_reply_grows_until_it_is_the_whole(prompt):
    seen = 0
    with ModelServer(gate=lambda sent: sent > seen) as server:
        replies = []
        for reply in streamed(server, Call("x", prompt)):
            replies.append(reply)
            seen = len(reply.texts[0].split())
    assert replies[-1] == ("x", ["answer to question 0"], ["stop"], None, None, None)
    assert {reply.finish_reasons[0] for reply in replies[:-1]} == {""}
    sizes = [len(reply.texts[0].split()) for reply in replies]
    assert sizes == sorted(sizes)
    assert set(sizes) >= {1, 2, 3, 4}


@pytest.mark.parametrize("kind", [*KINDS, "torn", "error"])
def test_an_attempt_that_breaks_off_is_repeated_and_never_passes_for_a_whole_one(kind):
    with ModelServer(first=[kind]) as server:
        whole = list(streamed(server, retries=1))[-1]
        assert (whole.texts, whole.error) == (["answer to question 0"], None)
    with ModelServer(first=[kind]) as server:
        last = list(streamed(server, retries=0))[-1]
        assert (last.texts, last.finish_reasons) == ([], [])
        assert last.error.endswith("after 1 attempts")


def test_a_server_that_does_not_stream_gives_the_whole_at_once():
    with ModelServer(streams=False) as server:
        assert list(streamed(server))[-1].texts == ["answer to question 0"]


def test_a_stream_that_is_closed_ends_the_call():
    with ModelServer(answer=lambda body: "word " * 10_000, pace=0.005) as server:
        replies = streamed(server)
        while not next(replies).texts[0]:
            pass
        replies.close()
        end = time.monotonic() + 30
        while server.busy and time.monotonic() < end:
            time.sleep(0.01)
        assert server.busy == 0
        assert 0 < server.streamed["question 0"] < 9_000


def test_a_refusal_stops_a_stream_too():
    with ModelServer(first=["401"]) as server, pytest.raises(BadInput, match="401"):
        list(streamed(server))


def test_not_even_the_beginning_of_the_key_is_shown_on_the_way(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    text = f"it is {KEY} and no other"
    with ModelServer(answer=lambda body: text, pieces=list, pace=0.02) as server:  # a letter at a time
        seen = [reply.texts[0] for reply in streamed(server)]
    assert seen[-1] == "it is [key] and no other"
    assert not any(KEY[:size] in one for one in seen for size in range(5, len(KEY)))
    assert any("it is" in one and "[key]" not in one for one in seen)
