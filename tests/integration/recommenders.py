"""Recommenders that nothing had to be trained for, and a table of movies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import pythiadb
from pythiadb.recommend.training import Settings, Trained
from tests.unit.models.small_models import random_factors

MOVIES = [
    ("Apocalypse Now (1979)", 1979, "Drama|War"), ("Toy Story (1995)", 1995, "Animation|Children's|Comedy"),
    ("Fargo (1996)", 1996, "Crime|Drama|Thriller"), ("Aladdin (1992)", 1992, "Animation|Children's|Comedy|Musical"),
    ("Alien (1979)", 1979, "Action|Horror|Sci-Fi|Thriller"), ("Babe (1995)", 1995, "Children's|Comedy|Drama"),
    ("Blade Runner (1982)", 1982, "Film-Noir|Sci-Fi"), ("Brazil (1985)", 1985, "Sci-Fi"),
    ("Casablanca (1942)", 1942, "Drama|Romance|War"), ("Clueless (1995)", 1995, "Comedy"),
    ("Crumb (1994)", 1994, "Documentary"), ("Heat (1995)", 1995, "Action|Crime|Thriller"),
    ("It's \"100%\" (1993)", 1993, "Comedy"), ("Mulholland Falls (1996)", 1996, "Crime|Film-Noir|Thriller"),
]  # fmt: skip
USERS = 6
DIMENSIONS = 8


def recommender(
    seed: int = 0,
    *,
    user_ids: Sequence[Any] | None = None,
    item_ids: Sequence[Any] | None = None,
    dimensions: int = DIMENSIONS,
) -> Trained:
    """Return a recommender with random weights, as training gives one; ids are 101, 102, … for users and 1, 2, … for items."""
    users = list(range(101, 101 + USERS)) if user_ids is None else list(user_ids)
    items = list(range(1, 1 + len(MOVIES))) if item_ids is None else list(item_ids)
    return Trained(
        factors=random_factors(len(users), len(items), dimensions, seed),
        user_ids=pa.array(users),
        item_ids=pa.array(items),
        settings=Settings(dimensions=dimensions),
        history=(),
        best_epoch=0,
        notes=(),
        user_weight=3.0,
        fingerprint="",
    )


def make_movies(db: pythiadb.Connection, *, key: str = "integer", ids: Sequence[Any] | None = None) -> None:
    """Create the table movies with a row for each of MOVIES, by default numbered from 1."""
    db.execute(
        f"CREATE TABLE movies (movieid {key} PRIMARY KEY, title text, year integer, genres text)".encode()
    )
    numbers = range(1, len(MOVIES) + 1) if ids is None else ids
    with db.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO movies VALUES (:1, :2, :3, :4)",
            [(number, *movie) for number, movie in zip(numbers, MOVIES, strict=True)],
        )


def predicted(trained: Trained) -> NDArray[np.float32]:
    """Return the ratings of all users for all items, [users, items], before they are clipped to the range."""
    return trained.factors.scores(np.arange(trained.factors.users))
