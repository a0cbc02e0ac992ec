"""The trial run that a model must pass before it counts as loaded."""

from __future__ import annotations

from typing import Any

import numpy as np

from pythiadb.errors import InvalidModel
from pythiadb.models.package import Package
from pythiadb.models.session import Vectors, open_model

TEXTS = (
    "a small probe",
    "The quick brown fox jumps over the lazy dog, and the second text is longer than the first.",
)
_AGREEMENT = (
    0.9999  # cosine of a text alone and in a batch; float32 kernels differ by shape in the last digits
)


def probe(package: Package, *, threads: int = 1) -> dict[str, Any]:
    """Open the model, embed two texts one by one and together, and return its facts with the sizes of its files in bytes.

    Raise InvalidModel when the results disagree, which means that padding or the batch leaks into the vectors, or when the
    graph fails; InvalidVector when values are not finite.
    """
    model = open_model(package.files, package.spec, threads=threads)
    together = model.embed(TEXTS)
    alone = np.concatenate([model.embed([text]) for text in TEXTS])
    agreement = _cosines(together, alone)
    if (agreement < _AGREEMENT).any():
        raise InvalidModel(
            "model gives another embedding in a batch than for a text alone",
            detail=f"The cosine of the two is {agreement.min():.4f}.",
        )
    sizes = {name: path.stat().st_size for name, path in sorted(package.files.items())}
    return {**model.facts(), "files": sizes, "bytes": sum(sizes.values())}


def _cosines(first: Vectors, second: Vectors) -> Vectors:
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    same = (first == second).all(axis=1)
    cosines = (first * second).sum(axis=1) / np.where(norms == 0, 1, norms)
    return np.where(same, np.float32(1), cosines)
