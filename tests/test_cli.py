"""The command line, run as a user runs it: exit statuses, messages, and what is left on disk."""

import ast
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from bnf_align import BadInput
from bnf_align.cli import train
from bnf_align.cli.main import VERBS, main
from runs import pairs, singles
from tiny_models import plain_tokenizer
from tiny_nets import tiny_llama

SOURCE = Path(__file__).parents[1] / "src" / "bnf_align"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with a tiny model, rows and a recipe, which is also the working directory."""
    tokenizer = plain_tokenizer()
    tokenizer.save_pretrained(tmp_path / "model")
    tiny_llama(len(tokenizer)).save_pretrained(tmp_path / "model")
    write(tmp_path / "rows.jsonl", [*pairs(4), *singles(8)])
    recipe = {
        "model_name_or_path": "model",
        "dataset_name": "rows.jsonl",
        "output_dir": "out",
        "batch_size": 4,
        "max_length": 128,
        "learning_rate": 1e-3,
        "use_cpu": True,
        "ref_cache_dir": "cache",
        "save_strategy": "no",
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run_json(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


# ------------------------------------------------------------------------------------------------------- train


def test_a_recipe_trains_a_model_that_loads_and_differs_from_its_start(folder, capsys):
    assert main(["train", "--config", "recipe.yaml"]) == 0
    before, after = (load_file(folder / name / "model.safetensors") for name in ("model", "out"))
    assert before.keys() == after.keys()
    assert not all(torch.equal(before[name], after[name]) for name in before)
    record = run_json(folder / "out")
    assert record["data"]["train"]["pairs"] == 4
    assert record["arguments"]["learning_rate"] == 1e-3
    assert "out/run.json" in capsys.readouterr().out
    assert (folder / "out" / "tokenizer.json").exists()


def test_flags_win_over_the_recipe_and_a_second_run_computes_no_reference(folder):
    assert main(["train", "--config", "recipe.yaml"]) == 0
    flags = ["--output_dir", "again", "--learning_rate", "2e-3", "--seed", "5", "--num_train_epochs", "2"]
    assert main(["train", "--config=recipe.yaml", *flags]) == 0
    first, second = run_json(folder / "out"), run_json(folder / "again")
    assert second["arguments"]["learning_rate"] == 2e-3
    assert second["arguments"]["batch_size"] == 4
    assert first["reference"]["computed_tokens"] > 0
    assert second["reference"]["computed_tokens"] == 0
    assert second["reference"]["cached_tokens"] == sum(
        first["reference"][name] for name in ("computed_tokens", "cached_tokens")
    )


def test_evaluation_rows_come_from_held_out_prompts(folder):
    rows = [{"prompt": f"p{i % 10} ", "completion": f"answer {i}", "label": i % 2 == 0} for i in range(40)]
    write(folder / "rows.jsonl", rows)
    assert main(["train", "--config", "recipe.yaml", "--eval_fraction", "0.3"]) == 0
    data = run_json(folder / "out")["data"]
    kept = {side: data[side]["ups"] + data[side]["downs"] for side in ("train", "eval")}
    assert sum(kept.values()) == 40
    assert kept["eval"] % 4 == 0  # all four rows of a prompt, or none
    assert "eval_loss" in run_json(folder / "out")["metrics"]


def test_an_evaluation_file_of_its_own_is_used_whole(folder):
    write(folder / "held.jsonl", singles(3))
    assert main(["train", "--config", "recipe.yaml", "--eval_dataset_name", "held.jsonl"]) == 0
    assert run_json(folder / "out")["data"]["eval"]["rows"] == 3


def test_a_folder_that_holds_another_run_is_said(folder, caplog):
    assert main(["train", "--config", "recipe.yaml", "--max_steps", "1"]) == 0
    assert "holds an earlier run" not in caplog.text
    (folder / "out" / "checkpoint-7").mkdir()
    assert main(["train", "--config", "recipe.yaml", "--max_steps", "1"]) == 0
    assert "out holds an earlier run. Its model and its records are replaced; 1 checkpoint of it" in caplog.text


def test_no_source_is_written_over(folder, capsys):
    """The model's folder, and rows that are called as a record is."""
    (folder / "out").mkdir()
    (folder / "out" / "run.json").write_text(json.dumps(singles()))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for flags, message in (
        (["--output_dir", "model"], "--output_dir model is the folder of --model_name_or_path"),
        (["--dataset_name", "out/run.json"], "run.json of --output_dir out/run.json would be written over"),
        (["--eval_dataset_name", "out"], "would be written over out, which is read"),
    ):
        assert main(["train", "--config", "recipe.yaml", *flags]) == 2
        assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--save_strategy", "best"], "metric_for_best_model"),
        (["--lr_scheduler_type", "polynomial", "--lr_scheduler_kwargs", '{"foo": 1}'], "--lr_scheduler_kwargs .*foo"),
        (
            ["--lr_scheduler_type", "cosine", "--lr_scheduler_kwargs", '{"num_cycles": "x"}'],
            "--lr_scheduler_kwargs .*'x'",
        ),
        (
            ["--lr_scheduler_type", "inverse_sqrt", "--lr_scheduler_kwargs", '{"timescale": 0}'],
            "--lr_scheduler_kwargs",
        ),
        (["--optim", "galore_adamw", "--optim_target_modules", "q_proj"], "--optim galore_adamw.*install"),
        (["--use_peft", "--lora_modules_to_save", "foo"], "--lora_modules_to_save foo: .* no module of that name"),
        (["--use_peft", "--lora_target_parameters", "foo"], "--lora_target_parameters foo: .* no parameter"),
        (["--use_peft", "--lora_alpha", "0"], "--lora_alpha 0: a number above 0"),
    ],
)
def test_settings_that_transformers_and_peft_refuse_or_pass_over_are_a_message(folder, capsys, flags, message):
    assert main(["train", "--config", "recipe.yaml", *flags]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (folder / "out" / "run.json").exists()


def test_lora_saves_an_adapter_that_can_be_continued(folder):
    lora = ["--use_peft", "--lora_r", "4", "--lora_target_modules", "q_proj", "v_proj"]
    assert main(["train", "--config", "recipe.yaml", *lora]) == 0
    assert (folder / "out" / "adapter_config.json").exists()
    assert not (folder / "out" / "model.safetensors").exists()
    continued = ["--model_name_or_path", "out", "--output_dir", "more"]
    assert main(["train", "--config", "recipe.yaml", *continued]) == 0
    assert run_json(folder / "more")["reference"]["computed_tokens"] > 0  # not the base's: its own starting weights
    before, after = (load_file(folder / name / "adapter_model.safetensors") for name in ("out", "more"))
    assert before.keys() == after.keys()
    assert not all(torch.equal(before[name], after[name]) for name in before)
    assert main(["train", "--config", "recipe.yaml", *continued, "--use_peft"]) == 2


@pytest.mark.slow
def test_a_run_killed_at_any_moment_resumes_to_the_weights_of_the_whole_run(folder):
    """A real SIGKILL, first as soon as a checkpoint folder appears, half-written or not, then a little later."""
    steps = ["--save_strategy", "steps", "--save_steps", "1", "--save_total_limit", "20", "--num_train_epochs", "4"]
    assert main(["train", "--config", "recipe.yaml", *steps]) == 0
    whole = load_file(folder / "out" / "model.safetensors")
    command = ["train", "--config", "recipe.yaml", *steps, "--output_dir", "cut", "--resume_from_checkpoint", "latest"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCE.parent)}
    for checkpoint in ("checkpoint-2", "checkpoint-5"):
        run = subprocess.Popen(
            [sys.executable, "-m", "bnf_align", *command], env=environment, stderr=subprocess.DEVNULL
        )
        while not (folder / "cut" / checkpoint).exists():
            assert run.poll() is None, "the run ended before it could be killed"
            time.sleep(0.001)
        run.kill()
        run.wait()
    assert not (folder / "cut" / "model.safetensors").exists()
    assert main(command) == 0
    resumed = load_file(folder / "cut" / "model.safetensors")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--no_such_flag", "1"], "no_such_flag"),
        (["--learning_rate", "fast"], "learning_rate"),
        (["--loss_type", "ppo"], "Choose one of bnf"),
        (["--loss_kwargs", '{"beta": 0.1}'], "bnf takes no hyper-parameter"),
        (["--dataset_name", "missing.jsonl"], "missing.jsonl"),
        (["--config", "missing.yaml"], "missing.yaml"),
        (["--map", "prompt"], "--map takes NAME=VALUE"),
        (["--label_map", "good=up", "--label-map", "bad=down"], "--label_map is given twice"),
        (["--eval_strategy", "steps"], "--eval_fraction"),
        (["--fp16", "true"], "fp16 True is not supported"),
    ],
)
def test_a_wrong_setting_stops_with_status_2_one_message_and_nothing_written(folder, capsys, flags, message):
    given = flags if "--config" in flags else ["--config", "recipe.yaml", *flags]
    assert main(["train", *given]) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "out").exists()
    assert not (folder / "cache").exists()


