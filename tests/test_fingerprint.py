"""A model's weights as a text: everything that a checkpoint holds counts, with its name, type and shape."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from bnf_align.fingerprint import weights_hash
from tiny_nets import tiny_llama


def net() -> nn.Module:
    module = nn.Module()
    module.one, module.two = nn.Parameter(torch.arange(6.0).view(2, 3)), nn.Parameter(torch.ones(2, 3))
    module.register_buffer("kept", torch.tensor([1, 2]))
    module.register_buffer("made_from_the_config", torch.tensor([1.0]), persistent=False)
    return module


def changed(change) -> str:
    module = net()
    with torch.no_grad():
        change(module)
    return weights_hash(module)


def test_every_value_name_type_and_shape_of_a_checkpoint_counts():
    def exchange(module):
        module.one, module.two = module.two, module.one

    def buffer(module):
        module.kept[1] = 3

    changes = {
        "a value": lambda module: module.one[1, 2].add_(1e-6),
        "a sign of zero": lambda module: module.one[0, 0].neg_(),
        "a shape": lambda module: setattr(module, "one", nn.Parameter(module.one.view(3, 2))),
        "a type": lambda module: setattr(module, "two", nn.Parameter(module.two.bfloat16())),
        "names": exchange,
        "a buffer": buffer,
        "one more": lambda module: module.register_buffer("more", torch.zeros(0)),
    }
    hashes = {name: changed(change) for name, change in changes.items()}
    assert len({weights_hash(net()), *hashes.values()}) == 1 + len(changes), hashes
    assert weights_hash(net()) == changed(lambda module: None)


def test_what_a_model_makes_from_its_config_does_not_count():
    """Rotary frequencies are such buffers, and some models change them while they run."""
    assert changed(lambda module: module.made_from_the_config.fill_(7)) == weights_hash(net())


def test_where_weights_lie_in_memory_and_whether_they_train_does_not_count():
    by_columns = changed(lambda module: setattr(module, "one", nn.Parameter(module.one.t().clone().t())))
    assert weights_hash(net()) == by_columns == changed(lambda module: module.requires_grad_(False))


def test_an_adapter_counts():
    def adapted(seed):
        base = tiny_llama(60)
        torch.manual_seed(seed)
        return get_peft_model(base, LoraConfig(target_modules=["q_proj"], init_lora_weights=False))

    assert len({weights_hash(tiny_llama(60)), weights_hash(adapted(1)), weights_hash(adapted(2))}) == 3
    assert weights_hash(adapted(1)) == weights_hash(adapted(1))


def test_the_settings_of_an_adapter_count_for_its_weights_are_the_same():
    def adapted(alpha: int) -> str:
        torch.manual_seed(0)
        return weights_hash(get_peft_model(tiny_llama(), LoraConfig(r=2, lora_alpha=alpha, target_modules=["q_proj"])))

    assert adapted(8) == adapted(8)
    assert adapted(8) != adapted(64)
