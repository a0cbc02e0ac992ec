"""What a run gives back: embeddings, or the scores of several rows by role."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pythiadb.errors import InvalidModel, InvalidVector
from pythiadb.models.columns import Mask
from pythiadb.models.items import Item
from pythiadb.models.package import Spec

Vectors = NDArray[np.float32]
Arrays = Mapping[str, NDArray[Any]]
Floats = NDArray[Any]  # of any floating-point type
SINGLE = frozenset({"regression", "label", "score"})  # roles with one value a row


class Scores(dict[str, NDArray[Any]]):
    """Arrays by role (regression, probability, label, score, distance) with one entry a row; rows that are `missing` hold no answer.

    Values are what the graph gave: a softmax that the metadata ask for is not applied yet.
    """

    def __init__(self, values: Arrays, missing: Mask) -> None:
        super().__init__(values)
        self.missing = missing

    @property
    def rows(self) -> int:
        """The number of rows, missing ones included."""
        return len(self.missing)


Output = Vectors | Scores  # a NULL row of an embedding is a row of NaN


def check_output(spec: Spec, role: str, values: NDArray[Any], rows: int) -> NDArray[Any]:
    """Return an output of `rows` rows in the form of its role: [rows] or, for several values a row, [rows, values].

    Raise InvalidModel for another shape, InvalidVector for an embedding with NaN or infinity.
    """
    tensor = spec.outputs[role]
    if role == "embedding":
        return _check_embedding(spec, tensor, values, rows)
    if role in SINGLE:
        if values.size != rows or values.shape[:1] != (rows,):
            _wrong_shape(tensor, values, f"[{rows}]")
        return values.reshape(rows)
    wanted = len(spec.labels) if spec.labels else None
    if values.ndim != 2 or values.shape[0] != rows or values.shape[1] != (wanted or values.shape[1]):
        _wrong_shape(tensor, values, f"[{rows}, {wanted or 'classes'}]")
    return values


def split_output(spec: Spec, arrays: Arrays, items: Sequence[Item]) -> list[Output]:
    """Divide arrays over the present rows of all items among them, with a place for each missing row."""
    return list(_parts(spec, arrays, items))


def _parts(spec: Spec, arrays: Arrays, items: Sequence[Item]) -> Iterator[Output]:
    taken = 0
    for item in items:
        present = item.present
        part = {role: _placed(values[taken : taken + present], item) for role, values in arrays.items()}
        taken += present
        if spec.function == "embedding":
            yield part["embedding"]
        else:
            missing = np.zeros(item.rows, dtype=np.bool_) if item.missing is None else item.missing
            yield Scores(part, missing)


def _placed(values: NDArray[Any], item: Item) -> NDArray[Any]:
    if item.missing is None:
        return values
    if values.dtype.kind == "f":
        rows = np.full((item.rows, *values.shape[1:]), np.nan, dtype=values.dtype)
    else:
        rows = np.zeros((item.rows, *values.shape[1:]), dtype=values.dtype)
    rows[~item.missing] = values
    return rows


def _check_embedding(spec: Spec, tensor: str, values: NDArray[Any], rows: int) -> Vectors:
    if values.shape != (rows, spec.dimensions):
        _wrong_shape(tensor, values, f"[{rows}, {spec.dimensions}]")
    vectors = np.asarray(values, dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise InvalidVector(f'model output "{tensor}" holds NaN or infinite values')
    return vectors


def _wrong_shape(tensor: str, values: NDArray[Any], expected: str) -> None:
    raise InvalidModel(f'model output "{tensor}" has shape {list(values.shape)}, expected {expected}')
