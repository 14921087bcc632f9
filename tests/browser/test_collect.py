"""The page that collects thumbs, in a real browser: `make test-browser`."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from bnf_align.cli.main import main
from model_server import ModelServer
from tiny_models import chatml_tokenizer
from tiny_nets import tiny_llama

SOURCE = Path(__file__).parents[2] / "src"
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
]
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=900,1000",
]

# Runs the command, and writes down every address outside this machine that the process looks up or connects to.
WATCHED = """
import sys
import threading
from bnf_align.cli.main import main
log = open(sys.argv[1], "a", buffering=1)
def watch(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        address = arguments[1][0]
    elif event == "socket.getaddrinfo":
        address = arguments[0]
    else:
        return
    if str(address) not in ("127.0.0.1", "localhost", "::1", "None"):
        print(event, address, file=log)
sys.addaudithook(watch)
sys.exit(main(sys.argv[2:]))
"""


class Browser:
    """One person's browser."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in [*FLAGS, f"--user-data-dir={profile}"]:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))

    def open(self, url: str) -> None:
        self.driver.get("about:blank")
        self.driver.get_log("performance")  # of the browser's own first page
        self.driver.get(url)

    def until(self, condition, seconds: float = 30.0):
        """What `condition` returns once that is true."""
        wait = WebDriverWait(self.driver, seconds, 0.1, ignored_exceptions=[StaleElementReferenceException])
        return wait.until(lambda _: condition())

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.until(lambda: (self.all(selector) or [None])[0])

    def texts(self, selector: str) -> list[str]:
        """As the page holds them, and not as they are laid out."""
        return [element.get_property("textContent") for element in self.all(selector)]

    def box(self) -> WebElement:
        return self.until(lambda: next((box for box in self.all("#question textarea") if box.is_enabled()), None))

    def ask(self, question: str, answers: int) -> None:
        self.box().send_keys(question, Keys.ENTER)
        self.until(lambda: len(self.all(".said.model:not(.dots, .coming)")) == answers)

    def top(self, element: WebElement) -> float:
        """Pixels from the upper edge of what is seen."""
        return self.driver.execute_script("return arguments[0].getBoundingClientRect().top", element)

    def call(self, name: str) -> None:
        self.one("#name textarea, #name input").send_keys(name)

    def pressed(self) -> list[str]:
        return [button.get_attribute("data-verdict") for button in self.all("button[aria-pressed=true]")]

    def reload(self) -> None:
        self.driver.refresh()
        self.one("[data-id]")

    def requested(self) -> set[str]:
        """Hosts that the page asked something of, since it was opened."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return {match[1] for url in sent if (match := re.match(r"\w+://([^/:]+)", url))}


@pytest.fixture
def browser(tmp_path):
    """Opens browsers, each with a profile of its own; afterwards none may have asked another host for anything."""
    opened = []

    def new() -> Browser:
        opened.append(Browser(tmp_path / f"profile-{len(opened)}"))
        return opened[-1]

    yield new
    hosts = [one.requested() for one in opened]
    for one in opened:
        one.driver.quit()
    assert set().union(*hosts) <= {"127.0.0.1", "localhost"}


@pytest.fixture
def collect(tmp_path):
    """Starts `bnf-align collect` in a process of its own; returns its URL. Afterwards it may not have called home."""
    processes, log = [], tmp_path / "calls.txt"

    def start(*flags: str, **environment: str) -> str:
        # Through a proxy a call would not be seen. The page must mind its own settings rather than Gradio's.
        settings = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        settings |= {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
        settings |= {"GRADIO_ANALYTICS_ENABLED": "True", "GRADIO_SHARE": "True", **environment}
        command = [sys.executable, "-c", WATCHED, str(log), "collect", "--store", str(tmp_path / "feedback.jsonl")]
        process = subprocess.Popen([*command, *flags], env=settings, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())[0]

    def stop() -> None:
        for process in processes:
            process.kill()
            process.wait()

    start.stop = stop
    yield start
    stop()
    assert log.read_text() == ""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def served(server: ModelServer) -> list[str]:
    return ["--url", server.url, "--model_name_or_path", "a-model"]


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "feedback.jsonl").read_text().splitlines()]


def test_chat_thumb_reload_the_row_is_there_and_a_model_is_trained_on_it(browser, collect, tmp_path):
    with ModelServer() as server:
        url, person = collect(*served(server)), browser()
        person.open(url)
        person.call("Ann")
        person.ask("one", answers=1)
        person.ask("two", answers=2)
        assert rows(tmp_path) == []
        person.all("[data-verdict=up]")[0].click()
        person.until(lambda: person.pressed() == ["up"])
        person.all("[data-verdict=down]")[1].click()
        person.until(lambda: person.pressed() == ["up", "down"])
        person.all(".reason")[1].send_keys("wrong", Keys.ENTER)
        person.until(lambda: rows(tmp_path)[1]["reason"] == "wrong")
        first, second = rows(tmp_path)
        assert [first["label"], second["label"]] == [True, False]
        assert first["prompt"] == [{"role": "user", "content": "one"}]
        assert second["completion"] == [{"role": "assistant", "content": "answer to two"}]
        assert {row["user"] for row in rows(tmp_path)} == {"Ann"}

        person.reload()
        person.until(lambda: person.pressed() == ["up", "down"])
        assert person.texts(".said.model") == ["answer to one", "answer to two"]
        assert person.one("#name textarea, #name input").get_property("value") == "Ann"
        assert [reason.get_property("value") for reason in person.all(".reason")] == ["", "wrong"]
        assert rows(tmp_path) == [first, second]

    tokenizer = chatml_tokenizer()
    tokenizer.save_pretrained(tmp_path / "model")
    tiny_llama(len(tokenizer)).save_pretrained(tmp_path / "model")
    flags = ["--model_name_or_path", tmp_path / "model", "--dataset_name", tmp_path / "feedback.jsonl"]
    flags += ["--output_dir", tmp_path / "out", "--ref_cache_dir", tmp_path / "cache", "--use_cpu", "true"]
    assert main(["train", *map(str, flags)]) == 0
    data = json.loads((tmp_path / "out" / "run.json").read_text())["data"]["train"]
    assert (data["rows"], data["ups"], data["downs"], data["dropped"]) == (2, 1, 1, {})
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_a_changed_mind_changes_the_row_and_a_second_click_takes_it_back(browser, collect, tmp_path):
    with ModelServer() as server:
        person = browser()
        person.open(collect(*served(server)))
        person.ask("one", answers=1)
        labels = []
        for verdict in ("down", "up", "up"):
            was = person.pressed()
            person.one(f"[data-verdict={verdict}]").click()
            person.until(lambda was=was: person.pressed() != was)
            labels.append([row["label"] for row in rows(tmp_path)])
        assert labels == [[False], [True], []]


HOSTILE = """<script>window.owned = 1</script><img src=x onerror="window.owned = 1">
<svg onload="window.owned = 1"> [click](javascript:window.owned=1) <a href="javascript:window.owned=1">here</a>
![x](http://192.0.2.1/m.png) <img src="http://192.0.2.1/i.png"> <link rel=stylesheet href="//192.0.2.1/s.css">
\\href{javascript:window.owned=1}{x} \\includegraphics{http://192.0.2.1/l.png} <iframe src="http://192.0.2.1/"></iframe>
${window.owned = 1} {{#each this}}{{/each}} `${window.owned = 1}` </div></textarea> &lt;b&gt; **bold** # $$x^2$$
    four spaces <style>body { display: none }</style>"""


def test_html_markdown_and_templates_in_answers_and_questions_are_text_and_never_run(browser, collect, tmp_path):
    prepared = tmp_path / "answers.jsonl"
    task = {"prompt": [{"role": "user", "content": HOSTILE}], "candidates": [HOSTILE, f"{HOSTILE}2"]}
    prepared.write_text(json.dumps(task) + "\n")
    with ModelServer(answer=lambda body: HOSTILE) as server:
        talk, review = collect(*served(server)), collect("--review", str(prepared), "--pairs")
        person = browser()
        person.open(talk)
        person.call("<img src=x onerror=window.owned=1>")
        person.ask(HOSTILE.replace("\n", " "), answers=1)
        person.one("[data-verdict=up]").click()
        person.until(person.pressed)
        person.one(".reason").send_keys(HOSTILE.replace("\n", " "), Keys.ENTER)
        person.until(lambda: rows(tmp_path)[0]["reason"])
        person.reload()
        assert person.texts(".said.model") == [HOSTILE]
        assert person.texts(".said.user") == [HOSTILE.replace("\n", " ")]
        assert person.one(".reason").get_property("value") == HOSTILE.replace("\n", " ")
        assert rows(tmp_path)[0]["completion"][0]["content"] == HOSTILE
        ours = "#shown img, #shown script, #shown a, #shown style, #shown strong, #shown svg:not([viewBox])"
        assert person.all(ours) == []
        assert person.driver.execute_script("return window.owned") is None
        person.open(review)
        person.one(".answer")
        assert sorted(person.texts(".answer")) == [HOSTILE, f"{HOSTILE}2"]
        assert person.texts(".said.user") == [HOSTILE]
        assert person.all(ours) == []
        assert person.driver.execute_script("return window.owned") is None


def test_two_browsers_have_two_conversations_and_both_rows_are_kept(browser, collect, tmp_path):
    with ModelServer(delay=0.5) as server:
        url, people = collect(*served(server)), {name: browser() for name in ("Ann", "Bob")}
        for name, person in people.items():
            person.open(url)
            person.call(name)
        for name, person in people.items():  # the second asks while the first waits
            person.box().send_keys(f"I am {name}", Keys.ENTER)
        for person in people.values():
            person.until(lambda person=person: len(person.all(".said.model:not(.dots, .coming)")) == 1)
        assert server.busiest == 2
        people["Ann"].one("[data-verdict=up]").click()
        people["Bob"].one("[data-verdict=down]").click()
        for name, person in people.items():
            person.until(person.pressed)
            assert person.texts(".said.user") == [f"I am {name}"]
    found = {row["user"]: (row["prompt"][0]["content"], row["label"]) for row in rows(tmp_path)}
    assert found == {"Ann": ("I am Ann", True), "Bob": ("I am Bob", False)}
    assert len(rows(tmp_path)) == 2


def test_of_a_model_server_that_is_down_the_page_says_so_and_loses_nothing_that_was_typed(browser, collect):
    person = browser()
    with ModelServer(first=["500", "500"]) as server:  # as many as one question is tried
        person.open(collect(*served(server)))
        person.box().send_keys("a long thought", Keys.ENTER)
        notice = person.one(".notice").text
        assert "did not answer" in notice
        assert "HTTP 500" in notice
        assert person.box().get_property("value") == "a long thought"
        person.box().send_keys(Keys.ENTER)  # up again
        person.until(lambda: person.texts(".said.model:not(.dots, .coming)") == ["answer to a long thought"])
        assert person.box().get_property("value") == ""
        assert person.all(".notice") == []
    assert person.driver.switch_to.active_element == person.box()  # the next message needs no click
    person.box().send_keys("another one", Keys.ENTER)  # down for good
    assert "its server is down" in person.one(".notice").text
    assert person.box().get_property("value") == "another one"
    person.reload()
    person.until(lambda: person.box().get_property("value") == "another one")
    person.until(lambda: person.texts(".said.model") == ["answer to a long thought"])


def test_a_name_and_a_message_that_was_not_sent_survive_a_reload_and_another_server(browser, collect, tmp_path):
    with ModelServer() as server:
        person, port = browser(), str(free_port())
        person.open(collect(*served(server), "--port", port))
        person.call("Ann")
        person.ask("sent", answers=1)
        person.box().send_keys("a long thought")
        person.reload()
        assert person.box().get_property("value") == "a long thought"
        collect.stop()
        person.open(collect(*served(server), "--port", port))
        person.until(lambda: person.box().get_property("value") == "a long thought")
        person.until(lambda: person.one("#name input").get_property("value") == "Ann")
        person.box().send_keys(Keys.ENTER)
        person.one("[data-verdict=up]").click()
        person.until(person.pressed)
        person.reload()
        assert person.box().get_property("value") == ""
    assert [(row["user"], row["prompt"]) for row in rows(tmp_path)] == [
        ("Ann", [{"role": "user", "content": "a long thought"}])
    ]


def test_on_a_phone_nothing_is_cut_off_and_what_is_new_comes_into_sight(browser, collect):
    with ModelServer(answer=lambda body: f"{'long ' * 200}{'w' * 300}") as server:
        person = browser()
        person.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
        )
        person.open(collect(*served(server)))
        for number in (1, 2):
            person.ask(f"question {number}", answers=number)
        person.until(lambda: 0 <= person.top(person.all(".said.user")[1]) < 100)
        assert 700 < person.top(person.box()) < 844
        assert person.driver.execute_script("return document.documentElement.scrollWidth") == 390
    person.box().send_keys("another one", Keys.ENTER)
    person.until(lambda: 0 <= person.top(person.one(".notice")) < person.top(person.box()))


def test_a_question_that_is_being_answered_survives_a_reload(browser, collect):
    with ModelServer(delay=3.0) as server:
        person = browser()
        person.open(collect(*served(server)))
        person.box().send_keys("one", Keys.ENTER)
        person.one(".dots")
        person.reload()
        assert person.texts(".said.user") == ["one"]
        person.until(lambda: person.texts(".said.model:not(.dots, .coming)") == ["answer to one"])
        assert server.received == {"one": 1}


class Gate:
    """Holds a served answer back after so many words."""

    def __init__(self, words: int) -> None:
        self.words = words

    def __call__(self, sent: int) -> bool:
        return sent >= self.words


WORDS = "one two three four five six"


def test_an_answer_is_seen_before_it_has_ended_and_has_thumbs_only_then(browser, collect, tmp_path):
    gate = Gate(3)
    with ModelServer(answer=lambda body: WORDS, gate=gate) as server:
        person = browser()
        person.open(collect(*served(server)))
        person.box().send_keys("count", Keys.ENTER)
        person.until(lambda: person.texts(".said.coming") == ["one two three "])
        assert person.one(".talk").get_attribute("aria-busy") == "true"
        assert person.all("[data-verdict]") == []
        assert person.all("#question textarea:enabled") == []
        gate.words = 5
        person.until(lambda: person.texts(".said.coming") == ["one two three four five "])
        person.reload()  # which goes on with the same answer
        person.until(lambda: person.texts(".said.coming") == ["one two three four five "])
        gate.words = 99
        person.until(lambda: person.texts(".said.model:not(.coming)") == [WORDS])
        assert person.one(".talk").get_attribute("aria-busy") == "false"
        assert server.received == {"count": 1}
        person.one("[data-verdict=up]").click()
        person.until(person.pressed)
    assert rows(tmp_path)[0]["completion"][0]["content"] == WORDS


def test_stop_and_escape_end_an_answer_and_the_question_is_back_in_the_box(browser, collect, tmp_path):
    gate = Gate(2)
    with ModelServer(answer=lambda body: WORDS, gate=gate, pace=0.02) as server:
        person = browser()
        person.open(collect(*served(server)))
        for stopped in (0, 1):
            person.box().send_keys("count" * (1 - stopped), Keys.ENTER)
            person.until(lambda: person.texts(".said.coming") == ["one two "])
            if stopped:
                ActionChains(person.driver).send_keys(Keys.ESCAPE).perform()
            else:
                person.until(lambda: person.driver.switch_to.active_element == person.one("#stop"))
                ActionChains(person.driver).send_keys(Keys.ENTER).perform()
            assert "was stopped" in person.one(".notice").text
            assert person.box().get_property("value") == "count"
            assert person.all(".said, #stop") == []
            person.until(lambda: person.driver.switch_to.active_element == person.box())
        gate.words = 99
        person.ask("", answers=1)
        assert person.texts(".said.model") == [WORDS]
    assert not (tmp_path / "feedback.jsonl").read_text()


def test_a_page_that_is_closed_ends_the_answer(browser, collect):
    with ModelServer(answer=lambda body: "word " * 100_000, pace=0.01) as server:
        person = browser()
        person.open(collect(*served(server)))
        person.box().send_keys("count", Keys.ENTER)
        person.one(".coming")
        person.driver.get("about:blank")
        person.until(lambda: server.busy == 0, seconds=40)
        assert server.streamed["count"] < 50_000


def test_what_models_write_is_text_on_its_way_too(browser, collect):
    gate = Gate(40)
    with ModelServer(answer=lambda body: HOSTILE, gate=gate, pieces=lambda text: text.split(" ")) as server:
        person = browser()
        person.open(collect(*served(server)))
        person.box().send_keys("do harm", Keys.ENTER)
        person.until(lambda: "onerror" in "".join(person.texts(".said.coming")))
        assert person.all("#shown img, #shown script, #shown a, #shown iframe") == []
        assert person.driver.execute_script("return window.owned") is None
        gate.words = 9_999
        person.until(lambda: len(person.all(".said.model:not(.coming)")) == 1)


def test_a_long_answer_stays_where_it_is_read_when_it_ends(browser, collect):
    gate = Gate(300)
    with ModelServer(answer=lambda body: "word " * 600, gate=gate) as server:
        person = browser()
        person.driver.set_window_size(900, 700)
        person.open(collect(*served(server)))
        person.box().send_keys("count", Keys.ENTER)
        person.until(lambda: [len(text.split()) for text in person.texts(".said.coming")] == [300])
        person.until(lambda: 0 <= person.top(person.one(".said.user")) < 40)
        ActionChains(person.driver).scroll_by_amount(0, 200).perform()
        person.until(lambda: person.top(person.one(".said.user")) < -100)
        was = person.top(person.one(".said.user"))
        gate.words = 9_999
        person.until(lambda: person.all("[data-verdict]"))
        assert abs(person.top(person.one(".said.user")) - was) < 5


def by_name(body) -> str:
    return f"{'first' if body['model'] == 'model-one' else 'second'} model says"


def test_two_models_stand_side_by_side_unnamed_and_the_better_one_is_chosen(browser, collect, tmp_path, capsys):
    gate = Gate(2)
    with ModelServer(answer=by_name, gate=gate) as server:
        person = browser()
        person.open(collect("--url", server.url, "--model", "model-one", "model-two"))
        person.box().send_keys("who?", Keys.ENTER)
        person.until(lambda: sorted(person.texts(".coming .answer")) == ["first model ", "second model "])
        gate.words = 99
        chosen = []
        for number in range(8):
            if number:
                person.box().send_keys(f"who {number}?", Keys.ENTER)
            person.until(lambda number=number: len(person.all(".verdict")) == number + 1)
            left, right = person.all(".answers")[-1].find_elements(By.CSS_SELECTOR, "figure")
            assert abs(person.top(left) - person.top(right)) < 1
            assert left.rect["x"] + left.rect["width"] <= right.rect["x"]
            side = ["up", "down"][left.text.endswith("second model says")]  # the first model's, wherever it stands
            chosen.append(side)
            person.all(f"[data-verdict={side}]")[-1].click()
            person.until(lambda number=number: len(person.pressed()) == number + 1)
            assert "model-" not in person.driver.page_source
        assert set(chosen) == {"up", "down"}  # 8 tosses: alike with a chance of 1 in 128
        person.reload()
        assert len(person.pressed()) == 8
        assert "model-" not in person.driver.page_source
    kept = rows(tmp_path)
    assert {(row["model"], row["rejected_model"]) for row in kept} == {("model-one", "model-two")}
    assert all(row["chosen"][0]["content"] == "first model says" for row in kept)
    assert [row["shown_first"] == "model-one" for row in kept] == [side == "up" for side in chosen]
    assert main(["collect", "--status", "--store", str(tmp_path / "feedback.jsonl")]) == 0
    assert "model-one won 8 of 8: 100%, 95% interval 68% to 100%" in capsys.readouterr().out


def test_both_bad_with_a_reason_from_the_keyboard_alone(browser, collect, tmp_path):
    with ModelServer(answer=by_name) as server:
        person = browser()
        person.open(collect("--url", server.url, "--model", "model-one", "model-two"))
        person.until(lambda: person.driver.switch_to.active_element == person.box())

        def press(*keys: str) -> None:
            ActionChains(person.driver).send_keys(*keys).perform()

        def go_to(selector: str, back: bool = False) -> None:
            """Tab, or Shift and Tab, until the focus is there, and can be seen."""
            for _ in range(20):
                if person.driver.execute_script("return document.activeElement.matches(arguments[0])", selector):
                    break
                tab = ActionChains(person.driver)
                (
                    tab.key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT)
                    if back
                    else tab.send_keys(Keys.TAB)
                ).perform()
            active = person.driver.switch_to.active_element
            assert person.driver.execute_script("return document.activeElement.matches(arguments[0])", selector)
            # Around the box to write in there is a frame, which takes the colour.
            assert active.value_of_css_property("outline-style") != "none" or active.tag_name == "textarea", selector

        press("who?", Keys.ENTER)
        person.until(lambda: len(person.all("[data-verdict]")) == 4)
        go_to(".reason", back=True)
        press("both wrong")
        go_to("[data-verdict=neither]")
        press(Keys.SPACE)
        person.until(lambda: person.pressed() == ["neither"])
        person.until(lambda: person.texts(".kept") == ["kept"])
        assert [(row["label"], row["reason"]) for row in rows(tmp_path)] == [(False, "both wrong")] * 2
        focused = person.driver.switch_to.active_element
        assert focused.get_attribute("data-verdict") == "neither"  # the next Tab goes on from there
        go_to("#question textarea")
        press("and now?", Keys.ENTER)
        person.until(lambda: len(person.all("[data-verdict]")) == 8)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_two_answers_fit_the_screen_and_can_be_read_in_both_colour_schemes(browser, collect, width, dark):
    with ModelServer(answer=lambda body: f"{body['model']} {'w' * 300} " + "long " * 80) as server:
        person = browser()
        person.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        person.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        person.open(collect("--url", server.url, "--model", "a", "b"))
        person.box().send_keys("who?", Keys.ENTER)
        person.until(lambda: len(person.all("[data-verdict]")) == 4)
        page = "const page = document.documentElement; return page.scrollWidth - page.clientWidth"
        assert person.driver.execute_script(page) == 0
        first, second = person.all("figure")
        assert (person.top(second) > person.top(first)) == (width < 600)  # one below the other, or beside it
        for selector in (".answer", "[data-verdict=both]", ".said.user", ".reason", "figcaption"):
            assert contrast(person, selector) >= 4.5, selector


def contrast(person: Browser, selector: str) -> float:
    """The ratio of a text's lightness to that of what is behind it (WCAG 2.2)."""
    colour, behind = person.driver.execute_script(
        """
        let at = document.querySelector(arguments[0]);
        const colour = getComputedStyle(at).color;
        while (at && /rgba?\\(.*, 0\\)|transparent/.test(getComputedStyle(at).backgroundColor)) at = at.parentElement;
        return [colour, at ? getComputedStyle(at).backgroundColor : "rgb(255, 255, 255)"];
        """,
        selector,
    )

    def light(text: str) -> float:
        shades = [int(shade) / 255 for shade in re.findall(r"\d+", text)[:3]]
        red, green, blue = (
            shade / 12.92 if shade <= 0.04045 else ((shade + 0.055) / 1.055) ** 2.4 for shade in shades
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dim, bright = sorted(map(light, (colour, behind)))
    return (bright + 0.05) / (dim + 0.05)


def test_a_new_conversation_begins_empty_and_what_was_kept_stays(browser, collect, tmp_path):
    with ModelServer() as server:
        person = browser()
        person.open(collect(*served(server)))
        person.ask("one", answers=1)
        person.one("[data-verdict=up]").click()
        person.until(person.pressed)
        person.one("#anew").click()
        person.until(lambda: not person.all(".said"))
        person.ask("two", answers=1)
        assert server.bodies[-1]["messages"] == [{"role": "user", "content": "two"}]
        assert person.pressed() == []
    assert [row["label"] for row in rows(tmp_path)] == [True]


def test_a_review_is_blind_keeps_every_reason_with_its_answer_and_goes_on_after_a_reload(browser, collect, tmp_path):
    prepared = tmp_path / "answers.jsonl"
    answers = [
        [{"text": f"right {n}", "model": "model-one"}, {"text": f"wrong {n}", "model": "model-two"}] for n in range(4)
    ]
    prepared.write_text("".join(json.dumps({"prompt": f"p{n}", "candidates": answers[n]}) + "\n" for n in range(4)))
    person = browser()
    person.open(collect("--review", str(prepared), "--pairs"))
    for number in range(4):
        assert person.one(".progress").text == f"{number} of 4 judged"
        assert "model-" not in person.driver.page_source
        assert person.one(".reason").get_property("value") == ""
        if number % 2 == 0:
            person.one(".reason").send_keys(f"because {person.texts('.answer')[0]}")
        better = 0 if person.texts(".answer")[0].startswith("right") else 1
        person.all("[data-verdict]")[better].click()
        person.until(lambda number=number: person.one(".progress").text == f"{number + 1} of 4 judged")
        if number == 1:
            person.reload()
    kept = rows(tmp_path)
    assert all(row["chosen"].startswith("right") and row["rejected"].startswith("wrong") for row in kept)
    assert {(row["model"], row["rejected_model"]) for row in kept} == {("model-one", "model-two")}
    assert [row["reason"] is None for row in kept] == [False, True, False, True]
    assert all(row["reason"].split()[-1] == row["chosen"].split()[-1] for row in kept if row["reason"])
    assert "all of them" in person.one(".hint").text


def test_the_password_opens_the_page_and_its_name_is_the_persons(browser, collect, tmp_path):
    with ModelServer() as server:
        person = browser()
        person.open(collect(*served(server), BNF_ALIGN_PASSWORD="sesame"))
        for password in ("open", "sesame"):
            person.until(lambda: len(person.all("input")) == 2)
            assert person.all("#question") == []
            for field, text in zip(person.all("input"), ("Ann", password), strict=True):
                field.clear()
                field.send_keys(text)
            person.one("button").click()
            person.until(lambda: "Incorrect" in person.driver.page_source or person.all("#question"))
        person.ask("one", answers=1)
        person.one("[data-verdict=up]").click()
        person.until(person.pressed)
    assert rows(tmp_path)[0]["user"] == "Ann"


def test_a_model_in_process_is_talked_to_in_the_same_way(browser, collect, tmp_path):
    tokenizer = chatml_tokenizer()
    tokenizer.save_pretrained(tmp_path / "model")
    tiny_llama(len(tokenizer), seed=3).save_pretrained(tmp_path / "model")
    person = browser()
    sampling = ["--temperature", "0", "--max_new_tokens", "8"]
    person.open(collect("--model_name_or_path", str(tmp_path / "model"), *sampling))
    person.ask("hello", answers=1)
    person.one("[data-verdict=down]").click()
    person.until(person.pressed)
    (row,) = rows(tmp_path)
    assert (row["label"], row["model"]) == (False, str(tmp_path / "model"))
    assert row["completion"][0]["content"].replace("\r", "\n") == person.texts(".said.model")[0]  # as HTML has it


def test_a_proxy_in_the_environment_is_not_asked_for_what_is_on_this_machine(browser, collect):
    with ModelServer() as server:
        person = browser()
        nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
        person.open(collect(*served(server), **nowhere))
        person.ask("one", answers=1)
        assert person.requested() == {"127.0.0.1"}  # what `browser` checks of every page is really recorded


def test_another_site_cannot_ask_or_judge_as_the_person_who_is_logged_in(browser, collect, tmp_path):
    """The site is another origin; its script sends what the page's own would, with the person's cookies."""

    class Site(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<title>another site</title>")

        def log_message(self, *arguments):
            pass

    send = """
    const [url, done] = arguments;
    const body = JSON.stringify({data: [null, "", "stolen"], fn_index: 2, session_hash: "x"});
    fetch(url, {method: "POST", credentials: "include", headers: {"Content-Type": "text/plain"}, body})
      .then((answer) => done(answer.status), () => done("blocked"));
    """
    site = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    with ModelServer() as server:
        person, url = browser(), collect(*served(server), BNF_ALIGN_PASSWORD="sesame")
        person.open(url)
        person.until(lambda: len(person.all("input")) == 2)
        for field, text in zip(person.all("input"), ("Ann", "sesame"), strict=True):
            field.send_keys(text)
        person.one("button").click()
        person.ask("one", answers=1)
        cookies = person.driver.get_cookies()
        assert {cookie["sameSite"] for cookie in cookies if "access-token" in cookie["name"]} == {"Lax"}
        join = f"{url}/gradio_api/queue/join"
        assert person.driver.execute_async_script(send, join) != 403  # from the page itself
        person.driver.get(f"http://localhost:{site.server_port}/")
        assert person.driver.title == "another site"
        assert person.driver.execute_async_script(send, join) in (403, "blocked")
        assert person.driver.execute_async_script(send, f"{url}/login") in (403, "blocked")
        asked = set(server.received)
    site.shutdown()
    assert asked <= {"one"}
    assert not (tmp_path / "feedback.jsonl").read_text()
