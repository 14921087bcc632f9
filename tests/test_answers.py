"""From text to answer to right or wrong: the rules of ZeroEval case by case, and GSM8K's worked solutions."""

import ast
import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnf_align.answers import (
    Extracted,
    equivalent,
    extract,
    final_answer,
    first_number,
    letter_of,
    picks,
    same_literal,
    same_number,
    solves,
    text_of,
)
from bnf_align.answers.arithmetic import arithmetic
from bnf_align.records import BadInput
from bnf_align.thoughts import without_thoughts

PUBLIC = os.environ.get("BNF_ALIGN_DATA")
needs_public = pytest.mark.skipif(not PUBLIC, reason="needs the public data: set BNF_ALIGN_DATA to its folder")


def answer_of(text, model="", **options):
    found = extract(text, model, **options)
    return found if found is None else found.answer


# Extraction


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('Sure:\n```json\n{"reasoning": "r", "answer": "18"}\n```', "18"),
        ('{"reasoning": "two\nlines", "answer": "18"}', "18"),  # a bare newline is no JSON; it is deleted first
        ('{"reasoning": "a\tb", "answer": "18"}', "18"),  # a bare tab is none either: found by the expressions
        ('} stray } {"answer": "18"}', "18"),
        ('{"reasoning": {"a": 1}, "answer": "18"} {"answer": "19"}', "18"),
        ('{not json} {"answer": "19"}', "19"),  # no second span is parsed, but the expressions look at all of it
        ('{"answer": "18", "answer": "19"}', "19"),  # the last of two keys, as JSON has it
        ('{"answer": "18" "answer": "19"}', "18"),  # but the first where it is no JSON
        ('{"answer": 18}', 18),
        ('{"answer": null}', None),
        ('{"answer": [1, 2.5]}', [1, 2.5]),
        ('{"answer": NaN, "x": 1}', pytest.approx(float("nan"), nan_ok=True)),
        ('{"reasoning": "the brace } ends it", "answer": "18"}', "18"),
        ('{"answer": "18"', "18"),
        ('{"answer": 18', "18"),
        ('{"answer": 18, "reasoning"', "18"),
        ('{"answer": "18', '"18'),
        ("answer: 18 apples", "18"),
        ('The "answer" : eighteen.', "eighteen."),
        ("the answer:\n\n 18,5", "18"),
        ("answer:", ""),
        ('{"result": "18"}', None),
        ("", None),
    ],
)
def test_the_answer_is_where_zero_eval_looks_for_it(text, answer):
    assert answer_of(text) == answer


def test_newlines_are_deleted_before_the_json_is_read():
    assert extract('{"reasoning": "two\nlines", "answer": 1}') == Extracted(1, "twolines")
    assert extract('{"reasoning": "two\\nlines", "answer": 1}') == Extracted(1, "two\nlines")


def test_a_closing_brace_without_an_opening_one_is_passed_over():
    assert answer_of('}} {"reasoning": {}, "answer": 18}') == 18


def test_no_second_span_is_parsed_where_the_first_is_no_json():
    text = '{oops} {"reasoning": "r", "answer": {"a": 1}}'
    assert answer_of(text) == '{"a":'  # what the expressions find, not the object of the second span
    assert answer_of(text.removeprefix("{oops}")) == {"a": 1}


def test_each_key_has_its_own_expressions():
    assert extract('"reasoning": "long, with commas" answer: 7.') == Extracted("7.", "long, with commas")
    assert extract("reasoning: one two, answer: 3") == Extracted("3", "one")
    assert extract('{"answer": "3"}') == Extracted("3", "")


def test_an_object_without_an_answer_gives_way_to_the_expressions():
    assert extract('{"reasoning": "r"} so "answer": "4"') == Extracted("4", "r")


