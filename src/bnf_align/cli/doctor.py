"""`bnf-align doctor DATA`: what is this file, what is wrong with it, what would training do with it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

EPILOG = "Exit status: 0 clean, 1 warnings, or rows left out or cut, 2 unusable. Nothing is changed."


def main(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    parser = argparse.ArgumentParser(prog="bnf-align doctor", description=__doc__, epilog=EPILOG)
    parser.add_argument("data", help="a .json, .jsonl or .parquet file (.gz too), a folder, or a hub name")
    parser.add_argument("--dataset_train_split", default="train", help="which split, where there are several")
    parser.add_argument("--model_name_or_path", help="the model to train: its tokenizer gives templates and lengths")
    parser.add_argument("--max_length", type=int, default=4096, help="as in training (default %(default)s)")
    parser.add_argument("--map", nargs="+", help="columns under other names: prompt=question chosen=good rejected=bad")
    parser.add_argument("--label_map", nargs="+", help="what labels mean: good=up bad=down unsure=drop")
    parser.add_argument("--role_map", nargs="+", help="roles under other names: bot=assistant human=user")
    parser.add_argument("--conflicting_labels", default="drop", choices=("drop", "keep", "majority"))
    parser.add_argument("--merge_system_prompt", action="store_true", help="as in training")
    parser.add_argument("--chat_template_path", help="as in training")
    parser.add_argument("--eos_token", help="as in training")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    arguments = parser.parse_args(argv)
    from bnf_align.data.doctor import examine
    from bnf_align.training.config import assignments
    from bnf_align.training.model import configured_tokenizer

    tokenizer = None
    if arguments.model_name_or_path:
        tokenizer = configured_tokenizer(
            arguments.model_name_or_path, arguments.chat_template_path, arguments.eos_token
        )
    result = examine(
        arguments.data,
        split=arguments.dataset_train_split,
        tokenizer=tokenizer,
        max_length=arguments.max_length,
        merge_system_prompt=arguments.merge_system_prompt,
        column_map=assignments("map", arguments.map),
        label_map=assignments("label_map", arguments.label_map),
        role_map=assignments("role_map", arguments.role_map),
        conflicting_labels=arguments.conflicting_labels,
    )
    print(json.dumps(result.as_dict()) if arguments.json else "\n".join(result.lines()))
    return result.status
