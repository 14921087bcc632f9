"""The page of a report: its values are those of the records, and what people and models wrote stays text."""

import base64
import csv
import hashlib
import html
import io
import json
import re
import socket
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bnf_align.cli.main import main
from bnf_align.records import BadInput
from bnf_align.report import build_report, render, write_page
from bnf_align.report.answers import LONGEST, marked
from bnf_align.report.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, line_chart
from bnf_align.report.watch import watching
from bnf_align.visitors import from_here
from report_folder import (
    HOSTILE,
    HOSTILE_SVG,
    card,
    estimate,
    health,
    quickstart,
    run,
    samples,
    summary,
    tokens,
    whole,
    write,
)
from test_report import gsm8k, only, texts
from tiny_models import plain_tokenizer
from tiny_nets import tiny_llama


def page_of(*folders, **options) -> str:
    return render(build_report(folders, **options), "html")


def text_of(page: str) -> str:
    """What is read: no tags, no scripts, one space between words."""
    bare = re.sub(r"<(style|script)>.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", bare)).split())


def part(page: str, name: str) -> str:
    """The section of that name."""
    return re.search(rf'<section id="{name}".*?</section>', page, re.DOTALL)[0]


def headline(page: str) -> str:
    return html.unescape(re.search(r'<h1 id="headline">(.*?)</h1>', page)[1]).replace("\xa0", " ")


