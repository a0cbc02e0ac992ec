"""A ratings.csv in MovieLens's format and of MovieLens 32M's size, made by rule: `python -m bench.ratings_file FILE [--ratings N]`.

Popularity falls as Zipf found it, users have from 20 ratings to thousands, and the ratings follow a hidden model of low rank with
noise, so that something can be learned. The same seed writes the same file. Written in blocks of users: memory stays small.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

RATINGS, USERS, MOVIES = 32_000_204, 200_948, 84_432  # of MovieLens 32M
_FEWEST = 20  # ratings of a user
_LARGEST_ID = 292_757  # of a movie
_BLOCK = 4_000  # users
_FIRST, _LAST = 789_652_009, 1_697_164_147  # seconds since 1970
_STARS = pa.array([f"{half / 2}" for half in range(11)])
_SCHEMA = pa.schema(
    [("userId", pa.int32()), ("movieId", pa.int32()), ("rating", pa.string()), ("timestamp", pa.int64())]
)


@dataclass(frozen=True, slots=True)
class Hidden:
    """What the ratings are made from."""

    ids: NDArray[np.int32]  # [movies] ascending
    reach: NDArray[np.float64]  # [movies] the chance that one of the movies up to this one is rated
    user_bias: NDArray[np.float32]
    movie_bias: NDArray[np.float32]
    user_vectors: NDArray[np.float32]  # [users, 8]
    movie_vectors: NDArray[np.float32]
    starts: NDArray[np.int64]  # [users] time of the first rating


def write_ratings(
    path: Path, ratings: int = RATINGS, users: int = USERS, movies: int = MOVIES, seed: int = 0
) -> None:
    """Write the file. Every movie is rated, each user rates a movie once, rows are sorted by user and movie.

    Raises ValueError for numbers that do not go together.
    """
    fewest, most = max(_FEWEST * users, movies), movies // 2 * users
    if not fewest <= ratings <= most or movies > _LARGEST_ID:
        raise ValueError(f"{users} users cannot have {ratings} ratings of {movies} movies")
    rng = np.random.default_rng(seed)
    hidden = _hidden(rng, users, movies)
    counts = _counts(rng, ratings, users, movies // 2)
    # Who rates a movie in any case: as many different ratings as there are movies.
    finders = np.searchsorted(np.cumsum(counts), rng.choice(ratings, movies, replace=False), side="right")
    with path.open("wb") as file:
        file.write(b"userId,movieId,rating,timestamp\n")
        with csv.CSVWriter(
            file, _SCHEMA, write_options=csv.WriteOptions(include_header=False, quoting_style="none")
        ) as writer:
            for batch in _batches(rng, hidden, counts, finders):
                writer.write(batch)


def _hidden(rng: np.random.Generator, users: int, movies: int) -> Hidden:
    popularity = rng.permutation((np.arange(movies) + 60.0) ** -1.1)
    popularity = 0.97 * popularity / popularity.sum() + 0.03 / movies
    return Hidden(
        np.sort(rng.choice(_LARGEST_ID, movies, replace=False).astype(np.int32)) + np.int32(1),
        np.cumsum(popularity),
        rng.normal(0, 0.43, users).astype(np.float32),
        rng.normal(0, 0.5, movies).astype(np.float32),
        rng.normal(0, 0.4, (users, 8)).astype(np.float32),
        rng.normal(0, 0.4, (movies, 8)).astype(np.float32),
        rng.integers(_FIRST, _LAST, users),
    )


def _counts(rng: np.random.Generator, ratings: int, users: int, most: int) -> NDArray[np.int64]:
    """Return how many ratings each user has: log-normal above the fewest, `ratings` in all."""
    weights = rng.lognormal(0, 1.5, users)
    extra = weights * ((ratings - _FEWEST * users) / weights.sum())
    counts: NDArray[np.int64] = np.minimum(_FEWEST + extra.astype(np.int64), most)
    while missing := ratings - int(counts.sum()):
        open_to_more = np.flatnonzero(counts < most)
        counts[rng.choice(open_to_more, min(missing, len(open_to_more)), replace=False)] += 1
    return counts


def _batches(
    rng: np.random.Generator, hidden: Hidden, counts: NDArray[np.int64], finders: NDArray[np.int64]
) -> Iterator[pa.RecordBatch]:
    movies = len(hidden.ids)
    for first in range(0, len(counts), _BLOCK):
        block = counts[first : first + _BLOCK]
        found = np.flatnonzero((finders >= first) & (finders < first + len(block)))
        pairs = _pairs(rng, hidden.reach, block, np.sort((finders[found] - first) * movies + found))
        users, rated = pairs // movies + first, pairs % movies
        score = np.einsum("nd,nd->n", hidden.user_vectors[users], hidden.movie_vectors[rated])
        score += 3.5 + hidden.user_bias[users] + hidden.movie_bias[rated]
        score += rng.normal(0, 0.75, len(pairs)).astype(np.float32)
        halves = np.clip(np.rint(score * 2), 1, 10).astype(np.int32)
        times = hidden.starts[users] + rng.exponential(30 * 86_400, len(pairs)).astype(np.int64)
        yield pa.record_batch(
            [users.astype(np.int32) + np.int32(1), hidden.ids[rated], _STARS.take(pa.array(halves)), times],
            schema=_SCHEMA,
        )


def _pairs(
    rng: np.random.Generator, reach: NDArray[np.float64], counts: NDArray[np.int64], pairs: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return `user * movies + movie` of a block's ratings, ascending; `pairs` are those that must be among them."""
    movies = len(reach)
    popular_rounds = 6  # then any movie will do: the popular ones are taken
    while (lacking := counts - np.bincount(pairs // movies, minlength=len(counts))).any():
        users = np.repeat(np.arange(len(counts)), lacking)
        if popular_rounds > 0:
            drawn = np.minimum(np.searchsorted(reach, rng.random(len(users))), movies - 1)
        else:
            drawn = rng.integers(movies, size=len(users))
        popular_rounds -= 1
        pairs = np.concatenate([pairs, users * movies + drawn])
        pairs.sort()  # numpy's own unique() hashes these numbers, and is slow on them
        pairs = pairs[np.concatenate(([True], pairs[1:] != pairs[:-1]))]
    return pairs


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path)
    for name, value in (("ratings", RATINGS), ("users", USERS), ("movies", MOVIES), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=value, metavar="N")
    given = parser.parse_args()
    write_ratings(given.file, given.ratings, given.users, given.movies, given.seed)


if __name__ == "__main__":
    main()
