"""Two models side by side: one question, no names, an order by chance, every verdict counted for the right one."""

import json
import random
import re
import threading

import pytest

from bnf_align.cli.main import main
from bnf_align.data.doctor import examine
from bnf_align.endpoint import Endpoint
from bnf_align.engines import Sampling
from bnf_align.engines.local import LocalEngine
from bnf_align.feedback import page
from bnf_align.feedback import talk as talking
from bnf_align.feedback.answerer import LocalAnswerer, UrlAnswerer
from bnf_align.feedback.standings import standings
from bnf_align.feedback.store import Store, choice
from bnf_align.feedback.talk import ONE_OF_TWO, Place, StaleError, Talk
from bnf_align.records import BadInput
from model_server import ModelServer, prompt_of
from tiny_models import chatml_tokenizer
from tiny_nets import tiny_llama

NAMES = ("alpha-7b", "omega-9b")


@pytest.fixture
def kept(tmp_path) -> Store:
    return Store(tmp_path / "feedback.jsonl")


def by_name(body) -> str:
    """Who said it can be told in the tests: alpha's answers begin with A."""
    return f"{'A' if body['model'] == NAMES[0] else 'O'} answers {prompt_of(body)}"


@pytest.fixture(scope="module")
def server():
    with ModelServer(answer=by_name) as running:
        yield running


def two(url: str) -> list[UrlAnswerer]:
    return [UrlAnswerer(Endpoint(url, name, retries=0, timeout=5.0), Sampling(0.8)) for name in NAMES]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(talking, "PACE", 0.01)


def answered(talk: Talk, question: str) -> Place:
    talk.ask(question)
    for _ in talk.watch():
        pass
    assert talk.problem == ""
    return Place(talk.id, len(talk.turns) - 1)


def better(talk: Talk, place: Place, letter: str) -> bool:
    """The verdict by which the answer that begins so is the better one."""
    return talk.turns[place.at].answers[0].text.startswith(letter)


def test_whichever_side_it_stands_on_the_answer_said_to_be_better_is_the_chosen_one_and_its_model_wins(kept, server):
    talk = Talk(two(server.url), kept, system="Be brief.")
    for number in range(24):
        place = answered(talk, f"q{number}")
        talk.rate(place, better(talk, place, "AO"[number % 3 == 0]), "Ann")
    rows = kept.rows()
    for number, row in enumerate(rows):
        won, lost = reversed(NAMES) if number % 3 == 0 else NAMES
        assert (row["model"], row["rejected_model"]) == (won, lost)
        assert row["chosen"] == [{"role": "assistant", "content": f"{won[0].upper()} answers q{number}"}]
        assert row["rejected"] == [{"role": "assistant", "content": f"{lost[0].upper()} answers q{number}"}]
        system = {"role": "system", "content": "Be brief."}
        assert row["prompt"] == [system, {"role": "user", "content": f"q{number}"}]  # and nothing said before
    sides = [row["shown_first"] for row in rows]
    assert 2 < sides.count(NAMES[0]) < 22  # 24 tosses: outside with a chance of 4 in 100,000
    asked = [body["messages"] for body in server.bodies]
    assert all(asked.count(row["prompt"]) == 2 for row in rows)


def test_the_order_follows_from_the_seed_and_the_item_in_the_row(kept, server):
    for seed in (0, 7):
        talk = Talk(two(server.url), kept, seed=seed)
        for number in range(6):
            talk.rate(answered(talk, f"q{number}"), True)
    for row in kept.rows():
        order = list(NAMES)
        random.Random(f"{row['seed']}/{row['item']}").shuffle(order)
        assert order[0] == row["shown_first"] == row["model"]
    assert [row["seed"] for row in kept.rows()] == [0] * 6 + [7] * 6
    assert len({row["item"] for row in kept.rows()}) == 12


def test_no_page_shows_a_name_or_what_the_order_follows_from_at_any_time(kept):
    gate = threading.Event()
    with ModelServer(answer=by_name, gate=lambda sent: sent > 1 and not gate.is_set()) as server:
        talk = Talk(two(server.url), kept, seed=123_456_789)
        shown = [page.show_talk(talk)]
        talk.ask("q")
        while not (talk.coming and all(talk.coming.texts)):
            pass
        shown.append(page.show_talk(talk))
        assert "A answers" in shown[-1]
        assert "O answers" in shown[-1]
        assert 'aria-busy="true"' in shown[-1]
        gate.set()
        for _ in talk.watch():
            pass
    for verdict in (True, False, "both", "neither"):
        talk.rate(Place(talk.id, 0), verdict, "Ann", "clear")
        shown.append(page.show_talk(talk))
        secrets = [*NAMES, "123456789", *(row["item"] for row in kept.rows())]
        assert not any(secret in html for html in shown for secret in secrets)
        name = {True: "up", False: "down"}.get(verdict, verdict)
        assert re.findall(r'data-verdict="(\w+)" aria-pressed="true"', shown[-1]) == [name]


