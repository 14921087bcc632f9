"""What the doctor writes: lines, JSON, a page that injects nothing, the clean rows and those left out beside them."""

import gzip
import json
import os
import re
from contextlib import redirect_stdout, suppress
from html.parser import HTMLParser

import pytest

from bnf_align.cli.doctor import main
from bnf_align.data.doctor import examine
from bnf_align.data.doctor.result import page
from bnf_align.data.read import iter_rows
from bnf_align.data.rows import preference_rows
from bnf_align.outputs import whole_files
from bnf_align.records import BadInput
from rows import pair, single
from tiny_models import plain_tokenizer


def read(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


BAD = [
    single(0),
    single(1, False, completion="b1"),
    single(2, completion=""),
    pair(3, rejected="a3"),
    single(4, None),
    single(5),
    single(5, False),
    single(0),
    single(8, prompt=" "),
    {
        "prompt": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "so"}],
        "completion": [{"role": "assistant", "content": "a"}],
        "label": True,
    },
    single(10, completion="\ud83d"),
    single(11, completion=None),
    pair(12),
    single(13, prompt="P99 "),
]
"""One row for every reason to leave one out."""
LEFT_OUT = {
    2: "an empty answer",
    3: "chosen and rejected are the same",
    4: "no label",
    5: "the same answer is labelled both up and down",
    6: "the same answer is labelled both up and down",
    7: "an earlier row is the same word for word",
    8: "the prompt is empty",
    9: "the prompt ends with an assistant turn",
    10: "half a character (a lone surrogate), which no tokenizer reads",
    11: "no `completion`",
    13: "the prompt is also in the test rows",
}


# Fixing


def test_the_clean_rows_are_written_and_the_others_beside_them_with_their_reasons(write, tmp_path):
    path, test, out = write(BAD), write([single(99)], "test.jsonl"), tmp_path / "out" / "clean.jsonl"
    before = path.read_bytes()
    result = examine(path, test=test, fix=out)
    assert read(out) == [BAD[0], BAD[1], BAD[12]]
    left_out = read(tmp_path / "out" / "clean.left_out.jsonl")
    assert {row["row"]: row["reason"] for row in left_out} == LEFT_OUT
    assert all(row["left_out"] == BAD[row["row"]] for row in left_out)
    assert (result.fixed.rows, result.fixed.left_out) == (3, 11)
    assert path.read_bytes() == before
    assert sorted(os.listdir(tmp_path / "out")) == ["clean.jsonl", "clean.left_out.jsonl"]


def test_the_fixed_file_is_clean_and_training_reads_all_of_it(write, tmp_path):
    test, out = write([single(99)], "test.jsonl"), tmp_path / "clean.jsonl"
    assert examine(write(BAD), test=test, fix=out).status == 1
    again = examine(out, test=test)
    assert (again.status, again.findings, again.report.notes) == (0, [], [])
    rows, report = preference_rows(iter_rows(out), source="fixed")
    assert (len(rows), report.dropped, report.warnings) == (3, {}, [])


def test_under_a_tokenizer_cut_answers_and_prompts_too_long_are_left_out_too(write, tmp_path):
    rows = [single(0), single(1, False), single(2, completion="a" * 20), single(3, prompt="p" * 20)]
    rules = {"tokenizer": plain_tokenizer(), "max_length": 10}
    examine(write(rows), fix=tmp_path / "clean.jsonl", **rules)
    assert read(tmp_path / "clean.jsonl") == rows[:2]
    reasons = [row["reason"] for row in read(tmp_path / "clean.left_out.jsonl")]
    assert reasons == ["the answer is cut at max_length", "prompts longer than max_length=10"]
    assert examine(tmp_path / "clean.jsonl", **rules).status == 0


