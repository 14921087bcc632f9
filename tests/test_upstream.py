"""Private interfaces of other libraries stand in one file, and each is what that file takes it for."""

import ast
import inspect
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import GradientState
from accelerate.utils import GradientAccumulationPlugin
from transformers import Trainer

import bnf_align
from bnf_align import upstream
from tiny_nets import tiny_llama

SOURCE = Path(bnf_align.__file__).parent
TREES = {path.relative_to(SOURCE): ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}
OF_NAMED_TUPLES = {"_asdict", "_replace", "_fields"}  # public, in spite of their names


def own_names() -> set[str]:
    """Every name with an underscore that this package itself gives to something."""
    own = set()
    for path, tree in TREES.items():
        if path.name != "upstream.py":
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    own.add(node.name)
                elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                    if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                        own.add(node.attr)
                elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    own.add(node.target.id)
    return own


OWN = own_names() | OF_NAMED_TUPLES | {"_exit"}  # os._exit, which Python documents


@pytest.mark.parametrize("path", [path for path in TREES if path.name != "upstream.py"], ids=str)
def test_no_other_file_enters_a_library_behind_its_public_names(path):
    private = []
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            private += [ast.unparse(node)] if node.attr not in OWN else []
        elif isinstance(node, ast.ImportFrom) and node.module not in (None, "__future__"):
            names = [*str(node.module).split("."), *(alias.name for alias in node.names)]
            private += [ast.unparse(node)] if any(n.startswith("_") and n not in OWN for n in names) else []
    assert not private


def parameters(function) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_trainer_still_has_what_we_override_and_call_of_it():
    assert parameters(Trainer._get_grad_norm) == ["self", "model", "grad_norm"]
    assert parameters(Trainer._track_num_input_tokens) == ["self", "inputs"]
    assert parameters(Trainer._prepare_inputs) == ["self", "inputs"]
    assert parameters(Trainer._wrap_model)[:2] == ["self", "model"]
    epoch = inspect.getsource(Trainer._run_epoch)
    # The norm is asked for before the optimizer's step, and only there.
    assert epoch.index("self._get_grad_norm(") < epoch.index("self.optimizer.step()")
    assert epoch.count("_get_grad_norm(") == 1
    assert "self._track_num_input_tokens(inputs)" in epoch


def test_accelerate_still_keeps_its_models_and_its_accumulation_where_we_look():
    assert Accelerator(cpu=True)._models == []
    assert GradientState(GradientAccumulationPlugin(sync_each_batch=True)).plugin_kwargs["sync_each_batch"] is True


def test_the_attention_of_a_model_is_what_its_config_holds():
    model = tiny_llama(attn_implementation="eager")
    assert upstream.attention_of(model) == "eager"
    assert upstream.attention_of(tiny_llama()) == "sdpa"
    upstream.set_attention(model, "sdpa")
    assert upstream.attention_of(model) == "sdpa"
    ids = torch.arange(6)[None]
    other = tiny_llama(attn_implementation="sdpa")
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, other(input_ids=ids).logits)


def test_views_of_one_memory_have_one_storage_and_copies_another():
    values = torch.zeros(4)
    assert upstream.storage_of(values) == upstream.storage_of(values[1:])
    assert upstream.storage_of(values) != upstream.storage_of(values.clone())
    with upstream.FakeTensorMode():
        one, other = torch.zeros(4), torch.zeros(4)
    assert upstream.storage_of(one) != upstream.storage_of(other)


def test_torch_counts_the_flops_of_a_matmul():
    seen = []

    class Watch(upstream.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            output = func(*args, **(kwargs or {}))
            if count := upstream.flops_of(func):
                seen.append(count(*args, **(kwargs or {}), out_val=output))
            return output

    with Watch():
        torch.zeros(2, 3) @ torch.zeros(3, 5)
    assert seen == [2 * 2 * 3 * 5]
