"""Every chat template that TRL ships: what is scored is the answer's own words and the token that ends them."""

import datetime
import json
import os
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from bnf_align import BadInput, PreferenceConfig, scored_text
from bnf_align.analysis import read_answers
from bnf_align.cli import doctor
from bnf_align.data import prepare
from bnf_align.data.doctor import examine
from bnf_align.data.read import iter_rows
from bnf_align.data.rows import preference_rows
from bnf_align.data.template import as_the_template_wants, end_token_id, render_text, template_facts
from bnf_align.data.tokenize import tokenize_rows
from bnf_align.records import DataReport
from bnf_align.sources import Options
from rows import user
from tiny_models import CHATML_TEMPLATE, byte_tokenizer, chatml_tokenizer

FOLDER = Path(find_spec("trl").origin).parent / "chat_templates"
NAMES = sorted(path.stem for path in FOLDER.glob("*.jinja"))
DOCS = Path(__file__).parents[1] / "docs" / "models.md"
BEGIN, END = "<!-- templates: python tests/test_templates.py writes this table -->", "<!-- end of templates -->"
SPECIAL = re.compile(r"<[^<>\s{}']{1,40}>|\[/?[A-Za-z_]+\]")
"""What looks like a token in a template's source."""
QUESTION, NEXT, ANSWER, THOUGHT = "Which one?", "And then?", "The answer.", "A thought."
IN_TEXT = f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "Its name."}},
                "required": ["city"],
            },
        },
    }
]
ARGUMENTS = '{"city": "Rome"}'
RESULT = {"role": "tool", "content": "sunny", "name": "weather", "tool_call_id": "call12345"}


def assistant(content=None, **more):
    return {"role": "assistant", **({} if content is None else {"content": content}), **more}


def calling(arguments=ARGUMENTS):
    function = {"name": "weather", "arguments": arguments}
    return assistant(tool_calls=[{"id": "call12345", "type": "function", "function": function}])


def thumb(*answer, **more):
    return {"prompt": [user(QUESTION)], "completion": list(answer), "label": True, **more}


@cache
def tokenizer_of(name):
    """A byte-level tokenizer with one of TRL's templates, and every special token that its source mentions."""
    source = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    specials = list(dict.fromkeys(["<bos>", "<eos>", *SPECIAL.findall(source)]))
    tokenizer = byte_tokenizer(specials, bos_token="<bos>", eos_token="<eos>", pad_token="<eos>")
    tokenizer.chat_template = source
    return tokenizer


def written(tokenizer, *messages, **extras):
    """What the template itself makes of messages, in the form it wants; None where it refuses them."""
    try:
        return render_text(tokenizer, as_the_template_wants(list(messages), template_facts(tokenizer)), extras)
    except ValueError:
        return None


def end_of(tokenizer):
    """What the template writes right after an answer: its end, or where it has none what opens the next turn."""
    own = re.match(r"(?:<[^<>\s]+>)*", written(tokenizer, user(QUESTION), assistant(ANSWER)).rpartition(ANSWER)[2])[0]
    return own or SPECIAL.match(written(tokenizer, user(QUESTION), assistant(ANSWER), user(NEXT)).split(ANSWER)[1])[0]


def tokenized(row, tokenizer, **settings):
    rows, report = preference_rows([row], source="data")
    return tokenize_rows(rows, tokenizer, report, max_length=None, **settings), report


