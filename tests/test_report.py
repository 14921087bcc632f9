"""The paper's tables from result files: the printed numbers come out, and nothing else can."""

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bnf_align.cli.main import main
from bnf_align.evaluation.paired import compare
from bnf_align.records import BadInput
from bnf_align.report import build_report, published, render
from bnf_align.report.benchmarks import conversation_cells
from bnf_align.report.table import WITHHELD

# Table 4 as printed, with its ranks: Wild-Bench Elo and score, Arena-Hard LC and WR, GSM8K, MATH, CRUX, MMLU; average.
TABLE_4 = {
    "Meta-Llama-3-8B-Instruct": """
Base	1131 (8)	29.2 (8)	33.9 (8)	36.1 (8)	78.5 (3)	6.8 (7)	38.1 (3)	62.4 (3)	6.00
SLiC-HF	1142 (6)	33.2 (7)	49.1 (6)	46.3 (6)	66.6 (7)	8.3 (6)	33.9 (6)	61.4 (4)	6.00
DPO	1155 (1)	39.5 (1)	60.4 (1)	62.2 (1)	70.5 (6)	8.5 (5)	31.8 (8)	56.4 (7)	3.75
IPO	1146 (5)	36.1 (5)	50.1 (4)	51.3 (4)	79.9 (1)	9.2 (4)	39.2 (1)	59.8 (6)	3.75
KTO	1139 (7)	34.7 (6)	45.4 (7)	45.8 (7)	78.8 (2)	10.0 (1)	38.9 (2)	63.7 (1)	4.13
ORPO	1149 (3)	36.2 (4)	49.6 (5)	49.2 (5)	74.8 (5)	9.3 (2)	34.5 (5)	63.5 (2)	3.88
SimPO	1149 (3)	37.2 (3)	52.2 (3)	52.5 (2)	56.6 (8)	6.0 (8)	32.6 (7)	55.0 (8)	5.25
BNF	1153 (2)	37.5 (2)	54.8 (2)	52.1 (3)	77.0 (4)	9.3 (2)	35.4 (4)	61.4 (4)	2.88
""",
    "Mistral-7B-Instruct-v0.2": """
Base	1098 (8)	25.6 (8)	19.2 (8)	18.9 (8)	42.7 (2)	3.9 (1)	25.1 (2)	53.0 (3)	5.00
SLiC-HF	1130 (3)	31.2 (2)	28.9 (5)	31.0 (4)	43.6 (1)	2.6 (6)	24.3 (3)	52.1 (6)	3.75
DPO	1127 (5)	29.7 (6)	29.8 (4)	30.4 (5)	42.2 (4)	3.1 (3)	22.3 (7)	53.2 (2)	4.50
IPO	1121 (7)	26.9 (7)	25.4 (7)	26.1 (7)	35.8 (7)	3.6 (2)	28.3 (1)	50.7 (8)	5.75
KTO	1126 (6)	30.2 (5)	27.8 (6)	27.7 (6)	42.6 (3)	2.9 (4)	23.3 (6)	52.8 (4)	5.00
ORPO	1130 (3)	30.8 (4)	33.4 (3)	34.4 (3)	36.9 (6)	2.9 (4)	23.6 (5)	51.8 (7)	4.38
SimPO	1133 (1)	32.0 (1)	36.0 (1)	36.6 (1)	33.7 (8)	2.2 (8)	21.4 (8)	52.2 (5)	4.13
BNF	1131 (2)	31.1 (3)	35.2 (2)	34.5 (2)	39.7 (5)	2.6 (6)	24.3 (3)	54.8 (1)	3.00
""",
    "Gemma-2-9b-It": """
Base	1160 (4)	42.7 (4)	54.9 (4)	54.5 (4)	87.9 (3)	19.9 (3)	44.6 (2)	72.7 (2)	3.25
DPO	1181 (2)	53.2 (2)	77.3 (2)	81.3 (1)	88.5 (1)	20.2 (2)	44.3 (3)	72.8 (1)	1.75
SimPO	1181 (2)	53.3 (1)	72.6 (3)	75.4 (3)	87.7 (4)	18.2 (4)	41.4 (4)	72.6 (4)	3.13
BNF	1186 (1)	53.2 (2)	77.5 (1)	80.8 (2)	88.0 (2)	21.8 (1)	45.3 (1)	72.7 (2)	1.50
""",
}
TABLE_6 = {
    "Meta-Llama-3-8B-Instruct": """
Base	1131 (5)	29.2 (5)	33.9 (5)	36.1 (5)	78.5 (2)	6.8 (5)	38.1 (1)	62.4 (1)	3.63
0%	1146 (4)	36.0 (4)	49.3 (4)	48.4 (4)	80.1 (1)	9.4 (2)	35.6 (4)	62.2 (2)	3.13
25%	1148 (2)	36.2 (3)	51.5 (3)	49.7 (3)	77.9 (3)	9.3 (3)	36.7 (3)	61.8 (3)	2.88
50%	1148 (2)	36.7 (2)	53.5 (2)	51.4 (2)	76.4 (5)	10.0 (1)	37.9 (2)	61.2 (5)	2.63
100%	1153 (1)	37.5 (1)	54.8 (1)	52.1 (1)	77.0 (4)	9.3 (3)	35.4 (5)	61.4 (4)	2.50
""",
}
TABLE_5 = {
    "Meta-Llama-3": """
Base	2975	595
SLiC-HF	2318 ↓	469 ↓
DPO	2665 ↓	602 ↑
IPO	2843 ↓	547 ↓
KTO	2776 ↓	543 ↓
ORPO	2551 ↓	523 ↓
SimPO	2533 ↓	527 ↓
BNF	2521 ↓	496 ↓
""",
    "Mistral-7B": """
Base	2832	507
SLiC-HF	3198 ↑	576 ↑
DPO	2655 ↓	509 ↑
IPO	3431 ↑	545 ↑
KTO	2813 ↓	504 ↓
ORPO	2913 ↑	524 ↑
SimPO	3214 ↑	521 ↑
BNF	2827 ↓	526 ↑
""",
}
TASKS = ("wild_bench", "arena_hard", "gsm8k", "math_l5", "crux", "mmlu_redux")
TOTALS = dict(zip(TASKS, (1024, 500, 1319, 721, 800, 2778), strict=True))
JUDGES = {"wild_bench": "gpt-4o-2024-05-13", "arena_hard": "gpt-4o-mini"}


