"""Comparing methods: what is asked for, what is trained, what the test rows may touch, and what is called real."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from bnf_align.cli.arguments import settings
from bnf_align.cli.main import main
from bnf_align.cli.recipe import read_with_lines
from bnf_align.compare import compare, read
from bnf_align.compare.evaluations import by_prompt
from bnf_align.journal import read_jsonl
from bnf_align.records import BadInput
from bnf_align.stats import auc, auc_values, crossed_bootstrap, crossed_test
from tiny_models import plain_tokenizer
from tiny_nets import tiny_llama


def ends_in_good(row, text):
    return "good" in text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, and pairs whose better answer is `good` behind half of the prompts and `fine` behind the others."""
    folder = tmp_path_factory.mktemp("compare")
    tiny_llama(len(plain_tokenizer())).save_pretrained(folder / "model")
    plain_tokenizer().save_pretrained(folder / "model")
    rows = [
        {"prompt": f"say {i} ", "chosen": ("good", "fine")[i % 2], "rejected": "worse"[: 3 + i % 3]}
        for i in range(160)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def asked(folder, out, **changes):
    """A comparison of a method that learns and one that stands still, with the same grid of two."""
    return {
        "model": str(folder / "model"),
        "data": str(folder / "pairs.jsonl"),
        "out": str(out),
        "validation": 0.25,
        "test": 0.5,
        "seeds": [0, 1],
        "grid": {"batch_size": [16]},
        "methods": {
            "bnf": {"learning_rate": [1e-7, 1e-2]},
            "still": {"loss_type": "sft", "learning_rate": [0.0, 1e-12]},
        },
        "settings": {"num_train_epochs": 2, "max_length": 64, "use_cpu": True, "warmup_steps": 0},
        **changes,
    }


@pytest.fixture(scope="module")
def done(folder):
    """The comparison, finished."""
    return compare(read(asked(folder, folder / "done"), settings=settings))


def rows_by_kind(out):
    rows = list(read_jsonl(out / "runs.jsonl"))
    return [row for row in rows if row["id"].startswith("train")], [
        row for row in rows if row["id"].startswith("test")
    ]


def without_times(record):
    methods = {name: {k: v for k, v in of.items() if k != "seconds"} for name, of in record["methods"].items()}
    return {**record, "methods": methods, "command": ""}


# ------------------------------------------------------------------------------------------------ what is run


@pytest.mark.slow
def test_the_point_that_wins_on_the_validation_split_is_trained_with_every_seed(done, folder):
    bnf = done["methods"]["bnf"]
    validation = [point["validation"] for point in bnf["grid"]]
    assert validation[1] > validation[0]
    assert bnf["chosen"] == bnf["grid"][1]["settings"]
    assert done["methods"]["still"]["chosen"]["learning_rate"] == 0.0, "of equal ones the first"
    trained, tested = rows_by_kind(folder / "done")
    titles = [row["title"] for row in trained]
    assert titles.count("bnf (batch_size 16, learning_rate 0.01), seed 1") == 1
    assert not [title for title in titles if "1e-07" in title and "seed 1" in title]
    assert (len(trained), len(tested)) == (2 * (2 + 1), 1 + 2 * 2)
    assert bnf["runs"] == 3
    assert bnf["tokens"] == sum(row["tokens"] for row in trained if row["title"].startswith("bnf"))
    assert len(list((folder / "done" / "models").iterdir())) == 4, "models that were not chosen are let go"


def test_splits_share_no_prompt_and_hold_every_row_once(done, folder):
    splits = [list(read_jsonl(folder / "done" / "rows" / f"{name}.jsonl")) for name in ("train", "validation", "test")]
    prompts = [row["prompt"] for rows in splits for row in rows]
    assert len(prompts) == len({*prompts}) == 160
    assert [done["splits"][name]["prompts"] for name in ("train", "validation", "test")] == [*map(len, splits)]


@pytest.mark.slow
def test_pointwise_and_pairwise_methods_train_on_the_same_tokens_in_as_many_steps(folder, tmp_path):
    grid = {"batch_size": [16], "learning_rate": [1e-3]}
    methods = dict.fromkeys(("bnf", "dpo", "kto", "sft"))
    record = compare(read(asked(folder, tmp_path / "out", methods=methods, grid=grid, seeds=[0]), settings=settings))
    tokens = {name: record["methods"][name]["tokens_of_a_run"] for name in methods}
    assert tokens["bnf"] == tokens["dpo"] == tokens["kto"] > tokens["sft"]
    assert len({tuple(record["methods"][name]["steps_of_a_run"]) for name in methods}) == 1
    assert len(list((tmp_path / "out" / "reference").iterdir())) == 1, "one reference for all"


def test_a_grid_point_that_diverges_is_never_chosen_and_a_method_that_does_is_not_measured(folder, tmp_path, capsys):
    methods = {"bnf": {"learning_rate": [1e30, 1e-3]}, "dpo": {"learning_rate": [1e30, 1e31]}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(asked(folder, tmp_path / "out", methods=methods), sort_keys=False))
    assert main(["compare", "--config", str(tmp_path / "c.yaml")]) == 0
    record = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert record["methods"]["bnf"]["chosen"]["learning_rate"] == 1e-3
    assert [point["validation"] is None for point in record["methods"]["bnf"]["grid"]] == [True, False]
    assert record["methods"]["dpo"]["chosen"] is None
    assert not record["methods"]["dpo"]["values"]
    printed = capsys.readouterr().out
    assert "| dpo | not measured | not measured |" in printed
    assert "dpo: 2 runs diverged" in printed


# ------------------------------------------------------------------------------------------- resuming, test rows


@pytest.mark.slow
def test_a_killed_comparison_goes_on_and_ends_as_if_nothing_had_happened(done, folder, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(asked(folder, out, processes=2), sort_keys=False))
    command = [sys.executable, "-m", "bnf_align", "compare", "--config", str(tmp_path / "c.yaml")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    partial = out / "runs.jsonl.partial"
    while process.poll() is None and not (partial.exists() and partial.read_bytes().count(b"\n") >= 2):
        time.sleep(0.05)
    process.kill()
    process.wait()
    before = partial.read_text().splitlines()
    assert 2 <= len(before) < 11, "killed in between"
    resumed = compare(read(asked(folder, out), settings=settings))
    assert without_times(resumed) == without_times(done)
    assert {*before} <= {*(out / "runs.jsonl").read_text().splitlines()}, "what was done is not trained again"
    again = compare(read(asked(folder, out), settings=settings))
    assert again == resumed


def test_tuning_sees_nothing_of_the_test_rows(done, folder, tmp_path):
    """Every test row is turned over: no run is trained again, and only what is reported changes."""
    tested = {row["prompt"] for row in read_jsonl(folder / "done" / "rows" / "test.jsonl")}
    rows = list(read_jsonl(folder / "pairs.jsonl"))
    poisoned = [
        {**row, "chosen": row["rejected"], "rejected": row["chosen"]} if row["prompt"] in tested else row
        for row in rows
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in poisoned))
    record = compare(read(asked(folder, folder / "done", data=str(tmp_path / "pairs.jsonl")), settings=settings))
    for name, of in record["methods"].items():
        for key in ("grid", "chosen", "runs", "seconds", "tokens", "validation"):
            assert of.get(key) == done["methods"][name].get(key), (name, key)
    assert done["methods"]["bnf"]["values"]["held_out accuracy"]["mean"] == 100
    assert record["methods"]["bnf"]["values"]["held_out accuracy"]["mean"] == 0
    trained, _ = rows_by_kind(folder / "done")
    assert len(trained) == 6


@pytest.mark.parametrize("what", ["weights", "rows", "settings", "template"])
def test_a_run_is_made_again_when_anything_that_it_follows_from_changes(folder, tmp_path, what):
    tokenizer, rows = plain_tokenizer(), list(read_jsonl(folder / "pairs.jsonl"))
    model, data, out = tmp_path / "model", tmp_path / "pairs.jsonl", tmp_path / "out"
    single = {"methods": {"bnf": {"learning_rate": [1e-3]}}, "seeds": [0], "model": str(model), "data": str(data)}
    config = asked(folder, out, **single)
    for turn in range(2):
        tiny_llama(len(tokenizer), seed=turn * (what == "weights")).save_pretrained(model)
        if turn and what == "template":
            tokenizer.chat_template = "{{ messages }}"
        tokenizer.save_pretrained(model)
        if turn and what == "rows":
            rows = [{**row, "chosen": "well"} for row in rows]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        if turn and what == "settings":
            config["settings"]["max_length"] = 63
        compare(read(config, settings=settings))
        assert len(rows_by_kind(out)[0]) == turn + 1


# ------------------------------------------------------------------------------------------------ evaluations


def test_thumbs_a_rule_a_likelihood_and_the_tax_of_an_adapter(folder, tmp_path):
    """On thumbs, with LoRA: each measure's number and McNemar's counts follow from the values per prompt."""
    thumbs = [
        {"prompt": f"say {i} ", "completion": ("good", "bad")[side], "label": side == 0}
        for i in range(120)
        for side in (0, 1)
    ]
    (tmp_path / "thumbs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in thumbs))
    asks = [{"id": f"q{i}", "prompt": f"say {i} "} for i in range(200, 240)]
    (tmp_path / "asks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asks))
    config = asked(
        folder,
        tmp_path / "out",
        data=str(tmp_path / "thumbs.jsonl"),
        methods={"bnf": {"learning_rate": [1e-2]}},
        evaluations={
            "rule": {
                "rule": "test_compare:ends_in_good",
                "data": str(tmp_path / "asks.jsonl"),
                "max_new_tokens": 6,
                "tax": True,
            },
            "text": {"likelihood": str(tmp_path / "thumbs.jsonl"), "limit": 20},
        },
    )
    config["settings"] |= {"use_peft": True, "lora_r": 8, "num_train_epochs": 6, "lora_target_modules": ["all-linear"]}
    record = compare(read(config, settings=settings))
    assert [one["name"] for one in record["measures"]] == [
        "held_out auc_per_token",
        "rule accuracy",
        "text logp_per_token",
    ]
    _, tested = rows_by_kind(tmp_path / "out")
    base, *seeds = (row["outcomes"] for row in tested)
    for name, scale in (("rule accuracy", 100), ("text logp_per_token", 1)):
        mean = np.mean([[*one[name].values()] for one in seeds])
        assert record["methods"]["bnf"]["values"][name]["mean"] == pytest.approx(scale * mean)
    assert len(base["rule accuracy"]) == 40
    assert len(base["text logp_per_token"]) == 10, "ups alone"
    assert record["methods"]["bnf"]["values"]["held_out auc_per_token"]["mean"] > 99
    for one, seed in zip(record["tax"], seeds, strict=True):
        gaps = [seed["rule accuracy"][item] - base["rule accuracy"][item] for item in base["rule accuracy"]]
        assert (one["test"], one["wins"], one["losses"]) == ("mcnemar", gaps.count(1), gaps.count(-1))
    assert set(record["methods"]["bnf"]["answers"]["rule"]) == {"tokens", "never_ended", "distinct_3"}
    adapters = [*(tmp_path / "out" / "models").glob("*/adapter_config.json")]
    assert len(adapters) == 2


def test_settings_can_be_chosen_by_answers_to_prompts_of_their_own(folder, tmp_path):
    for name, numbers in (("dev", range(200, 230)), ("final", range(300, 330))):
        asks = [{"id": f"q{i}", "prompt": f"say {i} "} for i in numbers]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asks))
    rule = {"rule": "test_compare:ends_in_good", "data": str(tmp_path / "final.jsonl"), "max_new_tokens": 6}
    given = {"evaluations": {"said": {**rule, "validation": str(tmp_path / "dev.jsonl")}}, "choose_by": "said"}
    record = compare(read(asked(folder, tmp_path / "out", seeds=[0], **given), settings=settings))
    assert record["chosen_by"] == "said"
    assert record["methods"]["base"]["validation"] == 0
    with pytest.raises(BadInput, match="30 items to choose by are among those that are reported"):
        read(
            asked(folder, tmp_path / "out", evaluations={"said": {**rule, "validation": rule["data"]}}),
            settings=settings,
        )


# ------------------------------------------------------------------------------------------------ what is real


def test_a_planted_difference_is_real_and_none_is_not(done):
    real = {(one["first"], one["second"]): one["real"] for one in done["differences"]}
    assert real == {("bnf", "base"): True, ("still", "base"): False, ("still", "bnf"): True}


@pytest.mark.slow
def test_the_report_says_where_no_difference_was_found(folder, tmp_path, capsys):
    methods = {
        "still": {"loss_type": "sft", "learning_rate": [0.0]},
        "idle": {"loss_type": "bnf", "learning_rate": [0.0]},
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(asked(folder, tmp_path / "out", methods=methods), sort_keys=False))
    assert main(["compare", "--config", str(tmp_path / "c.yaml")]) == 0
    printed = capsys.readouterr().out
    assert "no difference found between any two of the 3 pairs" in printed.replace("\\", "")
    assert main(["report", str(tmp_path / "out" / "compare.json"), "--table", "differences"]) == 0
    assert "| idle − still | 0.0 [0.0, 0.0] |" in capsys.readouterr().out.replace("\\", "")


@pytest.mark.parametrize(("seeds", "at_most"), [(2, 0.13), (3, 0.08), (5, 0.06)])
@pytest.mark.parametrize("of_seeds", [0.0, 0.15, 0.4, 1.0])
def test_how_often_a_difference_is_found_where_there_is_none(seeds, at_most, of_seeds):
    """As the docstring and docs/compare.md say; 5 % is asked for."""
    tests, normal = 1000, np.random.default_rng(0).normal
    null = (of_seeds * normal(size=(seeds, 1)) + normal(size=100) + normal(size=(seeds, 100)) for _ in range(tests))
    found = np.mean([crossed_test(gaps) < 0.05 for gaps in null])
    assert found < at_most + 3 * np.sqrt(at_most * (1 - at_most) / tests)


def test_of_one_seed_the_test_is_students_and_of_seeds_alone_it_is_too():
    from scipy.stats import ttest_1samp

    rng = np.random.default_rng(1)
    gaps = rng.normal(0.3, size=(1, 50))
    assert crossed_test(gaps) == pytest.approx(ttest_1samp(gaps[0], 0).pvalue)
    gaps = np.repeat(rng.normal(1, size=(4, 1)), 30, axis=1)  # items do not differ: seeds are all there is
    assert crossed_test(gaps) == pytest.approx(ttest_1samp(gaps[:, 0], 0).pvalue)


def test_where_all_items_agree_the_sign_test_decides():
    assert crossed_test(np.ones((3, 10))) == pytest.approx(2 / 2**10)
    assert crossed_test(np.zeros((3, 10))) == 1


def test_the_interval_draws_seeds_and_prompts():
    gaps = np.arange(3.0)[:, None] + np.zeros(50)
    assert crossed_bootstrap(gaps) == (0, 2), "seeds alone"
    gaps = np.zeros((3, 1)) + np.tile([0.0, 1.0], 50)
    low, high = crossed_bootstrap(gaps)
    assert (low, high) == pytest.approx((0.4, 0.6), abs=0.02), "prompts alone: 0.5 -+ 1.96 / 2 / sqrt(100)"


def test_the_values_of_an_auc_have_its_mean_and_its_variance():
    rng = np.random.default_rng(2)
    ups, downs = rng.normal(1, size=30), rng.normal(size=90)
    values = auc_values(ups, downs)
    assert values.mean() == pytest.approx(auc(ups, downs))
    drawn = [auc(rng.normal(1, size=30), rng.normal(size=90)) for _ in range(2000)]
    spread = [np.std(auc_values(rng.normal(1, size=30), rng.normal(size=90))) / np.sqrt(120) for _ in range(200)]
    assert np.mean(spread) == pytest.approx(np.std(drawn), rel=0.1)


def test_values_by_prompt_have_the_mean_of_the_values():
    assert by_prompt(np.array([1.0, 0.0]), ["a", "b"]) == {"a": 1.0, "b": 0.0}
    found = by_prompt(np.array([1.0, 1.0, 1.0, 0.0]), ["a", "a", "b", "b"])
    assert np.mean([*found.values()]) == 0.75
    assert found["a"] - found["b"] == pytest.approx(0.5)


# ---------------------------------------------------------------------------------------------- bad configurations

BAD = """\
model: {model}
data: {data}
out: {out}
sedes: [0]
validation: 0.9
processes: 0
grid:
  learning_rate: [1e-3]
  batch_size: [16]
  num_train_epochs: [1, 2]
methods:
  bnf:
    beta: [0.1]
  dpo:
    beta: [0.1, 0.5]
  kto:
    learning_rate: [-1.0]
  magic:
evaluations:
  gsm8k: {{task: gsm8k, data: nowhere.jsonl}}
  judged: {{task: arena_hard}}
choose_by: taste
settings:
  fp16: true
  no_such: 1
  seed: 3
"""


def test_a_folder_a_seed_a_rule_and_right_answers_that_cannot_be_are_faults_of_the_configuration(tmp_path, capsys):
    config = {"model": "m", "data": "d", "out": str(tmp_path / "c.yaml"), "methods": {"bnf": {}}, "seeds": [-1]}
    (tmp_path / "asked.jsonl").write_text('{"prompt": "2 + 2?", "id": "a"}\n')
    rules = {"unknown": "nope", "no answers": "final_answer"}
    config["evaluations"] = {
        name: {"rule": rule, "data": str(tmp_path / "asked.jsonl")} for name, rule in rules.items()
    }
    (tmp_path / "c.yaml").write_text(json.dumps(config))
    assert main(["compare", "--config", str(tmp_path / "c.yaml")]) == 2
    said = capsys.readouterr().err
    assert "c.yaml is a file, and a folder is needed" in said
    assert "different whole numbers from 0 on is needed, not [-1]" in said
    assert "--rule nope: choose one of" in said
    assert "1 row has no `answer` to compare candidates with, the first with the id 'a'" in said


def test_every_fault_is_said_at_once_with_its_line_before_anything_runs(folder, tmp_path, capsys):
    text = BAD.format(model=folder / "model", data=folder / "pairs.jsonl", out=tmp_path / "out")
    (tmp_path / "c.yaml").write_text(text)
    assert main(["compare", "--config", str(tmp_path / "c.yaml")]) == 2
    said = capsys.readouterr().err
    lines = {
        "line 4, sedes": "no such key",
        "test": "validation and test are 1.15 of the prompts",
        "line 6, processes": "a whole number from 1 on",
        "line 10, grid.num_train_epochs": "a grid may also vary",
        "line 13, methods.bnf.beta": "bnf takes no hyper-parameter",
        "line 16, methods.kto": "--learning_rate -1.0: a finite number from 0 up is needed",
        "line 18, methods.magic": "'magic' is no objective",
        "line 20, evaluations.gsm8k": "nowhere.jsonl",
        "line 21, evaluations.judged": "arena_hard needs more than a model's answers",
        "line 22, choose_by": "'taste' is none of the evaluations",
        "line 24, settings.fp16": "fp16 True is not supported",
        "line 25, settings.no_such": "no such setting",
        "line 26, settings.seed": "this is said by `seeds`",
    }
    for place, why in lines.items():
        assert any(line.startswith(place) and why in line for line in said.splitlines()), (place, said)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [1e-3, "1e-3", {"a": 1}, [], None, [1e-3, 1e-3]], ids=repr)
