"""Keys and tokens that open something: whoever reads them in a text, or hears them from a model, can use them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple


class Form(NamedTuple):
    """How one kind of secret is written."""

    kind: str
    marker: str
    """A part that never changes: it is looked for first, at the speed of memory."""
    pattern: re.Pattern[str]
    """Its last group, where it has one, is the secret alone."""


AWS, GITHUB, GOOGLE = "AWS key", "GitHub token", "Google key"
PRIVATE = "private key"
AWS_SECRET = re.compile(r"(?i:secret_?access_?key)[\"'\s:=]{1,5}([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+])")
# A private key's end may be missing, where a text was cut off; in JSON its lines are parted by a backslash and an n.
BLOCK = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?:[^-]++|-(?!----))*+-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    r"|(?:[A-Za-z0-9+/=\s\\:,]++|-(?!-))*+)"
)
# The look-behinds let only the beginning of a word start a match, and the counts are bounded: no text takes long.
FORMS = (
    Form(AWS, "AKIA", re.compile(r"(?<![A-Za-z0-9])AKIA[A-Z2-7]{16}(?![A-Za-z0-9])")),
    Form(AWS, "ASIA", re.compile(r"(?<![A-Za-z0-9])ASIA[A-Z2-7]{16}(?![A-Za-z0-9])")),
    Form(AWS, "ccessKey", AWS_SECRET),
    Form(GOOGLE, "AIza", re.compile(r"(?<![\w-])AIza[\w-]{35}(?![\w-])")),
    Form("JSON web token", "eyJ", re.compile(r"(?<![\w-])eyJ[\w-]{8,4000}\.[\w-]{8,8000}\.[\w-]{8,2000}")),
    Form("bearer token", "earer", re.compile(r"[Bb]earer[ \t]{1,5}((?=[^\s\d]{0,99}\d)[\w.~+/-]{20,4000}=*)")),
)
WITH_HYPHEN = (
    Form(PRIVATE, "PRIVATE KEY", BLOCK),
    # Three digits: a class of a style sheet, such as sk-fading-circle, has fewer.
    Form("OpenAI or Anthropic key", "sk-", re.compile(r"(?<![\w-])sk-(?=(?:[A-Za-z_-]{0,99}[0-9]){3})[\w-]{20,255}")),
    Form("Slack token", "xox", re.compile(r"(?<![\w-])xox[abceoprs]-[\w-]{10,255}")),
    Form("Slack token", "xapp-", re.compile(r"(?<![\w-])xapp-[\w-]{10,255}")),
    Form(GOOGLE, "GOCSPX-", re.compile(r"(?<![\w-])GOCSPX-[\w-]{28}(?![\w-])")),
    Form("GitLab token", "glpat-", re.compile(r"(?<![\w-])glpat-[\w.-]{20,300}")),
)
WITH_UNDERLINE = (
    Form(AWS, "ccess_key", AWS_SECRET),
    Form(AWS, "CCESS_KEY", AWS_SECRET),
    Form(GITHUB, "gh", re.compile(r"(?<![A-Za-z0-9_])gh[pousr]_[A-Za-z0-9]{30,255}")),
    Form(GITHUB, "github_pat_", re.compile(r"(?<![A-Za-z0-9_])github_pat_[A-Za-z0-9_]{30,255}")),
    Form("Hugging Face token", "hf_", re.compile(r"(?<![A-Za-z0-9_])hf_[A-Za-z0-9]{30,60}(?![A-Za-z0-9])")),
    Form("Stripe key", "k_live_", re.compile(r"(?<![A-Za-z0-9_])[rs]k_live_[A-Za-z0-9]{16,255}")),
)
SECRETS = tuple(dict.fromkeys(form.kind for form in (*FORMS, *WITH_HYPHEN, *WITH_UNDERLINE)))
"""All kinds."""


def find_secrets(text: str) -> Iterator[tuple[str, int, int]]:
    """Every likely secret of a text as (kind, start, end), in no order; two may overlap.

    Example:
        >>> list(find_secrets("key: AKIAIOSFODNN7EXAMPLE"))
        [('AWS key', 5, 25)]
    """
    forms = FORMS + (WITH_HYPHEN if "-" in text else ()) + (WITH_UNDERLINE if "_" in text else ())
    for kind, marker, pattern in forms:
        if marker in text:
            for match in pattern.finditer(text):
                yield kind, *match.span(pattern.groups)
