"""The page of a run that is still training, served to people at this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread

from bnf_align.records import BadInput
from bnf_align.report.build import build_report
from bnf_align.report.inputs import NothingFound
from bnf_align.report.page import page
from bnf_align.report.table import Report
from bnf_align.visitors import HERE, from_here

PORT = 7870
TRIED = 100
"""Ports from there, where none is named."""
WATCHED = (".json", ".jsonl", ".parquet", ".csv", ".svg")


class Watched:
    """The page of a folder, made anew when a file in it has changed."""

    def __init__(self, folder: Path, command: str = "") -> None:
        self.folder, self.command = folder, command
        self._made = ("", "")
        self._lock = Lock()

    def version(self) -> str:
        """Changes with every file that the page may be made from."""
        found = hashlib.sha256()
        for path in sorted(self.folder.rglob("*")):
            if path.suffix in WATCHED:
                try:
                    state = path.stat()
                except OSError:  # it was replaced just now
                    continue
                found.update(f"{path}\0{state.st_mtime_ns}\0{state.st_size}\n".encode())
        return found.hexdigest()

    def page(self) -> str:
        """The page; before there is anything to show, one that says so."""
        with self._lock:
            version = self.version()
            if self._made[0] != version:
                try:
                    report = build_report([self.folder], command=self.command)
                except NothingFound:
                    report = Report([], [], self.command)
                self._made = (version, page(report, live=True))
            return self._made[1]


@contextmanager
def watching(folder: str | Path, port: int | None = None, command: str = "") -> Iterator[str]:
    """Serve the page of a run from threads of this process, and give its URL.

    Args:
        folder: The output folder of `bnf-align train`, or one above it.
        port: By default the first free one from 7870; 0 takes any.
        command: For the page's footer.

    Raises:
        BadInput: If there is no such folder, or no port is free.
    """
    if not Path(folder).is_dir():
        raise BadInput(f"--watch {folder}: there is no such folder. Name the --output_dir of the run.")
    watched = Watched(Path(folder), command)
    watched.page()  # what cannot be shown is said before anything is served
    server = _server(_handler(watched), [port] if port is not None else range(PORT, PORT + TRIED))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{HERE[0]}:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _server(handler: type[BaseHTTPRequestHandler], ports: list[int] | range) -> ThreadingHTTPServer:
    for port in ports:
        try:
            return ThreadingHTTPServer((HERE[0], port), handler)
        except OSError:
            continue
    taken = f"{ports[0]} and those after it are" if len(ports) > 1 else f"{ports[0]} is"
    raise BadInput(f"Port {taken} taken: name another with --port.")


def _handler(watched: Watched) -> type[BaseHTTPRequestHandler]:
    answers: dict[str, tuple[str, Callable[[], str]]] = {
        "/": ("text/html", watched.page),
        "/version": ("text/plain", watched.version),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not from_here(self.headers.get("Host"), self.headers.get("Origin")):
                return self.send_error(400, "This page is for this machine alone")
            if self.path not in answers:
                return self.send_error(404)
            kind, answer = answers[self.path]
            try:
                body = answer().encode()
            except BadInput as error:
                return self.send_error(503, explain=str(error))
            self.send_response(200)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Referrer-Policy", "no-referrer")
            self.send_header("Content-Security-Policy", "frame-ancestors 'none'")  # which a page cannot say of itself
            self.end_headers()
            self.wfile.write(body)
            return None

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a line a second would bury what the terminal says."""

    return Handler
