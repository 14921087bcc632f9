"""Records come out of every kind of file as they went in, one at a time, and a file that is not whole is named."""

import csv
import gzip
import io
import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnf_align.journal import json_stream
from bnf_align.journal.json_stream import JsonStream
from bnf_align.records import BadInput
from bnf_align.sources import import_rows
from bnf_align.sources.files import data_files, records_of, unpacked
from exports_chat import openwebui

ROWS = [{"a": "é\u2028\n", "b": [1, {"c": None}]}, {"a": 'x, "y"', "b": 2.5}]
TEXT = {
    "list.json": json.dumps(ROWS, indent=1),
    "under.json": json.dumps({"version": 1, "meta": {"rows": []}, "data": ROWS, "next": [][:0] or None}),
    "lines.json": "\n".join(json.dumps(row) for row in ROWS),
    "pretty.json": "\n".join(json.dumps(row, indent=2) for row in ROWS),
    "lines.jsonl": "\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n",
    "lines.ndjson": "\r\n".join(json.dumps(row) for row in ROWS),
}


def read(path) -> list:
    return [record for _, record in records_of([path])]


@pytest.mark.parametrize("name", TEXT)
@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_form_of_json_gives_the_same_records(tmp_path, name, packed, mark):
    content = (mark + TEXT[name]).encode()
    path = tmp_path / (name + packed)
    path.write_bytes(gzip.compress(content) if packed else content)
    assert list(records_of([path])) == list(enumerate(ROWS))


def test_of_two_lists_no_one_knows_which_holds_the_records(tmp_path):
    path = tmp_path / "export.json"
    path.write_text(json.dumps({"users": [{"id": 1}], "scores": ROWS, "total": 12}))
    assert read(path) == [{"users": [{"id": 1}], "scores": ROWS, "total": 12}]


def test_an_object_that_is_a_row_is_not_taken_for_a_wrapper(tmp_path):
    row = {"id": 1, "messages": [{"role": "user", "content": "x"}]}
    (tmp_path / "row.json").write_text(json.dumps(row))
    assert read(tmp_path / "row.json") == [row]


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", "\t")])
def test_tables_keep_quotes_line_ends_and_long_cells(tmp_path, name, delimiter):
    rows = [{"a": 'x\n"y"', "b": "1"}, {"a": "z" * 200_000, "b": ""}]
    with (tmp_path / name).open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["a", "b"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    assert read(tmp_path / name) == rows


def test_a_table_with_two_columns_of_one_name_is_not_read(tmp_path):
    (tmp_path / "rows.csv").write_text("prompt,prompt,,,label\na,b,,,1\n")
    with pytest.raises(BadInput, match=r"rows\.csv: several columns are called prompt\. Rename all but one"):
        read(tmp_path / "rows.csv")


def test_parquet_is_read_batch_by_batch_with_the_names_of_its_classes(tmp_path):
    import datasets

    features = datasets.Features({"n": datasets.Value("int64"), "label": datasets.ClassLabel(names=["up", "down"])})
    columns = {"n": list(range(2500)), "label": [0, 1] * 1250}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "rows.parquet")
    rows = read(tmp_path / "rows.parquet")
    assert [row["n"] for row in rows] == columns["n"]
    assert [row["label"] for row in rows[1998:2002]] == ["up", "down", "up", "down"]


def test_numbers_go_on_from_file_to_file_and_one_may_be_empty(tmp_path):
    for name, rows in (("a.jsonl", ROWS), ("b.jsonl", []), ("c.json", [{"last": True}])):
        (tmp_path / name).write_text("\n".join(json.dumps(row) for row in rows))
    assert list(records_of(data_files([tmp_path]))) == list(enumerate([*ROWS, {"last": True}]))
    with pytest.raises(BadInput, match=r"b.jsonl is empty: it has 0 rows"):
        list(records_of([tmp_path / "b.jsonl"]))


