"""Length and style control on verdicts whose making is known."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from bnf_align.evaluation.control import LENGTH, STYLE, Style, controlled_win_rates, markdown_style
from bnf_align.evaluation.ratings import Battle, win_rates
from bnf_align.records import BadInput

QUESTIONS = [str(number) for number in range(600)]


def lengths(factors, seed=0):
    """Styles of answers whose tokens are spread around 300 times the model's factor."""
    rng = np.random.default_rng(seed)
    return {
        model: {
            question: Style(
                int(factor * rng.lognormal(math.log(300), 0.5)), *(int(n) for n in rng.integers(0, 12, size=3))
            )
            for question in QUESTIONS
        }
        for model, factor in factors.items()
    }


def ratio(styles, model, question, column="tokens"):
    a, b = (getattr(styles[side][question], column) for side in (model, "base"))
    return (a - b) / (a + b + 1)


def judged(styles, strength, taste, column="tokens", seed=None, weight=1):
    """Battles of a judge with log-odds `strength` + `taste` * ratio: drawn, or without a seed their expectation."""
    rng = np.random.default_rng(seed)
    battles = []
    for model, logit in strength.items():
        for question in QUESTIONS:
            chance = 1 / (1 + math.exp(-logit - taste * ratio(styles, model, question, column)))
            score = chance if seed is None else float(rng.random() < chance)
            battles.append(Battle(question, model, "base", score, weight))
    return battles


def upstream(battles, styles, columns):
    """Arena-Hard's own construction, literally: every battle twice, one row per copy, plain scikit-learn."""
    copies = [battle for battle in battles for _ in range(battle.weight)]
    models = ["base", *dict.fromkeys(battle.model for battle in battles)]
    players, forms, won = [], [], []
    for second_time in (False, True):
        for question, model, _, score, _ in copies:
            players.append([math.log(10) * ((name == "base") - (name == model)) for name in models])
            a, b = styles["base"][question], styles[model][question]
            forms.append(
                [(getattr(a, name) - getattr(b, name)) / (getattr(a, name) + getattr(b, name) + 1) for name in columns]
            )
            won.append(score == 0 or (score == 0.5 and not second_time))
    forms = (np.array(forms) - np.mean(forms, axis=0)) / np.std(forms, axis=0)
    fitted = LogisticRegression(fit_intercept=False, tol=1e-8, max_iter=10_000).fit(np.hstack([players, forms]), won)
    elo = 400 * fitted.coef_[0][: len(models)]
    return {
        model: 100 / (1 + 10 ** ((elo[0] - elo[number]) / 400)) for number, model in enumerate(models) if number
    }, fitted.coef_[0][len(models) :]


@pytest.mark.parametrize("columns", [LENGTH, STYLE])
def test_the_numbers_are_those_of_the_official_construction(columns):
    styles = lengths({"base": 1, "long": 1.6, "short": 0.7})
    rng = np.random.default_rng(3)
    battles = [
        battle._replace(score=0.5 if rng.random() < 0.2 else battle.score, weight=int(rng.choice([1, 3])))
        for battle in judged(styles, {"long": 0.3, "short": -0.4}, taste=1.5, seed=1)
    ]
    rates, coefficients = upstream(battles, styles, columns)
    ours = controlled_win_rates(battles, "base", styles, columns)
    assert ours.win_rates == pytest.approx(rates, abs=1e-3)
    assert list(ours.coefficients) == list(columns)
    assert list(ours.coefficients.values()) == pytest.approx(coefficients, abs=1e-4)


def test_known_strengths_and_a_known_taste_for_length_are_recovered():
    styles = lengths({"base": 1, "long": 1.8, "short": 0.6})
    strength = {"long": 0.5, "short": -0.8}
    battles = judged(styles, strength, taste=2.0, weight=1_000)  # so much data that the penalty does not count
    ratios = np.array([ratio(styles, battle.model, battle.question) for battle in battles])
    controlled = controlled_win_rates(battles, "base", styles)
    assert controlled.coefficients["tokens"] == pytest.approx(2.0 * ratios.std(), rel=1e-3)
    for model, logit in strength.items():
        centred = logit + 2.0 * ratios.mean()
        assert controlled.win_rates[model] == pytest.approx(100 / (1 + math.exp(-centred)), abs=0.02)