def test_missing_essentials_are_all_named_at_once(capsys):
    assert main(["train"]) == 2
    message = capsys.readouterr().err
    assert all(flag in message for flag in ("--model_name_or_path", "--dataset_name", "--output_dir"))


def test_an_unknown_key_in_a_recipe_is_named(folder, capsys):
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "learning_rat": 1.0}))
    assert main(["train", "--config", "recipe.yaml"]) == 2
    assert "learning_rat" in capsys.readouterr().err


def test_labels_that_are_not_clear_stop_before_anything_is_written(folder, capsys):
    write(folder / "rows.jsonl", [{"prompt": "p", "completion": "c", "label": 0.1 + 0.8 * (i % 2)} for i in range(4)])
    assert main(["train", "--config", "recipe.yaml"]) == 2
    assert "--label_map" in capsys.readouterr().err
    assert not (folder / "out").exists()
    mapped = [{"prompt": f"p{i}", "completion": "c", "label": ["bad", "good"][i % 2]} for i in range(4)]
    write(folder / "rows.jsonl", mapped)
    assert main(["train", "--config", "recipe.yaml", "--label_map", "good=up", "bad=down"]) == 0
    train_data = run_json(folder / "out")["data"]["train"]
    assert (train_data["ups"], train_data["downs"]) == (2, 2)


