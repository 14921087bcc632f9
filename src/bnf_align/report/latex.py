"""Tables as LaTeX, for a document that loads booktabs."""

from __future__ import annotations

from collections.abc import Sequence

from bnf_align.report.table import Cell, Report, Table

PREAMBLE = "% Needs \\usepackage{booktabs} and, for the ticks, \\usepackage{amssymb}."

COMMANDS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
    "§": r"\S{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "≤": r"$\leq$",
    "×": r"$\times$",
    "✓": r"$\checkmark$",
    "−": r"$-$",
    "–": "--",
}


def latex(report: Report) -> str:
    """The report, its sources as comments at the end."""
    sources = [
        " | ".join(f"{name}: {text}" for name, text in source.texts().items() if text) for source in report.sources
    ]
    comments = [f"Made with {report.command}"] if report.command else []
    comments += ["Where the numbers come from:", *sources] if sources else []
    parts = [*map(_table, report.tables), "\n".join(f"% {' '.join(text.split())}" for text in comments)]
    return "\n\n".join([PREAMBLE, *parts]) + "\n"


def escape(text: str) -> str:
    """`text` as itself, on one line."""
    return "".join(COMMANDS.get(character, character) for character in " ".join(str(text).split()))


def _table(table: Table) -> str:
    width = len(table.columns) + 1
    lines = [
        r"\begin{table}",
        r"\centering",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{escape(table.title)}}}",
        rf"\label{{tab:bnf-align-{table.name}}}",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        *_head(table),
    ]
    for section in table.sections:
        lines.append(r"\midrule")
        if section.title:
            lines += [rf"\multicolumn{{{width}}}{{l}}{{\textit{{{escape(section.title)}}}}} \\", r"\midrule"]
        lines += [_line([escape(row.label), *map(_cell, row.cells)]) for row in section.rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\smallskip\begin{{minipage}}{{\linewidth}}{escape(note)}\end{{minipage}}" for note in table.notes]
    return "\n".join([*lines, r"\end{table}"])


def _head(table: Table) -> list[str]:
    names = _line([escape(table.label), *(escape(column.name) for column in table.columns)])
    if not any(column.group for column in table.columns):
        return [names]
    spans, rules, start = [], "", 2  # the first column is that of the labels
    for group, span in table.groups():
        spans.append(rf"\multicolumn{{{span}}}{{c}}{{{escape(group)}}}")
        if group:
            rules += rf"\cmidrule(lr){{{start}-{start + span - 1}}}"
        start += span
    return [_line(["", *spans]), rules, names]


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    text = rf"\textbf{{{text}}}" if cell.rank == 1 else rf"\underline{{{text}}}" if cell.rank == 2 else text
    return text + escape(cell.marks) + (f" ({cell.rank})" if cell.rank and cell.rank_shown else "")
