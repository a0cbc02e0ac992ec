"""Target accuracy: the arithmetic of curves, and measured targets met by queries that nobody measured."""

from __future__ import annotations

import json
from dataclasses import astuple
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pythiadb.index.accuracy import Query, Truth, measure, recall, sample_queries
from pythiadb.index.builder import Builder
from pythiadb.index.curve import Conditions, Curve, Measured, Recall
from pythiadb.index.definition import Column, Definition
from pythiadb.index.effort import Effort
from pythiadb.index.manifest import Manifest, write_version
from pythiadb.index.masked import Masked
from pythiadb.index.version import IndexVersion, open_version

ROWS, FRESH, DIMENSIONS = 9_000, 300, 24


def point(probes: int, candidates: int, microseconds: float, mean: float) -> Measured:
    return Measured(Effort(probes, candidates, 10), microseconds, Recall(mean, 0.001, mean - 0.1))


def curve(*points: Measured, organization: str = "partitions", k: int = 10) -> Curve:
    return Curve(Conditions(organization, 1000, 10_000.0), {"none": {k: points}})


STEPS = (point(2, 40, 50, 0.6), point(4, 80, 80, 0.8), point(16, 80, 150, 0.9), point(64, 320, 500, 0.99))


def test_the_cheapest_effort_that_reaches_the_target() -> None:
    made = curve(*STEPS)
    assert made.effort(80, 10) == Effort(4, 80, 10)
    assert made.effort(90, 10) == Effort(16, 80, 10)
    assert made.effort(99, 10) == Effort(64, 320, 10)
    assert made.effort(100, 10).exhaustive
    assert Curve(made.conditions, {"none": {10: STEPS[:3]}}).effort(95, 10).exhaustive


def test_between_two_points() -> None:
    chosen = curve(*STEPS).choice(85, 10)
    assert chosen.effort == Effort(8, 80, 10)
    assert chosen.microseconds == pytest.approx(115)
    assert chosen.recall.mean == pytest.approx(0.85)


def test_points_that_cost_more_for_less_are_dropped() -> None:
    made = curve(*STEPS, point(8, 40, 90, 0.7), point(1, 500, 120, 0.8))
    assert [found.microseconds for found in made.points["none"][10]] == [50, 80, 150, 500]


def test_efforts_that_do_not_contain_each_other_are_not_blended() -> None:
    made = curve(point(16, 40, 50, 0.8), point(8, 400, 90, 0.9))
    assert made.effort(85, 10) == Effort(8, 400, 10)


def test_few_queries_promise_less() -> None:
    sure, unsure = Recall(0.951, 0.002, 0.7), Recall(0.951, 0.02, 0.7)
    assert sure.assured == 0.951
    assert unsure.assured < 0.93


def test_exact_search_where_it_is_cheaper() -> None:
    made = Curve(
        Conditions("graph", 100, 40.0), {"none": {10: [Measured(Effort(1, 1, 90), 60, Recall(1, 0, 1))]}}
    )
    assert made.effort(90, 10).exhaustive


def test_other_ks_than_the_measured_ones() -> None:
    by_k = {10: [point(10, 100, 100, 0.96)], 100: [point(40, 400, 300, 0.96)]}
    made = Curve(Conditions("partitions", 1000, 10_000.0), {"none": by_k})
    assert made.effort(95, 3) == Effort(10, 100, 10)
    assert made.effort(95, 10) == Effort(10, 100, 10)
    assert made.effort(95, 32).probes in (20, 21)
    assert made.effort(95, 1000).probes == 160
    assert made.effort(95, 5000).candidates >= 5000


def test_with_one_k_measured_others_are_guessed() -> None:
    """Else a search for 100 rows would rescore just as many, whose codes say little about which are nearest."""
    only = {10: [point(24, 60, 100, 0.96)]}
    made = Curve(Conditions("partitions", 100_000, 1e6), {"none": only})
    assert made.effort(95, 10) == Effort(24, 60, 10)
    usual = Effort.usual(95, 100)
    assert made.effort(95, 100) == usual
    assert usual.candidates >= 400
    costly = Curve(Conditions("partitions", 100_000, 1e6), {"none": {10: [point(500, 60, 100, 0.96)]}})
    assert costly.effort(95, 100).probes == 500


def test_searches_within_a_filter_have_points_of_their_own() -> None:
    points = {"none": {10: [point(4, 40, 50, 0.96)]}, "in": {10: [point(16, 40, 90, 0.96)]}}
    made = Curve(Conditions("partitions", 1000, 10_000.0), points)
    assert made.effort(95, 10, filtered=True).probes == 16
    assert made.effort(95, 10).probes == 4
    assert [row["filter"] for row in made.rows(targets=(95,))] == ["none", "in"]


def test_what_the_views_show() -> None:
    row = curve(*STEPS).rows(targets=(90,))[0]
    assert row["effort"] == {"probes": 16, "candidates": 80}
    assert (row["k"], row["filter"], row["target"], row["queries"], row["source"]) == (
        10,
        "none",
        90,
        1000,
        "held-out",
    )
    assert row["mean"] == pytest.approx(0.9)
    assert row["microseconds"] == pytest.approx(150)
    assert curve(*STEPS[:2]).rows(targets=(99,))[0]["effort"] == {"exact": True}
    assert curve(point(1, 1, 5, 0.95), organization="graph").rows(targets=(90,))[0]["effort"] == {
        "efsearch": 10
    }


