"""OpenAI: the preference data of its fine-tuning, which Azure, Fireworks and Together take as well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bnf_align.data.importers.importer import Importer, Options, Pair
from bnf_align.data.importers.shape import NO_TOOLS, filled, mapping, records_like, tools_of
from bnf_align.data.importers.turns import messages
from bnf_align.records import DataReport

FIELDS = {"input", "preferred_output", "non_preferred_output"}


class OpenAI(Importer):
    """OpenAI's and Azure's JSON Lines for direct preference optimisation.

        {"input": {"messages": [{"role": "user", "content": "Hi"}], "tools": [], "parallel_tool_calls": true},
         "preferred_output": [{"role": "assistant", "content": "Hello"}],
         "non_preferred_output": [{"role": "assistant", "content": "What?"}]}

    Source: developers.openai.com/api/docs/guides/direct-preference-optimization and learn.microsoft.com/azure/foundry/
    openai/how-to/fine-tuning-direct-preference-optimization, read in 2026.
    """

    name = "openai"
    title = "OpenAI's DPO format"

    def matches(self, record: Any, path: Path) -> bool:
        """The three fields are OpenAI's own."""
        return isinstance(record, dict) and record.keys() >= FIELDS

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Pair]:
        """Pairs, in the order of the file."""
        wanted = f"a pair with {', '.join(sorted(FIELDS))}"
        for row, record in records_like(paths, lambda record: record.keys() >= FIELDS, wanted, report):
            given = mapping(record["input"])
            prompt = messages(given.get("messages"))
            chosen, rejected = messages(record["preferred_output"]), messages(record["non_preferred_output"])
            tools = tools_of(given.get("tools"))
            if tools is None:
                report.drop(NO_TOOLS, row)
            elif prompt is None or chosen is None or rejected is None:
                report.drop("input or an output holds no messages", row)
            else:
                yield Pair(row, prompt, chosen, rejected, filled(tools=tools))
