"""CRUXEval, output prediction: 800 short Python functions; what does this call return?"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bnf_align.answers import same_literal, text_of
from bnf_align.evaluation.task import Hub, Row
from bnf_align.evaluation.tasks.zero_eval import OPEN_QUESTION, ZeroEvalTask, required

QUESTION = """Below are a Python function `f` and a call of it. Which value does the call return? Follow the code as \
it is written, mistakes included, and give the value as a Python literal.

```python
{code}

f({input})
```"""
STORED = re.compile(r"\[PYTHON\]\n(?P<code>.*)\nassert f\((?P<input>.*)\) == \?\?\n\[/PYTHON\]", re.DOTALL)
"""Function and call in CRUXEval's own prompts, which ZeroEval keeps as the item's question."""


@dataclass(frozen=True)
class Crux(ZeroEvalTask):
    """ZeroEval's `crux`.

    A template names `{code}` and `{input}`; or `{question}`, where the items bring one: its wording is ZeroEval's.
    """

    name = "crux"
    hub = Hub("cruxeval-org/cruxeval", "default", "test", "b96af0450242eb4da433032b90998f25588a5d0f")
    template = OPEN_QUESTION.replace("{question}", QUESTION)
    numeric = False

    def items(self, rows: Iterable[Row]) -> list[Row]:
        """Items from rows with `code`, `input` and `output` (CRUXEval's) or `question` and `answer` (ZeroEval's)."""
        rows = list(rows)
        if any("code" in row for row in rows):
            needed = required(rows, ("code", "input", "output"), self.name)
            # "sample_17" is ZeroEval's "crux-test-#17": under one name, outputs of either find their item.
            names = [str(row.get("id", f"sample_{number}")) for number, row in enumerate(needed)]
            return [
                {"id": name.replace("sample_", "crux-test-#"), "code": row["code"], "input": row["input"]}
                | {"answer": row.get("answer", row["output"])}
                for name, row in zip(names, needed, strict=True)
            ]
        needed = required(rows, ("id", "question", "answer"), self.name)
        return [
            {"id": str(row["id"]), "question": row["question"], "answer": row["answer"]}
            | (stored.groupdict() if (stored := STORED.search(row["question"])) else {})
            for row in needed
        ]

    def fields(self, item: Row) -> dict[str, str]:
        """`code`, `input`, and `question` where the item has one."""
        return {name: item[name] for name in ("code", "input", "question") if name in item}

    def right(self, answer: Any, row: Row) -> bool:
        """Whether both read the same, quotes aside."""
        return same_literal(text_of(answer), text_of(row["answer"]))
