"""The page of a report, in a real browser: `make test-browser`."""

import csv
from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from test_collect import Browser, pytestmark  # noqa: F401  # the mark that skips where there is no Chromium

from bnf_align.report import write_page
from bnf_align.report.watch import watching
from report_folder import health, run, tokens, whole, write

WIDTHS = {"phone": (390, 844), "desktop": (1280, 900)}


@pytest.fixture(scope="module")
def one_browser(tmp_path_factory):
    """One for all tests: what it logs is read by each of them."""
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.driver.quit()


@pytest.fixture
def person(one_browser):
    """A browser at desktop width in which nothing may be logged: no error, no refused script, no missing file."""
    one_browser.driver.get("about:blank")
    one_browser.driver.get_log("browser")
    size(one_browser, *WIDTHS["desktop"])
    yield one_browser
    assert [line["message"] for line in one_browser.driver.get_log("browser")] == []


def size(person: Browser, width: int, height: int, dark: bool = False) -> None:
    person.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    still = {"name": "prefers-reduced-motion", "value": "reduce"}  # what is clicked must not be on its way
    person.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme, still]})


def show(person: Browser, folder: Path, hostile: bool = False) -> Path:
    """Opens the page of a whole folder as a colleague does: from a file."""
    out = write_page(
        folder / "report.html", [whole(folder / "a_rather_long_name_of_a_folder_without_an_end", hostile)]
    )
    person.open(out.as_uri())
    return out


def seen(person: Browser, selector: str) -> list:
    return [element for element in person.all(selector) if element.is_displayed()]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_is_logged_and_nothing_is_wider_than_the_screen(person, tmp_path, width, dark):
    size(person, *WIDTHS[width], dark)
    show(person, tmp_path)
    assert person.driver.execute_script("return document.documentElement.scrollWidth") <= WIDTHS[width][0]
    assert person.one("#headline").is_displayed()
    assert person.driver.execute_script("return scrollY") == 0
    assert person.one("#headline").location["y"] < WIDTHS[width][1] / 2  # it is what is seen first
    background = person.one("body").value_of_css_property("background-color")
    bright = sum(map(int, background[background.index("(") + 1 : -1].split(",")[:3])) > 600
    assert bright is not dark


def test_a_click_sorts_a_table_and_says_in_which_order(person, tmp_path):
    records = [run(loss, train_seconds=seconds) for loss, seconds in (("bnf", 20.0), ("dpo", 300.0), ("sft", 7.0))]
    for number, record in enumerate(records):
        write(tmp_path / "in" / str(number) / "run.json", record)
    person.open(write_page(tmp_path / "report.html", [tmp_path / "in"]).as_uri())
    table = person.all("#costs table")[1]
    names = lambda: [one.text for one in table.find_elements(By.CSS_SELECTOR, "tbody tr:not(.title) th")]  # noqa: E731
    heading = table.find_elements(By.CSS_SELECTOR, ".names th")[4]
    orders = []
    for _ in range(2):
        heading.find_element(By.TAG_NAME, "button").click()
        orders.append((heading.get_attribute("aria-sort"), [name for name in names() if "Total" not in name]))
    assert orders == [("descending", ["DPO", "BNF", "SFT"]), ("ascending", ["SFT", "BNF", "DPO"])]
    table.find_element(By.CSS_SELECTOR, ".names button").send_keys(Keys.ENTER)  # a text, and from the keyboard
    assert [name for name in names() if "Total" not in name] == ["SFT", "DPO", "BNF"]
    assert heading.get_attribute("aria-sort") is None


def test_answers_are_searched_filtered_and_shown_so_many_at_a_time(person, tmp_path):
    show(person, tmp_path)
    assert (len(seen(person, ".sample")), person.one("#count").text) == (25, "60 of 60")
    person.one("#more").click()
    person.one("#more").click()
    assert len(seen(person, ".sample")) == 60
    assert not person.one("#more").is_displayed()
    person.one("#search").send_keys("QUESTION 4")  # 4 and 40 to 49
    assert person.one("#count").text == "11 of 60"
    person.one("[name=outcome][value=worse]").click()
    assert [one.get_attribute("data-number") for one in seen(person, ".sample")] == ["41", "44", "47"]
    person.one("#search").clear()
    person.one("#search").send_keys("no such word")
    assert (person.one("#count").text, seen(person, ".sample")) == ("0 of 60", [])


