"""The command that searches for many vectors: what it reads, and that it ends in time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest

from pythiadb.engine.searching import effort_of
from pythiadb.engine.searching_many import TOGETHER, read_searches, search_within
from pythiadb.index.version import IndexVersion
from tests.unit.index.building import build_index, clustered, definition

ROWS = 6000
PATIENCE = 60.0
VECTORS = clustered(ROWS, 16)


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> IndexVersion:
    root: Path = tmp_path_factory.mktemp("index")
    return build_index(root, definition(), np.arange(ROWS), VECTORS, "partitions")


def payload(count: int, options: object = None) -> bytes:
    heads = np.array([16, 0], ">i2").tobytes()
    queries = [(heads + row.astype(">f4").tobytes()).hex() for row in VECTORS[:count] + 0.01]
    return orjson.dumps([[[1, "token"]], "vector", queries, 5, options, None])


def test_the_answers_of_single_searches(version: IndexVersion) -> None:
    searches = read_searches(payload(3 * TOGETHER + 5))
    found = search_within(version, searches, PATIENCE)
    assert len(found) == len(searches)
    for search, one in zip(searches, found, strict=True):
        assert one.keys == version.search(search.query, 5, effort_of(version, search)).keys


def test_options_count(version: IndexVersion) -> None:
    searches = read_searches(payload(70, {"accuracy": 100}))
    found = search_within(version, searches, PATIENCE)
    assert [one.keys for one in found] == [version.exact(search.query, 5).keys for search in searches]


@pytest.mark.parametrize(("options", "done"), [(None, TOGETHER), ({"accuracy": 100}, 1)])
def test_what_does_not_come_to_its_turn_is_left_out(
    version: IndexVersion, options: object, done: int
) -> None:
    """Something is done in any case, else nothing would ever be."""
    searches = read_searches(payload(TOGETHER + 10, options))
    assert len(search_within(version, searches, 0.0)) == done
