"""Rows that are TRL's already pass `auto` as they are; what only looks like them goes to the product it is from."""

import json

import pytest

from bnf_align.cli.main import main
from bnf_align.data.read import iter_rows
from bnf_align.records import BadInput
from bnf_align.sources import ImportedRows, Options, import_rows

ASKED = [{"role": "user", "content": "Hi"}]
TALK = [*ASKED, {"role": "assistant", "content": "Hello"}]
OWN = {
    "pair": {"prompt": "Hi", "chosen": "Hello", "rejected": "What?", "id": 7, "score_chosen": 9.5},
    "chat pair": {"prompt": ASKED, "chosen": TALK[1:], "rejected": [{"role": "assistant", "content": "No", "x": 1}]},
    "implicit": {"chosen": TALK, "rejected": [*ASKED, {"role": "assistant", "content": "What?"}]},
    "single": {"prompt": "Hi", "completion": "Hello", "label": True, "chat_template_kwargs": {"a": 1}, "tools": []},
    "messages": {"messages": TALK, "label": False, "source": "web"},
}
HUMAN = "\n\nHuman: Hi\n\nAssistant: "


def written(folder, *records):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.mark.parametrize("shape", OWN)
def test_a_row_passes_with_all_its_columns_twice_if_it_is_there_twice(tmp_path, shape):
    path = written(tmp_path, OWN[shape], OWN[shape])
    rows, report = import_rows("auto", [path])
    assert list(rows) == [OWN[shape]] * 2
    assert (report.rows, report.pairs + report.ups + report.downs, report.dropped) == (2, 2, {})
    assert report.notes[0] == "rows of TRL's types already: they pass as they are"
    assert not isinstance(iter_rows(path, options=Options()), ImportedRows)


@pytest.mark.parametrize(("down", "up"), [(-1, 1), (0, 1), ("false", "true"), (-1.0, 1.0)])
def test_only_the_label_is_spelled_anew_for_a_trainer_that_takes_minus_one_for_true(tmp_path, down, up):
    row = OWN["single"]
    path = written(tmp_path, row | {"label": down}, row | {"label": None}, row | {"label": up})
    rows, report = import_rows("auto", [path])
    assert list(rows) == [row | {"label": False}, row | {"label": True}]
    assert (report.rows, report.ups, report.downs, report.dropped) == (3, 1, 1, {"no rating": [1]})


def test_a_single_answer_beside_the_empty_columns_of_pairs_keeps_its_label(tmp_path):
    """Two sets in one table: every row has all columns."""
    none = dict.fromkeys(("chosen", "rejected"))
    single, pair = OWN["single"] | none, OWN["pair"] | dict.fromkeys(("completion", "label"))
    path = written(tmp_path, *(single | {"label": label} for label in (1, 0, 1)), pair, pair | {"chosen": None})
    rows, report = import_rows("auto", [path], Options(label_map={"1": "down", "0": "up"}))
    assert list(rows) == [*(single | {"label": label} for label in (False, True, False)), pair]
    assert (report.pairs, report.ups, report.downs) == (1, 1, 2)
    assert report.dropped == {"no rating": [4]}


@pytest.mark.parametrize("options", [Options(raters="unanimous"), Options(score_name="helpful")])
def test_what_would_change_nothing_of_rows_that_pass_as_they_are_is_refused(tmp_path, options):
    path = written(tmp_path, OWN["single"])
    with pytest.raises(BadInput, match=r"rows of TRL's types, which pass as they are.*import table"):
        import_rows("auto", [path], options)


def test_a_label_on_another_scale_stops_and_is_mapped_as_in_any_import(tmp_path):
    path = written(tmp_path, *(OWN["messages"] | {"label": stars} for stars in (5, 1, 3)))
    with pytest.raises(BadInput, match="Seen: 1 x 5, 1 x 1, 1 x 3"):
        list(import_rows("auto", [path])[0])
    rows, report = import_rows("auto", [path], Options(up_from=4, down_to=2))
    assert [row["label"] for row in rows] == [True, False]
    assert report.dropped == {"a rating that means neither up nor down": [2]}
    assert report.notes[1].endswith("1 x 3 left out (--up_from, --down_to)")


@pytest.mark.parametrize(
    ("record", "name"),
    [
        ({"messages": TALK, "rejected_response": "What?"}, "ms-swift"),
        ({"messages": TALK, "rejected_response": "What?", "label": None}, "ms-swift"),
        ({"input": "Hi", "chosen": "Hello", "rejected": "What?"}, "axolotl"),
        ({"instruction": "Hi", "chosen": "Hello", "rejected": "What?"}, "llamafactory"),
        ({"chosen": f"{HUMAN}Hello", "rejected": f"{HUMAN}What?"}, "hh"),
    ],
)
def test_an_answer_to_a_question_elsewhere_is_a_product_s_for_import_and_for_train(tmp_path, record, name):
    path = written(tmp_path, record)
    rows, report = import_rows("auto", [path])
    wanted = [{"prompt": ASKED, "chosen": TALK[1:], "rejected": [{"role": "assistant", "content": "What?"}]}]
    assert list(rows) == wanted
    assert f"(`{name}`)" in report.notes[0]
    assert list(iter_rows(path, options=Options())) == wanted


def test_the_command_passes_rows_and_masks_them_where_it_is_asked_to(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, OWN["single"] | {"completion": "Ask ann@example.org."})
    assert main(["import", "auto", "rows.jsonl", "--out", "out.jsonl", "--redact"]) == 0
    assert json.loads((tmp_path / "out.jsonl").read_text()) == OWN["single"] | {"completion": "Ask [e-mail]."}
    assert "1 row -> 0 pairs, 1 up, 0 downs" in capsys.readouterr().out
