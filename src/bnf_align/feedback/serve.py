"""The page on the network: who may reach it, and that it reaches nobody."""

from __future__ import annotations

import asyncio
import hmac
import os
from collections.abc import Awaitable, Callable

import gradio as gr
from starlette.datastructures import Headers, MutableHeaders
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
"""Seconds that a wrong password takes."""


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
    page.queue(default_concurrency_limit=16)
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            auth=_lets_in(password) if password else None,  # type: ignore[arg-type]  # it may be a coroutine
            auth_message="Any name will do. It is kept with what you judge.",
            theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css=read("page.css"),
            app_kwargs={"middleware": _middleware(host, password)},
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
    async def lets_in(_: str, given: str) -> bool:
        right = hmac.compare_digest(given.encode(), password.encode())
        if not right:
            await asyncio.sleep(WRONG)
        return right

    return lets_in


def _middleware(host: str, password: str | None) -> list[Middleware]:
    """Without a password a page for this machine alone answers to nobody else (`visitors.from_here`).

    A page with a password may stand behind a proxy under the proxy's name.
    """
    own = [Middleware(_Here)] if host in HERE and not password else []
    return [Middleware(_Policy), *own]


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


class _Policy:
    """Sends `POLICY` with everything."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = POLICY
                headers["Referrer-Policy"] = "no-referrer"
            await send(message)

        await self.app(scope, receive, send_with_policy)
