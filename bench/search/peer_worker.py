"""One peer in its own Python: `peer_worker.py PEER FOLDER` builds over base.npy, asks queries.npy, and prints JSON.

It needs numpy and the peer only. Cosine distance, ten rows, one query at a time, as the peer's own guide does it.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

K = 10
CHUNK = 5000
WARM = 20
Search = Callable[[Any], list[int]]
Settings = Iterator[tuple[str, Search]]


def sqlite_vec(base: Any, folder: Path) -> Settings:
    """Search exactly: sqlite-vec has no other way."""
    import sqlite_vec as extension  # type: ignore[import-not-found,unused-ignore]

    db = sqlite3.connect(folder / "vectors.db")
    db.enable_load_extension(True)
    extension.load(db)
    db.execute(f"CREATE VIRTUAL TABLE items USING vec0(v float[{base.shape[1]}] distance_metric=cosine)")
    with db:
        rows = ((n, vector.tobytes()) for n, vector in enumerate(base))
        db.executemany("INSERT INTO items(rowid, v) VALUES (?, ?)", rows)
    query = f"SELECT rowid FROM items WHERE v MATCH ? AND k = {K} ORDER BY distance"
    yield "exact", lambda q: [row[0] for row in db.execute(query, (q.tobytes(),))]


def duckdb(base: Any, _folder: Path) -> Settings:
    """Search the graph of the extension vss, M 16, ef_construction 64."""
    import duckdb as library  # type: ignore[import-not-found,unused-ignore]
    import duckdb_extension_vss as packaged  # type: ignore[import-not-found,unused-ignore]

    db = library.connect(config={"allow_unsigned_extensions": "true"})
    files = list(Path(packaged.__path__[0]).rglob("vss.duckdb_extension*"))
    db.execute(f"LOAD '{files[0]}'")
    width = base.shape[1]
    db.execute(f"CREATE TABLE items (id INTEGER, v FLOAT[{width}])")
    for start in range(0, len(base), CHUNK):
        part = base[start : start + CHUNK]
        frame = {"id": np.arange(start, start + len(part)), "v": part}
        db.execute(f"INSERT INTO items SELECT unnest($id), unnest($v)::FLOAT[{width}]", frame_lists(frame))
    db.execute(
        "CREATE INDEX items_v ON items USING HNSW (v) WITH (metric = 'cosine', M = 16, ef_construction = 64)"
    )
    query = f"SELECT id FROM items ORDER BY array_cosine_distance(v, ?::FLOAT[{width}]) LIMIT {K}"

    def search(q: Any) -> list[int]:
        return [row[0] for row in db.execute(query, [q.tolist()]).fetchall()]

    for ef in (64, 128, 256, 512, 1024):
        db.execute(f"SET hnsw_ef_search = {ef}")
        yield f"ef_search={ef}", search


def frame_lists(frame: dict[str, Any]) -> dict[str, Any]:
    """Return arrays as lists, which DuckDB takes as parameters."""
    return {name: values.tolist() for name, values in frame.items()}


def lancedb(base: Any, folder: Path) -> Settings:
    """Search partitions of product codes, rescored, as LanceDB's guide advises."""
    import lancedb as library  # type: ignore[import-not-found,unused-ignore]
    import pyarrow as pa  # type: ignore[import-not-found,unused-ignore]

    width = base.shape[1]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(base.reshape(-1)), width)
    table = library.connect(str(folder / "lance")).create_table(
        "items", pa.table({"id": np.arange(len(base)), "v": vectors})
    )
    table.create_index(
        metric="cosine",
        vector_column_name="v",
        num_partitions=round(len(base) ** 0.5),
        num_sub_vectors=width // 4,
    )

    def searching(probes: int, refine: int) -> Search:
        def search(q: Any) -> list[int]:
            found = table.search(q).distance_type("cosine").nprobes(probes).refine_factor(refine).limit(K)
            return found.select(["id"]).to_arrow()["id"].to_pylist()  # type: ignore[no-any-return]

        return search

    for probes, refine in ((10, 5), (20, 10), (40, 20), (80, 30), (160, 50)):
        yield f"nprobes={probes}, refine_factor={refine}", searching(probes, refine)


def chroma(base: Any, folder: Path) -> Settings:
    """Search Chroma's graph; ef_search is set when the collection is made, so each is a collection's reconfiguration."""
    import chromadb  # type: ignore[import-not-found,unused-ignore]

    client = chromadb.PersistentClient(path=str(folder / "chroma"))
    configuration = {
        "hnsw": {"space": "cosine", "max_neighbors": 16, "ef_construction": 64, "ef_search": 100}
    }
    collection = client.create_collection("items", configuration=configuration)
    for start in range(0, len(base), CHUNK):
        part = base[start : start + CHUNK]
        collection.add(ids=[str(n) for n in range(start, start + len(part))], embeddings=part)

    def search(q: Any) -> list[int]:
        return [int(n) for n in collection.query(query_embeddings=[q], n_results=K, include=[])["ids"][0]]

    for ef in (100, 200, 400, 800):
        collection.modify(configuration={"hnsw": {"ef_search": ef}})
        yield f"ef_search={ef}", search


PEERS: dict[str, tuple[str, Callable[[Any, Path], Settings]]] = {
    "sqlite-vec": ("sqlite-vec", sqlite_vec),
    "duckdb": ("duckdb", duckdb),
    "lancedb": ("lancedb", lancedb),
    "chroma": ("chromadb", chroma),
}


def ask(search: Search, queries: Any) -> dict[str, Any]:
    """Ask all queries; return answers and milliseconds."""
    for query in queries[:WARM]:
        search(query)
    answers, times = [], []
    for query in queries:
        started = time.perf_counter()
        answers.append(search(query))
        times.append((time.perf_counter() - started) * 1000)
    return {"answers": answers, "times": times}


def main() -> None:
    """Run one peer."""
    package, start = PEERS[sys.argv[1]]
    folder = Path(sys.argv[2])
    base, queries = np.load(folder / "base.npy"), np.load(folder / "queries.npy")
    started = time.perf_counter()
    settings = start(base, folder)
    found, build = [], None
    for name, search in settings:
        build = build if build is not None else time.perf_counter() - started
        found.append({"name": name, **ask(search, queries)})
    print(json.dumps({"build_s": build, "version": version(package), "settings": found}))


if __name__ == "__main__":
    main()