@st.composite
def _curves(draw: st.DrawFn) -> Curve:
    def points() -> list[Measured]:
        efforts = st.builds(Effort, st.integers(1, 500), st.integers(1, 4000), st.integers(1, 1000))
        share = st.floats(0, 1, allow_nan=False)
        recalls = st.builds(Recall, share, st.floats(0, 0.1), share)
        return draw(st.lists(st.builds(Measured, efforts, st.floats(1, 5000), recalls), max_size=30))

    return Curve(Conditions("partitions", 400, 3000.0), {"none": {k: points() for k in (1, 10, 100)}})


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(made=_curves(), k=st.integers(1, 20_000))
def test_more_accuracy_never_costs_less(made: Curve, k: int) -> None:
    for known in (1, 10, 100):
        costs = [made.choice(accuracy, known).microseconds for accuracy in range(1, 101)]
        assert costs == sorted(costs)
    for accuracy in (50, 95):
        chosen = made.effort(accuracy, k)
        assert chosen.exhaustive or min(chosen.candidates, chosen.ef) >= k
        assert min(astuple(chosen)) >= 1


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(made=_curves())
def test_curves_survive_json_of_bounded_size(made: Curve) -> None:
    text = json.dumps(made.to_json())
    assert len(text) < 40_000
    assert Curve.from_json(json.loads(text)).to_json() == made.to_json()
    assert Curve.from_json(json.loads(text)).rows() == made.rows()


def test_recall_counts_rows_that_are_as_near() -> None:
    truth = Truth(["a", "b", "c", "d"], np.array([1, 2, 2, 3], np.float32))
    assert recall(Truth(["a", "c"], np.array([1, 2], np.float32)), truth, 2) == 1
    assert recall(Truth(["a", "d"], np.array([1, 3], np.float32)), truth, 2) == 0.5
    assert recall(Truth([], np.zeros(0, np.float32)), truth, 2) == 0
    assert recall(Truth(["a", "b", "c", "d"], truth.distances), truth, 100) == 1


@cache
def _vectors() -> np.ndarray:
    """Rows around 300 centres, as embeddings are, the last of them for queries."""
    draw = np.random.default_rng(1)
    centres = draw.standard_normal((300, DIMENSIONS)) * 1.2
    near = draw.standard_normal((ROWS + FRESH, DIMENSIONS))
    return (centres[draw.integers(0, 300, ROWS + FRESH)] + near).astype(np.float32)


def _version(
    folder: Path, organization: str, columns: tuple[Column, ...] = (), late: int = 300
) -> IndexVersion:
    """An index of two segments: nearly all rows, and a flat one with the latest."""
    definition = Definition(1, "vector", DIMENSIONS, "EUCLIDEAN", "int", organization, columns=columns)
    segments = []
    (folder / "segments").mkdir()
    (folder / "versions").mkdir()
    for name, start, end in (("large", 0, ROWS - late), ("late", ROWS - late, ROWS)):
        with Builder(folder / "segments" / name, definition) as builder:
            values = {column.name: list(range(start, end)) for column in columns}
            builder.add(np.arange(start, end), _vectors()[start:end], values)
            builder.finish("auto")
        segments.append({"name": name, "kind": "auto", "rows": end - start})
    write_version(folder / "versions", Manifest(1, "first", definition, segments), {})
    return open_version(folder / "versions" / "first", folder / "segments", verify=True)


@pytest.mark.parametrize("organization", ["graph", "partitions"])
def test_targets_are_met_by_fresh_queries(tmp_path: Path, organization: str) -> None:
    version = _version(tmp_path, organization)
    made = measure(version, sample_queries(version, 400), ks=(1, 10), seconds=3)
    assert made.conditions.queries >= 100
    fresh = _vectors()[ROWS:]
    for k in (10, 4):
        truths = [version.exact(query, k) for query in fresh]
        for target in (80, 95):
            effort = made.effort(target, k)
            found = [version.search(query, k, effort) for query in fresh]
            reached = np.mean([recall(Truth(f.keys, f.distances), Truth(t.keys, t.distances), k)
                               for f, t in zip(found, truths, strict=True)])  # fmt: skip
            # 1 point of tolerance, and as much again for the error of a mean over 300 queries.
            assert reached >= target / 100 - 0.02
        assert made.effort(100, k).exhaustive
        assert version.search(fresh[0], k, made.effort(100, k)).keys == truths[0].keys[:k]


@pytest.mark.parametrize(("organization", "expected"), [("partitions", 310), ("graph", 300)])
def test_queries_are_first_rows_that_no_structure_knows(
    tmp_path: Path, organization: str, expected: int
) -> None:
    version = _version(tmp_path, organization)
    queries = sample_queries(version, 310)
    assert len({query.own for query in queries}) == expected
    assert sum(int(query.own or 0) >= ROWS - 300 for query in queries) == 300
    assert all((_vectors()[int(query.own or 0)] == query.vector).all() for query in queries)


def test_included_columns_are_measured_too(tmp_path: Path) -> None:
    version = _version(tmp_path, "partitions", (Column("n", "int4"),))
    made = measure(version, sample_queries(version, 200), ks=(10,), seconds=3)
    assert set(made.points) == {"none", "in"}
    effort = made.effort(95, 10, filtered=True)
    some = Masked(version, 0.1, seed=5)
    reached = [
        recall(Truth(*some.search(query, 10, effort)[:2]), Truth(*some.exact(query, 10)[:2]), 10)
        for query in _vectors()[ROWS:]
    ]  # fmt: skip
    assert np.mean(reached) >= 0.93


def test_an_index_that_looks_at_all_rows(tmp_path: Path) -> None:
    version = _version(tmp_path, "graph", late=ROWS - 1000)
    small = IndexVersion(version.manifest, version.parts[:1], version.segments_folder)
    assert small.parts[0].segment.kind == "flat"
    made = measure(small, sample_queries(small, 20))
    assert made.effort(90, 10).exhaustive
    assert made.rows() == []
    with pytest.raises(ValueError, match="no queries"):
        measure(small, [Query(vector) for vector in _vectors()[:0]])
