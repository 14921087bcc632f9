"""Prompts from where they lie, and candidates of one job or several: nothing lost, nothing made twice."""

import copy
import json
import re
import weakref
from functools import partial

import pytest

from bnf_align.construct.generate import Job, generate
from bnf_align.construct.prompts import as_messages, read_prompts
from bnf_align.endpoint import Endpoint
from bnf_align.engines import Sampling
from bnf_align.engines.local import LazyEngine, Limits, LocalEngine
from bnf_align.engines.url import UrlEngine
from bnf_align.journal import read_jsonl
from bnf_align.records import BadInput
from model_server import ModelServer, prompt_of
from tiny_models import chatml_tokenizer
from tiny_nets import tiny_llama


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


# ---------------------------------------------------------------------------------------------------- prompts


def test_prompts_are_found_under_their_usual_names_and_other_columns_travel_along(tmp_path):
    rows = [{"question": "2 + 2?", "answer": "#### 4"}, {"question": "1 + 1?", "answer": "#### 2", "id": 7}]
    first, second = read_prompts(write(tmp_path / "a.jsonl", rows))
    assert (first["prompt"], first["answer"]) == ("2 + 2?", "#### 4")
    assert second == {"id": "7", "prompt": "1 + 1?", "answer": "#### 2"}
    (again,) = read_prompts(write(tmp_path / "b.jsonl", [{"instruction": "2 + 2?", "id": None}]))
    assert again["id"] == first["id"]  # the same prompt in any file
    assert read_prompts(write(tmp_path / "c.jsonl", [{"q": "hm"}]), column="q")[0]["prompt"] == "hm"
    assert len(read_prompts(write(tmp_path / "d.jsonl", rows * 1), limit=1)) == 1


def test_a_conversation_gives_up_the_answer_it_ends_with(tmp_path):
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    answer = {"role": "assistant", "content": "Hello"}
    (row,) = read_prompts(write(tmp_path / "a.jsonl", [{"messages": [*turns, answer]}]))
    assert row["prompt"] == [turns[0], {"role": "user", "content": "Hi"}]
    with pytest.raises(BadInput, match="only answers"):
        read_prompts(write(tmp_path / "b.jsonl", [{"messages": [answer]}]))
    with pytest.raises(BadInput, match="role"):
        read_prompts(write(tmp_path / "c.jsonl", [{"messages": [{"who": "human", "said": "Hi"}]}]))


def test_a_prompt_is_what_training_reads_of_it(tmp_path, caplog):
    """Messages as JSON text or as one object, and a system text in a column of its own."""
    user, system = {"role": "user", "content": "Hi"}, {"role": "system", "content": "Be kind."}
    rows = [{"prompt": json.dumps([user])}, {"prompt": user, "id": "b"}]
    assert [row["prompt"] for row in read_prompts(write(tmp_path / "a.jsonl", rows))] == [[user], [user]]
    rows = [{"prompt": "Hi", "system": "Be kind.", "id": 0}, {"prompt": "Hi", "id": 1}]
    rows += [{"prompt": [system, user], "system": "Be kind.", "id": 2}]
    read = read_prompts(write(tmp_path / "b.jsonl", rows))
    assert [row["prompt"] for row in read] == [[system, user], [user], [system, user]]
    assert not any("system" in row for row in read)  # or training would read it twice
    (kept,) = read_prompts(write(tmp_path / "c.jsonl", [{"prompt": [system, user], "system": "Be short."}]))
    assert kept["prompt"] == [system, user]
    assert "is not used where the conversation has another system message: 1 row (0)" in caplog.text
    with pytest.raises(BadInput, match="neither text nor messages, but int: 5"):
        read_prompts(write(tmp_path / "d.jsonl", [{"prompt": 5}]))
    with pytest.raises(BadInput, match="nothing to answer"):
        read_prompts(write(tmp_path / "e.jsonl", [{"prompt": " \n"}]))


def test_what_the_model_is_not_given_of_a_question_is_said(tmp_path, caplog):
    rows = [{"instruction": "Translate.", "input": "Good morning", "tools": [{"name": "f"}], "category": "a b"}]
    answer = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi!"}]
    rows[0] |= dict.fromkeys(("chosen", "rejected", "messages"), answer)  # answers are no part of the question
    read_prompts(write(tmp_path / "a.jsonl", rows))
    said = [record.getMessage() for record in caplog.records]
    assert sorted(re.search(r"column `(\w+)` looks like part", line)[1] for line in said) == ["input", "tools"]


