"""The examination: once through the source for its columns, once to check it, once more where a tokenizer is given.

A second reading costs seconds and a million rows in memory cost gigabytes, so rows are read again rather than kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bnf_align.data.doctor.fix import Fixed, check_target, write_fixed
from bnf_align.data.doctor.leaks import Prompts
from bnf_align.data.doctor.lengths import Lengths
from bnf_align.data.doctor.near_identical import NearIdentical
from bnf_align.data.doctor.privacy import Privacy
from bnf_align.data.doctor.result import DoctorResult
from bnf_align.data.doctor.source import Source, Step, again
from bnf_align.data.doctor.texts import excerpts, texts_of
from bnf_align.data.findings import LEFT_OUT, NOTE, WARNING, Finding
from bnf_align.data.ledger import CHAT, OUT, Ledger
from bnf_align.data.rows import balance, with_label
from bnf_align.records import BadInput, DataReport

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bnf_align.data.doctor.tokens import Tokens

EXAMPLES = 3
IN_EXPORT = "in the export: "
"""How a reason begins whose row numbers are those of the export's records, not of the rows that its importer gives."""
REASONS = {
    IN_EXPORT: "in_the_export",
    "chosen and rejected are the same": "equal_answers",
    "an empty answer": "empty_answer",
    "no label": "no_label",
    "a label that --label_map drops": "dropped_label",
    "the same answer is labelled both up and down": "both_labels",
    "half a character": "half_character",
    "no `": "missing_column",
    "no assistant turn": "no_answer",
    "prompts longer than": "prompt_too_long",
    "the chat template refuses": "template_refuses",
}
"""How a reason for which rows are left out begins -> what programs call it."""
MENDED = {
    "repeats": "an earlier row is the same word for word",
    "continued_prompt": "the prompt ends with an assistant turn",
    "empty_prompt": "the prompt is empty",
    "cut": "the answer is cut at max_length",
    "leak": "the prompt is also in the test rows",
}
"""Findings that `--fix` mends, by leaving their rows out for this reason."""


def examine(
    source: str | Path,
    *,
    split: str = "train",
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_length: int | None = None,
    merge_system_prompt: bool = False,
    column_map: Mapping[str, str] | None = None,
    label_map: Mapping[str, str] | None = None,
    role_map: Mapping[str, str] | None = None,
    conflicting_labels: str = "drop",
    test: str | Path | None = None,
    test_split: str | None = None,
    fix: str | Path | None = None,
    redact: bool = False,
) -> DoctorResult:
    """Read, check and, given a tokenizer, tokenise a source as training would, and say what became of its rows.

    Args:
        source: File, folder or hub name.
        split: Which split of it.
        tokenizer: The model's; without one, templates are not looked at and lengths are in characters.
        max_length: As in training.
        merge_system_prompt: As in training.
        column_map: As in `preference_rows`, and so are the next three.
        label_map: See there.
        role_map: See there.
        conflicting_labels: See there.
        test: File, folder or hub name of rows whose prompts must not be among these; the source itself if only
            `test_split` is given.
        test_split: Which split of it.
        fix: Where to write the rows without those left out, a .jsonl file; None writes nothing.
        redact: Whether to mask likely personal data in what is written.
    """
    maps = (column_map or {}, role_map or {}, label_map or {})
    given = Source(str(source), split, *maps)
    rules = Rules(label_map or {}, conflicting_labels, tokenizer, max_length, merge_system_prompt)
    result = DoctorResult(DataReport(str(source)))
    tested = None
    if test is not None or test_split is not None:
        other = split if test_split is None else test_split
        tested = Source(str(source if test is None else test), other, *maps)
    try:
        target = None if fix is None else check_target("--fix", fix, [one.name for one in (given, tested) if one])
        examination = Examination(given, rules, tested, result)
        examination.run()
        if target is not None:
            result.fixed = examination.write(target, redact)
    except BadInput as error:
        result.error = str(error)
    except RecursionError:
        result.error = f"{source}: a row is nested too deeply to be a conversation."
    return result


@dataclass(frozen=True)
class Rules:
    """What training would do with the rows."""

    label_map: Mapping[str, str] = field(default_factory=dict)
    conflicting_labels: str = "drop"
    tokenizer: PreTrainedTokenizerBase | None = None
    max_length: int | None = None
    merge_system_prompt: bool = False


