"""The doctor's benchmark at toy size: its rows vary, both files hold the same ones, and it writes its claims."""

import csv
import json
import sys
from importlib import import_module
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
benchmark = import_module("doctor")


def test_the_rows_are_of_a_kilobyte_on_average_of_every_shape_and_nearly_all_different():
    rows = list(benchmark.rows(2000))
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    assert 900 < sum(len(line.encode()) for line in lines) / len(lines) < 1100
    assert {frozenset(row) for row in rows} == {
        frozenset({"prompt", "chosen", "rejected"}),
        frozenset({"chosen", "rejected", "id"}),
        frozenset({"prompt", "completion", "label", "created_at"}),
        frozenset({"messages", "label"}),
    }
    assert 1980 < len(set(lines)) < 2000


def test_lines_and_a_list_hold_the_same_rows(tmp_path):
    for name in ("rows.jsonl", "rows.json"):
        benchmark.write(tmp_path / name, 30)
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert json.loads((tmp_path / "rows.json").read_text(encoding="utf-8")) == lines == list(benchmark.rows(30))


def test_seconds_and_memory_become_claims(tmp_path):
    benchmark.write_seconds_and_memory(tmp_path, 50, tmp_path / "claims.csv")
    with (tmp_path / "claims.csv").open(newline="") as file:
        claims = {row["id"]: row for row in csv.DictReader(file)}
    assert list(claims) == ["doctor-seconds", "doctor-memory"]
    assert 50 < float(claims["doctor-memory"]["figure"]) < 1000
    assert float(claims["doctor-seconds"]["low"]) <= float(claims["doctor-seconds"]["figure"])
    assert not list(tmp_path.glob("rows.*"))
