"""Scoring a million rows in one SELECT against bare ONNX Runtime over the same rows in numpy: `make bench-score`.

Two models: a random forest of 100 trees over ten numeric columns, and a two-input recommender (two embedding tables, dot
product, biases). Both ways run in turn, several rounds; ratios are taken within a round, sums of the answers are compared.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from skl2onnx import to_onnx
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier

import pythiadb
from bench.common import database, machine, report, spread
from pythiadb.recommend.export import METADATA, onnx_model
from pythiadb.recommend.factors import Factors

ROWS = 1_000_000
COLUMNS = [f"f{n}" for n in range(10)]
TRAINING = 10_000
ROUNDS = 3
BATCH = 65_536  # rows a run of the bare loop: the fastest of 1024, 8192, 65536 and all at once
USERS, ITEMS, DIMENSIONS = 10_000, 5_000, 64


@dataclass(frozen=True)
class Case:
    """One model with its rows: tensors for the bare loop, columns of a table for SQL."""

    name: str
    graph: bytes
    metadata: dict[str, Any]
    feed: dict[str, NDArray[Any]]
    output: str
    columns: dict[str, NDArray[Any]]
    sql_type: str
    target: float

    @property
    def query(self) -> str:
        """One SELECT that scores every row and adds the answers up, so that none can be left out."""
        attributes = ", ".join(f'{name} AS "{name.upper()}"' for name in self.columns)
        return f"SELECT sum(p) FROM (SELECT PREDICTION({self.name} USING {attributes}) AS p FROM {self.name}_rows) s"


def forest() -> Case:
    """Train a forest on synthetic data; score a million other rows of the same distribution."""
    x, y = make_classification(ROWS + TRAINING, len(COLUMNS), n_informative=8, n_redundant=2, random_state=0)
    x = x.astype(np.float32)
    model = RandomForestClassifier(100, random_state=0, n_jobs=-1).fit(x[ROWS:], y[ROWS:])
    graph = to_onnx(model, x[:1], options={"zipmap": False}).SerializeToString()
    metadata = {
        "function": "classification",
        "classificationProbOutput": "probabilities",
        "labels": [0, 1],
        "input": {"X": [name.upper() for name in COLUMNS]},
    }
    columns = {name: x[:ROWS, n] for n, name in enumerate(COLUMNS)}
    return Case("forest", graph, metadata, {"X": x[:ROWS]}, "label", columns, "real", 0.5)


def recommender() -> Case:
    """A recommender with random weights; score a million pairs of a user and an item."""
    random = np.random.default_rng(0)
    columns = {"user_idx": random.integers(0, USERS, ROWS), "movie_idx": random.integers(0, ITEMS, ROWS)}
    feed = {
        "user_input": columns["user_idx"].reshape(-1, 1),
        "movie_input": columns["movie_idx"].reshape(-1, 1),
    }
    return Case("recommender", recommender_graph(), METADATA, feed, "rating", columns, "integer", 0.2)


def recommender_graph() -> bytes:
    """Return the graph of a recommender that has learned nothing: random biases and vectors."""
    random = np.random.default_rng(1)
    shapes = ((USERS,), (ITEMS,), (USERS, DIMENSIONS), (ITEMS, DIMENSIONS))
    weights = (random.normal(0, 0.3, shape).astype(np.float32) for shape in shapes)
    return onnx_model(Factors(3.5, 1.0, 5.0, *weights))


def bare(case: Case, session: ort.InferenceSession) -> tuple[float, float]:
    """Return the seconds of scoring all rows out of numpy, and the sum of the answers."""
    started = time.perf_counter()
    total = 0.0
    for start in range(0, ROWS, BATCH):
        feed = {name: values[start : start + BATCH] for name, values in case.feed.items()}
        total += float(session.run([case.output], feed)[0].astype(np.float64).sum())
    return time.perf_counter() - started, total


def fill(db: pythiadb.Connection, case: Case) -> None:
    """Load the model and its rows."""
    db.execute(
        "CALL dbms_vector.load_onnx_model(%s, %b, %s)", (case.name, case.graph, json.dumps(case.metadata))
    )
    definitions = ", ".join(f"{name} {case.sql_type}" for name in case.columns)
    db.execute(f"CREATE TABLE {case.name}_rows ({definitions})")
    with db.cursor() as cursor, cursor.copy(f"COPY {case.name}_rows FROM STDIN") as copy:
        for row in zip(*(values.tolist() for values in case.columns.values()), strict=True):
            copy.write_row(row)
    db.execute(f"VACUUM ANALYZE {case.name}_rows")


def measure(db: pythiadb.Connection, case: Case) -> dict[str, list[float]]:
    """Return seconds of both ways by round; raise when the answers differ."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(case.graph, options, providers=["CPUExecutionProvider"])
    fill(db, case)
    raw: dict[str, list[float]] = {"bare_s": [], "sql_s": []}
    for _ in range(ROUNDS):
        seconds, expected = bare(case, session)
        raw["bare_s"].append(seconds)
        started = time.perf_counter()
        row = db.execute(case.query).fetchone()
        raw["sql_s"].append(time.perf_counter() - started)
        assert row is not None
        assert abs(float(row[0]) - expected) <= 1e-6 * max(1.0, abs(expected)), (row[0], expected)
    return raw


def main() -> None:
    """Measure and report."""
    facts = machine()
    rows, raw = [], {}
    for case in (forest(), recommender()):
        with database() as db:
            found = raw[case.name] = measure(db, case)
        ratios = [b / s for b, s in zip(found["bare_s"], found["sql_s"], strict=True)]
        rows += [
            [f"{case.name}: bare ONNX Runtime", "rows/s", spread([ROWS / s for s in found["bare_s"]]), ""],
            [f"{case.name}: one SELECT", "rows/s", spread([ROWS / s for s in found["sql_s"]]), ""],
            [f"{case.name}: ratio", "", spread(ratios), f"≥ {case.target}"],
        ]
    report("score", ["measure", "unit", f"median (range) of {ROUNDS}", "target"], rows, raw, facts)


if __name__ == "__main__":
    main()
