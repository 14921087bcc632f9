"""Everything that `bnf-align analyze` leaves: rows, figures and `summary.json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bnf_align.analysis.measure import Method, Model, measure
from bnf_align.analysis.overlap import of_pairs
from bnf_align.analysis.plots import figure_1, figure_2, figure_3, figure_4, figure_weights, save
from bnf_align.analysis.summary import bins_method, summary
from bnf_align.outputs import write_json


def analyze(
    methods: Sequence[Method],
    load_reference: Callable[[], Model],
    out: str | Path,
    *,
    bins_of: str | None = None,
    about: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Measure the methods, draw the figures, and write `summary.json`, all into the folder `out`; its contents.

    The methods, their reference and the `options` are those of `measure`, `bins_of` that of `bins_method`. `about` is
    what is worth knowing beside the numbers: models, data, command.
    """
    cut = bins_method([method.name for method in methods], bins_of)
    files = measure(methods, load_reference, out, about=about, **options)
    pairs = {name: of_pairs(file) for name, file in files.items()}
    result = {**(about or {}), **summary(files, cut, pairs)}
    for method in methods:
        result["methods"][method.name] |= {"rows": str(files[method.name]), "read": method.answers.report.as_dict()}
    figures = {
        "figure1": figure_1(),
        "figure3": figure_3(files),
        "figure4": figure_4(files, cut),
        "weights": figure_weights(files),
    }
    if paired := {name: found for name, found in pairs.items() if found}:
        figures["figure2"] = figure_2(paired)
    result["figures"] = [str(path) for name, figure in sorted(figures.items()) for path in save(figure, out, name)]
    write_json(Path(out) / "summary.json", result)
    return result
