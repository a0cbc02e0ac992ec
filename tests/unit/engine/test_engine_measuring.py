"""Measuring with queries of users: which are taken, and what judges an index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pythiadb.engine.measuring import FEWEST_CAPTURED, first_curve, is_restructured, measure_version
from pythiadb.index.accuracy import Query, Truth, measure, recall
from pythiadb.index.curve import Conditions, Curve, Measured, Recall
from pythiadb.index.definition import Column
from pythiadb.index.effort import Effort
from pythiadb.index.judging import judged
from pythiadb.index.version import IndexVersion
from tests.unit.index.building import build_index, clustered, definition

ROWS = 6_000
FRESH = clustered(2 * FEWEST_CAPTURED, 16, seed=7)


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> IndexVersion:
    of = definition(distance="EUCLIDEAN", columns=(Column("n", "int4"),))
    vectors = clustered(ROWS, 16)
    folder = tmp_path_factory.mktemp("index")
    return build_index(folder, of, np.arange(ROWS), vectors, columns={"n": list(range(ROWS))})


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> IndexVersion:
    """An index without included columns, of which less is measured."""
    folder = tmp_path_factory.mktemp("plain")
    return build_index(folder, definition(distance="EUCLIDEAN"), np.arange(ROWS), clustered(ROWS, 16))


def texts(count: int) -> list[str]:
    return [str(vector.tolist()) for vector in FRESH[:count]]


def test_few_captured_queries_are_not_measured_with(plain: IndexVersion) -> None:
    measured = measure_version(plain, texts(FEWEST_CAPTURED - 1), seconds=1)
    assert measured is not None
    assert measured.curve.conditions.source == "held-out"
    assert measured.rows == measured.curve.rows()


def test_a_query_without_a_direction_does_not_count(plain: IndexVersion) -> None:
    measured = measure_version(plain, [*texts(FEWEST_CAPTURED - 1), str([0] * 16)], seconds=1)
    assert measured is not None
    assert measured.curve.conditions.source == "held-out"


def test_a_query_counts_once_however_often_it_comes(plain: IndexVersion) -> None:
    """Both halves would be the same few vectors: an effort that finds these is not one that finds others."""
    measured = measure_version(plain, texts(10) * FEWEST_CAPTURED, seconds=1)
    assert measured is not None
    assert measured.curve.conditions.source == "held-out"
    curve = first_curve(plain, texts(10) * FEWEST_CAPTURED)
    assert curve is not None
    assert curve.conditions.source == "held-out"


def test_half_of_the_captured_queries_judges(version: IndexVersion) -> None:
    measured = measure_version(version, texts(FEWEST_CAPTURED + 100), seconds=2)
    assert measured is not None
    assert measured.curve.conditions.source == "captured"
    assert measured.curve.conditions.queries <= (FEWEST_CAPTURED + 100) / 2
    assert {row["queries"] for row in measured.rows} == {(FEWEST_CAPTURED + 100) // 2}
    assert {row["source"] for row in measured.rows} == {"captured"}
    assert {row["filter"] for row in measured.rows} == {"none", "in"}
    assert all(row["mean"] >= row["target"] / 100 - 0.04 for row in measured.rows)


def test_an_index_that_looks_at_all_rows_is_not_measured(tmp_path: Path) -> None:
    flat = build_index(tmp_path, definition(), np.arange(100), clustered(100, 16), kind="flat")
    assert measure_version(flat, texts(FEWEST_CAPTURED), seconds=1) is None


def test_judges_say_what_their_queries_find(version: IndexVersion) -> None:
    """Against single searches compared with exact ones; a curve that promises too much is found out."""
    hasty = Measured(Effort(1, 10, 10), 1.0, Recall(0.99, 0.0, 0.9))
    curve = Curve(Conditions("partitions", 100, 1e6, "captured"), {"none": {10: [hasty]}})
    queries = [Query(vector) for vector in FRESH[:50]]
    rows = judged(version, curve, queries)
    reached = []
    for query in queries:
        found, truth = version.search(query.vector, 10, hasty.effort), version.exact(query.vector, 10)
        reached.append(recall(Truth(found.keys, found.distances), Truth(truth.keys, truth.distances), 10))
    assert [row["target"] for row in rows] == [80, 85, 90, 95, 97, 98, 99]
    for row in rows:
        assert row["mean"] == pytest.approx(np.mean(reached))
        assert row["p5"] == pytest.approx(np.percentile(reached, 5))
    assert rows[0]["mean"] < 0.9


def test_exact_searches_need_no_judge(version: IndexVersion) -> None:
    curve = measure(version, [Query(vector) for vector in FRESH[:100]], ks=(10,), seconds=1, within=False)
    nothing = Curve(curve.conditions, {"none": {10: curve.points["none"][10][:1]}})
    (row,) = [row for row in judged(version, nothing, [Query(FRESH[0])]) if row["target"] == 99]
    assert (row["effort"], row["mean"], row["p5"]) == ({"exact": True}, 1.0, 1.0)


def test_a_new_structure_is_measured_before_it_is_used(version: IndexVersion, tmp_path: Path) -> None:
    """As far as the background does not have to: for one k, without a filter and within one; with users' queries where there are enough."""
    (part,) = version.parts
    assert is_restructured(version, part)
    curve = first_curve(version, texts(FEWEST_CAPTURED))
    assert curve is not None
    assert (curve.conditions.source, {kind: list(ks) for kind, ks in curve.points.items()}) == ("captured", {"none": [10], "in": [10]})  # fmt: skip
    few = first_curve(version, texts(FEWEST_CAPTURED - 1))
    assert few is not None
    assert few.conditions.source == "held-out"
    flat = build_index(tmp_path, definition(), np.arange(100), clustered(100, 16), kind="flat")
    assert first_curve(flat, []) is None
    assert not is_restructured(flat, flat.parts[0])