@pytest.mark.parametrize("name", NAMES)
def test_of_an_answer_alone_the_answer_and_its_end_are_scored(name):
    tokenizer = tokenizer_of(name)
    for row in (thumb(assistant(ANSWER)), {**thumb(assistant(ANSWER)), "label": False}):
        for score_thoughts in (True, False):
            assert scored_text(row, tokenizer, score_thoughts=score_thoughts) == [ANSWER + end_of(tokenizer)]
    pair = {"prompt": [user(QUESTION)], "chosen": [assistant(ANSWER)], "rejected": [assistant("Other.")]}
    assert scored_text(pair, tokenizer) == [ANSWER + end_of(tokenizer), "Other." + end_of(tokenizer)]
    ours, _ = tokenized(thumb(assistant(ANSWER)), tokenizer)
    ids, mask, end = ours["input_ids"][0], ours["completion_mask"][0], ours["end"][0]
    assert mask[end]
    assert not any(mask[end + 1 :])
    assert ids[end] == end_token_id(tokenizer)
    assert end_of(tokenizer).endswith(tokenizer.decode([ids[end]]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "answer", [assistant(ANSWER, reasoning_content=THOUGHT), assistant(ANSWER, thinking=THOUGHT), assistant(IN_TEXT)]
)
def test_reasoning_that_a_row_brings_is_scored_once_or_said_to_be_lost(name, answer):
    tokenizer = tokenizer_of(name)
    whole, after = ANSWER + end_of(tokenizer), ANSWER
    _, report = tokenized(thumb(answer), tokenizer)
    (scored,) = scored_text(thumb(answer), tokenizer)
    if THOUGHT in scored:
        assert scored.endswith(whole)
        assert (scored.count(THOUGHT), scored.count(after)) == (1, 1)
        assert scored.count("<think>") == scored.startswith("<think>")
        assert scored.removeprefix("<think>\n").startswith(THOUGHT)
        assert not [said for said in report.warnings if "leaves out part" in said]
        assert any(said.startswith("reasoning that answers bring is scored") for said in report.notes)
    else:
        assert scored.strip() == whole
        assert any("reasoning in 1 row (0). Name a template" in said for said in report.warnings)
    assert scored_text(thumb(answer), tokenizer, score_thoughts=False) == [whole]


@pytest.mark.parametrize("name", NAMES)
def test_arguments_of_a_tool_call_are_written_alike_from_text_and_from_an_object(name):
    tokenizer = tokenizer_of(name)
    row = thumb(calling(), tools=TOOLS)
    as_text, as_object = (
        outcome(thumb(calling(form), tools=TOOLS), tokenizer) for form in (ARGUMENTS, {"city": "Rome"})
    )
    assert as_text == as_object
    if as_text is None:
        with pytest.raises(BadInput, match=r"nothing of an answer is left .* tool calls in 1 row \(0\)"):
            scored_text(row, tokenizer)
        return
    assert "weather" in as_text
    assert "Rome" in as_text
    assert '\\"' not in as_text
    assert SPECIAL.findall(as_text)
    ours, _ = tokenized(row, tokenizer)
    assert ours["end"][0] == max(i for i, hit in enumerate(ours["completion_mask"][0]) if hit)
    if name.startswith("qwen3") and "think" in tokenizer.chat_template:
        assert "think>" not in as_text


def outcome(row, tokenizer):
    try:
        return scored_text(row, tokenizer)[0]
    except BadInput:
        return None


@pytest.mark.parametrize("name", NAMES)
def test_of_several_turns_each_of_the_assistants_is_scored_to_its_end(name):
    tokenizer = tokenizer_of(name)
    scored = outcome(thumb(assistant("First."), user(NEXT), assistant(ANSWER)), tokenizer)
    first, rest = scored[: len("First.")], scored[len("First.") :]
    assert first == "First."
    assert rest.endswith(ANSWER + end_of(tokenizer))
    assert SPECIAL.fullmatch(rest.split(ANSWER)[0]) or rest.split(ANSWER)[0] == end_of(tokenizer)
    called, answered = outcome(thumb(calling(), tools=TOOLS), tokenizer), assistant(ANSWER)
    if written(tokenizer, user(QUESTION), calling(), RESULT, answered, tools=TOOLS) is None:
        assert outcome(thumb(calling(), RESULT, answered, tools=TOOLS), tokenizer) is None
        return
    scored = outcome(thumb(calling(), RESULT, answered, tools=TOOLS), tokenizer)
    assert "sunny" not in scored
    assert scored == (called or "") + ANSWER + end_of(tokenizer)
    twice = outcome(thumb(calling(), RESULT, calling(), RESULT, answered, tools=TOOLS), tokenizer)
    assert "sunny" not in twice
    assert twice.count("Rome") == 2 * (called or "").count("Rome")
    assert twice.startswith(called or "")
    assert twice.endswith(ANSWER + end_of(tokenizer))
    assert len(twice) <= len(2 * (called or "") + ANSWER + end_of(tokenizer))  # DeepSeek V3 opens the first call alone


@cache
def what_it_does(name):
    """Cells of the table: what is scored of an answer, of reasoning, of a tool call."""
    tokenizer = tokenizer_of(name)
    (scored,) = scored_text(thumb(assistant(ANSWER)), tokenizer)
    end = scored.removeprefix(ANSWER)
    added = any("is added" in note for note in tokenized(thumb(assistant(ANSWER)), tokenizer)[1].notes)
    keyed, in_text = (
        THOUGHT in scored_text(thumb(answer), tokenizer)[0]
        for answer in (assistant(ANSWER, reasoning_content=THOUGHT), assistant(IN_TEXT))
    )
    call, facts = outcome(thumb(calling(), tools=TOOLS), tokenizer), template_facts(tokenizer)
    told = {(True, True): "scored", (False, True): "`<think>` in the text", (False, False): "left out, warned"}
    return (
        f"the answer, `{end.replace('|', chr(92) + '|')}`" + (" (added)" if added else ""),
        told[keyed, in_text],
        "left out" if call is None else "arguments as text" if facts.text_arguments else "arguments as an object",
    )


def table():
    lines = ["| template | scored of an answer | reasoning | tool calls |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join([name, *what_it_does(name)])} |" for name in NAMES)])


