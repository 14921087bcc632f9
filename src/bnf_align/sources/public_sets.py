"""Public preference sets under their own columns: each a declaration that `rows.Format` reads.

The sets are on the hub under the names that stand below each.
"""

from __future__ import annotations

from functools import partial

from bnf_align.reasons import Reason
from bnf_align.sources.files import unpacked
from bnf_align.sources.rows import ROWS, Candidate, Chosen, Format, Labelled, Prompt, Scored, Winner
from bnf_align.sources.scores import TRUE_FALSE, number_of
from bnf_align.sources.source import Message, Record
from bnf_align.sources.turns import EXTRA_ID_TURN, assistant, messages, transcript, user

_PROMPT = Prompt(texts=("prompt",))

PKU_SAFERLHF = Format(
    "pku-saferlhf",
    "PKU-SafeRLHF",
    knows=("prompt", "response_0", "response_1", "better_response_id"),
    prompt=_PROMPT,
    verdicts=(Winner("response_0", "response_1"),),
    scores=("better_response_id", "safer_response_id"),
    winners={"0": "first", "1": "second"},
)
"""PKU-Alignment/PKU-SafeRLHF: the number of the more helpful answer, or with `--score_name` of the safer one."""


def _arena_side(side: str, record: Record) -> list[Message] | None:
    """A conversation up to the round that was judged: MT-bench has both rounds beside a judgement of the first."""
    turns, judged = messages(record.get(side)), record.get("turn")
    asked = [at for at, turn in enumerate(turns or []) if turn["role"] == "user"]
    return turns[: asked[judged]] if turns and type(judged) is int and 0 < judged < len(asked) else turns


CHATBOT_ARENA = Format(
    "chatbot-arena",
    "conversations of Chatbot Arena",
    knows=("conversation_a", "conversation_b", "winner"),
    prompt=Prompt(),
    verdicts=(Winner(partial(_arena_side, "conversation_a"), partial(_arena_side, "conversation_b"), "winner"),),
    winners={"model_a": "first", "model_b": "second", "tie": "tie", "tie (inconsistent)": "tie"}
    | {"tie (bothbad)": "both_bad", "both_bad": "both_bad"},
)
"""lmsys/chatbot_arena_conversations, lmsys/mt_bench_human_judgments, lmarena-ai/arena-human-preference-140k: two whole
conversations. Where the models had answered an earlier turn differently, the last answers do not answer one prompt,
and the row is left out."""


def _arena_rounds(side: str, record: Record) -> list[Message] | None:
    """One side's conversation, from lists of what the user and what the model said."""
    asked, said = unpacked(record.get("prompt")), unpacked(record.get(side))
    if not isinstance(asked, list) or not isinstance(said, list) or len(asked) != len(said):
        return None
    return [turn for question, answer in zip(asked, said, strict=True) for turn in (user(question), assistant(answer))]


def _only_one(record: Record) -> str | None:
    """The only one of the three columns that is 1; None where none or several are."""
    names = ("winner_model_a", "winner_model_b", "winner_tie")
    ones = [name for name in names if number_of(record.get(name)) == 1 or record.get(name) is True]
    return ones[0] if len(ones) == 1 else None


ARENA_55K = Format(
    "arena-55k",
    "the Arena's 55k set",
    knows=("prompt", "response_a", "response_b", "winner_model_a", "winner_model_b"),
    prompt=Prompt(),
    verdicts=(Winner(partial(_arena_rounds, "response_a"), partial(_arena_rounds, "response_b"), _only_one),),
    winners={"winner_model_a": "first", "winner_model_b": "second", "winner_tie": "tie"},
)
"""lmarena-ai/arena-human-preference-55k: prompt and answers as JSON text of lists, turn by turn."""

