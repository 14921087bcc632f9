"""`bnf-align plan`: memory, hours and disk before you start."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bnf_align.cli.flags import count
from bnf_align.records import BadInput, counted

if TYPE_CHECKING:
    from bnf_align.plan.workload import Workload

DESCRIPTION = """\
Peak memory per device, hours, disk and cache size of a run before it starts, from the model's config alone: estimates,
nothing is measured and no weight is loaded. Takes the flags of `bnf-align train` and --config; of the data file only
the lengths are used."""

GIB = 2**30


def main(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    usage = "%(prog)s [flags of train] [flags below]"
    parser = argparse.ArgumentParser("bnf-align plan", usage, DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--devices", type=count, help="how many (default: those of this process group)")
    parser.add_argument("--device_memory", type=float, help="GiB of one accelerator; plans for bfloat16 there")
    parser.add_argument("--tflops", type=float, help="bfloat16 peak of one device; hours assume 40%% of it")
    parser.add_argument("--rows", type=count, help="assume that many pairs and read no data file")
    parser.add_argument("--mean_length", type=count, default=500, help="with --rows: tokens a response (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    own, rest = parser.parse_known_args(argv)
    plan = _plan(own, rest)
    print(json.dumps(plan) if own.json else "\n".join(lines(plan)))
    return 0


def _plan(own: argparse.Namespace, rest: Sequence[str]) -> dict[str, Any]:
    import torch
    from transformers.utils import logging as transformers_logging

    from bnf_align.cli import arguments
    from bnf_align.plan.plan import Hardware, make_plan, resident_bytes

    transformers_logging.set_verbosity_warning()
    # A plan writes nothing, and with --rows it reads nothing either.
    filled = [*rest, "--output_dir", "planned", *(["--dataset_name", "none"] if own.rows else [])]
    data, config, model = arguments.parse(filled)
    devices = own.devices or config.world_size
    for name in ("device_memory", "tflops"):
        value = getattr(own, name)
        if value is not None and not 0 < value < 2**40:
            raise BadInput(f"--{name} {value}: a number above 0 is needed.")
    accelerator = own.device_memory is not None or (torch.cuda.is_available() and not config.use_cpu)
    memory = int(own.device_memory * GIB) if own.device_memory else None
    if memory is None and accelerator:
        memory = torch.cuda.get_device_properties(0).total_memory
    bf16 = bool(config.bf16) or own.device_memory is not None
    model_config, dtype = _model(model)
    work = _workload(own, data, config, model, devices)
    # What this process holds by now, libraries and rows, is what training will hold besides the model.
    process = 0 if accelerator else resident_bytes()
    return make_plan(
        model_config,
        config,
        work,
        Hardware(devices, memory, own.tflops, None, accelerator, bf16, process),
        dtype=dtype,
        peft_config=arguments.adapter_config(model),
        attention=model.attn_implementation,
        quantised_bits=4 if model.load_in_4bit else 8 if model.load_in_8bit else None,
    )


def _model(model: Any) -> tuple[Any, Any]:
    """The model's config, and the dtype that its weights will be loaded in."""
    import torch

    from bnf_align import models

    source = models.find(model.model_name_or_path, revision=model.model_revision)
    if source.adapter:
        raise BadInput(f"{source.adapter} is an adapter: plan with its base model, {source.base}, and --use_peft.")
    config = models.load_config(source.base, source.revision, model.trust_remote_code)
    dtype = config.dtype if model.dtype == "auto" else getattr(torch, str(model.dtype or "float32"))
    return config, dtype or torch.float32


def _workload(own: argparse.Namespace, data: Any, config: Any, model: Any, devices: int) -> Workload:
    from bnf_align.cli.arguments import load_rows
    from bnf_align.models import configured_tokenizer
    from bnf_align.plan.workload import assumed, of_rows

    if own.rows:
        return assumed(own.rows, own.mean_length, config, devices)
    rows, eval_rows = load_rows(data, config)
    try:
        tokenizer = configured_tokenizer(
            model.model_name_or_path,
            config.chat_template_path,
            config.eos_token,
            revision=model.model_revision,
            trust_remote_code=model.trust_remote_code,
        )
    except BadInput:  # the config alone is there
        tokenizer = None
    return of_rows(rows, eval_rows, tokenizer, config, devices)


def lines(plan: dict[str, Any]) -> list[str]:
    """The plan in plain words."""
    memory, work, hours = plan["memory_bytes"], plan["workload"], plan["hours"]
    disk, place = plan["disk_bytes"], f"{plan['devices']} x {plan['sharding']}" if plan["devices"] > 1 else "1 device"
    spent = "not estimated: state the device's peak with --tflops"
    if hours is not None:
        of = f"{hours['device']:,.1f} device hours at {hours['utilisation']:.0%} of the peak"
        spent = f"{hours['wall']:,.2f} ({of})"
    return [
        "All figures are estimates, made before the run.",
        f"parameters         {plan['parameters']:,}, trained {plan['trainable_parameters']:,}",
        f"work               {work['responses']:,} responses, {work['tokens']:,} tokens, "
        f"{counted(work['steps'], 'step')} an epoch ({work['source']})",
        f"largest batch      {work['rows']} x {work['length']} tokens in one forward pass",
        f"memory per device  {_gib(memory['total'])} ({place}, {'bfloat16' if plan['bf16'] else 'no'} autocast)",
        *(
            f"  {label:<17}{_gib(memory[name])}"
            for name, label in {
                "weights": "weights",
                "gradients": "gradients",
                "optimizer_states": "optimizer",
                "gathered": "gathered by FSDP",
                "micro_batch": "a micro-batch",
                "allocator": "allocator",
                "process": "process",
            }.items()
            if memory[name]  # an accelerator's allocator and process are not estimated, one device gathers nothing
        ),
        f"  activations      {_gib(memory['activations_without_checkpointing'])} without, "
        f"{_gib(memory['activations_with_checkpointing'])} with --activation_checkpointing "
        f"({'on' if plan['gradient_checkpointing'] else 'off'})",
        f"  head             tile {_gib(memory['head_tile'])}, dX {_gib(memory['head_dX'])}, "
        f"dW {_gib(memory['head_dW'])}",
        f"  reference pass   {_gib(memory['reference_pass'])}, before training, the whole model on each device",
        f"hours              {spent}",
        f"disk               {_gib(disk['total'])}: model {_gib(disk['model'])}, "
        f"{counted(disk['number_of_checkpoints'], 'checkpoint')} {_gib(disk['checkpoints'])}",
        f"reference cache    {plan['reference_cache_bytes'] / 2**20:,.1f} MiB (4 bytes a scored token)",
        *_suggestion(plan),
    ]


def _gib(size: int) -> str:
    return f"{size / GIB:,.2f} GiB" if size > 0.1 * GIB else f"{size / 2**20:,.1f} MiB"


def _suggestion(plan: dict[str, Any]) -> list[str]:
    found, memory = plan["suggestion"], plan["device_memory_bytes"]
    if found is None:
        return ["suggestion         state the memory of a device with --device_memory"]
    if found["devices"] is None:
        return [f"suggestion         does not fit into devices of {_gib(memory)}: --use_peft, or a lower --max_length"]
    how = {"none": "one device", "DDP": "DDP", "FSDP2": f"FSDP2 over {found['devices']} devices"}[found["sharding"]]
    said = [f"suggestion         {how}, --max_tokens_per_micro_batch {found['max_tokens_per_micro_batch']}"]
    if plan["memory_bytes"]["reference_pass"] > memory:
        said.append("                   the reference pass does not fit: see `bnf-align reference build`")
    return said
