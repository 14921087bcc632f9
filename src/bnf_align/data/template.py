"""What a tokenizer's chat template does with a conversation: found by rendering, never by model name.

A conversation reaches the template in the form that this one writes whole: contents as text or in parts, reasoning as
`reasoning_content` or in the text, tool arguments as an object or as JSON text. `template_facts` finds which.
"""

from __future__ import annotations

import datetime
import inspect
import json
import re
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment
from jinja2.exceptions import TemplateError

from bnf_align.records import BadInput

if TYPE_CHECKING:  # whoever has a tokenizer has imported it; checking rows needs none
    from transformers import BatchEncoding, PreTrainedTokenizerBase

    from bnf_align.records import PreferenceRow

Message = dict[str, Any]
PROBE = "zebra"
REFUSALS = (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError)
"""What Jinja, and Python within it, raise on a row: text + None, for instance, is a TypeError."""
REASONING = ("reasoning_content", "thinking", "reasoning")
"""Keys of a message's reasoning; transformers hands a template each of them under the names that templates read."""
THOUGHT = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)
"""Reasoning at the beginning of a text."""
CLOSED_THOUGHT = re.compile(r"(.*?)</think>\s*", re.DOTALL)
"""The same where the prompt has opened it."""
CLOCK = "strftime_now"
"""What templates call for today's date."""
USER: Message = {"role": "user", "content": "Hi"}
NAME, VALUE = "giraffe", "okapi"
"""Of the one argument of a tool call."""
TOOL = {
    "type": "function",
    "function": {
        "name": PROBE,
        "description": "A tool.",
        "parameters": {"type": "object", "properties": {NAME: {"type": "string", "description": "A text."}}},
    },
}


SLOWEST = 10.0
"""Seconds of computing for one conversation; the slowest template of docs/models.md takes a thousandth."""
LONGEST = 2**26
"""Characters of one rendered conversation; a line of a file has at most four times as many."""


class _TooSlow(Exception):
    """A template has computed for `SLOWEST` seconds."""


class TemplateRefusal(ValueError):
    """The chat template raised on a conversation; the message is the template's own."""


@dataclass(frozen=True)
class TemplateFacts:
    """What one chat template wants, and what it writes around an answer."""

    parts: bool
    """Contents as lists of parts: those of vision models drop, or refuse, a text."""
    reasoning: bool
    """It writes `reasoning_content`, so a thought in the text moves there: it would be written twice, or dropped."""
    opens_thought: bool
    """The prompt for generation ends with `<think>`, so what models write there closes a thought it does not open."""
    text_arguments: bool
    """Arguments of tool calls as JSON text; otherwise as an object."""
    empty_content: bool
    """A tool call without a text needs an empty one."""
    special: frozenset[int]
    """Ids of all special and added tokens."""
    ends: tuple[int, ...]
    """Tokens that close an answer; empty where the template writes none."""
    after_answer: int | None
    """Where it writes none: the token that opens the user's next turn, and so follows an answer."""
    after_call: int | None
    """The same for the tool's turn after a tool call."""


def render(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], extras: Mapping[str, Any], *, generation: bool = False
) -> list[int]:
    """Token ids of a conversation in the form that its template wants.

    `extras` has the row's `tools` and `chat_template_kwargs`; `generation` opens the assistant's turn at the end.

    Raises:
        TemplateRefusal: If the template raises, on roles that do not alternate for instance.
    """
    written = as_the_template_wants(messages, template_facts(tokenizer))
    return list(tokens_of(tokenizer, render_text(tokenizer, written, extras, generation=generation))["input_ids"])


def render_text(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], extras: Mapping[str, Any], *, generation: bool = False
) -> str:
    """The text of a conversation as it stands, for `tokens_of`; arguments and errors as in `render`."""
    keywords = extras.get("chat_template_kwargs", {})
    reach_it = {"tools", "documents", "chat_template", "kwargs"}
    of_the_call = inspect.signature(tokenizer.apply_chat_template).parameters.keys() - reach_it if keywords else ()
    if odd := sorted(keywords.keys() & of_the_call):
        raise TemplateRefusal(f"chat_template_kwargs asks for {', '.join(odd)}, which is not for the template")
    own = tokenizer.chat_template  # of some tokenizers several, by name
    for template in (*(own.values() if isinstance(own, dict) else [own]), keywords.get("chat_template")):
        if isinstance(template, str):
            _check_powers(template)
    try:
        # Together with `tokens_of` the very call TRL's KTO makes (`tokenize_fn` of trl 1.16, kto_trainer.py).
        given = {"tools": extras.get("tools"), **keywords}
        with _limited():
            text = str(
                tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation, **given)
            )
    except REFUSALS as error:
        raise TemplateRefusal(str(error)) from error
    except (_TooSlow, MemoryError):
        text = None
    if text is None or len(text) > LONGEST:
        raise BadInput(
            f"The chat template has no end: of one conversation it computed for {SLOWEST:g} seconds, or wrote more "
            f"than {LONGEST:,} characters. Take the template of a model that you trust: --chat_template_path FILE."
        )
    return text


