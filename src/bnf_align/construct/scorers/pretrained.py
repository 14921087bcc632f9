"""Scorers whose model is in this process: loaded whole, from safetensors, and asked in batches that stay the same."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from bnf_align.construct.scorers.batches import batches, values_in_batches
from bnf_align.construct.scorers.scorer import Row, Scored
from bnf_align.engines.local import Limits
from bnf_align.fingerprint import weights_hash
from bnf_align.models.pretrained import for_inference, reading, refuse_missing
from bnf_align.records import BadInput

COMMIT = re.compile(r"[0-9a-f]{40}")


class PretrainedScorer:
    """What scorers with a model of their own share; a subclass says what it reads of a row and what values mean.

    Args:
        model: What gives the values, in evaluation mode.
        tokenizer: Its tokenizer.
        name: The model's name in the files made with it.
        max_length: Tokens that are read.
        limits: Of a batch.
    """

    kind: ClassVar[str]
    model_class: ClassVar[Any]
    """What the weights are loaded as."""

    def __init__(
        self, model: Any, tokenizer: PreTrainedTokenizerBase, name: str, max_length: int, limits: Limits | None
    ) -> None:
        self.model, self.tokenizer, self.name = model, tokenizer, f"{self.kind}:{name}"
        self.max_length, self.limits = max_length, limits or Limits()

    @classmethod
    def load(
        cls,
        name_or_path: str,
        *,
        dtype: str = "auto",
        revision: str | None = None,
        trust_remote_code: bool = False,
        **options: Any,
    ) -> Self:
        """The scorer with a model from a folder or the hub.

        Args:
            name_or_path: A folder or a hub name.
            dtype: Of the weights; "auto" takes bfloat16 on an accelerator and float32 on a CPU.
            revision: A commit of the hub name.
            trust_remote_code: Run the model's own code, of that commit.
            options: Of the class.

        Raises:
            BadInput: If it cannot be loaded, weights are missing, or foreign code would be run from a moving branch.
        """
        if trust_remote_code and not Path(name_or_path).exists() and not COMMIT.fullmatch(revision or ""):
            raise BadInput(
                f"--trust-remote-code runs code that comes with {name_or_path}, and a branch may hold other code "
                "tomorrow. Read it, and pin what you have read with --revision and the 40 digits of its commit."
            )
        where = {"revision": revision, "trust_remote_code": trust_remote_code}
        with reading("As a scorer, --model", name_or_path):
            tokenizer = AutoTokenizer.from_pretrained(name_or_path, **where)
            model, info = cls.model_class.from_pretrained(
                name_or_path,
                use_safetensors=True,  # any other kind of weights is a program that loading runs
                output_loading_info=True,
                **for_inference(dtype),
                **where,
                **cls._loading(name_or_path, revision, tokenizer),
            )
        refuse_missing(f"--model {name_or_path}", info["missing_keys"], cls.model_class.__name__)
        return cls(model.eval(), tokenizer, name_or_path, **options)

    @classmethod
    def _loading(cls, name_or_path: str, revision: str | None, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        """What else `from_pretrained` gets."""
        return {}

    @cached_property
    def weights(self) -> str:
        """Hash of the weights."""
        return weights_hash(self.model)

    @property
    def card(self) -> Row:
        """The model, its weights and how much it reads."""
        return {"scorer": self.name, "weights": self.weights, "max_length": self.max_length}

    def score(self, rows: Sequence[Row], done: Collection[str] = ()) -> Iterator[list[Scored]]:
        """See `Scorer`. A row of which something had to be cut says of how many candidates in `candidates_cut`.

        Raises:
            BadInput: If a conversation cannot be written, or the model is of another kind.
        """
        found = {row["id"]: self._read(row) for row in rows}
        work = [(name, texts) for name, (texts, _) in found.items()]
        for batch in values_in_batches(work, done, self.limits, self._forward):
            yield [self._scored(name, values, found[name][1]) for name, values in batch]

    def plan(self, rows: Sequence[Row]) -> list[list[str]]:
        """See `Scorer`."""
        work = [(row["id"], self._read(row)[0]) for row in rows]
        return [[name for name, _ in batch] for batch in batches(work, self.limits)]

    def _read(self, row: Row) -> tuple[list[Any], Any]:
        """The texts of a row that get a value each, and what `_scored` has to know besides."""
        raise NotImplementedError

    def _forward(self, texts: list[Any]) -> list[float]:
        raise NotImplementedError

    def _scored(self, name: str, values: Sequence[float], about: Any) -> Scored:
        raise NotImplementedError
