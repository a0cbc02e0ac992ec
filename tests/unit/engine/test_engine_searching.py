"""What a search command asks of an index."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pythiadb.engine.searching import Search, effort_of
from pythiadb.index.curve import Conditions, Curve, Measured, Recall
from pythiadb.index.definition import Column
from pythiadb.index.effort import Effort
from pythiadb.index.version import IndexVersion
from tests.unit.index.building import build_index, clustered, definition

ROWS = 1000
AMONG_ALL, WITHIN = Effort(40, 100, 40), Effort(7, 50, 20)


@pytest.fixture
def version(tmp_path: Path) -> IndexVersion:
    """An index that was measured: searches among all rows need other efforts than those within a filter."""
    of = definition(columns=(Column("n", "int4"),))
    built = build_index(tmp_path, of, np.arange(ROWS), clustered(ROWS, 16), columns={"n": list(range(ROWS))})
    points = {
        kind: {10: [Measured(effort, 10.0, Recall(0.99, 0.001, 0.9))]}
        for kind, effort in (("none", AMONG_ALL), ("in", WITHIN))
    }
    curve = Curve(Conditions("partitions", 100, 1e6), points)
    manifest = replace(built.manifest, curve=curve.to_json())
    return IndexVersion(manifest, built.parts, built.segments_folder)


@pytest.mark.parametrize(
    ("predicate", "effort"),
    [
        (None, AMONG_ALL),
        (["<", "n", "100"], WITHIN),
        (["<", "n", "899"], WITHIN),
        (["<", "n", "900"], AMONG_ALL),
        ([">=", "n", "0"], AMONG_ALL),
    ],
)
def test_a_filter_that_leaves_nearly_all_rows_is_none(
    version: IndexVersion, predicate: object, effort: Effort
) -> None:
    """The index then searches as without one: the effort of a search within a filter, which looks further by itself, would be too little."""
    search = Search([(1, version.token)], clustered(1, 16)[0], 10, {"accuracy": 95}, predicate, False)
    assert effort_of(version, search) == effort
