"""The data formats of other trainers: each a declaration that `rows.Format` reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from bnf_align.reasons import Reason
from bnf_align.sources.fields import dicts, first_of, mapping
from bnf_align.sources.files import at_least_one, file_records, unpacked
from bnf_align.sources.rows import Answer, Candidate, Chosen, Format, Labelled, Prompt, Scored
from bnf_align.sources.scores import TRUE_FALSE, number_of
from bnf_align.sources.source import Record
from bnf_align.sources.turns import HH_TURN, assistant, messages, transcript

OPENAI = Format(
    "openai",
    "OpenAI's DPO format",
    wanted="a pair with input, non_preferred_output, preferred_output",
    knows=("input", "preferred_output", "non_preferred_output"),
    prompt=Prompt(turns="input.messages"),
    tools="input.tools",
    verdicts=(
        Chosen(
            "preferred_output",
            "non_preferred_output",
            read=lambda value: None if (turns := messages(value)) is None else ([], turns),
            without=Reason("no_messages"),
        ),
    ),
    no_prompt=Reason("no_messages"),
)
"""OpenAI's and Azure's JSON Lines for direct preference optimisation.

    {"input": {"messages": [{"role": "user", "content": "Hi"}], "tools": [], "parallel_tool_calls": true},
     "preferred_output": [{"role": "assistant", "content": "Hello"}], "non_preferred_output": [...]}

Source: developers.openai.com/api/docs/guides/direct-preference-optimization, read in 2026.
"""

INDEX = "dataset_info.json"
_COLUMNS = {"prompt": "instruction", "query": "input", "response": "output", "messages": "conversations"}
_TAGS = {"user": "human", "assistant": "gpt", "observation": "observation", "function": "function_call"}


def described(path: Path) -> Record:
    """What an index beside a file says of it: its `columns` and `tags`; {} without an index, or one that is silent."""
    try:
        text = (path.parent / INDEX).read_bytes() if path.name != INDEX else b"{}"
        entries = mapping(json.loads(text)).values()
    except (OSError, ValueError, RecursionError):
        return {}
    entry = next((one for one in entries if isinstance(one, dict) and one.get("file_name") == path.name), {})
    return {name: entry[name] for name in ("columns", "tags") if isinstance(entry.get(name), dict)}


class _LlamaFactory(Format):
    """A format whose files may have an index beside them, which says what their columns and roles are called."""

    def matches(self, record: Record, path: Path) -> bool:
        """Under the names of the index: turns or an instruction, with a pair or a tag that is LLaMA-Factory's own."""
        record = self.renamed(record, described(path) if path else {})
        pair = {"chosen", "rejected"} <= record.keys()
        if isinstance(unpacked(record.get("conversations")), list):
            return pair or "kto_tag" in record or "label" in record
        return isinstance(record.get("instruction"), str) and (pair or "kto_tag" in record)

    def records(self, paths: Sequence[Path]) -> Iterator[tuple[int, Record]]:
        """The records of the files; the index itself is no data."""
        files = [(path, described(path)) for path in paths if path.name != INDEX] or [(path, {}) for path in paths]
        return at_least_one((self.renamed(one, index) for path, index in files for one in file_records(path)), paths)

    def renamed(self, record: Record, index: Record) -> Record:
        """A record under the names of LLaMA-Factory's README."""
        if not index:
            return record
        theirs = {str(name): _COLUMNS.get(ours, ours) for ours, name in mapping(index.get("columns")).items()}
        named = {theirs.get(name, name): value for name, value in record.items()}
        tags = mapping(index.get("tags"))
        role, content = str(tags.get("role_tag", "from")), str(tags.get("content_tag", "value"))
        roles = {str(tags.get(f"{ours}_tag", theirs)): theirs for ours, theirs in _TAGS.items()}

        def turn(said: Any) -> Any:
            whole = isinstance(said, dict) and {role, content} <= said.keys()
            return {"from": roles.get(str(said[role]), said[role]), "value": said[content]} if whole else said

        for name in ("conversations", "chosen", "rejected"):
            value = unpacked(named.get(name))
            if isinstance(value, list | dict):
                named[name] = list(map(turn, value)) if isinstance(value, list) else turn(value)
        return named


LLAMAFACTORY = _LlamaFactory(
    "llamafactory",
    "LLaMA-Factory's format, ShareGPT or Alpaca",
    wanted="a row with conversations, messages or an instruction",
    holds=lambda record: isinstance(first_of(record, "conversations|messages|instruction"), list | str),
    prompt=Prompt(turns="conversations|messages", texts=("instruction", "input"), answer="output"),
    verdicts=(Chosen(), Labelled("kto_tag|label")),
    values=TRUE_FALSE,
    no_prompt=Reason("turns_not_text"),
)
"""LLaMA-Factory's data files, under the column names of its README or those of a dataset_info.json beside them.

    {"conversations": [{"from": "human", "value": "Hi"}], "chosen": {"from": "gpt", "value": "Hello"},
     "rejected": {"from": "gpt", "value": "What?"}, "system": "...", "tools": "[...]"}
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "kto_tag": true}
    {"instruction": "Translate", "input": "Hallo", "chosen": "Hello", "rejected": "What?", "history": [["q", "a"]]}
    {"instruction": "Translate", "input": "Hallo", "output": "Hello", "kto_tag": false}

Its demonstration of KTO has `messages` of role and content, and `label` for `kto_tag`; both are read. Source:
github.com/hiyouga/LLaMA-Factory: data/README.md, data/dataset_info.json and src/llamafactory/data/converter.py.
"""

