"""UltraFeedback: several completions of one instruction, each with scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, NamedTuple

from bnf_align.data.importers.files import Record, records_of, unpacked
from bnf_align.data.importers.importer import Importer, Options, Pair, Thumb
from bnf_align.data.importers.scores import number_of
from bnf_align.data.importers.shape import dicts, filled, mapping, records_like
from bnf_align.data.importers.turns import assistant, user
from bnf_align.records import BadInput, DataReport

DEFAULT = "overall_score"


class UltraFeedback(Importer):
    """UltraFeedback (openbmb), and what distilabel writes.

        {"instruction": "Hi", "completions": [{"model": "gpt-4", "response": "Hello", "overall_score": 8.5,
         "fine-grained_score": 4.25, "annotations": {"helpfulness": {"Rating": "4", ...}, "honesty": ...}}, ...]}
        {"instruction": "Hi", "generations": ["Hello", "What?"], "ratings": [5, 1], "generation_models": [...]}

    `--score_name` is `overall_score` (1 to 10; the default), `fine-grained_score` (1 to 5), one of the aspects
    (helpfulness, honesty, instruction_following, truthfulness: 1 to 5) or distilabel's `ratings` (1 to 5). In all of
    them more is better. Without more, the best and the worst completion make a pair. With `--up_from` and `--down_to`,
    or a `--label_map`, each completion is a thumb instead: no number of points is good or bad by itself. The
    `custom_system_prompt` that a completion was made with is left out, as in the sets made of this one. Copies from
    before 29 December 2023 give 10 to answers whose critic gave 1: an `overall_score` of 10 beside detailed marks of 4
    or less on average, which its authors corrected, is left out.

    Source: github.com/OpenBMB/UltraFeedback, its issue 8 and "Update" for the wrong tens;
    HuggingFaceH4/ultrafeedback_binarized, create_dataset.py; distilabel's UltraFeedback task.
    """

    name = "ultrafeedback"
    title = "UltraFeedback's format"
    VALUES: ClassVar = {"N/A": "drop"}

    def matches(self, record: Any, path: Path) -> bool:
        """Scored completions of an instruction."""
        return isinstance(record, dict) and _is_row(record) and bool(_scores_in(record))

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Thumb | Pair]:
        """Pairs of the best and the worst, or thumbs, in the order of the file."""
        name = _score_name(paths, options)
        thumbs = bool(options.label_map) or options.up_from is not None or options.down_to is not None
        for row, record in records_like(paths, _is_row, "an instruction with completions", report):
            scored = [one for one in _completions(record, name) if isinstance(one.text, str)]
            for _ in range(sum(one.doubtful for one in scored)):
                report.drop("an overall score of 10 beside low marks in detail", row)
            scored = [one for one in scored if not one.doubtful]
            if thumbs:
                yield from (_thumb(row, record, one) for one in scored)
            elif (pair := _best_and_worst(scored)) is None:
                report.drop("no two completions of different score", row)
            else:
                yield _pair(row, record, *pair)


class _Completion(NamedTuple):
    text: Any
    score: Any
    model: Any
    doubtful: bool = False


def _is_row(record: Record) -> bool:
    return isinstance(record.get("instruction"), str) and (
        isinstance(unpacked(record.get("completions")), list) or isinstance(record.get("generations"), list)
    )


def _scores_in(record: Record) -> list[str]:
    """The names of the scores that a record has."""
    names = ["ratings"] if isinstance(record.get("ratings"), list) else []
    for completion in dicts(unpacked(record.get("completions"))):
        names += [name for name in (DEFAULT, "fine-grained_score") if completion.get(name) is not None]
        aspects = mapping(completion.get("annotations"))
        names += [str(aspect) for aspect, note in aspects.items() if "Rating" in mapping(note)]
    return list(dict.fromkeys(names))


def _score_name(paths: Sequence[Path], options: Options) -> str:
    seen = Counter(name for _, record in records_of(paths) if _is_row(record) for name in _scores_in(record))
    name = options.score_name or ("ratings" if set(seen) == {"ratings"} else DEFAULT)
    if seen and name not in seen:
        listed = ", ".join(f"{name} ({count:,})" for name, count in seen.most_common(20))
        raise BadInput(f"No completion has a score `{name}`. There are: {listed}. Name one with --score_name NAME")
    return name


def _completions(record: Record, name: str) -> Iterator[_Completion]:
    for one in dicts(unpacked(record.get("completions"))):
        aspect = mapping(mapping(one.get("annotations")).get(name))
        score = one.get(name, aspect.get("Rating"))
        doubtful = name == DEFAULT and number_of(score) == 10 and _detail(one) <= 4
        yield _Completion(one.get("response"), score, one.get("model"), doubtful)
    texts, ratings = record.get("generations"), record.get("ratings")
    if name == "ratings" and isinstance(texts, list) and isinstance(ratings, list) and len(texts) == len(ratings):
        models = record.get("generation_models")
        models = models if isinstance(models, list) and len(models) == len(texts) else [None] * len(texts)
        yield from map(_Completion, texts, ratings, models)


def _detail(completion: Record) -> float:
    """The mean of the aspects' marks, 1 to 5; 5 where there are none."""
    notes = mapping(completion.get("annotations")).values()
    marks = [mark for note in notes if (mark := number_of(mapping(note).get("Rating"))) is not None]
    return fmean(marks) if marks else 5.0


def _best_and_worst(scored: Sequence[_Completion]) -> tuple[_Completion, _Completion] | None:
    numbers = [(number, one) for one in scored if (number := number_of(one.score)) is not None]
    if not numbers:
        return None
    best, worst = (pick(numbers, key=lambda pair: pair[0]) for pick in (max, min))
    return (best[1], worst[1]) if best[0] > worst[0] else None


def _pair(row: int, record: Record, best: _Completion, worst: _Completion) -> Pair:
    extras = filled(
        chosen_model=best.model, rejected_model=worst.model, chosen_score=best.score, rejected_score=worst.score
    )
    return Pair(row, [user(record["instruction"])], [assistant(best.text)], [assistant(worst.text)], extras)


def _thumb(row: int, record: Record, one: _Completion) -> Thumb:
    score = number_of(one.score)
    value = one.score if score is None else score
    extras = filled(model=one.model, score=one.score)
    return Thumb(row, [user(record["instruction"])], [assistant(one.text)], value, extras=extras)
