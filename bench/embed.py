"""Embedding in SQL against the best plain Python loop over the same model: `make bench-embed`.

The loop uses tokenizers and ONNX Runtime alone, with the same session settings, sorts by length and batches; its batch size is
chosen on the data beforehand, the fastest wins. Both run in turn, several rounds; ratios are taken within a round.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

import pythiadb
from bench.common import MODEL, database, machine, milliseconds, report, spread
from examples.stdlib_corpus import collect
from pythiadb.models.folder import package_from_folder
from tools.fetch_models import fetch_minilm

TEXTS = 2000
ROUNDS = 5
CALLS = 300
BATCH_SIZES = (4, 8, 16, 32, 64)
QUESTION = "how do I read a file line by line"


class PlainLoop:
    """What a careful Python programmer writes without a database."""

    def __init__(self, folder: Path, graph: Path, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._names = [item.name for item in self._session.get_inputs()]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(256)

    def embed(self, texts: list[str], batch_size: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the embeddings in order."""
        encoded = [e.ids for e in self._tokenizer.encode_batch(texts)]
        order = sorted(range(len(texts)), key=lambda i: len(encoded[i]))
        vectors = np.empty((len(texts), 384), np.float32)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            ids = np.zeros((len(rows), len(encoded[rows[-1]])), np.int64)
            mask = np.zeros_like(ids)
            for n, row in enumerate(rows):
                ids[n, : len(encoded[row])] = encoded[row]
                mask[n, : len(encoded[row])] = 1
            feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            vectors[rows] = self._session.run(None, {name: feed[name] for name in self._names})[0]
        return vectors


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


def measure(db: pythiadb.Connection, loop: PlainLoop, texts: list[str]) -> tuple[dict[str, Any], int]:
    """Return raw figures and the plain loop's best batch size."""
    best = min(
        BATCH_SIZES, key=lambda size: min(timed(lambda: loop.embed(texts[:600], size)) for _ in range(2))
    )
    raw: dict[str, Any] = {"plain_s": [], "sql_s": [], "plain_ms": [], "sql_ms": []}
    for _ in range(ROUNDS):
        raw["plain_s"].append(timed(lambda: loop.embed(texts, best)))
        raw["sql_s"].append(insert_select(db))
    plain = db.cursor()
    single = "SELECT vector_embedding('minilm', %s)"
    for _ in range(ROUNDS):
        raw["plain_ms"].append(statistics.median(milliseconds(lambda: loop.embed([QUESTION], 1), CALLS)))
        raw["sql_ms"].append(
            statistics.median(milliseconds(lambda: plain.execute(single, (QUESTION,)).fetchone(), CALLS))
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
    folder = fetch_minilm(MODEL)
    with database() as db, TemporaryDirectory() as work:
        loop = PlainLoop(folder, package_from_folder(folder, Path(work)).files["model.onnx"], facts["cores"])
        db.execute("CREATE TABLE texts (id int PRIMARY KEY, body text)")
        db.cursor().executemany("INSERT INTO texts VALUES (%s, %s)", list(enumerate(texts)))
        db.execute("ANALYZE texts")
        raw, best = measure(db, loop, texts)
        raw["min_cosine"] = check(db, loop, texts, best)
    ratios = [p / s for p, s in zip(raw["plain_s"], raw["sql_s"], strict=True)]
    added = [s - p for p, s in zip(raw["plain_ms"], raw["sql_ms"], strict=True)]
    rows = [
        [f"plain loop, batches of {best}", "texts/s", spread([len(texts) / s for s in raw["plain_s"]]), ""],
        ["INSERT … SELECT VECTOR_EMBEDDING", "texts/s", spread([len(texts) / s for s in raw["sql_s"]]), ""],
        ["ratio", "", spread(ratios), "≥ 0.85"],
        ["one text, bare model call, p50", "ms", spread(raw["plain_ms"]), ""],
        ["one text, SQL, p50", "ms", spread(raw["sql_ms"]), ""],
        ["added by SQL", "ms", spread(added), "≤ 0.5"],
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
