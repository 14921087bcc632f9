"""The small form of a real model: prompts with a rule that a program checks, thumbs from the rule, before and after.

A chat model is asked to tell something about a topic under one rule. It answers each prompt several times, the rule
gives each answer a thumb, BNF and fine-tuning on the ups train on them, and topics that nobody trained on tell what
changed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

from bnf_align.config import PreferenceConfig
from bnf_align.engines import Generation, Request, Sampling
from bnf_align.engines.local import LocalEngine
from bnf_align.evaluation.run import answered
from bnf_align.lab.measure import beside_bnf, compare
from bnf_align.lab.runs import train
from bnf_align.lab.sample import judged, write_samples
from bnf_align.losses import LOSSES
from bnf_align.models import for_inference, load
from bnf_align.outputs import write_json
from bnf_align.records import BadInput
from bnf_align.report import write_page
from bnf_align.training.record import versions
from bnf_align.training.trainer import PreferenceTrainer

logger = logging.getLogger(__name__)

Row = dict[str, Any]

VERIFIER = "bnf_align.lab.real:follows"
METHODS = ("bnf", "sft")
RIGHT, ENDS = "follows the rule", "ends by itself"
MEASURES = (RIGHT, ENDS)
"""Shares of the answers, from 0 to 1."""
FEWEST_WORDS = 8
"""Of an answer that may follow a rule: `That is all.` alone would follow one, and a model learns to say just that."""

SUBJECTS = (
    "rain, bread, the moon, bicycles, tea, whales, chess, volcanoes, glass, honey, trains, coral reefs, paper, "
    "the violin, salt, penguins, bridges, coffee, snow, gardens, clocks, the desert, cheese, lighthouses, "
    "spiders, football, rivers, silk, the sun, castles, apples, thunder, maps, horses, islands, soap, kites, "
    "owls, rice, museums, the wind, ants, gold, libraries, mountains, candles, dolphins, olives, windmills, "
    "feathers, canals, mushrooms, stars, wool, markets, turtles, harbors, pianos, forests, ice, roses, tunnels, "
    "deer, clay"
)
TOPICS = SUBJECTS.split(", ")


@dataclass(frozen=True)
class Rule:
    """What a prompt asks for besides its topic."""

    asks: str
    holds: Callable[[str], bool]
    fewest_words: int = FEWEST_WORDS


RULES: dict[str, Rule] = {
    "lowercase": Rule("Use only lowercase letters.", lambda text: text == text.lower()),
    "twelve words": Rule("Use at most 12 words.", lambda text: len(text.split()) <= 12, fewest_words=4),
    "no commas": Rule("Do not use any commas.", lambda text: "," not in text),
    "ending": Rule("End your answer with the words: That is all.", lambda text: text.endswith("That is all.")),
    "because": Rule("Use the word because.", lambda text: re.search(r"\bbecause\b", text, re.IGNORECASE) is not None),
    "question": Rule("End your answer with a question.", lambda text: text.endswith("?")),
}


def follows(row: Mapping[str, Any], answer: str) -> bool:
    """Whether an answer follows the rule of its row, in enough words. A candidate that was cut follows none."""
    rule, text = RULES[row["rule"]], answer.strip()
    cut = any(one["text"] == answer and one["finish_reason"] == "length" for one in row.get("candidates", ()))
    return not cut and len(text.split()) >= rule.fewest_words and rule.holds(text)


@dataclass(frozen=True)
class Sizes:
    """How long everything is."""

    topics: int = 40
    held_out: int = 16
    """Topics that nothing is trained on."""
    samples: int = 4
    downs: float = 1.5
    """The most thumbs down for each thumb up; which ones, the seed says."""
    max_new_tokens: int = 64
    learning_rate: float = 2e-5
    batch_size: int = 16


def prompts(topics: Sequence[str]) -> list[Row]:
    """Every topic under every rule, as a chat prompt."""
    return [
        {
            "id": f"{topic}/{name}",
            "rule": name,
            "prompt": [{"role": "user", "content": f"Tell me something about {topic}. {rule.asks}"}],
        }
        for topic in topics
        for name, rule in RULES.items()
    ]


def topics_of(seed: int, sizes: Sizes) -> tuple[list[str], list[str]]:
    """Topics to train on and topics held out; BadInput if there are not so many."""
    if sizes.topics + sizes.held_out > len(TOPICS):
        raise BadInput(f"{sizes.topics} + {sizes.held_out} topics are wanted, and there are {len(TOPICS)}.")
    drawn = Random(f"topics {seed}").sample(TOPICS, sizes.topics + sizes.held_out)
    return drawn[: sizes.topics], drawn[sizes.topics :]


def thumbs(engine: LocalEngine, topics: Sequence[str], folder: Path, seed: int, sizes: Sizes) -> list[Row]:
    """The model's own answers with a thumb each, by `generate`, `score` and `select`; resumable, in `folder`.

    Answers that were cut are thumbs down. Of these, as of all downs, the seed keeps `sizes.downs` for each up.

    Raises:
        BadInput: If no answer follows its rule.
    """
    sampling = Sampling(temperature=0.8, n=sizes.samples, seed=seed, max_new_tokens=sizes.max_new_tokens)
    rows = judged(engine, prompts(topics), sampling, VERIFIER, folder)
    ups = [row for row in rows if row["label"]]
    downs = [row for row in rows if not row["label"]]
    if not ups:
        raise BadInput(f"None of {len(rows):,} answers follows its rule, so there is no thumb up to learn from.")
    kept = Random(f"downs {seed}").sample(downs, min(len(downs), round(sizes.downs * len(ups))))
    return Random(f"order {seed}").sample([*ups, *kept], len(ups) + len(kept))


def answers(engine: LocalEngine, rows: Sequence[Row], seed: int, sizes: Sizes) -> list[Generation]:
    """One sample for each prompt, at the temperature of the thumbs."""
    sampling = Sampling(temperature=0.8, seed=seed, max_new_tokens=sizes.max_new_tokens)
    return answered(engine, [Request(row["id"], row["prompt"]) for row in rows], sampling)


def real_quickstart(model: str, out: str | Path, seed: int = 0, sizes: Sizes | None = None) -> dict[str, Any]:
    """Train a real chat model on thumbs from a rule, and measure it on topics that nobody trained on.

    Args:
        model: A chat model: a folder, a hub name or a GGUF file.
        out: Folder for everything: `data/`, a folder for each of `METHODS` (in `bnf/samples.jsonl` the answers to the
            held-out prompts before and after), `cache/` and `quickstart.json`.
        seed: Of topics, samples and the order of training.
        sizes: How long everything is.

    Returns:
        What `quickstart.json` holds, as that of the tiny world: `measures` (before, after, change, each with a 95 %
        interval over prompts), the `methods` beside BNF, `tokens` of an answer, counts, versions, health.
    """
    folder, sizes = Path(out), sizes or Sizes()
    seen, held_out = topics_of(seed, sizes)
    asked = prompts(held_out)
    logger.info("1/4 thumbs: the model answers, the rules judge")
    loaded = load(model, **for_inference("float32"))
    if loaded.tokenizer.chat_template is None:
        raise BadInput(f"{model} has no chat template: the prompts of this quickstart are a chat's.")
    engine = LocalEngine(loaded.model, loaded.tokenizer, name=model)
    rows = thumbs(engine, seen, folder / "data", seed, sizes)
    logger.info("2/4 the base on held-out topics")
    found = {"base": answers(engine, asked, seed, sizes)}
    del engine, loaded
    health = {}
    for number, method in enumerate(METHODS):
        logger.info(f"{3 + number}/4 {method}")
        config = PreferenceConfig(
            loss_type=method,
            output_dir=str(folder / method),
            ref_cache_dir=str(folder / "cache"),
            batch_size=sizes.batch_size,
            learning_rate=sizes.learning_rate,
            max_length=256,
            logging_steps=2,
            seed=seed,
            report_to="none",
            save_strategy="no",
        )
        kept = [row for row in rows if row["label"]] if LOSSES[method].only else rows
        trainer = PreferenceTrainer(model, config, train_dataset=kept)
        train(trainer, method)
        health[method] = trainer.record.health()
        trained = LocalEngine(trainer.model, trainer.processing_class, name=method)  # type: ignore[arg-type]
        found[method] = answers(trained, asked, seed, sizes)
    values = {name: _values(asked, of_method) for name, of_method in found.items()}
    changes = {name: compare(values["base"][name], values["bnf"][name], seed) for name in MEASURES}
    ups = sum(row["label"] for row in rows)
    result = {
        "model": model,
        "seed": seed,
        "sizes": asdict(sizes),
        "versions": versions(),
        "preferences": {"rows": len(rows), "ups": ups, "downs": len(rows) - ups},
        "prompts": len(asked),
        "measures": changes,
        "conclusion": conclude(changes, len(asked)),
        "methods": beside_bnf(values, MEASURES, seed),
        "tokens": {method: mean(one.tokens[0] or 0 for one in of_method) for method, of_method in found.items()},
        "health": {method: one.colour for method, one in health.items()},
        "verdicts": {method: one.text for method, one in health.items()},
    }
    base, bnf = ([_outcome(row, one) for row, one in zip(asked, found[name], strict=True)] for name in ("base", "bnf"))
    write_samples(folder / "bnf" / "samples.jsonl", asked, base, bnf)
    write_json(folder / "quickstart.json", result)
    write_page(folder / "report.html", [folder], command=f"bnf-align quickstart --real {model} --seed {seed}")
    return result


def _outcome(row: Row, found: Generation) -> tuple[str, bool]:
    return found.texts[0], found.finish_reasons[0] != "length" and follows(row, found.texts[0])


def _values(asked: Sequence[Row], found: Sequence[Generation]) -> dict[str, list[float]]:
    return {
        RIGHT: [float(_outcome(row, one)[1]) for row, one in zip(asked, found, strict=True)],
        ENDS: [float(one.finish_reasons[0] != "length") for one in found],
    }


def conclude(measures: Mapping[str, Any], prompts: int) -> str:
    """One sentence: whether more answers follow their rule."""
    change = measures[RIGHT]["change"]
    verdict = "more" if change["low"] > 0 else "fewer" if change["high"] < 0 else "as many, as far as can be told,"
    points = " to ".join(f"{100 * change[end]:+.1f}" for end in ("low", "high"))
    return (
        f"On {prompts:,} prompts about topics that nobody trained on, {verdict} answers follow their rule: "
        f"{100 * change['mean']:+.1f} points (95 % interval {points})."
    )


def table(result: Mapping[str, Any], samples: Sequence[Mapping[str, Any]], shown: int = 5) -> str:
    """The contents of `quickstart.json` for a person, and the first of the answers that changed their outcome."""
    counts = result["preferences"]
    head = f"{'':<8}{RIGHT:>18}   {'change (95 % interval)':<25}{ENDS:>16}{'tokens':>9}  health"
    lines = [
        "",
        f"{result['model']}: {counts['ups']:,} thumbs up and {counts['downs']:,} down for its own answers, by a rule.",
        f"{result['prompts']:,} prompts on topics that were not in them, one sample each, seed {result['seed']}:",
        "",
        head,
        "-" * len(head),
    ]
    for method, found in result["methods"].items():
        mean_, low, high = (f"{100 * found[RIGHT]['change'][end]:+.1f}" for end in ("mean", "low", "high"))
        change = "" if method == "base" else f"{mean_} ({low} to {high})"
        right, ends = (f"{100 * found[name]['after']['mean']:.1f} %" for name in (RIGHT, ENDS))
        line = f"{method:<8}{right:>18}   {change:<25}{ends:>16}{result['tokens'][method]:>9.1f}"
        lines.append(f"{line}  {result['health'].get(method, '')}".rstrip())
    lines += ["", result["conclusion"], *(f"{method}: {text}" for method, text in result["verdicts"].items()), ""]
    turned = sorted(samples, key=lambda row: row["before_correct"] == row["after_correct"])
    for row in turned[:shown]:
        lines += [f"> {row['prompt'][0]['content']}"]
        lines += [f"  {when}: {' '.join(row[when].split())}" for when in ("before", "after")]
    return "\n".join(lines)