def printed(block: str) -> dict[str, list[str]]:
    return {label: cells for label, *cells in (line.split("\t") for line in block.strip().splitlines())}


def write(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def result(task: str, model: str | None, metrics: dict, **fields) -> dict:
    """What `bnf-align eval score --json` prints; `fields` of the result, others of its provenance."""
    own = {key: fields.pop(key) for key in ("items", "dropped", "notes", "version") if key in fields}
    provenance = {"model": model, "template": "0123456789ab", "judge": JUDGES.get(task), "seed": 0, **fields}
    whole = {"items": [], "dropped": {}, "notes": [], "version": 1, **own}
    return {"task": task, "metrics": {"total": TOTALS[task], **metrics}, "provenance": provenance, **whole}


def ranking(task: str, models: dict, notes: tuple = (), **fields) -> dict:
    """What `bnf-align eval rank --json` prints; `fields` of each model's provenance."""
    about = {"template": "0123456789ab", "judge": JUDGES[task], **fields}
    found = {name: {"metrics": metrics, "rank": None, "provenance": about} for name, metrics in models.items()}
    return {"task": task, "version": 1, "provenance": {"seed": 42}, "notes": list(notes), "models": found}


def gsm8k(model: str | None, accuracy: float, **fields) -> dict:
    return result("gsm8k", model, {"accuracy": accuracy}, **fields)


def fill(folder: Path, blocks: dict[str, str]) -> dict[str, Path]:
    """Files of a whole Table 4, and the rows they belong to."""
    rows: dict[str, Path] = {}
    pools: dict[str, dict] = {"wild_bench": {}, "arena_hard": {}}
    for base, block in blocks.items():
        for label, cells in printed(block).items():
            elo, score, lc, wr, *accuracies = [float(cell.split()[0]) for cell in cells[:8]]
            model, home = f"{base}/{label}", folder / base / label.rstrip("%")
            pools["wild_bench"][model], pools["arena_hard"][model] = {"wb_elo": elo}, {"win_rate_lc": lc}
            write(home / "wb.json", result("wild_bench", model, {"wb_score": score}))
            write(home / "ah.json", result("arena_hard", model, {"win_rate": wr}, baseline="gpt-4-0314"))
            for task, accuracy in zip(TASKS[2:], accuracies, strict=True):
                write(home / f"{task}.json", result(task, model, {"accuracy": accuracy}))
            rows[f"{base}:{label}"] = home
    for task, models in pools.items():
        write(folder / f"rank_{task}.json", ranking(task, models))
    return rows


def rankings(folder: Path) -> list[Path]:
    return sorted(folder.glob("rank_*.json"))


def texts(table, base: str) -> dict[str, list[str]]:
    """Label -> cells as the paper prints them, of the user's own section `base`."""
    (section,) = [one for one in table.sections if one.title == base and not one.published]
    return {
        row.label: [
            cell.text + cell.marks + (f" ({cell.rank})" if cell.rank and cell.rank_shown else "") for cell in row.cells
        ]
        for row in section.rows
    }


def only(report, name: str):
    (table,) = [table for table in report.tables if table.name == name]
    return table


def column(table, name: str, group: str = "") -> int:
    return [(one.group, one.name) for one in table.columns].index((group, name))


# ------------------------------------------------------------------------------------------------ Tables 4, 5 and 6


@pytest.mark.parametrize(("name", "blocks"), [("4", TABLE_4), ("6", TABLE_6)])
def test_the_printed_numbers_give_the_printed_ranks_and_averages(tmp_path, name, blocks):
    rows = fill(tmp_path, blocks)
    table = only(build_report(rankings(tmp_path), rows, tables=[name]), name)
    for base, block in blocks.items():
        assert texts(table, base) == printed(block)
    best = {row.label for section in table.sections for row in section.rows if row.cells[-1].rank == 1}
    assert best == ({"BNF"} if name == "4" else {"100%"})


@pytest.mark.parametrize(("blocks", "ours"), [(TABLE_4, published.RESULTS), (TABLE_6, published.PAIRING)])
def test_the_paper_rows_are_the_printed_ones(blocks, ours):
    assert blocks.keys() == ours.keys()
    for base, block in blocks.items():
        plain = {label: [cell.split()[0] for cell in cells] for label, cells in printed(block).items()}
        assert published.numbers(ours[base]) == plain


def test_the_rows_of_table_6_are_the_base_and_the_percentages_in_order(tmp_path):
    rows = fill(tmp_path, TABLE_6)
    table = only(build_report([], dict(reversed(rows.items())), tables=["6"]), "6")
    assert [row.label for row in table.sections[0].rows] == ["Base", "0%", "25%", "50%", "100%"]


def test_the_printed_lengths_come_with_the_printed_arrows(tmp_path):
    rows = {}
    for base, block in TABLE_5.items():
        for label, cells in printed(block).items():
            wb, ah = (float(cell.split()[0]) for cell in cells)
            home = tmp_path / base / label
            write(home / "wb.json", result("wild_bench", label, {"average_length": wb + 0.2}))
            write(home / "ah.json", result("arena_hard", label, {"average_tokens": ah - 0.2}))
            rows[f"{base}:{label}"] = home
    table = only(build_report([], rows, published=True), "5")
    for base, block in TABLE_5.items():
        assert texts(table, base) == printed(block)
    paper = [
        {row.label: [cell.text for cell in row.cells] for row in section.rows}
        for section in table.sections
        if section.published
    ]
    assert paper == [printed(block) for block in TABLE_5.values()]


def test_numbers_that_print_alike_share_a_rank(tmp_path):
    files = [write(tmp_path / f"{n}.json", gsm8k(f"m{n}", value)) for n, value in enumerate((53.24, 53.16, 53.31))]
    table = only(build_report(files), "4")
    where = column(table, "Acc (%)", "GSM8K")
    assert [cells[where] for cells in texts(table, "").values()] == ["53.2 (2)", "53.2 (2)", "53.3 (1)"]


def test_a_half_is_rounded_up_as_the_paper_rounds(tmp_path):
    table = only(build_report([write(tmp_path / "a.json", gsm8k("m", 24.25))]), "4")
    assert texts(table, "")["m"][column(table, "Acc (%)", "GSM8K")] == "24.3"


def test_what_was_not_measured_is_said_so_and_leaves_the_average_rank(tmp_path):
    files = [write(tmp_path / f"{name}.json", gsm8k(name, value)) for name, value in (("a", 50.0), ("b", 60.0))]
    files.append(write(tmp_path / "c.json", gsm8k("c", 55.0)))
    files.append(write(tmp_path / "crux.json", result("crux", "a", {"accuracy": 10.0})))
    files += [write(tmp_path / f"m{name}.json", result("math_l5", name, {"accuracy": 5.0})) for name in "ac"]
    files.append(write(tmp_path / "wb.json", result("wild_bench", "b", {"wb_score": None, "wb_score_plain": 33.0})))
    table = only(build_report(files), "4")
    rows = texts(table, "")
    crux, score = column(table, "Acc (%)", "CRUX"), column(table, "Score", "Wild-Bench")
    assert rows["a"][crux] == "10.0"  # no rank: nothing to be ranked against
    assert rows["b"][crux] == rows["b"][score] == "not measured"
    assert [rows[name][-1] for name in "abc"] == ["3.00", "1.00", "2.00"]
    assert any("over 1 of 8 columns" in note for note in table.notes)


# ------------------------------------------------------------------------------------------- what may stand together


def test_our_own_wording_is_marked_and_never_stands_beside_a_published_number(tmp_path):
    files = [
        write(tmp_path / "a.json", gsm8k("a", 70.0, template="ours:0123456789ab")),
        write(tmp_path / "b.json", result("crux", "a", {"accuracy": 40.0})),
    ]
    table = only(build_report(files, published=True), "4")
    mine, gsm, crux = texts(table, "")["a"], column(table, "Acc (%)", "GSM8K"), column(table, "Acc (%)", "CRUX")
    assert mine[gsm] == "70.0†"
    assert mine[crux] == "40.0"
    paper = [row for section in table.sections if section.published for row in section.rows]
    assert len(paper) == 20
    assert {row.cells[gsm].text for row in paper} == {WITHHELD}
    assert {row.cells[-1].text for row in paper} == {WITHHELD}  # its average rank is over the hidden column too
    assert [row.cells[crux].text for row in paper[:2]] == ["38.1", "33.9"]
    assert any(note.startswith("†") for note in table.notes)
    assert any("GSM8K" in note and "own wording" in note for note in table.notes)


@pytest.mark.parametrize(
    ("changes", "mark", "reason"),
    [
        ({"template": "ours:0123456789ab"}, "†", "own wording"),
        ({"judge_template": "ours:0123456789ab"}, "†", "own wording"),
        ({"follow_up": "ours:0123456789ab"}, "†", "own wording"),
        ({"template": None}, "‡", "does not say its wording"),
        ({"judge": "gpt-4o"}, "", "the judge of yours is gpt-4o, the paper's gpt-4o-mini"),
        ({"judge": None}, "", "the judge of yours is not recorded"),
    ],
)
def test_the_paper_win_rate_is_hidden_beside_one_made_otherwise(tmp_path, changes, mark, reason):
    found = result("arena_hard", "a", {"win_rate": 50.0}, **changes)
    table = only(build_report([write(tmp_path / "a.json", found)], published=True), "4")
    where = column(table, "WR (%)", "Arena-Hard")
    assert texts(table, "")["a"][where] == f"50.0{mark}"
    assert table.sections[-1].rows[0].cells[where].text == WITHHELD
    assert any("Arena-Hard WR" in note and reason in note for note in table.notes)


def test_another_model_of_the_judge_family_is_another_judge(tmp_path):
    found = result("wild_bench", "a", {"wb_score": 50.0}, judge="gpt-4o-mini")
    table = only(build_report([write(tmp_path / "a.json", found)], published=True), "4")
    assert table.sections[-1].rows[0].cells[column(table, "Score", "Wild-Bench")].text == WITHHELD


def test_a_dated_version_of_the_paper_judge_is_the_paper_judge(tmp_path):
    found = result("arena_hard", "a", {"win_rate": 50.0}, judge="gpt-4o-mini-2024-07-18")
    table = only(build_report([write(tmp_path / "a.json", found)], published=True), "4")
    assert table.sections[-1].rows[0].cells[column(table, "WR (%)", "Arena-Hard")].text == "54.5"


def test_a_part_of_the_items_is_marked_and_hides_the_published_number(tmp_path):
    found = result("gsm8k", "a", {"accuracy": 50.0, "total": 100})
    table = only(build_report([write(tmp_path / "a.json", found)], published=True), "4")
    where = column(table, "Acc (%)", "GSM8K")
    assert texts(table, "")["a"][where] == "50.0§"
    assert table.sections[-1].rows[0].cells[where].text == WITHHELD


def test_what_depends_on_a_pool_is_never_shown_beside_the_paper(tmp_path):
    rows = fill(tmp_path, {"Gemma-2-9b-It": TABLE_4["Gemma-2-9b-It"]})
    table = only(build_report(rankings(tmp_path), rows, published=True), "4")
    paper = [row for section in table.sections if section.published for row in section.rows]
    for name, group in (("Elo", "Wild-Bench"), ("LC (%)", "Arena-Hard")):
        assert {row.cells[column(table, name, group)].text for row in paper} == {WITHHELD}
    assert paper[0].cells[column(table, "Score", "Wild-Bench")].text == "29.2"


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"template": "ours:0123456789ab"}, "wording"), ({"version": 2}, "task version"), ({"judge": "x"}, "judge")],
)
def test_numbers_made_differently_are_not_ranked_and_the_table_says_in_what_they_differ(tmp_path, changes, named):
    files = [
        write(tmp_path / "a.json", result("arena_hard", "a", {"win_rate": 50.0})),
        write(tmp_path / "b.json", result("arena_hard", "b", {"win_rate": 60.0}, **changes)),
    ]
    table = only(build_report(files), "4")
    where = column(table, "WR (%)", "Arena-Hard")
    assert [row.cells[where].rank for row in table.sections[0].rows] == [None, None]
    assert any("Arena-Hard WR is not ranked" in note and named in note for note in table.notes)


