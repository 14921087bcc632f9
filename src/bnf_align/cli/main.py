"""The command `bnf-align`: finds the verb, runs it, and turns an error that the user can mend into one clear text.

What is printed of data, models and servers must not drive the terminal that shows it.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from keyword import iskeyword
from typing import Any, TextIO, cast

from bnf_align.records import BadInput

# C0 and C1 control characters but for line feed and tab, marks that turn the direction of writing, and halves of
# surrogate pairs, which an output in UTF-8 cannot hold.
ACTIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
BAR = re.compile(r"\r|(\n|\x1b\[A)+\Z")
"""How a progress bar begins a line anew, or goes to the line of another bar."""


def inert(text: str) -> str:
    r"""`text` with the characters that a terminal obeys spelled out, and those of a progress bar left.

    Example:
        >>> print(inert("a row with \x1b[2J in it"))
        a row with \x1b[2J in it
    """
    start = bar.end() if (bar := BAR.match(text)) else 0
    return text[:start] + ACTIVE.sub(lambda found: found[0].encode("unicode_escape").decode(), text[start:])


class _Inert:
    """A stream that writes `inert` text."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(inert(text))

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


LESS_MEMORY = dict.fromkeys(
    ("train", "reference", "compare"),
    "A smaller --max_tokens_per_micro_batch (default 8192) takes less and changes no result; then --use_peft, "
    "--gradient_checkpointing true, or --max_length. `bnf-align plan` says what a run needs.",
)
LESS_MEMORY |= dict.fromkeys(
    ("generate", "score", "eval", "analyze", "construct"),
    "A smaller --batch-rows, --batch-tokens, --max-length or --max-new-tokens takes less, as far as the verb has it.",
)
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENAMETOOLONG}
NO_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|Cannot allocate memory", re.IGNORECASE)
# What safetensors and torch make of an error of the disk.
NOT_WRITTEN = re.compile(r"os error (\d+)|PytorchStreamWriter failed|unexpected pos \d+|file write failed")


def in_plain_words(error: Exception, verb: str) -> str | None:
    """What happened and what mends it; None for an error that is none of these."""
    said = " ".join(str(error).split())[:300]
    if isinstance(error, RuntimeError) and said.startswith("Could not determine home directory"):
        return "A path begins with ~ and a name that is no user's of this machine. Write its folder out."
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and NO_MEMORY.search(said)):
        advice = LESS_MEMORY.get(verb, "Close other programs, or take a machine with more.")
        return f"Out of memory ({said or type(error).__name__}). {advice}"
    if isinstance(error, OSError):
        written = error.errno in DISK
        where = f"{error.filename}: " if error.filename else ""
        said = f"{where}{error.strerror or error}"
    else:
        found = NOT_WRITTEN.search(said)
        written = found is not None and (found[1] is None or int(found[1]) in DISK)
    if written:
        return f"A file cannot be written or read: {said}. Make room or give another folder; what was whole stays."
    if type(error).__name__ == "BrokenProcessPool":
        return (
            "A process that worked for this command has died, most often because the machine had no memory left for "
            "it. Fewer processes take less; what was done is kept, and the same command goes on."
        )
    return None


VERBS = {
    "quickstart": "offline, two cores, minutes: a tiny model learns from thumbs, with a table and a picture",
    "lab": "the paper's claims as experiments in the quickstart's tiny world",
    "import": "an export of a chat product as preference rows: bnf-align import SOURCE PATHS --out rows.jsonl",
    "doctor": "what is this file, what is wrong with it, what would training do with it",
    "train": "align a model: bnf-align train --model_name_or_path M --dataset_name FILE --output_dir OUT",
    "export": "merge an adapter into its base: a model that any server loads",
    "reference": "the reference cache: build, ls, verify, gc",
    "plan": "memory, hours and disk of a run before you start it",
    "generate": "several answers to every prompt, by a model in process or behind URLs",
    "score": "a number for every candidate: a verifier, IFEval, a reward model, a ranker of pairs, a judge",
    "select": "scored candidates as preference rows: best against worst, or thumbs, with a data card",
    "construct": "a whole data set from one YAML file: generate, score, select, train",
    "eval": "benchmarks: run, judge, score, rank",
    "analyze": "how far methods moved a model: log-likelihood and logit shifts, Figures 1, 3 and 4",
    "compare": "methods x settings x seeds on the same rows, and which differences are real",
    "report": "a page of what was recorded, and the paper's tables for your own models",
    "collect": "a web page that gathers thumbs, which train reads",
    "env": "versions, devices, what is missing and the pip line for it",
}