def test_the_table_in_the_documentation_is_what_the_templates_do():
    text = DOCS.read_text(encoding="utf-8")
    assert text.split(BEGIN)[1].split(END)[0].strip() == table()


@pytest.mark.parametrize(
    ("name", "form"), [("llama3_2", "%d %b %Y"), ("muse_glimmer", "%Y-%m-%d"), ("gptoss", "%Y-%m-%d")]
)
def test_the_date_that_a_template_writes_can_be_set_and_a_row_of_its_own_wins(name, form):
    tokenizer, row = tokenizer_of(name), thumb(assistant(ANSWER))

    def prompt(row, **settings):
        return tokenizer.decode(tokenized(row, tokenizer, **settings)[0]["input_ids"][0])

    then, before = datetime.date(2031, 2, 3), datetime.date.today()
    dated, today = prompt(row, template_date="2031-02-03"), prompt(row)
    assert then.strftime(form) in dated
    days = {dated.replace(then.strftime(form), day.strftime(form)) for day in (before, datetime.date.today())}
    assert today in days  # nothing but the date differs
    if name.startswith("llama"):
        own = {**row, "chat_template_kwargs": {"date_string": "1 May 2030"}}
        assert "1 May 2030" in prompt(own, template_date="2031-02-03")


def test_a_stopped_clock_writes_every_form_of_its_date_and_leaves_the_rest_of_a_template_as_it_is():
    def prompt(source, **settings):
        tokenizer = with_template(source + CHATML_TEMPLATE)
        return tokenizer.decode(tokenized(thumb(assistant(ANSWER)), tokenizer, **settings)[0]["input_ids"][0])

    forms = "%A %a %-d %d %B %b %m %y %Y %j %H:%M"
    clock = f"\n{{{{ strftime_now('{forms}') }}}} 100% {{% if true %}}\n  %d\n{{% endif %}}"
    found, plain = prompt(clock, template_date="2031-02-03"), prompt(clock.replace("strftime_now", ""))
    assert found == plain.replace(forms, "Monday Mon 3 03 February Feb 02 31 2031 034 00:00")
    assert found.startswith("\nMonday")


# Templates of our own, each with one trait


def with_template(template, *specials):
    tokenizer = byte_tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *specials],
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
    )
    tokenizer.chat_template = template
    return tokenizer


def chatml(answer, opening="", **more):
    """ChatML whose assistant turns hold what the expression `answer` says."""
    return with_template(
        "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}"
        "{%- if message.role == 'assistant' %}{{- " + answer + " }}{%- else %}{{- message.content }}{%- endif %}"
        "{{- '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n"
        + opening
        + "' }}"
        "{%- endif %}",
        **more,
    )


DELETES = "message.content.split('</think>')[-1].lstrip('\\n')"


