"""What becomes of rows under a tokenizer, one after the other: which do not fit, are cut, do not end, part too early.

Training keeps the token ids and the doctor does not, but both count here, and so agree.
"""

from __future__ import annotations

from array import array
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

import numpy as np

from bnf_align.data.template import takes_system
from bnf_align.reasons import Reason
from bnf_align.records import NOTE, WARNING, BadInput, DataReport, Finding, rows_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bnf_align.data.tokenize import Encoded, Outcome


FINDINGS = {
    "cut": (
        WARNING,
        "{share:.1%} of answers, in {rows}, are cut at max_length={max_length} and lose their end token, so the model "
        "is not taught to stop there (prompt and answer: p50 {p50:,}, p95 {p95:,} tokens). Raise --max_length if "
        "memory allows",
    ),
    "lost_in_template": (
        WARNING,
        "the chat template leaves out part of the answers, which is not in the tokens: {lost}. Name a template that "
        "writes it with --chat_template_path, or take it out of the rows",
    ),
    "no_end": (WARNING, "no end token after the answer, as the template writes it: {rows}"),
    "ends_early": (
        WARNING,
        "the text of the answer holds an end token before its end, so the model is taught to stop there and to go on: "
        "{rows}",
    ),
    "not_a_prefix": (
        WARNING,
        "the tokens of a prompt alone are not those it has before its answer: {rows}. The answer starts where they "
        "part; of the first, this end of the prompt is left out: {first}",
    ),
    "unwritten": (
        WARNING,
        "the prompt for generation ends with {first}, which the chat template leaves out before these answers, so "
        "they are trained without it: {rows}. Bring answers of the form that it asks for (with reasoning in "
        "`reasoning_content`, or without), set `chat_template_kwargs` in the rows (enable_thinking, for instance), or "
        "name a template that writes it with --chat_template_path",
    ),
    "context": (NOTE, "the chat template's own {first} before the answer is not scored: {rows}"),
    "thoughts": (NOTE, "reasoning that answers bring is {scored}: {rows}"),
    "added_end": (
        NOTE,
        "the chat template writes no end after the last answer; {first}, with which it opens the next turn, is added "
        "and scored: {rows}",
    ),
    "two_bos": (NOTE, "the text begins with BOS, which the tokenizer adds too; one is kept: {rows}"),
    "ended": (NOTE, "the answer brings its end token along, so none is added: {rows}"),
}
"""What can be found in a response, in the order in which it is said; `first` is the first text that it is about."""