@contextmanager
def _limited() -> Iterator[None]:
    """At most `SLOWEST` seconds of computing. Signals reach the main thread alone; in others there is no limit."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise _TooSlow

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, SLOWEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@lru_cache(maxsize=16)
def _check_powers(template: str) -> None:
    """Refuse a template with `**`, whose result no signal can interrupt: 9**9**9 is computed when it is compiled."""
    if "**" in template and any(part[1:] == ("operator", "**") for part in Environment().lex(template)):
        raise BadInput("The chat template computes powers (**), which no template needs and which may never end.")


def dated(row: PreferenceRow, tokenizer: PreTrainedTokenizerBase, date: str | None) -> PreferenceRow:
    """`row` with the clock of its chat template stopped at midnight of `date` (YYYY-MM-DD), None letting it go.

    So its tokens are the same on every day.
    """
    keywords = row.get("chat_template_kwargs", {})
    own = keywords.get("chat_template")
    if date is None or not isinstance(own, str | None) or CLOCK not in f"{tokenizer.chat_template}{own}":
        return row
    template = tokenizer.get_chat_template(own, row.get("tools"))
    return {**row, "chat_template_kwargs": {**keywords, "chat_template": _stopped(template, date)}}


@lru_cache(maxsize=16)
def _stopped(template: str, date: str) -> str:
    """`template` with a macro in the place of its clock: transformers lets no function through to it."""
    then, codes = datetime.datetime.fromisoformat(date), sorted(set(re.findall("%-?[A-Za-z]", template)))
    replaced = "".join(f"|replace({code!r},{then.strftime(code)!r})" for code in codes)
    # Empty text at its end keeps a line feed that the template begins with.
    return f"{{% macro {CLOCK}(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}{{{{ '' }}}}{template}"


def tokens_of(tokenizer: PreTrainedTokenizerBase, text: str) -> BatchEncoding:
    """A rendered conversation as tokens, to which nothing is added."""
    return tokenizer(text, add_special_tokens=False)


def template_facts(tokenizer: PreTrainedTokenizerBase) -> TemplateFacts:
    """What the tokenizer's chat template wants, by some twenty renderings, once for each template."""
    return _facts(tokenizer, str(tokenizer.chat_template), len(tokenizer))


@lru_cache(maxsize=4)
def _facts(tokenizer: PreTrainedTokenizerBase, template: str, tokens: int) -> TemplateFacts:
    def rendered(*messages: Message, generation: bool = False, **extras: Any) -> str:
        turns = [
            {**turn, "content": in_parts(turn["content"])} if parts and "content" in turn else turn
            for turn in messages
        ]
        try:
            return render_text(tokenizer, turns, extras, generation=generation)
        except TemplateRefusal:
            return ""

    def writes_call(text_arguments: bool, empty_content: bool) -> bool:
        arguments = {NAME: VALUE}
        function = {"name": PROBE, "arguments": json.dumps(arguments) if text_arguments else arguments}
        turn = {"role": "assistant", "tool_calls": [{"id": "call12345", "type": "function", "function": function}]}
        call = rendered(USER, turn | ({"content": ""} if empty_content else {}), tools=[TOOL]).rpartition(PROBE)[2]
        # A text where JSON is written is escaped; an object where a text is written is Python's.
        return NAME in call and VALUE in call and not re.search(rf"\\\"{NAME}|'{NAME}':", call)

    def special_after(text: str) -> tuple[str, list[int]]:
        """What stands between the probe and the first special tokens after it, and these."""
        ids = tokens_of(tokenizer, text.rpartition(PROBE)[2])["input_ids"] if PROBE in text else []
        at = next((i for i, token in enumerate(ids) if token in special), len(ids))
        stop = next((i for i, token in enumerate(ids[at:], at) if token not in special), len(ids))
        return str(tokenizer.decode(ids[:at])), list(ids[at:stop])

    def opens(turn: Message) -> int | None:
        """The token that opens a turn after an answer."""
        between, found = special_after(rendered(USER, answer, turn))
        return found[0] if found and not between.strip() else None

    answer: Message = {"role": "assistant", "content": PROBE}
    special = frozenset({*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()})
    parts = False
    if PROBE not in rendered(USER, answer):
        parts = True
        parts = PROBE in rendered(USER, answer)
    forms = [(False, False), (False, True), (True, False), (True, True)]
    # Where it writes no calls, an empty text keeps what else a message holds from being refused.
    text_arguments, empty_content = next((form for form in forms if writes_call(*form)), (False, True))
    ends = special_after(rendered(USER, answer))[1]
    return TemplateFacts(
        parts=parts,
        reasoning=VALUE in rendered(USER, {**answer, "reasoning_content": VALUE}),
        opens_thought=rendered(USER, generation=True).rstrip().endswith("<think>"),
        text_arguments=text_arguments,
        empty_content=empty_content,
        special=special,
        ends=tuple(ends),
        after_answer=None if ends else opens(USER),
        after_call=None if ends else opens({"role": "tool", "content": "4"}),
    )