_QUESTION = ("prompt", "instruction", "input", "question")
_CHOSEN, _REJECTED = "chosen|chosen_response", "rejected|rejected_response"


def _is_axolotl(record: Record) -> bool:
    """Names that no other format has; `prompt, chosen, rejected` is TRL's own format, and read without import."""
    keys = record.keys()
    if any("rank" in answer for answer in dicts(unpacked(record.get("answers")))):
        return "prompt" in keys
    turns = isinstance(record.get("messages"), list) and isinstance(record.get("chosen"), dict)
    foreign = {"chosen", "rejected"} <= keys and isinstance(first_of(record, "input|question"), str)
    own = {"chosen_response", "rejected_response"} <= keys and bool(keys & set(_QUESTION))
    tagged = {"completion", "label"} <= keys and bool(keys & {"instruction", "question"}) and "prompt" not in keys
    return turns or own or tagged or (foreign and not keys & {"instruction", "prompt"})


def _ranked(record: Record, name: str) -> list[Candidate]:
    ranked = (one for one in dicts(unpacked(record["answers"])) if type(one.get("rank")) in (int, float))
    return [Candidate(one.get("answer"), one["rank"], one.get("model")) for one in ranked]


AXOLOTL = Format(
    "axolotl",
    "Axolotl's format",
    wanted="a row with two answers, ranked answers, or a completion",
    knows=_is_axolotl,
    holds=lambda record: not {"completion", "answers", *_CHOSEN.split("|"), *_REJECTED.split("|")}.isdisjoint(record),
    prompt=Prompt(turns="messages", texts=("|".join(_QUESTION),), history=""),
    verdicts=(
        Labelled("label", "completion", "chosen", Reason("no_prompt_or_answer")),
        Scored(_ranked, "answers", ranks=True, without=Reason("no_two_ranks")),
        Chosen(_CHOSEN, _REJECTED),
    ),
    values=TRUE_FALSE,
    tools="",
)
"""Axolotl's formats, all with an optional `system`.

    {"instruction": "Hi", "chosen_response": "Hello", "rejected_response": "What?"}   argilla
    {"input": "Hi", "chosen": "Hello", "rejected": "What?"}                           icr; intel has `question`
    {"prompt": "Hi", "chosen": [{"role": ...}, ...], "rejected": [...]}               ultra, argilla_chat
    {"messages": [...], "chosen": {"role": ...}, "rejected": {"role": ...}}           chat_template.default
    {"prompt": "Hi", "answers": [{"answer": "Hello", "rank": 1}, ...]}                nectar
    {"prompt": "Hi", "completion": "Hello", "label": true}                            KTO

Of ranked answers rank 1 is the best, as in the Nectar data, and the last one the worst. (Axolotl's own
`zephyr.nectar` takes the answer with the highest rank as the chosen one.) Source: github.com/axolotl-ai-cloud/axolotl,
docs/rlhf.qmd and src/axolotl/prompt_strategies; for the ranks huggingface.co/datasets/berkeley-nest/Nectar.
"""

_SWIFT_REJECTED = "rejected_response|rejected_messages"


def _is_ms_swift(record: Record) -> bool:
    """A conversation that ends in an answer, with the answer it was preferred to, or a label."""
    turns = MS_SWIFT.prompt.of(record)
    tagged = "messages" in record and isinstance(record.get("label"), bool) and "chosen" not in record
    rated = tagged or first_of(record, _SWIFT_REJECTED) is not None
    return bool(turns) and turns[-1]["role"] == "assistant" and rated if turns else False


MS_SWIFT = Format(
    "ms-swift",
    "ms-swift's format",
    wanted="a row with a conversation and rejected_response or label",
    knows=_is_ms_swift,
    holds=lambda record: (
        not {"messages", "query", "conversation", "instruction"}.isdisjoint(record)
        and not {*_SWIFT_REJECTED.split("|"), "label"}.isdisjoint(record)
    ),
    prompt=Prompt("messages|conversation", ("query|instruction", "input"), "response|output", needs_answer=True),
    verdicts=(Chosen("", _SWIFT_REJECTED), Labelled()),
    values=TRUE_FALSE,
    no_prompt=Reason("turns_not_text"),
)
"""ms-swift's data files: the last assistant turn is the answer, the preferred one of a pair.

    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
     "rejected_response": "What?"}
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "What?"}], "label": false}

For `messages` there may stand {"system", "query", "response", "history"}, {"system", "instruction", "input",
"output"} or {"system", "conversation": [{"human", "assistant"}, ...]}; for `rejected_response` the whole
conversation as `rejected_messages`. A `label` that is a number is a class of its classification tasks, whose
meaning is asked for. Source: github.com/modelscope/ms-swift, docs/source_en/Customization/Custom-dataset.md.
"""


