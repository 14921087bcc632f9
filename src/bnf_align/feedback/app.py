"""The pages: how what people do in a browser reaches a `Talk` or a `Review`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr

from bnf_align.feedback.answerer import Answerer, NoAnswerError
from bnf_align.feedback.page import read, show_review, show_talk
from bnf_align.feedback.review import Review, Task
from bnf_align.feedback.store import Store
from bnf_align.feedback.talk import Place, StaleError, Talk
from bnf_align.feedback.visits import Visit, Visits

logger = logging.getLogger(__name__)

VERDICTS: dict[str, Any] = {"up": True, "down": False, "both": "both", "neither": "neither", "none": None}
"""What the page's buttons ask for. Each is a state to be in, so that a click that arrives twice changes nothing."""

STALE = "This page was older than what the server knows; now it is up to date. Please do that again."
NOT_KEPT = "That could not be kept. What was kept before still is; whoever runs this page finds the reason in its log."
EMPTY_MESSAGE = "Write a message first."
STILL_THERE = "Your message is still in the box."
LONGEST_NAME, LONGEST_REASON, LONGEST_MESSAGE = 100, 2_000, 100_000
"""Characters. The page's own boxes take no longer names and reasons; a longer message is refused."""
PRIVACY = "Kept are the answers that you judge, what was said before them, and your name if you give one."

# What is typed lives in the browser's tab too: a server that was started again knows neither the name, without which a
# person's rows could not be found again, nor a message that was not sent yet.
REMEMBER = "(text) => { sessionStorage.setItem('%s', text); }"
RECALL = "(token, ...rest) => [token, ...rest.map((_, at) => sessionStorage.getItem(['name', 'question'][at]) ?? '')]"

BLOCKS: dict[str, Any] = {"title": "Thumbs", "analytics_enabled": False}
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
# One after the other, in the order of the clicks, and none left out because one before it is still on its way.
JUDGING: dict[str, Any] = {**QUIET, "trigger_mode": "multiple", "concurrency_id": "judging", "concurrency_limit": 1}


