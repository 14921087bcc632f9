"""A model in this process: requests in batches of like length, one after another, always the same ones."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bnf_align.engines.decoding import Draft, decode
from bnf_align.engines.request import Generation, Request, Sampling, refuse_repeated_ids, stream_seed
from bnf_align.engines.tokens import JOINT, Ending, end_tokens, prompt_ids
from bnf_align.fingerprint import weights_hash
from bnf_align.models.load import load_pretrained
from bnf_align.records import BadInput

logger = logging.getLogger(__name__)


class Prompt(NamedTuple):
    """A request as token ids."""

    id: str
    ids: list[int]
    joint: list[int]
    """The end of a plain text, which its continuation is decoded with."""


class LocalEngine:
    """A causal language model with its tokenizer.

    Prompts are sorted by length, the longest first, and cut into batches that follow from the requests alone; the
    answers do not depend on their neighbours but for rounding. In float32 the same job gives the same texts, whether
    it was interrupted or not.

    Args:
        model: A model, or an adapter around one. It is left in the mode it was in.
        tokenizer: Its tokenizer.
        name: The model's name in the files made with it.
        batch_rows: The most texts at a time.
        batch_tokens: The most tokens at a time, a row counted at the length it could reach: bounds the cache. A batch
            that runs out of memory all the same is halved.

    Raises:
        BadInput: For prompt-learning adapters.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        *,
        batch_rows: int = 64,
        batch_tokens: int = 2**18,
    ) -> None:
        if isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning:
            raise BadInput(
                f"{model.active_peft_config.peft_type} adapters are not supported in process: their virtual tokens "
                "move every position. Serve the model and give the server's URL."
            )
        self.model: Any = model
        self.tokenizer, self.name = tokenizer, name
        self.batch_rows, self.batch_tokens = batch_rows, batch_tokens
        self.tokens, self.seconds = 0, 0.0
        # The adapter's layers sit in the base model; its wrapper would hide what the forward pass takes.
        self._lm: PreTrainedModel = model.get_base_model() if isinstance(model, PeftModel) else model  # type: ignore[assignment]

    @classmethod
    def load(
        cls,
        name_or_path: str,
        adapter: str | None = None,
        *,
        dtype: str = "auto",
        device: str | None = None,
        name: str | None = None,
        trust_remote_code: bool = False,
        batch_rows: int = 64,
        batch_tokens: int = 2**18,
        **kwargs: Any,
    ) -> LocalEngine:
        """The model in a folder or on the hub.

        Args:
            name_or_path: A model, or an adapter, whose configuration names its base.
            adapter: An adapter to put on it.
            dtype: Of the weights; "auto" takes bfloat16 on an accelerator and float32 on a CPU.
            device: As in `device_map` of transformers; by default the accelerator, where there is one.
            name: The model's name in the files made with it; by default where it came from.
            trust_remote_code: Run the model's own code.
            batch_rows: See the class.
            batch_tokens: See the class.
            kwargs: For `from_pretrained`: `revision`, `quantization_config`, `attn_implementation`, ...
        """
        model, tokenizer = load_pretrained(name_or_path, adapter, dtype, device, trust_remote_code, **kwargs)
        name = name or adapter or name_or_path
        return cls(model, tokenizer, name, batch_rows=batch_rows, batch_tokens=batch_tokens)

    @property
    def weights(self) -> str:
        """Hash of the weights: a model trained anew in the same folder is another one."""
        return weights_hash(self.model)

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, done: Collection[str] = ()
    ) -> Iterator[list[Generation]]:
        """See `Engine`. Nothing of the random state is touched.

        Raises:
            BadInput: Before anything is generated, if a prompt cannot be written or leaves no room for an answer, or
                two requests share an id.
        """
        refuse_repeated_ids(requests)
        prompts = self._prompts(requests)
        ending = Ending(self.tokenizer, end_tokens(self._lm, self.tokenizer), sampling.stop)
        finished = set(done)
        for batch in self._batches(prompts, sampling):
            if not finished.issuperset(prompt.id for prompt in batch):
                yield self._answers(batch, sampling, ending)

    def plan(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Request]]:
        """The batches of a job: given one of them alone, `generate` computes what it computes within the whole job.

        Raises:
            BadInput: As `generate` does.
        """
        refuse_repeated_ids(requests)
        by_id = {request.id: request for request in requests}
        return [[by_id[one.id] for one in batch] for batch in self._batches(self._prompts(requests), sampling)]

    def _prompts(self, requests: Sequence[Request]) -> list[Prompt]:
        prompts = []
        for request in requests:
            ids = prompt_ids(request, self.tokenizer)
            prompts.append(Prompt(request.id, ids, ids[-JOINT:] if isinstance(request.prompt, str) else []))
        context = self._context
        if context and (longer := [prompt for prompt in prompts if len(prompt.ids) >= context]):
            raise BadInput(
                f"{len(longer):,} of {len(prompts):,} prompts leave no room for an answer in the {context:,} tokens "
                f"that {self.name} reads: the first, {longer[0].id!r}, has {len(longer[0].ids):,}, the longest "
                f"{max(len(prompt.ids) for prompt in longer):,}. Shorten them or leave them out."
            )
        return prompts

    @property
    def _context(self) -> int | None:
        return getattr(self._lm.config.get_text_config(), "max_position_embeddings", None)

    def _batches(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[list[Prompt]]:
        """Longest first, so that what does not fit into memory shows at once."""
        batch: list[Prompt] = []
        for prompt in sorted(prompts, key=lambda prompt: -len(prompt.ids)):
            rows = (len(batch) + 1) * _copies(sampling)
            longest = len((batch or [prompt])[0].ids) + sampling.max_new_tokens
            if batch and (rows > self.batch_rows or rows * longest > self.batch_tokens):
                yield batch
                batch = []
            batch.append(prompt)
        if batch:
            yield batch

    def _answers(self, batch: Sequence[Prompt], sampling: Sampling, ending: Ending) -> list[Generation]:
        try:
            return self._decoded(batch, sampling, ending)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        # After the handler, whose traceback holds the batch's tensors.
        logger.warning(f"Out of memory with {len(batch)} prompts at a time: they are done in two halves.")
        half = len(batch) // 2
        return self._answers(batch[:half], sampling, ending) + self._answers(batch[half:], sampling, ending)

    def _decoded(self, batch: Sequence[Prompt], sampling: Sampling, ending: Ending) -> list[Generation]:
        began = time.perf_counter()
        drafts = {prompt.id: self._drafts(prompt, sampling) for prompt in batch}
        with _evaluation_mode(self.model):
            decode(self._lm, [draft for own in drafts.values() for draft in own], sampling, ending.finish_reason)
        answers = [self._generation(prompt, drafts[prompt.id], sampling.n, ending) for prompt in batch]
        self.tokens += sum(len(draft.tokens) for own in drafts.values() for draft in own)
        self.seconds += time.perf_counter() - began
        return answers

    def _drafts(self, prompt: Prompt, sampling: Sampling) -> list[Draft]:
        limit = sampling.max_new_tokens
        if self._context:
            limit = min(limit, self._context - len(prompt.ids))
        seeds = [stream_seed(sampling.seed, prompt.id, sample) for sample in range(_copies(sampling))]
        return [Draft(prompt.ids, limit, seed, prompt.joint) for seed in seeds]

    @staticmethod
    def _generation(prompt: Prompt, drafts: list[Draft], n: int, ending: Ending) -> Generation:
        repeats = n // len(drafts)
        return Generation(
            prompt.id,
            [ending.text(draft) for draft in drafts] * repeats,
            [str(draft.finish_reason) for draft in drafts] * repeats,
            [len(draft.tokens) for draft in drafts] * repeats,
            len(prompt.ids),
        )


def _copies(sampling: Sampling) -> int:
    """Texts to make per prompt: greedy ones are all the same."""
    return sampling.n if sampling.temperature else 1


@contextmanager
def _evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode inside, and afterwards every module as it was.

    Quantised layers stay as they are: outside training mode bitsandbytes may repack the weights of a model in
    training, on a CPU, for a kernel without a gradient.
    """
    modules = [
        module
        for module in model.modules()
        if module.training and not type(module).__module__.startswith("bitsandbytes")
    ]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module in modules:
            module.training = True
