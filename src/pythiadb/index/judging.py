"""What measured efforts reach with queries that they were not chosen by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pythiadb.index.accuracy import MASKED_SHARE, Query, Truth, recall, summary
from pythiadb.index.curve import Curve, Recall
from pythiadb.index.effort import Effort
from pythiadb.index.masked import Masked
from pythiadb.index.version import IndexVersion

MOST_QUERIES = 500


def judged(version: IndexVersion, curve: Curve, queries: Sequence[Query]) -> list[dict[str, Any]]:
    """Return the rows that views show of a curve (Curve.rows), with the recall of these queries instead of what was expected.

    Searches within a filter are judged with other rows than they were measured with.
    """
    chosen = queries[:MOST_QUERIES]
    deepest = max((k for by_k in curve.points.values() for k in by_k), default=1)
    judges = {
        kind: _Judge(searched, chosen, _truth(searched, chosen, deepest))
        for kind, searched in (("none", version), ("in", Masked(version, MASKED_SHARE, seed=1)))
        if kind in curve.points
    }
    rows = []
    for row in curve.rows():
        effort = curve.effort(row["target"], row["k"], filtered=row["filter"] == "in")
        reached = judges[row["filter"]].recall(row["k"], effort)
        rows.append(row | {"mean": reached.mean, "p5": reached.p5, "queries": len(chosen)})
    return rows


@dataclass(frozen=True, slots=True)
class _Judge:
    """The queries, and what there is to find for them."""

    searched: IndexVersion | Masked
    queries: Sequence[Query]
    truth: Sequence[Truth]

    def recall(self, k: int, effort: Effort) -> Recall:
        """Return what an effort reaches."""
        if effort.exhaustive:
            return Recall(1.0, 0.0, 1.0)
        found = [self.searched.search(query.vector, k, effort) for query in self.queries]
        return summary(
            [
                recall(Truth(each.keys, each.distances), truth, k)
                for each, truth in zip(found, self.truth, strict=True)
            ]
        )


def _truth(searched: IndexVersion | Masked, queries: Sequence[Query], k: int) -> list[Truth]:
    found = searched.exact_many([query.vector for query in queries], k)
    return [Truth(each.keys, each.distances) for each in found]
