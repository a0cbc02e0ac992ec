"""Weights of a Hugging Face folder: one `model.safetensors`, or shards named by an index. Read only, mapped, no torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - teaches numpy bfloat16, which safetensors needs to read such weights
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from pythiadb.errors import InvalidModel
from pythiadb.models.package import safe_name
from pythiadb.models.pooling import read_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class Weights:
    """Tensors by name, as float32. Names may carry the prefix of the class that was saved ("bert.", "roberta.")."""

    def __init__(self, sources: dict[str, Any], prefixes: tuple[str, ...]) -> None:
        self._sources = sources
        self._prefixes = ("", *prefixes)

    def get(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return the tensor `name`, read from disk; a 0 in `shape` stands for any size.

        Raise InvalidModel when it is missing, has another shape, or does not hold floating-point numbers.
        """
        stored = self._find(name)
        values = self._read(stored)
        if len(values.shape) != len(shape) or any(
            w and w != g for w, g in zip(shape, values.shape, strict=True)
        ):
            wanted = ", ".join(str(size) if size else "any" for size in shape)
            raise InvalidModel(f'weight "{stored}" has shape {list(values.shape)}, expected [{wanted}]')
        if values.dtype.kind != "f" and values.dtype.name != "bfloat16":
            raise InvalidModel(f'weight "{stored}" has type {values.dtype}, expected floating point')
        floats: NDArray[np.float32] = values.astype(np.float32, copy=False)
        return floats

    def has(self, name: str) -> bool:
        """Tell whether there is a tensor of that very name."""
        return name in self._sources

    def integers(self, name: str) -> NDArray[np.int64]:
        """Return a list of integers, as int64; raise InvalidModel when it is missing or something else."""
        values = self._read(self._find(name))
        if values.dtype.kind not in "iu" or values.ndim != 1 or values.size == 0:
            raise InvalidModel(f'weight "{name}" is not a list of integers')
        return values.astype(np.int64)

    def _read(self, stored: str) -> NDArray[Any]:
        try:
            values: NDArray[Any] = self._sources[stored].get_tensor(stored)
        except SafetensorError as error:
            raise InvalidModel(f'could not read weight "{stored}"', detail=f"{error}.") from error
        return values

    def _find(self, name: str) -> str:
        # The first BERT checkpoints call the two vectors of a LayerNorm gamma and beta.
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        for prefix in self._prefixes:
            for candidate in (prefix + name, prefix + old):
                if candidate in self._sources:
                    return candidate
        raise InvalidModel(f'model weights lack "{name}"')


def has_weights(folder: Path) -> bool:
    """Tell whether the folder holds safetensors weights."""
    return (folder / SINGLE).exists() or (folder / INDEX).exists()


@contextmanager
def open_weights(folder: Path, prefixes: tuple[str, ...] = ()) -> Iterator[Weights]:
    """Open the weights of a folder for the time of a `with` block.

    Raise InvalidModel when a file is missing, truncated, or named outside the folder.
    """
    with ExitStack() as stack:
        sources: dict[str, Any] = {}
        for name in _shards(folder):
            try:
                shard = stack.enter_context(safe_open(folder / name, framework="numpy"))
            except (OSError, SafetensorError) as error:
                raise InvalidModel(f'could not read weights "{name}"', detail=f"{error}.") from error
            sources.update(dict.fromkeys(shard.keys(), shard))
        yield Weights(sources, prefixes)


def _shards(folder: Path) -> list[str]:
    if (folder / SINGLE).exists():
        return [SINGLE]
    names = read_json(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise InvalidModel(f'"{INDEX}" maps no weights')
    shards = sorted({str(name) for name in names.values()})
    for name in shards:
        if not safe_name(name):
            raise InvalidModel(f'weights lie outside the model folder: "{name}"')
    return shards
