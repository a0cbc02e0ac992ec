"""The trial run that a model must pass before it counts as loaded."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from pythiadb.errors import FeatureNotSupported, InvalidModel
from pythiadb.models.items import Tensor
from pythiadb.models.known import Column, Known, as_type, known_values
from pythiadb.models.package import Input, Package
from pythiadb.models.scoring import Scores
from pythiadb.models.session import Model, Vectors, open_model
from pythiadb.vectors.dense import MAX_DIMENSIONS

TEXTS = (
    "a small probe",
    "The quick brown fox jumps over the lazy dog, and the second text is longer than the first.",
)
_AGREEMENT = (
    0.9999  # cosine of a text alone and in a batch; float32 kernels differ by shape in the last digits
)
_TOLERANCE = 1e-3  # of scores, absolute and relative
_PICTURE = 64  # pixels a side


def probe(package: Package, *, threads: int = 1) -> dict[str, Any]:
    """Open the model, run two rows one by one and together, and return its facts with the sizes of its files in bytes.

    Raise InvalidModel when the results disagree, which means that padding or the batch leaks into them, or when the graph
    fails; InvalidVector when an embedding is not finite; FeatureNotSupported when it is longer than a vector may be.
    """
    _check_dimensions(package.spec.dimensions)
    model = open_model(package.files, package.spec, threads=threads)
    records = probe_records(model)
    try:
        together = _outputs(model, records)
    except InvalidModel:
        known = known_values(onnx.load_model(package.files[package.spec.graph], load_external_data=False))
        if not known:
            raise
        records = probe_records(model, known)
        together = _outputs(model, records)
    alone = [_outputs(model, [record]) for record in records]
    for role, values in together.items():
        _compare(role, values, np.concatenate([part[role] for part in alone]))
    sizes = {name: path.stat().st_size for name, path in sorted(package.files.items())}
    return {**model.facts(), "files": sizes, "bytes": sum(sizes.values())}


def _check_dimensions(dimensions: int | None) -> None:
    if dimensions is not None and dimensions > MAX_DIMENSIONS:
        raise FeatureNotSupported(
            f"an embedding of {dimensions} dimensions is not supported",
            detail=f"A vector has at most {MAX_DIMENSIONS}.",
        )


def probe_records(model: Model, known: Known | None = None) -> list[dict[str, Any]]:
    """Return two records that fit the attributes of a model: zeros and ones, two texts, two small pictures.

    `known` are values that the graph's encoders take, see models/known.py.
    """
    return [_record(model, row, known or {}) for row in range(2)]


def _record(model: Model, row: int, known: Known) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for entry in model.spec.inputs:
        for place, name in enumerate(entry.attributes):
            record[name] = _value(model, entry, place, row, known)
    return record


def _value(model: Model, entry: Input, place: int, row: int, known: Known) -> Any:
    attribute = model.spec.attribute(entry.attributes[place])
    kind = attribute.type if attribute is not None else "text"
    tensor = model.tensors[entry.tensor]
    if entry.source == "image" or tensor.loose:
        return picture(row)
    if kind == "blob":
        return bytes([row]) * tensor.width
    made_up = TEXTS[(row + place) % 2] if kind == "text" else row
    if kind == "vector":
        return [_known(known, (entry.tensor, number), tensor, row, row) for number in range(tensor.width)]
    return _known(known, (entry.tensor, place), tensor, row, made_up)


def _known(known: Known, column: Column, tensor: Tensor, row: int, made_up: Any) -> Any:
    values = as_type(known[column], tensor.dtype) if column in known else None
    return made_up if values is None else values.tolist()[row % len(values)]


def picture(row: int) -> bytes:
    """Return a small PNG; it differs from row to row."""
    from PIL import Image  # only models of pictures need it

    steps = np.arange(_PICTURE * _PICTURE * 3, dtype=np.uint32) * (row + 3) // 5 % 256
    pixels = steps.astype(np.uint8).reshape(_PICTURE, _PICTURE, 3)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def _outputs(model: Model, records: list[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    outputs = model.run(model.prepare(records))
    if model.spec.function == "embedding":
        return {"embedding": np.concatenate([o for o in outputs if not isinstance(o, Scores)])}
    scores = [output for output in outputs if isinstance(output, Scores)]
    return {role: np.concatenate([part[role] for part in scores]) for role in model.spec.outputs}


def _compare(role: str, together: NDArray[Any], alone: NDArray[Any]) -> None:
    if role == "embedding":
        agreement = _cosines(together, alone)
        if (agreement < _AGREEMENT).any():
            raise InvalidModel(
                "model gives another embedding in a batch than for an input alone",
                detail=f"The cosine of the two is {agreement.min():.4f}.",
            )
    elif together.dtype.kind == "f":
        if not np.allclose(together, alone, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True):
            raise InvalidModel("model gives other scores in a batch than for a row alone")
    elif not np.array_equal(together, alone):
        raise InvalidModel("model gives another label in a batch than for a row alone")


def _cosines(first: Vectors, second: Vectors) -> Vectors:
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    same = (first == second).all(axis=1)
    cosines = (first * second).sum(axis=1) / np.where(norms == 0, 1, norms)
    return np.where(same, np.float32(1), cosines)