def test_pairs_that_a_template_makes_the_same_are_left_out_and_lost_text_is_warned_of():
    tokenizer = chatml(DELETES)
    sides = [("The sky.", "Blue.", "A number?", "Blue."), ("Leaves.", "Green.", None, "Seven.")]
    raw = [
        {
            "prompt": [user("Name a colour.")],
            "chosen": [assistant(f"<think>\n{good}\n</think>\n\n{up}")],
            "rejected": [assistant(f"<think>\n{bad}\n</think>\n\n{down}" if bad else down)],
        }
        for good, up, bad, down in sides
    ]
    rows, report = preference_rows(raw, source="data")
    ours = tokenize_rows(rows, tokenizer, report, max_length=None)
    assert ours["row"][:] == [1, 1]
    assert report.dropped == {"chosen and rejected are the same as the chat template writes them": [0]}
    assert report.warnings == [
        "the chat template leaves out part of the answers, which is not in the tokens: reasoning in 2 rows (0, 1). "
        "Name a template that writes it with --chat_template_path, or take it out of the rows"
    ]
    with pytest.raises(
        BadInput, match=r"no row is left .*are the same as.*reasoning in 1 row \(0\).*--chat_template_path"
    ):
        scored_text(raw[0], tokenizer)
    for row in raw[1:]:
        assert scored_text(row, tokenizer) == ["Green.<|im_end|>", "Seven.<|im_end|>"]


def test_doctor_says_what_the_template_adds_drops_and_leaves_unwritten(tmp_path):
    path = tmp_path / "rows.jsonl"

    def found(rows, tokenizer, **settings):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        result = examine(path, tokenizer=tokenizer, **settings)
        return {finding.name: finding for finding in result.findings}

    plain = [{**thumb(assistant(text)), "label": up} for text, up in (("Blue.", True), ("Green.", False))]
    empty = chatml(
        "'<think>\\n' + (message.reasoning_content or '') + '\\n</think>\\n\\n' + message.content", "<think>\\n"
    )
    (context,) = found(plain, empty).values()
    assert (context.name, context.level, context.rows) == ("context", "note", [0, 1])
    assert context.text == (r"the chat template's own '\n</think>\n\n' before the answer is not scored: 2 rows (0, 1)")
    thought = [thumb(assistant("Blue.", reasoning_content="R")), plain[1]]
    assert found(thought, empty)["thoughts"].rows == [0]
    assert "--score_thoughts false leaves it out" in found(thought, empty)["thoughts"].text
    assert "is not scored, only what follows" in found(thought, empty, score_thoughts=False)["thoughts"].text
    ignores = chatml("message.content")
    assert found(thought, ignores)["lost_in_template"].rows == [0]
    unwritten = found(plain, chatml("message.content", "<think>\\n"))["unwritten"]
    assert (unwritten.level, unwritten.rows) == ("warning", [0, 1])
    assert r"ends with '<think>\n', which the chat template leaves out before these answers" in unwritten.text
    glm = tokenizer_of("glm4moe")
    assert found(plain, glm)["added_end"].text == (
        "the chat template writes no end after the last answer; '<|user|>', with which it opens the next turn, is "
        "added and scored: 2 rows (0, 1)"
    )


def test_an_answer_that_looks_like_what_the_template_adds_is_scored_whole():
    tokenizer = chatml("'<think></think>' + message.content")
    for answer in ("<think", "think></think>x", "<|im_start|>assistant\n", "Qzebra", "  spaced  ", "<|im_end|>"):
        assert scored_text(thumb(assistant(answer)), tokenizer) == [f"{answer}<|im_end|>"]


def test_both_sides_of_a_pair_are_found_each_in_its_own_text():
    tokenizer = tokenizer_of("qwen3")
    end = "<|im_end|>"
    pair = {
        "prompt": [user(QUESTION)],
        "chosen": [assistant("Yes.", reasoning_content="Long thought.")],
        "rejected": [assistant("No, " * 5)],
    }
    assert scored_text(pair, tokenizer) == [f"Long thought.\n</think>\n\nYes.{end}", f"{'No, ' * 5}{end}"]
    assert scored_text(pair, tokenizer, score_thoughts=False) == [f"Yes.{end}", f"{'No, ' * 5}{end}"]


def test_a_thought_in_reasoning_content_and_in_the_text_is_written_once():
    both = assistant(IN_TEXT, reasoning_content=THOUGHT)
    for name in ("qwen3", "qwen3_8", "nemotron_3_nano", "qwen2_5"):
        (scored,) = scored_text(thumb(both), tokenizer_of(name))
        assert scored.count(THOUGHT) == 1
    closed = assistant(f"{THOUGHT}\n</think>\n\n{ANSWER}")  # as a model writes where the prompt opens the thought
    assert scored_text(thumb(closed), tokenizer_of("qwen3_8")) == [f"{THOUGHT}\n</think>\n\n{ANSWER}<|im_end|>"]
    ids, _ = tokenized(thumb(closed), tokenizer_of("qwen3_8"))
    assert tokenizer_of("qwen3_8").decode(ids["input_ids"][0]).count("</think>") == 1


