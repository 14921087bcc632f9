"""A model in this process: requests in batches of like length, one after another, always the same ones."""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeVar, cast

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bnf_align.engines.decoding import Draft, decode
from bnf_align.engines.request import Generation, Request, Sampling, refuse_repeated_ids, stream_seed
from bnf_align.engines.tokens import JOINT, Ending, end_tokens, prompt_ids
from bnf_align.fingerprint import weights_hash
from bnf_align.models import evaluation_mode, for_inference, load
from bnf_align.records import BadInput

logger = logging.getLogger(__name__)

Given = TypeVar("Given")
Made = TypeVar("Made")


class Limits(NamedTuple):
    """Of one batch."""

    rows: int = 64
    tokens: int = 2**18
    """Padding included, each text at the length it could reach: bounds the memory. A batch that runs out of memory
    all the same is halved."""

    def allow(self, rows: int, longest: int) -> bool:
        """Whether so many texts of that length go at a time; one always does."""
        return rows <= 1 or (rows <= self.rows and rows * longest <= self.tokens)


class Prompt(NamedTuple):
    """A request and its token ids."""

    request: Request
    ids: list[int]


class LocalEngine:
    """A causal language model, or an adapter around one, with its tokenizer; it is left in the mode it was in.

    Prompts are sorted by length, the longest first, and cut by `limits` into batches that follow from the requests
    alone; the answers do not depend on their neighbours but for rounding. In float32 the same job gives the same
    texts, whether it was interrupted or not.

    Raises:
        BadInput: For prompt-learning adapters.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        limits: Limits | None = None,
    ) -> None:
        if isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning:
            raise BadInput(
                f"{model.active_peft_config.peft_type} adapters are not supported in process: their virtual tokens "
                "move every position. Serve the model and give the server's URL."
            )
        self.model: Any = model
        self.tokenizer, self.name = tokenizer, name
        self.limits = limits or Limits()
        self.tokens, self.seconds = 0, 0.0
        # The adapter's layers sit in the base model; its wrapper would hide what the forward pass takes.
        self._lm = cast(Any, model.get_base_model() if isinstance(model, PeftModel) else model)
        self._context: int | None = getattr(self._lm.config.get_text_config(), "max_position_embeddings", None)

    @classmethod
    def load(
        cls,
        name_or_path: str,
        adapter: str | None = None,
        *,
        dtype: str = "auto",
        device: str | None = None,
        name: str | None = None,
        limits: Limits | None = None,
        **kwargs: Any,
    ) -> LocalEngine:
        """The model that `models.load` finds; `dtype` and `device` as in `models.for_inference`."""
        model, tokenizer, _ = load(name_or_path, adapter=adapter, **for_inference(dtype, device), **kwargs)
        return cls(model, tokenizer, name or adapter or name_or_path, limits)

    @property
    def weights(self) -> str:
        """Hash of the weights, the chat template and the end tokens: with others in the same folder it is another."""
        ends = sorted(end_tokens(self._lm, self.tokenizer))
        told = json.dumps([weights_hash(self.model), self.tokenizer.chat_template, ends])
        return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, done: Collection[str] = ()
    ) -> Iterator[list[Generation]]:
        """See `Engine`. Nothing of the random state is touched.

        Raises:
            BadInput: Before anything is generated, if a prompt cannot be written or leaves no room for an answer, or
                two requests share an id.
        """
        ending, finished = self._ending(sampling), set(done)
        for batch in self._batches(requests, sampling):
            if not finished.issuperset(prompt.request.id for prompt in batch):
                yield in_halves(partial(self._answers, sampling=sampling, ending=ending), batch, "prompts")

    def stream(self, request: Request, sampling: Sampling) -> Iterator[Generation]:
        """One answer as far as it is written, after each of its tokens; the last one is the whole, as of `generate`.

        Until then its finish reason is "". Closing the iterator ends the answer.

        Raises:
            BadInput: As `generate` does.
        """
        ending, ((prompt,),) = self._ending(sampling), self._batches([request], sampling)
        draft = self._drafts(prompt, sampling)[0]
        with evaluation_mode(self.model):
            for _ in decode(self._lm, [draft], sampling, ending.finish_reason):
                text, tokens = ending.text(draft), [len(draft.tokens)]
                if not draft.finish_reason:
                    text = text.rstrip("\ufffd")  # the first bytes of a character whose others are to come
                yield Generation(request.id, [text], [draft.finish_reason or ""], tokens, len(prompt.ids))

    def _ending(self, sampling: Sampling) -> Ending:
        return Ending(self.tokenizer, end_tokens(self._lm, self.tokenizer), sampling.stop)

    def plan(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Request]]:
        """The batches of a job: given one of them alone, `generate` computes what it computes within the whole job.

        Raises:
            BadInput: As `generate` does.
        """
        return [[prompt.request for prompt in batch] for batch in self._batches(requests, sampling)]

    def _batches(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Prompt]]:
        """Longest first, so that what does not fit into memory shows at once."""
        refuse_repeated_ids(requests)
        prompts = [Prompt(request, prompt_ids(request, self.tokenizer)) for request in requests]
        if longer := [prompt for prompt in prompts if self._context and len(prompt.ids) >= self._context]:
            raise BadInput(
                f"{len(longer):,} of {len(prompts):,} prompts leave no room for an answer in the {self._context:,} "
                f"tokens that {self.name} reads: the first, {longer[0].request.id!r}, has {len(longer[0].ids):,}, the "
                f"longest {max(len(prompt.ids) for prompt in longer):,}. Shorten them or leave them out."
            )
        batches: list[list[Prompt]] = []
        for prompt in sorted(prompts, key=lambda prompt: -len(prompt.ids)):
            batch = batches[-1] if batches else []
            rows = (len(batch) + 1) * sampling.drawn
            longest = len((batch or [prompt])[0].ids) + sampling.max_new_tokens
            if batch and self.limits.allow(rows, longest):
                batch.append(prompt)
            else:
                batches.append([prompt])
        return batches

    def _answers(self, batch: list[Prompt], sampling: Sampling, ending: Ending) -> list[Generation]:
        began = time.perf_counter()
        drafts = [self._drafts(prompt, sampling) for prompt in batch]
        with evaluation_mode(self.model):
            for _ in decode(self._lm, [draft for own in drafts for draft in own], sampling, ending.finish_reason):
                pass
        self.tokens += sum(len(draft.tokens) for own in drafts for draft in own)
        self.seconds += time.perf_counter() - began
        repeats = sampling.n // sampling.drawn
        return [
            Generation(
                prompt.request.id,
                [ending.text(draft) for draft in own] * repeats,
                [str(draft.finish_reason) for draft in own] * repeats,
                [len(draft.tokens) for draft in own] * repeats,
                len(prompt.ids),
            )
            for prompt, own in zip(batch, drafts, strict=True)
        ]

    def _drafts(self, prompt: Prompt, sampling: Sampling) -> list[Draft]:
        limit = sampling.max_new_tokens
        if self._context:
            limit = min(limit, self._context - len(prompt.ids))
        joint = prompt.ids[-JOINT:] if isinstance(prompt.request.prompt, str) else []
        seeds = [stream_seed(sampling.seed, prompt.request.id, sample) for sample in range(sampling.drawn)]
        return [Draft(prompt.ids, limit, seed, joint) for seed in seeds]


def in_halves(compute: Callable[[list[Given]], list[Made]], items: list[Given], what: str) -> list[Made]:
    """What `compute` makes of `items`, or of each half alone where all at a time run out of memory."""
    try:
        return compute(items)
    except torch.OutOfMemoryError:
        if len(items) == 1:
            raise
    # After the handler, whose traceback holds the batch's tensors.
    logger.warning(f"Out of memory with {len(items)} {what} at a time: they are done in two halves.")
    half = len(items) // 2
    return in_halves(compute, items[:half], what) + in_halves(compute, items[half:], what)


class LazyEngine:
    """A model that is loaded when it is asked and let go of when it has answered: one of several is in memory.

    It is loaded once for the hash of its weights, and again for every job that is not finished. See `Engine`.
    """

    def __init__(self, name: str, load: Callable[[], LocalEngine]) -> None:
        self.name, self._load = name, load
        self.tokens, self.seconds = 0, 0.0

    @cached_property
    def weights(self) -> str:
        """As `LocalEngine` has it."""
        found = self._load().weights
        gc.collect()  # its modules refer to each other
        return found

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, done: Collection[str] = ()
    ) -> Iterator[list[Generation]]:
        """See `LocalEngine.generate`."""
        if set(done).issuperset(request.id for request in requests):
            return
        tokens, seconds = self.tokens, self.seconds
        engine = self._load()
        for batch in engine.generate(requests, sampling, done):
            self.tokens, self.seconds = tokens + engine.tokens, seconds + engine.seconds
            yield batch
        del engine
        gc.collect()
