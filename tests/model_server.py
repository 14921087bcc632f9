"""A real HTTP server on localhost that speaks the OpenAI protocol, answers by a rule, and fails as servers do.

    with ModelServer(answer=lambda body: "[[A>B]]", failures=0.3, seed=0) as server:
        Endpoint(server.url, "any-model")
        server.served      # Counter: prompt -> answers sent whole with status 200

Whether an attempt fails, and how, follows from the seed, the prompt and the number of the attempt at that prompt: not
from the order in which calls arrive. On asyncio streams, since thousands of calls have to pass in seconds.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

Body = dict[str, Any]

KINDS = ("500", "429", "cut", "half", "html", "rubbish", "form")
"""Status 500; 429 with Retry-After; a connection cut before the answer; one cut in its middle; an HTML page with
status 200; half a JSON text; JSON that is no completion. More, by name: "timeout", which stays silent; "torn" and
"error", a streamed answer that is cut, or turns into an error, after its first piece; and any other status, such as
"400" or "503"."""


def prompt_of(body: Body) -> str:
    """What a request asks: its plain prompt, or its last message."""
    return body["prompt"] if "prompt" in body else body["messages"][-1]["content"]


def echo(body: Body) -> str:
    return f"answer to {prompt_of(body)}"


class Instead(Exception):
    """Raised by an answer rule: send this status and this body."""

    def __init__(self, status: int, body: str) -> None:
        self.status, self.body = status, body


class ModelServer:
    """The server; runs in a thread from `with` on.

    Args:
        answer: Request body -> the text, or a list of texts (one for each of `n`).
        failures: Share of attempts that fail.
        kinds: How, each with the same chance.
        seed: Which.
        first: Kinds of the first attempts at every prompt, before chance has its say: `first=["429"]`.
        retry_after: Seconds in the header of a 429. A call that comes back sooner is counted in `too_early`.
        silence: Seconds that a "timeout" lasts.
        delay: Seconds that an answer takes; a number, or a rule from the request.
        hold: Whether an answer still waits; asked again and again, for at most `silence` seconds.
        usage: Whether answers carry token counts: a token a character.
        streams: Whether a request with `stream` is answered so: a chunk a piece.
        pieces: A text -> its pieces, by default its words.
        pace: Seconds before each of them.
        gate: Whether the next one still waits, by the number of those that were sent; asked again and again.
        model: The name that `/v1/models` gives.
    """

    def __init__(
        self,
        answer: Callable[[Body], str | list[str]] = echo,
        failures: float = 0.0,
        kinds: Sequence[str] = KINDS,
        seed: int = 0,
        first: Sequence[str] = (),
        retry_after: float = 0.01,
        silence: float = 60.0,
        delay: float | Callable[[Body], float] = 0.0,
        hold: Callable[[Body], bool] = lambda body: False,
        usage: bool = True,
        model: str = "a-model",
        streams: bool = True,
        pieces: Callable[[str], list[str]] = re.compile(r"\S+\s*|\s+").findall,
        pace: float = 0.0,
        gate: Callable[[int], bool] = lambda sent: False,
    ) -> None:
        self.answer, self.model, self.usage = answer, model, usage
        self.failures, self.kinds, self.seed, self.first = failures, kinds, seed, first
        self.retry_after, self.silence, self.delay, self.hold = retry_after, silence, delay, hold
        self.streams, self.pieces, self.pace, self.gate = streams, pieces, pace, gate
        self.streamed: Counter[str] = Counter()
        """Prompt -> pieces that were sent, over all attempts."""
        self.received: Counter[str] = Counter()
        """Prompt -> attempts."""
        self.served: Counter[str] = Counter()
        """Prompt -> answers sent whole with status 200."""
        self.failed: Counter[str] = Counter()
        """Kind -> attempts."""
        self.bodies: list[Body] = []
        """Every request, as it came."""
        self.keys: set[str] = set()
        """Every Authorization header."""
        self.busy = 0
        self.busiest = 0
        """Most requests at once."""
        self.too_early = 0
        self._not_before: dict[str, float] = {}
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> ModelServer:
        self._server = self._loop.run_until_complete(asyncio.start_server(self._connection, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    # HTTP

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:  # keep-alive
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
                content = await reader.readexactly(int(headers.get("content-length", 0)))
                key = next((line.split(": ", 1)[1] for line in head if line.lower().startswith("authorization:")), "")
                self.keys.add(key)
                self.busy += 1
                self.busiest = max(self.busiest, self.busy)
                try:
                    await self._respond(writer, head[0].split()[1], json.loads(content or "{}"))
                finally:
                    self.busy -= 1
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError, _CutError):
            pass  # the client went, the server stops, or a failure wants it so
        finally:
            writer.transport.abort()

    async def _respond(self, writer: asyncio.StreamWriter, path: str, body: Body) -> None:
        if path == "/v1/models":
            return await self._send(writer, {"object": "list", "data": [{"id": self.model, "object": "model"}]})
        if path not in ("/v1/chat/completions", "/v1/completions"):
            return await self._send(writer, {"error": {"message": f"no such path: {path}"}}, 404)
        prompt = prompt_of(body)
        self.bodies.append(body)
        if time.monotonic() < self._not_before.get(prompt, 0.0):
            self.too_early += 1
        kind = self._failure(prompt, self.received[prompt])
        self.received[prompt] += 1
        if kind is None:
            await self._answer(writer, prompt, body)
        else:
            self.failed[kind] += 1
            await self._fail(writer, prompt, kind, body)
        return None

    async def _answer(self, writer: asyncio.StreamWriter, prompt: str, body: Body) -> None:
        await asyncio.sleep(self.delay(body) if callable(self.delay) else self.delay)
        until = time.monotonic() + self.silence
        while self.hold(body) and time.monotonic() < until:
            await asyncio.sleep(0.001)
        try:
            completion = self._completion(body, chat="messages" in body)
        except Instead as other:
            return await self._send(writer, other.body.encode(), other.status)
        if body.get("stream") and self.streams:
            await self._stream(writer, prompt, body)
            self.served[prompt] += 1
            return None
        self.served[prompt] += 1  # before it is sent, or whoever gets it could look before it is counted
        try:
            return await self._send(writer, completion)
        except ConnectionError:
            self.served[prompt] -= 1
            raise

    async def _stream(self, writer: asyncio.StreamWriter, prompt: str, body: Body, torn: str = "") -> None:
        """A chunk with a role, one for each piece, one with the finish reason, and an end."""
        chat, said = "messages" in body, self.answer(body)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await self._chunk(writer, {"choices": [{"delta": {"role": "assistant"}} if chat else {"text": ""}]})
        for sent, piece in enumerate(self.pieces(said if isinstance(said, str) else said[0])):
            await asyncio.sleep(self.pace)
            while self.gate(sent):
                await asyncio.sleep(0.001)
            await self._chunk(writer, {"choices": [{"delta": {"content": piece}} if chat else {"text": piece}]})
            self.streamed[prompt] += 1
            if torn == "torn":
                raise _CutError
            if torn == "error":
                await self._chunk(writer, {"error": {"message": "out of memory"}})
        end = {"delta": {}} if chat else {"text": ""}
        await self._chunk(writer, {"choices": [{**end, "finish_reason": "stop"}]})
        await self._chunk(writer, {"choices": [], "usage": {}})
        await self._chunk(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _chunk(self, writer: asyncio.StreamWriter, value: Any) -> None:
        content = f"data: {value if isinstance(value, str) else json.dumps(value)}\n\n".encode()
        writer.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        await writer.drain()
        if writer.transport.is_closing():  # the client went
            raise _CutError

    async def _send(self, writer: asyncio.StreamWriter, value: Any, status: int = 200, **headers: Any) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        fields = {"Content-Type": "application/json", "Content-Length": len(content), **headers}
        lines = "".join(f"{name.replace('_', '-')}: {field}\r\n" for name, field in fields.items())
        writer.write(f"HTTP/1.1 {status} -\r\n{lines}\r\n".encode() + content)
        await writer.drain()

    # Answers

    def _completion(self, body: Body, chat: bool) -> Body:
        said = self.answer(body)
        texts = said if isinstance(said, list) else [said] * body.get("n", 1)
        choices = [
            {
                "index": index,
                "finish_reason": "stop",
                **({"message": {"role": "assistant", "content": text}} if chat else {"text": text}),
            }
            for index, text in enumerate(texts)
        ]
        counts = {"prompt_tokens": len(json.dumps(body.get("messages") or prompt_of(body)))}
        counts["completion_tokens"] = sum(len(text or "") for text in texts)
        usage = {**counts, "total_tokens": sum(counts.values())}
        return {
            "object": "completion",
            "model": body["model"],
            "choices": choices,
            "usage": usage if self.usage else None,
        }

    # Failures

    def _failure(self, prompt: str, attempt: int) -> str | None:
        if attempt < len(self.first):
            return self.first[attempt]
        chance = random.Random(f"{self.seed} {attempt} {prompt}")
        return chance.choice(self.kinds) if chance.random() < self.failures else None

    async def _fail(self, writer: asyncio.StreamWriter, prompt: str, kind: str, body: Body) -> None:
        if kind in ("torn", "error"):
            return await self._stream(writer, prompt, body, torn=kind)
        if kind == "cut":
            raise _CutError
        if kind == "half":
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n" + b'{"choices": ['
            )
            await writer.drain()
            raise _CutError
        if kind == "timeout":
            await asyncio.sleep(self.silence)
            raise _CutError
        if kind == "html":
            return await self._send(writer, b"<html><body>Bad gateway</body></html>", Content_Type="text/html")
        if kind == "rubbish":
            return await self._send(writer, b'{"choices": [{"mess')
        if kind == "form":
            return await self._send(writer, {"error": {"message": "overloaded"}})
        if kind == "429":
            self._not_before[prompt] = time.monotonic() + self.retry_after
            return await self._send(writer, {"error": "slow down"}, 429, Retry_After=self.retry_after)
        return await self._send(writer, {"error": {"message": f"failure {kind}"}}, int(kind))


class _CutError(Exception):
    """Ends a connection without a word."""
