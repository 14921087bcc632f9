"""What goes into an engine and what comes out."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from bnf_align.data.template import Message
from bnf_align.records import BadInput

MOST = 10_000
"""Texts to one prompt: all are in memory together."""


@dataclass(frozen=True)
class Sampling:
    """How texts are drawn. The defaults are greedy decoding, as every benchmark here uses it."""

    temperature: float = 0.0
    """0 takes the likeliest token; anything above samples from the whole distribution."""
    top_p: float = 1.0
    max_new_tokens: int = 4096
    n: int = 1
    """Texts per prompt."""
    seed: int = 0
    stop: tuple[str, ...] = ()
    """Texts that end a generation and are not part of it."""

    def __post_init__(self) -> None:
        """Refuse what would draw from something else than the model's distribution.

        Raises:
            BadInput: For a temperature below 0 or next to it, a top-p that is no share, less than one token or text.
        """
        if not (self.temperature == 0 or 0.001 <= self.temperature < math.inf):  # logits are divided by it
            raise BadInput(f"--temperature {self.temperature}: choose 0 for the likeliest token, or 0.001 and above.")
        if not 0 < self.top_p <= 1:
            raise BadInput(f"--top-p {self.top_p}: a share lies above 0 and up to 1, which is the whole distribution.")
        if "" in self.stop:
            raise BadInput("--stop '': every text holds an empty one, so no answer would begin.")
        if self.max_new_tokens < 1 or not 1 <= self.n <= MOST:
            raise BadInput(
                f"{self.n} texts of {self.max_new_tokens} tokens each: 1 to {MOST:,} texts of 1 token or more needed."
            )

    @property
    def drawn(self) -> int:
        """Texts to make per prompt: greedy ones are all the same."""
        return self.n if self.temperature else 1


class Request(NamedTuple):
    """One prompt."""

    id: str
    prompt: str | list[Message]
    """Messages go through the model's chat template; a plain text is continued as it stands."""


class Generation(NamedTuple):
    """What an engine said to one request."""

    id: str
    texts: list[str]
    """`Sampling.n` texts without special tokens."""
    finish_reasons: list[str]
    """Of each text: "stop" where the model ended it, "length" where `max_new_tokens` did."""
    tokens: Sequence[int | None]
    """Of each text: its tokens as the engine counts them, the end token included; None where a server does not say."""
    prompt_tokens: int | None


class Engine(Protocol):
    """A model that answers. Implemented by `engines.local.LocalEngine` and `engines.url.UrlEngine`."""

    name: str
    """The model's name, as it stands in every file made with it."""

    @property
    def weights(self) -> str | None:
        """Hash of the model's weights; None where a server holds them."""
        ...

    tokens: int
    """Tokens generated so far, over all calls of `generate`."""
    seconds: float
    """What they took, of wall time: `tokens / seconds` is the throughput."""

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, done: Collection[str] = ()
    ) -> Iterator[list[Generation]]:
        """Answers, a batch at a time, in the order in which they become ready.

        Args:
            requests: All requests of the job, finished ones too: the batches follow from them alone.
            sampling: How to draw.
            done: Ids of requests that are finished. An engine that works in batches leaves a batch out when all of
                it is done, and otherwise redoes it whole, so that a resumed job gives what an uninterrupted one gives.
        """
        ...


def asked_with(engine: Engine) -> dict[str, Any]:
    """Further fields of an engine's calls, for the card of what was made with it; nothing where there are none.

    They change what a served model says, so a file that was begun with others is not gone on with.
    """
    extra = getattr(engine, "extra", None)
    return {"request": dict(extra)} if extra else {}


def stream_seed(seed: int, request_id: str, sample: int) -> int:
    """The seed (31 bits, as servers want it) of one text's random stream.

    Each text has its own, from the job's seed, its request's id and its number alone: then it depends neither on the
    texts drawn beside it nor on which requests are in the job, and a fifth sample leaves the first four as they were.
    """
    digest = hashlib.sha256(f"{seed}/{sample}/{request_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def refuse_repeated_ids(requests: Sequence[Request]) -> None:
    """Stop where two requests share an id: their answers could not be told apart; BadInput if so."""
    counts = Counter(request.id for request in requests)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise BadInput(
            f"{len(twice):,} ids stand on more than one prompt, the first is {twice[0]!r}: answers are filed by id. "
            "Give every prompt its own."
        )
