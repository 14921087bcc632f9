"""Where in a rendered conversation the assistant's own words lie: found by rendering other words in their place.

A template writes more around an answer than the answer: a role, an empty thought, a channel, an end of turn. What
stays when the answer is another is the template's, and the answer begins where the two renderings part.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from bnf_align.data.template import (
    Message,
    TemplateRefusal,
    bare_thought,
    content_of,
    in_parts,
    render_text,
    shared_prefix,
    split_thought,
    template_facts,
    tokens_of,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARKS = ("Qzebra", "Qgiraffe")
"""Words in the place of reasoning and of other words; made longer where a conversation holds them."""
REASONING, TEXT, CALLS = "reasoning", "text", "tool calls"
"""What a turn of the assistant can bring."""
Renderings = list[tuple[list[Message], str]]


class Turn(NamedTuple):
    """One of the assistant's turns, in characters of the conversation's text."""

    start: int
    """Where its own words begin, as far as they are scored."""
    stop: int
    """Where they end; what the template closes a tool call and a turn with may follow."""
    calls: bool
    """Whether it ends with tool calls."""
    brings: frozenset[str]
    lost: frozenset[str]
    """What of it the template leaves out."""


class Conversation:
    """A conversation as its chat template writes it, and its tokens.

    `messages` are in the form the template wants (`as_the_template_wants`), `extras` has the row's `tools` and
    `chat_template_kwargs`, `others` the renderings made for the other answer of a pair, which serve this one too.

    Raises:
        TemplateRefusal: If the template raises.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        messages: list[Message],
        extras: Mapping[str, Any],
        *,
        score_thoughts: bool,
        others: Renderings,
    ) -> None:
        self.tokenizer, self.messages, self.extras, self.score_thoughts = tokenizer, messages, extras, score_thoughts
        self._facts, self._others = template_facts(tokenizer), others
        self.text = render_text(tokenizer, messages, extras)
        self._tokens = tokens_of(tokenizer, self.text)
        self.ids: list[int] = list(self._tokens["input_ids"])
        self._marks = list(MARKS)
        while any(mark in self.text for mark in self._marks):
            self._marks = [mark + "q" for mark in self._marks]

    def turn(self, at: int, begin: int) -> Turn:
        """The assistant's turn that is message `at`, which begins at character `begin` or later."""
        message = self.messages[at]
        keyed, calls = message.get("reasoning_content"), message.get("tool_calls") or []
        thought, words = split_thought(content_of(message), self._facts.opens_thought)
        mark_thought, mark = self._marks
        before = "" if self.score_thoughts else thought  # what stays as it is, in front of the mark
        changes: dict[str, Any] = {}
        if content_of(message)[len(before) :].strip():
            changes["content"] = before + mark
        if keyed and self.score_thoughts:
            changes["reasoning_content"] = mark_thought
        start, stop = self._parts_at(self._with(at, changes), mark_thought, mark) if changes else (None, 0)
        if start is None and words.strip() and (found := self.text.find(words.strip(), begin)) >= 0:
            start, stop = found, found + len(words.strip())  # it refuses the mark
        if calls:
            # Not the names: some templates repeat them where the tool answers.
            arguments = {mark: mark}
            marked = json.dumps(arguments) if self._facts.text_arguments else arguments
            stop = self._parts_at(self._calls_with(at, arguments=marked), mark)[1]
            if start is None:
                # What opens a call is the model's to choose, unlike what stands before a text in the same place.
                named = self._parts_at(self._calls_with(at, name=mark), mark)[0]
                said = self._said_instead(at, before + mark)
                parted = shared_prefix(self.text, said) if said else begin
                start = parted if named is None else min(parted, named)
        start = len(self.text) if start is None else start
        stop = max(start, stop)
        pieces = {
            REASONING: [bare_thought(thought) or str(keyed or "")],
            TEXT: [words],
            CALLS: [str(call.get("function", call).get("name")) for call in calls],
        }
        brings = {name for name, texts in pieces.items() if any(text.strip() for text in texts)}
        written = self.text[begin:stop]
        lost = {name for name in brings if not all(_stands_in(text, written) for text in pieces[name])}
        return Turn(start, stop, bool(calls), frozenset(brings), frozenset(lost))

    def span(self, at: int, turn: Turn) -> tuple[int, int, int | None]:
        """First and last scored token of a turn (one past it), and its end token; None where none is written."""
        ends, special, ids = self._facts.ends, self._facts.special, self.ids
        first, own = self.token_at(turn.start), self.token_at(turn.stop)
        own += self.straddles(own, turn.stop)
        last_turn, limit = at == len(self.messages) - 1, len(ids)
        if turn.calls and not last_turn:  # what closes the calls ends where the turn does, if it is found
            through = shared_prefix(self._rendered(self.messages[: at + 1]), self.text)
            limit = self.token_at(through) if through >= turn.stop else limit
            limit += self.straddles(limit, through) if through >= turn.stop else 0
        if not ends:  # the next turn's first token ends this one
            own = limit if turn.calls else own
            after = next((i for i in range(own, len(ids)) if ids[i] in special), None)
            if after is None or str(self.tokenizer.decode(ids[own:after])).strip():
                return first, own, None
            return first, after + 1, after
        closing = [i for i in range(own, limit) if ids[i] in special]
        whole = [i for i in closing if tuple(ids[i : i + len(ends)]) == ends]
        if not closing:
            return first, limit if turn.calls else own, None
        end = closing[0]
        if whole and (turn.calls or whole[0] == end):
            end = whole[0] + len(ends) - 1
        elif turn.calls and (last_turn or limit < len(ids)):
            end = closing[-1]
        return first, end + 1, end

    def token_at(self, char: int) -> int:
        """The first token that holds the character or what follows it."""
        if not self.tokenizer.is_fast:
            return shared_prefix(tokens_of(self.tokenizer, self.text[:char])["input_ids"], self.ids)
        # Some characters belong to no token: spaces that a tokenizer trims.
        found = (self._tokens.char_to_token(i) for i in range(char, len(self.text)))
        return next((token for token in found if token is not None), len(self.ids))

    def straddles(self, token: int, char: int) -> bool:
        """Whether a token begins before the character that it holds."""
        if not self.tokenizer.is_fast or token >= len(self.ids):
            return False
        span = self._tokens.token_to_chars(token)
        return span is not None and span.start < char

    def _said_instead(self, at: int, content: str) -> str:
        """The text with a message that says something in the place of calling tools, as far as it is not refused."""
        after = self.messages[at + 1 :]
        answered = next((i for i, message in enumerate(after) if message["role"] != "tool"), len(after))
        said: Message = {**self.messages[at], "content": in_parts(content) if self._facts.parts else content}
        said.pop("tool_calls")
        before = self.messages[:at]
        # Some templates refuse a tool's answer that nobody asked for, or two turns of the assistant after each other.
        texts = (self._rendered([*before, said, *rest]) for rest in (after, after[answered:], []))
        return next((text for text in texts if text), "")

    def _calls_with(self, at: int, **changes: Any) -> str:
        """The text with another name, or other arguments, in all tool calls of a message."""
        calls = [
            {**call, "function": {**call["function"], **changes}} if "function" in call else {**call, **changes}
            for call in self.messages[at]["tool_calls"]
        ]
        return self._with(at, {"tool_calls": calls})

    def _with(self, at: int, changes: Mapping[str, Any]) -> str:
        """The text with some of a message changed; empty where the template refuses it."""
        message = {**self.messages[at], **changes}
        if self._facts.parts:
            message["content"] = in_parts(message.get("content", ""))
        return self._rendered([*self.messages[:at], message, *self.messages[at + 1 :]])

    def _rendered(self, messages: list[Message]) -> str:
        for known, text in self._others:
            if known == messages:
                return text
        try:
            text = render_text(self.tokenizer, messages, self.extras)
        except TemplateRefusal:
            text = ""
        self._others.append((messages, text))
        return text

    def _parts_at(self, other: str, *marks: str) -> tuple[int | None, int]:
        """From where to where the text is another than `other`, which has marks there; None where it has none."""
        found = [(other.find(mark), other.rfind(mark) + len(mark)) for mark in marks if mark in other]
        if not found:
            return None, 0
        start, tail = min(found)[0], other[max(stop for _, stop in found) :]
        if not self.text.startswith(other[:start]):
            start = shared_prefix(self.text, other)
        if not self.text.endswith(tail):
            tail = tail[len(tail) - shared_prefix(self.text[::-1], tail[::-1]) :]
        return start, len(self.text) - len(tail)


def _stands_in(text: str, written: str) -> bool:
    return text.strip() in written or " ".join(text.split()) in " ".join(written.split())
