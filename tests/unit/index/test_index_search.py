from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from pythiadb.errors import CorruptedIndex, InvalidParameter, InvalidVector
from pythiadb.index.definition import DENSE_DISTANCES, Column
from pythiadb.index.effort import Effort
from pythiadb.index.segment import open_segment
from tests.unit.index.building import brute_force, build_index, build_segment, clustered, definition, publish

DENSE = sorted(DENSE_DISTANCES)
KINDS = ["flat", "partitions", "graph"]
WIDE = Effort(probes=1000, candidates=500, ef=500)


def recall(found: Any, distances: np.ndarray[Any, Any], k: int = 10) -> float:
    limit = np.sort(distances)[k - 1] + 1e-5
    return float(np.mean([distances[int(key)] <= limit for key in found.keys]))


@pytest.mark.parametrize("distance", DENSE)
@pytest.mark.parametrize("kind", KINDS)
def test_exact_is_brute_force(tmp_path: Path, kind: str, distance: str) -> None:
    rows = clustered(700, 24)
    version = build_index(tmp_path, definition(distance=distance, dimensions=24), np.arange(700), rows, kind)
    for query in clustered(5, 24, seed=2):
        expected = brute_force(distance, rows, query)
        found = version.exact(query, 10)
        assert set(map(int, found.keys)) >= set(np.argsort(expected)[:10].tolist())
        np.testing.assert_allclose(
            found.distances, np.sort(expected)[: len(found.keys)], rtol=2e-6, atol=2e-6
        )


@pytest.mark.parametrize("distance", DENSE)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dimensions", [1, 3, 16, 33, 300])
def test_search_finds_nearly_all_with_exact_distances(
    tmp_path: Path, kind: str, distance: str, dimensions: int
) -> None:
    rows = clustered(1200, dimensions)
    of = definition(distance=distance, dimensions=dimensions)
    version = build_index(tmp_path, of, np.arange(1200), rows, kind)
    shares = []
    for query in clustered(20, dimensions, seed=2):
        expected = brute_force(distance, rows, query)
        found = version.search(query, 10, WIDE)
        assert len(found.keys) == len(set(found.keys)) == 10
        np.testing.assert_allclose(
            found.distances, expected[list(map(int, found.keys))], rtol=2e-5, atol=1e-5
        )
        assert (np.diff(found.distances) >= 0).all()
        shares.append(recall(found, expected))
    least = 0.7 if kind == "graph" and distance == "DOT" else 0.95
    assert np.mean(shares) >= least


@pytest.mark.parametrize("kind", KINDS)
def test_many_queries_are_answered_like_each_alone(tmp_path: Path, kind: str) -> None:
    version = build_index(tmp_path, definition(), np.arange(900), clustered(900, 16), kind)
    queries = clustered(70, 16, seed=3)
    effort = Effort(4, 60, 40)
    alone = [version.search(query, 7, effort) for query in queries]
    for one, other in zip(alone, version.search_many(queries, 7, effort), strict=True):
        assert one.keys == other.keys


@pytest.mark.parametrize("distance", ["HAMMING", "JACCARD"])
@pytest.mark.parametrize("dimensions", [1, 7, 64, 100, 1000])
def test_bits(tmp_path: Path, distance: str, dimensions: int) -> None:
    random = np.random.default_rng(5)
    bits = random.random((400, dimensions)) < 0.3
    of = definition(vector_type="bit", distance=distance, dimensions=dimensions)
    version = build_index(tmp_path, of, np.arange(400), np.packbits(bits, axis=1))
    for query in random.random((5, dimensions)) < 0.3:
        found = version.search(np.packbits(query), 20, WIDE)
        expected = brute_force(distance, bits, query)
        np.testing.assert_allclose(found.distances, np.sort(expected)[:20], atol=1e-6)
        np.testing.assert_allclose(found.distances, expected[list(map(int, found.keys))], atol=1e-6)


@pytest.mark.parametrize("distance", DENSE)
def test_sparse_vectors(tmp_path: Path, distance: str) -> None:
    random = np.random.default_rng(6)
    dense = (random.normal(size=(300, 40)) * (random.random((300, 40)) < 0.2)).astype(np.float32)
    dense[7] = 0
    sparse = [(np.flatnonzero(row), row[row != 0]) for row in dense]
    of = definition(vector_type="sparsevec", distance=distance, dimensions=40)
    version = build_index(tmp_path, of, np.arange(300), sparse)
    for number in (3, 50):
        expected = np.nan_to_num(brute_force(distance, dense, dense[number]), nan=np.inf)
        for found in (
            version.search(sparse[number], 10, WIDE),
            version.among(sparse[number], 10, np.arange(300)),
        ):
            np.testing.assert_allclose(found.distances, np.sort(expected)[:10], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_of_zeros_have_no_cosine_distance_and_come_last(tmp_path: Path, kind: str) -> None:
    rows = clustered(500, 16)
    rows[[3, 77]] = 0
    version = build_index(tmp_path, definition(), np.arange(500), rows, kind)
    found = version.exact(rows[0], 500)
    assert set(found.keys[-2:]) == {"3", "77"}
    assert np.isnan(found.distances[-2:]).all()
    assert not np.isnan(found.distances[:-2]).any()
    nowhere = version.exact(np.zeros(16, np.float32), 5)
    assert len(nowhere.keys) == 5
    assert np.isnan(nowhere.distances).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [0, 1, 2, 63, 64, 65, 200])