def in_parts(content: Any) -> Any:
    """A text as the one part of a content."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def content_of(message: Message) -> str:
    """A message's text, in parts or not."""
    content = message.get("content", "")
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def as_the_template_wants(messages: Sequence[Message], facts: TemplateFacts) -> list[Message]:
    """A conversation, contents as text, in the form that a template writes whole; applied twice it is the same.

    Raises:
        TemplateRefusal: If `tool_calls` are none.
    """
    written = []
    for message in messages:
        if message["role"] == "assistant":
            message = _tool_calls(_reasoning(message, facts), facts)
        if facts.parts and "content" in message:
            message = {**message, "content": in_parts(message["content"])}
        written.append(message)
    return written


def _reasoning(message: Message, facts: TemplateFacts) -> Message:
    """With its reasoning in `reasoning_content` where the template writes that, and never there and in the text."""
    content = message.get("content", "")
    thought, rest = split_thought(content, facts.opens_thought) if isinstance(content, str) else ("", content)
    keyed = next((message[key] for key in REASONING if message.get(key)), None)
    if keyed is None and not thought:
        return message
    inner = bare_thought(thought)
    if thought and keyed is None and facts.reasoning:
        keyed, content = inner, rest
    elif thought and isinstance(keyed, str) and keyed.strip() == inner:
        content = rest if facts.reasoning else content
        keyed = keyed if facts.reasoning else None
    plain = {key: value for key, value in message.items() if key not in REASONING}
    return (
        plain
        | ({"content": content} if "content" in message else {})
        | ({"reasoning_content": keyed} if keyed else {})
    )


def _tool_calls(message: Message, facts: TemplateFacts) -> Message:
    """With the arguments of its tool calls as an object or as JSON text."""
    calls = message.get("tool_calls")
    if not calls:
        return message
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise TemplateRefusal("tool_calls is not a list of objects")
    written = []
    for call in calls:
        function = call.get("function", call)
        if not isinstance(function, dict):
            raise TemplateRefusal("the function of a tool call is not an object")
        if "arguments" in function:
            function = {**function, "arguments": _arguments(function["arguments"], facts.text_arguments)}
        written.append({**call, "function": function} if "function" in call else function)
    content = {"content": ""} if facts.empty_content and "content" not in message else {}
    return {**message, "tool_calls": written, **content}


def _arguments(arguments: Any, as_text: bool) -> Any:
    """Arguments of a tool call in one form or the other; what is no JSON object stays."""
    if as_text:
        return json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, dict) else arguments
    with suppress(ValueError, RecursionError):
        if isinstance(arguments, str) and isinstance(value := json.loads(arguments or "{}"), dict):
            return value
    return arguments


def split_thought(content: str, opened: bool) -> tuple[str, str]:
    """The reasoning that an answer begins with, with its marks and the space around it, and the rest.

    Where its prompt has `opened` the thought, the text need only close it.
    """
    found = THOUGHT.match(content)
    if found is None and opened and "<think>" not in content:
        found = CLOSED_THOUGHT.match(content)
    return (found[0], content[found.end() :]) if found else ("", content)


def bare_thought(thought: str) -> str:
    """Reasoning without its marks and the space around it."""
    return thought.replace("<think>", "", 1).rpartition("</think>")[0].strip()


def end_token_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token a finished answer ends with: the template's end of turn, or EOS where there is no template.

    Gemma ends a turn with `<end_of_turn>` and Llama 3 with `<|eot_id|>`; neither is what `eos_token` need say. GLM 4.5
    writes no end of its own: an answer is over where the user's next turn is opened.
    """
    if tokenizer.chat_template:
        facts = template_facts(tokenizer)
        if facts.ends:
            return facts.ends[-1]
        if facts.after_answer is not None:
            return facts.after_answer
    return tokenizer.eos_token_id


def takes_system(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a system message reaches the prompt: Gemma 2 raises on one, other templates leave it out unsaid."""
    turns = as_the_template_wants([{"role": "system", "content": PROBE}, USER], template_facts(tokenizer))
    try:
        return PROBE in render_text(tokenizer, turns, {}, generation=True)
    except TemplateRefusal:
        return False


def merge_system(messages: Sequence[Message]) -> list[Message]:
    """The conversation with the text of its leading system messages put before the first user turn's."""
    first = next((i for i, message in enumerate(messages) if message["role"] != "system"), len(messages))
    if first == 0:
        return list(messages)
    system = "\n\n".join(message.get("content", "") for message in messages[:first])
    for i, message in enumerate(messages[first:], start=first):
        if message["role"] == "user":
            merged = {**message, "content": f"{system}\n\n{message.get('content', '')}"}
            return [*messages[first:i], merged, *messages[i + 1 :]]
    return [{"role": "user", "content": system}, *messages[first:]]


def shared_prefix(ids: Sequence[Any], others: Sequence[Any]) -> int:
    """Number of tokens (or messages, or characters) two sequences begin with in common."""
    same, differ = 0, min(len(ids), len(others))
    if ids[:differ] == others[:differ]:
        return differ
    while differ - same > 1:  # by halves, whose comparison is C's
        middle = (same + differ) // 2
        if ids[same:middle] == others[same:middle]:
            same = middle
        else:
            differ = middle
    return same
