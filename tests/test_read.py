"""Rows come in as their author wrote them, from every kind of file, and what cannot be read is named."""

import gzip
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bnf_align.data.read import dataset_rows, iter_rows
from bnf_align.records import BadInput

ROWS = [{"prompt": "a\u2028b", "label": 1}, {"prompt": "c", "label": "true", "extra": None}]


def jsonl(rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.json", "rows.json.gz"])
def test_json_rows_keep_their_own_columns_and_mixed_label_types(tmp_path, name):
    text = jsonl(ROWS) if "jsonl" in name else json.dumps(ROWS, indent=1)
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    assert list(iter_rows(tmp_path / name)) == ROWS


def test_a_json_file_may_be_a_list_an_object_around_one_or_lines(tmp_path):
    for text in (json.dumps(ROWS), json.dumps({"version": 1, "data": ROWS}), jsonl(ROWS)):
        (tmp_path / "rows.json").write_text(text, encoding="utf-8")
        assert list(iter_rows(tmp_path / "rows.json")) == ROWS


def test_a_json_object_that_is_a_row_is_one_row(tmp_path):
    row = {"messages": [{"role": "user", "content": "x"}], "label": True}
    (tmp_path / "rows.json").write_text(json.dumps(row))
    assert list(iter_rows(tmp_path / "rows.json")) == [row]


def test_blank_lines_and_a_byte_order_mark_are_passed_over(tmp_path):
    (tmp_path / "rows.jsonl").write_text("\ufeff\n" + '{"a": 1}\n\n{"a": 2}\n', encoding="utf-8")
    assert list(iter_rows(tmp_path / "rows.jsonl")) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n\n{"a": 2', r"rows.jsonl, line 3: not valid JSON"),
        ('{"a": 1}\n[1, 2]\n', r"rows.jsonl, line 2: a row must be a JSON object .* not list"),
        ("", r"rows.jsonl is empty: it has 0 rows"),
    ],
)
def test_a_broken_line_is_named_by_file_and_number(tmp_path, text, message):
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(BadInput, match=message):
        list(iter_rows(tmp_path / "rows.jsonl"))


def test_a_gzip_file_cut_short_and_text_in_another_encoding_are_named(tmp_path):
    whole = gzip.compress(jsonl(ROWS * 1000).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match=r"cut.jsonl.gz: the gzip file is broken or cut short"):
        list(iter_rows(tmp_path / "cut.jsonl.gz"))
    (tmp_path / "latin.jsonl").write_bytes('{"a": "é"}'.encode("latin-1"))
    with pytest.raises(BadInput, match=r"latin.jsonl: not UTF-8 text near line 1"):
        list(iter_rows(tmp_path / "latin.jsonl"))


def test_arrow_files_lose_the_none_of_keys_that_a_message_does_not_have(tmp_path):
    messages = [{"role": "user", "content": "x", "name": None}, {"role": "tool", "content": "y", "name": "f"}]
    pq.write_table(pa.table({"messages": [messages], "label": [None]}), tmp_path / "rows.parquet")
    clean = [{"role": "user", "content": "x"}, {"role": "tool", "content": "y", "name": "f"}]
    assert list(iter_rows(tmp_path / "rows.parquet")) == [{"messages": clean, "label": None}]


def test_a_class_label_is_read_by_its_name_not_its_number(tmp_path):
    features = datasets.Features({"label": datasets.ClassLabel(names=["up", "down"])})
    dataset = datasets.Dataset.from_dict({"label": [0, 1, None]}, features=features)
    dataset.to_parquet(tmp_path / "rows.parquet")
    expected = [{"label": "up"}, {"label": "down"}, {"label": None}]
    assert list(dataset_rows(dataset)) == expected
    assert list(iter_rows(tmp_path / "rows.parquet")) == expected


def test_a_saved_dataset_and_the_splits_of_a_saved_dict_are_read(tmp_path):
    parts = {name: datasets.Dataset.from_list([{"prompt": name}]) for name in ("train", "test")}
    parts["train"].save_to_disk(tmp_path / "one")
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "dict")
    assert list(iter_rows(tmp_path / "one")) == [{"prompt": "train"}]
    assert list(iter_rows(tmp_path / "dict", "test")) == [{"prompt": "test"}]
    with pytest.raises(BadInput, match=r"no split 'dev'. It has: train, test. .*--dataset_train_split"):
        list(iter_rows(tmp_path / "dict", "dev"))


def test_a_folder_of_files_is_read_by_split_name_or_whole(tmp_path):
    for name in ("train-0.jsonl", "train-1.jsonl", "test.jsonl"):
        (tmp_path / name).write_text(jsonl([{"from": name}]))
    (tmp_path / "README.md").write_text("no data")
    assert [row["from"] for row in iter_rows(tmp_path)] == ["train-0.jsonl", "train-1.jsonl"]
    assert [row["from"] for row in iter_rows(tmp_path, "test")] == ["test.jsonl"]
    with pytest.raises(BadInput, match=r"no split 'validation'. It has: test, train"):
        list(iter_rows(tmp_path, "validation"))


def test_a_folder_of_parts_may_have_the_name_of_a_file(tmp_path):
    parts = tmp_path / "rows.parquet"  # as Spark writes them
    parts.mkdir()
    pq.write_table(pa.table({"prompt": ["a"]}), parts / "part-0.parquet")
    assert list(iter_rows(tmp_path)) == list(iter_rows(parts)) == [{"prompt": "a"}]


def test_files_named_after_no_split_beside_others_that_are_do_not_stay_out_in_silence(tmp_path, caplog):
    for name in ("train.jsonl", "more.jsonl"):
        (tmp_path / name).write_text(jsonl(ROWS))
    for _ in range(2):
        assert list(iter_rows(tmp_path)) == ROWS
    assert [message.split("split ")[1] for message in caplog.messages] == [
        "'train'. Not read, as named after no split: more.jsonl"
    ]
    (tmp_path / "train.jsonl").rename(tmp_path / "test.jsonl")
    with pytest.raises(BadInput, match=r"It has: test\. .*Not read, as named after no split: more\.jsonl"):
        list(iter_rows(tmp_path))


def test_a_single_file_never_answers_with_its_training_rows_for_another_split(tmp_path):
    (tmp_path / "rows.jsonl").write_text(jsonl(ROWS))
    with pytest.raises(BadInput, match=r"no split 'test': all its rows are train.*--eval_fraction"):
        list(iter_rows(tmp_path / "rows.jsonl", "test"))


def test_a_missing_file_names_what_is_near(tmp_path):
    (tmp_path / "feedback.jsonl").write_text("{}")
    with pytest.raises(BadInput, match=r"no file .*feedbak.jsonl. Did you mean .*feedback.jsonl\?"):
        iter_rows(tmp_path / "feedbak.jsonl")
    with pytest.raises(BadInput, match=r"its folder .*nowhere does not exist"):
        iter_rows(tmp_path / "nowhere" / "a.jsonl")
    (tmp_path / "a.xlsx").write_text("a,b")
    with pytest.raises(BadInput, match=r"kind of file is not read. Known: .json"):
        list(iter_rows(tmp_path / "a.xlsx"))


def test_a_name_that_is_neither_here_nor_on_the_hub_says_both():
    with pytest.raises(BadInput, match=r"no/such-data: there is no such file or folder in .* as a dataset of the hub"):
        iter_rows("no/such-data")