def test_both_good_or_both_bad_is_a_thumb_for_each_and_a_changed_mind_leaves_one_judgement(kept, server):
    talk = Talk(two(server.url), kept)
    place = answered(talk, "q")
    for verdict, labels in (("both", [True, True]), ("neither", [False, False])):
        talk.rate(place, verdict, "Ann", "equal")
        rows = kept.rows()
        assert [row["label"] for row in rows] == labels
        assert {row["model"] for row in rows} == set(NAMES)
        assert all(row["completion"][0]["content"][0] == row["model"][0].upper() for row in rows)
        assert len({(row["item"], row["created_at"], row["user"], row["reason"]) for row in rows}) == 1
    talk.explain(place, "both wrong")
    assert [row["reason"] for row in kept.rows()] == ["both wrong"] * 2
    talk.rate(place, better(talk, place, "O"), "Ann")
    assert [(row["model"], row["reason"]) for row in kept.rows()] == [(NAMES[1], None)]
    talk.rate(place, None)
    assert kept.rows() == []
    talk.explain(place, "a reason for what is not said yet")  # it comes with the verdict
    assert kept.rows() == []


def test_when_one_model_fails_there_is_nothing_to_compare_and_its_name_is_in_the_log_alone(kept, server, caplog):
    with ModelServer() as gone:
        url = gone.url
    broken = UrlAnswerer(Endpoint(url, NAMES[1], retries=0, timeout=5.0), Sampling())
    talk = Talk([two(server.url)[0], broken], kept)
    talk.ask("q")
    for _ in talk.watch():
        pass
    assert (talk.problem, talk.turns, talk.unanswered) == (ONE_OF_TWO, [], "q")
    assert url in caplog.text


def test_too_long_a_question_for_one_of_two_models_in_process_names_neither(kept, caplog):
    tokenizer = chatml_tokenizer()
    engines = [LocalEngine(tiny_llama(len(tokenizer), seed=seed), tokenizer, NAMES[seed]) for seed in (0, 1)]
    talk = Talk([LocalAnswerer(engine, Sampling(max_new_tokens=8)) for engine in engines], kept)
    talk.ask("x" * 600)
    for _ in talk.watch():
        pass
    assert talk.problem == ONE_OF_TWO
    assert "leave no room for an answer" in caplog.text


def test_of_two_equal_answers_none_is_better(kept):
    with ModelServer(answer=lambda body: "42") as server:
        talk = Talk(two(server.url), kept)
        place = answered(talk, "q")
    assert "nothing to compare" in page.show_talk(talk)
    assert "data-verdict" not in page.show_talk(talk)
    for verdict in (True, "both"):
        with pytest.raises(StaleError):
            talk.rate(place, verdict)
    assert kept.rows() == []


def test_a_single_answer_cannot_be_both_good(kept, server):
    talk = Talk(two(server.url)[:1], kept)
    with pytest.raises(StaleError):
        talk.rate(answered(talk, "q"), "both")
    assert kept.rows() == []


def test_two_models_in_process_write_a_token_each_in_turn_so_that_none_is_ahead(kept):
    tokenizer = chatml_tokenizer()
    written = []

    class Recorded(LocalAnswerer):
        def stream(self, messages):
            for one in super().stream(messages):
                written.append((self.name, one.tokens[0]))
                yield one

    engines = [LocalEngine(tiny_llama(len(tokenizer), seed=seed), tokenizer, NAMES[seed]) for seed in (0, 1)]
    talk = Talk([Recorded(engine, Sampling(max_new_tokens=30)) for engine in engines], kept)
    answered(talk, "hello")
    both = min(sum(name == one for name, _ in written) for one in NAMES)
    assert both > 3
    for turn in range(both):
        assert {name for name, _ in written[2 * turn : 2 * turn + 2]} == set(NAMES)
        assert [number for _, number in written[2 * turn : 2 * turn + 2]] == [turn + 1] * 2


def test_two_people_who_compare_the_same_models_in_process_at_once_both_get_answers(kept):
    tokenizer = chatml_tokenizer()
    engines = [LocalEngine(tiny_llama(len(tokenizer), seed=seed), tokenizer, NAMES[seed]) for seed in (0, 1)]
    answerers = [LocalAnswerer(engine, Sampling(max_new_tokens=20)) for engine in engines]
    people = [Talk(answerers, kept) for _ in range(4)]
    for talk in people:
        talk.ask("hello")
    ends = [talk.coming.ended for talk in people if talk.coming]
    assert all(end.wait(60) for end in ends)
    said = [{answer.model: answer.text for answer in talk.turns[0].answers} for talk in people]
    assert said == [said[0]] * 4
    assert said[0].keys() == set(NAMES)


# What becomes of the rows


@pytest.fixture
def judged(kept, server) -> Store:
    """Alpha is better 8 times, omega twice, both are good 3 times and bad once."""
    talk = Talk(two(server.url), kept)
    for number, letter in enumerate("AAAAAAAAOO"):
        place = answered(talk, f"q{number}")
        talk.rate(place, better(talk, place, letter), ("Ann", "Bob")[number % 2])
    for number, verdict in enumerate(("both", "both", "both", "neither")):
        talk.rate(answered(talk, f"tie {number}"), verdict, "Ann")
    return kept