def test_a_label_that_begins_with_a_minus_can_be_mapped(folder):
    """argparse would take -1=down for an option; 1 is mapped to down here, so that no default reading helps."""
    write(
        folder / "rows.jsonl", [{"prompt": f"p{i}", "completion": "c", "label": 1 - 2 * (i % 3 > 0)} for i in range(6)]
    )
    flags = ["--label_map", "-1=up", "1=down"]
    assert main(["train", "--config", "recipe.yaml", *flags]) == 0
    data = run_json(folder / "out")["data"]["train"]
    assert (data["ups"], data["downs"]) == (4, 2)
    assert main(["doctor", "rows.jsonl", *flags]) == 0


def test_show_tokens_prints_what_is_scored(folder, capsys, caplog):
    assert main(["train", "--config", "recipe.yaml", "--show_tokens", "1"]) == 0
    assert "scored (#)" in caplog.text + capsys.readouterr().err


# ------------------------------------------------------------------------------------------------- other verbs


def test_the_doctor_has_three_exit_statuses(folder, capsys):
    write(folder / "clean.jsonl", singles(6))
    write(folder / "dropped.jsonl", [*singles(6), {"prompt": "p", "completion": "", "label": True}])
    write(folder / "unusable.jsonl", [{"question": "q", "good": "a", "bad": "b"}])
    assert main(["doctor", "clean.jsonl", "--model_name_or_path", "model", "--max_length", "128"]) == 0
    assert main(["doctor", "dropped.jsonl"]) == 1
    capsys.readouterr()
    assert main(["doctor", "unusable.jsonl", "--json"]) == 2
    assert "--map" in json.loads(capsys.readouterr().out)["error"]
    assert main(["doctor", "unusable.jsonl", "--map", "prompt=question", "chosen=good", "rejected=bad"]) == 0


