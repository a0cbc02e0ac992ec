"""Which rows of a segment a search may return."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pythiadb.index.library import Selector

Mask = NDArray[np.bool_]

# Primes, each about twice the one before: rows at such a distance from each other are no sample of what repeats every few rows.
_STEPS = (1, 3, 7, 17, 37, 79, 163, 331, 673, 1361, 2729, 5471, 10949)
NEARLY_ALL = 0.9  # share of the rows from which on a search need not look further than without a selection


class Selection:
    """Some rows of a segment, by a [rows] bool mask that is not changed afterwards."""

    def __init__(self, mask: Mask) -> None:
        self.mask = mask
        self.count = int(np.count_nonzero(mask))
        self.partition_counts: NDArray[np.float64] | None = None  # kept for the segment with these rows

    @property
    def share(self) -> float:
        """The part of the segment's rows that may come back."""
        return self.count / max(len(self.mask), 1)

    @classmethod
    def without(cls, rows: int, dead: NDArray[np.int64]) -> Selection:
        """Return all rows but some."""
        mask = np.ones(rows, np.bool_)
        mask[dead] = False
        return cls(mask)

    def narrowed(self, mask: Mask) -> Selection:
        """Return the rows of this selection that are in the mask too."""
        return Selection(self.mask & mask)

    def sample(self, least: int) -> NDArray[np.int64]:
        """Return the numbers of at least so many of the rows, spread over all of them; of all where they are fewer."""
        step = max(step for step in _STEPS if step == 1 or step * least <= self.count)
        return np.flatnonzero(self.mask[::step]) * step

    @cached_property
    def positions(self) -> NDArray[np.int64]:
        """The rows' numbers, ascending."""
        return np.flatnonzero(self.mask)

    @cached_property
    def selector(self) -> Selector:
        """The form that the index library takes."""
        from pythiadb.index.library import Selector

        return Selector(np.packbits(self.mask, bitorder="little"))