def test_prompts_that_cannot_be_filed_are_refused_and_repeated_ones_are_said(tmp_path, caplog):
    with pytest.raises(BadInput, match=r"no column of prompts. I see: text"):
        read_prompts(write(tmp_path / "a.jsonl", [{"text": "x"}]))
    with pytest.raises(BadInput, match=r"has no column `q`. I see: text"):
        read_prompts(write(tmp_path / "a.jsonl", [{"text": "x"}]), column="q")
    with pytest.raises(BadInput, match="has 0 rows"):
        read_prompts(write(tmp_path / "a.jsonl", []))
    with pytest.raises(BadInput, match=r"1 row \(1\) without a `prompt`"):
        read_prompts(write(tmp_path / "b.jsonl", [{"prompt": "x"}, {"prompt": ""}]))
    with pytest.raises(BadInput, match="two rows have the id '1'"):
        read_prompts(write(tmp_path / "c.jsonl", [{"prompt": "x", "id": 1}, {"prompt": "y", "id": 1}]))
    rows = [{"prompt": "x", "n": 1}, {"prompt": "y", "n": float("nan")}, {"prompt": "x", "n": 2}]
    found = read_prompts(write(tmp_path / "d.jsonl", rows))
    assert [(row["prompt"], row.get("n")) for row in found] == [("x", 1), ("y", None)]
    lost = "1 of them have other columns, which ids of their own would keep"
    assert f"a prompt is repeated in 1 row (2) and the first of each stays; {lost}." in caplog.text
    caplog.clear()
    read_prompts(write(tmp_path / "d.jsonl", [{"prompt": "x"}, {"prompt": "x"}]))
    assert caplog.text.strip().endswith("a prompt is repeated in 1 row (1) and the first of each stays.")


def test_scores_of_an_earlier_set_do_not_travel_along_to_new_candidates(tmp_path):
    old = {"candidates": ["a"], "duplicates": 0, "scores": [1.0], "wins": [0.5], "replies_unread": 1}
    (row,) = read_prompts(write(tmp_path / "a.jsonl", [{"prompt": "x", "answer": "y", "candidates_cut": 1, **old}]))
    assert row.keys() == {"id", "prompt", "answer"}


def test_texts_become_turns_of_a_user_and_messages_stay():
    chat = [{"role": "user", "content": "Hi"}]
    rows = as_messages([{"id": "a", "prompt": "Hi"}, {"id": "b", "prompt": chat}])
    assert [row["prompt"] for row in rows] == [chat, chat]


# ------------------------------------------------------------------------------------------------- candidates


@pytest.fixture(scope="module")
def engines():
    models = [tiny_llama(300, seed=seed, max_position_embeddings=4096) for seed in (0, 1)]
    return [LocalEngine(model, chatml_tokenizer(), f"m{i}", limits=Limits(6)) for i, model in enumerate(models)]


def prompts(count=5) -> list[dict]:
    return [{"id": f"p{i}", "prompt": f"Count to {i}" + "!" * i, "answer": str(i)} for i in range(count)]


def sampling(temperature=0.8, **kwargs) -> Sampling:
    return Sampling(**{"temperature": temperature, "n": 3, "max_new_tokens": 8, **kwargs})


def test_every_prompt_gets_its_candidates_in_order_with_reasons_and_duplicates_counted(engines, tmp_path):
    out = tmp_path / "c.jsonl"
    done = generate(prompts(), [Job(engines[0], sampling())], out, about={"command": "x"})
    rows = list(read_jsonl(out))
    assert [row["id"] for row in rows] == ["p0", "p1", "p2", "p3", "p4"]
    assert rows[3]["answer"] == "3"
    assert (done.path, done.prompts, done.missing, done.candidates) == (out, 5, 0, 15)
    for row in rows:
        assert len({one["text"] for one in row["candidates"]}) == 3 - row["duplicates"]
        for one in row["candidates"]:
            assert one.keys() == {"text", "finish_reason", "tokens", "model", "temperature", "seed"}
            assert (one["model"], one["temperature"], one["seed"]) == ("m0", 0.8, 0)
            assert one["tokens"] == 8 or one["finish_reason"] == "stop"
    reasons = [one["finish_reason"] for row in rows for one in row["candidates"]]
    assert done.finish_reasons == {reason: reasons.count(reason) for reason in set(reasons)}
    card = json.loads((tmp_path / "c.jsonl.card.json").read_text())
    assert card["about"] == {"command": "x"}
    assert card["jobs"][0]["weights"] == engines[0].weights


def test_greedy_candidates_are_all_duplicates(engines, tmp_path):
    done = generate(prompts(), [Job(engines[0], sampling(0.0))], tmp_path / "c.jsonl")
    assert done.duplicates == 5 * 2
    assert any("10 duplicates of another one" in line for line in done.lines())


