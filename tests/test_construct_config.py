"""One YAML file for a whole data set: each step reads what the one before it wrote."""

from pathlib import Path

import pytest
import yaml

from bnf_align.cli import generate, score, select
from bnf_align.cli.construct import flags, plan, read_config
from bnf_align.cli.main import main
from bnf_align.records import BadInput

RECIPES = sorted((Path(__file__).parent.parent / "recipes" / "data").glob("*.yaml"))
PARSERS = {"generate": generate._parser, "score": score._parser, "select": select._parser}


def test_flags_are_what_a_person_would_type():
    settings = {"n": 5, "chat": True, "limit": None, "balance": False, "temperature": [0.7, 0.8], "pairing_ratio": 0}
    assert flags(settings) == ["-n", "5", "--chat", "--temperature", "0.7", "0.8", "--pairing_ratio", "0"]


def test_the_steps_come_in_order_and_hand_their_files_on():
    config = {
        "folder": "f",
        "train": {"pairs": {"model_name_or_path": "m"}},
        "select": {"pairs": None, "half": {"pairing_ratio": 0.5}},
        "score": {"scorer": "verifier"},
        "generate": {"model": "m", "prompts": "p"},
    }
    assert list(plan(config)) == [
        ("generate", ["--model", "m", "--prompts", "p", "--out", "f/candidates.jsonl"]),
        ("score", ["f/candidates.jsonl", "--scorer", "verifier", "--out", "f/scored.jsonl"]),
        ("select", ["f/scored.jsonl", "--out", "f/pairs.jsonl"]),
        ("select", ["f/scored.jsonl", "--pairing_ratio", "0.5", "--out", "f/half.jsonl"]),
        ("train", ["--dataset_name", "f/pairs.jsonl", "--output_dir", "f/model-pairs", "--model_name_or_path", "m"]),
    ]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_parses_into_commands_that_exist(path):
    steps = list(plan(read_config(path), "f"))
    assert [verb for verb, _ in steps][:3] == ["generate", "score", "select"]
    for verb, words in steps:
        if verb in PARSERS:
            parsed = PARSERS[verb]().parse_args(words)
            assert parsed.out.startswith("f/")


def test_the_papers_recipes_sample_five_at_0_8_and_mask_as_in_section_5_2():
    for path in RECIPES:
        config = yaml.safe_load(path.read_text())
        assert (config["generate"]["n"], config["generate"]["temperature"]) == (5, 0.8), path.stem
    ratios = yaml.safe_load((RECIPES[0].parent / "llama3-8b-instruct.yaml").read_text())["select"]
    assert {name: (flags_ or {}).get("pairing_ratio", 1) for name, flags_ in ratios.items()} == {
        "pairs": 1,
        "pairs-50": 0.5,
        "pairs-25": 0.25,
        "pairs-0": 0,
    }


def test_a_step_that_does_not_exist_is_named(tmp_path):
    (tmp_path / "bad.yaml").write_text("generat: {model: m}\n")
    with pytest.raises(BadInput, match="generat: known are folder, generate, score, select, train"):
        read_config(tmp_path / "bad.yaml")
    assert main(["construct", "--config", str(tmp_path / "missing.yaml")]) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("generate:\n", "`generate` holds no settings"),
        ("generate: {model: m}\nscore:\n", "`score` holds no settings"),
        ("select:\n", "`select` holds no settings"),
        ("select: [pairs]\n", "`select` holds no settings"),
        ("select: {pairs: 3}\n", "`select.pairs` holds no settings"),
        ("select: {pairs: }\ntrain: {pairs: }\n", "`train.pairs` holds no settings"),
        ("select: {../../x: }\n", "'../../x' is no name of a set"),
        ("select: {.hidden: }\n", "'.hidden' is no name of a set"),
        ("train: {/tmp/x: {max_steps: 1}}\n", "'/tmp/x' is no name of a set"),
        ("score: {scorer: verifier, out: s.jsonl}\n", "`score` has `out`"),
        ("select: {pairs: }\ntrain: {thumbs: {max_steps: 1}}\n", "`train.thumbs` is trained on a set"),
    ],
)
def test_a_file_that_a_late_step_could_not_read_is_refused_before_the_first_one_runs(tmp_path, capsys, text, message):
    (tmp_path / "bad.yaml").write_text(f"folder: {tmp_path / 'data'}\n{text}")
    assert main(["construct", "--config", str(tmp_path / "bad.yaml")]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert not said.out


def test_train_alone_reads_the_set_that_an_earlier_run_left_in_the_folder(tmp_path):
    (tmp_path / "train.yaml").write_text("folder: f\ntrain: {pairs: {model_name_or_path: m}}\n")
    [(_, words)] = plan(read_config(tmp_path / "train.yaml"))
    assert words[:2] == ["--dataset_name", "f/pairs.jsonl"]