def download(page: str, name: str) -> list[list[str]]:
    """The rows of the first CSV file of that name."""
    data = re.search(rf'download="{name}" href="data:text/csv;charset=utf-8;base64,([^"]*)"', page)[1]
    return list(csv.reader(io.StringIO(base64.b64decode(data).decode())))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return whole(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def page(folder):
    return page_of(folder)


# ------------------------------------------------------------------------------------------------------- the verdict


def comparison(real=True, seeds=5) -> dict:
    """A compare.json in which `bnf` gains 20 points and `dpo` loses 5, or nothing is real."""

    def value(mean):
        return {"values": {"math accuracy": {"mean": mean, "low": mean - 2, "high": mean + 2, "by_seed": [mean]}}} | {
            "ranks": {"math accuracy": 1},
            "average_rank": 1.0,
            "answers": {},
        }

    tuned = {"chosen": {"learning_rate": 1e-4}, "grid": [{"settings": {}, "validation": 0.5}], "diverged": []} | {
        **{"runs": 2, "seconds": 3.0, "tokens": 4, "tokens_of_a_run": [4]}
    }
    gaps = [("bnf", "base", 20.0), ("dpo", "base", -5.0), ("dpo", "bnf", -25.0)]
    return {
        "seeds": list(range(seeds)),
        "tuning_seeds": 1,
        "chosen_by": "math",
        "chosen_on": 30,
        "measures": [
            {"name": "math accuracy", "unit": "%", "scale": 100, "digits": 1, "prompts": 600, "tax": False},
        ],
        "methods": {"base": value(50.0) | {"validation": 0.5}, "bnf": value(70.0) | tuned, "dpo": value(45.0) | tuned},
        "differences": [
            {"measure": "math accuracy", "first": first, "second": second, "difference": gap}
            | {"low": gap - 3, "high": gap + 3, "p_value": 0.01, "p_holm": 0.01 if real else 0.2, "real": real}
            for first, second, gap in gaps
        ],
        "tax": [],
    }


def test_the_verdict_comes_first_and_says_what_became_better_from_where_to_where(page):
    assert page.index('id="verdict"') < page.index('id="changes"') < page.index('id="training"')
    assert headline(page) == (
        "Better at math sampled (50.0 → 75.0 %); no difference found in sort sampled; "
        "nothing that was measured got worse. The training looks healthy."
    )
    assert f"<title>{html.escape(headline(page))}</title>" in page.replace("\xa0", " ")
    verdict = text_of(part(page, "verdict"))
    assert "math sampled +25.0 [+20.0, +30.0] points" in verdict
    assert "sort sampled +1.0 [−2.0, +4.0] points" in verdict
    assert "One seed was trained (3)" in verdict
    assert "logps" not in verdict  # a likelihood is neither better nor worse


def test_what_fell_is_worse_and_a_red_training_is_not_to_be_trusted(tmp_path):
    write(tmp_path / "quickstart.json", quickstart(better=(-0.25, -0.3, -0.2)))
    write(tmp_path / "run.json", run(health="red", verdict="It collapsed."))
    page = page_of(tmp_path)
    assert headline(page).startswith("Worse at math sampled (50.0 → 25.0 %); no difference found in sort sampled.")
    assert headline(page).endswith("The training is red: do not trust it as it is.")
    assert "■ It collapsed." in text_of(part(page, "verdict"))


def test_several_methods_are_named_by_what_each_became_better_and_worse_at(tmp_path):
    write(tmp_path / "compare.json", comparison())
    page = page_of(tmp_path)
    assert headline(page) == "Better at math accuracy with BNF; worse at math accuracy with DPO."
    verdict = text_of(part(page, "verdict"))
    assert "math accuracy · BNF +20.0 [+17.0, +23.0] points" in verdict
    assert "math accuracy · DPO −5.0 [−8.0, −2.0] points" in verdict
    assert "5 seeds were trained and measured: math accuracy on 600 prompts." in verdict
    assert "The health of the training is not recorded." in verdict
    assert "50.0 [48.0, 52.0]" in text_of(part(page, "changes"))


def test_where_no_difference_is_real_none_is_claimed_and_few_seeds_are_said(tmp_path):
    write(tmp_path / "compare.json", comparison(real=False, seeds=3))
    page = page_of(tmp_path)
    assert headline(page) == "No difference found in math accuracy; nothing that was measured got worse."
    assert "Fewer than 5: another seed may come out otherwise." in text_of(part(page, "verdict"))


def test_what_was_not_measured_is_said_to_be_not_measured(tmp_path):
    write(tmp_path / "run.json", run())
    page = page_of(tmp_path)
    assert headline(page) == "Whether answers became better was not measured. The training looks healthy."
    assert text_of(part(page, "verdict")).count("not measured") >= 3
    assert 'id="changes"' not in page


def test_the_worst_of_many_trainings_is_named(tmp_path):
    for number in range(5):
        write(tmp_path / f"run-{number}" / "run.json", run(health="amber" if number == 3 else "green"))
    verdict = text_of(part(page_of(tmp_path), "verdict"))
    assert "Health of 5 trainings: 4 green, 1 amber (run-3)." in verdict
    assert "1 of 5 trainings is amber: look at answers before you trust it." in verdict


def test_the_headline_judges_the_trainings_that_it_speaks_of_and_the_list_all(tmp_path):
    write(tmp_path / "quickstart.json", quickstart())
    for loss, colour in (("bnf", "green"), ("sft", "green"), ("kto", "green"), ("dpo", "red")):
        write(tmp_path / loss / "run.json", run(loss, health=colour))
    page = page_of(tmp_path)
    assert headline(page).endswith("The training looks healthy.")
    assert "■ Health of 4 trainings: 3 green, 1 red (dpo)." in text_of(part(page, "verdict"))


# -------------------------------------------------------------------------------------------- values of the records


def test_the_values_of_every_record_are_on_the_page(page):
    words = {
        "changes": ["50.0 [45.0, 55.0]", "75.0 [70.0, 80.0]", "log-probability of down", "−0.250 [−0.300, −0.200]"],
        "training": ["healthy", "chosen", "amber below −0.01", "red below −0.2"],
        "data": [
            *("rows 12", "ups 5", "downs 4", "left out: the completion is empty 3", "answers cut at max_length 2"),
            *("left out: all candidates are alike 6", "probability 0.62", "an earlier row is repeated", "p95 20"),
        ],
        "costs": ["BNF (model) 12.5 1,234 56 988", "Training costs", "arithmetic of fine-tuning on the same answers"],
        "repeat": ["learning_rate 0.0003", "python 3.12.1", "torch 2.9.9", "seed 7", "abc123", "not recorded"],
        "claims": ["it is fast", "> 0.5", "yes"],
        "answers": ["question 60", "60 prompts."],
        "tokens": ["2 of 2 responses", "2 + 2?"],
        "figures": ["Figure 1.", "Figure 2.", "Figure 3.", "Figure 4."],
    }
    for name, found in words.items():
        text = text_of(part(page, name))
        for one in found:
            assert one in text, (name, one)


def test_before_and_after_lie_where_their_values_and_intervals_do(page):
    # From 45 to 93 with 4 % of that on either side: 43.08 to 94.92.
    place = {value: round((value - 43.08) / 51.84 * 100, 1) for value in (45, 50, 55, 70, 75, 80)}
    row = re.findall(r'<div class="plot-row">.*?</div>', part(page, "changes"), re.DOTALL)[0]
    assert "before 50.0 [45.0, 55.0], after 75.0 [70.0, 80.0] %" in row
    for which, low, mean, high in (("before", 45, 50, 55), ("after", 70, 75, 80)):
        assert f'<line class="whisker {which}" x1="{place[low]}%" x2="{place[high]}%"' in row
        assert f'<circle class="spot {which}" cx="{place[mean]}%"' in row


def test_arguments_that_were_left_out_are_not_shown(page):
    assert "beta" not in text_of(part(page, "repeat"))


def test_runs_on_the_same_rows_share_a_report_of_the_data(tmp_path):
    for loss in ("bnf", "kto"):
        write(tmp_path / loss / "run.json", run(loss))
    other = {"train": run()["data"]["train"] | {"rows": 99}}
    write(tmp_path / "dpo" / "run.json", run("dpo", data=other))
    data = text_of(part(page_of(tmp_path), "data"))
    assert "BNF, KTO: train rows thumbs.jsonl · 2 runs rows 12" in data
    assert f"DPO: train rows thumbs.jsonl · {tmp_path / 'dpo'} rows 99" in data


def test_a_command_that_is_recorded_is_shown(tmp_path):
    write(tmp_path / "run.json", run(command="bnf-align train --config recipe.yaml"))
    assert "bnf-align train --config recipe.yaml" in text_of(part(page_of(tmp_path), "repeat"))


def test_curves_hold_the_logged_values_and_end_where_they_end(page):
    rows = download(page, "curves.csv")
    lines = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    assert [float(line["loss"]) for line in lines] == [-0.1, -0.2, -0.1 * 3, -0.4]
    assert [line["colour"] for line in lines] == ["green", "green", "amber", "red"]
    alt = "Log-ratio to the reference (nats per token) from step 5 to 20: chosen ends at 0.03; rejected ends at −0.3."
    assert f'aria-label="{alt}"' in part(page, "training")
    assert re.findall(r'<rect class="strip (\w+)"', part(page, "training"))[:3] == ["green", "amber", "red"]


def test_a_line_goes_through_its_points_and_breaks_where_a_value_is_not_finite():
    history = [
        {"step": step, "loss": loss}
        for step, loss in ((0, 0.0), (10, 1.0), (20, float("nan")), (30, 0.5), (40, 1.0), (50, None), (100, 0.25))
    ]
    picture = line_chart("Loss", "nats", history, {"loss": "loss", "absent": "absent"})
    (line,) = picture.lines
    across = {step: LEFT + step / 100 * (WIDTH - RIGHT - LEFT) for step in (0, 10, 30, 40, 100)}
    up = {y: HEIGHT - BOTTOM - (y + 0.04) / 1.08 * (HEIGHT - BOTTOM - TOP) for y in (0.0, 0.25, 0.5, 1.0)}
    assert [[tuple(map(float, point.split(","))) for point in path.split()] for path in line.paths] == [
        [(round(across[0], 1), round(up[0.0], 1)), (round(across[10], 1), round(up[1.0], 1))],
        [(round(across[30], 1), round(up[0.5], 1)), (round(across[40], 1), round(up[1.0], 1))],
    ]
    assert line.dots == [(round(across[100], 1), round(up[0.25], 1))]
    assert line.last == "0.25"
    assert line_chart("Loss", "nats", history, {"absent": "absent"}) is None
    assert line_chart("Loss", "nats", [{"step": 1, "loss": float("inf")}], {"loss": "loss"}) is None


def test_a_run_that_is_still_training_says_how_far_it_is(tmp_path):
    write(tmp_path / "health.json", health(finished=False, steps=2))
    page = page_of(tmp_path)
    assert headline(page) == "Training is at step 10 of 20. The training looks healthy."
    assert '<progress value="10" max="20">' in page


def test_marked_words_are_those_that_the_other_side_lacks_and_the_texts_are_whole():
    before, after = marked("it is  five\n apples ", "so it is four\n apples")
    assert "".join(text for text, _ in before) == "it is  five\n apples "
    assert "".join(text for text, _ in after) == "so it is four\n apples"
    assert [text.strip() for text, new in before if new and text.strip()] == ["five"]
    assert [text.strip() for text, new in after if new] == ["so", "four"]


def test_answers_know_what_became_of_them_where_the_record_does(page, tmp_path):
    outcomes = re.findall(r'<article class="sample" data-number="(\d+)" data-outcome="(\w+)">', page)
    assert "<h4>Before</h4><p>it is<del> five</del></p>" in page
    assert "<h4>After</h4><p>it is<ins> four</ins></p>" in page
    assert outcomes[:4] == [("1", "better"), ("2", "worse"), ("3", "same"), ("4", "better")]
    assert 'value="worse"' in part(page, "answers")
    write(tmp_path / "samples.jsonl", json.dumps({"prompt": "p", "before": "b", "after": "a"}) + "\n")
    unknown = part(page_of(tmp_path), "answers")
    assert "data-outcome" not in unknown
    assert 'name="outcome"' not in unknown


def test_a_prompt_without_a_before_or_not_yet_an_after_is_counted_and_not_compared(tmp_path):
    rows = [{"prompt": "p", "before": "b", "after": "a"}, {"prompt": "q", "before": None, "after": "a"}]
    rows += [{"prompt": "r", "before": "b"}]
    write(tmp_path / "samples.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    shown = text_of(part(page_of(tmp_path), "answers"))
    assert shown.startswith("Answers side by side 1 prompt.")
    assert "2 more have an answer from before or after training alone." in shown


def test_methods_beside_bnf_and_tokens_that_moved_most_have_tables(tmp_path):
    def of(after, change, against):
        return {
            "math sampled": {"after": estimate(after, 0.1, 0.2)}
            | {"change": estimate(change, 0.01, 0.02), "against_bnf": estimate(against, -0.3, -0.2)}
        }

    record = quickstart() | {
        "methods": {"base": of(0.5, 0, -0.25), "bnf": of(0.75, 0.25, 0), "dpo": of(0.4, -0.1, -0.35)}
    }
    write(tmp_path / "quickstart.json", record | {"health": {"dpo": "amber"}})
    moved = {"piece": " four", "before": "it is", "after": ".", "shift": 1.5, "p": 0.9, "ref_p": 0.2, "id": "3/up"}
    found = summary()
    found["methods"]["BNF"]["most_changed"] = {"risen": [moved | {"place": 2}], "fallen": []}
    write(tmp_path / "summary.json", found)
    write(tmp_path / "weights.svg", HOSTILE_SVG)
    page = page_of(tmp_path)
    compared = text_of(part(page, "comparison"))
    assert "DPO 40.0 [10.0, 20.0] −10.0 [+1.0, +2.0] −35.0 [−30.0, −20.0] amber" in compared
    assert "Base" not in headline(page)
    figures = text_of(part(page, "figures"))
    assert "it is⟦ four⟧. 0.2 0.9 1.50 3/up" in figures
    assert "BNF weights of the scored tokens" in figures


def test_scored_answers_of_a_base_and_a_method_stand_side_by_side(tmp_path):
    for model, outputs, right in (("base", ("18", "4"), (True, False)), ("tuned", ("18!", "3"), (True, True))):
        rows = [
            {"id": str(n), "question": f"How many {n}?", "answer": "#### 18", "output": output, "model": model}
            for n, output in enumerate(outputs)
        ]
        file = write(tmp_path / f"{model}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        items = [{"id": str(n), "correct": one, "answer": ""} for n, one in enumerate(right)]
        write(tmp_path / f"{model}.json", gsm8k(model, 50.0 + 50 * right[1], items=items, file=str(file)))
    page = page_of(tmp_path / "base.json", tmp_path / "tuned.json", base="base")
    shown = text_of(part(page, "answers"))
    assert "How many 0?" in shown
    assert "How many 1?" in shown
    assert re.findall('data-outcome="(\\w+)"', page) == ["same", "better"]
    assert re.findall("<h4>(\\w+)</h4><p>(.*?)</p>", page) == [
        ("Before", "<del>18</del>"),
        ("After", "<ins>18!</ins>"),
        ("Before", "<del>4</del>"),
        ("After", "<ins>3</ins>"),
    ]
    assert "GSM8K (%) 50.0 100.0 +50.0 [" in text_of(part(page, "changes"))


def test_tokens_carry_weight_log_ratio_and_reference(page):
    shown = part(page, "tokens")
    assert 'data-numbers="0.95,0.5,-1;0.05,-0.25,-0.5;0.5,0,-2"' in shown
    assert '<i class="w9 rp3"> it</i><i class="w0 rm2"> is</i><i class="w5 rp0"> four</i>' in shown
    assert "Response 0/up, desirable" in shown
    assert "Response 1/up, undesirable" in shown


def test_the_numbers_behind_the_figures_are_downloaded(page):
    rows = download(page, "summary.csv")
    assert ["methods / BNF / gini / mean", "0.625"] in rows
    assert ["bins / shares / BNF / 0", "0.25"] in rows


def test_of_many_responses_the_first_are_shown_and_how_many_there_are(tmp_path):
    write(tmp_path / "summary.json", summary())
    tokens(tmp_path / "methods" / "BNF.parquet", rows=1_000)
    assert "300 of 1,000 responses" in text_of(part(page_of(tmp_path), "tokens"))


def test_held_out_ifeval_and_a_task_of_ones_own_have_a_table_and_a_tax(tmp_path):
    right = [{"id": str(n), "correct": n < 40} for n in range(100)]
    more = [{"id": str(n), "correct": n < 60} for n in range(100)]
    for model, items, accuracy in (("base", right, 40.0), ("tuned", more, 60.0)):
        for task, metrics in (
            ("held_out", {"accuracy": accuracy, "margin": 1.0}),
            ("ifeval", {"prompt_strict": accuracy, "instruction_strict": 70.0, "prompt_loose": 80.0}),
            ("mine", {"accuracy": accuracy}),
        ):
            about = {"model": model, "template": "0123456789ab"}
            scored = {"task": task, "version": 1, "metrics": metrics, "items": items, "provenance": about}
            write(tmp_path / model / f"{task}.json", scored)
    report = build_report([tmp_path], base="base")
    rows = texts(only(report, "own"), "")
    assert rows["tuned"][:4] == ["60.0 (1)", "60.0 (1)", "70.0 (1)", "60.0 (1)"]
    assert [(one.group, one.name) for one in only(report, "own").columns][:4] == [
        ("held_out", "accuracy (%)"),
        ("ifeval", "prompt strict (%)"),
        ("ifeval", "instruction strict (%)"),
        ("mine", "accuracy (%)"),
    ]
    assert [one.measure for one in report.changes] == ["held_out accuracy", "ifeval prompt strict", "mine accuracy"]
    found = {(one.before.mean, one.after.mean, round(one.difference.mean, 6), one.found) for one in report.changes}
    assert found == {(40.0, 60.0, 20.0, "better")}
    assert [cell[:7] for cell in texts(only(report, "tax"), "")["tuned"]] == ["not mea"] * 4 + ["+20.0* "] * 3


def test_what_train_and_analyze_write_today_is_what_the_page_reads(tmp_path):
    tokenizer = plain_tokenizer()
    tokenizer.save_pretrained(tmp_path / "model")
    tiny_llama(len(tokenizer)).save_pretrained(tmp_path / "model")
    pairs = [{"prompt": f"say {n} ", "chosen": "good", "rejected": "worse"} for n in range(24)]
    data = write(tmp_path / "pairs.jsonl", "".join(json.dumps(row) + "\n" for row in pairs))
    asked = write(tmp_path / "asked.jsonl", "".join(json.dumps({"prompt": f"tell {n} "}) + "\n" for n in range(3)))
    flags = ["--model_name_or_path", tmp_path / "model", "--dataset_name", data, "--output_dir", tmp_path / "out"]
    flags += ["--ref_cache_dir", tmp_path / "cache", "--use_cpu", "true", "--max_steps", "4", "--logging_steps", "1"]
    flags += ["--batch_size", "8", "--learning_rate", "1e-2", "--sample_prompts", asked]
    assert main(["train", *map(str, flags)]) == 0
    shifts = ["--model", f"BNF={tmp_path / 'out'}", "--reference", tmp_path / "model", "--data", data]
    assert main(["analyze", *map(str, shifts), "--out", str(tmp_path / "out" / "analysis")]) == 0

    page = page_of(tmp_path / "out")
    history = json.loads((tmp_path / "out" / "health.json").read_text())["history"]
    rows = download(page, "curves.csv")
    column = rows[0].index("bnf/shift/chosen")
    logged = [line["bnf/shift/chosen"] for line in history if "bnf/shift/chosen" in line]
    assert [float(row[column]) for row in rows[1:] if row[column]] == logged
    assert len(logged) == 4
    assert "rows 24 pairs 24" in text_of(part(page, "data"))
    assert "3 prompts." in text_of(part(page, "answers"))
    assert "48 of 48 responses" in text_of(part(page, "tokens"))
    assert len(re.findall("<img ", part(page, "figures"))) == 5
    assert 'class="unread"' not in page
    verdict = json.loads((tmp_path / "out" / "run.json").read_text())["verdict"]
    assert verdict in text_of(part(page, "verdict"))


# ------------------------------------------------------------------------------------------------------ other formats


def test_csv_and_markdown_hold_the_same_numbers_as_the_page(tmp_path):
    write(tmp_path / "compare.json", comparison())
    report = build_report([tmp_path])
    shown, marked_down = text_of(render(report, "html")), render(report)
    blocks = [list(csv.reader(io.StringIO(block))) for block in render(report, "csv").split("\n\n")]
    assert len(blocks) == len(report.tables) + 1
    for table, block in zip(report.tables, blocks, strict=False):
        cells = [cell.text + cell.marks for section in table.sections for row in section.rows for cell in row.cells]
        assert [cell for row in block[1:] for cell in row[3:]] == cells
        for cell in cells:
            assert cell.removesuffix("*") in shown
            assert cell.replace("[", r"\[").replace("]", r"\]").replace("_", r"\_").removesuffix("*") in marked_down


def test_a_table_of_the_page_is_downloaded_as_it_stands(tmp_path):
    write(tmp_path / "compare.json", comparison())
    rows = download(page_of(tmp_path), "differences.csv")
    assert rows[0] == ["table", "section", "Methods", "math accuracy (%)"]
    assert rows[1] == ["Differences", "", "bnf − base", "+20.0 [+17.0, +23.0]*"]


@pytest.mark.parametrize("name", ["=1+1", "@x", "-cmd|x", "+cmd", "\tx"])
def test_a_name_that_a_spreadsheet_would_run_is_kept_from_it(tmp_path, name):
    text = render(build_report([write(tmp_path / "a.json", gsm8k(name, 50.0))]), "csv")
    (row,) = [
        row for row in csv.reader(io.StringIO(text)) if row and row[0].startswith("Table 4") and row[2] != "Method"
    ]
    assert row[2] == f"'{name}"
    assert "50.0" in row[7]


def test_html_is_the_same_page_by_format_and_by_flag(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(whole(tmp_path))
    assert main(["report", ".", "--html", "one.html", "--out", "tables.csv"]) == 0
    assert main(["report", ".", "--out", "two.html"]) == 0
    assert main(["report", ".", "--format", "html"]) == 0
    printed = capsys.readouterr().out
    pages = [Path(name).read_text() for name in ("one.html", "two.html")] + [printed[printed.index("<!doctype") :]]
    bare = [re.sub(r"Made with <code>.*?</code>", "", page).strip() for page in pages]
    assert bare[0] == bare[1] == bare[2]
    assert Path("tables.csv").read_text().startswith("table,section,")


def test_from_python_one_call_writes_the_page(tmp_path):
    whole(tmp_path / "in")
    out = write_page(tmp_path / "out" / "report.html", [tmp_path / "in"], command="make quickstart")
    assert out.read_text().startswith("<!doctype html>")
    assert "<code>make quickstart</code>" in out.read_text()


def test_records_without_a_table_make_a_page_and_no_tables(tmp_path, capsys):
    write(tmp_path / "health.json", health())
    assert main(["report", str(tmp_path), "--html", str(tmp_path / "out" / "r.html")]) == 0
    assert "no table, only the page" in capsys.readouterr().out
    assert main(["report", str(tmp_path)]) == 2
    assert "no table to show" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------- what cannot be read


def test_truncated_and_unknown_files_are_named_and_files_of_a_model_are_not(tmp_path):
    whole(tmp_path)
    cut = write(tmp_path / "cut" / "run.json", json.dumps(run())[:200])
    torn = write(tmp_path / "torn" / "samples.jsonl", samples(2)[:-20])
    parquet = tmp_path / "methods" / "DPO.parquet"
    parquet.parent.mkdir()
    parquet.write_bytes(b"PAR1 and then nothing")
    odd = write(tmp_path / "odd.json", {"a": 1})
    write(tmp_path / "model" / "config.json", {"hidden_size": 8})
    write(tmp_path / "data" / "scored.jsonl.card.json", {"scorer": "x"})
    page = page_of(tmp_path)
    not_read = text_of(re.search(r'<div class="unread">.*?</div>', page, re.DOTALL)[0])
    for path in (cut, torn, parquet):
        assert str(path) in not_read
    assert "was it cut short?" in not_read
    assert "Files that could not be read: " in text_of(part(page, "verdict"))
    assert re.search("1 JSON file in the folders of no kind that a report knows.*odd.json", text_of(page))
    assert str(odd) in page
    assert "config.json" not in page
    assert "scored.jsonl.card.json" not in page
    assert str(cut) in render(build_report([tmp_path]), "csv")


@pytest.mark.parametrize(
    "record",
    [
        {"measures": {"math sampled": {"before": {}}}, "conclusion": "", "preferences": {}},
        {"colour": "green", "text": "", "history": [3]},
        {"candidates": 3, "left_out": [], "pair_similarity": None},
        {"methods": {}, "measures": {}, "differences": []},
    ],
)
def test_a_record_with_something_else_in_it_is_named(tmp_path, record):
    write(tmp_path / "run.json", run())
    file = write(tmp_path / "other.json", record)
    page = page_of(tmp_path)
    assert f"{file}: " in text_of(re.search(r'<div class="unread">.*?</div>', page, re.DOTALL)[0])


def test_a_folder_of_broken_files_alone_is_an_error_that_names_them(tmp_path):
    cut = write(tmp_path / "run.json", "{")
    with pytest.raises(BadInput, match=re.escape(str(cut))):
        build_report([tmp_path])


# ------------------------------------------------------------------------------------------------------- never more


def test_only_the_pages_own_script_and_style_may_run_and_nothing_is_loaded(page):
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    rules = {name: rest for name, _, rest in (one.strip().partition(" ") for one in html.unescape(policy).split(";"))}
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        (body,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert rules[rule] == f"'sha256-{base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()}'"
    assert rules["default-src"] == rules["connect-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    assert page.index("Content-Security-Policy") < page.index("<style>")
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)


def test_hostile_texts_names_and_pictures_stay_what_they_are(tmp_path):
    page = page_of(whole(tmp_path, hostile=True), command=HOSTILE)
    outside = re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.DOTALL, count=2)
    assert "<script" not in outside
    assert "<style" not in outside
    tags = re.findall(r"<[a-z][^>]*>", outside)
    assert not [tag for tag in tags if re.search(r"\s(on\w+|style)\s*=", re.sub(r'"[^"]*"', '""', tag))]
    assert "<svg onload" not in outside
    assert text_of(page).count("{{ 7 * 7 }}") >= 5  # a template in an answer is text too
    pictures = re.findall(r'<img src="data:image/svg\+xml;base64,([^"]*)" alt="([^"]+)"', page)
    assert len(pictures) == 4
    assert base64.b64decode(pictures[0][0]).decode() == HOSTILE_SVG
    assert html.unescape(re.sub(r"<[^>]*>", "", part(page, "answers"))).count(HOSTILE) == 3


def test_half_a_character_stops_nothing(tmp_path):
    write(tmp_path / "samples.jsonl", '{"prompt": "\\ud83d", "before": "a", "after": "\\ud83d b"}\n')
    page_of(tmp_path).encode()


# -------------------------------------------------------------------------------------------------------------- size


def many(folder: Path, characters: int) -> Path:
    """2,000 answers, which is 1,000 prompts with two, of words that differ here and there."""
    rows = []
    for n in range(1_000):
        words = [f"word{(n * 7 + i * 13) % 997}" for i in range(characters // 8)]
        other = [word if i % 9 else f"{word}x" for i, word in enumerate(words)]
        rows.append({"prompt": f"question {n} of many?", "before": " ".join(words), "after": " ".join(other)})
    write(folder / "samples.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_with_2_000_answers_the_page_is_below_5_megabytes_and_holds_all_of_them(tmp_path):
    page = page_of(whole(tmp_path / "whole"), many(tmp_path / "many", 800))
    assert len(page.encode()) < 5_000_000
    assert "1,060 prompts." in text_of(part(page, "answers"))
    assert "question 999 of many?" in page


def test_of_answers_for_which_there_is_no_room_the_page_says_how_many_and_where_a_text_was_cut(tmp_path):
    page = page_of(many(tmp_path, LONGEST + 800))
    assert len(page.encode()) < 5_000_000
    shown = page.count('<article class="sample"')
    assert 100 < shown < 1_000
    assert f"{shown:,} of 1,000 prompts; the page has no room for the others." in text_of(part(page, "answers"))
    assert "Cut: a text is longer than what is shown." in page


def test_a_figure_of_many_megabytes_is_named_and_not_shown(tmp_path):
    whole(tmp_path)
    write(tmp_path / "analysis" / "figure3.svg", HOSTILE_SVG + " " * 3_000_000)
    page = page_of(tmp_path)
    assert len(page.encode()) < 1_000_000
    assert "figure3.svg is not shown: it has 3,000," in text_of(part(page, "figures"))


# ---------------------------------------------------------------------------------------------------------- watching


def get(url: str, path: str = "/", **headers: str) -> tuple[int, str]:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=30)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_a_watched_run_is_served_anew_when_its_health_changes(tmp_path):
    with watching(tmp_path, port=0) as url:
        assert "Nothing is recorded here yet." in headline(get(url)[1])
        first = get(url, "/version")[1]
        write(tmp_path / "health.json", health(finished=False, steps=1))
        second = get(url, "/version")[1]
        status, page = get(url)
        assert status == 200
        assert headline(page).startswith("Training is at step 5 of 20.")
        assert "connect-src &#39;self&#39;" in page
        write(tmp_path / "health.json", health(finished=False, steps=3))
        assert headline(get(url)[1]).startswith("Training is at step 15 of 20.")
        assert len({first, second, get(url, "/version")[1]}) == 3
        assert get(url, "/version")[1] == get(url, "/version")[1]
        assert get(url, "/etc/passwd")[0] == get(url, "/../health.json")[0] == 404


def test_another_sites_name_or_page_gets_nothing_of_a_watched_run(tmp_path):
    with watching(tmp_path, port=0) as url:
        assert get(url, Host="evil.example")[0] == 400
        assert get(url, Host="127.0.0.1.evil.example")[0] == 400
        assert get(url, Origin="http://evil.example")[0] == 400
        assert get(url, Origin="null")[0] == 400
        assert get(url, Host="localhost:1")[0] == get(url, Origin="http://localhost:8000")[0] == 200


@pytest.mark.parametrize(
    ("host", "origin", "here"),
    [
        ("127.0.0.1:7860", None, True),
        ("localhost", "http://127.0.0.1:7860", True),
        ("LOCALHOST:80", None, True),
        (None, None, False),
        ("", None, False),
        ("example.com", None, False),
        ("localhost.example.com", None, False),
        ("example.com@localhost", "http://example.com", False),
        ("localhost", "https://localhost.example.com", False),
        ("localhost", "null", False),
        ("[", None, False),
        ("localhost", "http://[", False),
    ],
)
def test_a_request_is_from_here_by_its_own_name_and_its_pages(host, origin, here):
    assert from_here(host, origin) is here


def test_a_port_that_is_taken_and_a_folder_that_is_not_there_are_said(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadInput, match=f"Port {port} is taken"), watching(tmp_path, port=port):
            pass
    with pytest.raises(BadInput, match="there is no such folder"), watching(tmp_path / "no"):
        pass


def test_a_card_alone_is_a_page_of_data(tmp_path):
    page = page_of(write(tmp_path / "x.card.json", card()))
    assert "candidates 120" in text_of(part(page, "data"))


def test_a_record_that_the_page_shows_is_not_written_over(tmp_path, capsys):
    whole(tmp_path / "run")
    record = next(path for path in (tmp_path / "run").rglob("run.json"))
    before = record.read_bytes()
    assert main(["report", str(tmp_path / "run"), "--html", str(record)]) == 2
    assert "would be written over" in capsys.readouterr().err
    assert record.read_bytes() == before
    page = tmp_path / "run" / "report.html"
    for _ in range(2):  # an earlier page may be
        assert main(["report", str(tmp_path / "run"), "--html", str(page)]) == 0
