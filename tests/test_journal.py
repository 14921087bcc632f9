"""A journal loses no finished row, doubles none, mixes no two jobs, and ends with the same bytes after any kill."""

import gzip
import json
import random
import signal
import subprocess
import sys
import time

import pytest

from bnf_align.journal import Journal, read_jsonl
from bnf_align.records import BadInput

ROWS = [{"id": name, "text": text} for name, text in [("a", "Ä\u2028"), ("b", "\n"), ("c", ""), ("d", "x" * 9999)]]


def names(path) -> list[str]:
    return [row["id"] for row in read_jsonl(path)]


def test_rows_are_on_disk_as_soon_as_append_returns(tmp_path):
    with Journal(tmp_path / "out.jsonl") as journal:
        journal.append(ROWS[:2])
        assert [json.loads(line) for line in journal.partial.read_bytes().split(b"\n")[:-1]] == ROWS[:2]
        assert journal.done == {"a", "b"}
        assert not journal.path.exists()


def test_a_reopened_journal_knows_its_rows(tmp_path):
    with Journal(tmp_path / "out.jsonl") as journal:
        journal.append(ROWS[:2])
        journal.append(ROWS[2:3])
    with Journal(tmp_path / "out.jsonl") as journal:
        assert journal.done == {"a", "b", "c"}
        assert journal.rows() == {row["id"]: row for row in ROWS[:3]}


def test_finish_writes_the_order_asked_for_and_removes_the_partial_file(tmp_path):
    with Journal(tmp_path / "new" / "out.jsonl") as journal:
        journal.append(ROWS)
        assert journal.finish(iter("dbac")) == tmp_path / "new" / "out.jsonl"
    assert list(read_jsonl(journal.path)) == [ROWS[3], ROWS[1], ROWS[0], ROWS[2]]
    assert [path.name for path in journal.path.parent.iterdir()] == ["out.jsonl"]


def test_finish_passes_over_missing_ids_and_keeps_rows_that_the_order_does_not_name(tmp_path):
    with Journal(tmp_path / "out.jsonl") as journal:
        journal.append(ROWS)
        journal.finish(["c", "not there", "a"])
    assert names(journal.path) == ["c", "a", "b", "d"]


def test_a_finished_row_stays_as_it_is_when_its_batch_is_made_again(tmp_path):
    with Journal(tmp_path / "out.jsonl") as journal:
        assert journal.append(ROWS) == 4
        assert journal.append([{"id": "b", "text": "again"}]) == 0
        journal.finish("abcd")
    assert [row["text"] for row in read_jsonl(journal.path)] == [row["text"] for row in ROWS]


def test_a_finished_file_counts_as_done_and_takes_more(tmp_path):
    for rows in (ROWS[:2], ROWS[2:], [{"id": "a", "text": "another"}]):
        with Journal(tmp_path / "out.jsonl") as journal:
            journal.append(rows)
            journal.finish("abcd")
    assert names(journal.path) == list("abcd")
    assert next(read_jsonl(journal.path))["text"] == ROWS[0]["text"]


def test_an_empty_journal_leaves_nothing_behind(tmp_path):
    with Journal(tmp_path / "out.jsonl"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_text_that_utf8_cannot_hold_comes_back(tmp_path):
    with Journal(tmp_path / "out.jsonl") as journal:
        journal.append([{"id": "half a pair \ud83d"}])
    assert Journal(tmp_path / "out.jsonl").done == {"half a pair \ud83d"}


# Kills


@pytest.mark.parametrize("kept", range(1, 40))
def test_a_torn_last_line_costs_that_row_alone(tmp_path, kept, caplog):
    """Cut at every byte of a line that ends in two-byte letters."""
    whole = b'{"id": "a", "text": "x"}\n'
    torn = '{"id": "b", "text": "ÄÖÜ ÄÖÜ ÄÖÜ"}\n'.encode()
    (tmp_path / "out.jsonl.partial").write_bytes(whole + torn[:kept])
    with Journal(tmp_path / "out.jsonl") as journal:
        assert journal.done == {"a"}
        assert "cut short" in caplog.text
        journal.append(ROWS[1:])
        journal.finish("abcd")
    assert [row["id"] for row in read_jsonl(journal.path)] == list("abcd")


def test_a_last_line_that_lacks_its_end_alone_is_kept(tmp_path):
    (tmp_path / "out.jsonl.partial").write_bytes(b'{"id": "a"}\n{"id": "b"}')
    with Journal(tmp_path / "out.jsonl") as journal:
        assert journal.done == {"a", "b"}
        journal.append([{"id": "c"}])
    assert journal.partial.read_bytes() == b'{"id": "a"}\n{"id": "b"}\n{"id": "c"}\n'


def test_a_kill_between_the_two_steps_of_finish_doubles_nothing(tmp_path):
    with Journal(tmp_path / "out.jsonl") as journal:
        journal.append(ROWS)
        partial = journal.partial.read_bytes()
        finished = journal.finish("abcd").read_bytes()
    journal.partial.write_bytes(partial)
    with Journal(tmp_path / "out.jsonl") as journal:
        journal.finish("abcd")
    assert journal.path.read_bytes() == finished


WRITER = """
import sys
from bnf_align.journal import Journal
path, total = sys.argv[1], int(sys.argv[2])
with Journal(path, card={"total": total}) as journal:
    todo = [name for name in map(str, range(total)) if name not in journal.done]
    for start in range(0, len(todo), 3):
        journal.append([{"id": name, "text": (name + "Ä") * 10_000} for name in todo[start:start + 3]])
    journal.finish(map(str, range(total)))
"""


def start_writer(path, total) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(total)])