_SPLIT = partial(transcript, turn=EXTRA_ID_TURN, first="User")
HELPSTEER = Format(
    "helpsteer",
    "HelpSteer",
    knows=("prompt", "response", "helpfulness"),
    prompt=Prompt(texts=("prompt",), split=_SPLIT),
    verdicts=(
        Scored(lambda record, name: [Candidate(row.get("response"), row.get(name), row=n) for n, row in record[ROWS]]),
    ),
    scores=("helpfulness", "correctness", "coherence", "complexity", "verbosity"),
    grouped="prompt",
)
"""nvidia/HelpSteer and HelpSteer2: a row an answer, with marks from 0 to 4; those of one prompt stand together. A
prompt of several turns is cut at `<extra_id_1>`, as in NVIDIA/NeMo-Aligner, examples/nlp/data/steerlm/common.py."""

HELPSTEER_PREFERENCE = Format(
    "helpsteer-preference",
    "HelpSteer's preferences",
    wanted="a row with two responses and preference_strength or overall_preference",
    knows=lambda record: (
        {"prompt", "response_1", "response_2", "preference_strength"} <= record.keys()
        or {"context", "response1", "response2", "overall_preference"} <= record.keys()
    ),
    prompt=Prompt(turns="context", texts=("prompt",), split=_SPLIT),
    verdicts=(Winner("response_1|response1", "response_2|response2", "preference_strength|overall_preference"),),
    winners={"-3": "first", "-2": "first", "-1": "first", "0": "tie", "1": "second", "2": "second", "3": "second"},
)
"""nvidia/HelpSteer2 (preference) and HelpSteer3: from -3, the first is much better, to 3, the second is."""

SHP = Format(
    "shp",
    "the Stanford Human Preferences",
    knows=("history", "human_ref_A", "human_ref_B", "labels"),
    prompt=Prompt(texts=("history",), history=""),
    verdicts=(Winner("human_ref_A", "human_ref_B", "labels"),),
    winners={"1": "first", "0": "second"},
)
"""stanfordnlp/SHP: a post with two comments; 1 where A has the higher score."""

WEBGPT = Format(
    "webgpt",
    "WebGPT's comparisons",
    knows=("question", "answer_0", "answer_1", "score_0", "score_1"),
    prompt=Prompt(texts=("question.full_text|question",)),
    verdicts=(
        Scored(
            lambda record, _: [Candidate(record.get(f"answer_{n}"), record.get(f"score_{n}")) for n in (0, 1)],
            without=Reason("equal_scores"),
        ),
    ),
)
"""openai/webgpt_comparisons: scores from -1 to 1 that add up to 0; 0 and 0 is a tie."""

ULTRAINTERACT = Format(
    "ultrainteract",
    "UltraInteract's pairs",
    knows=("trajectory", "chosen", "rejected"),
    prompt=Prompt(turns="trajectory"),
    verdicts=(Chosen(),),
    no_prompt=Reason("no_trajectory"),
)
"""openbmb/UltraInteract_pair: the turns so far, and the better and the worse next one."""

MATH_STEP_DPO = Format(
    "math-step-dpo",
    "Math-Step-DPO",
    knows=("prompt", "initial_reason_steps", "chosen", "rejected"),
    prompt=_PROMPT,
    verdicts=(Chosen(opening="initial_reason_steps"),),
)
"""xinlai/Math-Step-DPO-10K: a right and a wrong next step, both after the first steps, which begin both answers."""

BEAVERTAILS = Format(
    "beavertails",
    "BeaverTails",
    knows=("prompt", "response", "is_safe"),
    prompt=_PROMPT,
    verdicts=(Labelled("is_safe", "response"),),
    values=TRUE_FALSE,
)
"""PKU-Alignment/BeaverTails: is an answer safe? By several people, who are merged. It says nothing of its use."""

_WINNERS = (PKU_SAFERLHF, CHATBOT_ARENA, ARENA_55K, HELPSTEER, HELPSTEER_PREFERENCE, SHP, WEBGPT)
PUBLIC_SETS = (*_WINNERS, ULTRAINTERACT, MATH_STEP_DPO, BEAVERTAILS)