def test_the_owner_sees_how_often_each_model_won_with_an_interval_and_that_ties_are_left_out(judged, capsys):
    assert main(["collect", "--status", "--store", str(judged.path)]) == 0
    said = capsys.readouterr().out
    # Wilson's interval of 8 of 10, as in any table of it: 0.490 to 0.943.
    assert "alpha-7b won 8 of 10: 80%, 95% interval 49% to 94%" in said
    assert "omega-9b won 2 of 10: 20%, 95% interval 6% to 51%" in said
    assert "alpha-7b against omega-9b: 14 comparisons" in said
    assert "left out: 4 ties, both good 3, both bad 1" in said


def test_ties_alone_are_counted_and_no_share_is_made_of_them(kept, server):
    talk = Talk(two(server.url), kept)
    talk.rate(answered(talk, "q"), "neither")
    (standing,) = standings(kept.rows())
    assert str(standing).splitlines()[1:] == [
        "    alpha-7b won 0 of 0",
        "    omega-9b won 0 of 0",
        "    left out: 1 tie, both good 0, both bad 1",
    ]


def test_rows_without_two_names_are_no_comparison_of_models(kept, server):
    prompt = [{"role": "user", "content": "q"}]
    rows = [
        choice(prompt, "a", "b", model="A"),
        choice(prompt, "a", "b", rejected_model="B"),
        choice(prompt, "a", "b", model="A", rejected_model="A"),
    ]
    talk = Talk(two(server.url)[:1], kept)
    talk.rate(answered(talk, "q"), True)
    assert standings([*rows, *kept.rows()]) == []


def test_a_tie_of_two_people_is_two_ties(kept):
    tie = {"item": "i", "label": True, "shown_first": "A", "created_at": "1"}
    rows = [{**tie, "user": user, "model": model} for user in ("Ann", "Bob") for model in "AB"]
    (standing,) = standings(rows)
    assert standing.ties == {True: 2}


def test_prepared_pairs_are_counted_in_the_same_way(tmp_path, kept, capsys):
    from bnf_align.feedback.review import Review, read_tasks

    answers = [{"text": f"{name} says", "model": name} for name in NAMES]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"p{n}", "candidates": answers}) + "\n" for n in range(3)))
    review = Review(read_tasks(path, pairs=True), kept)
    for verdict in ("alpha", "alpha", "both"):
        first = review.task.answers[0].model
        review.judge(review.task.id, verdict if verdict == "both" else first == NAMES[0], user="Ann")
    (standing,) = standings(kept.rows())
    assert standing.wins == {NAMES[0]: 2, NAMES[1]: 0}
    assert standing.ties == {True: 1}
    assert all(row["shown_first"] in NAMES for row in kept.rows())


def test_doctor_and_import_accept_the_rows_and_count_every_one(judged, tmp_path):
    report = examine(str(judged.path)).report
    assert (report.rows, report.pairs, report.ups, report.downs, report.dropped) == (18, 10, 6, 2, {})
    assert report.warnings == []
    out = tmp_path / "imported.jsonl"
    assert main(["import", "table", str(judged.path), "--out", str(out)]) == 0
    imported = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(imported) == 18
    assert sum(row.get("model") == NAMES[0] for row in imported) == sum(
        row.get("model") == NAMES[0] for row in judged.rows()
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "a", "b", "c"], "names 3 models, and a page compares two"),
        (["--model", "a", "--model", "a"], "could not be told apart"),
        (["--model", "a", "b", "--url", *(f"http://127.0.0.1:{n}" for n in (1, 2, 3))], "names 3 servers"),
    ],
)
def test_models_that_cannot_be_compared_are_refused(tmp_path, flags, message, capsys):
    assert main(["collect", "--store", str(tmp_path / "f.jsonl"), *flags]) == 2
    assert message in capsys.readouterr().err


def test_two_models_have_a_server_each_or_one_for_both():
    from bnf_align.cli.collect import _answerers, _parser

    def urls(*flags: str) -> list[tuple[str, list[str]]]:
        found = _answerers(_parser().parse_args([*flags]))
        return [(one.name, one._endpoint.urls) for one in found]

    a, b = "http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"
    assert urls("--model", "m", "--url", a, b) == [("m", [a, b])]
    assert urls("--model", "m", "n", "--url", a, b) == [("m", [a]), ("n", [b])]
    assert urls("--model", "m", "--model_name_or_path", "n", "--url", a) == [("m", [a]), ("n", [a])]


def test_a_model_that_is_not_there_is_said_before_a_page_opens(tmp_path):
    from bnf_align.cli.collect import _answerers, _parser

    with pytest.raises(BadInput, match="nowhere"):
        _answerers(_parser().parse_args(["--model", str(tmp_path / "nowhere")]))


def test_a_model_beside_answers_to_review_is_refused_because_it_would_do_nothing(tmp_path, capsys):
    assert main(["collect", "--model", "a", "--review", str(tmp_path / "answers.jsonl")]) == 2
    assert "no model answers" in capsys.readouterr().err
