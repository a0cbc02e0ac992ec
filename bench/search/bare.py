"""The libraries without a database, one thread and no SQL: the limit that a search through SQL is held against."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from bench.search.clients import Asked
from bench.search.data import Vectors

PROBES = (
    (5, 10),
    (10, 10),
    (20, 20),
    (40, 30),
    (80, 50),
    (150, 80),
    (300, 100),
)  # partitions, candidates ÷ k
EF_SEARCH = (40, 80, 160, 320, 640)
THREADS = 2


@dataclass(frozen=True)
class Bare:
    """A built index: its name, the seconds that it took, and a search for each setting, the cheapest first."""

    name: str
    seconds: float
    settings: tuple[tuple[str, Asked], ...]


def partitions(base: Vectors, k: int = 10) -> Bare:
    """Build partitions of 4-bit product codes whose best candidates are compared exactly."""
    count, width = base.shape
    cells = round(float(np.sqrt(count)))
    started = time.perf_counter()
    faiss.omp_set_num_threads(THREADS)
    index: Any = faiss.index_factory(
        width,
        f"IVF{cells},PQ{width // 2 if width < 200 else width // 4}x4fs,RFlat",
        faiss.METRIC_INNER_PRODUCT,
    )
    index.train(base[:: max(1, count // (cells * 200))])
    index.add(base)
    seconds = time.perf_counter() - started
    faiss.omp_set_num_threads(1)
    coarse = faiss.extract_index_ivf(index.base_index)

    def searching(probes: int, factor: int) -> Asked:
        def search(query: Vectors) -> list[int]:
            coarse.nprobe, index.k_factor = probes, factor
            return index.search(query[None], k)[1][0].tolist()  # type: ignore[no-any-return]

        return search

    settings = tuple((f"{p} of {cells} partitions, {f * k} rescored", searching(p, f)) for p, f in PROBES)
    return Bare("bare faiss, partitions", seconds, settings)


def graph(base: Vectors, k: int = 10) -> Bare:
    """Build a graph of 16 neighbours a row, ef_construction 64."""
    started = time.perf_counter()
    faiss.omp_set_num_threads(THREADS)
    index: Any = faiss.IndexHNSWFlat(base.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 64
    index.add(base)
    seconds = time.perf_counter() - started
    faiss.omp_set_num_threads(1)

    def searching(ef: int) -> Asked:
        def search(query: Vectors) -> list[int]:
            index.hnsw.efSearch = ef
            return index.search(query[None], k)[1][0].tolist()  # type: ignore[no-any-return]

        return search

    return Bare("bare faiss, graph", seconds, tuple((f"efsearch={ef}", searching(ef)) for ef in EF_SEARCH))


def exact(base: Vectors, k: int = 10) -> Bare:
    """Compare every row."""
    index: Any = faiss.IndexFlatIP(base.shape[1])
    index.add(base)
    return Bare("bare faiss, every row", 0.0, (("", lambda q: index.search(q[None], k)[1][0].tolist()),))
