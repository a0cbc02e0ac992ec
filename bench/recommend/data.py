"""The ratings that are learned from: MovieLens 100k, fetched, and files in MovieLens' format of any size, made by rule."""

from __future__ import annotations

from pathlib import Path

from bench.common import REPOSITORY
from bench.ratings_file import MOVIES, RATINGS, USERS, write_ratings
from pythiadb.recommend.files import replacing
from pythiadb.recommend.ratings import Ratings, read_ratings
from tools.fetch_data import fetch_movielens

CACHE = REPOSITORY / ".cache" / "data"


def movielens() -> Ratings:
    """Return MovieLens 100k: 943 users, 1,682 items."""
    return read_ratings(fetch_movielens(CACHE) / "ratings.csv")


def ratings_file(count: int) -> Path:
    """Return a file of so many ratings, made when it is not there; users and movies are in MovieLens 32M's proportion to them."""
    file = CACHE / f"ratings-{count}.csv"
    if not file.exists():
        with replacing(file) as draft:
            write_ratings(draft, count, round(USERS * count / RATINGS), round(MOVIES * count / RATINGS))
    return file


def generated(count: int) -> Ratings:
    """Return the ratings of such a file."""
    return read_ratings(ratings_file(count))
