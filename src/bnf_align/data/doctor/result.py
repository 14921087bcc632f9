"""What the doctor says."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from bnf_align.data.doctor.fix import Fixed
from bnf_align.data.doctor.texts import printable
from bnf_align.records import LEFT_OUT, NOTE, WARNING, DataReport, Finding, rows_text

CLEAN, WARNINGS, UNUSABLE = 0, 1, 2
SHOWN_EXAMPLES = 2
SHOWN_ROWS = 200
"""Of a finding, on the page."""
VERDICTS = (("clean", "clean"), ("usable", "usable; look at what was found first"), ("unusable", "unusable as it is"))


@dataclass
class DoctorResult:
    """What is in a source, and what training would make of it."""

    report: DataReport
    """What training would report."""
    error: str | None = None
    """Why the source cannot be used, and the flag that mends it; None where it can."""
    format: str = ""
    """What kind of file it is and what its rows are, in words."""
    columns: tuple[str, ...] = ()
    findings: list[Finding] = field(default_factory=list)
    """In the order in which they are said; rows left out first, then warnings, then notes."""
    unit: str = "characters"
    """What `lengths` counts."""
    lengths: dict[str, dict[str, int]] = field(default_factory=dict)
    """Quantiles for `prompts`, `ups` and `downs`."""
    not_looked_at: list[str] = field(default_factory=list)
    """What was left out of the examination, each with the flag that asks for it."""
    fixed: Fixed | None = None
    """What `--fix` wrote."""

    @property
    def status(self) -> int:
        """Exit status: 0 clean; 1 with warnings, or rows left out or cut; 2 unusable."""
        if self.error is not None:
            return UNUSABLE
        worth_a_look = self.report.warnings or any(finding.level != NOTE for finding in self.findings)
        return WARNINGS if worth_a_look else CLEAN

    @property
    def verdict(self) -> str:
        """The last line."""
        return VERDICTS[self.status][1]

    def lines(self) -> list[str]:
        """The findings in plain words, one a line, the verdict last."""
        return [line for _, line in self.styled_lines()]

    def styled_lines(self) -> list[tuple[str, str]]:
        """The same lines, each with what it is, for colours.

        Returns:
            (kind, line): head, left out, warning, note, example, error; clean, usable or unusable for the verdict.
        """
        lines = [("head", self.report.lines()[0])] if self.error is None else [("error", self.error)]
        if self.format:
            lines.append((NOTE, f"  {self.format}"))
        for finding in self.findings:
            rows = f" {rows_text(list(finding.rows))}" if finding.level == LEFT_OUT else ""  # the others name theirs
            lines.append((finding.level, f"  {finding.level}{rows}: {finding.text}"))
            for example in finding.examples[:SHOWN_EXAMPLES]:
                said = {name: text if name == "label" else repr(text) for name, text in example.items()}
                row = said.pop("row")
                parts = ", ".join(f"{name} {text}" for name, text in said.items())
                lines.append(("example", f"      row {row}: {parts}"))
        lines += [(WARNING, f"  warning: {text}") for text in self.unsaid(self.report.warnings)]
        lines += [(NOTE, f"  note: {text}") for text in self.unsaid(self.report.notes)]
        if self.report.lengths:
            lengths = ", ".join(f"{name} {value:,}" for name, value in self.report.lengths.items())
            lines.append((NOTE, f"  tokens of prompt and answer: {lengths}"))
        if self.unseen:
            lines.append((NOTE, f"  {self.unseen}"))
        if self.fixed is not None:
            lines += [(NOTE, f"  {text}") for text in self.fixed.lines()]
        lines.append((VERDICTS[self.status][0], f"verdict: {self.verdict}"))
        return [(kind, printable(line)) for kind, line in lines]

    @property
    def unseen(self) -> str:
        """What was not looked at: "clean" without a tokenizer is not all that training asks for."""
        if self.error is not None:
            return ""
        tokens = "lengths in tokens, chat template, end tokens (--model_name_or_path)"
        unseen = [*([] if self.unit == "tokens" else [tokens]), *self.not_looked_at]
        return f"not looked at: {'; '.join(unseen)}" if unseen else ""

    def unsaid(self, texts: list[str]) -> list[str]:
        """Those of the report's sentences that no finding says."""
        said = {finding.text for finding in self.findings}
        return [text for text in texts if text not in said]

    def as_dict(self) -> dict[str, Any]:
        """The findings for `--json`, with every row number where the lines show the first ones."""
        return {
            "status": self.status,
            "verdict": self.verdict,
            "error": self.error,
            "format": self.format,
            "columns": list(self.columns),
            **self.report.as_dict(),
            "dropped_rows": self.report.dropped,
            "cut_rows": self.report.cut,
            "findings": [asdict(finding) | {"rows": list(finding.rows)} for finding in self.findings],
            "not_looked_at": list(self.not_looked_at),
            "quantiles": {"unit": self.unit, **self.lengths},
            "fixed": None if self.fixed is None else asdict(self.fixed),
        }


def page(result: DoctorResult) -> str:
    """The findings as a page: every text is escaped, and its policy lets it load and run nothing."""
    # Rows hold what strangers wrote: autoescape is on for all of it.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["printable"] = printable
    template = files("bnf_align.data.doctor").joinpath("page.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(result=result, shown_rows=SHOWN_ROWS)