def test_blind_nobody_can_tell_which_is_which_until_it_is_revealed(person, tmp_path):
    show(person, tmp_path)
    person.one("#blind").click()
    first = seen(person, ".sample")[0]
    shown = [sample.text for sample in seen(person, ".sample")]
    assert not any("Before" in text or "After" in text or "better" in text for text in shown)
    assert [one.text for one in first.find_elements(By.TAG_NAME, "h4")] == ["Answer A", "Answer B"]
    numbers = [sample.get_attribute("data-number") for sample in person.all(".sample")]
    assert numbers != sorted(numbers, key=int)
    assert sorted(numbers, key=int) == [str(n + 1) for n in range(60)]
    swapped = len(person.all(".sample.swapped"))
    assert 5 < swapped < 55  # 60 tosses: outside with a chance below one in a billion
    marked = next(one for one in seen(person, ".sample") if one.find_elements(By.TAG_NAME, "ins"))
    looks = [
        [
            marked.find_element(By.TAG_NAME, tag).value_of_css_property(name)
            for name in ("background-color", "text-decoration")
        ]
        for tag in ("ins", "del")
    ]
    assert looks[0] == looks[1]
    assert not person.one("[name=outcome][value=worse]").is_enabled()
    swapped = next(one for one in seen(person, ".sample.swapped"))
    swapped.find_element(By.CSS_SELECTOR, ".reveal button").click()
    assert [one.text for one in swapped.find_elements(By.TAG_NAME, "h4")] == ["After", "Before"]
    person.one("#blind").click()
    assert [one.get_attribute("data-number") for one in person.all(".sample")] == [str(n + 1) for n in range(60)]
    assert person.all(".swapped") == []
    assert seen(person, ".sample")[0].find_element(By.TAG_NAME, "h4").text == "Before"


def test_a_token_says_its_numbers_to_the_pointer_and_to_the_keyboard(person, tmp_path):
    show(person, tmp_path)
    text = person.one(".heat-text")
    person.driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", text)
    first, second, _ = text.find_elements(By.TAG_NAME, "i")
    ActionChains(person.driver).move_to_element(second).perform()
    weight = "BNF weight 0.05, log-ratio -0.25 nats, reference log-probability -0.5"
    assert person.one("#token").text == f"“ is” {weight}" or weight in person.one("#token").text
    person.driver.execute_script("arguments[0].focus()", text)
    assert "BNF weight 0.95, log-ratio +0.5 nats" in person.one("#token").text
    text.send_keys(Keys.ARROW_RIGHT)
    assert weight in person.one("#token").text
    text.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert "“ four”" in person.one("#token").text
    text.send_keys(Keys.ESCAPE)
    assert not person.one("#token").is_displayed()
    before = first.value_of_css_property("background-color")
    person.one("[name=shade][value=ratio]").click()
    assert first.value_of_css_property("background-color") != before


def test_of_many_responses_more_are_shown_by_a_click(person, tmp_path):
    whole(tmp_path / "in")
    tokens(tmp_path / "in" / "analysis" / "methods" / "BNF.parquet", rows=30)
    person.open(write_page(tmp_path / "report.html", [tmp_path / "in"]).as_uri())
    counts = [len(seen(person, ".heat article"))]
    for _ in range(2):
        seen(person, "#tokens .more button")[0].click()
        counts.append(len(seen(person, ".heat article")))
    assert counts == [12, 24, 30]
    assert seen(person, "#tokens .more button") == []


