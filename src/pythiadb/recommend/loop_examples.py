"""Ratings as the training loop takes them: on its device, and in a unit of their own, so that their scale does not matter.

Likes of 0 and 1, five stars, percents and hours are the same to the loop: of every rating it takes

    (rating - mean) / size          size = σ / STANDARD

σ being the standard deviation of the training ratings. Without that, the scale would decide what is learned. In ratings c times as large
errors grow by c², and so do the squares of biases, but the squared length of vectors, whose product is a rating, only by c. So one penalty
would hold small ratings' vectors too tightly, down to nothing, and large ones' too loosely; and steps of one length (those of Adam have about
the length of the learning rate) would be too long or too short.

With p' and q', the vectors learned in the unit, size · p' · q' is the rating in its own units. The size goes into the user's vector and the
items' stay as they are: size² times what was minimised in the unit is then, for a user,

    Σ (r - mean - b_u - b_i - p_u · q_i)² + λ w √n (|p_u|² + 0.3 b_u²)

so that one who is folded in later needs to know nothing of the unit (folding.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pythiadb.recommend.ratings import Ratings

# The standard deviation that ratings are brought to: that of MovieLens 100k without the tenth held out, on which the settings' defaults were
# found.
STANDARD = 1.1253


@dataclass(frozen=True, slots=True)
class Unit:
    """What ratings are measured in, and from where: the mean and the range of the training ratings in their own units, the unit's size."""

    mean: float
    lowest: float
    highest: float
    size: float

    @classmethod
    def of(cls, values: Tensor) -> Unit:
        """Return the unit of training ratings. Ratings that are all alike have none of their own."""
        mean = float(values.mean(dtype=torch.float64))
        lowest, highest = float(values.min()), float(values.max())
        # Of equal ratings the deviation may be a rounding error instead of 0.
        size = float(values.std(correction=0)) / STANDARD if lowest < highest else 1.0
        return cls(mean, lowest, highest, size)

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest training rating, in the unit."""
        return (self.lowest - self.mean) / self.size, (self.highest - self.mean) / self.size


@dataclass(frozen=True, slots=True)
class Examples:
    """Ratings on the device: positions of users and items [n] int32, values [n] float32."""

    users: Tensor
    items: Tensor
    values: Tensor

    @classmethod
    def of(cls, ratings: Ratings, positions: NDArray[np.int64], device: torch.device) -> Examples:
        """Copy the ratings at `positions` to a device."""
        arrays = (ratings.users, ratings.items, ratings.values)
        return cls(*(torch.from_numpy(array[positions]).to(device) for array in arrays))

    def measure(self, unit: Unit) -> None:
        """Bring the values to a unit, in their place: for many ratings a copy would be large."""
        self.values.sub_(unit.mean).div_(unit.size)

    def take(self, chosen: Tensor) -> Examples:
        """Return some of them."""
        return Examples(self.users[chosen], self.items[chosen], self.values[chosen])

    def blocks(self, rows: int) -> Iterator[Examples]:
        """Yield all of them in parts."""
        for start in range(0, len(self), rows):
            part = slice(start, start + rows)
            yield Examples(self.users[part], self.items[part], self.values[part])

    def __len__(self) -> int:
        return len(self.values)