def test_a_judge_who_only_likes_length_finds_equal_models_equal():
    styles = lengths({"base": 1, "long": 2, "short": 0.5})
    battles = judged(styles, {"long": 0, "short": 0}, taste=4.0)
    plain = win_rates(battles, "base")
    controlled = controlled_win_rates(battles, "base", styles)
    assert plain["long"] > 70
    assert plain["short"] < 30
    assert controlled.win_rates == pytest.approx({"long": 50, "short": 50}, abs=2)
    assert controlled.coefficients["tokens"] > 1


def test_where_length_does_not_matter_control_changes_nothing():
    styles = lengths({"base": 1, "long": 1.5, "short": 0.7})
    battles = judged(styles, {"long": 0.9, "short": -0.4}, taste=0)
    controlled = controlled_win_rates(battles, "base", styles)
    assert controlled.win_rates == pytest.approx(win_rates(battles, "base"), abs=0.5)
    assert controlled.coefficients["tokens"] == pytest.approx(0, abs=0.02)


def test_a_longer_and_better_model_keeps_what_it_is_better_by():
    styles = lengths({"base": 1, "long": 2, "short": 0.5})
    battles = judged(styles, {"long": 0.8, "short": 0}, taste=3.0)
    plain, controlled = win_rates(battles, "base"), controlled_win_rates(battles, "base", styles).win_rates
    assert 50 < controlled["short"] + 5 < controlled["long"] < plain["long"] - 5


def test_a_taste_for_lists_is_seen_by_style_control_and_not_by_length_control():
    styles = lengths({"base": 1, "m": 1})
    battles = judged(styles, {"m": 0.2}, taste=3.0, column="lists")
    style = controlled_win_rates(battles, "base", styles, STYLE).coefficients
    assert style["lists"] > 1
    assert all(abs(style[name]) < 0.1 for name in ("tokens", "headers", "bold"))
    assert abs(controlled_win_rates(battles, "base", styles, LENGTH).coefficients["tokens"]) < 0.2


def test_a_number_depends_on_the_pool():
    """The centring: alone in its pool a model keeps what the judge gives for its average length."""
    styles = lengths({"base": 1, "long": 2, "short": 0.5})
    battles = judged(styles, {"long": 0, "short": 0}, taste=4.0)
    alone = controlled_win_rates([battle for battle in battles if battle.model == "long"], "base", styles)
    assert alone.win_rates["long"] > 65
    assert controlled_win_rates(battles, "base", styles).win_rates["long"] == pytest.approx(50, abs=3)


def test_a_weight_is_so_many_copies_in_the_fit_and_in_the_z_scores():
    styles = lengths({"base": 1, "m": 1.4})
    rng = np.random.default_rng(5)
    battles = [
        battle._replace(weight=int(rng.choice([1, 3]))) for battle in judged(styles, {"m": 0.3}, taste=1.0, seed=4)
    ]
    copies = [battle._replace(weight=1) for battle in battles for _ in range(battle.weight)]
    ours, copied = (controlled_win_rates(some, "base", styles) for some in (battles, copies))
    assert ours.win_rates == pytest.approx(copied.win_rates, abs=1e-6)
    assert ours.coefficients == pytest.approx(copied.coefficients, abs=1e-6)


def test_answers_of_one_length_leave_the_plain_win_rate():
    styles = {model: {question: Style(100) for question in QUESTIONS} for model in ("base", "m")}
    battles = judged(styles, {"m": 0.6}, taste=1.0)
    controlled = controlled_win_rates(battles, "base", styles)
    assert controlled.coefficients == {"tokens": 0}
    assert controlled.win_rates == pytest.approx(win_rates(battles, "base"), abs=0.1)


def test_a_missing_length_names_the_answer():
    styles = lengths({"base": 1, "m": 1})
    battles = judged(styles, {"m": 0}, taste=0)
    del styles["base"]["17"]
    with pytest.raises(BadInput, match=r"1 judged answers.*base's to question 17.*--answers"):
        controlled_win_rates(battles, "base", styles)


def test_markup_is_counted_outside_code():
    text = (
        "# One\n###### Six\n####### none\n#none\n"
        "1. first\n  - nested\n* star\n+ plus\n-none\n"
        "**bold** and __bold__ and **not\nbold** and **a __b__ c**\n"
        "```python\n# comment\n- not a list\n**p**\n```\n"
    )
    assert markdown_style(text, 99) == Style(tokens=99, headers=2, lists=4, bold=4)


def test_code_that_also_stands_outside_its_block_is_not_counted_there_either():
    assert markdown_style("**x** is bold, ```**x**``` is code", 9) == Style(9)