@dataclass(eq=False)
class TokenLedger:
    """Remembers of the tokenised rows of one source their lengths and what is wrong with them.

    The counts of `report` are set to what is left here. `max_length` and `score_thoughts` as in `tokenize_rows`.

    Raises:
        BadInput: If `max_length` leaves no room for an answer.
    """

    tokenizer: PreTrainedTokenizerBase
    report: DataReport
    _: KW_ONLY
    max_length: int | None
    score_thoughts: bool = True
    vocab_size: int | None = None

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < 2:
            raise BadInput(
                f"--max_length {self.max_length}: a prompt and an answer have at least a token each, which is 2."
            )
        self._lengths, self._starts = array("q"), array("q")
        """Of every response that the template writes: tokens, and the place of the first scored one."""
        self._kept, self._cut = array("q"), 0
        """Tokens of the responses that fit, and how many of these are cut."""
        self._units = {"pairs": 0, "ups": 0, "downs": 0}
        self._rows: dict[str, list[int]] = {name: [] for name in FINDINGS}
        self._first: dict[str, str] = {}
        self._lost_in_template: dict[str, list[int]] = {}
        """What of answers the template leaves out, and in which rows."""
        self._beyond: tuple[set[int], list[int]] = (set(), [])

    def add(self, row: int, outcome: Outcome) -> list[Encoded] | None:
        """Count what `encode_row` made of a row: its responses, not yet cut; None where it is left out."""
        lost = [answer.left_out for answer in outcome] if isinstance(outcome, list) else [outcome.lost]
        for kind in sorted(frozenset().union(*lost)):
            self._lost_in_template.setdefault(kind, []).append(row)
        if any(lost):
            self._rows["lost_in_template"].append(row)
        if not isinstance(outcome, list):
            self.report.drop(outcome.reason, row)
            return None
        self._lengths.extend(len(answer.ids) for answer in outcome)
        self._starts.extend(int(answer.mask.argmax()) for answer in outcome)
        most = self.max_length
        if not all(answer.mask[:most].any() for answer in outcome):  # a pair stays whole or goes
            self.report.drop(Reason("prompt_too_long", max_length=most), row)
            return None
        self._units["pairs" if len(outcome) == 2 else "ups" if outcome[0].label else "downs"] += 1
        self._kept.extend(len(answer.ids) for answer in outcome)
        for answer in outcome:
            cut = most is not None and len(answer.ids) > most and answer.end >= most  # its end token with it
            self._cut += cut
            for name, text in {"cut": cut, "no_end": answer.end == len(answer.ids), **answer.found}.items():
                if text:
                    self._first.setdefault(name, str(text))
                    if self._rows[name][-1:] != [row]:
                        self._rows[name].append(row)
        ids = np.concatenate([answer.ids[:most] for answer in outcome])
        if self.vocab_size is not None and ids.max() >= self.vocab_size:
            self._beyond[0].update(ids[ids >= self.vocab_size].tolist())
            self._beyond[1].append(row)
        return outcome

    def finish(self) -> list[Finding]:
        """Set the report's counts and lengths to what is left.

        Returns:
            What deserves a look, in the order in which it is said; nothing of it is in the report yet.

        Raises:
            BadInput: If no row is left, or the model has no embedding for some of the tokens.
        """
        if not self._kept:
            raise BadInput(self._none_left())
        if self._beyond[1]:
            raise BadInput(self._beyond_embedding())
        self.report.pairs, self.report.ups, self.report.downs = self._units.values()
        p50, p95 = (round(length) for length in np.quantile(self._kept, (0.5, 0.95)))
        self.report.lengths = {"p50": p50, "p95": p95, "max": max(self._kept)}
        self.report.cut = self._rows["cut"]
        facts = {
            "share": self._cut / len(self._kept),
            "max_length": self.max_length,
            "p50": p50,
            "p95": p95,
            "lost": self._lost(),
            "scored": "scored with them; --score_thoughts false leaves it out"
            if self.score_thoughts
            else "not scored, only what follows it",
        }
        return [
            Finding(name, text.format(rows=rows_text(rows), first=self._first.get(name), **facts), rows, level)
            for name, (level, text) in FINDINGS.items()
            if (rows := self._rows[name])
        ]

    def _lost(self) -> str:
        return "; ".join(f"{kind} in {rows_text(rows)}" for kind, rows in self._lost_in_template.items())

    def _none_left(self) -> str:
        if Reason("prompt_too_long", max_length=self.max_length) not in self.report.dropped:
            lost = FINDINGS["lost_in_template"][1].format(lost=self._lost())
            lost = f" For {lost}." if self._lost_in_template else ""
            return f"{self.report.source}: no row is left after tokenising. {self.report.left_out()}.{lost}"
        wanted = 1 << int(np.quantile(self._lengths, 0.95)).bit_length()
        return (
            f"{self.report.source}: every prompt is longer than max_length={self.max_length} (shortest "
            f"{min(self._starts):,} tokens), so no token of an answer is left to score. Try --max_length {wanted}"
        )

    def _beyond_embedding(self) -> str:
        tokens, rows = sorted(self._beyond[0]), self._beyond[1]
        listed = ", ".join(f"{self.tokenizer.decode([token])!r} ({token})" for token in tokens[:5])
        return (
            f"{self.report.source}: the model's embedding has {self.vocab_size:,} rows, the tokenizer "
            f"{len(self.tokenizer):,} tokens, and {len(tokens):,} of those that the model has no row for stand in "
            f"{rows_text(rows)}: {listed}{', ...' if len(tokens) > 5 else ''}. Take the tokenizer that belongs to the "
            "model, or resize the model's embedding and save it: model.resize_token_embeddings(len(tokenizer))"
        )


def check_tokenizer(
    chat: list[int],
    plain: list[int],
    system: list[int],
    tokenizer: PreTrainedTokenizerBase,
    report: DataReport,
) -> None:
    """Make sure that a tokenizer can write what the rows hold.

    `chat`, `plain` and `system` are the numbers of the rows with messages, of plain text, and with a system turn.
    Plain text beside a chat template is noted in the report.

    Raises:
        BadInput: If it lacks what they need; the message names the flag.
    """
    name = tokenizer.name_or_path or "The tokenizer"
    if chat and not tokenizer.chat_template:
        raise BadInput(
            f"{report.source} holds messages in {rows_text(chat)}, but {name} has no chat template: is it a base "
            "model's? Take the instruction-tuned model's tokenizer, or give a template with --chat_template_path."
        )
    if plain and not tokenizer.eos_token:
        raise BadInput(
            f"{report.source} holds plain text in {rows_text(plain)}, but {name} has no EOS token, so the end of an "
            "answer could not be learnt. Name it with --eos_token."
        )
    if plain and tokenizer.chat_template:
        report.notes.append(
            f"plain text, to which the chat template is not applied: {rows_text(plain)}. That is right for text that "
            "is templated already; a chat model is asked in turns, so write messages: "
            '[{"role": "user", "content": ...}]'
        )
    if system and not takes_system(tokenizer):
        raise BadInput(
            f"{report.source} has system messages in {rows_text(system)}, which the chat template of "
            f"{tokenizer.name_or_path or 'the tokenizer'} refuses or leaves out. Put their text before the first user "
            "turn's with --merge_system_prompt"
        )
