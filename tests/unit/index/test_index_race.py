"""Choosing an organization: both are built over a sample, and the rule by which one of them wins."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from pythiadb.index.curve import GRAPH_ADVANTAGE, Conditions, Curve, Measured, Recall, cheaper, expected_cost
from pythiadb.index.effort import Effort
from pythiadb.index.race import race, rows_to_race
from tests.unit.index.building import clustered, definition


def curve(organization: str, *costs_and_recalls: tuple[float, float]) -> Curve:
    points = [
        Measured(Effort(number + 1, 10, 10), cost, Recall(recall, 0.0, recall))
        for number, (cost, recall) in enumerate(costs_and_recalls)
    ]
    return Curve(Conditions(organization, 500, 5_000.0), {"none": {10: points}})


def test_a_graph_must_be_far_cheaper() -> None:
    assert cheaper({"graph": 100 * GRAPH_ADVANTAGE, "partitions": 100}) == "graph"
    assert cheaper({"graph": 100 * GRAPH_ADVANTAGE + 1, "partitions": 100}) == "partitions"
    assert cheaper({"graph": 100, "partitions": 100}) == "partitions"


def test_costs_grow_with_the_rows_as_each_kind_does() -> None:
    steps = ((100.0, 0.90), (200.0, 0.99))
    assert expected_cost(curve("partitions", *steps), 90, 10_000, 1_000_000) == pytest.approx(1000)
    assert expected_cost(curve("graph", *steps), 90, 10_000, 1_000_000) == pytest.approx(150)
    assert expected_cost(curve("graph", *steps), 100, 10_000, 1_000_000) == pytest.approx(500_000)
    assert expected_cost(curve("graph", *steps), 90, 10_000, 10_000) == pytest.approx(100)


def test_partitions_near_at_few_rows_lose_at_many() -> None:
    graph, partitions = curve("graph", (100.0, 0.95)), curve("partitions", (90.0, 0.95))

    def winner(rows: int) -> str:
        both = {"graph": graph, "partitions": partitions}
        return cheaper({name: expected_cost(one, 90, 10_000, rows) for name, one in both.items()})

    assert winner(10_000) == "partitions"
    assert winner(1_000_000) == "graph"


@pytest.mark.parametrize("rows", [6_000, 6_000_000])
def test_a_race_tells_what_it_found(tmp_path: Path, rows: int) -> None:
    stages: list[str] = []
    outcome = race(
        tmp_path / "race", definition(dimensions=256, target_accuracy=90), clustered(6_000, 256), rows, threads=1,
        progress=lambda stage, _: stages.append(stage),
    )  # fmt: skip
    facts = outcome.facts
    assert facts["sample_rows"] == 5_700
    assert (facts["rows"], facts["target"]) == (rows, 90)
    assert facts["reached"] == {"graph": True, "partitions": True}
    assert outcome.winner == cheaper(facts["microseconds"])
    assert facts["seconds"] > 0
    assert set(stages) == {"choosing the organization"}
    if rows > 6_000:  # a thousand times as many cost partitions 31 times as much, a graph not twice
        assert outcome.winner == "graph"
        assert all(1 < cost < 1e5 for cost in facts["microseconds"].values())


def test_queries_are_not_among_the_rows_that_are_built(tmp_path: Path) -> None:
    """Were they, their own row would be an answer at distance 0 and the recall too good."""
    sample = np.random.default_rng(1).standard_normal((5_000, 48), np.float32)
    of = definition(dimensions=48, target_accuracy=99, distance="EUCLIDEAN")
    facts = race(tmp_path / "race", of, sample, 5_000, threads=1, progress=lambda *_: None).facts
    assert facts["sample_rows"] == 4_700


def test_samples_are_bounded() -> None:
    assert rows_to_race(100) == 50_000
    assert rows_to_race(384) == 20_833
    assert rows_to_race(16_000) == 5_000
    assert math.prod((rows_to_race(1_000), 1_000)) <= 8_000_000