def test_a_shared_grid_that_is_no_list_is_one_fault_however_many_methods_take_it(folder, tmp_path, value):
    wrong = asked(folder, tmp_path / "out", methods={"bnf": None, "sft": None, "dpo": None})
    wrong["grid"] = {"batch_size": [16], "learning_rate": value}
    with pytest.raises(BadInput, match=r"has 1 fault, .*\ngrid.learning_rate: a list of different values is needed"):
        read(wrong, settings=settings)


def test_the_examples_of_the_documentation_lack_nothing_but_their_files(tmp_path, capsys):
    page = (Path(__file__).parents[1] / "docs" / "compare.md").read_text()
    examples = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert len(examples) >= 2
    for number, text in enumerate(examples):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        assert main(["compare", "--config", str(path), "--out", str(tmp_path / "out")]) == 2
        _, *faults = capsys.readouterr().err.splitlines()
        assert faults
        assert all(re.match(r"line \d+, (model|data|evaluations\.)", fault) for fault in faults), faults


def test_grids_of_different_size_are_refused_with_their_sizes(folder, tmp_path):
    methods = {"bnf": {"learning_rate": [1e-3, 1e-2]}, "dpo": {"beta": [0.1, 0.5], "learning_rate": [1e-3, 1e-2]}}
    with pytest.raises(BadInput, match=r"methods: the grids differ in size \(bnf 2, dpo 4\)"):
        read(asked(folder, tmp_path / "out", methods=methods), settings=settings)
    methods["dpo"]["learning_rate"] = [1e-2]
    assert [
        len(one.grid) for one in read(asked(folder, tmp_path, methods=methods), settings=settings).methods.values()
    ] == [2, 2]


