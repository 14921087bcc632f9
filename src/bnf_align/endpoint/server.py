"""One URL: the only file that knows the `openai` library, and what each of a server's answers means."""

from __future__ import annotations

import email.utils
import json
import logging
import math
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bnf_align.endpoint.call import Call, Reply, Unanswered, failed, read_part, read_reply
from bnf_align.records import BadInput

if TYPE_CHECKING:
    import openai

logger = logging.getLogger(__name__)

LONGEST_WAIT = 120.0
"""Seconds. A server that asks for a longer wait is out of quota rather than busy."""
REAL_KEY = 16
"""Characters of the shortest key that is taken out of a model's texts."""
PATIENCE = 3
"""Failures in a row after which a server rests."""
# vLLM, SGLang, llama.cpp and OpenAI on a prompt that is too long, and OpenAI on one that its filter stops.
ABOUT_THE_PROMPT = re.compile(r"context|model length|too long|content_filter|content_policy", re.IGNORECASE)


class Server:
    """A model behind one URL.

    Args:
        url: With the version, as in `http://localhost:8000/v1`.
        model: The name the server knows it by.
        key: Sent as the bearer token, and kept out of everything that is shown or stored.
        key_name: The environment variable that holds it, for messages.
        timeout: Seconds without a sign of the server.
    """

    def __init__(self, url: str, model: str, key: str | None, key_name: str, timeout: float) -> None:
        import openai

        self.url = url
        self.model = model
        self.answered = False
        """Whether it ever gave an answer: from then on its refusals are about single prompts."""
        self._key = key
        self._key_name = key_name
        self._busy = 0
        self._failures = 0
        self._rests_until = 0.0
        # The library insists on a key; servers at home do not. Its own retries would stay at this URL, take an HTML
        # page for an answer, and pass by whatever watches over each attempt, such as a budget.
        self._client = openai.AsyncOpenAI(
            base_url=url,
            api_key=key or "none",
            max_retries=0,
            timeout=openai.Timeout(timeout, connect=min(timeout, 10.0)),
        )

    def load(self) -> tuple[bool, int]:
        """What to compare servers by: the least of several is the one to ask.

        One that failed `PATIENCE` times in a row rests, and is then tried with one call.
        """
        trying = self._failures >= PATIENCE
        return trying and (self._busy > 0 or time.monotonic() < self._rests_until), self._busy

    async def ask(self, call: Call, hear: Callable[[str], None] | None = None) -> Reply:
        """One attempt.

        Args:
            call: The question.
            hear: Gets the text as far as it has come, each time that more has; None for an answer in one piece.

        Raises:
            Unanswered: If it may be repeated.
            BadInput: If every other call would fail in the same way.
        """
        self._busy += 1
        try:
            reply = await self._ask(call, hear)
        except Unanswered:
            self._fail()
            raise
        finally:
            self._busy -= 1
        self._failures = 0
        self.answered = self.answered or reply.error is None
        return reply

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _fail(self) -> None:
        now = time.monotonic()
        if now < self._rests_until:
            return  # calls that were on their way when the rest began: no news
        self._failures += 1
        if self._failures >= PATIENCE:
            self._rests_until = now + min(60.0, 2.0 ** (self._failures - PATIENCE))
            logger.info(f"{self.url} failed {self._failures} times in a row.")
        if self._failures == 2 * PATIENCE:  # by now for some seconds, and not by chance
            logger.warning(f"{self.url} has stopped answering; its calls are tried again for a while.")

    async def _ask(self, call: Call, hear: Callable[[str], None] | None) -> Reply:
        import openai

        body = _sendable(call.body(self.model))
        try:
            # `object` gives the body as it came: JSON values, or the text where the server does not call it JSON.
            if hear is None:
                value: Any = await self._client.post(call.path, cast_to=object, body=body)
            else:
                value = await self._streamed(call.path, body, hear)
            reply = read_reply(call, json.loads(value) if isinstance(value, str) else value)
        except openai.APIStatusError as error:
            return self._refused(call, error)
        except openai.APIConnectionError as error:
            raise _lost(error) from None
        except openai.APIError:
            raise Unanswered("an error in the middle of an answer", billed=True) from None
        except (ValueError, RecursionError):  # not JSON, not UTF-8, or nested without end
            raise Unanswered("an answer that is not JSON", billed=True) from None
        except Exception as error:
            # In the middle of a stream the transport's errors come as they are: httpx's or httpx2's, as openai has it.
            if not type(error).__module__.startswith("httpx"):
                raise
            raise _lost(error) from None
        # A short key is a placeholder ("EMPTY"), and a word that a model may well say.
        if self._key and len(self._key) >= REAL_KEY:
            return reply._replace(texts=[self._clean(text) for text in reply.texts])
        return reply

    async def _streamed(self, path: str, body: dict[str, Any], hear: Callable[[str], None]) -> Any:
        """A whole completion, told piece by piece where the server streams."""
        import openai

        stream: openai.AsyncStream[Any] = await self._client.post(
            path, cast_to=object, body={**body, "stream": True}, stream=True, stream_cls=openai.AsyncStream[object]
        )
        async with stream:
            if "text/event-stream" not in stream.response.headers.get("content-type", ""):
                return json.loads(await stream.response.aread())
            text, reason = "", None
            async for chunk in stream:
                more, ended = read_part(chunk)
                text, reason = text + more, ended or reason
                if more:
                    hear(self._so_far(text))
        if reason is None:  # half an answer must not pass for a whole one
            raise Unanswered("a cut connection", billed=True)
        return {"choices": [{"text": text, "finish_reason": reason}]}

    def _so_far(self, text: str) -> str:
        """A text on its way without the key, nor the beginning of it at the end."""
        if not self._key or len(self._key) < REAL_KEY:
            return text
        text = self._clean(text)
        begun = next((size for size in range(len(self._key) - 1, 0, -1) if text.endswith(self._key[:size])), 0)
        return text[: len(text) - begun]

    def _refused(self, call: Call, error: openai.APIStatusError) -> Reply:
        """What a status other than 200 means."""
        status, body, wait = error.status_code, self._clean(error.response.text), _wait(error.response.headers)
        spent = status == 429 and ("insufficient_quota" in body or (wait or 0.0) > LONGEST_WAIT)
        if not spent and (status in (408, 409, 425, 429) or status >= 500):
            # Of a gateway's time-out nobody knows whether the model behind it goes on.
            raise Unanswered(f"HTTP {status}", min(wait, LONGEST_WAIT) if wait else None, billed=status == 504)
        about_the_prompt = status in (400, 413, 422) and (self.answered or ABOUT_THE_PROMPT.search(body))
        if about_the_prompt:
            return failed(call, f"HTTP {status}: {body[:200]}")
        # From None: the library's error holds the request, and the request the key.
        raise BadInput(
            f"{self.url} refuses the model {self.model!r} with HTTP {status}: {body[:200]} (The key is read from the "
            f"environment variable {self._key_name}, which is {'set' if self._key else 'not set'}.)"
        ) from None

    def _clean(self, text: str) -> str:
        # A server or a proxy may send back what it was sent.
        return text.replace(self._key, "[key]") if self._key else text


def _sendable(body: dict[str, Any]) -> dict[str, Any]:
    """`body` with halves of surrogate pairs, which no UTF-8 request can hold, joined or replaced by U+FFFD."""
    text = json.dumps(body, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        repaired: dict[str, Any] = json.loads(text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))
        return repaired
    return body


def _lost(error: Exception) -> Unanswered:
    cause = error.__cause__
    if type(cause).__name__ in ("ConnectError", "ConnectTimeout"):
        return Unanswered(f"no connection ({str(cause) or 'time-out'})", connected=False)
    timeout = "Timeout" in type(error).__name__
    return Unanswered("a time-out" if timeout else "a cut connection", billed=True)


def _wait(headers: Any) -> float | None:
    """Seconds that `Retry-After` asks for: a number, or a date (RFC 9110, 10.2.3)."""
    value = headers.get("retry-after")
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        date = email.utils.parsedate_tz(value)
        seconds = email.utils.mktime_tz(date) - time.time() if date else math.nan
    return None if math.isnan(seconds) else max(0.0, seconds)