def test_thoughts_in_plain_text_are_left_out_of_the_score_on_request():
    tokenizer = byte_tokenizer(["<eos>"], eos_token="<eos>")
    row = {"prompt": "q\n", "completion": "<think>R</think>\nA", "label": True}
    assert scored_text(row, tokenizer) == ["<think>R</think>\nA<eos>"]
    assert scored_text(row, tokenizer, score_thoughts=False) == ["A<eos>"]
    opened = {"prompt": "q\n<think>\n", "completion": "R</think>\nA", "label": True}
    assert scored_text(opened, tokenizer, score_thoughts=False) == ["A<eos>"]


def test_an_answer_that_is_only_a_thought_is_left_out_where_thoughts_are_not_scored():
    row = thumb(assistant(f"<think>\n{THOUGHT}\n</think>"))
    assert THOUGHT in scored_text(row, chatml_tokenizer())[0]
    with pytest.raises(
        BadInput, match="an answer is nothing but reasoning, which --score_thoughts false does not score"
    ):
        scored_text(row, chatml_tokenizer(), score_thoughts=False)


def test_a_turn_of_which_nothing_is_left_is_not_scored_to_its_end_alone():
    tokenizer = tokenizer_of("llama3")  # writes no tool calls
    raw = thumb(calling(), RESULT, assistant(ANSWER))
    assert scored_text(raw, tokenizer) == [f"{ANSWER}<|eot_id|>"]
    _, report = tokenized(raw, tokenizer)
    assert "tool calls in 1 row (0). Name a template" in report.warnings[0]


def test_tool_calls_as_openai_writes_them_are_objects_to_a_template_that_writes_json():
    tokenizer = with_template(CHATML_TEMPLATE)
    expected = '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call><|im_end|>'
    assert scored_text(thumb(calling()), tokenizer) == [expected]
    prompted = {"prompt": [user(QUESTION), calling(), RESULT], "completion": [assistant(ANSWER)], "label": True}
    ids, _ = tokenized(prompted, tokenizer)
    assert '"arguments": {"city": "Rome"}' in tokenizer.decode(ids["input_ids"][0])
    items = with_template(
        CHATML_TEMPLATE.replace(
            "(call.function | tojson)", "call.function.name + (call.function.arguments | items | list | tojson)"
        )
    )
    assert scored_text(thumb(calling()), items) == ['<tool_call>weather[["city", "Rome"]]</tool_call><|im_end|>']
    text = with_template(
        CHATML_TEMPLATE.replace("(call.function | tojson)", "call.function.name + call.function.arguments")
    )
    for arguments in (ARGUMENTS, json.loads(ARGUMENTS)):
        assert scored_text(thumb(calling(arguments)), text) == [f"<tool_call>weather{ARGUMENTS}</tool_call><|im_end|>"]
    none = scored_text(thumb(calling("")), tokenizer)
    assert none == ['<tool_call>{"name": "weather", "arguments": {}}</tool_call><|im_end|>']
    odd = scored_text(thumb(calling("no JSON")), tokenizer)
    assert odd == ['<tool_call>{"name": "weather", "arguments": "no JSON"}</tool_call><|im_end|>']


def test_a_token_over_the_border_of_template_and_answer_is_scored_and_said():
    """The tokenizer joins the template's last line feed and the answer's first: `\\n` is `Ċ` to a byte-level one."""
    tokenizer = byte_tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], merges=(("Ċ", "Ċ"),), eos_token="<|endoftext|>"
    )
    tokenizer.chat_template = chatml("'<think></think>\\n' + message.content").chat_template
    ours, report = tokenized(thumb(assistant("\nA")), tokenizer)
    scored = [token for token, hit in zip(ours["input_ids"][0], ours["completion_mask"][0], strict=True) if hit]
    assert tokenizer.decode(scored) == "\n\nA<|im_end|>"
    assert any(
        "the tokens of a prompt alone are not those it has before its answer" in said for said in report.warnings
    )
    _, report = tokenized(thumb(assistant("A")), tokenizer)
    assert report.warnings == []


