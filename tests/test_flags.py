"""Flags that several verbs share, and the recipes that hold flags."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from bnf_align.cli import analyze, arguments, doctor, generate, score, select
from bnf_align.cli.flags import key_variable, text_of
from bnf_align.cli.main import main
from bnf_align.cli.recipe import read_recipe
from bnf_align.judge.wording import wording
from bnf_align.records import BadInput


def test_a_template_is_read_byte_for_byte(tmp_path):
    path = tmp_path / "template.md"
    path.write_bytes("\ufeffa\r\nb\rc \n\n{question}\n".encode())
    assert text_of(path) == "\ufeffa\r\nb\rc \n\n{question}\n"


def test_a_template_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "latin.md").write_bytes(b"caf\xe9")
    for name in ("latin.md", "missing.md"):
        with pytest.raises(BadInput, match=name):
            text_of(tmp_path / name)


def test_our_wording_in_a_file_stays_ours():
    assert wording("ours", "ours") == wording(None, "ours")
    assert wording("ours", "ours").startswith("ours:")
    assert not wording("theirs", "ours").startswith("ours:")


def test_a_flag_that_is_misspelt_is_named_with_the_one_meant():
    with pytest.raises(BadInput, match=r"--modle is no flag of this command\. Did you mean --model\?"):
        arguments.parse(["--modle", "m"])


def test_a_thing_has_one_name_in_all_verbs_and_its_long_name_too(tmp_path):
    for model, data, split, out in (
        ("--model", "--data", "--split", "--out"),
        ("--model_name_or_path", "--dataset_name", "--dataset_train_split", "--output_dir"),
    ):
        words = [model, "m", data, "d.jsonl", f"{split}=dev", out, str(tmp_path)]
        rows, config, asked = arguments.parse([*words, "--use_cpu", "true", "--bf16", "false"])
        said = asked.model_name_or_path, rows.dataset_name, rows.dataset_train_split, config.output_dir
        assert said == ("m", "d.jsonl", "dev", str(tmp_path))
        verbs = {
            "generate": (generate._parser(), words),
            "analyze": (analyze._parser(), words),
            "doctor": (doctor._parser(), ["d.jsonl", model, "m", split, "dev"]),
            "select": (select._parser(), ["s.jsonl", out, "o.jsonl"]),
            "score": (score._parser(), ["s.jsonl", "--scorer", "judge", model, "m", out, "o.jsonl"]),
        }
        for verb, (parser, given) in verbs.items():
            assert "m" in str(vars(parser.parse_args(given))) or verb == "select", verb


@pytest.mark.parametrize("wrong", ["0", "-3", "1.5", "ten", ""])
def test_none_of_something_is_refused_before_an_empty_file_passes_for_a_finished_one(wrong, capsys):
    argv = ["eval", "run", "--task", "gsm8k", "--model", "m", "--out", "o"]
    for flag in ("--limit", "--concurrency", "--batch-rows", "--max-new-tokens"):
        with pytest.raises(SystemExit) as stopped:
            main([*argv, f"{flag}={wrong}"])
        assert stopped.value.code == 2
        assert f"argument {flag}" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["sk-proj-abc123", "hf_abc123", "Bearer x"])
def test_a_key_where_its_variables_name_belongs_is_refused_and_not_repeated(key):
    arguments = SimpleNamespace(url=["http://localhost:1"], api_key_env=key, concurrency=1)
    with pytest.raises(BadInput, match="name of an environment variable") as caught:
        key_variable(arguments)
    assert key not in str(caught.value)
    arguments.api_key_env = "MY_KEY_2"
    assert key_variable(arguments) == "MY_KEY_2"


# ------------------------------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", "010"),  # 8 in YAML 1.1; the flag reads it as 10
        ("1:30", "1:30"),  # 90
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("2026-01-01", "2026-01-01"),
        ("no", "no"),  # False, and a save_strategy
        ("on", "on"),
        ("true", True),
        ("1e-6", 1e-6),  # a text in YAML 1.1
        ("-5", -5),
        (".5", 0.5),
        ("", None),
        ("~", None),
        ("[a, 2]", ["a", 2]),
        ("{beta: 0.1}", {"beta": 0.1}),
        ("'5'", "5"),
    ],
)
def test_a_recipe_says_what_it_seems_to_say(tmp_path, text, value):
    (tmp_path / "recipe.yaml").write_text(f"key: {text}\n")
    found = read_recipe(tmp_path / "recipe.yaml")["key"]
    assert (found, type(found)) == (value, type(value))


DOUBLINGS = "".join(f"{new}: &{new} [*{old}, *{old}]\n" for old, new in zip("abcdef", "bcdefg", strict=True))
BOMB = "a: &a [x, x]\n" + DOUBLINGS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nlearning_rate: 2\nseed: 3\n", "seed stands twice.*line 3"),
        ("loss_kwargs: {beta: 1, beta: 2}\n", "beta stands twice"),
        (BOMB, "aliases .* are not read.*line 2"),
        ("5: 1\n", "5 is no name"),
        ("- a\n", "holds no settings"),
        ("", "holds no settings"),
        ("a: [1\n", "cannot be read"),
        ("a: !!python/object/apply:os.system [ls]\n", "cannot be read"),
        ("[" * 20_000, "cannot be read"),
        ("a: " + "x" * 2**20, "longer than"),
    ],
)
def test_a_recipe_that_could_be_read_two_ways_or_never_ends_is_refused(tmp_path, text, message):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(BadInput, match=message) as caught:
        read_recipe(tmp_path / "recipe.yaml")
    assert "recipe.yaml" in str(caught.value)
    with pytest.raises(BadInput, match=r"recipe\.yaml"):
        arguments.parse(["--config", str(tmp_path / "recipe.yaml")])


def test_a_recipe_that_is_no_text_or_not_there_is_named(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"a: caf\xe9")
    for name in ("latin.yaml", "missing.yaml", "."):
        with pytest.raises(BadInput, match="--config"):
            read_recipe(tmp_path / name)


NEEDED = {"model_name_or_path": "m", "dataset_name": "d", "output_dir": "o"}


def parsed(tmp_path, text: str, *flags: str):
    lines = "".join(f"{name}: {value}\n" for name, value in NEEDED.items())
    (tmp_path / "recipe.yaml").write_text(lines + text)
    return arguments.parse([f"--config={tmp_path / 'recipe.yaml'}", *flags])


def test_values_of_a_recipe_arrive_as_their_flags_would_bring_them_and_flags_win(tmp_path):
    text = """\