def test_several_jobs_stand_side_by_side_model_by_model_and_leave_one_file(engines, tmp_path):
    out = tmp_path / "c.jsonl"
    jobs = [Job(engine, sampling(heat, n=2)) for engine in engines for heat in (0.5, 1.0)]
    done = generate(prompts(), jobs, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.jsonl", "c.jsonl.card.json"]
    assert done.candidates == 5 * 8
    order = [(one["model"], one["temperature"]) for one in next(read_jsonl(out))["candidates"]]
    assert order == [(model, heat) for model in ("m0", "m1") for heat in (0.5, 0.5, 1.0, 1.0)]
    alone = tmp_path / "alone.jsonl"
    generate(prompts(), jobs[2:3], alone)
    for row, own in zip(read_jsonl(out), read_jsonl(alone), strict=True):
        assert row["candidates"][4:6] == own["candidates"]


def test_of_several_models_in_process_one_at_a_time_is_in_memory(engines, tmp_path):
    alive, most, loads = weakref.WeakSet(), [], []

    def load(number):
        own = engines[number]
        engine = LocalEngine(copy.deepcopy(own.model), own.tokenizer, own.name, limits=Limits(6))
        alive.add(engine.model)
        most.append(len(alive))
        loads.append(own.name)
        return engine

    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    lazy = [LazyEngine(engine.name, partial(load, number)) for number, engine in enumerate(engines)]
    of, of_lazy = ([Job(one, sampling(heat)) for one in own for heat in (0.5, 1.0)] for own in (engines, lazy))
    assert generate(prompts(), of, whole).candidates == generate(prompts(), of_lazy, out).candidates == 60
    assert out.read_bytes() == whole.read_bytes()
    assert set(most) == {1}
    assert not alive
    assert loads == ["m0", "m1", "m0", "m0", "m1", "m1"]  # for the hashes, and for each job
    tokens = [one["tokens"] for row in read_jsonl(out) for one in row["candidates"][:6]]
    assert lazy[0].tokens == sum(tokens)
    generate(prompts(), of_lazy, out)
    assert len(loads) == 6  # all is there


def test_prompts_that_come_later_are_answered_alone(engines, tmp_path):
    for jobs in ([Job(engines[0], sampling())], [Job(engine, sampling()) for engine in engines]):
        out = tmp_path / f"{len(jobs)}.jsonl"
        generate(prompts(4), jobs, out)
        before, tokens = out.read_bytes(), engines[0].tokens
        assert generate(prompts(4), jobs, out).candidates == 12 * len(jobs)
        assert engines[0].tokens == tokens
        done = generate(prompts(6), jobs, out)
        assert engines[0].tokens - tokens <= 2 * 3 * 8  # two prompts' worth
        assert (done.candidates, done.missing) == (18 * len(jobs), 0)
        assert out.read_bytes().startswith(before)
        assert len(list(read_jsonl(out))) == 6
    assert len(list(tmp_path.iterdir())) == 4


class _StopError(Exception):
    pass


class Breaking(LocalEngine):
    """Stops in the middle, as a kill does."""

    batches = 2

    def generate(self, requests, sampling, done=()):
        for number, batch in enumerate(super().generate(requests, sampling, done)):
            if number == self.batches:
                raise _StopError
            yield batch


@pytest.mark.parametrize("broken", [0, 1])
def test_a_job_broken_off_goes_on_where_it_was_and_no_other_job_is_done_again(engines, tmp_path, broken):
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    jobs = [Job(engine, sampling()) for engine in engines]
    generate(prompts(), jobs, whole)
    breaking = Breaking(engines[broken].model, engines[broken].tokenizer, engines[broken].name, limits=Limits(6))
    cut = [Job(breaking, sampling()) if number == broken else job for number, job in enumerate(jobs)]
    with pytest.raises(_StopError):
        generate(prompts(), cut, out)
    assert not out.exists()
    tokens = engines[0].tokens
    generate(prompts(), jobs, out)
    assert out.read_bytes() == whole.read_bytes()
    assert (engines[0].tokens == tokens) is (broken == 1)


@pytest.mark.parametrize("left", [["out.jsonl.partial"], ["out.jsonl.partial", "out.jsonl"]])
def test_several_jobs_that_were_killed_with_their_last_row_written_still_get_their_file(engines, tmp_path, left):
    """Between the last row of the merging and the end of the file, or between that and the removal of the partial."""
    out = tmp_path / "out.jsonl"
    jobs = [Job(engine, sampling()) for engine in engines]
    generate(prompts(), jobs, out)
    whole = out.read_bytes()
    out.unlink()
    for name in left:
        (tmp_path / name).write_bytes(whole)
    assert generate(prompts(), jobs, out).candidates == 30
    assert out.read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "out.jsonl.card.json"]