def test_methods_are_ranked_within_their_base_model(tmp_path):
    rows = {f"{base}:m": write(tmp_path / f"{base}.json", gsm8k(base, 50.0)) for base in ("one", "two")}
    table = only(build_report([], rows), "4")
    assert [section.title for section in table.sections] == ["one", "two"]
    assert [cell.rank for section in table.sections for cell in section.rows[0].cells] == [None] * 18


# ------------------------------------------------------------------------------------------------------- Table 1, 3


def test_table_1_lists_a_pool_best_first_and_pools_apart(tmp_path):
    files = [
        write(tmp_path / "one.json", ranking("wild_bench", {"a": {"wb_elo": 1131.4}, "b": {"wb_elo": 1153.5}})),
        write(tmp_path / "two.json", ranking("wild_bench", {"a": {"wb_elo": 900.0}, "c": {"wb_elo": None}})),
    ]
    table = only(build_report(files), "1")
    rows = [[(row.label, row.cells[0].text) for row in section.rows] for section in table.sections]
    assert rows == [[("b", "1154"), ("a", "1131")], [("a", "900")]]


@pytest.mark.parametrize(("template", "shown"), [("0123456789ab", True), ("ours:0123456789ab", False)])
def test_the_paper_elo_list_is_a_pool_of_its_own_and_hidden_from_our_wording(tmp_path, template, shown):
    file = write(tmp_path / "one.json", ranking("wild_bench", {"a": {"wb_elo": 1131.4}}, template=template))
    table = only(build_report([file], published=True), "1")
    assert table.sections[-1].published is shown
    if shown:
        assert [row.cells[0].text for row in table.sections[-1].rows][:3] == ["1237", "1216", "1186"]