def test_only_llama_3_1_may_box_its_answer_at_the_end():
    text = "It is \\boxed{7} and then, finally, \\boxed{42}$"
    assert answer_of(text, "meta-llama/Meta-Llama-3.1-8B-Instruct") == "7"  # the word near the end, the first box
    assert answer_of(text, "Meta-Llama-3-8B-Instruct") is None
    assert answer_of("\\boxed{42}" + "." * 30, "Llama-3.1") is None
    assert answer_of("\\boxed{42.5}", "Llama-3.1") is None
    assert answer_of('{"answer": "1"} \\boxed{42}', "Llama-3.1") == "1"


@pytest.mark.parametrize("blank", ["null", '""'])
def test_a_blank_is_an_answer_except_in_multiple_choice(blank):
    text = f'{{"reasoning": "r", "answer": {blank}}}'
    assert extract(text) == Extracted(json.loads(blank), "r")
    assert extract(text, blank_is_answer=False) is None
    boxed = extract(text + " \\boxed{C}", "Llama-3.1", blank_is_answer=False)
    assert boxed == Extracted("C", "r")


@pytest.mark.parametrize("falsy", [0, False, [], {}])
def test_what_is_merely_falsy_is_an_answer(falsy):
    assert extract(json.dumps({"answer": falsy}), blank_is_answer=False) == Extracted(falsy, "")


def test_answers_become_text_as_python_prints_them():
    shown = [text_of(value) for value in (None, True, 1.0, 1e20, [1, "a"], {"a": None})]
    assert shown == ["None", "True", "1.0", "1e+20", "[1, 'a']", "{'a': None}"]


# Numbers


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        ("18", "18", True),
        ("$18.00 dollars", "18", True),
        ("1,234", "1234", True),
        ("18 or 19", "18", True),  # the first number only
        ("-1 + i", "-1", True),
        ("x = -5", "-5", True),
        ("3-5", "-5", False),
        ("36/2", "18", True),
        ("$1,200/2", "600", True),
        ("36/2 eggs", "18", False),
        ("36/2 eggs", "36", True),
        ("1/2 or 7", "1", False),  # Python's value of that is 0.5
        ("1/0", "1", True),
        ("\\frac{1}{2}", "1", True),
        ("-221", "-221_3", True),
        ("none", "none", False),
        ("None", "0", False),
        ("18", "", False),
        ("٣", "3", True),
    ],
)
def test_the_first_numbers_decide(answer, gold, same):
    assert same_number(answer, gold) is same


def sums():
    numbers = st.integers(0, 99).map(str) | st.decimals(0, 9, places=2).map(str)
    operators = st.sampled_from(["+", "-", "*", "/", "//", "%", "**", " or ", " and ", "<", "==", "^", "<<"])

    def grown(parts):
        return (
            st.tuples(parts, operators, parts).map("".join)
            | parts.map("({})".format)
            | st.tuples(st.sampled_from(["-", "+", "~", " not "]), parts).map("".join)
        )

    return st.recursive(numbers, grown, max_leaves=6)


@given(sums())
@settings(max_examples=300, deadline=None)
def test_arithmetic_has_the_value_that_python_gives_it(text):
    value = arithmetic(text)
    if value is not None or max_power(text) < 1_000:
        try:
            expected = float(eval(text))
        except (ArithmeticError, TypeError, ValueError, SyntaxError):
            expected = None
        assert value == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [("1 < 3 < 8/2", 1), ("1 < 3 < 4/2", 0), ("1/2 or 7", 0.5), ("1/2 and 7", 7), ("0/2 and 7/0", 0), ("2^8/2", None)],
)
def test_comparisons_chain_and_alternatives_stop_early(text, value):
    assert arithmetic(text) == value


def max_power(text):
    """A bound on the exponents and shifts in `text`, so that Python's own evaluation ends."""
    return 0 if "**" not in text and "<<" not in text else 10**6 if text.count("**") + text.count("<<") > 1 else 100


