"""What is asked of a model behind a URL, what it says, and what became of an attempt that got no answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Call:
    """One question. What is None or empty is not sent: the server's own default holds."""

    id: str
    prompt: str | list[dict[str, Any]]
    """Messages go to `/chat/completions`, a plain text is continued by `/completions`."""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    """Further fields of the request, such as `n`, `response_format` or vLLM's `top_k`; None here takes a field
    out (`{"max_tokens": None, "max_completion_tokens": 1024}`)."""

    @property
    def path(self) -> str:
        """Where it is sent, after the URL."""
        return "/completions" if isinstance(self.prompt, str) else "/chat/completions"

    def body(self, model: str) -> dict[str, Any]:
        """The request as JSON values."""
        fields = {
            "model": model,
            "prompt" if isinstance(self.prompt, str) else "messages": self.prompt,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
            "stop": list(self.stop) or None,
            **self.extra,
        }
        return {name: value for name, value in fields.items() if value is not None}


class Reply(NamedTuple):
    """What became of a call."""

    id: str
    texts: list[str]
    finish_reasons: list[str]
    """Of each text: "stop", "length", or what else the server says; "" while it is on its way."""
    completion_tokens: int | None
    """Of all texts together, as the server counts them; None where it does not."""
    prompt_tokens: int | None
    error: str | None = None
    """Why there are no texts."""


class Unanswered(Exception):
    """One attempt that gave no answer and may be repeated.

    Args:
        reason: What happened, in words that several attempts share, since they are counted.
        wait: Seconds after which the server wants to be asked again.
        billed: Whether the server may have done the work all the same: its answer was lost, not refused.
        connected: Whether the server was reached at all.
    """

    def __init__(self, reason: str, wait: float | None = None, billed: bool = False, connected: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait = wait
        self.billed = billed
        self.connected = connected


def failed(call: Call, error: str) -> Reply:
    """The reply to a call that got no answer."""
    return Reply(call.id, [], [], None, None, error)


def read_reply(call: Call, body: Any) -> Reply:
    """The texts of a server's answer.

    Raises:
        Unanswered: If `body` is no completion, whatever the status said.
    """
    try:
        texts = [_text(choice) for choice in body["choices"]]
        reasons = [str(choice.get("finish_reason") or "unknown") for choice in body["choices"]]
        usage = body.get("usage") or {}
        tokens = [usage.get(name) for name in ("completion_tokens", "prompt_tokens")]
    except (AttributeError, KeyError, TypeError) as error:
        raise Unanswered("an answer in another form", billed=True) from error
    if not texts:
        raise Unanswered("an answer without a text", billed=True)
    completion, prompt = (count if isinstance(count, int) else None for count in tokens)
    return Reply(call.id, texts, reasons, completion, prompt)


def read_part(chunk: Any) -> tuple[str, str | None]:
    """What a chunk of a streamed answer adds, and the finish reason where it is the last one with a text.

    Raises:
        Unanswered: If `chunk` is no part of a completion.
    """
    try:
        # The last chunk of some servers has counts and no choice; the first has a role and no content.
        choice: Any = next(iter(chunk["choices"]), {"text": ""})
        text = choice["text"] if "text" in choice else choice["delta"].get("content")
        return "" + (text or ""), choice.get("finish_reason")
    except (AttributeError, KeyError, TypeError) as error:
        raise Unanswered("an answer in another form", billed=True) from error


def _text(choice: dict[str, Any]) -> str:
    text = choice["text"] if "text" in choice else choice["message"]["content"]
    if text is None:  # a refusal, or reasoning that took all tokens: an answer, and an empty one
        return ""
    if not isinstance(text, str):
        raise TypeError(f"a text of type {type(text).__name__}")
    return text
