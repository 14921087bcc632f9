"""No command writes over what it reads, and its files appear together or not at all."""

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from bnf_align.cli.main import main
from bnf_align.outputs import check_targets, replacing, whole_files, write_json, write_text
from bnf_align.records import BadInput


def test_a_target_that_is_read_is_refused_under_every_name_it_has(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "folder").mkdir()
    os.link("rows.jsonl", "hard.jsonl")
    os.symlink("rows.jsonl", "soft.jsonl")
    for name in ("rows.jsonl", "./rows.jsonl", str(tmp_path / "rows.jsonl"), "hard.jsonl", "soft.jsonl"):
        with pytest.raises(BadInput, match=r"--out .* would be written over rows\.jsonl, which is read"):
            check_targets({"--out": name}, ["rows.jsonl"])
    with pytest.raises(BadInput, match="would be written over folder"):
        check_targets({"--out": "folder/new.jsonl"}, ["folder"])
    with pytest.raises(BadInput, match="--out folder is a folder"):
        check_targets({"--out": "folder"}, [])
    with pytest.raises(BadInput, match=r"--fix and --html are one file"):
        check_targets({"--fix": "a.jsonl", "--html": "./a.jsonl"}, [])
    check_targets({"--out": "other.jsonl"}, ["rows.jsonl", "folder", "a/name-on-the-hub"])


def test_files_appear_together_and_an_error_in_one_leaves_all_as_they_were(tmp_path):
    paths = [tmp_path / name for name in ("rows.jsonl", "rows.test.jsonl")]
    for path in paths:
        path.write_text("old")
    with suppress(KeyError), whole_files(*paths) as files:
        for file in files:
            file.write("new")
        raise KeyError
    assert [path.read_text() for path in paths] == ["old", "old"]
    assert sorted(os.listdir(tmp_path)) == ["rows.jsonl", "rows.test.jsonl"]
    with whole_files(*paths) as files:
        for number, file in enumerate(files):
            file.write(f"new {number}")
        assert [path.read_text() for path in paths] == ["old", "old"]
    assert [path.read_text() for path in paths] == ["new 0", "new 1"]


def test_a_kill_between_two_names_leaves_the_first_file_missing_and_never_beside_an_old_one(tmp_path, monkeypatch):
    paths = [tmp_path / name for name in ("rows.jsonl", "rows.test.jsonl", "stale.jsonl")]
    for path in paths:
        path.write_text("old")
    moved = []

    def killed(source, target):
        if moved:
            raise KeyboardInterrupt
        moved.append(str(target))
        os.rename(source, target)

    monkeypatch.setattr("bnf_align.outputs.os.replace", killed)
    with suppress(KeyboardInterrupt), whole_files(*paths[:2], stale=paths[2:]) as files:
        for file in files:
            file.write("new")
    assert moved == [str(paths[1])]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"rows.test.jsonl": "new"}


def test_what_cannot_be_written_is_named_and_nothing_is_left(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"file/new\.json cannot be written: "):
        write_json(tmp_path / "file" / "new.json", {})
    (tmp_path / "old").write_text("old")
    with pytest.raises(BadInput, match=r"old cannot be written: No space left on device"), replacing(tmp_path / "old"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert (tmp_path / "old").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["file", "old"]


def test_an_error_of_a_file_that_is_read_meanwhile_is_not_taken_for_one_of_the_target(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "new"):
        (tmp_path / "nowhere").read_text()


def test_many_who_write_one_file_at_once_leave_a_whole_one_and_stop_none_of_them(tmp_path):
    """Each looks for what killed writers left, and sees the others' files come and go."""
    path = tmp_path / "manifest.json"
    with ThreadPoolExecutor(8) as writers:
        list(writers.map(lambda number: write_json(path, {"number": number}), range(2000)))
    assert json.loads(path.read_text())["number"] in range(2000)
    assert os.listdir(tmp_path) == ["manifest.json"]


def test_half_a_character_is_written_as_json_writes_it(tmp_path):
    write_text(tmp_path / "rows.jsonl", json.dumps("\ud83d", ensure_ascii=False))
    assert json.loads((tmp_path / "rows.jsonl").read_text()) == "\ud83d"


# The commands


def scored(number: int) -> dict:
    candidates = [{"text": f"a{number}"}, {"text": f"b{number}"}]
    return {"id": str(number), "prompt": f"q{number}", "candidates": candidates, "scores": [1.0, 0.0]}


def files(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    write("clean.left_out.jsonl", [{"prompt": "q", "completion": c, "label": True} for c in ("a", "b", "")])
    write("pairs.test.jsonl", [scored(number) for number in range(8)])
    write("scored.jsonl", [scored(number) for number in range(8)])
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        "doctor clean.left_out.jsonl --fix clean.jsonl",
        "doctor scored.jsonl --fix scored.left_out.jsonl --html scored.jsonl",
        "doctor clean.left_out.jsonl --fix page.jsonl --html clean.left_out.jsonl",
        "select pairs.test.jsonl --out pairs.jsonl --test-fraction .4",
        "select scored.jsonl --out scored.jsonl",
        "score pairs.test.jsonl --scorer verifier --out pairs.test.jsonl",
        "generate --prompts scored.jsonl --model nowhere --out scored.jsonl",
        "eval run --task gsm8k --data scored.jsonl --model nowhere --out scored.jsonl",
        "import table scored.jsonl --out scored.jsonl",
    ],
)
def test_no_command_writes_over_its_source(here, command, capsys):
    before = files(here)
    assert main(command.split()) == 2
    capsys.readouterr()
    assert files(here) == before


def test_select_keeps_its_earlier_rows_until_the_new_ones_are_whole(here, monkeypatch, capsys):
    assert main(["select", "scored.jsonl", "--out", "out.jsonl", "--test-fraction", ".4"]) == 0
    before = files(here)
    assert {"out.jsonl", "out.test.jsonl"} <= before.keys()
    monkeypatch.setattr("bnf_align.construct.dataset.card_text", lambda card: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["select", "scored.jsonl", "--out", "out.jsonl"])
    assert files(here) == before


def test_a_card_that_cannot_be_read_is_no_traceback_and_its_test_rows_go(here, capsys):
    assert main(["select", "scored.jsonl", "--out", "out.jsonl", "--test-fraction", ".4"]) == 0
    (here / "out.jsonl.card.json").write_text("{broken")
    assert main(["select", "scored.jsonl", "--out", "out.jsonl"]) == 0
    assert not (here / "out.test.jsonl").exists(), "they may share prompts with the new rows"


def test_the_test_file_of_an_earlier_selection_is_not_removed_while_it_is_read(here, capsys):
    assert main(["select", "scored.jsonl", "--out", "pairs.jsonl", "--test-fraction", ".4"]) == 0
    (here / "pairs.test.jsonl").write_bytes((here / "scored.jsonl").read_bytes())
    before = files(here)
    assert main(["select", "pairs.test.jsonl", "--out", "pairs.jsonl"]) == 2
    assert files(here) == before
