"""What matrix factorization has learned, as plain numpy arrays, and the ratings that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pythiadb.errors import InvalidParameter

Floats = NDArray[np.float32]
_BLOCK = 1 << 16  # ratings predicted at once: bounds the vectors that are gathered for them

UNKNOWN = -1  # the position of a user or an item that the training did not see


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """rating = mean + bias of the user + bias of the item + dot product of their vectors, clipped to [lowest, highest].

    `user_bias` [u], `item_bias` [i], `user_vectors` [u, d], `item_vectors` [i, d], all float32. `mean` is the mean of the training
    ratings, `lowest` and `highest` their range. An unknown user or item, position -1, has the bias 0 and the vector 0.
    """

    mean: float
    lowest: float
    highest: float
    user_bias: Floats
    item_bias: Floats
    user_vectors: Floats
    item_vectors: Floats

    @property
    def users(self) -> int:
        """How many users there are."""
        return len(self.user_bias)

    @property
    def items(self) -> int:
        """How many items there are."""
        return len(self.item_bias)

    @property
    def dimensions(self) -> int:
        """How long the vectors are."""
        return int(self.item_vectors.shape[1])

    def predict(self, users: NDArray[Any], items: NDArray[Any]) -> Floats:
        """Return the ratings [n] of users [n] for items [n], both given as positions; one user or one item may stand for all.

        Raise InvalidParameter for a position that is neither -1 nor one of a user or item.
        """
        users, items = np.atleast_1d(users), np.atleast_1d(items)
        _check(users, self.users, "user")
        _check(items, self.items, "item")
        users, items = np.broadcast_arrays(users, items)
        found = np.empty(users.shape, np.float32)
        for start in range(0, len(found), _BLOCK):
            block = slice(start, start + _BLOCK)
            found[block] = self._predict(users[block], items[block])
        return found

    def scores(self, users: NDArray[Any]) -> Floats:
        """Return what users [b] would give to all items, [b, items], not clipped: for putting items in order."""
        users = np.atleast_1d(users)
        _check(users, self.users, "user")
        known = (users != UNKNOWN).astype(np.float32)
        vectors = self.user_vectors[users] * known[:, None]
        found: Floats = vectors @ self.item_vectors.T
        found += self.item_bias
        found += (self.user_bias[users] * known + np.float32(self.mean))[:, None]
        return found

    def _predict(self, users: NDArray[Any], items: NDArray[Any]) -> Floats:
        # Position -1 reads the last row; it is multiplied by 0.
        user_known = (users != UNKNOWN).astype(np.float32)
        item_known = (items != UNKNOWN).astype(np.float32)
        found: Floats = np.einsum("nd,nd->n", self.user_vectors[users], self.item_vectors[items])
        found *= user_known * item_known
        found += self.user_bias[users] * user_known
        found += self.item_bias[items] * item_known
        found += np.float32(self.mean)
        return np.clip(found, np.float32(self.lowest), np.float32(self.highest), out=found)


def _check(positions: NDArray[Any], count: int, kind: str) -> None:
    """Raise InvalidParameter unless all are -1 or below `count`."""
    if not len(positions):
        return
    if positions.min() < UNKNOWN or positions.max() >= count:
        outside = positions[(positions < UNKNOWN) | (positions >= count)][0]
        raise InvalidParameter(
            f"there is no {kind} at position {outside}",
            detail=f"There are {count:,} {kind}s, at the positions from 0; -1 stands for an unknown one.",
        )
