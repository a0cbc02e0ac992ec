"""A user who came after the training, from a few of his ratings: his bias and vector by ridge regression over the items' vectors.

What training minimises, of a user u with n ratings r of items i, is

    Σ (r - mean - b_u - b_i - p_u · q_i)² + λ w √n (|p_u|² + 0.3 b_u²)

where w, the same for all users, is the number of ratings over the sum of all users' √n (loop.py). For one user whose items stay as they
are, that is ridge regression (Hoerl and Kennard, Technometrics 12, 1970) of y = r - mean - b_i on
the items' vectors and a constant 1, the step that alternating least squares take for each user (Zhou, Wilkinson, Schreiber and Pan,
"Large-scale parallel collaborative filtering for the Netflix Prize", 2008; there λ counts n times). With X [n, d + 1] of n ratings:

    (XᵀX + λ w √n B + D) [p_u, b_u] = Xᵀ y

B is the identity, but 0.3 in the place of the bias.

D stands for the dropout of the training, which on average adds ((1 - kept) / kept) Σ q_ik² to the k-th place of the diagonal, kept being the
share of products that are not left out (Srivastava and others, "Dropout", JMLR 15, 2014, section 9.1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pythiadb.errors import InvalidParameter
from pythiadb.postgres.recommender_store import RecommenderStore, Scale
from pythiadb.recommend.recommending import check_user_id
from pythiadb.recommend.training import BIAS_PENALTY

if TYPE_CHECKING:
    from pythiadb.postgres.session import Connection

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FoldedIn:
    """A user who was folded in: his bias, how many ratings counted, and the items that the recommender does not know."""

    bias: float
    used: int
    ignored: tuple[Any, ...]


def fold_in(
    connection: Connection,
    name: str,
    user_id: Any,
    ratings: Mapping[Any, float],
    *,
    regularization: float | None = None,
) -> FoldedIn:
    """Learn a new user of recommender `name` from his ratings by item id, and write him into `name`_users, without an idx.

    for_user() serves him like the others; the model itself does not know him. A user who was folded in before is written anew. Without
    `regularization`, λ is that of the training. Items that the recommender does not know are left out.

    Raise InvalidParameter for a user of the training, for a rating that is no number or outside the range of the training ratings,
    and when no item is known or one is rated twice; psycopg.errors.UndefinedObject when there is no such model, InsufficientPrivilege for roles that may not
    write the table.
    """
    check_user_id(user_id)
    if regularization is not None and not 0 <= regularization < math.inf:
        raise InvalidParameter(f"regularization must be 0 or more, not {regularization}")
    with connection.transaction():
        store = RecommenderStore.find(connection, name)
        store.hold()
        scale = store.scale()
        _check(ratings, scale)
        known = store.items(ratings)
        if not known:
            raise InvalidParameter(
                f'none of the {len(ratings)} rated items is known to recommender "{name}"',
                hint=f"The items that it knows: SELECT id FROM {store.name('items')};",
            )
        places, biases, vectors = zip(*known, strict=True)
        ids, values = list(ratings), np.array(list(ratings.values()), np.float64)
        residuals = values[list(places)] - scale.mean - np.array(biases)
        strength = scale.regularization if regularization is None else regularization
        penalty = strength * scale.user_weight * math.sqrt(len(known))
        bias, vector = solve(np.stack(vectors), residuals, penalty, scale.dropout)
        if not store.put_user(user_id, bias, vector):
            raise InvalidParameter(
                f'user {user_id} is one of the training of recommender "{name}"',
                detail="The model has learned him; his new ratings count when it is trained again.",
            )
    ignored = set(range(len(ids))) - set(places)
    return FoldedIn(bias, len(known), tuple(ids[place] for place in sorted(ignored)))


def solve(
    vectors: Floats, residuals: NDArray[np.float64], penalty: float, dropout: float
) -> tuple[float, Floats]:
    """Return the bias and the vector [d] of a user, from the vectors [n, d] of the items that he rated and what is left to explain [n].

    `residuals` are his ratings less the mean and the items' biases; `penalty` is λ w √n.
    """
    x = np.column_stack([vectors, np.ones(len(vectors))]).astype(np.float64)
    kept = (1 - dropout) ** 2  # a component counts when neither of the two vectors leaves it out
    diagonal = penalty + (1 - kept) / kept * np.square(x).sum(axis=0)
    diagonal[-1] = BIAS_PENALTY * penalty  # biases are never left out
    # Least squares take the smallest solution where there is no penalty and there are several.
    found = np.linalg.lstsq(x.T @ x + np.diag(diagonal), x.T @ residuals)[0]
    return float(found[-1]), found[:-1].astype(np.float32)


def _check(ratings: Mapping[Any, float], scale: Scale) -> None:
    if not ratings:
        raise InvalidParameter("a user cannot be folded in without ratings")
    texts = [str(item) for item in ratings]
    if len(set(texts)) < len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise InvalidParameter(
            f"item {twice} is rated twice", detail="Ids are compared as text: 1 and '1' are one item."
        )
    for item, value in ratings.items():
        if not _between(value, scale.lowest, scale.highest):
            raise InvalidParameter(
                f"rating {value!r} of item {item} is none of the recommender's",
                detail=f"It was trained on ratings from {scale.lowest:g} to {scale.highest:g}.",
            )


def _between(value: Any, lowest: float, highest: float) -> bool:
    try:
        return lowest <= float(value) <= highest
    except (TypeError, ValueError):
        return False
