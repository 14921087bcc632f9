"""The pages look as they were approved: `make test-browser`; `make approve` after a change that is meant."""

import pytest
from pictures import APPROVED, approved, check, difference, draw_in, picture
from test_collect import Browser, browser, collect, pytestmark, served  # noqa: F401
from test_report_in_browser import WIDTHS, size

from bnf_align.report import write_page
from model_server import ModelServer
from report_folder import whole

SCHEMES = {"light": False, "dark": True}
ANSWER = "Bananas ripen faster beside apples: apples give off ethylene, a gas that tells fruit to ripen. "
LONG = "To keep them fresh, hang them alone, away from the sun. "


@pytest.fixture(scope="module")
def one_browser(tmp_path_factory):
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.driver.quit()


def report(person: Browser, folder) -> None:
    page = write_page(folder / "report.html", [whole(folder / "run")])
    page.write_text(page.read_text().replace(str(folder), "/home/ann/runs"))  # it is on the page, and breaks lines
    person.open(page.as_uri())


def talk(person: Browser, url: str) -> None:
    """Two questions, one of them with a thumb and a reason."""
    person.open(url)
    person.call("Ann")
    person.ask("Why do bananas ripen so fast?", answers=1)
    person.ask("How do I keep them fresh?", answers=2)
    person.all("[data-verdict=up]")[0].click()
    person.until(person.pressed)
    person.driver.execute_script("document.activeElement.blur()")


def compare(person: Browser, url: str) -> None:
    """One question and two answers, the first of which is found better."""
    person.open(url)
    person.box().send_keys("Why do bananas ripen so fast?\n")
    person.until(lambda: len(person.all("[data-verdict]")) == 4)
    person.all("[data-verdict=up]")[0].click()
    person.until(person.pressed)
    person.driver.execute_script("document.activeElement.blur()")


def dressed(person: Browser, width: str, scheme: str) -> str:
    size(person, *WIDTHS[width], SCHEMES[scheme])
    return f"{width}-{scheme}"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_report_looks_as_it_was_approved(one_browser, tmp_path, width, scheme):
    name = dressed(one_browser, width, scheme)
    report(one_browser, tmp_path)
    draw_in(one_browser.driver)
    check(one_browser.driver, f"report-{name}")


def in_talk(new, start, name: str) -> Browser:
    """A conversation in a browser of its own, which remembers nobody's name."""
    person = new()
    size(person, *WIDTHS[name.split("-")[0]], SCHEMES[name.split("-")[1]])
    with ModelServer(answer=lambda body: ANSWER + LONG * (len(body["messages"]) > 1)) as server:
        talk(person, start(*served(server)))
    draw_in(person.driver)
    return person


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_conversation_looks_as_it_was_approved(browser, collect, width, scheme):  # noqa: F811
    check(in_talk(browser, collect, f"{width}-{scheme}").driver, f"talk-{width}-{scheme}")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_two_answers_look_as_they_were_approved(browser, collect, width, scheme):  # noqa: F811
    person = browser()
    name = dressed(person, width, scheme)
    # Nearly the same, since chance says which of them stands first.
    with ModelServer(answer=lambda body: ANSWER + {"a": "Yes.", "b": "Yes!"}[body["model"]]) as server:
        compare(person, collect("--url", server.url, "--model", "a", "b"))
        draw_in(person.driver)
        check(person.driver, f"compare-{name}")


# What the comparison would notice, and what it lets pass


def styled(person: Browser, css: str) -> None:
    person.driver.execute_script(
        "const sheet = new CSSStyleSheet(); sheet.replaceSync(arguments[0]);"
        "document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];",
        css,
    )


BROKEN = {
    "a lost section": "#training { display: none !important; }",
    "a lost verdict": "#verdict { display: none !important; }",
    "no colours": "* { background: none !important; color: #000 !important; border-color: #000 !important; }",
    "tables that are no tables": "table, thead, tbody, tr, th, td { display: block !important; }",
    "no margins": "* { margin: 0 !important; padding: 0 !important; }",
    "a page that is moved": "body { transform: translateY(48px); }",
}


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("width", WIDTHS)
def test_a_broken_report_is_noticed(one_browser, tmp_path, width, broken):
    name = dressed(one_browser, width, "light")
    report(one_browser, tmp_path)
    draw_in(one_browser.driver)
    styled(one_browser, BROKEN[broken])
    assert not difference(picture(one_browser.driver), approved(f"report-{name}")).tolerable


BROKEN_TALK = {
    "no bubbles": ".said { background: none !important; border: none !important; color: inherit !important; }",
    "no thumbs": ".verdict { visibility: hidden !important; }",
    "everything at the left": ".said { align-self: flex-start !important; }",
    "no box to write in": "#question, .form { display: none !important; }",
    "everything smaller": "html { font-size: 13px !important; }",
}


@pytest.mark.parametrize("width", WIDTHS)
def test_a_broken_conversation_is_noticed(browser, collect, width):  # noqa: F811
    name = f"{width}-dark"
    person = in_talk(browser, collect, name)
    top = person.driver.execute_script("return scrollY")
    for broken, css in BROKEN_TALK.items():
        styled(person, css)
        assert not difference(picture(person.driver), approved(f"talk-{name}")).tolerable, broken
        person.driver.execute_script(
            "document.adoptedStyleSheets = document.adoptedStyleSheets.slice(0, 1); scrollTo(0, arguments[0])", top
        )
    assert difference(picture(person.driver), approved(f"talk-{name}")).tolerable


@pytest.mark.parametrize("width", WIDTHS)
def test_letters_of_another_shape_are_let_pass(one_browser, tmp_path, width):
    name = dressed(one_browser, width, "light")
    report(one_browser, tmp_path)
    draw_in(one_browser.driver, "DejaVuSans-Oblique")
    assert difference(picture(one_browser.driver), approved(f"report-{name}")).tolerable


@pytest.mark.parametrize("width", WIDTHS)
def test_another_colour_scheme_is_another_picture(width):
    for page in ("report", "talk", "compare"):
        assert not difference(approved(f"{page}-{width}-dark"), approved(f"{page}-{width}-light")).tolerable


def test_the_approved_pictures_are_small_and_none_is_left_over():
    names = {
        f"{page}-{width}-{scheme}" for page in ("report", "talk", "compare") for width in WIDTHS for scheme in SCHEMES
    }
    assert {path.stem for path in APPROVED.glob("*.png")} == names
    assert max(path.stat().st_size for path in APPROVED.glob("*.png")) < 100_000
