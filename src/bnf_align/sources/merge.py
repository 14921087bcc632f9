"""From thumbs to rows: each answer once, with the verdict of its raters, two answers to one question as a pair.

The source is read twice: once to learn what its values are and who rated what (`ratings`), and once to write.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bnf_align.data.labels import Settled, spelled
from bnf_align.reasons import Reason
from bnf_align.records import BadInput, DataReport, counted, rows_text
from bnf_align.sources.ratings import Key, Ratings, answer_key, items, read_ratings
from bnf_align.sources.source import Contest, Item, Options, Pair, Record, Source, Thumb


def merged(
    source: Source, paths: Sequence[Path], options: Options, report: DataReport, ratings: Ratings | None = None
) -> Iterator[Record]:
    """The rows of a source: `prompt, completion, label`, or `prompt, chosen, rejected`, with the extras.

    `report` is filled on the way, whole when the last row is out; `ratings` is what `read_ratings` learnt from the
    same files, if that was asked already.

    Raises:
        BadInput: If the files cannot be read, a rating has no certain meaning, or none is usable.
    """
    ratings = ratings or read_ratings(source, paths, options, strict=True)
    report.notes += ratings.notes
    reading, writer = DataReport(report.source), _Writer(ratings, options, report)
    read = 0
    for read, item in enumerate(items(source, paths, options, reading), start=1):  # noqa: B007 (the count is wanted)
        yield from writer.rows(item)
    yield from writer.rest()
    for reason, rows in reading.dropped.items():
        report.dropped[reason] = sorted(report.dropped.get(reason, []) + rows)
    report.notes += reading.notes
    report.warnings += reading.warnings
    report.rows = read + sum(len(rows) for rows in reading.dropped.values())
    if not report.pairs + report.ups + report.downs:
        none = f"There is none. Is this {source.title}? With auto for {source.name} import says what it looks like."
        raise BadInput(f"{report.source}: 0 of {report.rows:,} ratings are usable. {report.left_out() or none}")


class _Writer:
    """Rows from thumbs and pairs, each answer once."""

    def __init__(self, ratings: Ratings, options: Options, report: DataReport) -> None:
        self.ratings, self.raters, self.report = ratings, options.raters, report
        self.done: set[Key] = set()
        """Of the answers that are rated several times, those that have been seen."""
        self.waiting: dict[Key, Thumb] = {}
        self.again = self.torn = 0
        """Further ratings of answers that have a row, and of answers that have none as their raters disagree."""
        self.unused: list[int] = []
        """Rows with a correction of an answer that was rated up."""

    def rows(self, item: Item) -> Iterator[Record]:
        """The row of a choice, of an answer at its first rating, or of a pair at the rating of its second answer."""
        if isinstance(item, Pair):
            yield self._pair(item)
            return
        if isinstance(item, Contest):
            side = self.ratings.winners[spelled(item.winner)]
            if side in ("tie", "both_bad"):
                self.report.drop(Reason("tie") if side == "tie" else Reason("both_bad"), item.row)
            else:
                better, worse = (item.first, item.second) if side == "first" else (item.second, item.first)
                yield self._pair(Pair(item.row, item.prompt, better, worse, item.extras))
            return
        answer, label = answer_key(item), self.ratings.meaning[repr(item.value)]
        if label is None and item.value is not None:
            self.report.drop(Reason("dropped_rating"), item.row)
        elif answer in self.ratings.corrected and (item.better is not None or self.raters != "all"):
            # The answer rewritten over the answer, once; what else was said of it, no up, is in that pair.
            if item.better is None or (answer in self.done and self.raters != "all"):
                self.again += 1
            else:
                self.done.add(answer)
                yield self._pair(Pair(item.row, item.prompt, item.better, item.completion, item.extras))
        elif label is None:
            self.report.drop(Reason("rated_up"), item.row)
        else:
            self.unused += [item.row] if item.better is not None else []
            yield from [self._single(item, label)] if self.raters == "all" else self._once(item, answer)

    def rest(self) -> Iterator[Record]:
        """What still waits for a partner, and the note on ratings that share a row."""
        for answer in list(self.waiting):
            yield self._single(self.waiting.pop(answer), self._verdict(answer))
        rule = f"(--raters {self.raters})"
        if self.again:
            self.report.notes.append(
                f"{counted(self.again, 'more rating')} of answers rated before, merged into one row each {rule}"
            )
        if self.torn:
            self.report.notes.append(
                f"{counted(self.torn, 'more rating')} of answers whose raters disagree, left out {rule}"
            )
        if self.unused:
            self.report.notes.append(f"corrections of answers that were rated up, left out: {rows_text(self.unused)}")

    def _once(self, thumb: Thumb, answer: Key) -> Iterator[Record]:
        torn = self.ratings.verdict(answer, self.raters) is None
        if answer in self.done:
            self.torn += torn
            self.again += not torn
            return
        if sum(self.ratings.votes[answer]) > 1:
            self.done.add(answer)
        partner = self.ratings.partners.get(answer)
        if torn:
            self.report.drop(Reason("raters_disagree", raters=self.raters), thumb.row)
        elif partner is None:
            yield self._single(thumb, self._verdict(answer))
        elif partner not in self.waiting:
            self.waiting[answer] = thumb
        else:
            other = self.waiting.pop(partner)
            up, down = (thumb, other) if self._verdict(answer) else (other, thumb)
            # A turn edited between two ratings is another prompt, and then the two answers do not compare.
            if up.prompt != down.prompt or up.completion == down.completion:
                yield self._single(up, True)
                yield self._single(down, False)
            else:
                yield self._pair(Pair(thumb.row, up.prompt, up.completion, down.completion, _both(up, down)))

    def _verdict(self, answer: Key) -> bool:
        return bool(self.ratings.verdict(answer, self.raters))

    def _pair(self, pair: Pair) -> Record:
        self.report.pairs += 1
        return {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected, **pair.extras}

    def _single(self, thumb: Thumb, label: bool) -> Record:
        self.report.ups += label
        self.report.downs += not label
        return {"prompt": thumb.prompt, "completion": thumb.completion, "label": label, **thumb.extras}


def _both(up: Thumb, down: Thumb) -> Record:
    """The extras of a pair: what the two share under its name, the rest as `chosen_id` and `rejected_id`."""
    shared = {name: value for name, value in up.extras.items() if name in down.extras and down.extras[name] == value}
    sides = (("chosen", up), ("rejected", down))
    return shared | {
        f"{side}_{name}": value for side, thumb in sides for name, value in thumb.extras.items() if name not in shared
    }


class ImportedRows:
    """The rows of an export with `Settled` labels, read anew each time they are gone through.

    Args:
        importer: Reads it.
        paths: Its files.
        options: What the user says.
    """

    def __init__(self, importer: Source, paths: Sequence[Path], options: Options) -> None:
        self.importer, self._paths, self._options = importer, paths, options
        self._ratings: Ratings | None = None
        self._learnt_from: list[tuple[int, int]] = []
        self._report = DataReport("")

    def __iter__(self) -> Iterator[Record]:
        """The rows.

        Raises:
            BadInput: If the files cannot be read.
        """
        self._report = DataReport(", ".join(path.name for path in self._paths))
        try:
            files = [(path.stat().st_size, path.stat().st_mtime_ns) for path in self._paths]
            if files != self._learnt_from:
                self._ratings = read_ratings(self.importer, self._paths, self._options)
                self._learnt_from = files
            for row in merged(self.importer, self._paths, self._options, self._report, self._ratings):
                yield {**row, "label": Settled(row["label"])} if "label" in row else row
        except BadInput as error:
            more = f"`bnf-align import {self.importer.name}` has more flags, and a --map for it."
            raise BadInput(f"{error} (Read as {self.importer.title}; {more})") from None

    def say(self, report: DataReport) -> None:
        """Add to a report what became of the export the last time that its rows were gone through."""
        report.notes += [f"read as {self.importer.title} (`{self.importer.name}`); rows are numbered as it gives them"]
        report.notes += self._report.notes
        report.warnings += self._report.warnings
        for reason, rows in self._report.dropped.items():
            report.dropped.setdefault(Reason("in_the_export", reason=reason, code=reason.code), []).extend(rows)