@pytest.mark.parametrize("placed", [[], ["--device_map", "cpu"]], ids=["as in training", "placed by accelerate"])
def test_reference_build_fills_the_cache_that_train_then_reads(folder, capsys, placed):
    assert main(["reference", "build", "--config", "recipe.yaml", *placed]) == 0
    assert not (folder / "out" / "model.safetensors").exists()
    assert main(["train", "--config", "recipe.yaml"]) == 0
    assert run_json(folder / "out")["reference"]["computed_tokens"] == 0
    capsys.readouterr()
    assert main(["reference", "ls", "--ref_cache_dir", "cache", "--json"]) == 0
    (namespace,) = json.loads(capsys.readouterr().out)["namespaces"]
    assert namespace["namespace"] == run_json(folder / "out")["reference"]["namespace"]
    assert namespace["about"]["model"] == "model"


def test_the_reference_of_a_sharded_run_in_bfloat16_is_another_one(folder, capsys):
    flags = ["--config", "recipe.yaml", "--bf16", "true"]
    environment = dict(os.environ)
    for build in (["build"], ["build", "--sharded"], ["build", "--sharded"]):
        assert main(["reference", *build, *flags]) == 0
        os.environ.clear()
        os.environ.update(environment)
    names = re.findall(r"namespace (\w+)", capsys.readouterr().out)
    assert names[0] != names[1] == names[2]


def test_reference_verify_finds_damage_and_gc_removes_it(folder, capsys):
    assert main(["reference", "build", "--config", "recipe.yaml"]) == 0
    assert main(["reference", "verify", "--ref_cache_dir", "cache"]) == 0
    (shard,) = (folder / "cache").glob("*/*.arrow")
    shard.write_bytes(shard.read_bytes()[:-1])
    assert main(["reference", "verify", "--ref_cache_dir", "cache"]) == 2
    assert main(["reference", "gc", "--ref_cache_dir", "cache"]) == 0
    assert not shard.exists()
    assert main(["reference", "verify", "--ref_cache_dir", "cache"]) == 0