def test_folders_are_expanded_and_hidden_and_unknown_files_passed_over(tmp_path):
    for name in ("b.jsonl", "a/c.json.gz", ".hidden.json", "notes.txt", "a/x.parquet.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert data_files([tmp_path]) == [tmp_path / "a" / "c.json.gz", tmp_path / "b.jsonl"]
    for path, message in (("none", "There is no file"), ("notes.txt", "this kind of file is not read")):
        with pytest.raises(BadInput, match=message):
            data_files([tmp_path / path])


# ------------------------------------------------------------------------------------------- what is not whole

BROKEN = [
    ("a.json", "", r"is empty: it has 0 rows"),
    ("a.json", "[]", r"is empty"),
    ("a.json", "  \n", r"is empty"),
    ("a.json", '[{"a": 1},\n{"a": 2', r"line 2: the file is cut short .*after 1 whole records"),
    ("a.json", '[{"a": 1},\n{"a": "x', r"line 2: the file is cut short"),
    ("a.json", '[{"a": 1},\n{"a": tr', r"line 2: the file is cut short"),
    ("a.json", '[{"a": 1}\n', r"the file is cut short \(expecting , or \]\)"),
    ("a.json", '{"data": [{"a": 1}', r"the file is cut short"),
    ("a.json", '{"a": 1}\n{"a":', r"line 2: the file is cut short .*after 1 whole"),
    ("a.json", '[{"a": 1},]', r"line 1: not valid JSON"),
    ("a.json", "[{'a': 1}]", r"not valid JSON"),
    ("a.json", '[{"a": 1}] x', r"not valid JSON \(more follows"),
    ("a.json", '{"data": [{"a": 1}]} {"data": []} x', r"not valid JSON"),
    ("a.json", "[[1]]", r"row 0: a row must be a JSON object with named columns, not list"),
    ("a.json", '"text"', r"row 0: a row must be a JSON object with named columns, not str"),
    ("a.json", "[" * 5000, r"nested too deeply"),
    ("a.json", '[{"a": ' + "1" * 5000 + "}]", r"not valid JSON \(Exceeds the limit"),
    ("a.jsonl", '{"a": 1}\n{"a": 2', r"line 2: not valid JSON .*1 whole records stand before it"),
    ("a.jsonl", '{"a": ' + "[" * 5000, r"line 1: not valid JSON"),
    ("a.csv", "a,b\n", r"is empty"),
    ("a.csv", 'a,b\n1,2\n3,"4', r"line 2: not a whole record .*after 1 that are"),
    ("a.csv", "a,b\n1,2,3\n", r"more fields than the header has \(2\)"),
    ("a.csv", "a,b\n1,2\n3\n", r"fewer fields than the header has \(2\): cut short\?\), after 1 that are"),
]


@pytest.mark.parametrize(("name", "text", "message"), BROKEN)
def test_a_file_that_is_not_whole_is_named_with_the_place(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=message):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv"])
def test_other_encodings_are_named(tmp_path, name):
    text = "a\ncafé\n" if name == "a.csv" else '{"a":\n"café"}' if name == "a.json" else '{"a": 1}\n{"a": "café"}'
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInput, match=r"not UTF-8 text near line 2 .*iconv"):
        read(tmp_path / name)
    (tmp_path / name).write_bytes(text.encode("utf-16"))
    with pytest.raises(BadInput, match=r"is UTF-16 text. .*iconv"):
        read(tmp_path / name)


def test_half_a_gzip_stream_and_half_a_parquet_file_are_named(tmp_path):
    whole = gzip.compress(json.dumps([{"n": n} for n in range(10_000)]).encode())
    (tmp_path / "a.json.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match="the gzip file is broken or cut short"):
        read(tmp_path / "a.json.gz")
    torn = gzip.compress(b'{"n": "\xff"}\n' + bytes(range(1, 256)) * 9)[:-9]
    (tmp_path / "not utf-8 either.jsonl.gz").write_bytes(torn)
    with pytest.raises(BadInput, match="not UTF-8 text near line 1"):
        read(tmp_path / "not utf-8 either.jsonl.gz")
    pq.write_table(pa.table({"n": list(range(1000))}), tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-50])
    with pytest.raises(BadInput, match=r"a.parquet cannot be read as Parquet"):
        read(tmp_path / "a.parquet")


