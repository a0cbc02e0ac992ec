"""What a recommender must be better than to be worth its training: the mean rating of each item, and what everybody rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pythiadb.recommend.metrics import Positions

if TYPE_CHECKING:
    from pythiadb.recommend.ratings import Ratings


@dataclass(frozen=True, slots=True)
class ItemMean:
    """Predicts the mean of an item's training ratings; the mean of all for an item that has none, and for an unknown one."""

    means: NDArray[np.float32]  # [items]
    overall: float

    def predict(self, _users: NDArray[np.int32], items: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the rating of each pair [n], the same for all users; item -1 is unknown."""
        return np.where(items >= 0, self.means[items], np.float32(self.overall))

    def scores(self, users: Positions) -> NDArray[np.float32]:
        """Return the same scores for each user [b, items]."""
        return np.broadcast_to(self.means, (len(users), len(self.means)))


@dataclass(frozen=True, slots=True)
class Popularity:
    """Lists what has the most training ratings, whatever they say. It predicts no rating."""

    counts: NDArray[np.int64]  # [items]

    def scores(self, users: Positions) -> NDArray[np.int64]:
        """Return the same scores for each user [b, items]."""
        return np.broadcast_to(self.counts, (len(users), len(self.counts)))


def item_mean(ratings: Ratings, train: Positions) -> ItemMean:
    """Return the baseline of the ratings at the positions `train`, of which there is at least one."""
    items, values = ratings.items[train], ratings.values[train]
    counts = np.bincount(items, minlength=len(ratings.item_ids))
    totals = np.bincount(items, values, minlength=len(ratings.item_ids))
    overall = float(totals.sum() / counts.sum())
    means = np.divide(totals, counts, out=np.full(len(counts), overall), where=counts > 0)
    return ItemMean(means.astype(np.float32), overall)


def popularity(ratings: Ratings, train: Positions) -> Popularity:
    """Return the baseline of the ratings at the positions `train`."""
    return Popularity(np.bincount(ratings.items[train], minlength=len(ratings.item_ids)))
