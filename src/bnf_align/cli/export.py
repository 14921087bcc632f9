"""`bnf-align export`: a model that any server loads, without an adapter."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

from bnf_align.cli.flags import add_flag

DESCRIPTION = """\
Merge an adapter into its base model, or write a model (a GGUF file too) in another dtype. Log-probabilities are
compared before and after, and nothing is written where they moved by more than rounding explains."""

EPILOG = "See docs/export.md, for GGUF too."


def main(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    parser = argparse.ArgumentParser(prog="bnf-align export", description=DESCRIPTION, epilog=EPILOG)
    add_flag(parser, "--model", required=True, help="an adapter or a model: folder, hub name or GGUF file")
    add_flag(parser, "--out", required=True, metavar="DIR", help="a new folder")
    parser.add_argument(
        "--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16"), help="default: the base's own"
    )
    bits = parser.add_mutually_exclusive_group()
    add_flag(bits, "--load-in-4bit", action="store_true", help="the adapter was trained with --load_in_4bit (QLoRA)")
    add_flag(bits, "--load-in-8bit", action="store_true", help="the adapter was trained with --load_in_8bit")
    add_flag(parser, "--bnb-4bit-quant-type", default="nf4", choices=("nf4", "fp4"), help="as in training")
    add_flag(parser, "--use-bnb-nested-quant", action="store_true", help="as in training")
    add_flag(parser, "--model-revision", help="branch, tag or commit of --model on the hub")
    add_flag(parser, "--trust-remote-code", action="store_true", help="run code that comes with the model")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)

    from bnf_align.training.export import export

    found = export(
        arguments.model,
        arguments.out,
        dtype=arguments.dtype,
        quantization_config=_quantization(arguments),
        revision=arguments.model_revision,
        trust_remote_code=arguments.trust_remote_code,
    )
    if arguments.json:
        print(json.dumps(asdict(found), default=str))
        return 0
    what = f"{found.base} with {found.adapter} merged into it" if found.adapter else found.base
    print(f"{found.out}: {what}, {found.dtype}.")
    print(
        f"Log-probabilities of {found.tokens} tokens moved by {found.merging:.1e} nats on average in merging, and by "
        f"{found.rounding:.1e} in rounding to {found.dtype}."
    )
    return 0


def _quantization(arguments: argparse.Namespace) -> object:
    if not (arguments.load_in_4bit or arguments.load_in_8bit):
        return None
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=arguments.load_in_4bit,
        load_in_8bit=arguments.load_in_8bit,
        bnb_4bit_compute_dtype=torch.float32,
        bnb_4bit_quant_type=arguments.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=arguments.use_bnb_nested_quant,
    )