def test_what_a_ranking_says_of_itself_stands_under_table_1(tmp_path):
    file = write(tmp_path / "one.json", ranking("wild_bench", {"a": {"wb_elo": 1000.0}}, notes=("no anchor",)))
    assert "no anchor" in only(build_report([file]), "1").notes


def test_numbers_without_a_result_of_their_own_come_from_the_ranking(tmp_path):
    files = [
        write(tmp_path / "rank.json", ranking("wild_bench", {"a": {"wb_elo": 1131.4, "wb_score": 29.2, "total": 9}})),
        write(tmp_path / "a.json", gsm8k("a", 50.0)),
    ]
    table = only(build_report(files), "4")
    assert texts(table, "")["a"][:2] == ["1131§", "29.2§"]


def test_one_model_in_two_pools_is_refused(tmp_path):
    files = [
        write(tmp_path / f"{elo}.json", ranking("wild_bench", {"a": {"wb_elo": elo}})) for elo in (1000.0, 1100.0)
    ]
    with pytest.raises(BadInput, match="two rankings of wild_bench"):
        build_report([*files, write(tmp_path / "r.json", gsm8k("a", 50.0))])


def test_table_3_counts_turns_and_characters():
    user, other = {"role": "user", "content": "abcd"}, {"role": "assistant", "content": "efghij"}
    last = {"role": "user", "content": "ab"}
    cells = conversation_cells([[user], [user, other, last]])
    assert [cell.text for cell in cells] == ["2", "≤2", "✓", "3", "8"]
    assert [cell.text for cell in conversation_cells([[user]])] == ["1", "1", "×", "4", "4"]


