"""Ratings made from known vectors and biases, so that what is learned can be told from chance."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pythiadb.recommend.ratings import Ratings

NOISE = 0.3  # standard deviation that no model can explain


def low_rank(
    users: int = 300, items: int = 200, count: int = 12_000, *, rank: int = 2, seed: int = 0
) -> Ratings:
    """Return distinct pairs with ratings about 3.5 that biases explain in part and `rank` dimensions in larger part."""
    draw = np.random.default_rng(seed)
    pairs = draw.choice(users * items, count, replace=False)
    who, what = np.divmod(pairs, items)
    tastes, traits = draw.normal(0, 0.8, (users, rank)), draw.normal(0, 0.8, (items, rank))
    values = 3.5 + draw.normal(0, 0.4, users)[who] + draw.normal(0, 0.4, items)[what]
    values += (tastes[who] * traits[what]).sum(1) + draw.normal(0, NOISE, count)
    return Ratings(
        users=who.astype(np.int32),
        items=what.astype(np.int32),
        values=values.astype(np.float32),
        times=np.arange(count, dtype=np.int64),
        user_ids=pa.array(range(1, users + 1), pa.int64()),
        item_ids=pa.array([f"film {number:04}" for number in range(items)]),
        notes=("made from known vectors",),
    )
