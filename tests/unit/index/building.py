"""Small indexes for tests, and the answers they must give."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from pythiadb.index.builder import Builder
from pythiadb.index.definition import Definition
from pythiadb.index.manifest import Manifest, write_version
from pythiadb.index.version import IndexVersion, open_version


def definition(**changes: Any) -> Definition:
    usual: dict[str, Any] = {
        "index_id": 1,
        "vector_type": "vector",
        "dimensions": 16,
        "distance": "COSINE",
        "key_type": "int",
        "organization": "partitions",
    }
    return Definition(**(usual | changes))


def build_segment(
    root: Path, of: Definition, keys: Any, vectors: Any, kind: str = "auto", columns: Any = None
) -> dict[str, Any]:
    name = uuid4().hex
    with Builder(root / "segments" / name, of) as builder:
        builder.add(keys, vectors, columns)
        builder.finish(kind)
    return {"name": name, "kind": kind, "rows": len(keys)}


def publish(
    root: Path, of: Definition, segments: Sequence[dict[str, Any]], deleted: Any = None, number: int = 1
) -> IndexVersion:
    token = uuid4().hex
    write_version(root / "versions", Manifest(number, token, of, list(segments)), deleted or {})
    return open_version(root / "versions" / token, root / "segments", verify=True)


def build_index(
    root: Path, of: Definition, keys: Any, vectors: Any, kind: str = "auto", columns: Any = None
) -> IndexVersion:
    return publish(root, of, [build_segment(root, of, keys, vectors, kind, columns)])


def clustered(rows: int, dimensions: int, seed: int = 1) -> np.ndarray[Any, Any]:
    """Vectors in 32 clouds, as embeddings are."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(32, dimensions))
    return (centres[random.integers(0, 32, rows)] + random.normal(size=(rows, dimensions)) * 0.5).astype(
        np.float32
    )


def brute_force(distance: str, rows: Any, query: Any) -> np.ndarray[Any, Any]:
    """Distances by their textbook formulas in float64."""
    rows, query = np.asarray(rows, np.float64), np.asarray(query, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        match distance:
            case "COSINE":
                return 1 - (rows @ query) / (np.linalg.norm(rows, axis=1) * np.linalg.norm(query))
            case "DOT":
                return -(rows @ query)
            case "MANHATTAN":
                return np.abs(rows - query).sum(axis=1)
            case "EUCLIDEAN":
                return np.linalg.norm(rows - query, axis=1)
            case "EUCLIDEAN_SQUARED":
                return ((rows - query) ** 2).sum(axis=1)
            case "HAMMING":
                return (rows != query).sum(axis=1).astype(np.float64)
            case "JACCARD":
                common = (rows * query).sum(axis=1)
                either = ((rows + query) > 0).sum(axis=1)
                return np.where(common > 0, 1 - common / np.maximum(either, 1), 1.0)
    raise AssertionError(distance)
