"""Search among rows that a filter leaves, from 0.01 % to all of them: recall, rows that come back, and time.

The filters: independent of the vectors; correlated (the rows nearest to a pivot, asked with queries near it); anti-correlated
(the rows farthest from the pivot, the same queries); a join (rows of some authors); and those that a dictionary has by nature:
the query's own part of speech or lexical field, and a field of another part of speech. Columns are included in the index,
or outside of it; every question has another value, so that no answer is kept from the one before.

The statement as it is, which chooses a strategy, is measured beside the same with each strategy that a hint can force, and
without the index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pythiadb
from bench.search import pgvector, pythia
from bench.search.clients import Arguments, Questions, Way, ask
from bench.search.curves import Point, point
from bench.search.data import Dataset, Vectors
from bench.search.output import Section
from bench.search.truth import Chosen, distances, exact
from pythiadb.cli.display import console

SHARES = (0.0001, 0.001, 0.01, 0.05, 0.2, 0.5, 1.0)
AUTHORS = 5000
K = 10
POOL = 4  # times as many queries as are asked: the nearest to the pivot are taken
GOOD = 0.95
LEAST_POST = 0.005  # share of the rows below which post-filter asks for thousands, and is never the best
WANTED = 1.2  # times the best strategy's p50
ALONE, JOINED = "{table} t", "{table} t JOIN author a ON a.id = t.author"
STRATEGIES = {
    "pre": "VECTOR_INDEX_TRANSFORM(t ours_v PRE_FILTER_WITHOUT_JOIN_BACK)",
    "in": "VECTOR_INDEX_TRANSFORM(t ours_v IN_FILTER_WITHOUT_JOIN_BACK)",
    "post": "VECTOR_INDEX_TRANSFORM(t ours_v POST_FILTER_WITHOUT_JOIN_BACK)",
    "exact": "NO_VECTOR_INDEX_TRANSFORM(t)",
}
COLUMNS = ["filter", "pass", "k", "recall", "rows", "chose", "p50 ms", *STRATEGIES, "best", "÷ it"]
BESIDE = ["pgvector", "÷ it", "its default"]


@dataclass(frozen=True)
class Case:
    """One filter with its queries: what stands in SQL, which rows pass (for all queries or each), its other parameters."""

    name: str
    source: str
    condition: str
    passing: Chosen | Sequence[Chosen]
    queries: Vectors
    more: tuple[Arguments, ...]
    judged: bool = True  # by the index, all of it or a part

    @property
    def share(self) -> float:
        """Return the mean share of the rows that pass."""
        masks = [self.passing] if isinstance(self.passing, np.ndarray) else self.passing
        return float(np.mean([mask.mean() for mask in masks]))


@dataclass(frozen=True)
class Columns:
    """The attributes of each row."""

    chance: NDArray[np.float64]
    near: NDArray[np.float64]
    author: NDArray[np.int64]
    author_rank: NDArray[np.float64]
    pivot: Vectors


def columns_of(data: Dataset) -> Columns:
    """Make the attributes: ranks from 0 to 1, so that `rank < share` passes that share of the rows."""
    chance = np.random.default_rng(2)
    count = len(data.base)
    pivot = data.base[0]
    near = np.empty(count)
    near[np.argsort(distances(data.base, pivot), kind="stable")] = np.arange(count) / count
    return Columns(
        chance.permutation(count) / count, near, chance.integers(0, AUTHORS, count),
        chance.permutation(AUTHORS) / AUTHORS, pivot,
    )  # fmt: skip


def cases(data: Dataset, columns: Columns, queries: int, shares: Sequence[float] = SHARES) -> list[Case]:
    """Return every filter at every share, and the natural ones."""
    pool = data.queries[: queries * POOL]
    close = pool[np.argsort(distances(pool, columns.pivot))[:queries]]
    any_query = data.queries[:queries]
    found = []
    for share in shares:
        same = tuple((share - n * 1e-12,) for n in range(queries))
        rest = tuple((1 - share - 1e-10 - n * 1e-12,) for n in range(queries))
        both = tuple((value, value) for (value,) in same)
        chance, near = columns.chance < share, columns.near < share
        far, by_author = columns.near >= 1 - share - 1e-9, (columns.author_rank < share)[columns.author]
        found += [
            Case("independent", ALONE, "t.chance < %s", chance, any_query, same),
            Case("correlated", ALONE, "t.near < %s", near, close, same),
            Case("anti-correlated", ALONE, "t.near >= %s", far, close, rest),
            Case(
                "independent, outside", ALONE, "t.chance_outside < %s", chance, any_query, same, judged=False
            ),
            Case("correlated, outside", ALONE, "t.near_outside < %s", near, close, same, judged=False),
            Case("anti-correlated, outside", ALONE, "t.near_outside >= %s", far, close, rest, judged=False),
            Case("join", JOINED, "a.rank < %s", by_author, any_query, same, judged=False),
            Case("join, correlated", JOINED, "a.rank < %s AND t.near < %s", by_author & near, close, both),
        ]
    return found + (_natural(data, queries) if data.synsets else [])


def _natural(data: Dataset, queries: int) -> list[Case]:
    """Return filters by what the rows are: each query asks for its own kind, or for one far from it."""
    rows, asked = data.synsets[: len(data.base)], data.synsets[len(data.base) :][:queries]
    parts = np.array([row.part for row in rows])
    fields = np.array([row.field for row in rows])
    other = [int(np.random.default_rng(n).choice(fields[parts != one.part])) for n, one in enumerate(asked)]
    vectors = data.queries[:queries]
    return [
        Case("own part of speech", ALONE, "t.part = %s", [parts == one.part for one in asked], vectors,
             tuple((one.part,) for one in asked)),
        Case("own lexical field", ALONE, "t.field = %s", [fields == one.field for one in asked], vectors,
             tuple((one.field,) for one in asked)),
        Case("field of other words", ALONE, "t.field = %s", [fields == field for field in other], vectors,
             tuple((field,) for field in other)),
    ]  # fmt: skip


def measure(
    data: Dataset,
    queries: int,
    shares: Sequence[float] = SHARES,
    *,
    kind: str = pythia.PARTITIONS,
    beside: bool = False,
) -> None:
    """Print and keep the table: one line for every filter; what all ways did is in the file.

    `k`: rows that there are to find, 10 at most; `rows`: the fewest that came back; `chose`: the strategy of the first query. `best`:
    the fastest strategy that found enough. `beside`: also the fastest of pgvector's modes that did.
    """
    title = f"{data.name}: filters, {kind.lower()}" + (" beside pgvector" if beside else "")
    section = Section(title, COLUMNS + (BESIDE if beside else []))
    columns = columns_of(data)
    with pythia.database() as db:
        _fill(db, data, columns, kind, beside=beside)
        for case in cases(data, columns, queries, shares):
            _measure(db, section, data, case, beside=beside)
    section.finish()
    ratios = [line[COLUMNS.index("÷ it")] for line in section.rows]
    over = sum(ratio == "" or ratio > WANTED for ratio in ratios)
    console.print(
        f"{over} of {len(ratios)} filters took more than {WANTED} times the best strategy, or none found enough"
    )


def _fill(db: pythiadb.Connection, data: Dataset, columns: Columns, kind: str, *, beside: bool) -> None:
    """Make the table, for pgvector another one, with B-trees on the columns that filters name, and the indexes."""
    attributes: dict[str, tuple[str, list[Any]]] = {
        "chance": ("double precision", columns.chance.tolist()),
        "near": ("double precision", columns.near.tolist()),
        "author": ("integer", columns.author.tolist()),
    }
    if data.synsets:
        rows = data.synsets[: len(data.base)]
        attributes["part"] = ("text", [row.part for row in rows])
        attributes["field"] = ("integer", [row.field for row in rows])
    included = ", ".join(set(attributes) - {"author"})
    attributes |= {f"{name}_outside": attributes[name] for name in ("chance", "near")}
    db.execute("CREATE TABLE author (id integer PRIMARY KEY, rank double precision)")
    db.cursor().executemany(
        "INSERT INTO author VALUES (%s, %s)", list(enumerate(columns.author_rank.tolist()))
    )
    for table in ("ours", "theirs") if beside else ("ours",):
        pgvector.fill(db, table, data.base, attributes)
        for name in attributes:
            db.execute(f"CREATE INDEX ON {table} ({name})")
    db.execute("ANALYZE")
    if beside:
        pgvector.build(db, "theirs")
        pgvector.warm(db, "theirs")
    pythia.build(db, "ours", kind, include=included)
    pythia.rest(db)


def _measure(db: pythiadb.Connection, section: Section, data: Dataset, case: Case, *, beside: bool) -> None:
    truth = exact(data.base, case.queries, K, case.passing)
    forced = {name: _pythia_way(case, hint) for name, hint in STRATEGIES.items() if _serves(name, case)}
    theirs = _pgvector_ways(case) if beside else []
    ways = [_pythia_way(case), *forced.values(), *theirs]
    seen = ask(pythia.conninfo(db), ways, Questions(case.queries, case.more))
    ours, *others = [point(way.name, one, truth) for way, one in zip(ways, seen, strict=True)]
    there = int(truth.count.min())
    points = dict(zip(forced, others, strict=False))
    best = _best(points, there)
    cells = [
        case.name, f"{case.share:.2%}", there, ours.recall.mean, ours.recall.fewest, _chosen(db, ways[0], case), ours.p50,
        *(points[name].p50 if name in points else "" for name in STRATEGIES),
        best or "none", ours.p50 / points[best].p50 if best else "",
    ]  # fmt: skip
    if beside:
        cells += _beside(
            dict(zip([way.name for way in theirs], others[len(forced) :], strict=True)), ours, there
        )
    section.add(*cells)
    section.raw[f"{case.name} {case.share:.4%}"] = [ours, *others]


def _serves(strategy: str, case: Case) -> bool:
    return {"in": case.judged, "post": case.share >= LEAST_POST}.get(strategy, True)


def _beside(theirs: dict[str, Point], ours: Point, there: int) -> list[Any]:
    best, default = _best(theirs, there), next(iter(theirs.values()))
    return [
        best or "none",
        ours.p50 / theirs[best].p50 if best else "",
        f"recall {default.recall.mean:.2f}, {default.recall.fewest} rows",
    ]


def _best(points: dict[str, Point], there: int) -> str | None:
    """Return the fastest way that found enough, and as many rows as there are."""
    good = [name for name, p in points.items() if p.recall.mean >= GOOD and p.recall.fewest >= there]
    return min(good, key=lambda name: points[name].p50, default=None)


def _chosen(db: pythiadb.Connection, way: Way, case: Case) -> str:
    """Return what the search says that it did for the first query, as PRE or IN."""
    arguments = way.ordered((case.queries[0], *case.more[0]))
    line = db.execute(f"EXPLAIN {way.query}", arguments).fetchall()[0][0]
    words = [
        word.strip(",").removesuffix("-FILTER") for word in line.split(" on ")[0].split() if "FILTER" in word
    ]
    return "+".join(words)


def _select(table: str, case: Case, hint: str = "") -> str:
    source = case.source.format(table=table)
    return f"SELECT {hint}t.id FROM {source} WHERE {case.condition} ORDER BY t.v <=> %s"


def _pythia_way(case: Case, hint: str = "") -> Way:
    return Way(
        hint or "Pythia",
        f"{_select('ours', case, f'/*+ {hint} */ ' if hint else '')} FETCH APPROX FIRST {K} ROWS ONLY WITH TARGET ACCURACY 95",
        ai_sql=True, vector_last=True,
    )  # fmt: skip


def _pgvector_ways(case: Case) -> list[Way]:
    query = _select("theirs", case) + f" LIMIT {K}"
    return [
        Way(mode, query, (("hnsw.ef_search", "200"), ("hnsw.iterative_scan", mode)), vector_last=True)
        for mode in ("off", "strict_order", "relaxed_order")
    ]