def test_any_number_of_rows(tmp_path: Path, kind: str, rows: int) -> None:
    vectors = clustered(rows, 5)
    version = build_index(tmp_path, definition(dimensions=5), np.arange(rows), vectors, kind)
    assert version.rows == rows
    for k in (1, 10, 1000):
        found = version.search(np.ones(5, np.float32), k, Effort(1, 1, 1))
        assert len(set(found.keys)) == len(found.keys) == min(k, rows)
        assert len(version.exact(np.ones(5, np.float32), k).keys) >= min(k, rows)


@pytest.mark.parametrize("kind", KINDS)
def test_duplicated_vectors_all_come(tmp_path: Path, kind: str) -> None:
    rows = np.repeat(clustered(4, 16), 100, axis=0)
    version = build_index(tmp_path, definition(), np.arange(400), rows, kind)
    found = version.search(rows[150], 100, WIDE)
    assert {int(key) // 100 for key in found.keys} == {1}


def test_a_graph_of_any_parameters(tmp_path: Path) -> None:
    """Of one neighbor a row no levels could be made; a list of more places than rows would take all memory."""
    rows = clustered(300, 16)
    of = definition(parameters={"neighbors": 1, "efconstruction": 1})
    version = build_index(tmp_path, of, np.arange(300), rows, "graph")
    most = Effort.from_parameters({"efsearch": 1 << 32}, 10)
    assert len(version.search(rows[0], 10, most).keys) == 10
    assert len(version.search_many(rows[:3], 1_000_000_000, most)[2].keys) == 300


def test_an_empty_index_takes_queries_of_any_dimensions(tmp_path: Path) -> None:
    version = publish(tmp_path, definition(dimensions=1), [])
    effort = Effort.usual(90, 5)
    assert version.search(np.ones(7, np.float32), 5, effort).keys == []
    assert version.exact(np.ones(7, np.float32), 5).keys == []
    assert version.filtered(np.ones(7, np.float32), 5, effort, ["null", "n"]).keys == []
    assert [one.keys for one in version.search_many(np.ones((2, 7), np.float32), 5, effort)] == [[], []]


def test_the_widest_vectors(tmp_path: Path) -> None:
    rows = clustered(120, 16_000)
    for kind in ("partitions", "graph"):
        of = definition(dimensions=16_000, distance="EUCLIDEAN")
        version = build_index(tmp_path, of, np.arange(120), rows, kind)
        assert version.search(rows[5], 1, WIDE).keys == ["5"]


@pytest.mark.parametrize("kind", KINDS)
def test_deleted_rows_never_come_back_and_k_rows_do(tmp_path: Path, kind: str) -> None:
    rows = clustered(1000, 16)
    of = definition()
    segment = build_segment(tmp_path, of, np.arange(1000), rows, kind)
    dead = np.setdiff1d(np.arange(1000), np.arange(0, 1000, 90))
    version = publish(tmp_path, of, [segment], {segment["name"]: dead})
    assert version.rows == 12
    for query in rows[:20]:
        for found in (version.search(query, 10, Effort(1, 10, 10)), version.exact(query, 10)):
            assert len(found.keys) == 10
            assert all(int(key) % 90 == 0 for key in found.keys)
    assert len(version.search(rows[0], 100, Effort(1, 10, 10)).keys) == 12


def test_several_segments_are_one_index(tmp_path: Path) -> None:
    rows = clustered(3000, 16)
    of = definition(distance="EUCLIDEAN")
    spans = [(0, 2000, "partitions"), (2000, 2900, "graph"), (2900, 3000, "flat")]
    segments = [
        build_segment(tmp_path, of, np.arange(start, end), rows[start:end], kind)
        for start, end, kind in spans
    ]
    dead = {segments[1]["name"]: np.arange(0, 450)}
    version = publish(tmp_path, of, segments, dead)
    alive = np.setdiff1d(np.arange(3000), np.arange(2000, 2450))
    for query in clustered(10, 16, seed=9):
        expected = brute_force("EUCLIDEAN", rows, query)
        order = alive[np.argsort(expected[alive])][:10]
        for found in (version.search(query, 10, WIDE), version.exact(query, 10)):
            assert list(map(int, found.keys)) == order.tolist()
            np.testing.assert_allclose(found.distances, expected[order], rtol=1e-5)
    among = version.among(rows[0], 3, np.array([0, 2001, 2460, 2950, 99999]))
    assert set(among.keys) == {"0", "2460", "2950"}


KEYS: dict[str, list[str]] = {
    "uuid": [str(UUID(int=n * 0x9E3779B97F4A7C15F39CC0605CEDC834 % 2**128)) for n in range(300)],
    "text": ["", "ä", "Ж" * 50, "a\nb", "{,}", *(f"key {n}" for n in range(295))],
    "int": [str((n * 7919) % 1009 - 500) for n in range(300)],
}


@pytest.mark.parametrize("key_type", sorted(KEYS))
def test_keys_of_every_type(tmp_path: Path, key_type: str) -> None:
    rows, keys = clustered(300, 16), KEYS[key_type]
    version = build_index(tmp_path, definition(key_type=key_type), keys, rows)
    assert version.search(rows[42], 1, WIDE).keys == [keys[42]]
    missing = {"uuid": str(UUID(int=5)), "text": "nowhere", "int": "123456"}[key_type]
    (found,) = version.positions([keys[9], missing, keys[0], keys[299]]).values()
    assert found.tolist() == [9, -1, 0, 299]
    assert version.among(rows[42], 5, [keys[1], keys[42], missing]).keys == [keys[42], keys[1]]
    (none,) = version.positions([]).values()
    assert none.tolist() == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.001, 0.05, 0.5, 1.0])
