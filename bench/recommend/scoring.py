"""One user and ten thousand items in SQL: by the model, PREDICTION, and by the vectors; beside bare ONNX Runtime and bare numpy.

Every way scores all items for a user and gives the ten best; each call is another user's. The ways take turns, and must give the same
ratings.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import onnxruntime as ort
import pyarrow as pa

import pythiadb
from bench.common import database, machine, milliseconds, percentile, report
from pythiadb.recommend import deploy, for_user
from pythiadb.recommend.export import onnx_model
from pythiadb.recommend.factors import Factors
from pythiadb.recommend.metrics import best
from pythiadb.recommend.training import Settings, Trained

USERS, ITEMS, DIMENSIONS = 1000, 10_000, 64
CALLS = 200
TURN = 20  # calls of one way before the next one's turn
WARM = 5
TARGET = 50.0  # milliseconds
COUNT = 10
COLUMNS = ["way", "p50 ms", "p95 ms", "target"]
BY_MODEL = f"""
SELECT i.id, PREDICTION(cf_recommender USING {{index}} AS "USER_IDX", i.idx AS "MOVIE_IDX") AS rating
FROM cf_recommender_items i{{join}}
ORDER BY rating DESC, i.id FETCH FIRST {COUNT} ROWS ONLY
"""
BY_MODEL_JOINED = BY_MODEL.format(index="u.idx", join=" JOIN cf_recommender_users u ON u.id = %s")
BY_VECTORS = f"""
SELECT i.id, i.bias + u.bias - (i.embedding <#> u.embedding) AS rating
FROM cf_recommender_items i JOIN cf_recommender_users u ON u.id = %s
ORDER BY rating DESC, i.id FETCH FIRST {COUNT} ROWS ONLY
"""
Way = Callable[[int], list[float]]  # a user to the ratings of the ten best, less the mean


def measure(calls: int) -> None:
    """Print and keep the table."""
    facts = machine()
    trained = _made()
    raw: dict[str, list[float]] = {}
    with database() as db:
        deploy(db, trained, "cf_recommender")
        db.execute("ANALYZE")
        ways = _ways(db, trained.factors)
        _check(ways)
        for first in range(0, calls, TURN):
            for name, way in ways.items():
                users = range(first, min(first + TURN, calls))
                raw.setdefault(name, []).extend(_turn(way, users))
    rows = [
        [
            name,
            f"{percentile(times, 0.5):.2f}",
            f"{percentile(times, 0.95):.2f}",
            f"≤ {TARGET:g}" if "SQL" in name else "",
        ]
        for name, times in raw.items()
    ]
    report("recommend-scoring", COLUMNS, rows, raw, facts)


def _turn(way: Way, users: Iterable[int]) -> list[float]:
    """Return the milliseconds of each user's call."""
    return [milliseconds(partial(way, user), 1)[0] for user in users]


def _made() -> Trained:
    """Return a recommender of random weights: how long it takes does not depend on them."""
    draw = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return draw.normal(0, 0.1, shape).astype(np.float32)

    factors = Factors(
        3.0, 0.5, 5.0, normal(USERS), normal(ITEMS), normal(USERS, DIMENSIONS), normal(ITEMS, DIMENSIONS)
    )
    users, items = (pa.array(range(count), pa.int64()) for count in (USERS, ITEMS))
    return Trained(factors, users, items, Settings(dimensions=DIMENSIONS), (), 0, (), 1.0, "")


def _ways(db: pythiadb.Connection, factors: Factors) -> dict[str, Way]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = ort.InferenceSession(onnx_model(factors), options, providers=["CPUExecutionProvider"])
    items = np.arange(ITEMS, dtype=np.int64).reshape(-1, 1)

    def by_runtime(user: int) -> list[float]:
        feed = {"user_input": np.full_like(items, user), "movie_input": items}
        return _best(session.run(["rating"], feed)[0][:, 0] - factors.mean)

    def by_statement(statement: str, less: float) -> Way:
        return lambda user: [float(row[1]) - less for row in db.execute(statement, (user,)).fetchall()]

    def by_index(user: int) -> list[float]:
        """Ask with the user's index as a parameter, which is looked up before."""
        row = db.execute("SELECT idx FROM cf_recommender_users WHERE id = %s", (user,)).fetchone()
        assert row is not None
        return by_statement(BY_MODEL.format(index="%s", join=""), factors.mean)(row[0])

    return {
        "PREDICTION in SQL": by_index,
        "PREDICTION in SQL, joined with the users": by_statement(BY_MODEL_JOINED, factors.mean),
        "dot product in SQL": by_statement(BY_VECTORS, 0),
        "for_user(), SQL of the library": lambda user: [
            row.rating - factors.mean for row in for_user(db, "cf_recommender", user, count=COUNT)
        ],
        "bare ONNX Runtime": by_runtime,
        "bare numpy": lambda user: _best(factors.scores(np.array([user]))[0] - factors.mean),
    }


def _best(ratings: Any) -> list[float]:
    return ratings[best(ratings[np.newaxis], COUNT)[0]].tolist()  # type: ignore[no-any-return]


def _check(ways: dict[str, Way]) -> None:
    """Warm every way, and raise AssertionError where one gives other ratings than the last: a fast wrong answer is no answer."""
    for user in range(WARM):
        found = [way(user) for way in ways.values()]
        for ratings in found:
            np.testing.assert_allclose(ratings, found[-1], atol=1e-4)
