"""From a source's rows to its responses, as the settings of a run want them: check, hold out, tokenise, keep."""

from __future__ import annotations

import logging
import pickle
import secrets
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import datasets
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedTokenizerBase

from bnf_align.config import PreferenceConfig
from bnf_align.data.assignments import assignments
from bnf_align.data.ledger import balance
from bnf_align.data.pairing import for_one_label, for_pairs, own_kl_rows
from bnf_align.data.rows import preference_rows, split_by_prompt
from bnf_align.data.tokenize import tokenize_rows
from bnf_align.records import BadInput, DataReport, PreferenceRow, counted

logger = logging.getLogger(__name__)

Rows = Iterable[Mapping[str, Any]]
Checked = dict[str, tuple[list[PreferenceRow], DataReport]]


def checked_rows(name: str, rows: Rows, config: PreferenceConfig) -> tuple[list[PreferenceRow], DataReport]:
    """Check the rows called `name` under the column, label and role names that `config` gives."""
    return preference_rows(
        rows,
        source=f"{name} rows",
        column_map=assignments("map", config.map),
        label_map=assignments("label_map", config.label_map),
        role_map=assignments("role_map", config.role_map),
        conflicting_labels=config.conflicting_labels,
    )


def held_out(checked: Checked, fraction: float) -> Checked:
    """Training rows without those of the held-out prompts, and these as evaluation rows."""
    rows, report = checked["train"]
    kept, held = split_by_prompt(rows, fraction)
    report.notes.append(f"{counted(len(held), 'row')} held out for evaluation, with all rows of their prompts")
    return {"train": (kept, report), "eval": (held, DataReport("eval rows", rows=len(held)))}


def tokenized(
    rows: list[PreferenceRow],
    report: DataReport,
    tokenizer: PreTrainedTokenizerBase,
    config: PreferenceConfig,
    vocab_size: int | None = None,
) -> datasets.Dataset:
    """Tokenise and truncate checked rows, keep what the loss can use, and say what was not."""

    def make() -> datasets.Dataset:
        responses = tokenize_rows(
            rows,
            tokenizer,
            report,
            max_length=config.max_length,
            merge_system_prompt=config.merge_system_prompt,
            score_thoughts=config.score_thoughts,
            template_date=config.template_date,
            vocab_size=vocab_size,
            num_proc=config.dataset_num_proc,
        )
        if config.loss.pairwise:
            return for_pairs(responses, report)
        if config.loss.only is not None:
            return for_one_label(responses, report, config.loss.only)
        for finding in (balance(report), own_kl_rows(responses) if config.loss.mismatched else None):
            if finding is not None:
                finding.say(report)
        return responses

    responses = once_per_machine(make, report)
    say("\n".join(report.lines()))
    return responses


def once_per_machine(make: Callable[[], datasets.Dataset], report: DataReport) -> datasets.Dataset:
    """What `make` returns and says in `report`, made by one process of each machine and read by its others.

    They wait for its file rather than at a barrier, which would end a long wait with an error; the file's name is
    nobody else's, and it is gone when all have read it.

    Raises:
        BadInput: On all of them, if `make` raises it on one.
    """
    state = PartialState()
    if state.num_processes == 1:
        return make()
    name = broadcast_object_list([f"bnf-align-{secrets.token_hex(8)}"])[0]
    first_here = state.process_index - state.local_process_index  # machines may share this folder too
    folder = Path(tempfile.gettempdir()) / f"{name}-{first_here}"
    path = folder / "responses.pickle"
    if state.is_local_main_process:
        folder.mkdir(mode=0o700)
        made: datasets.Dataset | Exception
        try:
            made = make()
        except Exception as error:  # the others must not wait for what never comes
            made = error if isinstance(error, BadInput) else RuntimeError(f"{type(error).__name__}: {error}")
        path.with_suffix(".part").write_bytes(pickle.dumps((made, vars(report))))
        path.with_suffix(".part").replace(path)
    else:
        while not path.exists():
            time.sleep(0.05)
        made, said = pickle.loads(path.read_bytes())
        vars(report).update(said)
    state.wait_for_everyone()
    if state.is_local_main_process:
        path.unlink()
        folder.rmdir()
    if isinstance(made, Exception):
        raise made
    return made


def say(text: str) -> None:
    """Once, on the main process, visible without any logging set-up: these lines stand before step 1."""
    if PartialState().is_main_process:
        logger.warning(text)
