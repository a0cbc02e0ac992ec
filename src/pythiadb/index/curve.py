"""What effort a search needs for an accuracy: measured points, and the choice between them.

The *recall* of a query is the share of its k true neighbours that the search found. A target accuracy of 95 asks for a mean recall
of 0.95 over queries that nobody measured; 100 asks for an exact search.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

from pythiadb.index.effort import Effort

TARGETS = (80, 85, 90, 95, 97, 98, 99)
# The mean recall of fresh queries may be this much under the target …
TOLERANCE = 0.01
# … and with 95 % of certainty is not: the mean of the measured queries has an error, and so has that of as many fresh ones.
_CERTAINTY = 1.645 * math.sqrt(2)
_MOST_POINTS = 48
# A search in a graph must cost at most so much of one in partitions for the graph to be chosen. Below that, timings of two runs
# may tell either; partitions are built in a fraction of the time.
GRAPH_ADVANTAGE = 0.8


@dataclass(frozen=True, slots=True)
class Recall:
    """Recall over the measured queries at one k: mean, its standard error, and what 95 % of the queries reach."""

    mean: float
    error: float
    p5: float

    @property
    def assured(self) -> float:
        """The target that may be promised: what the mean reaches, and fresh queries but for the tolerance."""
        return min(self.mean, self.mean - _CERTAINTY * self.error + TOLERANCE)

    def towards(self, other: Recall, share: float) -> Recall:
        """Return what lies between two recalls."""
        return Recall(*(_between(a, b, share) for a, b in zip(self._all(), other._all(), strict=True)))

    def _all(self) -> tuple[float, float, float]:
        return self.mean, self.error, self.p5


@dataclass(frozen=True, slots=True)
class Measured:
    """One effort at one k: median microseconds of a query, and its recall. Between measured points lie expected ones."""

    effort: Effort
    microseconds: float
    recall: Recall


@dataclass(frozen=True, slots=True)
class Conditions:
    """How a curve was measured: over how many queries, whence they came, and what an exact search costs."""

    organization: str
    queries: int
    exact_microseconds: float
    source: str = "held-out"


class Curve:
    """Measured points by kind of search, 'none' (without a filter) and 'in' (within one) where it was measured, and by k."""

    def __init__(
        self, conditions: Conditions, points: Mapping[str, Mapping[int, Sequence[Measured]]]
    ) -> None:
        self.conditions = conditions
        self.points = {
            kind: {k: frontier(measured) for k, measured in sorted(by_k.items())}
            for kind, by_k in points.items()
        }

    def effort(self, accuracy: int, k: int, *, filtered: bool = False) -> Effort:
        """Return the cheapest effort for an accuracy (1 to 100, 100 is exact) and any k.

        Between two measured ks, and beyond the last, the effort grows with a power of k.
        """
        kind = "in" if filtered and "in" in self.points else "none"
        ks = list(self.points[kind])
        if accuracy >= 100 or not ks:
            return Effort.exact()
        place = next((place for place, known in enumerate(ks) if known >= k), len(ks) - 1)
        high = self.choice(accuracy, ks[place], kind).effort
        if k > ks[0] == ks[-1]:  # nothing was measured that tells how the effort grows
            return Effort(*map(max, astuple(high), astuple(Effort.usual(accuracy, k))))
        if place == 0 or ks[place] == k or high.exhaustive:
            return high.at_least(k)
        low = self.choice(accuracy, ks[place - 1], kind).effort
        share = math.log(k / ks[place - 1]) / math.log(ks[place] / ks[place - 1])
        return _blend(low, high, share).at_least(k)

    def choice(self, accuracy: int, k: int, kind: str = "none") -> Measured:
        """Return the cheapest effort for an accuracy at one of the measured ks, with what is expected of it."""
        exact = Measured(Effort.exact(), self.conditions.exact_microseconds, Recall(1.0, 0.0, 1.0))
        target = accuracy / 100
        before: Measured | None = None
        for candidate in self.points[kind][k] if accuracy < 100 else ():
            if candidate.recall.assured >= target:
                found = candidate if before is None else _refined(before, candidate, target)
                return found if found.microseconds < exact.microseconds else exact
            before = candidate
        return exact

    def rows(self, targets: Sequence[int] = TARGETS) -> list[dict[str, Any]]:
        """Return what the views show: for each k, kind of filter and target the effort, the recall and the cost expected of it."""
        return [
            self._row(kind, k, target)
            for kind, by_k in self.points.items()
            for k in by_k
            for target in targets
        ]

    def _row(self, kind: str, k: int, target: int) -> dict[str, Any]:
        choice = self.choice(target, k, kind)
        return {
            "k": k,
            "filter": kind,
            "target": target,
            "effort": parameters(choice.effort, self.conditions.organization),
            "mean": choice.recall.mean,
            "p5": choice.recall.p5,
            "queries": self.conditions.queries,
            "microseconds": choice.microseconds,
            "source": self.conditions.source,
        }

    def to_json(self) -> dict[str, Any]:
        """Return the curve as JSON of bounded size."""
        points = {
            kind: {str(k): [asdict(point) for point in measured] for k, measured in by_k.items()}
            for kind, by_k in self.points.items()
        }
        return {"conditions": asdict(self.conditions), "points": points}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Curve:
        """Read what to_json() gave. Raises KeyError, TypeError or ValueError for anything else."""
        points = {
            kind: {int(k): [_measured(point) for point in measured] for k, measured in by_k.items()}
            for kind, by_k in data["points"].items()
        }
        return cls(Conditions(**data["conditions"]), points)


def expected_cost(curve: Curve, accuracy: int, measured_rows: int, rows: int, k: int = 10) -> float:
    """Return the microseconds of a search over `rows`, after a curve that was measured over fewer.

    The cost of a graph grows with the logarithm of the rows, that of partitions with the root, that of an exact search with the rows.
    """
    choice = curve.choice(accuracy, k)
    growth = rows / measured_rows
    if not choice.effort.exhaustive:
        graph = curve.conditions.organization == "graph"
        growth = math.log(rows) / math.log(measured_rows) if graph else math.sqrt(growth)
    return choice.microseconds * growth


def cheaper(costs: Mapping[str, float]) -> str:
    """Return the organization to build by the microseconds of a search: a graph, which takes long to build, if it is far cheaper."""
    return "graph" if costs["graph"] <= GRAPH_ADVANTAGE * costs["partitions"] else "partitions"


def parameters(effort: Effort, organization: str) -> dict[str, Any]:
    """Return an effort as the views show it: only what counts for the organization."""
    if effort.exhaustive:
        return {"exact": True}
    if organization == "graph":
        return {"efsearch": effort.ef}
    return {"probes": effort.probes, "candidates": effort.candidates}


def frontier(points: Sequence[Measured]) -> list[Measured]:
    """Return by cost those points that promise more than all cheaper ones, thinned out to a bounded number."""
    best: list[Measured] = []
    for point in sorted(points, key=lambda p: p.microseconds):
        if not best or point.recall.assured > best[-1].recall.assured:
            best.append(point)
    step = math.ceil(len(best) / _MOST_POINTS) or 1
    return best[::-1][::step][::-1]


def _measured(data: Mapping[str, Any]) -> Measured:
    return Measured(Effort.from_json(data["effort"]), float(data["microseconds"]), Recall(**data["recall"]))


def _between(a: float, b: float, share: float) -> float:
    return a + (b - a) * share


def _blend(low: Effort, high: Effort, share: float) -> Effort:
    """Return the effort that lies between two, or beyond the second (a share over 1), by the logarithm; never less than before."""
    parts: list[tuple[int, int]] = list(zip(astuple(low), astuple(high), strict=True))
    if share > 1:
        parts = [(min(less, more), more) for less, more in parts]
    return Effort(*(math.ceil(less * (more / less) ** share - 1e-9) for less, more in parts))


def _refined(low: Measured, high: Measured, target: float) -> Measured:
    """Return what lies between two points and just reaches the target, where one's effort is not less than the other's in any part.

    Recall grows ever more slowly with effort, so the straight line between two points promises too little rather than too much.
    """
    if any(less > more for less, more in zip(astuple(low.effort), astuple(high.effort), strict=True)):
        return high
    share = (target - low.recall.assured) / (high.recall.assured - low.recall.assured)
    return Measured(
        _blend(low.effort, high.effort, share),
        _between(low.microseconds, high.microseconds, share),
        low.recall.towards(high.recall, share),
    )