def test_ten_kills_in_the_middle_of_writes_lose_and_double_no_row(tmp_path):
    total, chance = 300, random.Random(0)
    start_writer(tmp_path / "whole.jsonl", total).wait()
    path, partial, seen = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial", set()
    for _ in range(10):
        writer = start_writer(path, total)
        begun = partial.stat().st_size if partial.exists() else 0
        goal = begun + chance.randrange(1, 1_000_000)
        while writer.poll() is None and not (partial.exists() and partial.stat().st_size >= goal):
            time.sleep(0.0001)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        if path.exists():
            break
        whole_lines = partial.read_bytes().split(b"\n")[:-1]
        ids = [json.loads(line)["id"] for line in whole_lines]
        assert len(ids) == len(set(ids)), "a row was made twice"
        assert seen <= set(ids), "a row was lost"
        seen = set(ids)
    assert seen
    start_writer(path, total).wait()
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_full_disk_leaves_no_half_line(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    journal = Journal(tmp_path / "out.jsonl")
    try:
        journal.append(ROWS[:1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
        with pytest.raises(OSError, match="too large"):
            journal.append(ROWS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert names(journal.partial) == ["a"] == list(journal.done)
    journal.append(ROWS[1:])
    assert journal.rows() == {row["id"]: row for row in ROWS}


# What must not be mixed


def test_two_writers_at_once_are_refused_and_one_after_the_other_are_not(tmp_path):
    with Journal(tmp_path / "out.jsonl") as first:
        with pytest.raises(BadInput, match="being written by another process"):
            Journal(tmp_path / "out.jsonl")
        first.append(ROWS)
    with Journal(tmp_path / "out.jsonl") as second:
        assert second.done == {"a", "b", "c", "d"}


def test_a_writer_in_another_process_is_refused_too(tmp_path):
    with Journal(tmp_path / "out.jsonl"):
        code = f"from bnf_align.journal import Journal; Journal({str(tmp_path / 'out.jsonl')!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "BadInput" in done.stderr
    assert "being written by another process" in done.stderr


CARD = {"model": "m", "sampling": {"temperature": 0.8, "stop": ("x",)}}


def test_the_same_card_goes_on_and_another_is_refused_by_name_and_value(tmp_path):
    with Journal(tmp_path / "out.jsonl", card=CARD) as journal:
        journal.append(ROWS)
    with Journal(tmp_path / "out.jsonl", card={**CARD}) as journal:
        assert len(journal.done) == 4
    other = {"model": "m", "sampling": {"temperature": 0.0, "stop": ("x",)}, "adapter": "lora"}
    with pytest.raises(
        BadInput, match=r"sampling.temperature: 0.8 there, 0.0 now; adapter: None there.*--out"
    ) as raised:
        Journal(tmp_path / "out.jsonl", card=other)
    assert "model" not in str(raised.value)
    assert "Give another --out, or delete out.jsonl* to begin anew" in str(raised.value)
    assert len(Journal(tmp_path / "out.jsonl", card=CARD).done) == 4, "the refused journal let go of its lock"


def test_in_a_card_of_several_jobs_what_differs_is_named_and_not_the_rest(tmp_path):
    jobs = [{"model": "m", "sampling": {"n": 4}}, {"model": "k", "sampling": {"n": 4}}]
    with Journal(tmp_path / "out.jsonl", card={"jobs": jobs}) as journal:
        journal.append(ROWS)
    other = [jobs[0], {"model": "k", "sampling": {"n": 3}}]
    with pytest.raises(BadInput, match=r"\(jobs.1.sampling.n: 4 there, 3 now\)"):
        Journal(tmp_path / "out.jsonl", card={"jobs": other})
    with pytest.raises(BadInput, match=r"\(jobs: 2 there, 1 now\)"):
        Journal(tmp_path / "out.jsonl", card={"jobs": jobs[:1]})


def test_a_card_of_a_job_without_rows_is_replaced(tmp_path):
    Journal(tmp_path / "out.jsonl", card=CARD).close()
    with Journal(tmp_path / "out.jsonl", card={"model": "other"}):
        assert json.loads((tmp_path / "out.jsonl.card.json").read_text()) == {"model": "other"}


def test_a_job_that_fails_before_its_first_row_leaves_no_card_and_one_that_fails_later_does(tmp_path):
    with pytest.raises(BadInput), Journal(tmp_path / "out.jsonl", card=CARD):
        raise BadInput("refused")
    assert not list(tmp_path.iterdir())
    with Journal(tmp_path / "out.jsonl", card=CARD) as journal:
        journal.append([{"id": "a"}])
    with pytest.raises(BadInput), Journal(tmp_path / "out.jsonl", card=CARD):
        raise BadInput("refused")
    assert {file.name for file in tmp_path.iterdir()} == {"out.jsonl.partial", "out.jsonl.card.json"}


def test_rows_of_unknown_origin_are_not_added_to(tmp_path):
    (tmp_path / "out.jsonl").write_text('{"id": "published"}\n')
    with pytest.raises(BadInput, match=r"has 1 rows, but out.jsonl.card.json, .* is not there"):
        Journal(tmp_path / "out.jsonl", card=CARD)
    assert (tmp_path / "out.jsonl").read_text() == '{"id": "published"}\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{not json}\n", "line 2: not a row"),
        (b"[1]\n", "line 2: not a row .no JSON object with 'id'"),
        (b'{"name": "b"}\n', "line 2: not a row .no JSON object with 'id'"),
        ('{"id": "Ä"}\n'.encode("latin-1"), "line 2: not a row"),
    ],
)
@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.partial"])
def test_a_broken_line_in_the_middle_is_named(tmp_path, name, line, message):
    (tmp_path / name).write_bytes(b'{"id": "a"}\n' + line + b'{"id": "c"}\n')
    with pytest.raises(BadInput, match=f"{name}, {message}"):
        Journal(tmp_path / "out.jsonl")


def test_a_journal_cannot_be_gzip(tmp_path):
    with pytest.raises(BadInput, match=r"Name a .jsonl with --out"):
        Journal(tmp_path / "out.jsonl.gz")


def test_numbers_that_json_does_not_know_are_refused_before_they_are_written(tmp_path):
    with Journal(tmp_path / "out.jsonl") as journal:
        with pytest.raises(ValueError, match="not JSON compliant"):
            journal.append([{"id": "a"}, {"id": "b", "score": float("nan")}])
        assert journal.done == set()
        assert journal.partial.stat().st_size == 0


# Reading


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.json", "rows.json.gz"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_rows_come_back_from_lines_and_lists_plain_and_gzip_with_and_without_a_byte_order_mark(tmp_path, name, mark):
    lines = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
    data = mark + (lines if "jsonl" in name else json.dumps(ROWS, indent=1)).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert list(read_jsonl(tmp_path / name)) == ROWS


def test_a_json_file_may_hold_lines_or_one_row(tmp_path):
    (tmp_path / "rows.json").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert list(read_jsonl(tmp_path / "rows.json")) == ROWS
    (tmp_path / "rows.json").write_text(json.dumps(ROWS[0]))
    assert list(read_jsonl(tmp_path / "rows.json")) == ROWS[:1]


def test_reading_streams(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"id": "a"}\nbroken\n')
    rows = read_jsonl(tmp_path / "rows.jsonl")
    assert next(rows) == {"id": "a"}
    with pytest.raises(BadInput, match=r"rows.jsonl, line 2: not valid JSON .*: broken"):
        next(rows)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("rows.jsonl", b'{"a": 1}\n\n[2]\n', "line 3: a row must be a JSON object with named columns, not list"),
        ("rows.json", b'[{"a": 1}, 2]', "row 1: a row must be a JSON object with named columns, not int"),
        ("rows.json", b'[{"a": 1},', "line 1: the file is cut short .*after 1 whole records"),
        ("rows.json", b"[" * 5000, "nested too deeply"),
        ("rows.jsonl", b'{"a": ' + b"[" * 100_000, "line 1: not valid JSON"),
        ("rows.jsonl", b'{"a": 1' + b"0" * 5000 + b"}", "line 1: not valid JSON .Exceeds the limit"),
        ("rows.jsonl", b'{"a": 1}\n{"a": 2} {"a": 3}\n', "line 2: not valid JSON .Extra data, column 10"),
        ("rows.jsonl", '{"a": "Ä"}'.encode("latin-1"), "not UTF-8 text near line 1"),
        ("rows.jsonl", '{"a": "Ä"}'.encode("utf-16"), "is UTF-16 text"),
        ("rows.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 9999)[:-12], "the gzip file is broken or cut short"),
        ("rows.jsonl.gz", b'{"a": 1}\n', "the gzip file is broken"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadInput, match=f"{name}.*{message}"):
        list(read_jsonl(tmp_path / name))


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(BadInput, match=r"There is no file .*absent.jsonl"):
        list(read_jsonl(tmp_path / "absent.jsonl"))
    with pytest.raises(BadInput, match="it is a folder"):
        list(read_jsonl(tmp_path))