def _is_hh(record: Record) -> bool:
    """Transcripts begin like no other text."""
    texts = [record.get(name) for name in ("chosen", "rejected", "prompt")]
    both = all(isinstance(text, str) for text in texts[:2])
    return both and any(isinstance(text, str) and bool(HH_TURN.match(text)) for text in texts[::2])


def _transcript_end(text: Any) -> Answer | None:
    """The answer that ends a transcript, or that is a text of its own beside one."""
    turns = transcript(text) or [assistant(text.strip())]
    return (turns[:-1], turns[-1:]) if turns[-1]["role"] == "assistant" else None


HH = Format(
    "hh",
    "transcripts as in Anthropic's HH",
    wanted="a pair of transcripts (chosen and rejected)",
    knows=_is_hh,
    prompt=Prompt(texts=("prompt",)),
    verdicts=(Chosen(read=_transcript_end),),
)
r"""Anthropic's helpful and harmless transcripts (hh-rlhf), and what others write like them.

    {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi\n\nAssistant: What?"}
    {"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": "Hello", "rejected": "What?"}

A prompt may stand beside whole transcripts too. White space at the ends of a turn is the transcript's, not the turn's.
Source: github.com/anthropics/hh-rlhf.
"""


def _completions(record: Record, name: str) -> Iterator[Candidate]:
    for one in dicts(unpacked(record.get("completions"))):
        aspects = mapping(one.get("annotations"))
        marks = [mark for note in aspects.values() if (mark := number_of(mapping(note).get("Rating"))) is not None]
        score = one.get(name, mapping(aspects.get(name)).get("Rating"))
        wrong = name == "overall_score" and number_of(score) == 10 and bool(marks) and fmean(marks) <= 4
        doubt = Reason("score_doubtful") if wrong else None
        yield Candidate(one.get("response"), score, one.get("model"), doubt)
    texts, ratings = record.get("generations"), record.get("ratings")
    if name == "ratings" and isinstance(texts, list) and isinstance(ratings, list) and len(texts) == len(ratings):
        models = record.get("generation_models")
        models = models if isinstance(models, list) and len(models) == len(texts) else [None] * len(texts)
        yield from map(Candidate, texts, ratings, models)


def _scores_in(record: Record) -> list[str]:
    names = ["ratings"] if isinstance(record.get("ratings"), list) else []
    for completion in dicts(unpacked(record.get("completions"))):
        names += [name for name in ("overall_score", "fine-grained_score") if completion.get(name) is not None]
        aspects = mapping(completion.get("annotations"))
        names += [str(aspect) for aspect, note in aspects.items() if "Rating" in mapping(note)]
    return list(dict.fromkeys(names))


def _has_completions(record: Record) -> bool:
    answers = unpacked(record.get("completions")), record.get("generations")
    return isinstance(record.get("instruction"), str) and any(isinstance(part, list) for part in answers)


ULTRAFEEDBACK = Format(
    "ultrafeedback",
    "UltraFeedback's format",
    wanted="an instruction with completions",
    knows=lambda record: _has_completions(record) and bool(_scores_in(record)),
    holds=_has_completions,
    prompt=Prompt(texts=("instruction",), system="", history=""),
    verdicts=(Scored(_completions),),
    scores=_scores_in,
    usual=("overall_score", "ratings"),
    values={"N/A": "drop"},
    tools="",
)
"""UltraFeedback (openbmb), and what distilabel writes.

    {"instruction": "Hi", "completions": [{"model": "gpt-4", "response": "Hello", "overall_score": 8.5,
     "fine-grained_score": 4.25, "annotations": {"helpfulness": {"Rating": "4", ...}, "honesty": ...}}, ...]}
    {"instruction": "Hi", "generations": ["Hello", "What?"], "ratings": [5, 1], "generation_models": [...]}

`--score_name` is `overall_score` (1 to 10; the default), `fine-grained_score`, one of the aspects (helpfulness,
honesty, instruction_following, truthfulness) or distilabel's `ratings`, all 1 to 5: more is better. The
`custom_system_prompt` of a completion is left out, as in the sets made of this one. Copies from before 29 December
2023 give 10 to answers whose critic gave 1: an `overall_score` of 10 beside detailed marks of 4 or less on average,
which its authors corrected, is left out. Source: github.com/OpenBMB/UltraFeedback, its issue 8 and "Update" for the
wrong tens; HuggingFaceH4/ultrafeedback_binarized, create_dataset.py; distilabel's UltraFeedback task.
"""

FORMATS = (OPENAI, LLAMAFACTORY, AXOLOTL, MS_SWIFT, HH, ULTRAFEEDBACK)
