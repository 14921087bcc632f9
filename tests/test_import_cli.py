"""`bnf-align import` as a user runs it, and exports given to doctor and train as they are."""

import gzip
import json
import os
import subprocess
import sys

import pytest

from bnf_align.cli.main import main
from bnf_align.data.labels import Settled, read_labels
from bnf_align.data.read import iter_rows
from bnf_align.data.rows import preference_rows
from bnf_align.records import BadInput, DataReport
from bnf_align.sources import ImportedRows, Options
from exports_chat import feedback, openwebui, tree
from tiny_models import chatml_tokenizer
from tiny_nets import tiny_llama

THUMBS = [("Why?", "Because of ann@example.org.", True), ("Who?", "No idea.", False)]


@pytest.fixture
def export(tmp_path, monkeypatch):
    """A working directory with an export of Open WebUI."""
    monkeypatch.chdir(tmp_path)
    return openwebui(THUMBS, tmp_path)[0].name


def written(name: str = "rows.jsonl") -> list[dict]:
    opened = gzip.open if name.endswith(".gz") else open
    with opened(name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_import_writes_rows_and_says_what_it_did(export, capsys):
    assert main(["import", "openwebui", export, "--out", "rows.jsonl"]) == 0
    assert [(row["prompt"][0]["content"], row["label"]) for row in written()] == [("Why?", True), ("Who?", False)]
    text = capsys.readouterr().out
    assert f"{export}: 2 rows -> 0 pairs, 1 up, 1 down" in text
    assert "1 x 1 read as up, 1 x -1 read as down" in text
    assert "The rows are in rows.jsonl" in text


def test_auto_says_which_source_it_took(export, capsys):
    assert main(["import", "auto", export, "--out", "a/b/rows.jsonl.gz"]) == 0
    assert "note: read as an Open WebUI export (`openwebui`)" in capsys.readouterr().out
    assert [row["label"] for row in written("a/b/rows.jsonl.gz")] == [True, False]


@pytest.mark.parametrize("flag", ["--label_map", "--label-map"])
def test_a_map_given_on_the_command_line_wins_in_both_spellings(export, flag):
    assert main(["import", "openwebui", export, "--out", "rows.jsonl", flag, "1=drop", "-1=down"]) == 1
    assert [row["label"] for row in written()] == [False]


def test_redact_masks_texts_and_counts_what_it_masked(export, capsys):
    assert main(["import", "auto", export, "--out", "rows.jsonl", "--redact"]) == 0
    assert written()[0]["completion"] == [{"role": "assistant", "content": "Because of [e-mail]."}]
    assert "masked as likely personal data or secrets: 1 x e-mail address" in capsys.readouterr().out


def test_json_has_the_counts_and_every_row_number(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    chat = tree(("q", None, "user", "Why?"), ("a", "q", "assistant", "So."))
    records = [feedback(chat, "a", 1), *(feedback(chat, "gone", 1, number=n) for n in range(1, 6))]
    (tmp_path / "export.json").write_text(json.dumps(records))
    assert main(["import", "openwebui", "export.json", "--out", "rows.jsonl", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["status"], found["error"], found["out"]) == (1, None, "rows.jsonl")
    assert (found["rows"], found["ups"], found["downs"], found["pairs"]) == (6, 1, 0, 0)
    assert found["dropped_rows"] == {"the answer is not in its thread": [1, 2, 3, 4, 5]}
    assert found["reasons"]["the answer is not in its thread"]["code"] == "answer_not_in_thread"


def test_an_export_that_cannot_be_read_leaves_the_older_rows_alone(export, capsys):
    assert main(["import", "auto", export, "--out", "rows.jsonl"]) == 0
    before = written()
    with open(export, encoding="utf-8") as file:
        half = file.read()[:-200]
    with open("half.json", "w", encoding="utf-8") as file:
        file.write(half)
    assert main(["import", "openwebui", "half.json", "--out", "rows.jsonl"]) == 2
    assert "half.json, line 1: the file is cut short" in capsys.readouterr().err
    assert main(["import", "openwebui", "half.json", "--out", "rows.jsonl", "--json"]) == 2
    assert "cut short" in json.loads(capsys.readouterr().out)["error"]
    assert written() == before
    assert not [name for name in __import__("os").listdir() if name.endswith(".tmp")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["slack", "EXPORT", "--out", "rows.jsonl"], "'slack' is not a source that is read. Known: auto, openwebui"),
        (["auto", "EXPORT", "--out", "rows.csv"], "--out rows.csv: rows are written as JSON Lines"),
        (["auto", "nowhere.json", "--out", "rows.jsonl"], "There is no file nowhere.json"),
        (
            ["auto", "copy.jsonl", "--out", "copy.jsonl"],
            "would be written over copy.jsonl, which is read",
        ),
        (["auto", "other.json", "--out", "rows.jsonl"], "No known source is certain from the first records"),
        (["auto", "EXPORT", "--out", "EXPORT/rows.jsonl"], "would be written over"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(export, arguments, message, capsys, tmp_path):
    (tmp_path / "copy.jsonl").write_text("{}\n")
    (tmp_path / "other.json").write_text('[{"colour": "red"}]')
    before = sorted(path.name for path in tmp_path.iterdir())
    assert main(["import", *(word.replace("EXPORT", export) for word in arguments)]) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_rows_of_an_import_are_what_doctor_and_train_read(export):
    assert main(["import", "auto", export, "--out", "rows.jsonl"]) == 0
    rows, report = preference_rows(iter_rows("rows.jsonl"), source="rows")
    assert [row["label"] for row in rows] == [True, False]
    assert (report.rows, report.ups, report.downs) == (2, 1, 1)


# ------------------------------------------------------------------------------------- exports, as they are


def test_an_export_is_read_through_its_importer_and_the_report_says_so(export):
    rows, report = preference_rows(iter_rows(export, options=Options()), source="rows")
    assert [(row["prompt"][0]["content"], row["label"]) for row in rows] == [("Why?", True), ("Who?", False)]
    assert report.notes[0].startswith("read as an Open WebUI export (`openwebui`)")


def test_a_label_map_is_applied_once_to_an_export(export):
    turned = {"1": "down", "-1": "up", "true": "down", "false": "up"}
    rows, _ = preference_rows(iter_rows(export, options=Options(turned)), source="rows", label_map=turned)
    assert [row["label"] for row in rows] == [False, True]


def test_a_settled_label_is_no_value_of_a_map():
    labels, note = read_labels([Settled.UP, Settled.DOWN, None], {"true": "down", "True": "down", "up": "down"})
    assert (labels, note) == ([True, False, None], None)


def test_what_an_export_leaves_out_is_in_the_report_of_the_rows(tmp_path):
    chat = tree(("q", None, "user", "Why?"), ("a", "q", "assistant", "So."))
    records = [feedback(chat, "gone", 1), feedback(chat, "a", 1)]
    (tmp_path / "export.json").write_text(json.dumps(records))
    _, report = preference_rows(iter_rows(tmp_path / "export.json", options=Options()), source="rows")
    assert report.dropped == {"in the export: the answer is not in its thread": [0]}
    told = [(one["code"], one["parameters"]["code"]) for one in report.as_dict()["reasons"].values()]
    assert told == [("in_the_export", "answer_not_in_thread")]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a", "completion": "b", "label": True},
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "label": 1},
    ],
)
def test_rows_of_the_two_types_go_through_no_importer(tmp_path, row):
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    assert list(iter_rows(tmp_path / "rows.jsonl", options=Options())) == [row]


def test_without_options_and_under_a_column_map_rows_are_raw(export):
    assert "snapshot" in next(iter(iter_rows(export)))
    assert not isinstance(iter_rows(export, options=Options(column_map={"prompt": "data"})), ImportedRows)


def test_a_value_that_nobody_knows_names_the_verb_with_all_the_flags(tmp_path):
    chat = tree(("q", None, "user", "Why?"), ("a", "q", "assistant", "So."))
    (tmp_path / "export.json").write_text(json.dumps([feedback(chat, "a", 5)]))
    with pytest.raises(BadInput, match=r"Values 5 .*--label_map 5=.*`bnf-align import openwebui` has more flags"):
        list(iter_rows(tmp_path / "export.json", options=Options()))


def test_an_empty_cell_is_no_label_and_can_be_mapped_as_a_shell_hands_it_over(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("prompt,completion,label\na,b,1\na,c,0\na,d,\n")
    for flags in (
        [],
        ["--label_map", "1=up", "0=down", "=drop"],
        ["--label_map", "1=up", "0=down", "--label_map", "=drop"],
    ):
        assert main(["doctor", "rows.csv", *flags]) == 1
        assert "1 up, 1 down" in capsys.readouterr().out
    assert main(["doctor", "rows.csv", "--label_map", "1=up", "0=down", "=down"]) == 0
    assert "1 up, 2 downs" in capsys.readouterr().out
    assert main(["doctor", "rows.csv", "--label_map", "1=up", "0=down", "1=down"]) == 2
    assert "--label_map says two things of '1': up and down" in capsys.readouterr().err
    assert main(["doctor", "rows.csv", "--map", "=label"]) == 2


def test_words_beside_a_scale_that_is_placed_are_what_is_asked_about(tmp_path, capsys):
    (tmp_path / "rows.csv").write_text("prompt,completion,label\na,b,5\na,c,1\na,d,4\na,e,N/A\n")
    flags = ["--up_from", "4", "--down_to", "2", "--out", str(tmp_path / "out.jsonl")]
    assert main(["import", "table", str(tmp_path / "rows.csv"), *flags]) == 2
    message = capsys.readouterr().err
    assert "N/A in 1 row (3) are no numbers, nor in --label_map" in message
    assert "--label_map N/A=up|down|drop" in message
    assert "place the scale" not in message
    assert main(["import", "table", str(tmp_path / "rows.csv"), *flags, "--label_map", "N/A=drop"]) == 1


def test_a_map_that_names_no_rating_stops_an_import_and_is_said_of_rows_that_may_lack_it(export, capsys):
    assert main(["import", "openwebui", str(export), "--out", "other.jsonl", "--label_map", "thumbsDown=up"]) == 2
    assert "--label_map thumbsDown=up: no rating has such a value" in capsys.readouterr().err
    assert main(["doctor", str(export), "--label_map", "thumbsDown=up"]) < 2
    assert "no value is what thumbsDown=up names" in capsys.readouterr().out


def test_the_export_of_another_product_is_asked_about(export, capsys):
    assert main(["import", "librechat", str(export), "--out", "other.jsonl"]) == 2
    assert "Is this a LibreChat export? With auto for librechat" in capsys.readouterr().err


def test_a_reader_that_has_had_enough_is_no_traceback(export):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "bnf_align", "doctor", str(export), "--json"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_rows_of_an_export_can_be_gone_through_again(export):
    rows = iter_rows(export, options=Options())
    assert isinstance(rows, ImportedRows)
    assert list(rows) == list(rows)
    report = DataReport("rows")
    rows.say(report)
    assert len(report.notes) == len(set(report.notes)) == 2  # said once, however often it was read


def test_an_export_trains_a_model_as_it_is(export, tmp_path):
    tokenizer = chatml_tokenizer()
    tokenizer.save_pretrained(tmp_path / "model")
    tiny_llama(len(tokenizer)).save_pretrained(tmp_path / "model")
    settings = ["--batch_size", "2", "--max_length", "128", "--use_cpu", "--ref_cache_dir", "cache"]
    paths = ["--model_name_or_path", "model", "--dataset_name", export, "--output_dir", "out"]
    assert main(["train", *paths, *settings, "--save_strategy", "no"]) == 0
    data = json.loads((tmp_path / "out" / "run.json").read_text())["data"]["train"]
    assert (data["rows"], data["ups"], data["downs"]) == (2, 1, 1)
    assert any("read as an Open WebUI export (`openwebui`)" in note for note in data["notes"])