def test_env_reports_versions_as_json(capsys):
    assert main(["env", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["torch"] == torch.__version__
    assert all(line.startswith("pip install") for line in found["missing"].values())


@pytest.mark.parametrize("limit", ["0", "-1", "1.5", "9" * 30, "9" * 5000])
def test_a_count_is_a_whole_number_that_something_can_be_counted_to(limit, capsys):
    with pytest.raises(SystemExit):
        main(["generate", "--limit", limit])
    assert re.search(r"argument --limit: .*(whole number from 1 on|invalid count)", capsys.readouterr().err)


def test_an_unknown_verb_lists_the_known_ones(capsys):
    assert main(["align"]) == 2
    message = capsys.readouterr().err
    assert all(verb in message for verb in VERBS)


def gloo_threads() -> int:
    return sum("gloo" in name.read_text() for name in Path("/proc/self/task").glob("*/comm"))


def test_a_verb_that_ends_well_ends_the_process_group_that_it_began_and_its_threads(tmp_path, monkeypatch):
    """Eight of 104 processes that ended beside gloo's threads were aborted, when all of their work was done."""
    from bnf_align.cli import reference

    def joins(argv: list[str]) -> int:
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        if argv:
            raise BadInput("the others may wait for this process, and the launcher ends them")
        return 0

    before, verify = gloo_threads(), ["reference", "verify", "--ref_cache_dir", str(tmp_path)]
    try:
        with monkeypatch.context() as patch:
            patch.setattr(reference, "main", joins)
            assert main(["reference"]) == 0
            assert not torch.distributed.is_initialized()
            assert gloo_threads() == before
            assert main(["reference", "fails"]) == 2
            assert torch.distributed.is_initialized()
        assert main(verify) == 0  # within the group of a program that calls it
        assert torch.distributed.is_initialized()
        assert gloo_threads() > before
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_accelerate_launches_the_same_command_in_two_processes(folder):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCE.parent)}
    # --multi_gpu chooses the launcher that starts processes; `use_cpu` in the recipe keeps them on the CPU.
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command = [*launcher, "-m", "bnf_align", "train", "--config", "recipe.yaml"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    record = run_json(folder / "out")
    assert record["devices"] == 2
    assert record["arguments"]["per_device_train_batch_size"] == 2
    assert main(["train", "--config", "recipe.yaml", "--output_dir", "one"]) == 0
    one = run_json(folder / "one")
    assert one["reference"]["computed_tokens"] == 0  # the two processes filled the cache
    assert one["metrics"]["train_loss"] == pytest.approx(record["metrics"]["train_loss"], rel=1e-4)


# ---------------------------------------------------------------------------------- what help and messages name


def known_flags() -> set[str]:
    """Every flag of every verb, as its own parser has them."""
    from bnf_align.cli import arguments

    text = arguments.parser().format_help()
    for verb in (
        "doctor",
        "import",
        "reference",
        "reference ls",
        "reference gc",
        "reference verify",
        "plan",
        "construct",
        "generate",
        "score",
        "select",
        "eval run",
        "eval judge",
        "eval score",
        "eval rank",
        "eval held_out",
        "lab run",
        "analyze",
        "report",
        "compare",
        "collect",
        "env",
        "quickstart",
    ):
        command = [sys.executable, "-m", "bnf_align", *verb.split(), "--help"]
        text += subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"--[a-z][a-z0-9_-]*", text)) | {"--config", "--help-all"}


def texts() -> list[tuple[str, str]]:
    """(file, string) of every string constant in the package."""
    return [
        (str(path.relative_to(SOURCE)), node.value)
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def test_no_message_names_a_flag_that_does_not_exist():
    elsewhere = {"--no-build-isolation", "--config_file", "--device-map"}  # pip's, accelerate's; reference build's own
    known = known_flags() | elsewhere
    named = {(file, flag) for file, text in texts() for flag in re.findall(r"(?<![\w-])--[a-z][a-z0-9_-]*", text)}
    assert {(file, flag) for file, flag in named if flag not in known} == set()


def test_no_message_names_a_verb_that_does_not_exist():
    named = {(file, verb) for file, text in texts() for verb in re.findall(r"`bnf-align ([a-z]+)", text)}
    assert {(file, verb) for file, verb in named if verb not in VERBS} == set()


def test_the_short_help_of_train_lists_every_loss():
    from bnf_align import LOSSES

    (named,) = re.findall(r"--loss_type ([^-]*)--", train.HELP)
    assert set(re.findall(r"[a-z_]+", named)) - {"default"} == set(LOSSES)


def test_help_all_lists_every_flag_of_the_three_sources(capsys):
    assert main(["train", "--help-all"]) == 0
    text = capsys.readouterr().out
    assert all(flag in text for flag in ("--dataset_name", "--loss_type", "--lora_r", "--weight_decay", "--label_map"))


def test_a_model_that_is_not_there_is_a_message_and_not_a_traceback(tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b", "label": true}\n')
    flags = ["--model_name_or_path", str(tmp_path / "nowhere"), "--dataset_name", str(tmp_path / "rows.jsonl")]
    assert main(["train", *flags, "--output_dir", str(tmp_path / "out"), "--use_cpu"]) == 2
    assert "nowhere cannot be loaded" in capsys.readouterr().err