def test_what_needed_flags_before_needs_none_after_and_other_columns_travel_along(write, tmp_path):
    rows = [
        {"q": "2+2", "a": [{"type": "text", "text": "4"}], "thumb": "good", "id": 7, "at": None},
        {"q": "3+3", "a": [{"type": "text", "text": "7"}], "thumb": "bad", "id": 8, "at": "2024-01-02"},
    ]
    for row in rows:
        row["q"] = [{"role": "human", "content": row["q"]}]
        row["a"] = [{"role": "bot", "content": row["a"]}]
    maps = {
        "column_map": {"prompt": "q", "completion": "a", "label": "thumb"},
        "label_map": {"good": "up", "bad": "down"},
        "role_map": {"human": "user", "bot": "assistant"},
    }
    examine(write(rows), fix=tmp_path / "clean.jsonl", **maps)
    assert read(tmp_path / "clean.jsonl") == [
        {
            "prompt": [{"role": "user", "content": question}],
            "completion": [{"role": "assistant", "content": answer}],
            "label": label,
            "id": number,
            "at": at,
        }
        for question, answer, label, number, at in (("2+2", "4", True, 7, None), ("3+3", "7", False, 8, "2024-01-02"))
    ]
    assert examine(tmp_path / "clean.jsonl").status == 0


def test_a_majority_leaves_out_the_minority_alone(write, tmp_path):
    rows = [single(0), single(0, False), single(0, id=3), single(1, False)]
    examine(write(rows), conflicting_labels="majority", fix=tmp_path / "clean.jsonl")
    assert read(tmp_path / "clean.jsonl") == [rows[0], rows[3]]
    assert [row["row"] for row in read(tmp_path / "clean.left_out.jsonl")] == [1, 2]


def test_of_several_reasons_the_first_is_given(write, tmp_path):
    rows = [single(0), single(1, False), single(2, prompt=" "), single(2, prompt=" ")]
    examine(write(rows), fix=tmp_path / "clean.jsonl")
    reasons = {row["row"]: row["reason"] for row in read(tmp_path / "clean.left_out.jsonl")}
    assert reasons == {2: "the prompt is empty", 3: "an earlier row is the same word for word"}


def test_personal_data_stays_unless_it_is_to_be_masked(write, tmp_path):
    rows = [single(0, completion="ann@example.org"), single(1, False, by="eve@example.org")]
    rows.append(single(2, completion="", prompt="I am bob@example.org"))
    path, out = write(rows), tmp_path / "clean.jsonl"
    examine(path, fix=out)
    assert read(out) == rows[:2]
    assert read(tmp_path / "clean.left_out.jsonl")[0]["left_out"] == rows[2]
    result = examine(path, fix=out, redact=True)
    assert [(row["completion"], row.get("by")) for row in read(out)] == [("[e-mail]", None), ("a1", "[e-mail]")]
    assert result.fixed.masked == 2
    assert read(tmp_path / "clean.left_out.jsonl")[0]["left_out"] == rows[2] | {"prompt": "I am [e-mail]"}


def test_rows_are_written_compressed_where_the_name_says_so(write, tmp_path):
    examine(write(BAD), fix=tmp_path / "clean.jsonl.gz")
    with gzip.open(tmp_path / "clean.jsonl.gz", "rt") as file:
        assert json.loads(file.readline()) == BAD[0]
    assert (tmp_path / "clean.left_out.jsonl").exists()


def test_nothing_is_changed_in_place(write, tmp_path):
    path = write(BAD)
    before = path.read_bytes()
    (tmp_path / "link.jsonl").symlink_to(path)
    (tmp_path / "hard.jsonl").hardlink_to(path)
    for out in (path, tmp_path / "link.jsonl", tmp_path / "hard.jsonl"):
        assert "Nothing is changed in place" in examine(path, fix=out).error
    assert "Nothing is changed in place" in examine(tmp_path, fix=tmp_path / "new" / "clean.jsonl").error
    assert "Nothing is changed in place" in examine(write(BAD, "b.jsonl"), test=path, fix=path).error
    assert path.read_bytes() == before
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["clean.csv", "clean", "folder.jsonl"])
def test_a_name_that_could_not_be_read_again_is_refused_before_anything_is_read(write, tmp_path, name):
    (tmp_path / "folder.jsonl").mkdir()
    assert "--fix" in examine(write(BAD), fix=tmp_path / name).error


