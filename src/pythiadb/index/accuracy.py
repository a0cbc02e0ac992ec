"""Measuring what accuracy each effort reaches and what it costs, on the index itself.

Queries are captured ones, or rows of the index (`sample_queries`), whose own row counts neither as a neighbour nor as an answer. A
coarse sweep with few queries finds which efforts are worth anything; those and what lies between them are measured with all
queries. Efforts take turns from call to call, each time with another query, so that what else the machine does meets all alike
and no call finds the rows of the one before in the caches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pythiadb.index.curve import Conditions, Curve, Measured, Recall, frontier
from pythiadb.index.effort import Effort
from pythiadb.index.grid import LOWEST, PROBES, all_efforts, candidate_counts, probe_counts, worth_measuring
from pythiadb.index.masked import Masked
from pythiadb.index.ranks import Ranks
from pythiadb.index.version import Found, IndexVersion

KS = (1, 10, 100)
MASKED_SHARE = 0.1  # of the rows, where searches within a filter are measured

_FIRST_QUERIES = 5
_COARSE_QUERIES = 40
_TIMED_QUERIES = 60
_NO_MORE = 0.0005  # recall that is not worth more candidates
_ALL_BUT_NONE = 0.9995  # recall at which more probes find nothing
_FEWEST_QUERIES = 100
_TOGETHER = 128  # queries of which the truth is found in one go

Report = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Truth:
    """The true neighbours of one query without its own row: keys, nearest first, and their distances."""

    keys: list[str]
    distances: NDArray[np.float32]

    def first(self, k: int) -> Truth:
        """Return the k nearest of them."""
        return Truth(self.keys[:k], self.distances[:k])


@dataclass(frozen=True, slots=True)
class Query:
    """A query vector in the form in which the index takes it, and the key of its row when it is one."""

    vector: Any
    own: str | None = None


def measure(
    version: IndexVersion,
    queries: Sequence[Query],
    truth: Sequence[Truth] | None = None,
    ks: Sequence[int] = KS,
    *,
    source: str = "held-out",
    seconds: float = 30.0,
    within: bool = True,
    progress: Report | None = None,
) -> Curve:
    """Measure searches, in one thread, in about `seconds` and with at least 100 queries (as far as there are so many).

    Searches within a filter are measured where columns are included (unless not `within`), with a tenth of the rows that chance
    chooses.

    400 to 1,000 queries tell accuracies of 95 and 99 apart. Raises ValueError when there are none. `truth` spares the exact searches.
    """
    if not queries:
        raise ValueError("there are no queries to measure with")
    report = progress or _silent
    deepest = min(max(ks), max(version.rows - 1, 1))
    usable = sorted({min(k, deepest) for k in ks})
    within = within and bool(version.definition.columns)
    sweep = _Sweep(version, queries, seconds / (2 if within else 1), report)
    sweep.find_truth(deepest, truth)
    points: dict[str, dict[int, list[Measured]]] = {"none": {}}
    if any(part.segment.kind != "flat" for part in version.parts):
        points["none"] = sweep.all(usable)
        if within:
            masked = _Sweep(Masked(version, MASKED_SHARE), queries, seconds / 2, report)
            masked.find_truth(deepest)
            points["in"] = masked.all(usable)
    conditions = Conditions(version.definition.organization, sweep.count, sweep.exact_microseconds, source)
    return Curve(conditions, points)


def sample_queries(version: IndexVersion, count: int, seed: int = 0) -> list[Query]:
    """Return rows of the index as queries, first those of its flat segments.

    No structure was made with those, so they are as foreign to it as queries of users are. Partitions hardly know their rows; a graph
    does: to its own rows it finds better ways (0.954 beside 0.941 of fresh queries was seen). Where an index of that organization
    has 100 rows or more in flat segments, only they are taken.
    """
    chosen: list[Query] = []
    draw = np.random.default_rng(seed)
    for part in sorted(version.parts, key=lambda part: part.segment.kind != "flat"):
        if part.segment.kind == "graph" and len(chosen) >= _FEWEST_QUERIES:
            break
        rows = np.arange(part.segment.rows) if part.alive is None else part.alive.positions
        taken = np.sort(draw.choice(rows, min(count - len(chosen), len(rows)), replace=False))
        keys = part.segment.keys.texts(taken)
        vectors = part.segment.store.take(taken)
        chosen += [Query(vector, key) for vector, key in zip(vectors, keys, strict=True)]
    return [chosen[place] for place in draw.permutation(len(chosen)).tolist()]


class _Sweep:
    """Runs efforts over queries and counts what they find; a third of the time is for what there was to find."""

    def __init__(
        self, searched: IndexVersion | Masked, queries: Sequence[Query], seconds: float, report: Report
    ) -> None:
        self.searched = searched
        self.queries = queries
        self.truth: Sequence[Truth] = ()
        self.seconds = seconds
        self.report = report
        self.count = len(queries)
        self.exact_microseconds = 0.0

    def find_truth(self, k: int, given: Sequence[Truth] | None = None) -> None:
        """Search exactly, unless the truth is given, for as many queries as there is time for; others are left out."""
        deadline = time.monotonic() + self.seconds / 3
        self.exact_microseconds = self._cost_of_exact(k)
        known = list(given or ())
        while len(known) < len(self.queries) and not given:
            if len(known) >= _FEWEST_QUERIES and time.monotonic() > deadline:
                break
            some = self.queries[len(known) : len(known) + _TOGETHER]
            found = self.searched.exact_many([query.vector for query in some], k + 1)
            known += [_without(each, query.own).first(k) for each, query in zip(found, some, strict=True)]
            self.report(len(known) / len(self.queries))
        self.truth = known
        self.count = len(known)

    def _cost_of_exact(self, k: int) -> float:
        """Return the median microseconds of single exact searches."""
        times = []
        for query in self.queries[:_FIRST_QUERIES]:
            started = time.perf_counter_ns()
            self.searched.exact(query.vector, k)
            times.append(time.perf_counter_ns() - started)
        return float(np.median(times)) / 1000

    def all(self, ks: Sequence[int]) -> dict[int, list[Measured]]:
        """Measure each k: coarsely, then what is worth it with as many queries as there is time for."""
        if self.searched.definition.organization == "partitions" and isinstance(self.searched, IndexVersion):
            return {k: self._by_ranks(self.searched, k) for k in ks}
        coarse = {k: self._coarse(k, self.seconds / 6 / len(ks)) for k in ks}
        efforts = {k: worth_measuring(measured) for k, measured in coarse.items()}
        cost = sum(_cost(coarse[k]) * len(efforts[k]) for k in ks) / 1e6
        self.count = min(self.count, max(_FEWEST_QUERIES, int(self.seconds / 2 / cost)))
        measured = {}
        for done, k in enumerate(ks):
            self.report(done / len(ks))
            measured[k] = self.run(k, efforts[k], self.count)
        return measured

    def _by_ranks(self, version: IndexVersion, k: int) -> list[Measured]:
        """Measure the recall of all efforts with all queries together, the cost of those that may be best with a few."""
        recalls = self._recalls(version, k)
        tried = self.run(k, list(recalls), _FIRST_QUERIES)
        best = frontier([replace(point, recall=recalls[point.effort]) for point in tried])
        best = [point for point in best if point.recall.mean >= LOWEST] or best
        timed = self.run(k, [point.effort for point in best], _TIMED_QUERIES)
        return [replace(point, recall=recalls[point.effort]) for point in timed]

    def _recalls(self, version: IndexVersion, k: int) -> dict[Effort, Recall]:
        """Return what each effort finds, without those that find no more than one with fewer candidates."""
        wanted = min([k, *(len(truth.keys) for truth in self.truth)])
        neighbours = [truth.keys[:wanted] for truth in self.truth]
        grid = candidate_counts(k)
        ranks = Ranks(version, [query.vector for query in self.queries[: self.count]], neighbours, max(grid))
        found: dict[Effort, Recall] = {}
        for probes in probe_counts(version):
            places, before = ranks.at(probes), 0.0
            for candidates in grid:
                recall = summary((places <= candidates).mean(axis=1))
                if recall.mean > before + _NO_MORE:
                    found[Effort(probes, candidates, 1)] = recall
                    before = recall.mean
            self.report(probes / max(PROBES))
            if before > _ALL_BUT_NONE:
                break
        return found

    def _coarse(self, k: int, seconds: float) -> list[Measured]:
        """Measure all efforts that cost less than an exact search, with few queries."""
        tried = self.run(k, all_efforts(self.searched, k), _FIRST_QUERIES)
        kept = [point for point in tried if point.microseconds < self.exact_microseconds] or tried[:1]
        affordable = int(seconds / (_cost(kept) * len(kept)) * 1e6)
        most = min(max(affordable, 2 * _FIRST_QUERIES), _COARSE_QUERIES)
        return self.run(k, [point.effort for point in kept], most)

    def run(self, k: int, efforts: Sequence[Effort], most: int) -> list[Measured]:
        """Measure each effort at one k with the first queries."""
        count = min(self.count, most)
        nanoseconds = np.zeros((len(efforts), count))
        recalls = np.zeros((len(efforts), count))
        shift = max(1, count // max(len(efforts), 1))
        for step in range(count):
            for row, effort in enumerate(efforts):
                place = (step + row * shift) % count
                query = self.queries[place]
                started = time.perf_counter_ns()
                found = self.searched.search(query.vector, k + (query.own is not None), effort)
                nanoseconds[row, place] = time.perf_counter_ns() - started
                recalls[row, place] = recall(_without(found, query.own), self.truth[place], k)
        return [
            Measured(effort, float(np.median(times)) / 1000, summary(each))
            for effort, times, each in zip(efforts, nanoseconds, recalls, strict=True)
        ]


def recall(found: Truth, truth: Truth, k: int) -> float:
    """Return the share of the k nearest that were found.

    A row that is as near as the k-th counts, whichever of several equally near ones it is.
    """
    wanted = min(k, len(truth.keys))
    if not wanted:
        return 1.0
    limit = float(truth.distances[wanted - 1])
    known = set(truth.keys[:wanted])
    hits = sum(
        key in known or distance <= limit
        for key, distance in zip(found.keys[:k], found.distances[:k].tolist(), strict=True)
    )
    return float(min(hits, wanted) / wanted)


def summary(each: Sequence[float] | NDArray[np.float64]) -> Recall:
    """Return mean, error and 5th percentile of the recalls of queries.

    Few queries may all have been answered in full by luck: the variance is that with one more, of which half was not found.
    """
    recalls = np.asarray(each)
    count = len(recalls)
    error = ((float(recalls.var()) + 0.25 / count) / count) ** 0.5
    return Recall(float(recalls.mean()), error, float(np.percentile(recalls, 5)))


def _cost(points: Sequence[Measured]) -> float:
    return sum(point.microseconds for point in points) / len(points)


def _without(found: Found, own: str | None) -> Truth:
    if own is None or own not in found.keys:
        return Truth(found.keys, found.distances)
    place = found.keys.index(own)
    return Truth(found.keys[:place] + found.keys[place + 1 :], np.delete(found.distances, place))


def _silent(share: float) -> None:
    """Progress that nobody asked for."""
