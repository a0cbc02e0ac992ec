"""scikit-learn models and their ONNX exports, with the warnings of other projects left out."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pythiadb.models.onnx_file import package_from_onnx
from pythiadb.models.package import Package

COLUMNS = ("AGE", "VISITS", "SPENT", "DAYS")
ROWS = 80


def rows(seed: int = 0, count: int = ROWS) -> NDArray[np.float32]:
    """Return rows of four numbers around three centres."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(scale=3, size=(3, len(COLUMNS)))
    return (centres[np.arange(count) % 3] + rng.normal(size=(count, len(COLUMNS)))).astype(np.float32)


def fit(model: Any, x: Any, y: Any = None) -> Any:
    """Fit a model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(x, y)


def export(model: Any, sample: Any = None, **options: Any) -> bytes:
    """Return a fitted model as an ONNX file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from skl2onnx import to_onnx

        if sample is None:
            sample = rows()[:1]
        kinds = {"initial_types": sample} if isinstance(sample, list) else {"X": sample}
        return bytes(to_onnx(model, **kinds, target_opset=17, options=options or None).SerializeToString())


def load(source: bytes, work: Path, function: str, **metadata: Any) -> Package:
    """Return the package of an export that takes COLUMNS."""
    return package_from_onnx(source, work, {"function": function, "input": {"X": list(COLUMNS)}, **metadata})


def records(x: NDArray[Any], names: tuple[str, ...] = COLUMNS) -> list[dict[str, Any]]:
    """Return rows as JSON objects."""
    return [dict(zip(names, row, strict=True)) for row in x.tolist()]