def test_numbers_are_downloaded(person, tmp_path):
    person.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path / "down")}
    )
    show(person, tmp_path)
    link = person.one("#training .download")
    person.driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", link)
    link.click()
    file = tmp_path / "down" / "curves.csv"
    person.until(file.exists)
    rows = list(csv.DictReader(file.open(newline="")))
    assert [float(row["loss"]) for row in rows] == [line["loss"] for line in health()["history"]]
    assert person.driver.current_url.startswith("file:")


def test_the_keyboard_reaches_everything_and_is_seen(person, tmp_path):
    show(person, tmp_path)
    body = person.one("body")
    body.send_keys(Keys.TAB)
    skip = person.driver.switch_to.active_element
    assert skip.text == "Skip to the verdict"
    person.until(lambda: skip.location["y"] >= 0)
    skip.send_keys(Keys.ENTER)
    assert person.driver.switch_to.active_element.get_attribute("id") == "verdict"
    reached = set()
    for _ in range(120):
        ActionChains(person.driver).send_keys(Keys.TAB).perform()
        active = person.driver.switch_to.active_element
        if active.tag_name == "body":
            break
        assert active.value_of_css_property("outline-style") != "none", active.get_attribute("outerHTML")[:200]
        reached |= {active.get_attribute("id") or active.get_attribute("class") or active.tag_name}
    assert {"search", "blind", "heat-text", "download", "summary", "scroll", "more"} <= reached


@pytest.mark.parametrize("width", WIDTHS)
def test_scripts_pictures_and_names_that_would_do_harm_are_inert(person, tmp_path, width):
    size(person, *WIDTHS[width])
    show(person, tmp_path, hostile=True)
    person.until(lambda: all(person.driver.execute_script("return [...document.images].map((i) => i.complete)")))
    assert person.driver.execute_script("return window.owned") is None
    assert person.driver.execute_script("return [...document.images].map((i) => i.naturalWidth)") == [90] * 4
    assert person.all("main script, main iframe, main [onload], main [onerror], .sample img, .sample svg") == []
    person.one("#search").send_keys("<script>")
    assert person.one("#count").text == "1 of 61"
    person.one("#blind").click()
    assert person.driver.execute_script("return window.owned") is None
    assert "window.owned = 1" in person.one(".heat-text i").text
    assert person.requested() <= {"127.0.0.1"}


def test_a_script_that_comes_into_the_page_all_the_same_is_refused(one_browser, tmp_path):
    show(one_browser, tmp_path)
    one_browser.driver.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.owned = 1'; document.body.append(s);"
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.owned = 1\">')"
    )
    said = " ".join(line["message"] for line in one_browser.driver.get_log("browser"))
    assert "Content Security Policy" in said
    assert one_browser.driver.execute_script("return window.owned") is None


def test_on_paper_everything_is_open_and_no_tool_is_printed(person, tmp_path):
    show(person, tmp_path)
    person.driver.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert person.all("details:not([open])") == []
    person.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert seen(person, "header, .tools, .download, .more") == []
    assert person.one("#headline").is_displayed()
    person.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_a_watched_page_follows_the_run_and_keeps_what_is_being_read(person, tmp_path):
    folder = whole(tmp_path / "run")
    (folder / "model" / "run.json").unlink()
    write(folder / "model" / "health.json", health(finished=False, steps=1))
    with watching(folder, port=0) as url:
        person.open(url)
        assert "step 5 of 20" in person.one("#headline").text
        person.one("#search").send_keys("question 4")
        person.until(lambda: person.driver.execute_script("return performance.getEntriesByType('resource').length"))
        write(folder / "model" / "health.json", health(finished=False, steps=3))
        person.until(lambda: "step 15 of 20" in person.one("#headline").text)
        assert "step 15 of 20" in person.driver.title
        assert person.one("#search").get_property("value") == "question 4"
        write(folder / "model" / "health.json", health(finished=True))
        write(folder / "model" / "run.json", run())
        person.until(lambda: "Better at math sampled" in person.one("#headline").text)
        assert person.requested() == {"127.0.0.1"}