def test_table_3_of_arena_hard_is_that_of_the_paper():
    data = os.environ.get("BNF_ALIGN_DATA")
    if not data:
        pytest.skip("BNF_ALIGN_DATA does not name the folder of public data")
    questions = Path(data) / "arena_hard" / "question_v0.1.jsonl.gz"
    table = only(build_report([], data={"arena_hard": questions}, published=True), "3")
    mine, paper = ([cell.text for cell in section.rows[0].cells] for section in table.sections)
    assert mine[:7] == paper[:7] == ["500", "1", "×", "406", "406", "✓", "Pair"]
    assert [cell.text for cell in table.sections[0].rows[1].cells[:5]] == ["not measured"] * 5


# ---------------------------------------------------------------------------------------------------------- Table 7


def run_json(folder: Path, model: str, loss: str, **fields) -> Path:
    arguments = {"output_dir": str(folder)}
    record = {"model": model, "loss_type": loss, "arguments": arguments, "devices": 8, "train_seconds": 900.0}
    return write(folder / "run.json", {**record, "peak_memory_bytes": 3 * 2**30, "seed": 1, "plan": None, **fields})


PLAN = {
    "memory_bytes": {"total": 2**31},
    "flops": {"training": 3.0, "reference_pass": 1.0},
    "workload": {},
    "devices": 8,
    "hours": {"wall": 1.0, "device": 8.0, "utilisation": 0.4},
}


def test_table_7_has_plan_and_measurement_side_by_side_and_the_total(tmp_path):
    files = [run_json(tmp_path / "a", "base", "dpo", plan=PLAN), run_json(tmp_path / "b", "base", "bnf")]
    table = only(build_report(files, published=True), "7")
    rows = texts(table, "base")
    # 900 s on 8 devices are 2 hours; of 8 planned hours a quarter is the reference pass, which the run does not time.
    assert rows["DPO"] == ["8", "6.00", "2.00", "900", "2.00", "3.00"]
    assert rows["BNF"] == ["8", "not planned", "2.00", "900", "not planned", "3.00"]
    assert rows["Total of 2 runs"] == ["", "", "4.00", "", "", ""]
    assert [row.cells[2].text for row in table.sections[-1].rows] == ["40", "600", "40", "480", "56", "700"]


