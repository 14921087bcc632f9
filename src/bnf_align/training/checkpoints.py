"""Which checkpoint a killed run goes on from."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

from transformers.trainer import TRAINER_STATE_NAME

logger = logging.getLogger(__name__)


def latest_checkpoint(folder: str | Path) -> str | None:
    """The last whole checkpoint of a run; None, said once, where there is none yet.

    Trainer writes its state last, so a checkpoint without a readable one was cut short by a kill and is passed over.
    """
    found = [path for path in Path(folder).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    for path in sorted(found, key=lambda path: -int(path.name.split("-")[1])):
        try:
            json.loads((path / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
            return str(path)
        except (FileNotFoundError, json.JSONDecodeError):
            logger.warning(f"{path} was cut short by a kill and is passed over.")
    logger.warning(f"{folder} has no whole checkpoint yet: starting from the beginning.")
    return None
