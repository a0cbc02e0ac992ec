"""Embedding in SQL against the best plain Python loop over the same model: `make bench-embed`.

The loop uses tokenizers and ONNX Runtime alone, with the same session settings, sorts by length and batches; its batch size is
chosen on the data beforehand, the fastest wins. Both run in turn, several rounds; ratios are taken within a round.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import pythiadb
from bench.common import database, machine, milliseconds, report, spread
from bench.plain import PlainLoop
from bench.stub_engine import stub
from examples.stdlib_corpus import collect

TEXTS = 2000
ROUNDS = 5
CALLS = 300
BATCH_SIZES = (4, 8, 16, 32, 64)
QUESTION = "how do I read a file line by line"


def insert_select(db: pythiadb.Connection) -> float:
    """Return the seconds of one INSERT … SELECT VECTOR_EMBEDDING over the table of texts."""
    db.execute("DROP TABLE IF EXISTS vectors; CREATE TABLE vectors (id int, v vector(384))")
    started = time.perf_counter()
    db.execute("INSERT INTO vectors SELECT id, VECTOR_EMBEDDING(minilm USING body AS data) FROM texts")
    return time.perf_counter() - started


def timed(action: Any) -> float:
    """Return the seconds that `action` takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def median_ms(action: Any) -> float:
    """Return the median duration of single calls."""
    return statistics.median(milliseconds(action, CALLS))


def measure(db: pythiadb.Connection, loop: PlainLoop, texts: list[str]) -> tuple[dict[str, Any], int]:
    """Return raw figures and the plain loop's best batch size."""
    best = min(
        BATCH_SIZES, key=lambda size: min(timed(lambda: loop.embed(texts[:600], size)) for _ in range(2))
    )
    raw: dict[str, Any] = {"plain_s": [], "sql_s": [], "plain_ms": [], "sql_ms": [], "stub_ms": []}
    for _ in range(ROUNDS):
        raw["plain_s"].append(timed(lambda: loop.embed(texts, best)))
        raw["sql_s"].append(insert_select(db))
    with stub(db):
        for _ in range(ROUNDS):
            raw["plain_ms"].append(median_ms(lambda: loop.embed([QUESTION], 1)))
            raw["stub_ms"].append(
                median_ms(
                    lambda: db.execute("SELECT stub_call('embed ' || %s)::vector", (QUESTION,)).fetchone()
                )
            )
            raw["sql_ms"].append(
                median_ms(lambda: db.execute("SELECT vector_embedding('minilm', %s)", (QUESTION,)).fetchone())
            )
    return raw, best


def check(db: pythiadb.Connection, loop: PlainLoop, texts: list[str], best: int) -> float:
    """Return the smallest cosine between the two ways: a fast wrong answer is no answer."""
    plain = loop.embed(texts, best)
    rows = db.execute("SELECT v FROM vectors ORDER BY id").fetchall()
    return float(min((plain[n] * row[0]).sum() for n, row in enumerate(rows)))


def main() -> None:
    """Measure and report."""
    facts = machine()
    texts = [f"{item.name}: {item.doc}" for item in collect()[1]][:TEXTS]
    loop = PlainLoop()
    with database() as db:
        db.execute("CREATE TABLE texts (id int PRIMARY KEY, body text)")
        db.cursor().executemany("INSERT INTO texts VALUES (%s, %s)", list(enumerate(texts)))
        db.execute("ANALYZE texts")
        raw, best = measure(db, loop, texts)
        raw["min_cosine"] = check(db, loop, texts, best)
    ratios = [p / s for p, s in zip(raw["plain_s"], raw["sql_s"], strict=True)]
    added = [s - p for p, s in zip(raw["plain_ms"], raw["sql_ms"], strict=True)]
    beyond = [s - p for p, s in zip(raw["stub_ms"], raw["sql_ms"], strict=True)]
    rows = [
        [f"plain loop, batches of {best}", "texts/s", spread([len(texts) / s for s in raw["plain_s"]]), ""],
        ["INSERT … SELECT VECTOR_EMBEDDING", "texts/s", spread([len(texts) / s for s in raw["sql_s"]]), ""],
        ["ratio", "", spread(ratios), "≥ 0.85"],
        ["one text, bare model call, p50", "ms", spread(raw["plain_ms"]), ""],
        ["one text, SQL, p50", "ms", spread(raw["sql_ms"]), ""],
        ["added by SQL", "ms", spread(added), "≤ 0.5"],
        ["one text, SQL to a bare stub that runs the model, p50", "ms", spread(raw["stub_ms"]), ""],
        ["added beyond the stub", "ms", spread(beyond), ""],
        ["smallest cosine between the two", "", f"{raw['min_cosine']:.6f}", "≥ 0.9999"],
    ]
    report(
        "embed",
        ["measure", "unit", f"median (range) of {ROUNDS}", "target"],
        rows,
        raw | {"texts": len(texts)},
        facts,
    )


if __name__ == "__main__":
    main()
