"""Which organization suits some vectors: both are built over a sample, measured, and compared as they would cost over all rows."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pythiadb.index.accuracy import Query, Truth, measure
from pythiadb.index.builder import Builder
from pythiadb.index.curve import Curve, cheaper, expected_cost
from pythiadb.index.definition import Definition
from pythiadb.index.distances import Floats
from pythiadb.index.library import Progress
from pythiadb.index.maintain import entry
from pythiadb.index.manifest import Manifest
from pythiadb.index.segment import open_segment
from pythiadb.index.version import IndexVersion, Part

K = 10
_NUMBERS = 8_000_000  # of vectors in a sample: a graph over them takes some seconds
_FEWEST_ROWS, _MOST_ROWS = 5_000, 50_000
_QUERIES = 300  # rows that neither is built with
_MEASURE_SECONDS = 1.5  # each
_CONTENDERS = ("partitions", "graph")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The winner, graph or partitions, and what was found: costs in microseconds a search over all rows, seconds in all."""

    winner: str
    facts: dict[str, Any]


def rows_to_race(dimensions: int) -> int:
    """Return how many rows of a table a race wants to have."""
    return min(max(_NUMBERS // dimensions, _FEWEST_ROWS), _MOST_ROWS)


def race(
    folder: Path, definition: Definition, sample: Floats, rows: int, *, threads: int, progress: Progress
) -> Outcome:
    """Build and measure both organizations in a new `folder`, with a sample [n, d] of `rows` vectors; n > 300. Raises OSError.

    Nothing but measured time differs between two runs over one sample.
    """
    started = time.perf_counter()
    order = np.random.default_rng(0).permutation(len(sample))
    queries = [Query(vector) for vector in sample[np.sort(order[:_QUERIES])]]
    built = np.ascontiguousarray(sample[np.sort(order[_QUERIES:])])
    truth: list[Truth] | None = None
    costs: dict[str, float] = {}
    reached: dict[str, bool] = {}
    for number, organization in enumerate(_CONTENDERS):
        progress("choosing the organization", number / len(_CONTENDERS))
        version = _built(
            folder / organization, replace(definition, organization=organization), built, threads
        )
        if truth is None:
            found = version.exact_many([query.vector for query in queries], K)
            truth = [Truth(each.keys, each.distances) for each in found]
        curve = measure(version, queries, truth, (K,), seconds=_MEASURE_SECONDS, within=False)
        costs[organization] = expected_cost(curve, definition.target_accuracy, len(built), rows, K)
        reached[organization] = _is_reached(curve, definition.target_accuracy)
    winner = cheaper(costs)
    facts = {
        "sample_rows": len(built), "rows": rows, "target": definition.target_accuracy,
        "microseconds": {name: round(cost, 1) for name, cost in costs.items()}, "reached": reached,
        "seconds": round(time.perf_counter() - started, 3),
    }  # fmt: skip
    return Outcome(winner, facts)


def _built(folder: Path, definition: Definition, vectors: Floats, threads: int) -> IndexVersion:
    """Return a version of one segment over vectors, with their numbers as keys and nothing included."""
    bare = replace(definition, key_type="int", columns=())
    with Builder(folder, bare, threads=threads) as builder:
        builder.add(np.arange(len(vectors)), vectors)
        builder.finish(bare.organization)
    segment = open_segment(folder, bare, verify=False)
    return IndexVersion(Manifest(0, "", bare, [entry(segment)]), [Part(segment, None)], folder.parent)


def _is_reached(curve: Curve, accuracy: int) -> bool:
    """Tell whether any effort below looking at all rows reached an accuracy."""
    return not curve.choice(accuracy, K).effort.exhaustive
