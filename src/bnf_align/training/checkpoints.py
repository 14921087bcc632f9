"""Checkpoints that a run can go on from: whole, and of this very run."""

from __future__ import annotations

import datetime
import json
import logging
import re
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError, safe_open
from transformers import TrainerCallback

from bnf_align.config import PreferenceConfig
from bnf_align.outputs import write_json
from bnf_align.records import BadInput
from bnf_align.reference.cache import digest

if TYPE_CHECKING:
    from bnf_align.training.trainer import PreferenceTrainer

logger = logging.getLogger(__name__)

CARD = "bnf_align.json"
DATE = "date that the chat template writes"
"""In the card; it is no setting to compare, for the tokens that follow from it are."""
STATE = "trainer_state.json"
"""Written last by transformers.Trainer."""


def card(trainer: PreferenceTrainer) -> dict[str, Any]:
    """What the steps of a run follow from: a checkpoint of other settings is one of another run."""
    args, steps, reference = trainer.args, trainer.train_dataset, trainer.prepared.reference
    examples = None
    if steps is not None:  # all tokens, masks and labels, in their order
        parts = (steps.responses.ids, steps.responses.starts, steps.responses.masks, steps.responses.labels)
        examples = digest("".join(digest(part.tobytes()) for part in parts).encode())
    return {
        "examples": examples,
        "number of examples": len(steps) if steps is not None else 0,
        "reference": reference.namespace if reference else None,
        "loss_type": args.loss_type,
        "loss_kwargs": trainer.loss_kwargs,
        "batch_size": args.batch_size,
        "seed of the order": args.order_seed,
        "dataloader_drop_last": args.dataloader_drop_last,
        DATE: args.template_date,
    }


class WriteCard(TrainerCallback):
    """Leaves in each checkpoint what it is a checkpoint of, and what BCO's delta is the mean of."""

    def __init__(self, trainer: PreferenceTrainer) -> None:
        self.trainer = trainer

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """On the main process."""
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_json(folder / CARD, {**card(self.trainer), "rewards": self.trainer.rewards.tolist()})


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; `ValueError` where a file holds none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no JSON object")
    return found


def rewards_until(folder: str) -> list[float]:
    """`PreferenceTrainer.rewards` at the checkpoint in `folder`; zeros, with a warning, where it has none."""
    path = Path(folder) / CARD
    found = _read(path).get("rewards") if path.exists() else None
    if found is None:
        logger.warning(f"{folder} does not hold the rewards so far: their mean, which bco compares with, begins anew.")
    return found or [0.0, 0.0]


def refuse_another_run(folder: Path, now: Mapping[str, Any]) -> None:
    """Stop where `folder` is the checkpoint of other data, another starting model or other settings.

    Raises:
        BadInput: Naming each difference.
    """
    if not (folder / CARD).exists():
        logger.warning(f"{folder} has no {CARD}, so it is not known to be of this run: it is taken at its word.")
        return
    before = _read(folder / CARD)
    now = json.loads(json.dumps(dict(now), default=str))
    differing = [name for name in now if name != DATE and before.get(name) != now[name]]
    if differing:
        shown = "; ".join(f"{name}: {before.get(name)} there, {now[name]} here" for name in differing)
        date = before.get(DATE) if before.get(DATE) != now.get(DATE) else None
        clock = f", --template_date {date} among them" if date else ""
        raise BadInput(
            f"{folder} is a checkpoint of another run ({shown}). To go on with it, give the model, data and settings "
            f"that it was begun with{clock}. To train its model on other data, give it as --model_name_or_path with "
            "another --output_dir; its weights are then the reference."
        )


def date_of_the_run(args: PreferenceConfig) -> str:
    """The date that chat templates write: as set, else that of the checkpoint to resume from, else today's.

    A run that goes on tomorrow then trains on the tokens that it began with, and finds their reference in the cache.
    """
    given, date = args.resume_from_checkpoint, args.template_date
    if given and date is None:
        folders = [Path(str(given))]
        if given in (True, "latest"):
            folders = sorted(Path(str(args.output_dir)).glob("checkpoint-*"), key=lambda f: f.stat().st_mtime)
        for folder in folders:
            with suppress(OSError, ValueError):  # without a card, or with half of one
                date = _read(folder / CARD).get(DATE, date)
    # One date for all processes, whatever their clocks say.
    return str(broadcast_object_list([date or datetime.date.today().isoformat()])[0])


def damage(folder: Path) -> str | None:
    """What keeps a run from going on from the checkpoint in `folder`, for a message; None if it is whole."""
    for name in (STATE, CARD):
        try:
            _read(folder / name)
        except (OSError, ValueError):
            if name == STATE or (folder / name).exists():
                return f"{name} is missing or cut short"
    weights = [path for path in folder.rglob("*") if path.name.endswith((".safetensors", ".distcp"))]
    for index in folder.glob("*.safetensors.index.json"):
        try:
            named = set(map(str, _read(index)["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError):
            return f"{index.name} is cut short"
        if lacking := sorted(named - {path.name for path in weights}):
            return f"{lacking[0]} is missing"
    if not weights:
        return "it has no weights"
    for path in weights:
        if path.suffix == ".safetensors":
            try:
                with safe_open(path, framework="pt"):
                    pass
            except (SafetensorError, OSError):
                return f"{path.name} is cut short"
    for path in folder.iterdir():
        if path.suffix in (".pt", ".pth", ".bin") and not zipfile.is_zipfile(path):
            return f"{path.name} is cut short"
    return None


def latest_checkpoint(folder: str | Path) -> str | None:
    """The last whole checkpoint of a run; None, said once, where there is none."""
    found = [path for path in Path(folder).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    for path in sorted(found, key=lambda path: -int(path.name.split("-")[1])):
        if (what := damage(path)) is None:
            return str(path)
        logger.warning(f"{path} is damaged and passed over: {what}.")
    logger.warning(f"{folder} has no whole checkpoint: starting from the beginning.")
    return None


def checkpoint_to_resume(given: str | bool | None, trainer: PreferenceTrainer) -> str | None:
    """The folder that `--resume_from_checkpoint` means.

    Raises:
        BadInput: If it is not there, damaged, or a checkpoint of another run.
    """
    output = str(trainer.args.output_dir)
    if given in (True, "latest"):
        given = latest_checkpoint(output)
    if not given:
        return None
    folder = Path(str(given))
    if not folder.is_dir():
        raise BadInput(f"--resume_from_checkpoint {given}: there is no such folder. Take latest, or leave it out.")
    if what := damage(folder):
        raise BadInput(
            f"--resume_from_checkpoint {given} is damaged: {what}. --resume_from_checkpoint latest takes the last "
            f"whole checkpoint in {output}."
        )
    refuse_another_run(folder, card(trainer))
    if not any((folder / name).exists() for name in ("optimizer.pt", "optimizer.bin", "optimizer_0")):
        logger.warning(f"{folder} has no optimizer state (--save_only_model): the optimizer begins anew.")
    return str(folder)
