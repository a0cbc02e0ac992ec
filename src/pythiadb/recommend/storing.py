"""A trained recommender as a folder of plain files.

    model.safetensors              the weights
    users.parquet, items.parquet   one column `id`; a row's number is its position in the weights
    training.json                  settings, history, and the checksums of the other files

Nothing that could run code is written or read. training.json is written last: with files of two trainings the checksums do not fit.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pythiadb.errors import InvalidModel, UndefinedFile
from pythiadb.recommend.extra import train_extra
from pythiadb.recommend.factors import Factors
from pythiadb.recommend.files import replacing
from pythiadb.recommend.training import Epoch, Settings, Trained

if TYPE_CHECKING:
    import pyarrow as pa

WEIGHTS, USERS, ITEMS, FACTS = "model.safetensors", "users.parquet", "items.parquet", "training.json"
_FORMAT = 1
_ARRAYS = ("user_bias", "item_bias", "user_vectors", "item_vectors")
_NUMBERS = ("mean", "lowest", "highest")


def save(trained: Trained, folder: str | PathLike[str]) -> None:
    """Write a trained recommender into a folder, which is made when it is missing; files of an earlier one are replaced."""
    with train_extra("saving a recommender"):
        import pyarrow as pa
        from pyarrow import parquet
    folder, factors = Path(folder), trained.factors
    with replacing(folder / WEIGHTS) as draft:
        save_file({name: np.ascontiguousarray(getattr(factors, name)) for name in _ARRAYS}, draft)
    for name, ids in ((USERS, trained.user_ids), (ITEMS, trained.item_ids)):
        with replacing(folder / name) as draft:
            parquet.write_table(pa.table({"id": ids}), draft)
    facts = {
        "format": _FORMAT,
        **{name: getattr(factors, name) for name in _NUMBERS},
        "settings": asdict(trained.settings),
        "best_epoch": trained.best_epoch,
        "history": [asdict(epoch) for epoch in trained.history],
        "notes": trained.notes,
        "user_weight": trained.user_weight,
        "fingerprint": trained.fingerprint,
        "sha256": {name: _sha256(folder / name) for name in (WEIGHTS, USERS, ITEMS)},
    }
    with replacing(folder / FACTS) as draft:
        draft.write_bytes(orjson.dumps(facts, option=orjson.OPT_INDENT_2))


def load(folder: str | PathLike[str]) -> Trained:
    """Read what save() wrote.

    Raise UndefinedFile when there is no such folder or file, InvalidModel when a file is damaged or of another training.
    """
    with train_extra("reading a recommender"):
        import pyarrow as pa
    folder = Path(folder)
    for name in (FACTS, WEIGHTS, USERS, ITEMS):
        if not (folder / name).is_file():
            raise UndefinedFile(
                f'"{folder}" is not the folder of a trained recommender',
                detail=f"There is no file {name} in it.",
                hint="Run `pythia recommend train`.",
            )
    try:
        return _load(folder)
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        SafetensorError,
        pa.ArrowInvalid,
    ) as error:
        raise InvalidModel(
            f'the recommender in "{folder}" cannot be read', detail=f"{error}.", hint="Train it again."
        ) from error


def _load(folder: Path) -> Trained:
    facts = orjson.loads((folder / FACTS).read_bytes())
    if facts["format"] != _FORMAT:
        raise ValueError(f"the format is {facts['format']}, this version reads {_FORMAT}")
    for name in (WEIGHTS, USERS, ITEMS):
        if _sha256(folder / name) != facts["sha256"][name]:
            raise ValueError(f"{name} is damaged, or of another training than {FACTS}")
    arrays = load_file(folder / WEIGHTS)
    parts: dict[str, Any] = {name: float(facts[name]) for name in _NUMBERS}
    parts |= {name: _floats(arrays[name]) for name in _ARRAYS}
    factors = Factors(**parts)
    user_ids, item_ids = _ids(folder / USERS), _ids(folder / ITEMS)
    if (len(user_ids), len(item_ids)) != (len(factors.user_vectors), len(factors.item_vectors)):
        raise ValueError("there are not as many ids as vectors")
    return Trained(
        factors=factors,
        user_ids=user_ids,
        item_ids=item_ids,
        settings=Settings(**facts["settings"]),
        history=tuple(Epoch.from_json(values) for values in facts["history"]),
        best_epoch=int(facts["best_epoch"]),
        notes=tuple(facts["notes"]),
        user_weight=float(facts["user_weight"]),
        fingerprint=str(facts["fingerprint"]),
    )


def _floats(array: NDArray[Any]) -> NDArray[np.float32]:
    if array.dtype != np.float32 or not np.isfinite(array).all():
        raise ValueError("the weights are not finite numbers of 32 bits")
    return array


def _ids(path: Path) -> pa.Array:
    from pyarrow import parquet

    return parquet.read_table(path)["id"].combine_chunks()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
