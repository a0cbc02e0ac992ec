"""Measuring an index in the background: with queries of users where enough were captured, else with rows of its own.

Half of the captured queries choose the efforts, the other half judges them: what the views show of an index's accuracy was reached
by queries that nothing was fitted to.

A version whose structure is new is measured in a few seconds before it is published: what was measured of another does not hold for
it. A better measurement follows in the background.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from pythiadb.engine.settings import Settings
from pythiadb.index.accuracy import Query, Report, measure, sample_queries
from pythiadb.index.builder import FLAT_BELOW
from pythiadb.index.curve import Curve
from pythiadb.index.judging import judged
from pythiadb.index.version import IndexVersion, Part
from pythiadb.postgres.index_store import StoredIndex

MOST_QUERIES = 1000
FEWEST_CAPTURED = 400  # half of them are as few as tell an accuracy of 95 within a point or two
FIRST_KS = (10,)
FIRST_SECONDS = 2.0
REMEASURE_SHARE = 0.1  # of the rows: so many changes make a measurement old
REST = 10  # times as long as it measures an index stays as measured, where nothing has come but queries: a tenth of a core at most


@dataclass(frozen=True, slots=True)
class Measurement:
    """A curve, and the rows of pythia.vector_index_accuracy."""

    curve: Curve
    rows: list[dict[str, Any]]


def measure_version(version: IndexVersion, captured: Sequence[str], seconds: float) -> Measurement | None:
    """Measure in about `seconds`; `captured` are users' vectors as text, in an order by chance.

    Returns None where all rows are looked at anyway.
    """
    if _looks_at_all_rows(version):
        return None
    queries = _queries(captured)
    if len(queries) < FEWEST_CAPTURED:
        curve = measure(version, sample_queries(version, MOST_QUERIES), seconds=seconds)
        return Measurement(curve, curve.rows())
    queries = queries[: 2 * MOST_QUERIES]
    curve = measure(version, queries[::2], source="captured", seconds=seconds)
    return Measurement(curve, judged(version, curve, queries[1::2]))


def first_curve(version: IndexVersion, captured: Sequence[str], report: Report | None = None) -> Curve | None:
    """Measure a version that is about to be published, for the usual k; None where all rows are looked at.

    Within filters too: what finds neighbours among all rows of a graph may find half of those among the rows of a filter.
    """
    if _looks_at_all_rows(version):
        return None
    queries, source = _queries(captured)[:MOST_QUERIES], "captured"
    if len(queries) < FEWEST_CAPTURED:
        queries, source = sample_queries(version, MOST_QUERIES), "held-out"
    return measure(version, queries, ks=FIRST_KS, source=source, seconds=FIRST_SECONDS, progress=report)


def is_restructured(version: IndexVersion, fresh: Part) -> bool:
    """Tell whether a segment that came into a version makes what was measured of the one before worthless."""
    return fresh.segment.kind != "flat" and fresh.rows > REMEASURE_SHARE * version.rows


def can_be_measured(index: StoredIndex) -> bool:
    """Tell whether an index is one that does not look at all rows."""
    return index.rows >= FLAT_BELOW and index.vector_type in ("vector", "halfvec")


def is_measured_badly(index: StoredIndex) -> bool:
    """Tell whether an index can be measured, and has changed since it was."""
    if not can_be_measured(index):
        return False
    if "measured_rows" not in index.facts:
        return True
    return changes(index) > REMEASURE_SHARE * index.rows


def changes(index: StoredIndex) -> int:
    """Return how many rows have changed since an index was measured, or begun to be."""
    return int(index.facts.get("changes", 0))


def has_rested(index: StoredIndex, settings: Settings) -> bool:
    """Tell whether an index may be measured again for no other reason than new queries."""
    since: float = time.time() - index.facts.get("measured_at", 0)
    return since < 0 or since >= REST * settings.index_measure_seconds  # below 0: the clock was set back


def _looks_at_all_rows(version: IndexVersion) -> bool:
    return all(part.segment.kind == "flat" for part in version.parts)


def _queries(captured: Sequence[str]) -> list[Query]:
    """Each vector once: one that is searched for again and again would be most of both halves, and choose what it judges."""
    return [Query(vector) for vector in map(_vector, dict.fromkeys(captured)) if vector.any()]


def _vector(text: str) -> Any:
    return np.array(orjson.loads(text), np.float32)