def test_rows_that_a_method_cannot_share_and_splits_that_are_too_small_are_refused(folder, tmp_path, write):
    thumbs = write([{"prompt": f"p{i}", "completion": "a", "label": i % 2 == 0} for i in range(60)])
    methods = {"bnf": {"learning_rate": [1e-3]}, "dpo": {"learning_rate": [1e-3]}}
    with pytest.raises(BadInput) as found:
        read(asked(folder, tmp_path / "out", data=str(thumbs), methods=methods), settings=settings)
    assert "methods.dpo: dpo compares the two answers of a pair, and 60 answers are in none" in str(found.value)
    assert "data: validation gets 1" in str(found.value)
    assert "fewer than 20" in str(found.value)
    with pytest.raises(BadInput, match=r"data: There is no file .*gone.jsonl"):
        read(asked(folder, tmp_path / "out", data=str(tmp_path / "gone.jsonl")), settings=settings)


def test_names_have_lines_from_the_outside_in(tmp_path):
    (tmp_path / "a.yaml").write_text("a: 1\nb:\n  c:\n    d: [1, 2]\n")
    found, lines = read_with_lines(tmp_path / "a.yaml")
    assert found == {"a": 1, "b": {"c": {"d": [1, 2]}}}
    assert lines == {("a",): 1, ("b",): 2, ("b", "c"): 3, ("b", "c", "d"): 4}


@pytest.mark.parametrize("part", ["methods", "evaluations"])
def test_a_name_that_leads_out_of_the_folder_is_refused(folder, tmp_path, part):
    with pytest.raises(BadInput, match=rf"{part}\.\.\./\.\./x: files are called by this name"):
        read(asked(folder, tmp_path, **{part: {"../../x": {"learning_rate": [1e-3]}}}))
