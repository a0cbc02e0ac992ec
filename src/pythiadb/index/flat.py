"""Small segments, and types without a better structure: every search looks at all rows."""

from __future__ import annotations

from pythiadb.index.effort import Effort
from pythiadb.index.segment import Hits, Segment
from pythiadb.index.selection import Selection
from pythiadb.index.store import Query


class FlatSegment(Segment):
    """Vectors and nothing else."""

    kind = "flat"

    def search(self, query: Query, k: int, effort: Effort, selection: Selection | None) -> Hits:  # noqa: ARG002
        """Return the k nearest rows."""
        return self.exact(query, k, selection)

    def search_many(
        self,
        queries: list[Query],
        k: int,
        effort: Effort,  # noqa: ARG002
        selection: Selection | None,
    ) -> list[Hits]:
        """Search for several prepared queries."""
        return [self.exact(query, k, selection) for query in queries]

    def cost(self, effort: Effort, selection: Selection) -> float:  # noqa: ARG002
        """Return what a search in a part of the rows costs."""
        return self.exact_cost(selection)
