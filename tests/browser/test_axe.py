"""What keeps people out of the pages, as axe-core sees it: `make test-browser`, where it is there.

`npm install axe-core` fetches it; `BNF_ALIGN_AXE` names its `axe.min.js`. The page that asks for a password is
Gradio's own and is not looked at: it has no title.
"""

import json
import os
from pathlib import Path

import pytest
import test_collect
from test_collect import Browser, browser, collect, served  # noqa: F401  # fixtures
from test_pictures import SCHEMES, compare, report, talk
from test_report_in_browser import WIDTHS, size

from model_server import ModelServer

AXE = os.environ.get("BNF_ALIGN_AXE", "")
pytestmark = [
    *test_collect.pytestmark,
    pytest.mark.skipif(not AXE, reason="BNF_ALIGN_AXE names no axe.min.js (npm install axe-core)"),
]


@pytest.fixture(params=[(width, scheme) for width in WIDTHS for scheme in SCHEMES], ids="-".join)
def person(browser, request):  # noqa: F811
    width, scheme = request.param
    found = browser()
    size(found, *WIDTHS[width], SCHEMES[scheme])
    return found


def check(person: Browser) -> None:
    person.driver.execute_script(Path(AXE).read_text())
    found = person.driver.execute_async_script("axe.run().then(arguments[0])")
    faults = [
        (one["id"], one["impact"], [node["html"][:150] for node in one["nodes"][:3]]) for one in found["violations"]
    ]
    assert not faults, json.dumps(faults, indent=1)


def test_the_report_keeps_nobody_out(person, tmp_path):
    report(person, tmp_path)
    person.driver.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    check(person)


def test_a_conversation_keeps_nobody_out(person, collect):  # noqa: F811
    with ModelServer() as server:
        talk(person, collect(*served(server)))
        check(person)


def test_two_models_side_by_side_keep_nobody_out(person, collect):  # noqa: F811
    with ModelServer(answer=lambda body: f"{body['model']} it is.") as server:
        compare(person, collect("--url", server.url, "--model", "a", "b"))
        check(person)


def test_a_review_keeps_nobody_out(person, collect, tmp_path):  # noqa: F811
    row = {"prompt": "Why?", "candidates": [{"text": text, "model": text} for text in ("So.", "Because.")]}
    (tmp_path / "answers.jsonl").write_text(json.dumps(row) + "\n")
    person.open(collect("--review", str(tmp_path / "answers.jsonl"), "--pairs"))
    person.one(".answer")
    check(person)