class Examination:
    """One source, examined into one result."""

    def __init__(self, source: Source, rules: Rules, test: Source | None, result: DoctorResult) -> None:
        self.source, self.rules, self.test = source, rules, test
        self.result, self.report = result, result.report
        self.ledger = Ledger(self.report)
        self.found: list[Finding] = []

    def run(self) -> None:
        """Fill the result.

        Raises:
            BadInput: If the source cannot be used; what was found until then stays in the result.
        """
        self.source.survey(self.report)
        assert self.source.columns is not None
        self.result.columns = self.source.columns.names
        self._check()
        if self.rules.tokenizer is not None:
            self._tokenise()
        if (unbalanced := balance(self.report)) is not None:
            self._say(unbalanced)
        self._conclude()

    def _check(self) -> None:
        """Check every row, and look at its texts while they are here."""
        lengths, near, prompts, privacy = Lengths("characters"), NearIdentical("characters"), Prompts(), Privacy()
        in_characters = self.rules.tokenizer is None
        for step in self.source.steps(self.report, "Checking"):
            if (row := step.row) is None:
                continue
            self.ledger.add(row)
            texts = texts_of(row)
            privacy.add(row["row"], texts.values())
            if self.test is not None:
                prompts.add(row)
            if in_characters:
                _measure(row["row"], texts, lengths, near)
        self._say(*self.ledger.settle(self.rules.label_map, self.rules.conflicting_labels))
        self.result.format = f"{self.source.format()}; {_kinds(self.ledger, self.report)}"
        if in_characters:
            self.result.lengths = lengths.table(self.ledger.sides)
            self.found += [*near.findings(), *lengths.findings(self.ledger.sides)]
        if self.test is not None:
            self.found += prompts.leaks(self.ledger, _prompts_of(self.test), self.test.name)
        self.found += privacy.findings(self.ledger)

    def _tokenise(self) -> None:
        from bnf_align.data.doctor.tokens import Tokens  # imports torch

        assert self.rules.tokenizer is not None
        tokens: Tokens = Tokens(
            self.rules.tokenizer, self.report, self.rules.max_length, self.rules.merge_system_prompt
        )
        tokens.check(self.ledger)
        rows = (with_label(step.row, side) for step, side in self._again("Tokenizing") if step.row and side != OUT)
        self._say(*tokens.read(rows))
        self.found += tokens.findings()
        self.result.unit, self.result.lengths = "tokens", tokens.lengths.table(tokens.sides)

    def _again(self, doing: str) -> Iterator[tuple[Step, int]]:
        """Every row once more, with its side in the ledger."""
        return again(self.source.steps(DataReport(""), doing), self.ledger.sides.tolist(), self.source.name)

    def _say(self, *findings: Finding) -> None:
        """What training says too."""
        for finding in findings:
            finding.say(self.report)
        self.found += findings

    def _conclude(self) -> None:
        left_out = [Finding(_name(reason), reason, rows, LEFT_OUT) for reason, rows in self.report.dropped.items()]
        order = (LEFT_OUT, WARNING, NOTE)
        self.result.findings = sorted([*left_out, *self.found], key=lambda finding: order.index(finding.level))
        ours = [finding for finding in self.result.findings if finding.name != REASONS[IN_EXPORT]]
        shown = self._excerpts({row for finding in ours for row in finding.rows[:EXAMPLES]})
        for finding in ours:
            finding.examples = [shown[row] for row in finding.rows[:EXAMPLES] if row in shown]

    def _excerpts(self, wanted: set[int]) -> dict[int, dict]:
        columns, shown = self.source.columns, {}
        assert columns is not None
        rows = enumerate(self.source.rows("Looking up examples")) if wanted else ()
        for position, raw in rows:
            if (number := columns.number(position, raw)) in wanted:
                shown[number] = excerpts(number, columns.named(raw))
                if len(shown) == len(wanted):
                    break
        return shown

    def write(self, target: Path, redact: bool) -> Fixed:
        """Write the clean rows, after `run`.

        Raises:
            BadInput: If none is left, or the file cannot be written.
        """
        assert self.source.columns is not None
        dropped = {reason: rows for reason, rows in self.report.dropped.items() if not reason.startswith(IN_EXPORT)}
        reasons = {row: reason for reason, rows in dropped.items() for row in rows}
        for finding in self.result.findings:
            if finding.name in MENDED:
                reasons |= {row: MENDED[finding.name] for row in finding.rows if row not in reasons}
        if len(reasons) >= self.report.rows:
            raise BadInput(f"--fix {target}: no row of {self.source.name} is clean, so nothing was written.")
        try:
            return write_fixed(self._again("Writing"), self.source.columns, reasons, target, redact)
        except OSError as error:
            raise BadInput(f"--fix {target}: cannot be written ({error.strerror}).") from error


def _measure(number: int, texts: Mapping[str, str], lengths: Lengths, near: NearIdentical) -> None:
    prompt, *answers = texts.values()
    lengths.add(len(prompt), [len(answer) for answer in answers])
    if len(answers) == 2:
        near.add(number, *answers)


def _prompts_of(source: Source) -> Prompts:
    report, prompts = DataReport(source.name), Prompts()
    source.survey(report)
    for step in source.steps(report, "Reading the test rows"):
        if step.row is not None:
            prompts.add(step.row)
    return prompts


def _kinds(ledger: Ledger, report: DataReport) -> str:
    """What the rows kept are, in words."""
    rows = [name for name, count in (("pairs", report.pairs), ("single answers", report.ups + report.downs)) if count]
    chat, total = len(ledger.rows(CHAT)), int(ledger.kept.sum())
    forms = [name for name, count in (("plain text", total - chat), ("messages", chat)) if count]
    return f"{' and '.join(rows)}, in {' and '.join(forms)}"


def _name(reason: str) -> str:
    return next((name for start, name in REASONS.items() if reason.startswith(start)), "left_out")