def chat_page(answerers: Sequence[Answerer], store: Store, system: str = "", seed: int = 0) -> gr.Blocks:
    """A page on which people talk to a model and give its answers thumbs, or compare the answers of two.

    Args:
        answerers: The model, or two.
        store: Where thumbs go.
        system: A system message that every conversation begins with; empty for none.
        seed: See `Talk`.
    """
    visits = Visits(lambda: Talk(answerers, store, system, seed))
    closed, opened = gr.update(value="", interactive=False), gr.update(interactive=True)
    stoppable, stopped = gr.update(visible=True), gr.update(visible=False)

    def follow(visit: Visit[Talk]) -> Iterator[tuple[Any, ...]]:
        """Show a conversation while it is being answered, and once it is."""
        talk = visit.work
        for _ in talk.watch():
            if talk is visit.work:  # and not another one that the person began meanwhile
                yield visit.token, show_talk(talk), closed, stoppable
        notice = f"{talk.problem} {STILL_THERE}" if talk.problem else ""
        if talk is visit.work:
            yield visit.token, show_talk(talk, notice), {**opened, "value": talk.unanswered}, stopped

    def load(token: Any, name: str, question: str, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        visit, question = visits.of(token), _typed(question)
        talk, visit.name = visit.work, _typed(name, LONGEST_NAME) or visit.name or request.username or ""
        said = visit.name or gr.skip()  # the box may hold the beginning of a name by now
        if talk.coming:  # it was reloaded while the model was at it
            for token, shown, box, button in follow(visit):
                yield token, said, shown, box, button
        else:
            box = {**opened, "value": question or talk.unanswered}
            yield visit.token, said, show_talk(talk), box, stopped

    def ask(token: Any, name: str, question: str) -> Iterator[tuple[Any, ...]]:
        visit, question = visits.of(token, _typed(name, LONGEST_NAME)), _typed(question)
        if notice := _asked(visit.work, question):
            yield visit.token, show_talk(visit.work, notice), {**opened, "value": question}, gr.skip()
        else:
            yield from follow(visit)

    def stop(token: Any) -> None:
        visits.of(token).work.stop()

    def judge(token: Any, name: str, event: gr.EventData) -> tuple[str, str]:
        visit = visits.of(token, _typed(name, LONGEST_NAME))
        talk, place, verdict = visit.work, Place(event.id, event.at), VERDICTS[event.verdict]
        reason = _typed(event.reason, LONGEST_REASON) if talk.compares else ""  # that of the other thumb
        notice = _kept(lambda: talk.rate(place, verdict, visit.user, reason))
        return visit.token, show_talk(talk, notice)

    def explain(token: Any, event: gr.EventData) -> tuple[str, str]:
        visit = visits.of(token)
        notice = _kept(lambda: visit.work.explain(Place(event.id, event.at), _typed(event.reason, LONGEST_REASON)))
        return visit.token, show_talk(visit.work, notice)

    def begin_anew(token: Any) -> tuple[Any, ...]:
        visit = visits.of(token)
        visit.work.stop()
        visit.work = visits.begin()
        return visit.token, show_talk(visit.work), opened, stopped

    with gr.Blocks(**BLOCKS) as page:
        one = "Talk to the model", "Give a good answer a thumb up, a bad one a thumb down."
        two = "Which answer is better?", "Two models answer each message by itself, in an order drawn for each."
        title, text = two if len(answerers) == 2 else one
        token, name, shown = _parts(title, f"{text} {PRIVACY}")
        question = gr.Textbox(
            label="Your message",
            show_label=False,
            placeholder="Your message",
            max_lines=10,
            submit_btn=True,
            interactive=False,  # until it is known which conversation the browser was at
            elem_id="question",
        )
        with gr.Row(elem_id="ways"):
            halt = gr.Button("Stop", size="sm", elem_id="stop", visible=False)
            anew = gr.Button("New conversation", size="sm", elem_id="anew")
        changed = [token, shown, question, halt]
        page.load(load, [token, name, question], [token, name, shown, question, halt], js=RECALL, **QUIET)
        question.change(None, question, js=REMEMBER % "question", **QUIET)
        # As many at a time as there are people: whoever waits for a model holds no place that others need.
        question.submit(ask, [token, name, question], changed, **QUIET, concurrency_limit=None)
        halt.click(stop, [token], None, **QUIET, concurrency_limit=None)
        shown.like(judge, [token, name], [token, shown], **JUDGING)
        shown.input(explain, [token], [token, shown], **JUDGING)
        anew.click(begin_anew, [token], changed, **QUIET)
    return page


def _asked(talk: Talk, question: str) -> str:
    """Ask, and say what to tell the person if that cannot be asked now."""
    if not question.strip():
        return EMPTY_MESSAGE
    if len(question) > LONGEST_MESSAGE:
        return f"A message may have {LONGEST_MESSAGE:,} characters; this one has {len(question):,}."
    try:
        talk.ask(question)
    except NoAnswerError as problem:
        return f"{problem} {STILL_THERE}"
    return ""


def review_page(tasks: Sequence[Task], store: Store, raters: int | None = None) -> gr.Blocks:
    """A page on which people judge prepared answers, blind.

    Args:
        tasks: What `review.read_tasks` returned.
        store: Where judgements go.
        raters: See `Review`.
    """
    visits = Visits(lambda: Review(tasks, store, raters))

    def meet(token: Any, name: str) -> tuple[str, str]:
        """A person says a name: what was judged under it before is passed over."""
        visit, name = visits.of(token), _typed(name, LONGEST_NAME)
        if visit.user and name.strip() and name != visit.name:
            visit.work = visits.begin()  # somebody else at the same browser
        visit.name = name
        notice = _kept(lambda: visit.work.recall(visit.user))
        return visit.token, show_review(visit.work, notice)

    def load(token: Any, name: str, request: gr.Request) -> tuple[Any, ...]:
        visit = visits.of(token)
        token, shown = meet(visit.token, name or visit.name or request.username or "")
        return token, visit.name or gr.skip(), shown

    def judge(token: Any, name: str, event: gr.EventData) -> tuple[str, str]:
        visit = visits.of(token, _typed(name, LONGEST_NAME))
        verdict = VERDICTS[event.verdict]
        notice = _kept(lambda: visit.work.judge(event.id, verdict, _typed(event.reason, LONGEST_REASON), visit.user))
        return visit.token, show_review(visit.work, notice)

    def explain(token: Any, event: gr.EventData) -> tuple[str, str]:
        visit = visits.of(token)
        notice = _kept(lambda: visit.work.explain(event.id, _typed(event.reason, LONGEST_REASON)))
        return visit.token, show_review(visit.work, notice)

    def go(token: Any, event: gr.EventData) -> tuple[str, str]:
        visit = visits.of(token)
        if event.way == "back":
            visit.work.back()
        else:
            visit.work.skip(event.id)
        return visit.token, show_review(visit.work)

    with gr.Blocks(**BLOCKS) as page:
        asked = "Which answer is better?" if len(tasks[0].answers) == 2 else "Is this answer good?"
        token, name, shown = _parts(asked, PRIVACY)
        page.load(load, [token, name], [token, name, shown], js=RECALL, **QUIET)
        for said in (name.submit, name.blur):
            said(meet, [token, name], [token, shown], **JUDGING)
        shown.like(judge, [token, name], [token, shown], **JUDGING)
        shown.input(explain, [token], [token, shown], **JUDGING)
        shown.select(go, [token], [token, shown], **JUDGING)
    return page


def _typed(text: str, longest: int | None = None) -> str:
    """What somebody typed: its first characters, and "?" for half a surrogate pair, which no answer could hold."""
    return text[:longest].encode("utf-8", "replace").decode()


def _kept(act: Callable[[], object]) -> str:
    """Do something to the store; returns what the person should know of it."""
    try:
        act()
    except StaleError:
        return STALE
    except (OSError, ValueError):
        logger.exception("the store")
        return NOT_KEPT
    return ""


def _parts(title: str, text: str) -> tuple[gr.BrowserState, gr.Textbox, gr.HTML]:
    """What both pages have: the browser's token, the name, and the place for what is shown."""
    with gr.Row(elem_id="head"):
        gr.HTML(f"<h1>{title}</h1><p>{text}</p>", scale=3)
        name = gr.Textbox(
            label="Your name",
            show_label=False,
            container=False,
            placeholder="Your name (optional)",
            max_lines=1,
            max_length=LONGEST_NAME,
            min_width=180,
            elem_id="name",
        )
    name.change(None, name, js=REMEMBER % "name", **QUIET)
    shown = gr.HTML(js_on_load=read("page.js"), apply_default_css=False, elem_id="shown")
    return gr.BrowserState(storage_key="bnf-align-collect"), name, shown