GO_ON = dict.fromkeys(
    ("generate", "score", "eval", "analyze", "reference", "compare"), " The same command goes on where it was."
)
GO_ON["train"] = " --resume_from_checkpoint latest goes on from the last checkpoint, where --save_strategy left one."
GO_ON["lab"] = GO_ON["eval"]
GO_ON["construct"] = " The same command passes over what is there; a training begins anew."
"""What was done is not lost: verb -> how to go on after Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `bnf-align VERB ...`.

    Returns:
        The exit status: 0 done, 1 for the doctor's warnings, 2 for input that the user has to mend, 130 for Ctrl-C,
        143 for SIGTERM while training.
    """
    # Everything that is written to the standard streams, messages of libraries too, is inert.
    with redirect_stdout(cast(TextIO, _Inert(sys.stdout))), redirect_stderr(cast(TextIO, _Inert(sys.stderr))):
        return _run(list(sys.argv[1:] if argv is None else argv))


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0
    # With a space before it, argparse does not take a value such as -1=down after --label_map for an option.
    verb, *rest = [f" {argument}" if re.match(r"-\d.*=", argument) else argument for argument in arguments]
    if verb not in VERBS:
        print(f"bnf-align: {verb!r} is not a verb.\n\n{_help()}", file=sys.stderr)
        return 2
    # transformers and TRL report usage unless told otherwise; nothing here does so by itself.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Where it is installed, peft imports it, and it complains of kernels that only QLoRA would use.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # Of what one library calls in another: nothing that the user of either can mend.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|torch|accelerate)\b")
    joined = _in_group()
    try:
        module = f"{verb}_" if iskeyword(verb) else verb  # `import` cannot be a module's name
        status = int(import_module(f"bnf_align.cli.{module}").main(rest))
        sys.stdout.flush()
        if not joined:
            _leave_group()
        return status
    except BadInput as error:
        print(f"bnf-align {verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nbnf-align {verb}: stopped.{GO_ON.get(verb, '')}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if verb not in ("doctor", "import"):  # elsewhere the pipe may be a worker's
            raise
        # What reads the output has had enough, as `head` does: the rest goes nowhere, and raises no more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        said = in_plain_words(error, verb)
        if said is None:
            raise
        print(f"bnf-align {verb}: {said}{GO_ON.get(verb, '')}", file=sys.stderr)
        return 2


def _in_group() -> bool:
    """Whether this process is one of several that work together; torch is not imported for the question."""
    distributed = sys.modules.get("torch.distributed")
    return bool(distributed and distributed.is_available() and distributed.is_initialized())


def _leave_group() -> None:
    """End the process group that a verb began which ended well.

    An interpreter that ends beside gloo's threads may abort; they end with the last reference to the group. After an
    error the other processes may still wait for this one, and the launcher ends them.
    """
    if _in_group():
        sys.modules["torch.distributed"].destroy_process_group()
        gc.collect()


def _help() -> str:
    verbs = "\n".join(f"  {verb:<11} {summary}" for verb, summary in VERBS.items())
    return (
        "Align a language model from thumbs up and thumbs down.\n\n"
        f"usage: bnf-align VERB ...\n\n{verbs}\n\nbnf-align VERB --help says more."
    )
