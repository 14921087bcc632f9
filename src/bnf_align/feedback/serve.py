"""The page on the network: who may reach it, and that it reaches nobody."""

from __future__ import annotations

import asyncio
import hmac
import os
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import gradio as gr
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bnf_align.feedback.page import read
from bnf_align.records import BadInput
from bnf_align.visitors import HERE, from_here

# What a model wrote is text on the page; should it ever be more, it can load nothing and send nothing anywhere.
# Scripts in the page, and made from text, are Gradio's own way to build it.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'none'"
)
WRONG = 1.0
"""Seconds that a wrong password takes, during which no other one is looked at."""
WAITING = 20
"""Passwords that may wait for their turn; a further one is refused unread."""
LARGEST = 2**20
"""Bytes of a request; the longest message has a tenth of it."""


def serve(page: gr.Blocks, host: str = "127.0.0.1", port: int | None = None, password: str | None = None) -> str:
    """Serve a page from threads of this process; returns its URL.

    Args:
        page: What `chat_page` or `review_page` made.
        host: The address to listen at; the default is reached from this machine alone, 0.0.0.0 from all.
        port: By default the first free one from 7860.
        password: What everybody has to give, beside any name; None lets everybody in.

    Raises:
        BadInput: If the port is taken.
    """
    _no_proxy(host)
    middleware = [Middleware(_Guard)]
    if host in HERE and not password:  # a page with a password may stand behind a proxy under the proxy's name
        middleware.insert(0, Middleware(_Here))
    page.queue(default_concurrency_limit=16)
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            auth=_lets_in(password) if password else None,  # type: ignore[arg-type]  # it may be a coroutine
            auth_message="Any name will do. It is kept with what you judge.",
            theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css=read("page.css"),
            app_kwargs={"middleware": middleware},
            max_file_size=1,  # byte: nobody has to upload anything
            footer_links=[],
            # Each of these would otherwise follow a variable of the environment, or be on.
            share=False,
            enable_monitoring=False,
            run_history=False,
            mcp_server=False,
            ssr_mode=False,
            pwa=False,
            num_workers=0,
            inline=False,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise BadInput(
            f"Port {port or '7860 and the hundred after it'} is taken. Name a free one with --port."
        ) from error
    return url


def _lets_in(password: str) -> Callable[[str, str], Awaitable[bool]]:
    """Checks one password after the other, so that a thousand guesses at once are no faster than one at a time."""
    turn, waiting = asyncio.Lock(), 0

    async def lets_in(_: str, given: str) -> bool:
        nonlocal waiting
        if waiting >= WAITING:
            raise HTTPException(429, "Too many passwords are being tried. Try again in a minute.")
        waiting += 1
        try:
            async with turn:
                right = hmac.compare_digest(given.encode(errors="replace"), password.encode())
                if not right:
                    await asyncio.sleep(WRONG)
            return right
        finally:
            waiting -= 1

    return lets_in


def _no_proxy(host: str) -> None:
    """Let Gradio, which asks itself whether it is up, do so without the proxy that the environment may name."""
    variable = "no_proxy" if "no_proxy" in os.environ else "NO_PROXY"
    os.environ[variable] = ",".join(filter(None, [os.environ.get(variable), "127.0.0.1", "localhost", host]))


class _Here:
    """Answers nobody but people at this machine."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            if not from_here(headers.get("host"), headers.get("origin")):
                await PlainTextResponse("This page is for this machine alone.", 400)(scope, receive, send)
                return
        await self.app(scope, receive, send)


class _Guard:
    """Refuses what other sites send and what is too large; sends `POLICY`, and no cookie to other sites.

    Gradio (6.31) lets every origin in under a name that is not this machine's, with its cookie.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = POLICY
                headers["Referrer-Policy"] = "no-referrer"
                cookies = [value for name, value in headers.items() if name == "set-cookie"]
                del headers["set-cookie"]
                for cookie in cookies:
                    parts = [part for part in cookie.split("; ") if not part.lower().startswith("samesite=")]
                    headers.append("set-cookie", "; ".join([*parts, "SameSite=Lax"]))
            await send(message)

        refusal = _refusal(Headers(scope=scope)) if scope["type"] == "http" else None
        await (refusal or self.app)(scope, receive, send_with_policy)


def _refusal(headers: Headers) -> PlainTextResponse | None:
    """What to answer a request with that goes no further; None for one that does."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        return PlainTextResponse(
            "This page takes no requests from other sites. Behind a proxy: let it pass the Host header on as it came "
            "(nginx: proxy_set_header Host $http_host).",
            403,
        )
    if "transfer-encoding" in headers:
        return PlainTextResponse("A request must say its length.", 411)
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > LARGEST:
        return PlainTextResponse(f"A request may have {LARGEST:,} bytes.", 413)
    return None