save_strategy: no
learning_rate: 1e-6
batch_size: 010
use_cpu: yes
disable_dropout: false
loss_type: dpo
loss_kwargs: {beta: 0.2}
report_to: [none]
label_map: [-1=down, 1=up]
use_peft: true
lora_target_modules: all-linear
lora_r: 8
run_name: "5"
eval_steps: ~
"""
    data, config, model = parsed(tmp_path, text, "--lora_r", "4", "--dataset_name", "mine")
    assert (data.dataset_name, model.model_name_or_path, model.lora_r) == ("mine", "m", 4)
    assert (config.save_strategy.value, config.learning_rate, config.batch_size) == ("no", 1e-6, 10)
    assert (config.use_cpu, config.disable_dropout, config.loss_kwargs) == (True, False, {"beta": 0.2})
    assert (config.label_map, config.run_name, config.eval_steps) == (["-1=down", "1=up"], "5", None)
    assert model.lora_target_modules == ["all-linear"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch_size: [1, 2]\n", "batch_size takes one value"),
        ("batch_size: 4.5\n", "batch_size.*4.5"),
        ("batch_size: true\n", "batch_size.*true"),
        ("learning_rate: {a: 1}\n", "learning_rate takes one value"),
        ("learning_rate: .nan\n", "learning_rate"),
        ("dtype: float8\n", "dtype.*float8"),
        ("lora_r: ~\n", "lora_r takes one value"),
        ("learning: 1\n", "no such setting: learning"),  # no beginning of a name is that name
        ("env: {WANDB_PROJECT: x}\n", "no such setting: env.*in the shell"),
        ("config: other.yaml\n", "no such setting: config"),
        ("load_in_4bit: true\nload_in_8bit: true\n", "choose one"),
    ],
)
def test_a_value_that_its_flag_does_not_take_is_refused_by_name(tmp_path, text, message):
    with pytest.raises(BadInput, match=message):
        parsed(tmp_path, text)


@pytest.mark.parametrize("flags", [["--config"], ["--config", "a", "--config", "b"], ["--learning", "1"]])
def test_flags_that_are_cut_short_or_doubled_are_refused(flags):
    with pytest.raises(BadInput):
        arguments.parse(flags)


def test_the_flags_of_an_adapter_and_of_quantisation_are_those_of_trl(tmp_path):
    trl = pytest.importorskip("trl")
    from dataclasses import fields

    from trl import get_peft_config, get_quantization_config

    ours, theirs = arguments.ModelArguments(), trl.ModelConfig()
    differ = {f.name for f in fields(theirs) if getattr(ours, f.name) != getattr(theirs, f.name)}
    assert differ == {"lora_dropout"}  # 0.05 there, and off by default here: see `disable_dropout`
    assert {f.name for f in fields(ours)} - {f.name for f in fields(theirs)} == {"trust_remote_code"}
    given = {"use_peft": True, "lora_r": 4, "lora_alpha": 3, "lora_dropout": 0.1, "use_dora": True, "use_rslora": True}
    given |= {"lora_target_modules": ["q_proj", "v_proj"], "lora_modules_to_save": ["norm"]}
    for bits in ({"load_in_4bit": True, "dtype": "bfloat16", "use_bnb_nested_quant": True}, {"load_in_8bit": True}):
        ours, theirs = arguments.ModelArguments(**given, **bits), trl.ModelConfig(**given, **bits)
        assert arguments.adapter_config(ours).to_dict() == get_peft_config(theirs).to_dict()
        found = arguments.model_kwargs(ours)["quantization_config"].to_dict()
        expected = get_quantization_config(theirs).to_dict()
        compared = expected.keys() if "load_in_4bit" in bits else {"load_in_8bit", "load_in_4bit"}
        assert {name: found[name] for name in compared} == {name: expected[name] for name in compared}
    assert arguments.adapter_config(arguments.ModelArguments()) is None


@pytest.mark.parametrize(
    ("targets", "expected"),
    [(["all-linear"], "all-linear"), (["q_proj"], {"q_proj"}), ([r".*layers\.0\..*proj"], r".*layers\.0\..*proj")],
)
def test_one_target_module_is_a_name_a_pattern_or_all(targets, expected):
    model = arguments.ModelArguments(use_peft=True, lora_target_modules=targets)
    assert arguments.adapter_config(model).target_modules == expected


def test_the_flags_are_read_without_trl_and_help_without_torch():
    code = (
        "import sys; sys.modules['trl'] = None; from bnf_align.cli import arguments; arguments.parser().format_help()"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    code = (
        "import sys; from bnf_align.cli.main import main; main(['train', '--help']); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0


def test_a_revision_of_several_models_or_of_a_served_one_is_refused(tmp_path, capsys):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "p"}\n')
    flags = ["generate", "--prompts", str(tmp_path / "prompts.jsonl"), "--out", str(tmp_path / "o"), "--model", "a"]
    for more in (["b", "--model_revision", "v"], ["--url", "http://localhost:9/v1", "--model-revision", "v"]):
        assert main([*flags, *more]) == 2
        assert "--model_revision" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lora_r", "4"], "--lora_r 4 changes nothing without --use_peft"),
        (["--use_dora", "true"], "--use_dora true changes nothing without --use_peft"),
        (["--bnb_4bit_quant_type", "fp4"], "--bnb_4bit_quant_type fp4 changes nothing without --load_in_4bit"),
        (["--eval_task_steps", "2"], "--eval_task_steps 2 changes nothing without --eval_task"),
        (["--sample_tokens", "8"], "--sample_tokens 8 changes nothing without --sample_prompts"),
        (["--metric_for_best_model", "loss"], "--metric_for_best_model loss changes nothing without --eval_strategy"),
        (["--eval_steps", "5"], "--eval_steps 5 changes nothing without --eval_strategy steps"),
        (["--save_strategy", "epoch", "--save_steps", "5"], "--save_steps 5 .* without --save_strategy steps"),
        (
            ["--load_best_model_at_end", "true", "--save_strategy", "no"],
            "--load_best_model_at_end true .* --eval_strategy",
        ),
        (["--hub_model_id", "me/m"], "--hub_model_id me/m changes nothing without --push_to_hub"),
    ],
)
def test_a_flag_that_nothing_would_read_is_refused(words, message):
    needed = ["--model_name_or_path", "m", "--dataset_name", "d", "--output_dir", "o", "--use_cpu", "true"]
    with pytest.raises(BadInput, match=message):
        arguments.parse([*needed, *words])


def test_flags_that_something_reads_are_taken():
    needed = ["--model_name_or_path", "m", "--dataset_name", "d", "--output_dir", "o", "--use_cpu", "true"]
    evaluated = [
        "--eval_strategy",
        "steps",
        "--eval_steps",
        "5",
        "--metric_for_best_model",
        "loss",
        "--eval_fraction",
        "0.1",
    ]
    saved = [
        "--save_strategy",
        "steps",
        "--save_steps",
        "5",
        "--logging_steps",
        "5",
        "--push_to_hub",
        "--hub_model_id",
        "me/m",
    ]
    config = arguments.parse([*needed, *evaluated, *saved])[1]
    assert (config.eval_steps, config.save_steps, config.logging_steps, config.hub_model_id) == (5, 5, 5, "me/m")