@pytest.mark.parametrize(
    "text",
    [
        "9**9**9/1",
        "1<<10**9/1",
        "2<<99999999//1",
        "(9**9999)**9999/9",
        "(" * 900 + "1/2",
        "-" * 990 + "1/2",
        "1/2" + "+1" * 100_000,
        "9" * 5_000 + "/1",
        "'a' * 10**9 / 1",
        "[1/2] * 10**9",
        "1/2\x00",
    ],
)
def test_a_sum_that_would_take_long_has_no_value(text):
    assert arithmetic(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch {file}')/1",
        "open('{file}', 'w')/1",
        "().__class__.__bases__[0].__subclasses__()/1",
        "[x for x in (1).__class__.__mro__]/1",
        "(lambda: open('{file}', 'w'))()/1",
        'exec(\'open("{file}", "w")\')/1',
        "(x := 1/2)",
        "abs(-1/2)",
        "f'{{1/2}}'",
        "1/2 @ 3",
        "1/2 in 3",
    ],
)
def test_no_text_is_run(text, tmp_path):
    file = tmp_path / "made"
    text = text.replace("{file}", str(file))
    assert arithmetic(text) is None
    first_number(text)
    for output in (text, json.dumps({"answer": text}), f'"answer": {text}'):
        extract(output, "Llama-3.1")
    assert not file.exists()


def test_nothing_here_can_run_text():
    source = Path(__file__).parents[1] / "src" / "bnf_align" / "answers"
    calls = {
        node.func.id
        for path in source.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"eval", "exec", "compile", "__import__"}
    assert len(list(source.glob("*.py"))) >= 7


# Choices and literals


def test_a_letter_is_that_of_the_first_choice_that_reads_the_same():
    assert letter_of(["7", "12", "12", "7 "], "12") == "B"
    assert letter_of(["7", "12"], "12.") is None
    assert letter_of([str(number) for number in range(30)], "28") is None


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("C", True),
        ("(C) Hydrocephalus", True),
        ("C) x", True),
        ("not (C) but (B)", True),
        ("c", False),
        ("C.", False),
        (" C", False),
        (["C)"], True),
        (["C"], False),
        ({"C)": 1}, True),
        (3, False),
        (True, False),
    ],
)
def test_a_choice_is_picked_by_its_letter_or_its_letter_with_a_bracket(answer, right):
    assert picks(answer, "C") is right


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        ("abc", "'abc'", True),
        ("\"abc'", "'abc'", True),
        ("[1, 2]", "[1, 2]", True),
        ("[1,2]", "[1, 2]", False),
        ("a\nb", "'a\\nb'", True),
        ("", "''", True),
        ("'", '""', True),
        ("None", "None", True),
        ("True", "true", False),
        (" abc", "'abc'", False),
    ],
)
def test_literals_are_compared_as_text_without_the_quotes_around_them(answer, gold, same):
    assert same_literal(answer, gold) is same


# Whatever a model writes


PIECES = [
    "{",
    "}",
    '"',
    "\\",
    "answer",
    '"answer":',
    "reasoning:",
    "boxed",
    "\\boxed{4}",
    "\n",
    "/",
    "1",
    "[",
    "null",
    ",",
]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=40).map("".join), st.booleans())
@settings(max_examples=200, deadline=None)
def test_no_text_raises(text, blank_is_answer):
    found = extract(text, "Llama-3.1", blank_is_answer=blank_is_answer)
    for answer in (text, text_of(found.answer) if found else ""):
        same_number(answer, "1/2")
        same_literal(answer, "'a'")
        solves(answer, "18")
    picks(found.answer if found else text, "A")


@pytest.mark.parametrize(
    "text",
    [
        "{" * 100_000,
        '{"answer": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"answer": ' + "9" * 10_000 + "}",
        '{"answer": "' + "1" * 100_000 + '"}',
        "answer" * 50_000,
        "answer" + " " * 200_000,
        '"answer": "' * 20_000,
        "\n" * 200_000 + "answer",
        "<<" * 100_000,
        '{"answer": "\ud800"}',
        '{"answer": "1/\ud800"}',
    ],
    ids=range(11),
)
def test_a_hostile_text_is_graded_and_wrong(text):
    found = extract(text, "Llama-3.1")
    assert not same_number(text_of(found.answer) if found else "", "18")
    assert not solves(text, "18")


