"""Who may use a page that this machine serves for itself. Standard library only."""

from __future__ import annotations

import re

HERE = ("127.0.0.1", "localhost")
"""The names under which a page for this machine alone answers."""
NAME = re.compile(rf"(https?://)?({'|'.join(map(re.escape, HERE))})(:\d+)?", re.IGNORECASE)


def from_here(host: str | None, origin: str | None) -> bool:
    """Whether a request comes from a person at this machine, by what its browser says of it.

    Any web site can give its own name this machine's address (DNS rebinding), and would then use the page from a
    browser that runs here: its requests name the site as `Host`. A site that asks this machine's own address from its
    own page is named by `Origin`.

    Args:
        host: The header `Host`.
        origin: The header `Origin`; browsers leave it out where a page is only opened.
    """
    return all(NAME.fullmatch(name) is not None for name in (host or "", origin if origin is not None else HERE[0]))
