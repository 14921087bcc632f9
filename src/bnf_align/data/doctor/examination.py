"""The examination: once through the source for its columns, once to check it, once more where a tokenizer is given.

A second reading costs seconds and a million rows in memory cost gigabytes, so rows are read again rather than kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnf_align.data.columns import Columns
from bnf_align.data.doctor.agreement import Agreement, rater_column
from bnf_align.data.doctor.fix import IN_EXPORT, Fixed, fixed_paths, reasons_to_leave_out, write_fixed
from bnf_align.data.doctor.leaks import LOOKED_AT, Prompts
from bnf_align.data.doctor.lengths import Lengths
from bnf_align.data.doctor.near_identical import NearIdentical
from bnf_align.data.doctor.personal import Privacy
from bnf_align.data.doctor.personal import redact as masked
from bnf_align.data.doctor.phrases import Phrases
from bnf_align.data.doctor.result import DoctorResult
from bnf_align.data.doctor.secrets import SECRETS
from bnf_align.data.doctor.source import Source, Step, again
from bnf_align.data.doctor.texts import excerpts, texts_of
from bnf_align.data.ledger import CHAT, OUT, Ledger, balance, with_label
from bnf_align.data.token_ledger import TokenLedger
from bnf_align.outputs import check_targets
from bnf_align.records import LEFT_OUT, NOTE, BadInput, DataReport, Finding

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EXAMPLES = 3


@dataclass
class Examination:
    """One source, examined into one result, as training would read it; for the settings see `examine`."""

    source: Source
    test: Source | None
    result: DoctorResult
    conflicting_labels: str
    tokenizer: PreTrainedTokenizerBase | None
    max_length: int | None
    merge_system_prompt: bool
    score_thoughts: bool
    vocab_size: int | None
    near_duplicates: bool
    model: Any

    def __post_init__(self) -> None:
        self.report = self.result.report
        self.ledger = Ledger(self.report)
        self.found: list[Finding] = []

    def run(self) -> None:
        """Fill the result.

        Raises:
            BadInput: If the source cannot be used.
        """
        columns = self.source.survey(self.report)
        self.result.columns = columns.names
        tested = 0 if self.test is None else self.test.survey(DataReport(self.test.name)).rows
        near = self.near_duplicates or columns.rows + tested <= LOOKED_AT
        if not near:
            self.result.not_looked_at.append("near-duplicate prompts (--near_duplicates)")
        self._check(columns, near)
        if self.tokenizer is not None:
            self._tokenise(self.tokenizer)
        if (unbalanced := balance(self.report)) is not None:
            self._say(unbalanced)
        dropped = [Finding(reason.code, reason, rows, LEFT_OUT) for reason, rows in self.report.dropped.items()]
        findings = [*dropped, *sorted(self.found, key=lambda finding: finding.level == NOTE)]
        ours = [finding for finding in findings if finding.name != IN_EXPORT]
        shown = self._excerpts(columns, {row for finding in ours for row in finding.rows[:EXAMPLES]})
        for finding in ours:
            finding.examples = [shown[row] for row in finding.rows[:EXAMPLES] if row in shown]
        self.result.findings = findings

    def _check(self, columns: Columns, near_duplicates: bool) -> None:
        """Check every row, and look at its texts while they are here."""
        lengths, near, privacy = Lengths("characters"), NearIdentical("characters"), Privacy()
        prompts = Prompts(near_duplicates) if near_duplicates or self.test is not None else None
        phrases = Phrases(columns.rows)
        raters = rater_column(name for name in columns.names if name not in columns.renames.values())
        agreement = None if raters is None else Agreement(raters)
        in_characters = self.tokenizer is None
        position = 0
        for step in self.source.steps(self.report, "Checking"):
            if (row := step.row) is None:
                continue
            readable, texts = self.ledger.add(row), texts_of(row)
            privacy.add(row["row"], texts.values())
            prompt, *answers = texts.values()
            phrases.add(answers)
            if prompts is not None:
                prompts.add(row)
            if agreement is not None and readable:
                agreement.add(position, step.raw.get(agreement.column))
            position += 1
            if in_characters:
                lengths.add(len(prompt), [len(answer) for answer in answers])
                if len(answers) == 2 and readable:
                    near.add(row["row"], *answers)
        self._say(*self.ledger.settle(self.source.label_map, self.conflicting_labels))
        self.result.format = f"{self.source.format()}; {_kinds(self.ledger, self.report)}"
        if in_characters:
            self.result.lengths = lengths.table(self.ledger.sides)
            self.found += [*near.findings(), *lengths.findings(self.ledger.sides)]
        if prompts is not None:
            tested = None
            if self.test is not None:
                tested = Prompts(near_duplicates)
                steps = self.test.steps(DataReport(self.test.name), "Reading the test rows")
                for row in (step.row for step in steps if step.row is not None):
                    tested.add(row)
            self.found += prompts.findings(self.ledger, tested, self.test.name if self.test else "")
        self.found += [*privacy.findings(self.ledger), *phrases.findings(self.ledger)]
        if agreement is not None:
            self.found += agreement.findings(self.ledger, self.source.export is not None)

    def _tokenise(self, tokenizer: PreTrainedTokenizerBase) -> None:
        from bnf_align.data.doctor.tokens import Tokens  # imports torch

        ledger = TokenLedger(
            tokenizer,
            self.report,
            max_length=self.max_length,
            score_thoughts=self.score_thoughts,
            vocab_size=self.vocab_size,
        )
        tokens = Tokens(ledger, self.merge_system_prompt, self.model)
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

    def _excerpts(self, columns: Columns, wanted: set[int]) -> dict[int, dict]:
        shown = {}
        rows = enumerate(self.source.rows("Looking up examples")) if wanted else ()
        for position, raw in rows:
            if (number := columns.number(position, raw)) in wanted:
                shown[number] = excerpts(number, columns.named(raw))
                if len(shown) == len(wanted):
                    break
        return shown

    def write(self, target: tuple[Path, Path], redact: bool) -> Fixed:
        """Write the clean rows, after `run`.

        Raises:
            BadInput: If none is left, or the file cannot be written.
        """
        assert self.source.columns is not None
        reasons = reasons_to_leave_out(self.report, self.result.findings)
        if len(reasons) >= self.report.rows:
            raise BadInput(f"--fix {target[0]}: no row of {self.source.name} is clean, so nothing was written.")
        return write_fixed(self._again("Writing"), self.source.columns, reasons, target, redact)


def _kinds(ledger: Ledger, report: DataReport) -> str:
    """What the rows kept are, in words."""
    rows = [name for name, count in (("pairs", report.pairs), ("single answers", report.ups + report.downs)) if count]
    chat, total = len(ledger.rows(CHAT)), int(ledger.kept.sum())
    forms = [name for name, count in (("plain text", total - chat), ("messages", chat)) if count]
    return f"{' and '.join(rows)}, in {' and '.join(forms)}"


def examine(
    source: str | Path,
    *,
    split: str = "train",
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_length: int | None = None,
    merge_system_prompt: bool = False,
    score_thoughts: bool = True,
    column_map: Mapping[str, str] | None = None,
    label_map: Mapping[str, str] | None = None,
    role_map: Mapping[str, str] | None = None,
    conflicting_labels: str = "drop",
    test: str | Path | None = None,
    test_split: str | None = None,
    fix: str | Path | None = None,
    redact: bool = False,
    vocab_size: int | None = None,
    near_duplicates: bool = False,
    model: Any = None,
) -> DoctorResult:
    """Read, check and, given a tokenizer, tokenise a source as training would, and say what became of its rows.

    Args:
        source: File, folder or hub name.
        split: Which split of it.
        tokenizer: The model's; without one, templates are not looked at and lengths are in characters.
        max_length: As in training.
        merge_system_prompt: As in training.
        score_thoughts: As in training.
        column_map: As in `preference_rows`, and so are the next three.
        label_map: See there.
        role_map: See there.
        conflicting_labels: See there.
        test: File, folder or hub name of rows whose prompts must not be among these; the source itself if only
            `test_split` is given.
        test_split: Which split of it.
        fix: Where to write the rows without those left out, a .jsonl file; None writes nothing.
        redact: Whether to mask likely personal data and secrets in what is written.
        vocab_size: Rows of the model's input embedding, where that is known.
        near_duplicates: Whether to look for near-duplicate prompts in more than 100,000 rows too.
        model: A causal language model under which the hidden states of pairs are compared (`ches`), which needs its
            tokenizer; None leaves that out.
    """
    maps = (column_map or {}, role_map or {}, label_map or {})
    given = Source(str(source), split, *maps)
    asked = (max_length, merge_system_prompt, score_thoughts, vocab_size, near_duplicates, model)
    result = DoctorResult(DataReport(str(source)))
    tested = None
    if test is not None or test_split is not None:
        other = split if test_split is None else test_split
        tested = Source(str(source if test is None else test), other, *maps)
    try:
        target = None if fix is None else fixed_paths(fix)
        if target is not None:
            names = [one.name for one in (given, tested) if one]
            check_targets({"--fix": target[0], "the file of rows left out": target[1]}, names)
        examination = Examination(given, tested, result, conflicting_labels, tokenizer, *asked)
        examination.run()
        if target is not None:
            result.fixed = examination.write(target, redact)
    except BadInput as error:
        result.error = masked(str(error), SECRETS)
    except RecursionError:
        result.error = f"{source}: a row is nested too deeply to be a conversation."
    return result