def test_where_no_row_is_clean_or_the_source_is_unusable_nothing_is_written(write, tmp_path):
    result = examine(write([single(0, prompt=" "), single(1, prompt="", label=False)]), fix=tmp_path / "clean.jsonl")
    assert "no row of" in result.error
    result = examine(write([single(0, "good")]), fix=tmp_path / "clean.jsonl")
    assert "--label_map" in result.error
    assert os.listdir(tmp_path) == ["rows.jsonl"]


def test_a_write_that_fails_leaves_nothing_behind(write, tmp_path):
    (tmp_path / "file").write_text("")
    result = examine(write(BAD), fix=tmp_path / "file" / "clean.jsonl")
    assert "cannot be written" in result.error
    assert result.status == 2


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_a_file_that_is_broken_off_leaves_what_was_there_before(tmp_path, name):
    (tmp_path / name).write_text("old")
    with suppress(KeyboardInterrupt), whole_files(tmp_path / name) as (file,):
        file.write("half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "old"


def test_what_a_killed_writer_has_left_goes_with_the_next_one_and_what_somebody_writes_stays(tmp_path):
    """By age, not by process number: a container's processes have the numbers of another's."""
    fresh, dead, other = ".rows.jsonl.1.tmp", ".rows.jsonl.2.tmp", ".other.jsonl.2.tmp"
    for name in (fresh, dead, other):
        (tmp_path / name).write_text("half of somebody's chat")
    for name in (dead, other):
        os.utime(tmp_path / name, (0, 0))
    with whole_files(tmp_path / "rows.jsonl") as (file,):
        file.write("whole")
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", fresh, other}


# The page

HOSTILE = "</td></table><script>alert(1)</script><img src=x onerror=alert(2)> {{ 7 * 7 }} \x1b[31m\u202e"


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def hostile_rows():
    rows = [single(n, n > 0, prompt=f"{HOSTILE} {n}", completion=HOSTILE) for n in range(3)]
    return [*rows, {**single(3), HOSTILE: HOSTILE}, single(4, completion=""), single(5, prompt=HOSTILE * 9), rows[1]]


TAGS = "html head meta title style body main header h1 h2 p dl div dt dd article details summary section ul li footer"
TAGS += " table thead tbody tr th td"


@pytest.mark.parametrize("rows", [hostile_rows(), [{HOSTILE: 1}], [single(0, HOSTILE)], None])
def test_the_page_shows_what_rows_say_and_runs_nothing_of_it(write, rows):
    text = page(examine(HOSTILE if rows is None else write(rows)))
    assert Tags(text).tags <= set(TAGS.split())
    assert Tags(text).attributes <= {"lang", "charset", "name", "content", "http-equiv", "class", "id", "scope"}
    assert "&lt;script&gt;" in text
    assert "{{ 7 * 7 }}" in text
    assert not {"\x1b", "\u202e"} & set(text)


def test_the_page_loads_nothing_and_says_what_the_lines_say(write):
    result = examine(write(BAD))
    text = page(result)
    assert "default-src 'none'" in text
    assert not re.search(r"https?:|src=|href=|url\(|@import", text)
    assert all(finding.text in text for finding in result.findings)
    assert "usable; look at what was found first" in text


# Lines


def test_lines_show_examples_and_no_control_characters(write):
    lines = examine(write(hostile_rows())).lines()
    assert all(line.isprintable() for line in lines)
    assert any(line.startswith("      row 4: prompt 'p4', completion ''") for line in lines)


def test_near_identical_answers_are_shown_where_they_part(write):
    answer = "the same words again and again " * 9
    [finding] = examine(write([pair(0, chosen=f"{answer}yes", rejected=f"{answer}no")])).findings
    [example] = finding.examples
    assert example["chosen"].endswith("again yes")
    assert example["rejected"].endswith("again no")


def test_at_most_three_examples_are_kept_of_a_finding_and_the_first(write):
    rows = [single(n, completion="") for n in range(9)] + [single(9), single(10, False)]
    [finding] = examine(write(rows)).findings
    assert [example["row"] for example in finding.examples] == [0, 1, 2]


# The command


def run(capsys, *arguments) -> tuple[int, str]:
    status = main([str(argument) for argument in arguments])
    return status, capsys.readouterr().out


def test_the_command_writes_the_page_the_rows_and_json_and_exits_with_the_status(write, tmp_path, capsys):
    path, html, out = write(BAD), tmp_path / "report.html", tmp_path / "clean.jsonl"
    status, said = run(
        capsys, path, "--html", html, "--fix", out, "--json", "--eval_fraction" if False else "--redact"
    )
    result = json.loads(said)
    assert (status, result["status"], result["fixed"]["rows"]) == (1, 1, 4)
    assert html.read_text().startswith("<!doctype html>")
    assert run(capsys, out)[0] == 0
    assert run(capsys, tmp_path / "nowhere.jsonl")[0] == 2


def test_the_test_rows_may_be_named_as_in_training_or_as_a_split(write, tmp_path, capsys):
    train = write([single(0), single(1, False)], "train.jsonl")
    test = write([single(1), single(7)], "test.jsonl")
    for flags in ([train, "--test_dataset_name", test], [train, "--eval-dataset-name", test]):
        assert "1 of the 2 prompts" in run(capsys, *flags)[1]
    assert "1 of the 2 prompts" in run(capsys, tmp_path, "--dataset_test_split", "test")[1]


def test_flags_that_would_do_nothing_or_harm_are_refused(write):
    path = write(BAD)
    with pytest.raises(BadInput, match="--redact masks what --fix writes"):
        main([str(path), "--redact"])
    with pytest.raises(BadInput, match=r"--html .*must end in .html"):
        main([str(path), "--html", str(path)])


def test_whatever_is_wrong_programs_get_json(write, capsys):
    path = write(BAD)
    nowhere = "nowhere/at/all"
    for named, flags in (
        ("--redact", ["--redact"]),
        ("--label_map", ["--label_map", "good"]),
        (nowhere, ["--model_name_or_path", nowhere]),
    ):
        status, said = run(capsys, path, "--json", *flags)
        assert (status, json.loads(said)["status"]) == (2, 2)
        assert named in json.loads(said)["error"]


def test_a_model_or_a_template_that_is_not_there_is_named(write, tmp_path):
    path = write(BAD)
    plain_tokenizer().save_pretrained(tmp_path / "base")
    (tmp_path / "empty").mkdir()
    for folder in ("nowhere/at/all", str(tmp_path / "empty")):
        with pytest.raises(BadInput, match=f"(model|tokenizer of) {folder} cannot be loaded"):
            main([str(path), "--model_name_or_path", folder])
        with pytest.raises(BadInput, match=f"--chat_template_path {folder}: .* {folder} cannot be loaded"):
            main([str(path), "--model_name_or_path", str(tmp_path / "base"), "--chat_template_path", folder])


def on_a_terminal(path) -> str:
    """What the command sends to a real terminal."""
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8") as file, redirect_stdout(file):
        main([str(path)])
    sent = b""
    with suppress(OSError):  # the end of a terminal that nobody holds any more
        while part := os.read(ours, 1 << 16):
            sent += part
    os.close(ours)
    return sent.decode()


COLOUR = re.compile(r"\x1b\[[0-9;]*3\d")


def test_without_a_tokenizer_it_is_said_what_was_not_looked_at(write):
    path = write([single(0), single(1, False)])
    said = "not looked at: lengths in tokens, chat template, end tokens (--model_name_or_path)"
    result = examine(path)
    assert result.lines()[-2:] == [f"  {said}", "verdict: clean"]
    assert said in page(result)
    seen = examine(path, tokenizer=plain_tokenizer())
    assert not any(said in text for text in [*seen.lines(), page(seen), *examine("nowhere.jsonl").lines()])


def test_colours_are_for_terminals_and_only_without_no_color(write, monkeypatch):
    path = write([single(0), single(1, False), single(2, completion="")])
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    assert COLOUR.search(on_a_terminal(path))
    monkeypatch.setenv("NO_COLOR", "1")
    plain = on_a_terminal(path)
    assert "left out 1 row (2): an empty answer" in plain
    assert not COLOUR.search(plain)


def test_without_a_terminal_there_are_no_colours(write, capsys):
    path = write([single(0), single(1, False), single(2, completion="")])
    said = run(capsys, path)[1]
    assert "\x1b" not in said
    assert said.splitlines() == examine(path).lines()