@pytest.mark.parametrize("depth", [*range(100, 1_100, 50), 5_000])
def test_brackets_as_deep_as_json_can_be_read_are_still_text(depth):
    found = extract('{"answer": ' + "[" * depth + "]" * depth + "}")
    assert isinstance(text_of(found.answer), str)


# Worked solutions


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("16 - 3 = <<16-3=13>>13\n#### 13", "13"),
        ("#### 2,125", "2,125"),
        ("#### -7", "-7"),
        ("She has 3.\nA: 18", "18"),
        ("She has 3.\nA: $18.00", "$18.00"),
        ("So the answer is 18.", "18"),
        ("The final answer is: **18**", "18"),
        ("Answer: 18\nA good one.", "18"),
        ("thus \\boxed{18}.", "18"),
        ("#### 5\n#### 18", "5"),  # GSM8K's mark ends a solution: what follows is a run-on
        ("#### 5\n\nQuestion: And of 6?\n#### 18", "5"),
        ("#### Step 1\n3 + 4\n#### 7", "7"),
        ("#### 1. Add\n3 + 4\n#### 7", "7"),
        ("The answer is 5.\n\nQuestion 2: And then?\nThe answer is 18.", "5"),
        ("The answer is 5. No: the answer is 18.", "18"),
        ("\\boxed{9{,}500}", "9{,}500"),
        ("so \\boxed{ \\frac{1}{\\sqrt{2}} } m", "\\frac{1}{\\sqrt{2}}"),
        ("\\boxed{5", None),  # cut short
        ("\\boxed{18}. So the answer is correct.", "18"),
        ("\\boxed{18}\nI hope this answer is helpful!", "18"),
        ("\\boxed{18} No: the answer is 5.", "5"),
        ("$\\boxed 18$.", "18"),
        ("**Answer**: 18", "18"),
        ("The **answer** is 18", "18"),
        ("Answer = 18", "18"),
        ("## Answer\n\n18", "18"),
        ("**Final Answer**\n18", "18"),
        ("Answer:\n\\[\n18\n\\]", "18"),
        ("Answer:\n```text\n18\n```", "18"),
        ("The answer is 5.\n\n### Question 2\nThe answer is 18.", "5"),
        ("The answer is 5.\nQ2. And then?\nThe answer is 18.", "5"),
        ("The answer is 5.\nExample 2: And then?\nThe answer is 18.", "5"),
        ("The answer is 5.<|im_start|>user\nAnd then?\nThe answer is 18.", "5"),
        ("#### 1) Add\n3 + 4\n#### 7", "7"),
        ("#### 12) Add\n3 + 4\n#### 7", "7"),
        ("#### 10. Add\n3 + 4\n#### 7", "7"),
        ("#### Analysis\nWe add.\n#### Example\n2 + 5\nThe answer is 7.", "7"),
        ("### Step 1\nWe add.\n### Example\n2 + 5\n\\boxed{7}", "7"),
        ("**Answer:** see below.\nExample: 3 + 4\nThe answer is 7.", "7"),
        ("The answer is 7.\n#### Check\nIt holds.", "7"),
        ("So \\boxed{B}. No: the answer is C.", "C"),
        ("So \\boxed{2}. Then the answer is $x+y$", "$x+y$"),
        ("<think>The answer is 5.</think>\nThe answer is 18.", "18"),
        ("The answer is 5, no.</think>\nThe answer is 18.", "18"),
        ("<think>The answer is 5.", None),
        ("That leaves 3 * 6 = <<3*6=18>>18", None),
        ("BANANA: 3", None),
        (" **$1,007.** ", "1,007"),
        ("-1/2", "-1/2"),
        ("3 4", None),
        ("3\n4", None),
        ("₹1,500", "₹1,500"),
        ("5 €", "5 €"),
        (".5", ".5"),
        ("12.05.2024", None),
        ("7" + "\n" * 30_000 + "eggs", None),
        ("", None),
        ("####", None),
    ],
)
def test_the_final_answer_stands_after_its_mark(solution, answer):
    assert final_answer(solution) == answer


