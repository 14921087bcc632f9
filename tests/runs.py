"""Small runs for the tests of training: rows, a trainer over a tiny model, and the gradient of its first step."""

import torch
from transformers import TrainerCallback

from bnf_align import PreferenceConfig, PreferenceTrainer
from tiny_models import plain_tokenizer
from tiny_nets import tiny_llama


def pairs(count: int = 8) -> list[dict]:
    """Pairs whose responses have 2 to 20 tokens, chosen and rejected of unlike length."""
    return [
        {"prompt": f"question {i} ", "chosen": "good " * (1 + i % 4), "rejected": "bad" * (1 + (3 * i) % 5)}
        for i in range(count)
    ]


def singles(count: int = 16) -> list[dict]:
    """Single responses, a third of them down."""
    return [
        {"prompt": f"query {i} " * (1 + i % 3), "completion": "word" * (1 + (7 * i) % 6), "label": i % 3 > 0}
        for i in range(count)
    ]


class GradientProbe(TrainerCallback):
    """Keeps the gradient as it stands before each optimizer step, each tensor as `copy` makes it."""

    def __init__(self, copy=torch.clone):
        self.steps, self.copy = [], copy

    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        self.steps.append({name: self.copy(p.grad) for name, p in model.named_parameters() if p.requires_grad})


def make_trainer(
    folder, rows, *, model=None, loss_type="bnf", trainer_class=PreferenceTrainer, eval_rows=None, **options
):
    """A trainer whose optimizer is SGD, so that weights show the gradient and not its sign."""
    named = {key: options.pop(key) for key in ("peft_config", "callbacks") if key in options}
    settings = {
        "output_dir": str(folder / "run"),
        "ref_cache_dir": str(folder / "cache"),
        "loss_type": loss_type,
        "optim": "sgd",
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "max_length": 128,
        "max_steps": 1,
        "batch_size": len(rows) if isinstance(rows, list) else 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "report_to": "none",
        **options,
    }
    tokenizer = plain_tokenizer()
    return trainer_class(
        model if model is not None else tiny_llama(len(tokenizer)),
        PreferenceConfig(**settings),
        train_dataset=rows,
        eval_dataset=eval_rows,
        processing_class=tokenizer,
        **named,
    )


def perturb(trainer, scale: float = 0.05):
    """Move the policy away from the reference that the trainer has already computed, which step 0 would not let by."""
    from tiny_nets import perturbed

    trainer._step_0 = False

    perturbed(trainer.model, scale)
    return trainer


def first_gradient(trainer) -> dict[str, torch.Tensor]:
    """The gradient of the trainer's first step, by parameter."""
    probe = GradientProbe()
    trainer.add_callback(probe)
    trainer.train()
    return probe.steps[0]


def relative_difference(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """L2 norm of the difference over the L2 norm of `expected`, over all parameters."""
    assert actual.keys() == expected.keys()
    difference = sum((actual[name] - expected[name]).double().square().sum() for name in expected)
    return float((difference / sum(value.double().square().sum() for value in expected.values())).sqrt())
