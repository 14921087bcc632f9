"""The public interface: a change here is a change that CHANGELOG names."""

import inspect

import pytest

import bnf_align
from bnf_align.cli.main import VERBS

LOSSES = {
    "apo_zero": "completions, label, beta=0.1",
    "bco": "completions, label, delta, beta=0.1",
    "bnf_asymmetric": "completions, label",
    "bnf_contrastive": "chosen, rejected, beta=0.1",
    "bnf_loss": "completions, label",
    "dpo": "chosen, rejected, beta=0.1, label_smoothing=0.0",
    "dpo_norm": "chosen, rejected, beta=5.0, label_smoothing=0.0",
    "ipo": "chosen, rejected, tau=0.1, per_token=True",
    "kto": "completions, label, kl, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0",
    "nll_pll": "completions, label, per_token=True",
    "npo": "completions, label, beta=0.1",
    "orpo": "chosen, rejected, lam=0.1",
    "rdpo": "chosen, rejected, beta=0.1, alpha=0.1",
    "rpo": "chosen, rejected, beta=0.1, alpha=1.0",
    "sft": "completions, label",
    "simpo": "chosen, rejected, beta=2.5, gamma=1.375",
    "slic_hf": "chosen, rejected, delta=1.0, lam=0.1",
    "topr": "completions, label",
    "w_reinforce": "completions, label, lam=0.1",
}
OTHERS = {
    *("LOSSES", "BNFConfig", "BNFTrainer", "BadInput", "CompletionLogps", "LossSpec", "PreferenceConfig"),
    *("PreferenceTrainer", "bnf_weights", "eq4_value", "scored_text"),
}


def test_these_names_are_public_and_no_others():
    assert set(bnf_align.__all__) == {*LOSSES, *OTHERS}
    assert all(hasattr(bnf_align, name) for name in bnf_align.__all__)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_takes_these_arguments_with_these_defaults(name):
    parameters = inspect.signature(getattr(bnf_align, name)).parameters.values()
    shown = [one.name if one.default is one.empty else f"{one.name}={one.default}" for one in parameters]
    assert ", ".join(shown) == LOSSES[name]


def test_the_trainer_is_made_as_those_of_trl_are():
    names = list(inspect.signature(bnf_align.PreferenceTrainer.__init__).parameters)[1:]
    assert names == [
        *("model", "args", "train_dataset", "eval_dataset", "processing_class", "peft_config", "callbacks"),
        *("optimizers", "optimizer_cls_and_kwargs", "others"),
    ]


def test_the_verbs_are_these():
    assert list(VERBS) == [
        *("quickstart", "lab", "import", "doctor", "train", "export", "reference", "plan", "generate", "score"),
        *("select", "construct", "eval", "analyze", "compare", "report", "collect", "env"),
    ]