def test_a_digit_that_is_repeated_to_the_end_is_wrong_and_takes_no_time():
    """A pattern of digits over it took 19 seconds."""
    assert not solves("The answer is 0." + "3" * 100_000, "7")


def test_a_solution_is_right_where_its_final_answer_is_and_nowhere_else():
    gold = "Janet sells 16 - 7 = <<16-7=9>>9 eggs.\n#### 1,018"
    assert solves("#### 1018", gold)
    assert solves("The answer is $1,018.00", "1018")
    assert solves("#### -5", "-5")
    assert not solves("#### 101", gold)
    assert not solves("#### 1018 - 9", "9")
    assert not solves("9 = 16 - 7", "9")  # a step, or a solution that was cut short


# Written, and the right answer; then what must not pass for it.
SAME = {
    "9500": [
        "9,500",
        "9{,}500",
        "$9{,}500",
        "\\$9,500.00",
        "9\\,500",
        "9 500",
        "9'500",
        "9\u202f500",
        "9.500,00",
        "9.5e3",
    ],
    "1234567": ["1,234,567", "12,34,567", "₹12,34,567.00", "1.234.567", "1 234 567"],
    "1/2": ["\\frac{1}{2}", "\\dfrac12", "0.5", ".5", "2/4", "50%", "50\\%", "50 percent"],
    "7/2": ["3 1/2", "3\\frac{1}{2}", "3.5", "3 1/2 cups"],
    "50%": ["50", "50 %", "1/2"],
    "12.5%": ["12.5", "0.125", "12.5\\%"],
    "12.5": ["12.5%", "12.5\\%"],
    "1000": ["10^3", "10^{3}", "1e3"],
    "-5": ["−5", "–5", "\\(-5\\)", "- 5", "-5 degrees", "minus 5", "negative 5 dollars"],
    "3000000": ["$3 million", "3 million people", "3,000 thousand"],
    "1500000": ["1.5 million"],
    "3": ["3 million dollars", "3 dozen"],  # where the question counts in them
    "3 million": ["3000000", "3", "3 million dollars"],
    "2½ million": ["2,500,000", "2.5 million", "2 1/2 million"],
    "6": ["1/2 dozen", "½ dozen eggs"],
    "25": ["25m²", "25 m^2", "25 squared feet", "5 squared"],
    "36": ["3 dozen", "3 dozen eggs", "6 squared", "6²", "0x24"],
    "3/4": ["¾", "¾ cup"],
    "1010_2": ["1010_2", "1010_{2}"],
    "18": [
        "18 dollars",
        "$18 per day",
        "18 eggs a day, which is 3 boxes of 6",
        "x = 18",
        "3 * 6 = 18",
        "\\text{18 cm}",
        "18 \\text{ cm}^2",
        "18 m",
        "18^\\circ",
        "**18**",
        "\\boxed{18}",
        "18 because 20 - 2 = 18",
        "approximately 18",
        "18 (not 19)",
        "18 (9+9)",
        "18 (since 9*2=18)",
        "18, no more",
        "18\\,\\text{apples}",
        "18\\ \\mathrm{cm}",
        "18~\\text{apples}",
        "\\,18\\,",
        "18\\!",
        "`18`",
        "18 \\text{ m/s}",
        "1.8 x 10^1",
        "18<|im_end|>",
        "18</s>",
        "18\u200b",
    ],
    "2x+1": ["y = 2x + 1", "1 + 2x"],
    "\\pi": ["\\pi", "$\\pi$"],
    "\\frac{\\sqrt{3}}{2}": ["\\sqrt{3}/2"],
}
OTHER = {
    "9": ["9{,}500", "9,500", "9 500", "9^2", "9/2", "1018 - 9"],
    "1/2": ["1", "2", "1/3", "0.05"],
    "18": [
        *("-18", "18 or 19", "18%2", "1.8", "18.5", "18/5", "eighteen", ""),
        *("minus 18", "18 squared", "18_{16}", "not 18", "less than 18", "at least 18"),
        *("18 and a half", "half of 18", "twice 18", "under 18", "over 18", "up to 18", "almost 18"),
        *(
            "less than or equal to 18",
            "18, no wait, 20",
            "18 (no, 20)",
            "18? No, 20",
            "18 is wrong",
            "18 is not right",
        ),
    ],
    "6": ["x = 5 or x = 6", "1/2 million"],
    "3 million": ["3 thousand", "3 dozen"],
    "0": ["0x12"],
    "2": ["2 x"],
    "10": ["1010_2"],
    "50": ["0.5", "(50,10,100)"],
    "5%": ["500", "0.5"],
    "500": ["5%"],
    "$50": ["50¢"],
    "110100": ["(1,10,100)", "0,11,01,00"],
    "-1": ["-1 + i", "1"],
    "3": ["3 1/2", "3\\frac12", "30 million"],
}