def test_a_plan_with_hours_may_come_from_the_command(tmp_path):
    run = run_json(tmp_path / "a", "base", "bnf", plan={**PLAN, "hours": None})
    write(tmp_path / "a" / "plan.json", PLAN)
    assert texts(only(build_report([], {"BNF": run.parent}), "7"), "")["BNF"][1] == "6.00"


# ------------------------------------------------------------------------------------------------------------- tax


def verdicts(right: int, total: int, skip: int = 0, **fields) -> dict:
    items = [{"id": str(n), "correct": n < right} for n in range(skip, total)]
    return result("gsm8k", None, {"accuracy": 0.0}, items=items, **fields)


def tax_of(tmp_path: Path, base: dict, other: dict):
    rows = {"L:Base": write(tmp_path / "base.json", base), "L:m": write(tmp_path / "m.json", other)}
    table = only(build_report([], rows), "tax")
    return table, table.sections[0].rows[0].cells[column(table, "Acc (%)", "GSM8K")]


def test_the_tax_is_method_minus_base_with_the_paired_interval(tmp_path):
    table, cell = tax_of(tmp_path, verdicts(80, 100), verdicts(70, 100))
    expected = compare({str(n): n < 70 for n in range(100)}, {str(n): n < 80 for n in range(100)})
    low, high = (100 * end for end in expected.interval)
    assert cell.value == pytest.approx(-10)
    assert cell.text == f"−10.0* [−{-low:.1f}, −{-high:.1f}]"
    assert [row.label for row in table.sections[0].rows] == ["m"]


def test_a_question_without_an_answer_counts_as_wrong_in_the_tax(tmp_path):
    silent = verdicts(80, 100)
    for item in silent["items"][:10]:
        item["correct"] = None
    _, cell = tax_of(tmp_path, verdicts(80, 100), silent)
    assert cell.value == pytest.approx(-10)


def test_only_shared_items_are_paired_and_the_others_are_counted(tmp_path):
    table, cell = tax_of(tmp_path, verdicts(80, 100), verdicts(80, 100, skip=40))
    assert cell.text == "0.0 [0.0, 0.0]"
    assert any("40 items of GSM8K" in note for note in table.notes)


def test_another_wording_than_the_base_is_not_compared(tmp_path):
    table, cell = tax_of(tmp_path, verdicts(80, 100), verdicts(70, 100, template="ours:0123456789ab"))
    assert cell.text == "not comparable"
    assert any("differ in wording" in note for note in table.notes)


# --------------------------------------------------------------------------------------------------- whose number


def test_runs_name_the_rows_of_their_models_and_find_the_base(tmp_path):
    files = [
        run_json(tmp_path / "dpo", "org/base", "dpo"),
        run_json(tmp_path / "bnf", "org/base", "bnf"),
        write(tmp_path / "1.json", gsm8k(str(tmp_path / "bnf"), 70.0)),
        write(tmp_path / "2.json", gsm8k(f"{tmp_path}/dpo/", 60.0)),
        write(tmp_path / "3.json", gsm8k("org/base", 80.0)),
        write(tmp_path / "4.json", gsm8k("stranger", 10.0)),
    ]
    table = only(build_report(files), "4")
    where = column(table, "Acc (%)", "GSM8K")
    assert {label: cells[where] for label, cells in texts(table, "org/base").items()} == {
        "Base": "80.0 (1)",
        "BNF": "70.0 (2)",
        "DPO": "60.0 (3)",
    }
    assert next(iter(texts(table, "org/base"))) == "Base"
    assert list(texts(table, "Other models")) == ["stranger"]


def test_two_runs_of_one_loss_are_called_by_their_folders(tmp_path):
    files = [run_json(tmp_path / f"seed-{seed}", "base", "bnf") for seed in (0, 1)]
    assert list(texts(only(build_report(files), "7"), "base"))[:2] == ["seed-0", "seed-1"]


def test_a_folder_gives_its_results_and_passes_over_what_is_something_else(tmp_path):
    write(tmp_path / "in" / "deep" / "gsm.json", gsm8k("m", 50.0))
    write(tmp_path / "in" / "tokenizer.json", {"model": {}})
    (tmp_path / "in" / "odd.json").write_text("{ not json")
    report = build_report([tmp_path / "in"])
    assert list(texts(only(report, "4"), "")) == ["m"]
    assert [source.what for source in report.sources] == ["result gsm8k, version 1", "not read"]
    assert [source.file for source in report.sources] == [
        str(tmp_path / "in" / "deep" / "gsm.json"),
        str(tmp_path / "in" / "odd.json"),
    ]