def test_filters(tmp_path: Path, kind: str, share: float) -> None:
    rows = clustered(6000, 16)
    groups = np.random.default_rng(3).random(6000)
    of = definition(columns=(Column("grade", "float8"),))
    version = build_index(tmp_path, of, np.arange(6000), rows, kind, {"grade": groups.tolist()})
    passing = np.flatnonzero(groups < share)
    shares = []
    for query in clustered(20, 16, seed=4):
        found = version.filtered(query, 10, Effort(20, 100, 100), ["<", "grade", str(share)])
        assert found.facts["passing"] == len(passing)
        assert len(found.keys) == min(10, len(passing))
        assert np.isin(list(map(int, found.keys)), passing).all()
        expected = brute_force("COSINE", rows, query)
        expected[groups >= share] = np.inf
        shares.append(recall(found, expected, min(10, len(passing))))
    assert np.mean(shares) >= 0.95


@pytest.mark.parametrize("kind", ["partitions", "graph"])
def test_filters_that_leave_out_what_is_near(tmp_path: Path, kind: str) -> None:
    rows = clustered(20_000, 16)
    expected = brute_force("COSINE", rows, rows[0])
    far = expected > np.quantile(expected, 0.85)
    of = definition(columns=(Column("far", "bool"),), parameters={"efconstruction": 20})
    version = build_index(tmp_path, of, np.arange(20_000), rows, kind, {"far": far.tolist()})
    found = version.filtered(rows[0], 10, Effort(24, 200, 40), ["=", "far", "true"])
    assert far[list(map(int, found.keys))].all()
    assert recall(found, np.where(far, expected, np.inf)) >= 0.9


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    of = definition()
    version = build_index(tmp_path, of, np.arange(10), clustered(10, 16))
    with pytest.raises(InvalidVector, match="16 dimensions, not 3"):
        version.search(np.ones(3, np.float32), 1, WIDE)
    with pytest.raises(InvalidVector):
        build_segment(tmp_path, of, np.arange(10), clustered(10, 15))
    with pytest.raises(ValueError, match="differ in length"):
        build_segment(tmp_path, of, np.arange(9), clustered(10, 16))
    with pytest.raises(InvalidParameter):
        definition(distance="JACCARD")
    other = definition(distance="EUCLIDEAN")
    with pytest.raises(CorruptedIndex, match="another distance"):
        open_segment(tmp_path / "segments" / version.parts[0].segment.name, other, verify=False)
    assert sorted(path.name for path in (tmp_path / "segments").iterdir()) == [version.parts[0].segment.name]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_rows_give_the_same_files(tmp_path: Path, kind: str) -> None:
    of = definition(columns=(Column("n", "int4"),))
    names = [
        build_segment(tmp_path, of, np.arange(800), clustered(800, 16), kind, {"n": list(range(800))})["name"]
        for _ in range(2)
    ]
    one, other = ((tmp_path / "segments" / name / "manifest.json").read_bytes() for name in names)
    assert one == other