# --------------------------------------------------------------------------------------------------- streaming

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(
    values=st.lists(VALUES, max_size=5), size=st.integers(1, 9), escaped=st.booleans(), indent=st.none() | st.just(1)
)
@settings(max_examples=200, deadline=None)
def test_wherever_the_buffer_ends_the_values_are_those_of_the_whole_text(values, size, escaped, indent):
    """Surrogate pairs, numbers, words and texts that the end of a chunk cuts in two are read on."""
    text = json.dumps(values, ensure_ascii=escaped, indent=indent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "CHUNK", size)
        assert list(JsonStream(io.StringIO(text), "text").elements()) == values
        wrapped = JsonStream(io.StringIO(json.dumps({"n": 1234, "list": values, "last": [1]})), "text")
        assert {key: list(wrapped.elements()) for key, first in wrapped.items() if first == "["} == {
            "list": values,
            "last": [1],
        }


def test_what_python_writes_as_json_is_read_even_where_it_is_none(tmp_path):
    row = {"a": float("inf"), "b": 10**30, "c": "\ud800"}
    (tmp_path / "a.json").write_text(json.dumps([row]))
    assert read(tmp_path / "a.json") == [row]


def test_a_value_without_an_end_is_given_up_before_it_fills_the_memory(monkeypatch):
    monkeypatch.setattr(json_stream, "LONGEST", 1 << 21)
    with pytest.raises(BadInput, match=r"a value of more than 2,097,152 characters: is a quote missing\?"):
        list(JsonStream(io.StringIO('[{"a": "' + "x" * (1 << 24)), "text").elements())


@pytest.mark.parametrize("name", ["bomb.jsonl.gz", "bomb.csv.gz", "bomb.tsv", "bomb.jsonl"])
def test_a_line_without_an_end_is_given_up_before_it_fills_the_memory(tmp_path, monkeypatch, name):
    """A small archive may hold a line of gigabytes."""
    from bnf_align.journal import text

    monkeypatch.setattr(text, "LONGEST", 1 << 20)
    with (gzip.open if name.endswith(".gz") else open)(tmp_path / name, "wt") as file:
        file.write("prompt,completion,label\n" if ".csv" in name else "a\tb\n" if ".tsv" in name else "{}\n")
        for _ in range(30):
            file.write("x" * (1 << 20))
    with pytest.raises(BadInput, match=rf"{name}, line 2: more than 1,048,576 characters in one line"):
        read(tmp_path / name)


@pytest.mark.parametrize("form", ["list.json", "under.json", "lines.jsonl"])
def test_a_file_is_never_in_memory_as_a_whole(tmp_path, form):
    """A file of 20 MB is read, and imported, in a third of that."""
    record = json.loads(openwebui([("Why?", "x" * 40_000, True)], tmp_path)[0].read_text())[0]
    path = tmp_path / form
    with path.open("w") as file:
        file.write({"list.json": "[", "under.json": '{"data": [', "lines.jsonl": ""}[form])
        for number in range(500):
            record["meta"]["chat_id"] = f"c{number}"
            file.write(("" if number == 0 else "\n" if form == "lines.jsonl" else ",") + json.dumps(record))
        file.write({"list.json": "]", "under.json": "]}", "lines.jsonl": ""}[form])
    assert path.stat().st_size > 19e6
    tracemalloc.start()
    rows, report = import_rows("openwebui", [path])
    count = sum(1 for _ in rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (count, report.ups) == (500, 500)
    assert peak < 7e6


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ('[{"role": "user"}]', [{"role": "user"}]),
        (' {"a": 1}', {"a": 1}),
        ("[sic] hello", "[sic] hello"),
        ("[" * 5000, "[" * 5000),
        ("1", "1"),
        ("", ""),
        (None, None),
        ([1], [1]),
    ],
)
def test_cells_that_hold_json_are_unpacked_and_no_others(cell, value):
    assert unpacked(cell) == value