@pytest.mark.parametrize(("gold", "written"), [(gold, one) for gold, all_ in SAME.items() for one in all_])
def test_an_answer_is_right_however_it_is_written(gold, written):
    assert solves(f"The answer is {written}", gold)
    assert solves(f"#### {written}" if written[0].isdigit() else f"\\boxed{{{written}}}", gold)


@pytest.mark.parametrize(("gold", "written"), [(gold, one) for gold, all_ in OTHER.items() for one in all_])
def test_an_answer_that_only_begins_like_the_right_one_is_wrong(gold, written):
    assert not solves(f"The answer is {written}", gold)
    assert not solves(f"\\boxed{{{written}}}", gold)


@pytest.mark.parametrize("gold", ["Paris", "yes", "", "3 or 4 eggs"])
def test_a_right_answer_that_states_no_number_is_refused(gold):
    with pytest.raises(BadInput, match="--rule exact"):
        solves("#### 18", gold)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<think>[[B>A]]</think> [[A>B]]", " [[A>B]]"),
        ("I think so.</think>yes", "yes"),
        ("<thinking>no</thinking>a<think>b</think>c", "ac"),
        ("[THINK]no[/THINK]yes", "yes"),
        ("<think>never done", ""),
        ("<think>tags like <think> nest</think>yes", "yes"),
        ("no thought", "no thought"),
    ],
)
def test_thoughts_are_no_part_of_what_is_said(text, said):
    assert without_thoughts(text) == said


def read(file):
    with gzip.open(Path(PUBLIC) / file, "rt") as lines:
        return [json.loads(line) for line in lines]


@needs_public
def test_every_published_label_of_a_model_solution_is_found_again():
    gold = {row["question"]: row["answer"] for row in read("gsm8k/test.jsonl.gz")}
    rows = read("preference/gsm8k_model_solutions.unpaired.jsonl.gz")
    wrong = [row["completion"] for row in rows if solves(row["completion"], gold[row["prompt"]]) != row["label"]]
    assert len(rows) == 5276
    assert wrong == []


# The second opinion


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        ("18", "18", True),
        ("$1,800$", "1800", True),
        ("\\frac{36}{2}", "18", True),
        ("-1 + i", "-1", False),
        ("", "18", False),
    ],
)
def test_math_verify_reads_expressions(answer, gold, same):
    assert equivalent(answer, gold) is same


def test_math_verify_runs_no_text(tmp_path):
    file = tmp_path / "made"
    for text in (f"__import__('os').system('touch {file}')", f"$\\text{{}} open('{file}', 'w')$", "(9)**(9)**(9)"):
        assert not equivalent(text, "18")
    assert not file.exists()
