"""The state of a training between two passes, as one file that is replaced at once. Reading it runs no code from the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pythiadb.errors import InvalidModel, InvalidParameter
from pythiadb.recommend.files import replacing

FILE = "checkpoint.safetensors"
_FACTS = "training"  # key of the JSON in the file's header
_FREE = ("max_epochs", "patience", "threads", "device")  # settings that may differ when a training goes on


def write(folder: Path, facts: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Put facts (JSON values) and tensors on disk, in the place of the checkpoint before."""
    with replacing(folder / FILE) as draft:
        save_file(tensors, draft, {_FACTS: orjson.dumps(facts).decode()})


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Return facts and tensors of the folder's checkpoint, None where there is none.

    Raise InvalidModel for a file that is damaged or something else.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            facts = orjson.loads(file.metadata()[_FACTS])
            return facts, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, orjson.JSONDecodeError, TypeError, KeyError) as error:
        raise InvalidModel(
            f"the checkpoint {path} cannot be read",
            detail=f"{error}.",
            hint="Delete the file, or train without resuming.",
        ) from error


def check_continues(facts: dict[str, Any], settings: dict[str, Any], ratings: str) -> None:
    """Raise InvalidParameter unless a checkpoint is of these settings and ratings."""
    was = facts["settings"]
    other = [name for name in settings if name not in _FREE and settings[name] != was.get(name)]
    if other:
        raise InvalidParameter(
            "the checkpoint is of a training with other settings",
            detail=" ".join(f"{name} was {was.get(name)}, is {settings[name]}." for name in other),
            hint="Give the same settings, or train without resuming.",
        )
    if facts["ratings"] != ratings:
        raise InvalidParameter(
            "the checkpoint is of other ratings, or of another split of them",
            hint="Train without resuming.",
        )