def test_a_file_of_a_folder_that_was_cut_short_is_named(tmp_path, caplog):
    """Its numbers would read "not measured", which is another thing."""
    whole = write(tmp_path / "whole.json", gsm8k("m", 50.0))
    (tmp_path / "cut.json").write_text(whole.read_text()[:-20])
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    build_report([tmp_path])
    assert [record.message for record in caplog.records if "cut.json is not a JSON file" in record.message]
    assert "config.json" not in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{ not json", "is not a JSON file"),
        ('{"a": 1}', "is not what a report is made from"),
        ("[1, 2]", "is not what a report is made from"),
        (json.dumps({"task": "gsm8k", "version": 1, "metrics": []}), "'metrics' is not what `bnf-align eval score"),
        (json.dumps({"task": "wild_bench", "models": {"a": 3}}), "'a' is not what `bnf-align eval rank"),
        (json.dumps({**gsm8k("m", 50.0), "items": ["a"]}), "'items' is not what"),
        (json.dumps({"loss_type": "bnf", "train_seconds": None, "arguments": {}}), "'train_seconds' is not what"),
        (json.dumps(gsm8k("m", float("nan"))), "accuracy is nan"),
        (json.dumps({**gsm8k("m", 0), "metrics": {"accuracy": "78"}}), "accuracy is 78, not a finite number"),
        (json.dumps(gsm8k(None, 50.0)), "--rows NAME="),
        (json.dumps(PLAN), "--rows NAME="),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(tmp_path, content, message):
    path = tmp_path / "file.json"
    path.write_text(content)
    with pytest.raises(BadInput, match=re.escape(message)) as error:
        build_report([path])
    assert str(path) in str(error.value)


def test_two_numbers_for_one_cell_are_refused_and_the_same_file_twice_is_not(tmp_path):
    one, other = (write(tmp_path / f"{value}.json", gsm8k("m", value)) for value in (50.0, 60.0))
    with pytest.raises(BadInput, match=r"has two results of gsm8k: .*50\.0\.json and .*60\.0\.json.* --rows"):
        build_report([one, other])
    assert len(build_report([one, one, tmp_path / "50.0.json"]).sources) == 1


def test_a_base_that_no_result_is_of_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(BadInput, match="There are m"):
        build_report([write(tmp_path / "a.json", gsm8k("m", 50.0))], base="n")


def test_every_file_stands_in_the_sources_with_what_made_it(tmp_path):
    found = gsm8k("m", 50.0, command="bnf-align eval run --model m", dropped={"no gold": ["1", "2"]}, notes=["said"])
    (source,) = build_report([], {"L:m": write(tmp_path / "a.json", found)}).sources
    assert source.texts() == {
        "rows": "L:m",
        "what": "result gsm8k, version 1",
        "model": "m",
        "wording": "0123456789ab",
        "judge": "",
        "seed": "0",
        "left out": "2: no gold",
        "notes": "said",
        "file": str(tmp_path / "a.json"),
        "command": "bnf-align eval run --model m",
    }


# ---------------------------------------------------------------------------------------------------------- formats

EVIL = (
    '</td><script>alert("1")</script><img src=x onerror=y> | **a** [b](javascript:c) '
    "\\input{d} $e$ 5% f_g\n#h ~^{ &amp;"
)


@pytest.fixture
def evil(tmp_path):
    files = [
        write(tmp_path / "a.json", gsm8k(EVIL, 50.0, command=EVIL, notes=[EVIL], template="ours:0123456789ab")),
        write(tmp_path / "b.json", gsm8k("b", 40.0, template="ours:0123456789ab")),
        write(tmp_path / "c.json", ranking("wild_bench", {EVIL: {"wb_elo": 1000.0}})),
        run_json(tmp_path / "run", f"x{EVIL}", EVIL),
    ]
    return build_report(files, published=True, command=EVIL)


class Page(HTMLParser):
    """Tags that are open, every tag and attribute seen, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.rows: list[int] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "tr":
            self.rows.append(0)
        if tag in ("td", "th"):
            self.rows[-1] += int(dict(attrs).get("colspan", 1))
        if tag not in ("meta", "link", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_is_whole_and_shows_foreign_text_as_text(evil):
    text = render(evil, "html")
    page = Page(text)
    assert page.open == []
    assert page.tags.isdisjoint({"img", "iframe", "object", "embed", "base"})
    assert (text.count("<script>"), text.count("<style>")) == (1, 1)
    assert page.attributes.isdisjoint({"src", "onerror", "style"})
    assert set(re.findall(r'href="([^"]{0,5})', text)) == {"#verd", "data:", *re.findall(r'href="(#[^"]{0,4})', text)}
    assert " ".join(page.text.split()).count(" ".join(EVIL.split())) >= 5
    assert not re.search("https?:", text)


def test_best_is_bold_second_underlined_and_the_rank_follows(evil):
    assert re.search(r"<b>50\.0</b>†\s*<span class=\"rank\">\(1\)", render(evil, "html"))
    assert "<u>40.0</u>" in render(evil, "html")
    assert "**50.0**† (1)" in render(evil)
    assert r"\textbf{50.0}\textdagger{} (1)" in render(evil, "latex")
    assert r"\underline{40.0}\textdagger{} (2)" in render(evil, "latex")


def test_latex_is_balanced_and_every_line_has_all_columns(evil):
    text = render(evil, "latex")
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    body = "\n".join(lines)
    bare = re.sub(r"\\[\\{}$&#%_]", "", body)
    assert bare.count("{") == bare.count("}")
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert bare.count("$") % 2 == 0
    assert not re.search(r"[#%~^|<>]", bare)
    assert r"\input" not in body
    for name in ("table", "tabular"):
        assert body.count(rf"\begin{{{name}}}") == body.count(rf"\end{{{name}}}") == len(evil.tables)
    for table, block in zip(evil.tables, body.split(r"\end{tabular}"), strict=False):
        for line in block.splitlines():
            if line.endswith(r"\\") and r"\multicolumn" not in line:
                assert len(re.findall(r"(?<!\\)&", line)) == len(table.columns)


def test_every_markdown_row_has_all_columns_and_no_markup_of_its_own(evil):
    text = render(evil)
    blocks = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    assert len(blocks) == len(evil.tables) + 1
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    assert not re.search(r"<(?!/?ins>)", text)
    assert not re.search(r"(?<!\\)\]\(", text)


# ------------------------------------------------------------------------------------------------- the command line


def test_what_eval_rank_and_eval_score_print_makes_the_tables(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for model, scores in (("good", (9, 8, 9)), ("weak", (2, 3, 6))):
        rows = [
            {"session_id": f"s{n}", "model": model, "score": score, "model_output": "x" * 10, "primary_tag": "Math"}
            for n, score in enumerate(scores)
        ]
        Path(f"{model}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("anchors.json").write_text('{"weak": 1000}')
    commands = {
        "rank": ["rank", "good.jsonl", "weak.jsonl", "--anchors", "anchors.json"],
        "good": ["score", "good.jsonl"],
        "weak": ["score", "weak.jsonl"],
    }
    for name, words in commands.items():
        assert main(["eval", *words, "--task", "wild_bench", "--json"]) == 0
        Path(f"{name}.json").write_text(capsys.readouterr().out)
    report = build_report([f"{name}.json" for name in commands])
    assert [row.label for row in only(report, "1").sections[0].rows] == ["good", "weak"]
    cells = texts(only(report, "4"), "")
    assert [re.sub(r"^\d+", "", cells[name][0]) for name in ("good", "weak")] == ["‡§ (1)", "‡§ (2)"]
    assert texts(only(report, "5"), "")["good"][0] == "10§"


@pytest.mark.parametrize(
    ("name", "start"), [("r.md", "## "), ("r.html", "<!doctype html>"), ("r.tex", "% Needs"), ("r.csv", "table,")]
)
def test_the_file_has_the_format_of_its_name(tmp_path, capsys, name, start):
    file = write(tmp_path / "a.json", gsm8k("m", 50.0))
    assert main(["report", str(file), "--out", str(tmp_path / "out" / name)]) == 0
    assert (tmp_path / "out" / name).read_text().startswith(start)
    assert capsys.readouterr().out == f"{tmp_path / 'out' / name}: Table 4: Benchmark results\n"
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]


def test_the_tables_come_as_json_too(tmp_path, capsys):
    write(tmp_path / "x" / "a.json", gsm8k("m", 50.0))
    assert main(["report", "--rows", f"L:BNF={tmp_path / 'x'}", "--table", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tables"][0]["sections"][0]["title"] == "L"
    assert found["tables"][0]["sections"][0]["rows"][0]["cells"][4]["value"] == 50.0
    assert found["command"].startswith("bnf-align report --rows")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to show"),
        (["FILE", "--table", "1"], "Table 1 has nothing to show: it needs a ranking"),
        (["FILE", "--table", "4", "6"], "Table 6 has nothing to show"),
        (["--rows", "FILE"], "--rows"),
        (["--rows", "a=FILE", "a=FILE"], "names 'a' twice"),
        (["--data", "gsm8k=FILE"], "Table 3 is about"),
        (["missing.json"], "missing.json does not exist"),
    ],
)
def test_what_cannot_be_shown_ends_with_status_2_and_a_reason(tmp_path, capsys, arguments, message):
    file = write(tmp_path / "a.json", gsm8k("m", 50.0))
    assert main(["report", *(word.replace("FILE", str(file)) for word in arguments)]) == 2
    assert message in capsys.readouterr().err