def test_a_file_is_not_continued_by_another_model_or_another_way_to_draw(engines, tmp_path):
    out = tmp_path / "c.jsonl"
    generate(prompts(), [Job(engines[0], sampling())], out)
    for job in (Job(engines[1], sampling()), Job(engines[0], sampling(0.9)), Job(engines[0], sampling(seed=1))):
        with pytest.raises(BadInput, match="other settings"):
            generate(prompts(), [job], out)


@pytest.mark.parametrize("jobs", [1, 2])
def test_right_answers_that_were_corrected_since_are_not_left_as_they_were(engines, tmp_path, jobs):
    out = tmp_path / "c.jsonl"
    drawn = [Job(engines[0], sampling(seed=number)) for number in range(jobs)]
    rows = [{**row, "answer": "4"} for row in prompts()]
    generate(rows, drawn, out)
    before = out.read_bytes()
    with pytest.raises(BadInput, match=r"columns of earlier prompts in 1 row; the first, 'p2', has another answer"):
        generate([{**row, "answer": "5"} if row["id"] == "p2" else row for row in rows], drawn, out)
    assert out.read_bytes() == before
    assert generate(rows, drawn, out).missing == 0


@pytest.mark.parametrize("jobs", [1, 2])
def test_answers_to_a_text_are_not_taken_for_answers_to_a_users_turn_of_the_same_id(engines, tmp_path, jobs):
    out = tmp_path / "c.jsonl"
    drawn = [Job(engines[0], sampling(seed=number)) for number in range(jobs)]
    generate(prompts(), drawn, out)
    before = out.read_bytes()
    with pytest.raises(BadInput, match=r"other prompts under 5 of these ids, the first 'p0': .*--chat"):
        generate(as_messages(prompts()), drawn, out)
    assert out.read_bytes() == before


def test_the_counts_are_those_of_the_prompts_asked_for_and_not_of_all_in_the_file(engines, tmp_path):
    generate(prompts(5), [Job(engines[0], sampling())], tmp_path / "c.jsonl")
    done = generate(prompts(2), [Job(engines[0], sampling())], tmp_path / "c.jsonl")
    assert (done.prompts, done.candidates, sum(done.finish_reasons.values())) == (2, 6, 6)
    assert len(list(read_jsonl(tmp_path / "c.jsonl"))) == 5


def test_what_an_endpoint_does_not_answer_is_missing_and_a_rerun_asks_for_it_alone(tmp_path):
    out = tmp_path / "c.jsonl"
    with ModelServer() as server:
        endpoint = Endpoint(server.url, "a-model", retries=1, backoff=0.001)
        works = server._failure
        server._failure = lambda prompt, attempt: "500" if prompt == "Count to 2!!" else works(prompt, attempt)
        done = generate(prompts(), [Job(UrlEngine(endpoint), sampling())], out)
        assert (done.missing, done.candidates) == (1, 12)
        assert not out.exists()
        assert "1 prompt without any yet" in done.lines()[-1]
        before = dict.fromkeys((tmp_path / "c.jsonl.partial").read_bytes().splitlines())
        server._failure = works
        asked = server.received.total()
        done = generate(prompts(), [Job(UrlEngine(endpoint), sampling())], out)
        assert server.received.total() == asked + 3
        assert (done.missing, done.candidates) == (0, 15)
        assert set(before) <= set(out.read_bytes().splitlines())


def test_a_prompt_that_one_of_several_jobs_has_no_answer_to_is_missing_until_it_has(engines, tmp_path):
    out = tmp_path / "c.jsonl"
    with ModelServer(first=["500", "500", "500"]) as server:
        jobs = [Job(UrlEngine(Endpoint(server.url, "a-model", retries=0)), sampling()), Job(engines[0], sampling())]
        done = generate(prompts(1), jobs, out)
        assert (done.missing, done.candidates) == (1, 3)
        assert not out.exists()
        assert (generate(prompts(1), jobs, out).missing, out.exists()) == (0, True)
    assert [one["model"] for one in next(read_jsonl(out))["candidates"]] == ["a-model"] * 3 + ["m0"] * 3


def test_several_urls_share_the_load_and_every_text_has_a_seed_of_its_own(tmp_path):
    with ModelServer(delay=0.01) as one, ModelServer(delay=0.01) as two:
        endpoint = Endpoint([one.url, two.url], "a-model", concurrency=4)
        generate(prompts(8), [Job(UrlEngine(endpoint), sampling())], tmp_path / "c.jsonl")
        assert min(one.served.total(), two.served.total()) >= 4
        assert one.served.total() + two.served.total() == 24
        bodies = [*one.bodies, *two.bodies]
    assert len({body["seed"] for body in bodies}) == 24
    assert {prompt_of(body) for body in bodies} == {row["prompt"] for row in prompts(8)}
    assert {body["temperature"] for body in bodies} == {0.8}