def test_score_thoughts_reaches_training_doctor_and_analysis(tmp_path, capsys):
    tokenizer, row = tokenizer_of("qwen3"), thumb(assistant(IN_TEXT))
    rows, _ = preference_rows([row], source="data")
    for score_thoughts, expected in ((True, 2), (False, 1)):
        config = PreferenceConfig(output_dir=str(tmp_path), use_cpu=True, score_thoughts=score_thoughts)
        made = prepare.tokenized(rows, DataReport("data"), tokenizer, config)
        mask = np.array(made["completion_mask"][0])
        assert tokenizer.decode(np.array(made["input_ids"][0])[mask]).count(".") == expected
        answers = read_answers([row], tokenizer, source="data", score_thoughts=score_thoughts)
        assert answers.responses.masks.sum() == mask.sum()
    (tmp_path / "rows.jsonl").write_text(json.dumps(row), encoding="utf-8")
    tokenizer.save_pretrained(tmp_path / "model")
    flags = [str(tmp_path / "rows.jsonl"), "--model_name_or_path", str(tmp_path / "model"), "--json"]
    for flag, said in (("true", "scored with them"), ("false", "not scored, only what follows")):
        doctor.main([*flags, "--score_thoughts", flag])
        notes = json.loads(capsys.readouterr().out)["notes"]
        assert any(said in note for note in notes)
        assert not any(THOUGHT in note for note in notes)
    with pytest.raises(SystemExit):
        doctor.main([*flags, "--score_thoughts", "perhaps"])


def test_arguments_of_the_call_itself_do_not_pass_for_the_templates():
    row = thumb(assistant(ANSWER), chat_template_kwargs={"return_tensors": "pt"})
    with pytest.raises(BadInput, match="chat_template_kwargs asks for return_tensors, which is not for the template"):
        scored_text(row, chatml_tokenizer())


def test_what_a_row_lacks_is_told_as_in_training():
    with pytest.raises(BadInput, match="Single answers need `label` too"):
        scored_text({"prompt": "q", "completion": "a"}, chatml_tokenizer())
    with pytest.raises(BadInput, match="Unknown role 'bot'"):
        scored_text(thumb({"role": "bot", "content": "a"}), chatml_tokenizer())
    mapped = scored_text(
        {"q": [user("q")], "a": [{"role": "bot", "content": "a"}], "l": "good"},
        chatml_tokenizer(),
        column_map={"prompt": "q", "completion": "a", "label": "l"},
        role_map={"bot": "assistant"},
        label_map={"good": "up"},
    )
    assert mapped == ["a<|im_end|>"]


CASES = Path(os.environ.get("BNF_ALIGN_CASES", Path(__file__).parents[2] / "shared" / "cases"))


def case(name):
    if not CASES.is_dir():
        pytest.skip("the inputs that fail are not here: set BNF_ALIGN_CASES to their folder")
    return CASES / name


def test_the_case_of_a_template_that_deletes_thoughts_is_warned_of_and_an_equal_pair_goes():
    file = case("thinking_lost_in_template/in_think.jsonl")
    result = examine(file, tokenizer=tokenizer_of("deepseek_r1_distill"))
    assert result.report.pairs == 1
    same = "chosen and rejected are the same as the chat template writes them"
    assert result.report.dropped == {same: [0]}
    lost = next(finding for finding in result.findings if finding.name == "lost_in_template")
    assert list(lost.rows) == [0, 1]


def test_the_case_of_tool_arguments_as_text_is_scored_as_an_object_where_the_template_writes_one():
    rows, report = preference_rows(iter_rows(case("tool_arguments_as_text/rows.jsonl")), source="rows")
    assert report.dropped == {}
    for name in ("qwen2_5", "qwen3"):
        call, no_idea, sunny = (scored_text(row, tokenizer_of(name))[0] for row in rows)
        assert '"arguments": {"city": "Rome"}' in call
        assert "\\" not in call
        assert no_idea.startswith("No idea.")
        assert sunny.startswith("Sunny.")
    openai = iter_rows(case("tool_arguments_as_text/openai_tools.jsonl"), options=Options())
    (pair,), _ = preference_rows(openai, source="export")
    assert '"arguments": {"city": "Rome"}' in scored_text(pair, tokenizer_of("qwen3"))[0]


if __name__ == "__main__":
    before, rest = DOCS.read_text(encoding="utf-8").split(BEGIN)
    DOCS.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")
