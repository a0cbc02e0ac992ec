"""Rows, models and calls for the plain functions that score."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import scoring_models
from numpy.typing import NDArray
from scoring_models import COLUMNS, Made

import pythiadb

X = scoring_models.features(seed=11, count=12)  # rows that the models have not seen
RECORDS = [dict(zip(COLUMNS, row, strict=True)) for row in X.tolist()]
Ask = Callable[..., list[Any]]


def load(db: pythiadb.Connection, name: str, graph: bytes, metadata: dict[str, Any]) -> None:
    db.execute(
        "CALL dbms_vector.load_onnx_model(:name, :graph, :metadata)", (name, graph, json.dumps(metadata))
    )


def bare(one: Made, output: str, x: NDArray[Any] = X) -> NDArray[Any]:
    """One output of bare ONNX Runtime, a row at a time: a batch rounds differently in the last bit."""
    return np.concatenate([one.bare(row[None], output) for row in x])
