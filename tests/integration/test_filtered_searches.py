"""Searches under a filter: as many rows as there are, and the near ones, however the filter is applied and whatever it leaves."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from vector_tables import one, rows

import pythiadb

ROWS, K, QUERIES = 8000, 10, 12
SHARES = (0.0005, 0.01, 0.1, 0.5, 1.0)
# Conditions by what they leave: :x is the share of the rows.
FILTERS = {
    "independent": ("entry t", "t.chance < :x"),
    "correlated": ("entry t", "t.near < :x"),
    "anti-correlated": ("entry t", "t.near >= 1 - (:x)::float8"),
    "independent, outside": ("entry t", "t.chance_outside < :x"),
    "correlated, outside": ("entry t", "t.near_outside < :x"),
    "anti-correlated, outside": ("entry t", "t.near_outside >= 1 - (:x)::float8"),
    "join": ("entry t JOIN author a ON a.id = t.author", "a.rank < :x"),
    "half inside": ("entry t", "t.near < :x AND t.chance_outside < 0.5"),
}
TYPES = {"pre": "PRE_FILTER_WITH_JOIN_BACK", "in": "IN_FILTER_WITHOUT_JOIN_BACK", "post": "POST_FILTER_WITHOUT_JOIN_BACK"}  # fmt: skip
Vectors = np.ndarray[Any, Any]


def vectors() -> Vectors:
    """Rows in 32 clouds; the first is the pivot of `near`."""
    random = np.random.default_rng(1)
    centres = random.normal(size=(32, 16))
    cloudy = centres[random.integers(0, 32, ROWS)] + random.normal(size=(ROWS, 16)) * 0.5
    return cloudy.astype(np.float32)


@pytest.fixture(scope="module")
def entries(shop: Path) -> Iterator[pythiadb.Connection]:
    """A table of clouds with columns that filters name, some of them in its index entry_v, and a table to join."""
    base, random = vectors(), np.random.default_rng(2)
    near = np.argsort(np.argsort(((base - base[0]) ** 2).sum(axis=1))) / ROWS
    chance = random.permutation(ROWS) / ROWS
    name = f"filtered_{uuid.uuid4().hex[:8]}"
    with pythiadb.connect(shop, autocommit=True) as db:
        db.execute(f"CREATE SCHEMA {name}; SET search_path = {name}, public, pythia".encode())
        db.execute("CREATE TABLE author (id int PRIMARY KEY, rank float8)")
        db.execute("INSERT INTO author SELECT i, i / 100.0 FROM generate_series(0, 99) i")
        db.execute(
            "CREATE TABLE entry (id int PRIMARY KEY, chance float8, near float8, chance_outside float8, "
            "near_outside float8, author int, v vector(16) NOT NULL)"
        )
        with db.cursor().copy("COPY entry FROM STDIN") as copy:
            for n in range(ROWS):
                copy.write_row((n, chance[n], near[n], chance[n], near[n], n % 100, str(base[n].tolist())))
        db.execute("CREATE INDEX ON entry (chance_outside); CREATE INDEX ON entry (near_outside); ANALYZE")
        db.execute(
            "CREATE VECTOR INDEX entry_v ON entry (v) INCLUDE (chance, near) ORGANIZATION NEIGHBOR PARTITIONS "
            "DISTANCE EUCLIDEAN WITH TARGET ACCURACY 95"
        )
        yield db
        db.execute("DROP INDEX entry_v")
        db.execute(f"DROP SCHEMA {name} CASCADE".encode())


def statement(kind: str, how: str, filter_type: str = "") -> str:
    tables, condition = FILTERS[kind]
    hint = f"/*+ VECTOR_INDEX_TRANSFORM(t entry_v {filter_type}) */ " if filter_type else ""
    return f"SELECT {hint}t.id FROM {tables} WHERE {condition} ORDER BY t.v <-> :q FETCH {how} FIRST {K} ROWS ONLY"


def found(db: pythiadb.Connection, text: str, share: float, query: Vectors) -> set[int]:
    return {row[0] for row in db.execute(text, {"x": share, "q": str(query.tolist())})}


def near_the_pivot() -> Vectors:
    base = vectors()
    return base[np.argsort(((base - base[0]) ** 2).sum(axis=1))[:QUERIES]] + 0.01


@pytest.fixture(scope="module")
def truth(entries: pythiadb.Connection) -> Callable[[str, float, int], set[int]]:
    """What PostgreSQL finds under a filter for one of the queries near the pivot; asked once for all ways."""
    queries = near_the_pivot()

    @cache
    def find(kind: str, share: float, number: int) -> set[int]:
        return found(entries, statement(kind, ""), share, queries[number])

    return find


@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize("way", ["", *TYPES])
def test_as_many_rows_as_there_are_and_the_near_ones(
    entries: pythiadb.Connection, truth: Callable[[str, float, int], set[int]], kind: str, way: str
) -> None:
    if way == "in" and ("outside" in kind or kind == "join"):
        with pytest.raises(
            psycopg.errors.FeatureNotSupported, match="entry_v cannot judge anything of the filter"
        ):
            entries.execute(statement(kind, "APPROX", TYPES[way]), {"x": 1.0, "q": "[1]"})
        return
    text = statement(kind, "APPROX", TYPES.get(way, ""))
    for share in SHARES:
        recalls = []
        for number, query in enumerate(near_the_pivot()):
            wanted = truth(kind, share, number)
            answer = found(entries, text, share, query)
            assert len(answer) == len(wanted)
            recalls.append(len(answer & wanted) / max(len(wanted), 1))
        assert np.mean(recalls) >= 0.9, (share, recalls)


@pytest.mark.parametrize(
    ("kind", "share", "way", "shown"),
    [
        ("independent", 0.5, "", "SCAN IN-FILTER"),
        ("independent, outside", 0.001, "", "PRE-FILTER"),
        ("independent, outside", 0.9, "", "SCAN POST-FILTER"),
        ("independent", 0.5, "pre", "PRE-FILTER"),
        ("independent", 0.5, "post", "SCAN POST-FILTER"),
        ("independent, outside", 0.9, "pre", "PRE-FILTER"),
        ("join", 0.01, "post", "SCAN POST-FILTER"),
        ("half inside", 0.5, "in", "SCAN IN-FILTER, POST-FILTER"),
    ],
)  # fmt: skip
def test_explain_shows_how_the_filter_is_applied(
    entries: pythiadb.Connection, kind: str, share: float, way: str, shown: str
) -> None:
    text = "EXPLAIN " + statement(kind, "APPROX", TYPES.get(way, ""))
    lines = [row[0] for row in entries.execute(text, {"x": share, "q": str(vectors()[5].tolist())})]
    assert lines[0].split(" on ")[0] == f"VECTOR INDEX IVF {shown}"
    assert any(line == f"  Filter type: {way.upper()}, by hint" for line in lines) == bool(way)


@pytest.mark.parametrize("share", [0.5, 0.02])
def test_the_index_is_asked_for_as_many_as_the_rest_of_the_filter_needs(
    entries: pythiadb.Connection, share: float
) -> None:
    """Half of the rows fulfil the part that the index judges; of those the rest of the filter leaves `share`."""
    select = f"SELECT /*+ VECTOR_INDEX_TRANSFORM(t entry_v {TYPES['in']}) */ id FROM entry t"
    condition = f"t.near < 0.5 AND t.chance_outside < {share}"
    text = f"EXPLAIN {select} WHERE {condition} ORDER BY t.v <-> :q FETCH APPROX FIRST {K} ROWS ONLY"
    lines = [row[0] for row in entries.execute(text, {"q": str(vectors()[5].tolist())})]
    (shown,) = [
        re.search(r"Candidates: (\d+) asked, (\d+) passed on", line) for line in lines if "asked," in line
    ]
    assert shown is not None
    asked, passed = map(int, shown.groups())
    assert asked * share == pytest.approx(
        K + 2 * K**0.5 + 2, rel=0.2
    )  # by PostgreSQL's estimate of the share
    assert passed >= K


def test_a_hint_stands_for_approx_and_for_exact(entries: pythiadb.Connection) -> None:
    query = str(vectors()[5].tolist())
    for hint, first in [
        ("VECTOR_INDEX_SCAN(entry)", "VECTOR INDEX IVF SCAN"),
        ("NO_VECTOR_INDEX_SCAN(entry)", "Limit"),
    ]:
        plain = f"EXPLAIN SELECT /*+ {hint} */ id FROM entry ORDER BY v <-> :q FETCH FIRST 5 ROWS ONLY"
        assert rows(entries, plain.replace(":q", f"'{query}'"))[0][0].startswith(first)


def test_estimates_that_are_wrong_cost_no_rows(entries: pythiadb.Connection) -> None:
    """PostgreSQL takes conditions for independent: here it expects a hundredth of the rows that pass, then far too many."""
    same = " AND ".join(f"floor(t.near_outside * {n}) = 0" for n in (2, 2.0, 2.00))
    never = "t.near_outside >= 0.5 AND t.chance_outside < 2 AND t.near_outside * 2 >= 1.9996"
    query = str(vectors()[0].tolist())
    for condition in (same, never):
        text = f"SELECT id FROM entry t WHERE {condition} ORDER BY v <-> '{query}' FETCH APPROX FIRST {K} ROWS ONLY"
        truth = rows(entries, text.replace("APPROX ", ""))
        answer = rows(entries, text)
        assert len(answer) == len(truth)
        assert len(set(answer) & set(truth)) >= 0.8 * len(truth)


@pytest.mark.parametrize("pre_cost", [2_000, 20_000, 500_000])
def test_asking_again_ends_soon(entries: pythiadb.Connection, pre_cost: int) -> None:
    """Where no row near the query passes, the search gives up after few attempts that cost no more than all distances."""
    asked, spent, attempts = 40, 0.0, 0
    while asked:
        spent += one(entries, "SELECT pythia.post_filter_cost(%s)", asked)
        attempts += 1
        asked = one(entries, "SELECT pythia.ask_again(%s, 0, 10, 1000000, %s)", asked, pre_cost)
    assert attempts <= 4
    assert spent <= 1.2 * pre_cost


def test_the_function_takes_a_filter_type(entries: pythiadb.Connection) -> None:
    query = str(vectors()[7].tolist())
    text = "SELECT key, round(distance::numeric, 3) FROM pythia.vector_search('entry_v', %s, 5, %s, 99, %s)"
    ways = [rows(entries, text, query, "chance_outside < 0.5", way) for way in (None, "pre", "POST")]
    assert ways[1] == rows(
        entries,
        "SELECT id::text, round((v <-> %s)::numeric, 3) FROM entry WHERE chance_outside < 0.5 ORDER BY v <-> %s LIMIT 5",
        query,
        query,
    )
    assert ways[0] == ways[1] == ways[2]
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="cannot let the index judge its filter"):
        rows(entries, text, query, "chance < 0.5", "in")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="the filter type is pre or post, not mid"):
        rows(entries, text, query, "chance < 0.5", "mid")


def test_no_filter_type_shows_hidden_rows(entries: pythiadb.Connection) -> None:
    """Under row-level security every way is exact, over the rows that the caller may see."""
    name = f"reader_{uuid.uuid4().hex[:8]}"
    schema = one(entries, "SELECT current_schema()")
    entries.execute(f"CREATE ROLE {name}; GRANT USAGE ON SCHEMA {schema} TO {name}".encode())
    entries.execute(f"GRANT SELECT ON entry, author TO {name}".encode())
    entries.execute("ALTER TABLE entry ENABLE ROW LEVEL SECURITY")
    entries.execute("CREATE POLICY few ON entry USING (id % 100 = 3)")
    try:
        entries.execute(f"SET ROLE {name}".encode())
        query = vectors()[0]
        for way in ("", *TYPES):
            answer = found(entries, statement("independent", "APPROX", TYPES.get(way, "")), 0.5, query)
            assert answer == found(entries, statement("independent", ""), 0.5, query)
            assert {number % 100 for number in answer} == {3}
    finally:
        entries.execute("RESET ROLE")
        entries.execute("DROP POLICY few ON entry; ALTER TABLE entry DISABLE ROW LEVEL SECURITY")
        entries.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())
